import assert from "node:assert/strict";
import { type Emulator, Guest } from "../support/guest.ts";
import { MIB, newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";

/** Bits of GET_FEATURES by their place in what the guest's kernel prints. */
const ACCESS_PLATFORM = 33;
const RING_PACKED = 34;

/**
 * In strict mode the guest unmaps each buffer as soon as it has it back, and its kernel rounds what it flushes up to a power
 * of two: pages that are in use go along, those of the ring as well.
 */
const STRICT = "intel_iommu=on iommu.strict=1";

const WRITE_AND_COMPARE = `
  dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=4k seek=4096 count=64 oflag=direct 2>/dev/null
  echo 3 > /proc/sys/vm/drop_caches
  [ "$(dd if=/dev/vda bs=1M count=4 2>/dev/null | sha256sum)" = "$(sha256sum < /tmp/data)" ] || exit 1
  [ "$(dd if=/dev/vda bs=4k skip=4096 count=64 2>/dev/null | sha256sum)" = "$(head -c 262144 /tmp/data | sha256sum)" ]
`;

interface Case {
  readonly name: string;
  readonly emulator?: Emulator;
  readonly props?: string;
  /** Features that the guest's driver is to accept. */
  readonly bits: readonly number[];
  /** Processors to keep busy: what the session does then meets what the guest does in odd orders. */
  readonly busy?: number;
  readonly reboot?: boolean;
}

for (
  const { name, emulator = "qemu", props = "", bits, busy = 0, reboot = false } of [
    { name: "split rings behind an IOMMU", bits: [ACCESS_PLATFORM], reboot: true },
    { name: "packed rings behind an IOMMU", props: ",packed=on", bits: [RING_PACKED, ACCESS_PLATFORM] },
    { name: "rings behind an IOMMU on a busy machine", bits: [ACCESS_PLATFORM], busy: 2 },
    // What the IOMMU leads to are guest addresses there (GPA_ADDRESSES), and those of QEMU elsewhere.
    { name: "split rings behind an IOMMU", emulator: "qemu11", bits: [ACCESS_PLATFORM] },
  ] as readonly Case[]
) {
  realTest(
    `a Linux guest in ${emulator} with ${name}`,
    [emulator, "guest"],
    { timeout: 120_000 },
    async (t) => {
      const disk = await startDisk(t, { file: newImage(t, 64 * MIB), args: ["--iommu"] });
      const guest = await Guest.start(t, {
        emulator,
        modules: ["virtio_blk"],
        cmdline: STRICT,
        devices: [
          ...["-device", "intel-iommu,device-iotlb=on,intremap=off"],
          ...["-chardev", `socket,id=c0,path=${disk.socket}`],
          "-device",
          `vhost-user-blk-pci,chardev=c0,num-queues=1,iommu_platform=on,ats=on,disable-legacy=on${props}`,
        ],
      });
      const features = await guest.run("cat /sys/block/vda/device/features");
      for (const bit of bits) assert.equal(features[bit], "1", `feature ${bit} was accepted: ${features}`);
      for (let i = 0; i < busy; i++) Child.start(t, "sh", ["-c", "while :; do :; done"]);
      await guest.run(WRITE_AND_COMPARE, 60_000);
      if (reboot) {
        // The same addresses mean other pages now.
        await guest.reboot("button");
        await guest.run(WRITE_AND_COMPARE, 60_000);
      }
      await guest.stop();
      await disk.checkUnharmed();
    },
  );
}
