import assert from "node:assert/strict";
import process from "node:process";
import test from "node:test";
import { run } from "../support/process.ts";

/** Bytes of bytecode up to which V8 compiles a function into its callers (`--max-inlined-bytecode-size`). */
const INLINED = 460;

const trial = new URL("../../bench/ring_trial.ts", import.meta.url).href;

// Shorter, it would be compiled into its callers, and a ring's speed would hang on the order in which functions become hot.
for (const packed of [false, true]) {
  test(`#take of a ${packed ? "packed" : "split"} ring stays a function`, { timeout: 60_000 }, async () => {
    const shape = { packed, size: 16, descriptors: 3, indirect: false, inflight: false };
    const { stdout } = await run(process.execPath, [
      "eval",
      "--v8-flags=--print-bytecode,--print-bytecode-filter=#take",
      `import { Trial } from "${trial}"; new Trial(${JSON.stringify(shape)}).run(16, (work) => work());`,
    ]);
    const lengths = [...stdout.matchAll(/^Bytecode length: (\d+)$/gm)].map(([, length]) => Number(length));
    assert.equal(lengths.length, 1, stdout.slice(0, 2000));
    assert.ok(lengths[0] > INLINED, `${lengths[0]} bytes`);
  });
}
