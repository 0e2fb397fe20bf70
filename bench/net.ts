import { cpus } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { onEnd, type Scope, tempDir } from "../tests/support/cleanup.ts";
import { Child } from "../tests/support/process.ts";
import { Testpmd } from "../tests/support/testpmd.ts";
import { alternate } from "./alternate.ts";
import { Distance } from "./distance.ts";
import { type Bench, choices, type Findings, type Row, type Subject, wholeNumbers } from "./bench.ts";

/** Each has a processor of its own: both look for work all the time. */
const DRIVER_CORE = 0;
const BACKEND_CORE = 1;
/** Until rings and caches are warm and all is compiled, beside the work on one processor; and how long a measurement takes, ms. */
const WARM_UP = 1500;
const DURATION = 1000;

const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));

/** What driver and back-end do: modes of testpmd, the network of our back-end, and what the driver counts. */
const DIRECTIONS = {
  "send": { driver: "txonly", peer: "rxonly", ours: () => "null", counter: "sent" },
  "receive": {
    driver: "rxonly",
    peer: "txonly",
    ours: (size: number) => `generate:${size}`,
    counter: "received",
  },
  "echo": { driver: "flowgen", peer: "io", ours: () => "echo", counter: "received" },
} as const;

type Direction = keyof typeof DIRECTIONS;

const FORMATS = { split: "packed_vq=0", packed: "packed_vq=1" } as const;

type Format = keyof typeof FORMATS;

/** Does something with a scope of its own, whose end does not wait for that of the bench. */
async function within<T>(scope: Scope, work: (inner: Scope) => Promise<T>): Promise<T> {
  const ends: (() => void | Promise<void>)[] = [];
  const undo = async (): Promise<void> => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  onEnd(scope, undo);
  try {
    return await work({ after: (end) => void ends.push(end) });
  } finally {
    await undo();
  }
}

/** Frames a second. */
async function measure(
  scope: Scope,
  socket: string,
  direction: Direction,
  format: Format,
  size: number,
  scale: number,
): Promise<number> {
  const { driver: mode, counter } = DIRECTIONS[direction];
  const driver = await Testpmd.start(scope, {
    drivers: ["librte_net_virtio.so.25"],
    vdev: `net_virtio_user0,path=${socket},queues=1,queue_size=256,mrg_rxbuf=1,${FORMATS[format]}`,
    core: DRIVER_CORE,
  });
  await driver.command(`set fwd ${mode}`);
  await driver.command(`set txpkts ${size}`);
  await driver.command("start");
  await sleep(WARM_UP);
  const from = performance.now();
  const before = await driver.stats();
  await sleep(DURATION * scale);
  const after = await driver.stats();
  const seconds = (performance.now() - from) / 1000;
  await driver.command("stop");
  await driver.command("quit").catch(() => {});
  return (after[counter] - before[counter]) / seconds;
}

interface Backend extends Subject {
  start(scope: Scope, socket: string, direction: Direction, size: number): Promise<void>;
}

function ours(name: string, ...options: string[]): Backend {
  return {
    name,
    peer: false,
    async start(scope, socket, direction, size): Promise<void> {
      const child = Child.start(scope, "taskset", [
        ...["-c", String(BACKEND_CORE), process.execPath, "run", "--allow-ffi", cli, "net"],
        ...[`--socket-path=${socket}`, `--network=${DIRECTIONS[direction].ours(size)}`, ...options],
      ]);
      await child.waitLine(/vhost-user net: .* on /);
    },
  };
}

const BACKENDS: readonly Backend[] = [
  ours("ours"),
  // DPDK never sleeps; this comes close to it.
  ours("ours, --poll-us=20000", "--poll-us=20000"),
  {
    name: "DPDK vhost",
    peer: true,
    async start(scope, socket, direction, size): Promise<void> {
      const testpmd = await Testpmd.start(scope, {
        drivers: ["librte_net_vhost.so.25"],
        vdev: `net_vhost0,iface=${socket},queues=1`,
        core: BACKEND_CORE,
        options: ["--port-topology=loop"],
      });
      await testpmd.command(`set fwd ${DIRECTIONS[direction].peer}`);
      await testpmd.command(`set txpkts ${size}`);
      await testpmd.command("start");
    },
  },
];

/** Frames a second of a network card. */
export const net: Bench = {
  summary:
    "Frames a second of a network card, beside DPDK's vhost, with DPDK's virtio_user in front of both.",
  needs: ["testpmd", "virtio-user"],
  options: {
    direction: {
      value: "LIST",
      help: "What the driver does: send, receive, echo (default all): sends to one who drops,\n" +
        "receives from one who generates, or both.",
    },
    rings: { value: "LIST", help: "split, packed (default both)." },
    size: { value: "LIST", help: "Bytes of a frame (default 64,512,1518; with --quick 64)." },
  },
  examples: [["deno task bench net --direction=echo --size=64", "There and back."]],
  async measure({ values, rounds, scale, quick, scope, progress }): Promise<Findings> {
    if (cpus().length < 2) throw new Error("driver and back-end each need a processor of their own");
    const directions = choices(
      "direction",
      String(values.direction ?? "send,receive,echo"),
      Object.keys(DIRECTIONS) as Direction[],
    );
    const formats = choices(
      "rings",
      String(values.rings ?? "split,packed"),
      Object.keys(FORMATS) as Format[],
    );
    const sizes = wholeNumbers("size", String(values.size ?? (quick ? "64" : "64,512,1518")));
    const folder = tempDir(scope);
    const rows: Row[] = [];
    const distance = await Distance.compile(scope);
    let sockets = 0;
    progress.start(directions.length * formats.length * sizes.length);
    for (const direction of directions) {
      for (const rings of formats) {
        for (const size of sizes) {
          const found = await alternate(
            BACKENDS,
            rounds,
            (backend): Promise<Record<string, number>> =>
              within(scope, async (inner) => {
                const socket = join(folder, `${sockets++}`);
                await distance.measure(DRIVER_CORE, BACKEND_CORE);
                await backend.start(inner, socket, direction, size);
                return { rate: await measure(inner, socket, direction, rings, size, scale) };
              }),
          );
          rows.push({
            point: { direction, rings, size },
            unit: "frames/s",
            better: "more",
            figures: found.rate,
          });
          progress.step(`${direction}, ${rings}, ${size} bytes`);
        }
      }
    }
    return {
      title: "One queue pair of 256 entries; driver and back-end have a processor each. " +
        "To the peer, sending means that it copies the frames before it drops them; ours drops them where they are.",
      subjects: BACKENDS.map(({ name, peer }) => ({ name, peer })),
      rows,
      across: "size",
      notes: [distance.note],
    };
  },
};
