import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { BlkDriver, type BlkDriverOptions } from "../../src/tools/blk_driver.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { allocated, MIB, newImage, sha256 } from "../support/image.ts";
import { NbdServer, startNbdPort } from "../support/nbd_server.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { Random } from "../support/random.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { freePort } from "./support.ts";

// examples/nbd_disk.ts in front of real NBD servers, and of one that lies.

const LIMIT = { timeout: 90_000 };
const EXAMPLE = join(root, "examples/nbd_disk.ts");

/** The example, which serves. */
interface Example {
  readonly child: Child;
  readonly socket: string;
}

function begin(
  t: TestContext,
  uri: string,
  permissions: readonly string[],
  args: readonly string[],
): Example {
  const socket = join(tempDir(t), "disk.sock");
  const child = startDeno(t, [...permissions, EXAMPLE, `--socket-path=${socket}`, ...args, uri]);
  return { child, socket };
}

/** What the example may do to reach a Unix socket. */
function permissionsFor(path: string): string[] {
  return [`--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`];
}

async function startExample(t: TestContext, server: NbdServer, ...args: string[]): Promise<Example> {
  const example = begin(t, server.uri(), permissionsFor(server.socket), args);
  await example.child.waitLine(/disk of \d+ bytes on /, 30_000);
  return example;
}

async function drive(t: TestContext, { socket }: Example, options?: BlkDriverOptions): Promise<BlkDriver> {
  const driver = await BlkDriver.connect(socket, options);
  onEnd(t, () => driver.close().catch(() => {}));
  return driver;
}

/** What the example says when it cannot serve. */
async function refusal(t: TestContext, server: NbdServer, ...args: string[]): Promise<string> {
  const { child } = begin(t, server.uri(), permissionsFor(server.socket), args);
  assert.equal(await child.waitEnd(30_000), 1);
  return child.output.trim();
}

realTest(
  "qemu-io's requests arrive in the file behind nbdkit",
  ["nbdkit", "qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const file = newImage(t, 32 * MIB);
    const server = await NbdServer.start(t, "file", file);
    const { child, socket } = await startExample(t, server);
    const before = allocated(file);
    await qemuIo(
      socket,
      ...["write -P 0xab 0 64k", "write -P 0xcd 1M 8M", "write -P 0xee 16M 4M", "flush"],
      ...["discard 16M 4M", "write -z 2M 1M", "write -z -u 4M 1M"],
      ...[
        "read -P 0xab 0 64k",
        "read -P 0xcd 1M 1M",
        "read -P 0 2M 1M",
        "read -P 0xcd 3M 1M",
        "read -P 0 4M 1M",
      ],
      ...[
        "read -P 0xcd 5M 4M",
        "read -P 0 9M 7M",
        "aio_write -P 0x11 10M 1M",
        "aio_write -P 0x22 12M 1M",
        "aio_flush",
      ],
      ...["read -P 0x11 10M 1M", "read -P 0x22 12M 1M"],
    );
    assert.ok(allocated(file) - before < 12 * MIB, "what was discarded takes no room");
    const image = readFileSync(file);
    assert.ok(image.subarray(0, 65536).every((byte) => byte === 0xab));
    assert.ok(image.subarray(MIB, 2 * MIB).every((byte) => byte === 0xcd));
    child.kill("SIGTERM");
    assert.equal(await child.waitEnd(), 0, child.output);
    assert.equal(existsSync(socket), false);
  },
);

