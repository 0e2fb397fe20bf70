/**
 * Shared memory: tables, slots, changes while rings run.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd } from "../../../../ffi/eventfd.ts";
import type { SharedMemory } from "../../../frontend/shared_memory.ts";
import type { MemoryRegion } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, open, pass, vhostUser } from "../finding.ts";
import { encode, type Peer, type Reaction, regionOf } from "../peer.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const TABLE = aboutMessage("SET_MEM_TABLE");
const ADD = aboutMessage("ADD_MEM_REG");
const REMOVE = aboutMessage("REM_MEM_REG");
const MEMORY = vhostUser("Memory access");
const REGIONS = vhostUser("Multiple Memory regions description");
const MIB = 1 << 20;
/** Guest addresses of further memory: away from the first. */
const FAR = 0x8000_0000;
const slots = { protocol: ["CONFIGURE_MEM_SLOTS"] } as const;
const slotsAndRequests = { ...slots, requests: true } as const;

/** Sends a table that may be wrong. */
function attemptTable(
  peer: Peer,
  regions: readonly MemoryRegion[],
  fds: readonly number[],
): Promise<Reaction> {
  return peer.attempt("SET_MEM_TABLE", encode("SET_MEM_TABLE", regions), { fds });
}

/** A table that no front-end should send. */
function wrongTable(
  id: string,
  title: string,
  make: (trial: Trial, memory: SharedMemory) => { regions: readonly MemoryRegion[]; fds: readonly number[] },
  section: string = TABLE,
): Case {
  return {
    id: `memory.${id}`,
    title,
    section,
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open();
      const { regions, fds } = make(trial, trial.memory(MIB));
      return reactionFinding(await attemptTable(peer, regions, fds));
    },
  };
}

/** A region that no front-end should add. */
function wrongSlot(
  id: string,
  title: string,
  make: (memory: SharedMemory, trial: Trial) => { region: MemoryRegion; fds: readonly number[] },
  section: string = ADD,
): Case {
  return {
    id: `slots.${id}`,
    title,
    section,
    needs: slots,
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open();
      const memory = trial.memory(MIB);
      await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      const { region, fds } = make(memory, trial);
      return reactionFinding(await peer.attempt("ADD_MEM_REG", encode("ADD_MEM_REG", region), { fds }));
    },
  };
}

