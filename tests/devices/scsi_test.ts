import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemoryStorage, NullStorage, ScsiDevice, type Storage } from "../../src/devices/scsi/mod.ts";
import { OsError } from "../../mod.ts";
import { LATER } from "../../src/backend/device.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { bytesOf, eventually, LIMIT, sameBytes } from "../session/scene.ts";
import { buffer, filled } from "../session/requests.ts";
import { address, be, cdb, type Result, scsiStage } from "./scsi_driver.ts";

const MIB = 1 << 20;
const GOOD = 0, CHECK = 2;
const READY = cdb(0, 0, 0, 0, 0, 0);
const read10 = (block: number, count: number, flags = 0) =>
  cdb(0x28, flags, be(block, 4), 0, be(count, 2), 0);
const write10 = (block: number, count: number, flags = 0) =>
  cdb(0x2a, flags, be(block, 4), 0, be(count, 2), 0);
const inquiry = (page?: number, room = 255) =>
  cdb(0x12, page === undefined ? 0 : 1, page ?? 0, be(room, 2), 0);
const ascii = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const number = (bytes: Uint8Array, at: number, length: number) =>
  bytes.subarray(at, at + length).reduce((sum, byte) => sum * 256 + byte, 0);

/** Status, sense data and bytes of an outcome. */
function brief({ response, status, sense }: Result): string {
  return response !== 0 ? `response ${response}` : status === GOOD ? "good" : `${status} ${sense}`;
}

for (
  const [name, read, write] of [
    [
      "6",
      (b: number, n: number) => cdb(8, be(b, 3), n & 255, 0),
      (b: number, n: number) => cdb(10, be(b, 3), n & 255, 0),
    ],
    ["10", read10, write10],
    [
      "12",
      (b: number, n: number) => cdb(0xa8, 0, be(b, 4), be(n, 4), 0, 0),
      (b: number, n: number) => cdb(0xaa, 0, be(b, 4), be(n, 4), 0, 0),
    ],
    [
      "16",
      (b: number, n: number) => cdb(0x88, 0, be(b, 8), be(n, 4), 0, 0),
      (b: number, n: number) => cdb(0x8a, 0, be(b, 8), be(n, 4), 0, 0),
    ],
  ] as const
) {
  for (const blockSize of [512, 4096]) {
    test(`READ and WRITE (${name}), blocks of ${blockSize} bytes`, LIMIT, async (t) => {
      const storage = new MemoryStorage(4 * MIB);
      const { driver } = await scsiStage(t, { units: [{ storage, blockSize }] });
      for (const [block, count] of [[0, 1], [5, 3], [700, 256], [4 * MIB / blockSize - 2, 2]] as const) {
        const length = count * blockSize;
        const data = bytesOf(block, length);
        if (block + count > 4 * MIB / blockSize) continue;
        const written = await driver.run(write(block, count), { out: data });
        assert.deepEqual([brief(written), written.residual, written.used], ["good", 0, 108]);
        const back = await driver.run(read(block, count), { in: length });
        assert.deepEqual([brief(back), back.residual, back.used], ["good", 0, 108 + length]);
        sameBytes(back.data, data);
        // More room than is needed is left as it is, and counted.
        const more = await driver.run(read(block, count), { in: length + 100 });
        assert.deepEqual([brief(more), more.residual, more.used], ["good", 100, 108 + length]);
        assert.equal(brief(await driver.run(read(block, count), { in: length - 1 })), "response 1");
        assert.equal(brief(await driver.run(write(block, count), { out: data.subarray(1) })), "response 1");
        sameBytes((await driver.run(read(block, count), { in: length })).data, data);
      }
      const end = 4 * MIB / blockSize;
      for (const block of [end - 1, end, 0x1f_ffff]) {
        const past = await driver.run(read(block, 2), { in: 2 * blockSize });
        assert.deepEqual([brief(past), past.used, past.residual], ["2 5/21/0", 108, 2 * blockSize]);
        assert.equal(
          brief(await driver.run(write(block, 2), { out: new Uint8Array(2 * blockSize) })),
          "2 5/21/0",
        );
      }
    });
  }
}

