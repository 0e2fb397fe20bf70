import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  decodeAddress,
  Eeprom,
  type I2cBus,
  I2cDevice,
  type I2cPart,
  type I2cSegment,
  Lm75,
  SimulatedI2cBus,
  TEN_BIT,
} from "../../src/devices/i2c/mod.ts";
import { bytesOf, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { packed, RequestDriver, type Returned } from "./request_driver.ts";

const FAIL_NEXT = 1;
const M_RD = 2;

/** One request: bytes to write, or how many to read. */
interface Part {
  readonly address: number;
  readonly write?: Uint8Array | readonly number[];
  readonly read?: number;
}

/** The address in a request, by the specification's table. */
function encoded(address: number): number {
  if (address < TEN_BIT) return address << 1;
  return (address & 0xff) << 8 | 0xf0 | (address >> 8 & 3) << 1;
}

class Driver {
  readonly requests: RequestDriver;
  constructor(requests: RequestDriver) {
    this.requests = requests;
  }

  /** Sends a group. Returns the status of each, and what was read. */
  async group(...parts: readonly Part[]): Promise<{ status: number; data: Uint8Array }[]> {
    return await Promise.all(parts.map(async ({ address, write = [], read }, i) => {
      const flags = (i < parts.length - 1 ? FAIL_NEXT : 0) | (read === undefined ? 0 : M_RD);
      const head = packed([2, encoded(address)], [2, 0], [4, flags]);
      const { written, bytes } = await this.requests.request(
        [head, Uint8Array.from(write)],
        [read ?? 0, 1],
      );
      assert.equal(written, bytes.length);
      return { status: bytes[bytes.length - 1], data: bytes.subarray(0, -1) };
    }));
  }

  async write(address: number, ...bytes: number[]): Promise<number> {
    return (await this.group({ address, write: bytes }))[0].status;
  }

  /** Reads from a position. */
  async read(address: number, position: readonly number[], length: number): Promise<Uint8Array> {
    const [first, second] = await this.group({ address, write: position }, { address, read: length });
    assert.deepEqual([first.status, second.status], [0, 0]);
    return second.data;
  }
}

async function open(t: Scope, bus: I2cBus, errors: unknown[] = []): Promise<Driver> {
  const scene = await Scene.open(t, new I2cDevice({ bus, onError: (error) => errors.push(error) }));
  return new Driver(await RequestDriver.connect(t, scene.path));
}

test("an EEPROM keeps what is written, by the page", LIMIT, async (t) => {
  const writes: [number, number][] = [];
  const eeprom = new Eeprom({ size: 256, onWrite: (...range) => writes.push(range) });
  const driver = await open(t, new SimulatedI2cBus([eeprom]));
  sameBytes(await driver.read(0x50, [0], 256), new Uint8Array(256).fill(0xff));
  assert.equal(await driver.write(0x50, 0x10, 1, 2, 3), 0);
  assert.deepEqual([...await driver.read(0x50, [0x0f], 5)], [0xff, 1, 2, 3, 0xff]);
  // Ten bytes from the sixth of a page of eight: the last ones wrap around to its start and on.
  assert.equal(await driver.write(0x50, 0x25, ...Array.from({ length: 10 }, (_, i) => 0x40 + i)), 0);
  assert.deepEqual(
    [...await driver.read(0x50, [0x20], 8)],
    [0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x42],
  );
  assert.deepEqual(writes, [[0x10, 8], [0x20, 8]]);
  // A read goes on where the last ended, and from the end to the start.
  eeprom.data[0] = 0x77;
  assert.deepEqual([...await driver.read(0x50, [0xfe], 1)], [0xff]);
  assert.deepEqual([...(await driver.group({ address: 0x50, read: 2 }))[0].data], [0xff, 0x77]);
});

test("a large EEPROM has two bytes of position, and a locked one refuses", LIMIT, async (t) => {
  const data = bytesOf(1, 8192);
  const driver = await open(
    t,
    new SimulatedI2cBus([
      new Eeprom({ address: 0x51, data: data.slice() }),
      new Eeprom({ address: 0x52, size: 128, readOnly: true }),
    ]),
  );
  sameBytes(await driver.read(0x51, [0x12, 0x34], 500), data.subarray(0x1234, 0x1234 + 500));
  sameBytes(await driver.read(0x51, [0, 0], 8192), data);
  assert.equal(await driver.write(0x52, 0, 1), 1);
  assert.deepEqual([...await driver.read(0x52, [0], 1)], [0xff]);
});

test("a sensor measures", LIMIT, async (t) => {
  const sensor = new Lm75(0x48, 21.5);
  const driver = await open(t, new SimulatedI2cBus([sensor]));
  for (
    const [celsius, high, low] of [
      [21.5, 0x15, 0x80],
      [0, 0, 0],
      [-0.125, 0xff, 0xe0],
      [-40, 0xd8, 0],
      [127.875, 0x7f, 0xe0],
    ]
  ) {
    sensor.temperature = celsius;
    assert.equal(sensor.temperature, celsius);
    assert.deepEqual([...await driver.read(0x48, [0], 2)], [high, low]);
  }
  assert.throws(() => sensor.temperature = 128, /-128 to 127.875/);
  // Limit and hysteresis are kept in halves of a degree; the temperature cannot be written.
  assert.equal(await driver.write(0x48, 3, 30, 0xff), 0);
  assert.deepEqual([...await driver.read(0x48, [3], 2)], [30, 0x80]);
  assert.equal(await driver.write(0x48, 0, 1, 1), 0);
  assert.equal(sensor.temperature, 127.875);
  assert.ok(sensor.overLimit);
  sensor.temperature = 30;
  assert.ok(!sensor.overLimit);
  assert.equal(await driver.write(0x48, 1, 0x60), 0);
  assert.deepEqual([...await driver.read(0x48, [1], 2)], [0x60, 0x60]);
});

test("who is there answers a request of no bytes", LIMIT, async (t) => {
  const driver = await open(t, new SimulatedI2cBus([new Lm75(0x48), new Eeprom()]));
  const there: number[] = [];
  for (let address = 0x08; address <= 0x77; address++) {
    if ((await driver.write(address)) === 0) there.push(address);
    const [{ status }] = await driver.group({ address, read: 0 });
    assert.equal(status, there.includes(address) ? 0 : 1);
  }
  assert.deepEqual(there, [0x48, 0x50]);
});

/** A bus that keeps what it is asked. */
class Recorder implements I2cBus {
  readonly groups: I2cSegment[][] = [];
  succeed = Infinity;
  transfer(segments: readonly I2cSegment[]): number {
    this.groups.push([...segments]);
    return Math.min(segments.length, this.succeed);
  }
}

test("a group is one transaction, and fails from the first failure on", LIMIT, async (t) => {
  const bus = new Recorder();
  const driver = await open(t, bus);
  const parts = [
    { address: 0x20, write: [1, 2] },
    { address: 0x20, read: 3 },
    { address: TEN_BIT | 0x2a5, write: [9] },
  ];
  assert.deepEqual((await driver.group(...parts)).map(({ status }) => status), [0, 0, 0]);
  assert.equal(bus.groups.length, 1);
  assert.deepEqual(
    bus.groups[0].map(({ address, reads, data }) => [address, reads, data.length]),
    [[0x20, false, 2], [0x20, true, 3], [TEN_BIT | 0x2a5, false, 1]],
  );
  bus.succeed = 1;
  const answers = await driver.group(...parts);
  assert.deepEqual(answers.map(({ status }) => status), [0, 1, 1]);
  assert.deepEqual([...answers[1].data], [0, 0, 0]);
  // The next group has nothing to do with it.
  assert.deepEqual((await driver.group(parts[0])).map(({ status }) => status), [0]);
});

test("a group whose end does not come is carried out in parts", LIMIT, async (t) => {
  const bus = new Recorder();
  const driver = await open(t, bus);
  const { requests } = driver;
  const send = async (flags: number): Promise<number> =>
    (await requests.request([packed([2, 0x40], [2, 0], [4, flags])], [1])).bytes[0];
  assert.equal(await send(FAIL_NEXT), 0);
  assert.equal(await send(0), 0);
  assert.equal(bus.groups.length, 2);
  // What has failed before fails the rest, and nothing more than that.
  bus.succeed = 0;
  assert.equal(await send(FAIL_NEXT), 1);
  bus.succeed = Infinity;
  assert.equal(await send(FAIL_NEXT), 1);
  assert.equal(await send(0), 1);
  assert.equal(bus.groups.length, 3);
  assert.equal(await send(0), 0);
});

test("a longer group than a transaction can be is cut", LIMIT, async (t) => {
  const bus = new Recorder();
  const driver = await open(t, bus);
  const parts = Array.from({ length: 60 }, (_, i) => ({ address: 0x20, write: [i] }));
  const answers = await driver.group(...parts);
  assert.ok(answers.every(({ status }) => status === 0));
  assert.ok(bus.groups.every(({ length }) => length <= 42), `${bus.groups.map(({ length }) => length)}`);
  assert.deepEqual(bus.groups.flat().map(({ data }) => data[0]), parts.map((_, i) => i));
});

test("a part that throws or gives the wrong number of bytes fails the request alone", LIMIT, async (t) => {
  const errors: unknown[] = [];
  const part: I2cPart = {
    address: 0x30,
    write: () => {
      throw new Error("smoke");
    },
    read: () => new Uint8Array(7),
  };
  const bus = new SimulatedI2cBus([part, new Lm75()], (error) => errors.push(error));
  const driver = await open(t, bus);
  assert.equal(await driver.write(0x30, 1), 1);
  assert.equal((await driver.group({ address: 0x30, read: 2 }))[0].status, 1);
  assert.equal(await driver.write(0x48, 0), 0);
  assert.match(String(errors), /smoke.*the part at 0x30 must give 2 bytes, got 7/);
  bus.unplug(part);
  bus.unplug(part);
  assert.equal(await driver.write(0x30, 1), 1);
  assert.throws(() => bus.plug(new Lm75()), /there is a part at 0x48 already/);
  assert.throws(() => bus.plug(new Lm75(0x78)), /0x08 to 0x77/);
  assert.throws(() => new Eeprom({ size: 100 }), /power of two/);
  assert.throws(() => new Eeprom({ size: 512, addressBytes: 1 }), /128 to 256 with 1/);
  assert.throws(() => new Eeprom({ pageSize: 3 }), /pageSize/);
});

test("a driver without the feature that must be is refused", LIMIT, async (t) => {
  const scene = await Scene.open(t, new I2cDevice({ bus: new SimulatedI2cBus() }));
  await assert.rejects(RequestDriver.connect(t, scene.path, { deviceFeatures: 0n }));
  await scene.log.problem(/ZERO_LENGTH_REQUEST/);
});

test("addresses are read as the specification's table has them", LIMIT, () => {
  for (let address = 0; address < 0x78; address++) assert.equal(decodeAddress(encoded(address)), address);
  for (let address = TEN_BIT; address < TEN_BIT + 0x400; address++) {
    assert.equal(decodeAddress(encoded(address)), address);
  }
  for (const none of [0x0001, 0x0100, 0x12a1, 0xff00, 0x00f8]) {
    const address = decodeAddress(none);
    assert.ok(address === -1 || address === none >> 1, `${none}: ${address}`);
  }
});

test("no request, however odd, does harm", { timeout: 60_000 }, async (t) => {
  const errors: unknown[] = [];
  const eeprom = new Eeprom();
  const driver = await open(
    t,
    new SimulatedI2cBus([eeprom, new Lm75()], (error) => errors.push(error)),
    errors,
  );
  const address = fc.oneof(fc.constantFrom(0xa0, 0x90), fc.integer({ min: 0, max: 0xffff }));
  const flags = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 0xffff_ffff }));
  const head = fc.oneof(
    fc.tuple(address, flags).map(([addr, flags]) => packed([2, addr], [2, 0], [4, flags])),
    fc.uint8Array({ maxLength: 12 }),
  );
  const one = fc.tuple(
    head,
    fc.uint8Array({ maxLength: 20 }),
    fc.array(fc.integer({ min: 1, max: 70_000 }), { maxLength: 3 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 4 }), async (requests) => {
      const answers = await Promise.all(
        requests.filter(([head, data, room]) => head.length + data.length + room.length > 0)
          .map(([head, data, room]) => driver.requests.request([head, data], room)),
      );
      answers.forEach(checkAnswer);
    }),
    { seed: 34, numRuns: 150 },
  );
  assert.deepEqual(errors, []);
  // The last one may have been a part of a group that fails to its end.
  await driver.write(0x50);
  assert.equal(await driver.write(0x50, 0, 0x5a), 0);
  assert.equal(eeprom.data[0], 0x5a);
});

function checkAnswer({ written, bytes }: Returned): void {
  assert.equal(written, bytes.length);
  if (bytes.length > 0) assert.ok(bytes[bytes.length - 1] <= 1, "a status");
}
