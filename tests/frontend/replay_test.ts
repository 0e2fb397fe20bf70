import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { accept, listen } from "../../ffi/socket.ts";
import type { Chain, Device } from "../../mod.ts";
import {
  BackendGoneError,
  FrontEnd,
  type GuestRing,
  LostFeaturesError,
  LostRequestError,
  type SharedMemory,
  SplitDriverRing,
} from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { echoDevice } from "../features/echo.ts";
import { onEnd } from "../support/cleanup.ts";
import { echo, next, Stand } from "./stand.ts";

const { INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS, INBAND_NOTIFICATIONS } = protocolFeatures;
const PACKED = mask(ringFeatures.RING_PACKED);

/** An echo that holds back what it gets, until it is told how many to let go, the last first. */
class Holding {
  readonly device: Device;
  readonly taken: number[] = [];
  readonly #held: (() => void)[] = [];

  /** What is held at the end is released: a process does not end while somebody has promised something. */
  constructor(t: TestContext) {
    onEnd(t, () => {
      while (this.#held.length > 0) this.release();
    });
    this.device = echoDevice({
      queues: [(chain: Chain) =>
        new Promise<void>((resolve) => {
          this.taken.push(chain.readable.getUint8(0));
          this.#held.push(() => {
            chain.write(chain.read());
            resolve();
          });
        })],
    });
  }

  release(): void {
    this.#held.pop()?.();
  }
}

for (const packed of [false, true]) {
  const format = packed ? "packed" : "split";
  for (const recorded of [true, false]) {
    test(
      `${format}: requests complete out of order before the back-end dies, and the others after, in order: ` +
        (recorded ? "recorded" : "submitted again"),
      LIMIT,
      async (t) => {
        const stand = new Stand(t);
        const first = new Holding(t);
        await stand.serve(first.device);
        const frontEnd = await stand.frontEnd({
          withoutFeatures: packed ? 0n : PACKED,
          withoutProtocolFeatures: recorded ? 0n : mask(INFLIGHT_SHMFD),
        });
        const memory = stand.memory();
        await frontEnd.shareMemory(memory);
        assert.equal(await frontEnd.recordInflight(1, 8), recorded);
        const queue = await frontEnd.startQueue(0, memory, { size: 8, resubmit: true });
        const done: number[] = [];
        const all = [1, 2, 3, 4].map((value) => echo(queue, memory, value).then(() => done.push(value)));
        await eventually("all are taken", () => first.taken.length === 4);
        first.release();
        await eventually("the last came back", () => done.length === 1);
        assert.deepEqual(done, [4]);
        stand.close();
        // The ring has room: what is sent while nobody is there waits in it.
        const late = echo(queue, memory, 5);
        const second = new Holding(t);
        await stand.serve(second.device);
        await eventually("the others are taken again", () => second.taken.length === 4);
        assert.deepEqual(second.taken, [1, 2, 3, 5]);
        for (let i = 0; i < 4; i++) second.release();
        await Promise.all([...all, late]);
        await Promise.all([6, 7].map(async (value) => {
          const sent = echo(queue, memory, value);
          await eventually("it is taken", () => second.taken.includes(value));
          second.release();
          await sent;
        }));
        assert.equal(queue.inFlight, 0);
      },
    );
  }

  test(`${format}: what may not be done twice fails, and the ring goes on`, LIMIT, async (t) => {
    const stand = new Stand(t);
    const first = new Holding(t);
    await stand.serve(first.device);
    const frontEnd = await stand.frontEnd({ withoutFeatures: packed ? 0n : PACKED });
    const memory = stand.memory();
    await frontEnd.shareMemory(memory);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    const lost = [1, 2].map((value) => assert.rejects(echo(queue, memory, value), LostRequestError));
    await eventually("both are taken", () => first.taken.length === 2);
    stand.close();
    await stand.serve(echoDevice());
    await Promise.all(lost);
    for (let value = 3; value < 30; value++) await echo(queue, memory, value);
  });
}

