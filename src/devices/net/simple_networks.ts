/**
 * Networks without a wire: for measuring, and for programs that are the network.
 *
 * @module
 */

import type { Frame } from "./frame.ts";
import type { NetGuest, Network, NetworkPort } from "./network.ts";

/** Drops what guests send, and has nothing for them. */
export class NullNetwork implements Network {
  /** Anything can be dropped. */
  readonly offloads = { checksum: true, segmentation: true };

  /** {@link Network.attach}. */
  attach(): NetworkPort {
    return { send: () => {} };
  }
}

/** Gives each guest back what it sends, as it is. */
export class EchoNetwork implements Network {
  /** What comes back is as the guest has made it. */
  readonly offloads = { checksum: true, segmentation: true };

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    return {
      send(frame: Frame, pair: number): void {
        guest.forward(frame, pair);
      },
    };
  }
}

/** Sends each guest the same frame over and over, as fast as it puts up buffers; drops what it sends. For measuring. */
export class GeneratorNetwork implements Network {
  readonly #frame: Uint8Array;

  /** A generator of a frame. */
  constructor(frame: Uint8Array) {
    this.#frame = frame;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    return {
      send: () => {},
      refilled: (pair) => {
        // Ends with the ring's buffers.
        while (guest.deliver(this.#frame, pair));
      },
    };
  }
}
