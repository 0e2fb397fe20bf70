/**
 * The device as one front-end sees it: the guest, its rings and its connections.
 *
 * @module
 */

import type { DeviceBehaviour, OwnedQueue, QueueOwner } from "../../backend/device.ts";
import { has } from "../../protocol/features.ts";
import type { Segments } from "../../memory/segments.ts";
import { Circuit, type CircuitHome } from "./circuit.ts";
import type { VsockCounters } from "./counters.ts";
import { VSOCK_EVENT_TRANSPORT_RESET, vsockConfig, vsockFeatures, VsockOp, VsockType } from "./layout.ts";
import type { Packet } from "./packet.ts";
import { Receiver, type Sender } from "./receiver.ts";
import { type PacketSink, Transmitter } from "./transmitter.ts";

/** Connections that the guest may be told not to exist, and has not been told yet. */
const MAX_REFUSALS = 1024;
/** Turns of connections before other rings get theirs. */
const TURNS = 64;
/** Where the ports begin that a connection of the host's comes from; the convention of Firecracker. */
const FIRST_HOST_PORT = 0x4000_0000;
const PORTS = 0x8000_0000 - FIRST_HOST_PORT;

/** What a guest needs of its device. */
export interface GuestOptions {
  /** Its CID. */
  readonly guestCid: number;
  /** Bytes that are kept of a connection. */
  readonly bufferSize: number;
  /** The most connections. */
  readonly maxConnections: number;
  /** Counts. */
  readonly counters: VsockCounters;
  /**
   * Gives a connection that the guest asks for an end, and accepts it now or later.
   *
   * @returns whether there is anybody
   */
  accept(circuit: Circuit): boolean;
  /** Whether connections have been lost of which a driver has not heard. */
  readonly cut: { pending: boolean };
  /** The front-end has left. */
  left(guest: VsockGuest): void;
}

/** A packet about a connection that does not exist. */
class Refusal implements Sender {
  readonly bufferSize = 0;
  readonly forwarded = 0;
  readonly hostCid: number;
  readonly hostPort: number;
  readonly guestPort: number;
  readonly type: number;

  constructor({ dstCid, dstPort, srcPort, type }: Packet) {
    this.hostCid = dstCid;
    this.hostPort = dstPort;
    this.guestPort = srcPort;
    this.type = type;
  }

  departed(): void {}
}

/** The event ring, for front-ends that give it to the device. */
class Events implements QueueOwner {
  readonly #cut: { pending: boolean };

  constructor(cut: { pending: boolean }) {
    this.#cut = cut;
  }

  work(queue: OwnedQueue): void {
    const chain = this.#cut.pending ? queue.take() : null;
    if (chain === null) return;
    this.#cut.pending = false;
    chain.write(Uint8Array.of(VSOCK_EVENT_TRANSPORT_RESET, 0, 0, 0));
    queue.complete(chain);
  }
}

/** The guest behind one front-end. */
export class VsockGuest implements DeviceBehaviour, CircuitHome, PacketSink {
  /** {@link DeviceBehaviour.queues}. */
  readonly queues: readonly QueueOwner[];
  /** {@link DeviceBehaviour.config}. */
  readonly config: { read(): Uint8Array };
  /** {@link CircuitHome.bufferSize}. */
  readonly bufferSize: number;
  /** Its CID. */
  readonly cid: number;
  readonly #options: GuestOptions;
  readonly #receiver: Receiver;
  readonly #transmitter: Transmitter;
  readonly #table = new Map<number, Circuit>();
  readonly #lingering = new Set<Circuit>();
  #count = 0;
  /** The connection that the last packet was of; the next one often is, too. */
  #last: Circuit | undefined;
  /** Who has something to send, in order. */
  readonly #queue: Circuit[] = [];
  #refusals: Refusal[] = [];
  #messages = false;
  #pumping = false;
  #nextPort = 0;

