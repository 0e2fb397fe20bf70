import assert from "node:assert/strict";
import { test } from "node:test";
import { consume, eventfd } from "../../ffi/eventfd.ts";
import { close, fileStatus, isOpen, readBytes, setNonblocking, writeBytes } from "../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { socketPair } from "../../ffi/socket.ts";
import {
  type BackendMessage,
  backendMessages,
  type FrontendMessage,
  frontendMessages,
  HeaderFlag,
  mask,
  type MessageRow,
  protocolFeatures,
  ringFeatures,
  type ShmemMapping,
} from "../../src/protocol/mod.ts";
import { pipe } from "../../ffi/pipe.ts";
import { eventually, LIMIT } from "../session/scene.ts";
import { onEnd } from "../support/cleanup.ts";
import { MessageStage, type StageOptions } from "./message_stage.ts";
import { echo } from "./stand.ts";

// Every row of the message table: our front-end sends it, our back-end does it, and back. The types see to it that no row is
// forgotten.

/** How one message is shown to work. */
interface Case extends StageOptions {
  /** Whether it is nothing without REPLY_ACK. */
  readonly needsAck?: boolean;
  /** Sends it, and looks at what has come of it. */
  run(stage: MessageStage): Promise<void>;
}

const { CONFIGURE_MEM_SLOTS } = protocolFeatures;
const { LOG_ALL, RING_PACKED } = ringFeatures;
const SPLIT = mask(RING_PACKED);
const UUID = new Uint8Array(16).fill(9);

/** Part of how every ring starts. */
const ofEveryRing: Case = { run: async (s) => void await s.echo() };

function mapping(): ShmemMapping {
  return { shmid: 1, fdOffset: 0n, shmOffset: 0n, length: 4096n, flags: 1n };
}

async function logged(s: MessageStage): Promise<void> {
  const fd = memoryFile("log", 65536);
  const doorbell = eventfd();
  const log = new Mapping(fd, 65536);
  try {
    await s.frontEnd.request("SET_LOG_BASE", { size: 65536n, offset: 0n }, [fd]);
    await s.frontEnd.request("SET_LOG_FD", undefined, [doorbell]);
    await s.echo();
    const page = s.memory.guestAddress / 4096;
    const bytes = new Uint8Array(log.buffer);
    assert.ok(bytes.some((byte) => byte !== 0), "pages are marked");
    assert.ok(bytes.subarray(0, page >> 3).every((byte) => byte === 0), "and no others");
    await eventually("the log's doorbell", () => consume(doorbell) === "rung");
  } finally {
    log.unmap();
    close(fd);
    close(doorbell);
  }
}

