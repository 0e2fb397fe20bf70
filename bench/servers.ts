/** The back-ends that are measured: ours and qemu-storage-daemon, each in several settings. A setting is one line here. */

import { randomFillSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { blk } from "../src/cli/blk.ts";
import type { Scope } from "../tests/support/cleanup.ts";
import { peerPath } from "../tests/support/peers.ts";
import { Child } from "../tests/support/process.ts";
import { available, type Subject } from "./bench.ts";

/** Bytes of the disks. */
export const DISK: number = 64 * 2 ** 20;

/** What a disk is: nothing at all, a file by way of the page cache, or a file without it (O_DIRECT). */
export const STORAGES = ["null", "file", "direct"] as const;
/** One of {@link STORAGES}. */
export type StorageKind = (typeof STORAGES)[number];

/** A back-end in one of its settings. */
export interface Server extends Subject {
  /** The command line that serves a disk on a socket. */
  command(socket: string): readonly [program: string, ...args: string[]];
}

/** How a disk is served. */
export interface DiskOptions {
  /** What it is. */
  readonly storage: StorageKind;
  /** The file, unless it is nothing. */
  readonly image: string;
  /** Queues that a front-end uses; 1 by default. */
  readonly queues?: number;
}

const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));

/** A program of ours, as a user runs it. */
export function denoCommand(script: string, ...args: string[]): [string, ...string[]] {
  // Threads have to read their modules.
  const threads = args.some((arg) => arg.startsWith("--workers"));
  return [process.execPath, "run", "--allow-ffi", ...threads ? ["--allow-read"] : [], script, ...args];
}

/** `vhost-user blk` with some options. */
export function ourServer(name: string, ...options: string[]): Server {
  return {
    name,
    peer: false,
    command: (socket) => denoCommand(cli, "blk", `--socket-path=${socket}`, ...options),
  };
}

/** How qemu-storage-daemon runs its export: in the main loop, or in a thread of its own that polls so many ns first. */
type DaemonLoop = "main loop" | { readonly pollMax: number };

/** qemu-storage-daemon with one export for each socket. */
export function daemonServer(
  name: string,
  blockdevs: readonly string[],
  loop: DaemonLoop,
  options: { readonly queues?: number; readonly extraSockets?: readonly string[] } = {},
): Server {
  const { queues = 1, extraSockets = [] } = options;
  return {
    name,
    peer: true,
    command: (socket) => [
      peerPath("qemu-storage-daemon"),
      ...(loop === "main loop" ? [] : ["--object", `iothread,id=io,poll-max-ns=${loop.pollMax}`]),
      ...blockdevs.flatMap((each) => ["--blockdev", each]),
      ...[socket, ...extraSockets].flatMap((path, i) => [
        "--export",
        `type=vhost-user-blk,id=e${i},node-name=disk,addr.type=unix,addr.path=${path},writable=on,num-queues=${queues}` +
        (loop === "main loop" ? "" : ",iothread=io"),
      ]),
    ],
  };
}

/** The null disk of QEMU; what is read stays as it was, as with ours. */
export const NULL_DISK: readonly string[] = [`driver=null-co,node-name=disk,size=${DISK},read-zeroes=off`];

function fileDisk(image: string, aio: string, direct: boolean): readonly string[] {
  return [
    `driver=file,node-name=file,filename=${image},aio=${aio},cache.direct=${direct ? "on" : "off"}`,
    "driver=raw,node-name=disk,file=file",
  ];
}

/** An iothread polls for 32 µs unless told otherwise; what looking costs us is what it costs it. */
export const POLLING: DaemonLoop = { pollMax: 50_000 };
/** An iothread that sleeps at once. */
export const SLEEPING: DaemonLoop = { pollMax: 0 };

/** Options that give the rings threads of their own, where the command line has them. */
export const WORKERS: readonly string[] = Object.hasOwn(blk.options, "workers")
  ? ["--workers=1", "--workers=2"]
  : [];

function ourServers(...options: string[]): Server[] {
  return [
    ourServer("ours", ...options),
    ...["--poll-us=0", ...WORKERS].map((setting) => ourServer(`ours, ${setting}`, ...options, setting)),
  ];
}

function ourDisk({ storage, image }: DiskOptions): Server[] {
  if (storage === "null") return ourServers(`--storage=null:${DISK}`);
  const options = [`--storage=file:${image}`, ...storage === "direct" ? ["--direct"] : []];
  return [...ourServers(...options), ourServer("ours, --aio=sync", ...options, "--aio=sync")];
}

function daemonDisk({ storage, image, queues = 1 }: DiskOptions): Server[] {
  const of = (name: string, disk: readonly string[], loop: DaemonLoop): Server =>
    daemonServer(name, disk, loop, { queues });
  if (storage === "null") {
    return [
      of("qsd", NULL_DISK, "main loop"),
      of("qsd iothread", NULL_DISK, POLLING),
      of("qsd iothread, no polling", NULL_DISK, SLEEPING),
    ];
  }
  const disk = (aio: string) => fileDisk(image, aio, storage === "direct");
  return [
    of("qsd threads", disk("threads"), "main loop"),
    of("qsd threads iothread", disk("threads"), POLLING),
    of("qsd io_uring", disk("io_uring"), "main loop"),
    of("qsd io_uring iothread", disk("io_uring"), POLLING),
    of("qsd io_uring iothread, no polling", disk("io_uring"), SLEEPING),
    // Linux AIO is asynchronous only without the page cache.
    ...storage === "direct" ? [of("qsd native iothread", disk("native"), POLLING)] : [],
  ];
}

/** All that serve a disk of a kind; the peer only where it is installed. */
export function diskServers(options: DiskOptions): Server[] {
  const { missing } = available(["qemu-storage-daemon"]);
  return [...ourDisk(options), ...missing.length > 0 ? [] : daemonDisk(options)];
}

/** Notes for a report: peers that are not there. */
export function missingPeers(): string[] {
  return available(["qemu-storage-daemon"]).missing.map((why) => `nothing to compare with: ${why}`);
}

/** Starts a server and waits until it listens. */
export async function startServer(scope: Scope, server: Server, socket: string): Promise<Child> {
  const [program, ...args] = server.command(socket);
  const child = Child.start(scope, program, args);
  await child.waitSocket(socket, 60_000);
  return child;
}

/** Writes a disk that no file system and no zero detection can make smaller. */
export function writeImage(path: string): void {
  writeFileSync(path, randomFillSync(new Uint8Array(DISK)));
}
