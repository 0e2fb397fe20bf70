import { serve } from "@vhost/user";
import { GpioDevice, GpioLines } from "@vhost/user/devices/gpio";

// A button that is pressed once a second, and a lamp that the guest switches.
const lines = new GpioLines(["button", "lamp"]);
lines.onChange = (line, level) => console.log(`${lines.names[line]}: ${level}`);
setInterval(() => lines.set(0, lines.value(0) === 0), 500);

await serve(new GpioDevice({ chip: lines }), { socketPath: "/tmp/gpio.sock" });
