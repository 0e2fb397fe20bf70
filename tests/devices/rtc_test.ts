import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  monotonicClock,
  type RtcClock,
  RtcClockType,
  RtcDevice,
  RtcMessage,
  RtcSmearing,
  SimulatedClock,
  smearedUtcClock,
  taiClock,
  utcClock,
} from "../../src/devices/rtc/mod.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { packed, RequestDriver, type Returned, UNTOUCHED } from "./request_driver.ts";

const { READ, READ_CROSS, CFG, CLOCK_CAP, CROSS_CAP, READ_ALARM, SET_ALARM, SET_ALARM_ENABLED } = RtcMessage;
const OK = 0;
const EOPNOTSUPP = 2;
const ENODEV = 3;
const EINVAL = 4;
const EIO = 5;

class Driver {
  readonly requests: RequestDriver;
  constructor(requests: RequestDriver) {
    this.requests = requests;
  }

  /** Sends a request: what follows its head, and bytes of the answer. */
  async ask(
    type: number,
    fields: readonly (readonly [1 | 2 | 4 | 8, number | bigint])[],
    size: number,
  ): Promise<{ status: number; view: DataView }> {
    const { written, bytes } = await this.requests.request([packed([2, type], [2, 0], [4, 0], ...fields)], [
      size,
    ]);
    assert.equal(written, size);
    assert.ok(bytes.subarray(1, 8).every((byte) => byte === 0));
    return { status: bytes[0], view: new DataView(bytes.buffer, bytes.byteOffset + 8, size - 8) };
  }

  async read(clock: number): Promise<bigint> {
    const { status, view } = await this.ask(READ, [[2, clock], [2, 0], [4, 0]], 16);
    assert.equal(status, OK);
    return view.getBigUint64(0, true);
  }

  /** Sets an alarm. */
  async alarm(clock: number, time: bigint, flags = 1): Promise<number> {
    return (await this.ask(SET_ALARM, [[8, time], [2, clock], [1, flags], [1, 0], [4, 0]], 8)).status;
  }

  /** Waits for an alarm; returns the clock. */
  async expiry(): Promise<number> {
    const { written, bytes } = await this.requests.request([], [16], 1);
    assert.equal(written, 16);
    assert.deepEqual([...bytes], [0, 0x20, 0, 0, 0, 0, 0, 0, bytes[8], bytes[9], 0, 0, 0, 0, 0, 0]);
    return bytes[8] | bytes[9] << 8;
  }
}

async function open(
  t: Scope,
  clocks?: readonly RtcClock[],
  options: { features?: bigint; errors?: unknown[] } = {},
): Promise<{ driver: Driver; scene: Scene }> {
  const { features = 1n, errors = [] } = options;
  const scene = await Scene.open(t, new RtcDevice({ clocks, onError: (error) => errors.push(error) }));
  const requests = await RequestDriver.connect(t, scene.path, { queues: 2, deviceFeatures: features });
  return { driver: new Driver(requests), scene };
}

test("this machine's clocks are read", LIMIT, async (t) => {
  const { driver } = await open(t);
  const { status, view } = await driver.ask(CFG, [], 16);
  assert.deepEqual([status, view.getUint16(0, true)], [OK, 4]);
  const kinds: number[][] = [];
  for (let clock = 0; clock < 4; clock++) {
    const { view } = await driver.ask(CLOCK_CAP, [[2, clock], [2, 0], [4, 0]], 16);
    kinds.push([view.getUint8(0), view.getUint8(1), view.getUint8(2)]);
  }
  assert.deepEqual(kinds, [[0, 0, 1], [3, 0, 1], [1, 0, 0], [2, 0, 0]]);
  const before = BigInt(Date.now()) * 1_000_000n;
  const readings = [await driver.read(0), await driver.read(1), await driver.read(2) - 37_000_000_000n];
  const after = BigInt(Date.now() + 1) * 1_000_000n;
  for (const reading of readings) {
    assert.ok(reading >= before && reading <= after, `${before} ${reading} ${after}`);
  }
  const first = await driver.read(3);
  assert.ok(await driver.read(3) >= first);
});

