import assert from "node:assert/strict";
import { test } from "node:test";
import { TestDriver } from "@vhost/user/testing";
import { Config, Header, Op, Status, Store } from "./store.ts";

const REQUESTS = 0;
const EVENTS = 1;

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

async function ask(driver: TestDriver, op: number, key: string, value = ""): Promise<[number, string]> {
  const header = Header.encode({ op, keyLength: bytes(key).length });
  const answer = await driver.request(REQUESTS, Uint8Array.of(...header, ...bytes(key + value)), 100);
  return [answer[0], text(answer.subarray(1))];
}

async function config(driver: TestDriver): Promise<{ entries: number; watch: number }> {
  return Config.decode(await driver.frontEnd.readConfig(0, Config.size));
}

async function watch(driver: TestDriver): Promise<void> {
  await driver.frontEnd.writeConfig(Config.offsets.watch, Uint8Array.of(1, 0, 0, 0));
}

test("values are set and got", async () => {
  await using driver = await TestDriver.attach(new Store().device);
  assert.deepEqual(await ask(driver, Op.GET, "name"), [Status.NOT_FOUND, ""]);
  assert.deepEqual(await ask(driver, Op.SET, "name", "Ada"), [Status.OK, ""]);
  assert.deepEqual(await ask(driver, Op.GET, "name"), [Status.OK, "Ada"]);
});

test("nonsense is refused, and ends nothing else", async () => {
  await using driver = await TestDriver.attach(new Store().device);
  assert.deepEqual(await ask(driver, 99, "name"), [Status.INVALID, ""]);
  const tooLong = Header.encode({ op: Op.GET, keyLength: 5 });
  assert.deepEqual([...await driver.request(REQUESTS, tooLong, 10)], [Status.INVALID]);
  assert.deepEqual([...await driver.request(REQUESTS, new Uint8Array(5000), 10)], [Status.INVALID]);
  // Not even a header: nothing is written, and the server tells.
  assert.deepEqual([...await driver.request(REQUESTS, Uint8Array.of(1), 10)], []);
  assert.match(driver.problems.join(), /structure must be at least 4 bytes/);
  assert.deepEqual(await ask(driver, Op.SET, "name", "Ada"), [Status.OK, ""]);
});

test("the configuration space counts entries, and tells of new ones", async () => {
  const store = new Store();
  await using driver = await TestDriver.attach(store.device);
  assert.equal((await config(driver)).entries, 0);
  store.set("name", "Ada");
  await driver.configChanged();
  assert.equal((await config(driver)).entries, 1);
});

test("who watches hears of changes, whoever makes them", async () => {
  const store = new Store();
  await using driver = await TestDriver.attach(store.device);
  const first = driver.request(EVENTS, undefined, 100);
  const second = driver.request(EVENTS, undefined, 100);
  store.set("before", "nobody watches");
  await watch(driver);
  await ask(driver, Op.SET, "name", "Ada");
  assert.equal(text(await first), "name");
  store.set("year", "1815");
  assert.equal(text(await second), "year");
});

test("a change waits until it is saved; others overtake it", async () => {
  let saved = (): void => {};
  const store = new Store(() => new Promise<void>((resolve) => saved = resolve));
  await using driver = await TestDriver.attach(store.device);
  const change = ask(driver, Op.SET, "name", "Ada");
  assert.deepEqual(await ask(driver, Op.GET, "name"), [Status.NOT_FOUND, ""]);
  saved();
  assert.deepEqual(await change, [Status.OK, ""]);
});

test("a change that cannot be saved fails, and the server tells why", async () => {
  const store = new Store(() => {
    throw new Error("disk full");
  });
  await using driver = await TestDriver.attach(store.device);
  assert.deepEqual(await ask(driver, Op.SET, "name", "Ada"), [Status.FAILED, ""]);
  assert.match(driver.problems.join(), /disk full/);
});

test("the state goes from one device to another, while a buffer is lent", async () => {
  await using source = await TestDriver.attach(new Store().device);
  await ask(source, Op.SET, "name", "Ada");
  await watch(source);
  const event = source.request(EVENTS, undefined, 100);
  const state = await source.saveState();

  await using target = await TestDriver.attach(new Store().device);
  await target.loadState(state);
  assert.deepEqual(await ask(target, Op.GET, "name"), [Status.OK, "Ada"]);
  assert.deepEqual(await config(target), { entries: 1, watch: 1 });

  // The source can go on: a migration may be given up.
  await ask(source, Op.SET, "name", "Grace");
  assert.equal(text(await event), "name");
});
