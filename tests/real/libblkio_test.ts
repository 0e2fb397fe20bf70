import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { close } from "../../ffi/fd.ts";
import { accept, listen } from "../../ffi/socket.ts";
import { tempDir } from "../support/cleanup.ts";
import { allocated, imageOf, MIB, newImage, sha256 } from "../support/image.ts";
import { OurBackend, startCommand, startDisk } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { blkioDisk, qemuIo, qemuIoArguments } from "../support/qemu_io.ts";
import { Random } from "../support/random.ts";
import { TextReader } from "../support/stream.ts";

// Our disk in front of libblkio, by QEMU's tools and by a program in C. Each takes a new connection, so each test is
// also about front-ends that come and go.

const io = ["qemu-io", "libblkio"] as const;
const img = ["qemu-img", "libblkio"] as const;

/** How long a front-end may take for what it does at once, milliseconds: a machine may have much else to do. */
const PATIENCE = 20_000;

/** qemu-img bench: `count` requests of 4 KiB, `depth` at once. */
function benchArguments(socket: string, count: number, depth: number, ...more: string[]): string[] {
  return ["bench", `-c${count}`, `-d${depth}`, "-s4k", "-tnone", ...more, "--image-opts", blkioDisk(socket)];
}

/** What a test with worker threads is called by. */
function inThreads(workers?: number): string[] {
  return workers === undefined ? [] : [`--workers=${workers}`];
}

/** A qemu-io that stays connected and does commands as they come. */
class Terminal {
  readonly #child: Child;
  readonly #reader: TextReader;

