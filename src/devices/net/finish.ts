/**
 * Finishing frames: the checksum that a driver left to the device, and the segments that it did not cut itself.
 *
 * @module
 */

import type { Frame } from "./frame.ts";
import { ETHERNET_HEADER, GsoType, MAX_FRAME } from "./layout.ts";

/** Ethernet types. */
const VLAN = 0x8100;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;

const IP_PROTOCOL_TCP = 6;
const IP_PROTOCOL_UDP = 17;
const TCP_FIN_PSH = 0x09;
const TCP_CWR = 0x80;

/** The sum of the 16-bit words of some bytes, as the Internet checksum takes it (RFC 1071), not folded. */
export function wordSum(bytes: Uint8Array, start: number, end: number): number {
  let sum = 0;
  let i = start;
  // Eight bytes a step. Below 2^53 a sum of 16-bit words is exact, whatever the length of a frame.
  for (; i + 8 <= end; i += 8) {
    sum += (bytes[i] << 8 | bytes[i + 1]) + (bytes[i + 2] << 8 | bytes[i + 3]) +
      (bytes[i + 4] << 8 | bytes[i + 5]) + (bytes[i + 6] << 8 | bytes[i + 7]);
  }
  for (; i + 2 <= end; i += 2) sum += bytes[i] << 8 | bytes[i + 1];
  if (i < end) sum += bytes[i] << 8;
  return sum;
}

/** Folds a sum into the checksum: the complement of its 16 bits. */
export function checksumOf(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x1_0000);
  return ~folded & 0xffff;
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

function get16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

/** Where the headers of a packet are. */
interface Headers {
  readonly version: 4 | 6;
  /** First byte of the IP header. */
  readonly ip: number;
  /** First byte of the TCP or UDP header. */
  readonly transport: number;
  readonly protocol: number;
  /** First byte of the payload. */
  readonly payload: number;
}

/** Finds the headers of a TCP or UDP packet. Returns `undefined` for anything else, also for IPv6 with extensions. */
function headersOf(bytes: Uint8Array, length: number): Headers | undefined {
  let ip = ETHERNET_HEADER;
  if (length < ip + 20) return undefined;
  let type = get16(bytes, 12);
  if (type === VLAN) {
    type = get16(bytes, 16);
    ip += 4;
  }
  const version = bytes[ip] >>> 4;
  let transport: number;
  let protocol: number;
  if (type === IPV4 && version === 4) {
    transport = ip + (bytes[ip] & 15) * 4;
    protocol = bytes[ip + 9];
    if (transport < ip + 20) return undefined;
  } else if (type === IPV6 && version === 6) {
    transport = ip + 40;
    protocol = bytes[ip + 6];
  } else {
    return undefined;
  }
  const least = protocol === IP_PROTOCOL_TCP ? 20 : protocol === IP_PROTOCOL_UDP ? 8 : Infinity;
  if (transport + least > length) return undefined;
  const size = protocol === IP_PROTOCOL_TCP ? (bytes[transport + 12] >>> 4) * 4 : 8;
  if (size < least || transport + size > length) return undefined;
  return { version, ip, transport, protocol, payload: transport + size };
}

/** Finishes frames for those who take no other. Keeps one frame's room. */
export class Finisher {
  readonly #frame: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_FRAME);
  readonly #piece: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_FRAME);

  /**
   * Finishes a frame.
   *
   * @param take is given each finished frame, one or several; valid during the call
   * @returns false when the frame's header does not fit the frame: nothing was finished
   */
  finish(frame: Frame, take: (finished: Uint8Array) => void): boolean {
    const length = frame.byteLength;
    if (length > this.#frame.length) return false;
    frame.copyTo(this.#frame);
    if (frame.needsSegmentation) {
      return this.#cut(length, frame.gsoType & ~GsoType.ECN, frame.gsoSize, take);
    }
    const start = frame.checksumStart;
    const at = start + frame.checksumOffset;
    if (frame.needsChecksum) {
      if (start < ETHERNET_HEADER || at + 2 > length) return false;
      // The field holds the sum of the pseudo header, and counts.
      put16(this.#frame, at, checksumOf(wordSum(this.#frame, start, length)) || 0xffff);
    }
    take(this.#frame.subarray(0, length));
    return true;
  }

  /** Cuts a TCP or UDP packet into such as have at most `size` bytes of payload. */
  #cut(length: number, type: number, size: number, take: (finished: Uint8Array) => void): boolean {
    const frame = this.#frame;
    const headers = headersOf(frame, length);
    if (headers === undefined || size === 0) return false;
    const { version, ip, transport, protocol, payload } = headers;
    const wanted = type === GsoType.TCPV4 || type === GsoType.TCPV6 ? IP_PROTOCOL_TCP : IP_PROTOCOL_UDP;
    if (
      protocol !== wanted || (type !== GsoType.TCPV4 && type !== GsoType.TCPV6 && type !== GsoType.UDP_L4)
    ) {
      return false;
    }
    const piece = this.#piece;
    piece.set(frame.subarray(0, payload));
    const id = get16(frame, ip + 4);
    const sequence =
      (frame[transport + 4] << 24 | get16(frame, transport + 5) << 8 | frame[transport + 7]) >>> 0;
    for (let at = payload, n = 0; at < length || n === 0; at += size, n++) {
      const part = Math.min(size, length - at);
      const end = payload + part;
      piece.set(frame.subarray(at, at + part), payload);
      if (version === 4) {
        put16(piece, ip + 2, end - ip);
        put16(piece, ip + 4, id + n);
        put16(piece, ip + 10, 0);
        put16(piece, ip + 10, checksumOf(wordSum(piece, ip, transport)));
      } else {
        put16(piece, ip + 4, end - ip - 40);
      }
      if (protocol === IP_PROTOCOL_TCP) {
        const next = sequence + (at - payload);
        put16(piece, transport + 4, next / 0x1_0000);
        put16(piece, transport + 6, next);
        const last = at + part >= length;
        let flags = frame[transport + 13];
        if (!last) flags &= ~TCP_FIN_PSH;
        if (n > 0) flags &= ~TCP_CWR;
        piece[transport + 13] = flags;
        this.#checksum(headers, end, transport + 16);
      } else {
        put16(piece, transport + 4, end - transport);
        this.#checksum(headers, end, transport + 6);
      }
      take(piece.subarray(0, end));
    }
    return true;
  }

  /** Computes a piece's checksum with its pseudo header (RFC 9293, 3.1; RFC 8200, 8.1). */
  #checksum({ version, ip, transport, protocol }: Headers, end: number, at: number): void {
    const piece = this.#piece;
    put16(piece, at, 0);
    const addresses = version === 4 ? wordSum(piece, ip + 12, ip + 20) : wordSum(piece, ip + 8, ip + 40);
    const sum = addresses + protocol + (end - transport) + wordSum(piece, transport, end);
    put16(piece, at, checksumOf(sum) || 0xffff);
  }
}
