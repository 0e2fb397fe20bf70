/** One ring and one shape of requests. */

import { BareRing } from "./bare_ring.ts";
import { PackedDriverRing } from "../src/frontend/packed_driver_ring.ts";
import { type Piece, SharedMemory } from "../src/frontend/shared_memory.ts";
import { SplitDriverRing } from "../src/frontend/split_driver_ring.ts";
import { GuestMemory } from "../src/memory/guest_memory.ts";
import { inflightRegionSize } from "../src/virtqueue/inflight.ts";
import { PACKED_START } from "../src/virtqueue/packed_layout.ts";
import { PackedRing } from "../src/virtqueue/packed_ring.ts";
import type { Ring, RingPart } from "../src/virtqueue/ring.ts";
import { SplitRing } from "../src/virtqueue/split_ring.ts";

/** Where the guest's memory lies: above 4 GiB, as most of a large guest's does. */
const GUEST = 2 ** 33;

/** A ring and its requests. */
export interface RingShape {
  /** Format. */
  readonly packed: boolean;
  /** Entries. */
  readonly size: number;
  /** Descriptors of each request. */
  readonly descriptors: number;
  /** Whether they are in a table. */
  readonly indirect: boolean;
  /** Whether requests in flight are recorded. */
  readonly inflight: boolean;
  /** Whether to do without the device's side of the toolkit: a {@link BareRing} in its place. */
  readonly bare?: boolean;
}

/** Both sides of a ring: the driver fills it before and empties it after what is measured. */
export class Trial {
  readonly #fill: () => number;
  readonly #device: Ring;
  readonly #empty: () => void;
  readonly #bare: BareRing | undefined;

  /** Sets the ring up in memory that is shared as with a guest. */
  constructor({ packed, size, descriptors, indirect, inflight, bare }: RingShape) {
    const shared = new SharedMemory(2 * 2 ** 20, GUEST);
    const memory = new GuestMemory();
    memory.replace([{
      guestAddress: shared.guestAddress,
      size: shared.byteLength,
      userAddress: Number(shared.userAddress),
      mmapOffset: 0,
      fd: shared.fd,
    }]);
    const region = memory.regions[0];
    const part = ({ guestAddress }: Piece): RingPart => ({ region, offset: guestAddress - GUEST });
    const options = { size, eventIdx: true, tableSize: indirect ? descriptors : 0 };
    const driver = packed ? new PackedDriverRing(shared, options) : new SplitDriverRing(shared, options);
    const place = {
      descriptor: part(driver.descriptor),
      available: part(driver.available),
      used: part(driver.used),
    };
    const Format = packed ? PackedRing : SplitRing;
    this.#device = new Format(memory, size, place, {
      eventIdx: true,
      indirect,
      base: packed ? PACKED_START : 0,
      inflight: inflight ? shared.allocate(inflightRegionSize(packed, size), 64).bytes : undefined,
    });
    this.#bare = bare ? new BareRing(place, size) : undefined;
    // One to read, as a disk's header is, and the rest to write.
    const buffers = Array.from({ length: descriptors }, () => {
      const { guestAddress } = shared.allocate(512);
      return { guestAddress, length: 512 };
    });
    const [readable, writable] = [buffers.slice(0, 1), buffers.slice(1)];
    this.#fill = () => {
      let count = 0;
      while (driver.add(readable, writable) >= 0) count++;
      driver.publish();
      return count;
    };
    this.#empty = () => {
      while (driver.take() !== null);
      driver.arm();
    };
  }

  /** Takes and returns everything: what is measured. */
  #work(): void {
    const device = this.#device;
    device.suppress();
    for (let chain = device.pop(); chain !== null; chain = device.pop()) {
      chain.written = 1;
      device.push(chain);
    }
    device.publish();
    device.arm();
  }

  /**
   * Has the device take and return at least `count` requests, in fillings of the ring.
   *
   * @param measured is called for each filling; calls the function that does the device's work once
   * @returns requests in all
   */
  run(count: number, measured: (work: () => void, filled: number) => void): number {
    const bare = this.#bare;
    const work = bare === undefined ? () => this.#work() : () => bare.work();
    let done = 0;
    while (done < count) {
      const filled = this.#fill();
      measured(work, filled);
      this.#empty();
      done += filled;
    }
    return done;
  }
}
