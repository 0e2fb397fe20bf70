/**
 * A history that outlasts the process whose it is: each event goes to a file before anything else happens.
 *
 * @module
 */

import { writeSync } from "node:fs";
import { History, type Write } from "./history.ts";

/** u32 each: number of the write, sector, sectors; 0 sectors: it was acknowledged. */
const RECORD = 12;

/** Writes its events to a file. */
export class Journal extends History {
  readonly #fd: number;
  readonly #record = new Uint32Array(RECORD / 4);

  /** @param issued number of the last write that somebody else has issued */
  constructor(sectors: number, fd: number, issued: number) {
    super(sectors);
    this.#fd = fd;
    this.issued = issued;
  }

  #note(number: number, sector: number, count: number): void {
    this.#record.set([number, sector, count]);
    writeSync(this.#fd, this.#record);
  }

  override issue(sector: number, count: number): Write {
    const write = super.issue(sector, count);
    this.#note(write.number, sector, count);
    return write;
  }

  override acknowledge(write: Write): void {
    super.acknowledge(write);
    this.#note(write.number, 0, 0);
  }
}

function* records(journal: Uint8Array): Generator<readonly [number: number, sector: number, count: number]> {
  const view = new DataView(journal.buffer, journal.byteOffset, journal.byteLength);
  // The last may be cut short.
  for (let at = 0; at + RECORD <= journal.length; at += RECORD) {
    yield [view.getUint32(at, true), view.getUint32(at + 4, true), view.getUint32(at + 8, true)];
  }
}

/** Adds to a history what a driver has done that is dead now. Returns how many of its writes were under way. */
export function replay(history: History, journal: Uint8Array): number {
  const under = new Map<number, Write>();
  for (const [number, sector, count] of records(journal)) {
    const write = under.get(number);
    if (write !== undefined && count === 0) {
      under.delete(number);
      history.acknowledge(write);
    } else {
      const issued = history.issue(sector, count);
      if (issued.number !== number) throw new Error(`write ${issued.number} is ${number} in the journal`);
      under.set(number, issued);
    }
  }
  return under.size;
}
