import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  clockProtocol,
  ScmiDevice,
  type ScmiProtocol,
  ScmiSensorType,
  ScmiStatus,
  sensorProtocol,
  SimulatedScmiClock,
  SimulatedSensor,
} from "../../src/devices/scmi/mod.ts";
import { LIMIT, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { packed, RequestDriver, type Returned, UNTOUCHED } from "./request_driver.ts";

const BASE = 0x10;
const CLOCK = 0x14;
const SENSOR = 0x15;

interface Answer {
  readonly status: number;
  readonly words: number[];
  readonly bytes: Uint8Array;
}

class Driver {
  readonly requests: RequestDriver;
  #token = 0;
  constructor(requests: RequestDriver) {
    this.requests = requests;
  }

  /** Sends a command: what follows its header as words, and room for the answer behind the status. */
  async ask(
    protocol: number,
    message: number,
    parameters: readonly number[] = [],
    room = 120,
  ): Promise<Answer> {
    const header = (message | protocol << 10 | (this.#token++ & 0x3ff) << 18) >>> 0;
    const request = packed([4, header], ...parameters.map((word) => [4, word] as const));
    const { written, bytes } = await this.requests.request([request], [8 + room]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, written);
    assert.equal(view.getUint32(0, true), header);
    assert.ok(bytes.subarray(written).every((byte) => byte === UNTOUCHED));
    const status = view.getInt32(4, true);
    if (status !== 0) assert.equal(written, 8);
    return {
      status,
      words: Array.from({ length: Math.floor((written - 8) / 4) }, (_, i) => view.getUint32(8 + 4 * i, true)),
      bytes: bytes.subarray(8, written),
    };
  }
}

async function open(t: Scope, protocols: readonly ScmiProtocol[], errors: unknown[] = []): Promise<Driver> {
  const scene = await Scene.open(t, new ScmiDevice({ protocols, onError: (error) => errors.push(error) }));
  return new Driver(await RequestDriver.connect(t, scene.path, { queues: 2 }));
}

/** Text of 16 bytes. */
function text(bytes: Uint8Array, at: number): string {
  const part = bytes.subarray(at, at + 16);
  return new TextDecoder().decode(part.subarray(0, part.indexOf(0)));
}

const sensors = (): SimulatedSensor[] => [
  new SimulatedSensor("soc", 41.5),
  new SimulatedSensor("outside", -12.25),
  new SimulatedSensor("supply", 3.3, ScmiSensorType.VOLTS),
];

test("the base protocol says who is there", LIMIT, async (t) => {
  const more = [0x20, 0x21, 0x22].map((id): ScmiProtocol => ({
    id,
    version: 1,
    attributes: () => [],
    messages: {},
  }));
  const driver = await open(t, [sensorProtocol(sensors()), clockProtocol([]), ...more]);
  assert.deepEqual((await driver.ask(BASE, 0)).words, [0x2_0000]);
  assert.deepEqual((await driver.ask(BASE, 1)).words, [0x105]);
  assert.deepEqual((await driver.ask(BASE, 2, [6])).words, [0]);
  assert.equal((await driver.ask(BASE, 2, [8])).status, ScmiStatus.NOT_FOUND);
  assert.equal(text((await driver.ask(BASE, 3)).bytes, 0), "vhost-user");
  assert.deepEqual((await driver.ask(BASE, 6, [0])).words, [5, 0x2120_1415, 0x22]);
  // As many as there is room for; the rest is asked for.
  assert.deepEqual((await driver.ask(BASE, 6, [0], 8)).words, [4, 0x2120_1415]);
  assert.deepEqual((await driver.ask(BASE, 6, [4], 8)).words, [1, 0x22]);
  assert.deepEqual((await driver.ask(BASE, 6, [5])).words, [0]);
  assert.equal((await driver.ask(BASE, 6, [6])).status, ScmiStatus.INVALID_PARAMETERS);
  for (
    const [agent, number, name] of [[0, 0, "platform"], [1, 1, "guest"], [0xffff_ffff, 1, "guest"]] as const
  ) {
    const { words, bytes } = await driver.ask(BASE, 7, [agent]);
    assert.deepEqual([words[0], text(bytes, 4)], [number, name]);
  }
  assert.equal((await driver.ask(BASE, 7, [2])).status, ScmiStatus.NOT_FOUND);
  // Notifications were not offered.
  assert.equal((await driver.ask(BASE, 8, [1])).status, ScmiStatus.NOT_SUPPORTED);
});

test("sensors are described and read", LIMIT, async (t) => {
  const all = sensors();
  const driver = await open(t, [sensorProtocol(all)]);
  assert.deepEqual((await driver.ask(SENSOR, 0)).words, [0x1_0000]);
  assert.deepEqual((await driver.ask(SENSOR, 1)).words, [3, 0, 0, 0]);
  const { words, bytes } = await driver.ask(SENSOR, 3, [0]);
  assert.equal(words[0], 3);
  for (const [i, [name, type]] of [["soc", 2], ["outside", 2], ["supply", 5]].entries()) {
    const at = 1 + 7 * i;
    // The scale, -3, in five bits from bit 11.
    assert.deepEqual(words.slice(at, at + 3), [i, 0, Number(type) | 0b11101 << 11]);
    assert.equal(text(bytes, 4 * at + 12), name);
  }
  // Two at a time, one left.
  assert.deepEqual((await driver.ask(SENSOR, 3, [0], 4 + 2 * 28 + 27)).words[0], 2 | 1 << 16);
  assert.deepEqual((await driver.ask(SENSOR, 3, [2], 4 + 28)).words.slice(0, 2), [1, 2]);
  assert.equal((await driver.ask(SENSOR, 3, [4])).status, ScmiStatus.OUT_OF_RANGE);
  const read = async (sensor: number): Promise<bigint> => {
    const { bytes } = await driver.ask(SENSOR, 6, [sensor, 0]);
    return new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true);
  };
  assert.deepEqual([await read(0), await read(1), await read(2)], [41500n, -12250n, 3300n]);
  all[0].value = 50;
  assert.equal(await read(0), 50000n);
  assert.equal((await driver.ask(SENSOR, 6, [3, 0])).status, ScmiStatus.NOT_FOUND);
  assert.equal((await driver.ask(SENSOR, 6, [0, 1])).status, ScmiStatus.NOT_SUPPORTED);
});

test("clocks are described, set and switched", LIMIT, async (t) => {
  const changes: [boolean, number][] = [];
  const uart = new SimulatedScmiClock({
    name: "uart",
    rate: 1000,
    rates: { min: 1000, max: 10_000_000_000, step: 300 },
    onChange: ({ enabled, rate }) => changes.push([enabled, rate]),
  });
  const driver = await open(t, [
    clockProtocol([uart, new SimulatedScmiClock({ name: "crystal", rate: 32768, enabled: true })]),
  ]);
  assert.deepEqual((await driver.ask(CLOCK, 1)).words, [2]);
  const { words, bytes } = await driver.ask(CLOCK, 3, [1]);
  assert.deepEqual([words[0], text(bytes, 4)], [1, "crystal"]);
  assert.deepEqual((await driver.ask(CLOCK, 4, [0, 0])).words, [
    3 | 1 << 12,
    1000,
    0,
    10_000_000_000 % 2 ** 32,
    2,
    300,
    0,
  ]);
  assert.deepEqual((await driver.ask(CLOCK, 4, [1, 0])).words, [1, 32768, 0]);
  assert.equal((await driver.ask(CLOCK, 4, [0, 1])).status, ScmiStatus.OUT_OF_RANGE);
  const set = async (rate: number, flags = 0): Promise<number> => {
    assert.equal(
      (await driver.ask(CLOCK, 5, [flags, 0, rate % 2 ** 32, Math.floor(rate / 2 ** 32)])).status,
      0,
    );
    const { words: [low, high] } = await driver.ask(CLOCK, 6, [0]);
    return low + high * 2 ** 32;
  };
  assert.equal(await set(1599), 1300);
  assert.equal(await set(1301, 4), 1600);
  assert.equal(await set(1449, 8), 1300);
  assert.equal(await set(1451, 8), 1600);
  assert.equal(await set(1), 1000);
  assert.equal(await set(2 ** 52), 10_000_000_000);
  assert.equal((await driver.ask(CLOCK, 7, [0, 1])).status, 0);
  assert.ok(uart.enabled);
  assert.equal(changes.length, 7);
  assert.equal((await driver.ask(CLOCK, 7, [0, 2])).status, ScmiStatus.INVALID_PARAMETERS);
  assert.equal((await driver.ask(CLOCK, 5, [1, 0, 0, 0])).status, ScmiStatus.NOT_SUPPORTED);
  for (const message of [3, 6]) {
    assert.equal((await driver.ask(CLOCK, message, [2])).status, ScmiStatus.NOT_FOUND);
  }
});

test("what goes wrong has a status", LIMIT, async (t) => {
  const errors: unknown[] = [];
  const broken: ScmiProtocol = {
    id: 0x80,
    version: 1,
    attributes: () => [],
    messages: {
      3: () => {
        throw new Error("smoke");
      },
      4: () => ["a text", 1n, 2],
    },
  };
  const sensor = {
    name: "fan",
    type: 1,
    scale: 0,
    read: () => {
      throw new Error("stuck");
    },
  };
  const driver = await open(t, [broken, sensorProtocol([sensor])], errors);
  assert.equal((await driver.ask(0x80, 3)).status, ScmiStatus.GENERIC_ERROR);
  assert.equal((await driver.ask(0x80, 4, [], 27)).status, ScmiStatus.GENERIC_ERROR, "no room");
  assert.equal((await driver.ask(0x80, 4, [], 28)).bytes.length, 28);
  assert.equal((await driver.ask(SENSOR, 6, [0, 0])).status, ScmiStatus.HARDWARE_ERROR);
  assert.match(String(errors), /smoke.*28 bytes, and room for 27.*fan: stuck/);
  assert.equal((await driver.ask(SENSOR, 6, [0])).status, ScmiStatus.PROTOCOL_ERROR, "cut off");
  assert.equal((await driver.ask(0x81, 0)).status, ScmiStatus.NOT_SUPPORTED);
  assert.equal((await driver.ask(SENSOR, 5)).status, ScmiStatus.NOT_SUPPORTED);
  assert.equal(
    (await driver.ask(0x80, 3, new Array(300).fill(0))).status,
    ScmiStatus.PROTOCOL_ERROR,
    "too long",
  );
  // No command: a notification of the driver's.
  const { bytes } = await driver.requests.request([packed([4, 3 << 8 | SENSOR << 10])], [8]);
  assert.equal(new DataView(bytes.buffer, bytes.byteOffset).getInt32(4, true), ScmiStatus.NOT_SUPPORTED);
  assert.equal((await driver.requests.request([packed([4, SENSOR << 10])], [7])).written, 0);
  assert.equal((await driver.requests.request([Uint8Array.of(1, 2, 3)], [8])).written, 0);
});

test("what cannot be is not made", LIMIT, () => {
  assert.throws(() => sensorProtocol([new SimulatedSensor("much too long a name", 0)]), /1 to 15 ASCII/);
  assert.throws(() => new SimulatedScmiClock({ name: "x", rate: 1.5 }), /whole numbers/);
  assert.throws(
    () => new SimulatedScmiClock({ name: "x", rate: 5, rates: { min: 6, max: 7, step: 1 } }),
    /min <= rate/,
  );
  const twice = [clockProtocol([]), clockProtocol([])];
  assert.throws(() => new ScmiDevice({ protocols: twice }), /0x14/);
});

test("no command, however odd, does harm", { timeout: 60_000 }, async (t) => {
  const errors: unknown[] = [];
  const clock = new SimulatedScmiClock({ name: "c", rate: 1, rates: { min: 1, max: 100, step: 7 } });
  const driver = await open(t, [sensorProtocol(sensors()), clockProtocol([clock])], errors);
  const word = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 0xffff_ffff }));
  const header = fc.oneof(
    fc.tuple(fc.constantFrom(BASE, CLOCK, SENSOR), fc.integer({ min: 0, max: 9 })).map(([id, message]) =>
      message | id << 10
    ),
    word,
  );
  const message = fc.oneof(
    fc.tuple(header, fc.array(word, { maxLength: 5 })).map(([header, words]) =>
      packed([4, header], ...words.map((word) => [4, word] as const))
    ),
    fc.uint8Array({ maxLength: 30 }),
  );
  await fc.assert(
    fc.asyncProperty(
      message,
      fc.array(fc.integer({ min: 1, max: 80 }), { maxLength: 3 }),
      async (bytes, room) => {
        if (bytes.length + room.length === 0) return;
        checkAnswer(await driver.requests.request([bytes], room));
      },
    ),
    { seed: 32, numRuns: 600 },
  );
  assert.deepEqual(errors.filter((error) => !/and room for/.test(String(error))), []);
  assert.equal((await driver.ask(BASE, 0)).status, 0);
});

function checkAnswer({ written, bytes }: Returned): void {
  assert.ok(written === 0 || written >= 8);
  assert.ok(bytes.subarray(written).every((byte) => byte === UNTOUCHED), "nothing past the answer");
}
