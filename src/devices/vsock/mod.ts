/**
 * Sockets between virtual machines and their host.
 *
 * @example Programs of the host reach the guest by Unix sockets, as with Firecracker
 * ```ts
 * import { serve } from "@vhost/user";
 * import { VsockDevice } from "@vhost/user/devices/vsock";
 *
 * const folder = `/tmp/vsock-${crypto.randomUUID()}`;
 * const device = new VsockDevice({ guestCid: 3, unixPath: `${folder}-u` });
 * const server = await serve(device, { socketPath: `${folder}.sock` });
 * server.close();
 * device.close();
 * ```
 *
 * @module
 */

export { VsockError } from "./circuit.ts";
export * from "./counters.ts";
export * from "./device.ts";
export { VsockGroup } from "./group.ts";
export * from "./layout.ts";
export type { VsockConnection } from "./program_end.ts";
