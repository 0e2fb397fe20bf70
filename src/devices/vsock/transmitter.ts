/**
 * The sending ring: packets of the guest.
 *
 * @module
 */

import type { OwnedQueue, QueueOwner } from "../../backend/device.ts";
import type { Segments } from "../../memory/segments.ts";
import type { VsockCounters } from "./counters.ts";
import { VSOCK_HEADER_SIZE } from "./layout.ts";
import { Packet } from "./packet.ts";

/** Packets and bytes of one burst, before others get their turn. */
const BURST = 64;
const BURST_BYTES = 1 << 20;

/** Who takes the packets. */
export interface PacketSink {
  /** Takes one: its header, checked to fit `bytes`, in which the payload stands after the header. */
  packet(packet: Packet, bytes: Segments): void;
  /** The burst is over. */
  flush(): void;
}

/** Takes the guest's packets and hands them on. It never stops, whatever the guest receives. */
export class Transmitter implements QueueOwner {
  readonly #sink: PacketSink;
  readonly #counters: VsockCounters;
  readonly #packet = new Packet();
  #queue: OwnedQueue | undefined;

  /** A transmitter whose ring does not run. */
  constructor(counters: VsockCounters, sink: PacketSink) {
    this.#counters = counters;
    this.#sink = sink;
  }

  /** Whether the ring runs. */
  get running(): boolean {
    return this.#queue !== undefined;
  }

  /** {@link QueueOwner.start}. */
  start(queue: OwnedQueue): void {
    this.#queue = queue;
    // What waits for the guest has waited for this ring, too.
    this.#sink.flush();
  }

  /** {@link QueueOwner.stop}. */
  stop(): void {
    this.#queue = undefined;
  }

  /** {@link QueueOwner.work}. */
  work(queue: OwnedQueue): boolean {
    const packet = this.#packet;
    let count = 0;
    for (let bytes = 0; count < BURST && bytes < BURST_BYTES; count++) {
      const chain = queue.take();
      if (chain === null) {
        count = 0;
        break;
      }
      const { readable } = chain;
      bytes += readable.byteLength;
      if (packet.read(readable) && packet.length <= readable.byteLength - VSOCK_HEADER_SIZE) {
        this.#sink.packet(packet, readable);
      } else {
        this.#counters.malformed++;
      }
      queue.complete(chain);
      // Whatever was called may have been the end of the ring.
      if (this.#queue === undefined) return false;
    }
    this.#sink.flush();
    return count > 0;
  }
}