async function transferred(s: MessageStage): Promise<void> {
  const before = s.state;
  const [out, into] = pipe();
  const save = await s.frontEnd.request("SET_DEVICE_STATE_FD", { direction: 0, phase: 0 }, [into]);
  close(into);
  assert.deepEqual(save.value, { error: 0, noDescriptor: true });
  setNonblocking(out);
  const saved: number[] = [];
  await eventually("the state", () => {
    const bytes = readBytes(out);
    saved.push(...bytes ?? []);
    return bytes?.length === 0;
  });
  close(out);
  assert.equal((await s.frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 0n);
  s.state = new Uint8Array(0);
  const [from, back] = pipe();
  await s.frontEnd.request("SET_DEVICE_STATE_FD", { direction: 1, phase: 0 }, [from]);
  close(from);
  writeBytes(back, Uint8Array.from(saved));
  close(back);
  assert.equal((await s.frontEnd.request("CHECK_DEVICE_STATE", undefined)).value, 0n);
  assert.deepEqual(s.state, before);
}

async function arrived(s: MessageStage): Promise<void> {
  const { fds } = await s.frontEnd.request("POSTCOPY_ADVISE", undefined);
  fds.close();
  await s.frontEnd.request("POSTCOPY_LISTEN", undefined);
  const theirs = await s.frontEnd.shareMemoryPostcopy(s.memory);
  assert.equal(theirs.guestAddress, BigInt(s.memory.guestAddress));
  await s.frontEnd.acknowledgePostcopy();
  await s.frontEnd.request("POSTCOPY_END", undefined);
  const queue = await s.frontEnd.startQueue(0, s.memory, { size: 8 });
  await echo(queue, s.memory, 1);
}

async function recorded(s: MessageStage): Promise<void> {
  assert.ok(await s.frontEnd.recordInflight(2, 8));
  await s.echo();
}

async function crypto(s: MessageStage): Promise<void> {
  const session = { opCode: 3n, session: new Uint8Array(1056), sessionId: 0n };
  const { value } = await s.frontEnd.request("CREATE_CRYPTO_SESSION", session);
  assert.equal(value.sessionId, 42n);
  await s.frontEnd.request("CLOSE_CRYPTO_SESSION", 42n);
  assert.ok(s.said.includes("crypto 42"));
}

async function status(s: MessageStage): Promise<void> {
  await s.echo();
  assert.equal((await s.frontEnd.request("GET_STATUS", undefined)).value, 15n);
}

async function memoryMoves(s: MessageStage): Promise<void> {
  const other = s.scene.memory(8192, 0x5000_0000);
  await s.frontEnd.shareMemory(other);
  const queue = await s.echo();
  await echo(queue, other, 1);
  await s.frontEnd.unshareMemory(other);
  await assert.rejects(echo(queue, other, 2), /broken/);
  await s.scene.log.problem(/not in guest memory/);
}

const frontendCases: Record<FrontendMessage, Case> = {
  GET_FEATURES: {
    run: async (s) => {
      const { value } = await s.frontEnd.request("GET_FEATURES", undefined);
      assert.equal(value & s.frontEnd.features, s.frontEnd.features);
    },
  },
  SET_FEATURES: {
    run: async (s) => {
      s.said.length = 0;
      await s.frontEnd.request("SET_FEATURES", s.frontEnd.features);
      assert.deepEqual(s.said, [`features ${s.frontEnd.features.toString(16)}`]);
    },
  },
  SET_OWNER: { run: async (s) => void await s.frontEnd.request("SET_OWNER", undefined) },
  RESET_OWNER: {
    run: async (s) => {
      const queue = await s.echo();
      await s.frontEnd.request("RESET_OWNER", undefined);
      await s.frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 1 });
      await echo(queue, s.memory, 4);
    },
  },
  SET_MEM_TABLE: { without: mask(CONFIGURE_MEM_SLOTS), run: memoryMoves },
  SET_LOG_BASE: { deviceFeatures: mask(LOG_ALL), run: logged },
  SET_LOG_FD: { deviceFeatures: mask(LOG_ALL), run: logged },
  SET_VRING_NUM: ofEveryRing,
  SET_VRING_ADDR: ofEveryRing,
  SET_VRING_BASE: ofEveryRing,
  GET_VRING_BASE: {
    withoutFeatures: SPLIT,
    run: async (s) => assert.equal(await s.frontEnd.stopQueue(await s.echo()), 3),
  },
  SET_VRING_KICK: ofEveryRing,
  SET_VRING_CALL: ofEveryRing,
  SET_VRING_ERR: {
    run: async (s) => {
      const queue = await s.echo();
      await assert.rejects(queue.request([{ guestAddress: 0x7000_0000, length: 4 }], []), /ring 0 broken/);
      await s.scene.log.problem(/not in guest memory/);
    },
  },
  GET_PROTOCOL_FEATURES: {
    run: async (s) => {
      const { value } = await s.frontEnd.request("GET_PROTOCOL_FEATURES", undefined);
      assert.equal(value & s.frontEnd.protocolFeatures, s.frontEnd.protocolFeatures);
    },
  },
  SET_PROTOCOL_FEATURES: { run: (s) => Promise.resolve(assert.ok(s.link.negotiated("SHMEM"))) },
  GET_QUEUE_NUM: {
    run: async (s) => assert.equal((await s.frontEnd.request("GET_QUEUE_NUM", undefined)).value, 2n),
  },
  SET_VRING_ENABLE: {
    run: async (s) => {
      const queue = await s.echo();
      await s.frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 0 });
      const held = echo(queue, s.memory, 4);
      await s.frontEnd.request("GET_QUEUE_NUM", undefined);
      assert.equal(queue.inFlight, 1);
      await s.frontEnd.request("SET_VRING_ENABLE", { index: 0, num: 1 });
      await held;
    },
  },
  SEND_RARP: {
    run: async (s) => {
      await s.frontEnd.request("SEND_RARP", 0x0605_0403_0201n);
      assert.ok(s.said.includes("rarp 1,2,3,4,5,6"));
    },
  },
  NET_SET_MTU: {
    run: async (s) => {
      await s.frontEnd.request("NET_SET_MTU", 1500n);
      assert.ok(s.said.includes("mtu 1500"));
    },
  },
  SET_BACKEND_REQ_FD: {
    run: async (s) => {
      await s.echo();
      await s.link.request("SHARED_OBJECT_ADD", UUID);
    },
  },
  IOTLB_MSG: { iommu: true, needsAck: true, run: async (s) => void await s.echo() },
  SET_VRING_ENDIAN: { bigEndian: true, run: async (s) => void await s.echo() },
  GET_CONFIG: { run: async (s) => assert.deepEqual([...await s.frontEnd.readConfig(1, 2)], [2, 3]) },
  SET_CONFIG: {
    run: async (s) => {
      await s.frontEnd.writeConfig(1, Uint8Array.of(8, 9));
      assert.deepEqual([...s.config], [1, 8, 9, 4]);
    },
  },
  CREATE_CRYPTO_SESSION: { run: crypto },
  CLOSE_CRYPTO_SESSION: { run: crypto },
  POSTCOPY_ADVISE: { run: arrived },
  POSTCOPY_LISTEN: { without: mask(CONFIGURE_MEM_SLOTS), run: arrived },
  POSTCOPY_END: { run: arrived },
  GET_INFLIGHT_FD: { run: recorded },
  SET_INFLIGHT_FD: { withoutFeatures: SPLIT, run: recorded },
  GPU_SET_SOCKET: {
    run: async (s) => {
      const [ours, theirs] = socketPair();
      await s.frontEnd.request("GPU_SET_SOCKET", undefined, [theirs]);
      assert.ok(isOpen(s.gpuSocket) && s.gpuSocket !== theirs);
      for (const fd of [ours, theirs, s.gpuSocket]) close(fd);
    },
  },
  RESET_DEVICE: {
    run: async (s) => {
      const queue = await s.echo();
      await s.frontEnd.resetDevice();
      assert.ok(s.said.includes("reset"));
      await assert.rejects(echo(queue, s.memory, 4), /was reset/);
      await echo(await s.frontEnd.startQueue(0, s.memory, { size: 8 }), s.memory, 5);
    },
  },
  VRING_KICK: { inBand: true, needsAck: true, run: async (s) => void await s.echo() },
  GET_MAX_MEM_SLOTS: {
    run: async (s) => assert.equal((await s.frontEnd.request("GET_MAX_MEM_SLOTS", undefined)).value, 509n),
  },
  ADD_MEM_REG: { run: memoryMoves },
  REM_MEM_REG: { run: memoryMoves },
  SET_STATUS: { run: status },
  GET_STATUS: { run: status },
  GET_SHARED_OBJECT: {
    run: async (s) => {
      const { fds } = await s.frontEnd.request("GET_SHARED_OBJECT", UUID);
      assert.equal(fileStatus(fds.list()[0]).inode, fileStatus(s.file).inode);
      fds.close();
    },
  },
  SET_DEVICE_STATE_FD: { run: transferred },
  CHECK_DEVICE_STATE: { run: transferred },
  GET_SHMEM_CONFIG: {
    run: async (s) => {
      const { value } = await s.frontEnd.request("GET_SHMEM_CONFIG", undefined);
      assert.equal(value.sizes[1], 1n << 20n);
    },
  },
};

