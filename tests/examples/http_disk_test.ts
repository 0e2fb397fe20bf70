import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { Guest } from "../support/guest.ts";
import { MIB, sha256 } from "../support/image.ts";
import { which } from "../support/path.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { copyOf, freePort, runExample, type ServedExample, startDiskExample } from "./support.ts";

const SECTOR = 512;
const KIB = 1024;
const CHUNK = 16 * KIB;
const LIMIT = { timeout: 90_000 };

/** The web server of BusyBox, with a folder of files. */
class WebServer {
  readonly folder: string;
  readonly port: number;
  #child: Child | undefined;
  readonly #scope: Scope;

  static async start(scope: Scope): Promise<WebServer> {
    const server = new WebServer(scope, await freePort());
    await server.start();
    return server;
  }

  private constructor(scope: Scope, port: number) {
    this.#scope = scope;
    this.folder = tempDir(scope);
    this.port = port;
  }

  async start(): Promise<void> {
    const args = ["httpd", "-f", "-p", `127.0.0.1:${this.port}`, "-h", this.folder];
    const child = this.#child = Child.start(this.#scope, peerPath("busybox"), args);
    for (const deadline = Date.now() + 20_000;; await sleep(20)) {
      const up = await fetch(`http://127.0.0.1:${this.port}/`).then((r) => r.body?.cancel(), () => null);
      if (up !== null) return;
      assert.ok(child.code === undefined && Date.now() < deadline, `httpd: ${child.output}`);
    }
  }

  async stop(): Promise<void> {
    await this.#child?.stop();
  }

  url(name: string): string {
    return `http://127.0.0.1:${this.port}/${name}`;
  }

  write(name: string, content: Uint8Array): string {
    const path = join(this.folder, name);
    writeFileSync(path, content);
    return path;
  }

