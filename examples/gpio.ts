/**
 * A GPIO chip of which one line is a button, pressed once a second, and another a lamp, which the guest switches.
 *
 *     deno run --allow-ffi examples/gpio.ts
 *
 * and the socket is `/tmp/gpio.sock`, for `-device vhost-user-gpio-pci`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { GpioDevice, GpioLines } from "@vhost/user/devices/gpio";

// A button that is pressed once a second, and a lamp that the guest switches.
const lines = new GpioLines(["button", "lamp"]);
lines.onChange = (line, level) => console.log(`${lines.names[line]}: ${level}`);
setInterval(() => lines.set(0, lines.value(0) === 0), 500);

await serve(new GpioDevice({ chip: lines }), { socketPath: "/tmp/gpio.sock" });
