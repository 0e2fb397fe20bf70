/**
 * Packets of Ethernet and IPv4, taken apart and put together.
 *
 * @module
 */

import { checksumOf, wordSum } from "../finish.ts";

/** Types of an Ethernet frame. */
export const EtherType = { IPV4: 0x0800, ARP: 0x0806 } as const;
/** Protocols over IPv4. */
export const IpProtocol = { ICMP: 1, TCP: 6, UDP: 17 } as const;

/** Bytes of an Ethernet header. */
export const ETHERNET = 14;
/** Bytes of an IPv4 header without options. */
export const IPV4 = 20;
/** Bytes of a UDP header. */
export const UDP = 8;

/** 16 bits in network order. */
export function get16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

/** 32 bits in network order. */
export function get32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0;
}

/** Sets 16 bits in network order. */
export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

/** Sets 32 bits in network order. */
export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** An IPv4 address as people write it. */
export function addressText(address: number): string {
  return [24, 16, 8, 0].map((shift) => address >>> shift & 0xff).join(".");
}

/** An IPv4 address from how people write it, or `undefined`. */
export function parseAddress(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const bytes = match.slice(1).map(Number);
  if (bytes.some((byte) => byte > 255)) return undefined;
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** An IPv4 packet in a frame that was copied out of guest memory: checked to lie within it. */
export interface Ipv4 {
  readonly protocol: number;
  readonly source: number;
  readonly destination: number;
  /** First byte of what it carries, and the byte behind the last. */
  readonly start: number;
  readonly end: number;
}

/** Takes an IPv4 packet apart. Returns `undefined` for what is none, or is a fragment. */
export function parseIpv4(frame: Uint8Array, length: number): Ipv4 | undefined {
  if (length < ETHERNET + IPV4 || frame[ETHERNET] >>> 4 !== 4) return undefined;
  const start = ETHERNET + (frame[ETHERNET] & 15) * 4;
  const end = ETHERNET + get16(frame, ETHERNET + 2);
  if (start < ETHERNET + IPV4 || end < start || end > length) return undefined;
  // A fragment: more to come, or an offset.
  if ((get16(frame, ETHERNET + 6) & 0x3fff) !== 0) return undefined;
  return {
    protocol: frame[ETHERNET + 9],
    source: get32(frame, ETHERNET + 12),
    destination: get32(frame, ETHERNET + 16),
    start,
    end,
  };
}

/** Writes Ethernet and IPv4 headers before `length` bytes that follow them. Returns the bytes of the frame. */
export function putHeaders(
  frame: Uint8Array,
  to: Uint8Array,
  from: Uint8Array,
  protocol: number,
  source: number,
  destination: number,
  length: number,
): number {
  frame.set(to, 0);
  frame.set(from, 6);
  put16(frame, 12, EtherType.IPV4);
  frame[ETHERNET] = 0x45;
  frame[ETHERNET + 1] = 0;
  put16(frame, ETHERNET + 2, IPV4 + length);
  // Not to be fragmented, so it needs no identification (RFC 6864).
  put16(frame, ETHERNET + 4, 0);
  put16(frame, ETHERNET + 6, 0x4000);
  frame[ETHERNET + 8] = 64;
  frame[ETHERNET + 9] = protocol;
  put16(frame, ETHERNET + 10, 0);
  put32(frame, ETHERNET + 12, source);
  put32(frame, ETHERNET + 16, destination);
  put16(frame, ETHERNET + 10, checksumOf(wordSum(frame, ETHERNET, ETHERNET + IPV4)));
  return ETHERNET + IPV4 + length;
}

/** Writes the checksum of a TCP or UDP packet of a frame made by {@link putHeaders}, at a byte behind the IPv4 header. */
export function putChecksum(frame: Uint8Array, length: number, at: number): void {
  const start = ETHERNET + IPV4;
  put16(frame, start + at, 0);
  const sum = wordSum(frame, ETHERNET + 12, start) + frame[ETHERNET + 9] + length +
    wordSum(frame, start, start + length);
  put16(frame, start + at, checksumOf(sum) || 0xffff);
}