realTest(
  "a Linux guest keeps files on an export, whose server dies in between",
  [
    ...["nbdkit", "qemu", "guest"] as const,
  ],
  LIMIT,
  async (t) => {
    const file = newImage(t, 64 * MIB);
    const server = await NbdServer.start(t, "file", file);
    const example = await startExample(t, server);
    const guest = await restoreGuest(t);
    await guest.plug("vhost-user-blk-pci", example.socket);
    await guest.waitFor("[ -b /dev/vda ]");
    assert.equal(await guest.run("blockdev --getsize64 /dev/vda"), String(64 * MIB));
    const sum = await guest.run(
      "mkfs.ext2 -q /dev/vda 2>/dev/null || mke2fs /dev/vda >/dev/null; mkdir -p /mnt/d; mount /dev/vda /mnt/d; " +
        "dd if=/dev/urandom of=/mnt/d/data bs=1M count=8 2>/dev/null; sync; sha256sum </mnt/d/data | cut -c1-64",
    );
    await server.restart();
    const again =
      "umount /mnt/d; echo 3 >/proc/sys/vm/drop_caches; mount /dev/vda /mnt/d; sha256sum </mnt/d/data | cut -c1-64";
    assert.equal(await guest.run(again), sum);
    await guest.run("umount /mnt/d");
    await guest.stop();
    assert.match(example.child.output, /connection lost.*\n(.*no connection.*\n)*.*connected again/);
  },
);

realTest("requests of a ring are with the server at the same time", ["nbdkit"], LIMIT, async (t) => {
  const server = await NbdServer.start(t, "--filter=delay", "memory", "16M", "rdelay=400ms");
  const driver = await drive(t, await startExample(t, server));
  const start = performance.now();
  await Promise.all(Array.from({ length: 16 }, (_, i) => driver.read(i * 4096, 4096)));
  const took = performance.now() - start;
  // One after the other they would take 6400 ms.
  assert.ok(took >= 400 && took < 3200, `${took} ms`);
});

realTest("what the server cannot do is an error of that request", ["nbdkit"], LIMIT, async (t) => {
  const trigger = join(tempDir(t), "fail");
  const server = await NbdServer.start(t, ...["--filter=error", "memory", "16M"], ...[
    ...["error-pread=EIO", "error-pread-rate=100%", `error-pread-file=${trigger}`],
    ...["error-pwrite=ENOSPC", "error-pwrite-rate=100%", `error-pwrite-file=${trigger}`],
  ]);
  const example = await startExample(t, server);
  const driver = await drive(t, example);
  const data = new Uint8Array(8192).fill(7);
  await driver.write(0, data);
  writeFileSync(trigger, "");
  await assert.rejects(driver.read(0, 4096), /I\/O error/);
  await assert.rejects(driver.write(0, data), /I\/O error/);
  await driver.flush();
  rmSync(trigger);
  assert.deepEqual(await driver.read(0, 8192), data);
  await example.child.waitLine(/read of 4096 bytes at 0: the server says EIO/);
  assert.doesNotMatch(example.child.output, /connection/);
});

realTest("requests that are under way when the server dies are asked again", ["nbdkit"], LIMIT, async (t) => {
  const random = Random.of(t);
  const file = newImage(t, 16 * MIB);
  const server = await NbdServer.start(t, "--filter=delay", "file", file, "wdelay=5ms", "rdelay=5ms");
  const example = await startExample(t, server);
  const driver = await drive(t, example);
  const data = random.bytes(16 * MIB);
  let written = 0;
  const all = Promise.all(Array.from({ length: 8 }, async (_, i) => {
    for (let at = i * 2 * MIB; at < (i + 1) * 2 * MIB; at += 65536) {
      await driver.write(at, data.subarray(at, at + 65536));
      written++;
      const back = await driver.read(at, 65536);
      assert.equal(Buffer.compare(back, data.subarray(at, at + 65536)), 0, `at ${at}`);
    }
  }));
  for (let kills = 0; kills < 3; kills++) {
    const seen = written;
    while (written < Math.min(seen + 20, 250)) {
      await Promise.race([
        all,
        new Promise((done) => setTimeout(done, 5)),
      ]);
    }
    await server.restart();
  }
  await all;
  await driver.flush();
  assert.equal(sha256(file), sha256(data));
  assert.match(example.child.output, /connection lost[^]*connected again/);
});