test("a simulated clock shows what it is set to", LIMIT, async (t) => {
  const date = new Date("2030-12-31T23:59:50Z");
  const still = new SimulatedClock(RtcClockType.TAI, date);
  const fast = new SimulatedClock(RtcClockType.UTC, 0n, 1e6);
  const { driver } = await open(t, [still, fast]);
  const start = BigInt(date.getTime()) * 1_000_000n;
  assert.equal(await driver.read(0), start);
  still.advance(-0.5);
  assert.equal(await driver.read(0), start - 500_000_000n);
  const first = await driver.read(1);
  await aWhile();
  assert.ok(await driver.read(1) - first > 20_000_000_000n, "30 ms are 30 000 s");
  assert.throws(() => new SimulatedClock(RtcClockType.UTC, 0n, -1), /rate/);
});

test("alarms go off when the clock comes to them, and not without", LIMIT, async (t) => {
  const clock = new SimulatedClock(RtcClockType.UTC_SMEARED, 1000n);
  const { driver } = await open(t, [monotonicClock(), clock]);
  const told: number[] = [];
  void driver.expiry().then((number) => told.push(number));
  assert.equal(await driver.alarm(1, 5000n), OK);
  const { view } = await driver.ask(READ_ALARM, [[2, 1], [2, 0], [4, 0]], 24);
  assert.deepEqual([view.getBigUint64(0, true), view.getUint8(8)], [5000n, 1]);
  clock.set(4999n);
  await aWhile();
  assert.equal(told.length, 0);
  clock.set(5000n);
  await eventually("the alarm", () => told.length === 1);
  assert.equal(told[0], 1);
  // Past it, it does not go off again; back before it, it does.
  void driver.expiry().then((number) => told.push(number));
  clock.set(6000n);
  await aWhile();
  assert.equal(told.length, 1);
  clock.set(1n);
  clock.set(7000n);
  await eventually("the alarm again", () => told.length === 2);
  // Without a buffer it waits for one; disabled it does not.
  clock.set(1n);
  clock.set(7000n);
  assert.equal(await driver.expiry(), 1);
  clock.set(1n);
  clock.set(7000n);
  assert.equal((await driver.ask(SET_ALARM_ENABLED, [[2, 1], [1, 0], [1, 0], [4, 0]], 8)).status, OK);
  void driver.expiry().then((number) => told.push(number));
  await aWhile();
  assert.equal(told.length, 2);
  // Enabled when its time has passed, it goes off at once.
  assert.equal((await driver.ask(SET_ALARM_ENABLED, [[2, 1], [1, 1], [1, 0], [4, 0]], 8)).status, OK);
  await eventually("the alarm at once", () => told.length === 3);
});

test("an alarm of a clock that goes by itself", LIMIT, async (t) => {
  const { driver } = await open(t, [utcClock()]);
  const now = await driver.read(0);
  const expiry = driver.expiry();
  assert.equal(await driver.alarm(0, now + 120_000_000n), OK);
  assert.equal(await expiry, 0);
  const late = await driver.read(0) - now;
  assert.ok(late >= 120_000_000n, `${late} ns`);
});

test("a reset ends alarms", LIMIT, async (t) => {
  const clock = new SimulatedClock(RtcClockType.UTC, 0n);
  const scene = await Scene.open(t, new RtcDevice({ clocks: [clock] }));
  const requests = await RequestDriver.connect(t, scene.path, { queues: 2, deviceFeatures: 1n });
  const driver = new Driver(requests);
  await driver.alarm(0, 1000n);
  await requests.frontEnd.resetDevice();
  clock.set(2000n);
  for (let i = 0; i < 2; i++) requests.queues[i] = await requests.frontEnd.startQueue(i, requests.memory);
  await requests.frontEnd.driverOk();
  const { view } = await driver.ask(READ_ALARM, [[2, 0], [2, 0], [4, 0]], 24);
  assert.deepEqual([view.getBigUint64(0, true), view.getUint8(8)], [0n, 0]);
});

