/**
 * Cases made from the message table: what every message has in common.
 *
 * @module
 */

import { type FrontendMessage, frontendMessages, type MessageRow } from "../../../protocol/messages.ts";
import { codecOf, payloads } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, type Needs, open, pass, vhostUser } from "../finding.ts";
import { ASKING } from "../peer.ts";
import { reactionFinding } from "./framing.ts";
import { samples } from "./samples.ts";

const REPLY_ACK = vhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");
const COMMUNICATION = vhostUser("Communication");

const names = Object.keys(frontendMessages) as FrontendMessage[];

function rowOf(name: FrontendMessage): MessageRow {
  return frontendMessages[name];
}

/** What must be negotiated for a message, beyond what is given. */
function needsOf(name: FrontendMessage, also: Needs = {}): Needs {
  const { requires, requiresRing } = rowOf(name);
  return {
    ...also,
    protocol: [...also.protocol ?? [], ...requires === undefined ? [] : [requires]],
    ring: [...also.ring ?? [], ...requiresRing === undefined ? [] : [requiresRing]],
  };
}

/** Messages that belong to another kind of device, or that change too much to be sent by way of trial. */
const special: readonly FrontendMessage[] = [
  "SET_CONFIG",
  "SEND_RARP",
  "CREATE_CRYPTO_SESSION",
  "CLOSE_CRYPTO_SESSION",
  "POSTCOPY_ADVISE",
  "POSTCOPY_LISTEN",
  "POSTCOPY_END",
  "GPU_SET_SOCKET",
  "VRING_KICK",
  "SET_DEVICE_STATE_FD",
];

/** Deprecated, or never sent by anybody: a back-end need not know what to do with it. */
const obscure: readonly FrontendMessage[] = ["RESET_OWNER", "SET_LOG_FD"];

/** "Acknowledged exactly when asked." */
function acknowledged(name: FrontendMessage): Case {
  return {
    id: `ack.${name}`,
    title: `${name} is acknowledged when need_reply is set, and only then`,
    section: REPLY_ACK,
    needs: needsOf(name, { protocol: ["REPLY_ACK"] }),
    run: async (trial) => {
      for (const flags of [ASKING, undefined]) {
        const inner = trial.sub();
        try {
          // There is one owner, so this is said once.
          const peer = await inner.open({ owner: name !== "SET_OWNER" });
          const { bytes, fds } = await samples[name](inner, peer);
          if (obscure.includes(name)) {
            const reaction = await peer.attempt(name, bytes, { fds });
            if (reaction !== "accepted") return open(reactionFinding(reaction).got ?? reaction);
            continue;
          }
          await peer.wire.send(rowOf(name).id, bytes, { flags, fds });
          if (flags === ASKING) {
            const { payload } = await peer.answer(name);
            const status = payloads.u64.decode(payload);
            if (status !== 0n) fail("0, for success", `${status}`);
          }
          await peer.barrier();
        } finally {
          inner.close();
        }
      }
    },
  };
}

/** "Answered once, whatever the flags." */
function answeredOnce(name: FrontendMessage): Case {
  return {
    id: `reply.${name}`,
    title: `${name} is answered once, with or without need_reply`,
    section: REPLY_ACK,
    needs: needsOf(name),
    run: async (trial) => {
      const peer = await trial.open();
      for (const flags of [undefined, ASKING]) {
        const { bytes, fds } = await samples[name](trial, peer);
        await peer.wire.send(rowOf(name).id, bytes, { flags, fds });
        const message = await peer.answer(name);
        message.fds.close();
        await peer.barrier();
      }
    },
  };
}

/** A message whose feature was not negotiated. */
function gated(name: FrontendMessage): Case {
  const { requires, requiresRing } = rowOf(name);
  return {
    id: `gate.${name}`,
    title: `${name} without ${requires ?? requiresRing} does no harm`,
    section: aboutMessage(name),
    needs: { protocol: ["REPLY_ACK"] },
    run: async (trial) => {
      const peer = await trial.open({ without: requires === undefined ? [] : [requires] });
      const { bytes, fds } = await samples[name](trial, peer);
      return reactionFinding(await peer.attempt(name, bytes, { fds }), "serves it");
    },
  };
}