realTest("requests wait for the server as long as was said, and no longer", ["nbdkit"], LIMIT, async (t) => {
  const server = await NbdServer.start(t, "memory", "16M");
  const example = await startExample(t, server, "--patience=0.5");
  const driver = await drive(t, example);
  await driver.read(0, 4096);
  await server.kill();
  await example.child.waitLine(/connection lost/);
  const start = performance.now();
  await assert.rejects(driver.read(0, 4096), /I\/O error/);
  assert.ok(performance.now() - start < 20_000);
  // From now on they need not wait.
  await assert.rejects(driver.read(0, 4096), /I\/O error/);
  await server.restart();
  await example.child.waitLine(/connected again/, 30_000);
  await driver.read(0, 4096);
});

realTest("a server that says nothing is taken for lost", ["nbdkit"], LIMIT, async (t) => {
  const server = await NbdServer.start(t, "memory", "16M");
  const example = await startExample(t, server, "--timeout=0.5", "--patience=0");
  const driver = await drive(t, example);
  await driver.read(0, 4096);
  server.child.kill("SIGSTOP");
  try {
    await assert.rejects(driver.read(0, 4096), /I\/O error/);
  } finally {
    server.child.kill("SIGCONT");
  }
  await example.child.waitLine(/no answer for 0\.5 seconds/);
  await example.child.waitLine(/connected again/, 30_000);
  await driver.read(0, 4096);
});

realTest("a server that comes back with another disk is not the same", ["nbdkit"], LIMIT, async (t) => {
  const file = newImage(t, 16 * MIB);
  const server = await NbdServer.start(t, "file", file);
  const example = await startExample(t, server);
  const driver = await drive(t, example);
  await server.kill();
  writeFileSync(file, new Uint8Array(8 * MIB));
  await server.restart();
  await example.child.waitLine(/another disk now: it has 8388608 bytes in place of 16777216/, 30_000);
  const reading = driver.read(0, 4096);
  writeFileSync(file, new Uint8Array(16 * MIB).fill(3));
  await server.restart();
  assert.ok((await reading).every((byte) => byte === 3));
});

realTest("the disk is what the server says it is", ["nbdkit"], LIMIT, async (t) => {
  const policy = ["--filter=blocksize-policy", "memory", "1M", "blocksize-error-policy=error"];
  const server = await NbdServer.start(t, ...policy, ...[
    "blocksize-minimum=4096",
    "blocksize-maximum=65536",
  ]);
  const example = await startExample(t, server);
  const driver = await drive(t, example, { maxTransfer: 512 * 1024 });
  assert.deepEqual([driver.size, driver.config.blkSize], [MIB, 4096]);
  const data = Random.of(t).bytes(512 * 1024);
  // Eight times as long as the server takes at once.
  await driver.write(4096, data);
  assert.equal(Buffer.compare(await driver.read(4096, data.length), data), 0);
  await assert.rejects(driver.read(512, 512), /I\/O error/);
  await assert.rejects(driver.write(0, data.subarray(0, 2048)), /I\/O error/);
  assert.doesNotMatch(example.child.output, /says|lost/);

  const large = await NbdServer.start(t, ...policy, "blocksize-minimum=8192");
  assert.match(await refusal(t, large), /wants blocks of 8192 bytes; a disk has at most 4096/);

  const readOnly = await NbdServer.start(t, "--readonly", "memory", "1000001");
  const other = await startExample(t, readOnly);
  assert.match(other.child.output, /a read-only disk of 999936 bytes/);
  await assert.rejects((await drive(t, other)).write(0, new Uint8Array(512)), /I\/O error/);

  const bare = await NbdServer.start(t, "--filter=nozero", "--filter=fua", "memory", "1M");
  assert.match(await refusal(t, bare, "--write-through"), /cannot make single writes durable/);
  const plain = await drive(t, await startExample(t, bare, "--id=plain"));
  assert.equal(await plain.id(), "plain");
  await assert.rejects(plain.writeZeroes(0, 4096), /not supported/);
});

