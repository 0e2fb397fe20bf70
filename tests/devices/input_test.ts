import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import {
  Abs,
  BACKLOG,
  EventType,
  InputDevice,
  Key,
  Keyboard,
  Led,
  MAX_GROUP,
  Mouse,
  Rel,
  Select,
  Tablet,
  TouchScreen,
} from "../../src/devices/input/mod.ts";
import type { DriverQueue, FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { buffer, filled } from "../session/requests.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";

const PACKED = 1n << 34n;

type Triple = [type: number, code: number, value: number];
const SYN: Triple = [0, 0, 0];

/** A driver of an input device, on our own front-end. */
class InputDriver {
  readonly got: Triple[] = [];
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly events: DriverQueue;
  readonly status: DriverQueue;

  static async connect(scene: Scene, withoutFeatures = PACKED, base = 0x1000_0000): Promise<InputDriver> {
    const frontEnd = await scene.frontEnd({ withoutFeatures });
    const memory = scene.memory(1 << 18, base);
    await frontEnd.shareMemory(memory);
    const events = await frontEnd.startQueue(0, memory, { size: 64 });
    const status = await frontEnd.startQueue(1, memory, { size: 64 });
    return new InputDriver(frontEnd, memory, events, status);
  }

  private constructor(frontEnd: FrontEnd, memory: SharedMemory, events: DriverQueue, status: DriverQueue) {
    this.frontEnd = frontEnd;
    this.memory = memory;
    this.events = events;
    this.status = status;
  }

  /** Puts up buffers that come back once. */
  offer(count: number, length = 8): void {
    for (let i = 0; i < count; i++) {
      const piece = this.memory.allocate(length);
      this.events.request([], [buffer(piece)]).then((written) => {
        if (written === 0) return;
        assert.equal(written, 8);
        const view = new DataView(piece.bytes.buffer, piece.bytes.byteOffset);
        this.got.push([view.getUint16(0, true), view.getUint16(2, true), view.getInt32(4, true)]);
      }, () => {});
    }
  }

  /** Waits for a number of events, and takes them. */
  async take(count: number): Promise<Triple[]> {
    await eventually(`${count} events; got ${this.got.length}`, () => this.got.length >= count);
    return this.got.splice(0, count);
  }

  /** Asks the configuration space. */
  async ask(select: number, subsel = 0): Promise<Uint8Array> {
    await this.frontEnd.writeConfig(0, Uint8Array.of(select, subsel));
    const config = await this.frontEnd.readConfig(0, 136);
    assert.deepEqual([...config.subarray(0, 2)], [select, subsel]);
    assert.ok(config.subarray(8 + config[2]).every((byte) => byte === 0));
    return config.slice(8, 8 + config[2]);
  }

  async say(...events: Triple[]): Promise<void> {
    const bytes = new Uint8Array(8 * events.length);
    const view = new DataView(bytes.buffer);
    events.forEach(([type, code, value], i) => {
      view.setUint16(8 * i, type, true);
      view.setUint16(8 * i + 2, code, true);
      view.setInt32(8 * i + 4, value, true);
    });
    assert.equal(await this.status.request([buffer(filled(this.memory, bytes))], []), 0);
  }
}

async function stage<T extends InputDevice>(
  t: TestContext,
  device: T,
  without = PACKED,
): Promise<{ device: T; scene: Scene; driver: InputDriver }> {
  const scene = await Scene.open(t, device);
  return { device, scene, driver: await InputDriver.connect(scene, without) };
}

const bitsOf = (bytes: Uint8Array): number[] =>
  [...bytes].flatMap((byte, at) =>
    Array.from({ length: 8 }, (_, i) => (byte >> i & 1) === 1 ? 8 * at + i : -1).filter((bit) => bit >= 0)
  );
const numbers = (bytes: Uint8Array): number[] => [...new Int32Array(bytes.buffer)];

test("a device says what it is", LIMIT, async (t) => {
  const { driver } = await stage(
    t,
    new InputDevice({
      name: "härte test",
      serial: "42",
      ids: { bus: 6, vendor: 0x627, product: 3, version: 2 },
      properties: [0, 5],
      events: new Map([[1, [1, 30, 0x14a]], [3, [0, 1]], [20, []]]),
      axes: new Map([
        [0, { min: -5, max: 5, fuzz: 1, flat: 2, resolution: 3 }],
        [1, { min: 0, max: 0x7fffffff }],
      ]),
    }),
  );
  assert.equal(new TextDecoder().decode(await driver.ask(Select.NAME)), "härte test");
  assert.equal(new TextDecoder().decode(await driver.ask(Select.SERIAL)), "42");
  assert.deepEqual(
    [...new Uint16Array((await driver.ask(Select.DEVIDS)).buffer)],
    [6, 0x627, 3, 2],
  );
  assert.deepEqual(bitsOf(await driver.ask(Select.PROP_BITS)), [0, 5]);
  assert.deepEqual(bitsOf(await driver.ask(Select.EV_BITS, 1)), [1, 30, 0x14a]);
  assert.deepEqual(bitsOf(await driver.ask(Select.EV_BITS, 3)), [0, 1]);
  assert.deepEqual([...await driver.ask(Select.EV_BITS, 20)], [0], "a type without codes is there");
  assert.deepEqual(numbers(await driver.ask(Select.ABS_INFO, 0)), [-5, 5, 1, 2, 3]);
  assert.deepEqual(numbers(await driver.ask(Select.ABS_INFO, 1)), [0, 0x7fffffff, 0, 0, 0]);
  for (const [select, subsel] of [[0, 0], [17, 2], [18, 2], [1, 1], [99, 0], [255, 255]]) {
    assert.equal((await driver.ask(select, subsel)).length, 0);
  }
  // Some front-ends write a byte at a time, or all that there is.
  await driver.frontEnd.writeConfig(0, Uint8Array.of(Select.EV_BITS));
  await driver.frontEnd.writeConfig(1, Uint8Array.of(3));
  assert.deepEqual([...(await driver.frontEnd.readConfig(0, 3))], [0x11, 3, 1]);
  const whole = new Uint8Array(136).fill(0xff);
  whole.set([Select.SERIAL, 0]);
  await driver.frontEnd.writeConfig(0, whole);
  assert.deepEqual([...(await driver.frontEnd.readConfig(0, 10))], [2, 0, 2, 0, 0, 0, 0, 0, 0x34, 0x32]);
});

test("a profile that cannot be said is refused", LIMIT, () => {
  const none = new Map<number, number[]>();
  for (
    const profile of [
      { name: "", events: none },
      { name: "a\0b", events: none },
      { name: "ü".repeat(65), events: none },
      { name: "a", events: new Map([[0, [1]]]) },
      { name: "a", events: new Map([[32, [1]]]) },
      { name: "a", events: new Map([[1, [0x300]]]) },
      { name: "a", events: new Map([[1, [1.5]]]) },
      { name: "a", events: new Map([[3, [0]]]) },
      { name: "a", events: new Map([[3, [0]]]), axes: new Map([[0, { min: 1, max: 0 }]]) },
      { name: "a", properties: [32], events: none },
    ]
  ) assert.throws(() => new InputDevice(profile), RangeError, JSON.stringify(profile));
  assert.throws(() => new TouchScreen({ slots: 0 }), RangeError);
});

for (const [format, without] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`keys arrive in groups (${format})`, LIMIT, async (t) => {
    const { device, driver } = await stage(t, new Keyboard(), without);
    driver.offer(64);
    device.tap("A", "LEFTSHIFT");
    assert.deepEqual(await driver.take(8), [
      [1, Key.LEFTSHIFT, 1],
      SYN,
      [1, Key.A, 1],
      SYN,
      [1, Key.A, 0],
      SYN,
      [1, Key.LEFTSHIFT, 0],
      SYN,
    ]);
    driver.offer(8);
    await device.type("a!\n");
    const typed = await driver.take(16);
    assert.deepEqual(
      typed.filter(([type]) => type === 1).map(([, code, value]) => value === 1 ? code : -code),
      [Key.A, -Key.A, Key.LEFTSHIFT, Key[1], -Key[1], -Key.LEFTSHIFT, Key.ENTER, -Key.ENTER],
    );
    await assert.rejects(device.type("aß"), RangeError);
    await aWhile();
    assert.deepEqual(driver.got, []);
  });
}

