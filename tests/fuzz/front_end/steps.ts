/**
 * What a hostile front-end does, as data.
 *
 * @module
 */

import { frontendMessages, messageName } from "../../../src/protocol/mod.ts";
import type { DescriptorName } from "./props.ts";

/** How the other side of a back-end channel answers what it is asked. */
export const answers = [
  "right",
  "failed",
  "empty",
  "long",
  "with a descriptor",
  "another id",
  "no reply",
  "noise",
  "twice",
  "gone",
] as const;
/** One of them. */
export type AnswerKind = (typeof answers)[number];

/** One step. `who` is one of the front-ends that are there at once; it comes with the first that it says, and comes again when it was
 * dropped. */
export type Step =
  /** Which device the case is about. Without it, the first. */
  | { readonly do: "device"; readonly name: string }
  /** Says what every front-end says at first; takes what is offered of these features. */
  | { readonly do: "negotiate"; readonly who: number; readonly features: bigint; readonly protocol: bigint }
  /** Sends a message; several in a row, with descriptors at the first of them only, go out in one piece. */
  | {
    readonly do: "say";
    readonly who: number;
    readonly bytes: Uint8Array;
    readonly fds: readonly DescriptorName[];
  }
  /** The same with SET_FEATURES or SET_PROTOCOL_FEATURES, but takes only what is offered. */
  | {
    readonly do: "accept";
    readonly who: number;
    readonly bytes: Uint8Array;
    readonly fds: readonly DescriptorName[];
  }
  /** Sends it in pieces of so many bytes, the descriptors with each. */
  | {
    readonly do: "dribble";
    readonly who: number;
    readonly bytes: Uint8Array;
    readonly fds: readonly DescriptorName[];
    readonly piece: number;
  }
  /** Takes the answers that are there. */
  | { readonly do: "read"; readonly who: number }
  /** Answers what came on the back-end channels. */
  | { readonly do: "answer"; readonly who: number; readonly how: AnswerKind }
  /** Rings all events that were given away. */
  | { readonly do: "ring" }
  /** The configuration space changes. */
  | { readonly do: "change" }
  /** Everyone gets time. */
  | { readonly do: "turn"; readonly turns: number }
  /** Nobody does anything for a while. */
  | { readonly do: "sleep"; readonly milliseconds: number }
  /** Sends nothing more, and reads on. */
  | { readonly do: "hush"; readonly who: number }
  /** Reads nothing more, and sends on. */
  | { readonly do: "deafen"; readonly who: number }
  /** Goes, with answers unread (the other side gets ECONNRESET) or not. */
  | { readonly do: "leave"; readonly who: number; readonly unread: boolean };

/** A step in a line. */
export function describe(step: Step): string {
  const { do: what, ...rest } = step;
  const words = Object.entries(rest).map(([key, value]) => {
    if (value instanceof Uint8Array) return messageText(value);
    if (typeof value === "bigint") return `${key} 0x${value.toString(16)}`;
    if (Array.isArray(value)) return value.length === 0 ? "" : `with ${value.join(", ")}`;
    return `${key} ${value}`;
  });
  return [what, ...words.filter((word) => word !== "")].join(" ");
}

function messageText(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = bytes.length < 4 ? undefined : messageName(frontendMessages, view.getUint32(0, true));
  const hex = [...bytes.subarray(0, 160)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${name ?? "?"} ${hex}${bytes.length > 160 ? `… (${bytes.length} bytes)` : ""}`;
}
