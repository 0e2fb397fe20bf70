import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { type Device, errorText, type Log, serve, type ServeOptions, type Server } from "../../mod.ts";
import { BlkDevice, type BlkOptions, MemoryStorage } from "../../src/devices/blk/mod.ts";
import { FrontEnd, type FrontEndOptions, SharedMemory } from "../../src/frontend/mod.ts";
import { BlkDriver, type BlkDriverOptions } from "../../src/tools/blk_driver.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { RawPeer } from "./raw_peer.ts";

/** Time limit of a test, milliseconds. */
export const LIMIT = { timeout: 30_000 };

/** How long something that should be soon may take, milliseconds: a machine may have much else to do. */
export const PATIENCE = 20_000;

function fromEnvironment(name: string): number | undefined {
  return process.env[name] === undefined ? undefined : Number(process.env[name]);
}

/** Threads for devices that can run in them, when the tests are run once more with VHOST_WORKERS. */
const WORKERS = fromEnvironment("VHOST_WORKERS");
/** How long to look at rings, when the tests are run once more with VHOST_POLL_US. */
const POLL_US = fromEnvironment("VHOST_POLL_US");

// Deno's runner passes over what is thrown in timers and microtasks, where it would end a process that serves.
const uncaught: unknown[] = [];
process.on("uncaughtException", (error) => uncaught.push(error));

/** Waits until something holds, which it should do soon. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = performance.now() + PATIENCE; !holds();) {
    assert.ok(performance.now() < deadline, `in vain: ${what}`);
    await sleep(1);
  }
}

/** Gives the server the time to do what it should not do. */
export const aWhile = (): Promise<void> => sleep(30);

/** What a server has said. */
export class LogBook {
  /** Every entry as `level: text: error`. */
  readonly lines: string[] = [];
  /** To be given to `serve`. */
  readonly write: Log = (level, text, error) => {
    this.lines.push(`${level}: ${text}${error === undefined ? "" : `: ${errorText(error)}`}`);
  };

  /** Warnings and errors. */
  get problems(): string[] {
    return this.lines.filter((line) => /^(warning|error)/.test(line));
  }

  /** Waits for the one problem that there should be, and forgets it. */
  async problem(pattern: RegExp): Promise<void> {
    await eventually(`a problem like ${pattern}; the log: ${this.lines}`, () => this.problems.length > 0);
    assert.match(this.problems[0], pattern);
    assert.equal(this.problems.length, 1, `no other problem: ${this.problems}`);
    this.lines.length = 0;
  }
}

/** A device being served for a test. */
export class Scene {
  /** Path of the socket. */
  readonly path: string;
  /** What the server says. */
  readonly log: LogBook;
  /** The server. */
  readonly server: Server;
  readonly #scope: Scope;

  private constructor(scope: Scope, path: string, log: LogBook, server: Server) {
    this.#scope = scope;
    this.path = path;
    this.log = log;
    this.server = server;
  }

  /** Serves a device until the test is over. */
  static async open(scope: Scope, device: Device | URL, options: Partial<ServeOptions> = {}): Promise<Scene> {
    onEnd(scope, () => {
      if (uncaught.length > 0) throw uncaught.splice(0)[0];
    });
    const log = new LogBook();
    const path = join(tempDir(scope), "socket");
    const able = !(device instanceof URL) && device.definition.worker !== undefined;
    const workers = options.workers ?? (able ? WORKERS : undefined);
    const server = await serve(device, {
      socketPath: path,
      log: log.write,
      pollUs: POLL_US,
      ...options,
      workers,
    });
    onEnd(scope, async () => {
      server.close();
      await server.finished;
    });
    return new Scene(scope, path, log, server);
  }

  /** Serves a disk; one in memory of 1 MiB that many front-ends may use, unless said otherwise. */
  static async disk(
    scope: Scope,
    options: Partial<BlkOptions> = {},
    serving: Partial<ServeOptions> = {},
  ): Promise<DiskScene> {
    const disk = new BlkDevice({
      storage: options.storage ?? new MemoryStorage(1 << 20),
      numQueues: 4,
      shared: true,
      ...options,
    });
    onEnd(scope, () => disk.close());
    return Object.assign(await Scene.open(scope, disk, serving), { disk });
  }

  /** A peer that says whatever it likes. */
  peer(): RawPeer {
    const peer = RawPeer.connect(this.path);
    onEnd(this.#scope, () => peer.close());
    return peer;
  }

  /** A front-end that has negotiated. */
  async frontEnd(options: FrontEndOptions = {}): Promise<FrontEnd> {
    const frontEnd = await FrontEnd.connect(this.path, options);
    onEnd(this.#scope, () => frontEnd.close());
    return frontEnd;
  }

  /** A driver of the disk that is served. */
  async driver(options: BlkDriverOptions = {}): Promise<BlkDriver> {
    const driver = await BlkDriver.connect(this.path, { depth: 8, maxTransfer: 4096, ...options });
    onEnd(this.#scope, () => driver.close().catch(() => {}));
    return driver;
  }

  /** Memory for a front-end. */
  memory(byteLength: number = 1 << 16, guestAddress: number = 0x1000_0000): SharedMemory {
    const memory = new SharedMemory(byteLength, guestAddress);
    onEnd(this.#scope, () => memory.close());
    return memory;
  }
}

/** A disk being served for a test. */
export type DiskScene = Scene & { readonly disk: BlkDevice };

/** Bytes that look random and follow from a seed. */
export function bytesOf(seed: number, length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Random(seed).bytes(length));
}

/** Compares bytes, of which there may be millions: a difference is named by its place, and nothing more is shown. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what = "bytes"): void {
  assert.equal(actual.length, expected.length, `${what}: number`);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert.fail(`${what}: byte ${at} of ${actual.length} is ${actual[at]}, expected ${expected[at]}`);
}

/** Writes to a disk and reads it back, twice at different places. */
export async function verify(driver: BlkDriver, seed: number): Promise<void> {
  for (const [position, length] of [[0, 512], [8192, 12288]]) {
    const data = bytesOf(seed, length);
    await driver.write(position, data);
    sameBytes(await driver.read(position, length), data);
  }
}
