import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { main } from "../../src/cli/mod.ts";
import { LIMIT } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";

// `vhost-user vsock`: what it says to a command line.

async function run(...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const [out, error]: string[][] = [[], []];
  const code = await main(["vsock", ...args], {
    out: (line) => void out.push(line),
    error: (line) => void error.push(line),
  });
  return { code, out: out.join("\n"), error: error.join("\n") };
}

test("vsock: a command line that cannot be understood", LIMIT, async (t) => {
  const folder = tempDir(t);
  const socket = `--socket-path=${join(folder, "s")}`;
  for (
    const [args, why] of [
      [[], /--guest-cid or --vm is needed/],
      [[socket], /--guest-cid or --vm is needed/],
      [["--guest-cid=3"], /give either --socket-path or --fd/],
      [[socket, "--guest-cid=2"], /--guest-cid must be a whole number from 3 to 4294967294, got '2'/],
      [[socket, "--guest-cid=x"], /--guest-cid must be a whole number/],
      [["--guest-cid=3", "--vm=guest-cid=3,socket=/tmp/s"], /--vm excludes/],
      [["--vm=guest-cid=3"], /--vm needs socket=/],
      [["--vm=socket=/tmp/s"], /--vm needs guest-cid=/],
      [["--vm=guest-cid=3,socket=/tmp/s,colour=red"], /got 'colour=red'/],
      [["--vm=guest-cid=3,guest-cid=4,socket=/tmp/s"], /each once; got 'guest-cid=4'/],
      [["--vm=guest-cid=3,socket=/tmp/s,"], /got ''/],
      [[socket, "--guest-cid=3", "--buffer-size=4095"], /--buffer-size must be a whole number from 4096/],
      [[socket, "--guest-cid=3", "--max-connections=0"], /--max-connections must be/],
      [[socket, "--guest-cid=3", "--uds-mode=8"], /--uds-mode must be octal/],
    ] as const
  ) {
    const { code, error } = await run(...args);
    assert.equal(code, 2, `${args}: ${error}`);
    assert.match(error, why);
    assert.match(error, /Try 'vhost-user vsock --help'/);
  }
});

test("vsock: what cannot be had leaves nothing behind", LIMIT, async (t) => {
  const folder = tempDir(t);
  const path = (name: string): string => join(folder, name);
  for (
    const [args, why] of [
      [
        [`--vm=guest-cid=3,socket=${path("a")},groups=g`, `--vm=guest-cid=3,socket=${path("b")},groups=g`],
        /CID 3/,
      ],
      [[`--socket-path=${path("a")}`, "--guest-cid=3", `--uds-path=/${"x".repeat(96)}`], /this has 108/],
      [[`--socket-path=${path("a")}`, "--guest-cid=3", "--uds-path=/nonexistent/u"], /ENOENT/],
      [[
        `--vm=guest-cid=3,socket=${path("a")},uds-path=${path("u")}`,
        "--vm=guest-cid=4,socket=/nonexistent/s",
      ], /ENOENT/],
    ] as const
  ) {
    const { code, error } = await run(...args);
    assert.equal(code, 1, `${args}: ${error}`);
    assert.match(error, why);
    for (const name of ["a", "b", "u", "u_seqpacket"]) assert.ok(!existsSync(path(name)), name);
  }
});

test("vsock: capabilities and help", LIMIT, async () => {
  assert.deepEqual(JSON.parse((await run("--print-capabilities")).out), { type: "vsock", features: [] });
  assert.match((await run("--help")).out, /CONNECT PORT/);
});
