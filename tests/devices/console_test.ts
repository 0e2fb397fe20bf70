import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import {
  BACKLOG_SIZE,
  ConsoleDevice,
  consoleFeatures,
  LoggedEnd,
  type PortOptions,
  PtyEnd,
  ScriptEnd,
  UnixEnd,
} from "../../src/devices/console/mod.ts";
import { WebTerminal } from "../../src/cli/web_terminal.ts";
import type { DriverQueue, FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { buffer, filled } from "../session/requests.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";

const PACKED = 1n << 34n;
const ALL = mask(...Object.values(consoleFeatures));
const MULTIPORT = mask(consoleFeatures.MULTIPORT);

/** A driver of a console, on our own front-end. */
class ConsoleDriver {
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  readonly queues: DriverQueue[] = [];
  /** What came, by port. */
  readonly received = new Map<number, Buffer[]>();
  /** Control messages: port, event, value and what follows. */
  readonly messages: [number, number, number, string][] = [];

  static async connect(
    scene: Scene,
    ports: number,
    withoutFeatures = PACKED,
    deviceFeatures = ALL,
  ): Promise<ConsoleDriver> {
    const frontEnd = await scene.frontEnd({ withoutFeatures, deviceFeatures });
    const memory = scene.memory(16 << 20);
    await frontEnd.shareMemory(memory);
    const driver = new ConsoleDriver(frontEnd, memory);
    const count = deviceFeatures & MULTIPORT ? 2 + 2 * ports : 2;
    for (let i = 0; i < count; i++) {
      driver.queues.push(await frontEnd.startQueue(i, memory, { size: 64 }));
    }
    if (count > 2) { for (let i = 0; i < 16; i++) driver.#listen(); }
    return driver;
  }

  private constructor(frontEnd: FrontEnd, memory: SharedMemory) {
    this.frontEnd = frontEnd;
    this.memory = memory;
  }

  #listen(): void {
    const piece = this.memory.allocate(300);
    void this.queues[2].request([], [buffer(piece)]).then((written) => {
      const view = new DataView(piece.bytes.buffer, piece.bytes.byteOffset);
      this.messages.push([
        view.getUint32(0, true),
        view.getUint16(4, true),
        view.getUint16(6, true),
        Buffer.from(piece.bytes.subarray(8, written)).toString("latin1"),
      ]);
      this.#listen();
    }, () => {});
  }

  async say(port: number, event: number, value: number): Promise<void> {
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setUint32(0, port, true);
    bytes.setUint16(4, event, true);
    bytes.setUint16(6, value, true);
    await this.queues[3].request([buffer(filled(this.memory, new Uint8Array(bytes.buffer)))], []);
  }

  /** Waits for messages, and takes them. */
  async hear(count: number): Promise<[number, number, number, string][]> {
    await eventually(`${count} messages; got ${this.messages.length}`, () => this.messages.length >= count);
    return this.messages.splice(0, count);
  }

  /** The driver comes up, and opens ports. */
  async up(...ports: number[]): Promise<void> {
    await this.say(0xffffffff, 0, 1);
    for (const port of ports) {
      await this.say(port, 3, 1);
      await this.say(port, 6, 1);
    }
  }

  rx(port: number): DriverQueue {
    return this.queues[port === 0 ? 0 : 2 + 2 * port];
  }

  tx(port: number): DriverQueue {
    return this.queues[port === 0 ? 1 : 3 + 2 * port];
  }

  /** Puts up buffers that come back once. */
  offer(port: number, count: number, length: number): void {
    for (let i = 0; i < count; i++) {
      const piece = this.memory.allocate(length);
      this.rx(port).request([], [buffer(piece)]).then((written) => {
        const all = this.received.get(port) ?? [];
        all.push(Buffer.from(piece.bytes.slice(0, written)));
        this.received.set(port, all);
      }, () => {});
    }
  }

  got(port: number): Buffer {
    return Buffer.concat(this.received.get(port) ?? []);
  }

  write(port: number, bytes: Uint8Array, cuts: readonly number[] = []): Promise<number> {
    const piece = filled(this.memory, bytes);
    const ends = [...cuts, bytes.length];
    let at = 0;
    return this.tx(port).request(
      ends.map((end) => {
        const part = buffer(piece, at, end - at);
        at = end;
        return part;
      }),
      [],
    );
  }
}

interface Stage {
  readonly scene: Scene;
  readonly device: ConsoleDevice;
  readonly driver: ConsoleDriver;
}

async function stage(
  t: TestContext,
  ports: PortOptions[],
  without = PACKED,
  features = ALL,
): Promise<Stage> {
  onEnd(t, () => ports.forEach(({ end }) => end.close?.()));
  const device = new ConsoleDevice({ ports });
  const scene = await Scene.open(t, device);
  const driver = await ConsoleDriver.connect(scene, ports.length, without, features);
  return { scene, device, driver };
}

/** An end that remembers. */
function memoryEnd(connected = true): { end: ScriptEnd; text: () => string; bytes: () => Buffer } {
  const parts: Buffer[] = [];
  const end = new ScriptEnd((bytes) => void parts.push(Buffer.from(bytes)), connected);
  return { end, text: () => Buffer.concat(parts).toString(), bytes: () => Buffer.concat(parts) };
}

/** A client of a Unix socket, and what it has read. */
async function client(t: TestContext, path: string): Promise<{ socket: Socket; bytes: () => Buffer }> {
  const socket = connect(path);
  onEnd(t, () => void socket.destroy());
  const parts: Buffer[] = [];
  socket.on("data", (part: Buffer) => parts.push(part));
  socket.on("error", () => {});
  await once(socket, "connect");
  return { socket, bytes: () => Buffer.concat(parts) };
}

for (const [format, without] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`ports are told of, named, opened, resized (${format})`, LIMIT, async (t) => {
    const [a, b, c] = [memoryEnd(), memoryEnd(false), memoryEnd()];
    const { driver } = await stage(t, [
      { end: a.end, console: true },
      { end: b.end, name: "org.example.agent" },
      { end: c.end, console: true, name: "spare" },
    ], without);
    c.end.resize(132, 43);
    assert.deepEqual([...await driver.frontEnd.readConfig(0, 12)], [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    await driver.say(0xffffffff, 0, 1);
    assert.deepEqual(await driver.hear(3), [[0, 1, 1, ""], [1, 1, 1, ""], [2, 1, 1, ""]]);
    for (const port of [0, 1, 2]) await driver.say(port, 3, 1);
    assert.deepEqual(await driver.hear(6), [
      [0, 4, 1, ""],
      [0, 6, 1, ""],
      [1, 7, 1, "org.example.agent"],
      [2, 4, 1, ""],
      [2, 7, 1, "spare"],
      [2, 5, 1, "\x84\0\x2b\0"],
    ]);
    assert.deepEqual(await driver.hear(1), [[2, 6, 1, ""]]);
    b.end.connect();
    assert.deepEqual(await driver.hear(1), [[1, 6, 1, ""]]);
    b.end.connect(false);
    assert.deepEqual(await driver.hear(1), [[1, 6, 0, ""]]);
    a.end.resize(80, 24);
    a.end.resize(80, 24);
    assert.deepEqual(await driver.hear(1), [[0, 5, 1, "\x50\0\x18\0"]]);
    b.end.resize(80, 24);
    await aWhile();
    assert.deepEqual(driver.messages, [], "a channel has no size");
    assert.deepEqual([...await driver.frontEnd.readConfig(0, 4)], [80, 0, 24, 0]);
    assert.throws(() => a.end.resize(0, 1), RangeError);
  });

  test(`bytes go both ways, by port (${format})`, LIMIT, async (t) => {
    const [a, b] = [memoryEnd(), memoryEnd()];
    const { driver } = await stage(t, [{ end: a.end, console: true }, { end: b.end }], without);
    await driver.up(0, 1);
    await driver.write(0, Buffer.from("hello"));
    await driver.write(1, Buffer.from("other side"), [1, 2, 5]);
    await eventually("it came", () => a.text() === "hello" && b.text() === "other side");
    driver.offer(0, 4, 3);
    driver.offer(1, 1, 100);
    await a.end.send("abcdefgh");
    await b.end.send("one");
    await eventually("it came", () => driver.got(0).length === 8 && driver.got(1).length === 3);
    assert.deepEqual(driver.received.get(0)?.map(String), ["abc", "def", "gh"]);
    assert.equal(String(driver.got(1)), "one");
  });

  test(
    `much goes both ways, and all of it, however slow either side is (${format})`,
    { timeout: 60_000 },
    async (t) => {
      const path = join(tempDir(t), "port");
      const log = join(tempDir(t), "log");
      const end = new LoggedEnd(new UnixEnd({ path }), log);
      const { driver } = await stage(t, [{ end, console: true }], without);
      await driver.up(0);
      const { socket, bytes } = await client(t, path);
      await driver.hear(3);
      // The host's side does not read: at some point the guest's buffers do not come back.
      socket.pause();
      const out = bytesOf(1, 3 << 20);
      let back = 0;
      const writes: Promise<unknown>[] = [];
      for (let at = 0; at < out.length; at += 49_152) {
        writes.push(driver.write(0, out.subarray(at, at + 49_152), [1, 4097]).then(() => back++));
      }
      await aWhile();
      const before = back;
      assert.ok(before < writes.length, `${before} of ${writes.length} are back`);
      await aWhile();
      assert.ok(back - before < 3);
      socket.resume();
      await Promise.all(writes);
      await eventually("all came", () => bytes().length === out.length);
      sameBytes(bytes(), out, "to the host");
      sameBytes(readFileSync(log), out, "the log");
      // The guest does not read: the host's side cannot write any more.
      const input = bytesOf(2, 3 << 20);
      socket.write(input);
      await aWhile();
      assert.ok(socket.writableLength > 1 << 20, "it waits with the host");
      const feed = setInterval(() => {
        if (driver.rx(0).inFlight < 16) driver.offer(0, 8, 40_000);
      }, 1);
      await eventually("all came", () => driver.got(0).length >= input.length);
      clearInterval(feed);
      sameBytes(driver.got(0), input, "to the guest");
    },
  );
}

test(
  "a driver without MULTIPORT has the first port, and its size in the configuration space",
  LIMIT,
  async (t) => {
    const a = memoryEnd();
    const { driver } = await stage(t, [{ end: a.end, console: true }], PACKED, mask(consoleFeatures.SIZE));
    await driver.write(0, Buffer.from("simple"));
    await eventually("it came", () => a.text() === "simple");
    driver.offer(0, 1, 10);
    await a.end.send("too");
    await eventually("it came", () => String(driver.got(0)) === "too");
    let changes = 0;
    driver.frontEnd.onConfigChange = () => changes++;
    a.end.resize(100, 50);
    await eventually("it is told", () => changes === 1);
    assert.deepEqual([...await driver.frontEnd.readConfig(0, 4)], [100, 0, 50, 0]);
    // A character without a ring; and a front-end that writes the whole space.
    await driver.frontEnd.writeConfig(8, Uint8Array.of(0x21, 0, 0, 0));
    await driver.frontEnd.writeConfig(0, Uint8Array.of(1, 2, 3, 4, 9, 9, 9, 9, 0x3f, 0, 0, 0));
    await driver.frontEnd.writeConfig(0, new Uint8Array(12));
    await eventually("it came", () => a.text() === "simple!?");
    assert.deepEqual([...await driver.frontEnd.readConfig(0, 12)], [100, 0, 50, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
  },
);

test("what the guest has not opened gets nothing: it waits", LIMIT, async (t) => {
  const [a, b] = [memoryEnd(), memoryEnd()];
  const { driver } = await stage(t, [{ end: a.end, console: true }, { end: b.end }]);
  await driver.up(0);
  await driver.say(1, 3, 1);
  driver.offer(1, 2, 10);
  const sent = b.end.send("early");
  await aWhile();
  assert.equal(driver.got(1).length, 0);
  await driver.say(1, 6, 1);
  await sent;
  await eventually("it came", () => String(driver.got(1)) === "early");
  await driver.say(1, 6, 0);
  void b.end.send("later");
  await aWhile();
  assert.equal(String(driver.got(1)), "early");
  assert.equal(b.end.unsent, 5);
});

test("a pause in the middle of a buffer loses nothing, and nothing comes twice", LIMIT, async (t) => {
  const parts: Buffer[] = [];
  const gates: (() => void)[] = [];
  const end = new ScriptEnd((bytes) => {
    parts.push(Buffer.from(bytes));
    return new Promise((resolve) => gates.push(resolve));
  });
  const { driver } = await stage(t, [{ end, console: true }]);
  await driver.up(0);
  const data = bytesOf(3, 200_000);
  void driver.write(0, data).catch(() => {});
  await eventually("it has begun", () => parts.length === 1);
  const tx = driver.tx(0);
  const base = await driver.frontEnd.request("GET_VRING_BASE", { index: 1, num: 0 });
  gates.shift()?.();
  await aWhile();
  assert.equal(parts.length, 1, "a ring that stands still is left alone");
  assert.deepEqual(base.value, { index: 1, num: 0 }, "the buffer is still in the ring");
  // Going on where it stood is what a front-end does after a pause.
  await driver.frontEnd.request("SET_VRING_BASE", base.value);
  await driver.frontEnd.request(
    "SET_VRING_KICK",
    { index: 1, noDescriptor: false },
    [tx.kick],
  );
  const open = setInterval(() => gates.splice(0).forEach((gate) => gate()), 1);
  await eventually("all came", () => Buffer.concat(parts).length >= data.length);
  clearInterval(open);
  await aWhile();
  sameBytes(Buffer.concat(parts), data);
});

test("of a terminal without a peer the last bytes are kept for the next one", LIMIT, async (t) => {
  const path = join(tempDir(t), "port");
  const { driver } = await stage(t, [{ end: new UnixEnd({ path }), console: true }]);
  await driver.up(0);
  const all = bytesOf(4, 200_000);
  for (let at = 0; at < all.length; at += 30_000) await driver.write(0, all.subarray(at, at + 30_000));
  const first = await client(t, path);
  await eventually("it came", () => first.bytes().length === BACKLOG_SIZE);
  await driver.write(0, Buffer.from("now"));
  await eventually("it came", () => first.bytes().length === BACKLOG_SIZE + 3);
  sameBytes(first.bytes(), Buffer.concat([all.subarray(-BACKLOG_SIZE), Buffer.from("now")]));
  // The next one waits until this one has left.
  const second = await client(t, path);
  await aWhile();
  assert.equal(second.bytes().length, 0);
  // It is read to its end before the next one's turn.
  driver.offer(0, 2, 10);
  first.socket.destroy();
  driver.messages.length = 0;
  await eventually("the guest is told", () => driver.messages.length === 2);
  assert.deepEqual(driver.messages, [[0, 6, 0, ""], [0, 6, 1, ""]]);
  await driver.write(0, Buffer.from("second"));
  await eventually("it came", () => String(second.bytes()) === "second");
});

test("a peer that sends no more can still read", LIMIT, async (t) => {
  const path = join(tempDir(t), "port");
  const { driver } = await stage(t, [{ end: new UnixEnd({ path }), console: true }]);
  await driver.up(0);
  driver.offer(0, 2, 100);
  const { socket, bytes } = await client(t, path);
  socket.end("question");
  await eventually("it came", () => String(driver.got(0)) === "question");
  await driver.write(0, Buffer.from("answer"));
  await eventually("it came", () => String(bytes()) === "answer");
  driver.messages.length = 0;
  socket.destroy();
  await eventually("the guest is told", () => driver.messages.length === 1);
});

test("a pseudo-terminal hands on every byte, to one program after the other", LIMIT, async (t) => {
  const end = new PtyEnd();
  const { driver } = await stage(t, [{ end, console: true }]);
  await driver.up(0);
  await driver.write(0, Buffer.from("kept\r\n"));
  driver.offer(0, 20, 400);
  for (const round of [0, 1]) {
    driver.messages.length = 0;
    const fd = openSync(end.path, "r+");
    await eventually(
      "it is noticed",
      () => driver.messages.some(([, event, value]) => event === 6 && value === 1),
    );
    const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const before = driver.got(0).length;
    writeSync(fd, every);
    await eventually("it came", () => driver.got(0).length === before + 256);
    sameBytes(driver.got(0).subarray(before), every);
    await driver.write(0, every);
    const room = Buffer.alloc(300);
    let length = 0;
    const expected = round === 0 ? Buffer.concat([Buffer.from("kept\r\n"), every]) : every;
    while (length < expected.length) length += readSync(fd, room, length, 300 - length, null);
    sameBytes(room.subarray(0, length), expected);
    driver.messages.length = 0;
    closeSync(fd);
    await eventually("the guest is told", () => driver.messages.length > 0);
    assert.deepEqual(driver.messages[0], [0, 6, 0, ""]);
  }
});

test("a driver begins anew", LIMIT, async (t) => {
  const a = memoryEnd();
  const { driver, device, scene } = await stage(t, [{ end: a.end, console: true, name: "x" }]);
  await driver.up(0);
  await driver.hear(4);
  await driver.frontEnd.request("RESET_DEVICE", undefined);
  assert.deepEqual(device.ports[0].state, { open: false, ready: false, taken: 0 });
  driver.frontEnd.close();
  await eventually("it has left", () => scene.server.sessions === 0);
  const next = await ConsoleDriver.connect(scene, 1);
  await next.up(0);
  assert.deepEqual(await next.hear(4), [[0, 1, 1, ""], [0, 4, 1, ""], [0, 7, 1, "x"], [0, 6, 1, ""]]);
});

test("the state moves to another console", LIMIT, async (t) => {
  const [a, b] = [memoryEnd(), memoryEnd()];
  const { driver, device } = await stage(t, [{ end: a.end, console: true }]);
  await driver.up(0);
  const keeper = device.connect({} as never).state;
  assert.ok(keeper);
  const other = new ConsoleDevice({ ports: [{ end: b.end, console: true }] });
  const target = other.connect({} as never).state;
  device.ports[0].state = { open: true, ready: true, taken: 7 };
  await target?.load(await keeper.save());
  assert.deepEqual(other.ports[0].state, { open: true, ready: true, taken: 7 });
  const load = async (text: string) => await target?.load(new TextEncoder().encode(text));
  for (
    const bad of [
      "",
      "{}",
      "[1]",
      "[]",
      '[{"open":1,"ready":true,"taken":0}]',
      '[{"open":true,"ready":true,"taken":-1}]',
    ]
  ) {
    await assert.rejects(load(bad), bad);
  }
});

test("ports that cannot be are refused", LIMIT, () => {
  const { end } = memoryEnd();
  for (
    const ports of [[], new Array(128).fill({ end }), [{ end, name: "" }], [{ end, name: "a/b" }], [
      { end, name: "ü".repeat(128) },
    ], [{ end, name: "a" }, { end, name: "a" }]]
  ) assert.throws(() => new ConsoleDevice({ ports }), RangeError);
});

test("whatever the guest says on the control ring, it costs nothing and hurts nobody", LIMIT, async (t) => {
  const a = memoryEnd();
  const { driver, scene } = await stage(t, [{ end: a.end, console: true, name: "x" }, {
    end: memoryEnd().end,
  }]);
  const message = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 2 }))
      .map((
        [port, event, value],
      ) => Uint8Array.of(port, 0, 0, 0, event, 0, value, 0)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(message, { maxLength: 10 }), async (list) => {
      for (const each of list) {
        if (each.length === 0) continue;
        assert.equal(await driver.queues[3].request([buffer(filled(driver.memory, each))], []), 0);
      }
    }),
    { seed: 3, numRuns: 60 },
  );
  // A port's buffers may be of any kind, too.
  await driver.up(0, 1);
  const piece = driver.memory.allocate(64);
  assert.equal(await driver.tx(0).request([], [buffer(piece)]), 0);
  const useless = driver.rx(0).request([buffer(piece)], []);
  driver.offer(0, 1, 4);
  await a.end.send("good");
  assert.equal(await useless, 0);
  await driver.write(0, Buffer.from("fine"));
  await eventually("it came", () => a.text().endsWith("fine"));
  assert.deepEqual(scene.log.problems, []);
});

