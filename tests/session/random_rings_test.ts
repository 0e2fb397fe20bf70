import assert from "node:assert/strict";
import { test } from "node:test";
import { consume } from "../../ffi/eventfd.ts";
import { Random } from "../support/random.ts";
import { INDIRECT, NEXT, type Ring, view, WRITE } from "./rings.ts";
import { eventually, verify } from "./scene.ts";
import { stage } from "./stage.ts";

const ROUNDS = 150;
const SIZE = 16;

/** Fills a ring with chains, most of them nearly right. Returns how many were made available. */
function scribble(random: Random, ring: Ring, start: number, length: number): number {
  const buffer = () => start + random.int(0, length - 1024);
  for (let at = 0; at < SIZE; at++) {
    const flags = random.pick([NEXT, NEXT, NEXT | WRITE, WRITE, WRITE, 0, random.int(0, 7)]);
    ring.describe(at, {
      address: random.int(0, 40) === 0 ? random.int(0, 2 ** 31) : buffer(),
      length: (flags & INDIRECT) !== 0
        ? 16 * random.int(0, 20)
        : random.pick([0, 1, 16, 17, 512, 513, 1024, random.int(0, 1024)]),
      flags,
      next: random.int(0, 99) === 0 ? random.int(0, 20) : (at + 1) % SIZE,
    });
  }
  const heads = Array.from(
    { length: random.int(1, 5) },
    () => random.int(0, random.int(0, 99) === 0 ? 20 : SIZE - 1),
  );
  ring.send(...new Set(heads));
  return new Set(heads).size;
}

test("rings full of nonsense end in answers or in a broken ring", { timeout: 30_000 }, async (t) => {
  const random = new Random(7);
  const { scene, frontEnd, ring: make } = await stage(t);
  const noise = scene.memory(1 << 16, 0x5000_0000);
  await frontEnd.shareMemory(noise);
  const driver = await scene.driver();
  let answered = 0;
  let broken = 0;
  for (let round = 0; round < ROUNDS; round++) {
    // Small numbers are likely to be requests, and positions on the disk.
    const words = view(noise.piece(0, noise.byteLength));
    for (let at = 0; at < noise.byteLength; at += 8) {
      words.setBigUint64(at, BigInt(random.pick([0, 1, 4, 8, 11, 13, 1 << 20, random.int(0, 2048)])), true);
    }
    const ring = make({ index: round % 4, size: SIZE });
    await ring.start();
    const offered = scribble(random, ring, noise.guestAddress, noise.byteLength);
    let stopped = false;
    await eventually("the ring is served, or broken", () => {
      stopped ||= consume(ring.error) === "rung";
      return stopped || ring.usedIndex === offered;
    });
    if (stopped) broken++;
    else answered++;
    await ring.stop();
    if (round % 10 === 0) await verify(driver, round);
  }
  assert.ok(answered > ROUNDS / 10 && broken > ROUNDS / 10, `${answered} answered, ${broken} broken`);
  await verify(driver, 1);
  assert.equal(scene.server.sessions, 2);
});
