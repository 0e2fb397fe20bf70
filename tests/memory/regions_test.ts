import assert from "node:assert/strict";
import test from "node:test";
import { close } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { countMappings } from "../ffi/descriptors.ts";
import { file, guestMemory, PAGE, region, USER } from "./memory_file.ts";

test("a guest address is found in its region, from the first byte to the last", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  memory.add(region(file(t, "a", 2), 10, 2));
  const [found] = memory.regions;

  assert.equal(memory.find(10 * PAGE), found);
  assert.equal(memory.find(12 * PAGE - 1), found);
  assert.equal(memory.find(12 * PAGE), undefined);
  assert.equal(memory.find(10 * PAGE - 1), undefined);
});

test("two mappings of the guest's file see the same bytes", { timeout: 5000 }, (t) => {
  const fd = file(t, "same", 4);
  const memory = guestMemory(t);
  memory.add(region(fd, 0, 4));
  const other = guestMemory(t);
  other.add(region(fd, 0, 2, 1));
  memory.regions[0].bytes[PAGE + 5] = 77;
  assert.equal(other.regions[0].bytes[5], 77);
});

test("a region may start anywhere in its file", { timeout: 5000 }, (t) => {
  const fd = file(t, "odd", 3);
  const memory = guestMemory(t);
  memory.add({ ...region(fd, 0, 3) });
  const other = guestMemory(t);
  const odd = other.add({ guestAddress: 0, size: PAGE, userAddress: 0, mmapOffset: 1000, fd });

  assert.equal(odd.bufferOffset, 1000);
  assert.equal(odd.bytes.length, PAGE);
  assert.equal(odd.view.byteLength, PAGE);
  odd.bytes[0] = 1;
  odd.view.setUint8(PAGE - 1, 2);
  assert.deepEqual([memory.regions[0].bytes[1000], memory.regions[0].bytes[PAGE + 999]], [1, 2]);
  assert.equal(odd.hostAddress % PAGE, 1000);
});

test("the descriptor may be closed once the region is there", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  const fd = memoryFile("closed", PAGE);
  memory.add(region(fd, 0, 1));
  close(fd);
  memory.regions[0].bytes[0] = 1;
  assert.equal(memory.regions[0].bytes[0], 1);
});

test("regions that touch do not overlap", { timeout: 5000 }, (t) => {
  const fd = file(t, "touch", 4);
  const memory = guestMemory(t);
  memory.add(region(fd, 2, 2));
  memory.add(region(fd, 0, 2));
  memory.add(region(fd, 4, 1));
  assert.equal(memory.regions.length, 3);
});

test(
  "regions that overlap in guest addresses are refused, by a single byte already",
  { timeout: 5000 },
  (t) => {
    const fd = file(t, "guest-overlap", 4);
    const memory = guestMemory(t);
    memory.add(region(fd, 2, 2));
    const elsewhere = USER * 2;
    for (
      const [at, size] of [[2 * PAGE, 1], [PAGE, PAGE + 1], [4 * PAGE - 1, PAGE], [0, 4 * PAGE], [
        3 * PAGE,
        1,
      ]]
    ) {
      assert.throws(
        () => memory.add({ guestAddress: at, size, userAddress: elsewhere, mmapOffset: 0, fd }),
        {
          name: "MemoryError",
          message: `regions overlap in guest addresses: 0x${at.toString(16)}+0x${
            size.toString(16)
          } and 0x2000+0x2000`,
        },
      );
    }
    assert.equal(memory.regions.length, 1);
    assert.equal(countMappings("guest-overlap"), 1);
  },
);

test("regions that overlap in user addresses are refused", { timeout: 5000 }, (t) => {
  const fd = file(t, "user-overlap", 2);
  const memory = guestMemory(t);
  memory.add(region(fd, 0, 2));
  assert.throws(() => memory.add({ ...region(fd, 100, 2), userAddress: USER + PAGE }), {
    name: "MemoryError",
    message: /^regions overlap in user addresses: 0x7f0000001000\+0x2000 and 0x7f0000000000\+0x2000$/,
  });
  assert.throws(
    () => memory.replace([region(fd, 0, 2), { ...region(fd, 100, 2), userAddress: USER + PAGE }]),
    {
      name: "MemoryError",
      message: /overlap in user addresses/,
    },
  );
});

