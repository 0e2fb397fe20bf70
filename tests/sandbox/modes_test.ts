import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { arch, libc } from "../../ffi/deno.ts";
import { Confinement } from "../../ffi/confinement.ts";
import { landlockVersion } from "../../ffi/landlock.ts";
import { seccompAvailable } from "../../ffi/seccomp.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { verify } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import type { Child } from "../support/process.ts";
import { startExactly } from "./start.ts";

const LIMIT = { timeout: 60_000 };

/** Starts a disk, perhaps on a kernel that lacks system calls. */
function disk(t: TestContext, args: readonly string[], lacking = ""): { child: Child; socket: string } {
  const socket = join(tempDir(t), "socket");
  const rest = ["blk", `--socket-path=${socket}`, "--storage=mem:1M", ...args];
  const program = lacking === ""
    ? [join(root, "src/cli/mod.ts")]
    : [join(root, "tests/sandbox/old_kernel.ts"), lacking];
  return { child: startExactly(t, ["--allow-ffi"], [...program, ...rest]), socket };
}

async function serves({ child, socket }: { child: Child; socket: string }): Promise<string> {
  await child.waitLine(/^vhost-user blk: .* on /, 30_000);
  const driver = await BlkDriver.connect(socket);
  await verify(driver, 1);
  await driver.close();
  await child.stop();
  return child.output;
}

test("what the kernel has is found out", () => {
  // landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION).
  const version = libc.syscall(444n, 0n, 0n, 1n, 0n, 0n, 0n);
  assert.equal(landlockVersion(), version < 0 ? 0 : version);
  // prctl(PR_GET_SECCOMP): fails where there are no filters.
  const seccomp = libc.syscall(arch === "x86_64" ? 157n : 167n, 21n, 0n, 0n, 0n, 0n, 0n);
  assert.equal(seccompAvailable(), seccomp >= 0);
  const parts = [...seccomp >= 0 ? [] : ["seccomp filters"], ...version > 0 ? [] : ["Landlock"]];
  assert.equal(Confinement.missing(), parts.length === 0 ? undefined : parts.join(" and "));
});

test("--sandbox=off is none, by default there is one, and --verbose tells of it", LIMIT, async (t) => {
  assert.doesNotMatch(await serves(disk(t, ["--sandbox=off", "--verbose"])), /sandbox/);
  assert.match(await serves(disk(t, ["--verbose"])), /^info: sandbox: /m);
  assert.match(
    await serves(disk(t, ["--sandbox=programs", "--verbose"])),
    /^info: sandbox: system calls filtered$/m,
  );
  const { child } = disk(t, ["--sandbox=on"]);
  assert.equal(await child.waitEnd(30_000), 2);
  assert.match(child.output, /--sandbox must be auto, required, programs or off, got 'on'/);
});

for (
  const [lacking, missing] of [
    ["landlock_create_ruleset", "Landlock"],
    ["seccomp", "seccomp filters"],
    ["landlock_create_ruleset,seccomp", "seccomp filters and Landlock"],
  ] as const
) {
  test(`a kernel without ${missing}: less of a sandbox with a word, or no start`, LIMIT, async (t) => {
    const here = Confinement.missing();
    if (here?.includes("seccomp") === true) {
      return assert.ok(here, "an old kernel cannot be played on an old one");
    }
    const text = `the kernel has no ${missing}`;
    const output = await serves(disk(t, ["--verbose"], lacking));
    const level = lacking.includes("seccomp") ? "warning" : "info";
    assert.ok(output.includes(`${level}: sandbox: ${text}; there is that much less of it`), output);
    if (missing.includes(" and ")) assert.match(output, /^info: sandbox: none$/m);
    const { child } = disk(t, ["--sandbox=required"], lacking);
    assert.equal(await child.waitEnd(30_000), 1);
    assert.ok(child.output.includes(`vhost-user blk: --sandbox=required: ${text}\n`), child.output);
  });
}

test("--sandbox=required starts where the kernel has it all", LIMIT, async (t) => {
  const { child, socket } = disk(t, ["--sandbox=required", "--verbose"]);
  if (Confinement.missing() !== undefined) return assert.equal(await child.waitEnd(30_000), 1);
  assert.match(
    await serves({ child, socket }),
    /^info: sandbox: system calls filtered.*; Landlock \d+ for (all threads|the main thread)$/m,
  );
});