test("a clock that knows a counter gives both", LIMIT, async (t) => {
  const clock: RtcClock = {
    ...utcClock(),
    smearing: RtcSmearing.UTC_SLS,
    cross: (counter) => counter === 1 ? { reading: 7n, cycles: 8n } : undefined,
  };
  const { driver } = await open(t, [clock, taiClock(), smearedUtcClock(RtcSmearing.UTC_SLS)]);
  const ask = (type: number, clock: number, counter: number, size: number) =>
    driver.ask(type, [[2, clock], [1, counter], [1, 0], [4, 0]], size);
  const { view } = await ask(READ_CROSS, 0, 1, 24);
  assert.deepEqual([view.getBigUint64(0, true), view.getBigUint64(8, true)], [7n, 8n]);
  assert.equal((await ask(CROSS_CAP, 0, 1, 16)).view.getUint8(0), 1);
  assert.equal((await ask(CROSS_CAP, 1, 1, 16)).view.getUint8(0), 0);
  assert.equal((await ask(CROSS_CAP, 0, 0, 16)).view.getUint8(0), 0);
  assert.equal((await ask(CROSS_CAP, 0, 5, 16)).status, EOPNOTSUPP);
  assert.equal((await ask(CROSS_CAP, 0, 0xff, 16)).status, EINVAL);
  assert.equal((await ask(READ_CROSS, 1, 1, 24)).status, EOPNOTSUPP);
  // How it smears is said of a clock of that type alone.
  assert.equal((await ask(CLOCK_CAP, 0, 0, 16)).view.getUint8(1), 0);
  assert.equal((await ask(CLOCK_CAP, 2, 0, 16)).view.getUint8(1), RtcSmearing.UTC_SLS);
});

test("requests that cannot be have the status of the specification", LIMIT, async (t) => {
  const errors: unknown[] = [];
  const broken: RtcClock = {
    ...utcClock(),
    read: () => {
      throw new Error("stopped");
    },
  };
  const { driver } = await open(t, [utcClock(), monotonicClock(), broken], { errors });
  assert.equal((await driver.ask(0x7777, [], 8)).status, EOPNOTSUPP);
  assert.equal((await driver.ask(READ, [[2, 3], [2, 0], [4, 0]], 16)).status, ENODEV);
  assert.equal(await driver.alarm(3, 0n), ENODEV);
  assert.equal(await driver.alarm(1, 0n), EOPNOTSUPP);
  assert.equal(await driver.alarm(0, 0n, 2), EINVAL);
  assert.equal((await driver.ask(READ, [[2, 2], [2, 0], [4, 0]], 16)).status, EIO);
  assert.match(String(errors), /stopped/);
  const { requests } = driver;
  const read = packed([2, READ], [2, 0], [4, 0], [2, 0], [2, 0], [4, 0]);
  for (
    const [bytes, room] of [
      [read.subarray(0, 15), 16],
      [read, 15],
      [read.subarray(0, 1), 16],
      [read, 1],
    ] as const
  ) assert.equal((await requests.request([bytes], [room])).bytes[0], EINVAL, `${bytes.length} ${room}`);
  // What is longer than it needs to be is fine.
  const long = await requests.request([read, new Uint8Array(9)], [30]);
  assert.deepEqual([long.written, long.bytes[0], long.bytes[16]], [16, OK, UNTOUCHED]);
  assert.equal((await requests.request([read], [])).written, 0);
});

test("without the feature there are no alarms", LIMIT, async (t) => {
  const { driver } = await open(t, undefined, { features: 0n });
  assert.equal(await driver.alarm(0, 0n), EOPNOTSUPP);
  assert.equal((await driver.ask(CLOCK_CAP, [[2, 0], [2, 0], [4, 0]], 16)).view.getUint8(2), 0);
  assert.throws(() => new RtcDevice({ clocks: new Array(0x10000).fill(utcClock()) }), /65535 clocks/);
});

test("no request, however odd, does harm", { timeout: 60_000 }, async (t) => {
  const errors: unknown[] = [];
  const { driver } = await open(t, undefined, { errors });
  const type = fc.oneof(fc.constantFrom(...Object.values(RtcMessage)), fc.integer({ min: 0, max: 0xffff }));
  const message = fc.oneof(
    fc.tuple(type, fc.uint8Array({ maxLength: 20 })).map(([type, rest]) =>
      Uint8Array.of(...packed([2, type], [2, 0], [4, 0]), ...rest)
    ),
    fc.uint8Array({ maxLength: 30 }),
  );
  await fc.assert(
    fc.asyncProperty(
      message,
      fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 3 }),
      async (bytes, room) => {
        if (bytes.length + room.length === 0) return;
        checkAnswer(await driver.requests.request([bytes], room));
      },
    ),
    { seed: 17, numRuns: 500 },
  );
  assert.deepEqual(errors, []);
  assert.ok(await driver.read(0) > 0n);
});

function checkAnswer({ written, bytes }: Returned): void {
  assert.ok(written <= 24 && (bytes.length === 0) === (written === 0));
  if (written > 0) assert.ok(bytes[0] <= 5);
  assert.ok(bytes.subarray(written).every((byte) => byte === UNTOUCHED), "nothing past the answer");
}
