/**
 * What a disk's requests are, for those who do not know disks.
 *
 * @module
 */

import type { RequestFormat } from "../../backend/device.ts";
import type { Chain } from "../../virtqueue/chain.ts";
import { SECTOR } from "../storage/storage.ts";
import { BARRIER, BlkRequest, BlkStatus, HEADER_SIZE, RANGE_SIZE } from "./layout.ts";

const NAMES: ReadonlyMap<number, string> = new Map([
  [BlkRequest.IN, "read"],
  [BlkRequest.OUT, "write"],
  [BlkRequest.FLUSH, "flush"],
  [BlkRequest.GET_ID, "id"],
  [BlkRequest.DISCARD, "discard"],
  [BlkRequest.WRITE_ZEROES, "zeroes"],
]);

function typeOf({ readable }: Chain): number {
  return (readable.getUint32(0) & ~BARRIER) >>> 0;
}

/** Whether sectors that a request is about lie in a range. A flush is about none. */
function touches(chain: Chain, first: number, last: number): boolean {
  const { readable, writable } = chain;
  const overlap = (sector: number, count: number): boolean => sector <= last && sector + count > first;
  switch (typeOf(chain)) {
    case BlkRequest.IN:
      return overlap(readable.getUint64(8), (writable.byteLength - 1) / SECTOR);
    case BlkRequest.OUT:
      return overlap(readable.getUint64(8), (readable.byteLength - HEADER_SIZE) / SECTOR);
    case BlkRequest.DISCARD:
    case BlkRequest.WRITE_ZEROES:
      for (let at = HEADER_SIZE; at + RANGE_SIZE <= readable.byteLength; at += RANGE_SIZE) {
        if (overlap(readable.getUint64(at), readable.getUint32(at + 8))) return true;
      }
  }
  return false;
}

/** Kinds of request of a disk, and how they fail: with the status in the last byte (virtio 1.4, 5.2.6). */
export const blkRequests: RequestFormat = {
  device: "blk",
  kinds: {
    read: { data: [0, 1], fails: true },
    write: { fails: true },
    flush: { fails: true },
    discard: { fails: true },
    zeroes: { fails: true },
    id: { data: [0, 1], fails: true },
  },
  kindOf: (chain) => NAMES.get(typeOf(chain)),
  errors: { EIO: BlkStatus.IOERR, EOPNOTSUPP: BlkStatus.UNSUPP },
  fail: (chain, _queue, status) => {
    chain.writable.setUint8(chain.writable.byteLength - 1, status);
    chain.written = 1;
  },
  places: { name: "sector", touches },
};
