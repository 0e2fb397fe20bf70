/**
 * A thread that runs rings: the module that it starts with.
 *
 * @module
 */

import { ownThread } from "../../../ffi/deno.ts";
import { consume } from "../../../ffi/eventfd.ts";
import { Reactor } from "../../../ffi/reactor.ts";
import { ReactorCounters } from "../../../ffi/reactor_counters.ts";
import type { Device } from "../device.ts";
import { HostedSession, outcomeOf } from "./hosted_session.ts";
import { makeDevice } from "./make_device.ts";
import { type FromThread, packError, type ToThread } from "./messages.ts";

const reactor = Reactor.shared();
const sessions = new Map<number, HostedSession>();
let device: Device | undefined;
let bell = -1;
let received = 0;

const thread = ownThread(
  (message) => {
    received++;
    receive(message as ToThread);
  },
  (error) => {
    for (const session of sessions.values()) session.failed(error);
  },
);

function post(message: FromThread): void {
  thread.post(message);
}

function receive(message: ToThread): void {
  switch (message.kind) {
    case "start":
      return void start(message).then(
        () => post({ kind: "started", outcome: {} }),
        (error) => post({ kind: "started", outcome: { error: packError(error) } }),
      );
    case "open":
    case "call":
      return outcomeOf(() => perform(message), (outcome) => {
        const { session, id } = message;
        const rings = sessions.get(session)?.status ?? [];
        post({ kind: "answer", session, id, outcome, rings });
        if (message.kind === "call" && message.method === "finished") sessions.delete(session);
      });
    case "answer":
      return sessions.get(message.session)?.answered(message.id, message.outcome);
    case "end":
      return void end();
  }
}

async function start(message: Extract<ToThread, { kind: "start" }>): Promise<void> {
  device = await makeDevice(message.device);
  reactor.pollCeiling = message.pollCeiling;
  reactor.counters = new ReactorCounters(message.counters);
  bell = message.bell;
  const sent = new Int32Array(message.sent);
  if (!message.eventLoop) reactor.dedicate(() => Atomics.load(sent, 0) !== received);
  reactor.watch(bell, () => void consume(bell));
}

function perform(message: Extract<ToThread, { kind: "open" | "call" }>): unknown {
  const { session: number } = message;
  if (message.kind === "open") {
    if (device === undefined) throw new TypeError("the thread has no device");
    sessions.set(number, new HostedSession(number, device, message, reactor, post));
    return;
  }
  const session = sessions.get(number);
  if (session === undefined) {
    HostedSession.discard(message);
    throw new TypeError(`session ${number} is not open in this thread`);
  }
  return session.call(message);
}

async function end(): Promise<void> {
  device?.close();
  reactor.unwatch(bell);
  await reactor.close();
  post({ kind: "ended" });
  thread.close();
}
