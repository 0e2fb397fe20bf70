import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { Reactor, SocketInUseError, TakeoverError } from "../../mod.ts";
import { close } from "../../ffi/fd.ts";
import { Native } from "../../ffi/native.ts";
import { connect, ownCredentials, send } from "../../ffi/socket.ts";
import { Giver } from "../../src/backend/takeover/giver.ts";
import { controlPath } from "../../src/backend/takeover/messages.ts";
import { BlkDevice, MemoryStorage } from "../../src/devices/blk/mod.ts";
import { RngDevice } from "../../src/devices/rng/mod.ts";
import { echoDevice } from "../features/echo.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { GatedStorage } from "../session/gated_storage.ts";
import { aWhile, bytesOf, eventually, verify } from "../session/scene.ts";
import { onEnd } from "../support/cleanup.ts";
import { descriptors, greeting, noneLost, Stand, takeAll } from "./stand.ts";

// A takeover that fails leaves the older server as it was, and its front-ends at work.

const LIMIT = { timeout: 30_000 };

/** Patience of servers that are to lose it, ms. */
const SHORT = 300;

test("a server takes over from another of the same process", LIMIT, async (t) => {
  const stand = new Stand(t);
  const first = await stand.disk();
  const load = await stand.load();
  await load.more();
  const second = await stand.disk({}, { takeover: "take" });
  await first.finished;
  assert.equal(second.takenOver?.pid, process.pid);
  assert.equal(second.takenOver?.sessions, 1);
  assert.deepEqual([first.sessions, second.sessions], [0, 1]);
  await load.more();
  const third = await stand.disk({}, { takeover: "take" });
  await second.finished;
  await load.finish();
  await eventually("the front-end has left", () => third.sessions === 0);
  third.close();
  assert.equal(existsSync(stand.path), false);
  assert.equal(existsSync(controlPath(stand.path)), false);
  assert.deepEqual(stand.log.problems, []);
});

test("takeover is an ordinary start where nobody serves", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk({}, { takeover: "take" });
  assert.equal(server.takenOver, undefined);
  await (await stand.load()).finish();
});

test("the control socket is its owner's, and goes with the server", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk();
  const status = statSync(controlPath(stand.path));
  assert.equal(status.mode & 0o777, 0o600);
  server.close();
  await server.finished;
  assert.equal(existsSync(controlPath(stand.path)), false);
});

test("without leave there is nothing to ask, and the path is in use", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.disk({}, { takeover: undefined });
  assert.equal(existsSync(controlPath(stand.path)), false);
  await assert.rejects(stand.disk({}, { takeover: "take" }), SocketInUseError);
  await (await stand.load()).finish();
});

test("front-ends that wait in the socket's queue are served by the next server", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.disk();
  const load = await stand.load();
  const waiting = BlkDriver.connect(stand.path);
  await aWhile();
  const second = await stand.disk({}, { takeover: "take" });
  await load.finish();
  const driver = await waiting;
  assert.equal(second.sessions, 1);
  await verify(driver, 1);
  await driver.close();
});

// When somebody who takes over ends: after which message.
const ENDS = ["nothing", "HELLO", "SERVER", "SESSION", "SETUP", "END"] as const;

for (const last of ENDS) {
  test(`whoever takes over dies after ${last}: the older server goes on`, LIMIT, async (t) => {
    const stand = new Stand(t);
    const server = await stand.disk();
    const load = await stand.load();
    await load.more();
    const before = descriptors();
    for (let round = 0; round < 5; round++) {
      const taker = stand.taker();
      if (last !== "nothing") await taker.send("HELLO", greeting());
      for (let name = ""; last !== "nothing" && last !== "HELLO" && name !== last;) {
        const message = await taker.receive();
        message.fds.close();
        name = message.name;
      }
      taker.close();
      await load.more();
    }
    await noneLost(before);
    assert.equal(server.sessions, 1);
    assert.equal(stand.log.problems.length, 5, stand.log.problems.join("\n"));
    for (const problem of stand.log.problems) assert.match(problem, /has not taken over; this one serves on/);
    // And it can still be taken over.
    await stand.disk({}, { takeover: "take" });
    await server.finished;
    await load.finish();
  });
}