test(
  "a region that exceeds its file is refused: touching it would end the process",
  { timeout: 5000 },
  (t) => {
    const fd = file(t, "short", 2);
    const memory = guestMemory(t);
    assert.throws(() => memory.add(region(fd, 1, 3)), {
      name: "MemoryError",
      message: "region 0x1000+0x3000 ends at byte 12288 of its file, which has 8192; " +
        "touching the rest would end the process",
    });
    assert.throws(() => memory.add(region(fd, 0, 1, 2)), { name: "MemoryError" });
    assert.throws(() => memory.add({ ...region(fd, 0, 2), mmapOffset: 1 }), { name: "MemoryError" });
    assert.equal(countMappings("short"), 0);
  },
);

test("what cannot be mapped is an error of the system, and no region", { timeout: 5000 }, (t) => {
  const memory = guestMemory(t);
  assert.throws(() => memory.add(region(-1, 0, 1)), { name: "OsError", code: "EBADF" });
  assert.equal(memory.regions.length, 0);
});

test("only so many regions are taken", { timeout: 5000 }, (t) => {
  const fd = file(t, "many", 1);
  const memory = guestMemory(t, 3);
  for (let i = 0; i < 3; i++) memory.add(region(fd, i, 1));
  assert.throws(() => memory.add(region(fd, 3, 1)), { name: "MemoryError", message: "at most 3 regions" });
  memory.remove(region(fd, 1, 1));
  memory.add(region(fd, 3, 1));
  assert.equal(memory.regions.length, 3);
});

test("509 regions by default", { timeout: 5000 }, (t) => {
  const fd = file(t, "default", 1);
  const memory = guestMemory(t);
  for (let i = 0; i < 509; i++) memory.add(region(fd, i, 1));
  assert.throws(() => memory.add(region(fd, 509, 1)), { message: "at most 509 regions" });
});

test("a region goes by its two addresses and its size; the place in the file does not count", {
  timeout: 5000,
}, (t) => {
  const fd = file(t, "remove", 4);
  const memory = guestMemory(t);
  memory.add(region(fd, 0, 2, 0));
  memory.add(region(fd, 2, 2, 2));
  memory.find(0);

  memory.remove(region(-1, 0, 2, 1));
  assert.equal(memory.find(0), undefined, "also where it was found just before");
  assert.equal(memory.regions.length, 1);
  assert.equal(countMappings("remove"), 1);
});

test("what is not there cannot be removed", { timeout: 5000 }, (t) => {
  const fd = file(t, "keep", 2);
  const memory = guestMemory(t);
  memory.add(region(fd, 0, 2));
  const there = region(fd, 0, 2);
  for (
    const other of [
      { ...there, guestAddress: PAGE },
      { ...there, userAddress: USER + PAGE },
      { ...there, size: PAGE },
    ]
  ) {
    assert.throws(() => memory.remove(other), {
      name: "MemoryError",
      message: `no region with guest address 0x${other.guestAddress.toString(16)}, user address 0x${
        other.userAddress.toString(16)
      } and ${other.size} bytes`,
    });
  }
  assert.equal(memory.regions.length, 1);
});

test("a range of user addresses lies within one region or nowhere", { timeout: 5000 }, (t) => {
  const fd = file(t, "user", 4);
  const memory = guestMemory(t);
  const a = memory.add(region(fd, 0, 2));
  const b = memory.add(region(fd, 2, 2, 2));

  assert.equal(memory.findUser(USER, 2 * PAGE), a);
  assert.equal(memory.findUser(USER + 2 * PAGE, 2 * PAGE), b);
  assert.equal(memory.findUser(USER + 2 * PAGE - 1, 1), a);
  assert.equal(memory.findUser(USER + 2 * PAGE - 1, 2), undefined, "across both");
  assert.equal(memory.findUser(USER + PAGE, 4 * PAGE), undefined);
  assert.equal(memory.findUser(USER - 1, 2), undefined);
  assert.equal(memory.findUser(0, 1), undefined, "that is a guest address");
});
