import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { AddressInfo } from "node:net";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { Guest, type PlugOptions } from "../support/guest.ts";
import { MIB } from "../support/image.ts";
import { OurBackend, root, startCommand, startDeno } from "../support/our_backend.ts";
import { readPcap } from "../support/pcap.ts";
import { type PeerName, peerPath, realTest } from "../support/peers.ts";
import { Child } from "../support/process.ts";
import { runtime } from "../support/runtime.ts";
import { restoreGuest } from "../support/snapshot.ts";
import { bringUp, planTap, remove, type TapPlan } from "../support/tap.ts";

// Linux's driver in QEMU, and what is behind the card.

const needs: readonly PeerName[] = ["qemu", "guest"];

/** Feature bits by their place in what the guest's kernel prints. */
const BIT = {
  CSUM: 0,
  GUEST_CSUM: 1,
  MTU: 3,
  GUEST_TSO4: 7,
  HOST_TSO4: 11,
  MRG_RXBUF: 15,
  MQ: 22,
  PACKED: 34,
} as const;

const MAC = "52:54:00:00:00:";

interface CardOptions {
  readonly network?: string;
  readonly args?: readonly string[];
  readonly socket?: string;
  readonly replaces?: OurBackend;
}

/** Serves a card by the command line; returns when it listens. */
async function startCard(scope: Scope, options: CardOptions = {}): Promise<OurBackend> {
  const {
    network = "switch",
    args = [],
    replaces,
    socket = replaces?.socket ?? join(tempDir(scope), "net.sock"),
  } = options;
  const child = startCommand(scope, ["net", `--socket-path=${socket}`, `--network=${network}`, ...args]);
  await child.waitLine(/^vhost-user net: .* on /);
  return new OurBackend(scope, child, socket, replaces);
}

/** Plugs a card into a guest and takes it into use with an address. */
async function plug(
  guest: Guest,
  card: OurBackend,
  address: string,
  options: PlugOptions & { mac?: string } = {},
): Promise<void> {
  const { mac = `${MAC}01`, props = {} } = options;
  await guest.plug("virtio-net-pci", card.socket, { ...options, props: { mac, romfile: "", ...props } });
  await guest.waitFor("[ -e /sys/class/net/eth0 ]");
  await guest.run(`ip addr add ${address} dev eth0; ip link set eth0 up`);
}

async function features(guest: Guest): Promise<string> {
  return await guest.run("cat /sys/class/net/eth0/device/features");
}

/** Shell: descriptor 9 is an input that never ends. By itself, nc leaves when its input does, with what has come so far. */
const ENDLESS = "[ -p /tmp/endless ] || mkfifo /tmp/endless; exec 9<>/tmp/endless";

/** Shell: what comes to port 5000 goes to /tmp/in; there is /tmp/done when it has ended. */
const LISTEN = `${ENDLESS}; (nc -l -p 5000 <&9 >/tmp/in; touch /tmp/done) >/dev/null 2>&1 &`;

/** A server on the host that takes whatever comes, or gives `data` to whoever connects. */
async function serveTcp(
  scope: Scope,
  host: string,
  data?: Uint8Array,
): Promise<{ port: number; got: Promise<string>; stop(): void }> {
  const sockets = new Set<Socket>();
  let done: (hash: string) => void;
  const got = new Promise<string>((resolve) => done = resolve);
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    if (data !== undefined) {
      socket.end(data);
      return;
    }
    const hash = createHash("sha256");
    socket.on("data", (chunk) => hash.update(chunk));
    socket.on("end", () => {
      done(hash.digest("hex"));
      socket.end();
    });
  });
  server.listen(0, host);
  await once(server, "listening");
  onEnd(scope, () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, got, stop: () => server.close() };
}

/** A guest's card on a TAP device of this machine. */
async function tapGuest(
  scope: Scope,
  options: PlugOptions & { args?: readonly string[]; smp?: number } = {},
): Promise<{ tap: TapPlan; card: OurBackend; guest: Guest }> {
  const tap = planTap();
  const card = await startCard(scope, { network: `tap:${tap.name}`, args: options.args });
  await bringUp(tap);
  const guest = await restoreGuest(scope, options.smp === undefined ? {} : { smp: options.smp });
  await plug(guest, card, `${tap.guest}/30`, options);
  return { tap, card, guest };
}

