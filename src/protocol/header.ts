/**
 * The twelve bytes before every payload (vhost-user, "Message Specification: Header").
 *
 * @module
 */

import { ProtocolError } from "./error.ts";
import { nativeEndianness, Struct, u32 } from "./struct.ts";

/** The only protocol version. */
export const VERSION = 1;

/** Bits of the header's flags. */
export const HeaderFlag = { VERSION_MASK: 3, REPLY: 4, NEED_REPLY: 8 } as const;

/**
 * The largest payload that is accepted, bytes. The largest of the standard is 2056 (shared memory configuration).
 */
export const MAX_PAYLOAD = 4096;

/** A message header. */
export interface Header {
  /** Message id; each direction has numbers of its own. */
  readonly request: number;
  /** {@link HeaderFlag}. */
  readonly flags: number;
  /** Payload, bytes. */
  readonly size: number;
}

/** Layout of the header: request, flags, size, 4 bytes each in the machine's byte order. */
export const header: Struct<Header> = new Struct<Header>(
  { request: u32, flags: u32, size: u32 },
  nativeEndianness,
);

/**
 * Refuses what no message may have, before anything of its payload is read.
 *
 * @param name of the message, for the error
 * @throws {ProtocolError}
 */
export function checkHeader({ flags, size }: Header, name: string): void {
  const version = flags & HeaderFlag.VERSION_MASK;
  if (version !== VERSION) {
    throw new ProtocolError(name, `header version must be ${VERSION}, got ${version}`);
  }
  const reserved = (flags & ~(HeaderFlag.VERSION_MASK | HeaderFlag.REPLY | HeaderFlag.NEED_REPLY)) >>> 0;
  if (reserved !== 0) {
    throw new ProtocolError(name, `reserved header flags must be 0, got 0x${reserved.toString(16)}`);
  }
  if (size > MAX_PAYLOAD) {
    throw new ProtocolError(name, `payload must have at most ${MAX_PAYLOAD} bytes, header says ${size}`);
  }
}
