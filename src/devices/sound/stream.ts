/**
 * A PCM stream: its states, and its pace.
 *
 * @module
 */

import type { OwnedQueue } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { SoundStatus, TRANSFER_HEADER_SIZE, TRANSFER_STATUS_SIZE } from "./layout.ts";
import { byteRate, type PcmParams, type PcmRange } from "./pcm.ts";

/** Most bytes that are moved at once. */
const PIECE = 65536;
/** How late a driver may be before it counts as too late, ms: what a busy machine takes from both of us. */
const GRACE = 100;
/** What a timer cannot do any better, ms. */
const EARLY = 0.5;

/** The other end of a stream. */
export interface Endpoint {
  /** 0 playback, 1 capture. */
  readonly direction: number;
  /** What it can do. */
  readonly range: PcmRange;
  /** Begins. */
  open(params: PcmParams): void;
  /** Moves bytes: takes those that were played, or fills in what was recorded. */
  move(bytes: Uint8Array): void | Promise<void>;
  /** Stops for a while, or goes on. */
  pause(paused: boolean): void;
  /** Ends. Does nothing when it has not begun. */
  close(): void;
}

/** What a stream tells. */
export interface StreamEvents {
  /** The driver was too late. */
  xrun(): void;
  /** The other end has failed. */
  failed(error: unknown): void;
}

/** The last command that was carried out (virtio 1.4, section 5.14.6.6.1). */
type State = "none" | "set" | "prepared" | "running" | "stopped" | "released";

/** One direction of sound. */
export class PcmStream {
  /** The other end. */
  readonly endpoint: Endpoint;
  readonly #speed: number;
  readonly #events: StreamEvents;
  #state: State = "none";
  #params: PcmParams | undefined;
  #tellXruns = false;
  #queue: OwnedQueue | undefined;
  /** Transfers, the one under way first. */
  readonly #transfers: Chain[] = [];
  /** Bytes of the first one that are over. */
  #done = 0;
  /** Bytes of it that are under way; 0 for none. */
  #piece = 0;
  /** Until when what is over should have lasted, and what is under way; ms. */
  #clock = 0;
  #next = 0;
  /** When that will be over. */
  #end = 0;
  /** Of what is under way when it was stopped, ms. */
  #left = 0;
  /** Whether anything was completed since the start. */
  #moving = false;
  #open = false;
  #failed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #scratch = new Uint8Array(PIECE);
  /** Changes when a promise of the other end does not matter any more. */
  #epoch = 0;
  #busy = false;

  /**
   * A stream that nobody uses.
   *
   * @param speed times as fast as real time
   */
  constructor(endpoint: Endpoint, speed: number, events: StreamEvents) {
    this.endpoint = endpoint;
    this.#speed = speed;
    this.#events = events;
  }

