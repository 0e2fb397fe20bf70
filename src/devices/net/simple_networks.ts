/**
 * Networks without a wire: for measuring, and for programs that are the network.
 *
 * @module
 */

import type { Frame } from "./frame.ts";
import type { NetGuest, Network, NetworkPort } from "./network.ts";
import { OwnFrame } from "./own_frame.ts";

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

/** Frames after which a generator lets others have their turn: a driver may put up buffers as fast as it fills them. */
const GENERATED = 256;

/** Sends each guest the same frame over and over, as fast as it puts up buffers; drops what it sends. For measuring. */
export class GeneratorNetwork implements Network {
  readonly #bytes: Uint8Array;

  /** A generator of a frame. */
  constructor(frame: Uint8Array) {
    this.#bytes = frame;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    const own = new OwnFrame(this.#bytes.length);
    const frame = own.of(this.#bytes);
    return {
      send: () => {},
      refilled(pair: number): boolean {
        for (let i = 0; i < GENERATED; i++) if (!guest.forward(frame, pair)) return false;
        return true;
      },
      detach: () => own.close(),
    };
  }
}
