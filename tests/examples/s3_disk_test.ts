import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { History } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { bytesOf, eventually, sameBytes } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { Guest } from "../support/guest.ts";
import { MIB } from "../support/image.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { Random } from "../support/random.ts";
import { copyOf, freePort, runExample, type ServedExample, startDiskExample } from "./support.ts";

const LIMIT = { timeout: 90_000 };
const SECTOR = 512;
const ENVIRONMENT = "--allow-env=AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,AWS_SESSION_TOKEN,AWS_REGION";
const KEYS = { AWS_ACCESS_KEY_ID: "S3RVER", AWS_SECRET_ACCESS_KEY: "S3RVER" };

/** A store, in a process that can be stopped and started anew. */
class Store {
  readonly folder: string;
  readonly port: number;
  readonly #scope: Scope;
  #child: Child | undefined;

  static async start(scope: Scope): Promise<Store> {
    const store = new Store(scope, await freePort());
    await store.start();
    return store;
  }

  private constructor(scope: Scope, port: number) {
    this.#scope = scope;
    this.port = port;
    this.folder = tempDir(scope);
  }

  async start(): Promise<void> {
    const script = join(root, "tests/examples/s3_server.ts");
    const permissions = ["--allow-net", "--allow-read", "--allow-write", "--allow-env", "--allow-sys"];
    this.#child = startDeno(this.#scope, [...permissions, script, this.folder, `${this.port}`]);
    await this.#child.waitLine(/^listening on/, 60_000);
  }

  async stop(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.ended;
  }

  /** Sends a signal, such as one to stand still. */
  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** Options that say where the disk is. */
  get options(): string[] {
    return [`--endpoint=http://127.0.0.1:${this.port}`, "--bucket=disks", "--prefix=vm 1"];
  }

  get permissions(): string[] {
    return [`--allow-net=127.0.0.1:${this.port}`, ENVIRONMENT];
  }

