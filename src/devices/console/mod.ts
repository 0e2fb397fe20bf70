/**
 * Terminals and channels for virtual machines.
 *
 * @example A console that logs in by itself, and a channel for an agent
 * ```ts
 * import { serve } from "@vhost/user";
 * import { ConsoleDevice, ScriptEnd } from "@vhost/user/devices/console";
 *
 * const terminal: ScriptEnd = new ScriptEnd(async (bytes) => {
 *   if (new TextDecoder().decode(bytes).endsWith("login: ")) await terminal.send("root\n");
 * });
 * const agent = new ScriptEnd((bytes) => console.log("the guest says", bytes));
 * const device = new ConsoleDevice({
 *   ports: [{ end: terminal, console: true }, { end: agent, name: "org.example.agent" }],
 * });
 * const server = await serve(device, { socketPath: `/tmp/console-${crypto.randomUUID()}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * ```
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
