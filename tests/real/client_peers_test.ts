import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { close } from "../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Writers } from "../frontend/writers.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { realTest } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { Qmp } from "../support/qmp.ts";
import { Random } from "../support/random.ts";
import { Fuse, packed, Packets } from "./client_devices.ts";
import { startPasst, startQsd, startTestpmd, startVirtiofsd, startVsock } from "./client_peers.ts";

// Our front-end in front of the back-ends of others.

const { LOG_SHMFD, BACKEND_SEND_FD, CONFIGURE_MEM_SLOTS, REPLY_ACK, RARP, MTU, DEVICE_STATE, PAGEFAULT } =
  protocolFeatures;
const { LOG_ALL, RING_PACKED, IN_ORDER } = ringFeatures;

async function connected(scope: Scope, socket: string, options: FrontEndOptions = {}): Promise<FrontEnd> {
  for (const deadline = performance.now() + 20_000;; await sleep(5)) {
    try {
      const frontEnd = await FrontEnd.connect(socket, options);
      onEnd(scope, () => frontEnd.close());
      return frontEnd;
    } catch (error) {
      // The file is there before the back-end listens.
      if (!String(error).includes("ECONNREFUSED") || performance.now() > deadline) throw error;
    }
  }
}

function memoryOf(scope: Scope, byteLength: number, guestAddress?: number): SharedMemory {
  const memory = new SharedMemory(byteLength, guestAddress);
  onEnd(scope, () => memory.close());
  return memory;
}

/** Waits until something holds. */
async function until(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 20_000; !holds(); await sleep(2)) {
    assert.ok(performance.now() < deadline, `in vain: ${what}`);
  }
}

for (const withAcks of [true, false]) {
  const how = withAcks ? "with acknowledgements" : "without REPLY_ACK";
  realTest(
    `qemu-storage-daemon: a disk and every message it knows, ${how}`,
    [
      "qemu-storage-daemon",
    ],
    {},
    async (t) => {
      const image = newImage(t, 4 * MIB);
      const { child, socket, qmp } = await startQsd(t, image);
      const disk = await BlkDriver.connect(socket, {
        numQueues: 2,
        indirect: true,
        protocolFeatures: mask(LOG_SHMFD, BACKEND_SEND_FD, PAGEFAULT),
        deviceFeatures: (1n << 24n) - 1n | mask(LOG_ALL),
        withoutProtocolFeatures: withAcks ? 0n : mask(REPLY_ACK, CONFIGURE_MEM_SLOTS),
      });
      onEnd(t, () => disk.close());
      const { frontEnd } = disk;
      assert.equal(frontEnd.negotiated("REPLY_ACK"), withAcks);
      assert.equal(disk.size, 4 * MIB);
      const data = bytesOf(1, MIB);
      await disk.write(4096, data);
      await disk.flush();
      sameBytes(readFileSync(image).subarray(4096, 4096 + MIB), data);
      sameBytes(await disk.read(4096, MIB), data);
      await disk.discard(4096, 65536);
      await disk.writeZeroes(4096 + 65536, 65536);
      sameBytes(await disk.read(4096, 131072), new Uint8Array(131072));
      assert.equal(await disk.id(), "vhost_user_blk");

      // Its own: rings, memory, configuration, log.
      assert.equal((await frontEnd.request("GET_QUEUE_NUM", undefined)).value, 2n);
      await frontEnd.request("SET_VRING_ENABLE", { index: 1, num: 0 });
      await frontEnd.request("SET_VRING_ENABLE", { index: 1, num: 1 });
      if (withAcks) {
        assert.ok((await frontEnd.request("GET_MAX_MEM_SLOTS", undefined)).value >= 8n);
      }
      const more = memoryOf(t, 65536, 0x7000_0000);
      await frontEnd.shareMemory(more);
      await frontEnd.writeConfig(32, Uint8Array.of(1));
      await disk.refresh();
      assert.equal(disk.config.writeback, 1);
      await frontEnd.unshareMemory(more);
      const log = memoryFile("log", 65536);
      onEnd(t, () => close(log));
      const marks = new Mapping(log, 65536);
      onEnd(t, () => marks.unmap());
      await frontEnd.request("SET_LOG_BASE", { size: 65536n, offset: 0n }, [log]);
      await disk.read(0, 4096);
      assert.ok(new Uint8Array(marks.buffer).some((byte) => byte !== 0), "what was read is marked");

      const { fds } = await frontEnd.request("POSTCOPY_ADVISE", undefined);
      assert.equal(fds.length, 1);
      fds.close();

      // The other direction.
      let changed = false;
      frontEnd.onConfigChange = () => void (changed = true);
      const monitor = await Qmp.connect(t, qmp, child);
      await monitor.execute("block_resize", { "node-name": "disk", size: 6 * MIB });
      await until("the change of size", () => changed);
      await disk.refresh();
      assert.equal(disk.size, 6 * MIB);
      await disk.close();
      assert.equal(child.code, undefined);
    },
  );
}

