/**
 * An encrypted disk: what is in the file is of no use without the passphrase, and what somebody has changed in it is an I/O error
 * for the guest, never wrong data.
 *
 *   deno run --allow-ffi --allow-env=DISK_PASSPHRASE --allow-read=disk.enc --allow-write=disk.enc \
 *     examples/encrypted_disk.ts --create=10G disk.enc
 *   deno run --allow-ffi --allow-env=DISK_PASSPHRASE examples/encrypted_disk.ts --socket-path=/tmp/disk.sock disk.enc
 *
 * The passphrase is in `DISK_PASSPHRASE`, or in a file with `--passphrase-file=FILE` and `--allow-read=FILE`.
 *
 * **How.** WebCrypto has AES-GCM, which needs room for a nonce and a tag with what it encrypts; it has no AES-XTS, which disks mostly
 * use for want of that room, and which does not notice changes. So a block of 4096 bytes of the file holds 3584 bytes of the disk, a
 * seventh more than the disk alone. All numbers are little-endian:
 *
 *   block 0      0  "vhost-user encrypted disk 1\n", zeros up to 32
 *               32  u32 iterations of PBKDF2 (SHA-256)    36  u32 flags: bit 0, every block was written
 *               40  u64 bytes of the disk                 48  16 bytes that name this disk
 *               64  32 bytes of salt                      96  nonce, 12 bytes
 *              108  the disk's key, 32 bytes, by AES-256-GCM with the key of PBKDF2; the first 96 bytes are authenticated with it
 *              140  tag, 16 bytes; zeros from here on
 *   block 1+i    0  nonce, 12 bytes    12  tag, 16 bytes    28  not used
 *              512  bytes i*3584 to (i+1)*3584 of the disk, by AES-256-GCM with the disk's key; authenticated with them: the name
 *                   of the disk and i (u64)
 *
 * A nonce is 8 random bytes, new whenever the disk is opened, and a counter of 32 bits: none comes twice with a key.
 *
 * **After a crash.** Nonce, tag and bytes are in one block, which is written at once. A write that was done outlives the process,
 * and a flush the machine, as long as what is below writes 4096 bytes as a whole or not at all: file systems on disks with blocks
 * of 4096 bytes do. Where only half of a block was written, it is an I/O error until all of its 3584 bytes are written anew.
 *
 * **Not promised.** An older version of a block, or of the whole file, put back in its place is not noticed. Which blocks change,
 * and when, can be seen. With `--sparse`, where the file does not have all its blocks from the start, whoever can change the file
 * can put zeros in place of any. A guest's write of 4096 bytes is two blocks here: after a crash it may be there in part. Two
 * processes must not serve one file.
 *
 * @module
 */