/** A message of another length than it can have. */
function wrongLength(name: FrontendMessage, kind: "short" | "long"): Case {
  const { minimum, maximum } = codecOf(rowOf(name).payload);
  const title = kind === "short" ? "too short a payload" : "too long a payload";
  return {
    id: `${kind}.${name}`,
    title: `${name} with ${title} does no harm`,
    section: COMMUNICATION,
    needs: needsOf(name),
    run: async (trial) => {
      const peer = await trial.open();
      const { bytes, fds } = await samples[name](trial, peer);
      const wrong = new Uint8Array(kind === "short" ? Math.floor(minimum / 2) : maximum + 8);
      wrong.set(bytes.subarray(0, wrong.length));
      return reactionFinding(await peer.attempt(name, wrong, { fds }), "takes it as if it were right");
    },
  };
}

/** A message without the descriptors that it needs. */
function withoutDescriptors(name: FrontendMessage): Case {
  return {
    id: `fds.none.${name}`,
    title: `${name} without its descriptor does no harm`,
    section: COMMUNICATION,
    needs: needsOf(name),
    run: async (trial) => {
      const peer = await trial.open();
      const { bytes } = await samples[name](trial, peer);
      return reactionFinding(await peer.attempt(name, bytes));
    },
  };
}

/** A message with descriptors that it does not need. */
function surplusDescriptors(name: FrontendMessage): Case {
  return {
    id: `fds.more.${name}`,
    title: `${name} with a descriptor too many leaks none`,
    section: COMMUNICATION,
    needs: needsOf(name),
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open({ owner: name !== "SET_OWNER" });
      const { bytes, fds = [] } = await samples[name](trial, peer);
      const witness = trial.witness();
      const reaction = await peer.attempt(name, bytes, { fds: [...fds, witness.fd] });
      witness.release();
      const finding = reactionFinding(reaction, "serves it all the same");
      if (await witness.gone(trial.soon)) return pass(finding.got);
      peer.wire.close();
      if (await witness.gone(trial.soon)) {
        return open(`${finding.got}; closes the descriptor only with the connection`);
      }
      fail("the descriptor to be closed, with the connection at the latest", "it is still open");
    },
  };
}

const acks = names.filter((name) => rowOf(name).reply === "ack" && !special.includes(name));
const owns = names.filter((name) => rowOf(name).reply !== "ack" && !special.includes(name));
const gates = names.filter((name) => {
  const { requires, requiresRing } = rowOf(name);
  return requires !== undefined && requires !== "REPLY_ACK" || requiresRing === "ACCESS_PLATFORM";
});
const sized = names.filter((name) => codecOf(rowOf(name).payload).minimum > 0 && name !== "SET_CONFIG");
/** Whose length follows from what is in it, so that surplus bytes are common. */
const elastic: readonly FrontendMessage[] = ["SET_MEM_TABLE", "GET_CONFIG", "ADD_MEM_REG", "REM_MEM_REG"];
const carrying: readonly FrontendMessage[] = [
  "SET_MEM_TABLE",
  "SET_LOG_BASE",
  "SET_VRING_KICK",
  "SET_VRING_CALL",
  "SET_VRING_ERR",
  "SET_BACKEND_REQ_FD",
  "SET_INFLIGHT_FD",
  "ADD_MEM_REG",
  "SET_DEVICE_STATE_FD",
];

/** Cases about all messages alike. */
export const messageCases: readonly Case[] = [
  ...owns.map(answeredOnce),
  ...acks.map(acknowledged),
  ...gates.map(gated),
  ...sized.map((name) => wrongLength(name, "short")),
  ...sized.filter((name) => !elastic.includes(name)).map((name) => wrongLength(name, "long")),
  ...carrying.map(withoutDescriptors),
  ...names.filter((name) => !special.includes(name)).map(surplusDescriptors),
];
