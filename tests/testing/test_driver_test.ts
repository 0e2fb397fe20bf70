import assert from "node:assert/strict";
import { test } from "node:test";
import { defineDevice } from "../../mod.ts";
import { ProtocolError } from "../../src/protocol/mod.ts";
import { TestDriver } from "../../src/testing/mod.ts";
import { noteDescriptors } from "../session/descriptors.ts";
import { bytesOf, LIMIT, sameBytes } from "../session/scene.ts";
import { echoDevice } from "../features/echo.ts";

test("requests of all sizes, many at a time, use memory again", LIMIT, async () => {
  await using driver = await TestDriver.attach(echoDevice(), { memory: 1 << 19 });
  for (let round = 0; round < 20; round++) {
    const all = Array.from({ length: 80 }, async (_, i) => {
      const sent = bytesOf(i, 1 + i * 40);
      sameBytes(await driver.request(0, sent, 4096), sent);
    });
    await Promise.all(all);
  }
  assert.equal((await driver.request(0, bytesOf(1, 100), 10)).length, 10);
  assert.equal((await driver.request(0, bytesOf(1, 100))).length, 0);
  await assert.rejects(driver.request(0), RangeError);
  assert.deepEqual(driver.problems, []);
});

test("a state is refused by name, and requests go on", LIMIT, async () => {
  const told: string[] = [];
  const device = echoDevice({
    state: {
      save: () => bytesOf(1, 300_000),
      load: (state) => void told.push(`${state.length}`),
    },
  });
  await using driver = await TestDriver.attach(device);
  const state = await driver.saveState();
  await driver.loadState(state);
  assert.deepEqual(told, ["300000"]);
  state[1000] ^= 1;
  await assert.rejects(driver.loadState(state), (error: unknown) => {
    assert.ok(error instanceof ProtocolError);
    assert.match(error.message, /CHECK_DEVICE_STATE: the back-end has not taken over its state, error 1/);
    return true;
  });
  assert.match(driver.problems.splice(0).join(), /damaged/);
  sameBytes(await driver.request(0, bytesOf(2, 9), 9), bytesOf(2, 9));

  await using other = await TestDriver.attach(echoDevice());
  await assert.rejects(other.saveState(), /SET_DEVICE_STATE_FD.*DEVICE_STATE was not negotiated/);
  sameBytes(await other.request(0, bytesOf(2, 9), 9), bytesOf(2, 9));
});

test("each change of the configuration space is waited for once", LIMIT, async () => {
  const device = echoDevice({ config: { read: () => new Uint8Array(4) } });
  await using driver = await TestDriver.attach(device);
  const waited = driver.configChanged();
  device.configChanged();
  await waited;
  device.configChanged();
  await driver.configChanged();
  const never = driver.configChanged().then(() => "changed");
  await driver.request(0, Uint8Array.of(1), 1);
  assert.equal(await Promise.race([never, Promise.resolve("not yet")]), "not yet");
});

test("who leaves or never comes takes everything along", LIMIT, async () => {
  const noMore = noteDescriptors();
  const driver = await TestDriver.attach(echoDevice());
  await driver.request(0, Uint8Array.of(1), 1);
  await driver.close();
  await driver.close();
  await assert.rejects(driver.request(0, Uint8Array.of(1), 1));
  const broken = defineDevice({
    type: 63,
    connect: () => {
      throw new Error("no connection today");
    },
  });
  await assert.rejects(TestDriver.attach(broken));
  await assert.rejects(TestDriver.attach(new URL("absent.ts", import.meta.url)));
  await noMore();
});

test("a device in workers", { timeout: 120_000 }, async () => {
  const module = new URL("../workers/devices/counter.ts", import.meta.url);
  await using driver = await TestDriver.attach(module, {
    serve: { workers: 2, deviceOptions: { first: 7 } },
  });
  assert.equal((await driver.request(0, Uint8Array.of(0), 2))[0], 7);
  assert.equal((await driver.request(1, Uint8Array.of(0), 2))[0], 7);
  assert.equal((await driver.request(2, Uint8Array.of(0), 2))[0], 8);
});
