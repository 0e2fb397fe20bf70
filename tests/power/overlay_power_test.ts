import assert from "node:assert/strict";
import { test } from "node:test";
import { BlkDevice, ChunkedStorage, OverlayChunks, SECTOR } from "../../src/devices/blk/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { History, WrongContentError } from "../crash/history.ts";
import { Load } from "../crash/load.ts";
import { MemoryChunks, upTo } from "../devices/memory_chunks.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { InProcess } from "../support/in_process.ts";
import { Random } from "../support/random.ts";
import { type Fate, PowerStorage } from "./power_storage.ts";

// A disk laid over another: what is left of it when its process is killed, or the power is cut.

const SECTORS = 512;
const SIZE = SECTORS * SECTOR;
const CHUNK = 8192;
const BLOCK = 4096;
const LIMIT = { timeout: 60_000 };
const FATES: readonly Fate[] = ["dropped", "kept", "some", "torn"];
const identity = "a base of zeros";

/** What an overlay holds, read as its documentation says, with no help of the toolkit. */
function contents(upper: Uint8Array, base: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(base);
  const text = new TextDecoder().decode(upper.subarray(0, 100));
  assert.ok(text.startsWith(`vhost-user overlay 1\n${SIZE} ${CHUNK}\n${identity}\n\0`), text);
  for (let index = 0; index < SIZE / CHUNK; index++) {
    if ((upper[BLOCK + (index >> 3)] & 1 << index % 8) === 0) continue;
    const at = 2 * BLOCK + index * CHUNK;
    bytes.set(upper.subarray(at, at + CHUNK), index * CHUNK);
  }
  return bytes;
}

interface Overlay {
  readonly upper: PowerStorage;
  readonly disk: BlkDriver;
  readonly history: History;
  readonly random: Random;
}

async function overlay(t: Scope, lies: boolean, copyOnRead: boolean): Promise<Overlay> {
  const random = new Random(11);
  const base = new MemoryChunks(new Uint8Array(SIZE), CHUNK, { delay: upTo(random, 1) });
  const upper = new PowerStorage(new Uint8Array(OverlayChunks.sizeFor(base)), {
    lies,
    delay: upTo(random, 2),
  });
  const chunks = await OverlayChunks.open(base, upper, { identity, copyOnRead });
  // A power cut before it was made is another matter.
  upper.replace(upper.contents);
  const storage = new ChunkedStorage(chunks, { cacheSize: 8 * CHUNK, readAhead: 1 });
  const served = await InProcess.serve(t, new BlkDevice({ storage }));
  const disk = await BlkDriver.connect(served.socket, { depth: 16 });
  onEnd(t, () => disk.close());
  return { upper, disk, history: new History(SECTORS, true), random };
}

async function cutPower(t: Scope, lies: boolean, copyOnRead: boolean): Promise<void> {
  const { upper, disk, history, random } = await overlay(t, lies, copyOnRead);
  const base = new Uint8Array(SIZE);
  const load = new Load(disk, history, random);
  for (let cut = 0; cut < 60; cut++) {
    await load.more(random.int(1, 10));
    for (const fate of FATES) {
      history.check(contents(upper.after(upper.events.length, fate, random), base), "durable");
    }
  }
  await load.end();
  await disk.flush();
  history.check(contents(upper.after(upper.events.length, "dropped", random), base));
}

for (const copyOnRead of [false, true]) {
  const how = copyOnRead ? ", with copies of what was read" : "";
  test(`an overlay when the power is cut${how}`, LIMIT, (t) => cutPower(t, false, copyOnRead));
}

test("an overlay in a storage that lies about flushing is found out", LIMIT, async (t) => {
  await assert.rejects(cutPower(t, true, false), WrongContentError);
});

for (const copyOnRead of [false, true]) {
  test(
    `an overlay has every write that was done when its process is killed: ${copyOnRead}`,
    LIMIT,
    async (t) => {
      const { upper, disk, history, random } = await overlay(t, false, copyOnRead);
      // A write that is done is durable here: what was given to the file is in the file.
      const load = new Load(disk, history, random, { writeThrough: true });
      for (let kill = 0; kill < 60; kill++) {
        await load.more(random.int(1, 10));
        history.check(contents(upper.contents, new Uint8Array(SIZE)), "durable");
      }
      await load.end();
    },
  );
}