test("every character of ASCII that a keyboard has is typed by the right key", LIMIT, async (t) => {
  const { device, driver } = await stage(t, new Keyboard());
  const text = "\t\n\x1b" + Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join("");
  const typing = device.type(text);
  const rows: Record<string, [string, string]> = {};
  const names = Object.entries(Key);
  for (const [pair, name] of [["-_", "MINUS"], ["=+", "EQUAL"], ["[{", "LEFTBRACE"], ["]}", "RIGHTBRACE"]]) {
    rows[name] = [pair[0], pair[1]];
  }
  for (
    const [pair, name] of [[";:", "SEMICOLON"], ["'\"", "APOSTROPHE"], ["`~", "GRAVE"], ["\\|", "BACKSLASH"]]
  ) rows[name] = [pair[0], pair[1]];
  for (const [pair, name] of [[",<", "COMMA"], [".>", "DOT"], ["/?", "SLASH"]]) {
    rows[name] = [pair[0], pair[1]];
  }
  [..."1!2@3#4$5%6^7&8*9(0)"].forEach((c, i, all) => {
    if (i % 2 === 0) rows[c] = [c, all[i + 1]];
  });
  for (let i = 0; i < 26; i++) {
    const upper = String.fromCharCode(65 + i);
    rows[upper] = [upper.toLowerCase(), upper];
  }
  Object.assign(rows, { SPACE: [" ", ""], TAB: ["\t", ""], ENTER: ["\n", ""], ESC: ["\x1b", ""] });
  let typed = "";
  let shift = false;
  const feed = setInterval(() => driver.offer(8), 1);
  await typing;
  clearInterval(feed);
  const pressed = (): number =>
    driver.got.filter(([type, code, value]) => type === 1 && code !== Key.LEFTSHIFT && value === 1).length;
  await eventually("all came", () => pressed() >= text.length && driver.got.length % 2 === 0);
  for (const [type, code, value] of driver.got) {
    if (type !== 1) continue;
    if (code === Key.LEFTSHIFT) shift = value === 1;
    else if (value === 1) {
      const name = names.find(([, each]) => each === code)?.[0] ?? "";
      typed += rows[name]?.[shift ? 1 : 0] ?? "?";
    }
  }
  assert.equal(typed, text);
});