realTest(
  "qemu-storage-daemon is killed while it is written to, and nothing is lost",
  [
    "qemu-storage-daemon",
  ],
  { timeout: 90_000 },
  async (t) => {
    const random = Random.of(t);
    const image = newImage(t, MIB);
    const folder = tempDir(t);
    let daemon = await startQsd(t, image, folder);
    const disk = await BlkDriver.connect(daemon.socket, {
      numQueues: 2,
      queueSize: 32,
      depth: 12,
      reconnect: { longestDelay: 50 },
    });
    onEnd(t, () => disk.frontEnd.close());
    assert.equal(disk.frontEnd.negotiated("INFLIGHT_SHMFD"), false, "it records nothing");
    let reconnects = 0;
    disk.frontEnd.onReconnect = () => void reconnects++;
    const writers = new Writers(disk, 12);
    for (let death = 1; death <= 3; death++) {
      await writers.more(random.int(1, 300));
      assert.equal(writers.pending, 12);
      daemon.child.kill("SIGKILL");
      await daemon.child.ended;
      for (const path of [daemon.socket, daemon.qmp]) rmSync(path);
      daemon = await startQsd(t, image, folder);
      await writers.more(100);
      await until("all was told", () => reconnects === death);
    }
    const expected = await writers.verify();
    await disk.flush();
    sameBytes(readFileSync(image).subarray(0, expected.length), expected, "the image");
    await disk.close();
  },
);

realTest("virtiofsd: a file is looked up and read", ["virtiofsd"], {}, async (t) => {
  const folder = tempDir(t);
  const contents = bytesOf(7, 20_000);
  writeFileSync(join(folder, "hello.txt"), contents);
  const { child, socket } = await startVirtiofsd(t, folder);
  const frontEnd = await connected(t, socket, { protocolFeatures: mask(DEVICE_STATE) });
  const memory = memoryOf(t, MIB);
  await frontEnd.shareMemory(memory);
  const urgent = await frontEnd.startQueue(0, memory, { size: 64 });
  const requests = await frontEnd.startQueue(1, memory, { size: 64 });
  const fuse = new Fuse(memory, requests);
  await frontEnd.driverOk();

  const init = await fuse.call(
    26,
    0n,
    packed([7, 4], [38, 4], [65536, 4], [0, 4], ...new Array(12).fill([0, 4])),
  );
  assert.equal(init.getUint32(0, true), 7, "FUSE 7");
  const name = new TextEncoder().encode("hello.txt\0");
  const found = await fuse.call(1, 1n, name);
  const node = found.getBigUint64(0, true);
  assert.equal(found.getBigUint64(40 + 8, true), BigInt(contents.length), "its size");
  const handle = (await fuse.call(14, node, packed([0, 4], [0, 4]))).getBigUint64(0, true);
  const read = await fuse.call(
    15,
    node,
    packed([handle, 8], [0, 8], [contents.length, 4], [0, 4], [0, 8], [0, 4], [0, 4]),
  );
  sameBytes(new Uint8Array(read.buffer), contents, "the file");
  await assert.rejects(fuse.call(1, 1n, new TextEncoder().encode("absent\0")), /error 2/);
  for (const queue of [urgent, requests]) await frontEnd.stopQueue(queue);
  const state = await frontEnd.saveState();
  assert.ok(state.length > 0, "it has a state");
  await frontEnd.loadState(state);
  await assert.rejects(frontEnd.loadState(bytesOf(1, 100)), /CHECK_DEVICE_STATE/);
  assert.equal(child.code, undefined);
});

