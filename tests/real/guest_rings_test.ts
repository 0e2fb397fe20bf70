import assert from "node:assert/strict";
import { Guest } from "../support/guest.ts";
import { MIB, newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";

/** Bits of GET_FEATURES by their place in what the guest's kernel prints. */
const RING_PACKED = 34;

const WRITE_AND_COMPARE = `
  dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=4k seek=4096 count=64 oflag=direct 2>/dev/null
  echo 3 > /proc/sys/vm/drop_caches
  [ "$(dd if=/dev/vda bs=1M count=8 2>/dev/null | sha256sum)" = "$(sha256sum < /tmp/data)" ] || exit 1
  [ "$(dd if=/dev/vda bs=4k skip=4096 count=64 2>/dev/null | sha256sum)" = "$(head -c 262144 /tmp/data | sha256sum)" ]
`;

for (
  const [name, props, bits] of [
    ["packed rings", ",packed=on", [RING_PACKED]],
  ] as const
) {
  realTest(`a Linux guest with ${name}`, ["qemu", "guest"], {}, async (t) => {
    const disk = await startDisk(t, { file: newImage(t, 64 * MIB) });
    const guest = await Guest.start(t, {
      modules: ["virtio_blk"],
      devices: [
        ...["-chardev", `socket,id=c0,path=${disk.socket}`],
        ...["-device", `vhost-user-blk-pci,chardev=c0,num-queues=1${props}`],
      ],
    });
    const features = await guest.run("cat /sys/block/vda/device/features");
    for (const bit of bits) assert.equal(features[bit], "1", `feature ${bit} was accepted: ${features}`);
    await guest.run(WRITE_AND_COMPARE, 40_000);
    await guest.stop();
    await disk.checkUnharmed();
  });
}
