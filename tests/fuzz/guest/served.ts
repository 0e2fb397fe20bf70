/**
 * A device under attack, and what must hold for it whoever attacks: a correct guest is served afterwards, and nobody sees what
 * a guest of another device of the same kind has sent.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { setTimeout as sleep } from "node:timers/promises";
import type { Device, ServeOptions } from "../../../mod.ts";
import { FrontEnd, SharedMemory } from "../../../src/frontend/mod.ts";
import { pollOnce, Ring } from "../../session/rings.ts";
import { Scene } from "../../session/scene.ts";
import { NOT_BY_HAND } from "../../session/stage.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";
import { Random } from "../../support/random.ts";
import type { Subject } from "./devices.ts";
import { GuestDriver } from "./driver.ts";
import { correct } from "./form.ts";
import { isUnchecked } from "./unchecked.ts";

/** What another guest sends to a device of the same kind. Nobody else may ever see it. */
export const SECRET = Uint8Array.from("vhost-user secret", (each) => each.charCodeAt(0) ^ 0x80);

/** What a server may say when a guest has done something wrong. */
const EXPECTED =
  /is broken|request on ring \d+ failed|a request of the front-end failed|IOTLB|in-flight region/;

/** The same bytes again and again. */
export function repeated(bytes: Uint8Array, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => bytes[i % bytes.length]);
}

/** How a device is served. */
export interface Serving extends Partial<ServeOptions> {
  /** Makes the device, in place of what the subject makes. */
  readonly make?: () => Device;
}

/** Runs something with a scope of its own, which ends with it. */
export async function scoped(act: (scope: Scope) => Promise<void>): Promise<void> {
  const ends: (() => void | Promise<void>)[] = [];
  const scope: Scope = { after: (fn) => void ends.push(fn) };
  onEnd(scope, () => {});
  try {
    await act(scope);
  } finally {
    for (const end of ends) await end();
  }
}

/** A device, and its neighbour of the same kind. */
export class Served {
  /** What it is. */
  readonly subject: Subject;
  readonly #scene: Scene;
  readonly #neighbour: Scene;
  /** Requests that were answered to drivers of {@link session}, and rings of theirs that were broken. */
  answered = 0;
  broken = 0;

  private constructor(subject: Subject, scene: Scene, neighbour: Scene) {
    this.subject = subject;
    this.#scene = scene;
    this.#neighbour = neighbour;
  }

  /** Serves both until the scope ends. */
  static async open(scope: Scope, subject: Subject, serving: Serving = {}): Promise<Served> {
    const { make = () => subject.make(), ...options } = serving;
    const open = async (): Promise<Scene> => {
      const device = make();
      onEnd(scope, () => device.close());
      return await Scene.open(scope, device, options);
    };
    return new Served(subject, await open(), await open());
  }

  /** Where front-ends connect. */
  get path(): string {
    return this.#scene.path;
  }

  /** Requests that the device has returned to anybody. */
  get returned(): number {
    return this.#scene.server.metrics.rings.reduce((sum, ring) => sum + ring.returned, 0);
  }

  /** One connection of a driver from its beginning to its end. */
  async session(act: (driver: GuestDriver) => Promise<void>, packed = false): Promise<void> {
    await this.#session(this.#scene, packed, async (driver) => {
      await act(driver);
      await driver.finish();
      this.checkSecrecy(driver.memory.piece(0, driver.memory.byteLength).bytes);
      this.answered += driver.answered;
      this.broken += driver.broken;
    });
  }

  async #session(scene: Scene, packed: boolean, act: (driver: GuestDriver) => Promise<void>): Promise<void> {
    const { queues, holds = [], extra } = this.subject;
    await scoped(async (scope) => {
      await act(
        await GuestDriver.connect(scope, scene.path, { queues, holds: new Set(holds), extra, packed }),
      );
    });
    await settled(scene);
  }

  /** Has each thread that runs rings sleep: from the first time on it keeps what it needs for that. */
  async letSleep(): Promise<void> {
    for (const scene of [this.#scene, this.#neighbour]) {
      const threads = scene.server.metrics.threads.filter(({ thread }) => thread !== "main");
      while (threads.some(({ counters }) => counters.sleeps === 0)) {
        await scoped(async (scope) => {
          const frontEnd = await FrontEnd.connect(scene.path, { withoutFeatures: NOT_BY_HAND });
          onEnd(scope, () => frontEnd.close());
          const memory = new SharedMemory(1 << 16);
          onEnd(scope, () => memory.close());
          await frontEnd.shareMemory(memory);
          for (let index = 0; index < this.subject.queues; index++) {
            await pollOnce(new Ring(scope, frontEnd, memory, { index }));
          }
        });
        await settled(scene);
      }
    }
  }

  /** Waits until no session is left, and looks at what the server has said. */
  async settled(): Promise<void> {
    await settled(this.#scene);
  }

  /** Nothing of the neighbour is in a guest's memory. */
  checkSecrecy({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): void {
    assert.ok(
      Buffer.from(buffer, byteOffset, byteLength).indexOf(SECRET) < 0,
      "what another guest has sent is in this one's memory",
    );
  }

  /** A guest of the neighbour sends what nobody else may see. */
  async neighbour(): Promise<void> {
    const random = new Random(1);
    const secret = repeated(SECRET, 1 << 12);
    await this.#session(this.#neighbour, false, async (driver) => {
      for (const form of this.subject.forms) await driver.send(correct(random, form, secret));
      await this.isServed(driver);
      await driver.finish();
    });
  }

  /** The first request of the subject is answered as it should be. */
  async isServed(driver: GuestDriver): Promise<void> {
    const right = correct(new Random(1), this.subject.forms[0]);
    assert.ok(await driver.send(right));
    const answer = driver.answerTo(right);
    assert.ok(answer !== undefined, "a correct request is answered");
    this.subject.isRight(answer);
  }
}

async function settled(scene: Scene): Promise<void> {
  while (scene.server.sessions > 0) await sleep(1);
  assert.deepEqual(
    scene.log.problems.filter((line) => !EXPECTED.test(line) || isUnchecked(line)),
    [],
  );
  scene.log.lines.length = 0;
}
