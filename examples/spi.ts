import { serve } from "@vhost/user";
import { SimulatedSpiBus, SpiDevice, SpiFlash, type SpiPart } from "@vhost/user/devices/spi";

// A part of your own at chip select 1: it gives back what it got, one byte later.
const delay: SpiPart = { transfer: (output, input) => input.set(output.subarray(0, -1), 1) };

const flash = new SpiFlash({ size: 1 << 20, onWrite: (at, length) => console.log("written:", at, length) });
const bus = new SimulatedSpiBus([flash, delay]);
await serve(new SpiDevice({ bus }), { socketPath: "/tmp/spi.sock" });
