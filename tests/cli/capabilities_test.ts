import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { loadAll } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { root, startDeno } from "../support/our_backend.ts";
import { realTest } from "../support/peers.ts";
import { Child, run } from "../support/process.ts";
import { runHere } from "./run.ts";

const LIMIT = { timeout: 120_000 };

/** `VHostUserBackendType` of QEMU's docs/interop/vhost-user.json. */
const TYPES = [
  ...[
    "9p",
    "balloon",
    "block",
    "caif",
    "console",
    "crypto",
    "gpu",
    "input",
    "net",
    "rng",
    "rpmsg",
    "rproc-serial",
  ],
  ...["scsi", "vsock", "fs"],
];

/** The features that the schema knows; types that are not here have none of their own. */
const FEATURES: Readonly<Record<string, readonly string[]>> = {
  block: ["read-only", "blk-file"],
  input: ["evdev-path", "no-grab"],
  gpu: ["render-node", "virgl"],
};

/** What is not as `VhostUserBackend` of the schema has it, but for members that it does not have. */
function mistakes(value: unknown): string[] {
  const { description, type, binary, tags = [] } = value as Record<string, unknown>;
  return [
    ...typeof description === "string" && description !== "" ? [] : ["description is a text"],
    ...TYPES.includes(String(type)) ? [] : [`type ${type}`],
    ...typeof binary === "string" && binary.startsWith("/") ? [] : ["binary is an absolute path"],
    ...Array.isArray(tags) && tags.every((tag) => typeof tag === "string") ? [] : ["tags is a list of texts"],
  ];
}

test("the files are as QEMU's schema has them, one for each device with a type in it", LIMIT, async () => {
  const files = JSON.parse((await runHere("capabilities")).out) as Record<string, Record<string, unknown>>;
  for (const [file, content] of Object.entries(files)) {
    assert.match(file, /^50-vhost-user-[a-z]+\.json$/);
    assert.deepEqual(mistakes(content), [], file);
    assert.deepEqual(Object.keys(content), ["description", "type", "binary", "tags"]);
  }
  const listed = (await loadAll(commands)).filter(([, { capabilities }]) =>
    TYPES.includes(capabilities?.type ?? "")
  );
  assert.deepEqual(Object.keys(files), listed.map(([name]) => `50-vhost-user-${name}.json`));
  for (const [, { capabilities }] of listed) {
    const known = FEATURES[capabilities?.type ?? ""];
    if (known !== undefined) assert.deepEqual([...capabilities?.features ?? []].sort(), [...known].sort());
  }
});

realTest("the file of another back-end is as the schema has it, too", ["virtiofsd"], {}, () => {
  const directory = "/usr/share/qemu/vhost-user";
  const theirs = readdirSync(directory).filter((file) => file.includes("virtiofsd"));
  assert.equal(theirs.length, 1);
  assert.deepEqual(mistakes(JSON.parse(readFileSync(join(directory, theirs[0]), "utf8"))), []);
  return Promise.resolve();
});

test("a mistake in a file is found", () => {
  const right = { description: "x", type: "block", binary: "/x" };
  assert.deepEqual(mistakes(right), []);
  for (const wrong of [{ description: 1 }, { type: "disk" }, { binary: "x" }, { tags: "x" }]) {
    assert.equal(mistakes({ ...right, ...wrong }).length, 1);
  }
});

test(
  "installed, a manager finds a back-end by its type, asks what it can do, and starts it",
  LIMIT,
  async (t) => {
    const directory = tempDir(t);
    const files = join(directory, "share");
    const programs = join(directory, "libexec");
    // Run from elsewhere: the programs do not depend on where they are started.
    const installer = startDeno(t, [
      `--allow-write=${directory}`,
      ...[
        join(root, "src/cli/mod.ts"),
        "capabilities",
        `--dir=${files}`,
        `--programs=${programs}`,
        "--priority=10",
      ],
    ]);
    assert.equal(await installer.waitEnd(60_000), 0, installer.output);
    const written = readdirSync(files).sort();
    assert.equal(installer.output.trim().split("\n").length, 2 * written.length);
    // What libvirt and others do: in the order of the names, the first whose type fits.
    const [found] = written.map((file) => JSON.parse(readFileSync(join(files, file), "utf8"))).filter((
      { type },
    ) => type === "block");
    assert.equal(found.binary, join(programs, "vhost-user-blk"));
    assert.equal(statSync(found.binary).mode & 0o777, 0o755);
    assert.doesNotMatch(readFileSync(found.binary, "utf8"), /allow-write/);
    const { stdout } = await run(found.binary, ["--print-capabilities"], { cwd: "/" });
    assert.deepEqual(JSON.parse(stdout), { type: "block", features: ["read-only", "blk-file"] });
    const socket = join(directory, "socket");
    const child = Child.start(t, found.binary, [`--socket-path=${socket}`, "--storage=mem:1M"], { cwd: "/" });
    await child.waitLine(/ on /, 30_000);
    (await FrontEnd.connect(socket)).close();
    child.kill("SIGTERM");
    assert.equal(await child.waitEnd(30_000), 0, child.output);
  },
);

test("for a package they are written below another root, and start what it installs", LIMIT, async (t) => {
  const directory = tempDir(t);
  const { code, out } = await runHere(
    "capabilities",
    `--root=${directory}`,
    "--dir=/usr/share/qemu/vhost-user",
    "--start=/usr/bin/vhost-user",
  );
  assert.equal(code, 0);
  assert.ok(out.split("\n").every((path) => path.startsWith(`${directory}/usr/`)));
  const file = join(directory, "usr/share/qemu/vhost-user/50-vhost-user-net.json");
  assert.equal(JSON.parse(readFileSync(file, "utf8")).binary, "/usr/libexec/vhost-user-net");
  assert.match(
    readFileSync(join(directory, "usr/libexec/vhost-user-net"), "utf8"),
    /^#!\/bin\/sh\n#.*\nexec \/usr\/bin\/vhost-user net "\$@"\n$/,
  );
});

test("directories that cannot be are refused", LIMIT, async () => {
  for (
    const [args, message] of [
      [["--programs=libexec"], /--programs must be an absolute path, got 'libexec'/],
      [["--priority=5"], /--priority must be two digits, got '5'/],
      [["--dir=share"], /--dir must be an absolute path, got 'share'/],
    ] as const
  ) {
    const { code, error } = await runHere("capabilities", ...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(error, message);
  }
});
