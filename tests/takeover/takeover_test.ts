import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Writers } from "../frontend/writers.ts";
import { sameBytes } from "../session/scene.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";
import { MIB, newImage } from "../support/image.ts";
import { Random } from "../support/random.ts";
import { Succession } from "./succession.ts";

// Disks change their process while they are written to, by a front-end that does not connect again.

interface Kind {
  readonly packed?: boolean;
  readonly recorded?: boolean;
  readonly workers?: number;
  readonly aio?: "io_uring" | "sync";
}

async function outlive(scope: Scope, random: Random, kind: Kind): Promise<void> {
  const { packed = false, recorded = true, workers, aio } = kind;
  const image = newImage(scope, MIB);
  const args = ["--num-queues=2", ...aio === undefined ? [] : [`--aio=${aio}`]];
  const disks = await Succession.start(scope, { file: image, args, workers });
  const disk = await BlkDriver.connect(disks.socket, {
    numQueues: 2,
    queueSize: 32,
    depth: 12,
    withoutFeatures: packed ? 0n : mask(ringFeatures.RING_PACKED),
    withoutProtocolFeatures: recorded ? 0n : mask(protocolFeatures.INFLIGHT_SHMFD),
  });
  onEnd(scope, () => disk.frontEnd.close());
  assert.equal((disk.frontEnd.features & mask(ringFeatures.RING_PACKED)) !== 0n, packed);
  const writers = new Writers(disk, 12);
  for (let change = 1; change <= 20; change++) {
    await writers.more(random.int(1, 200));
    assert.ok(writers.pending > 0, "there is something to be lost");
    await disks.next();
    await writers.more(30);
  }
  const expected = await writers.verify();
  await disk.flush();
  sameBytes(readFileSync(image).subarray(0, expected.length), expected, "the image");
  await disk.close();
  await disks.current.checkUnharmed();
}

const KINDS: readonly (readonly [string, Kind])[] = [
  ["split rings", {}],
  ["packed rings", { packed: true }],
  ["split rings in two threads", { workers: 2 }],
  ["packed rings in two threads, not recorded in flight", { packed: true, workers: 2, recorded: false }],
  ["split rings, not recorded in flight, synchronous files", { recorded: false, aio: "sync" }],
];

for (const [name, kind] of KINDS) {
  test(
    `a disk is taken over 20 times while it is written to, and nothing is lost: ${name}`,
    { timeout: 180_000 },
    (t) => outlive(t, Random.of(t), kind),
  );
}
