import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FileStorage, MemoryStorage } from "../../src/devices/blk/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { Child } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { Scene, verify } from "./scene.ts";
import type { Part } from "./shrinking_front_end.ts";

// A front-end may make its memory files shorter whenever it likes. That ends its own session; before, it ended the process,
// and with that the sessions of everybody else.

const script = fileURLToPath(new URL("./shrinking_front_end.ts", import.meta.url));
const LOST: Readonly<Record<Part, RegExp>> = {
  "buffers": /^error: blk: the session is over: .*region 0x20000000\+0x100000 was lost \(SIGBUS\)/,
  "rings": /^error: blk: the session is over: .*region 0x10000000\+0x100000 was lost \(SIGBUS\)/,
  "all": /^error: blk: the session is over: .*region 0x[12]0000000\+0x100000 was lost \(SIGBUS\)/,
  "log": /^error: blk: the session is over: .*the dirty log: the file has become shorter/,
  "in-flight": /^error: blk: the session is over: .*the in-flight buffer: the file has become shorter/,
};

const WAYS = [["split", "memory"], ["packed", "memory"], ["split", "file"], ["packed", "file", 2]] as const;

for (const [ring, storage, workers] of WAYS) {
  for (const part of Object.keys(LOST) as Part[]) {
    test(
      `a front-end makes its memory shorter (${part}, ${ring} ring, disk in ${storage}` +
        `${workers === undefined ? "" : `, ${workers} workers`}): the others go on`,
      { timeout: 60_000 },
      async (t) => {
        const file = join(tempDir(t), "disk");
        writeFileSync(file, new Uint8Array(1 << 20));
        const scene = await Scene.disk(t, {
          storage: storage === "memory" ? new MemoryStorage(1 << 20) : new FileStorage(file),
        }, { workers });
        const driver = await scene.driver({ numQueues: 2 });
        await verify(driver, 1);
        const child = Child.start(
          t,
          process.execPath,
          startWords(["--allow-all", "--no-check"], [script, scene.path, part, ring]),
        );
        let seed = 2;
        // Its session may come and go between two looks at how many there are.
        const said = (): boolean => scene.log.problems.some((line) => LOST[part].test(line));
        while (!said() || scene.server.sessions > 1) await verify(driver, seed++);
        for (let i = 0; i < 20; i++) await verify(driver, seed++);
        await child.waitLine(/^shorter$/);
        await child.stop();
        // And who comes next is served.
        await verify(await scene.driver(), seed);
      },
    );
  }
}
