import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  EchoNetwork,
  FunctionNetwork,
  NetDevice,
  netFeatures,
  type NetGuest,
  type NetOptions,
  type Network,
  PcapFile,
  SwitchNetwork,
} from "../../src/devices/net/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { ALL, frameOf, mac, NetDriver, type NetDriverOptions, PACKED } from "./net_driver.ts";

const A = "02:00:00:00:00:0a";
const B = "02:00:00:00:00:0b";
const C = "02:00:00:00:00:0c";
const ALL_STATIONS = "ff:ff:ff:ff:ff:ff";

async function open(
  t: Scope,
  network: Network,
  options: Partial<NetOptions> = {},
): Promise<{ scene: Scene; card: NetDevice; driver(options?: NetDriverOptions): Promise<NetDriver> }> {
  const errors: unknown[] = [];
  const card = new NetDevice({ network, onError: (error) => errors.push(error), ...options });
  const scene = await Scene.open(t, card);
  onEnd(t, () => assert.deepEqual(errors, []));
  return { scene, card, driver: (more) => NetDriver.connect(t, scene.path, more) };
}

for (const [format, withoutFeatures] of [["split", PACKED], ["packed", 0n]] as const) {
  test(`frames of all lengths come back as they were sent (${format})`, LIMIT, async (t) => {
    const { driver, card } = await open(t, new EchoNetwork());
    const guest = await driver({ withoutFeatures, buffers: 40 });
    for (const length of [0, 1, 46, 50, 178, 179, 180, 1486, 1500, 2021, 2022, 2023, 9000, 65000]) {
      const frame = frameOf(B, A, bytesOf(length, length));
      await guest.send(frame);
      const [{ frame: back, header, buffers }] = await guest.take(1);
      sameBytes(back, frame, `a frame with ${length} bytes of payload`);
      assert.equal(header.flags | header.gsoType, 0);
      assert.equal(buffers.length, Math.ceil((12 + frame.length) / 2048));
    }
    assert.equal(card.counters.sentFrames, 14);
    assert.equal(card.counters.deliveredFrames, 14);
    assert.equal(card.counters.deliveredBytes, card.counters.sentBytes);
    assert.equal(card.counters.dropped, 0);
  });

  test(`header and frame may be cut anywhere (${format})`, LIMIT, async (t) => {
    const { driver } = await open(t, new EchoNetwork());
    const guest = await driver({ withoutFeatures, bufferSize: 64, buffers: 60 });
    for (const cuts of [[12], [1], [11], [13], [3, 6, 9, 12, 26], [12, 13, 14, 100, 200], [5, 26]]) {
      const frame = frameOf(B, A, bytesOf(cuts.length, 300));
      await guest.send(frame, { cuts });
      const [{ frame: back, header }] = await guest.take(1);
      sameBytes(back, frame, `cut at ${cuts}`);
      assert.equal(header.numBuffers, Math.ceil(326 / 64));
    }
  });

  test(`a long row of frames keeps its order (${format})`, LIMIT, async (t) => {
    const { driver, card } = await open(t, new EchoNetwork());
    const guest = await driver({ withoutFeatures, buffers: 60 });
    const count = 3000;
    const sent = Array.from(
      { length: count },
      (_, i) => frameOf(B, A, Uint8Array.of(i >>> 8, i, ...new Array(i % 50))),
    );
    for (let i = 0; i < count; i += 30) {
      await Promise.all(sent.slice(i, i + 30).map((frame) => guest.send(frame)));
    }
    const back = await guest.take(count);
    back.forEach(({ frame }, i) => assert.equal(frame[14] << 8 | frame[15], i));
    assert.equal(card.counters.dropped, 0);
  });
}

