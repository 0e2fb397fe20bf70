/**
 * Shared memory slot by slot: ADD_MEM_REG and REM_MEM_REG.
 *
 * @module
 */

import type { SharedMemory } from "../../../frontend/shared_memory.ts";
import type { MemoryRegion } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, open, pass, vhostUser } from "../finding.ts";
import { encode, regionOf } from "../peer.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const ADD = aboutMessage("ADD_MEM_REG");
const REMOVE = aboutMessage("REM_MEM_REG");
const MIB = 1 << 20;
/** Guest addresses of further memory: away from the first. */
const FAR = 0x8000_0000;
const slots = { protocol: ["CONFIGURE_MEM_SLOTS"] } as const;
const slotsAndRequests = { ...slots, requests: true } as const;

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

/** Cases about slots. */
export const slotCases: readonly Case[] = [
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
    section: vhostUser("Memory access"),
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
    section: aboutMessage("SET_MEM_TABLE"),
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
