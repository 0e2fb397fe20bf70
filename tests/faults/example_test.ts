import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { startExample } from "../support/our_backend.ts";

const MIB = 2 ** 20;

test("the example's disk is as bad as it says", { timeout: 60_000 }, async (t) => {
  const socket = join(tempDir(t), "socket");
  const child = startExample(t, "bad_disk", socket);
  await child.waitSocket(socket);
  const driver = await BlkDriver.connect(socket);
  onEnd(t, () => driver.close().catch(() => {}));
  const failed: number[] = [];
  const data = new Uint8Array(512).fill(1);
  for (let n = 1; n <= 200; n++) await driver.write(n * 512, data).catch(() => failed.push(n));
  assert.deepEqual(failed, [100, 200]);
  await driver.write(2 * MIB, data);
  assert.ok((await driver.read(2 * MIB, 512)).every((byte) => byte === 0), "it has forgotten");
  const start = performance.now();
  await driver.read(MIB, 512);
  assert.ok(performance.now() - start >= 49);
});