  constructor(t: TestContext, socket: string, ...args: string[]) {
    this.#child = Child.start(t, peerPath("qemu-io"), [...args, ...qemuIoArguments(socket, [])], {
      pipe: true,
    });
    this.#reader = new TextReader(this.#child.stdout);
  }

  /** Waits until it has done what it was told and takes commands, or returns undefined after `timeout`. */
  async prompt(timeout: number): Promise<string | undefined> {
    return (await this.#reader.take(/qemu-io> /, timeout))?.before;
  }

  async run(command: string): Promise<string> {
    this.#child.stdin.write(`${command}\n`);
    const said = await this.prompt(PATIENCE);
    assert.ok(said !== undefined, `no answer to ${command}: ${this.#child.output}`);
    return said;
  }

  /** Ends it; its status is 1 after a command that failed. */
  async quit(status = 0): Promise<void> {
    this.#child.stdin.end("quit\n");
    assert.equal(await this.#child.waitEnd(), status);
  }

  /** What it has said about errors. */
  get errors(): string {
    return this.#child.output;
  }

  kill(): Promise<number> {
    this.#child.kill("SIGKILL");
    return this.#child.ended;
  }
}

/** What a disk should hold, and the commands that make it so. */
class Plan {
  readonly commands: string[] = [];
  readonly model: Buffer;
  readonly #random: Random;
  readonly #source: Buffer;
  readonly #sourceFile: string;

  constructor(t: TestContext, random: Random, size: number) {
    this.#random = random;
    this.model = Buffer.alloc(size);
    this.#source = random.bytes(77777);
    this.#sourceFile = imageOf(t, this.#source);
  }

  /** A range: of whole sectors in most cases, within a sector or across several else. */
  #range(unit: number): { at: number; length: number } {
    const random = this.#random;
    const sectors = random.pick([1, 1, 2, 3, 7, 8, 9, 64, 129, 300, 2048, 5000]);
    const length = unit === 1 ? random.int(1, sectors * 512) : sectors * 512;
    const at = random.int(0, Math.floor((this.model.length - length) / unit)) * unit;
    return { at, length };
  }

  #pattern(): number {
    return this.#random.int(1, 255);
  }

  /** Adds `count` commands, each to another place, over what is there. */
  add(count: number): void {
    const { model, commands } = this;
    for (let i = 0; i < count; i++) {
      const unit = this.#random.pick([512, 512, 512, 4096, 1]);
      const { at, length } = this.#range(unit);
      const pattern = this.#pattern();
      const kind = this.#random.pick(["write", "write", "file", "vector", "zero", "unmap", "discard", "aio"]);
      switch (kind) {
        case "write":
          commands.push(`write -P ${pattern} ${at} ${length}`, `read -P ${pattern} ${at} ${length}`);
          model.fill(pattern, at, at + length);
          break;
        case "file":
          commands.push(`write -s ${this.#sourceFile} ${at} ${length}`);
          model.fill(this.#source, at, at + length);
          break;
        case "vector": {
          const cut = Math.ceil(length / 2 / 512) * 512;
          const lengths = length > cut ? `${cut} ${length - cut}` : `${length}`;
          commands.push(`writev -P ${pattern} ${at} ${lengths}`, `readv -P ${pattern} ${at} ${lengths}`);
          model.fill(pattern, at, at + length);
          break;
        }
        case "aio":
          this.#concurrent();
          break;
        default: {
          const end = kind === "discard" ? at - at % 512 + Math.ceil(length / 512) * 512 : at + length;
          const start = kind === "discard" ? at - at % 512 : at;
          const command = { zero: "write -z", unmap: "write -z -u", discard: "discard" }[kind];
          commands.push(`${command} ${start} ${end - start}`, `read -P 0 ${start} ${end - start}`);
          model.fill(0, start, end);
        }
      }
      if (this.#random.int(0, 9) === 0) commands.push("flush");
    }
  }

  /** Several writes at once, side by side and in any order, then reads of the same at once. */
  #concurrent(): void {
    const length = this.#random.pick([512, 4096, 6656]);
    const count = this.#random.int(2, 40);
    const start = this.#random.int(0, Math.floor((this.model.length - count * length) / 512)) * 512;
    const pieces = Array.from({ length: count }, (_, i) => ({
      at: start + i * length,
      pattern: this.#pattern(),
      order: this.#random.int(0, 1 << 30),
    })).sort((a, b) => a.order - b.order);
    for (const { at, pattern } of pieces) {
      this.commands.push(`aio_write -q -P ${pattern} ${at} ${length}`);
      this.model.fill(pattern, at, at + length);
    }
    this.commands.push("aio_flush");
    for (const { at, pattern } of pieces) this.commands.push(`aio_read -q -P ${pattern} ${at} ${length}`);
    this.commands.push("aio_flush");
  }
}

for (
  const { args, workers } of [
    { args: [] },
    { args: ["--poll-us=0", "--block-size=4096"] },
    { args: ["--num-queues=2"], workers: 2 },
  ]
) {
  realTest(
    ["a disk holds what was written to it", ...args, ...inThreads(workers)].join(" "),
    [...io, ...img],
    {},
    async (t) => {
      const plan = new Plan(t, Random.of(t), 12 * MIB + 4096);
      const image = newImage(t, plan.model.length);
      const disk = await startDisk(t, { file: image, args, workers });
      plan.add(100);
      const said = await qemuIo(disk.socket, ...plan.commands, "length");
      assert.match(said, /^12.004 MiB$/m);
      assert.equal(sha256(image), sha256(plan.model));
      // The same seen through the front-end, some of it after it has gone from the host's memory.
      const expected = imageOf(t, plan.model);
      await run(peerPath("qemu-img"), [
        "compare",
        "--image-opts",
        `driver=raw,file.driver=file,file.filename=${expected}`,
        blkioDisk(disk.socket),
      ]);
      await disk.checkUnharmed();
    },
  );
}

/** The room that an image takes, but for what the file system needs to keep account. */
function assertRoom(image: string, expected: number): void {
  const room = allocated(image);
  assert.ok(Math.abs(room - expected) <= 64 * 1024, `${room} bytes, ${expected} expected`);
}

