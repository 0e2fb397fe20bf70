/**
 * Entropy for virtual machines.
 *
 * @example Some entropy, and what a driver gets of it
 * ```ts
 * import { RngDevice } from "@vhost/user/devices/rng";
 * import { TestDriver } from "@vhost/user/testing";
 *
 * await using driver = await TestDriver.attach(new RngDevice({ rateLimit: { bytes: 4096 } }));
 * const bytes = await driver.request(0, undefined, 64);
 * if (bytes.length === 0) throw new Error("no entropy");
 * ```
 *
 * @module
 */

export * from "./device.ts";
export * from "./rate.ts";
export * from "./source.ts";
