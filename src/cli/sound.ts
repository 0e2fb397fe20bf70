/**
 * `vhost-user sound`.
 *
 * @module
 */

import { dirname } from "node:path";
import { errorText, type Needs } from "../../mod.ts";
import { openSoundInput, openSoundOutput, SoundDevice } from "../devices/sound/mod.ts";
import { type Command, UsageError } from "./command.ts";
import { serveOptions, serveUntilSignal, servingOptions } from "./serving.ts";
import { ProgramOutput } from "./sound_program.ts";

/** What an output still needs once it is open. */
function needsOf(output: string): Needs {
  if (output.startsWith("exec:")) return { programs: true };
  // What is played after something else, or is too long for one file, goes into files beside it.
  if (output.startsWith("wav:")) return { files: [{ path: dirname(output.slice(4)), access: "create" }] };
  return {};
}

/** Serves a sound card. */
export const sound: Command = {
  summary: "Serves a sound card to a virtual machine.",
  options: {
    "output": {
      value: "URI",
      offer: ["wav:", "exec:", "null", "none"],
      help: "Where what the guest plays goes: wav:FILE, exec:'COMMAND' (a shell command that reads\n" +
        "WAV from its standard input, one for each stream; needs --allow-run and --allow-env), null (the\n" +
        "default) or none (the card cannot play).",
    },
    "input": {
      value: "URI",
      offer: ["tone:", "wav:", "null", "none"],
      help: "What the guest records: tone:HERTZ, wav:FILE (then silence), null (silence) or\n" +
        "none (the default: the card cannot record).",
    },
    "speed": {
      value: "N",
      help: "Run N times faster than real time (default 1); less than 1 for a guest that cannot keep up.",
    },
    ...servingOptions,
  },
  examples: [
    [
      "vhost-user sound --socket-path=/tmp/sound.sock --output=wav:played.wav --input=tone:440",
      "Writes what the guest plays to a file, and lets it record a tone. Attach it in QEMU by",
    ],
    [
      "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on -M q35,memory-backend=m \\\n" +
      "    -chardev socket,id=c,path=/tmp/sound.sock -device vhost-user-snd-pci,chardev=c …",
      "share=on is needed: without it the guest's memory cannot be seen, and nothing is heard.",
    ],
    [
      "vhost-user sound --socket-path=/tmp/sound.sock --output=exec:'pw-play -'",
      "Lets it be heard by PipeWire; 'aplay -' does it for ALSA.",
    ],
  ],
  permissions: [{ flags: ["--allow-run=/bin/sh", "--allow-env"], when: "--output=exec:COMMAND" }],
  capabilities: { type: "sound", features: [] },
  run: async (values, output) => {
    const options = serveOptions(values, output);
    const { output: to = "null", input: from = "none", speed: times = "1" } = values;
    const speed = /^\d+(\.\d+)?$/.test(String(times)) ? Number(times) : NaN;
    if (!(speed > 0 && speed <= 1000)) {
      throw new UsageError(`--speed must be a number above 0 and at most 1000, got '${times}'`);
    }
    const say = (text: string, error?: unknown): void => options.log?.("warning", `sound: ${text}`, error);
    const player = to === "none"
      ? undefined
      : String(to).startsWith("exec:")
      ? new ProgramOutput(String(to).slice(5), (problem) => say(problem))
      : openSoundOutput(String(to));
    let source;
    try {
      source = from === "none" ? undefined : openSoundInput(String(from));
      if (player === undefined && source === undefined) {
        throw new UsageError("a card needs an output or an input; both are none");
      }
      const card = new SoundDevice({
        output: player,
        input: source,
        speed,
        onError: (error) => say(`it failed: ${errorText(error)}`),
      });
      const what = `vhost-user sound: ${to}, ${from}`;
      await serveUntilSignal(card, options, what, output, () => {}, needsOf(String(to)));
    } finally {
      player?.close?.();
      source?.close?.();
    }
    return 0;
  },
};