realTest("discarded and unmapped ranges give their room back, zeroed ones keep it", io, {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image });
  await qemuIo(disk.socket, "write -P 0xcd 0 16M");
  const full = allocated(image);
  assert.ok(full >= 16 * MIB);
  await qemuIo(disk.socket, "discard 1M 4M", "read -P 0 1M 4M", "read -P 0xcd 0 1M", "read -P 0xcd 5M 11M");
  assertRoom(image, full - 4 * MIB);
  await qemuIo(
    disk.socket,
    "write -z -u 8M 2M",
    "read -P 0 8M 2M",
    "read -P 0xcd 5M 3M",
    "read -P 0xcd 10M 6M",
  );
  assertRoom(image, full - 6 * MIB);
  await qemuIo(
    disk.socket,
    "write -z 12M 2M",
    "read -P 0 12M 2M",
    "read -P 0xcd 10M 2M",
    "read -P 0xcd 14M 2M",
  );
  assertRoom(image, full - 6 * MIB);
  const expected = Buffer.alloc(16 * MIB, 0xcd);
  for (const [start, end] of [[1, 5], [8, 10], [12, 14]]) expected.fill(0, start * MIB, end * MIB);
  assert.equal(sha256(image), sha256(expected));
  await disk.checkUnharmed();
});

realTest("a read-only disk is read by two at once and written by none", io, {}, async (t) => {
  const contents = Buffer.concat([Buffer.alloc(MIB, 0x11), Random.of(t).bytes(MIB)]);
  const image = imageOf(t, contents);
  const disk = await startDisk(t, { file: image, args: ["--read-only"] });
  const [one, two] = [new Terminal(t, disk.socket, "-r"), new Terminal(t, disk.socket, "-r")];
  assert.equal(await one.prompt(PATIENCE), "");
  assert.equal(await two.prompt(PATIENCE), "");
  for (const terminal of [one, two, one]) {
    assert.match(await terminal.run("read -P 0x11 0 1M"), /^read 1048576\/1048576 bytes at offset 0$/m);
  }
  await two.run("write -P 0x22 0 4k");
  assert.match(two.errors, /read-only/);
  await one.quit();
  await two.quit(1);
  const { code, stdout, stderr } = await run(
    peerPath("qemu-io"),
    qemuIoArguments(disk.socket, ["write -P 0x22 0 64k"]),
    { check: false },
  );
  assert.notEqual(code, 0);
  assert.match(stdout + stderr, /read-only/i);
  assert.equal(sha256(image), sha256(contents));
  await disk.checkUnharmed();
});

realTest("qemu-img copies an image in and out", img, {}, async (t) => {
  const contents = Random.of(t).bytes(32 * MIB);
  contents.fill(0, 3 * MIB + 512, 7 * MIB);
  const source = imageOf(t, contents);
  const image = imageOf(t, Buffer.alloc(32 * MIB, 0xff));
  const target = newImage(t, 0);
  const disk = await startDisk(t, { file: image });
  const raw = (file: string) => `driver=raw,file.driver=file,file.filename=${file}`;
  await run(peerPath("qemu-img"), [
    ...["convert", "-n", "-t", "none", "-f", "raw", "-W", "-m", "16"],
    ...["--target-image-opts", source, blkioDisk(disk.socket)],
  ]);
  assert.equal(sha256(image), sha256(contents));
  const compare = ["compare", "--image-opts", raw(source), blkioDisk(disk.socket)];
  assert.match((await run(peerPath("qemu-img"), compare)).stdout, /Images are identical/);
  await run(peerPath("qemu-img"), ["convert", "-O", "raw", "--image-opts", blkioDisk(disk.socket), target]);
  assert.equal(sha256(target), sha256(contents));
  // That a difference would be seen.
  await disk.checkUnharmed();
  contents[31 * MIB] ^= 0xff;
  writeFileSync(source, contents);
  assert.equal((await run(peerPath("qemu-img"), compare, { check: false })).code, 1);
  await disk.checkUnharmed();
});

