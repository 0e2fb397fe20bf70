/**
 * What a front-end has said that still holds: the messages by which another process comes to the same state.
 *
 * @module
 */

import { close, type DescriptorBag, duplicate } from "../../../ffi/fd.ts";
import { type FrontendMessage, frontendMessages, type PayloadOf } from "../../protocol/messages.ts";
import {
  codecOf,
  type MemoryRegion,
  type PayloadTypes,
  type VringDescriptor,
  type VringState,
} from "../../protocol/payloads.ts";
import type { Handlers } from "../../transport/responder.ts";
import { after } from "../awaitable.ts";

/** Regions of one SET_MEM_TABLE of the journal; what there is beyond that came by ADD_MEM_REG. */
const TABLE = 32;

/** A message, as it is sent. */
export interface Entry {
  /** Its name. */
  readonly name: FrontendMessage;
  /** Its payload. */
  readonly payload: Uint8Array;
  /** Its descriptors; the journal's. */
  readonly fds: readonly number[];
}

/** What is set anew by every message of its name. */
const OF_SESSION = [
  "SET_OWNER",
  "SET_PROTOCOL_FEATURES",
  "SET_FEATURES",
  "SET_BACKEND_REQ_FD",
  "SET_LOG_BASE",
  "SET_LOG_FD",
  "SET_INFLIGHT_FD",
  "NET_SET_MTU",
] as const;

/** The same for each ring; starting comes last. */
const OF_RING = [
  "SET_VRING_NUM",
  "SET_VRING_ENDIAN",
  "SET_VRING_BASE",
  "SET_VRING_ADDR",
  "SET_VRING_ERR",
  "SET_VRING_CALL",
  "SET_VRING_ENABLE",
  "SET_VRING_KICK",
  "VRING_KICK",
] as const;

/** What of a ring outlasts RESET_DEVICE. */
const AFTER_RESET: ReadonlySet<string> = new Set(["SET_VRING_ERR", "SET_VRING_CALL"]);

/** All that the journal has, in the order in which it is told. The device status is told by who knows it. */
export const JOURNALED: readonly FrontendMessage[] = [
  ...OF_SESSION,
  "SET_MEM_TABLE",
  "ADD_MEM_REG",
  "SET_CONFIG",
  ...OF_RING,
  "SET_STATUS",
];

function place({ guestAddress, userAddress, size }: MemoryRegion): string {
  return `${guestAddress}:${userAddress}:${size}`;
}

/** Owns copies of the descriptors. */
export class Journal {
  /** By name; of a ring, by name and number; of the configuration space, by name and range. */
  readonly #entries = new Map<string, Entry>();
  readonly #regions = new Map<string, { readonly region: MemoryRegion; readonly fd: number }>();
  readonly #rings: number;
  readonly #memory: { readonly regions: readonly unknown[] };
  #closed = false;

  /**
   * Nothing was said yet.
   *
   * @param rings of the device
   * @param memory as it is after each message
   */
  constructor(rings: number, memory: { readonly regions: readonly unknown[] }) {
    this.#rings = rings;
    this.#memory = memory;
  }

