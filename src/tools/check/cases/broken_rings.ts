/**
 * What only a broken or hostile driver does in a ring. The back-end must live and answer messages; what it does with the
 * ring is its own affair.
 *
 * @module
 */

import { DescriptorFlag } from "../../../virtqueue/split_layout.ts";
import type { Case } from "../case.ts";
import { fail, type Finding, open, pass, virtio } from "../finding.ts";
import { encode } from "../peer.ts";
import type { Drive } from "../drive.ts";
import type { Trial } from "../trial.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;
const DESCRIPTORS = virtio("2.7.5.2");
const TABLES = virtio("2.7.5.3.1");

/** Where no memory is. */
const NOWHERE = 0x7f_0000_0000;

/** What the back-end does with a ring after something bad was put into it. */
async function survives(trial: Trial, drive: Drive): Promise<Finding> {
  const { ring } = drive;
  ring.kick();
  let reaction = await trial.until(() => {
    if (ring.returned > 0) return "the request is returned";
    return ring.errored() ? "the ring's error descriptor is signalled" : undefined;
  }, trial.soon) ?? "the ring stands still";
  if (!await drive.peer.answers()) reaction = "closes the connection";
  return pass(reaction);
}

/** Puts something bad into a ring that worked. */
function hostile(
  id: string,
  title: string,
  spoil: (drive: Drive, address: number) => void,
  section: string = DESCRIPTORS,
  indirect = false,
): Case {
  return {
    id: `broken.${id}`,
    title,
    section,
    needs: { requests: true, ring: indirect ? ["INDIRECT_DESC"] : [] },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      spoil(drive, drive.memory.allocate(4096, 4096).guestAddress);
      return await survives(trial, drive);
    },
  };
}

/** A request of one bad descriptor; the rest of it is right. */
function badDescriptor(
  id: string,
  title: string,
  descriptor: (
    address: number,
  ) => { address: number | bigint; length: number; flags?: number; next?: number },
  section?: string,
): Case {
  return hostile(id, title, ({ ring }, address) => {
    ring.setDescriptor(8, { address, length: 16, flags: NEXT, next: 9 });
    ring.setDescriptor(9, descriptor(address));
    ring.offer(8);
  }, section);
}

/** Cases about broken rings. */
export const brokenRingCases: readonly Case[] = [
  hostile("head", "A head beyond the table does no harm", ({ ring }) => ring.offer(5000), virtio("2.7.6")),
  hostile("head-max", "Head 65535 does no harm", ({ ring }) => ring.offer(0xffff), virtio("2.7.6")),
  badDescriptor("next", "A chain that leaves the table does no harm", (address) => ({
    address,
    length: 16,
    flags: NEXT,
    next: 5000,
  })),
  badDescriptor("loop", "A chain that never ends does no harm", (address) => ({
    address,
    length: 16,
    flags: NEXT,
    next: 8,
  })),
  badDescriptor("loop-self", "A descriptor that is followed by itself does no harm", (address) => ({
    address,
    length: 16,
    flags: NEXT | WRITE,
    next: 9,
  })),
  badDescriptor("address", "A buffer outside of memory does no harm", () => ({
    address: NOWHERE,
    length: 4096,
    flags: WRITE,
  })),
  badDescriptor("address-wrap", "A buffer at the end of the address space does no harm", () => ({
    address: 0xffff_ffff_ffff_fff0n,
    length: 4096,
    flags: WRITE,
  })),
  badDescriptor("length", "A buffer that reaches past the end of memory does no harm", (address) => ({
    address,
    length: 0xffff_ffff,
    flags: WRITE,
  })),
  badDescriptor("length-zero", "A chain whose last descriptor has length 0 does no harm", (address) => ({
    address,
    length: 0,
    flags: WRITE,
  })),
  hostile("order", "A readable descriptor after a writable one does no harm", ({ ring }, address) => {
    ring.setDescriptor(8, { address, length: 512, flags: WRITE | NEXT, next: 9 });
    ring.setDescriptor(9, { address, length: 16 });
    ring.offer(8);
  }, virtio("2.7.4.2")),
  hostile("available-index", "An available index that runs ahead of the ring does no harm", ({ ring }) => {
    ring.availableIndex = ring.availableIndex + 1000;
  }, virtio("2.7.6")),
  hostile("available-back", "An available index that goes back does no harm", ({ ring }) => {
    ring.availableIndex = (ring.availableIndex - 1) & 0xffff;
  }, virtio("2.7.6.1")),
  hostile("twice", "The same head twice at once does no harm", (drive) => {
    const { head } = drive.place();
    drive.ring.offer(head, head);
  }, virtio("2.7.13")),
  hostile("empty", "A request of one descriptor of length 0 does no harm", ({ ring }, address) => {
    ring.setDescriptor(8, { address, length: 0 });
    ring.offer(8);
  }),
  hostile("short", "A request of one readable byte does no harm", ({ ring }, address) => {
    ring.setDescriptor(8, { address, length: 1 });
    ring.offer(8);
  }, virtio("2.7.4")),
  hostile("write-only", "A request of one writable byte does no harm", ({ ring }, address) => {
    ring.setDescriptor(8, { address, length: 1, flags: WRITE });
    ring.offer(8);
  }, virtio("2.7.4")),
  hostile("table-not-negotiated", "An indirect table without INDIRECT_DESC does no harm", (drive) => {
    drive.ring.offer(drive.place(undefined, { shape: "table" }).head);
  }, TABLES),
  ...tables(),
  {
    id: "broken.recovers",
    title: "A ring that broke works again after GET_VRING_BASE and a new start",
    section: virtio("2.7.5.2"),
    needs: { requests: true },
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      drive.ring.setDescriptor(8, { address: NOWHERE, length: 16, flags: NEXT, next: 5000 });
      drive.ring.offer(8);
      await survives(trial, drive);
      for (const { index } of drive.rings) {
        const reaction = await drive.peer.attempt(
          "GET_VRING_BASE",
          encode("GET_VRING_BASE", { index, num: 0 }),
        );
        // A broken ring is the end of a session for some, at once or when it is stopped.
        if (reaction === "closed" || reaction === "dropped") return open("closes the connection");
      }
      const again = await trial.driveOn(drive.peer, drive.memory);
      await again.one(again.place(), "a request after the new start");
    },
  },
  {
    id: "broken.others",
    title: "A broken ring does not stop another one",
    section: virtio("2.7.5.2"),
    needs: { requests: true },
    run: async (trial): Promise<Finding | void> => {
      const { profile } = trial;
      if (profile === undefined || !profile.multiple || trial.queues < 2) {
        return { verdict: "not offered", got: "several equal rings" };
      }
      const drive = await trial.drive();
      const other = await drive.peer.setUp(1, drive.memory);
      await drive.peer.start(other);
      drive.ring.offer(5000);
      await survives(trial, drive);
      if (!await drive.peer.answers()) return pass("closes the connection");
      const placed = drive.place(undefined, {}, other);
      other.offer(placed.head);
      other.kick();
      if (await other.returns(1, trial.patience)) return;
      fail("a request on ring 1 to be served when ring 0 is broken", "it is not returned");
    },
  },
];

