/**
 * Shared memory by SET_MEM_TABLE: what a table may say, and changes while rings run.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd } from "../../../../ffi/eventfd.ts";
import type { SharedMemory } from "../../../frontend/shared_memory.ts";
import type { MemoryRegion } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, type Finding, open, vhostUser } from "../finding.ts";
import { encode, type Peer, type Reaction, regionOf } from "../peer.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const TABLE = aboutMessage("SET_MEM_TABLE");
const MEMORY = vhostUser("Memory access");
const REGIONS = vhostUser("Multiple Memory regions description");
const MIB = 1 << 20;
/** Guest addresses of further memory: away from the first. */
const FAR = 0x8000_0000;

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
      if (!await drive.peer.answers()) return open("answers failure, and then closes the connection");
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) return open("the ring stands still afterwards");
    },
  },
];
