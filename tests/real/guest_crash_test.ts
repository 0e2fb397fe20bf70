import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Guest } from "../support/guest.ts";
import { installProgram } from "../support/guest_program.ts";
import { newImage } from "../support/image.ts";
import { startDisk } from "../support/our_backend.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { Random } from "../support/random.ts";
import { restoreGuest } from "../support/snapshot.ts";

// A Linux guest on QEMU writes numbered blocks (block_writer.c); back-ends, and QEMU itself, are killed meanwhile.

const needs: readonly PeerName[] = ["qemu", "guest", "cc"];
const BLOCK = 4096;
const BLOCKS = 64;
const DEPTH = 16;

/** How the disk is served and driven. */
interface Case {
  readonly name: string;
  readonly args: readonly string[];
  readonly workers?: number;
  readonly props: Readonly<Record<string, boolean | number>>;
}

const cases: readonly Case[] = [
  { name: "split, io_uring", args: ["--aio=io_uring"], props: {} },
  { name: "packed, io_uring, 2 workers", args: ["--aio=io_uring"], workers: 2, props: { packed: true } },
  { name: "packed, sync", args: ["--aio=sync"], props: { packed: true } },
];

/** Kills in each case. */
const KILLS = 10;

async function guestWithWriter(t: TestContext): Promise<{ guest: Guest; writer: string }> {
  const guest = await restoreGuest(t);
  const program = await installProgram(t, guest, "block_writer");
  return { guest, writer: `${program} /dev/vda ${BLOCKS} ${DEPTH} /tmp/stop` };
}

for (const { name, args, workers, props } of cases) {
  realTest(`a guest writes on while its back-end is killed ${KILLS} times: ${name}`, needs, {
    timeout: 180_000,
  }, async (t) => {
    const random = new Random(31);
    const image = newImage(t, BLOCKS * BLOCK);
    const options = { file: image, args: ["--num-queues=1", ...args], workers };
    let disk = await startDisk(t, options);
    const { guest, writer } = await guestWithWriter(t);
    await guest.plug("vhost-user-blk-pci", disk.socket, {
      reconnectMs: 10,
      props: { "num-queues": 1, ...props },
    });
    await guest.waitFor("[ -b /dev/vda ]");
    await guest.run(`${writer} >/tmp/said 2>&1 &`);
    const said = async () => Number(await guest.run("wc -l </tmp/said", 60_000));
    for (let kills = 0; kills < KILLS; kills++) {
      if (random.int(0, 2) > 0) {
        const goal = await said() + random.int(1, 100);
        await guest.waitFor(`[ $(wc -l </tmp/said) -ge ${goal} ]`, 30_000);
      } else await sleep(random.int(0, 100));
      disk.child.kill("SIGKILL");
      await disk.child.ended;
      disk = await startDisk(t, { ...options, replaces: disk });
    }
    const goal = await said() + 100;
    await guest.waitFor(`[ $(wc -l </tmp/said) -ge ${goal} ]`, 30_000);
    await guest.run("touch /tmp/stop");
    await guest.waitFor("! pidof block_writer >/dev/null", 30_000);
    const last = await guest.run("tail -n 1 /tmp/said");
    assert.match(last, /^verified \d+$/);
    assert.equal(await guest.run("dmesg | grep 'I/O error' || true"), "");
    t.diagnostic(`${KILLS} kills survived, ${last.slice("verified ".length)} writes verified`);
    await guest.stop();
    await disk.checkUnharmed();
  });
}

/** A block's words, as block_writer.c makes them. */
function contentsOf(block: number, number: number): Uint8Array {
  const words = new BigUint64Array(BLOCK / 8);
  words.set([0x6b63_6f6c_6275_7276n, BigInt(block), BigInt(number)]);
  let x = BigInt(block) * 1000003n + BigInt(number);
  for (let i = 3; i < words.length; i++) {
    x = BigInt.asUintN(64, x * 6364136223846793005n + 1442695040888963407n);
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

/** The number of the last write that has reached the image. */
function newest(image: string): number {
  const bytes = readFileSync(image);
  return Math.max(
    ...Array.from({ length: BLOCKS }, (_, block) => Number(bytes.readBigUInt64LE(block * BLOCK + 16))),
  );
}

realTest(
  "QEMU is killed while it writes; the back-end serves the next, and what was acknowledged is there",
  needs,
  {
    timeout: 180_000,
  },
  async (t) => {
    const random = new Random(32);
    const image = newImage(t, BLOCKS * BLOCK);
    const disk = await startDisk(t, { file: image, args: ["--num-queues=1"] });
    for (const packed of [false, true, true]) {
      const { guest, writer } = await guestWithWriter(t);
      await guest.plug("vhost-user-blk-pci", disk.socket, { props: { "num-queues": 1, packed } });
      await guest.waitFor("[ -b /dev/vda ]");
      // Every guest starts anew, from a disk of zeros.
      await guest.run("/bin/blkdiscard -z /dev/vda");
      // The error has what the guest said until it was gone.
      const ended = guest.run(writer, 60_000).then(() => "", (error) => `${error}`);
      const goal = random.int(50, 400);
      for (const deadline = Date.now() + 60_000; newest(image) < goal; await sleep(2)) {
        assert.ok(Date.now() < deadline, `write ${goal} has not come`);
      }
      guest.qemu.kill("SIGKILL");
      const acknowledged = new Map<number, number>();
      for (const [, block, number] of (await ended).matchAll(/^(\d+) (\d+)$/gm)) {
        acknowledged.set(Number(block), Number(number));
      }
      assert.ok(acknowledged.size > 0, "something was acknowledged");
      await disk.checkUnharmed();
      const bytes = readFileSync(image);
      for (let block = 0; block < BLOCKS; block++) {
        const found = bytes.subarray(block * BLOCK, (block + 1) * BLOCK);
        const number = Number(found.readBigUInt64LE(16));
        const least = acknowledged.get(block) ?? 0;
        assert.ok(number >= least, `block ${block} holds write ${number}, ${least} was acknowledged`);
        const expected = number === 0 ? new Uint8Array(BLOCK) : contentsOf(block, number);
        assert.ok(found.equals(expected), `block ${block} of write ${number} is torn`);
      }
      t.diagnostic(`${acknowledged.size} blocks were acknowledged when QEMU was killed`);
    }
  },
);
