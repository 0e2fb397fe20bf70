import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  SimulatedSpiBus,
  SpiDevice,
  type SpiDirection,
  SpiFlash,
  SpiMode,
  type SpiPart,
  type SpiTransferHead,
  spiTransferHead,
} from "../../src/devices/spi/mod.ts";
import { bytesOf, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { RequestDriver, type Returned } from "./request_driver.ts";

const OK = 0;
const PARAM_ERR = 1;
const TRANS_ERR = 2;

/** A head that any bus takes. */
const HEAD: SpiTransferHead = {
  chipSelectId: 0,
  bitsPerWord: 8,
  csChange: 1,
  txNbits: 0,
  rxNbits: 0,
  reserved0: 0,
  reserved1: 0,
  mode: 0,
  freq: 1_000_000,
  wordDelayNs: 0,
  csSetupNs: 0,
  csDelayHoldNs: 0,
  csChangeDelayInactiveNs: 0,
};

class Driver {
  readonly requests: RequestDriver;
  constructor(requests: RequestDriver) {
    this.requests = requests;
  }

  /** One transfer. */
  async transfer(
    output: readonly number[] | Uint8Array,
    room: number,
    head: Partial<SpiTransferHead> = {},
  ): Promise<{ result: number; input: Uint8Array }> {
    const { written, bytes } = await this.requests.request(
      [spiTransferHead.encode({ ...HEAD, ...head }), Uint8Array.from(output)],
      [room, 1],
    );
    assert.equal(written, bytes.length);
    return { result: bytes[room], input: bytes.subarray(0, room) };
  }

  /** What a flash answers to a command, with the bytes of both in one transfer. */
  async command(bytes: readonly number[], length = 0): Promise<Uint8Array> {
    const all = [...bytes, ...new Array(length).fill(0)];
    const { result, input } = await this.transfer(all, length === 0 ? 0 : all.length);
    assert.equal(result, OK);
    return input.subarray(length === 0 ? 0 : bytes.length);
  }
}

async function open(t: Scope, parts: readonly SpiPart[], errors: unknown[] = []): Promise<Driver> {
  const device = new SpiDevice({ bus: new SimulatedSpiBus(parts), onError: (error) => errors.push(error) });
  const scene = await Scene.open(t, device);
  return new Driver(await RequestDriver.connect(t, scene.path));
}

test("a flash is read, erased and programmed", LIMIT, async (t) => {
  const data = bytesOf(45, 65536);
  const writes: [number, number][] = [];
  const flash = new SpiFlash({ data: data.slice(), onWrite: (...range) => writes.push(range) });
  const driver = await open(t, [flash]);
  assert.deepEqual([...await driver.command([0x9f], 4)], [0xef, 0x30, 16, 0xef]);
  sameBytes(await driver.command([3, 0, 0x12, 0x34], 300), data.subarray(0x1234, 0x1234 + 300));
  sameBytes(await driver.command([0x0b, 0, 0x12, 0x34, 0xff], 9), data.subarray(0x1234, 0x1234 + 9));
  assert.deepEqual([...await driver.command([0x5a, 0, 0, 0, 0], 4)], [0xff, 0xff, 0xff, 0xff]);
  // Without being enabled, nothing is written.
  await driver.command([2, 0, 0, 0, 0]);
  await driver.command([0x20, 0, 0, 0]);
  sameBytes(flash.data, data);
  const enable = async (): Promise<void> => {
    await driver.command([6]);
    assert.deepEqual([...await driver.command([5], 2)], [2, 2]);
  };
  await enable();
  await driver.command([0x20, 0, 0x1f, 0xff]);
  assert.deepEqual([...await driver.command([5], 1)], [0]);
  assert.ok(flash.data.subarray(0x1000, 0x2000).every((byte) => byte === 0xff));
  sameBytes(flash.data.subarray(0x2000), data.subarray(0x2000));
  // Programming clears bits, within a page.
  await enable();
  await driver.command([2, 0, 0x10, 0xfe, 0x0f, 0xf0, 0x3c]);
  await enable();
  await driver.command([2, 0, 0x10, 0xff, 0x55]);
  assert.deepEqual([...flash.data.subarray(0x10fe, 0x1100)], [0x0f, 0x50]);
  assert.equal(flash.data[0x1000], 0x3c);
  assert.deepEqual(writes, [[0x1000, 4096], [0x1000, 256], [0x1000, 256]]);
  // More than a page: the last of them count.
  await enable();
  await driver.command([2, 0, 0x11, 0, ...Array.from({ length: 258 }, (_, i) => i < 2 ? 0 : i & 0xff)]);
  assert.deepEqual([...flash.data.subarray(0x1100, 0x1104)], [0, 1, 2, 3]);
  await enable();
  await driver.command([4]);
  assert.deepEqual([...await driver.command([5], 1)], [0]);
  await enable();
  await driver.command([0xc7]);
  assert.ok(flash.data.every((byte) => byte === 0xff));
});

test("a command may come in pieces, and ends with the last of them", LIMIT, async (t) => {
  const data = bytesOf(46, 1 << 20);
  const driver = await open(t, [new SpiFlash({ data: data.slice() })]);
  const piece = async (output: readonly number[], room = 0): Promise<Uint8Array> => {
    const { result, input } = await driver.transfer(output, room, { csChange: 0 });
    assert.equal(result, OK);
    return input;
  };
  for (let i = 0; i < 2; i++) {
    // As Linux does it, which never has the part deselected.
    await piece([0x9f]);
    assert.deepEqual([...await piece([], 3)], [0xef, 0x40, 20]);
    await piece([0x0b]);
    await piece([0x01, 0x02, 0x03]);
    await piece([0xff]);
    sameBytes(await piece([], 5000), data.subarray(0x010203, 0x010203 + 5000));
    await piece([6]);
    await piece([0x05]);
    assert.deepEqual([...await piece([], 1)], [2]);
    await piece([4]);
  }
  // One that is not complete when the part is deselected has no effect.
  await piece([3]);
  await driver.transfer([0], 0);
  assert.deepEqual([...await driver.command([0x9f], 1)], [0xef]);
});

/** A part that keeps what it sees. */
class Recorder implements SpiPart {
  readonly seen: [SpiDirection, number[]][] = [];
  deselected = 0;
  transfer(output: Uint8Array, input: Uint8Array, direction: SpiDirection): void {
    if (output[0] === 0x66) throw new Error("smoke");
    this.seen.push([direction, [...output]]);
    input.forEach((_, i) => input[i] = output[i] ^ 0xff);
  }
  deselect(): void {
    this.deselected++;
  }
}

test("transfers of all three kinds reach the part that is selected", LIMIT, async (t) => {
  const errors: unknown[] = [];
  const [first, second] = [new Recorder(), new Recorder()];
  const driver = await open(t, [first, second], errors);
  assert.deepEqual(await driver.transfer([1, 2], 0), { result: OK, input: new Uint8Array(0) });
  assert.deepEqual((await driver.transfer([], 2)).input, Uint8Array.of(0xff, 0xff));
  assert.deepEqual((await driver.transfer([1, 2], 2, { csChange: 0 })).input, Uint8Array.of(0xfe, 0xfd));
  assert.deepEqual(first.seen, [["send", [1, 2]], ["receive", [0, 0]], ["both", [1, 2]]]);
  assert.equal(first.deselected, 2);
  await driver.transfer([7], 0, { chipSelectId: 1 });
  assert.deepEqual(second.seen, [["send", [7]]]);
  // Looped back, no part sees it.
  assert.deepEqual((await driver.transfer([5, 6], 2, { mode: SpiMode.LOOP })).input, Uint8Array.of(5, 6));
  assert.equal(first.seen.length, 3);
  const failed = await driver.transfer([0x66, 1], 2);
  assert.deepEqual([failed.result, ...failed.input], [TRANS_ERR, 0, 0]);
  assert.match(String(errors), /smoke/);
});

test(
  "what the controller cannot do is a parameter error, and the configuration space says so",
  LIMIT,
  async (t) => {
    const part = new Recorder();
    const driver = await open(t, [part]);
    const config = await driver.requests.frontEnd.readConfig(0, 32);
    assert.deepEqual([...config.subarray(0, 12)], [1, 1, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x7f, 0, 0, 0]);
    for (
      const head of [
        { chipSelectId: 1 },
        { bitsPerWord: 0 },
        { bitsPerWord: 7 },
        { bitsPerWord: 64 },
        { csChange: 2 },
        { txNbits: 2 },
        { rxNbits: 8 },
        { rxNbits: 3 },
        { mode: 0x20 },
        { mode: 0x8000_0000 },
      ]
    ) {
      const { result, input } = await driver.transfer([1], 1, head);
      assert.deepEqual([result, ...input], [PARAM_ERR, 0], JSON.stringify(head));
    }
    // Both directions at once, of different lengths.
    assert.equal((await driver.transfer([1, 2], 3)).result, PARAM_ERR);
    assert.deepEqual(part.seen, []);
    for (const mode of [1, 2, 3, 4, 8]) assert.equal((await driver.transfer([1], 1, { mode })).result, OK);
    // A head that is cut off.
    const { bytes } = await driver.requests.request([new Uint8Array(31)], [4]);
    assert.deepEqual([...bytes], [0, 0, 0, PARAM_ERR]);
    assert.equal((await driver.requests.request([new Uint8Array(32)], [])).written, 0);
  },
);

test("parts that cannot be are not made", LIMIT, () => {
  assert.throws(() => new SpiFlash({ size: 100_000 }), /power of two/);
  assert.throws(() => new SpiFlash({ size: 1 << 25 }), /65536 to 16777216/);
  assert.throws(() => new SimulatedSpiBus([]), /1 to 255 parts/);
});

test("no request, however odd, does harm", { timeout: 60_000 }, async (t) => {
  const errors: unknown[] = [];
  const driver = await open(t, [new SpiFlash({ size: 65536 }), new SpiFlash({ size: 65536 })], errors);
  const byte = fc.integer({ min: 0, max: 255 });
  const valid = fc.tuple(
    fc.integer({ min: 0, max: 2 }),
    fc.integer({ min: 0, max: 1 }),
    fc.integer({ min: 0, max: 32 }),
  )
    .map(([chipSelectId, csChange, mode]) =>
      spiTransferHead.encode({ ...HEAD, chipSelectId, csChange, mode })
    );
  const head = fc.oneof(valid, fc.uint8Array({ maxLength: 40 }));
  const command = fc.oneof(
    fc.tuple(
      fc.constantFrom(1, 2, 3, 5, 6, 0x0b, 0x20, 0x52, 0x66, 0x99, 0x9f, 0xc7, 0xd8),
      fc.array(byte, { maxLength: 300 }),
    )
      .map(([first, rest]) => Uint8Array.of(first, ...rest)),
    fc.uint8Array({ maxLength: 10 }),
  );
  const room = fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(head, command, room, async (head, command, room) => {
      if (head.length + command.length + room.length === 0) return;
      checkAnswer(await driver.requests.request([head, command], room));
    }),
    { seed: 45, numRuns: 500 },
  );
  assert.deepEqual(errors, []);
  await driver.transfer([0], 0);
  assert.deepEqual([...await driver.command([0x9f], 3)], [0xef, 0x30, 16]);
});

function checkAnswer({ written, bytes }: Returned): void {
  assert.equal(written, bytes.length);
  if (bytes.length > 0) assert.ok(bytes[bytes.length - 1] <= 2, "a result");
}
