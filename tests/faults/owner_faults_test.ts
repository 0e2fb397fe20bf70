import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type Chain, defineDevice, type OwnedQueue, type QueueOwner } from "../../mod.ts";
import { I2cDevice, type I2cSegment } from "../../src/devices/i2c/mod.ts";
import { NetDevice, type Network, SwitchNetwork } from "../../src/devices/net/mod.ts";
import { RngDevice } from "../../src/devices/rng/mod.ts";
import { type FaultyDevice, withFaults } from "../../src/faults/mod.ts";
import { frameOf, NetDriver } from "../devices/net_driver.ts";
import { RequestDriver } from "../devices/request_driver.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";

const A = "02:00:00:00:00:0a";
const B = "02:00:00:00:00:0b";

async function card(
  t: TestContext,
  rules: readonly string[],
  network: Network = new SwitchNetwork(),
): Promise<{ device: FaultyDevice; sender: NetDriver; receiver: NetDriver }> {
  const device = withFaults(new NetDevice({ network }), rules);
  const scene = await Scene.open(t, device);
  const sender = await NetDriver.connect(t, scene.path);
  const receiver = await NetDriver.connect(t, scene.path);
  // The switch learns where the receiver is, by a frame that no rule is about.
  await receiver.send(frameOf(A, B, bytesOf(0, 50)));
  await sender.take(1);
  return { device, sender, receiver };
}

const frame = (n: number): Uint8Array => frameOf(B, A, bytesOf(n, 100));

test("net.tx lose: every third frame does not arrive; the driver has all buffers back", LIMIT, async (t) => {
  const { device, sender, receiver } = await card(t, ["net.tx:after=1:every=3:lose"]);
  for (let n = 0; n < 9; n++) await sender.send(frame(n));
  const got = await receiver.take(6);
  await aWhile();
  assert.equal(receiver.received.length, 0);
  [0, 1, 3, 4, 6, 7].forEach((n, i) => sameBytes(got[i].frame, frame(n), `frame ${n}`));
  assert.deepEqual(device.faults, [{ rule: "net.tx:after=1:every=3:lose", requests: 10, faults: 3 }]);
});

test("net.tx drop: the frame is gone, and its buffer until the ring stops", LIMIT, async (t) => {
  const { sender, receiver } = await card(t, ["net.tx:after=1:once:drop"]);
  let back = false;
  void sender.send(frame(0)).then(() => back = true, () => {});
  await sender.send(frame(1));
  const [{ frame: got }] = await receiver.take(1);
  sameBytes(got, frame(1));
  await aWhile();
  assert.equal(back, false);
  await sender.frontEnd.stopQueue(sender.tx[0]);
});

test("net.rx corrupt: bits of the frame, not of its header", LIMIT, async (t) => {
  const { sender, receiver } = await card(t, ["net.rx:after=1:corrupt=8"]);
  for (let n = 0; n < 20; n++) {
    await sender.send(frame(n));
    const [{ frame: got, header }] = await receiver.take(1);
    assert.equal(header.numBuffers, 1);
    assert.equal(header.flags | header.gsoType, 0);
    assert.equal(got.length, frame(n).length);
    assert.notDeepEqual(got, frame(n), `frame ${n} is wrong`);
  }
});

test("net.rx delay and reorder", LIMIT, async (t) => {
  const { sender, receiver } = await card(t, ["net.rx:after=1:times=1:delay=40", "net.rx:after=2:reorder=3"]);
  for (let n = 0; n < 7; n++) await sender.send(frame(n));
  const got = (await receiver.take(7)).map(({ frame: each }) =>
    [0, 1, 2, 3, 4, 5, 6].find((n) => each.every((byte, i) => byte === frame(n)[i]))
  );
  assert.deepEqual([...got].sort(), [0, 1, 2, 3, 4, 5, 6]);
  assert.notDeepEqual(got, [0, 1, 2, 3, 4, 5, 6]);
});