for (const slots of [true, false]) {
  test(`memory comes back, and not what was taken away: ${slots ? "slots" : "a table"}`, LIMIT, async (t) => {
    const stand = new Stand(t);
    await stand.serve(echoDevice());
    const names: string[] = [];
    const frontEnd = await stand.frontEnd({
      withoutProtocolFeatures: slots ? 0n : mask(CONFIGURE_MEM_SLOTS),
      tap: (direction, { name }) => void (direction === "out" && names.push(name)),
    });
    const [a, b, c] = [1, 2, 3].map((i) => stand.memory(1 << 16, i * 0x1000_0000));
    for (const each of [a, b, c]) await frontEnd.shareMemory(each);
    await frontEnd.unshareMemory(b);
    await assert.rejects(frontEnd.unshareMemory(b), /not shared/);
    const queue = await frontEnd.startQueue(0, a, { size: 4, resubmit: true });
    await echo(queue, c, 1);
    names.length = 0;
    const back = next(frontEnd, "onReconnect");
    await stand.serve(echoDevice());
    await back;
    await echo(queue, c, 2);
    assert.deepEqual(
      names.filter((name) => name.includes("MEM")),
      slots ? ["GET_MAX_MEM_SLOTS", "ADD_MEM_REG", "ADD_MEM_REG"] : ["SET_MEM_TABLE"],
    );
    const lost = queue.request([{ guestAddress: b.guestAddress, length: 8 }], []);
    await assert.rejects(lost, /broken/);
    await stand.log.problem(/not in guest memory/);
  });
}

/** A device with eight bytes of configuration; all of them can be written. */
function configured(bytes: Uint8Array, more = {}): Device {
  return echoDevice({
    config: { read: () => bytes, write: (offset, data) => bytes.set(data, offset) },
    ...more,
  });
}

test("written configuration comes back; what else has changed is told", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(configured(new Uint8Array(8)));
  const frontEnd = await stand.frontEnd();
  await frontEnd.writeConfig(2, Uint8Array.of(7));
  await frontEnd.writeConfig(2, Uint8Array.of(9));
  assert.deepEqual([...await frontEnd.readConfig(0, 8)], [0, 0, 9, 0, 0, 0, 0, 0]);
  let changes = 0;
  frontEnd.onConfigChange = () => void changes++;

  const same = new Uint8Array(8);
  let back = next(frontEnd, "onReconnect");
  await stand.serve(configured(same));
  await back;
  assert.deepEqual([...same], [0, 0, 9, 0, 0, 0, 0, 0]);
  assert.equal(changes, 0);

  back = next(frontEnd, "onReconnect");
  await stand.serve(configured(new Uint8Array(8).fill(1)));
  await back;
  assert.equal(changes, 1);
  assert.deepEqual([...await frontEnd.readConfig(0, 4)], [1, 1, 9, 1]);
});

test("messages wait for the next back-end", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(configured(new Uint8Array(8).fill(1)));
  const frontEnd = await stand.frontEnd();
  const gone = next(frontEnd, "onDisconnect");
  stand.close();
  await gone;
  const answers = Promise.all([
    frontEnd.readConfig(0, 2),
    frontEnd.request("GET_QUEUE_NUM", undefined),
    frontEnd.shareMemory(stand.memory()),
  ]);
  assert.equal(frontEnd.connected, false);
  await stand.serve(configured(new Uint8Array(8).fill(2)));
  const [config, { value }] = await answers;
  assert.deepEqual([...config], [2, 2]);
  assert.equal(value, 1n);
});