  disk(name: string, args: readonly string[], file?: string): Promise<ServedExample> {
    const permissions = [`--allow-net=127.0.0.1:${this.port}`];
    if (file !== undefined) permissions.push(`--allow-read=${file}`, `--allow-write=${file}`);
    return startDiskExample(this.#scope, "http_disk", permissions, [this.url(name), ...args]);
  }
}

realTest(
  "BusyBox's server: libblkio reads and writes; the file stays",
  ["busybox", "qemu-io", "qemu-img", "libblkio"],
  LIMIT,
  async (t) => {
    const server = await WebServer.start(t);
    // It ends within a sector.
    const content = bytesOf(1, 5 * MIB + 300);
    const path = server.write("disk.img", content);
    const expected = new Uint8Array(5 * MIB + SECTOR);
    expected.set(content);
    const { child, socket } = await server.disk("disk.img", ["--chunk=64K", "--cache=1M"]);
    sameBytes(readFileSync(await copyOf(t, socket)), expected);
    await qemuIo(
      socket,
      "write -P 0x11 1000k 300k",
      "write -P 0x22 512 512",
      "write -z 2M 512k",
      "discard 4M 128k",
      "flush",
      "read -P 0x11 1000k 300k",
    );
    expected.fill(0x11, 1000 * KIB, 1300 * KIB).fill(0x22, 512, 1024);
    expected.fill(0, 2 * MIB, 2 * MIB + 512 * KIB).fill(0, 4 * MIB, 4 * MIB + 128 * KIB);
    sameBytes(readFileSync(await copyOf(t, socket)), expected);
    sameBytes(readFileSync(path), content, "the file on the server");
    assert.equal(child.output.trim().split("\n").length, 1, child.output);
    child.kill("SIGTERM");
    assert.equal(await child.waitEnd(), 0);
  },
);

realTest(
  "an overlay is there the next time, also after a kill, and knows another file",
  ["busybox", "qemu-io", "qemu-img", "libblkio"],
  LIMIT,
  async (t) => {
    const server = await WebServer.start(t);
    const content = bytesOf(2, 4 * MIB);
    server.write("disk.img", content);
    const overlay = join(tempDir(t), "overlay");
    const args = [`--overlay=${overlay}`, "--copy-on-read", "--chunk=64K"];
    const first = await server.disk("disk.img", args, overlay);
    await qemuIo(first.socket, "write -P 0x33 100k 100k");
    content.fill(0x33, 100 * KIB, 200 * KIB);
    // It was not flushed.
    first.child.kill("SIGKILL");
    await first.child.ended;
    const second = await server.disk("disk.img", args, overlay);
    sameBytes(readFileSync(await copyOf(t, second.socket)), content);
    second.child.kill("SIGTERM");
    assert.equal(await second.child.waitEnd(), 0);
    assert.ok(statSync(overlay).blocks * SECTOR >= 4 * MIB, "all of it was copied");
    // Nothing need be read from the server now, but for its version.
    const third = await server.disk("disk.img", args, overlay);
    await server.stop();
    sameBytes(readFileSync(await copyOf(t, third.socket)), content);
    await third.child.stop();
    // Another file by the same name, of the same size.
    await server.start();
    await sleep(1100); // BusyBox's ETag has seconds.
    server.write("disk.img", bytesOf(3, 4 * MIB));
    const { code, output } = await runExample(
      t,
      "http_disk",
      [`--allow-net=127.0.0.1:${server.port}`, `--allow-read=${overlay}`, `--allow-write=${overlay}`],
      [server.url("disk.img"), `--socket-path=${overlay}.sock`, ...args],
    );
    assert.equal(code, 1);
    assert.match(output, /^http_disk: the overlay was made over something else: it needs .*, got .*/);
  },
);

realTest(
  "a file that changes is noticed: I/O errors, and never bytes of another version",
  ["busybox", "qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const server = await WebServer.start(t);
    server.write("disk.img", new Uint8Array(4 * MIB).fill(1));
    const { socket, child } = await server.disk("disk.img", ["--chunk=64K", "--read-ahead=0"]);
    await qemuIo(socket, "read -P 1 0 64k");
    await sleep(1100);
    server.write("disk.img", new Uint8Array(4 * MIB).fill(2));
    await assert.rejects(qemuIo(socket, "read 1M 64k"), /Input\/output error/);
    await child.waitLine(
      /^http_disk: bytes 1048576 to 1114112: the file has changed since the disk was opened/,
    );
    // What is here already is still of the first.
    await qemuIo(socket, "read -P 1 0 64k");
  },
);

realTest(
  "a Linux guest mounts a file system that is on a web server, and writes to it",
  ["busybox", "qemu", "guest"],
  { timeout: 240_000 },
  async (t) => {
    const server = await WebServer.start(t);
    const image = join(server.folder, "root.ext4");
    const tree = tempDir(t);
    writeFileSync(join(tree, "data"), bytesOf(4, 3 * MIB));
    writeFileSync(image, "");
    await run(which("mkfs.ext4") ?? "mkfs.ext4", ["-q", "-d", tree, image, "64M"]);
    const before = sha256(image);
    const { socket, child } = await server.disk("root.ext4", []);
    const guest = await Guest.start(t, {
      modules: ["virtio_blk", "ext4"],
      devices: [
        "-chardev",
        `socket,id=c0,path=${socket}`,
        "-device",
        "vhost-user-blk-pci,chardev=c0,num-queues=1",
      ],
    });
    await guest.run("mkdir -p /mnt; mount -t ext4 /dev/vda /mnt");
    assert.match(await guest.run("sha256sum /mnt/data"), new RegExp(`^${sha256(join(tree, "data"))} `));
    const said = await guest.run(
      "head -c 2000000 /dev/urandom >/mnt/new; sha256sum /mnt/new; umount /mnt; mount -t ext4 /dev/vda /mnt; " +
        "echo 3 >/proc/sys/vm/drop_caches; sha256sum /mnt/new; umount /mnt; e2fsck -fn /dev/vda >/dev/null 2>&1; echo $?",
    );
    const [written, read, status] = said.trim().split("\n");
    assert.equal(read, written);
    assert.equal(status, "0");
    await guest.stop();
    assert.equal(sha256(image), before, "the image on the server");
    assert.doesNotMatch(child.output, /error/i);
  },
);

/** A server that behaves as a test says: well, unless that has answered the request itself. */
async function oddServer(
  scope: Scope,
  content: Uint8Array,
  answers: (
    request: IncomingMessage,
    response: ServerResponse,
    from: number,
    to: number,
  ) => boolean | Promise<boolean>,
): Promise<{ port: number; url: string; most: () => number }> {
  let under = 0;
  let most = 0;
  const server = createServer((request, response) => {
    most = Math.max(most, ++under);
    response.once("close", () => under--);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const from = Number(first);
    const to = Math.min(Number(last) + 1, content.length);
    void (async () => {
      if (await answers(request, response, from, to)) return;
      response.writeHead(206, {
        "content-range": `bytes ${from}-${to - 1}/${content.length}`,
        "content-length": to - from,
        "etag": '"1"',
      });
      response.end(content.subarray(from, to));
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onEnd(scope, () => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, url: `http://127.0.0.1:${port}/disk.img`, most: () => most };
}

async function drive(
  scope: Scope,
  server: { port: number; url: string },
  args: readonly string[] = [],
): Promise<{ driver: BlkDriver; child: Child }> {
  const { child, socket } = await startDiskExample(
    scope,
    "http_disk",
    [`--allow-net=127.0.0.1:${server.port}`],
    [server.url, "--chunk=16K", "--read-ahead=0", "--read-only", ...args],
  );
  const driver = await BlkDriver.connect(socket, { depth: 8, maxTransfer: 4096 });
  onEnd(scope, () => driver.close().catch(() => {}));
  return { driver, child };
}

/** How a request for a chunk can go wrong, for once. */
const mishaps: Readonly<Record<string, (response: ServerResponse, from: number, to: number) => void>> = {
  "503": (response) => void response.writeHead(503, { "retry-after": "1" }).end("later"),
  "the connection is cut at once": (response) => void response.destroy(),
  "the connection is cut in the middle": (response, from, to) => {
    response.writeHead(206, {
      "content-range": `bytes ${from}-${to - 1}/${256 * KIB}`,
      "content-length": to - from,
      "etag": '"1"',
    });
    response.write(new Uint8Array(1000));
    setTimeout(() => response.destroy(), 20);
  },
  "no answer in time": () => {},
};

test("the server is asked again, whatever went wrong", LIMIT, async (t) => {
  const content = bytesOf(5, 256 * KIB);
  const list = Object.values(mishaps);
  const failed = new Set<number>();
  const server = await oddServer(t, content, (_request, response, from, to) => {
    const mishap = list[from / CHUNK];
    if (failed.has(from) || to - from < SECTOR || mishap === undefined) return false;
    failed.add(from);
    mishap(response, from, to);
    return true;
  });
  const { driver, child } = await drive(t, server, ["--timeout=1"]);
  sameBytes(await driver.read(0, 256 * KIB), content);
  assert.equal(failed.size, list.length);
  assert.doesNotMatch(child.output, /bytes \d+ to/);
});

type Offence = readonly [message: RegExp, act: (response: ServerResponse, from: number, to: number) => void];

const CHANGED = /the file has changed/;

/** What a server must not do. */
const offences: Readonly<Record<string, Offence>> = {
  "404": [/404 Not Found/, (response) => void response.writeHead(404).end()],
  "500, always": [/500 Internal Server Error/, (response) => void response.writeHead(500).end()],
  "another range": [
    /was asked for bytes \d+-\d+\/262144, and sends bytes 0-16383\/262144/,
    (response) => {
      response.writeHead(206, { "content-range": "bytes 0-16383/262144", "etag": '"1"' }).end(
        new Uint8Array(16384),
      );
    },
  ],
  "a body without end": [/sends more than a chunk/, (response, from, to) => {
    response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/262144`, "etag": '"1"' });
    const more = (): void => {
      while (!response.destroyed && response.write(new Uint8Array(65536)));
    };
    response.on("drain", more);
    more();
  }],
  "another version": [CHANGED, (response, from, to) => {
    response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/262144`, "etag": '"2"' });
    response.end(new Uint8Array(to - from));
  }],
  "all of it": [
    CHANGED,
    (response) => void response.writeHead(200).end(new Uint8Array(262144)),
  ],
  "compressed bytes": [/compresses the file \(gzip\)/, (response, from, to) => {
    response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/262144`, "content-encoding": "gzip" })
      .end("x");
  }],
};

/** Serves a disk of which chunk 1 and up each have such an offence instead, and reads them. */
async function offend(
  t: TestContext,
  list: readonly Offence[],
): Promise<{ driver: BlkDriver; content: Uint8Array }> {
  const content = bytesOf(6, 256 * KIB);
  const server = await oddServer(t, content, (_request, response, from, to) => {
    const offence = list[from / CHUNK - 1];
    offence?.[1](response, from, to);
    return offence !== undefined;
  });
  const { driver, child } = await drive(t, server, ["--retries=1"]);
  sameBytes(await driver.read(0, 4096), content.slice(0, 4096));
  for (const [i, [message]] of list.entries()) {
    const at = (i + 1) * CHUNK;
    const [bad, good] = await Promise.allSettled([driver.read(at, 4096), driver.read(4096, 4096)]);
    assert.equal(bad.status, "rejected");
    assert.equal(good.status, "fulfilled");
    assert.match(await child.waitLine(new RegExp(`^http_disk: bytes ${at} to ${at + CHUNK}: `)), message);
  }
  return { driver, content };
}

test("an I/O error, of that request alone, whatever the server sends", LIMIT, async (t) => {
  const list = Object.values(offences).filter(([message]) => message !== CHANGED);
  const { driver, content } = await offend(t, list);
  sameBytes(await driver.read(128 * KIB, 4096), content.slice(128 * KIB, 132 * KIB));
});

for (const name of ["another version", "all of it"]) {
  test(`once the file is another, nothing of it is taken any more: ${name}`, LIMIT, async (t) => {
    const { driver } = await offend(t, [offences[name]]);
    await assert.rejects(driver.read(128 * KIB, 4096), /I\/O error/);
  });
}

test("a chunk that takes its time holds nobody up", LIMIT, async (t) => {
  const content = bytesOf(7, 256 * KIB);
  let release = (): void => {};
  const held = new Promise<void>((resolve) => release = resolve);
  const server = await oddServer(t, content, async (_request, _response, from) => {
    if (from === 32 * KIB) await held;
    return false;
  });
  const { driver } = await drive(t, server);
  let done = false;
  const slow = driver.read(32 * KIB, 4096).then((bytes) => {
    done = true;
    return bytes;
  });
  sameBytes(await driver.read(64 * KIB, 64 * KIB), content.slice(64 * KIB, 128 * KIB));
  assert.equal(done, false);
  release();
  sameBytes(await slow, content.slice(32 * KIB, 36 * KIB));
});

test("who reads on and on has several requests under way", LIMIT, async (t) => {
  const content = bytesOf(8, 512 * KIB);
  for (const [ahead, least] of [[0, 1], [6, 4]]) {
    const server = await oddServer(t, content, async () => {
      await sleep(20);
      return false;
    });
    const { driver } = await drive(t, server, [`--read-ahead=${ahead}`]);
    const started = performance.now();
    for (let at = 0; at < content.length; at += 4096) {
      sameBytes(await driver.read(at, 4096), content.slice(at, at + 4096));
    }
    t.diagnostic(`read-ahead ${ahead}: ${Math.round(performance.now() - started)} ms`);
    if (ahead === 0) assert.equal(server.most(), 1);
    else assert.ok(server.most() >= least, `${server.most()} requests at once`);
  }
});

test("what cannot be is refused, with a reason", LIMIT, async (t) => {
  const whole = createServer((_request, response) => void response.end(new Uint8Array(100_000)));
  await new Promise<void>((resolve) => whole.listen(0, "127.0.0.1", resolve));
  onEnd(t, () => {
    whole.closeAllConnections();
    whole.close();
  });
  const { port } = whole.address() as AddressInfo;
  const attempt = (args: readonly string[]) => runExample(t, "http_disk", ["--allow-net=127.0.0.1"], args);
  const url = `http://127.0.0.1:${port}/`;
  const socket = `--socket-path=${join(tempDir(t), "s")}`;
  const refused: [readonly string[], number, RegExp][] = [
    [[url, socket], 1, /does not answer requests for ranges/],
    [[`http://127.0.0.1:${await freePort()}/`, socket, "--retries=0"], 1, /^http_disk: .*(refused|connect)/i],
    [[url], 2, /--socket-path is required/],
    [[socket], 2, /one URL is required, got 0/],
    [["nonsense", socket], 2, /Invalid URL/],
    [[url, socket, "--chunk=1000"], 2, /size must be .* got "1000"/],
    [[url, socket, "--frobnicate"], 2, /frobnicate/],
    [[url, socket, "--header=x"], 2, /--header must be NAME: VALUE, got "x"/],
  ];
  for (const [args, status, message] of refused) {
    const { code, output } = await attempt(args);
    assert.match(output, message);
    assert.equal(code, status, args.join(" "));
  }
  const { code, output } = await attempt(["--help"]);
  assert.equal(code, 0);
  assert.match(output, /^Usage: http_disk\.ts/);
});
