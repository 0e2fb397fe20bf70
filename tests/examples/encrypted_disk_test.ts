import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { EncryptedChunks } from "../../examples/encrypted_disk.ts";
import { BlkDevice, ChunkedStorage, MemoryStorage, StorageAccess } from "../../src/devices/blk/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { History, WrongContentError } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { type Fate, PowerStorage } from "../power/power_storage.ts";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { Guest } from "../support/guest.ts";
import { MIB } from "../support/image.ts";
import { InProcess } from "../support/in_process.ts";
import { root } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";
import { Random } from "../support/random.ts";
import { decrypt, keyOf } from "./decrypt.js";
import { copyOf, runExample, type ServedExample, startDiskExample } from "./support.ts";

const LIMIT = { timeout: 90_000 };
const BLOCK = 4096;
const CHUNK = 3584;
const SECTOR = 512;
const PASSPHRASE = "correct horse battery staple";
const ENV = { DISK_PASSPHRASE: PASSPHRASE };
/** Few, as nobody guesses here. */
const QUICK = "--iterations=1000";
const ALLOW_ENV = "--allow-env=DISK_PASSPHRASE";

async function make(scope: Scope, size: string, ...args: string[]): Promise<string> {
  const file = join(tempDir(scope), "disk.enc");
  const permissions = [ALLOW_ENV, `--allow-read=${file}`, `--allow-write=${file}`];
  const made = await runExample(scope, "encrypted_disk", permissions, [
    `--create=${size}`,
    QUICK,
    ...args,
    file,
  ], ENV);
  assert.deepEqual(made, { code: 0, output: "" });
  return file;
}

function open(scope: Scope, file: string, ...args: string[]): Promise<ServedExample> {
  return startDiskExample(scope, "encrypted_disk", [ALLOW_ENV], [...args, file], ENV);
}

/** What OpenSSL finds in a file, by way of Node. */
async function decryptedByNode(scope: Scope, file: string): Promise<Uint8Array> {
  const plain = join(tempDir(scope), "plain");
  const script = join(root, "tests/examples/decrypt.js");
  await run("sh", ["-c", 'node "$0" "$1" "$2" >"$3"', script, file, PASSPHRASE, plain]);
  return readFileSync(plain);
}

realTest(
  "libblkio writes, OpenSSL decrypts; nothing can be read in the file",
  ["qemu-io", "qemu-img", "libblkio"],
  LIMIT,
  async (t) => {
    const size = 2 * MIB + SECTOR;
    const file = await make(t, `${size}`);
    assert.equal(statSync(file).size, BLOCK * (1 + Math.ceil(size / CHUNK)));
    const first = await open(t, file);
    sameBytes(readFileSync(await copyOf(t, first.socket)), new Uint8Array(size), "a new disk");
    await qemuIo(
      first.socket,
      "write -P 0x41 100k 300k",
      "write -P 0x42 2M 512",
      "write -P 0x43 3072 1024",
      "flush",
    );
    const expected = new Uint8Array(size).fill(0x41, 100 * 1024, 400 * 1024).fill(0x42, 2 * MIB).fill(
      0x43,
      3072,
      4096,
    );
    // It was not told to end.
    first.child.kill("SIGKILL");
    await first.child.ended;
    sameBytes(await decryptedByNode(t, file), expected, "by OpenSSL");
    assert.equal(readFileSync(file).indexOf(Buffer.alloc(16, 0x41)), -1);
    const second = await open(t, file);
    sameBytes(readFileSync(await copyOf(t, second.socket)), expected, "by the example");
    second.child.kill("SIGTERM");
    assert.equal(await second.child.waitEnd(), 0);
  },
);

