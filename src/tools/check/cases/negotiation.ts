/**
 * Features and protocol features.
 *
 * @module
 */

import {
  has,
  mask,
  type ProtocolFeature,
  protocolFeatures,
  ringFeatures,
} from "../../../protocol/features.ts";
import { payloads } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Needs, notOffered, open, vhostUser, virtio } from "../finding.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const PROTOCOL_FEATURES = vhostUser("Protocol features");

/** What a protocol feature needs to be of use. */
const dependencies: readonly (readonly [ProtocolFeature, readonly ProtocolFeature[], section: string])[] = [
  ["INBAND_NOTIFICATIONS", ["BACKEND_REQ", "REPLY_ACK"], vhostUser("In-band notifications")],
  ["GET_VRING_BASE_INFLIGHT", ["INFLIGHT_SHMFD"], aboutMessage("GET_VRING_BASE")],
  ["BACKEND_SEND_FD", ["BACKEND_REQ"], vhostUser("Back-end communication")],
  ["HOST_NOTIFIER", ["BACKEND_REQ"], vhostUser("Back-end message types")],
  ["SHARED_OBJECT", ["BACKEND_REQ"], vhostUser("Back-end message types")],
  ["SHMEM", ["BACKEND_REQ"], vhostUser("Back-end message types")],
];

/** A bit of a mask that is not set in it, from those that have no meaning. */
function unoffered(offered: bigint, from: number): bigint {
  for (let bit = from; bit >= 0; bit--) if (!has(offered, bit)) return 1n << BigInt(bit);
  notOffered("a bit that is not offered");
}

function needsProtocolFeatures(trial: Trial): void {
  if (!has(trial.offer.features, ringFeatures.PROTOCOL_FEATURES)) notOffered("PROTOCOL_FEATURES");
}

const withProtocolFeatures: Needs = { ring: ["PROTOCOL_FEATURES"] };

