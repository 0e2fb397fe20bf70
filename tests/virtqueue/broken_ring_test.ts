import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { RingError } from "../../src/virtqueue/ring.ts";
import type { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { onEnd } from "../support/cleanup.ts";
import { FREE, GUEST, GUEST_SIZE, INDIRECT, NEXT, RawRing, WRITE } from "./raw_ring.ts";

// What a driver must not do (virtio 1.4, 2.7), and what it is told.

/** A ring of 8 that a driver has broken; the first request is never taken. */
function breaks(what: string, spoil: (ring: RawRing, t: TestContext) => SplitRing, text: RegExp): void {
  test(what, { timeout: 5000 }, (t) => {
    const device = spoil(new RawRing(t), t);
    for (let attempt = 0; attempt < 2; attempt++) {
      assert.throws(() => device.pop(), (error) => {
        assert.ok(error instanceof RingError, String(error));
        assert.equal(error.name, "RingError");
        assert.match(error.message, text);
        return true;
      });
    }
    assert.deepEqual([device.inFlight, device.base], [0, 0]);
  });
}

breaks("a head past the table", (ring) => {
  const device = ring.device();
  ring.offer(8);
  return device;
}, /^head 8 at available index 0: the table has 8 descriptors$/);

breaks("a next descriptor past the table", (ring) => {
  const device = ring.device();
  ring.descriptor(2, { flags: NEXT, next: 8 }).offer(2);
  return device;
}, /^next descriptor 8 of head 2: the table has 8$/);

breaks("a descriptor that names itself", (ring) => {
  const device = ring.device();
  ring.descriptor(3, { flags: NEXT, next: 3 }).offer(3);
  return device;
}, /^chain of head 3 has a loop: more than 8 descriptors$/);

breaks("a ring of descriptors", (ring) => {
  const device = ring.device();
  for (let i = 0; i < 8; i++) ring.descriptor(i, { flags: NEXT, next: (i + 1) % 8 });
  ring.offer(5);
  return device;
}, /^chain of head 5 has a loop/);

breaks("more made available than the ring has", (ring) => {
  const device = ring.device();
  ring.availableIndex = 9;
  return device;
}, /^available index 9 is 9 ahead of 0, more than the ring's 8 entries$/);

breaks("an available index that goes back", (ring) => {
  const device = ring.device();
  ring.availableIndex = 0xffff;
  return device;
}, /^available index 65535 is 65535 ahead of 0/);

breaks("readable after writable", (ring) => {
  const device = ring.device();
  ring.descriptor(0, { flags: WRITE | NEXT, next: 1 }).descriptor(1).offer(0);
  return device;
}, /^descriptor 1 of head 0: readable after writable$/);

breaks("readable after writable in a table", (ring) => {
  const device = ring.device();
  ring.table(4, FREE, [{ flags: NEXT, next: 1 }, { flags: WRITE | NEXT, next: 2 }, {}]).offer(4);
  return device;
}, /^descriptor 2 of head 4: readable after writable$/);

breaks("readable in a table after writable before it", (ring) => {
  const device = ring.device();
  ring.descriptor(1, { flags: WRITE | NEXT, next: 0 }).table(0, FREE, [{}]).offer(1);
  return device;
}, /readable after writable$/);

for (const [what, flags] of [["read", 0], ["write", WRITE]] as const) {
  breaks(`memory to ${what} that the guest does not have`, (ring) => {
    const device = ring.device();
    ring.descriptor(6, { address: GUEST - 16, flags }).offer(6);
    return device;
  }, /^descriptor 6 of head 6: 0xffff0\+16 is not in guest memory$/);
}

breaks("memory that ends a byte after the guest's", (ring) => {
  const device = ring.device();
  ring.descriptor(0, { address: GUEST + GUEST_SIZE - 15, length: 16 }).offer(0);
  return device;
}, /^descriptor 0 of head 0: 0x10fff1\+16 is not in guest memory$/);

breaks("memory at the end of 64 bits", (ring) => {
  const device = ring.device();
  ring.descriptor(0, { address: 0xffff_ffff_ffff_fff0n, length: 0xffff_ffff }).offer(0);
  return device;
}, /^descriptor 0 of head 0: 0x[0-9a-f]+\+4294967295 is not in guest memory$/);

breaks("memory in a table that the guest does not have", (ring) => {
  const device = ring.device();
  ring.table(0, FREE, [{ flags: NEXT, next: 1 }, { address: 0 }]).offer(0);
  return device;
}, /^descriptor 1 of head 0: 0x0\+16 is not in guest memory$/);

breaks("a table where none was negotiated", (ring) => {
  const device = ring.device({ indirect: false });
  ring.table(7, FREE, [{}]).offer(7);
  return device;
}, /^descriptor 7: INDIRECT was not negotiated$/);

breaks("a table in a table", (ring) => {
  const device = ring.device();
  ring.table(0, FREE, [{ flags: NEXT, next: 1 }, { flags: INDIRECT }]).offer(0);
  return device;
}, /^indirect table at descriptor 0: nested table$/);

breaks("a table of 0 bytes", (ring) => {
  const device = ring.device();
  ring.table(0, FREE, [{}], { length: 0 }).offer(0);
  return device;
}, /^indirect table of 0 bytes: must be a multiple of 16, more than 0$/);

breaks("a table of 24 bytes", (ring) => {
  const device = ring.device();
  ring.table(0, FREE, [{}, {}], { length: 24 }).offer(0);
  return device;
}, /^indirect table of 24 bytes: must be a multiple of 16, more than 0$/);

breaks("a table with something after it", (ring) => {
  const device = ring.device();
  ring.table(5, FREE, [{}], { flags: INDIRECT | NEXT, next: 1 }).offer(5);
  return device;
}, /^descriptor 5: INDIRECT together with NEXT$/);

breaks("a next descriptor past the end of a table", (ring) => {
  const device = ring.device();
  ring.table(0, FREE, [{ flags: NEXT, next: 2 }, {}]).offer(0);
  return device;
}, /^next descriptor 2 in an indirect table of 2$/);

breaks("a loop in a table", (ring) => {
  const device = ring.device();
  ring.table(2, FREE, [{ flags: NEXT, next: 1 }, { flags: NEXT, next: 0 }]).offer(2);
  return device;
}, /^indirect table at descriptor 2 has a loop.*: more than 2 descriptors$/);

breaks("a table whose chain has more than 1024 descriptors", (ring) => {
  const device = ring.device();
  const long = Array.from({ length: 1025 }, (_, i) => ({ length: 1, flags: NEXT, next: i + 1 }));
  ring.table(0, FREE, long).offer(0);
  return device;
}, /^indirect table at descriptor 0 .*too long: more than 1024 descriptors$/);

breaks("a table that the guest does not have", (ring) => {
  const device = ring.device();
  ring.descriptor(0, { address: GUEST + GUEST_SIZE, length: 16, flags: INDIRECT }).offer(0);
  return device;
}, /^indirect table of descriptor 0.* 0x110000.* not in guest memory$/);

breaks("a table whose second half the guest does not have", (ring) => {
  const device = ring.device();
  const last = GUEST_SIZE - 16;
  ring.writeDescriptor(last, { flags: NEXT, next: 1 });
  ring.descriptor(0, { address: GUEST + last, length: 32, flags: INDIRECT }).offer(0);
  return device;
}, /^indirect table of descriptor 0.* not in guest memory$/);

breaks("4 GiB in one request", (ring, t) => {
  // Both descriptors name the same 2 GiB, of which no page is ever touched.
  const fd = memoryFile("huge", 2 ** 31);
  onEnd(t, () => close(fd));
  const far = 2 ** 40;
  ring.memory.add({ guestAddress: far, size: 2 ** 31, userAddress: far, mmapOffset: 0, fd });
  const device = ring.device();
  ring.descriptor(0, { address: far, length: 2 ** 31, flags: NEXT, next: 1 });
  ring.descriptor(1, { address: far, length: 2 ** 31, flags: WRITE }).offer(0);
  return device;
}, /^chain of head 0: 2\^32 bytes or more$/);

test("a byte less than 4 GiB is not too much", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const fd = memoryFile("huge", 2 ** 31);
  onEnd(t, () => close(fd));
  const far = 2 ** 40;
  ring.memory.add({ guestAddress: far, size: 2 ** 31, userAddress: far, mmapOffset: 0, fd });
  const device = ring.device();
  ring.descriptor(0, { address: far, length: 2 ** 31, flags: NEXT, next: 1 });
  ring.descriptor(1, { address: far, length: 2 ** 31 - 1, flags: WRITE }).offer(0);
  const chain = device.pop();
  assert.deepEqual([chain?.readable.byteLength, chain?.writable.byteLength], [2 ** 31, 2 ** 31 - 1]);
});

test("a head that is offered again before it was returned", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(3).offer(3, 3);
  const chain = device.pop();
  assert.ok(chain);
  assert.throws(() => device.pop(), {
    name: "RingError",
    message: "head 3 was made available again before it was returned",
  });
  assert.deepEqual([device.inFlight, device.base], [1, 1]);

  device.push(chain);
  assert.equal(device.pop(), chain, "after that it may be");
});

