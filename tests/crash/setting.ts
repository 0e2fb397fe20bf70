import assert from "node:assert/strict";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/mod.ts";
import { BlkDriver, type BlkDriverOptions, DRIVER_FEATURES } from "../../src/tools/blk_driver.ts";

/** Sectors that are written to: few, so that writes meet. */
export const SECTORS = 512;

/** How a disk is served and driven. */
export interface Setting {
  /** Packed rings, or split. */
  readonly packed: boolean;
  /** Whether requests are returned in the order in which they came (IN_ORDER). */
  readonly inOrder: boolean;
  /** Whether the front-end has the requests in flight recorded; otherwise it submits all of them again. */
  readonly recorded: boolean;
  /** `--aio`. */
  readonly aio: "io_uring" | "sync";
  /** `--workers`; absent: none. */
  readonly workers?: number;
}

/** A setting in words. */
export function nameOf({ packed, inOrder, recorded, aio, workers }: Setting): string {
  return [
    packed ? "packed" : "split",
    inOrder ? "in order" : "any order",
    recorded ? "recorded" : "submitted again",
    aio,
    workers === undefined ? "no workers" : `${workers} workers`,
  ].join(", ");
}

/** The arguments of `vhost-user blk`, beside the image. */
export function diskArguments({ aio }: Setting): string[] {
  return ["--num-queues=2", `--aio=${aio}`];
}

/** Drives the disk as a setting says. */
export async function drive(
  socket: string,
  { packed, inOrder, recorded }: Setting,
  options: BlkDriverOptions = {},
): Promise<BlkDriver> {
  const { RING_PACKED, IN_ORDER } = ringFeatures;
  const disk = await BlkDriver.connect(socket, {
    numQueues: 2,
    queueSize: 32,
    depth: 16,
    withoutFeatures: packed ? 0n : mask(RING_PACKED),
    withoutProtocolFeatures: recorded ? 0n : mask(protocolFeatures.INFLIGHT_SHMFD),
    deviceFeatures: DRIVER_FEATURES | (inOrder ? mask(IN_ORDER) : 0n),
    ...options,
  });
  assert.equal((disk.frontEnd.features & mask(RING_PACKED)) !== 0n, packed);
  assert.equal((disk.frontEnd.features & mask(IN_ORDER)) !== 0n, inOrder);
  return disk;
}
