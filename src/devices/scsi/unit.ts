/**
 * A disk of a SCSI host: what it is made of.
 *
 * @module
 */

import { SECTOR, type Storage } from "../storage/storage.ts";

/** What a logical unit is made of. */
export interface ScsiUnitOptions {
  /** Where its bytes are. Closed with the device, or when the unit is taken away. */
  readonly storage: Storage;
  /** Refuses writes; also when the storage does. */
  readonly readOnly?: boolean;
  /**
   * Serial number, 1 to 36 printable ASCII characters. Guests name disks by it, so no two should have the same. By default
   * `vhost-user-` and the number of the unit.
   */
  readonly id?: string;
  /** World wide name (NAA), 64 bits, such as `0x5000c500a1b2c3d4n`; none by default. */
  readonly wwn?: bigint;
  /** Vendor, up to 8 printable ASCII characters; `vhost` by default. */
  readonly vendor?: string;
  /** Product, up to 16 printable ASCII characters; `vhost-user disk` by default. */
  readonly product?: string;
  /** Logical block, bytes: 512 (the default) or 4096. */
  readonly blockSize?: number;
}

function text(name: string, value: string, least: number, most: number): string {
  if (value.length < least || value.length > most || !/^[\x20-\x7e]*$/.test(value)) {
    throw new RangeError(
      `${name} must have ${least} to ${most} printable ASCII characters, got ${JSON.stringify(value)}`,
    );
  }
  return value;
}

/** A disk, the same for every front-end. */
export class ScsiUnit {
  /** Its number. */
  readonly lun: number;
  /** Where its bytes are. */
  readonly storage: Storage;
  /** Whether nothing may be written. */
  readonly readOnly: boolean;
  /** Serial number. */
  readonly id: string;
  /** World wide name. */
  readonly wwn: bigint | undefined;
  /** Vendor. */
  readonly vendor: string;
  /** Product. */
  readonly product: string;
  /** Logical block, bytes. */
  readonly blockSize: number;

  /**
   * Checks the options.
   *
   * @throws {RangeError}
   */
  constructor(lun: number, options: ScsiUnitOptions) {
    const { storage, blockSize = SECTOR, wwn } = options;
    if (!Number.isInteger(lun) || lun < 0 || lun > MAX_LUN) {
      throw new RangeError(`lun must be 0 to ${MAX_LUN}, got ${lun}`);
    }
    if (blockSize !== 512 && blockSize !== 4096) {
      throw new RangeError(`blockSize must be 512 or 4096, got ${blockSize}`);
    }
    if (!(storage.size >= blockSize) || storage.size % SECTOR !== 0) {
      throw new RangeError(
        `storage size must be a multiple of ${SECTOR} bytes and at least a block, got ${storage.size}`,
      );
    }
    if (wwn !== undefined && BigInt.asUintN(64, wwn) !== wwn) {
      throw new RangeError(`wwn must have 64 bits, got ${wwn}`);
    }
    this.lun = lun;
    this.storage = storage;
    this.readOnly = options.readOnly ?? storage.readOnly;
    this.id = text("id", options.id ?? `vhost-user-${lun}`, 1, 36);
    this.vendor = text("vendor", options.vendor ?? "vhost", 0, 8);
    this.product = text("product", options.product ?? "vhost-user disk", 0, 16);
    this.wwn = wwn;
    this.blockSize = blockSize;
  }

  /** Blocks, as the storage is now. */
  get blocks(): number {
    return Math.floor(this.storage.size / this.blockSize);
  }

  /** Whether blocks can be given back (UNMAP). */
  get canDiscard(): boolean {
    return !this.readOnly && this.storage.discard !== undefined;
  }
}

/** Highest number of a logical unit: what 14 bits hold. */
export const MAX_LUN = 16383;
