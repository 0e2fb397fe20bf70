import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { Child } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";
import { verify } from "../session/scene.ts";

// The handler of SIGBUS is installed, and is machine code, after the sandbox was entered: memory comes with the first session.

const script = fileURLToPath(new URL("../session/shrinking_front_end.ts", import.meta.url));

for (const workers of [undefined, 2]) {
  test(
    `in the sandbox, too, memory that is made shorter ends one session only${
      workers ? ", with workers" : ""
    }`,
    { timeout: 60_000 },
    async (t) => {
      const socket = join(tempDir(t), "blk.sock");
      const backend = startDeno(t, [
        ...workers === undefined ? [] : [`--allow-read=${root}src,${root}ffi`],
        join(root, "src/cli/mod.ts"),
        ...["blk", `--socket-path=${socket}`, "--storage=mem:1M", "--shared", "--verbose"],
        ...workers === undefined ? [] : [`--workers=${workers}`],
      ]);
      await backend.waitLine(/sandbox: system calls filtered/);
      await backend.waitLine(/^vhost-user blk/);
      const driver = await BlkDriver.connect(socket);
      onEnd(t, () => driver.frontEnd.close());
      await verify(driver, 1);
      const child = Child.start(
        t,
        process.execPath,
        startWords(["--allow-all", "--no-check"], [script, socket, "all", "split"]),
      );
      const lost = backend.waitLine(/^error: blk: the session is over: .*was lost \(SIGBUS\)/);
      let over = false;
      void lost.finally(() => over = true);
      for (let seed = 2; !over; seed++) await verify(driver, seed);
      await lost;
      await verify(driver, 0);
      await child.stop();
      assert.equal(backend.code, undefined);
    },
  );
}
