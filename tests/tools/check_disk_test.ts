import assert from "node:assert/strict";
import test from "node:test";
import { defineDevice, type Device, type Span } from "../../mod.ts";
import { BlkDevice, MemoryStorage, type Storage } from "../../src/devices/blk/mod.ts";
import { blkConfig, blkFeatures } from "../../src/devices/blk/layout.ts";
import { mask } from "../../src/protocol/features.ts";
import { checkDevice, resultOf } from "./check_scene.ts";

// Disks that are wrong in one thing: the cases about data find it.

const SIZE = 4 << 20;
const LIMIT = { timeout: 120_000 };

/** A disk in memory, some of whose functions are replaced. */
function disk(change: (right: Storage) => Partial<Storage>): Device {
  const memory = new MemoryStorage(SIZE);
  const right: Storage = {
    size: SIZE,
    readOnly: false,
    read: (data, position) => memory.read(data, position),
    write: (data, position) => memory.write(data, position),
    flush: () => {},
    discard: () => {},
    writeZeroes: (position, length, mayUnmap) => memory.writeZeroes(position, length, mayUnmap),
    close: () => memory.close(),
  };
  return new BlkDevice({ storage: { ...right, ...change(right) } });
}

/** A disk that says that all is well, whatever it is asked, and does nothing. */
function yes(features: number[]): Device {
  const config = new Uint8Array(60);
  new DataView(config.buffer).setBigUint64(blkConfig.offsets.capacity, BigInt(SIZE / 512), true);
  return defineDevice({
    type: 2,
    features: mask(...features),
    config: { read: () => config },
    queues: [(chain) => chain.write(new Uint8Array(chain.writable.byteLength))],
  });
}

let clock = 0;

/** Devices by what is wrong with them, and the cases that must find it. */
const faults: readonly (readonly [string, () => Device, readonly string[]])[] = [
  ["loses writes", () => disk(() => ({ write: () => {} })), ["blk.write", "blk.write-cut"]],
  [
    "writes to the wrong place",
    () => disk(({ write }) => ({ write: (data, at, done) => write(data, at === 0 ? 512 : at, done) })),
    ["blk.write"],
  ],
  [
    "reads something else each time",
    () =>
      disk(() => ({
        read: (data: Span) => void data.copyFrom(new Uint8Array(data.byteLength).fill(clock++)),
      })),
    ["blk.read-same", "blk.parallel"],
  ],
  [
    "cannot read",
    () =>
      disk(() => ({
        read: () => {
          throw new Error("no");
        },
      })),
    ["blk.read", "blk.read-last", "blk.read-large", "rings.works"],
  ],
  [
    "cannot flush",
    () =>
      disk(() => ({
        flush: () => {
          throw new Error("no");
        },
      })),
    ["blk.flush"],
  ],
  ["zeroes nothing", () => disk(() => ({ writeZeroes: () => {} })), ["blk.write-zeroes"]],
  [
    "zeroes too much",
    () =>
      disk(({ writeZeroes }) => ({ writeZeroes: (at, length) => writeZeroes?.(at, length + 512, false) })),
    ["blk.write-zeroes"],
  ],
  [
    "discards too much",
    () => disk(({ writeZeroes }) => ({ discard: (at, length) => writeZeroes?.(at, length + 512, false) })),
    ["blk.discard"],
  ],
  [
    "says yes to everything",
    () => yes([blkFeatures.DISCARD, blkFeatures.WRITE_ZEROES]),
    [
      "blk.unknown",
      "blk.no-ZONE_APPEND",
      "blk.flags-DISCARD",
      "blk.flags-WRITE_ZEROES",
      "blk.discard-unmap",
      "blk.write",
    ],
  ],
  ["lets a read-only disk be written", () => yes([blkFeatures.RO]), ["blk.read-only"]],
  ["offers a cache without flushes", () => yes([blkFeatures.CONFIG_WCE]), ["blk.flush-offered"]],
];

for (const [name, make, ids] of faults) {
  test(`caught: a disk that ${name}`, LIMIT, async (t) => {
    const report = await checkDevice(t, make(), { device: "blk", write: true, filter: ids, patience: 1000 });
    for (const id of ids) {
      const { verdict, got } = resultOf(report, id);
      assert.equal(verdict, "fail", `${id}: ${got}`);
    }
  });
}
