/**
 * Where sound goes, and where it comes from.
 *
 * @module
 */

import { ANY_PCM, type PcmParams, type PcmRange, silence } from "./pcm.ts";

/**
 * Takes what a guest plays.
 *
 * @example An output that measures how loud it is
 * ```ts
 * import type { SoundOutput } from "@vhost/user/devices/sound";
 *
 * export let peak = 0;
 * export const meter: SoundOutput = {
 *   range: { formats: ["S16"], rates: [48000], channelsMin: 1, channelsMax: 2 },
 *   open: () => ({
 *     write(bytes) {
 *       const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
 *       for (let at = 0; at + 1 < bytes.length; at += 2) peak = Math.max(peak, Math.abs(view.getInt16(at, true)));
 *     },
 *     close() {},
 *   }),
 * };
 * ```
 */
export interface SoundOutput {
  /** What it takes; everything by default. */
  readonly range?: PcmRange;
  /** A stream begins. It is closed before the next one of the same guest is opened. */
  open(params: PcmParams): PlayingStream;
  /** Lets go of what it holds. */
  close?(): void;
}

/** One stream of an output. */
export interface PlayingStream {
  /**
   * Takes the next bytes, at the time when they should be heard. The stream waits until the promise has been kept, for an
   * output that is slower than it should be.
   *
   * @param bytes valid until this returns or the promise has been kept
   */
  write(bytes: Uint8Array): void | Promise<void>;
  /** The guest stops for a while, or goes on. */
  pause?(paused: boolean): void;
  /** There is no more. */
  close(): void;
}

/** Gives what a guest records. */
export interface SoundInput {
  /** What it gives; everything by default. */
  readonly range?: PcmRange;
  /** A stream begins. It is closed before the next one of the same guest is opened. */
  open(params: PcmParams): RecordingStream;
  /** Lets go of what it holds. */
  close?(): void;
}

/** One stream of an input. */
export interface RecordingStream {
  /** Fills all of it with the next bytes. */
  read(target: Uint8Array): void;
  /** No more is wanted. */
  close(): void;
}

/** Drops everything. */
export class NullOutput implements SoundOutput {
  /** {@link SoundOutput.open}. */
  open(): PlayingStream {
    return { write: () => {}, close: () => {} };
  }
}

/** Silence. */
export class NullInput implements SoundInput {
  /** {@link SoundInput.open}. */
  open(params: PcmParams): RecordingStream {
    return { read: (target) => silence(target, params), close: () => {} };
  }
}

/** Half of what is the loudest. */
const AMPLITUDE = 0.5;

/** A sine wave, the same on each channel. */
export class ToneInput implements SoundInput {
  /** {@link SoundInput.range}. */
  readonly range: PcmRange = { ...ANY_PCM, formats: ["S16", "S32", "FLOAT"] };
  readonly #frequency: number;

  /**
   * A tone.
   *
   * @param frequency Hz
   * @throws {RangeError}
   */
  constructor(frequency: number) {
    if (!(frequency > 0 && frequency <= 20_000)) {
      throw new RangeError(`a tone has more than 0 and at most 20000 Hz, got ${frequency}`);
    }
    this.#frequency = frequency;
  }

  /** {@link SoundInput.open}. The tone starts at zero, rising. */
  open(params: PcmParams): RecordingStream {
    let frame = 0;
    const step = 2 * Math.PI * this.#frequency / params.rate;
    const put = samplePutter(params);
    return {
      read: (target) => {
        const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
        frame = put(view, (at) => AMPLITUDE * Math.sin(step * at), frame);
      },
      close: () => {},
    };
  }
}

/** Writes frames; returns the number of the next one. */
function samplePutter({ format, channels }: PcmParams): (
  view: DataView,
  valueAt: (frame: number) => number,
  frame: number,
) => number {
  const size = format === "S16" ? 2 : 4;
  const set = (view: DataView, at: number, value: number): void => {
    if (format === "S16") view.setInt16(at, Math.round(value * 0x7fff), true);
    else if (format === "S32") view.setInt32(at, Math.round(value * 0x7fff_ffff), true);
    else view.setFloat32(at, value, true);
  };
  return (view, valueAt, frame) => {
    let next = frame;
    for (let at = 0; at + size * channels <= view.byteLength; next++) {
      const value = valueAt(next);
      for (let channel = 0; channel < channels; channel++, at += size) set(view, at, value);
    }
    return next;
  };
}