for (const [format, withoutFeatures] of [["split", PACKED], ["packed", 0n]] as const) {
  test(
    `buffers that hold nothing yet when the ring stops are the driver's again (${format})`,
    LIMIT,
    async (t) => {
      const { driver, card } = await open(t, new EchoNetwork());
      const guest = await driver({ withoutFeatures, buffers: 0, size: 64 });
      const written: number[] = [];
      const [rx] = guest.rx;
      for (let i = 0; i < 50; i++) {
        const { guestAddress, bytes: { length } } = guest.memory.allocate(2048);
        rx.request([], [{ guestAddress, length }]).then((each) => written.push(each), () => {});
      }
      for (let i = 0; i < 3; i++) await guest.send(frameOf(B, A, bytesOf(i, 60)));
      await eventually("three came back", () => written.length === 3);
      const base = await guest.frontEnd.stopRing(rx.index);
      assert.equal(base & 0x7fff, 3);
      assert.equal(rx.inFlight, 47);
      await guest.frontEnd.startRing(rx);
      for (let i = 0; i < 47; i++) await guest.send(frameOf(B, A, bytesOf(i, 60)));
      await eventually("all came back", () => written.length === 50);
      assert.ok(written.every((each) => each === 12 + 74));
      assert.equal(card.counters.dropped, 0);
    },
  );
}

test("without mergeable buffers a frame has one, or is dropped", LIMIT, async (t) => {
  const { driver, card } = await open(t, new EchoNetwork());
  const guest = await driver({ features: ALL & ~mask(netFeatures.MRG_RXBUF) });
  await guest.send(frameOf(B, A, bytesOf(1, 2022)));
  const [{ header, buffers }] = await guest.take(1);
  assert.deepEqual([header.numBuffers, ...buffers], [1, 2048]);
  await guest.send(frameOf(B, A, bytesOf(1, 2023)));
  await guest.send(frameOf(B, A, bytesOf(2, 100)));
  const [{ frame }] = await guest.take(1);
  assert.equal(frame.length, 114);
  assert.equal(card.counters.dropped, 1);
});

test("a driver of old has a header of 10 bytes", LIMIT, async (t) => {
  const { driver } = await open(t, new EchoNetwork());
  const guest = await driver({ features: 0n, withoutFeatures: PACKED | 1n << 32n });
  assert.equal(guest.headerSize, 10);
  for (const length of [0, 60, 1000]) {
    const frame = frameOf(B, A, bytesOf(length, length));
    await guest.send(frame, { cuts: [10] });
    sameBytes((await guest.take(1))[0].frame, frame);
  }
});

test("a guest without buffers loses frames, and none that come when it has some again", LIMIT, async (t) => {
  const { driver, card } = await open(t, new EchoNetwork());
  const guest = await driver({ buffers: 0 });
  guest.offer(3, 0, false);
  for (let i = 0; i < 5; i++) await guest.send(frameOf(B, A, Uint8Array.of(i)));
  assert.deepEqual((await guest.take(3)).map(({ frame }) => frame[14]), [0, 1, 2]);
  await eventually("two are lost", () => card.counters.dropped === 2);
  guest.offer(3, 0, false);
  await aWhile();
  await guest.send(frameOf(B, A, Uint8Array.of(7)));
  assert.deepEqual((await guest.take(1)).map(({ frame }) => frame[14]), [7]);
  // One that needs more buffers than there are keeps none of them from the next.
  await guest.send(frameOf(B, A, bytesOf(1, 9000)));
  await guest.send(frameOf(B, A, Uint8Array.of(8)));
  await guest.send(frameOf(B, A, Uint8Array.of(9)));
  assert.deepEqual((await guest.take(2)).map(({ frame }) => frame[14]), [8, 9]);
  assert.equal(card.counters.dropped, 3);
});

test("what is no frame is counted and returned", LIMIT, async (t) => {
  const { driver, card } = await open(t, new EchoNetwork());
  const guest = await driver();
  const piece = guest.memory.allocate(70000);
  const { guestAddress } = piece;
  const [tx] = guest.tx;
  for (const length of [1, 9, 10, 11, 12, 25, 12 + 65536 + 18 + 1]) {
    await tx.request([{ guestAddress, length }], []);
  }
  await tx.request([], [{ guestAddress, length: 100 }]);
  assert.equal(card.counters.malformed, 8);
  assert.equal(card.counters.sentFrames, 0);
  await guest.send(frameOf(B, A, new Uint8Array(0)));
  await guest.take(1);
});