/** The virtio header of a network frame. */
const NET_HEADER = 12;
const OUR_MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/** A frame with the header of virtio before it. */
function frame(destination: readonly number[], type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(NET_HEADER + 14 + Math.max(46, payload.length));
  bytes.set([...destination, ...OUR_MAC, type >> 8, type & 0xff], NET_HEADER);
  bytes.set(payload, NET_HEADER + 14);
  return bytes;
}

/** Our address as SEND_RARP has it. */
function macAsNumber(): bigint {
  return new DataView(Uint8Array.of(...OUR_MAC, 0, 0).buffer).getBigUint64(0, true);
}

/** Sends frames to a port until the first comes back: it may take a moment to come up, and drops frames until then. */
async function untilUp(packets: Packets, child: Child): Promise<void> {
  packets.received.length = 0;
  for (let turn = 0; packets.received.length === 0; turn++) {
    assert.ok(turn < 2000, `no frame comes back: ${child.output}`);
    await packets.send(frame(OUR_MAC, 0x88b5, bytesOf(1, 60)));
    await sleep(10);
  }
}

/** Sends frames of all sizes, several at once, and waits until each has come back as it was. */
async function exchange(packets: Packets, rounds: number): Promise<void> {
  const same = (packet: Uint8Array, sent: Uint8Array): boolean =>
    Buffer.compare(packet.subarray(NET_HEADER), sent.subarray(NET_HEADER)) === 0;
  for (let round = 0; round < rounds; round++) {
    const sent = Array.from({ length: 16 }, (_, i) => {
      const seed = 16 * round + i;
      return frame(OUR_MAC, 0x88b5, bytesOf(1000 + seed, 46 + seed % 1400));
    });
    await Promise.all(sent.map((each) => packets.send(each)));
    for (const each of sent) await packets.until("a frame", (packet) => same(packet, each));
  }
}

async function network(
  t: TestContext,
  socket: string,
  options: FrontEndOptions = {},
): Promise<{ frontEnd: FrontEnd; packets: Packets }> {
  const frontEnd = await connected(t, socket, options);
  const memory = memoryOf(t, 4 * MIB);
  await frontEnd.shareMemory(memory);
  // A frame that arrives twice does no harm.
  const receive = await frontEnd.startQueue(0, memory, { size: 256, resubmit: true });
  const transmit = await frontEnd.startQueue(1, memory, { size: 256, resubmit: true });
  await frontEnd.driverOk();
  return { frontEnd, packets: new Packets(memory, receive, transmit, 64, 2048) };
}

realTest("passt: the gateway answers ARP", ["passt"], {}, async (t) => {
  const { child, socket } = await startPasst(t);
  const { frontEnd, packets } = await network(t, socket, { protocolFeatures: mask(RARP) });
  const question = [0, 1, 8, 0, 6, 4, 0, 1, ...OUR_MAC, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2];
  await packets.send(frame(new Array(6).fill(0xff), 0x0806, Uint8Array.from(question)));
  const answer = await packets.until("the answer", (packet) => {
    const at = NET_HEADER + 12;
    return packet[at] === 8 && packet[at + 1] === 6 && packet[at + 9] === 2;
  });
  const arp = answer.subarray(NET_HEADER + 14);
  assert.deepEqual([...arp.subarray(14, 18)], [10, 0, 2, 2], "from the gateway");
  assert.deepEqual([...arp.subarray(18, 24)], OUR_MAC, "to us");
  await frontEnd.request("SEND_RARP", macAsNumber());
  assert.equal(child.code, undefined);
});

/** What else DPDK understands. */
async function dpdkMessages(scope: Scope, frontEnd: FrontEnd, packets: Packets): Promise<void> {
  assert.equal((await frontEnd.request("GET_STATUS", undefined)).value, 15n);
  await frontEnd.request("NET_SET_MTU", 1500n);
  await frontEnd.request("SEND_RARP", macAsNumber());
  // The frame that it makes of that reaches us with the next that it sends.
  await exchange(packets, 1);
  await packets.until(
    "the RARP frame",
    (packet) => packet[NET_HEADER + 12] === 0x80 && packet[NET_HEADER + 13] === 0x35,
  );
  const log = memoryFile("log", 65536);
  onEnd(scope, () => close(log));
  await frontEnd.request("SET_LOG_BASE", { size: 65536n, offset: 0n }, [log]);
  await frontEnd.request("SET_FEATURES", frontEnd.features);
  await exchange(packets, 2);
}

