/**
 * A disk on S3, or on whatever speaks as S3 does (MinIO, Ceph, Garage, R2, …): an object for each chunk of it, none for chunks that
 * are all zeros, and `disk.json`, which says how large it is.
 *
 *   deno run --allow-ffi --allow-net=s3.example.org \
 *     --allow-env=AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,AWS_SESSION_TOKEN,AWS_REGION \
 *     examples/s3_disk.ts --endpoint=https://s3.example.org --bucket=disks --prefix=vm1 --create=20G --socket-path=/tmp/disk.sock
 *
 * The keys are taken from the environment, as Amazon's tools do. Requests are signed by `aws4fetch` (npm).
 *
 * What the guest writes stays in memory until it flushes; then the objects are put, and the flush is done when the last of them is.
 * So for the guest it is a disk with a volatile cache, and **a process that dies takes along what was not flushed**, as a loss of
 * power would. Guests that go on when it is started anew (QEMU's `reconnect-ms`) must not rely on that: either have the guest
 * restarted, too, or use `--write-through`, where a write is done when its object is.
 *
 * Limits: a chunk is put as a whole, so many small writes here and there cost much. One process at a time may write: the one that
 * was started last. An older one notices when it flushes, and at the latest after five seconds, and answers with I/O errors from
 * then on; what it puts until then may go over what the other has put. A request that was given up for the time it took, and is
 * carried out by the server later still, could undo a newer one: choose `--timeout` large. Addresses are in path style
 * (`https://endpoint/bucket/key`).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { AwsClient } from "aws4fetch";
import { serve } from "@vhost/user";
import { BlkDevice, ChunkedStorage, type ChunkStore, parseSize } from "@vhost/user/devices/blk";

const HELP = `Usage: s3_disk.ts --bucket=NAME --prefix=PREFIX [options]

Serves a disk whose chunks are objects of an S3-compatible store.

  --socket-path=PATH  Listen on this Unix socket (required).
  --bucket=NAME       The bucket (required).
  --prefix=PREFIX     What the names of the disk's objects begin with, and a slash (required).
  --endpoint=URL      The server (default https://s3.AWS_REGION.amazonaws.com).
  --create=SIZE       Make the disk if it is not there, of this size.
  --chunk=SIZE        Bytes of an object of a disk that is made (default 1M).
  --read-only         Refuse writes. Any number of guests may then share the disk.
  --write-through     A write is done when its object is, not when it is in memory.
  --cache=SIZE        Memory for chunks (default 256M).
  --read-ahead=N      Chunks to read before they are wanted, for a guest that reads on and on (default 4).
  --retries=N         How often to try again what has failed (default 5).
  --timeout=SECONDS   How long the server may take for an object (default 60).
  --help              Print this text.

Environment:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (if there is one), AWS_REGION (default us-east-1)

Example:
  s3_disk.ts --endpoint=http://localhost:9000 --bucket=disks --prefix=vm1 --create=20G --socket-path=/tmp/disk.sock`;

const FORMAT = "vhost-user s3 disk 1";
/** For how long a process may believe that the disk is still its own, ms. */
const TRUST = 5000;

/** What `disk.json` says. */
interface Manifest {
  readonly format: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes of each object but the last. */
  readonly chunkSize: number;
}

/** An error that another try would not mend. */
class FinalError extends Error {}

/** Does something again, after a while that doubles, until it succeeds. */
async function retried<T>(retries: number, act: () => Promise<T>): Promise<T> {
  for (let retry = 0;; retry++) {
    try {
      return await act();
    } catch (error) {
      if (error instanceof FinalError || retry >= retries) throw error;
      // Many that have failed at once must not come back at once.
      await sleep(Math.min(100 * 2 ** retry, 10_000) * (0.5 + Math.random() / 2));
    }
  }
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return `${error}`;
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
}

/** Where a disk's objects are. */
interface BucketOptions {
  readonly client: AwsClient;
  /** Address of the bucket and prefix, with a slash at the end. */
  readonly base: string;
  readonly retries: number;
  /** Milliseconds. */
  readonly timeout: number;
}

/** The objects of one disk. */
class Bucket {
  readonly #options: BucketOptions;

  constructor(options: BucketOptions) {
    this.#options = options;
  }

