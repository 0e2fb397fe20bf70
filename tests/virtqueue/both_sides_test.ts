import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Buffer } from "../../src/frontend/driver_ring.ts";
import type { Chain } from "../../src/virtqueue/chain.ts";
import { type Pair, type PairOptions, ringPair } from "./ring_pair.ts";

// A driver and a device that do everything in any order. What they see is compared with a model.

/** Bytes that each request may use. */
const ROOM = 4096;

/** A request, as the driver remembers it. */
interface Sent {
  readonly readable: Uint8Array;
  readonly writable: readonly Buffer[];
  readonly room: number;
  /** Which of the places for data it uses. */
  readonly slot: number;
  /** What the device has written, once it has. */
  answer?: Uint8Array;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seed * 37 + i * 11 + (i >> 7)) & 0xff);
}

/** One step. Numbers are taken modulo what is there. */
const steps = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("send" as const),
        readable: fc.array(fc.nat(400), { maxLength: 3 }),
        writable: fc.array(fc.nat(400), { maxLength: 3 }),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("driver publishes" as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("take" as const), count: fc.nat(5) }) },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("complete" as const),
        which: fc.nat(),
        bytes: fc.nat(),
        callback: fc.boolean(),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("device publishes" as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("collect" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("driver sleeps" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("device sleeps" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("driver wants no calls" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("device wants no kicks" as const) }) },
  ),
  { size: "max", maxLength: 120 },
);
type Step = typeof steps extends fc.Arbitrary<(infer T)[]> ? T : never;

/** Both sides, and what should be so. */
class Conversation {
  readonly #pair: Pair;
  readonly #packed: boolean;
  readonly #inOrder: boolean;
  readonly #eventIdx: boolean;
  /** The most descriptors of a request. */
  readonly #most: number;
  /** By head. */
  readonly #sent = new Map<number, Sent>();
  readonly #freeSlots: number[];
  readonly #order: number[] = [];
  readonly #inDevice: Chain[] = [];
  /** IN_ORDER: all that were taken and not returned, the oldest first, and those of them that are complete. */
  readonly #inOrderOf: Chain[] = [];
  readonly #completed = new Set<Chain>();
  #seed = 0;

  // The driver's notification: whether the driver sleeps, was called since, and how many returns it has not seen.
  #driverSleeps = false;
  #called = false;
  #quietDriver = false;
  #unseenReturns = 0;
  #unpublishedReturns = 0;
  #everCalled: boolean;
  // The same for the device.
  #deviceSleeps = false;
  #kicked = false;
  #quietDevice = false;
  #unseenRequests = 0;
  #unpublishedRequests = 0;

  constructor(pair: Pair, options: PairOptions, everCalled: boolean) {
    const { size, packed = false, inOrder = false, eventIdx, tableSize = 0 } = options;
    this.#pair = pair;
    this.#packed = packed;
    this.#inOrder = inOrder;
    this.#eventIdx = eventIdx;
    this.#most = tableSize === 0 ? size : tableSize;
    this.#everCalled = everCalled;
    this.#freeSlots = Array.from({ length: size }, (_, i) => i);
  }

