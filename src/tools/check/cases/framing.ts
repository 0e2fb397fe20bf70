/**
 * Messages as bytes: headers, pieces, floods, and peers that leave.
 *
 * @module
 */

import { HeaderFlag, VERSION } from "../../../protocol/header.ts";
import { frontendMessages } from "../../../protocol/messages.ts";
import type { Case } from "../case.ts";
import { CaseEnd, fail, type Finding, notOffered, open, pass, vhostUser } from "../finding.ts";
import { ASKING, type Peer, type Reaction, REPLY_FLAGS } from "../peer.ts";
import { openDescriptors } from "../target.ts";
import type { Trial } from "../trial.ts";
import { happens, sleep } from "../wait.ts";
import type { Message } from "../../../transport/connection.ts";
import { bytesOf, describe, type Wire } from "../wire.ts";

const { GET_FEATURES, SET_FEATURES } = frontendMessages;
const HEADER = vhostUser("Header");
const COMMUNICATION = vhostUser("Communication");
const REPLY_ACK = vhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");

/** A number that no message has. */
const UNKNOWN = 200;

/** Sees GET_FEATURES answered rightly. */
async function answered(wire: Wire, what: string): Promise<void> {
  const message = await wire.next();
  if (typeof message === "string") fail(`an answer to GET_FEATURES ${what}`, message);
  message.fds.close();
  const { request, flags, size } = message.header;
  if (request !== GET_FEATURES.id || flags !== REPLY_FLAGS || size !== 8) {
    fail("the answer to GET_FEATURES", describe(message));
  }
}

/** What a back-end does with a header that is not right: anything but dying is its own affair. */
async function reaction(wire: Wire, ms: number): Promise<Finding> {
  let message: Message | "end" | "nothing";
  try {
    message = await wire.next(ms);
  } catch (error) {
    // What goes in comes out.
    if (error instanceof CaseEnd) return open("answers by a message that breaks the rules, too");
    throw error;
  }
  if (message === "end") return pass("closes the connection");
  if (message === "nothing") return open("waits");
  message.fds.close();
  const { request, flags } = message.header;
  const right = request === GET_FEATURES.id && flags === REPLY_FLAGS;
  return open(right ? "answers as if it were right" : `answers: ${describe(message)}`);
}

/** The finding for a message that cannot be right: to refuse it is right, to let it pass is open. */
export function reactionFinding(reaction: Reaction, accepted = "accepts it"): Finding {
  switch (reaction) {
    case "refused":
      return pass("answers failure");
    case "closed":
      return pass("closes the connection");
    case "accepted":
      return open(accepted);
    case "dropped":
      return open("answers success, and then closes the connection");
    case "passed over":
      return open("goes on without an answer");
  }
}

/** A request whose header differs from a right one. */
function wrongHeader(id: string, title: string, flags: number, section = HEADER): Case {
  return {
    id: `framing.${id}`,
    title,
    section,
    run: async (trial) => {
      const wire = await trial.connect();
      await wire.send(GET_FEATURES.id, new Uint8Array(0), { flags });
      return await reaction(wire, trial.soon);
    },
  };
}

/** A front-end that leaves at a bad time: the next one must not notice. */
function leaves(id: string, title: string, say: (peer: Peer) => Promise<void>): Case {
  return {
    id: `framing.${id}`,
    title,
    section: COMMUNICATION,
    run: async (trial) => {
      // At once, and when the back-end has surely seen what was said.
      for (const wait of [false, true]) {
        const peer = await trial.peer();
        await say(peer);
        if (wait) await sleep(trial.soon);
        peer.wire.close();
        const next = await hello(trial);
        await answered(next, "from the next front-end");
        next.close();
      }
    },
  };
}

/** A new connection that has asked for features. */
async function hello(trial: Trial): Promise<Wire> {
  const wire = await trial.connect();
  await wire.say(GET_FEATURES.id, new Uint8Array(0));
  return wire;
}

/** A front-end that connects, uses the device if it can, and leaves. */
async function visit(trial: Trial): Promise<void> {
  const inner = trial.sub();
  try {
    if (trial.profile === undefined) {
      const peer = await inner.open();
      const memory = inner.memory();
      await peer.share(memory);
      await peer.barrier();
    } else {
      const drive = await inner.drive();
      await drive.one();
    }
  } finally {
    inner.close();
  }
}

