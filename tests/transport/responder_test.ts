import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { close } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { frontendMessages } from "../../src/protocol/messages.ts";
import { Connection } from "../../src/transport/connection.ts";
import { type Handlers, Responder } from "../../src/transport/responder.ts";
import { Requester } from "../../src/transport/requester.ts";
import { onEnd } from "../support/cleanup.ts";

// The rules of a whole session are tested in tests/session; here is what a session cannot show.

type Table = typeof frontendMessages;

function respond(fd: number, reactor: Reactor, handlers: Handlers<Table>): Responder<Table> {
  return new Responder(new Connection(fd, frontendMessages), frontendMessages, handlers, reactor, {
    replyAck: () => true,
    refuse: () => undefined,
    onFailure: () => {},
    onEnd: () => {},
  });
}

test("an answer that comes after the end does not go to another connection", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const [back, front] = socketPair();
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<bigint>();
  const first = respond(back, reactor, {
    GET_FEATURES: () => {
      asked.resolve();
      return answer.promise;
    },
  });
  onEnd(t, () => first.end());
  const requester = new Requester(new Connection(front, frontendMessages), frontendMessages, reactor);
  const pending = requester.request("GET_FEATURES", undefined);
  await asked.promise;
  first.end();
  await assert.rejects(pending, { name: "ProtocolError", message: /the peer left before it answered/ });

  // The number of the descriptor is given out again, to a connection that waits for nothing.
  const [again, other] = socketPair();
  assert.ok([again, other].includes(back), "the number was given out again");
  const second = respond(back, reactor, {});
  const peer = again === back ? other : again;
  onEnd(t, () => {
    second.end();
    close(peer);
  });
  answer.resolve(1n);
  await sleep(20);
  assert.equal(new Connection(peer, frontendMessages).receive(), null, "nothing was sent to it");
});

test(
  "a request that is done after the end does not touch another connection's waiting",
  { timeout: 5000 },
  async (t) => {
    const reactor = new Reactor();
    const [back, front] = socketPair();
    const asked = Promise.withResolvers<void>();
    const done = Promise.withResolvers<void>();
    const first = respond(back, reactor, {
      SET_OWNER: () => {
        asked.resolve();
        return done.promise;
      },
    });
    const requester = new Requester(new Connection(front, frontendMessages), frontendMessages, reactor);
    await requester.request("SET_OWNER", undefined);
    await asked.promise;
    first.end();
    requester.end();

    const [again, other] = socketPair();
    assert.ok([again, other].includes(back), "the number was given out again");
    const second = respond(back, reactor, {});
    const peer = again === back ? other : again;
    onEnd(t, () => {
      second.end();
      close(peer);
    });
    // To resume what was not paused is an error, which nobody would catch.
    done.resolve();
    await sleep(20);
  },
);
