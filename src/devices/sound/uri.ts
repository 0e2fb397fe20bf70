/**
 * Outputs and inputs by a short text, as the command line takes it.
 *
 * @module
 */

import { NullInput, NullOutput, type SoundInput, type SoundOutput, ToneInput } from "./endpoints.ts";
import { WavInput, WavOutput } from "./wav.ts";

function parts(uri: string): [kind: string, rest: string] {
  const at = uri.indexOf(":");
  return at < 0 ? [uri, ""] : [uri.slice(0, at), uri.slice(at + 1)];
}

/**
 * Opens `wav:FILE` or `null`.
 *
 * @throws {TypeError} for anything else
 */
export function openSoundOutput(uri: string): SoundOutput {
  const [kind, rest] = parts(uri);
  if (kind === "wav" && rest !== "") return new WavOutput(rest);
  if (uri === "null") return new NullOutput();
  throw new TypeError(`output must be wav:FILE or null, got ${JSON.stringify(uri)}`);
}

/**
 * Opens `tone:HERTZ`, `wav:FILE` or `null`.
 *
 * @throws {TypeError} for anything else, and for a file that cannot be played
 * @throws {RangeError} for a tone that cannot be
 * @throws {OsError} when a file cannot be opened
 */
export function openSoundInput(uri: string): SoundInput {
  const [kind, rest] = parts(uri);
  if (kind === "wav" && rest !== "") return new WavInput(rest);
  if (kind === "tone" && rest !== "") return new ToneInput(Number(rest));
  if (uri === "null") return new NullInput();
  throw new TypeError(`input must be tone:HERTZ, wav:FILE or null, got ${JSON.stringify(uri)}`);
}
