/**
 * Numbers and structures of the sound device (virtio 1.4, section 5.14; Linux `virtio_snd.h`).
 *
 * @module
 */

import { bytes, Struct, u32, u64, u8 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const soundFeatures = { CTLS: 0 } as const;

/** The configuration space: how many there are of each. */
export interface SoundConfig {
  /** Jacks. */
  readonly jacks: number;
  /** PCM streams. */
  readonly streams: number;
  /** Channel maps. */
  readonly chmaps: number;
  /** Control elements; without the feature CTLS it is not there. */
  readonly controls: number;
}

/** Layout of the configuration space: 16 bytes. */
export const soundConfig: Struct<SoundConfig> = new Struct<SoundConfig>({
  jacks: u32,
  streams: u32,
  chmaps: u32,
  controls: u32,
});

/** Numbers of the queues. */
export const SoundQueue = { CONTROL: 0, EVENT: 1, TX: 2, RX: 3 } as const;

/** Kinds of control request. */
export const SoundRequest = {
  JACK_INFO: 1,
  JACK_REMAP: 2,
  PCM_INFO: 0x100,
  PCM_SET_PARAMS: 0x101,
  PCM_PREPARE: 0x102,
  PCM_RELEASE: 0x103,
  PCM_START: 0x104,
  PCM_STOP: 0x105,
  CHMAP_INFO: 0x200,
} as const;

/** Kinds of event: u32 event, u32 stream. */
export const SoundEvent = { PCM_PERIOD_ELAPSED: 0x1100, PCM_XRUN: 0x1101 } as const;
/** Bytes of an event. */
export const SOUND_EVENT_SIZE = 8;

/** How a request went. */
export const SoundStatus = { OK: 0x8000, BAD_MSG: 0x8001, NOT_SUPP: 0x8002, IO_ERR: 0x8003 } as const;

/** Bytes of a request for information: u32 code, u32 first, u32 count, u32 size of an item. */
export const QUERY_SIZE = 16;
/** Bytes of a request about a stream: u32 code, u32 stream. */
export const PCM_REQUEST_SIZE = 8;

/** Features of a stream, by bit. */
export const PcmFeature = {
  SHMEM_HOST: 0,
  SHMEM_GUEST: 1,
  MSG_POLLING: 2,
  EVT_SHMEM_PERIODS: 3,
  EVT_XRUNS: 4,
} as const;

/** What a stream can do. */
export interface PcmInfo {
  /** Group of the HDA specification. */
  readonly group: number;
  /** {@link PcmFeature}. */
  readonly features: number;
  /** A bit for each of {@link PcmFormat}. */
  readonly formats: bigint;
  /** A bit for each place in {@link PCM_RATES}. */
  readonly rates: bigint;
  /** 0 playback, 1 capture. */
  readonly direction: number;
  /** Fewest channels. */
  readonly channelsMin: number;
  /** Most channels. */
  readonly channelsMax: number;
  /** Padding. */
  readonly padding: Uint8Array;
}

/** Layout of that: 32 bytes. */
export const pcmInfo: Struct<PcmInfo> = new Struct<PcmInfo>({
  group: u32,
  features: u32,
  formats: u64,
  rates: u64,
  direction: u8,
  channelsMin: u8,
  channelsMax: u8,
  padding: bytes(5),
});

/** Parameters of a stream. */
export interface SetParams {
  /** {@link SoundRequest}. */
  readonly code: number;
  /** The stream. */
  readonly stream: number;
  /** Bytes of the driver's buffer. */
  readonly bufferBytes: number;
  /** Bytes of a period. */
  readonly periodBytes: number;
  /** {@link PcmFeature}. */
  readonly features: number;
  /** Channels. */
  readonly channels: number;
  /** {@link PcmFormat}. */
  readonly format: number;
  /** Place in {@link PCM_RATES}. */
  readonly rate: number;
  /** Padding. */
  readonly padding: number;
}

/** Layout of that: 24 bytes. */
export const setParams: Struct<SetParams> = new Struct<SetParams>({
  code: u32,
  stream: u32,
  bufferBytes: u32,
  periodBytes: u32,
  features: u32,
  channels: u8,
  format: u8,
  rate: u8,
  padding: u8,
});

/** A channel map. */
export interface ChannelMap {
  /** Group of the HDA specification. */
  readonly group: number;
  /** 0 playback, 1 capture. */
  readonly direction: number;
  /** Channels. */
  readonly channels: number;
  /** Position of each. */
  readonly positions: Uint8Array;
}

/** Layout of that: 24 bytes. */
export const channelMap: Struct<ChannelMap> = new Struct<ChannelMap>({
  group: u32,
  direction: u8,
  channels: u8,
  positions: bytes(18),
});

/** Positions of channels. */
export const ChannelPosition = { NONE: 0, NA: 1, MONO: 2, FL: 3, FR: 4 } as const;

/** Bytes before the data of a transfer: u32 stream. */
export const TRANSFER_HEADER_SIZE = 4;
/** Bytes of its status: u32 status, u32 latency in bytes. */
export const TRANSFER_STATUS_SIZE = 8;
