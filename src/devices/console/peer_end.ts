/**
 * Ends with a peer that comes and goes.
 *
 * @module
 */

import { Backlog } from "./backlog.ts";
import type { ConsoleEnd, OutputData, PortLink } from "./end.ts";
import { Wire, type WireEvents } from "./wire.ts";

/**
 * What ends with a peer have in common. While there is none, the last 64 KiB of a terminal are kept for the next one, so
 * that the guest need not wait: a terminal always writes.
 */
export abstract class PeerEnd implements ConsoleEnd {
  #port: PortLink | undefined;
  #wire: Wire | undefined;
  readonly #backlog = new Backlog();

  /** Whether a peer is there. */
  get connected(): boolean {
    return this.#wire !== undefined;
  }

  /** {@link ConsoleEnd.attach}. */
  attach(port: PortLink): void {
    this.#port = port;
    this.opened();
  }

  /** {@link ConsoleEnd.output}. */
  output(data: OutputData, from: number): number {
    const wire = this.#wire;
    if (wire !== undefined && !this.#flush(wire)) return 0;
    const taken = this.#wire?.output(data, from) ?? 0;
    // Without a peer, or when it has left in the middle.
    if (this.#wire !== undefined || from + taken === data.byteLength) return taken;
    this.#backlog.push(data, from + taken);
    return data.byteLength - from;
  }

  /** Writes what was kept. Returns whether that is done. */
  #flush(wire: Wire): boolean {
    while (this.#backlog.length > 0) {
      const length = wire.write((iovec) => this.#backlog.toIovec(iovec));
      if (length === 0) return this.#wire === undefined;
      this.#backlog.take(length);
    }
    return true;
  }

  /** {@link ConsoleEnd.refilled}. */
  refilled(): void {
    this.#wire?.refilled();
  }

  /** The port is there: peers may come. */
  protected abstract opened(): void;

  /** A peer is there. The descriptors stay the caller's. */
  protected connect(input: number, output: number, events: WireEvents): void {
    const port = this.#port;
    if (port === undefined) return;
    const wire = this.#wire = new Wire(port, input, output, events);
    this.#flush(wire);
    this.#port?.connected(true);
    port.resume();
  }

  /** The peer has left. The descriptors can be closed now. */
  protected disconnect(): void {
    const wire = this.#wire;
    if (wire === undefined) return;
    this.#wire = undefined;
    wire.close();
    this.#port?.connected(false);
    // What waited for the peer is kept.
    this.#port?.resume();
  }

  /** {@link ConsoleEnd.close}. */
  abstract close(): void;
}
