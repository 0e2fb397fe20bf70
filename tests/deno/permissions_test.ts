import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { loadAll } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { verify } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import type { Child } from "../support/process.ts";
import { startExactly } from "../sandbox/start.ts";

// What of Deno's permissions each command needs: docs/security.md says it, and so does --help.

const LIMIT = { timeout: 60_000 };
const cli = join(root, "src/cli/mod.ts");

/** To a Deno that is given no permission at all, `node:child_process` of Deno adds `-A`. */
const OTHER = ["--allow-sys=hostname"];

/** Each list without one of its flags. */
function withoutOne(flags: readonly string[]): (readonly string[])[] {
  return flags.map((flag) => flags.filter((each) => each !== flag));
}

/** It ends by itself, and says which flag it lacks. */
async function lacks(child: Child, pattern: RegExp): Promise<void> {
  assert.notEqual(await child.waitEnd(30_000), 0, child.output);
  assert.match(child.output, pattern);
}

test("the page about security has the table of the commands", LIMIT, async () => {
  const page = readFileSync(join(root, "docs/security.md"), "utf8");
  const rows = page.split("\n").filter((line) => /^\| `\w+` /.test(line)).map((line) =>
    line.split("|").slice(1, -1).map((cell) => cell.trim())
  ).filter(({ length }) => length === 3);
  const expected = (await loadAll(commands)).flatMap(([name, { permissions = [] }]) =>
    permissions.map(({ flags, when }) => [
      `\`${name}\``,
      when.replace(/--[\w-]+(=[\w:[\]]+)?/g, "`$&`"),
      flags.map((flag) => `\`${flag}\``).join(" "),
    ])
  );
  assert.deepEqual(rows, expected);
});

test(
  "every device is served with --allow-ffi alone, in its sandbox, and to a front-end",
  LIMIT,
  async (t) => {
    const more: Readonly<Record<string, readonly string[]>> = {
      blk: ["--storage=mem:1M"],
      console: ["--consoles=pty"],
      scsi: ["--lun=mem:1M"],
      sound: ["--output=wav:sound.wav"],
      vsock: ["--guest-cid=3"],
    };
    // What a driver must accept: I2C's ZERO_LENGTH_REQUEST (virtio 1.4, 5.18.6.4).
    const features: Readonly<Record<string, bigint>> = { i2c: 1n };
    for (const [name, { options }] of await loadAll(commands)) {
      // A device of this machine is needed for `input`, and a module for `run`: their own tests have one.
      if (options["socket-path"] === undefined || name === "input" || name === "run") continue;
      const directory = tempDir(t);
      const socket = join(directory, "socket");
      const args = [cli, name, `--socket-path=${socket}`, "--sandbox=auto", "--verbose"];
      const given = (more[name] ?? []).map((each) => each.replace("wav:", `wav:${directory}/`));
      const child = startExactly(t, ["--allow-ffi"], [...args, ...given]);
      await child.waitLine(/ on .*\/socket$/, 30_000);
      assert.match(child.output, /^info: sandbox: /m, name);
      const frontEnd = await FrontEnd.connect(socket, { deviceFeatures: features[name] });
      assert.notEqual(frontEnd.features, 0n, name);
      frontEnd.close();
      await child.stop();
      await lacks(startExactly(t, OTHER, [...args, ...given]), /run with --allow-ffi/);
    }
  },
);

test("worker threads in a checkout read src and ffi", LIMIT, async (t) => {
  const args = (socket: string) => [cli, "blk", `--socket-path=${socket}`, "--storage=mem:1M", "--workers=2"];
  const folders = ["src", "ffi"].map((folder) => join(root, folder));
  const socket = join(tempDir(t), "socket");
  const child = startExactly(t, ["--allow-ffi", `--allow-read=${folders}`], args(socket));
  await child.waitLine(/ on .*\/socket$/, 30_000);
  const driver = await BlkDriver.connect(socket, { numQueues: 2 });
  await verify(driver, 1);
  await driver.close();
  await child.stop();
  for (const fewer of [[], ["src"], ["ffi"]].map((some) => some.map((folder) => join(root, folder)))) {
    const read = fewer.length === 0 ? [] : [`--allow-read=${fewer}`];
    await lacks(
      startExactly(t, ["--allow-ffi", ...read], args(socket)),
      /need --allow-read|Requires read access/,
    );
  }
});

