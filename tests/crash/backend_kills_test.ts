import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Random } from "../support/random.ts";
import { killBackends } from "./backend_kills.ts";
import { nameOf, type Setting } from "./setting.ts";
import { WrongContentError } from "./history.ts";

/** Each choice of rings, order and threads with each engine, recorded; and some of them submitted again. */
const settings: Setting[] = [];
for (const packed of [false, true]) {
  for (const workers of [undefined, 2]) {
    for (const aio of ["io_uring", "sync"] as const) {
      for (const inOrder of [false, true]) settings.push({ packed, inOrder, recorded: true, aio, workers });
    }
    settings.push({ packed, inOrder: false, recorded: false, aio: "io_uring", workers });
  }
}

/** Kills in each setting. */
const KILLS = 8;

settings.forEach((setting, i) => {
  const name = `a back-end is killed ${KILLS} times while its disk is written to: ${nameOf(setting)}`;
  test(name, { timeout: 120_000 }, async (t) => {
    const { kills, inFlight, writes } = await killBackends(t, new Random(1000 + i), setting, KILLS);
    t.diagnostic(`${kills} kills survived with ${inFlight} writes in flight, of ${writes} acknowledged`);
    assert.equal(kills, KILLS);
    assert.ok(inFlight > 0, "there was something to be lost");
  });
});

test(
  "a write of the dead back-end that is done after later ones is found",
  { timeout: 60_000 },
  async (t) => {
    const dead: Buffer[] = [];
    const killing = killBackends(t, new Random(5), settings[0], 8, {
      whileDead: (image) => {
        dead.push(readFileSync(image));
        // As if it had put off its writes until now.
        if (dead.length === 8) writeFileSync(image, dead[3], { flag: "r+" });
      },
    });
    await assert.rejects(killing, (error) => error instanceof WrongContentError);
  },
);
