/** `deno task bench [blk|ring] [options]` */

import process from "node:process";
import { parseArgs } from "node:util";
import { benchBlk, blkReport } from "./blk.ts";
import { benchRing, ringReport } from "./ring.ts";

const help = `Usage: deno task bench [blk|ring] [options]

blk (default) measures this back-end against qemu-storage-daemon in the same run. Needs qemu-img with the
libblkio driver and qemu-storage-daemon: scripts/install-peers installs them. ring measures the rings alone.
Nothing else should run meanwhile.

  --rounds=N       Measurements of each figure (default 5).
  --depth=LIST     blk: requests in flight (default 1,4,32,64).
  --size=LIST      blk: request sizes in KiB (default 4,64).
  --storage=LIST   blk: null, file or both (default null,file).
  --write          blk: write instead of reading.
  --scale=X        Longer or shorter measurements (default 1).
  --json           Print the figures as JSON.
  --help           Print this text.`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "5" },
      depth: { type: "string", default: "1,4,32,64" },
      size: { type: "string", default: "4,64" },
      storage: { type: "string", default: "null,file" },
      scale: { type: "string", default: "1" },
      write: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const [what = "blk"] = positionals;
  if (what !== "blk" && what !== "ring") throw new Error(`no bench '${what}'; there are blk and ring`);
  const numbers = (text: string): number[] =>
    text.split(",").map((each) => {
      if (!(Number(each) > 0)) throw new Error(`'${each}' is not a number above 0`);
      return Number(each);
    });
  const options = {
    rounds: numbers(values.rounds)[0],
    depths: numbers(values.depth),
    sizes: numbers(values.size).map((kib) => kib * 1024),
    storages: values.storage.split(","),
    write: values.write,
    scale: numbers(values.scale)[0],
    progress: (line: string) => console.error(line),
  };
  if (what === "ring") {
    const rows = await benchRing(options);
    console.log(values.json ? JSON.stringify(rows, null, 2) : ringReport(rows, options));
    return 0;
  }
  const ends: (() => void | Promise<void>)[] = [];
  try {
    const rows = await benchBlk({ after: (fn) => void ends.push(fn) }, options);
    console.log(values.json ? JSON.stringify(rows, null, 2) : blkReport(rows, options));
  } finally {
    for (const end of ends) await end();
  }
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
