/**
 * A disk whose content is a file on a web server. Nothing is downloaded but what the guest reads, and what it writes stays here:
 * a virtual machine starts from an image of many gigabytes within seconds.
 *
 *   deno run --allow-ffi --allow-net=example.org examples/http_disk.ts https://example.org/disk.img --socket-path=/tmp/disk.sock
 *
 * Any server does that answers requests for ranges (nginx, Apache, Caddy, object stores, busybox httpd); with one that does not,
 * the program says so and ends. Writes go to memory and are gone with the process, or to a file with `--overlay`, which holds them
 * for the next time, and with `--copy-on-read` what was read as well. That takes `--allow-read=FILE --allow-write=FILE` too.
 *
 * Limits: the file must not change. That is noticed by its ETag or Last-Modified, and is an I/O error for the guest from then on;
 * a server that tells neither is believed as long as the size stays. A crash is as for any disk (docs/storage.md): what was
 * written to an overlay in a file outlives the process, and what was flushed the machine. Requests that fail are tried again;
 * meanwhile the guest waits, and after `--retries` it gets an I/O error.
 *
 * @module
 */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { serve } from "@vhost/user";
import {
  BlkDevice,
  ChunkedStorage,
  type ChunkStore,
  FileStorage,
  MemoryStorage,
  OverlayChunks,
  parseSize,
  SECTOR,
  type Storage,
} from "@vhost/user/devices/blk";

const HELP = `Usage: http_disk.ts [options] URL

Serves a disk whose content is a file on a web server; what the guest writes stays here.

  --socket-path=PATH  Listen on this Unix socket (required).
  --read-only         Refuse writes. Any number of guests may then share the disk.
  --overlay=FILE      Keep what is written in this file; it is made if it is not there. By default in memory.
  --copy-on-read      Keep what was read in the overlay, too.
  --cache=SIZE        Memory for what was read last (default 64M).
  --chunk=SIZE        How much to ask the server for at once (default 256K).
  --read-ahead=N      Chunks to ask for before they are wanted, of a guest that reads on and on (default 8).
  --header=LINE       Send this header, such as "Authorization: Bearer …"; any number of times.
  --retries=N         How often to try again what has failed (default 5).
  --timeout=SECONDS   How long the server may take for a chunk (default 30).
  --help              Print this text.

Examples:
  http_disk.ts https://example.org/disk.img --socket-path=/tmp/disk.sock
  http_disk.ts https://example.org/disk.img --socket-path=/tmp/disk.sock --overlay=/var/lib/vm/disk.overlay --copy-on-read`;

/** How a server is asked. */
interface HttpOptions {
  readonly chunkSize: number;
  readonly headers: Headers;
  readonly retries: number;
  /** Milliseconds. */
  readonly timeout: number;
}

/** An error that another try would not mend. */
class FinalError extends Error {}

/** Which content of a URL it is. */
interface Version {
  /** Bytes. */
  readonly size: number;
  readonly etag: string | null;
  readonly modified: string | null;
}

function versionOf(response: Response): Version {
  const range = /^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  if (range === null) throw new FinalError("the server does not say how large the file is (Content-Range)");
  const { headers } = response;
  return { size: Number(range[1]), etag: headers.get("etag"), modified: headers.get("last-modified") };
}

/** A file on a web server, in chunks. */
class HttpChunks implements ChunkStore {
  readonly readOnly = true;
  /** Bytes of the disk: those of the file, and zeros up to the end of the last sector. */
  readonly size: number;
  readonly chunkSize: number;
  readonly #url: URL;
  readonly #options: HttpOptions;
  readonly #version: Version;
  readonly #ended = new AbortController();
  #changed: FinalError | undefined;

  static async open(url: URL, options: HttpOptions): Promise<HttpChunks> {
    const response = await retried(options.retries, async () => {
      const response = await request(url, "bytes=0-0", options);
      await response.body?.cancel();
      if (response.status === 200) {
        throw new FinalError("the server does not answer requests for ranges: it sends the whole file");
      }
      if (response.status === 416) throw new FinalError("the file is empty");
      return response;
    });
    return new HttpChunks(url, options, versionOf(response));
  }

