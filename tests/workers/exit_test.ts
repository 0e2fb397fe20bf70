import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";

const child = fileURLToPath(new URL("./exit_child.ts", import.meta.url));

for (const module of ["counter", "pair"]) {
  for (const [how, status] of [["exit", 7], ["throw", 1]] as const) {
    test(
      `threads that wait do not keep a process that ends (${module}, ${how})`,
      { timeout: 30_000 },
      async (t) => {
        const socket = join(tempDir(t), "socket");
        const args = [`--allow-read=${root}`, child, module, how, socket];
        const process = startDeno(t, args);
        assert.equal(await process.waitEnd(25_000), status, process.output);
      },
    );
  }
}