  /** The bytes of an object; nothing if there is none. */
  async get(name: string): Promise<Uint8Array | undefined> {
    const { status, body } = await this.#request("GET", name);
    return status === 404 ? undefined : body;
  }

  async put(name: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    // Signed with the rest: what arrives is what was sent.
    await this.#request("PUT", name, data, { "x-amz-content-sha256": Buffer.from(hash).toString("hex") });
  }

  async delete(name: string): Promise<void> {
    await this.#request("DELETE", name);
  }

  async #request(
    method: string,
    name: string,
    body?: Uint8Array<ArrayBuffer>,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; body: Uint8Array }> {
    const { client, base, retries, timeout } = this.#options;
    try {
      return await retried(retries, async () => {
        const signed = await client.sign(base + name, { method, body, headers });
        const response = await fetch(signed, { signal: AbortSignal.timeout(timeout) });
        const bytes = new Uint8Array(await response.arrayBuffer());
        if (response.ok) return { status: response.status, body: bytes };
        const text = new TextDecoder().decode(bytes.subarray(0, 4096));
        const code = /<Code>(\w+)<\/Code>/.exec(text)?.[1] ?? "";
        // No such bucket is something else.
        if (response.status === 404 && code === "NoSuchKey") return { status: 404, body: bytes };
        const said = `${response.status} ${code || response.statusText}`.trim();
        if (response.status >= 500 || [408, 425, 429].includes(response.status)) throw new Error(said);
        throw new FinalError(said);
      });
    } catch (error) {
      const text = `${method} ${name}: ${messageOf(error)}`;
      console.error(`s3_disk: ${text}`);
      throw new Error(text);
    }
  }
}

/** The chunks of a disk as objects. */
class S3Chunks implements ChunkStore {
  readonly size: number;
  readonly chunkSize: number;
  readonly readOnly: boolean;
  readonly #bucket: Bucket;
  /** Chunks that have no object. Who alone writes knows. */
  readonly #absent = new Set<number>();
  readonly #owner: Uint8Array<ArrayBuffer> = new TextEncoder().encode(crypto.randomUUID());
  #trustedUntil = 0;
  #lost = false;

  static async open(
    bucket: Bucket,
    made: Omit<Manifest, "format"> | undefined,
    readOnly: boolean,
  ): Promise<S3Chunks> {
    let found = await bucket.get("disk.json");
    if (found === undefined) {
      if (made === undefined) throw new Error("there is no such disk: --create=SIZE makes one");
      await bucket.put(
        "disk.json",
        found = new TextEncoder().encode(JSON.stringify({ format: FORMAT, ...made })),
      );
    }
    const chunks = new S3Chunks(bucket, manifestOf(found), readOnly);
    if (made !== undefined && made.size !== chunks.size) {
      throw new Error(`the disk is there already, and has ${chunks.size} bytes`);
    }
    if (!readOnly) await bucket.put("owner", chunks.#owner);
    return chunks;
  }

  private constructor(bucket: Bucket, { size, chunkSize }: Manifest, readOnly: boolean) {
    this.#bucket = bucket;
    this.size = size;
    this.chunkSize = chunkSize;
    this.readOnly = readOnly;
  }

  #name(index: number): string {
    return `chunk-${index.toString(16).padStart(8, "0")}`;
  }

  async read(index: number, data: Uint8Array): Promise<void> {
    const name = this.#name(index);
    const found = this.#absent.has(index) ? undefined : await this.#bucket.get(name);
    if (found === undefined) {
      data.fill(0);
      if (!this.readOnly) this.#absent.add(index);
    } else if (found.length === data.length) data.set(found);
    else {
      const text = `${name} must have ${data.length} bytes, got ${found.length}`;
      console.error(`s3_disk: ${text}`);
      throw new Error(text);
    }
  }

  async write(index: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#own();
    await this.#bucket.put(this.#name(index), data);
    this.#absent.delete(index);
  }

