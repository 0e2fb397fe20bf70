/**
 * WAV files (RIFF; Microsoft and IBM, "Multimedia Programming Interface and Data Specifications").
 *
 * @module
 */

import { close, fileStatus } from "../../../ffi/fd.ts";
import { openFile, OpenFlag, readAt, writeAt } from "../../../ffi/file.ts";
import { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import type { PlayingStream, RecordingStream, SoundInput, SoundOutput } from "./endpoints.ts";
import {
  ANY_PCM,
  byteRate,
  frameSize,
  PCM_RATES,
  type PcmFormatName,
  type PcmParams,
  type PcmRange,
  samePcm,
  SAMPLE_SIZES,
  silence,
} from "./pcm.ts";

/** Bytes before the samples. */
export const WAV_HEADER_SIZE = 44;
/** Bytes of samples in a file: what its sizes of 32 bits can say. */
const MOST = 0xffff_ffff - WAV_HEADER_SIZE;
const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
/** Room for a piece of a file, bytes. */
const ROOM = 65536;

const latin = new TextDecoder("latin1");

/**
 * What stands before the samples.
 *
 * @param length bytes of samples; not known yet by default, as in a stream
 */
export function wavHeader(params: PcmParams, length: number = MOST): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(WAV_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  const text = (at: number, word: string): void => bytes.set(new TextEncoder().encode(word), at);
  text(0, "RIFF");
  view.setUint32(4, length + WAV_HEADER_SIZE - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, params.format.startsWith("FLOAT") ? FLOAT : PCM, true);
  view.setUint16(22, params.channels, true);
  view.setUint32(24, params.rate, true);
  view.setUint32(28, byteRate(params), true);
  view.setUint16(32, frameSize(params), true);
  view.setUint16(34, 8 * SAMPLE_SIZES[params.format], true);
  text(36, "data");
  view.setUint32(40, length, true);
  return bytes;
}

/** A file that is read and written at positions. */
class BytesFile {
  readonly #fd: number;
  readonly #room = new Native(ROOM);
  readonly #iovec = new Iovec(1);

  constructor(path: string, flags: number) {
    this.#fd = openFile(path, flags);
    const { kind } = fileStatus(this.#fd);
    if (kind === "file") return;
    close(this.#fd);
    throw new TypeError(`${path} is a ${kind}; sound needs a file`);
  }

  get size(): number {
    return fileStatus(this.#fd).size;
  }

  /** Returns bytes read: fewer than there is room for at the end of the file. */
  read(target: Uint8Array, position: number): number {
    for (let done = 0; done < target.length;) {
      const piece = Math.min(ROOM, target.length - done);
      const got = readAt(this.#fd, this.#piece(piece), position + done);
      target.set(this.#room.bytes.subarray(0, got), done);
      done += got;
      if (got < piece) return done;
    }
    return target.length;
  }

  write(source: Uint8Array, position: number): void {
    for (let done = 0; done < source.length; done += ROOM) {
      const piece = source.subarray(done, done + ROOM);
      this.#room.bytes.set(piece);
      writeAt(this.#fd, this.#piece(piece.length), position + done);
    }
  }

  #piece(length: number): Iovec {
    this.#iovec.clear();
    this.#iovec.push(Number(this.#room.address), length);
    return this.#iovec;
  }

  close(): void {
    close(this.#fd);
  }
}

/** What a WAV file has. */
export interface WavContents {
  /** Its samples. */
  readonly params: PcmParams;
  /** Where they start, bytes. */
  readonly offset: number;
  /** Bytes of them. */
  readonly length: number;
}

function formatOf(kind: number, bits: number): PcmFormatName | undefined {
  const names = kind === PCM
    ? { 8: "U8", 16: "S16", 24: "S24_3", 32: "S32" } as const
    : kind === FLOAT
    ? { 32: "FLOAT", 64: "FLOAT64" } as const
    : {};
  return (names as Readonly<Record<number, PcmFormatName>>)[bits];
}

/**
 * Finds the samples of a WAV file.
 *
 * @param read fills bytes from a position, and returns how many there were
 * @param size bytes of the file
 * @throws {TypeError} for anything else, and for formats that the device has not
 */
export function parseWav(read: (target: Uint8Array, position: number) => number, size: number): WavContents {
  const head = new Uint8Array(40);
  const view = new DataView(head.buffer);
  const word = (at: number): string => latin.decode(head.subarray(at, at + 4));
  if (read(head.subarray(0, 12), 0) < 12 || word(0) !== "RIFF" || word(8) !== "WAVE") {
    throw new TypeError("it is no WAV file");
  }
  let params: PcmParams | undefined;
  for (let at = 12; at + 8 <= size;) {
    read(head.subarray(0, 8), at);
    const name = word(0);
    const length = view.getUint32(4, true);
    if (name === "data" && params !== undefined) {
      // Who did not know its length when it began has written the most there can be.
      const there = Math.min(length, size - at - 8);
      return { params, offset: at + 8, length: there - there % frameSize(params) };
    }
    if (name === "fmt ") {
      const got = read(head.subarray(0, Math.min(40, length)), at + 8);
      if (got < 16) throw new TypeError(`its format has ${got} bytes of 16`);
      let kind = view.getUint16(0, true);
      if (kind === EXTENSIBLE && got === 40) kind = view.getUint16(24, true);
      const bits = view.getUint16(14, true);
      const format = formatOf(kind, bits);
      if (format === undefined) {
        throw new TypeError(
          `its samples are of kind ${kind} with ${bits} bits; taken are PCM of 8, 16, 24 and 32 bits, and float`,
        );
      }
      const channels = view.getUint16(2, true);
      const rate = view.getUint32(4, true);
      if (channels < 1 || channels > 18) {
        throw new TypeError(`it has ${channels} channels; taken are 1 to 18`);
      }
      if (!PCM_RATES.includes(rate)) {
        throw new TypeError(`it has ${rate} frames per second; taken are ${PCM_RATES.join(", ")}`);
      }
      params = { format, channels, rate };
    }
    // A chunk of odd length has a byte of padding.
    at += 8 + length + length % 2;
  }
  throw new TypeError(params === undefined ? "it says no format" : "it has no samples");
}

/** Plays a WAV file to the guest, from its start each time the guest begins to record; then silence. */
export class WavInput implements SoundInput {
  /** What the file has, and nothing else: nothing is converted. */
  readonly range: PcmRange;
  readonly #file: BytesFile;
  readonly #contents: WavContents;

  /**
   * Opens a file.
   *
   * @throws {TypeError} when it is none that can be played
   * @throws {OsError}
   */
  constructor(path: string) {
    this.#file = new BytesFile(path, OpenFlag.READ_ONLY);
    try {
      this.#contents = parseWav((target, position) => this.#file.read(target, position), this.#file.size);
    } catch (error) {
      this.#file.close();
      if (error instanceof TypeError) error.message = `${path}: ${error.message}`;
      throw error;
    }
    const { format, channels, rate } = this.#contents.params;
    this.range = { formats: [format], rates: [rate], channelsMin: channels, channelsMax: channels };
  }

  /** {@link SoundInput.open}. */
  open(params: PcmParams): RecordingStream {
    const { offset, length } = this.#contents;
    let at = 0;
    return {
      read: (target) => {
        const wanted = target.subarray(0, Math.max(0, Math.min(target.length, length - at)));
        const got = this.#file.read(wanted, offset + at);
        at += got;
        silence(target.subarray(got), params);
      },
      close: () => {},
    };
  }

  /** Closes the file. */
  close(): void {
    this.#file.close();
  }
}

/**
 * Writes what the guest plays to a WAV file, sample by sample as the guest has them. Streams of the same parameters follow
 * each other in it. One of others begins another file: `name-2.wav` after `name.wav`, and so on.
 */
export class WavOutput implements SoundOutput {
  /** {@link SoundOutput.range}. */
  readonly range: PcmRange = ANY_PCM;
  readonly #path: string;
  #file: BytesFile | undefined;
  #params: PcmParams | undefined;
  #count = 0;
  #length = 0;

  /** Files by this path; the first is made when there is something to write. */
  constructor(path: string) {
    this.#path = path;
  }

  /** {@link SoundOutput.open}. */
  open(params: PcmParams): PlayingStream {
    return {
      write: (bytes) => this.#write(params, bytes),
      pause: () => this.#finish(),
      close: () => this.close(),
    };
  }

  #write(params: PcmParams, bytes: Uint8Array): void {
    const same = this.#params !== undefined && samePcm(params, this.#params);
    if (!same || this.#length + bytes.length > MOST) this.#next(params);
    this.#file ??= new BytesFile(this.#name, OpenFlag.READ_WRITE);
    this.#file.write(bytes, WAV_HEADER_SIZE + this.#length);
    this.#length += bytes.length;
  }

  get #name(): string {
    return this.#count === 1 ? this.#path : `${this.#path.replace(/\.wav$/i, "")}-${this.#count}.wav`;
  }

  #next(params: PcmParams): void {
    this.close();
    this.#count++;
    this.#params = params;
    this.#length = 0;
    this.#file = new BytesFile(this.#name, OpenFlag.READ_WRITE | OpenFlag.CREATE | OpenFlag.TRUNCATE);
    // Readable also if nobody comes to finish it.
    this.#file.write(wavHeader(params), 0);
  }

  /** Has the file say how long it is. */
  #finish(): void {
    if (this.#params !== undefined) this.#file?.write(wavHeader(this.#params, this.#length), 0);
  }

  /** Closes the file; it is opened again when there is more. */
  close(): void {
    this.#finish();
    this.#file?.close();
    this.#file = undefined;
  }
}
