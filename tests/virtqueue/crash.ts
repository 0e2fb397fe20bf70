import assert from "node:assert/strict";
import type { Buffer } from "../../src/frontend/driver_ring.ts";
import type { Chain } from "../../src/virtqueue/chain.ts";
import type { Ring } from "../../src/virtqueue/ring.ts";
import { Random } from "../support/random.ts";
import { type Pair, ringPair } from "./ring_pair.ts";

/** The device has died. */
class Crash extends Error {}

/**
 * Lets a device die at a chosen moment. Moments are counted: before and after each atomic store, and the end of each
 * operation. What the device stored plainly since the moment before may have reached memory or not: some of it is undone.
 */
export class Doom {
  /** Moments that have passed since {@link begin}, or since the last death. */
  moments = 0;
  #deaths: readonly number[] = [];
  readonly #memory: Uint8Array;
  readonly #random: Random;
  #before: Uint8Array = new Uint8Array(0);

  constructor(memory: Uint8Array, random: Random) {
    this.#memory = memory;
    this.#random = random;
  }

  /** From here on devices die at these moments, each counted from the death before. */
  begin(...deaths: readonly number[]): void {
    this.moments = 0;
    this.#deaths = deaths;
  }

  /** Runs an operation of the device. Returns `undefined` when it has died in it. */
  run<T>(operation: () => T): { result: T } | undefined {
    const { store } = Atomics;
    Atomics.store = ((array: Int32Array, index: number, value: number) => {
      this.#pass();
      store(array, index, value);
      this.#pass();
      return value;
    }) as typeof Atomics.store;
    this.#remember();
    try {
      const result = operation();
      this.#pass();
      return { result };
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      return undefined;
    } finally {
      Atomics.store = store;
    }
  }

  #remember(): void {
    if (this.moments + 1 === this.#deaths[0]) this.#before = this.#memory.slice();
  }

  #pass(): void {
    if (++this.moments === this.#deaths[0]) {
      this.#tear();
      this.begin(...this.#deaths.slice(1));
      throw new Crash();
    }
    this.#remember();
  }

  /** Undoes some of what was stored since the moment before, in pieces of two bytes. */
  #tear(): void {
    const undo = this.#random.int(0, 2);
    for (let at = 0; at < this.#memory.length; at += 2) {
      const before = this.#before.subarray(at, at + 2);
      if (undo === 2 || (undo === 1 && this.#random.int(0, 1) === 1)) this.#memory.set(before, at);
    }
  }
}

/** What both sides are. */
export interface CrashOptions {
  readonly packed: boolean;
  readonly size: number;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly tableSize: number;
}

/** Bytes that each request may use. */
const ROOM = 64;

/** A driver that keeps its wits, and devices that die one after the other. */
export class Story {
  readonly pair: Pair;
  readonly doom: Doom;
  readonly #options: CrashOptions;
  readonly #random: Random;
  #device: Ring | undefined;
  /** Requests by what the driver calls them. Their values count up. */
  readonly #sent = new Map<number, { value: number; place: number }>();
  readonly #places: number[];
  #value = 0;
  /** What the device has to take next, in this order. */
  #due: number[] = [];
  #inDevice: Chain[] = [];
  /** Whether devices complete in the order in which they take, and so may go back. */
  readonly #orderly: boolean;
  readonly #done = new Set<number>();

  constructor(
    scope: { after(end: () => void | Promise<void>): void },
    options: CrashOptions,
    random: Random,
  ) {
    this.#options = options;
    this.#random = random;
    this.#orderly = random.int(0, 1) === 1;
    this.#places = Array.from({ length: options.size }, (_, i) => i);
    this.pair = ringPair(scope, { ...options, recorded: true, data: options.size * ROOM });
    this.doom = new Doom(this.pair.shared.piece(0, this.pair.shared.byteLength).bytes, random);
    this.#device = this.pair.device;
  }

  /** Runs some steps that the random numbers choose. */
  run(steps: number): void {
    for (let i = 0; i < steps; i++) this.#step(this.#random.int(0, 10));
  }

  #step(which: number): void {
    if (which < 4) this.#send();
    else if (which < 6) this.#take(this.#random.int(1, 4));
    else if (which < 8) this.#complete();
    else if (which < 9) this.#do((device) => device.publish());
    else if (which < 10) this.#collect();
    else this.#rewind();
  }

