/**
 * Rings set up as no front-end should: what counts is that the back-end lives and still answers.
 *
 * @module
 */

import type { FrontendMessage, frontendMessages, PayloadOf } from "../../../protocol/messages.ts";
import type { Case } from "../case.ts";
import { aboutMessage, type Finding, open, pass, vhostUser, virtio } from "../finding.ts";
import { addressOf, encode, type Peer, type Reaction } from "../peer.ts";
import type { CheckRing } from "../ring.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

type Address = PayloadOf<(typeof frontendMessages)["SET_VRING_ADDR"]>;

const ADDRESS = aboutMessage("SET_VRING_ADDR");
const NUMBER = virtio("2.7");
const STATES = vhostUser("Ring states");

/** A number for a ring that cannot be. */
function wrongState(
  id: string,
  title: string,
  name: "SET_VRING_NUM" | "SET_VRING_BASE",
  num: number,
  section: string,
): Case {
  return {
    id: `bad.${id}`,
    title,
    section,
    run: async (trial) => {
      const peer = await trial.open();
      return reactionFinding(await peer.attempt(name, encode(name, { index: 0, num })));
    },
  };
}

/** Whether the connection has ended. */
function gone(reaction: Reaction): boolean {
  return reaction === "closed" || reaction === "dropped";
}

/** What happens on a ring whose set-up was wrong when it is started and used. */
async function use(trial: Trial, peer: Peer, ring: CheckRing, setUp: Reaction): Promise<Finding> {
  if (setUp === "closed" || setUp === "dropped") return reactionFinding(setUp);
  const which = { index: ring.index, noDescriptor: false };
  const said = setUp === "refused" ? "answers failure" : setUp === "accepted" ? "accepts it" : "goes on";
  await peer.attempt("SET_VRING_ERR", encode("SET_VRING_ERR", which), { fds: [ring.errorFd] });
  const start = await peer.attempt("SET_VRING_KICK", encode("SET_VRING_KICK", which), { fds: [ring.kickFd] });
  const reactions = [said];
  let last = start;
  if (!gone(last)) {
    const bytes = encode("SET_VRING_ENABLE", { index: ring.index, num: 1 });
    last = await peer.attempt("SET_VRING_ENABLE", bytes);
    if (start === "refused" || last === "refused") reactions.push("refuses to start the ring");
  }
  if (!gone(last)) {
    ring.offer(0);
    ring.kick();
    await trial.quiet();
    if (!await peer.answers()) last = "closed";
  }
  if (gone(last)) reactions.push("closes the connection when the ring is started");
  if (ring.errored()) reactions.push("signals the ring's error descriptor");
  const noticed = reactions.length > 1 || setUp === "refused";
  return noticed ? pass(reactions.join(", ")) : open(`${said}, and says nothing when it is used`);
}

/** Addresses that cannot be. */
function wrongAddress(
  id: string,
  title: string,
  change: (right: Address, ring: CheckRing) => Partial<Address>,
): Case {
  return {
    id: `bad.address-${id}`,
    title,
    section: ADDRESS,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory();
      await peer.share(memory);
      const ring = await peer.setUp(0, memory);
      const right = addressOf(ring);
      const bytes = encode("SET_VRING_ADDR", { ...right, ...change(right, ring) });
      return await use(trial, peer, ring, await peer.attempt("SET_VRING_ADDR", bytes));
    },
  };
}

/** A message for a ring that the device does not have. */
function outOfRange(name: FrontendMessage, make: (index: number, trial: Trial) => Uint8Array): Case {
  return {
    id: `bad.index.${name}`,
    title: `${name} for a ring that does not exist does no harm`,
    section: aboutMessage(name),
    needs: name === "SET_VRING_ENABLE" ? { ring: ["PROTOCOL_FEATURES"] } : undefined,
    run: async (trial) => {
      const peer = await trial.open();
      const byDescriptor = ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"].includes(name);
      // The highest that such a message can name; a number that overflows a C array elsewhere.
      const bytes = make(byDescriptor ? 255 : 0x4000_0001, trial);
      const witness = trial.witness();
      const fds = byDescriptor ? [witness.fd] : [];
      const reaction = await peer.attempt(name, bytes, { fds });
      witness.release();
      return reactionFinding(reaction, name === "GET_VRING_BASE" ? "is answered" : "accepts it");
    },
  };
}

const indexed = ["SET_VRING_NUM", "SET_VRING_BASE", "GET_VRING_BASE", "SET_VRING_ENABLE"] as const;
const doorbells = ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] as const;

