/**
 * Numbers and structures of the SPI controller (virtio 1.4, section 5.25, "SPI Controller Device"; Linux `virtio_spi.h`).
 *
 * @module
 */

import { Struct, u16, u32, u8 } from "../../protocol/struct.ts";

/** The last byte of a request, written by the device. */
export const SpiResult = { OK: 0, PARAM_ERR: 1, TRANS_ERR: 2 } as const;

/** Bits of a transfer's mode. */
export const SpiMode = { CPHA: 1, CPOL: 2, CS_HIGH: 4, LSB_FIRST: 8, LOOP: 16 } as const;

/** Bits of {@link SpiConfig.modeFuncSupported}. */
export const SpiSupport = {
  CPHA_0: 1,
  CPHA_1: 2,
  CPOL_0: 4,
  CPOL_1: 8,
  CS_HIGH: 16,
  LSB_FIRST: 32,
  LOOPBACK: 64,
} as const;

/** The configuration space: what the controller can do. */
export interface SpiConfig {
  /** Chip selects. */
  readonly csMaxNumber: number;
  /** Whether a part can be deselected after each transfer: 0 or 1. */
  readonly csChangeSupported: number;
  /** Widths for sending besides one bit: bit 0 two, bit 1 four, bit 2 eight. */
  readonly txNbitsSupported: number;
  /** The same for receiving. */
  readonly rxNbitsSupported: number;
  /** Bit n: words of n + 1 bits; 0 for all. */
  readonly bitsPerWordMask: number;
  /** Bits of {@link SpiSupport}. */
  readonly modeFuncSupported: number;
  /** Highest clock rate, Hz; 0 for no limit. */
  readonly maxFreqHz: number;
  /** Longest delay between words, ns; 0 for none. */
  readonly maxWordDelayNs: number;
  /** Longest delay after a part is selected, ns. */
  readonly maxCsSetupNs: number;
  /** Longest delay before it is deselected, ns. */
  readonly maxCsHoldNs: number;
  /** Longest delay after that, ns. */
  readonly maxCsInactiveNs: number;
}

/** Layout of the configuration space: 32 bytes. */
export const spiConfig: Struct<SpiConfig> = new Struct<SpiConfig>({
  csMaxNumber: u8,
  csChangeSupported: u8,
  txNbitsSupported: u8,
  rxNbitsSupported: u8,
  bitsPerWordMask: u32,
  modeFuncSupported: u32,
  maxFreqHz: u32,
  maxWordDelayNs: u32,
  maxCsSetupNs: u32,
  maxCsHoldNs: u32,
  maxCsInactiveNs: u32,
});

/** What stands before the bytes of a transfer. */
export interface SpiTransferHead {
  /** Which part. */
  readonly chipSelectId: number;
  /** Bits of a word. */
  readonly bitsPerWord: number;
  /** 1 to deselect the part afterwards, 0 to keep it selected. */
  readonly csChange: number;
  /** Width for sending: 0, 1, 2, 4 or 8 bits. */
  readonly txNbits: number;
  /** Width for receiving. */
  readonly rxNbits: number;
  /** Unused. */
  readonly reserved0: number;
  /** Unused. */
  readonly reserved1: number;
  /** Bits of {@link SpiMode}. */
  readonly mode: number;
  /** Clock rate, Hz. */
  readonly freq: number;
  /** Delay between words, ns. */
  readonly wordDelayNs: number;
  /** Delay after the part is selected, ns. */
  readonly csSetupNs: number;
  /** Delay before it is deselected, ns. */
  readonly csDelayHoldNs: number;
  /** Delay after that, ns. */
  readonly csChangeDelayInactiveNs: number;
}

/** Layout of the head: 32 bytes. */
export const spiTransferHead: Struct<SpiTransferHead> = new Struct<SpiTransferHead>({
  chipSelectId: u8,
  bitsPerWord: u8,
  csChange: u8,
  txNbits: u8,
  rxNbits: u8,
  reserved0: u8,
  reserved1: u16,
  mode: u32,
  freq: u32,
  wordDelayNs: u32,
  csSetupNs: u32,
  csDelayHoldNs: u32,
  csChangeDelayInactiveNs: u32,
});
