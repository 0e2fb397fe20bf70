import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import {
  NullOutput,
  openSoundInput,
  openSoundOutput,
  parseWav,
  type PcmParams,
  SoundDevice,
  type SoundOptions,
  type SoundOutput,
  ToneInput,
  wavHeader,
  WavInput,
  WavOutput,
} from "../../src/devices/sound/mod.ts";
import type { DriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { buffer, filled } from "../session/requests.ts";
import { bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { concat, number32, u32 } from "../session/wire.ts";

const OK = 0x8000, BAD_MSG = 0x8001, NOT_SUPP = 0x8002, IO_ERR = 0x8003;
const SET = 0x101, PREPARE = 0x102, RELEASE = 0x103, START = 0x104, STOP = 0x105;
/** Numbers of formats and rates. */
const U8 = 4, S16 = 5, FLOAT = 19, R8000 = 1, R48000 = 7;

/** What a transfer came back with. */
interface Moved {
  readonly status: number;
  readonly used: number;
  readonly data: Uint8Array;
  /** When, ms. */
  readonly at: number;
}

/** A card being served, with a driver of it. */
class Stage {
  readonly scene: Scene;
  readonly memory: SharedMemory;
  readonly queues: readonly DriverQueue[];
  readonly frontEnd: Awaited<ReturnType<Scene["frontEnd"]>>;

  static async open(t: TestContext, options: SoundOptions): Promise<Stage> {
    const scene = await Scene.open(t, new SoundDevice(options));
    const frontEnd = await scene.frontEnd();
    const memory = scene.memory(64 << 20);
    await frontEnd.shareMemory(memory);
    const queues: DriverQueue[] = [];
    for (let i = 0; i < 4; i++) queues.push(await frontEnd.startQueue(i, memory, { size: 64 }));
    await frontEnd.driverOk();
    return new Stage(scene, memory, queues, frontEnd);
  }

  constructor(
    scene: Scene,
    memory: SharedMemory,
    queues: readonly DriverQueue[],
    frontEnd: Stage["frontEnd"],
  ) {
    this.scene = scene;
    this.memory = memory;
    this.queues = queues;
    this.frontEnd = frontEnd;
  }

  /** A control request. Returns the answer, status first. */
  async control(request: Uint8Array, room = 4): Promise<Uint8Array> {
    const answer = filled(this.memory, new Uint8Array(room).fill(0xee));
    const used = await this.queues[0].request([buffer(filled(this.memory, request))], [buffer(answer)]);
    return answer.bytes.slice(0, used);
  }

  async command(code: number, stream = 0): Promise<number> {
    return number32(await this.control(u32(code, stream)));
  }

  /** SET_PARAMS. */
  async set(
    { stream = 0, size = 4000, period = 1000, features = 0, channels = 1, format = S16, rate = R48000 } = {},
  ): Promise<number> {
    const request = concat(
      u32(SET, stream, size, period, features),
      Uint8Array.of(channels, format, rate, 0),
    );
    return number32(await this.control(request));
  }

  async play(data: Uint8Array, stream = 0): Promise<Moved> {
    const { memory } = this;
    const status = filled(memory, new Uint8Array(8).fill(0xee));
    const used = await this.queues[2].request(
      [buffer(filled(memory, u32(stream))), buffer(filled(memory, data))],
      [buffer(status)],
    );
    return { status: number32(status.bytes), used, data: new Uint8Array(0), at: performance.now() };
  }

  async record(length: number, stream: number): Promise<Moved> {
    const { memory } = this;
    const data = filled(memory, new Uint8Array(length).fill(0xee));
    const status = filled(memory, new Uint8Array(8).fill(0xee));
    const used = await this.queues[3].request(
      [buffer(filled(memory, u32(stream)))],
      [buffer(data), buffer(status)],
    );
    return { status: number32(status.bytes), used, data: data.bytes.slice(), at: performance.now() };
  }

  async event(): Promise<number[]> {
    const room = filled(this.memory, new Uint8Array(8));
    await this.queues[1].request([], [buffer(room)]);
    return [number32(room.bytes), number32(room.bytes, 4)];
  }
}

/** An output that keeps everything. */
class Keeper implements SoundOutput {
  readonly said: string[] = [];
  readonly #parts: Uint8Array[] = [];

  get bytes(): Uint8Array {
    return concat(...this.#parts);
  }

  open({ format, channels, rate }: PcmParams): ReturnType<SoundOutput["open"]> {
    this.said.push(`open ${format} ${channels} ${rate}`);
    return {
      write: (bytes) => void this.#parts.push(bytes.slice()),
      pause: (paused) => void this.said.push(paused ? "pause" : "resume"),
      close: () => void this.said.push("close"),
    };
  }
}

test("a driver learns what there is", LIMIT, async (t) => {
  const stage = await Stage.open(t, { output: new NullOutput(), input: new ToneInput(100) });
  const config = await stage.frontEnd.readConfig(0, 16);
  assert.deepEqual([0, 4, 8, 12].map((at) => number32(config, at)), [0, 2, 2, 0]);
  const query = (code: number, first: number, count: number, size: number, room = 4 + count * size) =>
    stage.control(u32(code, first, count, size), room);
  const info = await query(0x100, 0, 2, 32);
  assert.equal(number32(info), OK);
  assert.deepEqual([...info.slice(4 + 24, 4 + 27)], [0, 1, 2]);
  assert.deepEqual([...info.slice(36 + 24, 36 + 27)], [1, 1, 2]);
  assert.equal(number32(info, 4 + 8), 1 << 4 | 1 << 5 | 1 << 11 | 1 << 17 | 1 << 19 | 1 << 20);
  assert.equal(number32(info, 36 + 8), 1 << 5 | 1 << 17 | 1 << 19);
  assert.equal(number32(info, 4 + 16), 0x3fff);
  const wide = await query(0x100, 1, 1, 40);
  assert.deepEqual([wide.length, wide[4 + 24], wide[4 + 39]], [44, 1, 0]);
  const maps = await query(0x200, 0, 2, 24);
  assert.deepEqual([...maps.slice(8, 12)], [0, 2, 3, 4]);
  assert.equal(number32(await query(1, 0, 0, 24)), OK, "no jacks");
  for (
    const [code, first, count, size, room] of [
      [0x100, 1, 2, 32],
      [0x100, 0, 1, 31],
      [0x100, 0xffff_ffff, 2, 32, 100],
      [0x100, 0, 2, 32, 67],
      [1, 0, 1, 24],
      [0x200, 2, 1, 24],
    ]
  ) assert.equal(number32(await query(code, first, count, size, room)), BAD_MSG);
  assert.equal(number32(await stage.control(u32(0x100, 0, 1), 40)), BAD_MSG);
  for (const code of [2, 0x300, 0x106, 0xffff_ffff]) {
    assert.equal(number32(await stage.control(u32(code, 0))), NOT_SUPP);
  }
  assert.equal(number32(await stage.control(new Uint8Array(3))), BAD_MSG);
  assert.equal(await stage.command(PREPARE, 2), BAD_MSG);
  assert.equal(await stage.queues[0].request([buffer(filled(stage.memory, u32(SET, 0)))], []), 0);
  await stage.scene.log.problem(/a control request needs 4 bytes for its answer, got 0/);
});

test("parameters that a stream does not have", LIMIT, async (t) => {
  const stage = await Stage.open(t, { output: new NullOutput(), input: new ToneInput(100) });
  assert.equal(await stage.set(), OK);
  for (
    const [params, status] of [
      [{ format: 3 }, NOT_SUPP],
      [{ format: 200 }, NOT_SUPP],
      [{ rate: 14 }, NOT_SUPP],
      [{ channels: 0 }, NOT_SUPP],
      [{ channels: 3 }, NOT_SUPP],
      [{ features: 1 }, NOT_SUPP],
      [{ features: 16 }, OK],
      [{ stream: 1, format: U8 }, NOT_SUPP],
      [{ stream: 1, format: FLOAT }, OK],
      [{ size: 0 }, BAD_MSG],
      [{ period: 0 }, BAD_MSG],
      [{ period: 3000 }, BAD_MSG],
      [{ stream: 7 }, BAD_MSG],
    ] as const
  ) assert.equal(await stage.set(params), status, JSON.stringify(params));
  assert.equal(number32(await stage.control(u32(SET, 0, 4000, 1000, 0))), BAD_MSG, "too short");
});

test("commands in the order that the specification has, and no other", LIMIT, async (t) => {
  const paths: Readonly<Record<string, readonly number[]>> = {
    none: [],
    set: [SET],
    prepared: [SET, PREPARE],
    running: [SET, PREPARE, START],
    stopped: [SET, PREPARE, START, STOP],
    released: [SET, PREPARE, RELEASE],
  };
  const allowed: Readonly<Record<string, readonly number[]>> = {
    none: [SET],
    set: [SET, PREPARE],
    prepared: [SET, PREPARE, START, RELEASE],
    running: [STOP],
    stopped: [START, RELEASE],
    released: [SET, PREPARE],
  };
  const stage = await Stage.open(t, { output: new NullOutput() });
  const act = (code: number) => code === SET ? stage.set() : stage.command(code);
  for (const [state, path] of Object.entries(paths)) {
    for (const code of [SET, PREPARE, RELEASE, START, STOP]) {
      await stage.frontEnd.resetDevice();
      const queues: DriverQueue[] = [];
      for (let i = 0; i < 4; i++) queues.push(await stage.frontEnd.startQueue(i, stage.memory, { size: 64 }));
      await stage.frontEnd.driverOk();
      Object.assign(stage, { queues });
      for (const step of path) assert.equal(await act(step), OK, state);
      assert.equal(
        await act(code) === OK,
        allowed[state].includes(code),
        `${code.toString(16)} when ${state}`,
      );
    }
  }
});

test("playing takes the time that it lasts, over a pause as well", { timeout: 30_000 }, async (t) => {
  const output = new Keeper();
  const stage = await Stage.open(t, { output });
  assert.equal(await stage.set({ channels: 2 }), OK);
  assert.equal((await stage.play(new Uint8Array(4))).status, IO_ERR, "not prepared");
  await stage.command(PREPARE);
  // Five times 400 ms: so much later than the second STOP may come before the third has been played.
  const data = bytesOf(1, 5 * 76_800);
  const moved = Array.from({ length: 5 }, (_, i) => stage.play(data.subarray(76_800 * i, 76_800 * (i + 1))));
  await sleep(150);
  assert.equal(stage.queues[2].inFlight, 5, "nothing is played before the start");
  const begin = performance.now();
  await stage.command(START);
  const first = await Promise.all(moved.slice(0, 2));
  await stage.command(STOP);
  const stopped = performance.now();
  await sleep(300);
  assert.equal(stage.queues[2].inFlight, 3, "nothing is played in a pause");
  // The pause is at least as long as this: from its answer on, until the next command.
  const paused = performance.now() - stopped;
  await stage.command(START);
  const all = [...first, ...await Promise.all(moved.slice(2))];
  all.forEach(({ status, used, at }, i) => {
    assert.deepEqual([status, used], [OK, 8]);
    const due = begin + 400 * (i + 1) + (i < 2 ? 0 : paused);
    assert.ok(at >= due - 5, `${i}: ${due - at} ms too early`);
  });
  sameBytes(output.bytes, data);
  await stage.command(STOP);
  await stage.command(RELEASE);
  assert.deepEqual(output.said, ["open S16 2 48000", "pause", "resume", "pause", "close"]);
});

test(
  "what waits is given back before the answer to RELEASE; a reset gives back as well",
  LIMIT,
  async (t) => {
    const output = new Keeper();
    const stage = await Stage.open(t, { output, input: new ToneInput(100) });
    for (const stream of [0, 1]) {
      await stage.set({ stream });
      await stage.command(PREPARE, stream);
    }
    const order: string[] = [];
    const note = (name: string) => (moved: Moved) => {
      order.push(name);
      return moved;
    };
    const waiting = [
      stage.play(new Uint8Array(96_000)).then(note("played")),
      stage.play(new Uint8Array(96_000)).then(note("played")),
      stage.record(96_000, 1).then(note("recorded")),
    ];
    await stage.command(START, 0);
    await stage.command(START, 1);
    for (const stream of [0, 1]) {
      assert.equal(await stage.command(STOP, stream), OK);
      assert.equal(await stage.command(RELEASE, stream), OK);
      order.push("released");
    }
    const moved = await Promise.all(waiting);
    assert.deepEqual(order, ["played", "played", "released", "recorded", "released"]);
    assert.deepEqual(moved.map(({ status, used }) => [status, used]), [[OK, 8], [OK, 8], [OK, 8]]);
    assert.ok(moved[2].data.every((byte) => byte === 0xee), "nothing was recorded");
    assert.deepEqual(output.said, ["open S16 1 48000", "pause", "close"]);
  },
);

test("recording takes its time, and the tone is a sine", { timeout: 20_000 }, async (t) => {
  const stage = await Stage.open(t, { input: new ToneInput(480) });
  await stage.set({ stream: 0, channels: 2, format: FLOAT });
  await stage.command(PREPARE);
  const waiting = [0, 1].map(() => stage.record(8 * 4800, 0));
  const begin = performance.now();
  await stage.command(START);
  const moved = await Promise.all(waiting);
  moved.forEach(({ status, used, data, at }, i) => {
    assert.deepEqual([status, used], [OK, 8 * 4800 + 8]);
    assert.ok(at - begin >= 100 * (i + 1) - 5);
    const samples = new Float32Array(data.buffer);
    for (let frame = 0; frame < 4800; frame++) {
      const expected = 0.5 * Math.sin(2 * Math.PI * 480 * (4800 * i + frame) / 48000);
      assert.ok(Math.abs(samples[2 * frame] - expected) < 1e-5, `frame ${frame}`);
      assert.equal(samples[2 * frame], samples[2 * frame + 1]);
    }
  });
});

test("who is too late is told so, if he wants to know", LIMIT, async (t) => {
  const stage = await Stage.open(t, { output: new NullOutput() });
  for (const features of [0, 16]) {
    await stage.set({ features, format: U8, rate: R8000 });
    await stage.command(PREPARE);
    const event = features === 0 ? undefined : stage.event();
    await stage.command(START);
    await stage.play(new Uint8Array(80));
    await sleep(150);
    await stage.play(new Uint8Array(80));
    if (event !== undefined) assert.deepEqual(await event, [0x1101, 0]);
    await stage.command(STOP);
    await stage.command(RELEASE);
  }
});

test("transfers of any length, in pieces of any length", LIMIT, async (t) => {
  const output = new Keeper();
  const stage = await Stage.open(t, { output, speed: 100 });
  await stage.set();
  await stage.command(PREPARE);
  await stage.command(START);
  const sizes = [1, 0, 2, 3, 65_535, 65_536, 65_537, 200_001, 7];
  const parts = sizes.map((size, i) => bytesOf(i, size));
  const moved = await Promise.all(parts.map((part) => stage.play(part)));
  assert.ok(moved.every(({ status }) => status === OK));
  sameBytes(output.bytes, concat(...parts));
});

test("an output that takes its time is the clock, and one that fails is an error", LIMIT, async (t) => {
  const errors: unknown[] = [];
  let how: "slow" | "rejects" | "throws" | "cannot open" = "slow";
  const output: SoundOutput = {
    open: () => {
      if (how === "cannot open") throw new Error(how);
      return {
        write: () => {
          if (how === "throws") throw new Error(how);
          if (how === "rejects") return Promise.reject(new Error(how));
          return sleep(60);
        },
        close: () => {},
      };
    },
  };
  const stage = await Stage.open(t, { output, onError: (error) => errors.push(error) });
  for (how of ["slow", "rejects", "throws", "cannot open"] as const) {
    await stage.set();
    await stage.command(PREPARE);
    const waiting = [stage.play(new Uint8Array(960)), stage.play(new Uint8Array(960))];
    const begin = performance.now();
    await stage.command(START);
    const moved = await Promise.all(waiting);
    assert.deepEqual(moved.map(({ status }) => status), how === "slow" ? [OK, OK] : [IO_ERR, IO_ERR], how);
    if (how === "slow") assert.ok(moved[1].at - begin >= 115, `${moved[1].at - begin} ms`);
    await stage.command(STOP);
    await stage.command(RELEASE);
  }
  assert.deepEqual(errors.map((error) => (error as Error).message), ["rejects", "throws", "cannot open"]);
  // Released while the output is busy.
  how = "slow";
  await stage.set();
  await stage.command(PREPARE);
  await stage.command(START);
  const waiting = stage.play(new Uint8Array(960));
  await sleep(10);
  await stage.command(STOP);
  await stage.command(RELEASE);
  assert.equal((await waiting).status, OK);
  await sleep(80);
});

test("guest memory changes while it plays: nothing is lost or heard twice", LIMIT, async (t) => {
  const output = new Keeper();
  const stage = await Stage.open(t, { output });
  await stage.set();
  await stage.command(PREPARE);
  const data = bytesOf(4, 8 * 4800);
  const moved = Array.from({ length: 8 }, (_, i) => stage.play(data.subarray(4800 * i, 4800 * (i + 1))));
  await stage.command(START);
  for (let i = 0; i < 6; i++) {
    await sleep(20);
    await stage.frontEnd.shareMemory(stage.scene.memory(4096, 0x2000_0000 + i * 65_536));
  }
  assert.ok((await Promise.all(moved)).every(({ status }) => status === OK));
  sameBytes(output.bytes, data);
});

test("the guest leaves while it plays: the output is closed", LIMIT, async (t) => {
  const output = new Keeper();
  const stage = await Stage.open(t, { output });
  await stage.set();
  await stage.command(PREPARE);
  await stage.command(START);
  const lost = assert.rejects(stage.play(new Uint8Array(96_000)));
  await eventually("it plays", () => output.bytes.length > 0);
  stage.frontEnd.close();
  await lost;
  await eventually("it is closed", () => output.said.includes("close"));
});

test(
  "whatever a driver sends, there is an answer, and nothing of ours in it",
  { timeout: 60_000 },
  async (t) => {
    const stage = await Stage.open(t, {
      output: new NullOutput(),
      input: new ToneInput(50),
      speed: 1000,
      onError: () => {},
    });
    const { memory, queues } = stage;
    const codes = fc.oneof(
      fc.constantFrom(1, 2, 0x100, SET, PREPARE, RELEASE, START, STOP, 0x200, 0x300),
      fc.integer({ min: 0, max: 0xffff_ffff }),
    );
    const word = fc.oneof(
      fc.integer({ min: 0, max: 3 }),
      fc.constantFrom(24, 32, 1000, 4000),
      fc.integer({
        min: 0,
        max: 0xffff_ffff,
      }),
    );
    const transfers = new Set<Promise<unknown>>();
    await fc.assert(
      fc.asyncProperty(
        codes,
        fc.array(word, { maxLength: 5 }),
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        fc.integer({ min: 0, max: 200 }),
        fc.integer({ min: 2, max: 3 }),
        fc.integer({ min: 0, max: 3 }),
        async (code, words, tail, room, queue, stream) => {
          const answer = filled(memory, new Uint8Array(room).fill(0xee));
          const request = concat(u32(code, ...words), tail);
          const used = await queues[0].request(
            [buffer(filled(memory, request))],
            room === 0 ? [] : [buffer(answer)],
          );
          assert.ok(used <= room);
          if (room >= 4) assert.ok([OK, BAD_MSG, NOT_SUPP].includes(number32(answer.bytes)));
          assert.ok(answer.bytes.subarray(used).every((byte) => byte === 0xee));
          const writable = filled(memory, new Uint8Array(room));
          const transfer = queues[queue].request(
            [buffer(filled(memory, concat(u32(stream), tail)))],
            room === 0 ? [] : [buffer(writable)],
          ).then((length) => assert.ok(length <= room));
          transfers.add(transfer.finally(() => transfers.delete(transfer)));
          if (transfers.size > 20) { for (const each of [0, 1]) await stage.command(STOP, each); }
          if (transfers.size > 20) { for (const each of [0, 1]) await stage.command(RELEASE, each); }
        },
      ),
      { seed: 11, numRuns: 1000 },
    );
    for (const each of [0, 1]) {
      await stage.command(STOP, each);
      await stage.command(RELEASE, each);
    }
    await eventually("all is back", () => queues[2].inFlight + queues[3].inFlight === 0);
    assert.equal(await stage.set(), OK);
  },
);

test("WAV files are written as they come, and read back", LIMIT, (t) => {
  const path = join(tempDir(t), "a.wav");
  const output = new WavOutput(path);
  const one = { format: "S16", channels: 2, rate: 44100 } as const;
  const first = output.open(one);
  first.write(Uint8Array.of(1, 2, 3, 4));
  first.close();
  const second = output.open(one);
  second.write(Uint8Array.of(5, 6, 7, 8));
  second.pause?.(true);
  const contents = (file: string) => {
    const bytes = readFileSync(file);
    const { params, offset, length } = parseWav((target, at) => bytes.copy(target, 0, at), bytes.length);
    return [params, [...bytes.subarray(offset, offset + length)]];
  };
  assert.deepEqual(contents(path), [one, [1, 2, 3, 4, 5, 6, 7, 8]]);
  second.close();
  const other = { format: "FLOAT64", channels: 1, rate: 8000 } as const;
  const third = output.open(other);
  third.write(new Uint8Array(8).fill(9));
  assert.deepEqual(
    contents(path.replace(".wav", "-2.wav")),
    [other, new Array(8).fill(9)],
    "not finished yet",
  );
  third.close();
  output.close();
  assert.equal(readFileSync(path).readUInt32LE(40), 8);

  const input = new WavInput(path);
  assert.deepEqual(input.range, { formats: ["S16"], rates: [44100], channelsMin: 2, channelsMax: 2 });
  const stream = input.open(one);
  const target = new Uint8Array(6);
  stream.read(target);
  assert.deepEqual([...target], [1, 2, 3, 4, 5, 6]);
  stream.read(target);
  assert.deepEqual([...target], [7, 8, 0, 0, 0, 0]);
  input.close();
});

test("files that are no WAV files, and texts that are no inputs", LIMIT, (t) => {
  const path = join(tempDir(t), "b.wav");
  const header = wavHeader({ format: "S16", channels: 1, rate: 8000 }, 0);
  const changed = (at: number, ...bytes: number[]) => {
    const copy = header.slice();
    copy.set(bytes, at);
    return copy;
  };
  for (
    const [bytes, said] of [
      [new Uint8Array(0), /b\.wav: it is no WAV file/],
      [header.subarray(0, 36), /it has no samples/],
      [header.subarray(0, 12), /it says no format/],
      [changed(20, 2), /kind 2 with 16 bits/],
      [changed(34, 12), /kind 1 with 12 bits/],
      [changed(22, 0), /it has 0 channels/],
      [changed(24, 1, 0), /it has 7937 frames per second|it has 1 frames per second/],
      [changed(16, 4), /its format has 4 bytes of 16/],
    ] as const
  ) {
    writeFileSync(path, bytes);
    assert.throws(() => new WavInput(path), said);
  }
  const random = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc.tuple(fc.integer({ min: 8, max: 43 }), fc.integer({ min: 0, max: 255 })).map(([at, byte]) =>
      changed(at, byte)
    ),
  );
  fc.assert(
    fc.property(random, (bytes) => {
      const read = (target: Uint8Array, at: number): number => {
        const part = bytes.subarray(at, at + target.length);
        target.set(part);
        return part.length;
      };
      try {
        const { offset, length } = parseWav(read, bytes.length);
        assert.ok(offset + length <= bytes.length);
      } catch (error) {
        assert.ok(error instanceof TypeError, `${error}`);
      }
    }),
    { seed: 5, numRuns: 2000 },
  );
  assert.throws(() => new WavInput(tempDir(t)), /is a directory; sound needs a file/);
  assert.throws(() => openSoundInput("mp3:x"), /input must be tone:HERTZ, wav:FILE or null, got "mp3:x"/);
  assert.throws(() => openSoundInput("tone:x"), /got NaN/);
  assert.throws(() => openSoundInput("tone:30000"), /got 30000/);
  assert.throws(() => openSoundOutput("wav:"), /output must be wav:FILE or null/);
  assert.throws(() => new SoundDevice({}), /an output or an input/);
  assert.throws(() => new SoundDevice({ output: new NullOutput(), speed: 0 }), /speed must be/);
  const range = { formats: ["S16"], rates: [1], channelsMin: 1, channelsMax: 1 } as const;
  assert.throws(
    () => new SoundDevice({ output: { range, open: () => new NullOutput().open() } }),
    /output\.range/,
  );
});
