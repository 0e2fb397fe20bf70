import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { startWords } from "../support/runtime.ts";

// examples/systemd: systemd understands the units, and the command understands its options.

const LIMIT = { timeout: 60_000 };
const folder = join(root, "examples/systemd");
const PROGRAM = "/usr/local/bin/vhost-user";

/** The command lines of a unit, continued lines joined. */
function commandsOf(text: string): string[][] {
  return [...text.replaceAll(/\\\n\s*/g, "").matchAll(/^ExecStart=(.*)$/gm)].map(([, line]) =>
    line.split(" ")
  );
}

realTest("systemd finds nothing wrong with the units", ["systemd-analyze"], LIMIT, async (t) => {
  const names = readdirSync(folder);
  assert.deepEqual(names.sort(), [
    "vhost-user-blk@.service",
    "vhost-user-blk@.socket",
    "vhost-user-handover@.service",
  ]);
  const copies = tempDir(t);
  for (const name of names) {
    // The program is not installed here, and another one that is will do.
    const text = readFileSync(join(folder, name), "utf8").replaceAll(PROGRAM, process.execPath);
    writeFileSync(join(copies, name), text);
  }
  const verify = (...units: string[]) =>
    run(peerPath("systemd-analyze"), ["verify", "--man=no", "--recursive-errors=no", ...units], {
      cwd: copies,
      check: false,
    });
  const { code, stdout, stderr } = await verify(...names.map((name) => `./${name}`));
  assert.deepEqual({ code, said: stdout + stderr }, { code: 0, said: "" });

  writeFileSync(join(copies, "wrong.service"), "[Service]\nExecStart=/bin/true\nPrivateNetwrk=yes\n");
  const wrong = await verify("./wrong.service");
  assert.match(wrong.stdout + wrong.stderr, /PrivateNetwrk/);
});

realTest("the command takes the options that the units give it", ["systemd-analyze"], LIMIT, async (t) => {
  const image = join(tempDir(t), "disk.img");
  writeFileSync(image, new Uint8Array(1 << 20));
  for (const name of readdirSync(folder).filter((name) => name.endsWith(".service"))) {
    const commands = commandsOf(readFileSync(join(folder, name), "utf8"));
    assert.equal(commands.length, 1, name);
    const [[program, ...words]] = commands;
    assert.equal(program, PROGRAM);
    const args = words
      .map((word) => word.replace(/^--blk-file=.*/, `--blk-file=${image}`))
      .map((word) => word.replace(/^--allow-uid=.*/, "--allow-uid=root"))
      // A descriptor that is none ends it after all options were understood.
      .filter((word) => !/^--(socket-path|takeover)\b/.test(word));
    const { code, stdout, stderr } = await run(
      process.execPath,
      startWords(["--allow-ffi"], [join(root, "src/cli/mod.ts"), ...args, "--fd=1000000"]),
      { check: false, env: { NO_COLOR: "1", RUST_BACKTRACE: "0", DENO_NO_UPDATE_CHECK: "1" } },
    );
    assert.equal(code, 1, `${name}: ${stdout}${stderr}`);
    assert.match(stderr, /1000000/, name);
  }
});