  /** PCM_SET_PARAMS. Returns whether it may come now. */
  setParams(params: PcmParams, tellXruns: boolean): boolean {
    if (this.#state === "running" || this.#state === "stopped") return false;
    this.#finish();
    this.#params = params;
    this.#tellXruns = tellXruns;
    this.#state = "set";
    return true;
  }

  /** PCM_PREPARE. */
  prepare(): boolean {
    if (this.#state === "none" || this.#state === "running" || this.#state === "stopped") return false;
    this.#state = "prepared";
    return true;
  }

  /** PCM_START. */
  start(): boolean {
    if (this.#state !== "prepared" && this.#state !== "stopped") return false;
    const resumed = this.#state === "stopped";
    this.#state = "running";
    const now = performance.now();
    this.#clock = now;
    this.#end = this.#next = now + this.#left;
    this.#moving = false;
    this.#guard(() => {
      if (this.#open && resumed) this.endpoint.pause(false);
      else if (!this.#open && this.#params !== undefined) {
        this.#open = true;
        this.endpoint.open(this.#params);
      }
    });
    this.#pump();
    return true;
  }

  /** PCM_STOP: transfers stay. */
  stop(): boolean {
    if (this.#state !== "running") return false;
    this.#state = "stopped";
    this.#left = this.#piece === 0 ? 0 : Math.max(0, this.#end - performance.now());
    clearTimeout(this.#timer);
    this.#guard(() => this.endpoint.pause(true));
    return true;
  }

  /** PCM_RELEASE: gives back every transfer. */
  release(): boolean {
    if (this.#state !== "prepared" && this.#state !== "stopped") return false;
    this.#state = "released";
    this.#finish();
    return true;
  }

  /** As at power-on. */
  reset(): void {
    this.#finish();
    this.#state = "none";
    this.#params = undefined;
  }

  /** The other end closes, and transfers go back. */
  #finish(): void {
    clearTimeout(this.#timer);
    for (const chain of this.#transfers.splice(0)) this.#complete(chain, SoundStatus.OK, 0);
    this.#queue?.publish();
    this.#done = this.#piece = this.#left = 0;
    if (this.#busy) this.#scratch = new Uint8Array(PIECE);
    this.#epoch++;
    this.#busy = false;
    const open = this.#open;
    this.#open = false;
    if (open) this.#guard(() => this.endpoint.close());
    this.#failed = false;
  }

  /** Takes a transfer. */
  add(chain: Chain, queue: OwnedQueue): void {
    this.#queue = queue;
    const ready = this.#state === "prepared" || this.#state === "running" || this.#state === "stopped";
    if (!ready) {
      this.#complete(chain, SoundStatus.IO_ERR, 0);
      return queue.publish();
    }
    const late = performance.now() - this.#clock > GRACE;
    if (this.#state === "running" && this.#transfers.length === 0 && this.#piece === 0 && late) {
      this.#clock = performance.now();
      if (this.#moving && this.#tellXruns) this.#events.xrun();
    }
    this.#transfers.push(chain);
    if (this.#transfers.length === 1) this.#pump();
  }

  /** The ring has stopped: its chains are not ours any more. What was moved of the first one stays moved. */
  ringStopped(): void {
    clearTimeout(this.#timer);
    this.#transfers.length = 0;
    this.#queue = undefined;
  }

  #lengthOf(chain: Chain): number {
    return this.endpoint.direction === 0
      ? chain.readable.byteLength - TRANSFER_HEADER_SIZE
      : chain.writable.byteLength - TRANSFER_STATUS_SIZE;
  }

  /** Moves what is due. */
  #pump(): void {
    clearTimeout(this.#timer);
    const params = this.#params;
    let completed = false;
    while (this.#state === "running" && params !== undefined && !this.#busy) {
      const [chain] = this.#transfers;
      if (chain === undefined) break;
      const length = this.#lengthOf(chain);
      if (this.#piece === 0 && this.#done < length) {
        this.#piece = Math.min(PIECE, length - this.#done);
        this.#next = this.#clock + 1000 * this.#piece / byteRate(params) / this.#speed;
        // Who catches up does not do it at once: a buffer that came back as a whole looks to Linux as if nothing had.
        this.#end = Math.max(this.#next, performance.now() + (this.#next - this.#clock) / 2);
        if (this.endpoint.direction === 0 && !this.#play(chain)) break;
      }
      const wait = this.#end - performance.now();
      if (wait > EARLY) {
        this.#timer = setTimeout(() => this.#pump(), wait);
        break;
      }
      if (this.endpoint.direction === 1 && this.#piece > 0) this.#record(chain);
      // What is much too late is not caught up with.
      this.#clock = this.#end > this.#next + GRACE ? this.#end : this.#next;
      this.#done += this.#piece;
      this.#piece = 0;
      if (this.#done < length) continue;
      this.#transfers.shift();
      this.#complete(chain, this.#failed ? SoundStatus.IO_ERR : SoundStatus.OK, length);
      this.#done = 0;
      completed = this.#moving = true;
    }
    if (completed) this.#queue?.publish();
  }

  /** Hands a piece to the other end. Returns false when it has to wait for that. */
  #play(chain: Chain): boolean {
    const bytes = this.#scratch.subarray(0, this.#piece);
    chain.readable.copyTo(bytes, TRANSFER_HEADER_SIZE + this.#done);
    let pending: void | Promise<void> = undefined;
    this.#guard(() => {
      pending = this.endpoint.move(bytes);
    });
    if (pending === undefined) return true;
    this.#busy = true;
    const epoch = this.#epoch;
    const settled = (error?: unknown): void => {
      if (epoch !== this.#epoch) return;
      this.#busy = false;
      if (error !== undefined) this.#fail(error);
      // An output that is slower than the clock is the clock.
      this.#end = Math.max(this.#end, performance.now());
      this.#pump();
    };
    (pending as Promise<void>).then(() => settled(), (error) => settled(error ?? new Error("it failed")));
    return false;
  }

  #record(chain: Chain): void {
    const bytes = this.#scratch.subarray(0, this.#piece);
    this.#guard(() => {
      void this.endpoint.move(bytes);
    });
    if (this.#failed) bytes.fill(0);
    chain.writable.copyFrom(bytes, this.#done);
  }

  #complete(chain: Chain, status: number, length: number): void {
    const { writable } = chain;
    const recorded = this.endpoint.direction === 1;
    const at = recorded ? writable.byteLength - TRANSFER_STATUS_SIZE : 0;
    writable.setUint32(at, status);
    writable.setUint32(at + 4, 0);
    chain.written = recorded ? length + TRANSFER_STATUS_SIZE : TRANSFER_STATUS_SIZE;
    this.#queue?.complete(chain);
  }

  #guard(act: () => void): void {
    if (this.#failed) return;
    try {
      act();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (!this.#failed) this.#events.failed(error);
    this.#failed = true;
  }
}