  /** The same handlers. What they have done is written down. */
  recording(handlers: Handlers<typeof frontendMessages>): Handlers<typeof frontendMessages> {
    const recorded = new Map<FrontendMessage, (value: never, fds: number[], answer: never) => void>([
      ["SET_MEM_TABLE", (regions: readonly MemoryRegion[], fds) => this.#setTable(regions, fds)],
      ["ADD_MEM_REG", (region: MemoryRegion | undefined, fds) => this.#add(region, fds)],
      ["REM_MEM_REG", (region: MemoryRegion) => this.#remove(region)],
      ["SET_CONFIG", (config: PayloadTypes["config"]) => {
        this.#put("SET_CONFIG", `${config.offset}+${config.data.length}`, config);
      }],
      ["GET_VRING_BASE", (_: VringState, __, answer: VringState) => this.#stopped(answer)],
      ["RESET_DEVICE", () => this.#reset()],
      ["RESET_OWNER", () => this.#disabled()],
    ]);
    for (const name of OF_SESSION) recorded.set(name, (value, fds) => this.#put(name, "", value, fds));
    for (const name of OF_RING) {
      recorded.set(
        name,
        (value: VringState | VringDescriptor, fds) => this.#put(name, value.index, value, fds),
      );
    }
    // VRING_KICK starts a ring once, and is sent again and again.
    recorded.set("VRING_KICK", (value: VringState) => {
      if (!this.#entries.has(`VRING_KICK ${value.index}`)) this.#put("VRING_KICK", value.index, value);
    });
    const wrapped = [...recorded].map(([name, record]) =>
      [name, (payload: unknown, fds: DescriptorBag) => {
        const copies: number[] = [];
        const handle = handlers[name] as (payload: unknown, fds: DescriptorBag) => unknown;
        const failed = (error: unknown): never => {
          copies.forEach(close);
          throw error;
        };
        try {
          for (const fd of fds.list()) copies.push(duplicate(fd));
          const result = handle(payload, fds);
          const done = (answer: unknown): unknown => {
            // The front-end may have left while the message was handled.
            if (!this.#closed) record(payload as never, copies, answer as never);
            // Not every message keeps what comes with it: libblkio sends a descriptor with REM_MEM_REG.
            copies.forEach(close);
            return answer;
          };
          return result instanceof Promise ? result.then(done, failed) : after(result, done);
        } catch (error) {
          return failed(error);
        }
      }] as const
    );
    return { ...handlers, ...Object.fromEntries(wrapped) };
  }

  /** Takes the descriptors out of the list. */
  #put(name: FrontendMessage, key: string | number, value: unknown, fds: number[] = []): void {
    const at = `${name} ${key}`;
    this.#drop(at);
    const payload = codecOf(frontendMessages[name].payload).encode(value);
    this.#entries.set(at, { name, payload, fds: fds.splice(0) });
  }

  #drop(at: string): void {
    this.#entries.get(at)?.fds.forEach(close);
    this.#entries.delete(at);
  }

  #dropAll(which: (name: FrontendMessage) => boolean): void {
    for (const [at, { name }] of [...this.#entries]) if (which(name)) this.#drop(at);
  }

  #setTable(regions: readonly MemoryRegion[], fds: number[]): void {
    // During postcopy this says that our addresses were understood.
    if (regions.length === 0 && this.#memory.regions.length > 0) return;
    this.#clearRegions();
    const own = fds.splice(0, regions.length);
    regions.forEach((region, i) => this.#regions.set(place(region), { region, fd: own[i] }));
  }

  #add(region: MemoryRegion | undefined, fds: number[]): void {
    if (region === undefined) return;
    const [fd] = fds.splice(0, 1);
    this.#regions.set(place(region), { region, fd });
  }

  #remove(region: MemoryRegion): void {
    const found = this.#regions.get(place(region));
    if (found !== undefined) close(found.fd);
    this.#regions.delete(place(region));
  }

  #clearRegions(): void {
    for (const { fd } of this.#regions.values()) close(fd);
    this.#regions.clear();
  }

  #stopped(answer: VringState): void {
    const { index } = answer;
    for (const name of ["SET_VRING_KICK", "VRING_KICK", "SET_VRING_CALL"]) this.#drop(`${name} ${index}`);
    this.#put("SET_VRING_BASE", index, answer);
  }

  #reset(): void {
    this.#dropAll((name) => (OF_RING as readonly string[]).includes(name) && !AFTER_RESET.has(name));
    this.#drop("SET_FEATURES ");
    this.forgetConfig();
  }

  #disabled(): void {
    for (let index = 0; index < this.#rings; index++) this.#put("SET_VRING_ENABLE", index, { index, num: 0 });
  }

  /** The device was reset: what was written to its configuration space does not hold any more. */
  forgetConfig(): void {
    this.#dropAll((name) => name === "SET_CONFIG");
  }

  /**
   * All that holds, in an order in which it can be said.
   *
   * @param positions where the started rings stand
   */
  entries(positions: readonly VringState[]): Entry[] {
    const regions = [...this.#regions.values()];
    const table = regions.slice(0, TABLE);
    const memory: Entry[] = regions.length === 0 ? [] : [
      entry("SET_MEM_TABLE", table.map(({ region }) => region), table.map(({ fd }) => fd)),
      ...regions.slice(TABLE).map(({ region, fd }) => entry("ADD_MEM_REG", region, [fd])),
    ];
    const bases = new Map(
      positions.map((at) => [`SET_VRING_BASE ${at.index}`, entry("SET_VRING_BASE", at)]),
    );
    const others = [...new Map([...this.#entries, ...bases]).values()];
    return JOURNALED.flatMap((name) =>
      name === "SET_MEM_TABLE" ? memory : others.filter((each) => each.name === name)
    );
  }

  /** Closes the descriptors. */
  close(): void {
    this.#closed = true;
    this.#dropAll(() => true);
    this.#clearRegions();
  }
}

/** A message of the journal that is made up. */
export function entry<K extends FrontendMessage>(
  name: K,
  value: PayloadOf<(typeof frontendMessages)[K]>,
  fds: readonly number[] = [],
): Entry {
  return { name, payload: codecOf(frontendMessages[name].payload).encode(value), fds };
}
