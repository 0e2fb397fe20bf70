import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onEnd, tempDir } from "../tests/support/cleanup.ts";
import type { Child } from "../tests/support/process.ts";
import { alternate } from "./alternate.ts";
import { available, type Bench, type Findings, type Row, type Subject, wholeNumbers } from "./bench.ts";
import { Blkio } from "./clients.ts";
import {
  daemonServer,
  DISK,
  missingPeers,
  NULL_DISK,
  ourServer,
  type Server,
  startServer,
  WORKERS,
} from "./servers.ts";

/** How long a process gets to become quiet, ms. */
const QUIET = 300;
/** Between two looks at a process under load, ms. */
const LOOK = 20;
/** Requests of the load. */
const COUNT = 1_000_000;

/** A back-end, and where its n-th session connects. */
interface Host extends Server {
  readonly sockets: (first: string) => string[];
}

/** MB as `ps` counts them, and with memory that several processes share counted in shares. */
interface Size {
  readonly RSS: number;
  readonly PSS: number;
}

function sizeOf({ pid }: Child): Size {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const field = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(text)?.[1]) * 1024 / 1e6;
  return { RSS: field("Rss"), PSS: field("Pss") };
}

function hosts(sessions: number): Host[] {
  const usual = [`--storage=null:${DISK}`, "--shared"];
  const ours = [["ours", ...usual], ...WORKERS.map((setting) => [`ours, ${setting}`, ...usual, setting])];
  const extra = (first: string): string[] => Array.from({ length: sessions - 1 }, (_, i) => `${first}.${i}`);
  return [
    ...ours.map(([name, ...options]) => ({
      ...ourServer(name, ...options),
      sockets: (first: string) => new Array(sessions).fill(first),
    })),
    // An export takes one front-end at a time, so each gets an export.
    ...available(["qemu-storage-daemon"]).missing.length > 0 ? [] : [{
      name: "qsd",
      peer: true,
      command: (socket: string) =>
        daemonServer("qsd", NULL_DISK, "main loop", { extraSockets: extra(socket) }).command(socket),
      sockets: (first: string) => [first, ...extra(first)],
    }],
  ];
}

/** Memory. */
export const memory: Bench = {
  summary: "Resident memory: idle, under load, and for each session more.",
  needs: ["libblkio-dev"],
  options: {
    sessions: { value: "N", help: "Sessions at the same time (default 9; with --quick 3)." },
    queues: { value: "N", help: "Queues of each session (default 1)." },
  },
  examples: [["deno task bench memory --sessions=33", "Thirty-two sessions more than one."]],
  async measure({ values, rounds, scale, quick, scope, progress }): Promise<Findings> {
    const [sessions] = wholeNumbers("sessions", String(values.sessions ?? (quick ? 3 : 9)));
    const [queues] = wholeNumbers("queues", String(values.queues ?? 1));
    const program = await Blkio.compile(scope);
    const folder = tempDir(scope);
    const all = hosts(Math.max(2, sessions));
    let runs = 0;
    progress.start(all.length * (rounds + 1));

    async function life(host: Host, round: number): Promise<Record<string, number>> {
      const first = join(folder, String(runs++));
      const child = await startServer(scope, host, first);
      const sockets = host.sockets(first);
      const sizes: Record<string, Size> = {};
      const look = async (when: string): Promise<void> => {
        await sleep(QUIET);
        sizes[when] = sizeOf(child);
      };
      await look("idle");

      const leave: (() => Promise<void>)[] = [];
      onEnd(scope, async () => void await Promise.all(leave.splice(0).map((each) => each())));
      leave.push(await program.hold(scope, sockets[0], queues));
      await look("one session");
      for (const socket of sockets.slice(1)) leave.push(await program.hold(scope, socket, queues));
      await look(`${sockets.length} sessions`);
      for (const each of leave.splice(0)) await each();
      await look("after they have left");

      let busy = true;
      const count = Math.ceil(COUNT * scale / queues);
      const load = program.load({ socket: first, queues, depth: 32, size: 4096, write: false, count })
        .finally(() => busy = false);
      const seen: Size[] = [];
      while (busy) {
        seen.push(sizeOf(child));
        await Promise.race([sleep(LOOK), load]);
      }
      await load;
      sizes["under load, most"] = {
        RSS: Math.max(...seen.map(({ RSS }) => RSS)),
        PSS: Math.max(...seen.map(({ PSS }) => PSS)),
      };
      await look("after the load");
      await child.stop();
      progress.step(`${host.name}, ${round < 0 ? "first" : `round ${round + 1}`}`);

      const more = (kind: keyof Size): number =>
        (sizes[`${sockets.length} sessions`][kind] - sizes["one session"][kind]) / (sockets.length - 1);
      sizes["each session more"] = { RSS: more("RSS"), PSS: more("PSS") };
      return Object.fromEntries(
        Object.entries(sizes).flatMap(([when, { RSS, PSS }]) => [[`${when}|RSS`, RSS], [`${when}|PSS`, PSS]]),
      );
    }

    const found = await alternate(all, rounds, life);
    const rows: Row[] = Object.entries(found).map(([key, figures]) => {
      const [when, what] = key.split("|");
      return { point: { when, what }, unit: "MB", better: "less", figures };
    });
    const subjects: Subject[] = all.map(({ name, peer }) => ({ name, peer }));
    return {
      title: "Resident memory of a back-end with a null disk, 10^6 bytes.",
      subjects,
      rows,
      across: "when",
      notes: missingPeers(),
    };
  },
};