for (
  const { args, workers } of [{ args: [] }, { args: ["--poll-us=0"] }, { args: ["--poll-us=0"], workers: 1 }]
) {
  const name = ["qemu-img bench at several depths", ...args, ...inThreads(workers)].join(" ");
  realTest(name, img, {}, async (t) => {
    const image = newImage(t, 8 * MIB);
    const disk = await startDisk(t, { file: image, args, workers });
    const pages = 8 * MIB / 4096;
    let pattern = Random.of(t).int(1, 100);
    for (const depth of [1, 4, 16, 32, 64]) {
      pattern++;
      const write = benchArguments(disk.socket, pages, depth, "-w", `--pattern=${pattern}`);
      await run(peerPath("qemu-img"), depth === 16 ? [...write, "--flush-interval=32"] : write);
      assert.equal(sha256(image), sha256(Buffer.alloc(8 * MIB, pattern)), `depth ${depth}`);
      await run(peerPath("qemu-img"), benchArguments(disk.socket, 2 * pages, depth));
      assert.equal(sha256(image), sha256(Buffer.alloc(8 * MIB, pattern)), `depth ${depth}`);
    }
    await disk.checkUnharmed();
  });
}

realTest("a program in C uses several queues at once", ["libblkio-dev"], {}, async (t) => {
  const program = join(tempDir(t), "queues");
  const source = fileURLToPath(new URL("blkio_queues.c", import.meta.url));
  await run("cc", ["-O2", "-o", program, source, "-lblkio"]);
  const random = Random.of(t);
  const size = 4 * MIB;
  const image = newImage(t, size);
  const disk = await startDisk(t, { file: image, args: ["--num-queues=8"] });
  for (const [queues, rounds] of [[1, 3], [2, 5], [8, 10]]) {
    const seed = random.int(0, 1 << 30);
    const { stdout } = await run(program, [disk.socket, `${queues}`, `${rounds}`, `${seed}`]);
    assert.equal(stdout, `max-queues 8, capacity ${size}\n`);
    const expected = new Uint32Array(size / 4);
    for (let i = 0; i < expected.length; i++) expected[i] = Math.imul(i, 2654435761) ^ (seed + rounds - 1);
    assert.equal(sha256(image), sha256(new Uint8Array(expected.buffer)), `${queues} queues`);
  }
  await disk.checkUnharmed();
});

realTest("a disk in memory keeps its contents between front-ends", io, {}, async (t) => {
  const disk = await startDisk(t, { args: ["--storage=mem:24M"] });
  await qemuIo(
    disk.socket,
    ...["write -P 0x31 0 24M", "write -P 0x32 511k 513k", "aio_write -P 0x33 4096 512", "aio_flush"],
    ...["discard 16M 1M", "write -z 18M 512", "write -z -u 20M 64k", "length"],
  );
  const said = await qemuIo(
    disk.socket,
    ...["read -P 0x31 0 4096", "read -P 0x33 4096 512", "read -P 0x31 4608 506k", "read -P 0x32 511k 513k"],
    ...["read -P 0x31 1M 15M", "read -P 0 16M 1M", "read -P 0x31 17M 1M", "read -P 0 18M 512"],
    ...["read -P 0x31 18874880 2096640", "read -P 0 20M 64k", "read -P 0x31 21037056 4128768", "length"],
  );
  assert.match(said, /^24 MiB$/m);
  await disk.checkUnharmed();
});

realTest("a disk that does nothing takes every request", [...io, ...img], {}, async (t) => {
  const disk = await startDisk(t, { args: ["--storage=null:1T"] });
  const requests = [
    "write -P 1 0 1M",
    "read 1023G 64k",
    "discard 0 1G",
    "write -z 512G 32M",
    "flush",
    "length",
  ];
  assert.match(await qemuIo(disk.socket, ...requests), /^1 TiB$/m);
  await run(peerPath("qemu-img"), benchArguments(disk.socket, 20_000, 32, "-w"));
  await run(peerPath("qemu-img"), benchArguments(disk.socket, 20_000, 32));
  await disk.checkUnharmed();
});

