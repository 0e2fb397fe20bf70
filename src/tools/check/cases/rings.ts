/**
 * Rings that start, stop, are enabled and disabled, and go on.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd, signal } from "../../../../ffi/eventfd.ts";
import { ringFeatures } from "../../../protocol/features.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser, virtio } from "../finding.ts";
import type { CheckRing } from "../ring.ts";
import type { Drive, Trial } from "../trial.ts";
import { encode } from "../peer.ts";
import { sleep } from "../wait.ts";
import { reactionFinding } from "./framing.ts";

const STATES = vhostUser("Ring states");
const SUSPENDED = vhostUser("Suspended device state");
const GET_BASE = aboutMessage("GET_VRING_BASE");
const SET_BASE = aboutMessage("SET_VRING_BASE");
const KICK = aboutMessage("SET_VRING_KICK");
const CALL = aboutMessage("SET_VRING_CALL");
const requests = { requests: true } as const;
const enabling = { requests: true, ring: ["PROTOCOL_FEATURES"] } as const;

/** Sees that a ring is left alone. */
async function untouched(trial: Trial, drive: Drive, why: string): Promise<void> {
  const before = drive.ring.usedIndex;
  await trial.quiet();
  if (drive.ring.usedIndex !== before) fail(`the ring to be left alone ${why}`, "a request was returned");
}

/** An eventfd that is closed when the case ends. */
function doorbell(trial: Trial): number {
  const fd = eventfd();
  trial.after(() => close(fd));
  return fd;
}

/** Sees the position that GET_VRING_BASE tells. */
function checkBase(base: number, ring: CheckRing): void {
  if (base > 0xffff) fail("bits 16 to 31 of the index to be 0", `0x${base.toString(16)}`);
  if (base !== ring.availableIndex) {
    fail(`index ${ring.availableIndex}, up to which requests were made available and returned`, `${base}`);
  }
}

