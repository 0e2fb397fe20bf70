import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Writers } from "../frontend/writers.ts";
import { eventually } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { root, startDeno } from "../support/our_backend.ts";

const LIMIT = { timeout: 60_000 };

test("SIGUSR2 starts the same command line again, which takes over", LIMIT, async (t) => {
  const socket = join(tempDir(t), "blk.sock");
  const image = newImage(t, MIB);
  const child = startDeno(t, [
    "--allow-run",
    "--allow-env",
    join(root, "src/cli/mod.ts"),
    ...["blk", `--socket-path=${socket}`, `--blk-file=${image}`, "--sandbox=off"],
  ]);
  await child.waitLine(/^vhost-user blk/);
  const disk = await BlkDriver.connect(socket, { depth: 8 });
  onEnd(t, () => disk.frontEnd.close());
  const writers = new Writers(disk, 8);
  await writers.more(20);
  child.kill("SIGUSR2");
  assert.equal(await child.waitEnd(), 0, child.output);
  // The next process writes where this one has written.
  const taken = new RegExp(`1 front-end taken over from process ${child.pid}; `);
  await eventually("the next process tells", () => taken.test(child.output));
  const next = Number(/started process (\d+)/.exec(child.output)?.[1]);
  onEnd(t, () => {
    process.kill(next, "SIGTERM");
  });
  await writers.more(50);
  await writers.verify();
  await disk.close();
});
