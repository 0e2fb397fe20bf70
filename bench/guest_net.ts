import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { onEnd, type Scope, tempDir } from "../tests/support/cleanup.ts";
import type { Guest } from "../tests/support/guest.ts";
import { peer, peerPath } from "../tests/support/peers.ts";
import { Child } from "../tests/support/process.ts";
import { restoreGuest } from "../tests/support/snapshot.ts";
import { bringUp, planTap } from "../tests/support/tap.ts";
import { alternate } from "./alternate.ts";
import { type Bench, choices, type Findings, type Row, type Subject } from "./bench.ts";

const MIB = 1 << 20;
/** What one measurement moves, MiB, and how many connections it makes. */
const AMOUNT = 128;
const CONNECTIONS = 200;
const NAME = "host.test";

const cli = fileURLToPath(new URL("../src/cli/mod.ts", import.meta.url));

/** What the host does with the connection that is measured. */
interface Host {
  take: (socket: Socket) => void;
}

/** A card with a guest that runs. */
interface Stage extends Subject {
  readonly guest: Guest;
  /** What the guest calls the host. */
  readonly host: string;
  readonly port: number;
}

/** Listens at an address of this machine. Returns the port. */
async function listen(scope: Scope, host: Host, address: string): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    host.take(socket);
  });
  server.listen(0, address);
  await once(server, "listening");
  onEnd(scope, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function plugged(scope: Scope, socket: string): Promise<Guest> {
  const guest = await restoreGuest(scope);
  await guest.plug("virtio-net-pci", socket, { props: { mac: "52:54:00:00:00:01", romfile: "" } });
  await guest.waitFor("[ -e /sys/class/net/eth0 ]");
  return guest;
}

async function ours(
  scope: Scope,
  network: string,
  flags: readonly string[],
  args: readonly string[],
): Promise<string> {
  const socket = join(tempDir(scope), "s");
  const child = Child.start(scope, process.execPath, [
    ...["run", "--allow-ffi", ...flags, cli, "net"],
    ...[`--socket-path=${socket}`, `--network=${network}`, ...args],
  ]);
  await child.waitSocket(socket, 30_000);
  return socket;
}

/** The addresses that user-mode networks give, and where names are asked for. */
const USER = "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; " +
  "echo nameserver 10.0.2.3 >/etc/resolv.conf";

async function tapStage(scope: Scope, host: Host): Promise<Stage> {
  const tap = planTap();
  const socket = await ours(scope, `tap:${tap.name}`, [], []);
  await bringUp(tap);
  const guest = await plugged(scope, socket);
  await guest.run(`ip addr add ${tap.guest}/30 dev eth0; ip link set eth0 up`);
  return { name: "ours, tap", peer: false, guest, host: tap.host, port: await listen(scope, host, tap.host) };
}

async function userStage(scope: Scope, port: number): Promise<Stage> {
  const socket = await ours(scope, "user", ["--allow-net"], [`--allow=${NAME}=127.0.0.1:${port}`]);
  const guest = await plugged(scope, socket);
  await guest.run(USER);
  return { name: "ours, user", peer: false, guest, host: NAME, port };
}

const PASST = [
  ...["-f", "-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2", "--map-host-loopback", "10.0.2.2"],
  // As root it would give up its rights to the socket's folder.
  ...["--runas", "0:0"],
];

async function passtStage(scope: Scope, port: number): Promise<Stage> {
  const socket = join(tempDir(scope), "s");
  const child = Child.start(scope, peerPath("passt"), [...PASST, "--vhost-user", "-s", socket]);
  await child.waitSocket(socket);
  const guest = await plugged(scope, socket);
  await guest.run(USER);
  return { name: "passt", peer: true, guest, host: "10.0.2.2", port };
}

/** A stream of passt's, as QEMU itself would use it, by way of our card. */
async function streamStage(scope: Scope, port: number): Promise<Stage> {
  const path = join(tempDir(scope), "p");
  const child = Child.start(scope, peerPath("passt"), [...PASST, "-s", path]);
  await child.waitSocket(path);
  const guest = await plugged(scope, await ours(scope, `stream:${path}`, [], []));
  await guest.run(USER);
  return { name: "ours, stream to passt", peer: false, guest, host: "10.0.2.2", port };
}

/** Shell: descriptor 9 is an input that does not end. By itself, nc leaves when its input does. */
const ENDLESS = "[ -p /tmp/endless ] || mkfifo /tmp/endless; exec 9<>/tmp/endless";

/** The guest sends to a program of the host. MiB a second. */
async function send({ guest, host, port, name }: Stage, end: Host, scale: number): Promise<number> {
  const mib = Math.ceil(AMOUNT * scale);
  const done = new Promise<number>((resolve, reject) => {
    end.take = (socket) => {
      const from = performance.now();
      let got = 0;
      socket.on("data", (chunk) => got += chunk.length);
      socket.once("end", () => {
        socket.end();
        if (got === mib * MIB) resolve((performance.now() - from) / 1000);
        else reject(new Error(`${name}: ${got} bytes came of ${mib * MIB}`));
      });
    };
  });
  await guest.run(`dd if=/dev/zero bs=64k count=${16 * mib} 2>/dev/null | nc ${host} ${port}`, 300_000);
  return mib / await done;
}

/** The guest receives from a program of the host. MiB a second. */
async function receive({ guest, host, port, name }: Stage, end: Host, scale: number): Promise<number> {
  const mib = Math.ceil(AMOUNT * scale);
  const data = new Uint8Array(MIB);
  const done = new Promise<number>((resolve) => {
    end.take = (socket) => {
      const from = performance.now();
      socket.once("close", () => resolve((performance.now() - from) / 1000));
      socket.resume();
      let left = mib;
      const more = (): void => {
        while (left > 0) {
          left--;
          if (!socket.write(data)) {
            socket.once("drain", more);
            return;
          }
        }
        socket.end();
      };
      more();
    };
  });
  const got = await guest.run(
    `${ENDLESS}; nc ${host} ${port} <&9 | wc -c`,
    300_000,
  );
  if (Number(got) !== mib * MIB) throw new Error(`${name}: ${got} bytes came of ${mib * MIB}`);
  return mib / await done;
}

/** The guest connects, reads a word and the end, and closes. Connections a second. */
async function connections({ guest, host, port }: Stage, end: Host, scale: number): Promise<number> {
  end.take = (socket) => {
    socket.resume();
    socket.end("word\n");
  };
  const count = Math.ceil(CONNECTIONS * scale);
  const from = performance.now();
  const got = await guest.run(
    `${ENDLESS}; i=0; while [ $i -lt ${count} ]; do nc ${host} ${port} <&9; i=$((i+1)); done 2>&1 | grep -c word`,
    300_000,
  );
  if (Number(got) !== count) throw new Error(`${got} of ${count} connections`);
  return count / ((performance.now() - from) / 1000);
}

const KINDS = {
  send: { measure: send, unit: "MiB/s" },
  receive: { measure: receive, unit: "MiB/s" },
  connections: { measure: connections, unit: "connections/s" },
} as const;

/** Bytes and connections a second between a guest and its host, by TCP. */
export const guestNet: Bench = {
  summary:
    "MiB and connections a second by TCP between a Linux guest and its host: TAP, user mode, and passt.",
  needs: ["qemu", "guest", "tun"],
  options: {
    what: { value: "LIST", help: "send, receive, connections (default send,receive), as seen by the guest." },
  },
  examples: [["deno task bench guest-net --what=send", "From the guest to the host."]],
  async measure({ values, rounds, scale, scope, progress }): Promise<Findings> {
    const kinds = choices(
      "what",
      String(values.what ?? "send,receive"),
      Object.keys(KINDS) as (keyof typeof KINDS)[],
    );
    const theirs = peer("passt");
    const host: Host = { take: (socket) => socket.end() };
    const port = await listen(scope, host, "127.0.0.1");
    const stages = [await tapStage(scope, host), await userStage(scope, port)];
    if (!("missing" in theirs)) stages.push(await streamStage(scope, port), await passtStage(scope, port));
    progress.start(kinds.length);
    const rows: Row[] = [];
    for (const what of kinds) {
      const { measure, unit } = KINDS[what];
      const found = await alternate(
        stages,
        rounds,
        async (each): Promise<Record<string, number>> => ({ rate: await measure(each, host, scale) }),
      );
      rows.push({ point: { what }, unit, better: "more", figures: found.rate });
      progress.step(what);
    }
    return {
      title:
        "TCP between a Linux guest in QEMU, which emulates its processor, and a program in JavaScript on the host.",
      subjects: stages.map(({ name, peer }) => ({ name, peer })),
      rows,
      across: "what",
      notes: "missing" in theirs ? [theirs.missing] : [],
    };
  },
};
