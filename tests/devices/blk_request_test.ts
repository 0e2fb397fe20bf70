import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { DriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import { BlkRequest, MemoryStorage, type Storage } from "../../src/devices/blk/mod.ts";
import { blk, buffer, filled, header, statusByte } from "../session/requests.ts";
import { bytesOf, type DiskScene, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { concat, u32, u64 } from "../session/wire.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = BlkRequest;
const OK = 0, IOERR = 1, UNSUPP = 2, UNTOUCHED = 0xee;
const SECTORS = 2048;

interface Stage {
  readonly scene: DiskScene;
  readonly memory: SharedMemory;
  readonly queue: DriverQueue;
}

/** A disk of 2048 sectors with a ring of a front-end. */
async function stage(
  t: TestContext,
  options: { storage?: Storage; readOnly?: boolean; id?: string } = {},
): Promise<Stage> {
  const scene = await Scene.disk(t, { storage: new MemoryStorage(SECTORS * 512), ...options });
  const frontEnd = await scene.frontEnd();
  const memory = scene.memory(1 << 20);
  await frontEnd.shareMemory(memory);
  return { scene, memory, queue: await frontEnd.startQueue(0, memory, { size: 64 }) };
}

/** Ranges of DISCARD and WRITE_ZEROES: sector, sectors, flags of each. */
function ranges(
  ...each: readonly (readonly [sector: number | bigint, sectors: number, flags?: number])[]
): Uint8Array {
  return concat(...each.map(([sector, sectors, flags = 0]) => concat(u64(sector), u32(sectors, flags))));
}

/** Cuts a piece into buffers of the given lengths, the rest being the last. */
function cut(piece: Parameters<typeof buffer>[0], ...lengths: number[]): ReturnType<typeof buffer>[] {
  const buffers: ReturnType<typeof buffer>[] = [];
  let at = 0;
  for (const length of lengths) {
    buffers.push(buffer(piece, at, length));
    at += length;
  }
  return at < piece.bytes.length ? [...buffers, buffer(piece, at)] : buffers;
}

test("what is written is read back, and counted", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const data = bytesOf(1, 1024);
  assert.deepEqual(await blk(queue, memory, OUT, 5, { out: data }), {
    status: OK,
    written: 1,
    data: new Uint8Array(0),
  });
  assert.deepEqual(await blk(queue, memory, IN, 5, { in: 1024 }), { status: OK, written: 1025, data });
  sameBytes((await blk(queue, memory, IN, 6, { in: 512 })).data, data.slice(512));
  sameBytes((await blk(queue, memory, IN, 7, { in: 512 })).data, new Uint8Array(512));
});

test("a header in pieces, and data in pieces of any length", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const data = bytesOf(2, 1536);
  const status = statusByte(memory);
  await queue.request(
    [...cut(header(memory, OUT, 9), 1, 3, 4, 7), ...cut(filled(memory, data), 1, 511, 513, 2)],
    [buffer(status)],
  );
  assert.equal(status.bytes[0], OK);
  const [room, again] = [memory.allocate(1536), statusByte(memory)];
  await queue.request(cut(header(memory, IN, 9), 15), [...cut(room, 600, 1, 1, 800), buffer(again)]);
  assert.equal(again.bytes[0], OK);
  sameBytes(room.bytes.slice(), data);
});

test("header and data in one descriptor, data and status in another", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const data = bytesOf(3, 512);
  const whole = filled(memory, concat(u32(OUT, 0), u64(11), data));
  const status = statusByte(memory);
  assert.equal(await queue.request([buffer(whole)], [buffer(status)]), 1);
  assert.equal(status.bytes[0], OK);
  const room = filled(memory, new Uint8Array(513).fill(UNTOUCHED));
  assert.equal(await queue.request([buffer(header(memory, IN, 11))], [buffer(room)]), 513);
  sameBytes(room.bytes.slice(), concat(data, Uint8Array.of(OK)));
});

test("the status is the last writable byte, wherever that is", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  await blk(queue, memory, OUT, 0, { out: bytesOf(4, 512) });
  const room = filled(memory, new Uint8Array(513).fill(UNTOUCHED));
  await queue.request([buffer(header(memory, IN, 0))], cut(room, 100, 400, 12));
  sameBytes(room.bytes.slice(), concat(bytesOf(4, 512), Uint8Array.of(OK)));
});

test("without room for a status the request comes back as it is, and is logged", LIMIT, async (t) => {
  const { scene, queue, memory } = await stage(t);
  assert.equal(
    await queue.request([buffer(filled(memory, concat(u32(OUT, 0), u64(1), bytesOf(1, 512))))], []),
    0,
  );
  await scene.log.problem(/^warning: .*a request on ring 0 failed: .*needs a writable byte for its status$/);
  assert.deepEqual(
    (await blk(queue, memory, IN, 1, { in: 512 })).data,
    new Uint8Array(512),
    "nothing was written",
  );
});

