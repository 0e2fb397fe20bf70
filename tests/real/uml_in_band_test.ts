import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { MIB, newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Uml } from "../support/uml.ts";

// The only front-end seen so far that takes in-band notifications.

realTest("User-Mode Linux kicks and is called by messages", ["uml", "uml-guest"], {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image, args: ["--inband-notifications", "--trace"] });
  const uml = await Uml.start(t, { modules: ["virtio_blk"], devices: [{ socket: disk.socket, id: 2 }] });
  await uml.run(
    "head -c 1048576 /dev/urandom >/tmp/data; dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null",
  );
  const [sum] = (await uml.run("sha256sum /tmp/data")).split(" ");
  const back = await uml.run("dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | sha256sum");
  assert.equal(back.split(" ")[0], sum);
  await uml.shutDown();
  const lines = disk.child.output.split("\n");
  assert.ok(lines.some((line) => /^→ VRING_KICK index=0/.test(line)), "it kicks by messages");
  assert.ok(!lines.some((line) => /^→ SET_VRING_KICK.*\+1 fd/.test(line)), "it gives no descriptor");
  assert.ok(readFileSync(image).subarray(0, MIB).some((byte) => byte !== 0));
  await disk.checkUnharmed();
});
