/**
 * Disks: `qemu-img bench` through libblkio against our back-end and against qemu-storage-daemon, alternating in one run,
 * so that what the machine does meanwhile hits both.
 */

import { randomFillSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { tempDir } from "../tests/support/cleanup.ts";
import type { Scope } from "../tests/support/cleanup.ts";
import { peer, peerPath } from "../tests/support/peers.ts";
import { Child, run } from "../tests/support/process.ts";
import { summarize, type Summary } from "./stats.ts";
import { markdownTable } from "./table.ts";

const DISK = 64 * 2 ** 20;

/** What is measured. */
export interface BlkBenchOptions {
  /** Measurements of each figure. */
  readonly rounds: number;
  /** Requests in flight. */
  readonly depths: readonly number[];
  /** Bytes of a request. */
  readonly sizes: readonly number[];
  /** What the disk is: `null` or `file`. */
  readonly storages: readonly string[];
  /** Whether to write instead of reading. */
  readonly write: boolean;
  /** How long one measurement should take, as a multiple of the usual. */
  readonly scale: number;
  /** Called with a line about the progress. */
  readonly progress: (line: string) => void;
}

/** One line of the result. */
export interface BlkBenchRow {
  /** What the disk is. */
  readonly storage: string;
  /** Bytes of a request. */
  readonly size: number;
  /** Requests in flight. */
  readonly depth: number;
  /** Requests a second by server. */
  readonly rates: Readonly<Record<string, Summary>>;
  /** The peer that did best. */
  readonly bestPeer: string;
  /** Ours over the best peer's, pair by pair. */
  readonly ratio: Summary;
}

interface Server {
  readonly name: string;
  readonly ours: boolean;
  start(scope: Scope, socket: string): Child;
}

const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));

function ours(name: string, storage: string, ...options: string[]): Server {
  return {
    name,
    ours: true,
    start: (scope, socket) =>
      Child.start(scope, process.execPath, [
        ...["run", "--allow-ffi", cli, "blk"],
        ...[`--socket-path=${socket}`, `--storage=${storage}`, ...options],
      ]),
  };
}

function daemon(name: string, blockdevs: readonly string[], iothread: boolean): Server {
  return {
    name,
    ours: false,
    start: (scope, socket) =>
      Child.start(scope, peerPath("qemu-storage-daemon"), [
        ...(iothread ? ["--object", "iothread,id=io,poll-max-ns=50000"] : []),
        ...blockdevs.flatMap((each) => ["--blockdev", each]),
        "--export",
        `type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${socket},writable=on` +
        (iothread ? ",iothread=io" : ""),
      ]),
  };
}

/** Our back-end as it comes and without looking; the daemon in each setting that is best somewhere. */
function servers(storage: string, image: string): Server[] {
  if (storage === "null") {
    const disk = [`driver=null-co,node-name=disk,size=${DISK},read-zeroes=off`];
    return [
      ours("ours", `null:${DISK}`),
      ours("ours, --poll-us=0", `null:${DISK}`, "--poll-us=0"),
      daemon("qsd", disk, false),
      daemon("qsd iothread", disk, true),
    ];
  }
  const disk = (aio: string) => [
    `driver=file,node-name=file,filename=${image},aio=${aio}`,
    "driver=raw,node-name=disk,file=file",
  ];
  return [
    ours("ours", `file:${image}`),
    ours("ours, --poll-us=0", `file:${image}`, "--poll-us=0"),
    daemon("qsd threads", disk("threads"), false),
    daemon("qsd io_uring", disk("io_uring"), false),
    daemon("qsd io_uring iothread", disk("io_uring"), true),
  ];
}

/** Requests a second of one run. */
async function measure(
  socket: string,
  count: number,
  depth: number,
  size: number,
  write: boolean,
): Promise<number> {
  const { stdout } = await run(peerPath("qemu-img"), [
    ...["bench", "-c", String(count), "-d", String(depth), "-s", String(size), "-n", "-t", "none"],
    ...(write ? ["-w"] : []),
    "--image-opts",
    `driver=virtio-blk-vhost-user,path=${socket},cache.direct=on`,
  ], { timeout: 120_000 });
  const seconds = /completed in ([\d.]+) seconds/.exec(stdout)?.[1];
  if (seconds === undefined) throw new Error(`qemu-img bench said nothing about its time: ${stdout}`);
  return count / Number(seconds);
}

