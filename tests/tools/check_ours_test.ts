import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { BlkDevice, FileStorage, MemoryStorage, type Storage } from "../../src/devices/blk/mod.ts";
import { countVerdicts } from "../../src/tools/check/mod.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { startCommand, startExample } from "../support/our_backend.ts";
import { checkDevice, checkPath, failures, resultOf } from "./check_scene.ts";

// Our own back-end fails no case.

const MIB = 2 ** 20;
const LONG = { timeout: 300_000 };

/** Bytes of a disk, different from place to place. */
function contents(): Uint8Array {
  return Uint8Array.from({ length: 4 * MIB }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
}

/** Starts a disk of ours as a user does. Returns its socket. */
async function program(scope: Scope, options: readonly string[]): Promise<string> {
  const socket = join(tempDir(scope), "blk.sock");
  const child = startCommand(scope, ["blk", `--socket-path=${socket}`, ...options]);
  await child.waitLine(/ on /);
  return socket;
}

test("the entropy device of the examples fails no case", LONG, async (t) => {
  const socket = join(tempDir(t), "rng.sock");
  await startExample(t, "rng", socket).waitSocket(socket);
  const report = await checkPath(socket, { device: "rng", write: true });
  assert.deepEqual(failures(report), []);
  assert.ok(countVerdicts(report).pass > 200, `${countVerdicts(report).pass} cases pass`);
});

test("our disk, as a program, fails no case, whatever it offers", LONG, async (t) => {
  const image = join(tempDir(t), "disk.img");
  const bytes = contents();
  writeFileSync(image, bytes);
  const socket = await program(t, [`--blk-file=${image}`, "--iommu", "--inband-notifications"]);
  const report = await checkPath(socket, { device: "blk", write: true, writeAt: MIB });
  assert.deepEqual(failures(report), []);
  assert.ok(countVerdicts(report).pass > 300, `${countVerdicts(report).pass} cases pass`);
  for (
    const id of ["blk.write", "formats.packed", "formats.everything", "formats.in-band", "iommu.requests"]
  ) {
    assert.equal(resultOf(report, id).verdict, "pass", id);
  }
  assert.deepEqual(new Uint8Array(readFileSync(image)), bytes, "what was overwritten is put back");
});

test("our disk, read-only, as a program, fails no case", LONG, async (t) => {
  const image = join(tempDir(t), "disk.img");
  const bytes = contents();
  writeFileSync(image, bytes);
  const socket = await program(t, [`--blk-file=${image}`, "--read-only"]);
  const report = await checkPath(socket, { device: "blk", write: true });
  assert.deepEqual(failures(report), []);
  assert.equal(resultOf(report, "blk.read-only").verdict, "pass");
  assert.equal(resultOf(report, "blk.write").verdict, "not offered");
  assert.deepEqual(new Uint8Array(readFileSync(image)), bytes);
});

/** A disk that counts what would change it. */
class Watched implements Storage {
  readonly #storage = new MemoryStorage(4 * MIB);
  readonly readOnly = false;
  changes = 0;
  get size(): number {
    return this.#storage.size;
  }
  read: Storage["read"] = (data, position) => this.#storage.read(data, position);
  write = (): void => void this.changes++;
  discard = (): void => void this.changes++;
  writeZeroes = (): void => void this.changes++;
  flush(): void {}
  close(): void {
    this.#storage.close();
  }
}

test("without --write nothing is written, and no field is set", LONG, async (t) => {
  for (const device of ["blk", "any"] as const) {
    const storage = new Watched();
    onEnd(t, () => storage.close());
    let sets = 0;
    const report = await checkDevice(t, new BlkDevice({ storage }), {
      device,
      tap: (_, { name }) => void (sets += name === "SET_CONFIG" ? 1 : 0),
      filter: [
        "messages",
        "ack",
        "short",
        "long",
        "fds",
        "config",
        "bad",
        "broken",
        "blk",
        "formats",
        "state",
        "vq",
      ],
    });
    assert.deepEqual(failures(report), []);
    assert.equal(storage.changes, 0, "requests that write");
    assert.equal(sets, 0, "SET_CONFIG");
  }
});

test("with --write a disk in a file is as it was afterwards", LONG, async (t) => {
  const image = join(tempDir(t), "disk.img");
  const bytes = contents();
  writeFileSync(image, bytes);
  const storage = new FileStorage(image);
  onEnd(t, () => storage.close());
  const options = { device: "blk", write: true, filter: ["blk"] } as const;
  const report = await checkDevice(t, new BlkDevice({ storage }), options);
  assert.deepEqual(failures(report), []);
  assert.equal(resultOf(report, "blk.write").verdict, "pass");
  assert.deepEqual(new Uint8Array(readFileSync(image)), bytes);
});
