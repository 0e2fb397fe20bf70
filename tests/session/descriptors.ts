import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { after, before } from "node:test";
import { eventfd } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { runtime } from "../support/runtime.ts";
import { pollOnce, type Ring } from "./rings.ts";
import { aWhile, eventually, type Scene } from "./scene.ts";

// The reactor's thread comes and goes with the sessions, and with it some descriptors, a little later. So it stays, and is up
// before anything is counted.
const stay = eventfd();
before(async () => {
  Reactor.shared().watch(stay, () => {});
  await Reactor.shared().prepare();
});
after(() => {
  Reactor.shared().unwatch(stay);
  close(stay);
});

/** What this process has open, by descriptor. */
function open(): Map<string, string> {
  const found = new Map<string, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      found.set(fd, readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The one that was open for looking.
    }
  }
  return found;
}

/** Memory files that are mapped, and how often. */
function mapped(): string[] {
  return readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) => line.includes("/memfd:"));
}

/**
 * Takes note of what is open and mapped; the function that is returned expects that soon just as much is open again, and
 * as many memory files are mapped, or `more` than before.
 */
export function noteDescriptors(): (more?: number) => Promise<void> {
  const before = open();
  const mappedBefore = mapped().length;
  return async (more = 0) => {
    const maps = mappedBefore + more;
    try {
      await eventually("nothing was leaked", () => open().size === before.size && mapped().length === maps);
    } catch {
      const after = open();
      const missing = (a: Map<string, string>, b: Map<string, string>): string =>
        [...a].filter(([fd, target]) => b.get(fd) !== target).map((each) => each.join(" → ")).join(", ");
      assert.fail(
        `descriptors: new ${missing(after, before)}; gone ${missing(before, after)}; ` +
          `mappings: ${mapped().length}, expected ${maps}`,
      );
    }
  };
}

/**
 * Polls a ring until the worker thread that does so, if it is one, has slept: from then on it keeps what it needs for that,
 * and its descriptors can be counted.
 */
export async function letSleep({ server }: Scene, ring: Ring): Promise<void> {
  const workers = server.metrics.threads.filter(({ thread }) => thread !== "main");
  const pipes = (): number => [...open().values()].filter((target) => target.startsWith("pipe:")).length;
  const before = pipes();
  do await pollOnce(ring); while (
    workers.length > 0 && workers.every(({ counters }) => counters.sleeps === 0)
  );
  // The last that a thread of Deno's opens, which is started for it.
  if (workers.length > 0 && runtime === "deno") {
    await eventually("the thread that sleeps is up", () => pipes() > before);
    // It opens several.
    await aWhile();
  }
}

/** An event, open until the test is over. */
export function anEvent(scope: Scope): number {
  const fd = eventfd();
  onEnd(scope, () => close(fd));
  return fd;
}

/** A pipe of which one end has gone: what is left of it, for reading or for writing. */
export function brokenPipe(scope: Scope, which: "read" | "write"): number {
  const fifo = join(tempDir(scope), "fifo");
  execFileSync("mkfifo", [fifo]);
  const both = openFile(fifo, OpenFlag.READ_WRITE);
  const end = openFile(fifo, which === "read" ? OpenFlag.READ_ONLY : 1);
  close(both);
  onEnd(scope, () => close(end));
  return end;
}
