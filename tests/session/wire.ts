import { Native } from "../../ffi/native.ts";
import { libc } from "../../ffi/deno.ts";

// Written without the toolkit's codecs, so that a mistake in those is seen.

/** 32-bit numbers in a row. */
export function u32(...numbers: number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.from(numbers).buffer);
}

/** 64-bit numbers in a row. */
export function u64(...numbers: (number | bigint)[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigUint64Array.from(numbers, (each) => BigInt.asUintN(64, BigInt(each))).buffer);
}

/** Bytes one after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The 64-bit number at an offset. */
export function number64(bytes: Uint8Array, offset = 0): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(offset, true);
}

/** The 32-bit number at an offset. */
export function number32(bytes: Uint8Array, offset = 0): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true);
}

const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** One `sendmsg`, with as many descriptors as the kernel takes (253). Returns the bytes sent, or less than 0. */
export function sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[] = []): number {
  const data = new Native(Math.max(1, bytes.length));
  data.bytes.set(bytes);
  const control = new Native(16 + 4 * fds.length + 8);
  control.set64(0, BigInt(16 + 4 * fds.length));
  control.set32(8, SOL_SOCKET);
  control.set32(12, SCM_RIGHTS);
  fds.forEach((each, i) => control.set32(16 + 4 * i, each));
  const iovec = new Native(16);
  iovec.set64(0, data.address);
  iovec.set64(8, BigInt(bytes.length));
  const header = new Native(56);
  header.set64(16, iovec.address);
  header.set64(24, 1n);
  if (fds.length > 0) {
    header.set64(32, control.address);
    header.set64(40, BigInt((16 + 4 * fds.length + 7) & ~7));
  }
  return libc.sendmsg(fd, header.address, MSG_NOSIGNAL);
}
