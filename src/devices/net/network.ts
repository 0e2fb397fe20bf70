/**
 * Where the frames of a guest go, and where those for it come from.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import type { Frame } from "./frame.ts";

/** What a network does with frames that are not finished, or with those of a guest that can take such. */
export interface Offloads {
  /** Frames may come and go with a checksum that is still to be computed. */
  readonly checksum: boolean;
  /** Frames may come and go that are to be cut into smaller ones (TCP and UDP segmentation). Needs `checksum`. */
  readonly segmentation: boolean;
}

/** Neither. */
export const NO_OFFLOADS: Offloads = { checksum: false, segmentation: false };

/**
 * A network that guests are plugged into.
 *
 * @example A network that knows one answer
 * ```ts
 * import type { Network } from "@vhost/user/devices/net";
 *
 * export const parrot: Network = {
 *   attach: (guest) => ({
 *     send(frame, pair) {
 *       guest.forward(frame, pair);
 *     },
 *   }),
 * };
 * ```
 */
export interface Network {
  /** What it can do; nothing by default. Guests are offered no more. */
  readonly offloads?: Offloads;
  /** Whether it is for one guest at a time; others then wait in the socket's queue. */
  readonly exclusive?: boolean;
  /** A guest is there. Whatever the network has for it goes by `guest` until {@link NetworkPort.detach}. */
  attach(guest: NetGuest): NetworkPort;
  /** Lets go of what it holds. No guest is attached any more. */
  close?(): void;
}

/** One guest's place in a network. What it does is synchronous, and counts in nanoseconds. */
export interface NetworkPort {
  /**
   * Takes a frame of the guest.
   *
   * @param frame valid until this function returns; its memory until {@link flush} returns
   * @param pair the queue pair that it came by
   * @returns `false` to be given the same frame again after {@link NetGuest.resume}: the guest waits meanwhile, as it does
   * for a slow wire. Anything else counts as taken, also when the frame is dropped
   */
  send(frame: Frame, pair: number): unknown;
  /** A burst of frames is over: what was gathered should go out. */
  flush?(pair: number): void;
  /**
   * The driver has put up receive buffers, after there were too few for a delivery, or nearly so. Also when the pair starts
   * to run.
   *
   * @returns true to be called again soon, for whoever has more than it should deliver at once
   */
  refilled?(pair: number): boolean | void;
  /** A queue pair's receiving ring runs now, or does not any more. */
  running?(pair: number, running: boolean): void;
  /** The driver can take frames like these, from now on. Called before {@link running}. */
  accepts?(offloads: Offloads): void;
  /** The guest has another MTU now, bytes. Throw to refuse. */
  setMtu?(mtu: number): void;
  /** The guest has gone; nothing may be delivered any more. */
  detach?(): void;
}

/** A guest, as its network sees it. */
export interface NetGuest {
  /** Queue pairs that it has at most. Those that do not run count, too. */
  readonly pairs: number;
  /** Bytes of the header before each frame: 12, or 10 in front of a legacy driver. */
  readonly headerSize: number;
  /** Whether a pair's receiving ring runs. */
  isRunning(pair: number): boolean;
  /**
   * Whether there are buffers for a frame of `length` bytes. If not, {@link NetworkPort.refilled} will be called: for who can
   * let its source wait.
   */
  hasRoom(length: number, pair?: number): boolean;
  /**
   * Delivers a frame that is finished: nothing is left to be computed or cut.
   *
   * @param pair the queue pair to use; when it does not run, the first one
   * @returns false when it was dropped because there were no buffers for it
   */
  deliver(frame: Uint8Array, pair?: number): boolean;
  /**
   * Delivers a frame of this guest or another, with what its header says. What the guest cannot take unfinished is finished,
   * or dropped when that is not possible.
   *
   * @returns false when it was dropped
   */
  forward(frame: Frame, pair?: number): boolean;
  /**
   * Offers receive buffers by address, for a read with a network header before the frame. The room is that of one buffer: what
   * a frame has beyond that is to be read behind it, into memory of the network, and given to {@link filled}.
   *
   * @param iovec pieces are added to it
   * @returns bytes of room, header included; 0 when there are no buffers: then {@link NetworkPort.refilled} will be called
   */
  reserve(iovec: Iovec, pair: number): number;
  /**
   * Delivers what was read into the reserved buffers.
   *
   * @param length bytes read, header included
   * @param rest what did not fit into them: the bytes behind the room
   * @returns false when it was dropped because there were no more buffers
   */
  filled(pair: number, length: number, rest: Uint8Array): boolean;
  /** Tells whoever runs the card of something that went wrong outside of a call; what a call throws is told by itself. */
  report(error: unknown): void;
  /** Goes on giving frames to the port, which has refused one. */
  resume(pair: number): void;
}
