/**
 * Samples: formats and rates (virtio 1.4, section 5.14.6.6.2).
 *
 * @module
 */

/** Numbers of the formats that this device has. All are little-endian. */
export const PcmFormat = { U8: 4, S16: 5, S24_3: 11, S32: 17, FLOAT: 19, FLOAT64: 20 } as const;

/** Name of a format. */
export type PcmFormatName = keyof typeof PcmFormat;

/** Bytes of a sample. */
export const SAMPLE_SIZES: Readonly<Record<PcmFormatName, number>> = {
  U8: 1,
  S16: 2,
  S24_3: 3,
  S32: 4,
  FLOAT: 4,
  FLOAT64: 8,
};

/** Frames per second, by the number that stands for it. */
export const PCM_RATES: readonly number[] = [
  ...[5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000],
  ...[64000, 88200, 96000, 176400, 192000, 384000],
];

/** What a stream carries. */
export interface PcmParams {
  /** Format of a sample. */
  readonly format: PcmFormatName;
  /** Samples of a frame. */
  readonly channels: number;
  /** Frames per second. */
  readonly rate: number;
}

/** What a stream may carry. */
export interface PcmRange {
  /** Formats. */
  readonly formats: readonly PcmFormatName[];
  /** Frames per second, of {@link PCM_RATES}. */
  readonly rates: readonly number[];
  /** Fewest samples of a frame. */
  readonly channelsMin: number;
  /** Most samples of a frame. */
  readonly channelsMax: number;
}

/** Every format and rate, one or two channels. */
export const ANY_PCM: PcmRange = {
  formats: Object.keys(PcmFormat) as PcmFormatName[],
  rates: PCM_RATES,
  channelsMin: 1,
  channelsMax: 2,
};

/** Bytes of a frame. */
export function frameSize({ format, channels }: PcmParams): number {
  return SAMPLE_SIZES[format] * channels;
}

/** Bytes of a second. */
export function byteRate(params: PcmParams): number {
  return frameSize(params) * params.rate;
}

/** Whether these are the same. */
export function samePcm(a: PcmParams, b: PcmParams): boolean {
  return a.format === b.format && a.channels === b.channels && a.rate === b.rate;
}

/** Fills with silence. */
export function silence(target: Uint8Array, { format }: PcmParams): void {
  target.fill(format === "U8" ? 0x80 : 0);
}
