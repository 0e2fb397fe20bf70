/**
 * A name server that makes addresses up (RFC 1035).
 *
 * @module
 */

import { get16, put16, put32 } from "./packet.ts";

/** The port of name servers. */
export const DNS_PORT = 53;

const HEADER = 12;
const TYPE_A = 1;
const CLASS_IN = 1;
const TTL_SECONDS = 60;
const RESPONSE = 0x8000;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
const OPCODE = 0x7800;
const Code = { OK: 0, FORMAT: 1, FAILURE: 2, NO_NAME: 3, NOT_IMPLEMENTED: 4 } as const;

/** Addresses for names: 198.18.0.0/15, which are no machine's on the Internet (RFC 2544). */
const FIRST_ADDRESS = 0xc612_0001;
/** Names that get an address. A guest could ask for any number. */
const MOST_NAMES = 65_536;

/**
 * Gives each name that a guest may reach an address of its own, so that a connection to that address is known to mean that
 * name: whatever the name's real address is, and whoever shares it.
 */
export class NameServer {
  readonly #known: (name: string) => boolean;
  readonly #addresses = new Map<string, number>();
  readonly #names: string[] = [];

  /** A server of the names for which a function says that there are such. */
  constructor(known: (name: string) => boolean) {
    this.#known = known;
  }

  /** The name that was given an address. */
  nameOf(address: number): string | undefined {
    return this.#names[address - FIRST_ADDRESS];
  }

  #addressOf(name: string): number | undefined {
    const known = this.#addresses.get(name);
    if (known !== undefined) return known;
    if (this.#names.length >= MOST_NAMES) return undefined;
    const address = FIRST_ADDRESS + this.#names.length;
    this.#names.push(name);
    this.#addresses.set(name, address);
    return address;
  }

  /** Answers a question. Returns `undefined` for what is none. */
  answer(message: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
    if (message.length < HEADER) return undefined;
    const flags = get16(message, 2);
    if ((flags & RESPONSE) !== 0) return undefined;
    if ((flags & OPCODE) !== 0) return reply(message, HEADER, Code.NOT_IMPLEMENTED);
    const question = get16(message, 4) === 1 ? parseQuestion(message) : undefined;
    if (question === undefined) return reply(message, HEADER, Code.FORMAT);
    const { name, type, klass, end } = question;
    if (klass !== CLASS_IN || !this.#known(name)) return reply(message, end, Code.NO_NAME);
    // The name is there, but has no address of any other kind.
    if (type !== TYPE_A) return reply(message, end, Code.OK);
    const address = this.#addressOf(name);
    if (address === undefined) return reply(message, end, Code.FAILURE);
    return reply(message, end, Code.OK, address);
  }
}

/** Reads the one question of a message. */
function parseQuestion(
  message: Uint8Array,
): { name: string; type: number; klass: number; end: number } | undefined {
  const labels: string[] = [];
  let at = HEADER;
  for (let length = message[at]; length !== 0; length = message[at]) {
    // Also pointers, which a question has no use for, and the end of the message.
    if (length === undefined || length > 63 || at + 1 + length >= message.length) return undefined;
    let label = "";
    for (const byte of message.subarray(at + 1, at + 1 + length)) {
      if (byte <= 0x20 || byte >= 0x7f || byte === 0x2e) return undefined;
      label += String.fromCharCode(byte);
    }
    labels.push(label.toLowerCase());
    at += 1 + length;
    if (at - HEADER > 254) return undefined;
  }
  const end = at + 5;
  if (end > message.length || labels.length === 0) return undefined;
  return { name: labels.join("."), type: get16(message, at + 1), klass: get16(message, at + 3), end };
}

/** Puts an answer together: the question as it was, up to `end`, and the address, if there is one. */
function reply(message: Uint8Array, end: number, code: number, address?: number): Uint8Array<ArrayBuffer> {
  const answer = new Uint8Array(end + (address === undefined ? 0 : 16));
  answer.set(message.subarray(0, end));
  put16(answer, 2, RESPONSE | get16(message, 2) & (OPCODE | RECURSION_DESIRED) | RECURSION_AVAILABLE | code);
  put16(answer, 4, end > HEADER ? 1 : 0);
  put16(answer, 6, address === undefined ? 0 : 1);
  put32(answer, 8, 0);
  if (address !== undefined) {
    // The name is the question's.
    put16(answer, end, 0xc000 | HEADER);
    put16(answer, end + 2, TYPE_A);
    put16(answer, end + 4, CLASS_IN);
    put32(answer, end + 6, TTL_SECONDS);
    put16(answer, end + 10, 4);
    put32(answer, end + 12, address);
  }
  return answer;
}
