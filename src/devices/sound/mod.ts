/**
 * A sound card for virtual machines.
 *
 * @example A card that records what the guest plays, and lets it hear a tone
 * ```ts
 * import { SoundDevice, ToneInput, WavOutput } from "@vhost/user/devices/sound";
 *
 * const output = new WavOutput("/tmp/played.wav");
 * export const card = new SoundDevice({ output, input: new ToneInput(440) });
 * ```
 *
 * @module
 */

export { SoundDevice, type SoundOptions } from "./device.ts";
export * from "./endpoints.ts";
export * from "./layout.ts";
export * from "./pcm.ts";
export * from "./uri.ts";
export * from "./wav.ts";
