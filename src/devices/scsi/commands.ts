/**
 * The commands of a disk (SPC-4, SBC-3).
 *
 * @module
 */

import { inquiry } from "./inquiry.ts";
import type { LogicalUnit } from "./logical_unit.ts";
import { modeSelect, modeSense } from "./mode.ts";
import { CheckCondition, senseData, senses } from "./sense.ts";
import type { Pending, Task } from "./task.ts";
import {
  form10,
  form12,
  form16,
  form6,
  read,
  synchronize,
  unmap,
  verify,
  write,
  writeSame,
} from "./transfer.ts";

/** A command. */
interface Command {
  readonly opcode: number;
  /** Which one, of those that share an opcode. */
  readonly action?: number;
  /** Which bits of it mean something, byte by byte, in hex; its length as well. */
  readonly usage: string;
  /** Carries it out. */
  readonly run: (lu: LogicalUnit, task: Task) => Pending;
  /** Whether it needs the medium, which may be at rest. */
  readonly medium?: true;
  /** Whether it does not tell what the driver has to be told. */
  readonly silent?: true;
}

const commands: readonly Command[] = [
  { opcode: 0x00, usage: "000000000000", run: () => {}, medium: true },
  { opcode: 0x03, usage: "03010000ff00", run: requestSense, silent: true },
  { opcode: 0x08, usage: "081fffffff00", run: (lu, task) => read(lu, task, form6), medium: true },
  { opcode: 0x0a, usage: "0a1fffffff00", run: (lu, task) => write(lu, task, form6), medium: true },
  { opcode: 0x12, usage: "1201ffffff00", run: inquiry, silent: true },
  { opcode: 0x15, usage: "15110000ff00", run: modeSelect },
  { opcode: 0x1a, usage: "1a08ffffff00", run: modeSense },
  { opcode: 0x1b, usage: "1b0100000100", run: startStop },
  { opcode: 0x25, usage: "25000000000000000000", run: readCapacity10, medium: true },
  { opcode: 0x28, usage: "2818ffffffff00ffff00", run: (lu, task) => read(lu, task, form10), medium: true },
  { opcode: 0x2a, usage: "2a18ffffffff00ffff00", run: (lu, task) => write(lu, task, form10), medium: true },
  { opcode: 0x2f, usage: "2f16ffffffff00ffff00", run: (lu, task) => verify(lu, task, form10), medium: true },
  {
    opcode: 0x35,
    usage: "3500ffffffff00ffff00",
    run: (lu, task) => synchronize(lu, task, form10),
    medium: true,
  },
  {
    opcode: 0x41,
    usage: "4108ffffffff00ffff00",
    run: (lu, task) => writeSame(lu, task, form10),
    medium: true,
  },
  { opcode: 0x42, usage: "42000000000000ffff00", run: unmap, medium: true },
  { opcode: 0x55, usage: "55110000000000ffff00", run: modeSelect },
  { opcode: 0x5a, usage: "5a18ffff000000ffff00", run: modeSense },
  {
    opcode: 0x88,
    usage: "8818ffffffffffffffffffffffff0000",
    run: (lu, task) => read(lu, task, form16),
    medium: true,
  },
  {
    opcode: 0x8a,
    usage: "8a18ffffffffffffffffffffffff0000",
    run: (lu, task) => write(lu, task, form16),
    medium: true,
  },
  {
    opcode: 0x8f,
    usage: "8f16ffffffffffffffffffffffff0000",
    run: (lu, task) => verify(lu, task, form16),
    medium: true,
  },
  {
    opcode: 0x91,
    usage: "9100ffffffffffffffffffffffff0000",
    run: (lu, task) => synchronize(lu, task, form16),
    medium: true,
  },
  {
    opcode: 0x93,
    usage: "9309ffffffffffffffffffffffff0000",
    run: (lu, task) => writeSame(lu, task, form16),
    medium: true,
  },
  {
    opcode: 0x9e,
    action: 0x10,
    usage: "9e100000000000000000ffffffff0000",
    run: readCapacity16,
    medium: true,
  },
  // REPORT LUNS is the target's, see the host; it is here to be listed.
  { opcode: 0xa0, usage: "a000ff000000ffffffff0000", run: unknown, silent: true },
  { opcode: 0xa3, action: 0x0c, usage: "a30c87ffffffffffffff0000", run: supportedCommands },
  {
    opcode: 0xa8,
    usage: "a818ffffffffffffffff0000",
    run: (lu, task) => read(lu, task, form12),
    medium: true,
  },
  {
    opcode: 0xaa,
    usage: "aa18ffffffffffffffff0000",
    run: (lu, task) => write(lu, task, form12),
    medium: true,
  },
  {
    opcode: 0xaf,
    usage: "af16ffffffffffffffff0000",
    run: (lu, task) => verify(lu, task, form12),
    medium: true,
  },
];