const area = { index: 1, noDescriptor: false, size: 4096n, offset: 0n };

const backendCases: Record<BackendMessage, Case> = {
  IOTLB_MSG: {
    iommu: true,
    needsAck: true,
    run: async (s) => {
      await s.echo();
      assert.ok(s.said.includes("miss"));
    },
  },
  CONFIG_CHANGE_MSG: {
    run: async (s) => {
      await s.echo();
      s.device.configChanged();
      await eventually("the change", () => s.said.includes("config"));
    },
  },
  VRING_HOST_NOTIFIER_MSG: {
    run: async (s) => {
      await s.echo();
      await s.link.request("VRING_HOST_NOTIFIER_MSG", area, [s.file]);
      await eventually("the page", () => s.said.includes("notifier 1 true"));
    },
  },
  VRING_CALL: {
    inBand: true,
    needsAck: true,
    run: async (s) => assert.equal((await s.echo()).call, -1),
  },
  VRING_ERR: {
    inBand: true,
    needsAck: true,
    run: async (s) => {
      const queue = await s.echo();
      await assert.rejects(queue.request([{ guestAddress: 0x7000_0000, length: 4 }], []), /ring 0 broken/);
      await s.scene.log.problem(/not in guest memory/);
    },
  },
  SHARED_OBJECT_ADD: {
    run: async (s) => {
      await s.echo();
      await s.link.request("SHARED_OBJECT_ADD", UUID);
      await eventually("the object", () => s.said.includes("add 9"));
    },
  },
  SHARED_OBJECT_REMOVE: {
    run: async (s) => {
      await s.echo();
      await s.link.request("SHARED_OBJECT_REMOVE", UUID);
      await eventually("the object", () => s.said.includes("remove 9"));
    },
  },
  SHARED_OBJECT_LOOKUP: {
    run: async (s) => {
      await s.echo();
      const { fds } = await s.link.request("SHARED_OBJECT_LOOKUP", UUID);
      assert.equal(fileStatus(fds.list()[0]).inode, fileStatus(s.file).inode);
      fds.close();
    },
  },
  SHMEM_MAP: {
    run: async (s) => {
      await s.echo();
      await s.link.windows.map(mapping(), s.file);
      await eventually("the mapping", () => s.said.includes("map 1 true"));
    },
  },
  SHMEM_UNMAP: {
    run: async (s) => {
      await s.echo();
      await s.link.windows.map(mapping(), s.file);
      await s.link.windows.unmap(mapping());
      await eventually("the end of the mapping", () => s.said.includes("unmap 1"));
    },
  },
};

