/**
 * Network cards for virtual machines, and the networks that they are plugged into.
 *
 * @module
 */

export * from "./counters.ts";
export * from "./device.ts";
export * from "./frame.ts";
export * from "./layout.ts";
export * from "./network.ts";
export * from "./simple_networks.ts";