/** Sends and receives some MiB, compares them. */
async function checkTcp(scope: Scope, guest: Guest, host: string): Promise<void> {
  const data = randomBytes(4 * MIB);
  const sum = createHash("sha256").update(data).digest("hex");
  const source = await serveTcp(scope, host, data);
  assert.equal(
    await guest.run(
      `${ENDLESS}; nc ${host} ${source.port} <&9 >/tmp/data; sha256sum </tmp/data | cut -c1-64`,
      60_000,
    ),
    sum,
  );
  const sink = await serveTcp(scope, host);
  await guest.run(`nc ${host} ${sink.port} </tmp/data`, 60_000);
  assert.equal(await sink.got, sum);
}

async function finish(cards: readonly OurBackend[], guests: readonly Guest[]): Promise<void> {
  for (const guest of guests) await guest.stop();
  for (const card of cards) await card.checkUnharmed();
}

for (const [name, props] of [["split", {}], ["packed", { packed: true }]] as const) {
  realTest(
    `a guest talks with the host by TAP, checksums and segments left to others: ${name}`,
    [...needs, "tun"],
    {},
    async (t) => {
      const pcap = join(tempDir(t), "net.pcap");
      const { tap, card, guest } = await tapGuest(t, { args: [`--pcap=${pcap}`], props });
      const accepted = await features(guest);
      for (const bit of [BIT.CSUM, BIT.GUEST_CSUM, BIT.GUEST_TSO4, BIT.HOST_TSO4, BIT.MRG_RXBUF]) {
        assert.equal(accepted[bit], "1", `feature ${bit} of ${accepted}`);
      }
      assert.equal(accepted[BIT.PACKED], name === "packed" ? "1" : "0");
      const answer = await guest.run(
        `ping -c 3 -W 5 -i 0.2 ${tap.host}; ping -c 1 -W 5 -s 30000 ${tap.host}`,
      );
      assert.match(answer, /3 packets transmitted, 3 packets received, 0% packet loss/);
      assert.match(answer, /1 packets transmitted, 1 packets received/);
      await checkTcp(t, guest, tap.host);
      // And from the host into the guest.
      await guest.run(LISTEN);
      await guest.waitFor("netstat -ltn | grep -q :5000");
      const data = randomBytes(MIB);
      // Asked beforehand: while frames pour in, the guest loses what is typed at its terminal.
      const done = guest.waitFor("[ -e /tmp/done ]", 30_000);
      const socket = connect(5000, tap.guest);
      socket.end(data);
      await once(socket, "close");
      await done;
      assert.equal(
        await guest.run("sha256sum </tmp/in | cut -c1-64"),
        createHash("sha256").update(data).digest("hex"),
      );
      await finish([card], [guest]);
      const lengths = readPcap(pcap).map(({ length }) => length);
      assert.ok(Math.max(...lengths) > 20_000, "frames went uncut");
    },
  );
}

realTest(
  "100 MiB each way by TAP, checked by both sides",
  [...needs, "tun"],
  { timeout: 300_000 },
  async (t) => {
    const { tap, card, guest } = await tapGuest(t);
    const data = randomBytes(100 * MIB);
    const hash = createHash("sha256").update(data).digest("hex");
    const source = await serveTcp(t, tap.host, data);
    const received = `${ENDLESS}; nc ${tap.host} ${source.port} <&9 | sha256sum | cut -c1-64`;
    assert.equal(await guest.run(received, 140_000), hash);

    // The other way a MiB that is known here, a hundred times, with a number before each.
    const part = data.subarray(0, MIB);
    const piece = await serveTcp(t, tap.host, part);
    await guest.run(`${ENDLESS}; nc ${tap.host} ${piece.port} <&9 >/tmp/part`);
    const expected = createHash("sha256");
    for (let i = 1; i <= 100; i++) expected.update(`${i}\n`).update(part);
    const sink = await serveTcp(t, tap.host);
    await guest.run(
      `for i in $(seq 100); do echo $i; cat /tmp/part; done | nc ${tap.host} ${sink.port}`,
      140_000,
    );
    assert.equal(await sink.got, expected.digest("hex"));
    await finish([card], [guest]);
  },
);

realTest("two queue pairs by TAP", [...needs, "tun"], {}, async (t) => {
  const { tap, card, guest } = await tapGuest(t, {
    args: ["--queue-pairs=2"],
    smp: 2,
    queues: 2,
    props: { mq: true, vectors: 6 },
  });
  assert.equal((await features(guest))[BIT.MQ], "1");
  const { port, got } = await serveTcp(t, tap.host);
  // Each processor has a pair for what it sends; answers come by the pair that their connection was sent by.
  await guest.run(
    `for cpu in 0 1; do taskset $((1 << cpu)) ping -c 20 -i 0.02 -W 5 ${tap.host} >/dev/null || exit 1; done`,
  );
  await guest.run(`dd if=/dev/zero bs=1M count=4 2>/dev/null | taskset 1 nc ${tap.host} ${port}`, 60_000);
  await got;
  await checkTcp(t, guest, tap.host);
  const interrupts = await guest.run("grep virtio /proc/interrupts");
  for (const queue of ["output.0", "output.1", "input.0"]) {
    const line = interrupts.split("\n").find((each) => each.includes(queue));
    assert.ok(line !== undefined && /\s[1-9]\d*\s/.test(line), `${queue} was used: ${interrupts}`);
  }
  await finish([card], [guest]);
});

