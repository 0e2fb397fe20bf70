/**
 * Rings as a guest's driver has them, of any format.
 *
 * @module
 */

import { consume, eventfd, signal } from "../../../../ffi/eventfd.ts";
import { close } from "../../../../ffi/fd.ts";
import { type DriverRing, DriverRingError, type DriverRingOptions } from "../../../frontend/driver_ring.ts";
import { PackedDriverRing } from "../../../frontend/packed_driver_ring.ts";
import type { Piece, SharedMemory } from "../../../frontend/shared_memory.ts";
import { SplitDriverRing } from "../../../frontend/split_driver_ring.ts";
import { has, ringFeatures } from "../../../protocol/features.ts";
import { fail, notOffered } from "../finding.ts";
import type { Peer, Startable } from "../peer.ts";
import type { Request } from "../profile.ts";
import { layOut } from "../drive.ts";
import type { Trial } from "../trial.ts";

/** Descriptors of a request at the most. */
const LONGEST = 4;

/** A driver's ring with its doorbells. */
class FormatRing implements Startable {
  readonly index: number;
  readonly ring: DriverRing;
  readonly kickFd = eventfd();
  readonly callFd = eventfd();
  readonly errorFd = eventfd();

  constructor(index: number, ring: DriverRing) {
    this.index = index;
    this.ring = ring;
  }

  get size(): number {
    return this.ring.size;
  }
  get descriptor(): Piece {
    return this.ring.descriptor;
  }
  get available(): Piece {
    return this.ring.available;
  }
  get used(): Piece {
    return this.ring.used;
  }

  kick(): void {
    signal(this.kickFd);
  }

  called(): boolean {
    return consume(this.callFd) === "rung";
  }

  errored(): boolean {
    return consume(this.errorFd) === "rung";
  }

  close(): void {
    for (const fd of [this.kickFd, this.callFd, this.errorFd]) close(fd);
  }
}

/** Requests in memory, to be used again and again. */
interface Slot {
  readonly readable: readonly { guestAddress: number; length: number }[];
  readonly writable: readonly { guestAddress: number; length: number }[];
  readonly answer: Uint8Array;
  readonly request: Request;
}

/** A session whose rings are driven as a guest's driver does. */
export class Driven {
  readonly peer: Peer;
  readonly rings: readonly FormatRing[];
  readonly ring: FormatRing;
  readonly #trial: Trial;
  readonly #slots: Slot[];

  constructor(trial: Trial, peer: Peer, rings: FormatRing[], ring: FormatRing, slots: Slot[]) {
    this.#trial = trial;
    this.peer = peer;
    this.rings = rings;
    this.ring = ring;
    this.#slots = slots;
  }

  /** Does requests, several at once, kicking only when the device asks for it. */
  async many(count: number): Promise<void> {
    const { ring } = this.ring;
    const free = [...this.#slots];
    const busy = new Map<number, Slot>();
    let started = 0;
    for (let done = 0; done < count;) {
      while (started < count && free.length > 0) {
        const slot = free[free.length - 1];
        const head = ring.add(slot.readable, slot.writable);
        if (head < 0) break;
        free.pop();
        busy.set(head, slot);
        started++;
      }
      if (ring.publish()) this.ring.kick();
      let used: { head: number; written: number } | undefined;
      try {
        used = await this.#trial.until(() => ring.take() ?? undefined);
      } catch (error) {
        if (error instanceof DriverRingError) fail("each request to be returned once", error.message);
        throw error;
      }
      if (used === undefined) {
        const heard = this.ring.errored() ? "; the ring's error descriptor was signalled" : "";
        fail("every request to be returned", `${done} of ${count} were${heard}`);
      }
      const slot = busy.get(used.head);
      busy.delete(used.head);
      if (slot === undefined) fail("each request to be returned once", `${used.head} again`);
      const wrong = slot.request.check(slot.answer, used.written);
      if (wrong !== undefined) fail("every request to succeed", wrong);
      free.push(slot);
      done++;
    }
  }
}

/** How a case wants its rings. */
export interface Format extends Partial<DriverRingOptions> {
  readonly packed?: boolean;
  readonly indirect?: boolean;
  /** Most bytes of a descriptor. */
  readonly cut?: number;
}

function newRing(trial: Trial, index: number, memory: SharedMemory, peer: Peer, format: Format): FormatRing {
  const options: DriverRingOptions = {
    size: format.size ?? 64,
    eventIdx: has(peer.features, ringFeatures.EVENT_IDX),
    inOrder: has(peer.features, ringFeatures.IN_ORDER),
    tableSize: format.indirect === true ? LONGEST : 0,
  };
  const ring = format.packed === true
    ? new PackedDriverRing(memory, options)
    : new SplitDriverRing(memory, options);
  const mine = new FormatRing(index, ring);
  trial.after(() => mine.close());
  return mine;
}

/** Opens a session with rings of a format, running. */
export async function start(trial: Trial, format: Format): Promise<Driven> {
  const { profile } = trial;
  if (profile === undefined) notOffered("a kind of device that can be driven");
  const peer = await trial.open();
  const memory = trial.memory();
  await peer.share(memory);
  const rings: FormatRing[] = [];
  for (let index = 0; index < profile.rings; index++) {
    const mine = newRing(trial, index, memory, peer, format);
    await peer.announce(mine, mine.ring.base);
    await peer.start(mine);
    rings.push(mine);
  }
  const depth = 16;
  const slots = Array.from({ length: depth }, (): Slot => {
    const request = profile.request();
    const { parts, answer } = layOut(memory, request, format.cut);
    const buffers = (write: boolean) =>
      parts.filter((part) => part.write === write).map(({ address, length }) => ({
        guestAddress: address,
        length,
      }));
    return { request, answer, readable: buffers(false), writable: buffers(true) };
  });
  return new Driven(trial, peer, rings, rings[profile.ring], slots);
}
