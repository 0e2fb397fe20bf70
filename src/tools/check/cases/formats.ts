/**
 * Packed rings, order, and other ways to talk of rings and memory: each feature that is offered has to work.
 *
 * @module
 */

import { DescriptorBag } from "../../../../ffi/fd.ts";
import { mask, type RingFeature, ringFeatures } from "../../../protocol/features.ts";
import { HeaderFlag } from "../../../protocol/header.ts";
import { backendMessages } from "../../../protocol/messages.ts";
import { payloads } from "../../../protocol/payloads.ts";
import { Connection } from "../../../transport/connection.ts";
import { PackedFlag } from "../../../virtqueue/packed_layout.ts";
import { DescriptorFlag } from "../../../virtqueue/split_layout.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser, virtio } from "../finding.ts";
import { regionOf } from "../peer.ts";
import { layOut } from "../drive.ts";
import type { Trial } from "../trial.ts";
import { type Format, start } from "./format_rings.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;
/** Many requests on rings of a format. */
function works(
  id: string,
  title: string,
  section: string,
  ring: readonly RingFeature[],
  format: Format,
): Case {
  return {
    id: `formats.${id}`,
    title,
    section,
    needs: { requests: true, ring },
    run: async (trial) => {
      const driven = await start(trial, format);
      driven.ring.ring.arm();
      await driven.many(500);
    },
  };
}

/** What the back-end does with a packed ring that no driver would make. */
function brokenPacked(
  id: string,
  title: string,
  section: string,
  spoil: (view: DataView, address: number, size: number) => void,
  also: readonly RingFeature[] = [],
): Case {
  return {
    id: `formats.packed-broken-${id}`,
    title,
    section,
    needs: { requests: true, ring: ["RING_PACKED", ...also] },
    run: async (trial): Promise<Finding> => {
      const driven = await start(trial, { packed: true, size: 16 });
      const { ring, peer } = driven;
      const { bytes, guestAddress } = ring.descriptor;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      spoil(view, guestAddress, ring.size);
      ring.kick();
      const heard = await trial.until(() => ring.errored() || undefined, trial.soon);
      if (!await peer.answers()) return pass("closes the connection");
      return pass(heard === true ? "the ring's error descriptor is signalled" : undefined);
    },
  };
}

/** Writes a packed descriptor, available in the first round. */
function put(view: DataView, slot: number, address: number, length: number, flags: number): void {
  view.setBigUint64(16 * slot, BigInt(address), true);
  view.setUint32(16 * slot + 8, length, true);
  view.setUint16(16 * slot + 12, 7, true);
  view.setUint16(16 * slot + 14, flags | PackedFlag.AVAIL, true);
}

const PACKED = virtio("2.8");
const NOWHERE = 0x7f_0000_0000;

