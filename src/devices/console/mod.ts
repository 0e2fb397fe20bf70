/**
 * Terminals and channels for virtual machines.
 *
 * @module
 */

export { Backlog, BACKLOG_SIZE } from "./backlog.ts";
export * from "./device.ts";
export * from "./end.ts";
export * from "./ends.ts";
export * from "./layout.ts";
export { PeerEnd } from "./peer_end.ts";
export * from "./port.ts";
export * from "./script_end.ts";
export { Wire, type WireEvents } from "./wire.ts";