  private constructor(url: URL, options: HttpOptions, version: Version) {
    this.#url = url;
    this.#options = options;
    this.#version = version;
    this.chunkSize = options.chunkSize;
    this.size = Math.ceil(version.size / SECTOR) * SECTOR;
  }

  /** What an overlay is made over. */
  get identity(): string {
    const { etag, modified } = this.#version;
    return `${this.#url}\n${etag ?? modified ?? "unknown version"}`;
  }

  async read(index: number, data: Uint8Array): Promise<void> {
    const from = index * this.chunkSize;
    const length = Math.min(data.length, this.#version.size - from);
    data.fill(0, length);
    try {
      await retried(
        this.#options.retries,
        () => this.#fetch(from, data.subarray(0, length)),
        this.#ended.signal,
      );
    } catch (error) {
      console.error(`http_disk: bytes ${from} to ${from + length}: ${messageOf(error)}`);
      throw error;
    }
  }

  async #fetch(from: number, data: Uint8Array): Promise<void> {
    if (this.#changed !== undefined) throw this.#changed;
    const { etag, modified } = this.#version;
    const range = `bytes=${from}-${from + data.length - 1}`;
    // A weak ETag does not stand for the bytes (RFC 9110, 13.1.5).
    const condition = etag !== null && !etag.startsWith("W/") ? etag : modified;
    const response = await request(this.#url, range, this.#options, condition, this.#ended.signal);
    try {
      // All of it, in place of the range: the condition does not hold.
      if (response.status !== 206) this.#change();
      const version = versionOf(response);
      const place = `bytes ${from}-${from + data.length - 1}/${this.#version.size}`;
      const same = etag === null ? version.modified === modified : version.etag === etag;
      if (version.size !== this.#version.size || !same) this.#change();
      const got = response.headers.get("content-range");
      if (got !== place) throw new FinalError(`the server was asked for ${place}, and sends ${got}`);
      await fill(data, response);
    } finally {
      // A body that is not read to its end would keep the connection.
      await response.body?.cancel().catch(() => {});
    }
  }

  #change(): never {
    this.#changed = new FinalError("the file has changed since the disk was opened: start anew");
    throw this.#changed;
  }

  close(): void {
    this.#ended.abort();
  }
}

async function request(
  url: URL,
  range: string,
  { headers, timeout }: HttpOptions,
  condition?: string | null,
  signal?: AbortSignal,
): Promise<Response> {
  const all = new Headers(headers);
  all.set("range", range);
  // A range of what is compressed is not a range of the file.
  all.set("accept-encoding", "identity");
  if (typeof condition === "string") all.set("if-range", condition);
  const limit = AbortSignal.timeout(timeout);
  const response = await fetch(url, {
    headers: all,
    signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
  });
  const encoding = response.headers.get("content-encoding") ?? "identity";
  if ([200, 206, 416].includes(response.status) && encoding === "identity") return response;
  await response.body?.cancel();
  if (encoding !== "identity") throw new FinalError(`the server compresses the file (${encoding})`);
  const text = `${response.status} ${response.statusText}`.trim();
  if (![408, 425, 429].includes(response.status) && response.status < 500) throw new FinalError(text);
  throw new RetryError(text, Number(response.headers.get("retry-after")) * 1000);
}

/** An error that says when to try again. */
class RetryError extends Error {
  /** Milliseconds; NaN or 0 for unknown. */
  readonly after: number;

  constructor(text: string, after: number) {
    super(text);
    this.after = after;
  }
}

/** Fills `data` with a body of exactly so many bytes. */
async function fill(data: Uint8Array, response: Response): Promise<void> {
  let done = 0;
  const reader = response.body?.getReader();
  try {
    for (let piece = await reader?.read(); piece?.value !== undefined; piece = await reader?.read()) {
      if (done + piece.value.length > data.length) throw new FinalError("the server sends more than a chunk");
      data.set(piece.value, done);
      done += piece.value.length;
    }
  } finally {
    reader?.releaseLock();
  }
  if (done < data.length) throw new Error(`the connection ended after ${done} of ${data.length} bytes`);
}

/** Does something again, after a while that doubles, until it succeeds. */
async function retried<T>(retries: number, act: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let retry = 0;; retry++) {
    try {
      return await act();
    } catch (error) {
      if (error instanceof FinalError || retry >= retries || signal?.aborted) throw error;
      const after = error instanceof RetryError && error.after > 0 ? error.after : 100 * 2 ** retry;
      // Many that have failed at once must not come back at once.
      await sleep(Math.min(after, 10_000) * (0.5 + Math.random() / 2), undefined, { signal });
    }
  }
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return `${error}`;
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
}

/** Opens what takes the writes. */
function openUpper(path: string | undefined, size: number): Storage {
  if (path === undefined) return new MemoryStorage(size);
  closeSync(openSync(path, "a"));
  const file = new FileStorage(path);
  if (file.size < size) file.resize(size);
  return file;
}

const number = (text: string, name: string, least: number): number => {
  if (/^\d+$/.test(text) && Number(text) >= least) return Number(text);
  throw new TypeError(`--${name} must be a number from ${least}, got ${JSON.stringify(text)}`);
};

/** What the command line says. */
interface Settings {
  readonly url: URL;
  readonly socketPath: string;
  readonly readOnly: boolean;
  readonly overlay?: string;
  readonly copyOnRead: boolean;
  readonly cacheSize: number;
  readonly readAhead: number;
  readonly http: HttpOptions;
}

/** Returns nothing when help was asked for. */
function settings(): Settings | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      "socket-path": { type: "string" },
      "read-only": { type: "boolean", default: false },
      "overlay": { type: "string" },
      "copy-on-read": { type: "boolean", default: false },
      "cache": { type: "string", default: "64M" },
      "chunk": { type: "string", default: "256K" },
      "read-ahead": { type: "string", default: "8" },
      "header": { type: "string", multiple: true, default: [] },
      "retries": { type: "string", default: "5" },
      "timeout": { type: "string", default: "30" },
      "help": { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const { "socket-path": socketPath, "read-only": readOnly, overlay } = values;
  if (socketPath === undefined) throw new TypeError("--socket-path is required");
  if (positionals.length !== 1) throw new TypeError(`one URL is required, got ${positionals.length}`);
  if (readOnly && overlay !== undefined) throw new TypeError("--read-only needs no --overlay");
  const headers = new Headers();
  for (const line of values.header) {
    const [, name, value] = /^([^:]+):(.*)$/.exec(line) ?? [];
    if (value === undefined) throw new TypeError(`--header must be NAME: VALUE, got ${JSON.stringify(line)}`);
    headers.append(name, value.trim());
  }
  return {
    url: new URL(positionals[0]),
    socketPath,
    readOnly,
    overlay,
    copyOnRead: values["copy-on-read"],
    cacheSize: parseSize(values.cache),
    readAhead: number(values["read-ahead"], "read-ahead", 0),
    http: {
      headers,
      chunkSize: parseSize(values.chunk),
      retries: number(values.retries, "retries", 0),
      timeout: 1000 * number(values.timeout, "timeout", 1),
    },
  };
}

async function main({ url, socketPath, readOnly, overlay, copyOnRead, ...rest }: Settings): Promise<void> {
  const file = await HttpChunks.open(url, rest.http);
  const chunks = readOnly ? file : await OverlayChunks.open(
    file,
    openUpper(overlay, OverlayChunks.sizeFor(file)),
    { identity: file.identity, copyOnRead },
  );
  const storage = new ChunkedStorage(chunks, rest);
  const disk = new BlkDevice({ storage, id: "http" });
  const server = await serve(disk, { socketPath });
  console.log(`http_disk: ${file.size} bytes of ${url} on ${socketPath}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => server.close());
  await server.finished;
  await storage.flush();
  disk.close();
}

let status = 2;
try {
  const found = settings();
  status = 1;
  if (found === undefined) console.log(HELP);
  else await main(found);
} catch (error) {
  console.error(`http_disk: ${messageOf(error)}`);
  process.exitCode = status;
}
