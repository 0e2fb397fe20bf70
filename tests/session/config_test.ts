import assert from "node:assert/strict";
import { test } from "node:test";
import { defineDevice } from "../../mod.ts";
import type { RawPeer } from "./raw_peer.ts";
import { LIMIT, Scene } from "./scene.ts";
import { concat, number32, u32, u64 } from "./wire.ts";

const WRITEBACK = 32;

/** GET_CONFIG as QEMU sends it, with dummy bytes; returns the part that was asked for. */
async function config(peer: RawPeer, offset: number, size: number): Promise<Uint8Array> {
  const answer = await peer.ask("GET_CONFIG", concat(u32(offset, size, 0), new Uint8Array(size)));
  assert.equal(answer.length, 12 + size, "as long as the request");
  assert.deepEqual([number32(answer), number32(answer, 4)], [offset, size]);
  return answer.subarray(12);
}

function setConfig(peer: RawPeer, offset: number, flags: number, ...data: number[]): Promise<bigint> {
  return peer.ack("SET_CONFIG", concat(u32(offset, data.length, flags), Uint8Array.from(data)));
}

test("QEMU asks for 57 bytes at 0, before it accepts any feature", LIMIT, async (t) => {
  const peer = (await Scene.disk(t, { numQueues: 4, blockSize: 1024 })).peer();
  peer.say("SET_PROTOCOL_FEATURES", u64(1n << 9n));
  const bytes = await config(peer, 0, 57);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assert.equal(
    view.getBigUint64(0, true),
    2048n,
    "capacity: 1 MiB in sectors of 512, whatever the block size",
  );
  assert.equal(view.getUint32(20, true), 1024, "blk_size");
  assert.equal(bytes[WRITEBACK], 1, "writeback");
  assert.equal(view.getUint16(34, true), 4, "num_queues");
  assert.notEqual(view.getUint32(36, true), 0, "max_discard_sectors");
  assert.notEqual(view.getUint32(48, true), 0, "max_write_zeroes_sectors");
});

test("GET_CONFIG answers any part, with zeros beyond the configuration space", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  const whole = await config(peer, 0, 96);
  assert.deepEqual(await config(peer, 33, 5), whole.slice(33, 38));
  assert.deepEqual(await config(peer, 0, 256), concat(whole, new Uint8Array(160)));
  assert.deepEqual(await config(peer, 90, 16), concat(whole.slice(90), new Uint8Array(10)));
  assert.deepEqual(await config(peer, 256, 0), new Uint8Array(0));
});

test("GET_CONFIG may leave the dummy bytes out; the answer has them", LIMIT, async (t) => {
  const peer = (await Scene.disk(t)).peer();
  await peer.negotiate();
  assert.equal((await peer.ask("GET_CONFIG", u32(0, 57, 0))).length, 12 + 57);
});

for (
  const [what, payload, problem] of [
    ["more than 256 bytes", u32(0, 257, 0), /configuration range must be within 256 bytes, got 0 \+ 257$/],
    ["bytes past 256", u32(250, 7, 0), /configuration range must be within 256 bytes, got 250 \+ 7$/],
    ["an offset that wraps", u32(0xffff_fff0, 32, 0), /configuration range must be within 256 bytes, got/],
    [
      "another size than it has",
      concat(u32(0, 8, 0), new Uint8Array(4)),
      /configuration data must be 8 bytes, got 4/,
    ],
    ["half a header", u32(0, 8), /payload: expected 12 to 268 bytes, got 8$/],
  ] as const
) {
  test(`GET_CONFIG with ${what} ends the session with a reason`, LIMIT, async (t) => {
    const scene = await Scene.disk(t);
    const peer = scene.peer();
    await peer.negotiate();
    peer.say("GET_CONFIG", payload);
    await peer.end();
    await scene.log.problem(new RegExp(`^error: .*GET_CONFIG: ${problem.source}`));
  });
}

