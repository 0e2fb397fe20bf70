import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import type { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import { RingError } from "../../src/virtqueue/ring.ts";
import { onEnd } from "../support/cleanup.ts";
import { INDIRECT, NEXT, RawPackedRing, START, WRITE } from "./raw_packed_ring.ts";
import { FREE, GUEST, GUEST_SIZE } from "./raw_ring.ts";

// What a driver must not do (virtio 1.4, 2.8), and what it is told.

/** A ring of 8 that a driver has broken; the first request is never taken. */
function breaks(
  what: string,
  spoil: (ring: RawPackedRing, t: TestContext) => PackedRing | void,
  text: RegExp,
): void {
  test(what, { timeout: 5000 }, (t) => {
    const ring = new RawPackedRing(t);
    const device = spoil(ring, t) ?? ring.device();
    for (let attempt = 0; attempt < 2; attempt++) {
      assert.throws(() => device.pop(), (error) => {
        assert.ok(error instanceof RingError, String(error));
        assert.match(error.message, text);
        return true;
      });
    }
    assert.deepEqual([device.inFlight, device.base, device.publish()], [0, START, false]);
  });
}

breaks("a chain without an end", (ring) => {
  for (let slot = 0; slot < 8; slot++) ring.offer(slot, { flags: NEXT });
}, /^chain of head 0: more than 8 descriptors, all that are not in flight$/);

breaks("readable after writable", (ring) => {
  ring.offer(0, { flags: WRITE | NEXT }).offer(1);
}, /^descriptor 1 of head 0: readable after writable$/);

breaks("readable after writable in a table", (ring) => {
  ring.offerTable(0, [{}, { flags: WRITE }, {}]);
}, /^descriptor 2 of head 0: readable after writable$/);

for (const [what, flags] of [["read", 0], ["write", WRITE]] as const) {
  breaks(`memory to ${what} that the guest does not have`, (ring) => {
    ring.offer(0, { address: GUEST - 16, flags });
  }, /^descriptor 0 of head 0: 0xffff0\+16 is not in guest memory$/);
}

breaks("memory that ends a byte after the guest's", (ring) => {
  ring.offer(0, { address: GUEST + GUEST_SIZE - 15 });
}, /^descriptor 0 of head 0: 0x10fff1\+16 is not in guest memory$/);

breaks("memory at the end of 64 bits", (ring) => {
  ring.offer(0, { flags: NEXT }).offer(1, { address: 0xffff_ffff_ffff_fff0n, length: 0xffff_ffff });
}, /^descriptor 1 of head 0: 0x[0-9a-f]+\+4294967295 is not in guest memory$/);

breaks("memory in a table that the guest does not have", (ring) => {
  ring.offerTable(0, [{}, { address: 0 }]);
}, /^descriptor 1 of head 0: 0x0\+16 is not in guest memory$/);

breaks("a table where none was negotiated", (ring) => {
  ring.offerTable(0, [{}]);
  return ring.device({ indirect: false });
}, /^descriptor 0: INDIRECT was not negotiated$/);

breaks("a table with something after it", (ring) => {
  ring.offerTable(0, [{}], { flags: INDIRECT | NEXT }).offer(1);
}, /^descriptor 0: INDIRECT together with NEXT$/);

breaks("a table after something else", (ring) => {
  ring.offer(0, { flags: NEXT }).offerTable(1, [{}]);
}, /^descriptor 1 of head 0: INDIRECT in a chain$/);

for (const length of [0, 24, 15]) {
  breaks(`a table of ${length} bytes`, (ring) => {
    ring.offerTable(0, [{}, {}], { length });
  }, new RegExp(`^indirect table of ${length} bytes: must be a multiple of 16, more than 0$`));
}

breaks("a table that is too long", (ring) => {
  ring.offerTable(0, Array.from({ length: 1025 }, () => ({ length: 1 })));
}, /^indirect table at descriptor 0 is too long: 1025 descriptors, at most 1024$/);

breaks("a table that the guest does not have", (ring) => {
  ring.offer(0, { address: GUEST + GUEST_SIZE, flags: INDIRECT });
}, /^indirect table of descriptor 0: 0x110000\+16 is not in guest memory$/);

breaks("a table whose second half the guest does not have", (ring) => {
  ring.offer(0, { address: GUEST + GUEST_SIZE - 16, length: 32, flags: INDIRECT });
}, /^indirect table of descriptor 0: 0x10fff0\+32 is not in guest memory$/);

breaks("4 GiB in one request", (ring, t) => {
  // Both descriptors name the same 2 GiB, of which no page is ever touched.
  const fd = memoryFile("huge", 2 ** 31);
  onEnd(t, () => close(fd));
  const far = 2 ** 40;
  ring.memory.add({ guestAddress: far, size: 2 ** 31, userAddress: far, mmapOffset: 0, fd });
  ring.offer(0, { address: far, length: 2 ** 31, flags: NEXT });
  ring.offer(1, { address: far, length: 2 ** 31, flags: WRITE });
}, /^chain of head 0: 2\^32 bytes or more$/);

test("slots that are made available again before they were returned", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t, 4);
  const device = ring.device();
  for (let slot = 0; slot < 4; slot++) ring.offer(slot, { id: slot });
  const chains = [device.pop(), device.pop(), device.pop(), device.pop()];
  ring.offer(0, {}, 2).offer(1, {}, 2);
  assert.throws(() => device.pop(), {
    name: "RingError",
    message: "chain of head 0: more than 0 descriptors, all that are not in flight",
  });
  // What was in flight before can still be returned.
  const [first] = chains;
  assert.ok(first);
  device.push(first);
  assert.equal(device.publish(), true);
  assert.equal(device.inFlight, 3);
  // One slot is free now, but not two.
  ring.offer(0, { flags: NEXT }, 2);
  assert.throws(() => device.pop(), {
    name: "RingError",
    message: /^chain of head 0: more than 1 descriptors/,
  });
});

test("a request that could not be read leaves nothing behind", { timeout: 5000 }, (t) => {
  const ring = new RawPackedRing(t);
  const device = ring.device();
  ring.offer(0, { length: 10, flags: NEXT }).offer(1, { address: 0 });
  assert.throws(() => device.pop(), { name: "RingError" });
  ring.offer(1, { length: 20, flags: WRITE });
  const chain = device.pop();
  assert.deepEqual([chain?.readable.byteLength, chain?.writable.byteLength], [10, 20]);
  assert.equal(ring.view.getBigUint64(FREE, true), 0n);
});
