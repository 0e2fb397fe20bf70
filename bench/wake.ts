import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { tempDir } from "../tests/support/cleanup.ts";
import { alternate } from "./alternate.ts";
import { type Bench, type Findings, type Row, type Subject, wholeNumbers } from "./bench.ts";
import { Blkio } from "./clients.ts";
import { denoCommand, diskServers, missingPeers, type Server, startServer } from "./servers.ts";
import { quantile } from "./stats.ts";

/** How long one measurement takes at least, seconds, and with how many requests at least and at most. */
const DURATION = 0.5;
const [LEAST, MOST] = [50, 5000];
/** How long a request takes in all, for the sum, µs. */
const USUAL = 100;

/** A disk of ours that stamps its reads. */
function stampServer(how: "sync" | "async"): Server {
  const script = fileURLToPath(new URL("wake_disk.ts", import.meta.url));
  return { name: `ours, ${how} handler`, peer: false, command: (socket) => denoCommand(script, socket, how) };
}

/** Latency of single requests after pauses. */
export const wake: Bench = {
  summary: "Microseconds from the kick to the handler and back, after pauses.",
  needs: ["libblkio-dev"],
  options: {
    pause: {
      value: "LIST",
      help:
        "µs between a completion and the next request (default 1,100,2000,20000;\nwith --quick 100,2000).",
    },
  },
  examples: [["deno task bench wake", "From a ring that is being looked at to one that sleeps."]],
  async measure({ values, rounds, scale, quick, scope, progress }): Promise<Findings> {
    const pauses = wholeNumbers("pause", String(values.pause ?? (quick ? "100,2000" : "1,100,2000,20000")));
    const program = await Blkio.compile(scope);
    const folder = tempDir(scope);
    const servers = [
      ...diskServers({ storage: "null", image: "" }),
      stampServer("sync"),
      stampServer("async"),
    ];
    const running = [];
    for (const [i, server] of servers.entries()) {
      const socket = join(folder, `${i}`);
      await startServer(scope, server, socket);
      running.push({ ...server, socket });
    }
    progress.start(pauses.length);
    const rows: Row[] = [];
    for (const pause of pauses) {
      const most = Math.round(DURATION * scale * 1e6 / (pause + USUAL));
      const count = Math.max(Math.ceil(LEAST * scale), Math.min(MOST, most));
      const found = await alternate(running, rounds, async ({ socket }): Promise<Record<string, number>> => {
        const samples = await program.wake(socket, count, pause);
        const trips = samples.map(({ trip }) => trip);
        const begins = samples.flatMap(({ begin }) => begin > 0 ? [begin] : []);
        return {
          "kick to completion": quantile(trips, 0.5),
          "kick to completion, 99 %": quantile(trips, 0.99),
          ...begins.length === 0 ? {} : { "kick to handler": quantile(begins, 0.5) },
        };
      });
      for (const what of ["kick to handler", "kick to completion", "kick to completion, 99 %"]) {
        rows.push({ point: { what, pause }, unit: "µs", better: "less", figures: found[what] });
      }
      progress.step(`pauses of ${pause} µs`);
    }
    const subjects: Subject[] = servers.map(({ name, peer }) => ({ name, peer }));
    return {
      title: "One request at a time, each so many µs after the last; the driver sleeps until it is complete.",
      subjects,
      rows,
      across: "pause",
      notes: missingPeers(),
    };
  },
};
