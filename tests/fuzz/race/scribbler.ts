/**
 * A thread that changes a guest's memory all the time: rings as a driver would, nearly so, and bits at random.
 *
 * @module
 */

import { bufferAt } from "../../../ffi/deno.ts";
import { signal } from "../../../ffi/eventfd.ts";
import { Random } from "../../support/random.ts";

/** A part of the memory, and what is in it. */
export interface Area {
  readonly kind: "descriptors" | "available" | "used" | "tables" | "headers" | "anything";
  /** Byte in the memory. */
  readonly offset: number;
  readonly length: number;
}

/** What it is to do. */
export interface Scribbling {
  /** The memory, as this process has mapped it. */
  readonly address: bigint;
  readonly byteLength: number;
  /** The guest address of its first byte, and of the byte behind its last. */
  readonly guest: readonly [from: number, to: number];
  readonly areas: readonly Area[];
  readonly packed: boolean;
  readonly indirect: boolean;
  /** Entries of each ring. */
  readonly size: number;
  readonly seed: number;
  /** Doorbells to ring. */
  readonly kicks: readonly number[];
  /** Set to 1 to end it; then it sets 2. */
  readonly state: SharedArrayBuffer;
}

const scope = globalThis as unknown as { onmessage: (event: MessageEvent<Scribbling>) => void };

scope.onmessage = ({ data }) => {
  const state = new Int32Array(data.state);
  const scribbler = new Scribbler(data);
  Atomics.store(state, 1, 1);
  Atomics.notify(state, 1);
  for (let n = 0; Atomics.load(state, 0) === 0; n++) {
    scribbler.once();
    if (n % 16 === 0) signal(data.kicks[n / 16 % data.kicks.length]);
  }
  Atomics.store(state, 0, 2);
  Atomics.notify(state, 0);
};

class Scribbler {
  readonly #what: Scribbling;
  readonly #random: Random;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #halves: Uint16Array;

  constructor(what: Scribbling) {
    this.#what = what;
    this.#random = new Random(what.seed);
    const memory = bufferAt(what.address, what.byteLength);
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
    this.#halves = new Uint16Array(memory);
    // At first all of it is right.
    for (const area of what.areas.filter(({ kind }) => kind !== "anything")) {
      for (let i = 0; i < area.length; i++) if (area.kind !== "available") this.#fill(area);
    }
  }

  #fill(area: Area): void {
    if (area.kind === "descriptors" || area.kind === "tables") this.#descriptor(area);
    else if (area.kind === "headers") this.#header(area);
  }

  /** Whether this time it is to be wrong. */
  get #wild(): boolean {
    return this.#random.int(0, 1500) === 0;
  }

  #area(kind: Area["kind"]): Area {
    return this.#what.areas.find((area) => area.kind === kind) ?? this.#what.areas[0];
  }

  once(): void {
    const area = this.#random.pick(this.#what.areas);
    if (area.kind === "anything" || this.#wild) return this.#flip(area);
    if (area.kind === "descriptors" || area.kind === "tables") this.#descriptor(area);
    else if (area.kind === "available") this.#available(area);
    else if (area.kind === "headers") this.#header(area);
  }

  #flip({ offset, length }: Area): void {
    const at = offset + this.#random.int(0, length - 1);
    this.#bytes[at] ^= 1 << this.#random.int(0, 7);
  }

  /**
   * A descriptor of a table or ring. In groups of four they make requests: head, data, data, status; where the ring uses tables,
   * each of its descriptors refers to a group.
   */
  #descriptor({ kind, offset, length }: Area): void {
    const { guest: [from, to], packed, indirect } = this.#what;
    const random = this.#random;
    const view = this.#view;
    const index = random.int(0, length / 16 - 1);
    const at = offset + 16 * index;
    const group = index % 4;
    let address = from + random.int(0, (to - from) / 2);
    let bytes = random.pick([512, 512, 1024, 4096, 0, 1, 17]);
    // Whether the device may write to the data is the same for both pieces most of the time.
    let flags = 1 | (index & 4) >> 1;
    if (group === 0) {
      [address, bytes, flags] = [from + this.#area("headers").offset + 16 * random.int(0, 99), 16, 1];
    }
    if (group === 3) [bytes, flags] = [1, 2];
    if (indirect && kind === "descriptors" && random.int(0, 1) === 0) {
      address = from + this.#area("tables").offset + 64 * random.int(0, 15);
      [bytes, flags] = [64, 4];
    }
    if (this.#wild) flags = random.int(0, 7);
    if (this.#wild) bytes = random.pick([0, 15, 16, 0xffff_ffff, 1 << 20]);
    if (this.#wild) address = random.pick([0, to, to - 1, 2 ** 52]);
    view.setBigUint64(at, BigInt(address), true);
    view.setUint32(at + 8, bytes, true);
    if (packed && kind === "descriptors") {
      // Available, in one lap or the other.
      view.setUint16(at + 12, random.int(0, this.#what.size), true);
      view.setUint16(at + 14, flags | random.pick([0x80, 0x80, 0x8000, 0, 0x8080]), true);
    } else {
      view.setUint16(at + 12, flags, true);
      view.setUint16(at + 14, this.#wild ? random.int(0, 40) : (group + 1) % 4 + index - group, true);
    }
    if (kind === "tables") view.setUint16(at + 14, (group + 1) % 4, true);
  }

  /** The available ring of a split ring, or the driver's event structure of a packed one. */
  #available(area: Area): void {
    const random = this.#random;
    const { offset, length } = area;
    const at = offset / 2;
    const { packed, size, areas } = this.#what;
    if (packed) {
      this.#halves[at + random.int(0, 1)] = random.int(0, 0xffff);
      return;
    }
    if (random.int(0, 2) === 0) {
      // What it wants to be told, and a head.
      this.#halves[at + random.pick([0, length / 2 - 1])] = random.int(0, 0xffff);
      return;
    }
    this.#halves[at + 2 + random.int(0, size - 1)] = 4 * random.int(0, size / 4 - 1);
    const used = areas[areas.indexOf(area) + 1]?.offset ?? 0;
    const returned = Atomics.load(this.#halves, used / 2 + 1);
    Atomics.store(this.#halves, at + 1, returned + random.pick([0, 1, 2, 4, size]));
  }

  /** The head of a request to a disk. */
  #header({ offset, length }: Area): void {
    const random = this.#random;
    const at = offset + 16 * random.int(0, length / 16 - 1);
    this.#view.setUint32(at, random.pick([0, 0, 1, 1, 4, 8, 11, 13, 99]), true);
    this.#view.setBigUint64(at + 8, BigInt(random.pick([0, 1, 7, 1000, 2000, 2047, 2 ** 40])), true);
  }
}
