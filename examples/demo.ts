/**
 * Serves a disk and drives it, over a real socket with really shared memory. Part of the toolkit's checkout: it uses parts that
 * are not in the package.
 *
 *     deno task demo
 *
 * has our own front-end and needs nothing else,
 *
 *     deno task demo --vm
 *
 * a Linux guest in QEMU. With `--help` it says what else it takes.
 *
 * @module
 */

import { createHash, randomFillSync } from "node:crypto";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Presets, SingleBar } from "cli-progress";
import { BlkDriver } from "../src/tools/blk_driver.ts";
import { describeMessage } from "../src/tools/describe.ts";
import { type Scope, tempDir } from "../tests/support/cleanup.ts";
import { Guest } from "../tests/support/guest.ts";
import { peer } from "../tests/support/peers.ts";
import { Child } from "../tests/support/process.ts";

const MIB = 2 ** 20;
const CHUNK = MIB;

const help = `Usage: deno task demo [options]

Serves a disk from TypeScript and drives it with this toolkit's own front-end: writes random data, reads it
back, compares, and measures.

  --vm         Boot a Linux guest in QEMU on the disk instead.
  --size=MIB   How much to write and read (default 256).
  --help       Print this text.`;

function say(line = ""): void {
  console.log(line);
}

/** Starts the command line's `blk` in a process of its own, as a user would. */
async function startServer(scope: Scope, image: string): Promise<string> {
  const socket = join(tempDir(scope), "disk.sock");
  const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));
  const args = ["run", "--allow-ffi", cli, "blk", `--socket-path=${socket}`, `--blk-file=${image}`];
  say(`$ deno run --allow-ffi src/cli/mod.ts blk --socket-path=${socket} --blk-file=${image}`);
  await Child.start(scope, process.execPath, args).waitLine(/^vhost-user blk: .* on /);
  return socket;
}

function progress(what: string, total: number): SingleBar {
  const bar = new SingleBar({
    format: `  ${what} {bar} {percentage}% | {value}/{total} MiB`,
    noTTYOutput: true,
    notTTYSchedule: 1000,
  }, Presets.shades_classic);
  bar.start(total, 0);
  return bar;
}

/** Runs a function for each MiB with several under way at once. */
async function eachChunk(
  what: string,
  total: number,
  run: (position: number) => Promise<void>,
): Promise<number> {
  const bar = progress(what, total);
  const start = performance.now();
  let next = 0;
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (next < total) {
      await run(next++ * CHUNK);
      bar.increment();
    }
  }));
  bar.stop();
  return total / ((performance.now() - start) / 1000);
}

async function measure(disk: BlkDriver, seconds: number): Promise<number> {
  const blocks = disk.size / 4096;
  const start = performance.now();
  let done = 0;
  await Promise.all(Array.from({ length: 32 }, async () => {
    while (performance.now() - start < seconds * 1000) {
      await disk.read(Math.floor(Math.random() * blocks) * 4096, 4096);
      done++;
    }
  }));
  return done / ((performance.now() - start) / 1000);
}

async function demo(scope: Scope, mib: number): Promise<void> {
  const image = join(tempDir(scope), "disk.img");
  writeFileSync(image, "");
  truncateSync(image, mib * MIB);
  say(`A disk of ${mib} MiB, served by a process of its own:\n`);
  const socket = await startServer(scope, image);

  say("\nThe messages of the session (→ from the front-end, ← from the back-end):\n");
  const disk = await BlkDriver.connect(socket, {
    depth: 64,
    // The front-end is here, so what goes out goes to the back-end.
    tap: (direction, message) => say(`  ${describeMessage(direction === "in" ? "out" : "in", message)}`),
  });
  disk.frontEnd.connection.tap = undefined;

  say(`\nWriting and reading back ${mib} MiB of random data through shared memory:\n`);
  const data = new Uint8Array(mib * MIB);
  for (let at = 0; at < data.length; at += 64 * MIB) {
    randomFillSync(data, at, Math.min(64 * MIB, data.length - at));
  }
  const back = new Uint8Array(data.length);
  const written = await eachChunk("write", mib, (at) => disk.write(at, data.subarray(at, at + CHUNK)));
  await disk.flush();
  const read = await eachChunk("read ", mib, async (at) => back.set(await disk.read(at, CHUNK), at));
  const [sent, received] = [data, back].map((bytes) => createHash("sha256").update(bytes).digest("hex"));
  say(`\n  sent      sha256 ${sent}\n  received  sha256 ${received}`);
  if (sent !== received) throw new Error("the data that came back is not the data that was sent");
  say("  equal\n");

  const rate = await measure(disk, 2);
  say(`  write ${written.toFixed(0)} MiB/s, read ${read.toFixed(0)} MiB/s (1 MiB at a time)`);
  say(
    `  ${Math.round(rate).toLocaleString("en")} reads of 4 KiB a second (32 in flight, at random places)\n`,
  );
  await disk.close();
  say(
    "Next: deno task demo --vm boots Linux on such a disk; README.md shows how to attach one to your own QEMU.",
  );
}

async function demoVm(scope: Scope, mib: number): Promise<void> {
  const missing = (["qemu", "guest"] as const).map(peer).flatMap((found) =>
    "missing" in found ? [found.missing] : []
  );
  if (missing.length > 0) {
    throw new Error(
      `a virtual machine needs QEMU and a Linux kernel with an initramfs.\n${missing.join("\n")}\n` +
        "scripts/install-peers installs both on Debian; scripts/guest/build --help tells where the kernel goes.",
    );
  }
  const image = join(tempDir(scope), "disk.img");
  writeFileSync(image, "");
  truncateSync(image, mib * MIB);
  const socket = await startServer(scope, image);
  say("Booting Linux in QEMU with that disk …");
  const guest = await Guest.start(scope, {
    modules: ["virtio_blk", "ext4"],
    devices: [
      "-chardev",
      `socket,id=c0,path=${socket}`,
      "-device",
      "vhost-user-blk-pci,chardev=c0,num-queues=1",
    ],
  });
  for (
    const command of [
      "uname -sr",
      "ls -l /dev/vda; cat /sys/block/vda/serial",
      "mkfs.ext4 -q /dev/vda && mkdir -p /mnt/disk && mount /dev/vda /mnt/disk && df -h /mnt/disk",
      "cp -r /bin /mnt/disk/ && sync && ls /mnt/disk/bin | wc -l",
      "dd if=/dev/urandom of=/mnt/disk/random bs=1M count=32 2>/dev/null; sha256sum /mnt/disk/random",
      "umount /mnt/disk; mount /dev/vda /mnt/disk; sha256sum /mnt/disk/random; umount /mnt/disk",
    ]
  ) {
    say(`\nguest# ${command}`);
    say((await guest.run(command)).trimEnd());
  }
  await guest.stop();
  say("\nThe guest has used a disk that a TypeScript process served.");
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      vm: { type: "boolean", default: false },
      size: { type: "string", default: "256" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return say(help);
  const mib = Number(values.size);
  if (!Number.isInteger(mib) || mib < 16 || mib > 4096) {
    throw new Error(`--size must be 16 to 4096, got ${values.size}`);
  }
  const ends: (() => void | Promise<void>)[] = [];
  const scope: Scope = { after: (fn) => void ends.push(fn) };
  try {
    await (values.vm ? demoVm : demo)(scope, mib);
  } finally {
    for (const end of ends) await end();
  }
}

try {
  await main();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
