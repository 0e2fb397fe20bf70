/**
 * The split ring: framing, indirect tables, notifications in both directions.
 *
 * @module
 */

import type { Case } from "../case.ts";
import { fail, type Finding, notOffered, open, pass, virtio } from "../finding.ts";
import type { Drive } from "../drive.ts";
import type { Trial } from "../trial.ts";

const FRAMING = virtio("2.7.4.1");
const TABLE = virtio("2.7.5.3.2");
const USED_NOTIFICATIONS = virtio("2.7.7.2");
const KICKS = virtio("2.7.10.2");
const requests = { requests: true } as const;
const indirect = { requests: true, ring: ["INDIRECT_DESC"] } as const;
const eventIdx = { requests: true, ring: ["EVENT_IDX"] } as const;

/** Waits for a call. */
async function called(trial: Trial, drive: Drive): Promise<boolean> {
  return await trial.until(() => drive.ring.called() || undefined) !== undefined;
}

/**
 * Does requests one after the other, kicking only when the device asks for it. A kick that it needs and does not ask for
 * makes a request hang.
 */
async function thrifty(
  trial: Trial,
  drive: Drive,
  wantsKick: (position: number) => boolean,
): Promise<Finding> {
  const count = 300;
  let kicks = 0;
  const placed = drive.place();
  for (let i = 0; i < count; i++) {
    const position = drive.ring.availableIndex;
    drive.ring.offer(placed.head);
    if (wantsKick(position)) {
      drive.ring.kick();
      kicks++;
    }
    if (!await drive.ring.returns(1, trial.patience)) {
      drive.ring.kick();
      const late = await drive.ring.returns(1, trial.patience);
      fail(
        "each request to be served, as the device asks for kicks",
        `request ${i + 1} was ${late ? "served after a kick that was not asked for" : "never served"}`,
      );
    }
    const [{ written }] = drive.ring.collect();
    const wrong = placed.check(written);
    if (wrong !== undefined) fail("each request to succeed", `request ${i + 1}: ${wrong}`);
    if (i % 50 === 49) await trial.quiet();
  }
  return pass(kicks === count ? undefined : "asks for fewer kicks");
}

