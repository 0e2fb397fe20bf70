/**
 * The network device.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import { Device, type DeviceBehaviour, type QueueOwner } from "../../backend/device.ts";
import { logToStderr } from "../../backend/log.ts";
import { has, mask, ringFeatures } from "../../protocol/features.ts";
import { NetCounters } from "./counters.ts";
import { Finisher } from "./finish.ts";
import type { Frame } from "./frame.ts";
import {
  GsoType,
  LEGACY_HEADER_SIZE,
  NET_HEADER_SIZE,
  netConfig,
  netFeatures,
  NetHeaderFlag,
} from "./layout.ts";
import { type NetGuest, type Network, type NetworkPort, NO_OFFLOADS, type Offloads } from "./network.ts";
import { OwnFrame, rarpFrame } from "./own_frame.ts";
import type { Capture } from "./pcap.ts";
import { Receiver } from "./receiver.ts";
import { Transmitter } from "./transmitter.ts";
import { netRequests } from "./request_format.ts";

/** The most that a ring index of one byte leaves room for. */
const MAX_PAIRS = 128;

/** What a network device is made of. */
export interface NetOptions {
  /** Where frames go. */
  readonly network: Network;
  /** Most queue pairs that the front-end may use; 8 by default, and 1 with a {@link mac}. */
  readonly queuePairs?: number;
  /**
   * The guest's address, for front-ends that leave all to the device (User-Mode Linux). QEMU has one of its own and does not
   * ask. As such a front-end has no control queue either, and neither has this device, there is one queue pair then.
   */
  readonly mac?: Uint8Array;
  /** Largest payload of a frame, bytes, for front-ends that ask the device for it; QEMU has `host_mtu` for that. */
  readonly mtu?: number;
  /** Sees every frame that passes, such as a {@link PcapFile}; stays the caller's. */
  readonly capture?: Capture;
  /** Told of exceptions in the network; frames that were being sent are dropped. Says so on the standard error output by default. */
  readonly onError?: (error: unknown) => void;
}

/** Queue pairs, when nobody says. */
function pairsOf({ queuePairs, mac }: NetOptions): number {
  return queuePairs ?? (mac === undefined ? 8 : 1);
}

function checked(options: NetOptions): NetOptions {
  const { mac, mtu = 1500 } = options;
  const queuePairs = pairsOf(options);
  if (!Number.isInteger(queuePairs) || queuePairs < 1 || queuePairs > MAX_PAIRS) {
    throw new RangeError(`queuePairs must be 1 to ${MAX_PAIRS}, got ${queuePairs}`);
  }
  if (mac !== undefined && (mac.length !== 6 || (mac[0] & 1) !== 0)) {
    throw new RangeError(`mac must be 6 bytes of an address that is no multicast, got ${mac}`);
  }
  if (mac !== undefined && queuePairs !== 1) {
    throw new RangeError(`queuePairs must be 1 with mac, as there is no control queue; got ${queuePairs}`);
  }
  if (!Number.isInteger(mtu) || mtu < 68 || mtu > 65535) {
    throw new RangeError(`mtu must be 68 to 65535 bytes, got ${mtu}`);
  }
  return options;
}

/** What a guest can be told that it may send, or asked whether it takes. */
function features(options: NetOptions): bigint {
  const { network, mac, mtu } = options;
  const { checksum, segmentation } = network.offloads ?? NO_OFFLOADS;
  const bit = netFeatures;
  const bits: number[] = [
    ...[bit.MRG_RXBUF, bit.STATUS, bit.MTU],
    // Those of the control queue, where the front-end has one; it asks us whether it may.
    ...mac !== undefined
      ? [bit.MAC]
      : [bit.CTRL_VQ, bit.CTRL_RX, bit.CTRL_RX_EXTRA, bit.CTRL_VLAN, bit.CTRL_MAC_ADDR, bit.GUEST_ANNOUNCE],
    ...pairsOf(options) > 1 ? [bit.MQ] : [],
    ...checksum ? [bit.CSUM, bit.GUEST_CSUM] : [],
    ...checksum && segmentation
      ? [bit.HOST_TSO4, bit.HOST_TSO6, bit.HOST_ECN, bit.GUEST_TSO4, bit.GUEST_TSO6, bit.GUEST_ECN]
      : [],
  ];
  // Without an address to give there is no configuration space to read the MTU from either: then it is the front-end's.
  if (mac === undefined && mtu !== undefined) throw new RangeError("mtu needs mac: both are read together");
  return mask(...bits);
}

