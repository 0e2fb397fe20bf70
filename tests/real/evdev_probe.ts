/** Runs in a guest: passes one of its input devices through, to a driver in the same process. See guest_evdev_test.ts. */

import process from "node:process";
import { serve } from "../../mod.ts";
import { EvdevDevice } from "../../src/devices/input/mod.ts";
import { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";

const [path, count] = process.argv.slice(2);
const device = EvdevDevice.open({ path });
const { name, ids, events } = device.profile;
console.log("profile", JSON.stringify([name, ids, [...events].map(([type, codes]) => [type, codes.length])]));
const socketPath = `${process.env.TMPDIR ?? "/tmp"}/probe.sock`;
const server = await serve(device, { socketPath });
const driver = await FrontEnd.connect(socketPath);
const memory = new SharedMemory(1 << 16);
await driver.shareMemory(memory);
const queue = await driver.startQueue(0, memory, { size: 16 });
const status = await driver.startQueue(1, memory, { size: 16 });
try {
  EvdevDevice.open({ path });
} catch (error) {
  console.log("second", String(error));
}
const piece = memory.allocate(8);
// Caps lock on.
piece.bytes.set([0x11, 0, 1, 0, 1, 0, 0, 0]);
await status.request([{ guestAddress: piece.guestAddress, length: 8 }], []);
console.log("open");
for (let i = 0; i < Number(count); i++) {
  await queue.request([], [{ guestAddress: piece.guestAddress, length: 8 }]);
  console.log("event", [...new Int16Array(piece.bytes.slice().buffer)].join(" "));
}
driver.close();
memory.close();
device.close();
server.close();
