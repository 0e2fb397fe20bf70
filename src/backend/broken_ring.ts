/**
 * What is told of a ring that broke.
 *
 * @module
 */

import { featureNames, ringFeatures } from "../protocol/features.ts";
import type { Endianness } from "../protocol/struct.ts";
import type { DescriptorDump, RingDump } from "../virtqueue/ring_dump.ts";

/**
 * A ring that broke, in the words of the specification. It can be cloned, sent and written as JSON; its size is bounded, and it
 * holds nothing of the buffers.
 */
export interface BrokenRing {
  /** Number in the device. */
  readonly ring: number;
  /** What was wrong. */
  readonly reason: string;
  /** Where the rule is written that was broken, such as `virtio 1.4, 2.7.5.2`; absent when no rule of rings was. */
  readonly rule?: string;
  /** Entries (SET_VRING_NUM). */
  readonly size: number;
  /** Byte order of its fields. */
  readonly endianness: Endianness;
  /** The addresses of SET_VRING_ADDR, hexadecimal. */
  readonly addresses?: { readonly descriptor: string; readonly available: string; readonly used: string };
  /** Position to go on from, as GET_VRING_BASE would answer it now. */
  readonly base?: number;
  /** The features that the driver accepted, hexadecimal. */
  readonly features: string;
  /** The names of those that concern rings. */
  readonly featureNames: readonly string[];
  /** The ring itself; absent when its memory is gone, or was never found. */
  readonly state?: RingDump;
}

/** The names of the features that concern rings and transport. */
export function ringFeatureNames(features: bigint): string[] {
  return featureNames(features, ringFeatures).filter((name) => !name.startsWith("bit "));
}

function descriptorLine({ index, address, length, flags, next, id, offending }: DescriptorDump): string {
  const link = next === undefined ? `, id ${id}` : flags.includes("NEXT") ? `, next ${next}` : "";
  const mark = offending === true ? "  <- here" : "";
  return `descriptor ${index}: ${address}+${length} ${
    flags.length === 0 ? "no flags" : flags.join(" ")
  }${link}${mark}`;
}

function* stateLines({ format, inFlight, fields, heads, descriptors }: RingDump): Iterable<string> {
  yield `${format} ring, ${inFlight} in flight: ${
    Object.entries(fields).map(([name, value]) => `${name} ${value}`).join(", ")
  }`;
  if (heads !== undefined) {
    yield `heads: ${heads.map(({ index, head }) => `avail.ring[${index}] ${head}`).join(", ")}`;
  }
  for (const each of descriptors) yield descriptorLine(each);
}

/** The same for people, line by line. */
export function brokenRingLines(broken: BrokenRing): string[] {
  const { rule, size, endianness, addresses, base, state } = broken;
  return [
    ...rule === undefined ? [] : [`rule: ${rule}`],
    `size ${size}, ${endianness}-endian${base === undefined ? "" : `, base ${base}`}`,
    ...addresses === undefined ? [] : [
      `descriptor table ${addresses.descriptor}, available ring ${addresses.available}, used ring ${addresses.used}`,
    ],
    `features ${broken.features}: ${broken.featureNames.join(", ") || "none of the ring"}`,
    ...state === undefined ? [] : stateLines(state),
  ];
}