/**
 * A network card (virtio device 1).
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { NetDevice, EchoNetwork } from "@vhost/user/devices/net";
 *
 * const network = new EchoNetwork();
 * const server = await serve(new NetDevice({ network }), { socketPath: `/tmp/net-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * ```
 */
export class NetDevice extends Device {
  /** What has passed, over all guests. */
  readonly counters: NetCounters = new NetCounters();
  /** Where frames go. */
  readonly network: Network;

  /** A card in a network, which stays the caller's. */
  constructor(options: NetOptions) {
    checked(options);
    super({
      type: 1,
      name: "net",
      requests: netRequests,
      features: features(options),
      exclusive: options.network.exclusive,
      connect: () => new NetFrontEnd(options, this.counters),
    });
    this.network = options.network;
  }
}

/** Messages about errors: at most one in this time, ms. */
const QUIET = 10_000;

/** The card as one front-end sees it. */
class NetFrontEnd implements DeviceBehaviour, NetGuest {
  readonly queues: readonly QueueOwner[];
  readonly pairs: number;
  headerSize: number = NET_HEADER_SIZE;
  readonly config: { read(): Uint8Array } | undefined;
  readonly #counters: NetCounters;
  readonly #receivers: readonly Receiver[];
  readonly #transmitters: readonly Transmitter[];
  readonly #port: NetworkPort;
  readonly #onError: (error: unknown) => void;
  readonly #offers: Offloads;
  /** Whether the guest takes frames without a checksum; and those to be cut, a bit for each {@link GsoType}. */
  #takesUnsummed = false;
  #takesUncut = 0;
  #takesEcn = false;
  #finisher: Finisher | undefined;
  #finishedFor = 0;
  #allDelivered = true;
  #own: OwnFrame | undefined;
  #lastError = -Infinity;