/** A count of requests that takes some tenths of a second. */
function requests(depth: number, size: number, scale: number): number {
  const base = depth === 1 ? 20_000 : depth < 16 ? 60_000 : 150_000;
  return Math.round(base * scale / Math.max(1, size / 16384));
}

/** Measures. Servers run all the time, asleep while another is measured. */
export async function benchBlk(scope: Scope, options: BlkBenchOptions): Promise<BlkBenchRow[]> {
  const missing = (["qemu-img", "qemu-storage-daemon", "libblkio"] as const).map(peer)
    .flatMap((found) => "missing" in found ? [found.missing] : []);
  if (missing.length > 0) throw new Error(missing.join("\n"));
  const folder = tempDir(scope);
  const image = join(folder, "disk.img");
  writeFileSync(image, randomFillSync(new Uint8Array(DISK)));
  const rows: BlkBenchRow[] = [];
  for (const storage of options.storages) {
    const running = [];
    for (const [i, server] of servers(storage, image).entries()) {
      const socket = join(folder, `${storage}${i}.sock`);
      const child = server.start(scope, socket);
      await child.waitSocket(socket);
      running.push({ ...server, socket, child });
    }
    for (const size of options.sizes) {
      for (const depth of options.depths) {
        const count = requests(depth, size, options.scale);
        const rates = new Map<string, number[]>(running.map(({ name }) => [name, []]));
        for (let round = -1; round < options.rounds; round++) {
          // Every other round goes backwards, so that nobody is always measured after the same one.
          for (const { name, socket } of round % 2 === 0 ? running : [...running].reverse()) {
            const rate = await measure(
              socket,
              round < 0 ? Math.ceil(count / 4) : count,
              depth,
              size,
              options.write,
            );
            if (round >= 0) rates.get(name)?.push(rate);
          }
        }
        const row = rowOf(storage, size, depth, running, rates);
        rows.push(row);
        options.progress(
          `${storage} ${size / 1024} KiB depth ${depth}: ${row.ratio.median.toFixed(2)} × ${row.bestPeer}`,
        );
      }
    }
    for (const { child } of running) await child.stop();
  }
  return rows;
}

function rowOf(
  storage: string,
  size: number,
  depth: number,
  running: readonly Server[],
  rates: ReadonlyMap<string, readonly number[]>,
): BlkBenchRow {
  const of = (name: string): readonly number[] => rates.get(name) ?? [];
  const summaries = Object.fromEntries(running.map(({ name }) => [name, summarize(of(name))]));
  const peers = running.filter(({ ours }) => !ours).map(({ name }) => name);
  const bestPeer = peers.reduce((a, b) => summaries[a].median >= summaries[b].median ? a : b);
  const ratio = summarize(of("ours").map((rate, i) => rate / of(bestPeer)[i]));
  return { storage, size, depth, rates: summaries, bestPeer, ratio };
}

function thousands({ min, median, max }: Summary): string {
  const k = (rate: number): string => (rate / 1000).toFixed(rate < 100_000 ? 1 : 0);
  return `${k(median)} (${k(min)}–${k(max)})`;
}

/** The result as text. */
export function blkReport(rows: readonly BlkBenchRow[], { rounds, write }: BlkBenchOptions): string {
  const table = markdownTable([
    ["storage", "request", "depth", "ours", "ours, --poll-us=0", "best qsd", "which", "ratio"],
    ...rows.map(({ storage, size, depth, rates, bestPeer, ratio }) => [
      storage,
      `${size / 1024} KiB`,
      String(depth),
      thousands(rates["ours"]),
      thousands(rates["ours, --poll-us=0"]),
      thousands(rates[bestPeer]),
      bestPeer,
      `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`,
    ]),
  ]);
  return [
    `qemu-img bench, ${
      write ? "writing" : "reading"
    }, thousand requests a second: median (least–most) of ${rounds} rounds,`,
    "all servers alternating in one run. Ratio: ours over the best qemu-storage-daemon, above 1 is in our favour.",
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0].model}`,
    "",
    table,
  ].join("\n");
}
