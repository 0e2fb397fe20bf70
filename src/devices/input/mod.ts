/**
 * Keyboards, mice, tablets and touch screens for virtual machines.
 *
 * @example A mouse that draws a square
 * ```ts
 * import { serve } from "@vhost/user";
 * import { Mouse } from "@vhost/user/devices/input";
 *
 * const mouse = new Mouse();
 * const server = await serve(mouse, { socketPath: `/tmp/mouse-${crypto.randomUUID()}.sock` });
 * mouse.press("left");
 * for (const [x, y] of [[100, 0], [0, 100], [-100, 0], [0, -100]]) mouse.move(x, y);
 * mouse.release("left");
 * // … and when it is no longer needed:
 * server.close();
 * ```
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
