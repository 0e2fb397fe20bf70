import { BlkRequest } from "../../src/devices/blk/mod.ts";
import type { Buffer, DriverQueue, Piece, SharedMemory } from "../../src/frontend/mod.ts";
import { bytesOf } from "./scene.ts";
import { NEXT, type Ring, view, WRITE } from "./rings.ts";

/** A piece of memory as a buffer of a request, or a part of it. */
export function buffer(
  { guestAddress, bytes }: Piece,
  offset = 0,
  length: number = bytes.length - offset,
): Buffer {
  return { guestAddress: guestAddress + offset, length };
}

/** The header of a block request: type, then sector. */
export function header(memory: SharedMemory, type: number, sector: number | bigint): Piece {
  const piece = memory.allocate(16, 16);
  view(piece).setUint32(0, type, true);
  view(piece).setBigUint64(8, BigInt(sector), true);
  return piece;
}

/** Bytes in guest memory. */
export function filled(memory: SharedMemory, bytes: Uint8Array): Piece {
  const piece = memory.allocate(bytes.length, 16);
  piece.bytes.set(bytes);
  return piece;
}

/** Room for a status byte, with a value that no device writes. */
export function statusByte(memory: SharedMemory): Piece {
  return filled(memory, Uint8Array.of(0xee));
}

/** A read of one sector, written into descriptors 3·n to 3·n + 2 of a ring; head 3·n. */
export interface SectorRead {
  readonly head: number;
  readonly data: Piece;
  readonly status: Piece;
}

/** Puts a read of a sector into a ring, without making it available. */
export function putRead(ring: Ring, memory: SharedMemory, n: number, sector: number): SectorRead {
  const [data, status] = [memory.allocate(512, 16), statusByte(memory)];
  const head = 3 * n;
  const address = header(memory, BlkRequest.IN, sector).guestAddress;
  ring.describe(head, { address, length: 16, flags: NEXT, next: head + 1 });
  ring.describe(head + 1, { address: data.guestAddress, length: 512, flags: NEXT | WRITE, next: head + 2 });
  ring.describe(head + 2, { address: status.guestAddress, length: 1, flags: WRITE });
  return { head, data, status };
}

/** What a disk has answered. */
export interface Answer {
  /** The status byte; 0xee when it was not written. */
  readonly status: number;
  /** Bytes that the device says it wrote. */
  readonly written: number;
  /** What was read. */
  readonly data: Uint8Array;
}

/** One block request in the usual form: header, data out, data in, status. */
export async function blk(
  queue: DriverQueue,
  memory: SharedMemory,
  type: number,
  sector: number | bigint,
  data: { readonly out?: Uint8Array; readonly in?: number } = {},
): Promise<Answer> {
  const out = data.out === undefined ? [] : [buffer(filled(memory, data.out))];
  const room = memory.allocate(data.in ?? 0, 16);
  const status = statusByte(memory);
  const written = await queue.request(
    [buffer(header(memory, type, sector)), ...out],
    [...data.in === undefined ? [] : [buffer(room)], buffer(status)],
  );
  return { status: status.bytes[0], written, data: room.bytes.slice() };
}

/** Writes a sector and reads it back through a queue. */
export async function sectorSurvives(
  queue: DriverQueue,
  memory: SharedMemory,
  sector: number,
): Promise<boolean> {
  const bytes = bytesOf(sector + 1, 512);
  const { status } = await blk(queue, memory, BlkRequest.OUT, sector, { out: bytes });
  const { data } = await blk(queue, memory, BlkRequest.IN, sector, { in: 512 });
  return status === 0 && data.every((byte, i) => byte === bytes[i]);
}
