/**
 * Front-ends that say anything, to every device: in the thread that serves them, where all that they do follows from the case.
 *
 * After each case nothing is left of it, nothing has thrown what nobody expects, and two well-behaved front-ends of the same
 * process were served meanwhile: one with a disk of its own, where every byte is compared, and one that shares its disk
 * with the hostile ones.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { Reactor } from "../../../ffi/reactor.ts";
import { type Device, type Log, serve, type Server } from "../../../mod.ts";
import { BlkDevice, MemoryStorage } from "../../../src/devices/blk/mod.ts";
import {
  type FrontendMessage,
  frontendMessages,
  mask,
  protocolFeatures,
  ringFeatures,
} from "../../../src/protocol/mod.ts";
import { BlkDriver } from "../../../src/tools/blk_driver.ts";
import { number64, u64 } from "../../session/wire.ts";
import { onEnd, type Scope, tempDir } from "../../support/cleanup.ts";
import { Random } from "../../support/random.ts";
import { patience } from "../patience.ts";
import type { Stand, Target } from "../target.ts";
import { makeCase } from "./cases.ts";
import { type Subject, subjects, workerSubjects } from "./devices.ts";
import { message, PLAIN, polledRings, type Said } from "./messages.ts";
import { Peer } from "./peer.ts";
import { descriptorNames, Props } from "./props.ts";
import { describe, type Step } from "./steps.ts";

/** Turns that a message may take before its front-end goes on. */
const TURNS = 200;

/** How long a first session lasts, milliseconds: where threads run the rings, so that they get used to sleeping. */
const WARM_UP = 20;
const WARM_UP_OF_THREADS = 500;
/** How many first sessions there may be until all threads have slept, on a machine that has much else to do. */
const WARM_UPS = 20;
const ALL = 0xffff_ffff_ffff_ffffn;
const PAGEFAULT = mask(protocolFeatures.PAGEFAULT);
const PLAIN_RINGS = mask(ringFeatures.VERSION_1, ringFeatures.PROTOCOL_FEATURES);
const IN_BAND = mask(protocolFeatures.INBAND_NOTIFICATIONS);
/** What is accepted in any case: with it a session gets on. */
const BASICS = mask(
  ...(["REPLY_ACK", "MQ", "STATUS", "CONFIGURE_MEM_SLOTS"] as const).map((name) => protocolFeatures[name]),
);
const NOTHING = new Uint8Array(0);

/** What no input may cause: mistakes of programs, not of front-ends. */
const MISTAKES: readonly string[] = ["TypeError", "ReferenceError", "SyntaxError", "AssertionError"];
/** Devices refuse by a RangeError of their own; these are the engine's. */
const ENGINE =
  /invalid.*(array|length|offset)|out(side)?( of)? (the )?bounds|call stack|allocation|not a valid/i;

/** Throws in the place of whoever has thrown where nobody listens. */
class Witness {
  readonly mistakes: unknown[] = [];
  refused = 0;

  /** What a server writes. */
  readonly log: Log = (_level, _text, error) => {
    if (error === undefined) return;
    this.refused++;
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      const { name, message } = cause;
      if (MISTAKES.includes(name) || (name === "RangeError" && ENGINE.test(message))) {
        return void this.mistakes.push(error);
      }
    }
  };

  check(): void {
    const [first] = this.mistakes.splice(0);
    if (first !== undefined) throw new Error("a server has made a mistake", { cause: first });
  }
}

/** A device that is served. */
class Booth {
  readonly path: string;
  readonly device: Device;
  readonly server: Server;
  /** Front-ends that were accepted. */
  accepted = 0;
  /** Messages that were read whole. */
  messages = 0;
  /** What it has answered last to GET_FEATURES and GET_PROTOCOL_FEATURES. */
  readonly offered: Record<string, bigint> = { GET_FEATURES: 0n, GET_PROTOCOL_FEATURES: 0n };

  static async open(
    scope: Scope,
    folder: string,
    { name, make, options }: Subject,
    log: Log,
  ): Promise<Booth> {
    const device = make(scope);
    onEnd(scope, () => device.close());
    const path = join(folder, name);
    const booth: Booth = new Booth(
      path,
      device,
      await serve(device, {
        ...options,
        socketPath: path,
        log,
        onSession: ({ connection }) => {
          booth.accepted++;
          connection.tap = (direction, { name, payload }) => {
            if (direction === "in") booth.messages++;
            else if (name in booth.offered) booth.offered[name] = number64(payload);
          };
        },
      }),
    );
    onEnd(scope, async () => {
      booth.server.close();
      await booth.server.finished;
    });
    return booth;
  }

  private constructor(path: string, device: Device, server: Server) {
    this.path = path;
    this.device = device;
    this.server = server;
  }
}