realTest("a second front-end waits until the first has left", io, {}, async (t) => {
  const image = newImage(t, 4 * MIB);
  const disk = await startDisk(t, { file: image });
  const first = new Terminal(t, disk.socket);
  assert.equal(await first.prompt(PATIENCE), "");
  const second = new Terminal(t, disk.socket);
  assert.equal(await second.prompt(400), undefined);
  await first.run("write -P 0x41 0 1M");
  await first.quit();
  assert.equal(await second.prompt(PATIENCE), "");
  assert.match(await second.run("read -P 0x41 0 1M"), /^read 1048576\/1048576/m);
  await second.run("write -P 0x42 1M 1M");
  // The third waits for one that is killed.
  const third = new Terminal(t, disk.socket);
  assert.equal(await third.prompt(200), undefined);
  await second.kill();
  assert.equal(await third.prompt(PATIENCE), "");
  assert.doesNotMatch(await third.run("read -P 0x42 1M 1M"), /fail/);
  await third.quit();
  await disk.checkUnharmed();
});

realTest("a front-end is killed while it writes", [...io, ...img], {}, async (t) => {
  const image = newImage(t, 16 * MIB);
  const disk = await startDisk(t, { file: image });
  const random = Random.of(t);
  for (let pattern = 1; pattern <= 5; pattern++) {
    const bench = benchArguments(disk.socket, 1_000_000_000, 64, "-w", `--pattern=${pattern}`);
    const child = Child.start(t, peerPath("qemu-img"), bench);

    const place = random.int(0, 16 * MIB - 1);
    while (readFileSync(image)[place] !== pattern) {
      assert.equal(child.code, undefined, child.output);
      await sleep(1);
    }
    await sleep(random.int(0, 30));
    child.kill("SIGKILL");
    await child.ended;
    // Every page is of this round or of one before: no request was done by halves.
    await disk.checkUnharmed();
    const bytes = readFileSync(image);
    for (let at = 0; at < bytes.length; at += 4096) {
      assert.ok(bytes[at] <= pattern);
      assert.ok(bytes.subarray(at, at + 4096).equals(Buffer.alloc(4096, bytes[at])), `page at ${at}`);
    }
    await qemuIo(disk.socket, `write -P ${pattern + 100} 15M 1M`, `read -P ${pattern + 100} 15M 1M`);
    await qemuIo(disk.socket, `write -P ${pattern} 15M 1M`);
  }
  await disk.checkUnharmed();
});

