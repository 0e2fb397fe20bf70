/**
 * The dirty log, and requests in flight.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../../../ffi/mapping.ts";
import { ringFeatures } from "../../../protocol/features.ts";
import type { Inflight } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser } from "../finding.ts";
import { addressOf, type Peer } from "../peer.ts";
import type { CheckRing } from "../ring.ts";
import type { Trial } from "../trial.ts";

const LOG = vhostUser("Migration");
const INFLIGHT = vhostUser("Inflight I/O tracking");
const PAGE = 4096;
const log = { protocol: ["LOG_SHMFD"], ring: ["LOG_ALL"], requests: true } as const;
const inflight = { protocol: ["INFLIGHT_SHMFD"] } as const;
const inflightAndRequests = { ...inflight, requests: true } as const;

/** A file that is mapped here and can be sent. */
function shared(trial: Trial, byteLength: number): { fd: number; bytes: Uint8Array<ArrayBuffer> } {
  const fd = memoryFile("vhost-user-check", byteLength);
  const mapping = new Mapping(fd, byteLength);
  trial.after(() => {
    mapping.unmap();
    close(fd);
  });
  return { fd, bytes: new Uint8Array(mapping.buffer) };
}

/** Whether a page is marked in a log. */
function marked(bytes: Uint8Array, address: number): boolean {
  const page = Math.floor(address / PAGE);
  return (bytes[page >> 3] >> (page & 7) & 1) === 1;
}

/** SET_LOG_BASE, whose answer has no settled form. */
async function setLog(peer: Peer, fd: number, size: number): Promise<void> {
  await peer.tell("SET_LOG_BASE", { size: BigInt(size), offset: 0n }, { fds: [fd] });
  const answer = await peer.answer("SET_LOG_BASE");
  answer.fds.close();
}

/** Size of the log for the memory of {@link Trial.memory}. */
function logSize(address: number): number {
  return Math.ceil(address / PAGE / 8 / PAGE) * PAGE;
}

/** The buffer that tracks requests of one ring, from the back-end. */
async function tracking(
  trial: Trial,
  peer: Peer,
  numQueues: number,
  queueSize: number,
): Promise<{ value: Inflight; fd: number; bytes: Uint8Array<ArrayBuffer> }> {
  const { value, fds } = await peer.ask("GET_INFLIGHT_FD", {
    mmapSize: 0n,
    mmapOffset: 0n,
    numQueues,
    queueSize,
  });
  const fd = fds.take();
  fds.close();
  if (fd === undefined) fail("a descriptor with the answer to GET_INFLIGHT_FD", "none");
  trial.after(() => close(fd));
  if (value.mmapSize === 0n) fail("a buffer of some size", "0 bytes");
  const offset = Number(value.mmapOffset);
  const start = Math.floor(offset / PAGE) * PAGE;
  const mapping = new Mapping(fd, Math.ceil((offset - start + Number(value.mmapSize)) / PAGE) * PAGE, start);
  trial.after(() => mapping.unmap());
  return { value, fd, bytes: new Uint8Array(mapping.buffer, offset - start, Number(value.mmapSize)) };
}

/** Reads the header of the first ring's region, split form. */
function regionHeader(bytes: Uint8Array): { version: number; size: number; usedIndex: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return {
    version: view.getUint16(8, true),
    size: view.getUint16(10, true),
    usedIndex: view.getUint16(14, true),
  };
}

/** Heads that the region says are in flight. */
function inFlight(bytes: Uint8Array, size: number): number[] {
  return Array.from({ length: size }, (_, i) => i).filter((i) => bytes[16 + 16 * i] === 1);
}

