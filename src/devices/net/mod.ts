/**
 * Network cards for virtual machines, and the networks that they are plugged into.
 *
 * @example Guests that connect to one socket are in one network
 * ```ts
 * import { serve } from "@vhost/user";
 * import { NetDevice, SwitchNetwork } from "@vhost/user/devices/net";
 *
 * const card = new NetDevice({ network: new SwitchNetwork() });
 * const server = await serve(card, { socketPath: `/tmp/net-${crypto.randomUUID()}.sock` });
 * server.close();
 * ```
 *
 * @module
 */

export * from "./counters.ts";
export * from "./device.ts";
export * from "./frame.ts";
export * from "./function_network.ts";
export * from "./layout.ts";
export * from "./network.ts";
export * from "./pcap.ts";
export * from "./simple_networks.ts";
export * from "./stream_network.ts";
export * from "./switch_network.ts";
export * from "./tap_network.ts";
export * from "./uri.ts";
export { AllowList, type Target } from "./user/rules.ts";
export { proxy, type ProxyLog } from "./user/proxy.ts";
export type { TcpStreams } from "./user/tcp.ts";
export * from "./user/user_network.ts";
