/**
 * What two sides say to each other, message by message: which answer belongs to which request, and what breaks the rules.
 * All that it knows of messages is in the message table.
 *
 * @module
 */

import {
  featureNames,
  has,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../../protocol/features.ts";
import { type Header, HeaderFlag, VERSION } from "../../protocol/header.ts";
import { messageName, type MessageRow, type MessageTable } from "../../protocol/messages.ts";
import { type Content, type ContentKind, contentKind, readContent } from "../describe.ts";
import type { Side } from "./wire.ts";

/** What the two sides of a session have agreed on so far. Both connections of a session share it. */
export class Agreement {
  /** Features that the back-end offers, once it has said so. */
  offered: bigint | undefined;
  /** Protocol features that the back-end offers, once it has said so. */
  offeredProtocol: bigint | undefined;
  /** Protocol features that the front-end has accepted. */
  protocol = 0n;
  /** Between POSTCOPY_LISTEN and POSTCOPY_END. */
  postcopy = false;

  /** Whether a protocol feature was accepted. */
  has(feature: ProtocolFeature): boolean {
    return has(this.protocol, protocolFeatures[feature]);
  }
}

/** What a message turned out to be. */
export interface Reading {
  /** Its name, or `undefined` for one that the table does not have. */
  readonly name: string | undefined;
  /** Whether it is an answer. */
  readonly reply: boolean;
  /** What it says. */
  readonly content: Content;
  /** Of an answer: time since the request, ms. */
  readonly latency?: number;
  /** Of an answer: whether it says that the request has failed. */
  readonly failed: boolean;
  /** What about it breaks the protocol, in words. */
  readonly violations: readonly string[];
}

/** A request that is to be answered. */
interface Pending {
  readonly id: number;
  readonly name: string;
  readonly content: Content;
  readonly time: number;
  readonly postcopy: boolean;
  /** Whether the answer is an acknowledgement that was asked for. */
  readonly acknowledged: boolean;
  /** Whether the rules leave it open if there is an answer. */
  readonly optional: boolean;
  reported: boolean;
}

const NONE = [0, 0] as const;

/** More requests than anybody leaves unanswered. */
const MOST_PENDING = 1024;

/** One of the two connections of a session, as a conversation. */
export class Conversation {
  readonly #table: MessageTable;
  readonly #requester: Side;
  readonly #agreement: Agreement;
  readonly #pending: Pending[] = [];

  /**
   * A conversation that has not begun.
   *
   * @param requester who sends the requests of the table
   */
  constructor(table: MessageTable, requester: Side, agreement: Agreement) {
    this.#table = table;
    this.#requester = requester;
    this.#agreement = agreement;
  }

  /** The name of a message of this connection. */
  name(id: number): string {
    return messageName(this.#table, id) ?? `message ${id}`;
  }

  /** Requests that have not been answered, oldest first. */
  get unanswered(): readonly string[] {
    return this.#pending.filter(({ optional }) => !optional).map(({ name }) => name);
  }

  /** Requests that have waited since a time, each told of once. */
  overdue(since: number): string[] {
    const found = this.#pending.filter(({ optional, reported, time }) =>
      !optional && !reported && time <= since
    );
    for (const each of found) each.reported = true;
    return found.map(({ name }) => name);
  }

  /** Reads a message. */
  read(from: Side, header: Header, payload: Uint8Array, descriptors: number, time: number): Reading {
    const violations = headerViolations(header);
    const isReply = (header.flags & HeaderFlag.REPLY) !== 0;
    if (isReply === (from === this.#requester)) {
      violations.push(
        isReply ? "a reply came where a request was expected" : "a request came where a reply was expected",
      );
    }
    return isReply
      ? this.#reply(header, payload, descriptors, time, violations, from !== this.#requester)
      : this.#request(header, payload, descriptors, time, violations, from === this.#requester);
  }

  #request(
    header: Header,
    payload: Uint8Array,
    descriptors: number,
    time: number,
    violations: string[],
    rightWay: boolean,
  ): Reading {
    const name = messageName(this.#table, header.request);
    const row: MessageRow | undefined = name === undefined ? undefined : this.#table[name];
    const content = readContent(row === undefined ? undefined : contentKind(row, "request"), payload);
    if (content.problem !== undefined) violations.push(content.problem);
    if (row !== undefined && rightWay) {
      violations.push(...this.#gate(row, descriptors));
      violations.push(
        ...countViolations(row.fds ?? NONE, descriptors),
        ...matchViolations(content.value, descriptors),
      );
      if (Array.isArray(content.value) && content.value.length !== descriptors) {
        violations.push(`descriptors: expected one for each of ${content.value.length}, got ${descriptors}`);
      }
      violations.push(...this.#agree(name as string, content.value));
    }
    const needReply = (header.flags & HeaderFlag.NEED_REPLY) !== 0;
    const acknowledged = row === undefined || row.reply === "ack";
    const postcopy = this.#agreement.postcopy && row?.postcopyReply !== undefined;
    if (needReply && acknowledged && !this.#agreement.has("REPLY_ACK")) {
      violations.push("need_reply, and REPLY_ACK was not negotiated");
    }
    if (rightWay && (!acknowledged || needReply || postcopy || row === undefined)) {
      this.#expect({
        id: header.request,
        name: this.name(header.request),
        content,
        time,
        postcopy,
        acknowledged: acknowledged && needReply,
        optional: acknowledged && (postcopy || !needReply || !this.#agreement.has("REPLY_ACK")),
        reported: false,
      });
    }
    return { name, reply: false, content, failed: false, violations };
  }

  #expect(request: Pending): void {
    this.#pending.push(request);
    if (this.#pending.length <= MOST_PENDING) return;
    const first = this.#pending.findIndex(({ optional }) => optional);
    this.#pending.splice(Math.max(0, first), 1);
  }

  #reply(
    header: Header,
    payload: Uint8Array,
    descriptors: number,
    time: number,
    violations: string[],
    rightWay: boolean,
  ): Reading {
    if ((header.flags & HeaderFlag.NEED_REPLY) !== 0) violations.push("a reply must not have need_reply");
    const name = messageName(this.#table, header.request);
    const row: MessageRow | undefined = name === undefined ? undefined : this.#table[name];
    const request = rightWay ? this.#match(header.request) : undefined;
    if (rightWay && row !== undefined && request === undefined) {
      violations.push("a reply that nobody has asked for");
    }
    const late = request === undefined ? [] : this.#overtake(request);
    if (late.length > 0) violations.push(`answered before ${late.join(", ")}, which came earlier`);
    const kind = replyKind(row, request, payload.length);
    const content = readContent(kind, payload);
    // By convention, an answer without the payload that it should have says that the request has failed.
    const empty = payload.length === 0 && content.problem !== undefined;
    if (content.problem !== undefined && !empty) violations.push(content.problem);
    if (row !== undefined && rightWay) {
      violations.push(...countViolations(row.replyFds ?? NONE, descriptors));
      violations.push(...matchViolations(content.value, descriptors));
      this.#learn(name as string, content.value);
    }
    return {
      name,
      reply: true,
      content: empty ? { kind: undefined, value: undefined, problem: undefined } : content,
      latency: request === undefined ? undefined : time - request.time,
      failed: empty || saysFailure(content, request?.content),
      violations,
    };
  }

  /** The request that an answer belongs to. */
  #match(id: number): Pending | undefined {
    return this.#pending.find((each) => each.id === id);
  }

  /** A request is answered. Those before it that need no answer will not get one; returns the names of the others. */
  #overtake(request: Pending): string[] {
    const at = this.#pending.indexOf(request);
    const earlier = this.#pending.slice(0, at).filter(({ optional }) => !optional);
    this.#pending.splice(0, at + 1, ...earlier);
    return earlier.map(({ name }) => name);
  }

  #gate({ requires, requiresRing }: MessageRow, descriptors: number): string[] {
    const { offered } = this.#agreement;
    const found: string[] = [];
    if (requires !== undefined && !this.#agreement.has(requires)) {
      found.push(`protocol feature ${requires} was not negotiated`);
    }
    if (requiresRing !== undefined && offered !== undefined && !has(offered, ringFeatures[requiresRing])) {
      found.push(`feature ${requiresRing} is not offered`);
    }
    if (this.#requester === "back-end" && descriptors > 0 && !this.#agreement.has("BACKEND_SEND_FD")) {
      found.push("descriptors, and protocol feature BACKEND_SEND_FD was not negotiated");
    }
    return found;
  }

  /** A request changes what is agreed on. */
  #agree(name: string, value: unknown): string[] {
    const agreement = this.#agreement;
    if (name === "POSTCOPY_LISTEN") agreement.postcopy = true;
    if (name === "POSTCOPY_END") agreement.postcopy = false;
    if (typeof value !== "bigint") return [];
    if (name === "SET_FEATURES") return surplus(value, agreement.offered, ringFeatures);
    if (name !== "SET_PROTOCOL_FEATURES") return [];
    agreement.protocol = value;
    return surplus(value, agreement.offeredProtocol, protocolFeatures);
  }

  /** An answer tells what is offered. */
  #learn(name: string, value: unknown): void {
    if (typeof value !== "bigint") return;
    if (name === "GET_FEATURES") this.#agreement.offered = value;
    if (name === "GET_PROTOCOL_FEATURES") this.#agreement.offeredProtocol = value;
  }
}

