/**
 * The event ring: interrupts.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { GpioChip } from "./chip.ts";
import { GpioEventStatus, GpioInterrupt, type GpioLevel } from "./layout.ts";

/** Buffers of one burst. */
const BURST = 64;

/**
 * Tells the driver of interrupts. A line's interrupt is enabled by a request, and unmasked while the driver has a buffer
 * for it on this ring; an edge is kept until then, a level is not (virtio 1.4, 5.17.6).
 */
export class GpioEvents implements QueueOwner {
  readonly #chip: GpioChip;
  readonly #types: GpioInterrupt[];
  /** Edges that came while masked. */
  readonly #latched: boolean[];
  /** The buffer of each line that is unmasked. */
  readonly #held: (Chain | undefined)[];
  #queue: OwnedQueue | undefined;

  /** All disabled, and the ring does not run. */
  constructor(chip: GpioChip) {
    this.#chip = chip;
    const count = chip.names.length;
    this.#types = new Array<GpioInterrupt>(count).fill(GpioInterrupt.NONE);
    this.#latched = new Array<boolean>(count).fill(false);
    this.#held = new Array<Chain | undefined>(count).fill(undefined);
  }

  /** What a line interrupts at. */
  type(line: number): GpioInterrupt {
    return this.#types[line];
  }

  /** Enables a line's interrupt, or disables it: the buffer comes back, and what was kept is forgotten. */
  setType(line: number, type: GpioInterrupt): void {
    if (type !== this.#types[line]) this.#chip.sense(line, type);
    this.#types[line] = type;
    this.#latched[line] = false;
    if (type === GpioInterrupt.NONE) this.#answer(line, GpioEventStatus.INVALID);
    else this.#checkLevel(line);
  }

  /** A line has changed. */
  changed(line: number, level: GpioLevel): void {
    const edge = level === 1 ? GpioInterrupt.EDGE_RISING : GpioInterrupt.EDGE_FALLING;
    const type = this.#types[line];
    if (type === GpioInterrupt.LEVEL_HIGH || type === GpioInterrupt.LEVEL_LOW) this.#checkLevel(line, level);
    else if ((type & edge) !== 0 && !this.#answer(line, GpioEventStatus.VALID)) this.#latched[line] = true;
  }

  /** Interrupts while the level is what the line waits for. */
  #checkLevel(line: number, level?: GpioLevel): void {
    const type = this.#types[line];
    const wanted = type === GpioInterrupt.LEVEL_HIGH ? 1 : type === GpioInterrupt.LEVEL_LOW ? 0 : undefined;
    if (wanted === undefined || this.#held[line] === undefined) return;
    if ((level ?? this.#chip.value(line)) === wanted) this.#answer(line, GpioEventStatus.VALID);
  }

  /** Gives a line's buffer back, which masks the interrupt. Returns false when there is none. */
  #answer(line: number, status: number): boolean {
    const chain = this.#held[line];
    if (chain === undefined) return false;
    this.#held[line] = undefined;
    this.#complete(chain, status);
    return true;
  }

  #complete(chain: Chain, status: number): void {
    if (chain.writable.byteLength > 0) {
      chain.writable.setUint8(0, status);
      chain.written = 1;
    }
    this.#queue?.complete(chain);
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
  }

  /** {@link QueueOwner.work}. */
  work(queue: OwnedQueue): boolean {
    for (let i = 0; i < BURST; i++) {
      const chain = queue.take();
      if (chain === null) return false;
      const { readable } = chain;
      const line = readable.byteLength >= 2 ? readable.getUint16(0) : -1;
      // Also a second buffer for the same line: it would never come back.
      const holds = line >= 0 && line < this.#types.length && chain.writable.byteLength > 0 &&
        this.#types[line] !== GpioInterrupt.NONE && this.#held[line] === undefined;
      if (!holds) {
        this.#complete(chain, GpioEventStatus.INVALID);
        continue;
      }
      this.#held[line] = chain;
      if (this.#latched[line]) {
        this.#latched[line] = false;
        this.#answer(line, GpioEventStatus.VALID);
      } else {
        this.#checkLevel(line);
      }
    }
    return true;
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    // Linux never looks again at a buffer that comes back empty, but offers one again that is marked as invalid.
    for (let line = 0; line < this.#held.length; line++) this.#answer(line, GpioEventStatus.INVALID);
    this.#queue = undefined;
  }
}
