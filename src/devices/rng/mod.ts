/**
 * Entropy for virtual machines.
 *
 * @module
 */

export * from "./device.ts";
export * from "./rate.ts";
export * from "./source.ts";
