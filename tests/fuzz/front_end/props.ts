/**
 * The descriptors that hostile front-ends give away: of every kind, in every condition.
 *
 * @module
 */

import assert from "node:assert/strict";
import { eventfd, signal } from "../../../ffi/eventfd.ts";
import { addSeals, close, Seal, writeBytes } from "../../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { Mapping, memoryFile } from "../../../ffi/mapping.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";
import { oddDescriptors } from "../../support/odd_descriptors.ts";
import { Random } from "../../support/random.ts";

/** Memory that a front-end may well share. Bytes that rings and requests are made of, at any address. */
export const SHARED = 0x1_0000;
/** What recorded front-ends share: zeros, and nothing of them is there until it is touched. */
const GUEST = 2 ** 32;
/** More than any machine has. */
const HUGE = 2 ** 44;

/** Names of descriptors that stay open, and of those that are made anew each time. */
export type DescriptorName = string;
/** A new back-end channel: one end is given away, the other answers. */
export const CHANNEL: DescriptorName = "a channel";
/** The end of a new pair of sockets of which the other is gone already. */
export const GONE: DescriptorName = "an end without another";
/** Memory that is sparse and as large as in a recording. */
export const GUEST_MEMORY: DescriptorName = "guest memory";
/** Memory full of numbers, of zeros, and such that cannot shrink. */
export const MEMORIES: readonly DescriptorName[] = ["noise", "zeros", "sealed memory"];
/** An event, as rings have them. */
export const EVENTS: readonly DescriptorName[] = ["an event", "another event"];

/** All names. */
export const descriptorNames: readonly DescriptorName[] = [
  ...MEMORIES,
  ...EVENTS,
  ...[
    "a regular file",
    "a directory",
    "a path",
    "a memory file",
    "an empty memory file",
    "a listening socket",
  ],
  ...["a connected socket", "a socket whose peer has gone", "a pipe", "the read end of a pipe"],
  ...["the write end of a pipe", "a null device", "a full event", "unwritable memory", "read-only memory"],
  ...["write-only memory", "one byte", "huge memory", "zeros of the system"],
  ...[GUEST_MEMORY, CHANNEL, GONE],
];

/** What stays open, by name; and what is as it was before each case. */
export class Props {
  readonly fds: Readonly<Record<DescriptorName, number>>;
  /** Some noise. */
  readonly noise: Uint8Array;
  readonly #fillings: readonly (readonly [Mapping, Uint8Array])[];

  /** Opens all; they are closed with the scope. */
  constructor(scope: Scope) {
    const noise = numbers(new Random(20240817), SHARED);
    this.noise = noise.subarray(0, 512);
    const memories = { noise, zeros: new Uint8Array(SHARED), "sealed memory": new Uint8Array(SHARED) };
    const own = Object.fromEntries(
      Object.keys(memories).map((name) => [name, memoryFile(name, SHARED)]),
    );
    addSeals(own["sealed memory"], Seal.SHRINK);
    const unwritable = memoryFile("unwritable", SHARED);
    addSeals(unwritable, Seal.WRITE | Seal.SHRINK | Seal.GROW | Seal.SEAL);
    const full = eventfd();
    writeBytes(full, new Uint8Array(new BigUint64Array([0xffff_ffff_ffff_fffdn]).buffer));
    this.fds = {
      ...oddDescriptors(scope),
      ...own,
      ...this.#opened(scope, {
        "another event": eventfd(),
        "a full event": full,
        "unwritable memory": unwritable,
        "read-only memory": openFile(`/proc/self/fd/${own.zeros}`, OpenFlag.READ_ONLY),
        "write-only memory": openFile(`/proc/self/fd/${own.zeros}`, OpenFlag.WRITE_ONLY),
        "one byte": memoryFile("one", 1),
        "huge memory": memoryFile("huge", HUGE),
        "zeros of the system": openFile("/dev/zero", OpenFlag.READ_WRITE),
        [GUEST_MEMORY]: memoryFile("guest", GUEST),
      }),
    };
    onEnd(scope, () => Object.values(own).forEach(close));
    assert.deepEqual(new Set([...Object.keys(this.fds), CHANNEL, GONE]), new Set(descriptorNames));
    this.#fillings = Object.entries(memories).map(([name, bytes]) => [new Mapping(own[name], SHARED), bytes]);
    onEnd(scope, () => this.#fillings.forEach(([mapping]) => mapping.unmap()));
  }

  #opened(scope: Scope, fds: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
    onEnd(scope, () => Object.values(fds).forEach(close));
    return fds;
  }

  /** Puts back what a case may have changed. */
  restore(): void {
    for (const [mapping, bytes] of this.#fillings) new Uint8Array(mapping.buffer).set(bytes);
  }

  /** Rings everything that can be rung. */
  ring(): void {
    for (const name of EVENTS) signal(this.fds[name]);
  }
}

/** Numbers that are likely to mean something, where rings and requests are looked for. */
function numbers(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < length; at += 8) {
    if (random.int(0, 3) === 0) view.setBigUint64(at, BigInt(random.pick([0, 1, 4, 0x1000, 0x1_0001])), true);
    else bytes.set(random.bytes(8), at);
  }
  return bytes;
}