for (const length of [1, 8, 15]) {
  test(`a header of ${length} bytes is an I/O error`, LIMIT, async (t) => {
    const { queue, memory } = await stage(t);
    const status = statusByte(memory);
    assert.equal(await queue.request([buffer(header(memory, IN, 0), 0, length)], [buffer(status)]), 1);
    assert.equal(status.bytes[0], IOERR);
  });
}

test("no header at all is an I/O error", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const room = filled(memory, new Uint8Array(20).fill(UNTOUCHED));
  assert.equal(await queue.request([], [buffer(room)]), 1);
  sameBytes(room.bytes.slice(), concat(new Uint8Array(19).fill(UNTOUCHED), Uint8Array.of(IOERR)));
});

test("no data is no error", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  for (const sector of [0, SECTORS]) {
    assert.deepEqual(await blk(queue, memory, IN, sector), {
      status: OK,
      written: 1,
      data: new Uint8Array(0),
    });
    assert.equal((await blk(queue, memory, OUT, sector)).status, OK);
  }
  assert.equal((await blk(queue, memory, IN, SECTORS + 1)).status, IOERR);
});

for (const length of [1, 511, 513, 1000]) {
  test(`${length} bytes are no whole sectors`, LIMIT, async (t) => {
    const { queue, memory } = await stage(t);
    assert.equal((await blk(queue, memory, OUT, 0, { out: bytesOf(1, length) })).status, IOERR);
    assert.deepEqual(await blk(queue, memory, IN, 0, { in: length }), {
      status: IOERR,
      written: 1,
      data: new Uint8Array(length),
    });
    sameBytes((await blk(queue, memory, IN, 0, { in: 512 })).data, new Uint8Array(512));
  });
}

test("the last sector is there, and nothing behind it", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const data = bytesOf(6, 1024);
  assert.equal((await blk(queue, memory, OUT, SECTORS - 1, { out: data.slice(0, 512) })).status, OK);
  sameBytes((await blk(queue, memory, IN, SECTORS - 1, { in: 512 })).data, data.slice(0, 512));
  const beyond = [
    [SECTORS - 1, 1024],
    [SECTORS, 512],
    [2 ** 32, 512],
    [2 ** 53, 512],
    [(1n << 55n) - 1n, 512],
    [1n << 55n, 512],
    [1n << 63n, 512],
    [(1n << 64n) - 1n, 512],
    [(1n << 64n) - 1n, 1024],
  ] as const;
  for (const [sector, length] of beyond) {
    const { status, written } = await blk(queue, memory, IN, sector, { in: length });
    assert.deepEqual([status, written], [IOERR, 1], `a read of ${length} bytes at sector ${sector}`);
    assert.equal((await blk(queue, memory, OUT, sector, { out: bytesOf(7, length) })).status, IOERR);
  }
  sameBytes((await blk(queue, memory, IN, SECTORS - 1, { in: 512 })).data, data.slice(0, 512));
  sameBytes((await blk(queue, memory, IN, 0, { in: 512 })).data, new Uint8Array(512));
});

for (const type of [2, 3, 5, 6, 12, 14, 16, 99, 0x8000_0000, 0xffff_ffff]) {
  test(`a request of type ${type} is not supported`, LIMIT, async (t) => {
    const { queue, memory } = await stage(t);
    assert.deepEqual(await blk(queue, memory, type, 0, { in: 512 }), {
      status: UNSUPP,
      written: 1,
      data: new Uint8Array(512),
    });
  });
}

test("the serial number fills 20 bytes, and needs them", LIMIT, async (t) => {
  const { queue, memory } = await stage(t, { id: "disk-0123456789-abcd" });
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const exact = await blk(queue, memory, GET_ID, 0, { in: 20 });
  assert.deepEqual([exact.status, exact.written, text(exact.data)], [OK, 21, "disk-0123456789-abcd"]);
  const more = await blk(queue, memory, GET_ID, 0, { in: 30 });
  assert.deepEqual([more.status, text(more.data)], [OK, "disk-0123456789-abcd" + "\0".repeat(10)]);
  const less = await blk(queue, memory, GET_ID, 0, { in: 19 });
  assert.deepEqual([less.status, less.data], [IOERR, new Uint8Array(19)]);
});

test("a short serial number is padded with zeros", LIMIT, async (t) => {
  const { queue, memory } = await stage(t, { id: "x" });
  const { data } = await blk(queue, memory, GET_ID, 0, { in: 20 });
  sameBytes(data, concat(Uint8Array.of(120), new Uint8Array(19)));
});

test("FLUSH needs no data", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  assert.deepEqual(await blk(queue, memory, FLUSH, 0), { status: OK, written: 1, data: new Uint8Array(0) });
});

test("WRITE_ZEROES and DISCARD clear their ranges and nothing else", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  const data = bytesOf(8, 64 * 512);
  const sector = (n: number) => data.subarray(n * 512, n * 512 + 512);
  await blk(queue, memory, OUT, 0, { out: data });
  assert.equal((await blk(queue, memory, WRITE_ZEROES, 0, { out: ranges([1, 2], [7, 1, 1]) })).status, OK);
  for (const n of [1, 2, 7]) sector(n).fill(0);
  assert.equal((await blk(queue, memory, DISCARD, 0, { out: ranges([16, 8], [40, 8]) })).status, OK);
  for (let n = 0; n < 8; n++) [16 + n, 40 + n].forEach((each) => sector(each).fill(0));
  sameBytes((await blk(queue, memory, IN, 0, { in: data.length })).data, data);
});

