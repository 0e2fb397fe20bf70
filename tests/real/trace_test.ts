import assert from "node:assert/strict";
import { readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { tempDir } from "../support/cleanup.ts";
import { MIB, newImage, sha256 } from "../support/image.ts";
import { startCommand, startDisk } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { Qmp } from "../support/qmp.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { startStorageDaemon } from "../support/storage_daemon.ts";
import { Uml } from "../support/uml.ts";

// The tracer between real front-ends and real back-ends: they notice nothing, and it sees everything.

/** What the tests look at in an entry of `--json`. */
interface Line {
  type: string;
  session: number;
  channel?: string;
  from?: string;
  name?: string | null;
  reply?: boolean;
  failed?: boolean;
  latencyUs?: number;
  left?: string | null;
  event?: string;
  level?: string;
  text?: string;
  payload?: unknown;
  descriptors?: { kind: string; name?: string; size?: number }[];
  violations?: string[];
  messages?: { name: string; count: number; answered: number; medianUs?: number }[];
}

/** `vhost-user trace --json` in a process of its own. */
class Trace {
  readonly child: Child;
  /** Where front-ends connect. */
  readonly socket: string;
  #text = "";

  static async start(t: TestContext, connect: string, args: readonly string[] = []): Promise<Trace> {
    const socket = join(tempDir(t), "seen.sock");
    const all = ["trace", `--listen=${socket}`, `--connect=${connect}`, "--json", "--device=blk", ...args];
    const child = startCommand(t, all, { pipe: true });
    await child.waitLine(/listening on/);
    return new Trace(child, socket);
  }

  private constructor(child: Child, socket: string) {
    this.child = child;
    this.socket = socket;
    child.stdout.setEncoding("utf8").on("data", (text: string) => this.#text += text);
  }

  /** All entries so far. */
  get lines(): Line[] {
    return this.#text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  }

  /** The messages so far, as `→ NAME` or `← NAME`, with a tilde on the channel. */
  get flow(): string[] {
    return this.lines.filter(({ type }) => type === "message").map(({ from, channel, name }) =>
      `${from === "front-end" ? "→" : "←"}${channel === "main" ? "" : "~"} ${name}`
    );
  }

  /** All that it finds wrong, and all warnings. */
  get complaints(): string[] {
    return this.lines.flatMap((line) => [
      ...(line.violations ?? []).map((each) => `${line.name}: ${each}`),
      ...(line.failed ? [`${line.name} has failed`] : []),
      ...(line.type === "note" && line.level !== "info" ? [`${line.level}: ${line.text}`] : []),
    ]);
  }

  async until(what: string, holds: () => boolean, patience = 5000): Promise<void> {
    for (const deadline = Date.now() + patience; !holds(); await sleep(5)) {
      assert.ok(Date.now() < deadline, `in vain: ${what}\n${this.#text.slice(-3000)}\n${this.child.output}`);
    }
  }

  /** Waits for the end of a session. */
  async sessionEnd(session: number): Promise<Line> {
    const found = () => this.lines.find((line) => line.session === session && line.event === "end");
    await this.until(`the end of session ${session}`, () => found() !== undefined);
    return found() as Line;
  }

  /** Ends it by a signal; returns the last line, the summary. */
  async stop(): Promise<Line> {
    this.child.kill("SIGTERM");
    assert.equal(await this.child.waitEnd(), 0);
    return this.lines.at(-1) as Line;
  }
}

/** Writes and reads by qemu-io, and compares with the image on the host. */
async function exercise(socket: string, image: string): Promise<void> {
  await qemuIo(
    socket,
    ...["write -P 0xab 0 64k", "write -P 0xcd 1M 8M", "read -P 0xab 0 64k", "read -P 0xcd 1M 8M"],
    ...[
      "discard 1M 4M",
      "read -P 0 1M 4M",
      "write -z 6M 1M",
      "aio_write -P 0x11 10M 1M",
      "aio_flush",
      "flush",
    ],
  );
  const expected = new Uint8Array(16 * MIB);
  expected.fill(0xab, 0, 65536).fill(0xcd, 5 * MIB, 9 * MIB).fill(0, 6 * MIB, 7 * MIB).fill(
    0x11,
    10 * MIB,
    11 * MIB,
  );
  assert.equal(sha256(image), sha256(expected));
}

/** What libblkio says to every disk, in this order. */
const LIBBLKIO = [
  ...["→ SET_OWNER", "→ GET_FEATURES", "← GET_FEATURES", "→ SET_FEATURES", "→ GET_PROTOCOL_FEATURES"],
  ...["← GET_PROTOCOL_FEATURES", "→ SET_PROTOCOL_FEATURES", "→ SET_VRING_KICK", "→ SET_VRING_ENABLE"],
];

async function checkLibblkio(trace: Trace, known: readonly string[] = []): Promise<void> {
  assert.equal((await trace.sessionEnd(1)).left, "front-end");
  const { flow } = trace;
  assert.deepEqual(LIBBLKIO.filter((each) => !flow.includes(each)), []);
  const order = LIBBLKIO.map((each) => flow.indexOf(each));
  assert.deepEqual(order, order.toSorted((a, b) => a - b));
  const kick = trace.lines.find(({ name }) => name === "SET_VRING_KICK");
  assert.deepEqual(kick?.descriptors, [{ kind: "eventfd" }]);
  const memory = trace.lines.find(({ name }) => name === "ADD_MEM_REG");
  assert.equal(memory?.descriptors?.[0].kind, "memfd");
  assert.deepEqual(trace.complaints.filter((each) => !known.includes(each)), []);
  const summary = await trace.stop();
  const row = summary.messages?.find(({ name }) => name === "GET_FEATURES");
  assert.ok(row !== undefined && row.answered === row.count && (row.medianUs ?? 0) > 0);
}

realTest("qemu-io over libblkio, traced, with our disk", ["qemu-io", "libblkio"], {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image });
  const trace = await Trace.start(t, disk.socket);
  await exercise(trace.socket, image);
  await checkLibblkio(trace);
  await disk.checkUnharmed();
});

realTest(
  "qemu-io over libblkio, traced, with qemu-storage-daemon",
  ["qemu-io", "libblkio", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 16 * MIB);
    const trace = await Trace.start(t, await startStorageDaemon(t, image));
    await exercise(trace.socket, image);
    // It returns the header that it has got.
    await checkLibblkio(trace, ["GET_CONFIG: a reply must not have need_reply"]);
  },
);