realTest(
  "what somebody has changed is an I/O error, and the rest is not",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    const file = await make(t, "1M");
    const clean = readFileSync(file);
    const changes: [string, (file: Buffer) => void][] = [
      ["a bit of the data", (file) => file[3 * BLOCK + 600] ^= 1],
      ["a bit of the tag", (file) => file[3 * BLOCK + 13] ^= 1],
      ["a bit of the nonce", (file) => file[3 * BLOCK] ^= 1],
      ["another block in its place", (file) => void file.copyWithin(3 * BLOCK, 4 * BLOCK, 5 * BLOCK)],
      ["zeros in its place", (file) => void file.fill(0, 3 * BLOCK, 4 * BLOCK)],
      ["half of a write", (file) => void file.fill(7, 3 * BLOCK + 2048, 4 * BLOCK)],
    ];
    for (const [name, change] of changes) {
      const changed = Buffer.from(clean);
      change(changed);
      writeFileSync(file, changed);
      const { child, socket } = await open(t, file);
      await qemuIo(socket, "read -P 0 0 7168", "read -P 0 10752 512");
      await assert.rejects(qemuIo(socket, "read 7168 512"), /Input\/output error/, name);
      await assert.rejects(qemuIo(socket, "write 7168 512"), /Input\/output error/, name);
      await child.waitLine(/^encrypted_disk: bytes 7168 to 10752: the block is damaged, or was changed$/);
      // All of it is written anew.
      await qemuIo(socket, "write -P 5 7168 3584", "read -P 5 7168 3584");
      await child.stop();
    }
  },
);

test("only the passphrase opens it, and only as it was made", LIMIT, async () => {
  const { storage, bytes } = await inMemory(10 * CHUNK);
  const clean = Buffer.from(await bytes());
  storage.close();
  const changed = (at: number): Buffer => {
    const bytes = Buffer.from(clean);
    bytes[at] ^= 1;
    return bytes;
  };
  const refused = async (pattern: RegExp, bytes: Buffer, passphrase = PASSPHRASE): Promise<void> => {
    const storage = new MemoryStorage(bytes.length);
    const access = new StorageAccess(storage);
    await access.write(0, bytes);
    access.close();
    await assert.rejects(EncryptedChunks.open(storage, new TextEncoder().encode(passphrase)), pattern);
  };
  await refused(/the passphrase is wrong, or somebody has changed the header/, clean, "wrong");
  for (const at of [32, 36, 48, 70, 100, 120, 150]) {
    await refused(/the passphrase is wrong, or/, changed(at));
  }
  await refused(/the header is damaged: .* a disk of 36096 bytes/, changed(41));
  await refused(/the header is damaged: 16777226 iterations/, changed(35));
  await refused(
    /the header is damaged: 10 iterations, a disk of 35840 bytes in 4096/,
    clean.subarray(0, BLOCK),
  );
  await refused(/this is no encrypted disk/, changed(0));
  await refused(/this is no encrypted disk/, Buffer.alloc(BLOCK));
});

test("what cannot be is refused, with a reason", LIMIT, async (t) => {
  const file = join(tempDir(t), "file");
  writeFileSync(file, "something");
  const socket = `--socket-path=${file}.sock`;
  const refused: [readonly string[], Record<string, string>, number, RegExp][] = [
    [["--create=64K", file], ENV, 1, /EEXIST|exists/i],
    [[socket, file], ENV, 1, /this is no encrypted disk/],
    [[socket, file], { DISK_PASSPHRASE: "" }, 2, /a passphrase is required/],
    [[file], ENV, 2, /either --create or --socket-path is required/],
    [[socket], ENV, 2, /one FILE is required, got 0/],
    [["--help"], ENV, 0, /^Usage: encrypted_disk\.ts/],
  ];
  const permissions = [ALLOW_ENV, `--allow-read=${file}`, `--allow-write=${file}`];
  for (const [args, env, status, message] of refused) {
    const { code, output } = await runExample(t, "encrypted_disk", permissions, args, env);
    assert.match(output, message);
    assert.equal(code, status, args.join(" "));
  }
});

