/**
 * The host's network, by a TAP device.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { Errno, OsError } from "../../../ffi/os_error.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import {
  openTap,
  setTapHeaderSize,
  setTapOffloads,
  type Tap,
  TapOffload,
  useTapQueue,
} from "../../../ffi/tap.ts";
import { readPieces, writePieces } from "../../../ffi/vector_io.ts";
import type { Frame } from "./frame.ts";
import { MAX_FRAME, NET_HEADER_SIZE } from "./layout.ts";
import type { NetGuest, Network, NetworkPort, Offloads } from "./network.ts";

/** Frames read before others get their turn. */
const BATCH = 64;

const EMPTY = new Uint8Array(0);

/** How a TAP device is opened. */
export interface TapOptions {
  /** The interface's name. One that exists is attached to, otherwise it is made, and goes away with the network. */
  readonly name: string;
  /** Queues, each for one pair of the guest; 1 by default. The kernel spreads connections over them. */
  readonly queues?: number;
}

/**
 * A TAP device: what a guest sends comes out of a network interface of the host, and back. It is for one guest at a time.
 * Checksums and segmentation are left to whoever they can be left to: the kernel, or the guest.
 *
 * Making one needs CAP_NET_ADMIN; attaching to one that belongs to this user needs nothing
 * (`ip tuntap add mode tap user …`). Addresses, routes and `ip link set up` are the administrator's.
 */
export class TapNetwork implements Network {
  /** The kernel does both. */
  readonly offloads: Offloads = { checksum: true, segmentation: true };
  /** One guest at a time. */
  readonly exclusive = true;
  /** The interface's name. */
  readonly name: string;
  readonly #taps: readonly Tap[];

  /**
   * Opens the device.
   *
   * @throws {OsError} EPERM, EBUSY and others of `openTap`
   */
  constructor({ name, queues = 1 }: TapOptions) {
    const taps: Tap[] = [];
    try {
      for (let i = 0; i < queues; i++) {
        const tap = openTap(taps[0]?.name ?? name, queues > 1);
        taps.push(tap);
        setTapHeaderSize(tap.fd, NET_HEADER_SIZE);
      }
    } catch (error) {
      for (const { fd } of taps) close(fd);
      throw error;
    }
    this.#taps = taps;
    this.name = taps[0].name;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    return new TapPort(guest, this.#taps);
  }

  /** Closes the device. */
  close(): void {
    for (const { fd } of this.#taps) close(fd);
  }
}

class TapPort implements NetworkPort {
  readonly #guest: NetGuest;
  readonly #taps: readonly Tap[];
  readonly #reactor = Reactor.shared();
  readonly #output = new Iovec();
  readonly #input = new Iovec();
  readonly #header = new Native(NET_HEADER_SIZE);
  readonly #headerAt = Number(this.#header.address);
  /** What of a frame does not fit into the guest's first buffer. */
  readonly #rest = new Native(MAX_FRAME);
  readonly #restAt = Number(this.#rest.address);
  /** By queue: whether frames are awaited, and whether that is interrupted until there are buffers for them. */
  readonly #watched: boolean[];
  readonly #paused: boolean[];
  #headerSize = NET_HEADER_SIZE;

  constructor(guest: NetGuest, taps: readonly Tap[]) {
    this.#guest = guest;
    this.#taps = taps;
    this.#watched = taps.map(() => false);
    this.#paused = taps.map(() => false);
    if (taps.length > 1) { for (const { fd } of taps) useTapQueue(fd, false); }
  }

  send(frame: Frame, pair: number): void {
    const { view } = this.#header;
    view.setUint32(0, frame.head, true);
    view.setUint32(4, frame.middle, true);
    view.setUint32(8, frame.checksumOffset, true);
    const output = this.#output;
    output.clear();
    output.push(this.#headerAt, this.#headerSize);
    if (frame.toIovec(output) < frame.byteLength) return;
    try {
      // What a header says that makes no sense is refused here (EINVAL).
      writePieces(this.#taps[pair % this.#taps.length].fd, output);
    } catch (error) {
      // The interface is down: a cable that is not plugged in.
      if (!(error instanceof OsError && error.errno === Errno.EIO)) throw error;
    }
  }

  accepts({ checksum, segmentation }: Offloads): void {
    const { CSUM, TSO4, TSO6, TSO_ECN } = TapOffload;
    setTapOffloads(
      this.#taps[0].fd,
      (checksum ? CSUM : 0) | (checksum && segmentation ? TSO4 | TSO6 | TSO_ECN : 0),
    );
    this.#headerSize = this.#guest.headerSize;
    for (const { fd } of this.#taps) setTapHeaderSize(fd, this.#headerSize);
  }

  running(pair: number, running: boolean): void {
    const tap = this.#taps[pair];
    if (tap === undefined || this.#watched[pair] === running) return;
    this.#watched[pair] = running;
    if (running) {
      if (this.#taps.length > 1) useTapQueue(tap.fd, true);
      this.#reactor.watch(tap.fd, () => {
        try {
          this.#receive(pair, tap.fd);
        } catch (error) {
          // The interface was removed, most likely. There is nothing to come any more.
          this.running(pair, false);
          this.#guest.report(error);
        }
      });
    } else {
      this.#reactor.unwatch(tap.fd);
      if (this.#taps.length > 1) this.#retire(tap.fd);
    }
    this.#paused[pair] = false;
  }

  /** What is out of use gets no frames. Of an interface that is gone no queue can be. */
  #retire(fd: number): void {
    try {
      useTapQueue(fd, false);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
    }
  }

  refilled(pair: number): void {
    if (!this.#paused[pair]) return;
    this.#paused[pair] = false;
    this.#reactor.resume(this.#taps[pair].fd);
  }

  #receive(pair: number, fd: number): void {
    const input = this.#input;
    for (let i = 0; i < BATCH && this.#watched[pair]; i++) {
      input.clear();
      const room = this.#guest.reserve(input, pair);
      if (room === 0) {
        // The kernel keeps what comes, as far as its queue goes.
        this.#paused[pair] = true;
        this.#reactor.pause(fd);
        return;
      }
      if (!input.full) input.push(this.#restAt, MAX_FRAME);
      const length = readPieces(fd, input);
      if (length <= 0) return;
      this.#guest.filled(pair, length, length > room ? this.#rest.bytes.subarray(0, length - room) : EMPTY);
    }
  }

  detach(): void {
    for (let pair = 0; pair < this.#taps.length; pair++) this.running(pair, false);
  }
}