/** Cases about the dirty log and about requests in flight. */
export const migrationCases: readonly Case[] = [
  {
    id: "log.marks",
    title: "With LOG_ALL the pages that a request writes are marked",
    section: LOG,
    needs: log,
    run: async (trial) => {
      const peer = await trial.open({ withoutFeatures: 1n << BigInt(ringFeatures.LOG_ALL) });
      const memory = trial.memory();
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory);
      await drive.one();
      const size = logSize(memory.guestAddress + memory.byteLength);
      const { fd, bytes } = shared(trial, size);
      await setLog(peer, fd, size);
      await peer.setFeatures(peer.features | 1n << BigInt(ringFeatures.LOG_ALL));
      for (const ring of drive.rings) {
        await peer.set("SET_VRING_ADDR", {
          ...addressOf(ring),
          flags: 1,
          log: BigInt(ring.used.guestAddress),
        });
      }
      await peer.barrier();
      bytes.fill(0);
      // Pages of their own, so that each mark says what it is for.
      memory.allocate(1, PAGE);
      memory.allocate(PAGE, PAGE);
      const placed = drive.place();
      const request = drive.request();
      await drive.one(placed, "a request that is logged");
      if (!marked(bytes, drive.ring.used.guestAddress)) {
        fail("the page of the used ring to be marked", "it is not");
      }
      if (request.writable > 0) {
        const answer = memory.guestAddress + placed.answer.byteOffset;
        if (!marked(bytes, answer)) fail("the page of the answer to be marked", "it is not");
      }
      const marks = bytes.reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
      return pass(`${marks} pages marked`);
    },
  },
  {
    id: "log.off",
    title: "Logging ends when LOG_ALL is taken back",
    section: LOG,
    needs: log,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open({ withoutFeatures: 1n << BigInt(ringFeatures.LOG_ALL) });
      const memory = trial.memory();
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory);
      const size = logSize(memory.guestAddress + memory.byteLength);
      const { fd, bytes } = shared(trial, size);
      await setLog(peer, fd, size);
      const plain = peer.features;
      await peer.setFeatures(plain | 1n << BigInt(ringFeatures.LOG_ALL));
      await drive.one();
      await peer.setFeatures(plain);
      for (const ring of drive.rings) await peer.set("SET_VRING_ADDR", addressOf(ring));
      await peer.barrier();
      bytes.fill(0);
      await drive.one(drive.place(), "a request after logging");
      if (bytes.some((byte) => byte !== 0)) return open("goes on marking pages");
    },
  },
  {
    id: "log.reply-size",
    title: "What SET_LOG_BASE is answered with",
    section: aboutMessage("SET_LOG_BASE"),
    needs: { protocol: ["LOG_SHMFD"] },
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open();
      const { fd } = shared(trial, 65536);
      await peer.tell("SET_LOG_BASE", { size: 65536n, offset: 0n }, { fds: [fd] });
      const message = await peer.wire.next();
      if (typeof message === "string") fail("an answer to SET_LOG_BASE", message);
      message.fds.close();
      return open(`${message.payload.length} bytes`);
    },
  },
  {
    id: "inflight.get",
    title: "GET_INFLIGHT_FD gives a buffer that is large enough and zeroed",
    section: aboutMessage("GET_INFLIGHT_FD"),
    needs: inflight,
    run: async (trial) => {
      const peer = await trial.open();
      const { value, bytes } = await tracking(trial, peer, 1, 64);
      const least = 16 + 16 * 64;
      if (bytes.length < least) fail(`${least} bytes at least for a ring of 64`, `${bytes.length}`);
      if (value.numQueues !== 1 || value.queueSize !== 64) {
        return open(`answers ${value.numQueues} queues of ${value.queueSize} instead of 1 of 64`);
      }
      if (inFlight(bytes, 64).length > 0) fail("no request in flight in a new buffer", "some");
    },
  },
  {
    id: "inflight.tracks",
    title: "The buffer says what is in flight: nothing, when all is returned",
    section: INFLIGHT,
    needs: inflightAndRequests,
    run: async (trial): Promise<Finding | void> => {
      const { profile } = trial;
      if (profile === undefined) return;
      const peer = await trial.open();
      const { value, fd, bytes } = await tracking(trial, peer, profile.rings, 64);
      await peer.set("SET_INFLIGHT_FD", value, [fd]);
      const memory = trial.memory();
      await peer.share(memory);
      const drive = await trial.driveOn(peer, memory);
      for (let i = 0; i < 5; i++) await drive.one();
      await peer.barrier();
      if (profile.ring !== 0) return;
      const { version, size, usedIndex } = regionHeader(bytes);
      if (version !== 1) return open(`version ${version} of the region, in a form of its own`);
      if (size !== 64) fail("desc_num 64", `${size}`);
      if (usedIndex !== drive.ring.usedIndex) fail(`used_idx ${drive.ring.usedIndex}`, `${usedIndex}`);
      const left = inFlight(bytes, 64);
      if (left.length > 0) fail("nothing in flight", `heads ${left.join(", ")}`);
    },
  },
  {
    id: "inflight.resubmits",
    title: "A request that the buffer says is in flight is served after a reconnect",
    section: INFLIGHT,
    needs: inflightAndRequests,
    run: async (trial): Promise<Finding | void> => {
      const { profile } = trial;
      if (profile?.ring !== 0) notOffered("a kind of device whose first ring serves requests");
      const peer = await trial.open();
      const { value, fd, bytes } = await tracking(trial, peer, profile.rings, 64);
      const memory = trial.memory();
      await peer.share(memory);
      // As a back-end that was killed has left it: taken from the ring, not returned.
      const ring: CheckRing = await peer.setUp(0, memory);
      const request = profile.request();
      const piece = memory.allocate(Math.max(1, request.readable.length), 8);
      const answer = memory.allocate(request.writable, 8);
      piece.bytes.set(request.readable);
      const head = ring.place(
        [
          { address: piece.guestAddress, length: request.readable.length, write: false },
          { address: answer.guestAddress, length: request.writable, write: true },
        ].filter(({ length }) => length > 0),
      );
      ring.offer(head);
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      view.setUint16(8, 1, true);
      view.setUint16(10, 64, true);
      view.setUint8(16 + 16 * head, 1);
      view.setBigUint64(16 + 16 * head + 8, 1n, true);
      await peer.set("SET_INFLIGHT_FD", value, [fd]);
      await peer.set("SET_VRING_BASE", { index: 0, num: 1 });
      await peer.start(ring);
      if (!await ring.returns(1, trial.patience)) {
        fail("the request to be served again", "it is not returned");
      }
      const [{ head: returned, written }] = ring.collect();
      if (returned !== head) fail(`head ${head}`, `${returned}`);
      const wrong = request.check(answer.bytes, written);
      if (wrong !== undefined) fail("the request to succeed", wrong);
      await peer.barrier();
      if (inFlight(bytes, 64).length > 0) fail("nothing in flight afterwards", "some");
    },
  },
];
