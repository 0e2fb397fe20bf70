/**
 * INQUIRY: what a unit is (SPC-4, sections 6.4 and 7.8; SBC-3, section 6.6).
 *
 * @module
 */

import type { LogicalUnit } from "./logical_unit.ts";
import { CheckCondition, senses } from "./sense.ts";
import type { Task } from "./task.ts";
import { MAX_UNMAP_BYTES, MAX_UNMAP_RANGES, MAX_WRITE_SAME_BYTES } from "./transfer.ts";
import type { ScsiUnit } from "./unit.ts";

/** Peripheral device type of a disk, and what stands there where there is no unit. */
const DISK = 0x00;
const NO_UNIT = 0x7f;
/** SPC-4. */
const VERSION = 6;
const STANDARD_SIZE = 96;
/** SAM-5, SPC-4, SBC-3. */
const STANDARDS = [0x00a0, 0x0460, 0x04c0];
/** Bytes that are best moved at once, and at most: the latter is what the block layer of most guests can ask for. */
const OPTIMAL_BYTES = 2 ** 20;
const MAX_BYTES = 2 ** 25;

const ascii = new TextEncoder();

function padded(text: string, length: number): Uint8Array {
  return ascii.encode(text.padEnd(length));
}

/** Vital product data by page. */
const pages: ReadonlyMap<number, (unit: ScsiUnit) => Uint8Array> = new Map([
  [0x00, () => Uint8Array.from(pages.keys())],
  [0x80, ({ id }: ScsiUnit) => ascii.encode(id)],
  [0x83, identification],
  [0xb0, limits],
  [0xb1, characteristics],
  [0xb2, provisioning],
]);

/** Names of the unit: vendor, product and serial number, and the world wide name if it has one. */
function identification({ vendor, product, id, wwn }: ScsiUnit): Uint8Array {
  const name = ascii.encode(vendor.padEnd(8) + product.padEnd(16) + id);
  const page = [0x02, 0x01, 0, name.length, ...name];
  if (wwn !== undefined) {
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setBigUint64(0, wwn);
    page.push(0x01, 0x03, 0, 8, ...new Uint8Array(bytes.buffer));
  }
  return Uint8Array.from(page);
}

/** How much a command should move, and may. */
function limits(unit: ScsiUnit): Uint8Array {
  const page = new DataView(new ArrayBuffer(60));
  const blocks = (bytes: number) => bytes / unit.blockSize;
  page.setUint8(0, 1); // WSNZ: WRITE SAME of no blocks is not "to the end".
  page.setUint16(2, blocks(4096));
  page.setUint32(4, blocks(MAX_BYTES));
  page.setUint32(8, blocks(OPTIMAL_BYTES));
  if (unit.canDiscard) {
    page.setUint32(16, blocks(MAX_UNMAP_BYTES));
    page.setUint32(20, MAX_UNMAP_RANGES);
    page.setUint32(24, blocks(4096));
    page.setUint32(28, 0x8000_0000); // The alignment, 0, is valid.
  }
  page.setUint32(36, blocks(MAX_WRITE_SAME_BYTES)); // Eight bytes; the upper four are 0.
  return new Uint8Array(page.buffer);
}

function characteristics(): Uint8Array {
  const page = new Uint8Array(60);
  page[1] = 1; // It does not rotate.
  return page;
}

function provisioning({ canDiscard }: ScsiUnit): Uint8Array {
  // UNMAP, WRITE SAME (16) and (10) with the UNMAP bit; thinly provisioned.
  return canDiscard ? Uint8Array.of(0, 0xe0, 2, 0) : new Uint8Array(4);
}

function standard(unit: ScsiUnit | undefined): Uint8Array {
  const data = new Uint8Array(STANDARD_SIZE);
  data[0] = unit === undefined ? NO_UNIT : DISK;
  data[2] = VERSION;
  data[3] = 0x12; // HISUP: units by number as SAM says; the format of this answer.
  data[4] = STANDARD_SIZE - 5;
  data[7] = 0x02; // CMDQUE: several commands at once.
  data.set(padded(unit?.vendor ?? "vhost", 8), 8);
  data.set(padded(unit?.product ?? "vhost-user disk", 16), 16);
  data.set(padded("1", 4), 32);
  STANDARDS.forEach((number, i) => data.set([number >> 8, number & 0xff], 58 + 2 * i));
  return data;
}

/** INQUIRY, also of a unit that is not there. */
export function inquiry(lu: LogicalUnit | undefined, task: Task): void {
  const allocationLength = task.word(3);
  const code = task.byte(2);
  const flags = task.byte(1);
  if (flags > 1 || (flags === 0 && code !== 0)) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  if (flags === 0) return task.answer(standard(lu?.unit), allocationLength);
  const page = lu === undefined ? undefined : pages.get(code)?.(lu.unit);
  if (page === undefined) throw new CheckCondition(senses.INVALID_FIELD_IN_CDB);
  task.answer(Uint8Array.of(DISK, code, page.length >> 8, page.length & 0xff, ...page), allocationLength);
}
