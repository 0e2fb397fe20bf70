import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  GpioDevice,
  GpioDirection,
  GpioInterrupt,
  type GpioLevel,
  GpioLines,
  GpioMessage,
} from "../../src/devices/gpio/mod.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { packed, RequestDriver, type Returned, UNTOUCHED } from "./request_driver.ts";

const { GET_LINE_NAMES, GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ_TYPE } = GpioMessage;
const NAMES = ["button", "", "red lamp", ""];

/** A driver of GPIO lines. */
class Driver {
  readonly requests: RequestDriver;
  constructor(requests: RequestDriver) {
    this.requests = requests;
  }

  /** Returns the value; fails when the status says so. */
  async ask(type: number, line = 0, value = 0): Promise<number> {
    const { written, bytes } = await this.requests.request([packed([2, type], [2, line], [4, value])], [2]);
    assert.equal(written, 2);
    if (bytes[0] !== 0) {
      assert.deepEqual([...bytes], [1, 0]);
      throw new Error("refused");
    }
    return bytes[1];
  }

  /** Unmasks a line's interrupt; resolves with the status. */
  async event(line: number): Promise<number> {
    const { written, bytes } = await this.requests.request([packed([2, line])], [1], 1);
    assert.equal(written, 1);
    return bytes[0];
  }
}

async function open(
  t: Scope,
  lines: GpioLines = new GpioLines(NAMES),
  features = 0xff_ffffn,
): Promise<{ lines: GpioLines; scene: Scene; driver: Driver }> {
  const errors: unknown[] = [];
  const scene = await Scene.open(t, new GpioDevice({ chip: lines, onError: (error) => errors.push(error) }));
  const driver = new Driver(
    await RequestDriver.connect(t, scene.path, { queues: 2, deviceFeatures: features }),
  );
  return { lines, scene, driver };
}

/** The level while a promise is pending: whether it has settled after a while. */
async function pending(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = (): void => void (settled = true);
  // It may fail when the test is over.
  promise.then(settle, settle);
  await aWhile();
  return !settled;
}

test("a guest drives lines, and sees them driven", LIMIT, async (t) => {
  const { lines, driver } = await open(t);
  const changes: [number, GpioLevel][] = [];
  lines.onChange = (line, level) => changes.push([line, level]);
  for (let line = 0; line < 4; line++) {
    assert.equal(await driver.ask(GET_DIRECTION, line), GpioDirection.NONE);
  }
  // The value that is set before the direction is what the wire gets with it.
  await driver.ask(SET_VALUE, 2, 1);
  assert.equal(await driver.ask(GET_VALUE, 2), 0);
  await driver.ask(SET_DIRECTION, 2, GpioDirection.OUT);
  assert.equal(await driver.ask(GET_DIRECTION, 2), GpioDirection.OUT);
  assert.equal(await driver.ask(GET_VALUE, 2), 1);
  await driver.ask(SET_VALUE, 2, 0);
  await driver.ask(SET_VALUE, 2, 0);
  assert.deepEqual(changes, [[2, 1], [2, 0]]);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  for (const level of [1, 0, 1] as const) {
    lines.set(0, level);
    assert.equal(await driver.ask(GET_VALUE, 0), level);
  }
  // Given up, it forgets what was set.
  await driver.ask(SET_VALUE, 2, 1);
  await driver.ask(SET_DIRECTION, 2, GpioDirection.NONE);
  await driver.ask(SET_DIRECTION, 2, GpioDirection.OUT);
  assert.equal(await driver.ask(GET_VALUE, 2), 0);
});

test("the configuration space and the names say the same", LIMIT, async (t) => {
  const { driver: { requests } } = await open(t);
  const size = "button".length + "red lamp".length + 4;
  assert.deepEqual(
    [...await requests.frontEnd.readConfig(0, 8)],
    [...packed([2, 4], [2, 0], [4, size])],
  );
  const ask = packed([2, GET_LINE_NAMES], [2, 0], [4, 0]);
  const { written, bytes } = await requests.request([ask], [1 + size]);
  assert.equal(written, 1 + size);
  assert.equal(new TextDecoder().decode(bytes), "\0button\0\0red lamp\0\0");
  // Without room for all, none.
  const less = await requests.request([ask], [size]);
  assert.equal(less.written, 2);
  assert.deepEqual([...less.bytes.subarray(0, 3)], [1, 0, UNTOUCHED]);
});

