/**
 * Requests that a device must answer and that change nothing, by kind of device.
 *
 * @module
 */

import { BlkRequest, BlkStatus } from "../../devices/blk/layout.ts";
import { SECTOR } from "../../devices/storage/storage.ts";
import { Struct, u32, u64 } from "../../protocol/struct.ts";
import type { DeviceKind } from "./finding.ts";

/** A request as bytes. */
export interface Request {
  /** What the device reads. */
  readonly readable: Uint8Array;
  /** Room for its answer, bytes. */
  readonly writable: number;
  /**
   * Looks at the answer.
   *
   * @param answer the writable room
   * @param written what the device says it has written
   * @returns what is wrong with it
   */
  check(answer: Uint8Array, written: number): string | undefined;
}

/** How to drive a kind of device. */
export interface Profile {
  /** A ring that answers requests by itself. */
  readonly ring: number;
  /** How many rings must be set up before that one works. */
  readonly rings: number;
  /** Whether the rings from {@link ring} on all take such requests. */
  readonly multiple: boolean;
  /** A new request. */
  request(): Request;
  /** One that takes a while, where there is such a thing. */
  heavy?(): Request;
}

/** A request's header of the block device. */
export function blkHeader(type: number, sector: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

/** Reads sectors. */
export function blkRead(sector: number, length = SECTOR): Request {
  return {
    readable: blkHeader(BlkRequest.IN, sector),
    writable: length + 1,
    check: (answer, written) => {
      if (answer[length] !== BlkStatus.OK) return `status ${answer[length]}`;
      // Less is allowed (virtio 1.4, 2.7.8.2), more cannot be.
      return written > length + 1 ? `${written} bytes written into room for ${length + 1}` : undefined;
    },
  };
}

/** The start of a FUSE request's header; user, group and process follow. */
const fuseIn = new Struct<{ length: number; opcode: number; unique: bigint; node: bigint }>({
  length: u32,
  opcode: u32,
  unique: u64,
  node: u64,
});

/** Bytes of a FUSE request's header. */
const FUSE_IN = 40;
/** Bytes of the header of an answer. */
export const FUSE_OUT = 16;

let unique = 1n;

/** A FUSE request (virtio 1.4, 5.11.6; Linux `fuse.h`). */
export function fuseRequest(
  opcode: number,
  node: bigint,
  body: Uint8Array,
  room: number,
  check: (error: number, body: DataView) => string | undefined = (error) =>
    error === 0 ? undefined : `FUSE error ${error}`,
): Request {
  const mine = unique++;
  const readable = new Uint8Array(FUSE_IN + body.length);
  readable.set(fuseIn.encode({ length: readable.length, opcode, unique: mine, node }));
  readable.set(body, FUSE_IN);
  return {
    readable,
    writable: FUSE_OUT + room,
    check: (answer) => {
      const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength);
      if (view.getBigUint64(8, true) !== mine) return "the answer to another FUSE request";
      return check(view.getInt32(4, true), new DataView(answer.buffer, answer.byteOffset + FUSE_OUT, room));
    },
  };
}

/** FUSE_INIT, which starts a session. */
export function fuseInit(): Request {
  const body = new Uint8Array(64);
  const view = new DataView(body.buffer);
  view.setUint32(0, 7, true);
  view.setUint32(4, 38, true);
  view.setUint32(8, 1 << 17, true);
  return fuseRequest(26, 0n, body, 64);
}

/** A frame of an experimental type (IEEE 802, 0x88b5) to an address that nobody has. */
function frame(): Uint8Array {
  const header = 12;
  const bytes = new Uint8Array(header + 60);
  bytes.set([0x02, 0, 0, 0, 0, 0x02], header);
  bytes.set([0x02, 0, 0, 0, 0, 0x01], header + 6);
  bytes.set([0x88, 0xb5], header + 12);
  return bytes;
}

/** A vsock packet without payload: to the host, of the stream type. */
export function vsockPacket(op: number, port: number, from = 3n): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(44);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, from, true);
  view.setBigUint64(8, 2n, true);
  view.setUint32(16, 1024, true);
  view.setUint32(20, port, true);
  view.setUint16(28, 1, true);
  view.setUint16(30, op, true);
  view.setUint32(36, 65536, true);
  return bytes;
}

/** RST, which asks for nothing. */
const VSOCK_RST = 3;

const nothingWritten = (_: Uint8Array, written: number): string | undefined =>
  written === 0 ? undefined : `${written} bytes written where there is no room`;

/** Profiles by kind of device. */
export const profiles: Readonly<Partial<Record<DeviceKind, Profile>>> = {
  blk: {
    ring: 0,
    rings: 1,
    multiple: true,
    request: () => blkRead(0),
    // Of whatever size the disk is; past its end it fails as slowly as it may.
    heavy: () => ({ ...blkRead(0, 1 << 17), check: () => undefined }),
  },
  fs: { ring: 1, rings: 2, multiple: false, request: fuseInit },
  net: {
    ring: 1,
    rings: 2,
    multiple: false,
    request: () => ({ readable: frame(), writable: 0, check: nothingWritten }),
  },
  rng: {
    ring: 0,
    rings: 1,
    multiple: false,
    request: () => ({
      readable: new Uint8Array(0),
      writable: 64,
      check: (_, written) => written >= 1 && written <= 64 ? undefined : `${written} bytes written of 64`,
    }),
  },
  vsock: {
    ring: 1,
    rings: 2,
    multiple: false,
    request: () => ({ readable: vsockPacket(VSOCK_RST, 1), writable: 0, check: nothingWritten }),
  },
};
