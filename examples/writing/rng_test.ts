import assert from "node:assert/strict";
import { test } from "node:test";
import { TestDriver } from "@vhost/user/testing";
import rng from "./rng.ts";

test("it fills what the driver asks for, with something else each time", async () => {
  await using driver = await TestDriver.attach(rng);
  const first = await driver.request(0, undefined, 4096);
  const second = await driver.request(0, undefined, 4096);
  assert.equal(first.length, 4096);
  assert.notDeepEqual(first, second);
});
