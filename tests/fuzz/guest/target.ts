/**
 * Hostile guests: requests of every ready device, right, nearly right and wrong.
 *
 * Whatever a guest sends, its request fails or its ring stands still. Nothing is written where it may not write; what it gets
 * to see is its own or nobody's; and the guests of other devices are served as before.
 *
 * @module
 */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Scene } from "../../session/scene.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";
import { Random } from "../../support/random.ts";
import type { Stand, Target } from "../target.ts";
import { type Subject, subjects } from "./devices.ts";
import { GuestDriver } from "./driver.ts";
import { correct, type Request, request } from "./form.ts";
import { SingleFetch } from "./single_fetch.ts";

/** What a driver does next. */
type Step =
  | Request
  /** SET_CONFIG: bytes as hexadecimal digits. */
  | { readonly kind: "write config"; readonly offset: number; readonly bytes: string }
  /** GET_CONFIG. */
  | { readonly kind: "read config"; readonly offset: number; readonly length: number }
  /** GET_VRING_BASE, and the ring from the beginning. */
  | { readonly kind: "restart"; readonly queue: number }
  /** RESET_DEVICE. */
  | { readonly kind: "reset" }
  /** Time for what the device does by itself. */
  | { readonly kind: "wait"; readonly milliseconds: number };

/** What another guest sends to a device of the same kind. Nobody else may ever see it. */
const SECRET = Uint8Array.from("vhost-user secret", (each) => each.charCodeAt(0) ^ 0x80);

function makeStep(random: Random, subject: Subject): Step {
  const { forms, queues, config = 0 } = subject;
  switch (random.int(0, 29)) {
    // More than 256 bytes no front-end lets through.
    case 0:
      return {
        kind: "write config",
        offset: random.int(0, config + 4),
        bytes: random.bytes(random.pick([1, 1, 2, 4, 8, 100])).toString("hex"),
      };
    case 1:
      return { kind: "read config", offset: random.int(0, config), length: random.pick([1, 4, 8, 100]) };
    case 2:
      return { kind: "restart", queue: random.int(0, queues - 1) };
    case 3:
      return random.int(0, 3) === 0
        ? { kind: "reset" }
        : { kind: "wait", milliseconds: random.pick([0, 1, 5]) };
    default:
      return request(random, random.pick(forms));
  }
}

class GuestStand implements Stand<Step> {
  readonly #subject: Subject;
  readonly #scene: Scene;
  readonly #other: Scene;
  readonly #fetches: SingleFetch;
  #answered = 0;
  #broken = 0;
  #refused = 0;

  constructor(subject: Subject, scene: Scene, other: Scene, fetches: SingleFetch) {
    this.#fetches = fetches;
    this.#subject = subject;
    this.#scene = scene;
    this.#other = other;
  }

  async run(steps: readonly Step[]): Promise<number> {
    await this.#neighbour();
    const before = this.#answered;
    await this.#session(this.#scene, async (driver) => {
      for (const step of steps) await this.#step(driver, step);
    });
    await this.#session(this.#scene, (driver) => this.#isServed(driver));
    assert.deepEqual([...new Set(this.#fetches.found.splice(0))], []);
    return this.#answered - before;
  }

  notes(): string {
    return `${this.#answered} requests answered, ${this.#broken} rings broken, ${this.#refused} messages refused`;
  }

  /** One connection from its beginning to its end. */
  async #session(scene: Scene, act: (driver: GuestDriver) => Promise<void>): Promise<void> {
    const ends: (() => void | Promise<void>)[] = [];
    const scope: Scope = { after: (fn) => void ends.push(fn) };
    onEnd(scope, () => {});
    const { queues, holds = [], extra } = this.#subject;
    try {
      const driver = await GuestDriver.connect(scope, scene.path, { queues, holds: new Set(holds), extra });
      await act(driver);
      await driver.finish();
      if (scene === this.#scene) {
        assert.ok(!driver.holds(SECRET), "what another guest has sent is in this one's memory");
      }
      this.#answered += driver.answered;
      this.#broken += driver.broken;
    } finally {
      for (const end of ends) await end();
    }
    while (scene.server.sessions > 0) await sleep(1);
    const wrong = scene.log.problems.filter((line) =>
      !/is broken|request on ring \d+ failed|a request of the front-end failed/.test(line)
    );
    assert.deepEqual(wrong, []);
    scene.log.lines.length = 0;
  }

  /** A guest of another device of the same kind sends what nobody else may see. */
  async #neighbour(): Promise<void> {
    const random = new Random(1);
    const secret = new Uint8Array(1 << 12);
    for (let at = 0; at + SECRET.length <= secret.length; at += SECRET.length) secret.set(SECRET, at);
    await this.#session(this.#other, async (driver) => {
      for (const form of this.#subject.forms) await driver.send(correct(random, form, secret));
      await this.#isServed(driver);
    });
  }

  /** The first request is answered as it should be. */
  async #isServed(driver: GuestDriver): Promise<void> {
    const right = correct(new Random(1), this.#subject.forms[0]);
    assert.ok(await driver.send(right));
    const answer = driver.answerTo(right);
    assert.ok(answer !== undefined, "a correct request is answered");
    this.#subject.isRight(answer);
  }

  async #step(driver: GuestDriver, step: Step): Promise<void> {
    try {
      switch (step.kind) {
        case "request":
          return void await driver.send(step);
        case "write config":
          return await driver.frontEnd.writeConfig(step.offset, Uint8Array.fromHex(step.bytes));
        case "read config":
          return void await driver.frontEnd.readConfig(step.offset, step.length);
        case "restart":
          return await driver.restart(step.queue);
        case "reset":
          return await driver.reset();
        case "wait":
          return await sleep(step.milliseconds);
      }
    } catch (error) {
      // The device may refuse a message; it may not end the session for it.
      if (!(error instanceof Error) || error.name !== "ProtocolError" || !driver.frontEnd.connected) {
        throw error;
      }
      this.#refused++;
    }
  }
}

function target(subject: Subject): Target<Step> {
  const { name, cases, least } = subject;
  return {
    name: `guest-${name}`,
    summary: `Requests of a hostile guest to ${name}.`,
    unit: "requests",
    cases,
    least,
    make: (random) => Array.from({ length: random.int(1, 40) }, () => makeStep(random, subject)),
    async open(scope): Promise<GuestStand> {
      const scenes: Scene[] = [];
      for (let i = 0; i < 2; i++) {
        const device = subject.make();
        onEnd(scope, () => device.close());
        scenes.push(await Scene.open(scope, device));
      }
      const stand = new GuestStand(subject, scenes[0], scenes[1], new SingleFetch());
      await stand.run([]);
      return stand;
    },
  };
}

/** A target for each device. */
export const hostileGuests: readonly Target<Step>[] = subjects.map(target);
