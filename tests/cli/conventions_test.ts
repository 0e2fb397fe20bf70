import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { close } from "../../ffi/fd.ts";
import { listen, socketPair } from "../../ffi/socket.ts";
import { type Command, loadAll } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { runHere } from "./run.ts";

// "Backend program conventions" of the vhost-user specification, for every device.

const LIMIT = { timeout: 300_000 };

/** Commands that serve a device of a kind. */
async function devices(): Promise<(readonly [name: string, command: Command])[]> {
  return (await loadAll(commands)).filter(([, { capabilities }]) => capabilities !== undefined);
}

/** What a device cannot do without. */
const needed: Readonly<Record<string, readonly string[]>> = {
  blk: ["--storage=mem:1M"],
  console: ["--consoles=null"],
  scsi: ["--lun=mem:1M"],
  vsock: ["--guest-cid=3"],
};

/** What a driver must accept: I2C's ZERO_LENGTH_REQUEST (virtio 1.4, 5.18.6.4). */
const accepted: Readonly<Record<string, bigint>> = { i2c: 1n };

test(
  "every device says what it is, whatever else is on the command line, and does nothing else",
  LIMIT,
  async () => {
    const types = new Set<string>();
    for (const [name, { capabilities }] of await devices()) {
      for (
        const args of [
          ["--print-capabilities"],
          ["--print-capabilities", "--no-such-option", "--fd=x", "rest"],
          ["--socket-path=/no/such/place", "--print-capabilities", "--help"],
        ]
      ) {
        const { code, out, error } = await runHere(name, ...args);
        assert.deepEqual([code, error], [0, ""], name);
        assert.equal(out.split("\n").length, 1);
        assert.deepEqual(JSON.parse(out), capabilities);
      }
      const { type, features } = JSON.parse((await runHere(name, "--print-capabilities")).out);
      assert.match(type, /^[a-z0-9]+$/);
      assert.ok(Array.isArray(features));
      types.add(type);
    }
    assert.equal(types.size, (await devices()).length);
    assert.ok(types.size >= 13);
  },
);

test("what a device says that it can do are options that it has", LIMIT, async () => {
  for (const [name, { capabilities, options }] of await devices()) {
    for (const feature of capabilities?.features ?? []) {
      assert.ok(Object.hasOwn(options, feature), `${name} has no --${feature}`);
    }
  }
});

test("every device takes --socket-path or --fd, not both and not neither", LIMIT, async () => {
  for (const [name] of await devices()) {
    const more = name === "input" ? ["--evdev-path=/dev/null"] : needed[name] ?? [];
    for (const args of [[], ["--socket-path=/tmp/x", "--fd=3"]]) {
      const { code, out, error } = await runHere(name, ...more, ...args);
      assert.equal(code, 2, name);
      assert.equal(out, "");
      assert.match(error, /^vhost-user \w+: give either --socket-path or --fd\b/m);
    }
  }
});

test(
  "every device serves an inherited socket that is connected, until its front-end leaves",
  LIMIT,
  async (t) => {
    for (const [name] of await devices()) {
      // Its device is one of this machine's: its own tests have one.
      if (name === "input") continue;
      const [ours, theirs] = socketPair();
      const child = startCommand(t, [name, "--fd=3", ...needed[name] ?? []], { fds: [theirs] });
      await child.waitLine(/ on descriptor 3$/, 60_000);
      const frontEnd = await FrontEnd.dial(() => ours, { deviceFeatures: accepted[name] });
      frontEnd.close();
      assert.equal(await child.waitEnd(60_000), 0, child.output);
    }
  },
);

// That one listens is the same for all devices but vsock, which may have several; libblkio's tests have a disk.
test("an inherited socket that listens is served, until SIGTERM, and left", LIMIT, async (t) => {
  for (const name of ["rng", "vsock"]) {
    const socket = join(tempDir(t), "socket");
    const child = startCommand(t, [name, "--fd=3", ...needed[name] ?? []], { fds: [listen(socket)] });
    await child.waitLine(/ on descriptor 3$/, 60_000);
    for (let each = 0; each < 2; each++) (await FrontEnd.connect(socket)).close();
    child.kill("SIGTERM");
    assert.equal(await child.waitEnd(60_000), 0, child.output);
    // Whoever has made the socket file removes it.
    assert.ok(existsSync(socket), name);
  }
});

test("a device that cannot be is no device: a message on the standard error, and not 0", LIMIT, async (t) => {
  const [ours, theirs] = socketPair();
  const child = startCommand(t, ["blk", "--fd=3", "--blk-file=/no/such/disk"], { fds: [theirs], pipe: true });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => out += text);
  assert.equal(await child.waitEnd(30_000), 1);
  assert.equal(out, "");
  assert.match(child.output, /^vhost-user blk: .*ENOENT.*\/no\/such\/disk/);
  close(ours);
});