test("whoever takes over takes too long: the older server goes on, and it is told so", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk({}, { takeoverPatience: SHORT });
  const load = await stand.load();
  await load.more();
  const taker = stand.taker();
  await taker.send("HELLO", greeting());
  const names = await takeAll(taker);
  assert.deepEqual(names.slice(0, 2), ["SERVER", "SESSION"]);
  assert.ok(names.includes("SETUP") && names.includes("CONFIG"), names.join());
  await load.more();
  await assert.rejects(taker.receive(), /takes too long/);
  // It is too late now: it cannot say that it has taken over.
  await assert.rejects(taker.send("TAKEN"), { name: "OsError" });
  await load.more();
  assert.equal(server.sessions, 1);
  await load.finish();
});

test("a request that does not end keeps the server where it is", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk({}, { takeoverPatience: SHORT });
  const load = await stand.load();
  await load.more();
  stand.storage.open = false;
  await eventually("requests wait", () => stand.storage.held.length > 0);
  await assert.rejects(
    stand.disk({}, { takeover: "take" }),
    (error) =>
      error instanceof TakeoverError && /requests are still under way after \d+ ms/.test(error.message),
  );
  stand.storage.open = true;
  stand.storage.release();
  await load.more();
  await stand.disk({}, { takeover: "take" });
  await server.finished;
  await load.finish();
});

const DIFFERENT: readonly (readonly [string, (stand: Stand) => Promise<unknown>, RegExp])[] = [
  [
    "a smaller disk",
    (stand) => stand.disk({ storage: new GatedStorage(1 << 19) }, { takeover: "take" }),
    /the disk must have at least 2048 sectors, got 1024/,
  ],
  [
    "a disk in memory",
    (stand) => stand.disk({ storage: new MemoryStorage(1 << 20) }, { takeover: "take" }),
    /keeps state that it cannot hand over/,
  ],
  [
    "larger blocks",
    (stand) => stand.disk({ blockSize: 4096 }, { takeover: "take" }),
    /the disk must be as the driver knows it, but its blkSize is another/,
  ],
  [
    "fewer queues",
    (stand) => stand.disk({ numQueues: 1 }, { takeover: "take" }),
    /rings must be at least 2, which the front-end was told of, got 1/,
  ],
  [
    "a disk that cannot be written",
    (stand) => stand.disk({ readOnly: true }, { takeover: "take" }),
    /the disk must be as the driver knows it|among those offered/,
  ],
  [
    "a device of another type",
    (stand) => stand.serve(new RngDevice(), { takeover: "take" }),
    /the device is of virtio type 2 here, 4 there/,
  ],
];

for (const [what, attempt, reason] of DIFFERENT) {
  test(`${what} does not take over, and says why`, LIMIT, async (t) => {
    const stand = new Stand(t);
    const server = await stand.disk();
    const load = await stand.load();
    await load.more();
    const before = descriptors();
    await assert.rejects(
      attempt(stand),
      (error) => error instanceof TakeoverError && reason.test(error.message),
    );
    await eventually("the older one tells, too", () => reason.test(stand.log.problems.at(-1) ?? ""));
    await load.more();
    await noneLost(
      before,
      ["a smaller disk", "a disk in memory"].includes(what) ? ["/memfd:vhost-user-disk (deleted)"] : [],
    );
    assert.equal(server.sessions, 1);
    await load.finish();
  });
}

test("a larger disk takes over, and the driver is told", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.disk();
  const load = await stand.load();
  await load.more();
  let told = 0;
  load.driver.frontEnd.onConfigChange = () => told++;
  await stand.serve(
    new BlkDevice({
      storage: {
        size: 2 << 20,
        readOnly: false,
        read: (data, at) => stand.storage.read(data, at),
        write: (data, at) => stand.storage.write(data, at),
        flush: () => stand.storage.flush(),
        discard: (at, length) => stand.storage.discard(at, length),
        writeZeroes: (at, length, unmap) => stand.storage.writeZeroes(at, length, unmap),
        close: () => {},
      },
      numQueues: 2,
    }),
    { takeover: "take" },
  );
  await eventually("the driver is told", () => told === 1);
  await load.driver.refresh();
  assert.equal(load.driver.config.capacity, 4096n);
  await load.finish();
});