const byOpcode: readonly (Command | undefined)[] = Array.from(
  { length: 256 },
  (_, opcode) => commands.find((each) => each.opcode === opcode),
);

/** Bits of byte 1 that name the command, where several share an opcode. */
const ACTION = 0x1f;

/**
 * Carries a command out.
 *
 * @throws {CheckCondition}
 * @throws {Overrun}
 * @throws whatever the storage does
 */
export function execute(lu: LogicalUnit, task: Task): Pending {
  const command = byOpcode[task.byte(0)];
  if (command === undefined) unknown();
  if (command.silent !== true && lu.attentive) {
    const attention = lu.takeAttention();
    if (attention !== undefined) throw new CheckCondition(attention);
  }
  if (command.action !== undefined && (task.byte(1) & ACTION) !== command.action) unknown();
  if (command.medium === true && lu.stopped) throw new CheckCondition(senses.STOPPED);
  return command.run(lu, task);
}

function unknown(): never {
  throw new CheckCondition(senses.INVALID_COMMAND);
}

function requestSense(lu: LogicalUnit, task: Task): void {
  const sense = lu.takeAttention() ?? (lu.stopped ? senses.STOPPED : senses.NONE);
  task.answer(senseData(sense, (task.byte(1) & 1) !== 0), task.byte(4));
}

function startStop(lu: LogicalUnit, task: Task): Pending {
  const how = task.byte(4);
  // Power conditions and ejecting are for other devices.
  if ((how & 0xf2) !== 0) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  lu.stopped = (how & 1) === 0;
  // Who stops a disk expects to be able to take its power.
  return lu.stopped ? lu.unit.storage.flush(task) : undefined;
}

function readCapacity10({ unit }: LogicalUnit, task: Task): void {
  const data = new DataView(new ArrayBuffer(8));
  data.setUint32(0, Math.min(Math.max(0, unit.blocks - 1), 0xffff_ffff));
  data.setUint32(4, unit.blockSize);
  task.answer(new Uint8Array(data.buffer), data.byteLength);
}

function readCapacity16({ unit }: LogicalUnit, task: Task): void {
  const data = new DataView(new ArrayBuffer(32));
  data.setBigUint64(0, BigInt(Math.max(0, unit.blocks - 1)));
  data.setUint32(8, unit.blockSize);
  data.setUint8(13, Math.log2(4096 / unit.blockSize));
  // Blocks can be given back; what is read of them then is not said.
  data.setUint16(14, unit.canDiscard ? 0x8000 : 0);
  task.answer(new Uint8Array(data.buffer), task.long(10));
}

function usageOf({ usage }: Command): number[] {
  return Array.from({ length: usage.length / 2 }, (_, i) => parseInt(usage.slice(2 * i, 2 * i + 2), 16));
}

/** REPORT SUPPORTED OPERATION CODES (SPC-4, section 6.35). */
function supportedCommands(_lu: LogicalUnit, task: Task): void {
  const timeouts = (task.byte(2) & 0x80) !== 0;
  const how = task.byte(2) & 7;
  const allocationLength = task.long(6);
  // No command says how long it takes.
  const timeout = timeouts ? [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] : [];
  if (how === 0) {
    const list = commands.flatMap((command) => {
      const { opcode, action } = command;
      const flags = (action === undefined ? 0 : 1) | (timeouts ? 2 : 0);
      return [opcode, 0, 0, action ?? 0, 0, flags, 0, usageOf(command).length, ...timeout];
    });
    return task.answer(Uint8Array.of(0, 0, list.length >> 8, list.length & 0xff, ...list), allocationLength);
  }
  const opcode = task.byte(3);
  const action = task.word(4);
  const command = byOpcode[opcode];
  const wantsAction = command?.action !== undefined;
  // 1: by opcode, which must be enough; 2: by action as well, which there must be; 3: by both, however it is.
  if (how > 3 || (how === 1 && wantsAction) || (how === 2 && command !== undefined && !wantsAction)) {
    throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  }
  if (command === undefined || (command.action ?? 0) !== (how === 1 ? 0 : action)) {
    return task.answer(Uint8Array.of(0, 1, 0, 0), allocationLength);
  }
  const usage = usageOf(command);
  task.answer(
    Uint8Array.of(0, (timeouts ? 0x80 : 0) | 3, 0, usage.length, ...usage, ...timeout),
    allocationLength,
  );
}
