import assert from "node:assert/strict";
import { BlkDevice, FileStorage } from "../../src/devices/blk/mod.ts";
import {
  featureNames,
  type MemoryRegion,
  protocolFeatures,
  type VringAddress,
} from "../../src/protocol/mod.ts";
import { onEnd } from "../support/cleanup.ts";
import { MIB, newImage, sha256 } from "../support/image.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

/** Bits of the guest's features by their place in what its kernel prints. */
const RING_PACKED = 34;
const IN_ORDER = 35;

/** What QEMU 11 takes of a disk's offer. It has no use for the one that is missing without `inflight-migration`. */
const PROTOCOL = [
  ...["MQ", "LOG_SHMFD", "REPLY_ACK", "BACKEND_REQ", "PAGEFAULT", "CONFIG", "BACKEND_SEND_FD"],
  ...["INFLIGHT_SHMFD", "RESET_DEVICE", "CONFIGURE_MEM_SLOTS", "STATUS", "GPA_ADDRESSES", "CROSS_ENDIAN"],
];

for (
  const [name, props, packed, protocol] of [
    ["split rings", {}, false, PROTOCOL],
    ["packed rings", { packed: true }, true, PROTOCOL],
    // Linux 6.12 has no driver for in-order rings: QEMU offers it, and the guest does not take it.
    ["in-order rings on offer", { in_order: true }, false, PROTOCOL],
    ["requests in flight to migrate", { "inflight-migration": true }, false, [
      ...PROTOCOL,
      "GET_VRING_BASE_INFLIGHT",
    ]],
  ] as const
) {
  realTest(`QEMU 11 drives a disk by guest addresses: ${name}`, ["qemu11", "guest"], {}, async (t) => {
    const file = newImage(t, 8 * MIB);
    const storage = new FileStorage(file);
    onEnd(t, () => storage.close());
    const disk = await InProcess.serve(t, new BlkDevice({ storage, numQueues: 2 }));
    const guest = await restoreGuest(t, { emulator: "qemu11", smp: 2 });
    await guest.plug("vhost-user-blk-pci", disk.socket, { props: { "num-queues": 2, ...props } });
    await guest.waitFor("[ -b /dev/vda ]");

    const features = await guest.run("cat /sys/block/vda/device/features");
    assert.equal(features[RING_PACKED], packed ? "1" : "0", features);
    assert.equal(features[IN_ORDER], "0", features);
    const [{ value: acknowledged }] = disk.all("SET_PROTOCOL_FEATURES");
    assert.deepEqual(
      featureNames(acknowledged as bigint, protocolFeatures).sort(),
      [...protocol].sort(),
    );
    const asking = ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR", "SET_VRING_ENABLE"] as const;
    for (const each of asking) {
      const messages = disk.all(each);
      assert.ok(messages.length > 0 && messages.every(({ needReply }) => needReply), `${each}: need_reply`);
      assert.ok(messages.every(({ answer }) => answer === 0n), `${each}: acknowledged`);
    }

    // Regions and rings are where the guest has them, and nowhere in QEMU.
    const regions = disk.all("ADD_MEM_REG").map(({ value }) => value as MemoryRegion);
    assert.ok(regions.length > 0);
    for (const { userAddress, guestAddress } of regions) assert.equal(userAddress, guestAddress);
    for (const { index, descriptor, used, available } of ringsOf(disk)) {
      const status = await guest.qmp("x-query-virtio-vhost-queue-status", {
        path: "/machine/peripheral/vu0/virtio-backend",
        queue: index,
      });
      assert.deepEqual(
        [descriptor, used, available].map(Number),
        [status["desc-phys"], status["used-phys"], status["avail-phys"]],
      );
    }

    // Both rings, one from each processor.
    const written = await guest.run(
      `
      head -c 2097152 /dev/urandom > /tmp/data
      taskset 1 dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
      taskset 2 dd if=/tmp/data of=/dev/vda bs=4k seek=1024 count=64 oflag=direct 2>/dev/null
      echo 3 > /proc/sys/vm/drop_caches
      [ "$(taskset 2 dd if=/dev/vda bs=1M count=2 2>/dev/null | sha256sum)" = "$(sha256sum < /tmp/data)" ] || exit 1
      [ "$(dd if=/dev/vda bs=4k skip=1024 count=64 2>/dev/null | sha256sum)" = "$(head -c 262144 /tmp/data | sha256sum)" ] || exit 2
      dd if=/dev/vda bs=1M 2>/dev/null | sha256sum`,
      40_000,
    );
    assert.equal(written.split(" ")[0], sha256(file));
    await guest.unplug();
    await guest.stop();
    await disk.checkUnharmed();
  });
}

/** The rings' addresses as they were given last. */
function ringsOf(disk: InProcess): VringAddress[] {
  const byIndex = new Map<number, VringAddress>();
  for (const { value } of disk.all("SET_VRING_ADDR")) {
    const address = value as VringAddress;
    byIndex.set(address.index, address);
  }
  assert.equal(byIndex.size, 2);
  return [...byIndex.values()];
}