for (
  const [name, props] of [
    ["both with offloads", {}],
    ["one without: the switch finishes what it gets", {
      guest_csum: false,
      guest_tso4: false,
      guest_tso6: false,
      guest_ecn: false,
    }],
  ] as const
) {
  realTest(`a switch joins two guests: ${name}`, needs, {}, async (t) => {
    const card = await startCard(t);
    const guests = await Promise.all([restoreGuest(t), restoreGuest(t)]);
    const [a, b] = guests;
    await plug(a, card, "10.0.0.1/24", { mac: `${MAC}0a` });
    await plug(b, card, "10.0.0.2/24", { mac: `${MAC}0b`, props });
    const accepted = await features(b);
    assert.equal(accepted[BIT.GUEST_TSO4], "guest_tso4" in props ? "0" : "1", accepted);
    assert.match(await a.run("ping -c 3 -i 0.2 -W 5 10.0.0.2"), /3 packets received/);
    await b.run(LISTEN);
    await b.waitFor("netstat -ltn | grep -q :5000");
    const sum = await a.run(
      "dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null; sha256sum </tmp/data",
    );
    const done = b.waitFor("[ -e /tmp/done ]", 30_000);
    await a.run("nc 10.0.0.2 5000 </tmp/data", 60_000);
    await done;
    assert.equal(await b.run("sha256sum </tmp/in"), sum);
    await finish([card], guests);
  });
}

realTest("the front-end sets the MTU", needs, {}, async (t) => {
  const card = await startCard(t);
  const guest = await restoreGuest(t);
  await plug(guest, card, "10.0.0.1/24", { props: { host_mtu: 1400 } });
  assert.equal((await features(guest))[BIT.MTU], "1");
  assert.equal(await guest.run("cat /sys/class/net/eth0/mtu"), "1400");
  await finish([card], [guest]);
});

realTest("a card comes back after its back-end was killed", [...needs, "tun"], {}, async (t) => {
  const { tap, card, guest } = await tapGuest(t, { reconnectMs: 100 });
  await guest.run(`ping -c 1 -W 5 ${tap.host}`);
  card.child.kill("SIGKILL");
  await card.child.ended;
  const next = await startCard(t, { network: `tap:${tap.name}`, replaces: card });
  await bringUp(tap);
  await guest.run(`ping -c 1 -W 30 ${tap.host} || ping -c 1 -W 10 ${tap.host}`, 60_000);
  await checkTcp(t, guest, tap.host);
  await guest.stop();
  assert.deepEqual(next.complaints, []);
});

realTest("a guest that moves to another QEMU is announced, when it does not do that itself", needs, {
  timeout: 120_000,
}, async (t) => {
  const folder = tempDir(t);
  const pcap = join(folder, "net.pcap");
  const card = await startCard(t, { args: [`--pcap=${pcap}`] });
  const machine = (incoming: boolean) => ({
    modules: ["virtio_net"],
    devices: [
      ...["-chardev", `socket,id=c0,path=${card.socket}`, "-netdev", "vhost-user,id=n0,chardev=c0"],
      ...["-device", `virtio-net-pci,netdev=n0,romfile=,guest_announce=off,mac=${MAC}0a`],
    ],
    ...incoming ? { incoming: "defer" } : {},
  });
  const source = await Guest.start(t, machine(false));
  await source.run("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up");
  const other = await restoreGuest(t);
  await plug(other, card, "10.0.0.2/24", { mac: `${MAC}0b` });
  await other.run("ping -c 1 -W 5 10.0.0.1");
  await other.run("(ping -i 0.1 10.0.0.1 >/tmp/pings 2>&1) &");
  const target = await Guest.start(t, machine(true));
  const uri = `unix:${join(folder, "migration")}`;
  await target.qmp("migrate-incoming", { uri });
  await source.qmp("migrate", { uri });
  await source.waitStatus("completed", "query-migrate", 30_000);
  await target.waitStatus("running");
  await source.stop();
  const seen = Number(await other.run("grep -c bytes.from /tmp/pings || true"));
  await other.waitFor(`[ $(grep -c bytes.from /tmp/pings) -gt ${seen + 20} ]`);
  await target.run("ping -c 1 -W 5 10.0.0.2");
  const rarp = readPcap(pcap).filter((frame) => frame[12] === 0x80 && frame[13] === 0x35);
  assert.ok(rarp.some((frame) => frame[11] === 0x0a), "it has announced itself");
  await finish([card], [other, target]);
});

