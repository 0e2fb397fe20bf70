import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { defineDevice, type Device } from "../../mod.ts";
import { Balloon } from "../support/balloon.ts";
import type { Scope } from "../support/cleanup.ts";
import type { Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import type { Json } from "../support/qmp.ts";
import { restoreGuest } from "../support/snapshot.ts";

/** Plugs a device into a guest as QEMU's generic one. */
async function plugged(t: Scope, device: Device, props: Json): Promise<[InProcess, Guest]> {
  const served = await InProcess.serve(t, device);
  const guest = await restoreGuest(t, { emulator: "qemu11" });
  await guest.plug("vhost-user-test-device-pci", served.socket, { props });
  return [served, guest];
}

const BALLOON = { "virtio-id": 5, "num_vqs": 2, "config_size": 8 };

realTest("QEMU's test device is an entropy device of ours", ["qemu11", "guest"], {}, async (t) => {
  let served = 0;
  const rng = defineDevice({
    type: 4,
    queues: [(chain) => chain.write((bytes) => bytes.fill(++served))],
  });
  const [device, guest] = await plugged(t, rng, { "virtio-id": 4, "num_vqs": 1 });
  await guest.waitFor("grep -q virtio_rng /sys/class/misc/hw_random/rng_available");
  const text = await guest.run(
    "cd /sys/class/misc/hw_random; grep -o 'virtio_rng.[0-9]*' rng_available >rng_current; dd if=/dev/hwrng bs=64 count=1 iflag=fullblock 2>/dev/null | xxd -p -c 64",
  );
  const [first] = Buffer.from(text, "hex");
  assert.ok(first > 0 && first <= served, `one of the ${served} that were filled: ${text}`);
  await guest.unplug();
  await guest.stop();
  await device.checkUnharmed();
});

realTest(
  "QEMU's test device is a balloon of ours: configuration space, two rings",
  ["qemu11", "guest"],
  {},
  async (t) => {
    const balloon = new Balloon();
    const [device, guest] = await plugged(t, balloon.device, BALLOON);
    await guest.waitFor("[ -d /sys/bus/virtio/drivers/virtio_balloon/virtio* ]");
    for (const pages of [1000, 400, 0]) {
      balloon.want(pages);
      await device.until(`${pages} pages are in the balloon`, () => balloon.actual === pages, 3000);
      assert.equal(balloon.pages.size, pages);
      for (const page of balloon.pages) assert.ok(page < 65536, `page ${page} of 256 MiB`);
    }
    await guest.unplug();
    await guest.stop();
    await device.checkUnharmed();
  },
);
