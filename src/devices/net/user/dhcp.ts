/**
 * A DHCP server for a network of one guest (RFC 2131, RFC 2132).
 *
 * @module
 */

import { get32, put16, put32 } from "./packet.ts";

/** Ports of server and client. */
export const DHCP_SERVER = 67;
/** Port of the client. */
export const DHCP_CLIENT = 68;

const FIXED = 236;
const COOKIE = 0x6382_5363;
const Option = {
  PAD: 0,
  MASK: 1,
  ROUTER: 3,
  DNS: 6,
  MTU: 26,
  REQUESTED: 50,
  LEASE: 51,
  TYPE: 53,
  SERVER: 54,
  END: 255,
};
const Type = { DISCOVER: 1, OFFER: 2, REQUEST: 3, ACK: 5, NAK: 6, INFORM: 8 } as const;
const LEASE_SECONDS = 86_400;

/** What the guest is told. */
export interface Lease {
  /** Its address. */
  readonly guest: number;
  /** Where everything goes that is not in the network; also this server's address. */
  readonly gateway: number;
  /** Whom to ask for names. */
  readonly dns: number;
  /** Bits of the network. */
  readonly mask: number;
  /** Largest payload of a frame. */
  readonly mtu: number;
}

/** A message's options that matter here, or `undefined` when it is no request of a client. */
function parse(message: Uint8Array): { type: number; wanted: number; server: number } | undefined {
  if (message.length < FIXED + 4 || message[0] !== 1 || get32(message, FIXED) !== COOKIE) return undefined;
  let type = 0;
  let wanted = get32(message, 12);
  let server = 0;
  for (let at = FIXED + 4; at < message.length && message[at] !== Option.END;) {
    if (message[at] === Option.PAD) {
      at++;
      continue;
    }
    const length = message[at + 1];
    if (at + 2 + length > message.length) break;
    if (message[at] === Option.TYPE && length === 1) type = message[at + 2];
    if (message[at] === Option.REQUESTED && length === 4) wanted = get32(message, at + 2);
    if (message[at] === Option.SERVER && length === 4) server = get32(message, at + 2);
    at += 2 + length;
  }
  return { type, wanted, server };
}

/**
 * Answers a client.
 *
 * @param message what came to port {@link DHCP_SERVER}
 * @returns the answer, a broadcast to port {@link DHCP_CLIENT}; `undefined` for none
 */
export function answerDhcp(message: Uint8Array, lease: Lease): Uint8Array<ArrayBuffer> | undefined {
  const asked = parse(message);
  if (asked === undefined || (asked.server !== 0 && asked.server !== lease.gateway)) return undefined;
  let type: number;
  if (asked.type === Type.DISCOVER) type = Type.OFFER;
  else if (asked.type === Type.INFORM) type = Type.ACK;
  else if (asked.type === Type.REQUEST) type = asked.wanted === lease.guest ? Type.ACK : Type.NAK;
  else return undefined;
  const answer = new Uint8Array(FIXED + 4 + 64);
  answer.set(message.subarray(0, FIXED));
  answer[0] = 2;
  // Whose address it is, who answers; no relay, no file to boot from.
  answer.fill(0, 12, 28);
  answer.fill(0, 44, FIXED);
  if (type !== Type.NAK && asked.type !== Type.INFORM) put32(answer, 16, lease.guest);
  put32(answer, 20, lease.gateway);
  put32(answer, FIXED, COOKIE);
  let at = FIXED + 4;
  const option = (code: number, value: number, size: 1 | 2 | 4): void => {
    answer[at] = code;
    answer[at + 1] = size;
    if (size === 4) put32(answer, at + 2, value);
    else if (size === 2) put16(answer, at + 2, value);
    else answer[at + 2] = value;
    at += 2 + size;
  };
  option(Option.TYPE, type, 1);
  option(Option.SERVER, lease.gateway, 4);
  if (type !== Type.NAK) {
    option(Option.MASK, (0xffff_ffff << 32 - lease.mask) >>> 0, 4);
    option(Option.ROUTER, lease.gateway, 4);
    option(Option.DNS, lease.dns, 4);
    option(Option.MTU, lease.mtu, 2);
    if (asked.type !== Type.INFORM) option(Option.LEASE, LEASE_SECONDS, 4);
  }
  answer[at] = Option.END;
  return answer;
}
