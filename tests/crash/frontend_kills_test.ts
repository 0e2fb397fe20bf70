import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../support/random.ts";
import { killFrontEnds } from "./frontend_kills.ts";
import { nameOf, type Setting } from "./setting.ts";

const settings: Setting[] = [
  { packed: false, inOrder: false, recorded: true, aio: "io_uring" },
  { packed: true, inOrder: true, recorded: true, aio: "io_uring", workers: 2 },
  { packed: true, inOrder: false, recorded: true, aio: "sync" },
  { packed: false, inOrder: true, recorded: false, aio: "sync", workers: 2 },
];

/** Kills in each setting. */
const KILLS = 8;

settings.forEach((setting, i) => {
  const name = `${KILLS} front-ends are killed while they write to a disk: ${nameOf(setting)}`;
  test(name, { timeout: 120_000 }, async (t) => {
    const { kills, inFlight, writes } = await killFrontEnds(t, new Random(2000 + i), setting, KILLS);
    t.diagnostic(`${kills} kills survived with ${inFlight} writes in flight, of ${writes} acknowledged`);
    assert.equal(kills, KILLS);
    assert.ok(inFlight > 0, "there was something to be lost");
  });
});