realTest("each write is durable when that is asked for", ["nbdkit"], LIMIT, async (t) => {
  const log = join(tempDir(t), "log");
  const server = await NbdServer.start(t, "--filter=log", "file", newImage(t, MIB), `logfile=${log}`);
  const driver = await drive(t, await startExample(t, server, "--write-through"));
  await driver.write(0, new Uint8Array(4096));
  await driver.writeZeroes(8192, 4096);
  await driver.flush();
  const said = readFileSync(log, "utf8");
  assert.match(said, /Write .*offset=0x0 count=0x1000 fua=1/);
  assert.match(said, /Zero .*offset=0x2000 count=0x1000 .*fua=1/);
  assert.match(said, /Flush/);
});

realTest(
  "qemu-nbd's structured replies, with holes",
  ["qemu-nbd", "qemu-img", "qemu-io"],
  LIMIT,
  async (t) => {
    const folder = tempDir(t);
    const [image, socket] = [join(folder, "disk.qcow2"), join(folder, "q.sock")];
    await run(peerPath("qemu-img"), ["create", "-q", "-f", "qcow2", image, "16M"]);
    await run(peerPath("qemu-io"), [
      "-f",
      "qcow2",
      "-c",
      "write -P 5 192k 64k",
      "-c",
      "write -P 6 1M 64k",
      image,
    ]);
    const server = Child.start(t, peerPath("qemu-nbd"), [
      "-k",
      socket,
      "-x",
      "dörk",
      "-t",
      "-f",
      "qcow2",
      image,
    ]);
    await server.waitSocket(socket, 30_000);
    const { child, socket: disk } = begin(
      t,
      `nbd+unix:///${encodeURIComponent("dörk")}?socket=${socket}`,
      permissionsFor(socket),
      [],
    );
    await child.waitLine(/disk of 16777216 bytes/, 30_000);
    const driver = await BlkDriver.connect(disk, { maxTransfer: 2 * MIB });
    onEnd(t, () => driver.close().catch(() => {}));
    await driver.write(2 * MIB, new Uint8Array(MIB).fill(9));
    await driver.read(0, 2 * MIB);
    const expected = new Uint8Array(2 * MIB);
    expected.fill(5, 192 * 1024, 256 * 1024).fill(6, MIB, MIB + 65536);
    // Over what was there before.
    assert.equal(Buffer.compare(await driver.read(2 * MIB, MIB), new Uint8Array(MIB).fill(9)), 0);
    assert.equal(Buffer.compare(await driver.read(0, 2 * MIB), expected), 0);
  },
);