/** How an answer is to be read. */
function replyKind(
  row: MessageRow | undefined,
  request: Pending | undefined,
  size: number,
): ContentKind | undefined {
  if (row === undefined) return request?.acknowledged === true ? "ack" : undefined;
  const kind = contentKind(row, request?.postcopy === true && size > 8 ? "postcopy reply" : "reply");
  if (row.anyReply && size === 8) return "ack";
  if (row.anyReply && size === 0) return "none";
  return kind;
}

function headerViolations({ flags }: Header): string[] {
  const known = HeaderFlag.VERSION_MASK | HeaderFlag.REPLY | HeaderFlag.NEED_REPLY;
  const version = flags & HeaderFlag.VERSION_MASK;
  const reserved = (flags & ~known) >>> 0;
  return [
    ...(version === VERSION ? [] : [`header version must be ${VERSION}, got ${version}`]),
    ...(reserved === 0 ? [] : [`reserved header flags must be 0, got 0x${reserved.toString(16)}`]),
  ];
}

function countViolations(
  [fewest, most]: readonly [number, number],
  descriptors: number,
): string[] {
  if (descriptors >= fewest && descriptors <= most) return [];
  const expected = fewest === most ? `${fewest}` : `${fewest} to ${most}`;
  return [`descriptors: expected ${expected}, got ${descriptors}`];
}