test("mouse, tablet and touch screen", LIMIT, async (t) => {
  const mouse = await stage(t, new Mouse());
  mouse.driver.offer(20);
  mouse.device.move(3, -4);
  mouse.device.move(0, 0);
  mouse.device.click("right");
  mouse.device.scroll(1, -1);
  assert.deepEqual(await mouse.driver.take(10), [
    [2, Rel.X, 3],
    [2, Rel.Y, -4],
    SYN,
    [1, Key.BTN_RIGHT, 1],
    SYN,
    [1, Key.BTN_RIGHT, 0],
    SYN,
    [2, Rel.WHEEL, 1],
    [2, Rel.HWHEEL, -1],
    SYN,
  ]);
  const tablet = await stage(t, new Tablet());
  tablet.driver.offer(3);
  tablet.device.moveTo(0, 32767);
  assert.deepEqual(await tablet.driver.take(3), [[3, Abs.X, 0], [3, Abs.Y, 32767], SYN]);
  assert.throws(() => tablet.device.moveTo(-1, 0), RangeError);
  assert.throws(() => tablet.device.moveTo(0, NaN), RangeError);

  const { device, driver } = await stage(t, new TouchScreen({ slots: 2 }));
  driver.offer(64);
  device.touch(0, 10, 20);
  device.touch(1, 30, 40);
  device.touch(0, 11, 21);
  device.lift(0);
  device.touch(1, 31, 41);
  device.lift(1);
  device.lift(1);
  const position = (slot: number, x: number, y: number): Triple[] => [
    [3, Abs.MT_SLOT, slot],
    [3, Abs.MT_POSITION_X, x],
    [3, Abs.MT_POSITION_Y, y],
  ];
  const expected: Triple[] = [
    [3, Abs.MT_SLOT, 0],
    [3, Abs.MT_TRACKING_ID, 0],
    ...position(0, 10, 20).slice(1),
    [1, Key.BTN_TOUCH, 1],
    [3, Abs.X, 10],
    [3, Abs.Y, 20],
    SYN,
    [3, Abs.MT_SLOT, 1],
    [3, Abs.MT_TRACKING_ID, 1],
    ...position(1, 30, 40).slice(1),
    SYN,
    ...position(0, 11, 21),
    [3, Abs.X, 11],
    [3, Abs.Y, 21],
    SYN,
    [3, Abs.MT_SLOT, 0],
    [3, Abs.MT_TRACKING_ID, -1],
    SYN,
    ...position(1, 31, 41),
    [3, Abs.X, 31],
    [3, Abs.Y, 41],
    SYN,
    [3, Abs.MT_SLOT, 1],
    [3, Abs.MT_TRACKING_ID, -1],
    [1, Key.BTN_TOUCH, 0],
    SYN,
  ];
  assert.deepEqual(await driver.take(expected.length), expected);
  assert.throws(() => device.touch(2, 0, 0), /slots 0 to 1/);
});