/** Cases about negotiation. */
export const negotiationCases: readonly Case[] = [
  {
    id: "features.constant",
    title: "GET_FEATURES always gives the same answer",
    section: aboutMessage("GET_FEATURES"),
    run: async (trial) => {
      const peer = await trial.open();
      const first = payloads.u64.decode(peer.wire.greeting as Uint8Array);
      for (let i = 0; i < 3; i++) {
        const features = await peer.number("GET_FEATURES");
        if (features !== first) fail(`0x${first.toString(16)}`, `0x${features.toString(16)}`);
      }
    },
  },
  {
    id: "features.version-1",
    title: "VERSION_1 is offered",
    section: virtio("6.2"),
    run: ({ offer: { features } }) => {
      if (!has(features, ringFeatures.VERSION_1)) {
        fail("bit 32 in GET_FEATURES", `0x${features.toString(16)}`);
      }
    },
  },
  {
    id: "features.subset",
    title: "Any subset of the features is accepted",
    section: virtio("2.2.2"),
    run: async (trial) => {
      const { VERSION_1, PROTOCOL_FEATURES, ACCESS_PLATFORM } = ringFeatures;
      const keep = mask(VERSION_1, PROTOCOL_FEATURES);
      const { features } = trial.offer;
      // IOMMU addresses change what everything else means.
      const all = features & ~mask(ACCESS_PLATFORM, ringFeatures.LOG_ALL);
      for (const accepted of [features & keep, all, features & keep]) {
        const inner = trial.sub();
        const peer = await inner.open();
        await peer.set("SET_FEATURES", accepted);
        await peer.barrier();
        inner.close();
      }
    },
  },
  {
    id: "features.not-offered",
    title: "SET_FEATURES with a bit that was not offered",
    section: virtio("2.2.1"),
    run: async (trial) => {
      const peer = await trial.open();
      const wrong = peer.features | unoffered(trial.offer.features, 63);
      return reactionFinding(await peer.attempt("SET_FEATURES", payloads.u64.encode(wrong)));
    },
  },
  {
    id: "features.set-again",
    title: "SET_FEATURES may be sent again",
    section: aboutMessage("SET_FEATURES"),
    run: async (trial) => {
      const peer = await trial.open();
      await peer.set("SET_FEATURES", peer.features);
      await peer.set("SET_FEATURES", peer.features);
      await peer.barrier();
    },
  },
  {
    id: "protocol.before-features",
    title: "Protocol features can be negotiated before SET_FEATURES",
    section: aboutMessage("GET_PROTOCOL_FEATURES"),
    needs: withProtocolFeatures,
    run: async (trial) => {
      const peer = await trial.peer();
      await peer.number("GET_FEATURES");
      const offered = await peer.number("GET_PROTOCOL_FEATURES");
      await peer.tell("SET_PROTOCOL_FEATURES", offered & mask(protocolFeatures.REPLY_ACK));
      await peer.barrier();
    },
  },
  {
    id: "protocol.constant",
    title: "GET_PROTOCOL_FEATURES always gives the same answer",
    section: aboutMessage("GET_PROTOCOL_FEATURES"),
    needs: withProtocolFeatures,
    run: async (trial) => {
      const peer = await trial.open();
      const again = await peer.number("GET_PROTOCOL_FEATURES");
      if (again !== trial.offer.protocol) {
        fail(`0x${trial.offer.protocol.toString(16)}`, `0x${again.toString(16)}`);
      }
    },
  },
  ...dependencies.map(([feature, needs, section]): Case => ({
    id: `protocol.needs.${feature}`,
    title: `${feature} is offered only with ${needs.join(" and ")}`,
    section,
    run: (trial) => {
      if (!trial.offers(feature)) notOffered(feature);
      const missing = needs.filter((each) => !trial.offers(each));
      if (missing.length > 0) fail(`${missing.join(" and ")} to be offered too`, "not offered");
    },
  })),
  {
    id: "protocol.needs.LOG_ALL",
    title: "LOG_ALL is offered only with LOG_SHMFD",
    section: vhostUser("Migration"),
    needs: { ring: ["LOG_ALL"] },
    run: (trial) => {
      if (!trial.offers("LOG_SHMFD")) return open("offers LOG_ALL without LOG_SHMFD");
    },
  },
  {
    id: "protocol.needs.ACCESS_PLATFORM",
    title: "ACCESS_PLATFORM is offered only with BACKEND_REQ and REPLY_ACK",
    section: vhostUser("IOMMU support"),
    needs: { ring: ["ACCESS_PLATFORM"] },
    run: (trial) => {
      // "The back-end relies on the back-end communication channel … to send IOTLB miss".
      if (!trial.offers("BACKEND_REQ")) fail("BACKEND_REQ to be offered too", "not offered");
      if (!trial.offers("REPLY_ACK")) return open("does not offer REPLY_ACK, which QEMU asks for");
    },
  },
  {
    id: "protocol.not-offered",
    title: "SET_PROTOCOL_FEATURES with a bit that was not offered",
    section: PROTOCOL_FEATURES,
    needs: withProtocolFeatures,
    run: async (trial) => {
      const peer = await trial.open();
      const wrong = peer.protocol | unoffered(trial.offer.protocol, 63);
      return reactionFinding(await peer.attempt("SET_PROTOCOL_FEATURES", payloads.u64.encode(wrong)));
    },
  },
  {
    id: "protocol.inband-alone",
    title: "INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK ends the connection",
    section: vhostUser("In-band notifications"),
    needs: { protocol: ["INBAND_NOTIFICATIONS"] },
    run: async (trial) => {
      const peer = await trial.peer();
      await peer.number("GET_FEATURES");
      await peer.number("GET_PROTOCOL_FEATURES");
      await peer.tell("SET_PROTOCOL_FEATURES", mask(protocolFeatures.INBAND_NOTIFICATIONS));
      if (await peer.wire.ends(trial.soon)) return;
      // "the back-end should close the connection"
      return open("the connection stays open, which it should not");
    },
  },
  {
    id: "protocol.kept",
    title: "Protocol features outlive RESET_OWNER and a new SET_FEATURES",
    section: aboutMessage("RESET_OWNER"),
    needs: { protocol: ["MQ"] },
    run: async (trial) => {
      needsProtocolFeatures(trial);
      const peer = await trial.open();
      const before = await peer.number("GET_QUEUE_NUM");
      await peer.tell("RESET_OWNER", undefined);
      await peer.setFeatures(peer.features);
      const after = await peer.number("GET_QUEUE_NUM");
      if (after !== before) fail(`${before} rings, as before`, `${after}`);
    },
  },
  {
    id: "queues.number",
    title: "GET_QUEUE_NUM tells of at least one ring, and no more than ring indices can name",
    section: aboutMessage("GET_QUEUE_NUM"),
    needs: { protocol: ["MQ"] },
    run: async (trial) => {
      const peer = await trial.open();
      const number = await peer.number("GET_QUEUE_NUM");
      if (number < 1n) fail("at least 1", `${number}`);
      const needed = trial.settings.device === "net" ? 1 : trial.profile?.rings ?? 1;
      if (number < BigInt(needed)) fail(`at least ${needed} for this kind of device`, `${number}`);
      // Descriptors for rings are named by 8 bits.
      if (number > 256n) return open(`${number} rings; only 256 can be named`);
    },
  },
];
