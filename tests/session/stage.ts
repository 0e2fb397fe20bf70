import type { Storage } from "../../src/devices/blk/mod.ts";
import type { FrontEnd, SharedMemory } from "../../src/frontend/mod.ts";
import type { Scope } from "../support/cleanup.ts";
import { Ring, type RingOptions } from "./rings.ts";
import { type DiskScene, Scene } from "./scene.ts";

/** What rings that are written by hand do not do: EVENT_IDX, ACCESS_PLATFORM, RING_PACKED, IN_ORDER. */
export const NOT_BY_HAND = 0xe_2000_0000n;

/** A disk and a front-end that shares memory with it and has no ring yet. */
export interface Stage {
  readonly scene: DiskScene;
  readonly frontEnd: FrontEnd;
  readonly memory: SharedMemory;
  /** Lays out a ring. */
  ring(options?: RingOptions): Ring;
}

/** Sets the stage. */
export async function stage(
  scope: Scope,
  options: { readonly withoutFeatures?: bigint; readonly storage?: Storage } = {},
): Promise<Stage> {
  const { withoutFeatures = 0n, storage } = options;
  const scene = await Scene.disk(scope, storage === undefined ? {} : { storage });
  return { scene, ...await onStage(scope, scene, withoutFeatures) };
}

/** A front-end that shares memory with a disk and has no ring yet. */
export async function onStage(
  scope: Scope,
  scene: DiskScene,
  withoutFeatures = 0n,
  byteLength: number = 1 << 18,
): Promise<Omit<Stage, "scene">> {
  const frontEnd = await scene.frontEnd({ withoutFeatures: withoutFeatures | NOT_BY_HAND });
  const memory = scene.memory(byteLength);
  await frontEnd.shareMemory(memory);
  return { frontEnd, memory, ring: (options) => new Ring(scope, frontEnd, memory, options) };
}
