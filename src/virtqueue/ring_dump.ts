/**
 * A ring as it lies in guest memory, for those who look for what went wrong.
 *
 * @module
 */

import { DESCRIPTOR_SIZE, DescriptorFlag } from "./split_layout.ts";

/** Descriptors, or heads, shown on each side of the one in question. */
const NEIGHBOURS = 2;

/** A descriptor. What its buffer holds is nobody's business. */
export interface DescriptorDump {
  /** Place in the table or ring. */
  readonly index: number;
  /** Hexadecimal. */
  readonly address: string;
  /** Bytes. */
  readonly length: number;
  /** Flags by name; bits without a name as a hexadecimal number. */
  readonly flags: readonly string[];
  /** Split: the field `next`, whether or not the flag says that it counts. */
  readonly next?: number;
  /** Packed: the buffer id. */
  readonly id?: number;
  /** Whether it is the one in question. */
  readonly offending?: true;
}

/**
 * A ring as it is now, a moment after something was found wrong in it: the driver may have written to it since. Made of plain
 * values.
 */
export interface RingDump {
  /** Format. */
  readonly format: "split" | "packed";
  /** Requests taken and not yet returned. */
  readonly inFlight: number;
  /**
   * Indices, flags and events by the names of virtio 1.4 (2.7.6, 2.7.8, 2.8.14), and under `device.` the positions that the
   * device has got to.
   */
  readonly fields: Readonly<Record<string, number>>;
  /** Split: heads around the next one to take, by their place in the available ring. */
  readonly heads?: readonly { readonly index: number; readonly head: number }[];
  /** The descriptor in question, if it is known, and its neighbours. */
  readonly descriptors: readonly DescriptorDump[];
}

/** Places around one in a ring, each once, in order of the ring. */
export function around(center: number, size: number): number[] {
  const reach = Math.min(NEIGHBOURS, Math.floor((size - 1) / 2));
  const places = Array.from({ length: 2 * reach + 1 }, (_, i) => (center - reach + i + size) % size);
  return size === 2 ? [0, 1] : places;
}

const NAMES: readonly (readonly [number, string])[] = [
  [DescriptorFlag.NEXT, "NEXT"],
  [DescriptorFlag.WRITE, "WRITE"],
  [DescriptorFlag.INDIRECT, "INDIRECT"],
];
const PACKED_NAMES: typeof NAMES = [[0x80, "AVAIL"], [0x8000, "USED"]];

function flagNames(flags: number, packed: boolean): string[] {
  const names = packed ? [...NAMES, ...PACKED_NAMES] : NAMES;
  const known = names.filter(([bit]) => (flags & bit) !== 0);
  const rest = known.reduce((left, [bit]) => left & ~bit, flags);
  return [...known.map(([, name]) => name), ...rest === 0 ? [] : [`0x${rest.toString(16)}`]];
}

/**
 * Some descriptors of a table or ring.
 *
 * @param view the table
 * @param offending the one in question
 */
export function dumpDescriptors(
  view: DataView,
  places: readonly number[],
  offending: number | undefined,
  packed: boolean,
  littleEndian = true,
): DescriptorDump[] {
  return places.map((index) => {
    const at = index * DESCRIPTOR_SIZE;
    const [first, second] = [view.getUint16(at + 12, littleEndian), view.getUint16(at + 14, littleEndian)];
    return {
      index,
      address: `0x${view.getBigUint64(at, littleEndian).toString(16)}`,
      length: view.getUint32(at + 8, littleEndian),
      flags: flagNames(packed ? second : first, packed),
      ...packed ? { id: first } : { next: second },
      ...index === offending ? { offending: true as const } : {},
    };
  });
}