/** Cases about split rings. */
export const virtqueueCases: readonly Case[] = [
  {
    id: "vq.framing-bytes",
    title: "A request may be cut into descriptors of 7 bytes",
    section: FRAMING,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ size: 256 });
      await drive.one(drive.place(undefined, { cut: 7 }), "a request in pieces of 7 bytes");
    },
  },
  {
    id: "vq.framing-header",
    title: "A request's header may be split over descriptors",
    section: FRAMING,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ size: 256 });
      const request = drive.request();
      if (request.readable.length < 2) notOffered("a request with a header");
      await drive.one(drive.place(request, { cut: Math.ceil(request.readable.length / 2) }));
    },
  },
  {
    id: "vq.zero-length",
    title: "A descriptor of length 0",
    section: virtio("2.7.5"),
    needs: requests,
    run: async (trial): Promise<Finding> => {
      const drive = await trial.drive();
      await drive.one();
      const request = drive.request();
      const readable = drive.memory.allocate(Math.max(1, request.readable.length));
      const writable = drive.memory.allocate(Math.max(1, request.writable));
      readable.bytes.set(request.readable);
      const parts = [
        { address: readable.guestAddress, length: request.readable.length, write: false },
        { address: writable.guestAddress, length: 0, write: request.writable > 0 },
        { address: writable.guestAddress, length: request.writable, write: true },
      ];
      // Only the one in the middle is empty.
      drive.ring.offer(drive.ring.place(parts.filter(({ length }, i) => i === 1 || length > 0)));
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) {
        if (!await drive.peer.answers()) return open("closes the connection");
        return open(drive.ring.errored() ? "the ring breaks" : "the request is not returned");
      }
      const [{ written }] = drive.ring.collect();
      const wrong = request.check(writable.bytes, written);
      return open(wrong === undefined ? "is skipped" : `the request fails: ${wrong}`);
    },
  },
  {
    id: "vq.untouched",
    title: "Neither descriptors nor what the driver wrote are changed",
    section: virtio("2.7.5.1"),
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      const placed = drive.place();
      const table = drive.ring.descriptor.bytes.slice();
      const written = placed.readable.slice();
      await drive.one(placed);
      if (drive.ring.descriptor.bytes.some((byte, i) => byte !== table[i])) {
        fail("the descriptor table as it was", "it has changed");
      }
      if (placed.readable.some((byte, i) => byte !== written[i])) {
        fail("device-readable buffers as they were", "one has changed");
      }
    },
  },
  {
    id: "vq.burst",
    title: "A whole ring of requests at once is served, each exactly once",
    section: virtio("2.7.8"),
    needs: requests,
    run: async (trial) => {
      const size = 128;
      const drive = await trial.drive({ size });
      const shape = drive.request();
      const slots = (shape.readable.length > 0 ? 1 : 0) + (shape.writable > 0 ? 1 : 0);
      for (let round = 0; round < 3; round++) {
        const placed = Array.from({ length: size / slots }, () => drive.place());
        drive.ring.offer(...placed.map(({ head }) => head));
        drive.ring.kick();
        await drive.finish(placed, "a request of a full ring");
        await trial.quiet();
        if (drive.ring.returned > 0) fail("no more returned than was made available", "another one");
      }
    },
  },
  {
    id: "vq.used-length",
    title: "The used length is no more than the room for the answer",
    section: virtio("2.7.8.2"),
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      const request = drive.request();
      const placed = drive.place(request);
      const behind = drive.memory.allocate(64, 1).bytes.fill(0xee);
      drive.ring.offer(placed.head);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) fail("the request to be returned", "nothing");
      const [{ head, written }] = drive.ring.collect();
      if (head !== placed.head) fail(`head ${placed.head}`, `${head}`);
      if (written > request.writable) fail(`${request.writable} bytes at most`, `${written}`);
      const wild = behind.findIndex((byte) => byte !== 0xee);
      if (wild >= 0) fail("nothing written past the room for the answer", `byte ${wild} behind it was`);
      if (written === 0 && request.writable > 0) {
        return open("0, although something was written; the driver cannot rely on any of it");
      }
    },
  },
  {
    id: "vq.indirect",
    title: "A request may lie in an indirect table",
    section: virtio("2.7.5.3"),
    needs: indirect,
    run: async (trial) => {
      const drive = await trial.drive();
      for (let i = 0; i < 3; i++) await drive.one(drive.place(undefined, { shape: "table" }));
      await drive.one(drive.place(undefined, { shape: "table", cut: 20 }), "a request in a longer table");
    },
  },
  {
    id: "vq.indirect-order",
    title: "The descriptors of an indirect table may be linked in any order",
    section: virtio("2.7.5.3"),
    needs: indirect,
    run: async (trial) => {
      const drive = await trial.drive();
      const request = drive.request();
      if (request.readable.length === 0 || request.writable === 0) notOffered("a request of two parts");
      const [readable, writable] = [
        drive.memory.allocate(request.readable.length, 8),
        drive.memory.allocate(request.writable, 8),
      ];
      readable.bytes.set(request.readable);
      // First, third, second.
      const table = drive.ring.table([
        { address: readable.guestAddress, length: request.readable.length, flags: 1, next: 2 },
        { address: writable.guestAddress + 1, length: request.writable - 1, flags: 2 },
        { address: writable.guestAddress, length: 1, flags: 3, next: 1 },
      ]);
      drive.ring.setDescriptor(0, { address: table.guestAddress, length: 48, flags: 4 });
      drive.ring.offer(0);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) fail("the request to be returned", "nothing");
      const wrong = request.check(writable.bytes, drive.ring.collect()[0].written);
      if (wrong !== undefined) fail("the request to succeed", wrong);
    },
  },
  {
    id: "vq.indirect-write-flag",
    title: "WRITE on the descriptor of an indirect table is ignored",
    section: TABLE,
    needs: indirect,
    run: async (trial) => {
      const drive = await trial.drive();
      const placed = drive.place(undefined, { shape: "table" });
      const view = new DataView(drive.ring.descriptor.bytes.buffer, drive.ring.descriptor.bytes.byteOffset);
      view.setUint16(placed.head * 16 + 12, 4 | 2, true);
      await drive.one(placed);
    },
  },
  {
    id: "vq.indirect-after-direct",
    title: "A chain may end in an indirect table after descriptors of its own",
    section: TABLE,
    needs: indirect,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one(drive.place(undefined, { shape: "mixed", cut: 8 }));
    },
  },
  {
    id: "vq.call",
    title: "A returned request is announced by a call",
    section: USED_NOTIFICATIONS,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      if (!await called(trial, drive)) fail("a call", "none");
      // What lies where EVENT_IDX would be must be ignored.
      for (const noise of [0, 0x7fff, 0xffff]) {
        drive.ring.usedEvent = noise;
        await drive.one();
        if (!await called(trial, drive)) fail("a call", "none");
      }
    },
  },
  {
    id: "vq.no-call",
    title: "A driver that asks for no interrupts gets none",
    section: USED_NOTIFICATIONS,
    needs: requests,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      await trial.quiet();
      drive.ring.called();
      drive.ring.availableFlags = 1;
      for (let i = 0; i < 5; i++) await drive.one();
      await trial.quiet();
      if (drive.ring.called()) return open("calls all the same, which it should not");
      drive.ring.availableFlags = 0;
      await drive.one();
      if (!await called(trial, drive)) fail("a call when the driver wants interrupts again", "none");
    },
  },
  {
    id: "vq.kick-suppression",
    title: "A driver that kicks only when used.flags asks for it waits for nothing",
    section: KICKS,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      return await thrifty(trial, drive, () => {
        const flags = drive.ring.usedFlags;
        if (flags > 1) fail("used.flags of 0 or 1", `${flags}`);
        return flags === 0;
      });
    },
  },
  {
    id: "vq.spurious-kick",
    title: "Kicks without requests do no harm",
    section: KICKS,
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      for (let i = 0; i < 20; i++) {
        drive.ring.kick();
        if (i % 5 === 0) await drive.peer.barrier();
      }
      await drive.one();
      drive.ring.kick();
      await trial.quiet();
      if (drive.ring.returned > 0) fail("nothing returned for a kick without a request", "a request");
    },
  },
  {
    id: "vq.event-idx-call",
    title: "EVENT_IDX: the request that used_event names is announced",
    section: USED_NOTIFICATIONS,
    needs: eventIdx,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      for (let i = 0; i < 5; i++) {
        await trial.until(() => drive.ring.called() || undefined, 5);
        drive.ring.usedEvent = drive.ring.usedIndex;
        // The lower bit of flags must be ignored.
        drive.ring.availableFlags = i % 2;
        await drive.one();
        if (!await called(trial, drive)) fail("a call", "none");
      }
    },
  },
  {
    id: "vq.event-idx-no-call",
    title: "EVENT_IDX: requests before the one that used_event names are not announced",
    section: USED_NOTIFICATIONS,
    needs: eventIdx,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      await trial.quiet();
      drive.ring.called();
      const event = drive.ring.usedIndex + 10;
      drive.ring.usedEvent = event;
      for (let i = 0; i < 10; i++) await drive.one();
      await trial.quiet();
      if (drive.ring.called()) return open("calls all the same, which it should not");
      await drive.one();
      if (!await called(trial, drive)) fail("a call for the request that used_event names", "none");
    },
  },
  {
    id: "vq.event-idx-batch",
    title: "EVENT_IDX: a batch that goes past used_event is announced",
    section: USED_NOTIFICATIONS,
    needs: eventIdx,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await trial.quiet();
      drive.ring.called();
      drive.ring.usedEvent = drive.ring.usedIndex + 5;
      const placed = Array.from({ length: 12 }, () => drive.place());
      drive.ring.offer(...placed.map(({ head }) => head));
      drive.ring.kick();
      await drive.finish(placed);
      if (!await called(trial, drive)) fail("a call", "none");
    },
  },
  {
    id: "vq.event-idx-flags",
    title: "EVENT_IDX: used.flags stays 0",
    section: KICKS,
    needs: eventIdx,
    run: async (trial) => {
      const drive = await trial.drive();
      for (let i = 0; i < 10; i++) {
        await drive.one();
        if (drive.ring.usedFlags !== 0) fail("used.flags 0", `${drive.ring.usedFlags}`);
      }
    },
  },
  {
    id: "vq.event-idx-kick-suppression",
    title: "EVENT_IDX: a driver that kicks only when avail_event asks for it waits for nothing",
    section: KICKS,
    needs: eventIdx,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      return await thrifty(trial, drive, (position) => drive.ring.availableEvent === position);
    },
  },
];
