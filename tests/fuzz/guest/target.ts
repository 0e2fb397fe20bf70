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
import type { Random } from "../../support/random.ts";
import type { Stand, Target } from "../target.ts";
import { type Subject, subjects } from "./devices.ts";
import type { GuestDriver } from "./driver.ts";
import { type Request, request } from "./form.ts";
import { Served } from "./served.ts";
import { SingleFetch } from "./single_fetch.ts";

/** What a driver does next. */
type Step =
  | Request
  /** The format of the rings: split where no step says anything. */
  | { readonly kind: "rings"; readonly packed: boolean }
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
  readonly #served: Served;
  readonly #fetches: SingleFetch;
  #refused = 0;
  #packed = 0;

  constructor(served: Served, fetches: SingleFetch) {
    this.#fetches = fetches;
    this.#served = served;
  }

  async run(steps: readonly Step[]): Promise<number> {
    const served = this.#served;
    await served.neighbour();
    const before = served.answered;
    const packed = steps.some((step) => step.kind === "rings" && step.packed);
    await served.session(async (driver) => {
      for (const step of steps) await this.#step(driver, step);
    }, packed);
    await served.session((driver) => served.isServed(driver), packed);
    assert.deepEqual([...new Set(this.#fetches.found.splice(0))], []);
    if (packed) this.#packed += served.answered - before;
    return served.answered - before;
  }

  notes(): string {
    const { answered, broken } = this.#served;
    return `${answered} requests answered, ${this.#packed} of them in packed rings, ${broken} rings broken, ` +
      `${this.#refused} messages refused`;
  }

  async #step(driver: GuestDriver, step: Step): Promise<void> {
    try {
      switch (step.kind) {
        case "rings":
          return;
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
    make: (random) => [
      { kind: "rings", packed: random.int(0, 1) === 1 },
      ...Array.from({ length: random.int(1, 40) }, () => makeStep(random, subject)),
    ],
    async open(scope): Promise<GuestStand> {
      const stand = new GuestStand(await Served.open(scope, subject), new SingleFetch());
      await stand.run([]);
      return stand;
    },
  };
}

/** A target for each device. */
export const hostileGuests: readonly Target<Step>[] = subjects.map(target);