/** Payloads that say themselves whether a descriptor comes along. */
function matchViolations(value: unknown, descriptors: number): string[] {
  if (typeof value !== "object" || value === null || !("noDescriptor" in value)) return [];
  const expected = value.noDescriptor === true ? 0 : 1;
  return descriptors === expected
    ? []
    : [`descriptors: expected ${expected} by flag bit 8 of the payload, got ${descriptors}`];
}

function saysFailure({ kind, value }: Content, request: Content | undefined): boolean {
  if (kind === "ack") return value !== undefined && value !== 0n;
  if (typeof value !== "object" || value === null) return false;
  if ("error" in value) return value.error !== 0;
  if ("sessionId" in value) return (value.sessionId as bigint) < 0n;
  return sizeOfData(value) === 0 && sizeOfData(request?.value) > 0;
}

function sizeOfData(value: unknown): number {
  if (typeof value !== "object" || value === null || !("data" in value)) return -1;
  return value.data instanceof Uint8Array ? value.data.length : -1;
}

function surplus(
  value: bigint,
  offered: bigint | undefined,
  names: Readonly<Record<string, number>>,
): string[] {
  const more = offered === undefined ? 0n : value & ~offered;
  return more === 0n ? [] : [`features that are not offered: ${featureNames(more, names).join(", ")}`];
}