test("lines without names have none", LIMIT, async (t) => {
  const { driver } = await open(t, new GpioLines(3));
  assert.deepEqual([...await driver.requests.frontEnd.readConfig(0, 8)], [3, 0, 0, 0, 0, 0, 0, 0]);
  await assert.rejects(driver.ask(GET_LINE_NAMES), /refused/);
});

test("edges interrupt, and are kept while masked", LIMIT, async (t) => {
  const { lines, driver } = await open(t);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.EDGE_RISING);
  const first = driver.event(0);
  assert.ok(await pending(first));
  lines.set(0, 1);
  assert.equal(await first, 1);
  // Masked: two more, of which one is kept.
  for (const level of [0, 1, 0, 1] as const) lines.set(0, level);
  assert.equal(await driver.event(0), 1);
  const falling = driver.event(0);
  lines.set(0, 0);
  assert.ok(await pending(falling), "a falling edge is none of its");
  lines.set(0, 1);
  assert.equal(await falling, 1);
  // Disabling forgets what is kept, and gives the buffer back.
  lines.set(0, 0);
  lines.set(0, 1);
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.NONE);
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.EDGE_BOTH);
  const both = driver.event(0);
  assert.ok(await pending(both));
  lines.set(0, 0);
  assert.equal(await both, 1);
  const last = driver.event(0);
  assert.ok(await pending(last));
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.NONE);
  assert.equal(await last, 0);
});

test("a level interrupts while it lasts and not after", LIMIT, async (t) => {
  const { lines, driver } = await open(t);
  await driver.ask(SET_DIRECTION, 1, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 1, GpioInterrupt.LEVEL_HIGH);
  const first = driver.event(1);
  assert.ok(await pending(first));
  lines.set(1, 1);
  assert.equal(await first, 1);
  assert.equal(await driver.event(1), 1, "still high");
  lines.set(1, 0);
  assert.ok(await pending(driver.event(1)), "a level is not kept");
  await driver.ask(SET_DIRECTION, 3, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 3, GpioInterrupt.LEVEL_LOW);
  assert.equal(await driver.event(3), 1);
});

test("buffers that wait for nothing come back as invalid", LIMIT, async (t) => {
  const { driver } = await open(t);
  assert.equal(await driver.event(0), 0, "not enabled");
  assert.equal(await driver.event(4), 0, "no such line");
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.EDGE_BOTH);
  const held = driver.event(0);
  assert.equal(await driver.event(0), 0, "a second one");
  assert.ok(await pending(held));
  // The line is given up.
  await driver.ask(SET_DIRECTION, 0, GpioDirection.NONE);
  assert.equal(await held, 0);
  const { requests } = driver;
  assert.deepEqual([...(await requests.request([Uint8Array.of(1)], [1], 1)).bytes], [0]);
  assert.equal((await requests.request([packed([2, 0])], [], 1)).written, 0);
});

test("a wire carries an output to another line, with its interrupt", LIMIT, async (t) => {
  const lines = new GpioLines(4);
  lines.wire(0, 1);
  const { driver } = await open(t, lines);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.OUT);
  await driver.ask(SET_DIRECTION, 1, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 1, GpioInterrupt.EDGE_BOTH);
  const event = driver.event(1);
  await driver.ask(SET_VALUE, 0, 1);
  assert.equal(await event, 1);
  assert.equal(await driver.ask(GET_VALUE, 1), 1);
});

test("requests that cannot be are refused", LIMIT, async (t) => {
  const { driver } = await open(t);
  await driver.ask(SET_DIRECTION, 2, GpioDirection.OUT);
  for (
    const [type, line, value] of [
      [0, 0, 0],
      [7, 0, 0],
      [GET_VALUE, 4, 0],
      [GET_DIRECTION, 0xffff, 0],
      [SET_DIRECTION, 0, 3],
      [SET_VALUE, 0, 2],
      [SET_IRQ_TYPE, 0, 5],
      [SET_IRQ_TYPE, 2, GpioInterrupt.EDGE_BOTH],
    ]
  ) await assert.rejects(driver.ask(type, line, value), /refused/, `${type} ${line} ${value}`);
});