realTest(
  "passt at the other end of a stream gives the guest an address and the host",
  [...needs, "passt"],
  {},
  async (t) => {
    const folder = tempDir(t);
    const path = join(folder, "passt.sock");
    // One shot, as root it would give up its rights to the socket's folder.
    const passt = Child.start(t, peerPath("passt"), [
      ...[
        "-f",
        "-s",
        path,
        "-a",
        "10.0.2.15",
        "-n",
        "24",
        "-g",
        "10.0.2.2",
        "--map-host-loopback",
        "10.0.2.2",
      ],
      ...["--runas", "0:0"],
    ]);
    await passt.waitSocket(path);
    const card = await startCard(t, { network: `stream:${path}` });
    const guest = await restoreGuest(t);
    await guest.plug("virtio-net-pci", card.socket, { props: { mac: `${MAC}01`, romfile: "" } });
    await guest.waitFor("[ -e /sys/class/net/eth0 ]");
    const lease = await guest.run("ip link set eth0 up; udhcpc -i eth0 -n -q -f -s /bin/true 2>&1");
    assert.match(lease, /lease of 10\.0\.2\.15 obtained/);
    await guest.run("ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2");
    const data = randomBytes(4 * MIB);
    const sum = createHash("sha256").update(data).digest("hex");
    const source = await serveTcp(t, "127.0.0.1", data);
    assert.equal(
      await guest.run(
        `${ENDLESS}; nc 10.0.2.2 ${source.port} <&9 >/tmp/data; sha256sum </tmp/data | cut -c1-64`,
        60_000,
      ),
      sum,
    );
    const sink = await serveTcp(t, "127.0.0.1");
    await guest.run(`nc 10.0.2.2 ${sink.port} </tmp/data`, 60_000);
    assert.equal(await sink.got, sum);
    await finish([card], [guest]);
  },
);

realTest("two cards of ours, joined by a stream", needs, {}, async (t) => {
  const folder = tempDir(t);
  const wire = join(folder, "wire.sock");
  const start = (name: string, network: string) => {
    const socket = join(folder, name);
    const child = startCommand(t, [
      "net",
      `--socket-path=${socket}`,
      `--network=${network}:${wire}`,
      "--verbose",
    ]);
    return { child, socket };
  };
  const listening = start("one.sock", "listen");
  await listening.child.waitSocket(wire);
  const both = [listening, start("two.sock", "stream")];
  for (const { child } of both) {
    await child.waitLine(/the peer is connected/);
    await child.waitLine(/^vhost-user net: .* on /);
  }
  const cards = both.map(({ child, socket }) => new OurBackend(t, child, socket));
  const guests = await Promise.all([restoreGuest(t), restoreGuest(t)]);
  await plug(guests[0], cards[0], "10.0.0.1/24", { mac: `${MAC}0a` });
  await plug(guests[1], cards[1], "10.0.0.2/24", { mac: `${MAC}0b` });
  assert.match(await guests[0].run("ping -c 3 -i 0.2 -W 5 10.0.0.2"), /3 packets received/);
  await finish(cards, guests);
});

