import { join } from "node:path";
import { tempDir } from "../tests/support/cleanup.ts";
import { alternate } from "./alternate.ts";
import type { Bench, Findings, Row } from "./bench.ts";
import { Blkio } from "./clients.ts";
import { DISK, diskServers, missingPeers, type Server, writeImage } from "./servers.ts";

/** Starting up. */
export const start: Bench = {
  summary: "Milliseconds from the start of the process to the socket and to the first answer.",
  needs: ["libblkio-dev"],
  options: {},
  examples: [["deno task bench start --rounds=20", "Twenty starts of each."]],
  async measure({ rounds, scope, progress }): Promise<Findings> {
    const program = await Blkio.compile(scope);
    const folder = tempDir(scope);
    const image = join(folder, "disk.img");
    writeImage(image);
    const rows: Row[] = [];
    const found = ["null", "file"] as const;
    const servers = found.map((storage) => diskServers({ storage, image }).filter(interesting));
    progress.start(found.length);
    for (const [i, storage] of found.entries()) {
      let runs = 0;
      const times = await alternate(servers[i], rounds, async ({ command }) => {
        const socket = join(folder, `${i}.${runs++}`);
        const { socket: there, first } = await program.start(socket, command(socket));
        return { "socket": there / 1000, "first read": first / 1000 };
      });
      for (const [until, figures] of Object.entries(times)) {
        rows.push({ point: { storage, until }, unit: "ms", better: "less", figures });
      }
      progress.step(storage);
    }
    return {
      title: `From starting the process to the socket being there, and to the first read; disks of ${
        DISK >> 20
      } MiB.`,
      subjects: servers.flat().map(({ name, peer }) => ({ name, peer }))
        .filter(({ name }, i, all) => all.findIndex((each) => each.name === name) === i),
      rows,
      across: "until",
      notes: missingPeers(),
    };
  },
};

/** How it looks for work makes no difference before there is any. */
function interesting({ name }: Server): boolean {
  return !/poll/.test(name);
}
