/**
 * A device some of whose requests go wrong.
 *
 * @module
 */

import { Device, type DeviceBehaviour, type WorkerRules } from "../backend/device.ts";
import { makeDevice } from "../backend/threads/make_device.ts";
import type { DeviceSource } from "../backend/threads/messages.ts";
import { FaultyHandler } from "./faulty_handler.ts";
import { FaultyOwner } from "./faulty_owner.ts";
import { countersFor, FaultPlan } from "./plan.ts";
import { type FaultSubject, parseFault } from "./rule.ts";

/** What a rule has come to. */
export interface FaultCount {
  /** The rule. */
  readonly rule: string;
  /** Requests that it was about: those that no rule before it has made go wrong. */
  readonly requests: number;
  /** Those of them that went wrong. */
  readonly faults: number;
}

/** What another thread makes the same device of. */
interface SharedFaults {
  readonly source: DeviceSource;
  readonly rules: readonly string[];
  readonly counters: SharedArrayBuffer;
}

/** Makes the same device in another thread. The threads count requests together. */
export default async function makeFaultyDevice(
  { source, rules, counters }: SharedFaults,
): Promise<FaultyDevice> {
  return new FaultyDevice(await makeDevice(source), rules, { source, counters });
}

/** How a {@link FaultyDevice} is made in another thread. */
export interface FaultyDeviceOptions {
  /** What makes the device there, where its definition does not say. */
  readonly source?: DeviceSource;
  /** Where to count, for the same device in several threads. */
  readonly counters?: SharedArrayBuffer;
}

function workerRules(
  { definition: { worker, queues } }: Device,
  rules: readonly string[],
  source: DeviceSource | undefined,
  counters: SharedArrayBuffer,
): WorkerRules {
  const own = worker?.module === undefined
    ? undefined
    : { module: String(worker.module), options: worker.options };
  const inner = source ?? own;
  return {
    group: worker?.group,
    // What ThreadPool concludes from the definition's own queues, which are behind connect() here.
    eventLoop: worker?.eventLoop ?? queues?.some((queue) => typeof queue !== "function"),
    ...inner === undefined ? {} : {
      module: import.meta.url,
      options: { source: inner, rules, counters } satisfies SharedFaults,
    },
  };
}

/** A device in front of another one, to which it hands on the requests that do not go wrong. */
export class FaultyDevice extends Device {
  readonly #device: Device;
  readonly #plan: FaultPlan;

  /** Use {@link withFaults}. */
  constructor(device: Device, rules: readonly string[], options: FaultyDeviceOptions = {}) {
    const { source, counters = countersFor(rules.length) } = options;
    const { type, features, exclusive, stateless, requests } = device.definition;
    const subject: FaultSubject = { name: device.name, requests };
    const plan = new FaultPlan(rules.map((rule) => parseFault(rule, subject)), requests, counters);
    super({
      type,
      name: device.name,
      features,
      exclusive,
      stateless,
      ready: () => device.definition.ready?.() ?? true,
      requests,
      worker: workerRules(device, rules, source, counters),
      connect: (link) => faulty(device.connect(link), plan),
    });
    this.#device = device;
    this.#plan = plan;
  }

  /** What the rules have come to, over all front-ends. */
  get faults(): FaultCount[] {
    return this.#plan.rules.map(({ text }, i) => ({
      rule: text,
      requests: this.#plan.seen(i),
      faults: this.#plan.hits(i),
    }));
  }

  /** Closes the device behind it. */
  override close(): void {
    this.#device.close();
  }

  /** {@link Device.configChanged} of the device behind it. */
  override configChanged(): void {
    this.#device.configChanged();
  }

  /** {@link Device.onConfigChange} of the device behind it. */
  override onConfigChange(watcher: () => void): () => void {
    return this.#device.onConfigChange(watcher);
  }
}

/** A device's behaviour with faults in its rings. All else is its own, also what it has not. */
function faulty(behaviour: DeviceBehaviour, plan: FaultPlan): DeviceBehaviour {
  const rings = behaviour.queues.map((user) =>
    typeof user === "function" ? new FaultyHandler(user, plan) : new FaultyOwner(user, plan)
  );
  const own: Partial<DeviceBehaviour> = {
    queues: rings.map(({ queue }) => queue),
    finishing: (ring) => {
      rings[ring].finish();
      behaviour.finishing?.(ring);
    },
    disconnected: () => {
      for (const ring of rings) ring.abandon();
      behaviour.disconnected?.();
    },
  };
  return new Proxy(behaviour, {
    get: (target, key) => {
      if (Object.hasOwn(own, key)) return own[key as keyof DeviceBehaviour];
      // Its methods are called on it itself: it may have private fields.
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/**
 * A device that does the same as another one, but for what rules say: requests that fail, get lost, take their time, change places,
 * or bring wrong bytes. For authors of drivers, and of all that relies on them.
 *
 * @example
 * ```ts
 * import { serve } from "@vhost/user";
 * import { BlkDevice, MemoryStorage } from "@vhost/user/devices/blk";
 * import { withFaults } from "@vhost/user/faults";
 *
 * const disk = new BlkDevice({ storage: new MemoryStorage(64 * 2 ** 20) });
 * const bad = withFaults(disk, ["blk.write:every=100:error=EIO", "blk.read:sector=2048-4095:delay=500"]);
 * const server = await serve(bad, { socketPath: `/tmp/bad-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * bad.close();
 * ```
 *
 * @param rules as `docs/faults.md` says: `WHAT[:PART]…`
 * @param source what makes the device in worker threads, where its definition does not say
 * @returns a device that is closed together with the one behind it
 * @throws {FaultRuleError} for a rule that the device cannot follow
 */
export function withFaults(device: Device, rules: readonly string[], source?: DeviceSource): FaultyDevice {
  return new FaultyDevice(device, rules, { source });
}
