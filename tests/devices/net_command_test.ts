import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { main } from "../../src/cli/mod.ts";
import { LIMIT } from "../session/scene.ts";
import { tempDir } from "../support/cleanup.ts";

// `vhost-user net`: what it says to a command line.

interface Said {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

async function run(...args: string[]): Promise<Said> {
  const [out, error]: string[][] = [[], []];
  const code = await main(["net", ...args], {
    out: (line) => void out.push(line),
    error: (line) => void error.push(line),
  });
  return { code, out: out.join("\n"), error: error.join("\n") };
}

test("net: a command line that cannot be understood", LIMIT, async (t) => {
  const socket = `--socket-path=${join(tempDir(t), "s")}`;
  for (
    const [args, why] of [
      [[], /give either --socket-path or --fd/],
      [[socket, "--allow=a.test"], /--allow needs --network=user/],
      [[socket, "--mtu=1400"], /--mtu needs --mac/],
      [[socket, "--queue-pairs=0"], /--queue-pairs must be a whole number from 1 to 128, got '0'/],
      [[socket, "--mac=02:00:00:00:00:01", "--mtu=67"], /--mtu must be a whole number from 68 to 65535/],
      [[socket, "--nonsense"], /nonsense/],
    ] as const
  ) {
    const { code, error } = await run(...args);
    assert.equal(code, 2, `${args}: ${error}`);
    assert.match(error, why);
    assert.match(error, /Try 'vhost-user net --help'/);
  }
});

test("net: what cannot be had", LIMIT, async (t) => {
  const socket = `--socket-path=${join(tempDir(t), "s")}`;
  for (
    const [args, why] of [
      [["--network=wifi"], /network must be switch, user, tap:NAME, .*; got "wifi"/],
      [["--network=user", "--allow=a..b"], /a rule must be NAME/],
      [["--mac=01:00:00:00:00:00"], /even first byte/],
      [["--pcap=/nonexistent/file"], /ENOENT.*opening \/nonexistent\/file/],
      [["--network=listen:/nonexistent/socket"], /ENOENT/],
    ] as const
  ) {
    const { code, error } = await run(socket, ...args);
    assert.equal(code, 1, `${args}: ${error}`);
    assert.match(error, why);
  }
});

test("net: help and capabilities", LIMIT, async () => {
  const { code, out } = await run("--help");
  assert.equal(code, 0);
  for (
    const word of ["--network=URI", "--allow=LIST", "--queue-pairs=N", "--pcap=FILE", "passt", "share=on"]
  ) {
    assert.ok(out.includes(word), word);
  }
  assert.deepEqual(JSON.parse((await run("--print-capabilities")).out), { type: "net", features: [] });
});