/** Every message has the answer that its row says: it is asked for, or a GET_FEATURES follows. */
function checkAnswers({ crossings }: MessageStage, replyAck: boolean): void {
  const out = crossings.filter(({ direction }) => direction === "out");
  let [agreed, postcopy] = [false, false];
  out.forEach(({ name, flags }, i) => {
    const row: MessageRow = frontendMessages[name as FrontendMessage];
    postcopy ||= name === "POSTCOPY_LISTEN";
    if (postcopy && row.postcopyReply !== undefined) return;
    const asked = (flags & HeaderFlag.NEED_REPLY) !== 0;
    const wanted = row.reply === "always ack" || (row.reply === "ack" && replyAck && agreed);
    assert.equal(asked, wanted, `${name} asks for an acknowledgement`);
    if (name === "SET_PROTOCOL_FEATURES") agreed = true;
    else if (row.reply === "ack" && !asked) {
      assert.equal(out[i + 1]?.name, "GET_FEATURES", `${name} is waited for`);
    }
  });
  const answers = crossings.filter(({ direction }) => direction === "in").length;
  const silent =
    out.filter(({ name, flags }) =>
      frontendMessages[name as FrontendMessage].reply === "ack" && (flags & HeaderFlag.NEED_REPLY) === 0
    ).length;
  if (!postcopy) assert.equal(answers, out.length - silent, "every answer came");
}

