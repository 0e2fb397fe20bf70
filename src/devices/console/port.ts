/**
 * A port of a console: two rings and an end.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import type { ConsoleEnd, PortLink } from "./end.ts";

/** Buffers of one turn. */
const BURST = 32;

/** What a port is. */
export interface PortOptions {
  /** Where its bytes come from and go. Stays the caller's. */
  readonly end: ConsoleEnd;
  /** Its name; in Linux `/dev/virtio-ports/NAME`. */
  readonly name?: string;
  /** Whether it is a terminal (`/dev/hvcN` in Linux), rather than a channel for programs. */
  readonly console?: boolean;
}

/** What a port tells its device. */
export interface PortEvents {
  /** Somebody is at the end now, or not any more. */
  connected(port: ConsolePort): void;
  /** The terminal has another size. */
  resized(port: ConsolePort): void;
}

/** What of a port moves to another machine. */
export interface PortState {
  /** Whether the guest has it open. */
  readonly open: boolean;
  /** Whether the guest knows it. */
  readonly ready: boolean;
  /** Bytes of the guest's next buffer that were taken already. */
  readonly taken: number;
}

/** A port. */
export class ConsolePort implements PortLink {
  /** Number of the port. */
  readonly id: number;
  /** Its name, or "". */
  readonly name: string;
  /** Whether it is a terminal. */
  readonly isConsole: boolean;
  /** To the guest. */
  readonly receiver: QueueOwner;
  /** From the guest. */
  readonly transmitter: QueueOwner;
  /** Whether somebody is at the end. */
  hostOpen = false;
  /** Whether the guest's driver knows the port. */
  ready = false;
  /** Size of the terminal; 0 when it is not known. */
  columns = 0;
  /** The same. */
  rows = 0;
  readonly #end: ConsoleEnd;
  readonly #events: PortEvents;
  #guestOpen = false;
  #rx: OwnedQueue | undefined;
  #tx: OwnedQueue | undefined;
  /** Taken from the receiving ring, and not filled. */
  #room: Chain | undefined;
  /** Taken from the sending ring, and not finished. */
  #held: Chain | undefined;
  /** Bytes of it, or of the next one, that the end has taken: also over a stop, after which the same buffer comes again. */
  #taken = 0;
  #waits = false;

  /** A port that no guest has. */
  constructor(id: number, { end, name = "", console = false }: PortOptions, events: PortEvents) {
    this.id = id;
    this.name = name;
    this.isConsole = console;
    this.#end = end;
    this.#events = events;
    this.receiver = {
      start: (queue) => void (this.#rx = queue),
      work: () => {
        if (this.#guestOpen) end.refilled();
      },
      stop: () => void (this.#rx = this.#room = undefined),
    };
    this.transmitter = {
      start: (queue) => void (this.#tx = queue),
      work: (queue) => this.#transmit(queue),
      stop: () => {
        this.#tx = this.#held = undefined;
        this.#waits = false;
      },
    };
    end.attach(this);
  }

  /** Whether the guest has it open: what it has not opened it would throw away. */
  get guestOpen(): boolean {
    return this.#guestOpen;
  }
  set guestOpen(open: boolean) {
    if (open === this.#guestOpen) return;
    this.#guestOpen = open;
    if (open) this.#end.refilled();
  }

  /** No driver knows it. */
  reset(): void {
    this.ready = this.#guestOpen = false;
    this.#taken = 0;
  }

  /** What moves. */
  get state(): PortState {
    return { open: this.#guestOpen, ready: this.ready, taken: this.#taken };
  }
  set state({ open, ready, taken }: PortState) {
    this.ready = ready;
    this.#taken = taken;
    this.guestOpen = open;
  }

  /** {@link PortLink.connected}. */
  connected(connected: boolean): void {
    if (connected === this.hostOpen) return;
    this.hostOpen = connected;
    this.#events.connected(this);
  }

  /** {@link PortLink.resize}. */
  resize(columns: number, rows: number): void {
    for (const [what, value] of [["columns", columns], ["rows", rows]] as const) {
      if (!Number.isInteger(value) || value < 1 || value > 0xffff) {
        throw new RangeError(`a terminal has 1 to 65535 ${what}, got ${value}`);
      }
    }
    if (columns === this.columns && rows === this.rows) return;
    this.columns = columns;
    this.rows = rows;
    this.#events.resized(this);
  }

  /** The next buffer with room. */
  #next(): Chain | undefined {
    if (!this.#guestOpen) return undefined;
    while (this.#room === undefined) {
      const chain = this.#rx?.take();
      if (chain === null || chain === undefined) return undefined;
      if (chain.writable.byteLength > 0) this.#room = chain;
      else this.#rx?.complete(chain);
    }
    return this.#room;
  }

  /** {@link PortLink.reserve}. */
  reserve(iovec: Iovec): number {
    const writable = this.#next()?.writable;
    return writable?.toIovec(iovec, 0, writable.byteLength) ?? 0;
  }

  /** {@link PortLink.filled}. */
  filled(length: number): void {
    const chain = this.#room;
    if (chain === undefined || length === 0) return;
    chain.written = length;
    this.#room = undefined;
    this.#rx?.complete(chain);
  }

  /** {@link PortLink.input}. */
  input(bytes: Uint8Array): number {
    let done = 0;
    while (done < bytes.length) {
      const chain = this.#next();
      if (chain === undefined) break;
      const length = chain.writable.copyFrom(done === 0 ? bytes : bytes.subarray(done));
      done += length;
      this.filled(length);
    }
    return done;
  }

  /** {@link PortLink.resume}. */
  resume(): void {
    if (!this.#waits) return;
    this.#waits = false;
    this.#tx?.wake();
  }

  #transmit(queue: OwnedQueue): boolean {
    if (this.#waits) return false;
    for (let i = 0; i < BURST; i++) {
      const chain = this.#held ?? queue.take();
      if (chain === null) return false;
      const { readable } = chain;
      this.#held = chain;
      if (this.#taken < readable.byteLength) {
        // The end may say at once that it goes on.
        this.#waits = true;
        this.#taken += this.#end.output(readable, this.#taken);
        if (this.#taken < readable.byteLength) return !this.#waits;
        this.#waits = false;
      }
      this.#held = undefined;
      this.#taken = 0;
      queue.complete(chain);
    }
    return true;
  }
}
