/**
 * Sound that another program plays.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import type { PlayingStream, SoundOutput } from "../devices/sound/endpoints.ts";
import { ANY_PCM, type PcmParams, type PcmRange } from "../devices/sound/pcm.ts";
import { wavHeader } from "../devices/sound/wav.ts";

/** How long a program may go on after the end, ms: it may have some seconds of sound still to play. */
const PATIENCE = 10_000;

/**
 * Starts a shell command for each stream, which reads it as WAV from its standard input. The environment says what it is:
 * SOUND_FORMAT (`S16` and so on), SOUND_CHANNELS and SOUND_RATE.
 */
export class ProgramOutput implements SoundOutput {
  /** {@link SoundOutput.range}. */
  readonly range: PcmRange = ANY_PCM;
  readonly #command: string;
  readonly #onProblem: (text: string) => void;
  readonly #children = new Set<ChildProcess>();

  /** @param onProblem told when a program ends badly */
  constructor(command: string, onProblem: (text: string) => void) {
    this.#command = command;
    this.#onProblem = onProblem;
  }

  /** {@link SoundOutput.open}. */
  open(params: PcmParams): PlayingStream {
    const { format, channels, rate } = params;
    const about = `export SOUND_FORMAT=${format} SOUND_CHANNELS=${channels} SOUND_RATE=${rate}`;
    const child = spawn("/bin/sh", ["-c", `${about}\n${this.#command}`], {
      stdio: ["pipe", "inherit", "inherit"],
    });
    const { stdin } = child;
    this.#children.add(child);
    let gone = false;
    child.on("error", (error) => {
      gone = true;
      this.#onProblem(`${this.#command}: ${error.message}`);
    });
    child.on("exit", (code, signal) => {
      gone = true;
      this.#children.delete(child);
      if (code !== 0) this.#onProblem(`${this.#command}: ended with ${signal ?? `status ${code}`}`);
    });
    // A program that does not read any more says why by its status.
    stdin.on("error", () => {});
    stdin.write(wavHeader(params));
    return {
      write: (bytes) => {
        if (gone) return;
        return new Promise((resolve) => {
          stdin.write(bytes, () => resolve());
        });
      },
      close: () => {
        stdin.end();
        setTimeout(() => child.kill(), PATIENCE).unref();
      },
    };
  }

  /** Ends the programs that still run. */
  close(): void {
    for (const child of this.#children) child.kill();
  }
}