/** Cases about indirect tables. */
function tables(): Case[] {
  const table = (
    id: string,
    title: string,
    make: (
      drive: Drive,
      address: number,
    ) => { address: number; length: number; flags?: number; next?: number },
  ): Case =>
    hostile(
      `table-${id}`,
      title,
      (drive, address) => {
        drive.ring.setDescriptor(8, { flags: INDIRECT, ...make(drive, address) });
        drive.ring.offer(8);
      },
      TABLES,
      true,
    );
  /** A table of one right descriptor. */
  const one = ({ ring }: Drive, address: number): number =>
    ring.table([{ address, length: 16 }]).guestAddress;
  return [
    table("empty", "An indirect table of 0 bytes does no harm", (drive, address) => ({
      address: one(drive, address),
      length: 0,
    })),
    table("odd", "An indirect table of 24 bytes does no harm", (drive, address) => ({
      address: one(drive, address),
      length: 24,
    })),
    table("nowhere", "An indirect table outside of memory does no harm", () => ({
      address: NOWHERE,
      length: 64,
    })),
    table("huge", "An indirect table of 4 GiB does no harm", (drive, address) => ({
      address: one(drive, address),
      length: 0xffff_fff0,
    })),
    table("nested", "An indirect table in an indirect table does no harm", ({ ring }, address) => {
      const inner = ring.table([{ address, length: 16 }]);
      const outer = ring.table([{ address: inner.guestAddress, length: 16, flags: INDIRECT }]);
      return { address: outer.guestAddress, length: 16 };
    }),
    table("loop", "An indirect table that never ends does no harm", ({ ring }, address) => {
      const piece = ring.table([
        { address, length: 16, flags: NEXT, next: 1 },
        { address, length: 16, flags: NEXT, next: 0 },
      ]);
      return { address: piece.guestAddress, length: 32 };
    }),
    table("next", "A chain that leaves its indirect table does no harm", ({ ring }, address) => {
      const piece = ring.table([{ address, length: 16, flags: NEXT, next: 100 }]);
      return { address: piece.guestAddress, length: 16 };
    }),
    table("and-next", "INDIRECT together with NEXT does no harm", (drive, address) => ({
      address: one(drive, address),
      length: 16,
      flags: INDIRECT | NEXT,
      next: 0,
    })),
    table("self", "An indirect table that contains its own descriptor does no harm", ({ ring }) => ({
      address: ring.descriptor.guestAddress + 8 * 16,
      length: 16,
    })),
  ];
}
