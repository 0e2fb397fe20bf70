/**
 * The header of a packet.
 *
 * @module
 */

import type { Segments } from "../../memory/segments.ts";
import { VSOCK_HEADER_SIZE } from "./layout.ts";

/** A header as it was read. One object serves all packets of a ring. */
export class Packet {
  /** Sender; -1 for a CID of more than 32 bits, which nobody can have. */
  srcCid = 0;
  /** Receiver; -1 likewise. */
  dstCid = 0;
  /** Sender's port. */
  srcPort = 0;
  /** Receiver's port. */
  dstPort = 0;
  /** Bytes of payload. */
  length = 0;
  /** Of `VsockType`. */
  type = 0;
  /** Of `VsockOp`. */
  op = 0;
  /** By `op`. */
  flags = 0;
  /** Bytes of payload that the sender has room for in all. */
  bufAlloc = 0;
  /** Bytes of payload that have left that room again, since the connection began; 32 bits that wrap around. */
  fwdCnt = 0;

  /** Reads each field once. Returns false when there are too few bytes. */
  read(from: Segments): boolean {
    if (from.byteLength < VSOCK_HEADER_SIZE) return false;
    this.srcCid = from.getUint32(4) === 0 ? from.getUint32(0) : -1;
    this.dstCid = from.getUint32(12) === 0 ? from.getUint32(8) : -1;
    this.srcPort = from.getUint32(16);
    this.dstPort = from.getUint32(20);
    this.length = from.getUint32(24);
    this.type = from.getUint16(28);
    this.op = from.getUint16(30);
    this.flags = from.getUint32(32);
    this.bufAlloc = from.getUint32(36);
    this.fwdCnt = from.getUint32(40);
    return true;
  }

  /** Writes it; the bytes must be there. */
  write(to: Segments): void {
    to.setUint32(0, this.srcCid);
    to.setUint32(4, 0);
    to.setUint32(8, this.dstCid);
    to.setUint32(12, 0);
    to.setUint32(16, this.srcPort);
    to.setUint32(20, this.dstPort);
    to.setUint32(24, this.length);
    to.setUint16(28, this.type);
    to.setUint16(30, this.op);
    to.setUint32(32, this.flags);
    to.setUint32(36, this.bufAlloc);
    to.setUint32(40, this.fwdCnt);
  }
}