test("an event that the device does not have is refused, and its group with it", LIMIT, async (t) => {
  const { device, driver } = await stage(t, new Keyboard());
  driver.offer(8);
  const good = { type: 1, code: Key.A, value: 1 };
  for (
    const bad of [
      { type: 2, code: 0, value: 1 },
      { type: 1, code: 0x2ff, value: 1 },
      { type: 0, code: 0, value: 0 },
      { type: 1, code: Key.A, value: 2 ** 31 },
      { type: 1, code: Key.A, value: 0.5 },
    ]
  ) assert.throws(() => device.send([good, bad]), RangeError);
  assert.throws(() => device.send(new Array(MAX_GROUP).fill(good)), RangeError);
  await aWhile();
  assert.deepEqual(driver.got, []);
  device.send([{ ...good, value: 0 }]);
  assert.deepEqual(await driver.take(2), [[1, Key.A, 0], SYN]);
});

test("a guest that does not take events loses whole groups, and learns how things are", LIMIT, async (t) => {
  const { device, driver } = await stage(t, new Keyboard());
  device.press("Q");
  await eventually("the ring runs", () => driver.events.inFlight === 0);
  await aWhile();
  // The press fits, the release will not.
  device.press("A");
  for (let i = 0; i < BACKLOG; i++) device.tap("B");
  device.release("A", "Q");
  device.press("C");
  let drained = false;
  void device.drained().then(() => drained = true);
  await aWhile();
  assert.equal(drained, false);
  const held = new Set<number>();
  let taken = 0;
  let last = -1;
  while (!drained || driver.got.length > 0) {
    driver.offer(32);
    await aWhile();
    for (const [type, code, value] of driver.got.splice(0)) {
      taken++;
      last = type;
      if (type === EventType.KEY && value === 1) held.add(code);
      else if (type === EventType.KEY) held.delete(code);
    }
    assert.ok(taken <= BACKLOG + 64, "no more than the backlog and what was missed");
    if (taken > BACKLOG - 600 && driver.events.inFlight > 40) break;
  }
  assert.equal(last, EventType.SYN, "the last group is whole");
  assert.deepEqual([...held], [Key.C]);
  assert.equal(drained, true);
});

test("what is held when a driver comes is told to it; what was let go is not", LIMIT, async (t) => {
  const device = new TouchScreen();
  device.touch(0, 1, 2);
  device.touch(3, 5, 6);
  device.touch(4, 7, 8);
  device.lift(4);
  const { scene } = await stage(t, device);
  const driver = await InputDriver.connect(scene, PACKED, 0x4000_0000);
  driver.offer(30);
  const got = await driver.take(14);
  assert.deepEqual(got.at(-1), SYN);
  const fingers = new Map<string, number>();
  let slot = 0;
  for (const [type, code, value] of got) {
    if (type === 3 && code === Abs.MT_SLOT) slot = value;
    else if (type === 3) fingers.set(`${code < Abs.MT_SLOT ? "-" : slot} ${code}`, value);
  }
  assert.deepEqual(fingers.get(`0 ${Abs.MT_TRACKING_ID}`), 0);
  assert.deepEqual(fingers.get(`3 ${Abs.MT_TRACKING_ID}`), 1);
  assert.deepEqual(fingers.get(`3 ${Abs.MT_POSITION_X}`), 5);
  assert.equal(fingers.has(`4 ${Abs.MT_TRACKING_ID}`), false);
  assert.equal(slot, 4, "the slot is the current one");
});

test("a pause goes on in the middle of a group, a new driver begins with a whole one", LIMIT, async (t) => {
  const { device, driver } = await stage(t, new Mouse());
  driver.offer(2);
  device.move(1, 2);
  assert.deepEqual(await driver.take(2), [[2, 0, 1], [2, 1, 2]]);
  device.press();
  await driver.frontEnd.stopQueue(driver.events);
  device.move(9, 9);
  await driver.frontEnd.request("RESET_DEVICE", undefined);
  const events = await driver.frontEnd.startQueue(0, driver.memory, { size: 64 });
  const next = Object.assign(Object.create(InputDriver.prototype), driver, { events, got: [] });
  next.offer(8);
  assert.deepEqual(await next.take(2), [[1, Key.BTN_LEFT, 1], SYN]);
  device.move(3, 0);
  assert.deepEqual(await next.take(2), [[2, 0, 3], SYN]);
});

