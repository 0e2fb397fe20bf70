/**
 * The wire of vhost-user: header, payloads, feature bits and the message table. Pure data and functions; no I/O.
 *
 * @example The first message of every session
 * ```ts
 * import { frontendMessages, messageName } from "@vhost/user/protocol";
 *
 * if (messageName(frontendMessages, 1) !== "GET_FEATURES") throw new Error("unexpected table");
 * ```
 *
 * @module
 */

export * from "./codec.ts";
export * from "./error.ts";
export * from "./features.ts";
export * from "./header.ts";
export * from "./messages.ts";
export * from "./payloads.ts";
export * from "./struct.ts";
