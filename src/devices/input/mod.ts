/**
 * Keyboards, mice, tablets and touch screens for virtual machines.
 *
 * @module
 */

export * from "./codes.ts";
export * from "./device.ts";
export * from "./evdev.ts";
export { BACKLOG, MAX_GROUP } from "./event_queue.ts";
export * from "./kinds.ts";
export * from "./layout.ts";
export * from "./profile.ts";
export { type Emit, InputState } from "./state.ts";