import { closeSync, openSync, readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { serve } from "@vhost/user";
import {
  BlkDevice,
  ChunkedStorage,
  type ChunkStore,
  FileStorage,
  parseSize,
  SECTOR,
  type Storage,
  StorageAccess,
} from "@vhost/user/devices/blk";

const HELP = `Usage: encrypted_disk.ts --create=SIZE FILE
       encrypted_disk.ts --socket-path=PATH FILE

Makes an encrypted disk in a file, or serves one.

  --create=SIZE           Make the file. All of it is written, which takes its time.
  --sparse                With --create: write nothing yet. See "Not promised" in the source.
  --iterations=N          With --create: how long guessing takes (default 600000 rounds of PBKDF2).
  --socket-path=PATH      Listen on this Unix socket.
  --passphrase-file=FILE  The passphrase is all of this file. By default it is in DISK_PASSPHRASE.
  --read-only             Refuse writes.
  --cache=SIZE            Memory for what was used last, not encrypted (default 16M).
  --help                  Print this text.

Example:
  DISK_PASSPHRASE="correct horse" encrypted_disk.ts --create=10G disk.enc
  DISK_PASSPHRASE="correct horse" encrypted_disk.ts --socket-path=/tmp/disk.sock disk.enc`;

const MAGIC = "vhost-user encrypted disk 1\n";
const BLOCK = 4096;
const DATA = 512;
const CHUNK = BLOCK - DATA;
const NONCE = 12;
const TAG = 16;
const FILLED = 1;
/** Where things are in the first block. */
const At = {
  ITERATIONS: 32,
  FLAGS: 36,
  SIZE: 40,
  NAME: 48,
  SALT: 64,
  NONCE: 96,
  KEY: 108,
  END: 156,
} as const;
const MAX_ITERATIONS = 10_000_000;
/** Blocks that are written at once when a disk is made. */
const BATCH = 64;

type Bytes = Uint8Array<ArrayBuffer>;

/** How a disk is made. */
export interface CreateOptions {
  readonly passphrase: Bytes;
  /** Bytes of the disk. */
  readonly size: number;
  readonly sparse?: boolean;
  readonly iterations?: number;
}

/** The key that the passphrase stands for. */
async function passphraseKey(passphrase: Bytes, header: Bytes): Promise<CryptoKey> {
  const iterations = new DataView(header.buffer).getUint32(At.ITERATIONS, true);
  const secret = await crypto.subtle.importKey("raw", passphrase, "PBKDF2", false, ["deriveKey"]);
  return await crypto.subtle.deriveKey(
    { name: "PBKDF2", hash: "SHA-256", iterations, salt: header.slice(At.SALT, At.NONCE) },
    secret,
    { name: "AES-GCM", length: 256 },
    false,
    ["encrypt", "decrypt"],
  );
}

/** How the disk's key is encrypted. */
function headerCipher(header: Bytes): AesGcmParams {
  return { name: "AES-GCM", iv: header.slice(At.NONCE, At.KEY), additionalData: header.slice(0, At.NONCE) };
}

/** The 3584 bytes of the disk that each block holds, as chunks. */
export class EncryptedChunks implements ChunkStore {
  readonly size: number;
  readonly chunkSize = CHUNK;
  readonly #access: StorageAccess;
  readonly #key: CryptoKey;
  readonly #filled: boolean;
  /** What is authenticated with a block: the disk's name, and then the block's index. */
  readonly #name: Bytes;
  /** The next nonce. */
  readonly #nonce = new Uint8Array(NONCE);
  #counter = 0;

  /** Bytes of the file for a disk of so many bytes. */
  static fileSize(size: number): number {
    return BLOCK * (1 + Math.ceil(size / CHUNK));
  }

  /** Makes a disk in a storage of {@link fileSize} bytes, all of which are zeros. */
  static async create(storage: Storage, options: CreateOptions): Promise<void> {
    const { passphrase, size, sparse = false, iterations = 600_000 } = options;
    const header = new Uint8Array(BLOCK);
    const view = new DataView(header.buffer);
    header.set(new TextEncoder().encode(MAGIC));
    view.setUint32(At.ITERATIONS, iterations, true);
    view.setUint32(At.FLAGS, sparse ? 0 : FILLED, true);
    view.setBigUint64(At.SIZE, BigInt(size), true);
    crypto.getRandomValues(header.subarray(At.NAME, At.KEY));
    const secret = crypto.getRandomValues(new Uint8Array(32));
    const wrapped = await crypto.subtle.encrypt(
      headerCipher(header),
      await passphraseKey(passphrase, header),
      secret,
    );
    header.set(new Uint8Array(wrapped), At.KEY);
    const access = new StorageAccess(storage);
    const chunks = new EncryptedChunks(access, header, await diskKey(secret));
    const count = Math.ceil(size / CHUNK);
    const batch = new Uint8Array(BATCH * BLOCK);
    for (let first = 0; first < count && !sparse; first += BATCH) {
      const blocks = Math.min(BATCH, count - first);
      await Promise.all(Array.from({ length: blocks }, async (_, i) => {
        batch.set(await chunks.#seal(first + i, new Uint8Array(CHUNK)), i * BLOCK);
      }));
      await access.write((1 + first) * BLOCK, batch.subarray(0, blocks * BLOCK));
    }
    await access.flush();
    // The last thing: what was begun and not finished is no disk.
    await access.write(0, header);
    await access.flush();
    access.close();
  }

  /** Opens a disk. The storage is the disk's from then on; it is closed also when this fails. */
  static async open(storage: Storage, passphrase: Bytes): Promise<EncryptedChunks> {
    const access = new StorageAccess(storage);
    try {
      const header = new Uint8Array(BLOCK);
      if (storage.size >= BLOCK) await access.read(0, header);
      if (new TextDecoder().decode(header.subarray(0, MAGIC.length)) !== MAGIC) {
        throw new Error("this is no encrypted disk, or one that was not finished");
      }
      const view = new DataView(header.buffer);
      const iterations = view.getUint32(At.ITERATIONS, true);
      const size = Number(view.getBigUint64(At.SIZE, true));
      // All of this is authenticated, but with a key that takes long to compute if it says so.
      if (
        iterations < 1 || iterations > MAX_ITERATIONS || size % SECTOR !== 0 ||
        storage.size < this.fileSize(size)
      ) {
        throw new Error(
          `the header is damaged: ${iterations} iterations, a disk of ${size} bytes in ${storage.size}`,
        );
      }
      const key = await passphraseKey(passphrase, header);
      const wrapped = header.slice(At.KEY, At.END);
      const secret = await crypto.subtle.decrypt(headerCipher(header), key, wrapped).catch(() => {
        throw new Error("the passphrase is wrong, or somebody has changed the header");
      });
      return new EncryptedChunks(access, header, await diskKey(new Uint8Array(secret)));
    } catch (error) {
      access.close();
      storage.close();
      throw error;
    }
  }

  private constructor(access: StorageAccess, header: Bytes, key: CryptoKey) {
    this.#access = access;
    this.#key = key;
    this.#name = header.slice(At.NAME, At.SALT);
    const view = new DataView(header.buffer);
    this.size = Number(view.getBigUint64(At.SIZE, true));
    this.#filled = (view.getUint32(At.FLAGS, true) & FILLED) !== 0;
    crypto.getRandomValues(this.#nonce);
  }

  get settled(): boolean {
    return this.#access.storage.settled ?? true;
  }

  async read(index: number, data: Bytes): Promise<void> {
    const block = new Uint8Array(BLOCK);
    await this.#access.read((1 + index) * BLOCK, block);
    if (!this.#filled && block.every((byte) => byte === 0)) return void data.fill(0);
    const sealed = new Uint8Array(CHUNK + TAG);
    sealed.set(block.subarray(DATA));
    sealed.set(block.subarray(NONCE, NONCE + TAG), CHUNK);
    try {
      const plain = await crypto.subtle.decrypt(
        this.#cipher(index, block.slice(0, NONCE)),
        this.#key,
        sealed,
      );
      data.set(new Uint8Array(plain, 0, data.length));
    } catch {
      const at = index * CHUNK;
      console.error(
        `encrypted_disk: bytes ${at} to ${at + data.length}: the block is damaged, or was changed`,
      );
      throw new Error("the block is damaged, or was changed");
    }
  }

  async write(index: number, data: Bytes): Promise<void> {
    await this.#access.write((1 + index) * BLOCK, await this.#seal(index, data));
  }

  async flush(): Promise<void> {
    await this.#access.flush();
  }

  close(): void {
    this.#access.close();
    this.#access.storage.close();
  }

  /** A block that holds these bytes. */
  async #seal(index: number, data: Bytes): Promise<Bytes> {
    const block = new Uint8Array(BLOCK);
    const nonce = this.#nextNonce();
    let plain = data;
    if (data.length < CHUNK) (plain = new Uint8Array(CHUNK)).set(data);
    const sealed = new Uint8Array(await crypto.subtle.encrypt(this.#cipher(index, nonce), this.#key, plain));
    block.set(nonce);
    block.set(sealed.subarray(CHUNK), NONCE);
    block.set(sealed.subarray(0, CHUNK), DATA);
    return block;
  }

  #nextNonce(): Bytes {
    if (this.#counter === 2 ** 32) {
      crypto.getRandomValues(this.#nonce);
      this.#counter = 0;
    }
    new DataView(this.#nonce.buffer).setUint32(8, this.#counter++, true);
    return this.#nonce.slice();
  }

  #cipher(index: number, iv: Bytes): AesGcmParams {
    const additionalData = new Uint8Array(this.#name.length + 8);
    additionalData.set(this.#name);
    new DataView(additionalData.buffer).setBigUint64(this.#name.length, BigInt(index), true);
    return { name: "AES-GCM", iv, additionalData };
  }
}

async function diskKey(secret: Bytes): Promise<CryptoKey> {
  return await crypto.subtle.importKey("raw", secret, "AES-GCM", false, ["encrypt", "decrypt"]);
}

/** What the command line says. */
interface Settings {
  readonly file: string;
  readonly passphrase: Bytes;
  readonly create?: number;
  readonly sparse: boolean;
  readonly iterations: number;
  readonly socketPath?: string;
  readonly readOnly: boolean;
  readonly cacheSize: number;
}

/** Returns nothing when help was asked for. */
function settings(): Settings | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      "create": { type: "string" },
      "sparse": { type: "boolean", default: false },
      "iterations": { type: "string", default: "600000" },
      "socket-path": { type: "string" },
      "passphrase-file": { type: "string" },
      "read-only": { type: "boolean", default: false },
      "cache": { type: "string", default: "16M" },
      "help": { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const { create, sparse, "socket-path": socketPath, "passphrase-file": passphraseFile } = values;
  if (positionals.length !== 1) throw new TypeError(`one FILE is required, got ${positionals.length}`);
  if ((create === undefined) === (socketPath === undefined)) {
    throw new TypeError("either --create or --socket-path is required");
  }
  const iterations = Number(values.iterations);
  if (!Number.isInteger(iterations) || iterations < 1 || iterations > MAX_ITERATIONS) {
    throw new TypeError(`--iterations must be 1 to ${MAX_ITERATIONS}, got ${values.iterations}`);
  }
  const passphrase = passphraseFile === undefined
    ? new TextEncoder().encode(process.env.DISK_PASSPHRASE ?? "")
    : new Uint8Array(readFileSync(passphraseFile));
  if (passphrase.length === 0) {
    throw new TypeError("a passphrase is required: DISK_PASSPHRASE or --passphrase-file");
  }
  return {
    file: positionals[0],
    passphrase,
    create: create === undefined ? undefined : parseSize(create),
    sparse,
    iterations,
    socketPath,
    readOnly: values["read-only"],
    cacheSize: parseSize(values.cache),
  };
}

/** Makes a disk in a file that is not there yet. */
async function make(file: string, options: CreateOptions): Promise<void> {
  closeSync(openSync(file, "wx"));
  const storage = new FileStorage(file);
  try {
    storage.resize(EncryptedChunks.fileSize(options.size));
    await EncryptedChunks.create(storage, options);
  } finally {
    storage.close();
  }
}

async function main(
  { file, passphrase, socketPath = "", readOnly, cacheSize, ...rest }: Settings,
): Promise<void> {
  if (rest.create !== undefined) return await make(file, { ...rest, passphrase, size: rest.create });
  const chunks = await EncryptedChunks.open(new FileStorage(file, { readOnly }), passphrase);
  const storage = new ChunkedStorage(chunks, { cacheSize, concurrency: 64 });
  const disk = new BlkDevice({ storage, readOnly, id: "encrypted" });
  const server = await serve(disk, { socketPath });
  console.log(`encrypted_disk: ${storage.size} bytes on ${socketPath}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => server.close());
  await server.finished;
  disk.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  let status = 2;
  try {
    const found = settings();
    status = 1;
    if (found === undefined) console.log(HELP);
    else await main(found);
  } catch (error) {
    console.error(`encrypted_disk: ${error instanceof Error ? error.message : error}`);
    process.exitCode = status;
  }
}
