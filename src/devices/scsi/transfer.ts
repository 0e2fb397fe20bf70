/**
 * Commands that move blocks (SBC-3).
 *
 * @module
 */

import type { Span } from "../../memory/span.ts";
import { promised } from "../storage/storage.ts";
import { Bounce } from "./bounce.ts";
import type { LogicalUnit } from "./logical_unit.ts";
import { CheckCondition, senses } from "./sense.ts";
import type { Pending, Task } from "./task.ts";

/** Bytes that one UNMAP gives back at most: 1 GiB. */
export const MAX_UNMAP_BYTES: number = 2 ** 30;
/** Ranges of one UNMAP. */
export const MAX_UNMAP_RANGES = 64;
/** Bytes that one WRITE SAME sets at most, which may have to be written: 32 MiB. */
export const MAX_WRITE_SAME_BYTES: number = 2 ** 25;

/** Bytes of one range of UNMAP: u64 block, u32 blocks, u32 reserved; and of what stands before the ranges. */
const RANGE_SIZE = 16;
const RANGES_AT = 8;

/** Bits of byte 1 of a command. */
const PROTECT = 0xe0;
const FUA = 0x08;
const UNMAP = 0x08;
const ANCHOR = 0x10;
const NDOB = 1;

/** Where the fields are that commands of one length have in common. */
interface Form {
  readonly block: (task: Task) => number;
  readonly count: (task: Task) => number;
}

/** Of 6 bytes: 21 bits of position, and no blocks mean 256. */
export const form6: Form = {
  block: (task) => task.long(0) & 0x1f_ffff,
  count: (task) => task.byte(4) || 256,
};
/** Of 10 bytes. */
export const form10: Form = { block: (task) => task.long(2), count: (task) => task.word(7) };
/** Of 12 bytes. */
export const form12: Form = { block: (task) => task.long(2), count: (task) => task.long(6) };
/** Of 16 bytes. */
export const form16: Form = { block: (task) => task.quad(2), count: (task) => task.long(10) };

/** Refuses what is said of protection information, which no unit has. */
function checkProtection(task: Task, form: Form): void {
  if (form !== form6 && (task.byte(1) & PROTECT) !== 0) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
}

function checkWritable({ unit }: LogicalUnit): void {
  if (unit.readOnly) throw new CheckCondition(senses.WRITE_PROTECTED);
}

/** Where a range starts, bytes. */
function position({ unit }: LogicalUnit, block: number, count: number): number {
  if (block + count > unit.blocks) throw new CheckCondition(senses.LBA_OUT_OF_RANGE);
  return block * unit.blockSize;
}

/** READ. */
export function read(lu: LogicalUnit, task: Task, form: Form): Pending {
  const count = form.count(task);
  checkProtection(task, form);
  const at = position(lu, form.block(task), count);
  if (count === 0) return;
  return lu.unit.storage.read(task.dataIn(count * lu.unit.blockSize), at, task);
}

/** WRITE. */
export function write(lu: LogicalUnit, task: Task, form: Form): Pending {
  const { storage, blockSize } = lu.unit;
  const count = form.count(task);
  checkProtection(task, form);
  const at = position(lu, form.block(task), count);
  checkWritable(lu);
  task.writes = true;
  if (count === 0) return;
  const durable = !lu.writeBack || (form !== form6 && (task.byte(1) & FUA) !== 0);
  const data = task.dataOut(count * blockSize);
  if (durable) task.flushes = storage;
  const pending = storage.write(data, at, task);
  // Whoever waits for the task goes on with the flush, if there is to be one.
  if (pending !== undefined || !durable) return pending;
  task.flushes = undefined;
  return storage.flush(task);
}

/** SYNCHRONIZE CACHE: all of it, whatever the range. */
export function synchronize(lu: LogicalUnit, task: Task, form: Form): Pending {
  position(lu, form.block(task), form.count(task));
  task.writes = true;
  return lu.unit.storage.flush(task);
}

/** VERIFY: that blocks are there, or that they are what the driver says. */
export function verify(lu: LogicalUnit, task: Task, form: Form): Pending {
  const count = form.count(task);
  checkProtection(task, form);
  const at = position(lu, form.block(task), count);
  const how = task.byte(1) >> 1 & 3;
  if (how === 2) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  if (how === 0 || count === 0) return;
  const { blockSize } = lu.unit;
  // All the blocks, or one that they are all to be like.
  const data = task.dataOut((how === 1 ? count : 1) * blockSize);
  return compare(lu, data, at, count * blockSize);
}