test("SET_CONFIG writes writeback and refuses the rest", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const peer = scene.peer();
  await peer.negotiate();
  const before = await config(peer, 0, 96);

  assert.equal(await setConfig(peer, WRITEBACK, 0, 0), 0n);
  assert.equal((await config(peer, WRITEBACK, 1))[0], 0);
  assert.equal(await setConfig(peer, WRITEBACK, 0, 1), 0n);

  for (
    const [offset, ...data] of [[0, 1], [WRITEBACK, 2], [WRITEBACK, 1, 0], [WRITEBACK - 1, 0, 1], [95, 0]]
  ) {
    assert.equal(await setConfig(peer, offset, 0, ...data), 1n, `${data.length} bytes at ${offset}`);
    await scene.log.problem(/SET_CONFIG: only writeback .* can be written, got \d bytes at \d+$/);
  }
  assert.equal(await setConfig(peer, WRITEBACK, 2, 1), 1n);
  await scene.log.problem(/SET_CONFIG: flags must be 0 \(guest\) or 1 \(migration\), got 2$/);
  assert.deepEqual(await config(peer, 0, 96), before);
});

test("writeback is one front-end's own", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const [peer, other] = [scene.peer(), scene.peer()];
  for (const each of [peer, other]) await each.negotiate();
  assert.equal(await setConfig(peer, WRITEBACK, 0, 0), 0n);
  assert.deepEqual(await config(other, WRITEBACK, 1), Uint8Array.of(1));
});

test("a device without a configuration space does not offer CONFIG", LIMIT, async (t) => {
  const scene = await Scene.open(t, defineDevice({ type: 4, name: "rng", queues: [() => {}] }));
  const peer = scene.peer();
  await peer.negotiate();
  assert.equal(await peer.number("GET_PROTOCOL_FEATURES") & 1n << 9n, 0n);
  assert.equal(await setConfig(peer, 0, 0, 1), 1n);
  await scene.log.problem(/^warning: rng: .*SET_CONFIG: protocol feature CONFIG was not negotiated$/);
});

test("a configuration space that only reads refuses writes", LIMIT, async (t) => {
  const device = defineDevice({
    type: 4,
    queues: [() => {}],
    config: { read: () => Uint8Array.of(1, 2, 3) },
  });
  const scene = await Scene.open(t, device);
  const peer = scene.peer();
  await peer.negotiate();
  assert.deepEqual(await config(peer, 1, 4), Uint8Array.of(2, 3, 0, 0));
  assert.equal(await setConfig(peer, 0, 0, 9), 1n);
  await scene.log.problem(/SET_CONFIG: configuration space must be left alone: it is read-only/);
});

test("a device that cannot tell its configuration answers without a payload", LIMIT, async (t) => {
  const device = defineDevice({
    type: 4,
    queues: [() => {}],
    config: {
      read: () => {
        throw new Error("no idea");
      },
    },
  });
  const scene = await Scene.open(t, device);
  const peer = scene.peer();
  await peer.negotiate();
  assert.equal((await peer.ask("GET_CONFIG", u32(0, 8, 0))).length, 0);
  await scene.log.problem(/^warning: .*GET_CONFIG: .*no idea$/);
  const frontEnd = await scene.frontEnd();
  await assert.rejects(frontEnd.readConfig(0, 8), /GET_CONFIG: the peer answered failure/);
});

test("SET_CONFIG tells the device whether the guest or a migration writes", LIMIT, async (t) => {
  const writes: unknown[] = [];
  const device = defineDevice({
    type: 4,
    queues: [() => {}],
    config: {
      read: () => new Uint8Array(8),
      write: (offset, data, migration) => writes.push([offset, [...data], migration]),
    },
  });
  const peer = (await Scene.open(t, device)).peer();
  await peer.negotiate();
  assert.equal(await setConfig(peer, 2, 0, 7, 8), 0n);
  assert.equal(await setConfig(peer, 3, 1, 9), 0n);
  assert.deepEqual(writes, [[2, [7, 8], false], [3, [9], true]]);
});