test("a terminal in the browser needs its port, and a variable", LIMIT, async (t) => {
  const args = [cli, "console", "--consoles=web:127.0.0.1:0"];
  const flags = ["--allow-ffi", "--allow-net=127.0.0.1:0", "--allow-env=WS_NO_BUFFER_UTIL"];
  const place = () => `--socket-path=${join(tempDir(t), "socket")}`;
  const child = startExactly(t, flags, [...args, place()]);
  const [url] = /http:\S+/.exec(await child.waitLine(/ is http/, 30_000)) ?? [];
  await child.waitLine(/ on .*\/socket$/);
  const page = await fetch(new URL(String(url)));
  assert.equal(page.status, 200);
  assert.match(await page.text(), /xterm/);
  await child.stop();
  for (const some of withoutOne(flags).slice(1)) {
    await lacks(startExactly(t, some, [...args, place()]), /Requires (net|env) access/);
  }
});

test("a program that plays needs the shell and the environment", LIMIT, async (t) => {
  const script = join(tempDir(t), "play.ts");
  writeFileSync(
    script,
    `import { ProgramOutput } from ${JSON.stringify(join(root, "src/cli/sound_program.ts"))};
     const output = new ProgramOutput("cat >/dev/null", (problem) => { throw new Error(problem); });
     const stream = output.open({ format: "S16", channels: 1, rate: 8000 });
     await stream.write(new Uint8Array(16));
     stream.close();`,
  );
  const rest = ["--no-lock", `--config=${join(root, "deno.json")}`, script];
  const flags = ["--allow-ffi", "--allow-run=/bin/sh", "--allow-env"];
  const child = startExactly(t, flags, rest);
  assert.equal(await child.waitEnd(30_000), 0, child.output);
  for (const some of withoutOne(flags)) {
    await lacks(startExactly(t, some, rest), /--allow-(ffi|run|env)|(env|run) access/);
  }
});

test(
  "checking a back-end that is started needs the shell and the environment, and a report its file",
  LIMIT,
  async (t) => {
    const directory = tempDir(t);
    const report = join(directory, "report.xml");
    const command = `${process.execPath} run --allow-ffi ${cli} blk --storage=mem:1M --socket-path={socket}`;
    const args = [
      cli,
      "check",
      `--spawn=${command}`,
      "--device=blk",
      "--filter=blk.read",
      `--junit=${report}`,
    ];
    const flags = ["--allow-ffi", "--allow-run=/bin/sh", "--allow-env", `--allow-write=${report}`];
    const child = startExactly(t, flags, args);
    assert.equal(await child.waitEnd(40_000), 0, child.output);
    assert.match(child.output, /1 pass/);
    // It ends what it has started.
    const mark = `--socket-path=/tmp/vhost-user-check-${child.pid}.sock`;
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      let line = "";
      try {
        line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      } catch {
        continue; // It has ended meanwhile.
      }
      assert.ok(!line.includes(mark), `process ${pid} is left: ${line.replaceAll("\0", " ")}`);
    }
    for (const some of withoutOne(flags)) {
      await lacks(startExactly(t, some, args), /--allow-(ffi|run|env|write)|(env|run|write) access/);
    }
  },
);

test("what is written is written with leave alone", LIMIT, async (t) => {
  for (const command of ["man", "capabilities"]) {
    const directory = tempDir(t);
    const args = [
      cli,
      command,
      `--dir=${directory}/a`,
      ...command === "man" ? [] : [`--programs=${directory}/b`],
    ];
    const child = startExactly(t, ["--allow-ffi", `--allow-write=${directory}`], args);
    assert.equal(await child.waitEnd(30_000), 0, child.output);
    assert.ok(readdirSync(join(directory, "a")).length > 5);
    await lacks(startExactly(t, ["--allow-ffi"], args), /Requires write access/);
  }
});
