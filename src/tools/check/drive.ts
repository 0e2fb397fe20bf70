/**
 * Requests on running rings.
 *
 * @module
 */

import type { SharedMemory } from "../../frontend/shared_memory.ts";
import { fail } from "./finding.ts";
import type { Peer } from "./peer.ts";
import type { Profile, Request } from "./profile.ts";
import type { CheckRing, Part, Shape } from "./ring.ts";

/** What stands in room for an answer before there is one. */
export const UNWRITTEN = 0xee;

/** A request in memory. */
export interface Placed {
  /** Index of its first descriptor. */
  readonly head: number;
  /** Room for the answer. */
  readonly answer: Uint8Array;
  /** What the device reads. */
  readonly readable: Uint8Array;
  /** Looks at the answer; returns what is wrong. */
  check(written: number): string | undefined;
}

/** How a request is put into memory. */
export interface PlaceOptions {
  /** How it lies in the ring. */
  readonly shape?: Shape;
  /** Most bytes of one descriptor. */
  readonly cut?: number;
  /** Memory for its bytes. */
  readonly memory?: SharedMemory;
}

/**
 * Puts a request's bytes into memory.
 *
 * @param cut most bytes of one part
 */
export function layOut(
  memory: SharedMemory,
  request: Request,
  cut: number = 2 ** 31,
): { parts: Part[]; readable: Uint8Array; answer: Uint8Array } {
  const readable = memory.allocate(Math.max(1, request.readable.length), 8);
  readable.bytes.set(request.readable);
  const writable = memory.allocate(Math.max(1, request.writable), 8);
  writable.bytes.fill(UNWRITTEN);
  const parts: Part[] = [];
  for (
    const [piece, length, write] of [
      [readable, request.readable.length, false],
      [writable, request.writable, true],
    ] as const
  ) {
    for (let at = 0; at < length; at += cut) {
      parts.push({ address: piece.guestAddress + at, length: Math.min(cut, length - at), write });
    }
  }
  return { parts, readable: readable.bytes, answer: writable.bytes };
}

/** A session with running rings, and one of them to send requests on. */
export class Drive {
  /** The session. */
  readonly peer: Peer;
  /** Shared memory. */
  readonly memory: SharedMemory;
  /** Running rings. */
  readonly rings: readonly CheckRing[];
  /** The ring for requests. */
  readonly ring: CheckRing;
  readonly #profile: Profile;
  readonly #patience: number;

  /** A session whose rings run. */
  constructor(peer: Peer, memory: SharedMemory, rings: CheckRing[], profile: Profile, patience: number) {
    this.peer = peer;
    this.memory = memory;
    this.rings = rings;
    this.ring = rings[profile.ring];
    this.#profile = profile;
    this.#patience = patience;
  }

  /** A new request of the device's kind. */
  request(): Request {
    return this.#profile.request();
  }

  /** Puts a request into memory and into a ring's table. */
  place(
    request: Request = this.request(),
    { shape, cut = 2 ** 31, memory = this.memory }: PlaceOptions = {},
    ring: CheckRing = this.ring,
  ): Placed {
    const { parts, readable, answer } = layOut(memory, request, cut);
    return {
      head: ring.place(parts, shape),
      answer,
      readable,
      check: (written) => request.check(answer, written),
    };
  }

  /**
   * Does a request to its end.
   *
   * @param what it is, for the finding
   * @throws {CaseEnd} when it is not returned, or wrong
   */
  async one(placed: Placed = this.place(), what = "the request", ring: CheckRing = this.ring): Promise<void> {
    ring.offer(placed.head);
    ring.kick();
    await this.finish([placed], what, ring);
  }

  /** Waits until requests that were made available are returned, and looks at them. */
  async finish(placed: readonly Placed[], what = "the request", ring: CheckRing = this.ring): Promise<void> {
    if (!await ring.returns(placed.length, this.#patience)) {
      const heard = ring.errored() ? "; the ring's error descriptor was signalled" : "";
      fail(
        `${what} to be returned`,
        `${ring.returned} of ${placed.length} came back${heard}`,
      );
    }
    const left = new Map(placed.map((each) => [each.head, each]));
    for (const { head, written } of ring.collect()) {
      const mine = left.get(head);
      if (mine === undefined) {
        fail("each request to be returned once", `head ${head}, which is not under way`);
      }
      left.delete(head);
      const wrong = mine.check(written);
      if (wrong !== undefined) fail(`${what} to succeed`, wrong);
    }
  }
}