test("a passphrase from a file; a disk of which nothing was written yet", LIMIT, async (t) => {
  const file = await make(t, "1G", "--sparse");
  assert.ok(statSync(file).blocks * 512 < MIB);
  const secret = join(tempDir(t), "secret");
  writeFileSync(secret, PASSPHRASE);
  const { socket } = await startDiskExample(
    t,
    "encrypted_disk",
    [`--allow-read=${secret}`],
    [`--passphrase-file=${secret}`, file],
  );
  const driver = await BlkDriver.connect(socket);
  onEnd(t, () => driver.close());
  sameBytes(await driver.read(512 * MIB, 8192), new Uint8Array(8192));
  await driver.write(512 * MIB, bytesOf(1, 512));
  sameBytes(await driver.read(512 * MIB, 512), bytesOf(1, 512));
});

async function inMemory(size: number): Promise<{ storage: MemoryStorage; bytes: () => Promise<Uint8Array> }> {
  const storage = new MemoryStorage(EncryptedChunks.fileSize(size));
  await EncryptedChunks.create(storage, {
    passphrase: new TextEncoder().encode(PASSPHRASE),
    size,
    iterations: 10,
  });
  const bytes = async (): Promise<Uint8Array> => {
    const access = new StorageAccess(storage);
    const all = new Uint8Array(storage.size);
    await access.read(0, all);
    access.close();
    return all;
  };
  return { storage, bytes };
}

test("no nonce comes twice, also when the disk is opened again", LIMIT, async () => {
  const { storage, bytes } = await inMemory(40 * CHUNK);
  const nonces = new Set<string>();
  let blocks = 0;
  for (let round = 0; round < 3; round++) {
    const all = Buffer.from(await bytes());
    for (let at = BLOCK; at < all.length; at += BLOCK, blocks++) nonces.add(all.toString("hex", at, at + 12));
    const chunks = await EncryptedChunks.open(storage, new TextEncoder().encode(PASSPHRASE));
    for (let index = 0; index < 40; index++) await chunks.write(index, new Uint8Array(CHUNK));
  }
  assert.equal(nonces.size, blocks);
  storage.close();
});

/** Cuts the power again and again under a load, in thought, and has what is left decrypted. */
async function cutPower(t: Scope, lies: boolean): Promise<void> {
  const random = new Random(13);
  const sectors = 128;
  const made = await inMemory(sectors * SECTOR);
  const upper = new PowerStorage(new Uint8Array(await made.bytes()), { lies, delay: () => random.int(0, 2) });
  made.storage.close();
  const passphrase = new TextEncoder().encode(PASSPHRASE);
  const storage = new ChunkedStorage(await EncryptedChunks.open(upper, passphrase), { cacheSize: 8 * CHUNK });
  const served = await InProcess.serve(t, new BlkDevice({ storage }));
  const disk = await BlkDriver.connect(served.socket, { depth: 16 });
  onEnd(t, () => disk.close());
  const key = keyOf(upper.contents, PASSPHRASE);
  const history = new History(sectors, true);
  const load = new Load(disk, history, random);
  const fates: readonly Fate[] = ["dropped", "kept", "some", "torn"];
  for (let cut = 0; cut < 25; cut++) {
    await load.more(random.int(1, 10));
    for (const fate of fates) {
      history.check(decrypt(upper.after(upper.events.length, fate, random), key), "durable");
    }
  }
  await load.end();
}

test("an encrypted disk when the power is cut", LIMIT, (t) => cutPower(t, false));

test("an encrypted disk in a storage that lies about flushing is found out", LIMIT, async (t) => {
  await assert.rejects(cutPower(t, true), WrongContentError);
});

realTest("a Linux guest has a file system on it", ["qemu", "guest"], { timeout: 240_000 }, async (t) => {
  const file = await make(t, "32M");
  const { socket, child } = await open(t, file);
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
      "sha256sum /mnt/new; umount /mnt; mount -t ext4 /dev/vda /mnt; sha256sum /mnt/new; umount /mnt",
  );
  const [written, read] = said.trim().split("\n");
  assert.equal(read, written);
  await guest.stop();
  await child.stop();
  const plain = join(tempDir(t), "plain");
  writeFileSync(plain, await decryptedByNode(t, file));
  await run(which("e2fsck") ?? "e2fsck", ["-fn", plain]);
});