test("a device that keeps state is not handed over", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.serve(echoDevice());
  const peer = connect(stand.path);
  await aWhile();
  const again = stand.serve(echoDevice(), { takeover: "take" });
  await assert.rejects(again, /this device keeps state that it cannot hand over/);
  close(peer);
});

test("a disk in memory is not handed over", LIMIT, async (t) => {
  const stand = new Stand(t);
  const storage = new MemoryStorage(1 << 20);
  await stand.disk({ storage });
  const again = (): Promise<unknown> => stand.disk({ storage }, { takeover: "take" });
  await assert.rejects(again(), /keeps state that it cannot hand over/);
  const load = await stand.load();
  await assert.rejects(again(), /keeps state that it cannot hand over/);
  await load.finish();
  storage.close();
});

const NONSENSE: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["another version", greeting({ version: 2 }), /format of the hand-over: 1 here, 2 there/],
  ["another magic", greeting({ magic: 7 }), /HELLO is not one of a back-end/],
  ["a short greeting", greeting().subarray(0, 8), /expected HELLO/],
];

for (const [what, payload, reason] of NONSENSE) {
  test(`${what} is refused`, LIMIT, async (t) => {
    const stand = new Stand(t);
    await stand.disk();
    const taker = stand.taker();
    await taker.send("HELLO", payload);
    await assert.rejects(
      taker.receive(),
      (error) => error instanceof TakeoverError && reason.test(error.message),
    );
    await (await stand.load()).finish();
  });
}

test("garbage on the control socket harms nobody", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk();
  const load = await stand.load();
  const before = descriptors();
  for (let seed = 1; seed < 30; seed++) {
    const fd = connect(controlPath(stand.path));
    const native = new Native(seed * 20);
    native.bytes.set(bytesOf(seed, seed * 20));
    send(fd, native.address, seed * 20, []);
    await load.more(2);
    close(fd);
  }
  await noneLost(before);
  assert.equal(server.sessions, 1);
  await load.finish();
});

test("one at a time", LIMIT, async (t) => {
  const stand = new Stand(t);
  await stand.disk();
  const load = await stand.load();
  const slow = stand.taker();
  await slow.send("HELLO", greeting());
  await takeAll(slow);
  const other = stand.taker();
  await other.send("HELLO", greeting());
  await assert.rejects(other.receive(), /another process is taking over/);
  slow.close();
  await load.finish();
});

test("who says nothing is in nobody's way", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk();
  const load = await stand.load();
  stand.taker();
  await stand.disk({}, { takeover: "take" });
  await server.finished;
  await load.finish();
});

test("another user is turned away", LIMIT, async (t) => {
  const stand = new Stand(t);
  const path = controlPath(stand.path);
  const given: number[] = [];
  const givable = {
    device: 2,
    name: "blk",
    listener: -1,
    refusal: undefined,
    sessions: [],
    pause: () => assert.fail("rings must not rest for it"),
    resume: () => {},
    given: (pid: number) => given.push(pid),
  };
  // To the one that listens, this process is another user's.
  const user = ownCredentials().uid + 1;
  const giver = new Giver(path, undefined, givable, Reactor.shared(), stand.log.write, undefined, user);
  onEnd(t, () => giver.close());
  const taker = stand.taker();
  await assert.rejects(
    taker.send("HELLO", greeting()).then(() => taker.receive()),
    /the other back-end has gone|EPIPE|ECONNRESET/,
  );
  await stand.log.problem(
    new RegExp(`process ${process.pid} may not take over: user ${user - 1} is not user ${user}`),
  );
  assert.deepEqual(given, []);
});

test("a server that is closed meanwhile leaves the newer one with nothing", LIMIT, async (t) => {
  const stand = new Stand(t);
  const server = await stand.disk();
  const taker = stand.taker();
  await taker.send("HELLO", greeting());
  await takeAll(taker);
  server.close();
  await assert.rejects(taker.receive(), TakeoverError);
});