realTest("user-mode networking: an address, names, what is allowed and what is not", needs, {}, async (t) => {
  const data = randomBytes(4 * MIB);
  const sum = createHash("sha256").update(data).digest("hex");
  const source = await serveTcp(t, "127.0.0.1", data);
  const sink = await serveTcp(t, "127.0.0.1");
  const secret = await serveTcp(t, "127.0.0.1", data);
  const closed = await serveTcp(t, "127.0.0.1");
  closed.stop();
  const socket = join(tempDir(t), "net.sock");
  const child = startDeno(t, [
    // Deno refuses what this list leaves out, whatever the rules say.
    `--allow-net=${[source, sink, closed].map(({ port }) => `127.0.0.1:${port}`)}`,
    ...[join(root, "src/cli/mod.ts"), "net", `--socket-path=${socket}`, "--network=user"],
    "--allow=" + [
      `denied.test=127.0.0.1:${secret.port}`,
      `source.test:80=127.0.0.1:${source.port}`,
      `sink.test=127.0.0.1:${sink.port}`,
      `closed.test=127.0.0.1:${closed.port}`,
      `*.wild.test=127.0.0.1:${source.port}`,
    ].join(","),
    "--verbose",
  ]);
  await child.waitLine(/^vhost-user net: .* on /);
  const card = new OurBackend(t, child, socket);
  const guest = await restoreGuest(t);
  await guest.plug("virtio-net-pci", socket, { props: { mac: `${MAC}01`, romfile: "" } });
  await guest.waitFor("[ -e /sys/class/net/eth0 ]");
  const lease = await guest.run("ip link set eth0 up; udhcpc -i eth0 -n -q -f -s /bin/true 2>&1");
  assert.match(lease, /lease of 10\.0\.2\.15 obtained from 10\.0\.2\.2, lease time 86400/);
  await guest.run(
    "ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; echo nameserver 10.0.2.3 >/etc/resolv.conf",
  );
  assert.match(await guest.run("ping -c 2 -i 0.2 -W 5 10.0.2.2"), /2 packets received/);
  const download = (host: string, port: number): Promise<string> =>
    guest.run(`${ENDLESS}; nc ${host} ${port} <&9 >/tmp/data; sha256sum </tmp/data | cut -c1-64`, 60_000);
  assert.equal(await download("source.test", 80), sum);
  assert.equal(await download("a.b.wild.test", 5), sum);
  await guest.run("nc sink.test 1234 </tmp/data", 60_000);
  assert.equal(await sink.got, sum);
  const refused = async (host: string, port: number, why: RegExp): Promise<void> => {
    const said = await guest.run(`${ENDLESS}; nc ${host} ${port} <&9 2>&1 || true`, 30_000);
    assert.match(said, why, `${host}:${port}`);
  };
  await refused("source.test", 81, /refused/);
  await refused("closed.test", 80, /refused/);
  // Node has no such list.
  if (runtime === "deno") await refused("denied.test", 80, /refused/);
  await refused("wild.test", 80, /bad address/);
  await refused("evil.test", 80, /bad address/);
  // By address there is nobody: not the name server, not the gateway, not the servers behind the names.
  await refused("10.0.2.3", secret.port, /refused/);
  await refused("10.0.2.2", secret.port, /refused/);
  await refused("192.0.2.1", 80, /refused/);
  await guest.stop();
  await card.checkUnharmed(
    runtime === "node" ? [] : [
      `warning: net: the network failed: NotCapable: Requires net access to "127.0.0.1:${secret.port}", ` +
      "run again with the --allow-net flag",
    ],
  );
  const log = child.output;
  for (
    const line of [
      /connected source\.test:80/,
      /refused source\.test:81: no rule/,
      /refused closed\.test:80: .*REFUSED/,
    ]
  ) {
    assert.match(log, line);
  }
});

realTest("the web page of the examples", needs, {}, async (t) => {
  const dir = tempDir(t);
  const socket = join(dir, "net.sock");
  const source = readFileSync(join(root, "examples/net.ts"), "utf8");
  // As it stands, but for the path: other tests may be running.
  assert.equal(source.split('"/tmp/net.sock"').length, 2);
  const script = join(dir, "net.ts");
  writeFileSync(script, source.replace('"/tmp/net.sock"', JSON.stringify(socket)));
  const child = startDeno(t, ["--no-lock", `--config=${join(root, "deno.json")}`, script]);
  await child.waitSocket(socket);
  const guest = await restoreGuest(t);
  await guest.plug("virtio-net-pci", socket, { props: { mac: `${MAC}01`, romfile: "" } });
  await guest.waitFor("[ -e /sys/class/net/eth0 ]");
  await guest.run(
    "ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2; " +
      "echo nameserver 10.0.2.3 >/etc/resolv.conf",
  );
  assert.equal(await guest.run("wget -q -O - http://hello.test/"), "Hello, guest.");
  assert.match(await guest.run("wget -q -O - http://other.test/ 2>&1 || true"), /bad address/);
  await guest.stop();
  assert.equal(child.output, "");
});

realTest(
  "an interface that is removed under a guest ends nothing but itself",
  [...needs, "tun"],
  {},
  async (t) => {
    const { tap, card, guest } = await tapGuest(t);
    await guest.run(`ping -c 1 -W 5 ${tap.host}`);
    await remove(tap);
    await guest.run(`ping -c 2 -i 0.2 -W 1 ${tap.host} || true`);
    await guest.run("ip link set eth0 down; ip link set eth0 up");
    assert.equal(card.child.code, undefined, card.child.output);
    assert.ok(card.complaints.length > 0 && card.complaints.length < 5, `${card.complaints}`);
    await guest.stop();
  },
);