realTest("over TCP, with TLS", ["nbdkit", "openssl"], LIMIT, async (t) => {
  const folder = tempDir(t);
  const at = (name: string): string => join(folder, name);
  const openssl = (...args: string[]): Promise<unknown> => run(peerPath("openssl"), args, { cwd: folder });
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl("req", "-x509", ...curve, ...[
    "-keyout",
    "ca.key",
    "-out",
    "ca-cert.pem",
    "-subj",
    "/CN=ca",
    "-days",
    "2",
  ]);
  await openssl("req", "-x509", ...curve, ...[
    "-keyout",
    "o.key",
    "-out",
    "other.pem",
    "-subj",
    "/CN=other",
    "-days",
    "2",
  ]);
  for (const name of ["server", "client"]) {
    await openssl("req", ...curve, ...[
      "-keyout",
      `${name}-key.pem`,
      "-out",
      `${name}.csr`,
      "-subj",
      "/CN=localhost",
    ]);
    writeFileSync(at("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    await openssl(
      ...["x509", "-req", "-in", `${name}.csr`, "-CA", "ca-cert.pem", "-CAkey", "ca.key", "-CAcreateserial"],
      ...["-out", `${name}-cert.pem`, "-days", "2", "-extfile", "ext"],
    );
  }
  const port = await freePort();
  await startNbdPort(
    t,
    port,
    ...["--tls=require", `--tls-certificates=${folder}`, "--tls-verify-peer", "memory", "8M"],
  );
  const net = `--allow-net=127.0.0.1:${port}`;
  const files = (...names: string[]): string => `--allow-read=${names.map(at).join(",")}`;
  const client = [`--tls-cert=${at("client-cert.pem")}`, `--tls-key=${at("client-key.pem")}`];
  const example = begin(t, `nbds://127.0.0.1:${port}`, [
    net,
    files("ca-cert.pem", "client-cert.pem", "client-key.pem"),
  ], [`--tls-ca=${at("ca-cert.pem")}`, ...client]);
  await example.child.waitLine(/disk of 8388608 bytes/, 30_000);
  const driver = await drive(t, example);
  const data = Random.of(t).bytes(2 * MIB);
  await driver.write(MIB, data);
  assert.equal(Buffer.compare(await driver.read(MIB, data.length), data), 0);

  const stranger = begin(t, `nbds://127.0.0.1:${port}`, [
    net,
    files("other.pem", "client-cert.pem", "client-key.pem"),
  ], [`--tls-ca=${at("other.pem")}`, ...client]);
  assert.equal(await stranger.child.waitEnd(30_000), 1);
  assert.match(stranger.child.output, /certificate/i);

  const plain = begin(t, `nbd://127.0.0.1:${port}`, [net], []);
  assert.equal(await plain.child.waitEnd(30_000), 1);
  assert.match(plain.child.output, /wants TLS/);
});

/** A server that agrees on a disk of 1 MiB as it should, and answers requests by a function. */
async function liar(
  t: TestContext,
  answer: (request: Buffer, socket: Socket) => void,
  greeting = "NBDMAGICIHAVEOPT\x00\x01",
): Promise<string> {
  const path = join(tempDir(t), "liar.sock");
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("error", () => {});
    socket.write(Buffer.from(greeting, "latin1"));
    let got = Buffer.alloc(0);
    let agreed = false;
    let skipped = false;
    socket.on("data", (bytes: Buffer) => {
      got = Buffer.concat([got, bytes]);
      if (!skipped && got.length >= 4) {
        got = got.subarray(4);
        skipped = true;
      }
      while (!agreed && got.length >= 16 && got.length >= 16 + got.readUInt32BE(12)) {
        const option = got.readUInt32BE(8);
        got = got.subarray(16 + got.readUInt32BE(12));
        const reply = (type: number, data: Buffer): void => {
          const head = Buffer.alloc(20);
          head.writeBigUInt64BE(0x3e889045565a9n, 0);
          head.writeUInt32BE(option, 8);
          head.writeUInt32BE(type, 12);
          head.writeUInt32BE(data.length, 16);
          socket.write(Buffer.concat([head, data]));
        };
        if (option === 7) {
          const info = Buffer.alloc(12);
          info.writeBigUInt64BE(BigInt(MIB), 2);
          info.writeUInt16BE(5, 10);
          reply(3, info);
        }
        reply(1, Buffer.alloc(0));
        agreed = option === 7;
      }
      while (agreed && got.length >= 28) {
        answer(got.subarray(0, 28), socket);
        got = got.subarray(28);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onEnd(t, async () => {
    for (const socket of open) socket.destroy();
    await new Promise((done) => server.close(done));
  });
  return path;
}

/** A simple reply, or a structured one, to a request. */
function reply(request: Buffer, structured?: { type: number; flags: number; data: Buffer }): Buffer {
  const head = Buffer.alloc(structured === undefined ? 16 : 20);
  head.writeUInt32BE(structured === undefined ? 0x67446698 : 0x668e33ef, 0);
  head.set(request.subarray(8, 16), 8);
  if (structured === undefined) return head;
  head.writeUInt16BE(structured.flags, 4);
  head.writeUInt16BE(structured.type, 6);
  head.writeUInt32BE(structured.data.length, 16);
  return Buffer.concat([head, structured.data]);
}

function chunk(position: number, length: number): Buffer {
  const data = Buffer.alloc(8 + length, 0x55);
  data.writeBigUInt64BE(BigInt(position), 0);
  return data;
}

const LIES: Readonly<Record<string, [(request: Buffer) => Buffer, RegExp]>> = {
  "no reply at all": [() => Buffer.alloc(16, 1), /what is no reply/],
  "another request": [(request) => {
    const wrong = Buffer.from(request);
    wrong.writeUInt32BE(77, 12);
    return reply(wrong);
  }, /what it was not asked/],
  "the same twice": [
    (request) => {
      const one = reply(request, { type: 0, flags: 1, data: Buffer.alloc(0) });
      const whole = reply(request, { type: 1, flags: 1, data: chunk(8192, 4096) });
      return Buffer.concat([whole, one]);
    },
    /what it was not asked/,
  ],
  "data before its place": [
    (request) => reply(request, { type: 1, flags: 1, data: chunk(4096, 4096) }),
    /with 4096 bytes from -4096 on/,
  ],
  "data past its end": [
    (request) => reply(request, { type: 1, flags: 1, data: chunk(8192, 4097) }),
    /with 4097 bytes from 0 on/,
  ],
  "too little": [
    (request) => reply(request, { type: 1, flags: 1, data: chunk(8192, 512) }),
    /with 512 bytes$/m,
  ],
  "a hole of 4 GiB": [(request) => {
    const data = Buffer.alloc(12, 0xff);
    data.writeBigUInt64BE(8192n, 0);
    return reply(request, { type: 2, flags: 1, data });
  }, /with 4294967295 bytes from 0 on/],
  "a kind of reply that is none": [
    (request) => reply(request, { type: 9, flags: 1, data: Buffer.alloc(4) }),
    /kind 9 with 4 bytes/,
  ],
};

for (const [what, [lie, expected]] of Object.entries(LIES)) {
  test(`a server that answers with ${what} costs a request, not the disk`, LIMIT, async (t) => {
    let lies = 0;
    const path = await liar(t, (request, socket) => {
      const position = request.readBigUInt64BE(16);
      if (request.readUInt16BE(6) !== 0) return socket.end();
      if (position !== 8192n) {
        const length = request.readUInt32BE(24);
        return socket.write(Buffer.concat([reply(request), Buffer.alloc(length, 0x77)]));
      }
      lies++;
      socket.write(lie(request));
    });
    const example = begin(t, `nbd+unix:///?socket=${path}`, permissionsFor(path), []);
    await example.child.waitLine(/disk of 1048576 bytes/, 30_000);
    const driver = await drive(t, example);
    const bad = driver.read(8192, 4096);
    if (what !== "the same twice") await assert.rejects(bad, /I\/O error/);
    else await bad;
    await example.child.waitLine(expected, 20_000);
    assert.ok((await driver.read(0, 4096)).every((byte) => byte === 0x77));
    assert.ok(lies <= 5, `${lies}`);
    assert.equal(example.child.code, undefined);
  });
}

test("who is no NBD server is told apart", LIMIT, async (t) => {
  for (
    const [greeting, expected] of [
      ["HTTP/1.1 400 Bad Request\r\n\r\n", /this is no NBD server/],
      ["NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00", /before 2011/],
    ] as const
  ) {
    const path = await liar(t, () => {}, greeting);
    const { child } = begin(t, `nbd+unix:///?socket=${path}`, permissionsFor(path), []);
    assert.equal(await child.waitEnd(30_000), 1);
    assert.match(child.output, expected);
  }
});

test("the command line is explained, and what is wrong in it", LIMIT, async (t) => {
  const ask = async (...args: string[]): Promise<[number, string]> => {
    const child = startDeno(t, [EXAMPLE, ...args]);
    return [await child.waitEnd(30_000), child.output];
  };
  const [code, help] = await ask("--help");
  assert.equal(code, 0);
  assert.match(help, /^Usage: deno run --allow-ffi/);
  for (
    const [args, expected, status] of [
      [[], /give one URI/, 2],
      [["--patience=x", "nbd://localhost"], /--patience must be a number of seconds, got 'x'/, 2],
      [["--nonsense", "nbd://localhost"], /--nonsense/, 2],
      [["http://localhost"], /an export must be nbd:\/\/HOST/, 1],
      [["nbd+unix:///name"], /an export must be nbd:\/\/HOST/, 1],
    ] as const
  ) {
    const [status_, output] = await ask(...args);
    assert.match(output, expected);
    assert.equal(status_, status);
  }
});
