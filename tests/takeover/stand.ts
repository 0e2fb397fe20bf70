import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Device, Reactor, serve, type ServeOptions, type Server } from "../../mod.ts";
import { connect } from "../../ffi/socket.ts";
import { Dialogue } from "../../src/backend/takeover/dialogue.ts";
import { controlPath, hello, MAGIC, VERSION } from "../../src/backend/takeover/messages.ts";
import { BlkDevice, type BlkOptions } from "../../src/devices/blk/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Writers } from "../frontend/writers.ts";
// What the runtime needs to sleep is not to be counted among what is lost: it stays, from before the first test.
import "../session/descriptors.ts";
import { LogBook } from "../session/scene.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";

/** A path where one server takes over from the other, all in this process: what they hold can be counted. */
export class Stand {
  /** Path of the socket. */
  readonly path: string;
  /** The bytes of all disks here, as of a file that outlives its processes. */
  readonly storage = new GatedStorage();
  /** What the first server says. */
  readonly log = new LogBook();
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
    this.path = join(tempDir(scope), "socket");
    this.storage.open = true;
    onEnd(scope, () => this.storage.close());
  }

  /** Serves a device that may be taken over, or takes over itself. */
  async serve(device: Device, options: Partial<ServeOptions> = {}): Promise<Server> {
    const server = await serve(device, {
      socketPath: this.path,
      takeover: "allow",
      log: this.log.write,
      ...options,
    });
    onEnd(this.#scope, async () => {
      server.close();
      await server.finished;
    });
    return server;
  }

  /** Serves the disk. */
  disk(options: Partial<BlkOptions> = {}, serving: Partial<ServeOptions> = {}): Promise<Server> {
    return this.serve(new BlkDevice({ storage: this.storage, numQueues: 2, ...options }), serving);
  }

  /** A front-end that keeps the disk busy and does not connect again. */
  async load(): Promise<Load> {
    const driver = await BlkDriver.connect(this.path, { depth: 8, numQueues: 2 });
    onEnd(this.#scope, () => driver.frontEnd.close());
    return new Load(driver);
  }

  /** Somebody who says that it takes over. */
  taker(patience = 5000): Dialogue {
    const dialogue = new Dialogue(connect(controlPath(this.path)), Reactor.shared(), patience);
    onEnd(this.#scope, () => dialogue.close());
    return dialogue;
  }
}

/** The greeting of a server of disks. */
export function greeting(
  changes: Partial<{ magic: number; version: number; device: number }> = {},
): Uint8Array {
  return hello.encode({ magic: MAGIC, version: VERSION, device: 2, ...changes });
}

/** Takes everything, and says nothing to it. Returns the names of what has come. */
export async function takeAll(dialogue: Dialogue): Promise<string[]> {
  const names: string[] = [];
  while (names.at(-1) !== "END") {
    const { name, fds } = await dialogue.receive();
    fds.close();
    names.push(name);
  }
  return names;
}

/** Verified writing. */
export class Load {
  readonly driver: BlkDriver;
  readonly #writers: Writers;

  constructor(driver: BlkDriver) {
    this.driver = driver;
    this.#writers = new Writers(driver, 6);
  }

  /** Waits until some more writes have ended. */
  more(count = 20): Promise<void> {
    return this.#writers.more(count);
  }

  /** Ends it: all is as it was written. */
  async finish(): Promise<void> {
    await this.more();
    await this.#writers.verify();
    await this.driver.close();
  }
}

/** Descriptors of this process, by what they are. */
export function descriptors(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]$/, "")];
    } catch {
      return []; // Closed in between.
    }
  }).sort();
}

/** Waits until what was open before is open again, and `more`. */
export async function noneLost(before: readonly string[], more: readonly string[] = []): Promise<void> {
  const expected = [...before, ...more].sort();
  for (const deadline = performance.now() + 5000; performance.now() < deadline; await sleep(5)) {
    if (JSON.stringify(descriptors()) === JSON.stringify(expected)) return;
  }
  assert.deepEqual(descriptors(), expected);
}