  step(step: Step): void {
    switch (step.do) {
      case "send":
        return this.#send(step.readable.slice(0, this.#most), step.writable);
      case "driver publishes":
        return this.#driverPublishes();
      case "take":
        return this.#take(step.count);
      case "complete":
        return this.#complete(step.which, step.bytes, step.callback);
      case "device publishes":
        return this.#devicePublishes();
      case "collect":
        return this.#collect();
      case "driver sleeps":
        this.#quietDriver = false;
        this.#driverSleeps = !this.#pair.driver.arm();
        this.#called = false;
        assert.equal(this.#driverSleeps, this.#unseenReturns === 0, "arm tells what has come");
        return;
      case "device sleeps":
        this.#quietDevice = false;
        this.#deviceSleeps = !this.#pair.device.arm();
        this.#kicked = false;
        assert.equal(this.#deviceSleeps, this.#unseenRequests === 0, "arm tells what has come");
        return;
      case "driver wants no calls":
        if (this.#driverSleeps) return;
        this.#pair.driver.suppress();
        this.#quietDriver = true;
        return;
      case "device wants no kicks":
        if (this.#deviceSleeps) return;
        this.#pair.device.suppress();
        this.#quietDevice = true;
        return;
    }
  }

  /** A sleeper for whom there is something must have been told. */
  check(): void {
    const { driver, device } = this.#pair;
    if (this.#driverSleeps && this.#unseenReturns > 0) assert.ok(this.#called, "a call was lost");
    if (this.#deviceSleeps && this.#unseenRequests > 0) assert.ok(this.#kicked, "a kick was lost");
    assert.equal(device.inFlight, this.#inDevice.length + this.#completed.size);
    assert.equal(device.available(), this.#unseenRequests > 0);
    assert.equal(driver.free === driver.size, this.#sent.size === 0);
  }

  /** Everything comes to its end. */
  finish(): void {
    this.#driverPublishes();
    this.#deviceSleeps = false;
    this.#take(Infinity);
    while (this.#inDevice.length > 0) this.#complete(this.#inDevice.length >> 1, 12345, false);
    this.#devicePublishes();
    this.#driverSleeps = false;
    this.#collect();
    this.check();
    assert.equal(this.#sent.size, 0, "every request came back");
    assert.equal(this.#pair.driver.free, this.#pair.driver.size);
    assert.equal(this.#pair.device.pop(), null);
    assert.equal(this.#pair.driver.take(), null);
  }

  /** Cuts a request's room into buffers, with gaps. */
  #buffers(slot: number, lengths: readonly number[], from: number): Buffer[] {
    let at = slot * ROOM + from;
    return lengths.map((length) => {
      const buffer = { guestAddress: this.#pair.data.guestAddress + at, length };
      at += length + 1;
      return buffer;
    });
  }

  #bytes({ guestAddress, length }: Buffer): Uint8Array {
    const at = guestAddress - this.#pair.data.guestAddress;
    return this.#pair.data.bytes.subarray(at, at + length);
  }

  #send(readable: readonly number[], wanted: readonly number[]): void {
    const writable = wanted.slice(0, this.#most - readable.length);
    if (readable.length + writable.length === 0) return;
    const slot = this.#freeSlots.pop();
    if (slot === undefined) return;
    const question = this.#buffers(slot, readable, 0);
    const answer = this.#buffers(slot, writable, ROOM / 2);
    const text = pattern(readable.reduce((sum, length) => sum + length, 0), ++this.#seed);
    let at = 0;
    for (const buffer of question) {
      this.#bytes(buffer).set(text.subarray(at, at + buffer.length));
      at += buffer.length;
    }
    for (const buffer of answer) this.#bytes(buffer).fill(0xee);
    const before = this.#pair.driver.free;
    const head = this.#pair.driver.add(question, answer);
    if (head < 0) {
      assert.ok(before < readable.length + writable.length, "refused although there was room");
      this.#freeSlots.push(slot);
      return;
    }
    assert.equal(this.#sent.has(head), false, "a head in flight was used again");
    const room = writable.reduce((sum, length) => sum + length, 0);
    this.#sent.set(head, { readable: text, writable: answer, room, slot });
    this.#order.push(head);
    this.#unpublishedRequests++;
  }

  #driverPublishes(): void {
    const some = this.#unpublishedRequests > 0;
    const kick = this.#pair.driver.publish();
    this.#unseenRequests += this.#unpublishedRequests;
    this.#unpublishedRequests = 0;
    if (!some) assert.equal(kick, false);
    else if (this.#quietDevice && (this.#packed || !this.#eventIdx)) {
      assert.equal(kick, false, "the device wanted no kicks");
    }
    this.#kicked ||= kick;
  }

  #take(count: number): void {
    if (this.#deviceSleeps && !this.#kicked) return;
    this.#deviceSleeps = this.#kicked = false;
    for (let i = 0; i < count; i++) {
      const chain = this.#pair.device.pop();
      if (chain === null) {
        assert.equal(this.#unseenRequests, 0, "a request was not found");
        return;
      }
      this.#unseenRequests--;
      assert.equal(this.#name(chain), this.#order.shift(), "requests come in the order of the driver");
      const sent = this.#sent.get(this.#name(chain));
      assert.ok(sent);
      assert.equal(chain.readable.byteLength, sent.readable.length);
      assert.equal(chain.writable.byteLength, sent.room);
      this.#inDevice.push(chain);
      this.#inOrderOf.push(chain);
    }
  }

  /** What the driver calls a request. */
  #name(chain: Chain): number {
    return this.#packed ? chain.id : chain.head;
  }

  #complete(which: number, bytes: number, callback: boolean): void {
    if (this.#inDevice.length === 0) return;
    const [chain] = this.#inDevice.splice(which % this.#inDevice.length, 1);
    const sent = this.#sent.get(this.#name(chain));
    assert.ok(sent);
    assert.deepEqual(chain.read(), sent.readable, "the request arrives as it was sent, and stays so");
    const answer = pattern(bytes % (sent.room + 1), ++this.#seed);
    if (callback) {
      let at = 0;
      chain.write((window) => {
        const some = answer.subarray(at, at + window.length);
        window.set(some);
        at += some.length;
        return some.length;
      });
    } else {
      chain.write(answer);
    }
    assert.equal(chain.written, answer.length);
    sent.answer = answer;
    this.#pair.device.push(chain);
    if (!this.#inOrder) {
      this.#unpublishedReturns++;
      return;
    }
    // Held back until those before it are complete.
    this.#completed.add(chain);
    while (this.#inOrderOf.length > 0 && this.#completed.delete(this.#inOrderOf[0])) {
      this.#inOrderOf.shift();
      this.#unpublishedReturns++;
    }
  }

  #devicePublishes(): void {
    const some = this.#unpublishedReturns > 0;
    const call = this.#pair.device.publish();
    this.#unseenReturns += this.#unpublishedReturns;
    this.#unpublishedReturns = 0;
    if (!some) assert.equal(call, false);
    else if (!this.#everCalled) assert.equal(call, true, "of the first return the driver is always told");
    else if (this.#quietDriver && (this.#packed || !this.#eventIdx)) {
      assert.equal(call, false, "the driver wanted no calls");
    }
    this.#everCalled ||= call;
    this.#called ||= call;
  }

  #collect(): void {
    if (this.#driverSleeps && !this.#called) return;
    this.#driverSleeps = this.#called = false;
    for (let used = this.#pair.driver.take(); used !== null; used = this.#pair.driver.take()) {
      this.#unseenReturns--;
      const sent = this.#sent.get(used.head);
      assert.ok(sent?.answer, "what was not completed came back");
      assert.equal(used.written, sent.answer.length);
      const there = sent.writable.flatMap((buffer) => [...this.#bytes(buffer)]);
      const expected = [...sent.answer, ...new Array(sent.room - sent.answer.length).fill(0xee)];
      assert.deepEqual(there, expected, "the answer arrives, and nothing behind it");
      this.#sent.delete(used.head);
      this.#freeSlots.push(sent.slot);
    }
    assert.equal(this.#unseenReturns, 0, "a return was not found");
  }
}

/** Sends requests to and fro, so that indices get near their end. */
function spin({ driver, device, data }: Pair, times: number): void {
  const buffer = [{ guestAddress: data.guestAddress, length: 1 }];
  for (let i = 0; i < times; i++) {
    driver.add(buffer, []);
    driver.publish();
    const chain = device.pop();
    if (chain === null) assert.fail("lost");
    device.push(chain);
    device.publish();
    if (driver.take() === null) assert.fail("lost");
  }
}

const common = {
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  recorded: fc.boolean(),
  tableSize: fc.constantFrom(0, 6),
  cut: fc.nat(ROOM),
};
const split = {
  packed: fc.constant(false),
  size: fc.integer({ min: 0, max: 10 }).map((power) => 2 ** power),
  spins: fc.constantFrom(0, 1, 5, 100, 65520, 65534),
  ...common,
};
const formats = {
  split: fc.record({ endianness: fc.constant("little" as const), ...split }),
  "big-endian split": fc.record({ endianness: fc.constant("big" as const), ...split }),
  packed: fc.record({
    endianness: fc.constant("little" as const),
    packed: fc.constant(true),
    size: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 1100 })),
    spins: fc.oneof(fc.nat(50), fc.constantFrom(1023, 32767)),
    ...common,
  }),
};

for (const [format, options] of Object.entries(formats)) {
  test(`${format}: whatever both sides do, requests and answers arrive, and nobody sleeps through one`, {
    timeout: 60_000,
  }, () => {
    fc.assert(
      fc.property(options, steps, ({ spins, ...chosen }, script) => {
        const over: (() => void | Promise<void>)[] = [];
        const pairOptions = { ...chosen, data: chosen.size * ROOM };
        const pair = ringPair({ after: (end) => over.push(end as () => void) }, pairOptions);
        try {
          spin(pair, spins);
          const conversation = new Conversation(pair, pairOptions, spins > 0);
          for (const step of script) {
            conversation.step(step);
            conversation.check();
          }
          conversation.finish();
        } finally {
          for (const end of over) void end();
        }
      }),
      { seed: 0x5eed, numRuns: 300 },
    );
  });
}