test("a back-end that offers less than is in use is refused, and requests fail", LIMIT, async (t) => {
  for (
    const [less, named] of [
      [configured(new Uint8Array(8)), /lacks what is in use: bit 5/],
      [echoDevice({ features: mask(5) }), /lacks what is in use: CONFIG/],
    ] as const
  ) {
    const stand = new Stand(t);
    const holding = new Holding(t);
    await stand.serve(configured(new Uint8Array(8), { ...holding.device.definition, features: mask(5) }));
    const frontEnd = await stand.frontEnd({ deviceFeatures: mask(5) });
    const memory = stand.memory();
    await frontEnd.shareMemory(memory);
    await frontEnd.recordInflight(1, 8);
    const queue = await frontEnd.startQueue(0, memory, { size: 8 });
    const lost = assert.rejects(echo(queue, memory, 1), named);
    await eventually("it is taken", () => holding.taken.length === 1);
    const ended = next(frontEnd, "onEnd");
    await stand.serve(less);
    const reason = await ended;
    assert.ok(reason instanceof LostFeaturesError);
    assert.match(reason.message, named);
    await lost;
    await assert.rejects(frontEnd.request("GET_QUEUE_NUM", undefined), named);
    await assert.rejects(echo(queue, memory, 2), named);
  }
});

test("a back-end that refuses what it is told again is not asked twice", LIMIT, async (t) => {
  const stand = new Stand(t);
  const two = [(chain: Chain) => chain.write(chain.read()), (chain: Chain) => chain.write(chain.read())];
  await stand.serve(echoDevice({ queues: two }));
  const frontEnd = await stand.frontEnd();
  const memory = stand.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.startQueue(1, memory, { size: 8 });
  const ended = next(frontEnd, "onEnd");
  await stand.serve(echoDevice());
  assert.match(String(await ended), /SET_VRING_NUM: the peer answered failure/);
  await stand.log.problem(/ring must be 0 to 0, got 1/);
});

test("patience ends, also with one who answers nothing", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice());
  const reconnect = { firstDelay: 1, longestDelay: 5, patience: 100 };
  const [away, mute] = [await stand.frontEnd({ reconnect }), new Stand(t)];
  const memory = stand.memory();
  await away.shareMemory(memory);
  const queue = await away.startQueue(0, memory, { size: 8, resubmit: true });
  let ended = next(away, "onEnd");
  const gone = next(away, "onDisconnect");
  stand.close();
  await gone;
  const waits = assert.rejects(away.request("GET_QUEUE_NUM", undefined), BackendGoneError);
  assert.match(String(await ended), /has not come back within 100 ms: .*ENOENT/);
  await waits;
  await assert.rejects(echo(queue, memory, 1), BackendGoneError);

  await mute.serve(echoDevice());
  const frontEnd = await mute.frontEnd({ reconnect });
  ended = next(frontEnd, "onEnd");
  mute.close();
  const listener = listen(mute.path);
  onEnd(t, () => close(listener));
  assert.match(String(await ended), /has not come back within 100 ms/);
});

test("one who comes and goes is tried again", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice());
  const frontEnd = await stand.frontEnd();
  const memory = stand.memory();
  await frontEnd.shareMemory(memory);
  const queue = await frontEnd.startQueue(0, memory, { size: 8, resubmit: true });
  await echo(queue, memory, 1);
  const gone = next(frontEnd, "onDisconnect");
  stand.close();
  await gone;
  const listener = listen(stand.path);
  for (let comings = 0; comings < 3;) {
    const fd = accept(listener);
    if (fd === null) await new Promise((resolve) => setTimeout(resolve, 1));
    else {
      close(fd);
      comings++;
    }
  }
  close(listener);
  const back = next(frontEnd, "onReconnect");
  await stand.serve(echoDevice());
  await back;
  await echo(queue, memory, 2);
});

test("kicks, calls and errors by messages come back, too", LIMIT, async (t) => {
  const stand = new Stand(t);
  const inBand = { inBandNotifications: true };
  const first = new Holding(t);
  await stand.serve(first.device, inBand);
  const frontEnd = await stand.frontEnd({ protocolFeatures: mask(INBAND_NOTIFICATIONS) });
  const memory = stand.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.recordInflight(1, 8);
  const queue = await frontEnd.startQueue(0, memory, { size: 8 });
  assert.equal(queue.kick, -1);
  await frontEnd.driverOk();
  const held = [1, 2].map((value) => echo(queue, memory, value));
  await eventually("both are taken", () => first.taken.length === 2);
  await stand.serve(echoDevice(), inBand);
  await Promise.all(held);
  await echo(queue, memory, 3);
  await assert.rejects(queue.request([{ guestAddress: 0x7000_0000, length: 4 }], []), /broken/);
  await stand.log.problem(/not in guest memory/);
});

