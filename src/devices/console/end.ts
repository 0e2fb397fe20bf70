/**
 * What is at the other end of a port.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";

/** What the guest has written: a buffer of its, in pieces. */
export interface OutputData {
  /** Bytes. */
  readonly byteLength: number;
  /** Copies bytes from a position on. Returns how many there were. */
  copyTo(target: Uint8Array, position?: number): number;
  /** Puts bytes into an iovec. Returns how many: fewer than there are when that is full. */
  toIovec(iovec: Iovec, position: number, length: number): number;
}

/** A port, as its end sees it. All of it is synchronous. */
export interface PortLink {
  /** Says whether somebody is there. Programs in the guest wait to write while nobody is. */
  connected(connected: boolean): void;
  /**
   * Offers buffers of the guest by address, for reading into.
   *
   * @param iovec pieces are added to it
   * @returns bytes of room; 0 when the guest takes nothing now: then {@link ConsoleEnd.refilled} will be called
   */
  reserve(iovec: Iovec): number;
  /** Gives the guest what was read into the buffers that were offered last. */
  filled(length: number): void;
  /**
   * Gives the guest bytes.
   *
   * @returns how many it has taken; when fewer than there are, {@link ConsoleEnd.refilled} will be called
   */
  input(bytes: Uint8Array): number;
  /** Goes on with what the guest writes, after {@link ConsoleEnd.output} has taken less than there was. */
  resume(): void;
  /** Tells the guest the size of the terminal. */
  resize(columns: number, rows: number): void;
}

/**
 * The other end of a port. It outlives guests: one after the other may have the port.
 *
 * @example An end that echoes
 * ```ts
 * import type { ConsoleEnd, PortLink } from "@vhost/user/devices/console";
 *
 * export function echo(): ConsoleEnd {
 *   let port: PortLink;
 *   return {
 *     attach(link) {
 *       port = link;
 *       port.connected(true);
 *     },
 *     output(data, from) {
 *       const bytes = new Uint8Array(data.byteLength - from);
 *       data.copyTo(bytes, from);
 *       return port.input(bytes); // What the guest does not take back waits in its own ring.
 *     },
 *     refilled: () => port.resume(),
 *   };
 * }
 * ```
 */
export interface ConsoleEnd {
  /** The port is there. Called once, before anything else. */
  attach(port: PortLink): void;
  /**
   * Takes what the guest has written.
   *
   * @param data one buffer of the guest's, valid until this function returns
   * @param from position of the first byte to take
   * @returns how many bytes it takes; when fewer than there are, the guest waits until {@link PortLink.resume}
   */
  output(data: OutputData, from: number): number;
  /** The guest takes input again, or has come. */
  refilled(): void;
  /** Lets go of what it holds. The port is not used any more. */
  close?(): void;
}