/** Shell: writes 4 MiB of random bytes at a place of the disk, reads them back past the cache; says both checksums. */
const writeAndRead = (mib: number): string => `
  dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
  dd if=/tmp/data of=/dev/vda bs=1M seek=${mib} oflag=direct conv=fsync 2>/dev/null
  sha256sum </tmp/data | cut -c1-64
  dd if=/dev/vda bs=1M skip=${mib} count=4 iflag=direct 2>/dev/null | sha256sum | cut -c1-64`;

async function checkData(
  guest: { run(script: string): Promise<string> },
  image: string,
  mib: number,
): Promise<void> {
  const [written, read] = (await guest.run(writeAndRead(mib))).split("\n");
  assert.equal(read, written);
  assert.equal(sha256(readFileSync(image).subarray(mib * MIB, (mib + 4) * MIB)), written);
}

/** The messages of a changed size: told on the channel, looked at on the main connection, then acknowledged if asked. */
async function checkResize(trace: Trace, acknowledged: boolean): Promise<void> {
  const expected = ["←~ CONFIG_CHANGE_MSG", "→ GET_CONFIG", "← GET_CONFIG"];
  if (acknowledged) expected.push("→~ CONFIG_CHANGE_MSG");
  const since = () => trace.flow.slice(Math.max(0, trace.flow.indexOf(expected[0])));
  await trace.until("all messages", () => since().length >= expected.length);
  assert.deepEqual(since(), expected);
}

realTest("a guest's disk, traced: plugged, used, resized, unplugged", ["qemu", "guest"], {}, async (t) => {
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image });
  const trace = await Trace.start(t, disk.socket);
  const guest = await restoreGuest(t);
  await guest.plug("vhost-user-blk-pci", trace.socket);
  await guest.waitFor("[ -b /dev/vda ]");
  await checkData(guest, image, 0);
  const channel = trace.lines.find(({ name }) => name === "SET_BACKEND_REQ_FD");
  assert.deepEqual(channel?.descriptors?.map(({ kind }) => kind), ["socket"]);
  truncateSync(image, 64 * MIB);
  disk.child.kill("SIGHUP");
  await guest.waitFor(`[ $(cat /sys/block/vda/size) = ${64 * MIB / 512} ]`);
  await checkResize(trace, true);
  await checkData(guest, image, 48);
  await guest.unplug();
  await guest.waitFor("[ ! -b /dev/vda ]");
  assert.equal((await trace.sessionEnd(1)).left, "front-end");
  assert.deepEqual(trace.complaints, []);
  await disk.checkUnharmed();
  await trace.stop();
});