test("a ring that is broken is not started again; the others are", LIMIT, async (t) => {
  const stand = new Stand(t);
  const queues = [0, 1].map(() => (chain: Chain) => chain.write(chain.read()));
  await stand.serve(echoDevice({ queues }));
  const frontEnd = await stand.frontEnd();
  const memory = stand.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.recordInflight(2, 8);
  const broken = await frontEnd.startQueue(0, memory, { size: 8 });
  const whole = await frontEnd.startQueue(1, memory, { size: 8 });
  await assert.rejects(broken.request([{ guestAddress: 0x7000_0000, length: 4 }], []), /broken/);
  await stand.log.problem(/not in guest memory/);
  const back = next(frontEnd, "onReconnect");
  await stand.serve(echoDevice({ queues }));
  await back;
  await echo(whole, memory, 1);
  await assert.rejects(echo(broken, memory, 1), /ring 0 broken/);
  assert.deepEqual(stand.log.problems, []);
});

test("records of requests start anew with a ring", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice({ queues: [0, 1].map(() => (chain: Chain) => chain.write(chain.read())) }));
  const frontEnd = await stand.frontEnd();
  const memory: SharedMemory = stand.memory();
  await frontEnd.shareMemory(memory);
  await frontEnd.recordInflight(2, 8);
  for (let round = 0; round < 3; round++) {
    const queues = [await frontEnd.startQueue(0, memory, { size: 8 })];
    queues.push(await frontEnd.startQueue(1, memory, { size: 8 }));
    for (let value = 1; value < 12; value++) for (const queue of queues) await echo(queue, memory, value);
    await frontEnd.stopQueue(queues[0]);
    await assert.rejects(frontEnd.startQueue(0, memory, { size: 8 }), /stop the other rings/);
    await frontEnd.stopQueue(queues[1]);
  }
  assert.deepEqual(stand.log.problems, []);
});

test("a ring of somebody else goes on from its used index", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice());
  const frontEnd = await stand.frontEnd({ withoutFeatures: PACKED | mask(ringFeatures.EVENT_IDX) });
  const memory = stand.memory();
  await frontEnd.shareMemory(memory);
  // What a guest's driver does, and what the monitor sees of it.
  const driver = new SplitDriverRing(memory, { size: 8, eventIdx: false });
  const used = new DataView(driver.used.bytes.buffer, driver.used.bytes.byteOffset);
  await frontEnd.recordInflight(1, 8);
  const ring: GuestRing = {
    index: 0,
    size: 8,
    descriptor: driver.descriptor,
    available: driver.available,
    used: driver.used,
    kick: -1,
    call: -1,
    error: -1,
    get base() {
      return used.getUint16(2, true);
    },
  };
  await frontEnd.startRing(ring);
  const turn = async (): Promise<void> => {
    const { guestAddress } = memory.allocate(8);
    const head = driver.add([{ guestAddress, length: 4 }], [{ guestAddress: guestAddress + 4, length: 4 }]);
    driver.publish();
    await eventually("it came back", () => used.getUint16(2, true) !== driver.base);
    assert.deepEqual(driver.take(), { head, written: 4 });
  };
  for (let i = 0; i < 5; i++) await turn();
  const back = next(frontEnd, "onReconnect");
  await stand.serve(echoDevice());
  await back;
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(await frontEnd.stopRing(0), 10);
  // As when a machine is paused, and goes on.
  await frontEnd.startRing(ring);
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(await frontEnd.stopRing(0), 15);
});

test("without reconnection a front-end ends with its back-end", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice());
  const frontEnd = await FrontEnd.connect(stand.path);
  const ended = next(frontEnd, "onEnd");
  stand.close();
  assert.equal(await ended, undefined);
  await assert.rejects(frontEnd.request("GET_FEATURES", undefined), /has ended/);
});
