import assert from "node:assert/strict";
import { test } from "node:test";
import { SECTOR, type Storage } from "../../src/devices/blk/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Scene } from "../session/scene.ts";
import { onEnd } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { contentsOf, History, type Write, WrongContentError } from "./history.ts";
import { Load } from "./load.ts";

const LIMIT = { timeout: 5000 };
const SECTORS = 8;

/** A history and a disk beside it, on which writes are done when the test says so. */
class Bench {
  readonly history = new History(SECTORS, true);
  readonly bytes = new Uint8Array(SECTORS * SECTOR);

  issue(sector = 0, count = 2): Write {
    return this.history.issue(sector, count);
  }

  /** Does a write, or the first sectors of it. */
  put(write: Write, count = write.count): void {
    this.bytes.set(contentsOf(write).subarray(0, count * SECTOR), write.sector * SECTOR);
  }

  /** A write from its issue to its acknowledgement. */
  write(sector = 0, count = 2): Write {
    const write = this.issue(sector, count);
    this.put(write);
    this.history.acknowledge(write);
    return write;
  }

  fine(): void {
    this.history.check(this.bytes);
  }

  wrong(message: RegExp, kind: "seen" | "durable" = "seen"): void {
    assert.throws(
      () => this.history.check(this.bytes, kind),
      (error) => error instanceof WrongContentError && message.test(error.message),
    );
  }
}

test("a write that is lost is found", LIMIT, () => {
  const bench = new Bench();
  const first = bench.write();
  bench.fine();
  bench.history.acknowledge(bench.issue());
  bench.wrong(/sector 0 holds write 1: one was lost, or one was done late; it must be of write 2/);
  bench.put(first);
  bench.wrong(/holds write 1/);
});

test("a write that is done again after a later one is found", LIMIT, () => {
  const bench = new Bench();
  const first = bench.write();
  bench.write(1);
  bench.fine();
  bench.put(first);
  bench.wrong(/sector 1 holds write 1: .*must be of write 2/);
});

test(
  "of writes under way at once either may be the last, and may be done or not until it is acknowledged",
  LIMIT,
  () => {
    const bench = new Bench();
    bench.write();
    const [a, b] = [bench.issue(), bench.issue()];
    bench.fine();
    for (const write of [a, b, a]) {
      bench.put(write);
      bench.fine();
    }
    bench.history.acknowledge(b);
    bench.fine();
    bench.history.acknowledge(a);
    bench.fine();
    bench.put(b);
    bench.fine();
    const c = bench.write();
    bench.fine();
    bench.put(a);
    bench.wrong(/holds write 2.*must be of write 4/);
    bench.put(c);
    bench.fine();
  },
);

test("what one reader has seen, the next must not miss", LIMIT, () => {
  const bench = new Bench();
  const first = bench.write();
  bench.put(bench.issue());
  const reading = bench.history.startReading(0, 2);
  bench.history.finishReading(reading, bench.bytes);
  bench.put(first);
  bench.wrong(/holds write 1.*must be of write 2/);
});

test("a read may find what came while it was under way, and nothing older than when it began", LIMIT, () => {
  const bench = new Bench();
  bench.write();
  const early = bench.bytes.slice();
  const reading = bench.history.startReading(0, SECTORS);
  bench.write();
  const between = bench.bytes.slice();
  const late = bench.history.startReading(0, SECTORS);
  bench.write();
  bench.history.finishReading(reading, between);
  assert.throws(() => bench.history.finishReading(late, early), /holds write 1/);
});

test(
  "who reads while a sector is written may find parts of both, but of nothing else, and not later",
  LIMIT,
  () => {
    const bench = new Bench();
    const { history, bytes } = bench;
    bench.write(0, 1);
    const half = (write: Write): void => bytes.set(contentsOf(write).subarray(0, SECTOR / 2));
    const read = (): void => history.finishReading(history.startReading(0, 1), bytes);
    const late = bench.issue(0, 1);
    half(late);
    read();
    // What has been seen in parts is not done yet.
    bench.put({ ...late, number: 1 });
    read();
    half(late);
    bytes[SECTOR - 1] ^= 1;
    assert.throws(read, /sector 0 holds a torn write 2/);
    bytes[SECTOR - 1] ^= 1;
    const early = history.startReading(0, 1);
    bench.wrong(/sector 0 holds a torn write 2/);
    history.acknowledge(late);
    history.finishReading(early, bytes);
    assert.throws(read, /sector 0 holds a torn write 2/);
  },
);