test("without the feature there are no interrupts", LIMIT, async (t) => {
  const { driver } = await open(t, undefined, 0n);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  await assert.rejects(driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.EDGE_BOTH), /refused/);
});

test("a buffer that is held comes back marked when the ring stops", LIMIT, async (t) => {
  const { driver } = await open(t);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  await driver.ask(SET_IRQ_TYPE, 0, GpioInterrupt.EDGE_BOTH);
  const held = driver.event(0);
  assert.ok(await pending(held));
  const { frontEnd, queues } = driver.requests;
  await frontEnd.stopQueue(queues[1]);
  assert.equal(await held, 0);
});

test("the next guest finds the lines given up, and a chip that fails fails a request", LIMIT, async (t) => {
  const lines = new GpioLines(2);
  const errors: unknown[] = [];
  const scene = await Scene.open(t, new GpioDevice({ chip: lines, onError: (error) => errors.push(error) }));
  const first = new Driver(await RequestDriver.connect(t, scene.path, { queues: 2 }));
  await first.ask(SET_VALUE, 0, 1);
  await first.ask(SET_DIRECTION, 0, GpioDirection.OUT);
  assert.equal(lines.value(0), 1);
  first.requests.frontEnd.close();
  await eventually("the line is given up", () => lines.direction(0) === GpioDirection.NONE);
  const second = new Driver(await RequestDriver.connect(t, scene.path, { queues: 2 }));
  assert.equal(await second.ask(GET_DIRECTION, 0), GpioDirection.NONE);
  lines.setDirection = () => {
    throw new Error("a short circuit");
  };
  await assert.rejects(second.ask(SET_DIRECTION, 0, GpioDirection.OUT), /refused/);
  assert.match(String(errors.splice(0)), /a short circuit/);
});

test("lines that cannot be are not made", LIMIT, () => {
  for (
    const [names, message] of [
      [[], /1 to 65535 lines, got 0/],
      [["a", "a"], /two lines are called "a"/],
      [["ä"], /printable ASCII, got "ä"/],
      [["a\0b"], /printable ASCII/],
    ] as const
  ) assert.throws(() => new GpioDevice({ chip: new GpioLines(names) }), message);
  const lines = new GpioLines(2);
  assert.throws(() => lines.set(2, 1), /line must be 0 to 1, got 2/);
  assert.throws(() => lines.wire(1, 1), /cannot be wired to itself/);
});

test("no request, however odd, does harm", { timeout: 60_000 }, async (t) => {
  const { driver, lines } = await open(t);
  const { requests } = driver;
  const field = fc.oneof(fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 0xffff }));
  const message = fc.oneof(
    fc.tuple(field, field, field).map(([type, line, value]) => packed([2, type], [2, line], [4, value])),
    fc.uint8Array({ maxLength: 20 }),
  );
  const room = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(message, room, fc.boolean(), async (bytes, sizes, event) => {
      if (bytes.length === 0 && sizes.length === 0) return;
      const answer = requests.request([bytes], sizes, event ? 1 : 0);
      if (event) {
        // It may wait; the line's interrupt is then disabled, which ends that.
        if (bytes.length >= 2 && (bytes[0] | bytes[1] << 8) < 4) {
          await driver.ask(SET_IRQ_TYPE, bytes[0], 0);
        }
      }
      checkUnharmed(await answer);
    }),
    { seed: 41, numRuns: 400 },
  );
  lines.set(0, 1);
  await driver.ask(SET_DIRECTION, 0, GpioDirection.IN);
  assert.equal(await driver.ask(GET_VALUE, 0), 1);
});

function checkUnharmed({ written, bytes }: Returned): void {
  assert.ok(written <= bytes.length);
  assert.ok(bytes.subarray(written).every((byte) => byte === UNTOUCHED), "nothing past the answer");
}