realTest(
  "a guest's disk of qemu-storage-daemon, traced, is resized over the channel",
  ["qemu", "guest", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 32 * MIB);
    const folder = tempDir(t);
    const [socket, monitor] = ["blk.sock", "qmp.sock"].map((name) => join(folder, name));
    const daemon = Child.start(t, peerPath("qemu-storage-daemon"), [
      ...["--blockdev", `driver=file,filename=${image},node-name=file`],
      ...["--blockdev", "driver=raw,file=file,node-name=disk"],
      ...[
        "--export",
        `type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${socket},writable=on`,
      ],
      ...["--chardev", `socket,path=${monitor},server=on,wait=off,id=q`, "--monitor", "chardev=q"],
    ]);
    await daemon.waitSocket(socket);
    const qmp = await Qmp.connect(t, monitor, daemon);
    const trace = await Trace.start(t, socket);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", trace.socket);
    await guest.waitFor("[ -b /dev/vda ]");
    await checkData(guest, image, 0);
    await qmp.execute("block_resize", { "node-name": "disk", size: 64 * MIB });
    await guest.waitFor(`[ $(cat /sys/block/vda/size) = ${64 * MIB / 512} ]`);
    await checkResize(trace, false);
    await checkData(guest, image, 48);
    await guest.stop();
    assert.equal((await trace.sessionEnd(1)).left, "front-end");
    assert.deepEqual(trace.complaints, []);
    await trace.stop();
  },
);

realTest(
  "QEMU sees through the tracer that the back-end dies, and comes again",
  ["qemu", "guest"],
  {},
  async (t) => {
    const image = newImage(t, 32 * MIB);
    const first = await startDisk(t, { file: image });
    const trace = await Trace.start(t, first.socket);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", trace.socket, { reconnectMs: 100 });
    await guest.waitFor("[ -b /dev/vda ]");
    await checkData(guest, image, 0);
    first.child.kill("SIGKILL");
    assert.equal((await trace.sessionEnd(1)).left, "back-end");
    await trace.until(
      "an attempt while nobody is there",
      () => trace.complaints.some((each) => /no session/.test(each)),
    );
    await startDisk(t, { file: image, socket: first.socket });
    await checkData(guest, image, 8);
    const { lines } = trace;
    const session = lines.filter(({ type }) => type === "message").at(-1)?.session ?? 0;
    assert.ok(session > 1);
    await guest.stop();
    assert.equal((await trace.sessionEnd(session)).left, "front-end");
    await trace.stop();
  },
);

realTest("User-Mode Linux, traced, with our disk", ["uml", "uml-guest"], {}, async (t) => {
  const image = newImage(t, 32 * MIB);
  const disk = await startDisk(t, { file: image });
  const trace = await Trace.start(t, disk.socket);
  const uml = await Uml.start(t, { modules: ["virtio_blk"], devices: [{ socket: trace.socket, id: 2 }] });
  await checkData(uml, image, 0);
  await uml.shutDown();
  assert.equal((await trace.sessionEnd(1)).left, "front-end");
  assert.ok(trace.flow.includes("→ SET_VRING_ENABLE"));
  assert.deepEqual(trace.complaints, []);
  await disk.checkUnharmed();
  await trace.stop();
});

realTest(
  "User-Mode Linux, traced, with a disk of qemu-storage-daemon",
  ["uml", "uml-guest", "qemu-storage-daemon"],
  {},
  async (t) => {
    const image = newImage(t, 32 * MIB);
    const trace = await Trace.start(t, await startStorageDaemon(t, image));
    const uml = await Uml.start(t, { modules: ["virtio_blk"], devices: [{ socket: trace.socket, id: 2 }] });
    await checkData(uml, image, 0);
    await uml.shutDown();
    await trace.sessionEnd(1);
    assert.deepEqual(trace.complaints, []);
    await trace.stop();
  },
);
