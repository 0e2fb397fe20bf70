import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Reactor } from "../../mod.ts";
import { eventfd, signal } from "../../ffi/eventfd.ts";
import { close, setNonblocking, writeBytes } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { Connection } from "../../src/transport/connection.ts";
import { Responder } from "../../src/transport/responder.ts";
import { frontendMessages } from "../../src/protocol/mod.ts";
import type { BlkDriver } from "../../src/tools/blk_driver.ts";
import { pipe } from "../../ffi/pipe.ts";
import { putRead } from "../session/requests.ts";
import { messageBytes } from "../session/raw_peer.ts";
import { LIMIT, verify } from "../session/scene.ts";
import { stage } from "../session/stage.ts";
import { concat, u64 } from "../session/wire.ts";
import { onEnd, type Scope } from "../support/cleanup.ts";

// A front-end that is slow, or stands still, while another one works.

/** The longest that one round of verified requests may take, ms: a peer that is waited for stands still for ever. */
const ROUND = 8000;

/** Rounds of verified requests, none of which waits for anybody. */
async function works(driver: BlkDriver, rounds = 10): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    await verify(driver, round);
    const took = performance.now() - start;
    assert.ok(took < ROUND, `round ${round} took ${took} ms`);
  }
}

/** A descriptor that is as full as it can be, and that nobody reads. */
function full(scope: Scope, kind: "an eventfd" | "a pipe" | "a socket"): number {
  if (kind === "an eventfd") {
    const fd = eventfd();
    onEnd(scope, () => close(fd));
    // The counter's greatest value.
    assert.equal(writeBytes(fd, u64(0xffff_ffff_ffff_fffen)), 8);
    return fd;
  }
  const [read, write] = kind === "a pipe" ? pipe() : socketPair();
  onEnd(scope, () => {
    close(read);
    close(write);
  });
  setNonblocking(write);
  const block = new Uint8Array(4096);
  while (writeBytes(write, block) !== null);
  while (writeBytes(write, block.subarray(0, 1)) !== null);
  // As a front-end may hand it over.
  setNonblocking(write, false);
  return write;
}

test("a front-end that does not read its answers is dropped, and nobody waits for it", LIMIT, async (t) => {
  const { scene } = await stage(t);
  const driver = await scene.driver();
  const peer = scene.peer();
  let asked = 0;
  try {
    for (; asked < 100_000; asked++) {
      peer.say("GET_FEATURES");
      if (asked % 50 === 0) await works(driver, 1);
    }
  } catch (error) {
    // It has been dropped.
    assert.match(String(error), /all bytes go out at once|EPIPE/);
  }
  assert.ok(asked > 50 && asked < 100_000, `${asked} questions`);
  await scene.log.problem(
    /the session is over.*the peer does not read its messages: buffer full/,
  );
  await works(driver);
});

test("half a message keeps nobody waiting", LIMIT, async (t) => {
  const { scene } = await stage(t);
  const driver = await scene.driver();
  const message = messageBytes("SET_FEATURES", u64(0));
  for (const length of [1, 11, 12, 19]) scene.peer().bytes(message.subarray(0, length));
  await works(driver);
  assert.deepEqual(scene.log.problems, []);
});

for (const kind of ["an eventfd", "a pipe", "a socket"] as const) {
  test(`${kind} that is full as a call holds up nothing`, LIMIT, async (t) => {
    const { scene, memory, ring: make } = await stage(t);
    const driver = await scene.driver();
    const ring = make();
    await ring.place();
    await ring.enable();
    const fd = full(t, kind);
    await ring.setKick();
    await ring.setCall(fd);
    for (let n = 0; n < 4; n++) ring.send(putRead(ring, memory, n % 2, 0).head);
    await works(driver);
    assert.deepEqual(scene.log.problems, []);
  });
}

test("a kick that is always readable leaves others their turn", LIMIT, async (t) => {
  const { scene, memory, ring: make } = await stage(t);
  const driver = await scene.driver();
  const ring = make();
  await ring.place();
  await ring.enable();
  const [read, write] = pipe();
  setNonblocking(write);
  const block = new Uint8Array(4096);
  const fill = (): void => {
    while (writeBytes(write, block) !== null);
  };
  fill();
  const filling = setInterval(fill, 1);
  onEnd(t, () => {
    clearInterval(filling);
    close(read);
    close(write);
  });
  await ring.setKick(read);
  await works(driver, 20);
  ring.send(putRead(ring, memory, 0, 0).head);
  await ring.until(1);
  assert.deepEqual(scene.log.problems, []);
});

test("after some messages others get their turn, however many there are", LIMIT, async (t) => {
  const [ours, theirs] = socketPair();
  const reactor = Reactor.shared();
  const bell = eventfd();
  let handled = 0;
  let other = -1;
  const handlers = {
    SET_OWNER: (): void => {
      if (handled++ === 0) signal(bell);
    },
  };
  const responder = new Responder(
    new Connection(theirs, frontendMessages),
    frontendMessages,
    handlers,
    reactor,
    {
      replyAck: () => false,
      refuse: () => undefined,
      onFailure: (error) => assert.fail(String(error)),
      onEnd: () => {},
    },
  );
  reactor.watch(bell, () => {
    if (other < 0) other = handled;
    reactor.unwatch(bell);
  });
  onEnd(t, () => {
    responder.end();
    close(ours);
    close(bell);
  });
  const many = concat(...Array.from({ length: 1000 }, () => messageBytes("SET_OWNER")));
  for (let at = 0; at < many.length; at += 4080) writeBytes(ours, many.subarray(at, at + 4080));
  while (handled < 1000 || other < 0) await sleep(1);
  assert.ok(other <= 128, `another callback came after ${other} messages`);
});
