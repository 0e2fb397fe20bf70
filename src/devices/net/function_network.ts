/**
 * A network that is a function.
 *
 * @module
 */

import type { Frame } from "./frame.ts";
import { MAX_FRAME } from "./layout.ts";
import type { NetGuest, Network, NetworkPort } from "./network.ts";

/**
 * Takes a frame of a guest.
 *
 * @param frame valid until the function returns; `frame.slice()` to keep it
 * @param guest who has sent it: `guest.deliver(frame)` answers
 * @param pair the queue pair that it came by
 */
export type FrameHandler = (frame: Uint8Array<ArrayBuffer>, guest: NetGuest, pair: number) => void;

/**
 * Frames in, frames out: for policy, for tests, for what no other network does.
 *
 * @example A network that answers by turning the addresses round
 * ```ts
 * import { FunctionNetwork, NetDevice } from "@vhost/user/devices/net";
 *
 * const network = new FunctionNetwork((frame, guest) => {
 *   const answer = frame.slice();
 *   answer.set(frame.subarray(6, 12), 0);
 *   answer.set(frame.subarray(0, 6), 6);
 *   guest.deliver(answer);
 * });
 * export const card = new NetDevice({ network });
 * ```
 */
export class FunctionNetwork implements Network {
  readonly #handler: FrameHandler;
  readonly #guests = new Set<NetGuest>();
  readonly #room: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_FRAME);

  /** A network that gives every frame to a function. */
  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Guests that are attached. */
  get guests(): ReadonlySet<NetGuest> {
    return this.#guests;
  }

  /** Delivers a frame to all guests. */
  broadcast(frame: Uint8Array): void {
    for (const guest of this.#guests) guest.deliver(frame);
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    this.#guests.add(guest);
    return {
      send: (frame: Frame, pair: number) => {
        frame.copyTo(this.#room);
        this.#handler(this.#room.subarray(0, frame.byteLength), guest, pair);
      },
      detach: () => {
        this.#guests.delete(guest);
      },
    };
  }
}
