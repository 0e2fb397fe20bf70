import assert from "node:assert/strict";
import { createServer } from "node:net";
import { join } from "node:path";
import test from "node:test";
import { check, countVerdicts, RunningTarget, TargetError } from "../../src/tools/check/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { checkDevice, checkFake, checkPath, entropy, failures, resultOf } from "./check_scene.ts";
import type { Fault } from "./fake_faults.ts";

const LONG = { timeout: 180_000 };

test("a back-end that shares no code with ours fails no case either", LONG, async (t) => {
  const report = await checkFake(t, undefined, {});
  assert.deepEqual(failures(report), []);
  assert.ok(countVerdicts(report).pass > 200, `${countVerdicts(report).pass} cases pass`);
});

/** What each fault makes fail: at least these cases. */
const caught: Readonly<Record<Fault, readonly string[]>> = {
  "reply flags keep need_reply": ["reply.GET_VRING_BASE", "ack.SET_FEATURES"],
  "no acknowledgements": ["ack.SET_FEATURES", "ack.SET_MEM_TABLE"],
  "acknowledges unasked": ["ack.SET_FEATURES", "ack.SET_VRING_NUM"],
  "answers twice": ["reply.GET_PROTOCOL_FEATURES", "reply.GET_CONFIG"],
  "unknown messages succeed": ["framing.unknown"],
  "unknown messages are not answered": ["framing.unknown"],
  "reads headers in one piece": ["framing.byte-by-byte"],
  "leaks surplus descriptors": ["fds.more.GET_FEATURES"],
  "keeps the descriptor of REM_MEM_REG": ["slots.remove-closes-fd"],
  "features change": ["features.constant"],
  "in-band notifications without a channel": ["protocol.needs.INBAND_NOTIFICATIONS"],
  "starts on the first kick only": [],
  "does not poll": ["rings.poll"],
  "forgets requests of a disabled ring": ["rings.enable"],
  "tells a wrong base": ["rings.base", "rings.wrap"],
  "ignores SET_VRING_BASE": ["rings.start-at"],
  "answers GET_VRING_BASE too early": ["rings.drain"],
  "goes on after GET_VRING_BASE": ["rings.stopped"],
  "ignores mmap offsets": ["memory.offset"],
  "knows one region only": ["memory.second"],
  "knows no added memory": ["slots.requests", "slots.while-running"],
  "never calls": ["vq.call", "vq.event-idx-call"],
  "used_event off by one": ["vq.event-idx-call"],
  "suppresses kicks for ever": ["vq.kick-suppression"],
  "returns the wrong head": ["rings.works"],
  "returns heads twice": ["rings.works"],
  "writes past its room": ["vq.used-length"],
  "tells more than it wrote": ["vq.used-length"],
  "changes the descriptor table": ["vq.untouched"],
  "knows no long chains": ["vq.framing-bytes"],
  "knows no indirect tables": ["vq.indirect-after-direct"],
  "minds WRITE on a table": ["vq.indirect-write-flag"],
  "ignores the offset of GET_CONFIG": ["config.parts"],
  "forgets the status": ["status.kept"],
  "RESET_DEVICE leaves rings running": ["reset.disables"],
  "speaks on the channel while stopped": ["channel.quiet"],
  "dies of a loop": ["broken.loop"],
  "hangs in a loop": ["broken.loop"],
  "gives no random bytes": ["rng.bytes"],
  "fails SET_OWNER": ["ack.SET_OWNER"],
  "answers out of order": ["framing.pipelined"],
  "dies of a wrong header": [
    "framing.version-0",
    "framing.version-2",
    "framing.reserved-flags",
    "framing.reply-flag",
    "framing.huge-size",
  ],
  "hangs after an unknown message": ["framing.unknown-unasked", "framing.id-0"],
  "hangs after need_reply without REPLY_ACK": ["framing.need-reply-not-negotiated"],
  "dies of half a message": ["framing.leave-in-header", "framing.leave-in-payload"],
  "dies of an answer that nobody reads": ["framing.leave-unread"],
  "dies of a front-end that says nothing": ["framing.leave-silent"],
  "dies of a second front-end": ["framing.second"],
  "does not answer who comes at once": ["framing.reconnect"],
  "offers no VERSION_1": ["features.version-1"],
  "wants SET_FEATURES before SET_PROTOCOL_FEATURES": ["protocol.before-features"],
  "wants SET_FEATURES before GET_CONFIG": ["config.before-features"],
};

for (const [fault, ids] of Object.entries(caught) as [Fault, readonly string[]][]) {
  if (ids.length === 0) continue;
  test(`caught: ${fault}`, LONG, async (t) => {
    // Each case by itself: what dies of one would not be there for the next.
    for (const id of ids) {
      const report = await checkFake(t, fault, { filter: [id], patience: 300 });
      const { verdict, expected, got, title } = resultOf(report, id);
      assert.equal(verdict, "fail", `${id}: ${got}`);
      assert.notEqual(expected, title, `${id} says what was expected`);
    }
  });
}

test("what is allowed but old is told apart from what is wrong", LONG, async (t) => {
  const report = await checkFake(t, "starts on the first kick only", {
    filter: ["rings.start-without-kick"],
  });
  const { verdict, got } = resultOf(report, "rings.start-without-kick");
  assert.equal(verdict, "undefined by the specification");
  assert.match(got ?? "", /waits for the first kick/);
});

test("a back-end that dies is noticed, and nothing more is tried on it", LONG, async (t) => {
  const report = await checkFake(t, "dies of a loop", {
    filter: ["broken.loop", "broken.address", "rng.bytes"],
    patience: 300,
  });
  const loop = resultOf(report, "broken.loop");
  assert.equal(loop.verdict, "fail");
  assert.match(loop.got ?? "", /no longer accepts/);
  for (const id of ["broken.address", "rng.bytes"]) {
    const { verdict, got } = resultOf(report, id);
    assert.equal(verdict, "fail");
    assert.match(got ?? "", /not run: the back-end died in broken\.loop/);
  }
});

test("a case that takes too long fails", LONG, async (t) => {
  const report = await checkFake(t, "does not poll", {
    filter: ["rings.poll"],
    patience: 2000,
    timeout: 200,
  });
  const { verdict, expected } = resultOf(report, "rings.poll");
  assert.equal(verdict, "fail");
  assert.match(expected ?? "", /an end within 200 ms/);
});

test("without a kind of device no ring is driven, and no case fails for that", LONG, async (t) => {
  const report = await checkDevice(t, entropy(), { filter: ["rings", "vq", "memory"] });
  assert.deepEqual(failures(report), []);
  assert.equal(resultOf(report, "rings.works").verdict, "not offered");
  assert.equal(resultOf(report, "memory.one").verdict, "pass");
});

test("nobody who listens is an error of its own", async (t) => {
  const path = join(tempDir(t), "nobody");
  await assert.rejects(check(new RunningTarget(path, 100)), TargetError);
});

test("a socket that speaks something else is no back-end", async (t) => {
  const path = join(tempDir(t), "other");
  const server = createServer((socket) => socket.end("hello\n"));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onEnd(t, () => void server.close());
  await assert.rejects(checkPath(path, { patience: 200 }), /no vhost-user back-end/);
});
