import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { type Scope, tempDir } from "../tests/support/cleanup.ts";
import type { Guest } from "../tests/support/guest.ts";
import { peer, peerPath } from "../tests/support/peers.ts";
import { Child } from "../tests/support/process.ts";
import { restoreGuest } from "../tests/support/snapshot.ts";
import { dialGuest, listenForGuest, writePattern } from "../tests/support/vsock.ts";
import { alternate } from "./alternate.ts";
import { type Bench, choices, type Findings, type Row, type Subject } from "./bench.ts";

const MIB = 1 << 20;
/** What one measurement moves, MiB, and how many connections it makes. */
const AMOUNT = 256;
const CONNECTIONS = 1000;
/**
 * Bytes that the guest hands to its kernel at once. Of large writes Linux 6.12.117 makes packets of several pieces, and
 * vhost-device-vsock 0.3.0 takes none of the kind ("DescriptorLengthTooSmall").
 */
const STEP = 16384;

const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));

/** A device with a guest that runs. */
interface Stage extends Subject {
  readonly guest: Guest;
  readonly path: string;
  readonly scope: Scope;
  /** What the host does with the connection that is measured. */
  take: (socket: Socket) => void;
}

async function stage(scope: Scope, name: string, isPeer: boolean): Promise<Stage> {
  const folder = tempDir(scope);
  const [socket, path] = [join(folder, "s"), join(folder, "u")];
  const spec = `guest-cid=3,socket=${socket},uds-path=${path}`;
  const child = isPeer
    ? Child.start(scope, peerPath("vhost-device-vsock"), ["--vm", spec])
    : Child.start(scope, process.execPath, ["run", "--allow-ffi", cli, "vsock", "--vm", spec]);
  await child.waitSocket(socket, 30_000);
  const guest = await restoreGuest(scope);
  await guest.plug("vhost-user-vsock-pci", socket);
  await guest.waitFor("[ -d /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio* ]");
  const made: Stage = { name, peer: isPeer, guest, path, scope, take: (socket) => socket.end() };
  await listenForGuest(scope, path, 1000, (socket) => made.take(socket));
  return made;
}

/** The guest sends to a program of the host. MiB a second. */
async function send(stage: Stage, scale: number): Promise<number> {
  const bytes = Math.ceil(AMOUNT * scale) * MIB;
  let got = 0;
  const done = new Promise<number>((resolve, reject) => {
    stage.take = (socket) => {
      const from = performance.now();
      // vhost-device-vsock does not hand on the end of one direction: the number of bytes tells.
      socket.on("data", (chunk) => {
        got += chunk.length;
        if (got < bytes) return;
        socket.end();
        resolve((performance.now() - from) / 1000);
      });
      socket.once("error", reject);
    };
  });
  await stage.guest.run(`vsock -b ${STEP} connect 2 1000 send:${bytes} end`, 120_000);
  const seconds = await done;
  if (got !== bytes) throw new Error(`${stage.name}: ${got} bytes came of ${bytes}`);
  return bytes / MIB / seconds;
}

/** The guest receives from a program of the host. MiB a second. */
async function receive(stage: Stage, scale: number): Promise<number> {
  const bytes = Math.ceil(AMOUNT * scale) * MIB;
  await stage.guest.run(`vsock listen 2000 recv:${bytes} text:all >/tmp/got 2>&1`);
  const socket = await dialGuest(stage.scope, stage.path, 2000);
  const from = performance.now();
  const answered = once(socket, "data");
  // Asked beforehand: a guest that is busy loses what is typed at its terminal.
  const ended = stage.guest.waitFor("! pidof vsock", 60_000);
  await writePattern(socket, bytes);
  await answered;
  const seconds = (performance.now() - from) / 1000;
  socket.destroy();
  await ended;
  const complaint = await stage.guest.run("cat /tmp/got");
  if (complaint !== "") throw new Error(`${stage.name}: ${complaint}`);
  return bytes / MIB / seconds;
}

/** The guest connects, reads a word and the end, and closes. Connections a second. */
async function connections(stage: Stage, scale: number): Promise<number> {
  stage.take = (socket) => {
    socket.resume();
    socket.end("word");
  };
  const count = Math.ceil(CONNECTIONS * scale);
  const from = performance.now();
  await stage.guest.run(`vsock -n ${count} connect 2 1000 gettext >/dev/null`, 120_000);
  return count / ((performance.now() - from) / 1000);
}

const KINDS = {
  send: { measure: send, unit: "MiB/s" },
  receive: { measure: receive, unit: "MiB/s" },
  connections: { measure: connections, unit: "connections/s" },
} as const;

/** Bytes and connections a second between a guest and its host. */
export const vsock: Bench = {
  summary:
    "MiB and connections a second between a Linux guest and Unix sockets of the host, beside vhost-device-vsock.",
  needs: ["qemu", "guest"],
  options: {
    what: {
      value: "LIST",
      help: "send, receive, connections (default all), as seen by the guest.",
    },
  },
  examples: [["deno task bench vsock --what=send", "From the guest to the host."]],
  async measure({ values, rounds, scale, scope, progress }): Promise<Findings> {
    const kinds = choices(
      "what",
      String(values.what ?? "send,receive,connections"),
      Object.keys(KINDS) as (keyof typeof KINDS)[],
    );
    const theirs = peer("vhost-device-vsock");
    const stages = [
      await stage(scope, "ours", false),
      ...("missing" in theirs ? [] : [await stage(scope, "vhost-device-vsock", true)]),
    ];
    progress.start(kinds.length);
    const rows: Row[] = [];
    for (const what of kinds) {
      const { measure, unit } = KINDS[what];
      const found = await alternate(
        stages,
        rounds,
        async (each): Promise<Record<string, number>> => ({ rate: await measure(each, scale) }),
      );
      rows.push({ point: { what }, unit, better: "more", figures: found.rate });
      progress.step(what);
    }
    return {
      title:
        "A Linux guest in QEMU, which emulates its processor, and a program in JavaScript at the host's end: " +
        "both take more time than the device.",
      subjects: stages.map(({ name, peer }) => ({ name, peer })),
      rows,
      across: "what",
      notes: "missing" in theirs ? [theirs.missing] : [],
    };
  },
};