for (
  const [what, type, out, expected] of [
    ["UNMAP on DISCARD", DISCARD, ranges([0, 8, 1]), UNSUPP],
    ["an unknown flag on DISCARD", DISCARD, ranges([0, 8, 2]), UNSUPP],
    ["an unknown flag on WRITE_ZEROES", WRITE_ZEROES, ranges([0, 8, 2]), UNSUPP],
    ["the last flag on WRITE_ZEROES", WRITE_ZEROES, ranges([0, 8, 0x8000_0000]), UNSUPP],
    ["a bad flag on the second range", WRITE_ZEROES, ranges([0, 8], [8, 8, 4]), UNSUPP],
    ["a range beyond the end", DISCARD, ranges([SECTORS - 7, 8]), IOERR],
    ["zeros beyond the end", WRITE_ZEROES, ranges([SECTORS, 1]), IOERR],
    ["a second range beyond the end", WRITE_ZEROES, ranges([0, 8], [SECTORS - 1, 2]), IOERR],
    ["a range at sector 2^63", WRITE_ZEROES, ranges([1n << 63n, 1]), IOERR],
    ["a range at the end of 64 bits", DISCARD, ranges([(1n << 64n) - 1n, 2]), IOERR],
    ["more sectors than are allowed", DISCARD, ranges([0, 0xffff_ffff]), IOERR],
    ["more zeros than are allowed", WRITE_ZEROES, ranges([0, 0xffff_ffff]), IOERR],
    ["too many ranges", WRITE_ZEROES, ranges(...Array.from({ length: 17 }, () => [0, 1] as const)), IOERR],
    ["no range", DISCARD, new Uint8Array(0), IOERR],
    ["half a range", WRITE_ZEROES, new Uint8Array(8), IOERR],
    ["a range and a half", DISCARD, new Uint8Array(24), IOERR],
  ] as const
) {
  test(`${what} is refused before anything is touched`, LIMIT, async (t) => {
    const { queue, memory } = await stage(t);
    const data = bytesOf(9, 16 * 512);
    await blk(queue, memory, OUT, 0, { out: data });
    assert.deepEqual(await blk(queue, memory, type, 0, { out }), {
      status: expected,
      written: 1,
      data: new Uint8Array(0),
    });
    sameBytes((await blk(queue, memory, IN, 0, { in: data.length })).data, data);
  });
}

test("16 ranges and a range of nothing are fine", LIMIT, async (t) => {
  const { queue, memory } = await stage(t);
  await blk(queue, memory, OUT, 0, { out: bytesOf(1, 32 * 512) });
  const out = ranges(...Array.from({ length: 16 }, (_, n) => [2 * n, n === 3 ? 0 : 1] as const));
  assert.equal((await blk(queue, memory, WRITE_ZEROES, 0, { out })).status, OK);
  const { data } = await blk(queue, memory, IN, 0, { in: 32 * 512 });
  const clear = Array.from(
    { length: 32 },
    (_, n) => data.subarray(n * 512, n * 512 + 512).every((byte) => byte === 0),
  );
  assert.deepEqual(clear, clear.map((_, n) => n % 2 === 0 && n !== 6));
});

test("a disk that is read-only reads, and refuses everything that changes it", LIMIT, async (t) => {
  const { scene, queue, memory } = await stage(t, { readOnly: true });
  const features = (await scene.peer().number("GET_FEATURES")) & 0xff_ffffn;
  assert.equal(features & 0x20n, 0x20n, "RO");
  assert.equal(features & 0x6000n, 0n, "neither DISCARD nor WRITE_ZEROES");
  assert.equal((await blk(queue, memory, IN, 0, { in: 512 })).status, OK);
  assert.equal((await blk(queue, memory, FLUSH, 0)).status, OK);
  assert.equal((await blk(queue, memory, OUT, 0, { out: bytesOf(1, 512) })).status, IOERR);
  assert.equal((await blk(queue, memory, WRITE_ZEROES, 0, { out: ranges([0, 1]) })).status, IOERR);
  assert.equal((await blk(queue, memory, DISCARD, 0, { out: ranges([0, 1]) })).status, IOERR);
  sameBytes((await blk(queue, memory, IN, 0, { in: 512 })).data, new Uint8Array(512));
});

test("a storage that can neither discard nor zero does not offer it", LIMIT, async (t) => {
  const storage: Storage = {
    size: 1 << 20,
    readOnly: false,
    read: (data) => data.clear(),
    write: () => {},
    flush: () => {},
    close: () => {},
  };
  const { scene, queue, memory } = await stage(t, { storage });
  assert.equal((await scene.peer().number("GET_FEATURES")) & 0x6000n, 0n);
  for (const type of [DISCARD, WRITE_ZEROES]) {
    assert.equal((await blk(queue, memory, type, 0, { out: ranges([0, 1]) })).status, UNSUPP);
  }
});