class Front implements Stand<Step> {
  readonly #booths: ReadonlyMap<string, Booth>;
  readonly #props: Props;
  readonly #witness: Witness;
  readonly #own: BlkDriver;
  readonly #shared: BlkDriver | undefined;
  readonly #sharedBooth: Booth | undefined;
  readonly #random = new Random(1);
  #sessions = 0;

  static async open(scope: Scope, all: readonly Subject[]): Promise<Front> {
    const folder = tempDir(scope);
    const props = new Props(scope);
    const witness = new Witness();
    const reactor = Reactor.shared();
    const { onError } = reactor;
    reactor.onError = (error) => witness.mistakes.push(error);
    onEnd(scope, () => {
      reactor.onError = onError;
    });
    const booths = new Map<string, Booth>();
    for (const subject of all) {
      booths.set(subject.name, await Booth.open(scope, folder, subject, witness.log));
    }
    const own = await Booth.open(scope, folder, {
      name: "witness",
      make: () => new BlkDevice({ storage: new MemoryStorage(1 << 20) }),
    }, witness.log);
    const shared = [...booths.values()].find(({ device }) =>
      device.definition.type === 2 && device.definition.exclusive !== true
    );
    const driver = async (path: string): Promise<BlkDriver> => {
      const made = await BlkDriver.connect(path, { depth: 8, maxTransfer: 4096 });
      onEnd(scope, () => made.close().catch(() => {}));
      return made;
    };
    const front = new Front(
      booths,
      props,
      witness,
      await driver(own.path),
      shared === undefined ? undefined : await driver(shared.path),
      shared,
    );
    // What they offer; and what is opened once only: a thread that has had to sleep keeps what it needs for that.
    for (const { name, options } of all) {
      const milliseconds = options?.workers === undefined ? WARM_UP : WARM_UP_OF_THREADS;
      const say = ({ bytes, fds }: Said): Step => ({ do: "say", who: 0, bytes, fds });
      const ask = [frontendMessages.GET_FEATURES, frontendMessages.GET_PROTOCOL_FEATURES];
      const questions = ask.map(({ id }) => say({ bytes: message(id, NOTHING), fds: [] }));
      // With notifications in band a ring without a kick would not be polled, and behind an IOMMU it would not run.
      const protocol = ALL & ~PAGEFAULT & ~IN_BAND;
      const start = { do: "negotiate", who: 0, features: PLAIN_RINGS, protocol } as const;
      const polled = polledRings(4).map(say);
      const session = (steps: readonly Step[]): Promise<number> =>
        front.run([{ do: "device", name }, ...steps, { do: "turn", turns: 1 }, {
          do: "sleep",
          milliseconds,
        }]);
      const threads = booths.get(name)?.server.metrics.threads.filter(({ thread }) => thread !== "main") ??
        [];
      await session(questions);
      for (let i = 0; i < WARM_UPS; i++) {
        await session([start, ...polled]);
        if (threads.every(({ counters }) => counters.sleeps > 0)) break;
      }
    }
    return front;
  }

  private constructor(
    booths: ReadonlyMap<string, Booth>,
    props: Props,
    witness: Witness,
    own: BlkDriver,
    shared: BlkDriver | undefined,
    sharedBooth: Booth | undefined,
  ) {
    this.#booths = booths;
    this.#props = props;
    this.#witness = witness;
    this.#own = own;
    this.#shared = shared;
    this.#sharedBooth = sharedBooth;
  }