/** Cases about memory. */
export const memoryCases: readonly Case[] = [
  {
    id: "memory.one",
    title: "A table of one region is accepted",
    section: TABLE,
    run: async (trial) => {
      const peer = await trial.open();
      await peer.share(trial.memory(MIB));
      await peer.barrier();
    },
  },
  {
    id: "memory.eight",
    title: "A table of eight regions, the most that it has room for, is accepted",
    section: REGIONS,
    run: async (trial) => {
      const peer = await trial.open();
      await peer.share(...Array.from({ length: 8 }, (_, i) => trial.memory(65536, FAR + i * MIB)));
      await peer.barrier();
    },
  },
  {
    id: "memory.unsorted",
    title: "Regions may come in any order",
    section: REGIONS,
    run: async (trial) => {
      const peer = await trial.open();
      await peer.share(trial.memory(MIB, FAR + MIB), trial.memory(MIB), trial.memory(MIB, FAR));
      await peer.barrier();
    },
  },
  {
    id: "memory.same-file",
    title: "Regions may be parts of one file",
    section: vhostUser("Memory region description"),
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      // Other table, same memory: two regions with offsets of their own.
      const { memory } = drive;
      const half = memory.byteLength / 2;
      const regions = [regionOf(memory, 0, half), regionOf(memory, half)];
      await drive.peer.set("SET_MEM_TABLE", regions, [memory.fd, memory.fd]);
      await drive.one(drive.place(), "a request after the change");
      memory.allocate(half, 4096);
      await drive.one(drive.place(), "a request in the second half");
    },
  },
  {
    id: "memory.offset",
    title: "A region may start at an offset of its file",
    section: vhostUser("Memory region description"),
    needs: { requests: true },
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(4 * MIB);
      // Where the region starts, so that everything that is allocated from here on lies in it.
      memory.allocate(MIB, 4096);
      await peer.set("SET_MEM_TABLE", [regionOf(memory, MIB)], [memory.fd]);
      const drive = await trial.driveOn(peer, memory);
      await drive.one();
    },
  },
  {
    id: "memory.second",
    title: "Buffers may lie in another region than the ring",
    section: MEMORY,
    needs: { requests: true },
    run: async (trial) => {
      const peer = await trial.open();
      const [rings, buffers] = [trial.memory(MIB), trial.memory(MIB, FAR)];
      await peer.share(rings, buffers);
      const drive = await trial.driveOn(peer, rings);
      await drive.one(drive.place(undefined, { memory: buffers }));
    },
  },
  {
    id: "memory.spanning",
    title: "A buffer may span regions that adjoin in guest addresses",
    section: MEMORY,
    needs: { requests: true },
    run: async (trial) => {
      const peer = await trial.open();
      const [rings, first] = [trial.memory(MIB), trial.memory(MIB, FAR)];
      const second = trial.memory(MIB, FAR + MIB);
      await peer.share(rings, first, second);
      const drive = await trial.driveOn(peer, rings);
      const request = drive.request();
      // The larger part of the request lies across the border.
      const write = request.writable >= request.readable.length;
      const length = write ? request.writable : request.readable.length;
      const before = Math.min(Math.floor(length / 2), 256);
      const start = MIB - before;
      const small = rings.allocate(4096, 8);
      small.bytes.set(write ? request.readable : new Uint8Array(0));
      const whole = new Uint8Array(length);
      if (!write) {
        first.piece(start, before).bytes.set(request.readable.subarray(0, before));
        second.piece(0, length - before).bytes.set(request.readable.subarray(before));
      }
      const spanning = { address: FAR + start, length, write };
      const other = {
        address: small.guestAddress,
        length: write ? request.readable.length : request.writable,
        write: !write,
      };
      const parts = (write ? [other, spanning] : [spanning, other]).filter((part) => part.length > 0);
      const head = drive.ring.place(parts);
      drive.ring.offer(head);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) return open("the request is not returned");
      const [{ written }] = drive.ring.collect();
      if (write) {
        whole.set(first.piece(start, before).bytes);
        whole.set(second.piece(0, length - before).bytes, before);
      }
      const wrong = request.check(write ? whole : small.bytes, written);
      if (wrong !== undefined) return open(`the request fails: ${wrong}`);
    },
  },
  {
    id: "memory.resend",
    title: "The same table again changes nothing for a running ring",
    section: TABLE,
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.share(drive.memory);
      await drive.one(drive.place(), "a request after the table came again");
    },
  },
  {
    id: "memory.replace",
    title: "A table with one more region takes effect while a ring runs",
    section: MEMORY,
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const more = trial.memory(MIB, FAR);
      await drive.peer.share(drive.memory, more);
      await drive.one(drive.place(undefined, { memory: more }), "a request in the new region");
    },
  },
  {
    id: "memory.user-address",
    title: "User addresses are opaque: they need not be addresses at all",
    section: MEMORY,
    needs: { requests: true },
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(4 * MIB);
      const base = 0x7000_0000n;
      await peer.set("SET_MEM_TABLE", [{ ...regionOf(memory), userAddress: base }], [memory.fd]);
      const drive = await trial.driveOn(peer, memory, { userBase: base });
      await drive.one();
    },
  },
  {
    id: "memory.high-guest-address",
    title: "Guest addresses may lie above 4 GiB",
    section: MEMORY,
    needs: { requests: true },
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(4 * MIB, 0x12_3456_7000);
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory);
      await drive.one();
    },
  },
  wrongTable("fewer-fds", "A table with fewer descriptors than regions does no harm", (trial, memory) => ({
    regions: [regionOf(memory), regionOf(trial.memory(65536, FAR))],
    fds: [memory.fd],
  })),
  wrongTable("more-fds", "A table with more descriptors than regions does no harm", (_, memory) => ({
    regions: [regionOf(memory)],
    fds: [memory.fd, memory.fd],
  })),
  wrongTable("empty", "An empty table does no harm", () => ({ regions: [], fds: [] })),
  wrongTable("nine", "A table of nine regions does no harm", (trial) => {
    const memories = Array.from({ length: 9 }, (_, i) => trial.memory(65536, FAR + i * MIB));
    return { regions: memories.map((each) => regionOf(each)), fds: memories.map(({ fd }) => fd) };
  }, REGIONS),
  wrongTable("overlap-guest", "Regions that overlap in guest addresses do no harm", (trial, memory) => {
    const other = trial.memory(MIB, memory.guestAddress + 4096);
    return { regions: [regionOf(memory), regionOf(other)], fds: [memory.fd, other.fd] };
  }, REGIONS),
  wrongTable("overlap-user", "Regions that overlap in user addresses do no harm", (trial, memory) => {
    const other = trial.memory(MIB, FAR);
    const region = { ...regionOf(other), userAddress: memory.userAddress + 4096n };
    return { regions: [regionOf(memory), region], fds: [memory.fd, other.fd] };
  }, REGIONS),
  wrongTable("size-0", "A region of size 0 does no harm", (_, memory) => ({
    regions: [{ ...regionOf(memory), size: 0n }],
    fds: [memory.fd],
  })),
  wrongTable("wrap", "A region whose guest addresses wrap around does no harm", (_, memory) => ({
    regions: [{ ...regionOf(memory), guestAddress: 0xffff_ffff_ffff_f000n }],
    fds: [memory.fd],
  })),
  wrongTable("beyond-file", "A region longer than its file does no harm until it is used", (_, memory) => ({
    regions: [{ ...regionOf(memory), size: regionOf(memory).size * 16n }],
    fds: [memory.fd],
  })),
  wrongTable("huge", "A region of 2^62 bytes does no harm", (_, memory) => ({
    regions: [{ ...regionOf(memory), size: 1n << 62n }],
    fds: [memory.fd],
  })),
  wrongTable("offset-unaligned", "A region at an offset that is no multiple of a page", (_, memory) => ({
    regions: [regionOf(memory, 512, 65536)],
    fds: [memory.fd],
  })),
  wrongTable("not-a-file", "A descriptor that is not a file does no harm", (trial, memory) => {
    const fd = eventfd();
    trial.after(() => close(fd));
    return { regions: [regionOf(memory)], fds: [fd] };
  }),
  {
    id: "memory.survives-refusal",
    title: "A table that is refused leaves the old one in place",
    section: TABLE,
    needs: { requests: true, protocol: ["REPLY_ACK"] },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const fd = eventfd();
      trial.after(() => close(fd));
      const reaction = await attemptTable(drive.peer, [regionOf(drive.memory)], [fd]);
      if (reaction !== "refused") return reactionFinding(reaction);
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) return open("the ring stands still afterwards");
    },
  },
  {
    id: "slots.number",
    title: "GET_MAX_MEM_SLOTS tells of at least as many as a table has room for",
    section: aboutMessage("GET_MAX_MEM_SLOTS"),
    needs: slots,
    run: async (trial) => {
      const peer = await trial.open();
      const number = await peer.number("GET_MAX_MEM_SLOTS");
      if (number < 1n) fail("at least 1", `${number}`);
      if (number < 8n) return open(`${number}, fewer than the 8 of a table`);
      return pass(`${number}`);
    },
  },
  {
    id: "slots.requests",
    title: "Memory that was added slot by slot serves rings and buffers",
    section: ADD,
    needs: slotsAndRequests,
    run: async (trial) => {
      const peer = await trial.open();
      const [rings, buffers] = [trial.memory(MIB), trial.memory(MIB, FAR)];
      for (const memory of [rings, buffers]) {
        await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      }
      const drive = await trial.driveOn(peer, rings);
      await drive.one(drive.place(undefined, { memory: buffers }));
    },
  },
  {
    id: "slots.while-running",
    title: "Memory can be added while a ring runs",
    section: MEMORY,
    needs: slotsAndRequests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const more = trial.memory(MIB, FAR);
      await drive.peer.set("ADD_MEM_REG", regionOf(more), [more.fd]);
      await drive.one(drive.place(undefined, { memory: more }), "a request in the new region");
      await drive.peer.set("REM_MEM_REG", regionOf(more));
      await drive.one(drive.place(), "a request after the region was removed");
    },
  },
  {
    id: "slots.again",
    title: "A region that was removed can be added again",
    section: REMOVE,
    needs: slotsAndRequests,
    run: async (trial) => {
      const drive = await trial.drive();
      const more = trial.memory(MIB, FAR);
      for (let i = 0; i < 3; i++) {
        await drive.peer.set("ADD_MEM_REG", regionOf(more), [more.fd]);
        await drive.one(drive.place(undefined, { memory: more }), "a request in the region");
        await drive.peer.set("REM_MEM_REG", regionOf(more));
      }
    },
  },
  {
    id: "slots.remove-ignores-offset",
    title: "REM_MEM_REG finds a region by addresses and size; the offset is ignored",
    section: REMOVE,
    needs: slots,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(MIB);
      await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      await peer.set("REM_MEM_REG", { ...regionOf(memory), mmapOffset: 0x5000n });
      await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      await peer.barrier();
    },
  },
  {
    id: "slots.remove-closes-fd",
    title: "A descriptor that comes with REM_MEM_REG is closed",
    section: REMOVE,
    needs: slots,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(MIB);
      await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      const witness = trial.witness();
      const bytes = encode("REM_MEM_REG", regionOf(memory));
      const reaction = await peer.attempt("REM_MEM_REG", bytes, { fds: [witness.fd] });
      witness.release();
      if (!await witness.gone(trial.patience)) {
        fail("the descriptor to be closed", `it is still open; the message: ${reaction}`);
      }
      return pass(reaction);
    },
  },
  {
    id: "slots.many",
    title: "As many regions can be added as GET_MAX_MEM_SLOTS says",
    section: aboutMessage("GET_MAX_MEM_SLOTS"),
    needs: slots,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const most = Number(await peer.number("GET_MAX_MEM_SLOTS"));
      const count = Math.min(most, 600);
      const memory = trial.memory(count * 8192);
      // A page apart, so that none can be joined with the next.
      for (let i = 0; i < count; i++) {
        const region = regionOf(memory, i * 8192, 4096);
        await peer.set("ADD_MEM_REG", region, [memory.fd]);
        if (!peer.negotiated("REPLY_ACK") && i % 16 === 0) await peer.barrier();
      }
      await peer.barrier();
      if (count < most) return pass(`${count} of ${most}`);
      const more = trial.memory(4096, FAR);
      const bytes = encode("ADD_MEM_REG", regionOf(more));
      const reaction = await peer.attempt("ADD_MEM_REG", bytes, { fds: [more.fd] });
      return reactionFinding(reaction, `accepts more than the ${most} that it tells of`);
    },
  },
  wrongSlot("no-fd", "ADD_MEM_REG without a descriptor does no harm", (_, trial) => ({
    region: regionOf(trial.memory(MIB, FAR)),
    fds: [],
  })),
  wrongSlot("two-fds", "ADD_MEM_REG with two descriptors does no harm", (_, trial) => {
    const { fd, region } = named(trial.memory(MIB, FAR));
    return { region, fds: [fd, fd] };
  }),
  wrongSlot("overlap", "ADD_MEM_REG of a region that overlaps another does no harm", (memory, trial) => {
    const { fd, region } = named(trial.memory(MIB, memory.guestAddress + 4096));
    return { region, fds: [fd] };
  }, vhostUser("Memory region description")),
  wrongSlot("twice", "ADD_MEM_REG of the same region twice does no harm", (memory) => ({
    region: regionOf(memory),
    fds: [memory.fd],
  }), vhostUser("Memory region description")),
  wrongSlot("size-0", "ADD_MEM_REG of a region of size 0 does no harm", (_, trial) => {
    const { fd, region } = named(trial.memory(MIB, FAR));
    return { region: { ...region, size: 0n }, fds: [fd] };
  }),
  {
    id: "slots.remove-unknown",
    title: "REM_MEM_REG of a region that is not there does no harm",
    section: REMOVE,
    needs: slots,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(MIB);
      return reactionFinding(await peer.attempt("REM_MEM_REG", encode("REM_MEM_REG", regionOf(memory))));
    },
  },
  {
    id: "slots.remove-ring",
    title: "Taking the memory of a running ring away does no harm",
    section: REMOVE,
    needs: slotsAndRequests,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory(4 * MIB);
      await peer.set("ADD_MEM_REG", regionOf(memory), [memory.fd]);
      const drive = await trial.driveOn(peer, memory);
      await drive.one();
      const bytes = encode("REM_MEM_REG", regionOf(memory));
      const reaction = await peer.attempt("REM_MEM_REG", bytes);
      if (reaction === "closed" || reaction === "dropped") return pass("closes the connection");
      drive.ring.offer(drive.place().head);
      drive.ring.kick();
      await trial.quiet();
      if (!await peer.answers()) return pass("closes the connection when the ring is used");
      const error = drive.ring.errored() ? ", signals the ring's error descriptor" : "";
      if (drive.ring.returned > 0) {
        return open(`${reaction} it, and goes on using the memory: the next request is returned`);
      }
      return pass(`${reaction}${error}`);
    },
  },
  {
    id: "slots.table-replaces",
    title: "SET_MEM_TABLE replaces what was added slot by slot",
    section: TABLE,
    needs: slotsAndRequests,
    run: async (trial) => {
      const peer = await trial.open();
      const [old, memory] = [trial.memory(MIB, FAR), trial.memory(4 * MIB)];
      await peer.set("ADD_MEM_REG", regionOf(old), [old.fd]);
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory);
      await drive.one();
      // Where the old region was there is room again.
      const bytes = encode("ADD_MEM_REG", regionOf(old));
      const reaction = await peer.attempt("ADD_MEM_REG", bytes, { fds: [old.fd] });
      if (reaction !== "accepted" && reaction !== "passed over") {
        return open("the added region is still there");
      }
    },
  },
];

/** A memory with its region. */
function named(memory: SharedMemory): { fd: number; region: MemoryRegion } {
  return { fd: memory.fd, region: regionOf(memory) };
}