/** Cases about the states of rings. */
export const ringCases: readonly Case[] = [
  {
    id: "rings.works",
    title: "A ring that is set up, started and enabled serves requests",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      for (let i = 0; i < 3; i++) await drive.one();
    },
  },
  {
    id: "rings.start-without-kick",
    title: "A ring starts with SET_VRING_KICK; requests that wait already need no kick",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ kick: false, enable: false });
      const placed = drive.place();
      drive.ring.offer(placed.head);
      await drive.peer.start(drive.ring, { inject: false });
      if (!await drive.ring.returns(1, trial.soon)) {
        drive.ring.kick();
        await drive.finish([placed], "the request to be returned after a kick");
        return open("waits for the first kick, as the document asked for before QEMU 11");
      }
      await drive.finish([placed]);
    },
  },
  {
    id: "rings.not-before-kick",
    title: "A ring is not touched before SET_VRING_KICK",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ kick: false });
      drive.ring.offer(drive.place().head);
      drive.ring.kick();
      await drive.peer.barrier();
      await untouched(trial, drive, "before SET_VRING_KICK");
    },
  },
  {
    id: "rings.poll",
    title: "Without a kick descriptor the back-end polls",
    section: KICK,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ poll: true });
      for (let i = 0; i < 3; i++) {
        const placed = drive.place();
        drive.ring.offer(placed.head);
        await drive.finish([placed], "a request on a polled ring");
        // Long enough to fall asleep.
        await trial.quiet();
      }
    },
  },
  {
    id: "rings.no-call",
    title: "Without a call descriptor requests are returned all the same",
    section: CALL,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ call: false });
      await drive.one();
      if (drive.ring.called()) fail("no call", "a call on a descriptor that was not given");
    },
  },
  {
    id: "rings.kick-again",
    title: "A new kick descriptor takes the place of the old one while the ring runs",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const kick = doorbell(trial);
      const { index } = drive.ring;
      await drive.peer.set("SET_VRING_KICK", { index, noDescriptor: false }, [kick]);
      for (let i = 0; i < 3; i++) {
        const placed = drive.place();
        drive.ring.offer(placed.head);
        signal(kick);
        await drive.finish([placed], "a request that the new descriptor announces");
      }
    },
  },
  {
    id: "rings.call-again",
    title: "A new call descriptor takes the place of the old one while the ring runs",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.barrier();
      const call = doorbell(trial);
      const { index } = drive.ring;
      await drive.peer.set("SET_VRING_CALL", { index, noDescriptor: false }, [call]);
      await drive.peer.barrier();
      trial.rung(call);
      drive.ring.called();
      await drive.one(drive.place(), "a request with the new descriptor");
      if (await trial.until(() => trial.rung(call) || undefined) === undefined) {
        fail("a call on the new descriptor", "none");
      }
      if (drive.ring.called()) fail("no call on the old descriptor", "a call");
    },
  },
  {
    id: "rings.disabled",
    title: "A ring that is started and not enabled serves no requests",
    section: STATES,
    needs: enabling,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive({ enable: false });
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      await drive.peer.barrier();
      await trial.quiet();
      // The document: "must process the ring without causing any side effects".
      if (drive.ring.returned > 0) return open("requests are returned while the ring is disabled");
      return pass("the ring is left alone");
    },
  },
  {
    id: "rings.enable",
    title: "What waits in a disabled ring is served when it is enabled, without another kick",
    section: STATES,
    needs: enabling,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive({ enable: false });
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      await drive.peer.barrier();
      await trial.quiet();
      const early = drive.ring.returned > 0;
      await drive.peer.enable(drive.ring, true);
      if (!await drive.ring.returns(1, trial.patience / 2)) {
        drive.ring.kick();
        await drive.finish([placed], "the request, after SET_VRING_ENABLE and another kick,");
        fail("the request to be served when the ring is enabled", "it was served after another kick only");
      }
      if (early) return open("it was returned before");
      await drive.finish([placed]);
    },
  },
  {
    id: "rings.disable",
    title: "SET_VRING_ENABLE 0 and 1 stop and continue a running ring",
    section: STATES,
    needs: enabling,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.enable(drive.ring, false);
      await drive.peer.barrier();
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      await trial.quiet();
      const early = drive.ring.returned > 0;
      await drive.peer.enable(drive.ring, true);
      drive.ring.kick();
      if (early) {
        await trial.quiet();
        return open("requests are returned while the ring is disabled");
      }
      await drive.finish([placed], "the request after SET_VRING_ENABLE 1");
    },
  },
  {
    id: "rings.enable-first",
    title: "A ring may be enabled before it is set up",
    section: STATES,
    needs: enabling,
    run: async (trial) => {
      const { profile } = trial;
      if (profile === undefined) return;
      const peer = await trial.open();
      for (let index = 0; index < profile.rings; index++) {
        await peer.set("SET_VRING_ENABLE", { index, num: 1 });
      }
      const memory = trial.memory();
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory, { enable: false });
      await drive.one();
    },
  },
  {
    id: "rings.enabled-without-protocol-features",
    title: "SET_FEATURES without PROTOCOL_FEATURES enables all rings",
    section: STATES,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ withoutFeatures: 1n << BigInt(ringFeatures.PROTOCOL_FEATURES) });
      await drive.one();
    },
  },
  {
    id: "rings.enable-value",
    title: "SET_VRING_ENABLE with a value other than 0 and 1 does no harm",
    section: aboutMessage("SET_VRING_ENABLE"),
    needs: { ring: ["PROTOCOL_FEATURES"] },
    run: async (trial) => {
      const peer = await trial.open();
      const reaction = await peer.attempt(
        "SET_VRING_ENABLE",
        encode("SET_VRING_ENABLE", { index: 0, num: 7 }),
      );
      return reactionFinding(reaction);
    },
  },
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
          fail("as many requests returned as taken", `taken up to ${base}, returned up to ${used}`);
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
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.stop(drive.ring);
      const { index, kickFd, callFd } = drive.ring;
      await drive.peer.set("SET_VRING_CALL", { index, noDescriptor: false }, [callFd]);
      await drive.peer.set("SET_VRING_KICK", { index, noDescriptor: false }, [kickFd]);
      drive.ring.kick();
      await drive.one(drive.place(), "a request after the restart");
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