test("a switch learns where addresses are", LIMIT, async (t) => {
  const network = new SwitchNetwork();
  const { driver } = await open(t, network);
  const [a, b, c] = [await driver(), await driver(), await driver()];
  assert.equal(network.guests, 3);
  await a.send(frameOf(B, A, Uint8Array.of(1)));
  for (const each of [b, c]) assert.equal((await each.take(1))[0].frame[14], 1, "B is not known: all get it");
  await b.send(frameOf(A, B, Uint8Array.of(2)));
  assert.equal((await a.take(1))[0].frame[14], 2);
  await a.send(frameOf(B, A, Uint8Array.of(3)));
  assert.equal((await b.take(1))[0].frame[14], 3);
  await c.send(frameOf(ALL_STATIONS, C, Uint8Array.of(4)));
  for (const each of [a, b]) assert.equal((await each.take(1))[0].frame[14], 4);
  await c.send(frameOf("33:33:00:00:00:01", C, Uint8Array.of(5)));
  for (const each of [a, b]) assert.equal((await each.take(1))[0].frame[14], 5, "a group");
  await a.send(frameOf(A, A, Uint8Array.of(6)));
  await aWhile();
  for (const each of [a, b, c]) assert.deepEqual(each.received, []);

  // An address moves with its guest, and is forgotten with it.
  await c.send(frameOf(ALL_STATIONS, B, Uint8Array.of(7)));
  await a.take(1);
  await b.take(1);
  await a.send(frameOf(B, A, Uint8Array.of(8)));
  assert.equal((await c.take(1))[0].frame[14], 8);
  c.close();
  await eventually("it has left", () => network.guests === 2);
  await a.send(frameOf(B, A, Uint8Array.of(9)));
  assert.equal((await b.take(1))[0].frame[14], 9);
});

test("an announcement after a migration tells the switch", LIMIT, async (t) => {
  const { driver } = await open(t, new SwitchNetwork());
  const rarp = 1n << 2n;
  const [a, b] = [await driver(), await driver({ protocolFeatures: rarp })];
  await b.frontEnd.request("SEND_RARP", 0x0b_00_00_00_00_02n);
  const [{ frame }] = await a.take(1);
  assert.equal(frame.length, 60);
  assert.deepEqual(frame.subarray(0, 14), Uint8Array.of(...mac(ALL_STATIONS), ...mac(B), 0x80, 0x35));
  assert.deepEqual(
    frame.subarray(14, 42),
    Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 3, ...mac(B), 0, 0, 0, 0, ...mac(B), 0, 0, 0, 0),
  );
  const c = await driver();
  await a.send(frameOf(B, A, Uint8Array.of(1)));
  await b.take(1);
  await aWhile();
  assert.deepEqual(c.received, [], "the switch knows where B is");
});

test(
  "a frame goes to the pair of the same number, or to the first when that does not run",
  LIMIT,
  async (t) => {
    const { driver } = await open(t, new SwitchNetwork(), { queuePairs: 3 });
    const [a, b] = [await driver({ pairs: 3 }), await driver({ pairs: 2, buffers: 0 })];
    b.offer(4, 1, false);
    await a.send(frameOf(B, A, Uint8Array.of(1)), { pair: 1 });
    assert.equal((await b.take(1))[0].frame[14], 1);
    b.offer(4, 0, false);
    await aWhile();
    await a.send(frameOf(B, A, Uint8Array.of(2)), { pair: 2 });
    await eventually("it came by the first", () => b.rx[0].inFlight === 3);
  },
);

test("a function answers; what it throws costs that frame only", LIMIT, async (t) => {
  const guests = new Set<NetGuest>();
  const network = new FunctionNetwork((frame, guest) => {
    guests.add(guest);
    if (frame[14] === 13) throw new Error("bad luck");
    const answer = frame.slice();
    answer[14]++;
    guest.deliver(answer);
  });
  const errors: unknown[] = [];
  const { driver } = await open(t, network, { onError: (error) => errors.push(error) });
  const guest = await driver();
  for (const value of [1, 13, 2]) await guest.send(frameOf(B, A, Uint8Array.of(value)));
  assert.deepEqual((await guest.take(2)).map(({ frame }) => frame[14]), [2, 3]);
  assert.equal(errors.length, 1);
  assert.match(String(errors[0]), /bad luck/);
  assert.equal(guests.size, 1);
  network.broadcast(frameOf(ALL_STATIONS, B, Uint8Array.of(4)));
  await guest.take(1);
  guest.close();
  await eventually("it has gone", () => network.guests.size === 0);
});