  async run(steps: readonly Step[]): Promise<number> {
    const named = steps.find((step) => step.do === "device");
    const booth = this.#booths.get(named?.name ?? "") ?? [...this.#booths.values()][0];
    this.#props.restore();
    const before = booth.messages;
    const accepted = booth.accepted;
    const served = this.#workAsUsual();
    const peers = new Map<number, Peer>();
    let connected = 0;
    const peer = (who: number): Peer => {
      const known = peers.get(who);
      if (known?.dropped === false) return known;
      known?.leave(true);
      const fresh = new Peer(booth.path, this.#props);
      connected++;
      peers.set(who, fresh);
      // Who comes again says what lets it get on.
      if (known !== undefined) negotiate(fresh, booth, ALL, ALL & ~PAGEFAULT);
      return fresh;
    };
    let last: Peer | undefined;
    try {
      for (const step of steps) {
        if ("who" in step && last !== undefined && peers.get(step.who) !== last) last.flush();
        await this.#do(step, booth, peers, peer);
        last = "who" in step ? peers.get(step.who) : last;
      }
      last?.flush();
    } finally {
      for (const each of peers.values()) each.leave(true);
    }
    const all = this.#sharedBooth === booth ? 1 : 0;
    await eventually(
      () => booth.accepted === accepted + connected && booth.server.sessions === all,
      () =>
        `${booth.server.sessions} sessions are there, ${
          booth.accepted - accepted
        } of ${connected} were accepted`,
    );
    await served;
    this.#witness.check();
    this.#sessions += connected;
    return booth.messages - before;
  }

  async #do(
    step: Step,
    booth: Booth,
    peers: Map<number, Peer>,
    peer: (who: number) => Peer,
  ): Promise<void> {
    switch (step.do) {
      case "device":
        return;
      case "negotiate":
        return negotiate(peer(step.who), booth, step.features, step.protocol);
      case "accept": {
        const bytes = step.bytes.slice();
        const view = new DataView(bytes.buffer);
        const protocol = bytes[0] === frontendMessages.SET_PROTOCOL_FEATURES.id;
        const { GET_FEATURES, GET_PROTOCOL_FEATURES } = booth.offered;
        const offered = protocol ? GET_PROTOCOL_FEATURES : GET_FEATURES;
        view.setBigUint64(12, view.getBigUint64(12, true) & offered | (protocol ? BASICS : 0n), true);
        return peer(step.who).say(bytes, step.fds);
      }
      case "say":
        return peer(step.who).say(step.bytes, step.fds);
      case "dribble":
        return peer(step.who).dribble(step.bytes, step.fds, step.piece);
      case "read":
        return peers.get(step.who)?.read();
      case "answer":
        for (const each of peers.values()) await this.#heard(each);
        return peers.get(step.who)?.answer(step.how);
      case "ring":
        return this.#props.ring();
      case "change":
        return booth.device.configChanged();
      case "turn":
        for (const each of peers.values()) await this.#heard(each);
        for (let i = 1; i < step.turns; i++) await turn();
        return;
      case "sleep":
        return await sleep(step.milliseconds);
      case "hush":
        return peers.get(step.who)?.hush();
      case "deafen":
        return peers.get(step.who)?.deafen();
      case "leave":
        peers.get(step.who)?.leave(step.unread);
        peers.delete(step.who);
    }
  }

  /** Waits until a front-end was heard, unless that lasts. */
  async #heard(peer: Peer): Promise<void> {
    peer.flush();
    for (let i = 0; i < TURNS; i++) {
      await turn();
      if (peer.heard) return;
    }
  }

  /** What the well-behaved do meanwhile. */
  async #workAsUsual(): Promise<void> {
    const data = new Uint8Array(this.#random.bytes(this.#random.pick([512, 4096, 8192])));
    const at = 512 * this.#random.int(0, 1024);
    await this.#own.write(at, data);
    const shared = this.#shared?.read(0, 4096);
    const back = await this.#own.read(at, data.length);
    assert.equal(Buffer.compare(back, data), 0, `${data.length} bytes at ${at} of another disk have changed`);
    assert.equal((await shared)?.length, this.#shared === undefined ? undefined : 4096);
  }

  notes(): string {
    return `${this.#sessions.toLocaleString("en")} sessions, ` +
      `${this.#witness.refused.toLocaleString("en")} requests or sessions refused`;
  }
}

/** Says what every front-end says at first. */
function negotiate(peer: Peer, booth: Booth, features: bigint, protocol: bigint): void {
  const { GET_FEATURES, GET_PROTOCOL_FEATURES } = booth.offered;
  const say = (name: FrontendMessage, payload: Uint8Array): void =>
    peer.say(message(frontendMessages[name].id, payload, PLAIN), []);
  say("SET_OWNER", NOTHING);
  say("SET_FEATURES", u64(features & GET_FEATURES));
  say("SET_PROTOCOL_FEATURES", u64(protocol & GET_PROTOCOL_FEATURES));
}

async function eventually(holds: () => boolean, text: () => string): Promise<void> {
  for (let deadline = 0, tries = 0; !holds(); tries++) {
    if (deadline === 0) deadline = performance.now() + patience.milliseconds;
    assert.ok(performance.now() < deadline, `a session does not end: ${text()}`);
    if (tries < TURNS) await turn();
    else await sleep(1);
  }
}

function target(
  name: string,
  summary: string,
  all: readonly Subject[],
  cases: number,
  least: number,
): Target<Step> {
  const devices = all.map((each) => each.name);
  return {
    name,
    summary,
    unit: "messages",
    cases,
    least,
    make: (random) => makeCase(random, devices, descriptorNames),
    describe,
    open: (scope) => Front.open(scope, all),
  };
}

/** Every ready device and a custom one. */
export const hostileFrontEnd: Target<Step> = target(
  "front-end",
  "Front-ends that say anything, several at once, to every device.",
  subjects,
  4400,
  1_000_000,
);

/** Those with their rings in worker threads. */
export const hostileFrontEndOfWorkers: Target<Step> = target(
  "front-end-workers",
  "The same where rings run in worker threads.",
  workerSubjects,
  450,
  40_000,
);
