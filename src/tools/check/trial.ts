/**
 * What a case works with: connections, memory and rings that are gone when it ends.
 *
 * @module
 */

import { close, readBytes, setBlocking, setNonblocking } from "../../../ffi/fd.ts";
import { Native } from "../../../ffi/native.ts";
import { OsError } from "../../../ffi/os_error.ts";
import { consume } from "../../../ffi/eventfd.ts";
import { send, socketPair } from "../../../ffi/socket.ts";
import { SharedMemory } from "../../frontend/shared_memory.ts";
import { has, mask, type ProtocolFeature, protocolFeatures, ringFeatures } from "../../protocol/features.ts";
import type { Tap } from "../../transport/connection.ts";
import { type DeviceKind, fail, type Needs, notOffered } from "./finding.ts";
import { Drive } from "./drive.ts";
import { Peer, type RingOptions } from "./peer.ts";
import { type Profile, profiles } from "./profile.ts";
import { CheckRing } from "./ring.ts";
import { greet, type Target } from "./target.ts";
import { happens, sleep, until } from "./wait.ts";
import { Witness } from "./witness.ts";
import { Wire } from "./wire.ts";

/** What the back-end offers, found out once at the start. */
export interface Offer {
  /** GET_FEATURES. */
  readonly features: bigint;
  /** GET_PROTOCOL_FEATURES; 0 without PROTOCOL_FEATURES. */
  readonly protocol: bigint;
  /** GET_QUEUE_NUM; `undefined` without MQ. */
  readonly queues: number | undefined;
}

/** How a run is done. */
export interface TrialSettings {
  /** Kind of device. */
  readonly device: DeviceKind;
  /** How long to wait for an answer, ms. */
  readonly patience: number;
  /** How long to wait before saying that nothing happens, ms. */
  readonly quiet: number;
  /** Where writing cases may write, bytes from the start of the disk. */
  readonly writeAt: number;
  /** Sees every message. */
  readonly tap?: Tap;
}

/** How a session is opened. */
export interface OpenOptions {
  /** Protocol features beyond what the case needs, where they are offered. */
  readonly protocol?: readonly ProtocolFeature[];
  /** Protocol features not to accept. */
  readonly without?: readonly ProtocolFeature[];
  /** Features of ring and device not to accept, bits. */
  readonly withoutFeatures?: bigint;
  /** Features of ring and device to accept in addition where they are offered, bits. */
  readonly features?: bigint;
  /** Whether to send SET_OWNER; true by default. */
  readonly owner?: boolean;
}

/** Where memory lies for the guest, when a case does not care. */
const GUEST_ADDRESS = 0x1000_0000;

/** Everything a case may use. */
export class Trial {
  /** What the back-end offers. */
  readonly offer: Offer;
  /** The back-end. */
  readonly target: Target;
  /** How the run is done. */
  readonly settings: TrialSettings;
  readonly #needs: Needs;
  readonly #ends: (() => void)[] = [];
  readonly #sockets = new Set<number>();
  readonly #wires: Wire[] = [];
  readonly #subs: Trial[] = [];
  #closed = false;

  /** For one case. */
  constructor(target: Target, offer: Offer, settings: TrialSettings, needs: Needs = {}) {
    this.target = target;
    this.offer = offer;
    this.settings = settings;
    this.#needs = needs;
  }

  /** How long to wait for an answer, ms. */
  get patience(): number {
    return this.settings.patience;
  }

  /** How long to wait for what may come or not, ms: longer than for what must not. */
  get soon(): number {
    return Math.min(this.patience, 4 * this.settings.quiet);
  }

  /** Waits before saying that nothing has happened. */
  async quiet(): Promise<void> {
    await sleep(this.settings.quiet);
  }

