/**
 * A switch for guests of one process.
 *
 * @module
 */

import type { Frame } from "./frame.ts";
import type { NetGuest, Network, NetworkPort, Offloads } from "./network.ts";

/** Addresses that are remembered, a power of two. */
const ADDRESSES = 4096;
/** Where in the frame the sender's address stands. */
const SOURCE = 6;
const NOBODY = -1;

/**
 * Joins guests: a frame goes to the one that has its address, or to all others when that is not known or means many. Which
 * address is where follows from what guests send, so a guest can pretend to be another, as at any switch.
 */
export class SwitchNetwork implements Network {
  /** A guest finishes what another has left to do, or it is done here for one that cannot. */
  readonly offloads: Offloads = { checksum: true, segmentation: true };
  readonly #guests: (NetGuest | undefined)[] = [];
  // One place for each hash of an address: the next with the same hash takes it over, and the frames of the last are
  // sent to all until it is heard again.
  readonly #high: Uint16Array = new Uint16Array(ADDRESSES);
  readonly #low: Uint32Array = new Uint32Array(ADDRESSES);
  readonly #ports: Int32Array = new Int32Array(ADDRESSES).fill(NOBODY);

  /** Guests that are attached. */
  get guests(): number {
    return this.#guests.filter((guest) => guest !== undefined).length;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    const free = this.#guests.indexOf(undefined);
    const port = free < 0 ? this.#guests.length : free;
    this.#guests[port] = guest;
    return {
      send: (frame, pair) => this.#send(frame, pair, port),
      detach: () => {
        this.#guests[port] = undefined;
        for (let i = 0; i < ADDRESSES; i++) if (this.#ports[i] === port) this.#ports[i] = NOBODY;
      },
    };
  }

  #place(high: number, low: number): number {
    return Math.imul(high ^ low ^ low >>> 15, 0x9e37_79b1) >>> 20;
  }

  #send(frame: Frame, pair: number, from: number): void {
    const sourceHigh = frame.getUint16(SOURCE);
    const sourceLow = frame.getUint32(SOURCE + 2);
    // A group cannot send.
    if ((sourceHigh & 0x100) === 0) {
      const place = this.#place(sourceHigh, sourceLow);
      this.#high[place] = sourceHigh;
      this.#low[place] = sourceLow;
      this.#ports[place] = from;
    }
    const high = frame.getUint16(0);
    const low = frame.getUint32(2);
    if ((high & 0x100) === 0) {
      const place = this.#place(high, low);
      const port = this.#ports[place];
      if (port !== NOBODY && this.#high[place] === high && this.#low[place] === low) {
        if (port !== from) this.#guests[port]?.forward(frame, pair);
        return;
      }
    }
    for (let port = 0; port < this.#guests.length; port++) {
      if (port !== from) this.#guests[port]?.forward(frame, pair);
    }
  }
}