  /** A guest whose rings do not run. */
  constructor(options: GuestOptions) {
    this.#options = options;
    this.cid = options.guestCid;
    this.bufferSize = options.bufferSize;
    this.#receiver = new Receiver(options.guestCid, options.counters, () => this.flush());
    this.#transmitter = new Transmitter(options.counters, this);
    this.queues = [this.#receiver, this.#transmitter, new Events(options.cut)];
    const config = vsockConfig.encode({ guestCid: BigInt(options.guestCid) });
    this.config = { read: () => config };
  }

  /** Whether a driver is there. */
  get running(): boolean {
    return this.#receiver.running && this.#transmitter.running;
  }

  /** Whether its driver knows sockets of a type. */
  knows(type: number): boolean {
    return type === VsockType.STREAM || (type === VsockType.SEQPACKET && this.#messages);
  }

  /** {@link DeviceBehaviour.negotiated}. */
  negotiated(features: bigint): void {
    this.#messages = has(features, vsockFeatures.SEQPACKET);
  }

  /** {@link DeviceBehaviour.reset}: the driver begins anew, and knows of no connection. */
  reset(): void {
    for (const circuit of this.#circuits()) circuit.lost();
    this.#table.clear();
    this.#lingering.clear();
    this.#queue.length =
      this.#refusals.length =
      this.#count =
      this.#options.counters.connections =
        0;
    this.#last = undefined;
  }

  /** {@link DeviceBehaviour.disconnected}. */
  disconnected(): void {
    if (this.#count > 0) this.#options.cut.pending = true;
    this.reset();
    this.#options.left(this);
  }

  #circuits(): Circuit[] {
    const all = [...this.#lingering];
    for (const first of this.#table.values()) {
      for (let each: Circuit | undefined = first; each !== undefined; each = each.next) all.push(each);
    }
    return all;
  }

  #find(guestPort: number, hostCid: number, hostPort: number): Circuit | undefined {
    const last = this.#last;
    if (last?.guestPort === guestPort && last.hostPort === hostPort && last.hostCid === hostCid) return last;
    for (let each = this.#table.get(guestPort); each !== undefined; each = each.next) {
      if (each.hostPort === hostPort && each.hostCid === hostCid) return this.#last = each;
    }
    return undefined;
  }

  /** Adds a connection, unless there are too many. */
  #add(
    state: "requested" | "connecting",
    type: number,
    guestPort: number,
    hostCid: number,
    hostPort: number,
  ): Circuit | undefined {
    if (this.#count + this.#lingering.size >= this.#options.maxConnections) return undefined;
    const circuit = new Circuit(this, state, type, guestPort, hostCid, hostPort);
    circuit.next = this.#table.get(guestPort);
    this.#table.set(guestPort, circuit);
    this.#options.counters.connections = ++this.#count;
    return circuit;
  }

  /** {@link CircuitHome.forget}. */
  forget(circuit: Circuit): void {
    if (this.#lingering.delete(circuit)) return;
    if (this.#last === circuit) this.#last = undefined;
    const first = this.#table.get(circuit.guestPort);
    if (first === circuit) {
      if (circuit.next === undefined) this.#table.delete(circuit.guestPort);
      else this.#table.set(circuit.guestPort, circuit.next);
    } else {
      let before = first;
      while (before !== undefined && before.next !== circuit) before = before.next;
      if (before === undefined) return;
      before.next = circuit.next;
    }
    this.#options.counters.connections = --this.#count;
  }

  /** {@link CircuitHome.linger}. */
  linger(circuit: Circuit): void {
    this.#lingering.add(circuit);
  }

  /** {@link CircuitHome.ready}. */
  ready(circuit: Circuit): void {
    if (circuit.queued) return;
    circuit.queued = true;
    this.#queue.push(circuit);
    // Within a burst it is done at the end of that.
    if (this.#queue.length === 1) this.#receiver.wake();
  }

  /** Has the connections that are ready send what they can. */
  flush(): void {
    if (!this.running || this.#pumping) return;
    this.#pumping = true;
    try {
      this.#pump();
    } finally {
      this.#pumping = false;
    }
  }

  #pump(): void {
    const receiver = this.#receiver;
    while (this.#refusals.length > 0) {
      if (!receiver.control(this.#refusals[0], VsockOp.RST)) return;
      this.#refusals.shift();
    }
    for (let turns = 0; turns < TURNS; turns++) {
      const circuit = this.#queue[0];
      if (circuit === undefined) return;
      if (!circuit.transmit(receiver)) return;
      if (this.#queue[0] === circuit) this.#queue.shift();
      circuit.queued = false;
      // It has said that it wants another turn while it had this one.
      if (circuit.wants) this.ready(circuit);
    }
    if (this.#queue.length > 0) receiver.wake();
  }

  /**
   * Opens a connection to a port of the guest.
   *
   * @param hostPort where it comes from; a free one of the host's when absent
   * @returns the connection, whose end the caller sets before it asks for it; `undefined` when there are too many
   */
  open(type: number, guestPort: number, hostCid: number, hostPort?: number): Circuit | undefined {
    if (hostPort !== undefined) {
      if (this.#find(guestPort, hostCid, hostPort) !== undefined) return undefined;
      return this.#counted(this.#add("connecting", type, guestPort, hostCid, hostPort));
    }
    let port: number;
    do {
      port = FIRST_HOST_PORT + this.#nextPort;
      this.#nextPort = (this.#nextPort + 1) % PORTS;
    } while (this.#find(guestPort, hostCid, port) !== undefined);
    return this.#counted(this.#add("connecting", type, guestPort, hostCid, port));
  }

  #counted(circuit: Circuit | undefined): Circuit | undefined {
    this.#options.counters[circuit === undefined ? "refused" : "opened"]++;
    return circuit;
  }

  /** {@link PacketSink.packet}. */
  packet(packet: Packet, bytes: Segments): void {
    const { counters } = this.#options;
    if (packet.srcCid !== this.cid || packet.dstCid < 0) {
      counters.malformed++;
      return;
    }
    counters.sentBytes += packet.length;
    const { srcPort, dstCid, dstPort } = packet;
    const circuit = this.#find(srcPort, dstCid, dstPort);
    if (packet.op === VsockOp.REQUEST) {
      // It would not ask for what it has: it has begun anew.
      if (circuit !== undefined) {
        circuit.lost();
        this.forget(circuit);
      }
      this.#requested(packet);
    } else if (circuit !== undefined) {
      circuit.receive(packet, bytes);
    } else if (packet.op !== VsockOp.RST) {
      this.#refuse(packet);
    }
  }

  #requested(packet: Packet): void {
    const { srcPort, dstCid, dstPort, type } = packet;
    const circuit = this.knows(type) ? this.#add("requested", type, srcPort, dstCid, dstPort) : undefined;
    if (circuit === undefined) {
      this.#options.counters.refused++;
      return this.#refuse(packet);
    }
    circuit.learn(packet);
    if (this.#options.accept(circuit)) {
      this.#options.counters.opened++;
    } else {
      this.#options.counters.refused++;
      circuit.reset();
    }
  }

  #refuse(packet: Packet): void {
    // To wait here until the guest takes them would be to wait for a guest that may be waiting for us.
    if (this.#refusals.length >= MAX_REFUSALS) this.#options.counters.dropped++;
    else this.#refusals.push(new Refusal(packet));
  }
}
