/**
 * MODE SENSE and MODE SELECT (SPC-4, sections 6.11 to 6.14; SBC-3, section 6.5).
 *
 * @module
 */

import type { LogicalUnit } from "./logical_unit.ts";
import { CheckCondition, senses } from "./sense.ts";
import type { Task } from "./task.ts";

const CACHING = 0x08;
const CONTROL = 0x0a;
const ALL = 0x3f;
const WCE = 0x04;
/** Device-specific parameter: writes are refused; FUA is understood. */
const WRITE_PROTECT = 0x80;
const DPOFUA = 0x10;
const BLOCK_DESCRIPTOR_SIZE = 8;

/** Which values MODE SENSE asks for. */
const Values = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;

function caching(wce: boolean): Uint8Array {
  const page = new Uint8Array(20);
  page.set([CACHING, 18, wce ? WCE : 0]);
  return page;
}

function control(values: number): Uint8Array {
  const page = new Uint8Array(12);
  page.set([CONTROL, 10]);
  // Commands may be carried out in any order.
  if (values !== Values.CHANGEABLE) page[3] = 0x10;
  return page;
}

function page(code: number, lu: LogicalUnit, values: number): Uint8Array {
  if (code === CONTROL) return control(values);
  return caching(values === Values.CURRENT ? lu.writeBack : true);
}

function blockDescriptor({ unit }: LogicalUnit): Uint8Array {
  const descriptor = new DataView(new ArrayBuffer(BLOCK_DESCRIPTOR_SIZE));
  descriptor.setUint32(0, Math.min(unit.blocks, 0xffff_ffff));
  descriptor.setUint32(4, unit.blockSize);
  return new Uint8Array(descriptor.buffer);
}

/** MODE SENSE (6) and (10). */
export function modeSense(lu: LogicalUnit, task: Task): void {
  const long = task.byte(0) === 0x5a;
  const values = task.byte(2) >> 6;
  const code = task.byte(2) & 0x3f;
  const subpage = task.byte(3);
  if (values === Values.SAVED) throw new CheckCondition(senses.SAVING_NOT_SUPPORTED);
  const codes = code === ALL ? [CACHING, CONTROL] : [code];
  const known = codes.every((each) => each === CACHING || each === CONTROL);
  if (!known || (subpage !== 0 && !(code === ALL && subpage === 0xff))) {
    throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  }
  const noDescriptor = (task.byte(1) & 0x08) !== 0;
  const descriptor = noDescriptor ? new Uint8Array(0) : blockDescriptor(lu);
  const body = [...descriptor, ...codes.flatMap((each) => [...page(each, lu, values)])];
  const specific = (lu.unit.readOnly ? WRITE_PROTECT : 0) | DPOFUA;
  if (long) {
    const length = body.length + 6;
    task.answer(
      Uint8Array.of(length >> 8, length & 0xff, 0, specific, 0, 0, 0, descriptor.length, ...body),
      task.word(7),
    );
  } else {
    task.answer(Uint8Array.of(body.length + 3, 0, specific, descriptor.length, ...body), task.byte(4));
  }
}

/** MODE SELECT (6) and (10): whether writes may be cached, and nothing else. */
export function modeSelect(lu: LogicalUnit, task: Task): void {
  const long = task.byte(0) === 0x55;
  const flags = task.byte(1);
  // PF, pages as the standard says; SP, saving, which there is none of.
  if ((flags & 0x01) !== 0 || (flags & 0x10) === 0) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  const length = long ? task.word(7) : task.byte(4);
  if (length === 0) return;
  const list = task.parameters(length);
  const headSize = long ? 8 : 4;
  if (length < headSize) throw new CheckCondition(senses.PARAMETER_LIST_LENGTH);
  const descriptorSize = long ? list[6] << 8 | list[7] : list[3];
  let at = headSize + descriptorSize;
  if (at > length) throw new CheckCondition(senses.PARAMETER_LIST_LENGTH);
  if (descriptorSize !== 0) checkDescriptor(lu, list.subarray(headSize, at));
  let { writeBack } = lu;
  while (at < length) {
    const code = list[at] & 0x7f;
    const current = page(code, lu, Values.CURRENT);
    if (code !== CACHING && code !== CONTROL) invalid();
    if (at + current.length > length) throw new CheckCondition(senses.PARAMETER_LIST_LENGTH);
    const wanted = list.slice(at, at + current.length);
    wanted[0] = code;
    if (code === CACHING) {
      writeBack = (wanted[2] & WCE) !== 0;
      wanted[2] = wanted[2] & ~WCE | current[2];
    }
    if (wanted.some((byte, i) => byte !== current[i])) invalid();
    at += current.length;
  }
  lu.writeBack = writeBack;
}

function checkDescriptor({ unit }: LogicalUnit, descriptor: Uint8Array): void {
  if (descriptor.length !== BLOCK_DESCRIPTOR_SIZE) invalid();
  if ((descriptor[5] << 16 | descriptor[6] << 8 | descriptor[7]) !== unit.blockSize) invalid();
}

function invalid(): never {
  throw new CheckCondition(senses.INVALID_FIELD_IN_PARAMETERS);
}