  constructor(options: NetOptions, counters: NetCounters) {
    const { network, mac, mtu = 1500 } = options;
    const queuePairs = pairsOf(options);
    this.pairs = queuePairs;
    this.#counters = counters;
    this.#offers = network.offloads ?? NO_OFFLOADS;
    const tell = options.onError ?? ((error) => logToStderr("warning", "net: the network failed", error));
    this.#onError = (error) => {
      // A guest may be able to cause one with every frame.
      const now = performance.now();
      if (now - this.#lastError < QUIET) return;
      this.#lastError = now;
      tell(error);
    };
    const pairs = Array.from({ length: queuePairs }, (_, pair) => this.#makePair(pair, options.capture));
    this.#receivers = pairs.map(({ receiver }) => receiver);
    this.#transmitters = pairs.map(({ transmitter }) => transmitter);
    this.queues = pairs.flatMap(({ receiver, transmitter }) => [receiver, transmitter]);
    this.config = mac === undefined ? undefined : {
      read: () =>
        netConfig.encode({
          mac,
          status: 1,
          maxVirtqueuePairs: queuePairs,
          mtu,
          speed: 0xffff_ffff,
          duplex: 0xff,
          unused: new Uint8Array(3),
        }),
    };
    this.#port = network.attach(this);
  }

  #makePair(pair: number, capture?: Capture): { receiver: Receiver; transmitter: Transmitter } {
    const receiver = new Receiver(this.#counters, {
      refilled: () => this.#guard(() => this.#port.refilled?.(pair)) === true,
      running: (running) => this.#guard(() => this.#port.running?.(pair, running)),
    }, capture);
    const transmitter = new Transmitter(
      this.#counters,
      {
        send: (frame) => this.#port.send(frame, pair),
        flush: () => this.#port.flush?.(pair),
      },
      this.#onError,
      capture,
    );
    return { receiver, transmitter };
  }

  #guard<T>(call: () => T): T | undefined {
    try {
      return call();
    } catch (error) {
      this.#onError(error);
    }
  }

  negotiated(features: bigint): void {
    const mergeable = has(features, netFeatures.MRG_RXBUF);
    const modern = has(features, ringFeatures.VERSION_1);
    const headerSize = this.headerSize = modern || mergeable ? NET_HEADER_SIZE : LEGACY_HEADER_SIZE;
    for (const receiver of this.#receivers) {
      receiver.mergeable = mergeable;
      receiver.headerSize = headerSize;
    }
    for (const transmitter of this.#transmitters) transmitter.headerSize = headerSize;
    this.#takesUnsummed = has(features, netFeatures.GUEST_CSUM);
    this.#takesUncut = (has(features, netFeatures.GUEST_TSO4) ? 1 << GsoType.TCPV4 : 0) |
      (has(features, netFeatures.GUEST_TSO6) ? 1 << GsoType.TCPV6 : 0);
    this.#takesEcn = has(features, netFeatures.GUEST_ECN);
    const segmentation = this.#takesUncut === (1 << GsoType.TCPV4 | 1 << GsoType.TCPV6) && this.#takesEcn;
    this.#port.accepts?.({
      checksum: this.#takesUnsummed,
      segmentation: this.#takesUnsummed && segmentation,
    });
  }

  reset(): void {
    this.negotiated(0n);
  }

  announce(mac: Uint8Array): void {
    const own = this.#own ??= new OwnFrame(ANNOUNCEMENT);
    this.#guard(() => {
      this.#port.send(own.of(rarpFrame(mac)), 0);
      this.#port.flush?.(0);
    });
  }

  setMtu(mtu: number): void {
    this.#port.setMtu?.(mtu);
  }

  disconnected(): void {
    this.#guard(() => this.#port.detach?.());
    this.#own?.close();
  }

  isRunning(pair: number): boolean {
    return this.#receivers[pair]?.running === true;
  }

  /** Guests use fewer pairs than they have: what is meant for another then goes to the first. */
  #receiver(pair: number): Receiver {
    const receiver = this.#receivers[pair];
    return receiver !== undefined && receiver.running ? receiver : this.#receivers[0];
  }

  hasRoom(length: number, pair = 0): boolean {
    return this.#receiver(pair).hasRoom(length);
  }

  deliver(frame: Uint8Array, pair = 0): boolean {
    return this.#receiver(pair).deliver(frame);
  }

  forward(frame: Frame, pair = 0): boolean {
    const { head } = frame;
    if ((head & UNFINISHED) === 0) return this.#receiver(pair).forward(frame, 0, 0, 0);
    if (this.#takes(frame)) {
      return this.#receiver(pair).forward(
        frame,
        head & ~FLAGS | head & 1,
        frame.middle,
        frame.checksumOffset,
      );
    }
    return this.#finishFor(frame, pair);
  }

  /** Whether the guest can finish a frame itself. */
  #takes(frame: Frame): boolean {
    if (!this.#takesUnsummed || !frame.needsChecksum) return false;
    const type = frame.gsoType;
    if ((type & GsoType.ECN) !== 0 && !this.#takesEcn) return false;
    const kind = type & ~GsoType.ECN;
    return kind === GsoType.NONE || (this.#takesUncut >>> kind & 1) !== 0;
  }

  #finishFor(frame: Frame, pair: number): boolean {
    this.#finishedFor = pair;
    this.#allDelivered = true;
    const finisher = this.#finisher ??= new Finisher();
    if (!finisher.finish(frame, this.#deliverPiece)) {
      this.#counters.dropped++;
      return false;
    }
    return this.#allDelivered;
  }

  readonly #deliverPiece = (finished: Uint8Array): void => {
    if (!this.deliver(finished, this.#finishedFor)) this.#allDelivered = false;
  };

  reserve(iovec: Iovec, pair: number): number {
    return this.#receivers[pair].reserve(iovec);
  }

  filled(pair: number, length: number, rest: Uint8Array): boolean {
    return this.#receivers[pair].filled(length, rest);
  }

  report(error: unknown): void {
    this.#onError(error);
  }

  resume(pair: number): void {
    this.#transmitters[pair].resume();
  }
}

/** Room for a frame of {@link rarpFrame}. */
const ANNOUNCEMENT = 64;
/** The header's flags; and those of its first word that say that a frame is not finished: NEEDS_CSUM, any gso_type. */
const FLAGS = 0xff;
const UNFINISHED = NetHeaderFlag.NEEDS_CSUM | 0xff00;