  #send(): void {
    const place = this.#places.pop();
    if (place === undefined) return;
    const { driver, data } = this.pair;
    const at = data.guestAddress + place * ROOM;
    const buffers = (from: number, count: number): Buffer[] =>
      Array.from({ length: count }, (_, i) => ({ guestAddress: from + 4 * i, length: 4 }));
    const most = this.#options.tableSize || Math.min(4, this.#options.size);
    const readable = this.#random.int(1, most);
    const writable = this.#random.int(0, most - readable);
    const name = driver.add(buffers(at, readable), buffers(at + ROOM / 2, writable));
    if (name < 0) {
      this.#places.push(place);
      return;
    }
    const value = this.#value++;
    new DataView(data.bytes.buffer, data.bytes.byteOffset + place * ROOM).setUint32(0, value, true);
    this.#sent.set(name, { value, place });
    this.#due.push(value);
    driver.publish();
  }

  /** Lets the device do something. When it dies, the next takes over. */
  #do<T>(operation: (device: Ring) => T): T | undefined {
    const device = this.#device;
    assert.ok(device);
    const done = this.doom.run(() => operation(device));
    if (done === undefined) this.recover();
    return done?.result;
  }

  /** The next device takes over; it may die over that, too. */
  recover(): void {
    this.#inDevice = [];
    this.#done.forEach((value) => this.#done.delete(value));
    for (;;) {
      // What the driver can see is its own again; everything else is due, in the order in which it was sent.
      this.#collect(true);
      this.#due = [...this.#sent.values()].map(({ value }) => value).sort((a, b) => a - b);
      // Positions come from the region; what the front-end says may be anything.
      const base = this.#options.packed ? 0x8000_8000 : 0x1234;
      const taken = this.doom.run(() => this.pair.another({ base }));
      if (taken === undefined) continue;
      this.#device = taken.result;
      return;
    }
  }

  #take(count: number): void {
    for (let i = 0; i < count; i++) {
      const chain = this.#do((device) => device.pop());
      if (chain === undefined) return;
      if (chain === null) {
        assert.deepEqual(this.#due, [], "what is due is found");
        return;
      }
      assert.equal(
        chain.readable.getUint32(0),
        this.#due.shift(),
        "requests come in the order in which they were sent",
      );
      this.#inDevice.push(chain);
    }
  }

  #complete(): void {
    if (this.#inDevice.length === 0) return;
    const at = this.#orderly ? 0 : this.#random.int(0, this.#inDevice.length - 1);
    const [chain] = this.#inDevice.splice(at, 1);
    this.#done.add(chain.readable.getUint32(0));
    this.#do((device) => device.push(chain));
  }

  /** What the device holds is available again, or the next device takes it over. */
  #rewind(): void {
    if (!this.#orderly) return;
    this.#do((device) => device.publish());
    const held = this.#inDevice.map((chain) => chain.readable.getUint32(0));
    if (this.#do((device) => device.rewind()) !== true) return;
    this.#due.unshift(...held);
    this.#inDevice = [];
  }

  /** The driver takes what was returned. */
  #collect(dead = false): void {
    const { driver } = this.pair;
    for (let used = driver.take(); used !== null; used = driver.take()) {
      const sent = this.#sent.get(used.head);
      assert.ok(sent);
      if (!dead) assert.ok(this.#done.delete(sent.value), "this device has completed what it returns");
      this.#sent.delete(used.head);
      this.#places.push(sent.place);
    }
  }

  /** Everything comes to its end, whoever dies on the way: each request was returned once. */
  finish(): void {
    let device: Ring | undefined;
    do {
      device = this.#device;
      this.#take(Infinity);
      while (this.#inDevice.length > 0) this.#complete();
      this.#do((each) => each.publish());
      this.#collect();
    } while (device !== this.#device);
    assert.equal(this.#sent.size, 0, "every request came back");
    assert.equal(this.pair.driver.free, this.#options.size);
    assert.equal(this.pair.driver.take(), null);
  }
}

/** Tells a story: some steps without harm, then some in which devices die. Returns the moments that there were. */
function tell(options: CrashOptions, seed: number, ...deaths: readonly number[]): number {
  const over: (() => void | Promise<void>)[] = [];
  const story = new Story({ after: (end) => over.push(end) }, options, new Random(seed));
  try {
    story.run(60);
    story.doom.begin(...deaths);
    story.run(15);
    const { moments } = story.doom;
    story.finish();
    return moments;
  } finally {
    for (const end of over) void end();
  }
}

/** Lets a device die at every moment of a story, and its heirs soon after. */
export function dieEverywhere(options: CrashOptions, seed: number): void {
  const moments = tell(options, seed);
  for (let at = 1; at <= moments; at++) {
    tell(options, seed, at);
    tell(options, seed, at, 1 + (at * 7 + seed) % 20, 1 + (at * 5 + seed) % 30);
  }
}