test("parts of two writes that have ended are torn, whatever else is under way", LIMIT, () => {
  const bench = new Bench();
  const [a, b] = [bench.issue(0, 1), bench.issue(0, 1)];
  bench.history.acknowledge(a);
  bench.history.acknowledge(b);
  bench.issue(0, 1);
  bench.put(a);
  bench.bytes.set(contentsOf(b).subarray(0, SECTOR / 2));
  assert.throws(
    () => bench.history.finishReading(bench.history.startReading(0, 1), bench.bytes),
    /sector 0 holds a torn write 2/,
  );
});

test("torn, misplaced and foreign sectors are found", LIMIT, () => {
  const bench = new Bench();
  bench.write();
  const before = bench.bytes.slice();
  bench.bytes[SECTOR - 1] ^= 1;
  bench.wrong(/sector 0 holds a torn write 1/);
  bench.bytes.set(before);
  bench.bytes.copyWithin(0, SECTOR, 2 * SECTOR);
  bench.wrong(/sector 0 holds sector 1 of write 1/);
  bench.bytes.set(before);
  bench.bytes[3 * SECTOR + 100] = 1;
  bench.wrong(/sector 3 holds what nobody wrote/);
  bench.bytes.set(before);
  bench.bytes.set(contentsOf({ number: 9, sector: 0, count: 1 }));
  bench.wrong(/sector 0 holds write 9, which was never issued/);
  bench.bytes.fill(0);
  bench.wrong(/sector 0 holds write 0/);
});

test("a driver that is gone leaves each of its writes done or not, and not to be done later", LIMIT, () => {
  const bench = new Bench();
  bench.write();
  const left = bench.issue();
  bench.history.abandon();
  bench.fine();
  bench.put(left);
  bench.fine();
  bench.write();
  bench.put(left);
  bench.wrong(/holds write 2.*must be of write 3/);
});

test("what was acknowledged before a flush must outlast the power, and nothing else", LIMIT, () => {
  const bench = new Bench();
  const zeros = bench.bytes.slice();
  const { history } = bench;
  const durable = (bytes: Uint8Array): void => history.check(bytes, "durable");
  bench.write();
  durable(zeros);
  const slow = history.flush();
  bench.write(4);
  const quick = history.flush();
  durable(zeros);
  quick();
  durable(bench.bytes);
  assert.throws(() => durable(zeros), /sector 0 holds write 0.*must be of write 1/);
  const both = bench.bytes.slice();
  bench.write();
  slow();
  durable(bench.bytes);
  durable(both);
  history.acknowledge(bench.issue(), true);
  assert.throws(() => durable(both), /sector 0 holds write 1.*must be of write 4/);
});

/** What a disk does with some of its writes. */
type Fault = (disk: Uint8Array, data: Uint8Array, position: number) => void;

/** Milliseconds that a write comes too late: a load does many others meanwhile. */
const LATE = 20;

const faults: Readonly<Record<string, Fault>> = {
  "loses a write": () => {},
  "does a write again, later": (disk, data, position) => {
    disk.set(data, position);
    setTimeout(() => disk.set(data, position), LATE);
  },
  "acknowledges a write and does it later": (disk, data, position) => {
    setTimeout(() => disk.set(data, position), LATE);
  },
  "does half of a sector": (disk, data, position) => disk.set(data.subarray(0, SECTOR / 2), position),
  "writes to the sector before": (disk, data, position) => disk.set(data, Math.max(0, position - SECTOR)),
};

for (const [what, fault] of Object.entries(faults)) {
  test(`the load finds a disk that ${what}`, LIMIT, async (t) => {
    const bytes = new Uint8Array(128 * SECTOR);
    let writes = 0;
    const storage: Storage = {
      size: bytes.length,
      readOnly: false,
      read: (data, position) => void data.copyFrom(bytes.subarray(position, position + data.byteLength)),
      write: (data, position) => {
        const written = new Uint8Array(data.byteLength);
        data.copyTo(written);
        if (++writes % 50 !== 0) bytes.set(written, position);
        else fault(bytes, written, position);
      },
      flush: () => {},
      close: () => {},
    };
    const scene = await Scene.disk(t, { storage });
    const disk = await BlkDriver.connect(scene.path);
    onEnd(t, () => disk.close());
    const load = new Load(disk, new History(128), new Random(1));
    await assert.rejects(load.more(20_000), WrongContentError);
    await assert.rejects(load.end(), WrongContentError);
  });
}