test("buffers too small for an event come back empty", LIMIT, async (t) => {
  const { device, driver } = await stage(t, new Mouse());
  driver.offer(3, 7);
  driver.offer(2, 20);
  device.move(5, 0);
  assert.deepEqual(await driver.take(2), [[2, 0, 5], SYN]);
});

test(
  "lights and repetition come back from the guest, and nothing that the device does not have",
  LIMIT,
  async (t) => {
    const seen: Triple[] = [];
    const device = new Keyboard({ onStatus: (...event) => seen.push(event) });
    const { driver } = await stage(t, device);
    await driver.say([EventType.LED, Led.CAPS_LOCK, 1]);
    assert.equal(device.isLit("CAPS_LOCK"), true);
    await driver.say([EventType.LED, Led.CAPS_LOCK, 0], [EventType.LED, Led.NUM_LOCK, 1], [
      EventType.REP,
      1,
      33,
    ]);
    assert.deepEqual([device.isLit("CAPS_LOCK"), device.isLit("NUM_LOCK")], [false, true]);
    await driver.say([EventType.LED, 9, 1], [EventType.KEY, Key.A, 1], [0xffff, 0xffff, -1], [
      EventType.REP,
      2,
      1,
    ]);
    assert.deepEqual(seen, [
      [17, 1, 1],
      [17, 1, 0],
      [17, 0, 1],
      [20, 1, 33],
    ]);
  },
);

test("whatever the guest sends, the device goes on", LIMIT, async (t) => {
  const { device, driver, scene } = await stage(t, new Keyboard());
  const shapes = fc.record({ out: fc.uint8Array({ maxLength: 700 }), room: fc.nat(40) });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ out, room }) => {
      const written = await driver.status.request(
        out.length > 0 ? [buffer(filled(driver.memory, out))] : [],
        room > 0 || out.length === 0 ? [buffer(driver.memory.allocate(room + 1))] : [],
      );
      assert.equal(written, 0);
    }),
    { seed: 18, numRuns: 80 },
  );
  await fc.assert(
    fc.asyncProperty(fc.nat(140), fc.uint8Array({ minLength: 1, maxLength: 116 }), async (offset, data) => {
      await driver.frontEnd.writeConfig(offset, data).catch(() => {});
      const config = await driver.frontEnd.readConfig(0, 136);
      assert.ok(config[2] <= 128);
    }),
    { seed: 19, numRuns: 80 },
  );
  driver.offer(2);
  device.press("A");
  assert.deepEqual(await driver.take(2), [[1, Key.A, 1], SYN]);
  assert.deepEqual(scene.log.problems, []);
});

test(
  "whatever is sent while the guest is slow, it ends up knowing how things are",
  { timeout: 30_000 },
  async (t) => {
    const device = new TouchScreen({ slots: 3 });
    const { driver } = await stage(t, device);
    const step = fc.oneof(
      fc.record({ slot: fc.nat(2), x: fc.nat(32767), y: fc.nat(32767) }),
      fc.record({ lift: fc.nat(2) }),
      fc.record({ offer: fc.integer({ min: 1, max: 20 }) }),
    );
    const state = new Map<string, number>();
    let slot = 0;
    let run = 0;
    const apply = ([type, code, value]: Triple): void => {
      if (type === 3 && code === Abs.MT_SLOT) slot = value;
      else if (type !== 0) {
        state.set(
          `${type} ${code} ${type === 3 && code > Abs.MT_SLOT ? slot : ""}`,
          value,
        );
      }
    };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        for (const each of steps) {
          if ("offer" in each) driver.offer(each.offer);
          else if ("lift" in each) device.lift(each.lift);
          else device.touch(each.slot, each.x, each.y);
        }
        const drained = device.drained();
        let done = false;
        void drained.then(() => done = true);
        while (!done) {
          driver.offer(8);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        for (const slot of [0, 1, 2]) device.lift(slot);
        device.touch(2, ++run, 8);
        device.lift(2);
        driver.offer(40);
        await device.drained();
        // The last touch is at a place of its own, and then all fingers are up.
        await eventually("it knows", () => {
          for (const event of driver.got.splice(0)) apply(event);
          return state.get(`3 ${Abs.X} `) === run && state.get(`1 ${Key.BTN_TOUCH} `) === 0;
        });
        for (const each of [0, 1, 2]) {
          assert.ok((state.get(`3 ${Abs.MT_TRACKING_ID} ${each}`) ?? -1) === -1, `finger ${each} is up`);
        }
      }),
      { seed: 20, numRuns: 15, endOnFailure: true },
    );
  },
);