/** Cases about framing and connections. */
export const framingCases: readonly Case[] = [
  {
    id: "framing.byte-by-byte",
    title: "A message that comes byte by byte is one message",
    section: COMMUNICATION,
    run: async (trial) => {
      const wire = await trial.connect();
      for (const [i, byte] of bytesOf(GET_FEATURES.id, new Uint8Array(0)).entries()) {
        await wire.sendBytes(Uint8Array.of(byte));
        // Once long enough that even a busy back-end looks in between.
        await sleep(i === 0 ? trial.settings.quiet : 1);
      }
      await answered(wire, "that came byte by byte");
      await wire.say(GET_FEATURES.id, new Uint8Array(0));
      await answered(wire, "afterwards");
    },
  },
  {
    id: "framing.split-payload",
    title: "A payload may come later than its header",
    section: COMMUNICATION,
    run: async (trial) => {
      const peer = await trial.open();
      const bytes = bytesOf(SET_FEATURES.id, new Uint8Array(8));
      new DataView(bytes.buffer).setBigUint64(12, trial.acceptedFeatures(), true);
      for (const [from, to] of [[0, 12], [12, 15], [15, 20]]) {
        await peer.wire.sendBytes(bytes.subarray(from, to));
        await trial.quiet();
      }
      await peer.barrier();
    },
  },
  {
    id: "framing.pipelined",
    title: "Requests that are sent at once are answered in order",
    section: COMMUNICATION,
    needs: { ring: ["PROTOCOL_FEATURES"] },
    run: async (trial) => {
      const wire = await trial.connect();
      const order = [1, 15, 1, 1, 15, 15, 1, 15];
      const all = order.map((id) => bytesOf(id, new Uint8Array(0)));
      await wire.sendBytes(new Uint8Array(all.flatMap((bytes) => [...bytes])));
      for (const [i, id] of order.entries()) {
        const message = await wire.next();
        if (typeof message === "string") fail(`answer ${i + 1} of ${order.length}`, message);
        message.fds.close();
        if (message.header.request !== id) fail(`the answer to message ${id}`, describe(message));
      }
    },
  },
  wrongHeader("version-0", "A request of version 0 does no harm", 0),
  wrongHeader("version-2", "A request of version 2 does no harm", 2),
  wrongHeader("reserved-flags", "A request with flags that have no meaning does no harm", VERSION | 0xff0),
  wrongHeader("reply-flag", "A reply that nobody asked for does no harm", VERSION | HeaderFlag.REPLY),
  {
    id: "framing.huge-size",
    title: "A header that announces 4 GiB does no harm",
    section: HEADER,
    run: async (trial) => {
      const wire = await trial.connect();
      await wire.send(SET_FEATURES.id, new Uint8Array(8), { size: 0xffff_fff0 });
      return await reaction(wire, trial.soon);
    },
  },
  {
    id: "framing.oversized",
    title: "A payload of 8 KiB does no harm",
    section: HEADER,
    run: async (trial) => {
      const peer = await trial.open();
      return reactionFinding(await peer.attempt("SET_FEATURES", new Uint8Array(8192)));
    },
  },
  {
    id: "framing.unknown",
    title: "A message that nobody knows is answered by failure when need_reply is set",
    section: REPLY_ACK,
    needs: { protocol: ["REPLY_ACK"] },
    run: async (trial) => {
      const peer = await trial.open();
      const reaction = await peer.attemptUnknown(UNKNOWN, new Uint8Array(8));
      if (reaction === "accepted") fail("failure", "success");
      if (reaction === "dropped") fail("failure", "success, and then the end of the connection");
      return reactionFinding(reaction);
    },
  },
  {
    id: "framing.unknown-unasked",
    title: "A message that nobody knows, without need_reply",
    section: COMMUNICATION,
    run: async (trial) => {
      const peer = await trial.open();
      await peer.wire.send(UNKNOWN, new Uint8Array(8));
      await peer.tell("GET_FEATURES", undefined);
      const message = await peer.wire.next();
      if (message === "nothing") fail("an answer to the next message, or the end", "nothing");
      if (message === "end") return open("closes the connection");
      message.fds.close();
      return message.header.request === GET_FEATURES.id
        ? open("is passed over")
        : open(`is answered: ${describe(message)}`);
    },
  },
  {
    id: "framing.id-0",
    title: "Message 0, which does not exist, does no harm",
    section: COMMUNICATION,
    run: async (trial) => reactionFinding(await (await trial.open()).attemptUnknown(0, new Uint8Array(0))),
  },
  {
    id: "framing.need-reply-not-negotiated",
    title: "need_reply without REPLY_ACK",
    section: REPLY_ACK,
    run: async (trial) => {
      const peer = await trial.open({ without: ["REPLY_ACK"] });
      await peer.tell("SET_FEATURES", peer.features, { flags: ASKING });
      await peer.tell("GET_FEATURES", undefined);
      const message = await peer.wire.next();
      if (message === "nothing") fail("an answer to GET_FEATURES afterwards", "nothing");
      if (message === "end") return open("closes the connection");
      message.fds.close();
      return open(message.header.request === GET_FEATURES.id ? "is not acknowledged" : "is acknowledged");
    },
  },
  {
    id: "framing.leave-silent",
    title: "A front-end that leaves without a word does no harm",
    section: COMMUNICATION,
    run: async (trial) => {
      (await trial.dial()).close();
      await answered(await hello(trial), "from the next front-end");
    },
  },
  {
    id: "framing.reconnect",
    title: "A front-end may come as soon as the last one has left",
    section: COMMUNICATION,
    run: async (trial): Promise<Finding | void> => {
      if (trial.target.oneShot) notOffered("more than one connection in a process");
      let turnedAway = 0;
      for (let i = 0; i < 20; i++) {
        const wire = await trial.dial();
        await wire.say(GET_FEATURES.id, new Uint8Array(0));
        const message = await wire.next();
        if (message === "nothing") fail("an answer to GET_FEATURES", "nothing");
        if (message === "end") turnedAway++;
        else message.fds.close();
        wire.close();
      }
      // One that listens anew for each front-end may do so too late for the next: who is turned away can come again.
      if (turnedAway > 0) return pass("who comes too early may be turned away");
    },
  },
  leaves(
    "leave-in-header",
    "A front-end that leaves in the middle of a header does no harm",
    (peer) => peer.wire.sendBytes(bytesOf(SET_FEATURES.id, new Uint8Array(8)).subarray(0, 7)),
  ),
  leaves(
    "leave-in-payload",
    "A front-end that leaves in the middle of a payload does no harm",
    (peer) => peer.wire.sendBytes(bytesOf(SET_FEATURES.id, new Uint8Array(8)).subarray(0, 15)),
  ),
  leaves(
    "leave-unread",
    "A front-end that leaves before it reads its answers does no harm",
    // Until there is no more room for answers, so that the back-end leaves in the middle of one.
    (peer) => peer.wire.fill(bytesOf(GET_FEATURES.id, new Uint8Array(0))),
  ),
  {
    id: "framing.leave-with-requests",
    title: "A front-end that leaves while its rings run does no harm",
    section: COMMUNICATION,
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      drive.ring.offer(...Array.from({ length: 16 }, () => drive.place().head));
      drive.ring.kick();
      drive.peer.wire.close();
      await answered(await hello(trial), "from the next front-end");
    },
  },
  {
    id: "framing.many-visits",
    title: "Front-ends that come and go leave nothing behind",
    section: COMMUNICATION,
    run: async (trial) => {
      if (trial.target.oneShot) notOffered("more than one connection in a process");
      await visit(trial);
      const { pid } = trial.target;
      if (pid === undefined) notOffered("a process that can be seen");
      // The last connection may still be on its way out.
      await sleep(trial.settings.quiet);
      const before = openDescriptors(pid);
      if (before === undefined) notOffered("a process whose descriptors can be counted");
      const visits = 15;
      for (let i = 0; i < visits; i++) await visit(trial);
      // What a process opens once, some time, is no leak.
      const most = before + visits / 3;
      if (!await happens(() => (openDescriptors(pid) ?? 0) < most, trial.patience)) {
        const more = (openDescriptors(pid) ?? 0) - before;
        fail(`about as many open descriptors after ${visits} visits as before`, `${more} more`);
      }
    },
  },
  {
    id: "framing.second",
    title: "A second front-end at the same time",
    section: COMMUNICATION,
    run: async (trial) => {
      if (trial.target.oneShot) notOffered("more than one connection in a process");
      await answered(await hello(trial), "from the first front-end");
      let second: Wire;
      try {
        second = await trial.dial();
        await second.send(GET_FEATURES.id, new Uint8Array(0));
      } catch {
        return open("is refused");
      }
      const message = await second.next(trial.soon);
      if (message === "nothing") return open("waits until the first has left");
      if (message === "end") return open("is turned away");
      message.fds.close();
      return open("is served");
    },
  },
];
