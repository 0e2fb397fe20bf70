/**
 * The entropy device.
 *
 * @module
 */

import { Device, type DeviceBehaviour, type OwnedQueue, type QueueOwner } from "../../backend/device.ts";
import { logToStderr } from "../../backend/log.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { type RateLimit, RateLimiter } from "./rate.ts";
import { type RandomSource, SystemSource } from "./source.ts";
import { rngRequests } from "./request_format.ts";

/** What a request gets at most, bytes: a driver asks again for more. */
export const MAX_FILL = 65536;

/** Requests of one turn. */
const BURST = 16;
/** The longest time that a timer can wait, ms. */
const LONGEST = 1 << 30;

/** What an entropy device is made of. */
export interface RngOptions {
  /** Where bytes come from; the system's generator by default. Stays the caller's. */
  readonly source?: RandomSource;
  /** How many bytes all guests together may have. None by default. */
  readonly rateLimit?: RateLimit;
  /** Told when the source fails; its requests wait from then on. Says so on the standard error output by default. */
  readonly onError?: (error: unknown) => void;
}

/**
 * A source of entropy (virtio device 4; virtio 1.4, section 5.4): gives the guest random bytes.
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { RngDevice } from "@vhost/user/devices/rng";
 *
 * const rng = new RngDevice({ rateLimit: { bytes: 1024 } });
 * const server = await serve(rng, { socketPath: `/tmp/rng-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * ```
 */
export class RngDevice extends Device {
  /** Bytes given to guests so far. */
  bytesGiven = 0;

  /** A device with a source. */
  constructor(options: RngOptions = {}) {
    const { source = new SystemSource(), rateLimit, onError = fail } = options;
    const limiter = rateLimit === undefined ? undefined : new RateLimiter(rateLimit);
    super({
      type: 4,
      name: "rng",
      requests: rngRequests,
      stateless: true,
      connect: (): DeviceBehaviour => {
        const requests = new Requests(source, limiter, onError, (bytes) => this.bytesGiven += bytes);
        return { queues: [requests], disconnected: () => requests.close() };
      },
    });
  }
}

function fail(error: unknown): void {
  logToStderr("error", "rng: the source failed; guests wait", error);
}

/** The requests of one guest. They stay in the ring until there is something for them. */
class Requests implements QueueOwner {
  readonly #source: RandomSource;
  readonly #limiter: RateLimiter | undefined;
  readonly #onError: (error: unknown) => void;
  readonly #onGiven: (bytes: number) => void;
  #queue: OwnedQueue | undefined;
  /** Taken, and waiting for bytes. */
  #held: Chain | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the source will call. */
  #waits = false;
  #failed = false;
  /** What the request that is being filled may have. */
  #room = 0;
  #short = false;

  constructor(
    source: RandomSource,
    limiter: RateLimiter | undefined,
    onError: (error: unknown) => void,
    onGiven: (bytes: number) => void,
  ) {
    this.#source = source;
    this.#limiter = limiter;
    this.#onError = onError;
    this.#onGiven = onGiven;
  }

  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = this.#held = undefined;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#failed = true;
  }

  work(queue: OwnedQueue): boolean {
    if (this.#timer !== undefined || this.#waits || this.#failed) return false;
    for (let i = 0; i < BURST; i++) {
      const chain = this.#held ?? queue.take();
      if (chain === null) return false;
      this.#held = chain;
      if (!this.#fill(chain)) return false;
      this.#held = undefined;
      queue.complete(chain);
    }
    return true;
  }

  /** Fills a request with one byte at least. Returns false when it has to wait. */
  #fill(chain: Chain): boolean {
    let room = Math.min(chain.writable.byteLength, MAX_FILL);
    // A driver that leaves no room has made a mistake, and gets what it asked for.
    if (room === 0) return true;
    const limiter = this.#limiter;
    if (limiter !== undefined) {
      room = Math.min(room, limiter.capacity);
      const delay = limiter.wait(room);
      if (delay > 0) {
        this.#timer = setTimeout(() => {
          this.#timer = undefined;
          this.#queue?.wake();
        }, Math.min(delay, LONGEST));
        return false;
      }
    }
    this.#room = room;
    this.#short = false;
    try {
      chain.write(this.#give);
    } catch (error) {
      this.#failed = true;
      this.#onError(error);
    }
    if (chain.written === 0) {
      if (!this.#failed) this.#waitForSource();
      return false;
    }
    limiter?.take(chain.written);
    this.#onGiven(chain.written);
    return true;
  }

  /** Fills a piece, as far as the request may have it. */
  readonly #give = (piece: Uint8Array<ArrayBuffer>): number => {
    if (this.#short || this.#room === 0) return 0;
    const wanted = piece.length > this.#room ? piece.subarray(0, this.#room) : piece;
    const filled = Math.max(0, Math.min(this.#source.fill(wanted), wanted.length));
    this.#room -= filled;
    this.#short = filled < wanted.length;
    return filled;
  };

  #waitForSource(): void {
    this.#waits = true;
    const ready = () => {
      this.#waits = false;
      this.#queue?.wake();
    };
    if (this.#source.whenReady === undefined) setTimeout(ready, 100);
    else this.#source.whenReady(ready);
  }
}