test("a network that has more than it delivers at once is called again", LIMIT, async (t) => {
  let left = 5;
  const { driver } = await open(t, {
    attach: (guest) => ({
      send(): void {},
      refilled(pair): boolean {
        if (left === 0) return false;
        guest.deliver(frameOf(A, B, Uint8Array.of(left--)), pair);
        return true;
      },
    }),
  });
  const guest = await driver();
  assert.deepEqual((await guest.take(5)).map(({ frame }) => frame[14]), [5, 4, 3, 2, 1]);
});

test("a network may refuse a frame: the guest waits, and nothing is lost", LIMIT, async (t) => {
  const taken: number[] = [];
  let room = 0;
  let resume = () => {};
  const network: Network = {
    attach: (guest) => {
      resume = () => guest.resume(0);
      return {
        send: (frame) => {
          if (room === 0) return false;
          room--;
          taken.push(frame.getUint8(14));
        },
      };
    },
  };
  const { driver } = await open(t, network);
  const guest = await driver();
  const sent = Array.from({ length: 20 }, (_, i) => guest.send(frameOf(B, A, Uint8Array.of(i))));
  await aWhile();
  assert.deepEqual(taken, []);
  assert.equal(guest.tx[0].inFlight, 20);
  for (const more of [1, 5, 14]) {
    room = more;
    resume();
    await eventually(`${more} more`, () => room === 0);
  }
  await Promise.all(sent);
  assert.deepEqual(taken, Array.from({ length: 20 }, (_, i) => i));
});

test("a capture has every frame, both ways", LIMIT, async (t) => {
  const path = join(tempDir(t), "net.pcap");
  const capture = new PcapFile(path);
  const { driver } = await open(t, new EchoNetwork(), { capture });
  const guest = await driver();
  const frames = [60, 1500, 9000].map((length) => frameOf(B, A, bytesOf(length, length)));
  for (const frame of frames) {
    await guest.send(frame, { cuts: [12, 20] });
    await guest.take(1);
  }
  capture.close();
  const file = readFileSync(path);
  assert.equal(file.readUInt32LE(0), 0xa1b2c3d4);
  assert.deepEqual([file.readUInt16LE(4), file.readUInt16LE(6), file.readUInt32LE(20)], [2, 4, 1]);
  let at = 24;
  for (const frame of frames.flatMap((frame) => [frame, frame])) {
    const seconds = file.readUInt32LE(at);
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 60, `the time is ${seconds}`);
    assert.ok(file.readUInt32LE(at + 4) < 1_000_000);
    assert.deepEqual([file.readUInt32LE(at + 8), file.readUInt32LE(at + 12)], [frame.length, frame.length]);
    sameBytes(file.subarray(at + 16, at + 16 + frame.length), frame);
    at += 16 + frame.length;
  }
  assert.equal(at, file.length);
});

test("a card with an address tells it to front-ends that ask", LIMIT, async (t) => {
  const { scene } = await open(t, new EchoNetwork(), { mac: mac(A).slice(), mtu: 1400 });
  const frontEnd = await scene.frontEnd({ deviceFeatures: ALL });
  assert.notEqual(frontEnd.features & mask(netFeatures.MAC), 0n);
  assert.equal(
    frontEnd.features & mask(netFeatures.CTRL_VQ, netFeatures.MQ),
    0n,
    "nobody serves a control queue",
  );
  assert.deepEqual(
    await frontEnd.readConfig(0, 12),
    Uint8Array.of(...mac(A), 1, 0, 1, 0, 1400 & 255, 1400 >> 8),
  );
});

test("options that cannot be are refused", LIMIT, () => {
  const network = new EchoNetwork();
  assert.throws(() => new NetDevice({ network, queuePairs: 0 }), /queuePairs must be 1 to 128, got 0/);
  assert.throws(() => new NetDevice({ network, queuePairs: 129 }), /got 129/);
  assert.throws(
    () => new NetDevice({ network, mac: Uint8Array.of(1, 0, 0, 0, 0, 0) }),
    /mac must be 6 bytes/,
  );
  assert.throws(() => new NetDevice({ network, mac: mac(A).slice(), queuePairs: 2 }), /must be 1 with mac/);
  assert.throws(
    () => new NetDevice({ network, mac: mac(A).slice(), mtu: 67 }),
    /mtu must be 68 to 65535 bytes, got 67/,
  );
});
