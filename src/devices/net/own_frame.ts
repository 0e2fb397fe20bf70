/**
 * Frames that do not come from a guest.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { memoryFile } from "../../../ffi/mapping.ts";
import { Region } from "../../memory/region.ts";
import { Segments } from "../../memory/segments.ts";
import { Frame } from "./frame.ts";
import { NET_HEADER_SIZE } from "./layout.ts";

/** Passes bytes of this process on as a {@link Frame}, which lies in memory with an address that does not move. */
export class OwnFrame {
  readonly #region: Region;
  readonly #segments = new Segments();
  readonly #frame = new Frame();

  /**
   * Memory for frames of up to `size` bytes.
   *
   * @throws {OsError}
   */
  constructor(size: number) {
    const bytes = Math.ceil((NET_HEADER_SIZE + size) / 4096) * 4096;
    const fd = memoryFile("vhost-user-frame", bytes);
    try {
      this.#region = new Region({ guestAddress: 0, size: bytes, userAddress: 0, mmapOffset: 0 }, fd);
    } finally {
      close(fd);
    }
  }

  /** A finished frame of these bytes; valid until the next one. */
  of(bytes: Uint8Array): Frame {
    this.#region.bytes.fill(0, 0, NET_HEADER_SIZE);
    this.#region.bytes.set(bytes, NET_HEADER_SIZE);
    this.#segments.clear();
    this.#segments.push(this.#region, 0, NET_HEADER_SIZE + bytes.length);
    return this.#frame.set(this.#segments);
  }

  /** Gives the memory back. */
  close(): void {
    this.#region.retire();
  }
}

/** The shortest frame, without the checksum that hardware adds. */
const SHORTEST = 60;
const RARP = [0x80, 0x35];
/** Hardware Ethernet, protocol IPv4, their lengths, operation 3: "reverse request" (RFC 903). */
const REVERSE_REQUEST = [0, 1, 8, 0, 6, 4, 0, 3];

/** A RARP broadcast: by it switches learn behind which port an address is now. */
export function rarpFrame(mac: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(SHORTEST);
  frame.fill(0xff, 0, 6);
  frame.set(mac, 6);
  frame.set([...RARP, ...REVERSE_REQUEST], 12);
  // Sender, with no IP address, and target: the same.
  frame.set(mac, 22);
  frame.set(mac, 32);
  return frame;
}
