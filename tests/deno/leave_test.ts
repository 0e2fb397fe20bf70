import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Writers } from "../frontend/writers.ts";
import { Modules } from "../run/modules.ts";
import { tempDir } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { startCommand } from "../support/our_backend.ts";

// What commands say that Deno gives no leave to do what they should.

const LIMIT = { timeout: 60_000 };

test("without leave to read the module the flag is named", LIMIT, async (t) => {
  const modules = new Modules(t);
  const child = startCommand(t, [
    ...[
      "run",
      modules.write("device.ts", "export default {};"),
      `--socket-path=${join(tempDir(t), "socket")}`,
    ],
  ]);
  assert.equal(await child.waitEnd(), 1);
  assert.match(
    child.output,
    /^vhost-user run: cannot load \S+device\.ts: .*Requires read access to .*--allow-read/,
  );
});

test("SIGUSR2 without leave to start programs says what is missing, and harms nobody", LIMIT, async (t) => {
  const socket = join(tempDir(t), "blk.sock");
  const child = startCommand(t, ["blk", `--socket-path=${socket}`, `--blk-file=${newImage(t, MIB)}`]);
  await child.waitLine(/^vhost-user blk/);
  const disk = await BlkDriver.connect(socket);
  const writers = new Writers(disk, 4);
  child.kill("SIGUSR2");
  await child.waitLine(
    /^error: SIGUSR2: cannot start the next version: .*; this one serves on\. Give deno --allow-run and --allow-env/,
  );
  await writers.more(20);
  await writers.verify();
  await disk.close();
  assert.equal(child.code, undefined);
});
