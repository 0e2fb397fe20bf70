/**
 * What this process has open, mapped and running: it must be the same after each case.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import process from "node:process";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { patience } from "./patience.ts";

/** Files that are mapped because someone shares memory; V8's own come and go. */
const SHARED = /memfd:|io_uring|userfaultfd|\/tmp\/|\/dev\/shm\//;

/** What is open and mapped. */
export class Footprint {
  readonly #descriptors: number;
  readonly #names: ReadonlyMap<string, string>;
  readonly #maps: readonly string[];
  readonly #threads: number;
  readonly #timers: number;

  private constructor() {
    this.#descriptors = descriptors();
    this.#names = descriptorNames();
    this.#maps = maps();
    this.#threads = threads();
    this.#timers = timers();
  }

  /** As it is when nothing changes any more. */
  static async take(): Promise<Footprint> {
    for (let before = new Footprint(), still = 0;;) {
      await sleep(20);
      const now = new Footprint();
      still = now.#difference() === undefined && before.#same(now) ? still + 1 : 0;
      if (still === 15) return now;
      before = now;
    }
  }

  #same(other: Footprint): boolean {
    return this.#descriptors === other.#descriptors && this.#maps.length === other.#maps.length &&
      this.#threads === other.#threads && this.#timers === other.#timers;
  }

  /** Waits until it is again as it was. */
  async restored(): Promise<void> {
    for (let deadline = 0, tries = 0;; tries++) {
      // The quick counts first; what has changed is looked up only for the message.
      const difference = this.#difference();
      if (difference === undefined) return;
      if (deadline === 0) deadline = performance.now() + patience.milliseconds;
      if (performance.now() > deadline) assert.fail(`something was left: ${difference}`);
      if (tries < 20) await turn();
      else await sleep(1);
    }
  }

  #difference(): string | undefined {
    const open = descriptors();
    if (open !== this.#descriptors) {
      const now = descriptorNames();
      const of = (a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): string =>
        [...a].filter(([fd, name]) => b.get(fd) !== name).map((each) => each.join(" → ")).join(", ") ||
        "none";
      return `${open} descriptors, not ${this.#descriptors}: new ${of(now, this.#names)}; ` +
        `gone ${of(this.#names, now)}`;
    }
    const mapped = maps();
    if (mapped.length !== this.#maps.length) {
      const fresh = mapped.filter((line) => !this.#maps.includes(line));
      return `${mapped.length} mappings of files, not ${this.#maps.length}: new ${
        fresh.join("; ") || "none"
      }`;
    }
    // Runtimes start and end threads of a pool as they like; more of them, again and again, would be seen in the descriptors.
    const waiting = timers();
    if (waiting > this.#timers) return `${waiting} timers, not ${this.#timers}`;
    return undefined;
  }
}

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

function descriptorNames(): Map<string, string> {
  const found = new Map<string, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      found.set(fd, withKind(readlinkSync(`/proc/self/fd/${fd}`)));
    } catch {
      // The one that was open for looking.
    }
  }
  return found;
}

/** Says of a socket which table of the kernel has it. */
function withKind(name: string): string {
  const [, inode] = /^socket:\[(\d+)\]$/.exec(name) ?? [];
  if (inode === undefined) return name;
  for (const table of ["unix", "tcp", "tcp6", "udp", "udp6", "netlink"]) {
    const line = readFileSync(`/proc/self/net/${table}`, "utf8").split("\n").find((each) =>
      each.split(/\s+/).includes(inode)
    );
    if (line !== undefined) return `${name} (${table}: ${line.trim()})`;
  }
  return name;
}

function maps(): string[] {
  return readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) => SHARED.test(line));
}

function threads(): number {
  return readdirSync("/proc/self/task").length;
}

/** Timers that are set. */
function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
}

/** Memory of this process that is there, bytes, and the part of it that scripts use. */
export function memory(): { readonly resident: number; readonly heap: number } {
  const { rss, heapUsed } = process.memoryUsage();
  return { resident: rss, heap: heapUsed };
}
