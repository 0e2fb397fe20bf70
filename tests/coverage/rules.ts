import {
  has,
  type ProtocolFeature,
  protocolFeatures,
  type RingFeature,
  ringFeatures,
} from "../../src/protocol/features.ts";
import { backendMessages, frontendMessages, type MessageRow } from "../../src/protocol/messages.ts";
import type { SessionRecord } from "./record.ts";

// What it takes for a feature to be proven by a session: the front-end has acknowledged it, and what it stands for has
// been done.

/** Whether a session has done what a feature stands for; the feature itself is acknowledged. */
export type Rule = (session: SessionRecord) => boolean;

/** One of the messages that need the feature was handled. */
function gated(feature: ProtocolFeature): Rule {
  const of = (table: Readonly<Record<string, MessageRow>>): string[] =>
    Object.keys(table).filter((name) => table[name].requires === feature);
  const [main, channel] = [of(frontendMessages), of(backendMessages)];
  return (session) =>
    main.some((name) => session.main.includes(name)) ||
    channel.some((name) => session.channel.includes(name));
}

const messages = (...names: string[]): Rule => ({ main }) => names.every((name) => main.includes(name));

/** Requests on a ring were completed while the feature was on. */
const used = (feature: RingFeature): Rule => ({ completed }) => has(BigInt(completed), ringFeatures[feature]);

/** Requests were completed at all. */
const works: Rule = ({ completed }) => BigInt(completed) !== 0n;

/** Protocol features of which messages alone do not tell. */
const PROTOCOL: Readonly<Partial<Record<ProtocolFeature, Rule>>> = {
  REPLY_ACK: ({ acknowledged }) => acknowledged.length > 0,
  BACKEND_SEND_FD: ({ withDescriptors }) => withDescriptors.length > 0,
  GET_VRING_BASE_INFLIGHT: messages("GET_VRING_BASE", "GET_INFLIGHT_FD"),
  GPA_ADDRESSES: works,
  // Regions of another form. Nobody can have done that here.
  XEN_MMAP: () => false,
};

/** Ring features for which it takes more than requests that were completed. */
const RING: Readonly<Partial<Record<RingFeature, Rule>>> = {
  // As a front-end we do not see the marks being made.
  LOG_ALL: ({ main, side, logged }) => main.includes("SET_LOG_BASE") && (side === "front-end" || logged),
  INDIRECT_DESC: ({ indirect }) => indirect,
  PROTOCOL_FEATURES: messages("GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES"),
  ACCESS_PLATFORM: messages("IOTLB_MSG"),
  RING_PACKED: ({ packed }) => packed,
};

/** Protocol features that a session proves. */
export function provenProtocol(session: SessionRecord): ProtocolFeature[] {
  const acknowledged = BigInt(session.protocol);
  return (Object.keys(protocolFeatures) as ProtocolFeature[]).filter((feature) =>
    has(acknowledged, protocolFeatures[feature]) && (PROTOCOL[feature] ?? gated(feature))(session)
  );
}

/** Ring features that a session proves. */
export function provenRing(session: SessionRecord): RingFeature[] {
  return (Object.keys(ringFeatures) as RingFeature[]).filter((feature) =>
    used(feature)(session) && (RING[feature] ?? works)(session)
  );
}

/** Questions to which no is an answer like yes, and tells nothing of a failure. */
export const answersBoth: ReadonlySet<string> = new Set(["SHARED_OBJECT_LOOKUP"]);

/** What has to be said of a row that is proven, lest it say too much. By kind of row, then by name. */
export const remarks = {
  "front-end messages": {
    RESET_OWNER: "deprecated; RESET_DEVICE took its place, and no front-end was seen to send it",
    GET_SHARED_OBJECT: "QEMU does not say which, and is given none",
  },
  "back-end messages": {
    SHARED_OBJECT_LOOKUP: "QEMU answers no to everything; with a descriptor among ourselves only",
  },
  "protocol features": {},
  "ring features": {},
} satisfies Record<string, Readonly<Record<string, string>>>;

/** A row that no real peer proves, with the reason. */
export interface Exception {
  /** Why. */
  readonly reason: string;
  /**
   * `"no peer exists"`: our two sides prove it to each other. `"not offered"`: it is nothing for a back-end, or not for
   * ours, and no back-end of ours was seen to offer it.
   */
  readonly kind: "no peer exists" | "not offered";
}

const nobody = (reason: string): Exception => ({ kind: "no peer exists", reason });
const outside = (reason: string): Exception => ({ kind: "not offered", reason });

/** The rows that no real peer proves. Everything else must be. By kind of row, then by name. */
export const exceptions = {
  "front-end messages": {
    SET_LOG_FD: nobody(
      "QEMU has its number and no code that sends it; rust-vmm's and crosvm's libraries have some, which only their tests call",
    ),
  },
  "back-end messages": {
    VRING_ERR: nobody(
      "User-Mode Linux, the only front-end with in-band notifications, knows VRING_CALL only (virtio_uml.c)",
    ),
  },
  "protocol features": {
    XEN_MMAP: outside(
      "memory of Xen, which takes a privileged domain to map; QEMU takes the bit and sends regions without Xen's part",
    ),
  },
  "ring features": {
    NOTIFY_ON_EMPTY: outside("reserved for legacy devices (virtio 1.4, 6.3); EVENT_IDX took its place"),
    ANY_LAYOUT: outside("reserved for legacy devices (virtio 1.4, 6.3); ours takes any layout anyway"),
    ORDER_PLATFORM: outside(
      "for devices that need more than the processor's order, as hardware does (virtio 1.4, 6)",
    ),
    SR_IOV: outside("a capability of the PCI device, which is the front-end's"),
    NOTIFICATION_DATA: outside("a kick is an eventfd, which carries no data"),
    NOTIF_CONFIG_DATA: outside("about the PCI device's notifications, which are the front-end's"),
    RING_RESET: outside(
      "vhost-user does not say how one ring is reset; a front-end can stop and start it without the bit",
    ),
    ADMIN_VQ: outside("a ring of the PCI device, which is the front-end's"),
    SUSPEND: outside("a device status of virtio 1.4 that vhost-user has no word for"),
  },
} satisfies Record<string, Readonly<Record<string, Exception>>>;
