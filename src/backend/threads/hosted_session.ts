/**
 * A session in a thread that runs some of its rings.
 *
 * @module
 */

import { close, DescriptorBag } from "../../../ffi/fd.ts";
import type { Reactor } from "../../../ffi/reactor.ts";
import type { IotlbMiss } from "../../memory/iotlb.ts";
import { Region, type RegionShare } from "../../memory/region.ts";
import type { Awaitable } from "../awaitable.ts";
import type { Device, FrontEndLink } from "../device.ts";
import type { Limits } from "../limits.ts";
import { RingCounters } from "../ring_counters.ts";
import { type RingEvents, RingHost } from "../ring_host.ts";
import { SharedWindows } from "../shared_windows.ts";
import type { Vring } from "../vring.ts";
import {
  type Call,
  type ErrorText,
  type FromThread,
  type Outcome,
  packError,
  type RingEvent,
  type RingSeat,
  type RingStatus,
  unpack,
  unpackError,
} from "./messages.ts";

type Method = (...args: unknown[]) => unknown;

/** How a ring waits for an address. */
interface Miss {
  readonly miss: IotlbMiss;
  readonly count: number;
}

/** What may be called of a ring: the methods of `VringControl`. */
const RING_METHODS: ReadonlySet<string> = new Set(
  [
    "setSize",
    "setAddress",
    "setBase",
    "setEndianness",
    "setEnabled",
    "start",
    "setCall",
    "setError",
    "kickInBand",
    "stop",
  ] satisfies (keyof Vring)[],
);

/** Those that come with a descriptor, which is the ring's from then on. */
const GIVING: ReadonlySet<string> = new Set(["start", "setCall", "setError"]);

/** What may be called of the session: the methods of `RingHosting`. */
const HOST_METHODS: ReadonlySet<string> = new Set(
  [
    "setFeatures",
    "setProtocol",
    "openLog",
    "setLogEvent",
    "openInflight",
    "updateIotlb",
    "invalidateIotlb",
    "clearIotlb",
    "writeConfig",
    "freeze",
    "thaw",
  ] satisfies (keyof RingHost)[],
);

/** Runs rings of a session as the session's thread says. */
export class HostedSession {
  readonly #session: number;
  readonly #host: RingHost;
  readonly #windows: SharedWindows;
  readonly #post: (message: FromThread) => void;
  readonly #misses = new Map<number, Miss>();
  readonly #asked = new Map<number, (outcome: Outcome) => void>();
  #requests = 0;
  #missCount = 0;
  #unfinished: Awaitable<void> = undefined;