/** Cases about rings set up wrongly. */
export const badRingCases: readonly Case[] = [
  ...indexed.map((name) => outOfRange(name, (index) => encode(name, { index, num: 1 }))),
  outOfRange(
    "SET_VRING_ADDR",
    (index) =>
      encode("SET_VRING_ADDR", { index, flags: 0, descriptor: 0n, used: 0n, available: 0n, log: 0n }),
  ),
  ...doorbells.map((name) =>
    outOfRange(name, (index, trial) => {
      // Below 256 rings there is one that does not exist.
      const noDescriptor = false;
      return encode(name, { index: trial.queues > 255 ? 254 : index, noDescriptor });
    })
  ),
  wrongState("size-0", "A ring of 0 entries does no harm", "SET_VRING_NUM", 0, NUMBER),
  wrongState(
    "size-3",
    "A ring of 3 entries, which is no power of two, does no harm",
    "SET_VRING_NUM",
    3,
    NUMBER,
  ),
  wrongState("size-65536", "A ring of 65536 entries does no harm", "SET_VRING_NUM", 65536, NUMBER),
  wrongState("size-huge", "A ring of 2^31 entries does no harm", "SET_VRING_NUM", 2 ** 31, NUMBER),
  wrongState(
    "base-65536",
    "A start index of more than 16 bits does no harm",
    "SET_VRING_BASE",
    65536,
    vhostUser("A vring descriptor index for split virtqueues"),
  ),
  {
    id: "bad.size-while-running",
    title: "SET_VRING_NUM while the ring runs does no harm",
    section: aboutMessage("SET_VRING_NUM"),
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const bytes = encode("SET_VRING_NUM", { index: drive.ring.index, num: 128 });
      return reactionFinding(await drive.peer.attempt("SET_VRING_NUM", bytes));
    },
  },
  {
    id: "bad.base-while-running",
    title: "SET_VRING_BASE while the ring runs does no harm",
    section: aboutMessage("SET_VRING_BASE"),
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const bytes = encode("SET_VRING_BASE", { index: drive.ring.index, num: drive.ring.availableIndex });
      return reactionFinding(await drive.peer.attempt("SET_VRING_BASE", bytes));
    },
  },
  {
    id: "bad.base-far",
    title: "A start index from which the driver's is out of reach does no harm",
    section: virtio("2.7.6"),
    needs: { requests: true },
    run: async (trial) => {
      const drive = await trial.drive({ kick: false, enable: false });
      const bytes = encode("SET_VRING_BASE", { index: drive.ring.index, num: 5000 });
      return await use(trial, drive.peer, drive.ring, await drive.peer.attempt("SET_VRING_BASE", bytes));
    },
  },
  wrongAddress("zero", "Ring addresses of 0 do no harm", () => ({ descriptor: 0n, used: 0n, available: 0n })),
  wrongAddress("descriptors", "A descriptor table outside of memory does no harm", (right) => ({
    descriptor: right.descriptor - (1n << 32n),
  })),
  wrongAddress("available", "An available ring outside of memory does no harm", (right) => ({
    available: right.available - (1n << 32n),
  })),
  wrongAddress("used", "A used ring outside of memory does no harm", (right) => ({
    used: right.used - (1n << 32n),
  })),
  wrongAddress(
    "end",
    "A descriptor table that reaches past the end of memory does no harm",
    (right, ring) => ({
      // The ring is the first thing in its 4 MiB.
      descriptor: right.descriptor - BigInt(ring.descriptor.bytes.byteOffset) + (4n << 20n) - 512n,
    }),
  ),
  wrongAddress("wrap", "A descriptor table at the end of the address space does no harm", () => ({
    descriptor: 0xffff_ffff_ffff_fff0n,
  })),
  wrongAddress("unaligned-descriptors", "A descriptor table that is not aligned does no harm", (right) => ({
    descriptor: right.descriptor + 1n,
  })),
  wrongAddress("unaligned-available", "An available ring that is not aligned does no harm", (right) => ({
    available: right.available + 1n,
  })),
  wrongAddress("unaligned-used", "A used ring that is not aligned does no harm", (right) => ({
    used: right.used + 1n,
  })),
  {
    id: "bad.start-unset",
    title: "SET_VRING_KICK before anything else of the ring does no harm",
    section: STATES,
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory();
      const ring = trial.ring(memory);
      return await use(trial, peer, ring, "passed over");
    },
  },
  {
    id: "bad.start-without-memory",
    title: "A ring that is set up and started without memory does no harm",
    section: vhostUser("Memory access"),
    run: async (trial) => {
      const peer = await trial.open();
      const ring = trial.ring(trial.memory());
      await peer.attempt("SET_VRING_NUM", encode("SET_VRING_NUM", { index: 0, num: 64 }));
      const reaction = await peer.attempt("SET_VRING_ADDR", encode("SET_VRING_ADDR", addressOf(ring)));
      return await use(trial, peer, ring, reaction);
    },
  },
  {
    id: "bad.address-before-memory",
    title: "Ring addresses that come before the memory",
    section: ADDRESS,
    needs: { requests: true },
    run: async (trial) => {
      const { profile } = trial;
      if (profile === undefined) return;
      const peer = await trial.open();
      const memory = trial.memory();
      const rings = Array.from({ length: profile.rings }, (_, index) => trial.ring(memory, index));
      for (const ring of rings) {
        const { index } = ring;
        await peer.attempt("SET_VRING_NUM", encode("SET_VRING_NUM", { index, num: 64 }));
        const reaction = await peer.attempt("SET_VRING_ADDR", encode("SET_VRING_ADDR", addressOf(ring)));
        if (reaction === "refused" || gone(reaction)) return open(reaction);
      }
      return open("accepted");
    },
  },
  {
    id: "bad.stop-twice",
    title: "GET_VRING_BASE of a ring that is stopped already is answered",
    section: aboutMessage("GET_VRING_BASE"),
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory();
      await peer.share(memory);
      const ring = await peer.setUp(0, memory);
      await peer.stop(ring);
      await peer.stop(ring);
    },
  },
];
