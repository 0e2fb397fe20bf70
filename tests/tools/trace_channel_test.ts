import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { close, fileStatus, isNonblocking, setNonblocking } from "../../ffi/fd.ts";
import { memoryFile } from "../../ffi/mapping.ts";
import { socketPair } from "../../ffi/socket.ts";
import { serve } from "../../mod.ts";
import { BlkDevice, MemoryStorage } from "../../src/devices/blk/mod.ts";
import { protocolFeatures } from "../../src/protocol/features.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { concat, u64 } from "../session/wire.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { bytesOf, End, NEED_REPLY, PLAIN, REPLY, TraceScene } from "./trace_scene.ts";

// The back-end channel: a socket that crosses as a descriptor, and is traced like the first.

const PROTOCOL = (["REPLY_ACK", "BACKEND_REQ", "CONFIG", "SHMEM", "BACKEND_SEND_FD"] as const)
  .reduce((sum, name) => sum | 1n << BigInt(protocolFeatures[name]), 0n);

interface Channel {
  scene: TraceScene;
  front: End;
  back: End;
  /** The front-end's end of the channel, and the back-end's. */
  asked: End;
  asking: End;
}

/** A session with a channel. */
async function open(t: TestContext, blocking = false): Promise<Channel> {
  const scene = new TraceScene(t);
  const { front, back } = await scene.negotiated(PROTOCOL);
  const [ours, theirs] = socketPair();
  setNonblocking(theirs, !blocking);
  const { inode } = fileStatus(theirs);
  front.say("SET_BACKEND_REQ_FD", undefined, NEED_REPLY, [theirs]);
  close(theirs);
  const [there] = await back.expect(bytesOf("SET_BACKEND_REQ_FD", undefined, NEED_REPLY));
  assert.notEqual(fileStatus(there).inode, inode, "another socket has come");
  assert.equal(isNonblocking(there), !blocking, "it waits, or does not, as the one that was sent");
  setNonblocking(there);
  back.say("SET_BACKEND_REQ_FD", u64(0), REPLY);
  await front.hear("SET_BACKEND_REQ_FD", u64(0), REPLY);
  return { scene, front, back, asked: new End(t, ours), asking: new End(t, there) };
}

test("the channel is traced both ways", LIMIT, async (t) => {
  const { scene, front, back, asked, asking } = await open(t);
  const start = scene.messages.length;
  assert.deepEqual(scene.messages[start - 2].descriptors.map(({ kind }) => kind), ["socket"]);
  asking.say(".CONFIG_CHANGE_MSG", undefined, NEED_REPLY);
  await asked.hear(".CONFIG_CHANGE_MSG", undefined, NEED_REPLY);
  // QEMU asks before it acknowledges.
  front.say("GET_CONFIG", concat(new Uint8Array(12)));
  await back.hear("GET_CONFIG", new Uint8Array(12));
  back.say("GET_CONFIG", new Uint8Array(12), REPLY);
  await front.hear("GET_CONFIG", new Uint8Array(12), REPLY);
  asked.say(".CONFIG_CHANGE_MSG", u64(0), REPLY);
  await asking.hear(".CONFIG_CHANGE_MSG", u64(0), REPLY);
  const memory = memoryFile("window", 8192);
  onEnd(t, () => close(memory));
  const map = concat(new Uint8Array(8), u64(0, 0, 4096, 1));
  asking.say(".SHMEM_MAP", map, NEED_REPLY, [memory]);
  const [there] = await asked.take(t, ".SHMEM_MAP", map, NEED_REPLY);
  assert.equal(fileStatus(there).inode, fileStatus(memory).inode);
  asked.say(".SHMEM_MAP", u64(1), REPLY);
  await asking.hear(".SHMEM_MAP", u64(1), REPLY);
  await eventually("all told", () => scene.messages.length === start + 6);
  assert.deepEqual(
    scene.messages.slice(start).map((
      { channel, from, name, reply, failed },
    ) => [channel, from, name, reply, failed]),
    [
      ["back-end", "back-end", "CONFIG_CHANGE_MSG", false, false],
      ["main", "front-end", "GET_CONFIG", false, false],
      ["main", "back-end", "GET_CONFIG", true, false],
      ["back-end", "front-end", "CONFIG_CHANGE_MSG", true, false],
      ["back-end", "back-end", "SHMEM_MAP", false, false],
      ["back-end", "front-end", "SHMEM_MAP", true, true],
    ],
  );
  assert.deepEqual(scene.violations, []);
});

