/**
 * Rings that stop, tell their position, and go on from it.
 *
 * @module
 */

import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser, virtio } from "../finding.ts";
import { encode } from "../peer.ts";
import type { CheckRing } from "../ring.ts";
import { sleep } from "../wait.ts";
import { untouched } from "./rings.ts";

const STATES = vhostUser("Ring states");
const SUSPENDED = vhostUser("Suspended device state");
const GET_BASE = aboutMessage("GET_VRING_BASE");
const SET_BASE = aboutMessage("SET_VRING_BASE");
const requests = { requests: true } as const;

/** Sees the position that GET_VRING_BASE tells. */
function checkBase(base: number, ring: CheckRing): void {
  if (base > 0xffff) fail("bits 16 to 31 of the index to be 0", `0x${base.toString(16)}`);
  if (base !== ring.availableIndex) {
    fail(`index ${ring.availableIndex}, up to which requests were made available and returned`, `${base}`);
  }
}

/** Cases about rings that stop. */
export const ringStopCases: readonly Case[] = [
  {
    id: "rings.base",
    title: "GET_VRING_BASE tells where the ring would go on",
    section: GET_BASE,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      for (let i = 0; i < 5; i++) await drive.one();
      checkBase(await drive.peer.stop(drive.ring), drive.ring);
    },
  },
  {
    id: "rings.base-unused",
    title: "GET_VRING_BASE of a ring that was never used tells what SET_VRING_BASE said",
    section: GET_BASE,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory();
      await peer.share(memory);
      const ring = await peer.setUp(0, memory, { start: 77 });
      const base = await peer.stop(ring);
      if (base !== 77) return open(`${base} instead of 77; the ring was not started`);
    },
  },
  {
    id: "rings.drain",
    title: "GET_VRING_BASE is answered when all requests under way are returned",
    section: GET_BASE,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({}, 32 << 20);
      await drive.one();
      const placed = Array.from({ length: 16 }, () => drive.place(trial.profile?.heavy?.()));
      for (let round = 0; round < 30; round++) {
        drive.ring.offer(...placed.map(({ head }) => head));
        drive.ring.kick();
        // Some time between at once and late, requests are under way: fractions of a millisecond, then whole ones.
        if (round % 2 === 0) { for (const end = performance.now() + round * 0.02; performance.now() < end;); }
        else await sleep(round / 10);
        const base = await drive.peer.stop(drive.ring);
        const used = drive.ring.usedIndex;
        if (base !== used) {
          fail("the requests that were taken to be returned before the answer", "some were not");
        }
        if (round % 10 === 9) await trial.quiet();
        if (drive.ring.usedIndex !== used) {
          fail("a ring that stands still", "requests returned after the answer");
        }
        // Start again, so that what was not taken is served.
        await drive.peer.restart(drive.ring, base);
        await drive.finish(placed, "the rest of the requests after the restart");
      }
    },
  },
  {
    id: "rings.stopped",
    title: "After GET_VRING_BASE the ring is left alone",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.stop(drive.ring);
      drive.ring.called();
      drive.ring.offer(drive.place().head);
      drive.ring.kick();
      await drive.peer.barrier();
      await untouched(trial, drive, "after GET_VRING_BASE");
      if (drive.ring.called()) fail("no call from a ring that is stopped", "a call");
    },
  },
  {
    id: "rings.suspended",
    title: "A device whose rings are all stopped still answers messages",
    section: SUSPENDED,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      for (const ring of drive.rings) await drive.peer.stop(ring);
      await drive.peer.barrier();
      await drive.peer.barrier();
    },
  },
  {
    id: "rings.restart",
    title: "A ring that was stopped goes on where it was",
    section: GET_BASE,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      for (let round = 0; round < 3; round++) {
        const base = await drive.peer.stop(drive.ring);
        await drive.peer.restart(drive.ring, base);
        await drive.one(drive.place(), "a request after the restart");
      }
    },
  },
  {
    id: "rings.restart-by-kick",
    title: "SET_VRING_KICK alone starts a stopped ring again, where it was",
    section: STATES,
    needs: requests,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.stop(drive.ring);
      const { index, kickFd, callFd } = drive.ring;
      await drive.peer.set("SET_VRING_CALL", { index, noDescriptor: false }, [callFd]);
      await drive.peer.set("SET_VRING_KICK", { index, noDescriptor: false }, [kickFd]);
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      // What is left of a ring's set-up when it is stopped is not said.
      if (!await drive.ring.returns(1, trial.patience)) {
        return open("it stands still until it is set up anew");
      }
      await drive.finish([placed], "a request after the restart");
    },
  },
  {
    id: "rings.restart-fresh",
    title: "A ring can be set up anew, elsewhere and from 0",
    section: SET_BASE,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      for (const ring of drive.rings) await drive.peer.stop(ring);
      const again = await trial.driveOn(drive.peer, drive.memory, { size: 32 });
      await again.one(again.place(), "a request on the new ring");
    },
  },
  {
    id: "rings.start-at",
    title: "SET_VRING_BASE says where to start; the used index comes from memory",
    section: SET_BASE,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ start: 1000 });
      for (let i = 0; i < 3; i++) await drive.one();
      checkBase(await drive.peer.stop(drive.ring), drive.ring);
    },
  },
  {
    id: "rings.wrap",
    title: "Indices run on from 65535 to 0",
    section: vhostUser("A vring descriptor index for split virtqueues"),
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ start: 65530 });
      for (let i = 0; i < 12; i++) await drive.one();
      checkBase(await drive.peer.stop(drive.ring), drive.ring);
    },
  },
  {
    id: "rings.independent",
    title: "A ring goes on when another is stopped",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const { profile } = trial;
      if (profile === undefined || !profile.multiple || trial.queues < 2) notOffered("several equal rings");
      const drive = await trial.drive();
      const other = await drive.peer.setUp(1, drive.memory);
      await drive.peer.start(other);
      await drive.one();
      await drive.one(drive.place(undefined, {}, other), "a request on ring 1", other);
      await drive.peer.stop(drive.ring);
      await drive.one(drive.place(undefined, {}, other), "a request on ring 1 when ring 0 is stopped", other);
    },
  },
  {
    id: "rings.many",
    title: "Every ring works",
    section: vhostUser("Multiple queue support"),
    needs: requests,
    run: async (trial) => {
      const { profile } = trial;
      if (profile === undefined || !profile.multiple || trial.queues < 2) notOffered("several equal rings");
      const count = Math.min(trial.queues, 16);
      const drive = await trial.drive();
      const rings = [drive.ring];
      for (let index = 1; index < count; index++) {
        const ring = await drive.peer.setUp(index, drive.memory);
        await drive.peer.start(ring);
        rings.push(ring);
      }
      const placed = rings.map((ring) => drive.place(undefined, {}, ring));
      rings.forEach((ring, i) => {
        ring.offer(placed[i].head);
        ring.kick();
      });
      for (const [i, ring] of rings.entries()) {
        await drive.finish([placed[i]], `a request on ring ${i}`, ring);
      }
      for (const ring of rings) checkBase(await drive.peer.stop(ring), ring);
      return pass(`${count} rings`);
    },
  },
  ...[2, 256, 1024].map((size): Case => ({
    id: `rings.size-${size}`,
    title: `A ring may have ${size} entries`,
    section: virtio("2.7"),
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ size });
      for (let i = 0; i < 3; i++) await drive.one();
    },
  })),
  {
    id: "rings.size-32768",
    title: "A ring may have 32768 entries",
    section: virtio("2.7"),
    run: async (trial) => {
      const peer = await trial.open();
      const reaction = await peer.attempt("SET_VRING_NUM", encode("SET_VRING_NUM", { index: 0, num: 32768 }));
      if (reaction === "accepted" || reaction === "passed over") return pass();
      return open(`${reaction}: fewer entries at most`);
    },
  },
];