  disk(...args: string[]): Promise<ServedExample> {
    return startDiskExample(this.#scope, "s3_disk", this.permissions, [...this.options, ...args], KEYS);
  }

  attempt(
    args: readonly string[],
    env: Record<string, string> = KEYS,
  ): Promise<{ code: number; output: string }> {
    return runExample(this.#scope, "s3_disk", this.permissions, [...this.options, ...args], env);
  }

  /** The chunks that have an object. */
  get chunks(): string[] {
    const folder = join(this.folder, "disks/vm 1");
    if (!existsSync(folder)) return [];
    return readdirSync(folder).filter((name) => /^chunk-\w+\._S3rver_object$/.test(name)).sort();
  }

  /** What the objects hold, as the documentation says, with no help of the example. */
  contents(size: number, chunkSize: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(size);
    for (const name of this.chunks) {
      const index = parseInt(name.slice(6, 14), 16);
      const object = readFileSync(join(this.folder, "disks/vm 1", name));
      assert.equal(object.length, Math.min(chunkSize, size - index * chunkSize), name);
      bytes.set(object, index * chunkSize);
    }
    return bytes;
  }
}

/**
 * Passes requests on to a store once all of them has come: then a put happens as a whole or not at all, as S3 promises, where
 * s3rver keeps the half of an object whose sender has died.
 */
async function wholeRequests(scope: Scope, store: Store): Promise<{ port: number; idle: () => boolean }> {
  let under = 0;
  const server = createServer((incoming, answer) => {
    const pieces: Uint8Array[] = [];
    incoming.on("error", () => {});
    incoming.on("data", (piece) => pieces.push(piece));
    incoming.once("end", () => {
      under++;
      const { method, url, headers } = incoming;
      const passed = request(
        { host: "127.0.0.1", port: store.port, method, path: url, headers },
        (response) => {
          response.once("close", () => under--);
          answer.writeHead(response.statusCode ?? 500, response.headers);
          response.pipe(answer);
          // The one who has asked may be gone.
          answer.once("close", () => response.resume());
        },
      );
      passed.once("error", () => under--);
      passed.end(Buffer.concat(pieces));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onEnd(scope, () => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, idle: () => under === 0 };
}

async function drive(scope: Scope, socket: string): Promise<BlkDriver> {
  const driver = await BlkDriver.connect(socket, { depth: 16, maxTransfer: 16384 });
  onEnd(scope, () => driver.close().catch(() => {}));
  return driver;
}

realTest(
  "libblkio writes a disk into objects, and finds it again",
  ["qemu-io", "qemu-img", "libblkio"],
  LIMIT,
  async (t) => {
    const store = await Store.start(t);
    const size = 10 * MIB + 1536;
    const first = await store.disk(`--create=${size}`, "--chunk=1M");
    assert.deepEqual(store.chunks, []);
    await qemuIo(
      first.socket,
      "write -P 0x11 1000k 300k",
      "write -P 0x22 10M 1536",
      "write -P 0x33 4M 2M",
      "flush",
    );
    const expected = new Uint8Array(size).fill(0x11, 1000 * 1024, 1300 * 1024).fill(0x22, 10 * MIB).fill(
      0x33,
      4 * MIB,
      6 * MIB,
    );
    sameBytes(store.contents(size, MIB), expected, "the objects");
    assert.equal(store.chunks.length, 5);
    await qemuIo(first.socket, "discard 4M 1M", "write -z 5M 512k", "write -P 0x44 3M 512");
    expected.fill(0, 4 * MIB, 5 * MIB + 512 * 1024).fill(0x44, 3 * MIB, 3 * MIB + 512);
    // It ends in order: what was not flushed is written.
    first.child.kill("SIGTERM");
    assert.equal(await first.child.waitEnd(), 0);
    sameBytes(store.contents(size, MIB), expected, "the objects, at the end");
    assert.equal(store.chunks.length, 5);
    const second = await store.disk("--read-only");
    sameBytes(readFileSync(await copyOf(t, second.socket)), expected);
  },
);

test("what was flushed is there after a kill; with --write-through all that was done", LIMIT, async (t) => {
  const store = await Store.start(t);
  const sectors = 512;
  const size = sectors * SECTOR;
  const chunkSize = 32 * 1024;
  const random = Random.of(t);
  const { port, idle } = await wholeRequests(t, store);
  for (const writeThrough of [false, true]) {
    const { child, socket } = await startDiskExample(
      t,
      "s3_disk",
      [`--allow-net=127.0.0.1:${port}`, ENVIRONMENT],
      [
        ...store.options,
        `--endpoint=http://127.0.0.1:${port}`,
        `--create=${size}`,
        `--chunk=${chunkSize}`,
        "--cache=160K",
        ...writeThrough ? ["--write-through"] : [],
      ],
      KEYS,
    );
    const driver = await drive(t, socket);
    await driver.write(0, new Uint8Array(size));
    await driver.flush();
    const history = new History(sectors, true);
    const load = new Load(driver, history, random, { writeThrough });
    await load.more(300);
    load.end().catch(() => {});
    child.kill("SIGKILL");
    await child.ended;
    await eventually("what was sent has arrived", idle);
    history.abandon();
    history.check(store.contents(size, chunkSize), "durable");
  }
});

realTest(
  "a store that is away: the guest waits, then gets an I/O error; a flush is repeated",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const store = await Store.start(t);
    const { socket, child } = await store.disk("--create=4M", "--chunk=64K", "--retries=2", "--timeout=2");
    await qemuIo(socket, "write -P 0x11 0 64k", "flush");
    await store.stop();
    await assert.rejects(qemuIo(socket, "read 1M 64k"), /Input\/output error/);
    await child.waitLine(/^s3_disk: GET chunk-00000010: /);
    const driver = await drive(t, socket);
    await driver.write(8192, bytesOf(2, 4096));
    await assert.rejects(driver.flush(), /I\/O error/);
    sameBytes(await driver.read(8192, 4096), bytesOf(2, 4096));
    await store.start();
    await driver.flush();
    sameBytes(store.contents(4 * MIB, 65536).slice(8192, 8192 + 4096), bytesOf(2, 4096));
    // It stands still for a while: nobody is told.
    store.signal("SIGSTOP");
    const slow = driver.read(2 * MIB, 4096);
    sameBytes(await driver.read(8192, 4096), bytesOf(2, 4096));
    await sleep(2500);
    store.signal("SIGCONT");
    sameBytes(await slow, new Uint8Array(4096));
  },
);

test("a second process takes the disk over; the first answers with errors", LIMIT, async (t) => {
  const store = await Store.start(t);
  const first = await store.disk("--create=1M", "--chunk=64K");
  const older = await drive(t, first.socket);
  await older.write(0, bytesOf(1, 4096));
  await older.flush();
  const second = await store.disk();
  const newer = await drive(t, second.socket);
  await newer.write(0, bytesOf(2, 4096));
  await newer.flush();
  await older.write(512 * 1024, bytesOf(3, 4096));
  await assert.rejects(older.flush(), /I\/O error/);
  await first.child.waitLine(/^s3_disk: another process has taken over the disk/);
  await assert.rejects(older.flush(), /I\/O error/);
  sameBytes(await newer.read(0, 4096), bytesOf(2, 4096));
});

realTest(
  "a Linux guest makes a file system on objects",
  ["qemu", "guest"],
  { timeout: 240_000 },
  async (t) => {
    const store = await Store.start(t);
    const { socket } = await store.disk("--create=64M", "--chunk=1M");
    const guest = await Guest.start(t, {
      modules: ["virtio_blk", "ext4"],
      devices: [
        "-chardev",
        `socket,id=c0,path=${socket}`,
        "-device",
        "vhost-user-blk-pci,chardev=c0,num-queues=1",
      ],
    });
    const said = await guest.run(
      "mkfs.ext4 -q /dev/vda; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt; head -c 3000000 /dev/urandom >/mnt/new; sync; " +
        "sha256sum /mnt/new; umount /mnt; mount -t ext4 /dev/vda /mnt; sha256sum /mnt/new; umount /mnt; " +
        "e2fsck -fn /dev/vda >/dev/null 2>&1; echo $?",
    );
    const [written, read, status] = said.trim().split("\n");
    assert.equal(read, written);
    assert.equal(status, "0");
    await guest.stop();
    await eventually("most of it has no object", () => store.chunks.length > 3 && store.chunks.length < 40);
  },
);

test("what cannot be is refused, with a reason", LIMIT, async (t) => {
  const store = await Store.start(t);
  const socket = `--socket-path=${join(tempDir(t), "s")}`;
  const refused: [readonly string[], Record<string, string>, number, RegExp][] = [
    [[socket], KEYS, 1, /no such disk: --create=SIZE makes one/],
    [
      [socket, "--create=1M"],
      { ...KEYS, AWS_SECRET_ACCESS_KEY: "wrong" },
      1,
      /GET disk\.json: 403 SignatureDoesNotMatch/,
    ],
    [[socket, "--create=1M", "--bucket=other"], KEYS, 1, /GET disk\.json: 404 NoSuchBucket/],
    [[socket], { AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "" }, 2, /AWS_ACCESS_KEY_ID is required/],
    [[], KEYS, 2, /--socket-path is required/],
    [[socket, "--create=1000"], KEYS, 2, /size must be .* got "1000"/],
  ];
  for (const [args, env, status, message] of refused) {
    const { code, output } = await store.attempt(args, env);
    assert.match(output, message);
    assert.equal(code, status, args.join(" "));
  }
  const { code, output } = await store.attempt(["--help"]);
  assert.equal(code, 0);
  assert.match(output, /^Usage: s3_disk\.ts/);
});
