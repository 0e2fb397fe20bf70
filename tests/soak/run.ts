import { randomBytes } from "node:crypto";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { logRecord, recordText, serve, type Server } from "../../mod.ts";
import { onEnd, type Scope, tempDir } from "../support/cleanup.ts";
import { startDisk } from "../support/our_backend.ts";
import type { Child } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { Holdings } from "./holdings.ts";
import { diskSize, type SoakDevice, soakDevices } from "./devices.ts";
import { SoakGuest } from "./guest.ts";

/** The longest that a piece of work, or a change, may take, ms: a loaded machine is slow, a lost request waits for ever. */
const PATIENCE = 60_000;
/** Events that are told when it fails. */
const LAST_EVENTS = 60;
/** Between two counts of what is held, ms, unless said otherwise. */
const BETWEEN_RESTS = 10_000;

/** What is to be done. */
export interface SoakOptions {
  /** How long, ms. */
  readonly time: number;
  readonly seed: number;
  /** Names of devices; all by default. */
  readonly devices?: readonly string[];
  /** Told every now and then. */
  onProgress?(line: string): void;
  /** Between two counts of what is held, ms. */
  readonly restEvery?: number;
  /** For a test of the soak itself: done at every rest. */
  readonly onRest?: () => void;
}

/** What was done. */
export interface SoakFigures {
  readonly done: Readonly<Record<string, number>>;
  readonly holdings: Holdings;
}

/** A soak that has failed, with what came before. */
export class SoakError extends Error {
  override readonly name = "SoakError";
}

/** Where a device is served. */
interface Place {
  readonly path: string;
  /** Absent for another process. */
  readonly server?: Server;
}

/** One run. */
class Soak {
  readonly #options: SoakOptions;
  readonly #done = new Map<string, number>();
  readonly #events: string[] = [];
  readonly #start = performance.now();
  readonly #holdings = new Holdings();
  readonly #children: Child[] = [];
  readonly #places = new Map<SoakDevice, Place[]>();
  #failure: Error | undefined;
  /** When guests are to leave for a while. */
  #restAt: number;
  #active = 0;

  constructor(options: SoakOptions) {
    this.#options = options;
    this.#restAt = (options.restEvery ?? BETWEEN_RESTS) / 2;
  }