  /** Has something done when the case has ended, however it ends. */
  after(end: () => void): void {
    if (this.#closed) end();
    else this.#ends.push(end);
  }

  /** Rings at most: as the back-end says, or as the kind of device has. */
  get queues(): number {
    return this.offer.queues ?? this.profile?.rings ?? 1;
  }

  /** How to drive the device; `undefined` for an unknown kind. */
  get profile(): Profile | undefined {
    return profiles[this.settings.device];
  }

  /** Whether a protocol feature is offered. */
  offers(feature: ProtocolFeature): boolean {
    return has(this.offer.protocol, protocolFeatures[feature]);
  }

  /** A connection on which nothing was said. The back-end may be busy with somebody else, or about to close it. */
  async dial(): Promise<Wire> {
    return this.#own(await this.target.connect());
  }

  /** A connection on which the back-end has shown that it answers: the features were asked for. */
  async connect(): Promise<Wire> {
    const wire = await greet(() => this.target.connect(), (fd) => this.#own(fd));
    if (typeof wire === "string") fail("a back-end that answers a new front-end", wire);
    return wire;
  }

  #own(fd: number): Wire {
    if (this.#closed) {
      close(fd);
      throw new Error("the case is over");
    }
    const wire = new Wire(fd, this.patience, this.settings.tap);
    this.#wires.push(wire);
    this.after(() => wire.close());
    return wire;
  }

  /** A session on a new connection. */
  async peer(): Promise<Peer> {
    return new Peer(await this.connect(), (ring) => this.after(() => ring.close()));
  }

  /** The features that a session of this case accepts. */
  acceptedFeatures({ withoutFeatures = 0n, features = 0n }: OpenOptions = {}): bigint {
    const { ring = [], device = {} } = this.#needs;
    const wanted = mask(
      ringFeatures.VERSION_1,
      ringFeatures.PROTOCOL_FEATURES,
      ...ring.map((name) => ringFeatures[name]),
      ...Object.values(device),
    );
    return (wanted | features) & this.offer.features & ~withoutFeatures;
  }

  /** A session with what the case needs negotiated. */
  async open(options: OpenOptions = {}): Promise<Peer> {
    const { protocol = [], without = [] } = options;
    const bits = (names: readonly ProtocolFeature[]) => mask(...names.map((name) => protocolFeatures[name]));
    const peer = await this.peer();
    const wanted = bits(["REPLY_ACK", "MQ", ...this.#needs.protocol ?? [], ...protocol]);
    await peer.negotiate(this.acceptedFeatures(options), wanted & ~bits(without), options.owner);
    return peer;
  }

  /** Memory of the case's own. */
  memory(byteLength = 4 << 20, guestAddress = GUEST_ADDRESS): SharedMemory {
    const memory = new SharedMemory(byteLength, guestAddress);
    this.after(() => memory.close());
    return memory;
  }

  /** A descriptor to give away and watch. */
  witness(): Witness {
    const witness = new Witness();
    this.after(() => witness.close());
    return witness;
  }

  /** Two connected sockets: ours, and one to be sent away, on which reads and writes wait as everywhere. */
  pair(): [number, number] {
    const both = socketPair();
    setBlocking(both[1]);
    for (const fd of both) this.#sockets.add(fd);
    this.after(() => both.forEach((fd) => this.closePair(fd)));
    return both;
  }

  /** Closes one of a {@link pair} before the case ends. */
  closePair(fd: number): void {
    if (this.#sockets.delete(fd)) close(fd);
  }

  /** Reads a stream to its end; `undefined` when that does not come. */
  async readAll(fd: number): Promise<Uint8Array | undefined> {
    setNonblocking(fd);
    const pieces: number[] = [];
    const ended = await happens(() => {
      for (;;) {
        const bytes = readBytes(fd);
        if (bytes === null) return false;
        if (bytes.length === 0) return true;
        pieces.push(...bytes);
      }
    }, this.patience);
    return ended ? Uint8Array.from(pieces) : undefined;
  }

  /** Writes bytes to a stream socket. */
  async writeAll(fd: number, bytes: Uint8Array): Promise<void> {
    const native = new Native(Math.max(1, bytes.length));
    native.bytes.set(bytes);
    let done = 0;
    await happens(() => {
      try {
        done += Math.max(0, send(fd, native.address + BigInt(done), bytes.length - done));
      } catch (error) {
        // Who has read enough may hang up.
        if (error instanceof OsError) return true;
        throw error;
      }
      return done === bytes.length;
    }, this.patience);
  }

  /** A ring in memory of which the back-end has not been told. */
  ring(memory: SharedMemory, index = 0, size = 64): CheckRing {
    const ring = new CheckRing(index, memory, size);
    this.after(() => ring.close());
    return ring;
  }

  /** A session with the device's rings set up and running, ready for requests. */
  async drive(options: OpenOptions & RingOptions = {}, byteLength = 4 << 20): Promise<Drive> {
    const peer = await this.open(options);
    const memory = this.memory(byteLength);
    await peer.share(memory);
    return await this.driveOn(peer, memory, options);
  }

  /** The same on a session that has shared its memory. */
  async driveOn(peer: Peer, memory: SharedMemory, options: RingOptions = {}): Promise<Drive> {
    const { profile } = this;
    if (profile === undefined) notOffered("a kind of device that can be driven");
    const rings: CheckRing[] = [];
    for (let index = 0; index < profile.rings; index++) {
      const mine = index === profile.ring ? options : { userBase: options.userBase };
      const ring = await peer.setUp(index, memory, mine);
      await peer.start(ring, mine);
      rings.push(ring);
    }
    return new Drive(peer, memory, rings, profile, this.patience);
  }

  /** A part of the case that cleans up before the rest: to be closed by who asks for it. */
  sub(): Trial {
    const sub = new Trial(this.target, this.offer, this.settings, this.#needs);
    this.#subs.push(sub);
    return sub;
  }

  /** Whether the back-end has closed a connection of the case. */
  get turnedAway(): boolean {
    return this.#wires.some((wire) => wire.ended && wire.heard) || this.#subs.some((sub) => sub.turnedAway);
  }

  /** Whether an event descriptor was signalled since the last question. */
  rung(fd: number): boolean {
    return consume(fd) === "rung";
  }

  /** Waits for something. */
  until<T>(probe: () => T | undefined, ms: number = this.patience): Promise<T | undefined> {
    return until(probe, ms);
  }

  /** Closes everything. */
  close(): void {
    this.#closed = true;
    for (const end of this.#ends.splice(0).reverse()) end();
  }
}
