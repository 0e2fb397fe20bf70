import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Scope, tempDir } from "../support/cleanup.ts";
import { startExample } from "../support/our_backend.ts";
import { packed, RequestDriver } from "./request_driver.ts";

// The examples as they stand, each asked one thing.

const head = (chipSelect: number): Uint8Array =>
  packed([1, chipSelect], [1, 8], [1, 1], [1, 0], [4, 0], [4, 0], [4, 0], [8, 0], [8, 0]);

/** Request, room for the answer, and what it begins with. */
const EXAMPLES: Readonly<Record<string, readonly [readonly Uint8Array[], number, readonly number[]]>> = {
  // The size of the names.
  gpio: [[packed([2, 1], [2, 0], [4, 0])], 13, [0, ...new TextEncoder().encode("button\0lamp\0")]],
  // Who is at 0x20.
  i2c: [[packed([2, 0x40], [2, 0], [4, 0])], 1, [0]],
  // What the part at chip select 1 gives back.
  spi: [[head(1), Uint8Array.of(1, 2, 3)], 4, [0, 1, 2, 0]],
  // One clock.
  rtc: [[packed([2, 0x1000], [2, 0], [4, 0])], 16, [0, 0, 0, 0, 0, 0, 0, 0, 1]],
  // One sensor.
  scmi: [[packed([4, 1 | 0x15 << 10])], 24, [1, 0x54, 0, 0, 0, 0, 0, 0, 1, 0]],
};

/** Connects, once somebody listens: the file of a socket is there a moment before. */
async function connected(scope: Scope, socket: string): Promise<RequestDriver> {
  for (const deadline = Date.now() + 20_000;; await sleep(5)) {
    try {
      return await RequestDriver.connect(scope, socket);
    } catch (error) {
      if (!/ECONNREFUSED/.test(String(error)) || Date.now() > deadline) throw error;
    }
  }
}

for (const [name, [request, room, expected]] of Object.entries(EXAMPLES)) {
  test(`the example ${name} serves`, { timeout: 60_000 }, async (t) => {
    const socket = join(tempDir(t), `${name}.sock`);
    const child = startExample(t, name, socket);
    await child.waitSocket(socket);
    const driver = await connected(t, socket);
    const { bytes } = await driver.request(request, [room]);
    assert.deepEqual([...bytes.subarray(0, expected.length)], expected);
  });
}
