import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { importsOf } from "../architecture.ts";
import { tempDir } from "../support/cleanup.ts";
import { root } from "../support/our_backend.ts";
import { which } from "../support/path.ts";
import { realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { qemuIo } from "../support/qemu_io.ts";

// `deno compile` puts the modules of a program behind a runtime, which it downloads; test machines may not be able to. Here
// the runtime is a program that does nothing, and what is behind it is taken out again and run by Deno: that all is there,
// threads included, and that nothing of the checkout is needed. What is not tried is the executable itself.

const LIMIT = { timeout: 240_000 };

/** An entry of the file system in an executable, as Deno 2.9 writes it. */
interface Entry {
  readonly Dir?: { readonly n: string; readonly e: readonly Entry[] };
  /** Name; offset and length of the contents. */
  readonly File?: { readonly n: string; readonly o: readonly [number, number] };
}

/** Takes the modules out of an executable: contents by path. */
function embedded(executable: Buffer): Map<string, Buffer> {
  const start = executable.indexOf('[{"Dir":{"n":');
  const length = Number(executable.readBigUInt64LE(start - 8));
  const entries: Entry[] = JSON.parse(executable.toString("utf8", start, start + length));
  const data = start + length + 8;
  const files = new Map<string, Buffer>();
  const walk = (inside: readonly Entry[], path: string): void => {
    for (const { Dir, File } of inside) {
      if (Dir !== undefined) walk(Dir.e, posix.join(path, Dir.n));
      else if (File !== undefined) {
        const [offset, size] = File.o;
        files.set(posix.join(path, File.n), executable.subarray(data + offset, data + offset + size));
      }
    }
  };
  walk(entries, "");
  return files;
}

/** What `deno task compile` puts into the executable. */
async function compiled(t: TestContext): Promise<Map<string, Buffer>> {
  const { tasks } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
  const [program, ...args] = tasks.compile.split(" ");
  assert.equal(program, "deno");
  const folder = tempDir(t);
  const runtime = join(folder, "runtime");
  writeFileSync(runtime, readFileSync(which("true") ?? assert.fail("no program true")));
  chmodSync(runtime, 0o755);
  const output = args.findIndex((arg: string) => arg === "--output=vhost-user");
  assert.ok(output > 0);
  args[output] = `--output=${join(folder, "vhost-user")}`;
  const env = { NO_COLOR: "1", RUST_BACKTRACE: "0", DENORT_BIN: runtime };
  await run(process.execPath, [...args.slice(0, -1), "--no-check", ...args.slice(-1)], {
    cwd: root,
    env,
    timeout: 200_000,
    signal: t.signal,
  });
  return embedded(readFileSync(join(folder, "vhost-user")));
}

test("an executable has the modules of all commands and of the threads, and no others", LIMIT, async (t) => {
  const files = await compiled(t);
  const expected = new Set(["src/cli/mod.ts"]);
  for (const file of expected) {
    // Types are not embedded; of their imports nothing is left.
    const code = readFileSync(join(root, file), "utf8").replaceAll(/^(im|ex)port type [^;]+;/gm, "");
    for (const specifier of importsOf(code)) {
      if (specifier.startsWith(".")) expected.add(posix.join(posix.dirname(file), specifier));
    }
  }
  assert.ok(expected.has("src/backend/threads/main.ts"));
  const ours = [...files.keys()].filter((file) => !file.startsWith(".deno_compile_node_modules/"));
  for (const file of expected) {
    assert.ok(ours.includes(file), `${file} is not there`);
    assert.equal(files.get(file)?.toString("utf8"), readFileSync(join(root, file), "utf8"));
  }
  for (const file of ours) assert.match(file, /^(src|ffi)\/.*\.ts$|^(mod\.ts|deno\.json)$/);
  const packages = [...files.keys()].filter((file) => !ours.includes(file)).map((file) =>
    /^.deno_compile_node_modules\/[^/]+\/((@[^/]+\/)?[^/]+)/.exec(file)?.[1]
  );
  assert.deepEqual([...new Set(packages)].sort(), ["@xterm/addon-fit", "@xterm/xterm", "ws"]);
});

realTest("what is in the executable serves a disk in threads", ["qemu-io", "libblkio"], LIMIT, async (t) => {
  const folder = tempDir(t);
  for (const [path, contents] of await compiled(t)) {
    if (path.startsWith(".")) continue;
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    writeFileSync(join(folder, path), contents);
  }
  const socket = join(folder, "disk.sock");
  const args = ["blk", `--socket-path=${socket}`, "--storage=mem:16M", "--workers=2"];
  const flags = ["--allow-ffi", `--allow-read=${folder}`, "--no-config", "--cached-only"];
  const child = Child.start(t, process.execPath, ["run", ...flags, "src/cli/mod.ts", ...args], {
    cwd: folder,
    env: { NO_COLOR: "1", RUST_BACKTRACE: "0", DENO_NO_PROMPT: "1", DENO_NO_UPDATE_CHECK: "1" },
  });
  await child.waitLine(/^vhost-user blk: .* on /, 60_000);
  await qemuIo(
    socket,
    "write -P 5 0 4M",
    "aio_write -P 6 4M 4M",
    "aio_flush",
    "read -P 5 0 4M",
    "read -P 6 4M 4M",
  );
  assert.equal(child.code, undefined, child.output);
});