test("net.tx stall: nothing is sent for a time, then everything in order", LIMIT, async (t) => {
  const { sender, receiver } = await card(t, ["net.tx:after=3:once:stall=60"]);
  const start = performance.now();
  const sent = [0, 1, 2, 3, 4].map((n) => sender.send(frame(n)));
  await Promise.all(sent.slice(0, 2));
  await Promise.all(sent);
  assert.ok(performance.now() - start >= 59);
  const got = await receiver.take(5);
  got.forEach(({ frame: each }, n) => sameBytes(each, frame(n), `frame ${n}`));
});

test("rng: short and corrupt answers, with a device that says almost nothing", LIMIT, async (t) => {
  const zeros = { fill: (bytes: Uint8Array) => bytes.fill(0).length };
  const device = withFaults(new RngDevice({ source: zeros }), [
    "rng:once:short=3",
    "rng.read:corrupt=4",
  ]);
  const scene = await Scene.open(t, device);
  const driver = await RequestDriver.connect(t, scene.path);
  assert.equal((await driver.request([], [16])).written, 3);
  const { written, bytes } = await driver.request([], [16]);
  assert.equal(written, 16);
  assert.ok(bytes.some((byte) => byte !== 0), "some bits are set");
});

test("i2c: a segment fails in place of its device", LIMIT, async (t) => {
  const seen: number[] = [];
  const bus = {
    transfer: (segments: readonly I2cSegment[]) => {
      seen.push(...segments.map(({ address }) => address));
      return segments.length;
    },
  };
  const device = withFaults(new I2cDevice({ bus }), ["i2c.write:every=2:error=EIO"]);
  const scene = await Scene.open(t, device);
  const driver = await RequestDriver.connect(t, scene.path);
  const write = async (): Promise<number> => {
    const head = new Uint8Array(8);
    new DataView(head.buffer).setUint16(0, 0x50 << 1, true);
    const { bytes } = await driver.request([head, Uint8Array.of(1)], [1]);
    return bytes[0];
  };
  assert.deepEqual([await write(), await write(), await write(), await write()], [0, 1, 0, 1]);
  assert.deepEqual(seen, [0x50, 0x50]);
});

/** Gives every chain back with a number, at once or when it stops. */
class Owner implements QueueOwner {
  readonly events: string[] = [];
  held: Chain[] = [];
  hold = false;

  start(): void {
    this.events.push("start");
  }

  work(queue: OwnedQueue): void {
    for (let chain = queue.take(); chain !== null; chain = queue.take()) {
      if (this.hold) this.held.push(chain);
      else this.#answer(queue, chain);
    }
  }

  #answer(queue: OwnedQueue, chain: Chain): void {
    chain.write(Uint8Array.of(7));
    queue.complete(chain);
  }

  stop(queue: OwnedQueue): void {
    this.events.push("stop");
    for (const chain of this.held.splice(0)) this.#answer(queue, chain);
  }
}

test(
  "an owner of one's own: by ring; when the ring stops, what is delayed comes at once",
  LIMIT,
  async (t) => {
    const owners = [new Owner(), new Owner()];
    const inner = defineDevice({ type: 63, name: "own", queues: owners });
    const device = withFaults(inner, ["own:ring=1:delay=3600000", "device:ring=0:after=2:once:stall"]);
    const scene = await Scene.open(t, device);
    const driver = await RequestDriver.connect(t, scene.path, { queues: 2 });
    const results: Record<string, number> = {};
    const ask = (name: string, ring: number): void =>
      void driver.request([], [1], ring).then(
        ({ written }) => results[name] = written,
        () => {},
      );
    ask("quick", 0);
    ask("slow", 1);
    await eventually("one is there", () => results.quick === 1);
    await aWhile();
    assert.equal(results.slow, undefined);
    await driver.frontEnd.stopQueue(driver.queues[1]);
    await eventually("the other comes when its ring stops", () => results.slow === 1);
    owners[0].hold = true;
    ask("held", 0);
    ask("stalled", 0);
    ask("behind", 0);
    await eventually("one is with the owner", () => owners[0].held.length === 1);
    await driver.frontEnd.stopQueue(driver.queues[0]);
    await eventually("it was completed at the stop", () => results.held === 1);
    assert.deepEqual(owners.map(({ events }) => events), [["start", "stop"], ["start", "stop"]]);
    assert.deepEqual(scene.log.problems, []);
  },
);