test("a channel that waits is replaced by one that waits", LIMIT, async (t) => {
  await open(t, true);
});

test("the end of the channel is seen on its other side; the session goes on", LIMIT, async (t) => {
  for (const who of ["asked", "asking"] as const) {
    const channel = await open(t);
    channel[who].close();
    await channel[who === "asked" ? "asking" : "asked"].ended();
    channel.front.say("SET_OWNER");
    await channel.back.hear("SET_OWNER");
    const side = who === "asked" ? "front-end" : "back-end";
    assert.deepEqual(channel.scene.notes, [`info: closed by the ${side}`]);
    channel.front.close();
    channel.scene.tracer.close();
  }
});

test("a second channel takes the place of the first", LIMIT, async (t) => {
  const { scene, front, back, asking } = await open(t);
  const [ours, theirs] = socketPair();
  front.say("SET_BACKEND_REQ_FD", undefined, PLAIN, [theirs]);
  close(theirs);
  const [there] = await back.expect(bytesOf("SET_BACKEND_REQ_FD"));
  asking.close();
  const [asked, second] = [new End(t, ours), new End(t, there)];
  second.say(".CONFIG_CHANGE_MSG");
  await asked.hear(".CONFIG_CHANGE_MSG");
  assert.deepEqual(scene.violations, []);
});

test("what is not one socket is passed on as it is", LIMIT, async (t) => {
  const scene = new TraceScene(t);
  const { front, back } = await scene.negotiated(PROTOCOL);
  const files = [memoryFile("a", 4096), memoryFile("b", 4096)];
  onEnd(t, () => files.forEach(close));
  const inodes = files.map((fd) => fileStatus(fd).inode);
  front.say("SET_BACKEND_REQ_FD", undefined, PLAIN, files.slice(0, 1));
  front.say("SET_BACKEND_REQ_FD", undefined, PLAIN, files);
  front.say("SET_BACKEND_REQ_FD");
  const inode = (fd: number) => fileStatus(fd).inode;
  assert.deepEqual((await back.take(t, "SET_BACKEND_REQ_FD")).map(inode), inodes.slice(0, 1));
  assert.deepEqual((await back.take(t, "SET_BACKEND_REQ_FD")).map(inode), inodes);
  await back.hear("SET_BACKEND_REQ_FD");
  await eventually("all told", () => scene.violations.length === 2);
});

test("a disk in front of its driver: data, and a change of size over the channel", LIMIT, async (t) => {
  const path = join(tempDir(t), "disk");
  const scene = new TraceScene(t, { connect: path });
  const storage = new MemoryStorage(1 << 20);
  const disk = new BlkDevice({ storage });
  const server = await serve(disk, { socketPath: path, log: () => {} });
  onEnd(t, () => {
    server.close();
    disk.close();
  });
  const driver = await BlkDriver.connect(scene.path, { numQueues: 2, maxTransfer: 4096 });
  let changed = 0;
  driver.frontEnd.onConfigChange = () => changed++;
  const data = crypto.getRandomValues(new Uint8Array(50_000 - 50_000 % 512));
  await driver.write(512, data);
  assert.deepEqual(await driver.read(512, data.length), data);
  storage.resize(2 << 20);
  disk.resized();
  await eventually("the driver is told", () => changed === 1);
  await driver.refresh();
  assert.equal(driver.size, 2 << 20);
  await driver.close();
  await eventually("the end of the session", () => scene.entries.at(-1)?.type === "session");
  const change = scene.messages.filter(({ channel }) => channel === "back-end");
  assert.deepEqual(change.map(({ name, from, reply }) => [name, from, reply]), [
    ["CONFIG_CHANGE_MSG", "back-end", false],
    ["CONFIG_CHANGE_MSG", "front-end", true],
  ]);
  assert.deepEqual(scene.violations, []);
  assert.deepEqual(scene.notes, []);
});