  get #now(): number {
    return performance.now() - this.#start;
  }

  #did(what: string, who = ""): void {
    this.#done.set(what, (this.#done.get(what) ?? 0) + 1);
    if (what === "requests") return;
    this.#events.push(`${(this.#now / 1000).toFixed(3)} ${who} ${what}`);
    if (this.#events.length > LAST_EVENTS) this.#events.shift();
  }

  #fail(who: string, error: unknown): void {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    this.#failure ??= new SoakError(
      `${who}: ${text}\nseed ${this.#options.seed}; the last events:\n  ${this.#events.join("\n  ")}`,
    );
  }

  get #over(): boolean {
    return this.#failure !== undefined || this.#now >= this.#options.time;
  }

  async run(scope: Scope): Promise<SoakFigures> {
    const folder = tempDir(scope);
    const files = ["a.img", "b.img"].map((name) => join(folder, name));
    for (const file of files) {
      writeFileSync(file, "");
      truncateSync(file, diskSize);
    }
    const { devices: names, seed } = this.#options;
    const devices = soakDevices(files[0], files[1]).filter(({ name }) => names?.includes(name) ?? true);
    onEnd(scope, () => devices.forEach(({ close }) => close?.()));
    for (const [i, device] of devices.entries()) {
      const places = await this.#serve(scope, device, folder, i);
      if (device.name === "blk") {
        const { child, socket } = await startDisk(scope, { file: files[0] });
        this.#children.push(child);
        places.push({ path: socket });
      }
      this.#places.set(device, places);
    }
    const loops = devices.map((device, i) => this.#live(device, new Random(seed * 1000 + i)));
    const watch = this.#watch();
    await Promise.all([...loops, watch]);
    if (this.#failure !== undefined) throw this.#failure;
    return { done: Object.fromEntries(this.#done), holdings: this.#holdings };
  }

  /** Two servers of one device: in this thread, and perhaps in workers. */
  async #serve(scope: Scope, device: SoakDevice, folder: string, number: number): Promise<Place[]> {
    const places: Place[] = [];
    for (const [letter, workers] of [["x", undefined], ["y", device.workers]] as const) {
      const path = join(folder, `${number}${letter}`);
      const server = await serve(device.device, {
        socketPath: path,
        workers,
        measure: letter === "y",
        log: (...entry) => {
          const record = logRecord(...entry);
          if (record.level === "warning" || record.level === "error") {
            this.#fail(device.name, recordText(record));
          }
        },
      });
      onEnd(scope, async () => {
        server.close();
        await server.finished;
      });
      places.push({ path, server });
    }
    return places;
  }

  /** Guests of a device, one after the other. */
  async #live(device: SoakDevice, random: Random): Promise<void> {
    while (!this.#over) {
      if (this.#now >= this.#restAt) {
        await sleep(5);
        continue;
      }
      this.#active++;
      try {
        await this.#session(device, random);
      } catch (error) {
        this.#fail(device.name, error);
      } finally {
        this.#active--;
      }
    }
  }

  async #session(device: SoakDevice, random: Random): Promise<void> {
    const places = this.#places.get(device) ?? [];
    // What the last guest has left under way must not come after what this one does.
    await within("the guest before has gone", this.#empty(places));
    const packed = random.int(0, 1) === 1;
    const place = random.pick(places);
    const guest = await within(
      "connecting",
      SoakGuest.connect(place.path, {
        packed,
        queues: device.queues,
        deviceFeatures: device.deviceFeatures ?? 0n,
      }),
    );
    const who = `${device.name} (${packed ? "packed" : "split"})`;
    this.#did("sessions", who);
    const gate = new Gate();
    const threads = Array.from(
      { length: device.threads ?? 1 },
      (_, thread) => this.#work(device, guest, gate, new Random(random.int(0, 0x7fff_ffff)), thread),
    );
    try {
      const changes = random.int(0, 6);
      for (let i = 0; i < changes && !this.#over && this.#now < this.#restAt; i++) {
        await sleep(random.int(0, 40));
        const what = random.pick(["pauses", "pauses", "moves", "resets", "logs"] as const);
        if (device.settled === true) await within("work comes to an end", gate.close(threads.length));
        try {
          await within(what, this.#change(what, guest, places, random));
          this.#did(what, who);
        } finally {
          gate.open();
        }
      }
      await sleep(random.int(0, 40));
      if (random.int(0, 1) === 0) {
        await within("work comes to an end", gate.close(threads.length));
        guest.leaving = true;
        gate.open();
        await within("the rings stop", guest.stop());
        this.#did("left in order", who);
      } else {
        this.#did("left in the middle", who);
      }
    } finally {
      guest.close();
      gate.open();
      await Promise.all(threads);
    }
  }

  async #change(
    what: "pauses" | "moves" | "resets" | "logs",
    guest: SoakGuest,
    places: readonly Place[],
    random: Random,
  ): Promise<void> {
    switch (what) {
      case "pauses":
        await guest.stop();
        await sleep(random.int(0, 10));
        return await guest.start();
      case "moves":
        return await guest.move(random.pick(places).path);
      case "resets":
        return await guest.reset();
      case "logs": {
        let answered = 0;
        const pages = await guest.logged(async () => {
          const before = guest.answered;
          await sleep(random.int(0, 20));
          answered = guest.answered - before;
        });
        // Those of each thread that are seen now may have been answered before.
        if (answered > 4 && pages === 0) {
          throw new Error(`${answered} requests were answered, and no page is marked`);
        }
      }
    }
  }

  async #work(
    device: SoakDevice,
    guest: SoakGuest,
    gate: Gate,
    random: Random,
    thread: number,
  ): Promise<void> {
    while (!guest.leaving && this.#failure === undefined) {
      await gate.pass();
      if (guest.leaving) break;
      const { resets } = guest;
      try {
        await within("a piece of work", device.work(guest, random, thread));
        this.#did("requests");
      } catch (error) {
        device.cut?.(thread);
        const cut = guest.leaving || guest.resetting || guest.resets !== resets;
        if (!cut) this.#fail(device.name, error);
      }
      // Others have their turn too.
      await sleep(random.int(0, 3) === 0 ? 1 : 0);
    }
    gate.leave();
  }

  async #empty(places: readonly Place[]): Promise<void> {
    while (places.some(({ server }) => (server?.sessions ?? 0) > 0)) await sleep(1);
  }

  /** Now and then all guests leave, and what the process still holds is counted. */
  async #watch(): Promise<void> {
    while (!this.#over) {
      await sleep(50);
      if (this.#now < this.#restAt) continue;
      await within("all guests leave", this.#rest()).catch((error) => this.#fail("rest", error));
      const held = this.#holdings.last;
      const counts = [...this.#done].map(([what, count]) => `${count} ${what}`).join(", ");
      this.#options.onProgress?.(`${Math.round(this.#now / 1000)} s: ${counts}; ${held}`);
      this.#restAt = this.#now + (this.#options.restEvery ?? BETWEEN_RESTS);
    }
    if (this.#failure !== undefined) return;
    await within("all guests leave", this.#rest()).catch((error) => this.#fail("rest", error));
    for (const complaint of this.#holdings.complaints()) this.#fail("held", complaint);
    for (const { name, output, code } of this.#children) {
      if (code !== undefined) this.#fail(name, `has ended: ${output}`);
    }
  }

  async #rest(): Promise<void> {
    while (this.#active > 0) await sleep(5);
    const places = [...this.#places.values()].flat();
    await this.#empty(places);
    // What is closed in another process takes a moment.
    await sleep(100);
    for (const { server } of places) {
      for (const [index, ring] of server?.metrics.rings.entries() ?? []) {
        const inFlight = ring.taken - ring.returned - ring.dropped;
        if (inFlight !== 0) {
          const { device } = (server as Server).metrics;
          this.#fail(device, `${inFlight} requests of ring ${index} are in flight, and nobody is there`);
        }
      }
    }
    this.#options.onRest?.();
    this.#holdings.count(this.#children.map(({ pid }) => pid));
  }
}

/** Lets threads through, until somebody wants to be alone. */
class Gate {
  #closed: Promise<void> | undefined;
  #open: () => void = () => {};
  #waiting = 0;
  #left = 0;

  async pass(): Promise<void> {
    while (this.#closed !== undefined) {
      this.#waiting++;
      await this.#closed;
      this.#waiting--;
    }
  }

  /** Resolves when so many threads wait, or have left. */
  async close(threads: number): Promise<void> {
    this.#closed ??= new Promise((resolve) => this.#open = resolve);
    while (this.#waiting + this.#left < threads) await sleep(1);
  }

  open(): void {
    this.#closed = undefined;
    this.#open();
  }

  leave(): void {
    this.#left++;
  }
}

/** Fails when something takes too long. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${PATIENCE} ms`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Soaks until the time is over. */
export function soak(scope: Scope, options: SoakOptions): Promise<SoakFigures> {
  return new Soak(options).run(scope);
}

/** A seed, for who has given none. */
export function anySeed(): number {
  return randomBytes(4).readUInt32LE() % 1_000_000;
}
