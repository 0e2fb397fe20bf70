import { join } from "node:path";
import { UsageError } from "../src/cli/command.ts";
import { tempDir } from "../tests/support/cleanup.ts";
import { alternate } from "./alternate.ts";
import {
  available,
  type Bench,
  choices,
  type Findings,
  type Row,
  type Subject,
  wholeNumbers,
} from "./bench.ts";
import { Blkio, type Load, qemuImgLoad } from "./clients.ts";
import { DISK, diskServers, missingPeers, startServer, STORAGES, writeImage } from "./servers.ts";

/** How long one measurement takes, seconds. */
const DURATION = 0.4;
/** Requests of the first, which finds out how many fit in that time. */
const FIRST = 2000;
const FIRST_BYTES = 64 * 2 ** 20;

/** Disks. */
export const blk: Bench = {
  summary: "Requests a second on a disk, against qemu-storage-daemon.",
  needs: ["qemu-img", "libblkio"],
  options: {
    storage: {
      value: "LIST",
      help: "null: nothing behind it; file: a file by way of the page cache;\n" +
        "direct: O_DIRECT (default null,file; with --quick null).",
    },
    op: { value: "LIST", help: "read, write or both (default read)." },
    size: { value: "LIST", help: "KiB of a request (default 4,64; with --quick 4)." },
    depth: {
      value: "LIST",
      help: "Requests in flight on each queue (default 1,4,32,64; with --quick 1,32).",
    },
    queues: {
      value: "LIST",
      help: "Queues used at once (default 1). qemu-img bench has one queue; with any\n" +
        "other number a program on libblkio with a thread for each queue takes its place.",
    },
    dir: { value: "PATH", help: "Where to put the image (default: the directory for temporary files)." },
  },
  examples: [
    ["deno task bench blk", "Null disk and file, 4 and 64 KiB, four depths: about ten minutes."],
    ["deno task bench blk --storage=file --op=read,write --size=4,64,1024", "More of the file."],
    ["deno task bench blk --storage=null --size=4 --depth=1,32 --queues=1,2,4", "How queues add up."],
    ["deno task bench blk --storage=null --size=4 --depth=1,2,4,8,16,32,64,128 --svg=blk.svg", "The plot."],
  ],
  async measure({ values, rounds, scale, quick, scope, progress }): Promise<Findings> {
    const text = (name: string, usual: string): string => String(values[name] ?? usual);
    const storages = choices("storage", text("storage", quick ? "null" : "null,file"), STORAGES);
    const ops = choices("op", text("op", "read"), ["read", "write"]);
    const sizes = wholeNumbers("size", text("size", quick ? "4" : "4,64")).map((kib) => kib * 1024);
    const depths = wholeNumbers("depth", text("depth", quick ? "1,32" : "1,4,32,64"));
    const queueCounts = wholeNumbers("queues", text("queues", "1"));
    if (sizes.some((size) => size * 2 > DISK)) {
      throw new UsageError(`--size: at most ${DISK / 2048} KiB`);
    }
    const several = queueCounts.some((queues) => queues > 1);
    if (several) {
      const { missing } = available(["libblkio-dev"]);
      if (missing.length > 0) throw new Error(missing.join("\n"));
    }
    const program = several ? await Blkio.compile(scope) : undefined;
    const once = (load: Load): Promise<number> =>
      program === undefined ? qemuImgLoad(load) : program.load(load);

    const folder = tempDir(scope);
    const image = join(tempDir(scope, typeof values.dir === "string" ? values.dir : undefined), "disk.img");
    if (storages.some((storage) => storage !== "null")) writeImage(image);
    progress.start(storages.length * queueCounts.length * ops.length * sizes.length * depths.length);
    const subjects: Subject[] = [];
    const rows: Row[] = [];
    for (const storage of storages) {
      for (const queues of queueCounts) {
        const running = [];
        for (const [i, server] of diskServers({ storage, image, queues }).entries()) {
          if (!subjects.some(({ name }) => name === server.name)) {
            subjects.push({ name: server.name, peer: server.peer });
          }
          const socket = join(folder, `${storage}${queues}.${i}`);
          running.push({ ...server, socket, child: await startServer(scope, server, socket) });
        }
        for (const op of ops) {
          for (const size of sizes) {
            for (const depth of depths) {
              const counts = new Map<string, number>();
              const { rate } = await alternate(running, rounds, async ({ name, socket }) => {
                const known = counts.get(name);
                const count = known ?? Math.max(depth, Math.ceil(Math.min(FIRST, FIRST_BYTES / size)));
                const rate = await once({ socket, queues, depth, size, write: op === "write", count });
                // What it could do in the first round says how many requests take as long as wanted.
                if (known === undefined) {
                  counts.set(name, Math.max(count, Math.round(rate / queues * DURATION * scale)));
                }
                return { rate };
              });
              rows.push({
                point: { storage, op, queues, request: `${size / 1024} KiB`, depth },
                unit: "requests/s",
                better: "more",
                figures: rate,
              });
              progress.step(`${storage}, ${op}, ${queues} queues, ${size / 1024} KiB, depth ${depth}`);
            }
          }
        }
        for (const { child } of running) await child.stop();
      }
    }
    return {
      title: several
        ? "Disks, by a program on libblkio with a thread for each queue."
        : "Disks, by qemu-img bench over libblkio.",
      subjects,
      rows,
      across: "depth",
      notes: [
        ...missingPeers(),
      ],
    };
  },
};
