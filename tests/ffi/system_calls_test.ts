import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { arch } from "../../ffi/deno.ts";
import { type CallGroup, callGroups, callNumber, callsOf } from "../../ffi/system_calls.ts";
import { tempDir } from "../support/cleanup.ts";
import { realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";

const LIMIT = { timeout: 30_000 };

for (
  const [machine, header] of [
    ["x86_64", "asm/unistd_64.h"],
    // aarch64 has the generic numbers.
    ["aarch64", "asm-generic/unistd.h"],
  ] as const
) {
  realTest(
    `the numbers of system calls are those of the kernel's headers: ${machine}`,
    ["cc"],
    LIMIT,
    async (t) => {
      const source = join(tempDir(t), "numbers.c");
      writeFileSync(
        source,
        [
          "#define __ARCH_WANT_RENAMEAT 1",
          "#define __ARCH_WANT_SET_GET_RLIMIT 1",
          "#define __ARCH_WANT_NEW_STAT 1",
          "#define __ARCH_WANT_SYS_CLONE3 1",
          `#include <${header}>`,
        ].join("\n"),
      );
      const { stdout } = await run("cc", ["-E", "-dM", source]);
      const defined = new Map<string, string>();
      for (const [, name, value] of stdout.matchAll(/^#define __NR(?:3264)?_(\w+) (\w+)$/gm)) {
        if (!defined.has(name) || /^\d+$/.test(value)) defined.set(name, value);
      }
      const last = Math.max(...[...defined.values()].filter((value) => /^\d+$/.test(value)).map(Number));
      let compared = 0;
      for (const { name, number } of callGroups.flatMap((group) => callsOf(group, machine))) {
        // Some are defined as what they are called where there are two kinds, of 32 and 64 bits.
        const text = defined.get(name);
        const value = text?.startsWith("__NR3264_") ? defined.get(text.slice("__NR3264_".length)) : text;
        // The headers may be older than a call, which has the same number everywhere then.
        if (number !== undefined && number > last) continue;
        assert.equal(number === undefined ? undefined : String(number), value, name);
        compared++;
      }
      assert.ok(compared > 200, `${compared} compared`);
    },
  );
}

test("no system call is in two groups that decide differently", () => {
  const seen = new Map<string, CallGroup>();
  for (const group of callGroups) {
    for (const { name } of callsOf(group)) {
      assert.equal(seen.get(name), undefined, `${name} is in ${seen.get(name)} and in ${group}`);
      seen.set(name, group);
    }
  }
});

test("an unknown system call has no number", () => {
  assert.throws(() => callNumber("no_such_call"), /no system call no_such_call on/);
  assert.equal(callNumber("write"), arch === "x86_64" ? 1 : 64);
});
