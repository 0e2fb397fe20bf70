import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { bytesOf, sameBytes } from "../session/scene.ts";
import { imageOf, MIB, newImage } from "../support/image.ts";
import { root, startDeno, startDisk } from "../support/our_backend.ts";
import { join } from "node:path";

test("the example of a front-end reads a sector of a disk", { timeout: 30_000 }, async (t) => {
  const contents = bytesOf(3, MIB);
  const disk = await startDisk(t, { file: imageOf(t, contents) });
  const example = startDeno(t, [join(root, "examples/frontend_disk.ts"), disk.socket, "77"], { pipe: true });
  const said: Buffer[] = [];
  example.stdout.on("data", (bytes: Buffer) => said.push(bytes));
  assert.equal(await example.waitEnd(20_000), 0, example.output);
  sameBytes(Buffer.concat(said), contents.subarray(77 * 512, 78 * 512));
  assert.match(example.output, /2048 sectors/);
  await disk.checkUnharmed();
});

test("the example says why it fails", { timeout: 30_000 }, async (t) => {
  const disk = await startDisk(t, { file: newImage(t, MIB) });
  const example = startDeno(t, [join(root, "examples/frontend_disk.ts"), disk.socket, "2048"]);
  assert.equal(await example.waitEnd(20_000), 1);
  assert.match(example.output, /sector 2048: the disk answers status 1/);
});