async function compare(lu: LogicalUnit, data: Span, at: number, length: number): Promise<void> {
  const bounce = new Bounce();
  const expected = new Uint8Array(bounce.size);
  try {
    if (data.byteLength < length) {
      data.copyTo(expected);
      for (let to = data.byteLength; to < expected.length; to *= 2) expected.copyWithin(to, 0, to);
    }
    for (let done = 0; done < length; done += bounce.size) {
      const size = Math.min(bounce.size, length - done);
      await promised((completion) => lu.unit.storage.read(bounce.span(size), at + done, completion));
      if (data.byteLength === length) data.copyTo(expected.subarray(0, size), done);
      if (!bounce.equals(expected, size)) throw new CheckCondition(senses.MISCOMPARE);
    }
  } finally {
    bounce.close();
  }
}

/** WRITE SAME: one block many times. */
export function writeSame(lu: LogicalUnit, task: Task, form: Form): Pending {
  const { storage, blockSize } = lu.unit;
  const flags = task.byte(1);
  const count = form.count(task);
  // NDOB is a bit of the long form only; the bits between it and UNMAP are obsolete.
  const noData = form === form16 && (flags & NDOB) !== 0;
  if ((flags & (noData ? 0x06 : 0x07)) !== 0 || (flags & ANCHOR) !== 0) {
    throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  }
  checkProtection(task, form);
  // No blocks would mean all that follow; it says in its limits that it does not do that.
  if (count === 0 || count * blockSize > MAX_WRITE_SAME_BYTES) {
    throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  }
  const at = position(lu, form.block(task), count);
  checkWritable(lu);
  task.writes = true;
  const block = noData ? new Uint8Array(blockSize) : task.parameters(blockSize);
  const zero = block.every((byte) => byte === 0);
  const durable = lu.writeBack ? undefined : storage;
  if (zero && storage.writeZeroes !== undefined) {
    const pending = storage.writeZeroes(at, count * blockSize, (flags & UNMAP) !== 0);
    if (durable === undefined) return pending;
    return pending === undefined
      ? durable.flush(task)
      : pending.then(() => promised((c) => durable.flush(c)));
  }
  return fill(lu, at, count * blockSize, block);
}

async function fill(lu: LogicalUnit, at: number, length: number, block: Uint8Array): Promise<void> {
  const { storage } = lu.unit;
  const bounce = new Bounce();
  try {
    bounce.fill(block);
    for (let done = 0; done < length;) {
      const size = Math.min(bounce.size, length - done);
      await promised((completion) => storage.write(bounce.span(size), at + done, completion));
      done += size;
    }
  } finally {
    bounce.close();
  }
  if (!lu.writeBack) await promised((completion) => storage.flush(completion));
}

/** UNMAP: all ranges are checked before the first is touched. */
export function unmap(lu: LogicalUnit, task: Task): Pending {
  const { storage, blockSize } = lu.unit;
  const { discard } = storage;
  checkWritable(lu);
  if (discard === undefined) throw new CheckCondition(senses.INVALID_COMMAND);
  if ((task.byte(1) & 1) !== 0) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  task.writes = true;
  const length = task.word(7);
  if (length === 0) return;
  if (length < RANGES_AT) throw new CheckCondition(senses.PARAMETER_LIST_LENGTH);
  const list = new DataView(task.parameters(length).buffer);
  const bytes = list.getUint16(2);
  if (bytes > length - RANGES_AT) throw new CheckCondition(senses.PARAMETER_LIST_LENGTH);
  const ranges: [position: number, length: number][] = [];
  let total = 0;
  for (let at = RANGES_AT; at + RANGE_SIZE <= RANGES_AT + bytes; at += RANGE_SIZE) {
    const count = list.getUint32(at + 8);
    const block = list.getUint32(at) * 0x1_0000_0000 + list.getUint32(at + 4);
    total += count * blockSize;
    ranges.push([position(lu, block, count), count * blockSize]);
  }
  if (ranges.length > MAX_UNMAP_RANGES || total > MAX_UNMAP_BYTES) {
    throw new CheckCondition(senses.INVALID_FIELD_IN_PARAMETERS);
  }
  const pending: Promise<void>[] = [];
  for (const [at, size] of ranges) {
    const result = size === 0 ? undefined : discard.call(storage, at, size);
    if (result !== undefined) pending.push(result);
  }
  if (pending.length > 0) return Promise.all(pending).then(() => {});
}
