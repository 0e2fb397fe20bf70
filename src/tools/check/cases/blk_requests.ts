/**
 * Requests to a disk, and the part of it that cases may write to.
 *
 * @module
 */

import { type BlkConfig, blkConfig, BlkRequest, BlkStatus, RANGE_SIZE } from "../../../devices/blk/layout.ts";
import { SECTOR } from "../../../devices/storage/storage.ts";
import { fail, notOffered } from "../finding.ts";
import { blkHeader, blkRead, type Request } from "../profile.ts";
import type { Drive, PlaceOptions } from "../drive.ts";

const { OK } = BlkStatus;
/** Bytes that writing cases use. */
const AREA = 65536;

/** Names of a request's outcome. */
const outcomes = ["OK", "IOERR", "UNSUPP"];

export function named(status: number): string {
  return outcomes[status] ?? `status ${status}`;
}

/** A request of any type, whose outcome is looked at by the case. */
export function anything(type: number, sector: number, data: Uint8Array, room = 0): Request {
  const header = blkHeader(type, sector);
  const readable = new Uint8Array(header.length + data.length);
  readable.set(header);
  readable.set(data, header.length);
  return { readable, writable: room + 1, check: () => undefined };
}

/** Does a request. Returns its status, what was read, and how much the device says it has written. */
export async function ask(
  drive: Drive,
  request: Request,
  options?: PlaceOptions,
): Promise<{ status: number; data: Uint8Array; written: number }> {
  let length = 0;
  const placed = drive.place(
    { ...request, check: (_, written) => void (length = written) },
    options,
  );
  await drive.one(placed);
  const { answer } = placed;
  return {
    status: answer[request.writable - 1],
    data: answer.slice(0, request.writable - 1),
    written: length,
  };
}

/** Sees a status. */
export function expect(status: number, right: number, what: string): void {
  if (status !== right) fail(`${named(right)} for ${what}`, named(status));
}

export async function config(drive: Drive): Promise<BlkConfig> {
  const data = new Uint8Array(blkConfig.size);
  const { value, fds } = await drive.peer.ask("GET_CONFIG", { offset: 0, flags: 0, data: data.slice(0, 60) });
  fds.close();
  data.set(value.data);
  return blkConfig.decode(data);
}

export async function sectors(drive: Drive): Promise<number> {
  return Number((await config(drive)).capacity);
}

/** The part of the disk that writing cases use. */
export class Area {
  /** First sector. */
  readonly sector: number;
  readonly #drive: Drive;
  readonly #before: Uint8Array;

  private constructor(drive: Drive, sector: number, before: Uint8Array) {
    this.#drive = drive;
    this.sector = sector;
    this.#before = before;
  }

  /** Reads what is there. */
  static async take(drive: Drive, position: number): Promise<Area> {
    const sector = Math.floor(position / SECTOR);
    if (sector + AREA / SECTOR > await sectors(drive)) notOffered(`${AREA} bytes at ${position} to write to`);
    const { status, data } = await ask(drive, blkRead(sector, AREA));
    expect(status, OK, "a read");
    return new Area(drive, sector, data);
  }

  /** Reads it. */
  async read(): Promise<Uint8Array> {
    const { status, data } = await ask(this.#drive, blkRead(this.sector, AREA));
    expect(status, OK, "a read");
    return data;
  }

  /** Writes the whole of it. */
  async write(data: Uint8Array): Promise<void> {
    const { status } = await ask(this.#drive, anything(BlkRequest.OUT, this.sector, data));
    expect(status, OK, "a write");
  }

  /** Puts back what was there. */
  async restore(): Promise<void> {
    await ask(this.#drive, anything(BlkRequest.OUT, this.sector, this.#before)).catch(() => {});
  }
}

/** Bytes that differ from place to place. */
export function pattern(seed: number): Uint8Array {
  return Uint8Array.from({ length: AREA }, (_, i) => (i * 31 + (i >> 9) * 7 + seed) & 0xff);
}

/** A range of DISCARD or WRITE_ZEROES. */
export function range(sector: number, count: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(RANGE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, count, true);
  view.setUint32(12, flags, true);
  return bytes;
}

export function sameBytes(got: Uint8Array, wanted: Uint8Array, what: string): void {
  const at = wanted.findIndex((byte, i) => got[i] !== byte);
  if (at >= 0) fail(what, `another byte at ${at}: ${got[at]} instead of ${wanted[at]}`);
}