test("messages for which a buffer is too small are left out", LIMIT, async (t) => {
  const { end } = memoryEnd();
  const device = new ConsoleDevice({ ports: [{ end, console: true, name: "a long name" }] });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd({ withoutFeatures: PACKED, deviceFeatures: ALL });
  const memory = scene.memory(1 << 16);
  await frontEnd.shareMemory(memory);
  const queues: DriverQueue[] = [];
  for (let i = 0; i < 4; i++) queues.push(await frontEnd.startQueue(i, memory, { size: 8 }));
  const written = [8, 8, 10, 8, 7].map((length) => queues[2].request([], [buffer(memory.allocate(length))]));
  const say = (...bytes: number[]) => queues[3].request([buffer(filled(memory, Uint8Array.from(bytes)))], []);
  await say(0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0);
  await say(0, 0, 0, 0, 3, 0, 1, 0);
  assert.deepEqual(await Promise.all(written.slice(0, 4)), [8, 8, 0, 8]);
  end.connect(false);
  assert.equal(await written[4], 0);
});

/** A window of a browser, as far as the server can tell. */
async function openWindow(t: TestContext, url: string): Promise<{ socket: WebSocket; bytes: () => Buffer }> {
  const socket = new WebSocket(url.replace(/#.*/, "socket").replace("http", "ws"));
  socket.binaryType = "arraybuffer";
  onEnd(t, () => socket.close());
  const parts: Buffer[] = [];
  socket.onmessage = ({ data }) => void parts.push(Buffer.from(data as ArrayBuffer));
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  return { socket, bytes: () => Buffer.concat(parts) };
}

test(
  "a browser that does not draw holds the guest up, and a guest that does not read the browser",
  LIMIT,
  async (t) => {
    const end = await WebTerminal.listen("0", "x");
    const { driver } = await stage(t, [{ end, console: true }]);
    await driver.up(0);
    await driver.hear(2);
    await driver.write(0, Buffer.from("before"));
    const window = await openWindow(t, end.url);
    await eventually("it came", () => String(window.bytes()) === "before");
    const data = bytesOf(9, 1 << 20);
    let done = false;
    void driver.write(0, data).then(() => done = true);
    await eventually("as much as it may have", () => window.bytes().length === 1 << 18);
    await aWhile();
    assert.deepEqual([window.bytes().length, done], [1 << 18, false]);
    let shown = 0;
    const draw = setInterval(() => {
      const now = window.bytes().length;
      if (now > shown) window.socket.send(JSON.stringify({ shown: now - shown }));
      shown = now;
    }, 1);
    await eventually("all came", () => done && window.bytes().length === data.length + 6);
    clearInterval(draw);
    sameBytes(window.bytes().subarray(6), data);

    window.socket.send(JSON.stringify({ size: [90, 30] }));
    await eventually(
      "the guest is told",
      () => driver.messages.some(([, event, , text]) => event === 5 && text === "Z\0\x1e\0"),
    );
    for (
      const nonsense of ["", "[", "null", '{"size":[0,1]}', '{"size":["a"]}', '{"shown":-1}', '{"shown":"x"}']
    ) {
      window.socket.send(nonsense);
    }
    const input = bytesOf(10, 4 << 20);
    for (let at = 0; at < input.length; at += 1 << 19) window.socket.send(input.subarray(at, at + (1 << 19)));
    await aWhile();
    const feed = setInterval(() => {
      if (driver.rx(0).inFlight < 16) driver.offer(0, 8, 60_000);
    }, 1);
    await eventually("all came", () => driver.got(0).length >= input.length);
    clearInterval(feed);
    sameBytes(driver.got(0), input);

    // The last 64 KiB are shown to the next window, and the one before is told why it was closed.
    const closed = new Promise<number>((resolve) => window.socket.onclose = ({ code }) => resolve(code));
    const next = await openWindow(t, end.url);
    assert.equal(await closed, 4000);
    await eventually("it came", () => next.bytes().length === BACKLOG_SIZE);
    sameBytes(next.bytes(), data.subarray(-BACKLOG_SIZE));
  },
);

test("a page of somebody else, and whoever does not know the secret, is not let in", LIMIT, async (t) => {
  const end = await WebTerminal.listen("127.0.0.1:0", "x");
  onEnd(t, () => end.close());
  const { origin, pathname, host } = new URL(end.url);
  for (
    const path of [
      "/",
      "/socket",
      `${pathname.slice(0, -2)}/`,
      `/${"0".repeat(32)}/`,
      `${pathname}../`,
      `${pathname}nothing`,
    ]
  ) {
    assert.equal((await fetch(origin + path)).status, 404, path);
  }
  const page = await fetch(origin + pathname);
  assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'/);
  assert.ok(!/https?:\/\//.test(await page.text()), "it names no other place");
  const upgrade = async (path: string, from: string): Promise<string> => {
    const socket = connect(Number(host.split(":")[1]), "127.0.0.1");
    onEnd(t, () => void socket.destroy());
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nOrigin: ${from}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    const [bytes] = await once(socket, "data");
    return String(bytes).split("\r\n")[0];
  };
  assert.match(await upgrade(`${pathname}socket`, origin), / 101 /);
  assert.match(await upgrade(`${pathname}socket`, "http://elsewhere.example"), / 403 /);
  assert.match(await upgrade(`${pathname}socket`, "null"), / 403 /);
  assert.match(await upgrade("/socket", origin), / 403 /);
  for (const wrong of ["", "x", "70000", "localhost:1", "1.2.3:1"]) {
    await assert.rejects(WebTerminal.listen(wrong, "x"), /IP address and a port/, wrong);
  }
});
