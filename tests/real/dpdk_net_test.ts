import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import type { Child } from "../support/process.ts";
import { Testpmd } from "../support/testpmd.ts";

// DPDK's front-end, whose driver shares nothing with Linux's. Every frame is accounted for on both sides.

const needs: readonly PeerName[] = ["testpmd", "virtio-user"];
const RING = 256;

/** How long frames go to and fro, ms; longer, up to a limit, where they are not enough: a machine may have much else to do. */
const WHILE = 500;
const LONGEST = 20_000;
/** Frames that prove something. */
const ENOUGH = 1000;

interface Formats {
  readonly [name: string]: string;
}

const FORMATS: Formats = {
  "split": "packed_vq=0,mrg_rxbuf=1,in_order=0",
  "split, no mergeable buffers": "packed_vq=0,mrg_rxbuf=0,in_order=0",
  "split, in order": "packed_vq=0,mrg_rxbuf=1,in_order=1",
  "packed": "packed_vq=1,mrg_rxbuf=1,in_order=0",
  "packed, in order": "packed_vq=1,mrg_rxbuf=1,in_order=1",
};

/** Each property of a format, and its feature bit. */
const BITS = { packed_vq: 34, mrg_rxbuf: 15, in_order: 35 } as const;

/** The driver has taken the features that it was told to take, and no others. */
function checkFormat(ours: Child, format: string): void {
  const said = /SET_FEATURES.*?(0x[0-9a-f]+)/.exec(ours.output);
  assert.ok(said, ours.output);
  for (const [name, bit] of Object.entries(BITS)) {
    assert.equal(
      BigInt(said[1]) >> BigInt(bit) & 1n,
      format.includes(`${name}=1`) ? 1n : 0n,
      `${name} in ${said[0]}`,
    );
  }
}

interface Totals {
  readonly sent: number;
  readonly delivered: number;
  readonly dropped: number;
  readonly malformed: number;
}

/** Ends our back-end and reads what it has counted. */
async function totals(child: Child): Promise<Totals> {
  child.kill("SIGTERM");
  assert.equal(await child.waitEnd(), 0, child.output);
  const line = /(\d+) frames sent, (\d+) delivered, (\d+) dropped, (\d+) malformed/.exec(child.output);
  assert.ok(line, child.output);
  const complaints = child.output.split("\n").filter((each) => /^(warning|error)/.test(each));
  assert.deepEqual(complaints, []);
  const [sent, delivered, dropped, malformed] = line.slice(1).map(Number);
  return { sent, delivered, dropped, malformed };
}

async function pair(
  scope: Scope,
  network: string,
  format: string,
  queues = 1,
): Promise<{ ours: Child; testpmd: Testpmd }> {
  const socket = join(tempDir(scope), "net.sock");
  const ours = startCommand(scope, [
    ...["net", `--socket-path=${socket}`, `--network=${network}`, "--verbose", "--trace"],
  ]);
  await ours.waitLine(/vhost-user net: .* on /);
  const testpmd = await Testpmd.start(scope, {
    drivers: ["librte_net_virtio.so.25"],
    vdev: `net_virtio_user0,path=${socket},queues=${queues},queue_size=${RING},${format}`,
    queues,
  });
  checkFormat(ours, format);
  return { ours, testpmd };
}

/** Lets testpmd do something for a while, and until it has sent or received enough by that. */
async function forward(testpmd: Testpmd, mode: string, what?: "sent" | "received"): Promise<void> {
  await testpmd.command(`set fwd ${mode}`);
  await testpmd.command("start");
  for (const deadline = performance.now() + LONGEST;;) {
    await sleep(WHILE);
    if (what === undefined || (await testpmd.stats())[what] > ENOUGH || performance.now() > deadline) break;
  }
  await testpmd.command("stop");
}

/** Waits until testpmd's counts do not change any more. */
async function settled(testpmd: Testpmd): Promise<{ received: number; sent: number }> {
  await sleep(100);
  return await testpmd.stats();
}

for (const [name, format] of Object.entries(FORMATS)) {
  realTest(`DPDK sends, and not a frame is lost: ${name}`, needs, {}, async (t) => {
    const { ours, testpmd } = await pair(t, "null", format);
    await forward(testpmd, "txonly", "sent");
    const { sent } = await settled(testpmd);
    await testpmd.command("quit").catch(() => {});
    const counted = await totals(ours);
    assert.ok(sent > ENOUGH, `${sent} frames were sent`);
    assert.deepEqual(counted, { sent, delivered: 0, dropped: 0, malformed: 0 });
  });

  realTest(`DPDK receives what is generated: ${name}`, needs, {}, async (t) => {
    const { ours, testpmd } = await pair(t, "generate:64", format);
    await forward(testpmd, "rxonly", "received");
    const { received } = await settled(testpmd);
    await testpmd.command("quit").catch(() => {});
    const { delivered, sent, malformed } = await totals(ours);
    assert.ok(received > ENOUGH, `${received} frames were received`);
    const waiting = delivered - received;
    assert.ok(waiting >= 0 && waiting <= RING, `${delivered} were delivered, ${received} received`);
    assert.deepEqual([sent, malformed], [0, 0]);
  });

  realTest(`DPDK gets back what it has sent: ${name}`, needs, {}, async (t) => {
    const { ours, testpmd } = await pair(t, "echo", format);
    await forward(testpmd, "flowgen", "received");
    // What has come back since.
    await forward(testpmd, "rxonly");
    const stats = await settled(testpmd);
    await testpmd.command("quit").catch(() => {});
    const { sent, delivered, dropped, malformed } = await totals(ours);
    assert.ok(stats.received > ENOUGH, `${stats.received} frames came back`);
    assert.deepEqual({ sent, delivered, malformed }, {
      sent: stats.sent,
      delivered: stats.received,
      malformed: 0,
    });
    assert.equal(sent, delivered + dropped);
  });
}

for (const name of ["split", "packed"] as const) {
  realTest(`two queue pairs of DPDK: ${name}`, needs, {}, async (t) => {
    const { ours, testpmd } = await pair(t, "echo", FORMATS[name], 2);
    await forward(testpmd, "flowgen", "received");
    await forward(testpmd, "rxonly");
    const stats = await settled(testpmd);
    const text = await testpmd.command("show port xstats 0");
    await testpmd.command("quit").catch(() => {});
    const { sent, delivered } = await totals(ours);
    assert.deepEqual({ sent, delivered }, { sent: stats.sent, delivered: stats.received });
    for (const queue of [0, 1]) {
      const [, packets] = new RegExp(`rx_q${queue}_good_packets: (\\d+)`).exec(text) ?? [];
      assert.ok(Number(packets) > 0, `queue ${queue} has received: ${text}`);
    }
  });
}
