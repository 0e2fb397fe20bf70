/**
 * An SPI bus with a flash memory at chip select 0, and a part of your own at 1 that gives back what it got, a byte later.
 *
 *     deno run --allow-ffi examples/spi.ts
 *
 * and the socket is `/tmp/spi.sock`. In QEMU 11 it is `-device vhost-user-spi-pci`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { SimulatedSpiBus, SpiDevice, SpiFlash, type SpiPart } from "@vhost/user/devices/spi";

// A part of your own at chip select 1: it gives back what it got, one byte later.
const delay: SpiPart = { transfer: (output, input) => input.set(output.subarray(0, -1), 1) };

const flash = new SpiFlash({ size: 1 << 20, onWrite: (at, length) => console.log("written:", at, length) });
const bus = new SimulatedSpiBus([flash, delay]);
await serve(new SpiDevice({ bus }), { socketPath: "/tmp/spi.sock" });
