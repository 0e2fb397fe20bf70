/**
 * The request ring of an I²C adapter.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { I2cBus, I2cSegment } from "./bus.ts";
import { decodeAddress, HEADER_SIZE, I2cFlag, I2cStatus, MAX_SEGMENT } from "./layout.ts";

/** Segments of a transaction: as many as Linux takes in one. */
const MAX_SEGMENTS = 42;
/** How long the rest of a group may take to come, ms. */
const PATIENCE = 2;

/**
 * Carries out the driver's requests in order. A group of requests is one transaction; one whose end does not come soon is
 * carried out in parts, as a driver may wait for the first before it sends the rest.
 */
export class I2cRequests implements QueueOwner {
  readonly #bus: I2cBus;
  readonly #onError: (error: unknown) => void;
  readonly #chains: Chain[] = [];
  readonly #segments: I2cSegment[] = [];
  /** Whether the group goes on after what is held. */
  #open = false;
  /** Whether an earlier part of the group has failed. */
  #failed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #queue: OwnedQueue | undefined;

  /** Requests for a bus. */
  constructor(bus: I2cBus, onError: (error: unknown) => void) {
    this.#bus = bus;
    this.#onError = onError;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
    this.#failed = this.#open = false;
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#wait(false);
    // They have not begun, and are taken again when the ring goes on.
    this.#chains.length = this.#segments.length = 0;
    this.#queue = undefined;
  }

  /** {@link QueueOwner.work}. */
  work(queue: OwnedQueue): boolean {
    this.#wait(false);
    // A transaction takes its time: other rings get their turn after each.
    while (this.#chains.length < MAX_SEGMENTS) {
      const chain = queue.take();
      if (chain === null) {
        this.#wait(this.#chains.length > 0);
        return false;
      }
      // Read once: the guest may change them.
      const flags = chain.readable.byteLength >= HEADER_SIZE ? chain.readable.getUint32(4) : 0;
      const segment = this.#segmentOf(chain, flags);
      const goesOn = (flags & I2cFlag.FAIL_NEXT) !== 0;
      this.#open = goesOn;
      this.#chains.push(chain);
      if (segment !== undefined) {
        this.#segments.push(segment);
        if (goesOn) continue;
      }
      break;
    }
    this.#transfer();
    return true;
  }

  /** Waits for the rest of a group, or not any more. */
  #wait(on: boolean): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = on
      ? setTimeout(() => {
        this.#timer = undefined;
        this.#transfer();
        this.#queue?.publish();
      }, PATIENCE)
      : undefined;
  }

  /** What a request asks for; nothing when it is malformed. */
  #segmentOf({ readable, writable }: Chain, flags: number): I2cSegment | undefined {
    if (readable.byteLength < HEADER_SIZE || writable.byteLength < 1) return undefined;
    const address = decodeAddress(readable.getUint16(0));
    const reads = (flags & I2cFlag.M_RD) !== 0;
    const written = readable.byteLength - HEADER_SIZE;
    const room = writable.byteLength - 1;
    const length = reads ? room : written;
    if (address < 0 || length > MAX_SEGMENT || (reads ? written : room) !== 0) return undefined;
    if ((flags & ~(I2cFlag.M_RD | I2cFlag.FAIL_NEXT)) !== 0) return undefined;
    const data = new Uint8Array(length);
    if (!reads) readable.copyTo(data, HEADER_SIZE);
    return { address, reads, data };
  }

  /** Carries out what is held. */
  #transfer(): void {
    const chains = this.#chains;
    const segments = this.#segments;
    let done = 0;
    if (!this.#failed && segments.length > 0) {
      try {
        done = this.#bus.transfer(segments);
      } catch (error) {
        this.#onError(error);
      }
    }
    for (let i = 0; i < chains.length; i++) this.#answer(chains[i], i < done ? segments[i] : undefined);
    this.#failed = this.#open && (this.#failed || done < chains.length);
    chains.length = segments.length = 0;
  }

  #answer(chain: Chain, segment: I2cSegment | undefined): void {
    const { writable } = chain;
    const room = writable.byteLength - 1;
    if (room >= 0) {
      if (segment === undefined) writable.clearBytes(0, room);
      else if (segment.reads) writable.copyFrom(segment.data);
      writable.setUint8(room, segment === undefined ? I2cStatus.ERR : I2cStatus.OK);
      chain.written = room + 1;
    }
    this.#queue?.complete(chain);
  }
}