for (const packed of [false, true]) {
  realTest(`testpmd is killed and comes back, ${packed ? "packed" : "split"}`, ["testpmd"], {}, async (t) => {
    const folder = tempDir(t);
    const first = await startTestpmd(t, folder);
    const { frontEnd, packets } = await network(t, first.socket, {
      withoutFeatures: packed ? 0n : mask(RING_PACKED),
      reconnect: { longestDelay: 50 },
    });
    await untilUp(packets, first.child);
    await exchange(packets, 20);
    let back = false;
    frontEnd.onReconnect = () => void (back = true);
    first.child.kill("SIGKILL");
    await first.child.ended;
    rmSync(first.socket);
    const second = await startTestpmd(t, folder);
    await until("all was told", () => back);
    await untilUp(packets, second.child);
    await exchange(packets, 20);
    assert.equal(second.child.code, undefined);
  });
}

for (const format of ["split", "packed"] as const) {
  for (const inOrder of [false, true]) {
    const name = `testpmd: frames come back, ${format}${inOrder ? ", in order" : ""}`;
    realTest(name, ["testpmd"], {}, async (t) => {
      const { child, socket } = await startTestpmd(t);
      const { frontEnd, packets } = await network(t, socket, {
        deviceFeatures: mask(LOG_ALL) | (inOrder ? mask(IN_ORDER) : 0n),
        protocolFeatures: mask(RARP, MTU, LOG_SHMFD),
        withoutFeatures: format === "packed" ? 0n : mask(RING_PACKED),
      });
      assert.equal(frontEnd.features & mask(RING_PACKED), format === "packed" ? mask(RING_PACKED) : 0n);
      assert.equal(frontEnd.features & mask(IN_ORDER), inOrder ? mask(IN_ORDER) : 0n);
      await untilUp(packets, child);
      // More than both rings have entries, so that they wrap.
      await exchange(packets, 40);
      await dpdkMessages(t, frontEnd, packets);
      assert.equal(child.code, undefined);
    });
  }
}

realTest(
  "vhost-device-vsock: the guest connects to a socket of the host",
  [
    "vhost-device-vsock",
  ],
  {},
  async (t) => {
    const { child, socket, folder } = await startVsock(t);
    const sockets: Socket[] = [];
    const heard: string[] = [];
    const server = createServer((peer) => {
      sockets.push(peer);
      peer.on("data", (bytes) => {
        heard.push(String(bytes));
        peer.write("and hello to you");
      });
    });
    await new Promise<void>((resolve) => server.listen(join(folder, "u_1234"), resolve));
    onEnd(t, () => {
      for (const peer of sockets) peer.destroy();
      server.close();
    });

    const frontEnd = await connected(t, socket);
    const cid = new DataView((await frontEnd.readConfig(0, 8)).slice().buffer).getBigUint64(0, true);
    assert.equal(cid, 3n);
    const memory = memoryOf(t, MIB);
    await frontEnd.shareMemory(memory);
    const receive = await frontEnd.startQueue(0, memory, { size: 64 });
    const transmit = await frontEnd.startQueue(1, memory, { size: 64 });
    await frontEnd.driverOk();
    const packets = new Packets(memory, receive, transmit, 16, 4096);
    const packet = (op: number, payload = ""): Uint8Array => {
      const data = new TextEncoder().encode(payload);
      return Uint8Array.of(
        ...packed([cid, 8], [2n, 8], [5000, 4], [1234, 4], [data.length, 4], [1, 2], [op, 2], [0, 4]),
        ...packed([65536, 4], [0, 4]),
        ...data,
      );
    };
    const op = (packet: Uint8Array): number => packet[30];
    await packets.send(packet(1));
    await packets.until("the connection", (packet) => op(packet) === 2);
    await packets.send(packet(5, "hello"));
    const answer = await packets.until("data", (packet) => op(packet) === 5);
    assert.deepEqual(heard, ["hello"]);
    assert.equal(new TextDecoder().decode(answer.subarray(44)), "and hello to you");
    assert.equal(dirname(socket), folder);
    assert.equal(child.code, undefined);
  },
);