  async erase(index: number): Promise<void> {
    if (this.#absent.has(index)) return;
    await this.#own();
    await this.#bucket.delete(this.#name(index));
    this.#absent.add(index);
  }

  /** What was put is durable; it counts if it was ours to put. */
  async flush(): Promise<void> {
    this.#trustedUntil = 0;
    await this.#own();
  }

  /** Makes sure now and then that no other process writes to the disk. */
  async #own(): Promise<void> {
    if (!this.#lost && performance.now() >= this.#trustedUntil) {
      const owner = await this.#bucket.get("owner");
      this.#trustedUntil = performance.now() + TRUST;
      this.#lost = owner === undefined || Buffer.compare(owner, this.#owner) !== 0;
      if (this.#lost) {
        console.error("s3_disk: another process has taken over the disk: nothing is written any more");
      }
    }
    if (this.#lost) throw new Error("another process has taken over the disk");
  }

  close(): void {}
}

function manifestOf(bytes: Uint8Array): Manifest {
  const text = new TextDecoder().decode(bytes.subarray(0, 4096));
  try {
    const manifest = JSON.parse(text);
    if (manifest.format === FORMAT) return manifest;
  } catch {
    // Told below.
  }
  throw new Error(`disk.json must be of format ${JSON.stringify(FORMAT)}, got ${text}`);
}

/** What the command line says. */
interface Settings {
  readonly socketPath: string;
  readonly bucket: Bucket;
  readonly made: Omit<Manifest, "format"> | undefined;
  readonly readOnly: boolean;
  readonly writeBack: boolean;
  readonly cacheSize: number;
  readonly readAhead: number;
}

function needed(value: string | undefined, name: string): string {
  if (value === undefined || value === "") throw new TypeError(`${name} is required`);
  return value;
}

function number(text: string, name: string, least: number): number {
  if (/^\d+$/.test(text) && Number(text) >= least) return Number(text);
  throw new TypeError(`--${name} must be a number from ${least}, got ${JSON.stringify(text)}`);
}

/** Returns nothing when help was asked for. */
function settings(): Settings | undefined {
  const { values } = parseArgs({
    options: {
      "socket-path": { type: "string" },
      "bucket": { type: "string" },
      "prefix": { type: "string" },
      "endpoint": { type: "string" },
      "create": { type: "string" },
      "chunk": { type: "string", default: "1M" },
      "read-only": { type: "boolean", default: false },
      "write-through": { type: "boolean", default: false },
      "cache": { type: "string", default: "256M" },
      "read-ahead": { type: "string", default: "4" },
      "retries": { type: "string", default: "5" },
      "timeout": { type: "string", default: "60" },
      "help": { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const socketPath = needed(values["socket-path"], "--socket-path");
  const bucket = needed(values.bucket, "--bucket");
  const prefix = needed(values.prefix, "--prefix");
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION } = process.env;
  const region = AWS_REGION ?? "us-east-1";
  const endpoint = new URL(values.endpoint ?? `https://s3.${region}.amazonaws.com`);
  const client = new AwsClient({
    accessKeyId: needed(AWS_ACCESS_KEY_ID, "AWS_ACCESS_KEY_ID"),
    secretAccessKey: needed(AWS_SECRET_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY"),
    sessionToken: AWS_SESSION_TOKEN,
    service: "s3",
    region,
  });
  const path = `${bucket}/${prefix}/`.split("/").map(encodeURIComponent).join("/");
  return {
    socketPath,
    bucket: new Bucket({
      client,
      base: `${endpoint.href.replace(/\/$/, "")}/${path}`,
      retries: number(values.retries, "retries", 0),
      timeout: 1000 * number(values.timeout, "timeout", 1),
    }),
    made: values.create === undefined
      ? undefined
      : { size: parseSize(values.create), chunkSize: parseSize(values.chunk) },
    readOnly: values["read-only"],
    writeBack: !values["write-through"] && !values["read-only"],
    cacheSize: parseSize(values.cache),
    readAhead: number(values["read-ahead"], "read-ahead", 0),
  };
}

async function main({ socketPath, bucket, made, readOnly, ...rest }: Settings): Promise<void> {
  const storage = new ChunkedStorage(await S3Chunks.open(bucket, made, readOnly), rest);
  const disk = new BlkDevice({ storage, id: "s3" });
  const server = await serve(disk, { socketPath });
  console.log(`s3_disk: ${storage.size} bytes on ${socketPath}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => server.close());
  await server.finished;
  if (!readOnly) await storage.flush();
  disk.close();
}

let status = 2;
try {
  const found = settings();
  status = 1;
  if (found === undefined) console.log(HELP);
  else await main(found);
} catch (error) {
  console.error(`s3_disk: ${messageOf(error)}`);
  process.exitCode = status;
}
