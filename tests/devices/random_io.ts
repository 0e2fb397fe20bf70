import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import { Random } from "../support/random.ts";
import { sameBytes } from "../session/scene.ts";

const DEPTH = 64;

/** How a disk is tried out. */
export interface RandomIoOptions {
  /** Rounds of 64 requests at once. */
  readonly rounds: number;
  /** Of the random numbers. */
  readonly seed: number;
  /** The largest request, bytes. */
  readonly largest?: number;
}

/**
 * Reads, writes and zeroes the whole disk at random, 64 requests at once in places that do not touch, and holds every
 * byte against a copy.
 *
 * @returns the copy: what the disk must hold now
 */
export async function randomIo(driver: BlkDriver, options: RandomIoOptions): Promise<Uint8Array> {
  const { rounds, seed, largest = 16384 } = options;
  const random = new Random(seed);
  const copy = await driver.read(0, driver.size);
  const slot = Math.floor(driver.size / DEPTH / 512) * 512;
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: DEPTH }, async (_, n) => {
      const sectors = random.int(1, Math.min(largest, slot) / 512);
      const position = n * slot + 512 * random.int(0, slot / 512 - sectors);
      const length = sectors * 512;
      switch (random.int(0, 9)) {
        case 0:
          await driver.writeZeroes(position, length, random.int(0, 1) === 1);
          copy.fill(0, position, position + length);
          return;
        case 1:
          return await driver.flush();
        case 2:
        case 3:
        case 4:
          sameBytes(await driver.read(position, length), copy.slice(position, position + length));
          return;
        default: {
          const data = new Uint8Array(random.bytes(length));
          await driver.write(position, data);
          copy.set(data, position);
        }
      }
    }));
  }
  sameBytes(await driver.read(0, driver.size), copy, "in the end, all of it");
  return copy;
}
