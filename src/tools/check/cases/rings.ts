/**
 * Rings that start, are enabled, and disabled.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd, signal } from "../../../../ffi/eventfd.ts";
import { ringFeatures } from "../../../protocol/features.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, open, pass, vhostUser } from "../finding.ts";
import type { Drive } from "../drive.ts";
import type { Trial } from "../trial.ts";
import { encode } from "../peer.ts";
import { reactionFinding } from "./framing.ts";

const STATES = vhostUser("Ring states");
const KICK = aboutMessage("SET_VRING_KICK");
const CALL = aboutMessage("SET_VRING_CALL");
const requests = { requests: true } as const;
const enabling = { requests: true, ring: ["PROTOCOL_FEATURES"] } as const;

/** Sees that a ring is left alone. */
export async function untouched(trial: Trial, drive: Drive, why: string): Promise<void> {
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
      // The document: "must process the ring without causing any side effects".
      if (await drive.ring.returns(1, trial.soon)) {
        return open("requests are returned while the ring is disabled");
      }
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
      const early = await drive.ring.returns(1, trial.soon);
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
      const early = await drive.ring.returns(1, trial.soon);
      await drive.peer.enable(drive.ring, true);
      drive.ring.kick();
      if (early) return open("requests are returned while the ring is disabled");
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
];
