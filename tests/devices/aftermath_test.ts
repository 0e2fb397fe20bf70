import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { defineDevice } from "../../mod.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { Aftermath } from "../../src/devices/storage/aftermath.ts";
import { aWhile, eventually, LIMIT, Scene } from "../session/scene.ts";
import { onEnd } from "../support/cleanup.ts";
import { newImage } from "../support/image.ts";

/** What a process has of an image. */
class Holder {
  readonly aftermath: Aftermath;
  readonly #requests: number;
  #life = true;
  #open = true;

  constructor(t: TestContext, path: string) {
    this.#requests = openFile(path, OpenFlag.READ_ONLY);
    this.aftermath = new Aftermath(path, this.#requests);
    onEnd(t, () => {
      this.finish();
      this.die();
    });
  }

  /** The process is gone. */
  die(): void {
    if (this.#life) this.aftermath.close();
    this.#life = false;
  }

  /** Its last request is over. */
  finish(): void {
    if (this.#open) close(this.#requests);
    this.#open = false;
  }
}

test("who has died and has requests under way is waited for", LIMIT, (t) => {
  const path = newImage(t, 512);
  const first = new Holder(t, path);
  const second = new Holder(t, path);
  first.die();
  assert.equal(second.aftermath.over, false);
  assert.equal(second.aftermath.over, false);
  first.finish();
  assert.equal(second.aftermath.over, true);
});

test("those who live are not waited for, but looked at twice", LIMIT, async (t) => {
  const path = newImage(t, 512);
  const others = [1, 2, 3].map(() => new Holder(t, path));
  const last = new Holder(t, path);
  assert.equal(last.aftermath.over, false, "they may be about to die");
  await eventually("they live", () => last.aftermath.over);
  others[1].die();
  await aWhile();
  assert.equal(last.aftermath.over, false);
  others[1].finish();
  await eventually("the others still live", () => last.aftermath.over);
  for (const other of others) {
    other.finish();
    other.die();
  }
  assert.equal(last.aftermath.over, true);
});

test("a front-end waits until the device is ready", LIMIT, async (t) => {
  let ready = false;
  const echo = defineDevice({
    type: 42,
    ready: () => ready,
    queues: [(chain) => chain.write(chain.read())],
  });
  const scene = await Scene.open(t, echo);
  let connected = false;
  const waiting = scene.frontEnd().then(() => connected = true);
  await aWhile();
  assert.equal(connected, false);
  ready = true;
  await waiting;
});
