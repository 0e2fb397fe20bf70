/**
 * Numbers and structures of the block device (virtio 1.4, section 5.2; Linux `virtio_blk.h`).
 *
 * @module
 */

import { bytes, Struct, u16, u32, u64, u8 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const blkFeatures = {
  SIZE_MAX: 1,
  SEG_MAX: 2,
  GEOMETRY: 4,
  RO: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
  LIFETIME: 15,
  SECURE_ERASE: 16,
  ZONED: 17,
} as const;

/** Kinds of request. */
export const BlkRequest = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 } as const;

/**
 * Flag of a legacy request's kind: not before those that came earlier, nor after those that come later. Has a meaning only with
 * the feature BARRIER (0), which nobody offers any more; legacy drivers such as SLOF's set it all the same.
 */
export const BARRIER = 0x8000_0000;

/** The last byte of a request, written by the device. */
export const BlkStatus = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;

/** Bytes of a request's header: u32 type, u32 reserved, u64 sector. */
export const HEADER_SIZE = 16;
/** Bytes of one range of DISCARD or WRITE_ZEROES: u64 sector, u32 sectors, u32 flags. */
export const RANGE_SIZE = 16;
/** Flag of a WRITE_ZEROES range: the storage may be given back. */
export const RANGE_UNMAP = 1;
/** Bytes of the answer to GET_ID. */
export const ID_SIZE = 20;

/** The configuration space. */
export interface BlkConfig {
  /** Sectors. */
  readonly capacity: bigint;
  /** Most bytes of a segment; 0 without SIZE_MAX. */
  readonly sizeMax: number;
  /** Most segments of a request. */
  readonly segMax: number;
  /** Cylinders, of a disk that has them. */
  readonly cylinders: number;
  /** Heads. */
  readonly heads: number;
  /** Sectors of a track. */
  readonly sectors: number;
  /** Logical block, bytes. */
  readonly blkSize: number;
  /** Logical blocks of a physical one, as a power of two. */
  readonly physicalBlockExp: number;
  /** First aligned logical block. */
  readonly alignmentOffset: number;
  /** Suggested least request, logical blocks. */
  readonly minIoSize: number;
  /** Suggested best request, logical blocks. */
  readonly optIoSize: number;
  /** 1 write-back, 0 write-through. The driver may write it. */
  readonly writeback: number;
  /** Padding. */
  readonly unused0: number;
  /** Request queues. */
  readonly numQueues: number;
  /** Most sectors of one discarded range. */
  readonly maxDiscardSectors: number;
  /** Most ranges of one DISCARD. */
  readonly maxDiscardSeg: number;
  /** Alignment of discarded ranges, sectors. */
  readonly discardSectorAlignment: number;
  /** Most sectors of one range of WRITE_ZEROES. */
  readonly maxWriteZeroesSectors: number;
  /** Most ranges of one WRITE_ZEROES. */
  readonly maxWriteZeroesSeg: number;
  /** Whether WRITE_ZEROES may give storage back. */
  readonly writeZeroesMayUnmap: number;
  /** Padding. */
  readonly unused1: Uint8Array;
  /** Secure erase; 0. */
  readonly maxSecureEraseSectors: number;
  /** Secure erase; 0. */
  readonly maxSecureEraseSeg: number;
  /** Secure erase; 0. */
  readonly secureEraseSectorAlignment: number;
  /** Zoned devices; 0. */
  readonly zoned: Uint8Array;
}

/** Layout of the configuration space: 96 bytes. */
export const blkConfig: Struct<BlkConfig> = new Struct<BlkConfig>({
  capacity: u64,
  sizeMax: u32,
  segMax: u32,
  cylinders: u16,
  heads: u8,
  sectors: u8,
  blkSize: u32,
  physicalBlockExp: u8,
  alignmentOffset: u8,
  minIoSize: u16,
  optIoSize: u32,
  writeback: u8,
  unused0: u8,
  numQueues: u16,
  maxDiscardSectors: u32,
  maxDiscardSeg: u32,
  discardSectorAlignment: u32,
  maxWriteZeroesSectors: u32,
  maxWriteZeroesSeg: u32,
  writeZeroesMayUnmap: u8,
  unused1: bytes(3),
  maxSecureEraseSectors: u32,
  maxSecureEraseSeg: u32,
  secureEraseSectorAlignment: u32,
  zoned: bytes(24),
});
