import type { TestContext } from "node:test";
import type { DriverRing } from "../../src/frontend/driver_ring.ts";
import { PackedDriverRing } from "../../src/frontend/packed_driver_ring.ts";
import { type Piece, SharedMemory } from "../../src/frontend/shared_memory.ts";
import { SplitDriverRing } from "../../src/frontend/split_driver_ring.ts";
import { GuestMemory } from "../../src/memory/guest_memory.ts";
import type { Endianness } from "../../src/protocol/struct.ts";
import { BigEndianSplitRing } from "../../src/virtqueue/big_endian_split_ring.ts";
import { inflightRegionSize } from "../../src/virtqueue/inflight.ts";
import { PACKED_START, packedRingSizes } from "../../src/virtqueue/packed_layout.ts";
import { PackedRing } from "../../src/virtqueue/packed_ring.ts";
import type { Ring, RingOptions, RingPart, RingPlace } from "../../src/virtqueue/ring.ts";
import { SplitRing } from "../../src/virtqueue/split_ring.ts";
import { splitRingSizes } from "../../src/virtqueue/split_layout.ts";
import { onEnd } from "../support/cleanup.ts";

/** How a pair is made. */
export interface PairOptions {
  readonly size: number;
  readonly eventIdx: boolean;
  /** Format of the ring; split by default. */
  readonly packed?: boolean;
  /** Byte order of a split ring; little by default. */
  readonly endianness?: Endianness;
  /** Whether IN_ORDER was negotiated; false by default. */
  readonly inOrder?: boolean;
  /** Whether requests in flight are recorded; false by default. */
  readonly recorded?: boolean;
  /** Descriptors of each request's own table; 0 for none. */
  readonly tableSize?: number;
  /** Bytes for requests. */
  readonly data?: number;
  /** Where in these bytes the device's memory is cut into two regions. */
  readonly cut?: number;
}

/** A driver and a device on one ring, each with a mapping of its own. */
export interface Pair {
  readonly memory: GuestMemory;
  readonly shared: SharedMemory;
  readonly driver: DriverRing;
  readonly device: Ring;
  readonly data: Piece;
  /** The in-flight region, which lies in the same memory here. */
  readonly record: Piece | undefined;
  /** Another device on the same ring, for when the first has died or stopped. */
  another(options?: Partial<RingOptions>): Ring;
}

/** Where a part of a ring is for the device. */
export function part(memory: GuestMemory, piece: Piece): RingPart {
  const at = Number(piece.userAddress);
  const region = memory.findUser(at, piece.bytes.length);
  if (region === undefined) throw new RangeError("not within one region");
  return { region, offset: at - region.userAddress };
}

/** Where the driver's ring is for the device. */
export function placeOf(memory: GuestMemory, ring: DriverRing): RingPlace {
  return {
    descriptor: part(memory, ring.descriptor),
    available: part(memory, ring.available),
    used: part(memory, ring.used),
  };
}

/** Maps the driver's memory for the device, cut in two where `cut` says. */
export function mapFor(memory: GuestMemory, shared: SharedMemory, cut = 0): void {
  const from = [0, ...cut === 0 ? [] : [cut]];
  memory.replace(from.map((offset, i) => ({
    guestAddress: shared.guestAddress + offset,
    size: (from[i + 1] ?? shared.byteLength) - offset,
    userAddress: Number(shared.userAddress) + offset,
    mmapOffset: offset,
    fd: shared.fd,
  })));
}

/** A driver and a device, gone when the scope is over. */
export function ringPair(scope: Pick<TestContext, "after">, options: PairOptions): Pair {
  const { size, eventIdx, tableSize = 0, data = 65536, cut = 0 } = options;
  const { packed = false, inOrder = false, recorded = false, endianness = "little" } = options;
  const parts = packed ? packedRingSizes(size) : splitRingSizes(size, true);
  const recordBytes = recorded ? inflightRegionSize(packed, size) + 64 : 0;
  const ringBytes = parts.descriptor + parts.available + parts.used + 64 + size * tableSize * 16;
  const shared = new SharedMemory(ringBytes + recordBytes + data);
  const memory = new GuestMemory();
  onEnd(scope, () => {
    memory.clear();
    shared.close();
  });
  const Driver = packed ? PackedDriverRing : SplitDriverRing;
  const driver = new Driver(shared, { size, eventIdx, tableSize, inOrder, endianness });
  const record = recorded ? shared.allocate(inflightRegionSize(packed, size), 64) : undefined;
  const piece = shared.allocate(data);
  const start = piece.guestAddress - shared.guestAddress;
  mapFor(memory, shared, cut === 0 ? 0 : start + cut);
  const another = (more: Partial<RingOptions> = {}): Ring => {
    const Split = endianness === "big" ? BigEndianSplitRing : SplitRing;
    const Format = packed ? PackedRing : Split;
    return new Format(memory, size, placeOf(memory, driver), {
      eventIdx,
      indirect: tableSize > 0,
      inOrder,
      base: packed ? PACKED_START : 0,
      inflight: record?.bytes,
      ...more,
    });
  };
  return { memory, shared, driver, device: another(), data: piece, record, another };
}
