/**
 * Tests of devices, without a virtual machine: a driver that serves a device in this process and sends it requests.
 *
 * @example
 * ```ts
 * import { defineDevice } from "@vhost/user";
 * import { TestDriver } from "@vhost/user/testing";
 *
 * const echo = defineDevice({ type: 63, queues: [(chain) => chain.write(chain.read())] });
 * await using driver = await TestDriver.attach(echo);
 * const answer = await driver.request(0, new TextEncoder().encode("hello"), 16);
 * if (new TextDecoder().decode(answer) !== "hello") throw new Error("no echo");
 * ```
 *
 * @module
 */

export * from "./test_driver.ts";