test("what was in flight before the ring broke can still be returned", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(1, { flags: WRITE }).offer(1, 99);
  const chain = device.pop();
  assert.ok(chain);
  assert.throws(() => device.pop(), { name: "RingError", message: /^head 99 at available index 1/ });
  chain.written = 5;
  device.push(chain);
  device.publish();
  assert.deepEqual([ring.usedIndex, ring.usedElement(0)], [1, [1, 5]]);
});

test("a request that could not be read leaves nothing behind in its slot", { timeout: 5000 }, (t) => {
  const ring = new RawRing(t);
  const device = ring.device();
  ring.descriptor(0, { length: 10, flags: NEXT, next: 1 });
  ring.descriptor(1, { address: 0 }).offer(0);
  assert.throws(() => device.pop(), { name: "RingError" });
  ring.descriptor(1, { length: 20, flags: WRITE });
  const chain = device.pop();
  assert.deepEqual([chain?.readable.byteLength, chain?.writable.byteLength], [10, 20]);
});

test("a ring has a power of two of entries, 32768 at the most", { timeout: 5000 }, (t) => {
  for (const size of [0, -8, 3, 12, 1.5, NaN, 65536]) {
    assert.throws(() => new RawRing(t, size).device(), {
      name: "RangeError",
      message: `split ring size must be a power of two up to 32768, got ${size}`,
    });
  }
});