realTest("a socket left behind is replaced, one in use is not", io, {}, async (t) => {
  const image = newImage(t, 4 * MIB);
  const first = await startDisk(t, { file: image });
  const { socket } = first;
  await qemuIo(socket, "write -P 0x51 0 1M");
  first.child.kill("SIGKILL");
  assert.equal(await first.child.waitEnd(), 137);
  assert.ok(statSync(socket).isSocket());

  const second = await startDisk(t, { file: image, socket });
  await qemuIo(socket, "read -P 0x51 0 1M", "write -P 0x52 0 1M");
  const third = startCommand(t, ["blk", `--socket-path=${socket}`, `--blk-file=${image}`]);
  assert.equal(await third.waitEnd(), 1);
  assert.equal(
    third.output,
    `vhost-user blk: another process is listening on ${socket}: stop it, or choose another path\n`,
  );
  // Also while the one in use has a front-end, and cannot take another.
  const terminal = new Terminal(t, socket);
  assert.equal(await terminal.prompt(PATIENCE), "");
  const fourth = startCommand(t, ["blk", `--socket-path=${socket}`, `--blk-file=${image}`]);
  assert.equal(await fourth.waitEnd(), 1);
  assert.match(await terminal.run("read -P 0x52 0 1M"), /^read 1048576/m);
  await terminal.quit();
  await qemuIo(socket, "read -P 0x52 0 1M");
  await second.checkUnharmed();

  const file = imageOf(t, Buffer.from("not a socket"));
  const fifth = startCommand(t, ["blk", `--socket-path=${file}`, `--blk-file=${image}`]);
  assert.equal(await fifth.waitEnd(), 1);
  assert.match(fifth.output, /exists and is not a socket/);
  assert.equal(readFileSync(file, "utf8"), "not a socket");
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  realTest(`${signal} ends the back-end, also with a front-end connected`, io, {}, async (t) => {
    const image = newImage(t, 4 * MIB);
    const idle = await startDisk(t, { file: image });
    idle.child.kill(signal);
    assert.equal(await idle.child.waitEnd(), 0);
    assert.ok(!existsSync(idle.socket));
    assert.deepEqual(idle.complaints, []);

    const busy = await startDisk(t, { file: image });
    const terminal = new Terminal(t, busy.socket);
    assert.equal(await terminal.prompt(PATIENCE), "");
    await terminal.run("write -P 0x61 0 1M");
    busy.child.kill(signal);
    assert.equal(await busy.child.waitEnd(), 0);
    assert.ok(!existsSync(busy.socket));
    assert.deepEqual(busy.complaints, []);
    assert.ok(readFileSync(image).subarray(0, MIB).every((byte) => byte === 0x61));
  });
}

realTest("an inherited socket that listens", io, {}, async (t) => {
  const image = newImage(t, 4 * MIB);
  const socket = join(tempDir(t), "blk.sock");
  const listener = listen(socket);
  const child = startCommand(t, ["blk", "--fd=3", `--blk-file=${image}`], { fds: [listener] });
  await child.waitLine(/ on descriptor 3/);
  const disk = new OurBackend(t, child, socket);
  await qemuIo(socket, "write -P 0x71 0 1M");
  await qemuIo(socket, "read -P 0x71 0 1M");
  await disk.checkUnharmed();
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(), 0);
  // Whoever has made the socket file removes it.
  assert.ok(existsSync(socket));
});

realTest("an inherited socket that is connected is served until the front-end leaves", io, {}, async (t) => {
  const image = newImage(t, 4 * MIB);
  const socket = join(tempDir(t), "blk.sock");
  const listener = listen(socket);
  const terminal = new Terminal(t, socket);
  let connection = null;
  while (connection === null) {
    await sleep(5);
    connection = accept(listener);
  }
  const child = startCommand(t, ["blk", "--fd=3", `--blk-file=${image}`], { fds: [connection] });
  close(listener);
  assert.equal(await terminal.prompt(PATIENCE), "");
  await terminal.run("write -P 0x72 0 1M");
  await terminal.quit();
  assert.equal(await child.waitEnd(), 0);
  assert.equal(child.output, `vhost-user blk: file:${image}, ${4 * MIB} bytes, on descriptor 3\n`);
  assert.ok(readFileSync(image).subarray(0, MIB).every((byte) => byte === 0x72));
});

realTest("SIGHUP makes another size of the file known", io, {}, async (t) => {
  const image = newImage(t, 4 * MIB);
  const disk = await startDisk(t, { file: image });
  assert.match(await qemuIo(disk.socket, "write -P 0x81 0 4M", "length"), /^4 MiB$/m);
  truncateSync(image, 6 * MIB);
  disk.child.kill("SIGHUP");
  let said = "";
  for (const deadline = Date.now() + PATIENCE; !/^6 MiB$/m.test(said) && Date.now() < deadline;) {
    said = await qemuIo(disk.socket, "length");
  }
  assert.match(said, /^6 MiB$/m);
  await qemuIo(disk.socket, "read -P 0x81 0 4M", "read -P 0 4M 2M", "write -P 0x82 5M 1M");
  assert.ok(readFileSync(image).subarray(5 * MIB).every((byte) => byte === 0x82));
  await disk.checkUnharmed();
});
