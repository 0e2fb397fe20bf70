/**
 * The sending ring of a queue pair: frames of the guest.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { NetCounters } from "./counters.ts";
import { Frame } from "./frame.ts";
import type { Capture } from "./pcap.ts";
import { ETHERNET_HEADER, MAX_FRAME, NET_HEADER_SIZE } from "./layout.ts";

/** Frames of one burst. */
const BURST = 32;

/** Who takes the frames. */
export interface FrameSink {
  /** Takes one. `false` to be given it again later. */
  send(frame: Frame): unknown;
  /** The burst is over. */
  flush(): void;
}

/** Takes the guest's frames and hands them on, a burst at a time. */
export class Transmitter implements QueueOwner {
  /** Bytes of the header before each frame. */
  headerSize = NET_HEADER_SIZE;
  readonly #counters: NetCounters;
  readonly #sink: FrameSink;
  readonly #onError: (error: unknown) => void;
  readonly #capture: Capture | undefined;
  readonly #frame = new Frame();
  /** Chains that were taken and not handed on, the first {@link #count}. */
  readonly #chains: Chain[] = [];
  #count = 0;
  #queue: OwnedQueue | undefined;
  /** Whether a frame was refused, and waits. */
  #waiting = false;
  /** What {@link Segments.touch} has found: nobody reads it. */
  #touched = 0;

  /** A transmitter whose ring does not run. */
  constructor(
    counters: NetCounters,
    sink: FrameSink,
    onError: (error: unknown) => void,
    capture?: Capture,
  ) {
    this.#counters = counters;
    this.#sink = sink;
    this.#onError = onError;
    this.#capture = capture;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
    this.#waiting = false;
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
    this.#count = this.#chains.length = 0;
    this.#waiting = false;
  }

  /** Goes on, after a frame was refused. */
  resume(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#queue?.wake();
  }

  /** {@link QueueOwner.work}. */
  work(queue: OwnedQueue): boolean {
    if (this.#waiting) return false;
    const chains = this.#chains;
    const taken = queue.takeBurst(chains, this.#count, BURST - this.#count);
    const count = this.#count + taken;
    const full = count === BURST;
    // Most often the next frame is used like the last: some networks do not look into them.
    if (this.#frame.wasRead) {
      let touched = 0;
      for (let i = this.#count; i < count; i++) touched ^= chains[i].readable.touch();
      this.#touched = touched;
    }
    let at = 0;
    // Whatever is called here may be the end of the ring.
    while (at < count && this.#queue !== undefined && this.#send(chains[at])) at++;
    this.#flush();
    if (this.#queue === undefined) return false;
    for (let i = 0; i < at; i++) queue.complete(chains[i]);
    this.#count = count - at;
    if (at < count) {
      chains.copyWithin(0, at, count);
      return !this.#waiting;
    }
    return full;
  }

  /** Hands one frame on. Returns false when it was refused. */
  #send({ readable }: Chain): boolean {
    const length = readable.byteLength - this.headerSize;
    if (length < ETHERNET_HEADER || length > MAX_FRAME) {
      this.#counters.malformed++;
      return true;
    }
    const frame = this.#frame.set(readable, this.headerSize);
    try {
      // It may be resumed before this returns.
      this.#waiting = true;
      if (this.#sink.send(frame) === false) return false;
      this.#waiting = false;
    } catch (error) {
      this.#waiting = false;
      this.#onError(error);
    }
    if (this.#capture !== undefined) {
      this.#capture.begin(length);
      this.#capture.piece(readable, this.headerSize, length);
      this.#capture.end();
    }
    this.#counters.sentFrames++;
    this.#counters.sentBytes += length;
    return true;
  }

  #flush(): void {
    try {
      this.#sink.flush();
    } catch (error) {
      this.#onError(error);
    }
  }
}