  /** A session at its start, with those rings of the device that run here. */
  constructor(
    session: number,
    device: Device,
    { rings, limits }: { readonly rings: readonly RingSeat[]; readonly limits: Limits },
    reactor: Reactor,
    post: (message: FromThread) => void,
  ) {
    this.#session = session;
    this.#post = post;
    let host: RingHost | undefined = undefined;
    const request = this.#request.bind(this) as FrontEndLink["request"];
    const sizes = new Map<number, number>();
    this.#windows = new SharedWindows(sizes, { request });
    const behaviour = device.connect({
      negotiated: (feature) => host?.negotiated(feature) ?? false,
      request,
      windows: this.#windows,
    });
    for (const [id, size] of behaviour.sharedMemory ?? []) sizes.set(id, size);
    const counters = new Map(rings.map(({ index, counters }) => [index, new RingCounters(counters)]));
    this.#host = host = new RingHost(
      behaviour,
      [...counters.keys()],
      reactor,
      this.#events(),
      limits,
      (index) => counters.get(index) ?? new RingCounters(),
    );
  }

  #events(): RingEvents {
    const tell = (ring: number, rest: RingEventOf): void =>
      this.#post({ kind: "event", session: this.#session, ring, ...rest });
    return {
      onRequestError: (ring, error) => tell(ring, { event: "request failed", error: packError(error) }),
      onBroken: async (ring, error, dump) => {
        const { id, outcome } = this.#ask();
        tell(ring, { event: "broken", error: packError(error), dump, id });
        await outcome;
      },
      onMemoryLost: (error) => tell(-1, { event: "memory lost", error: packError(error) }),
      onRunning: () => tell(-1, { event: "running" }),
      onRewound: () => tell(-1, { event: "rewound" }),
      notifyInBand: (ring, message) => tell(ring, { event: "notify", message }),
      onMiss: (ring, miss) => {
        const count = ++this.#missCount;
        this.#misses.set(ring, { miss, count });
        tell(ring, { event: "missing", iova: miss.iova, access: miss.access, miss: count });
      },
    };
  }

  /** What is known of the rings outside. */
  get status(): RingStatus[] {
    return this.#host.vrings.map(({ index, started, active, endianness, missing }) => {
      const waits = this.#misses.get(index);
      const miss = missing !== undefined && waits?.miss === missing ? waits.count : 0;
      return { index, started, active, endianness, miss };
    });
  }

  /** Closes the descriptor of a call that cannot be made. */
  static discard({ ring, method, args: [fd] }: Call): void {
    if (ring >= 0 && GIVING.has(method) && typeof fd === "number" && fd >= 0) close(fd);
  }

  /** Calls a method. */
  call({ ring, method, args }: Call): Awaitable<unknown> {
    if (ring < 0) return this.#callHost(method, args);
    const vring = this.#host.vrings.find(({ index }) => index === ring);
    if (vring === undefined) throw new RangeError(`ring ${ring} does not run in this thread`);
    if (method === "fail") return this.#fail(vring, ...args as [number, ErrorText]);
    if (!RING_METHODS.has(method)) throw new TypeError(`a ring has no method ${method}`);
    return (vring[method as keyof Vring] as unknown as Method).apply(vring, args);
  }

  #callHost(method: string, args: unknown[]): Awaitable<unknown> {
    switch (method) {
      case "setMemory":
        return this.#setMemory(...args as [RegionShare[]]);
      case "rewind":
      case "reset":
        this.#windows.forget();
        return this.#host[method]();
      case "close":
        this.#unfinished = this.#host.closeRings();
        return this.#host.closeMemory();
      case "finished":
        return this.#unfinished;
    }
    if (!HOST_METHODS.has(method)) throw new TypeError(`a session has no method ${method}`);
    return (this.#host[method as keyof RingHost] as unknown as Method).apply(this.#host, args);
  }

  #setMemory(shares: readonly RegionShare[]): void {
    const known = new Map(this.#host.memory.regions.map((region) => [region.id, region]));
    const regions = shares.map((share) => {
      const region = known.get(share.id) ?? this.#map(share);
      if (share.accessible) region.opened();
      return region;
    });
    this.#host.changeMemory(() => this.#host.memory.adopt(regions));
  }

  #map(share: RegionShare): Region {
    return Region.of(
      share,
      () => this.#post({ kind: "released", session: this.#session, region: share.id }),
    );
  }

  #fail(vring: Vring, count: number, error: ErrorText): void {
    const waits = this.#misses.get(vring.index);
    if (waits?.count === count) vring.fail(waits.miss, unpackError(error));
  }

  /** The device has failed outside any request: nobody knows what state it is in. */
  failed(error: unknown): void {
    for (const vring of this.#host.vrings) if (vring.started) vring.failed(error);
  }

  #ask(): { id: number; outcome: Promise<Outcome> } {
    const id = ++this.#requests;
    return { id, outcome: new Promise((resolve) => this.#asked.set(id, resolve)) };
  }

  async #request(
    name: string,
    payload: unknown,
    fds: readonly number[] = [],
  ): Promise<{ value: unknown; fds: DescriptorBag }> {
    const { id, outcome } = this.#ask();
    this.#post({ kind: "request", session: this.#session, id, name, payload, fds });
    const { value, fds: came } = unpack(await outcome) as { value: unknown; fds: readonly number[] };
    return { value, fds: new DescriptorBag(came) };
  }

  /** What was asked was answered. */
  answered(id: number, outcome: Outcome): void {
    this.#asked.get(id)?.(outcome);
    this.#asked.delete(id);
  }
}

type RingEventOf = RingEvent extends infer E
  ? E extends RingEvent ? Omit<E, "kind" | "session" | "ring"> : never
  : never;

/** A call's outcome, as it is sent: at once where that is possible. */
export function outcomeOf(call: () => Awaitable<unknown>, send: (outcome: Outcome) => void): void {
  try {
    const result = call();
    if (!(result instanceof Promise)) return send({ value: result });
    result.then((value) => send({ value }), (error) => send({ error: packError(error) }));
  } catch (error) {
    send({ error: packError(error) });
  }
}