test("positions beyond 2^53 are past the end, and large disks are read at their end", LIMIT, async (t) => {
  const { driver } = await scsiStage(t, { units: [{ storage: new NullStorage(2 ** 50) }] });
  const read = (...block: number[]) => driver.run(cdb(0x88, 0, block, be(1, 4), 0, 0), { in: 512 });
  assert.equal(brief(await read(...be(2 ** 41 - 1, 8))), "good");
  assert.equal(brief(await read(...be(2 ** 41, 8))), "2 5/21/0");
  assert.equal(brief(await read(255, 255, 255, 255, 255, 255, 255, 255)), "2 5/21/0");
  const capacity10 = await driver.run(cdb(0x25, be(0, 9)), { in: 8 });
  assert.equal(number(capacity10.data, 0, 4), 0xffff_ffff);
  const capacity16 = await driver.run(cdb(0x9e, 0x10, be(0, 8), be(32, 4), 0, 0), { in: 32 });
  assert.deepEqual([number(capacity16.data, 0, 8), number(capacity16.data, 8, 4)], [2 ** 41 - 1, 512]);
  assert.equal(capacity16.data[14], 0x80, "blocks can be given back");
});

test("what a unit is", LIMIT, async (t) => {
  const storage = new MemoryStorage(MIB);
  const { driver } = await scsiStage(t, {
    units: [{ storage, id: "serial 1", vendor: "me", product: "disk", wwn: 0x5000c500a1b2c3d4n }],
  });
  const standard = (await driver.run(inquiry(), { in: 255 })).data;
  assert.deepEqual([standard[0], standard[2], standard.length, standard[4]], [0, 6, 96, 91]);
  assert.equal(ascii(standard.subarray(8, 32)), "me      disk            ");
  const short = await driver.run(inquiry(undefined, 5), { in: 5 });
  assert.deepEqual([brief(short), short.data.length, short.residual], ["good", 5, 0]);
  const page = async (code: number) => {
    const { data } = await driver.run(inquiry(code), { in: 255 });
    assert.deepEqual([data[1], number(data, 2, 2)], [code, data.length - 4]);
    return data.subarray(4);
  };
  assert.deepEqual([...await page(0)], [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  assert.equal(ascii(await page(0x80)), "serial 1");
  const names = await page(0x83);
  assert.equal(ascii(names.subarray(4, 4 + names[3])), "me      disk            serial 1");
  assert.deepEqual([...names.slice(-12)], [1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0xa1, 0xb2, 0xc3, 0xd4]);
  const limits = await page(0xb0);
  assert.deepEqual(
    [number(limits, 16, 4), number(limits, 20, 4), number(limits, 32, 8)],
    [2 ** 21, 64, 2 ** 16],
  );
  assert.equal(number(await page(0xb1), 0, 2), 1, "does not rotate");
  assert.equal((await page(0xb2))[1], 0xe0);
  assert.equal(brief(await driver.run(inquiry(0xb5), { in: 255 })), "2 5/24/0");
  assert.equal(brief(await driver.run(cdb(0x12, 0, 0x80, 0, 255, 0), { in: 255 })), "2 5/24/0");
});

test("targets and units that are not there", LIMIT, async (t) => {
  const units = [{ storage: new MemoryStorage(MIB) }, { storage: new MemoryStorage(MIB) }];
  const { driver, host } = await scsiStage(t, { units });
  host.attach(300, { storage: new MemoryStorage(MIB) });
  const luns = await driver.run(cdb(0xa0, 0, 0, 0, 0, 0, be(64, 4), 0, 0), { in: 64 });
  assert.equal(number(luns.data, 0, 4), 24);
  assert.deepEqual([8, 16, 24].map((at) => number(luns.data, at, 2)), [0, 1, 0x4000 | 300]);
  assert.equal(brief(await driver.run(READY, { target: 1 })), "response 3");
  assert.equal(brief(await driver.run(READY, { lun: 7 })), "2 5/25/0");
  assert.equal((await driver.run(inquiry(), { lun: 7, in: 255 })).data[0], 0x7f);
  const sense = await driver.run(cdb(3, 0, 0, 0, 18, 0), { lun: 7, in: 18 });
  assert.deepEqual([brief(sense), sense.data[2], sense.data[12]], ["good", 5, 0x25]);
  assert.equal(brief(await driver.run(READY, { lun: 300 })), "2 6/29/0");
  assert.equal(brief(await driver.run(READY, { lun: 300 })), "good");
});

test("what the driver has to be told comes once, before the command", LIMIT, async (t) => {
  const { driver, host } = await scsiStage(t, { fresh: true });
  assert.equal(brief(await driver.run(inquiry(), { in: 255 })), "good", "INQUIRY does not tell");
  assert.equal(brief(await driver.run(read10(0, 1), { in: 512 })), "2 6/29/0");
  assert.equal(brief(await driver.run(read10(0, 1), { in: 512 })), "good");
  host.resized();
  host.resized(0);
  const fixed = await driver.run(cdb(3, 0, 0, 0, 18, 0), { in: 18 });
  assert.deepEqual([fixed.data[0], fixed.data[2], fixed.data[12], fixed.data[13]], [0x70, 6, 0x2a, 9]);
  const none = await driver.run(cdb(3, 1, 0, 0, 8, 0), { in: 8 });
  assert.deepEqual([...none.data], [0x72, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(brief(await driver.run(READY)), "good");
});

test(
  "the cache is on, and can be turned off; FUA is durable; so is what is written through",
  LIMIT,
  async (t) => {
    const storage = new GatedStorage();
    storage.open = true;
    const { driver } = await scsiStage(t, { units: [{ storage }] });
    const caching = async (control = 0) => {
      const { data } = await driver.run(cdb(0x1a, 8, control << 6 | 8, 0, 255, 0), { in: 255 });
      assert.deepEqual([data.length, data[0], data[2], data[4], data[5]], [24, 23, 0x10, 8, 18]);
      return data;
    };
    const out = bytesOf(1, 512);
    assert.equal((await caching())[6], 4);
    assert.equal((await caching(1))[6], 4, "it can be changed");
    await driver.run(write10(0, 1), { out });
    assert.deepEqual(storage.done.splice(0), ["write"]);
    await driver.run(write10(0, 1, 8), { out });
    assert.deepEqual(storage.done.splice(0), ["write", "flush"]);
    const list = await caching();
    list[0] = 0;
    list[6] = 0;
    assert.equal(brief(await driver.run(cdb(0x15, 0x10, 0, 0, list.length, 0), { out: list })), "good");
    assert.equal((await caching())[6], 0);
    assert.equal((await caching(2))[6], 4, "as it is at first");
    await driver.run(write10(0, 1), { out });
    assert.deepEqual(storage.done.splice(0), ["write", "flush"]);
    assert.equal(
      brief(await driver.run(cdb(0x93, 0, be(0, 8), be(8, 4), 0, 0), { out: new Uint8Array(512) })),
      "good",
    );
    assert.deepEqual(storage.done.splice(0), ["writeZeroes", "flush"]);
    assert.equal(brief(await driver.run(cdb(0x35, be(0, 9)))), "good");
    assert.equal(brief(await driver.run(cdb(0x91, be(0, 15)))), "good");
    assert.deepEqual(storage.done.splice(0), ["flush", "flush"]);
    // Anything else cannot be changed, and nothing is when one of several cannot.
    list[6] = 4;
    list[7] = 1;
    assert.equal(brief(await driver.run(cdb(0x15, 0x10, 0, 0, list.length, 0), { out: list })), "2 5/26/0");
    assert.equal((await caching())[6], 0);
    assert.equal(brief(await driver.run(cdb(0x15, 0x10, 0, 0, 3, 0), { out: list })), "2 5/1a/0");
    assert.equal(brief(await driver.run(cdb(0x15, 0x11, 0, 0, 4, 0), { out: list })), "2 5/24/0");
    const all = await driver.run(cdb(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0), { in: 255 });
    assert.deepEqual([all.data.length, number(all.data, 0, 2), all.data[7]], [48, 46, 8]);
    assert.deepEqual([number(all.data, 8, 4), number(all.data, 13, 3)], [2048, 512]);
    assert.equal(brief(await driver.run(cdb(0x1a, 0, 0xc8, 0, 255, 0), { in: 255 })), "2 5/39/0");
    assert.equal(brief(await driver.run(cdb(0x1a, 0, 5, 0, 255, 0), { in: 255 })), "2 5/24/0");
  },
);

test("UNMAP, WRITE SAME and VERIFY", LIMIT, async (t) => {
  const storage = new GatedStorage();
  storage.open = true;
  const { driver } = await scsiStage(t, { units: [{ storage }] });
  const data = bytesOf(3, 64 * 512);
  await driver.run(write10(0, 64), { out: data });
  storage.done.length = 0;
  const contents = async () => (await driver.run(read10(0, 64), { in: 64 * 512 })).data;
  const unmap = (list: Uint8Array) =>
    driver.run(cdb(0x42, 0, 0, 0, 0, 0, 0, be(list.length, 2), 0), { out: list });
  const ranges = (...each: [number, number][]) =>
    cdb(
      be(6 + 16 * each.length, 2),
      be(16 * each.length, 2),
      be(0, 4),
      each.flatMap(([block, count]) => [...be(block, 8), ...be(count, 4), ...be(0, 4)]),
    );
  assert.equal(brief(await unmap(ranges([8, 8], [24, 0], [32, 8]))), "good");
  assert.deepEqual(storage.done.splice(0), ["discard", "discard"]);
  data.fill(0, 8 * 512, 16 * 512);
  data.fill(0, 32 * 512, 40 * 512);
  sameBytes(await contents(), data);
  assert.equal(brief(await unmap(ranges([0, 8], [2047, 2]))), "2 5/21/0");
  assert.equal(
    brief(await unmap(ranges(...Array.from({ length: 65 }, () => [0, 1] as [number, number])))),
    "2 5/26/0",
  );
  assert.equal(brief(await unmap(new Uint8Array(7))), "2 5/1a/0");
  const long = ranges([0, 8]);
  long[3] = 200;
  assert.equal(brief(await unmap(long)), "2 5/1a/0");
  storage.done.length = 0;
  sameBytes(await contents(), data, "none of it was done");

  const same = (block: number, count: number, flags: number, out?: Uint8Array) =>
    driver.run(cdb(0x93, flags, be(block, 8), be(count, 4), 0, 0), { out });
  assert.equal(brief(await same(0, 8, 8, new Uint8Array(512))), "good");
  assert.equal(brief(await same(16, 2, 1)), "good", "NDOB");
  storage.done.length = 0;
  const pattern = bytesOf(9, 512);
  assert.equal(brief(await same(40, 20, 0, pattern)), "good");
  assert.deepEqual([...new Set(storage.done.splice(0))], ["write"]);
  data.fill(0, 0, 8 * 512);
  data.fill(0, 16 * 512, 18 * 512);
  for (let i = 40; i < 60; i++) data.set(pattern, i * 512);
  sameBytes(await contents(), data);
  assert.equal(brief(await same(0, 0, 0, pattern)), "2 5/24/0");
  assert.equal(brief(await same(0, 65537, 0, pattern)), "2 5/24/0");
  assert.equal(brief(await same(2040, 9, 0, pattern)), "2 5/21/0");
  assert.equal(brief(await same(0, 1, 0x10, pattern)), "2 5/24/0");
  assert.equal(brief(await driver.run(cdb(0x41, 0, be(1, 4), 0, be(2, 2), 0), { out: pattern })), "good");

  const verify = (block: number, count: number, how: number, out?: Uint8Array) =>
    driver.run(cdb(0x2f, how << 1, be(block, 4), 0, be(count, 2), 0), { out });
  assert.equal(brief(await verify(0, 64, 0)), "good");
  assert.equal(brief(await verify(2047, 2, 0)), "2 5/21/0");
  assert.equal(brief(await verify(32, 32, 1, data.slice(32 * 512))), "good");
  assert.equal(brief(await verify(31, 32, 1, data.slice(32 * 512))), "2 e/1d/0");
  assert.equal(brief(await verify(40, 20, 3, pattern)), "good");
  assert.equal(brief(await verify(40, 21, 3, pattern)), "2 e/1d/0");
  assert.equal(brief(await verify(0, 1, 2, pattern)), "2 5/24/0");
});

test("VERIFY and WRITE SAME of more than fits at once", LIMIT, async (t) => {
  const { driver } = await scsiStage(t, {
    units: [{ storage: new MemoryStorage(4 * MIB), blockSize: 4096 }],
  });
  const pattern = bytesOf(2, 4096);
  const same = await driver.run(cdb(0x41, 0, be(3, 4), 0, be(500, 2), 0), { out: pattern });
  assert.equal(brief(same), "good");
  const verify = (count: number, how: number, out: Uint8Array) =>
    driver.run(cdb(0x2f, how << 1, be(3, 4), 0, be(count, 2), 0), { out });
  assert.equal(brief(await verify(500, 3, pattern)), "good");
  assert.equal(brief(await verify(501, 3, pattern)), "2 e/1d/0");
  const all = new Uint8Array(100 * 4096).map((_, i) => pattern[i % 4096]);
  assert.equal(brief(await verify(100, 1, all)), "good");
  all[99 * 4096] ^= 1;
  assert.equal(brief(await verify(100, 1, all)), "2 e/1d/0");
});

test("a disk that is read-only, or cannot give blocks back", LIMIT, async (t) => {
  const plain: Storage = {
    size: MIB,
    readOnly: false,
    read: (data) => data.clear(),
    write: () => {},
    flush: () => {},
    close: () => {},
  };
  const { driver } = await scsiStage(t, {
    units: [{ storage: new MemoryStorage(MIB), readOnly: true }, { storage: plain }],
  });
  const out = new Uint8Array(512);
  assert.equal(brief(await driver.run(write10(0, 1), { out })), "2 7/27/0");
  assert.equal(brief(await driver.run(cdb(0x41, 0, be(0, 4), 0, be(1, 2), 0), { out })), "2 7/27/0");
  assert.equal(brief(await driver.run(cdb(0x42, be(0, 6), be(24, 2), 0), { out })), "2 7/27/0");
  assert.equal((await driver.run(cdb(0x1a, 8, 8, 0, 255, 0), { in: 255 })).data[2], 0x90);
  assert.equal((await driver.run(inquiry(0xb2), { in: 255 })).data[5], 0);
  assert.equal(brief(await driver.run(cdb(0x42, be(0, 6), be(24, 2), 0), { out, lun: 1 })), "2 5/20/0");
  assert.equal((await driver.run(inquiry(0xb2), { in: 255, lun: 1 })).data[5], 0);
  assert.equal(brief(await driver.run(cdb(0x41, 0, be(0, 4), 0, be(1, 2), 0), { out, lun: 1 })), "good");
});

test("START STOP UNIT, and commands that do not exist", LIMIT, async (t) => {
  const { driver } = await scsiStage(t);
  const start = (how: number) => driver.run(cdb(0x1b, 0, 0, 0, how, 0));
  assert.equal(brief(await start(0)), "good");
  assert.equal(brief(await driver.run(READY)), "2 2/4/2");
  assert.equal(brief(await driver.run(read10(0, 1), { in: 512 })), "2 2/4/2");
  assert.equal(brief(await driver.run(inquiry(), { in: 255 })), "good");
  assert.equal(brief(await start(1)), "good");
  assert.equal(brief(await driver.run(READY)), "good");
  assert.equal(brief(await start(2)), "2 5/24/0", "nothing to eject");
  for (const opcode of [0x01, 0x04, 0x5e, 0x7f, 0xc0, 0xff]) {
    assert.equal(brief(await driver.run(cdb(opcode, be(0, 31)))), "2 5/20/0", opcode.toString(16));
  }
  assert.equal(brief(await driver.run(cdb(0x9e, 0x12, be(0, 14)), { in: 32 })), "2 5/20/0");
});

test("every command that is listed exists, and no other", LIMIT, async (t) => {
  const { driver } = await scsiStage(t, { units: [{ storage: new MemoryStorage(MIB) }] });
  const ask = (how: number, opcode: number, action: number, room: number) =>
    driver.run(cdb(0xa3, 0x0c, how, opcode, be(action, 2), be(room, 4), 0, 0), { in: room });
  const { data } = await ask(0, 0, 0, 1024);
  assert.equal(number(data, 0, 4), data.length - 4);
  const listed = new Map<number, number>();
  for (let at = 4; at < data.length; at += 8) {
    const action = (data[at + 5] & 1) === 1 ? number(data, at + 2, 2) : 0;
    listed.set(data[at], action);
    const length = number(data, at + 6, 2);
    const one = await ask(3, data[at], action, 64);
    assert.deepEqual([one.data[1], number(one.data, 2, 2), one.data[4]], [3, length, data[at]]);
    assert.equal(one.data.length, 4 + length);
  }
  assert.equal(listed.size, 28);
  for (let opcode = 0; opcode < 256; opcode++) {
    const action = listed.get(opcode);
    const outcome = await driver.run(cdb(opcode, action ?? 0, be(0, 30)));
    assert.equal(
      brief(outcome) === "2 5/20/0",
      action === undefined,
      `${opcode.toString(16)}: ${brief(outcome)}`,
    );
    if (action === undefined) assert.equal((await ask(1, opcode, 0, 64)).data[1], 1);
  }
});

test("a storage that fails: sense data says how", LIMIT, async (t) => {
  let error: unknown = new Error("broken");
  const fail = (): never => {
    throw error;
  };
  const inner = new MemoryStorage(MIB);
  let how: "throws" | "rejects" | "later" = "throws";
  const act = (completion: { done(error?: unknown): void }): Promise<void> | typeof LATER => {
    if (how === "throws") fail();
    if (how === "rejects") return Promise.reject(error);
    setTimeout(() => completion.done(error), 1);
    return LATER;
  };
  const storage: Storage = {
    size: MIB,
    readOnly: false,
    read: (_data, _position, completion) => act(completion),
    write: (_data, _position, completion) => act(completion),
    flush: act,
    discard: fail,
    writeZeroes: fail,
    close: () => inner.close(),
  };
  const { driver, scene } = await scsiStage(t, { units: [{ storage }] });
  const out = new Uint8Array(512);
  for (how of ["throws", "rejects", "later"] as const) {
    error = new Error("broken");
    const failed = await driver.run(read10(0, 1), { in: 512 });
    assert.deepEqual([brief(failed), failed.used, failed.residual], ["2 3/11/0", 108, 512], how);
    assert.equal(brief(await driver.run(write10(0, 1), { out })), "2 3/c/0");
    assert.equal(brief(await driver.run(write10(0, 1, 8), { out })), "2 3/c/0");
    assert.equal(brief(await driver.run(cdb(0x35, be(0, 9)))), "2 3/c/0");
    assert.equal(brief(await driver.run(cdb(0x2f, 2, be(0, 4), 0, be(1, 2), 0), { out })), "2 3/11/0");
    error = new OsError("pwritev", 28, "writing");
    assert.equal(brief(await driver.run(write10(0, 1), { out })), "2 7/27/7");
  }
  assert.equal(brief(await driver.run(cdb(0x41, 0, be(0, 4), 0, be(1, 2), 0), { out })), "2 7/27/7");
  assert.deepEqual(scene.log.problems, []);
});

test("abort and reset wait for what is under way, and that ends as aborted", LIMIT, async (t) => {
  const storage = new GatedStorage();
  const units = [{ storage }, { storage: new MemoryStorage(MIB) }];
  const { driver } = await scsiStage(t, { units });
  const [ABORT, ABORT_SET, NEXUS_RESET, RESET, QUERY, QUERY_SET] = [0, 1, 4, 5, 6, 7];
  const start = (id: bigint) => driver.run(read10(0, 1), { in: 512, id });
  const held = (count: number) => eventually(`${count} held`, () => storage.held.length === count);

  const [one, two] = [start(1n), start(0x1_0000_0002n)];
  await held(2);
  assert.deepEqual(
    [
      await driver.manage(QUERY, 0, 1n),
      await driver.manage(QUERY, 0, 0x1_0000_0002n),
      await driver.manage(QUERY, 0, 2n),
      await driver.manage(QUERY, 1, 1n),
      await driver.manage(QUERY_SET, 0),
      await driver.manage(QUERY_SET, 1),
    ],
    [10, 10, 0, 0, 10, 0],
  );
  let over = false;
  const abort = driver.manage(ABORT, 0, 0x1_0000_0002n).then((response) => {
    over = true;
    return response;
  });
  assert.equal(await driver.manage(ABORT, 1, 1n), 0, "nothing to abort there");
  assert.equal(over, false);
  storage.release();
  assert.equal(await abort, 0);
  assert.deepEqual([brief(await one), brief(await two)], ["good", "response 2"]);

  const three = [start(3n), start(4n)];
  await held(2);
  const set = driver.manage(ABORT_SET, 0);
  await driver.manage(QUERY_SET, 0);
  storage.release();
  assert.equal(await set, 0);
  assert.deepEqual((await Promise.all(three)).map(brief), ["response 2", "response 2"]);

  for (const how of [RESET, NEXUS_RESET]) {
    const four = start(5n);
    await held(1);
    const reset = driver.manage(how, 0);
    await driver.manage(QUERY_SET, 0);
    storage.held.splice(0)[0].fail();
    assert.equal(await reset, 0);
    assert.equal(brief(await four), "response 4");
    assert.equal(brief(await driver.run(READY)), "2 6/29/3");
    assert.equal(brief(await driver.run(READY)), "good");
    assert.equal(brief(await driver.run(READY, { lun: 1 })), how === RESET ? "good" : "2 6/29/3");
  }
  assert.equal(await driver.manage(RESET, 5), 12);
  assert.equal(await driver.manage(RESET, 0, 0n, 3), 3);
  assert.equal(await driver.manage(2, 0), 11, "CLEAR ACA");
  assert.equal(await driver.manage(99, 0), 11);
});

test(
  "events: units come and go, sizes change, and what found no buffer is told of later",
  LIMIT,
  async (t) => {
    const storage = new MemoryStorage(MIB);
    const { driver, host } = await scsiStage(t, { units: [{ storage }] });
    const next = driver.event();
    host.attach(300, { storage: new MemoryStorage(MIB) });
    assert.deepEqual(await next, { event: 1, lun: 300, reason: 1 });
    assert.equal(brief(await driver.run(READY)), "2 6/3f/e");
    const resized = driver.event();
    storage.resize(2 * MIB);
    host.resized(0);
    assert.deepEqual(await resized, { event: 3, lun: 0, reason: 0x092a });
    assert.equal(brief(await driver.run(READY)), "2 6/2a/9");
    const capacity = await driver.run(cdb(0x25, be(0, 9)), { in: 8 });
    assert.equal(number(capacity.data, 0, 4), 4095);
    await host.detach(300);
    assert.deepEqual(await driver.event(), { event: 0x8000_0000, lun: 0, reason: 0 });
    assert.equal(brief(await driver.run(READY, { lun: 300 })), "2 5/25/0");
    assert.throws(() => host.attach(0, { storage }), /unit 0 is there already/);
    await assert.rejects(host.detach(300), /no unit 300; there are 0/);
  },
);

test("a unit that is taken away is closed when its last command is over", LIMIT, async (t) => {
  const storage = new GatedStorage();
  let closed = false;
  const close = storage.close.bind(storage);
  storage.close = () => {
    closed = true;
    close();
  };
  const { driver, host } = await scsiStage(t, { units: [{ storage }] });
  const read = driver.run(read10(0, 1), { in: 512 });
  await eventually("it is held", () => storage.held.length === 1);
  const gone = host.detach(0);
  assert.equal(brief(await driver.run(READY)), "2 5/25/0");
  assert.equal(closed, false);
  storage.release();
  assert.equal(brief(await read), "good");
  await gone;
  assert.equal(closed, true);
});

test("drivers that did not ask are not told", LIMIT, async (t) => {
  const { driver, host } = await scsiStage(t, { deviceFeatures: 0n });
  const event = driver.event();
  host.resized();
  host.attach(1, { storage: new MemoryStorage(MIB) });
  assert.equal(brief(await driver.run(READY)), "2 6/2a/9", "but by the next command");
  assert.equal(driver.events.inFlight, 1);
  driver.frontEnd.close();
  await assert.rejects(event);
});

test("the sizes of commands and sense data can be changed, and nothing else", LIMIT, async (t) => {
  const { driver } = await scsiStage(t);
  const { frontEnd } = driver;
  const config = async () => new DataView((await frontEnd.readConfig(0, 36)).slice().buffer);
  const view = await config();
  assert.deepEqual([0, 16, 20, 24, 32].map((at) => view.getUint32(at, true)), [16, 16, 96, 32, 16383]);
  const set = (at: number, value: number) => frontEnd.writeConfig(at, cdb(value & 255, value >> 8, 0, 0));
  await set(24, 16);
  const out = await driver.raw(cdb([...address(0)], be(0, 11), [...read10(0, 1)], be(0, 6)), undefined, 512);
  assert.deepEqual([brief(out), out.data.length], ["good", 512]);
  await set(24, 32);
  for (const [at, value] of [[24, 15], [24, 261], [20, 17], [20, 253], [0, 3], [34, 1]] as const) {
    await assert.rejects(set(at, value), `${value} at ${at}`);
  }
});

test("requests that are no requests", LIMIT, async (t) => {
  const { driver, scene } = await scsiStage(t);
  const short = await driver.raw(new Uint8Array(50), undefined, 0);
  assert.deepEqual([brief(short), short.used], ["response 9", 108]);
  const both = await driver.raw(cdb([...address(0)], be(0, 43)), new Uint8Array(1), 1);
  assert.equal(brief(both), "response 9");
  const { memory, requests: [queue], control } = driver;
  const piece = (length: number) => buffer(filled(memory, new Uint8Array(length)));
  assert.equal(await queue.request([piece(51)], [piece(107)]), 0);
  await scene.log.problem(/needs 108 writable bytes for its answer, got 107/);
  for (
    const [length, room, type] of [[3, 1, 0], [23, 1, 0], [24, 0, 0], [15, 5, 1], [16, 4, 2], [24, 1, 3]]
  ) {
    const request = filled(memory, new Uint8Array(length));
    request.bytes[0] = type;
    assert.equal(await control.request([buffer(request)], room === 0 ? [] : [piece(room)]), 0);
    await scene.log.problem(/control request|task management|notifications/);
  }
  const query = filled(memory, cdb(1, 0, 0, 0, [...address(0)], 0xff, 0, 0, 0));
  const answer = filled(memory, new Uint8Array(5).fill(0xee));
  assert.equal(await control.request([buffer(query)], [buffer(answer)]), 5);
  assert.deepEqual([...answer.bytes], [0, 0, 0, 0, 0]);
  assert.equal(brief(await driver.run(READY)), "good");
});

test(
  "whatever a driver sends, there is an answer in order, and nothing of ours in it",
  { timeout: 60_000 },
  async (t) => {
    const { driver, scene } = await scsiStage(t, { units: [{ storage: new MemoryStorage(64 * 1024) }] });
    const opcodes = [
      0,
      3,
      8,
      10,
      0x12,
      0x15,
      0x1a,
      0x1b,
      0x25,
      0x28,
      0x2a,
      0x2f,
      0x35,
      0x41,
      0x42,
      0x55,
      0x5a,
    ];
    const more = [0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa, 0xaf];
    const bytes = fc.uint8Array({ minLength: 31, maxLength: 31 });
    // Mostly zeros, so that many commands mean something.
    const sparse = fc.tuple(bytes, fc.integer({ min: 0, max: 0x7fff_ffff })).map(([all, mask]) =>
      all.map((byte, i) => (mask >> i & 1) === 1 ? byte : 0)
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.constantFrom(...opcodes, ...more), fc.integer({ min: 0, max: 255 })),
        fc.oneof(sparse, bytes),
        fc.integer({ min: 0, max: 3000 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 1 }),
        async (opcode, rest, size, out, lun) => {
          const command = cdb(opcode, [...rest]);
          const data = new Uint8Array(size).map((_, i) => rest[i % 31]);
          const result = await driver.run(command, { lun, ...out ? { out: data } : { in: size } });
          assert.ok(result.response <= 1, `response ${result.response}`);
          assert.ok([GOOD, CHECK].includes(result.status));
          assert.equal(result.status === CHECK, result.sense !== "");
          assert.equal(result.residual + result.data.length >= (out ? 0 : size), true);
          assert.equal(result.data.length, result.used - 108);
          if (result.status !== GOOD || result.response !== 0) assert.equal(result.residual, size);
        },
      ),
      { seed: 7, numRuns: 1500 },
    );
    assert.deepEqual(scene.log.problems, []);
    await driver.run(cdb(0x1b, 0, 0, 0, 1, 0));
    await driver.run(READY);
    assert.equal(brief(await driver.run(READY)), "good");
  },
);

test("a host cannot be made of nonsense", () => {
  const storage = new NullStorage(MIB);
  const make = (unit: object, rest: object = {}) => () =>
    new ScsiDevice({ units: [{ storage, ...unit }], ...rest });
  assert.throws(make({ blockSize: 1024 }), /blockSize must be 512 or 4096, got 1024/);
  assert.throws(make({ id: "" }), /id must have 1 to 36 printable ASCII characters, got ""/);
  assert.throws(make({ id: "ü" }), /id must have/);
  assert.throws(make({ vendor: "123456789" }), /vendor must have 0 to 8/);
  assert.throws(make({ wwn: -1n }), /wwn must have 64 bits/);
  assert.throws(make({ storage: new NullStorage(0) }), /storage size must be/);
  assert.throws(make({}, { requestQueues: 0 }), /requestQueues must be 1 to 254, got 0/);
  assert.throws(() => new ScsiDevice({ units: [] }).attach(16384, { storage }), /lun must be 0 to 16383/);
});