for (const replyAck of [true, false]) {
  const how = replyAck ? "acknowledged" : "without REPLY_ACK";
  for (const [name, given] of Object.entries(frontendCases)) {
    if (given.needsAck === true && !replyAck) continue;
    test(`→ ${name}, ${how}`, LIMIT, async (t) => {
      const stage = await MessageStage.open(t, replyAck, given);
      await given.run(stage);
      assert.ok(stage.crossed(name), "it was sent");
      checkAnswers(stage, replyAck);
      assert.deepEqual(stage.scene.log.problems, []);
    });
  }
  for (const [name, given] of Object.entries(backendCases)) {
    if (given.needsAck === true && !replyAck) continue;
    test(`← ${name}, ${how}`, LIMIT, async (t) => {
      const stage = await MessageStage.open(t, replyAck, given);
      await given.run(stage);
      assert.deepEqual(stage.channelFailures, []);
      assert.deepEqual(stage.scene.log.problems, []);
    });
  }
}

test("a message whose feature was not negotiated is not sent", LIMIT, async (t) => {
  const none = await MessageStage.open(t, true, { without: ~0n, withoutFeatures: ~0n });
  const gated = Object.entries(frontendMessages).filter(([, row]: [string, MessageRow]) =>
    row.requires !== undefined || row.requiresRing === "ACCESS_PLATFORM"
  );
  assert.equal(gated.length, 27);
  for (const [name] of gated) {
    await assert.rejects(
      none.frontEnd.request(name as "GET_STATUS", undefined),
      new RegExp(`^ProtocolError: ${name}: cannot be sent: .* was not negotiated$`),
    );
  }
  await assert.rejects(
    none.frontEnd.request("SET_VRING_ENDIAN", { index: 0, num: 1 }),
    /CROSS_ENDIAN was not negotiated/,
  );
  const count = none.frontEnd.request("SET_LOG_FD", undefined, [] as unknown as readonly [number]);
  await assert.rejects(count, /descriptors: expected 1, got 0/);
  assert.equal((await none.frontEnd.request("GET_FEATURES", undefined)).value & 1n << 32n, 1n << 32n);
});

test(
  "what the front-end does not serve is answered with failure, and the channel lives",
  LIMIT,
  async (t) => {
    const stage = await MessageStage.open(t, true, { deaf: true });
    await stage.echo();
    const served = ["CONFIG_CHANGE_MSG", "VRING_CALL", "VRING_ERR", "IOTLB_MSG"];
    const names = Object.keys(backendMessages).filter((name) => !served.includes(name)) as BackendMessage[];
    assert.equal(names.length, 6);
    for (const name of names) {
      const payload = name === "VRING_HOST_NOTIFIER_MSG" ? area : name.startsWith("SHMEM") ? mapping() : UUID;
      const row: MessageRow = backendMessages[name];
      const fds = row.fds === undefined ? [] : [stage.file];
      await assert.rejects(stage.link.request(name, payload as never, fds), /the peer answered failure/);
    }
    assert.deepEqual(
      stage.channelFailures,
      names.map((name) => `ProtocolError: ${name}: nobody here serves it`),
    );
    stage.device.configChanged();
    await eventually("the change", () => stage.said.includes("config"));
  },
);

test(
  "without REPLY_ACK a message that nobody serves is passed over, and the channel lives",
  LIMIT,
  async (t) => {
    const stage = await MessageStage.open(t, false, { deaf: true });
    onEnd(t, () => stage.frontEnd.close());
    await stage.echo();
    await stage.link.request("SHARED_OBJECT_ADD", UUID);
    stage.device.configChanged();
    await eventually("the change", () => stage.said.includes("config"));
    assert.equal(stage.channelFailures.length, 1);
  },
);