/** Cases about formats. */
export const formatCases: readonly Case[] = [
  works("packed", "Packed rings work", PACKED, ["RING_PACKED"], { packed: true }),
  works(
    "packed-cut",
    "Packed rings: requests of several descriptors work",
    virtio("2.8.6"),
    ["RING_PACKED"],
    {
      packed: true,
      cut: 300,
    },
  ),
  works("packed-odd", "Packed rings of any size, such as 37, work", virtio("2.8.10.1"), ["RING_PACKED"], {
    packed: true,
    size: 37,
  }),
  works(
    "packed-indirect",
    "Packed rings: indirect tables work",
    virtio("2.8.7"),
    ["RING_PACKED", "INDIRECT_DESC"],
    { packed: true, indirect: true },
  ),
  works(
    "packed-event-idx",
    "Packed rings: event suppression by position works",
    virtio("2.8.10"),
    ["RING_PACKED", "EVENT_IDX"],
    { packed: true },
  ),
  works("in-order", "With IN_ORDER requests are returned in their order", virtio("2.7.9"), ["IN_ORDER"], {}),
  works(
    "packed-in-order",
    "Packed rings: with IN_ORDER requests are returned in their order",
    virtio("2.8.8"),
    ["RING_PACKED", "IN_ORDER"],
    { packed: true },
  ),
  works(
    "everything",
    "Packed rings, IN_ORDER, EVENT_IDX and indirect tables work together",
    PACKED,
    ["RING_PACKED", "IN_ORDER", "EVENT_IDX", "INDIRECT_DESC"],
    { packed: true, indirect: true },
  ),
  {
    id: "formats.packed-call",
    title: "Packed rings: a returned request is announced, unless the driver wants none of that",
    section: virtio("2.8.10"),
    needs: { requests: true, ring: ["RING_PACKED"] },
    run: async (trial): Promise<Finding | void> => {
      const driven = await start(trial, { packed: true });
      const { ring } = driven;
      await driven.many(1);
      await trial.quiet();
      ring.called();
      ring.ring.arm();
      await driven.many(1);
      if (await trial.until(() => ring.called() || undefined) === undefined) fail("a call", "none");
      ring.ring.suppress();
      await driven.many(1);
      await trial.quiet();
      if (ring.called()) return open("calls all the same");
    },
  },
  {
    id: "formats.packed-base",
    title: "Packed rings: GET_VRING_BASE tells both positions, and the ring goes on from them",
    section: vhostUser("Vring descriptor indices for packed virtqueues"),
    needs: { requests: true, ring: ["RING_PACKED"] },
    run: async (trial): Promise<Finding | void> => {
      const driven = await start(trial, { packed: true, size: 16 });
      let half = false;
      for (const count of [5, 20, 33]) {
        await driven.many(count);
        const told = await driven.peer.stop(driven.ring);
        const { base } = driven.ring.ring;
        const shown = (value: number) => `0x${value.toString(16)}`;
        if ((told & 0xffff) !== (base & 0xffff)) {
          fail(`the position ${shown(base & 0xffff)} in bits 0 to 15`, shown(told));
        }
        if (told !== base && told >>> 16 !== 0) fail(shown(base), shown(told));
        half ||= told !== base;
        await driven.peer.restart(driven.ring, base);
        driven.ring.ring.arm();
      }
      await driven.many(20);
      if (half) return open("leaves bits 16 to 31 at 0");
    },
  },
  brokenPacked(
    "address",
    "Packed rings: a buffer outside of memory does no harm",
    virtio("2.8.16"),
    (view) => {
      put(view, 0, NOWHERE, 64, WRITE);
    },
  ),
  brokenPacked(
    "loop",
    "Packed rings: a chain that never ends does no harm",
    virtio("2.8.17"),
    (view, at, size) => {
      for (let slot = size - 1; slot >= 0; slot--) put(view, slot, at, 16, NEXT);
    },
  ),
  brokenPacked(
    "table-odd",
    "Packed rings: an indirect table of 24 bytes does no harm",
    virtio("2.8.19"),
    (view, at) => put(view, 0, at, 24, INDIRECT),
    ["INDIRECT_DESC"],
  ),
  brokenPacked(
    "table-nowhere",
    "Packed rings: an indirect table outside of memory does no harm",
    virtio("2.8.19"),
    (view) => put(view, 0, NOWHERE, 64, INDIRECT),
    ["INDIRECT_DESC"],
  ),
  {
    id: "formats.gpa",
    title: "With GPA_ADDRESSES rings are found by their guest addresses",
    section: vhostUser("A vring address description"),
    needs: { requests: true, protocol: ["GPA_ADDRESSES"] },
    run: async (trial) => {
      const peer = await trial.open();
      const memory = trial.memory();
      const base = BigInt(memory.guestAddress);
      await peer.set("SET_MEM_TABLE", [{ ...regionOf(memory), userAddress: base }], [memory.fd]);
      const drive = await trial.driveOn(peer, memory, { userBase: base });
      await drive.one();
    },
  },
  {
    id: "formats.in-band",
    title: "With INBAND_NOTIFICATIONS a ring is started and kicked by VRING_KICK, and answers by VRING_CALL",
    section: vhostUser("In-band notifications"),
    needs: { requests: true, protocol: ["INBAND_NOTIFICATIONS", "BACKEND_REQ", "REPLY_ACK"] },
    run: async (trial) => {
      const { profile } = trial;
      if (profile?.rings !== 1) notOffered("a kind of device with one ring");
      const peer = await trial.open();
      const memory = trial.memory();
      await peer.share(memory);
      const [ours, theirs] = trial.pair();
      await peer.set("SET_BACKEND_REQ_FD", undefined, [theirs]);
      const ring = await peer.setUp(0, memory);
      await peer.enable(ring, true);
      const request = profile.request();
      const { parts, answer } = layOut(memory, request);
      for (let i = 0; i < 3; i++) {
        ring.offer(ring.place(parts));
        await peer.tell("VRING_KICK", { index: 0, num: 0 }, { flags: 1 | HeaderFlag.NEED_REPLY });
        const calls = await callsOn(trial, ours, () => ring.returned > 0);
        await peer.answer("VRING_KICK");
        if (!await ring.returns(1, trial.patience)) fail("the request to be returned", "nothing");
        const wrong = request.check(answer, ring.collect()[0].written);
        if (wrong !== undefined) fail("the request to succeed", wrong);
        if (calls === 0) fail("VRING_CALL on the channel", "none");
      }
    },
  },
  {
    id: "formats.endian",
    title: "SET_VRING_ENDIAN of a legacy driver, without VERSION_1, accepts both byte orders",
    section: aboutMessage("SET_VRING_ENDIAN"),
    needs: { protocol: ["CROSS_ENDIAN"] },
    run: async (trial) => {
      const peer = await trial.open({ withoutFeatures: mask(ringFeatures.VERSION_1) });
      for (const num of [0, 1]) await peer.set("SET_VRING_ENDIAN", { index: 0, num });
      await peer.barrier();
    },
  },
];

/** Answers what comes on a channel until something is called and done. Returns how often ring 0 was called. */
async function callsOn(trial: Trial, fd: number, done: () => boolean): Promise<number> {
  const channel = new Connection(fd, backendMessages);
  let calls = 0;
  await trial.until(() => {
    const message = channel.receive();
    if (message === "end") return true;
    if (message !== null) {
      message.fds.close();
      if (message.name === "VRING_CALL") calls++;
      if ((message.header.flags & HeaderFlag.NEED_REPLY) !== 0) {
        const ok = payloads.u64.encode(0n);
        channel.send(message.header.request, HeaderFlag.REPLY, ok, new DescriptorBag());
      }
    }
    return calls > 0 && done() ? true : undefined;
  });
  return calls;
}
