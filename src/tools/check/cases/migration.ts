/**
 * Dirty log, requests in flight, state of the device, postcopy, shared memory regions, IOMMU.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../../../ffi/mapping.ts";
import { ringFeatures } from "../../../protocol/features.ts";
import { type Inflight, IotlbType } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser } from "../finding.ts";
import { addressOf, type Peer, regionOf } from "../peer.ts";
import { type CheckRing, writeDescriptor } from "../ring.ts";
import type { Trial } from "../trial.ts";

const LOG = vhostUser("Migration");
const INFLIGHT = vhostUser("Inflight I/O tracking");
const STATE = vhostUser("Migrating back-end state");
const PAGE = 4096;
const log = { protocol: ["LOG_SHMFD"], ring: ["LOG_ALL"], requests: true } as const;
const inflight = { protocol: ["INFLIGHT_SHMFD"] } as const;
const inflightAndRequests = { ...inflight, requests: true } as const;
const state = { protocol: ["DEVICE_STATE"] } as const;

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

/** Saves the state of a device: the whole of it, or why not. */
async function save(trial: Trial, peer: Peer): Promise<Uint8Array> {
  const [ours, theirs] = trial.pair();
  const { value, fds } = await peer.ask("SET_DEVICE_STATE_FD", { direction: 0, phase: 0 }, { fds: [theirs] });
  trial.closePair(theirs);
  if (value.error !== 0) notOffered(`a state that can be saved: SET_DEVICE_STATE_FD answers ${value.error}`);
  const own = fds.take();
  fds.close();
  if (own !== undefined && value.noDescriptor) fail("no descriptor with bit 8", "a descriptor");
  if (own === undefined && !value.noDescriptor) fail("a descriptor without bit 8", "none");
  if (own !== undefined) trial.after(() => close(own));
  const state = await trial.readAll(own ?? ours);
  if (state === undefined) fail("the state, up to the end of the stream", "no end");
  const { value: result } = await peer.ask("CHECK_DEVICE_STATE", undefined);
  if (result !== 0n) fail("0, for success, in the answer to CHECK_DEVICE_STATE", `${result}`);
  return state;
}

/** Cases about migration and its kin. */
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
  {
    id: "state.save",
    title: "The state of the device can be saved, up to the end of the stream",
    section: STATE,
    needs: state,
    run: async (trial) => {
      const peer = await trial.open();
      return pass(`${(await save(trial, peer)).length} bytes`);
    },
  },
  {
    id: "state.save-running",
    title: "After a save the device goes on, as when a migration fails",
    section: STATE,
    needs: { ...state, requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      const bases: number[] = [];
      for (const ring of drive.rings) bases.push(await drive.peer.stop(ring));
      await save(trial, drive.peer);
      for (const [i, ring] of drive.rings.entries()) {
        await drive.peer.restart(ring, bases[i]);
      }
      await drive.one(drive.place(), "a request after the state was saved");
    },
  },
  {
    id: "state.load",
    title: "A saved state can be loaded by the next session",
    section: STATE,
    writes: true,
    needs: state,
    run: async (trial) => {
      const inner = trial.sub();
      let saved: Uint8Array;
      try {
        saved = await save(inner, await inner.open());
      } finally {
        inner.close();
      }
      // One that leaves when its state is saved breaks another case.
      await trial.target.settle();
      const peer = await trial.open();
      const [ours, theirs] = trial.pair();
      const request = { direction: 1, phase: 0 };
      const { value, fds } = await peer.ask("SET_DEVICE_STATE_FD", request, { fds: [theirs] });
      trial.closePair(theirs);
      if (value.error !== 0) fail("0, for success, in the answer to SET_DEVICE_STATE_FD", `${value.error}`);
      const own = fds.take();
      fds.close();
      await trial.writeAll(own ?? ours, saved);
      if (own === undefined) trial.closePair(ours);
      else close(own);
      const { value: result } = await peer.ask("CHECK_DEVICE_STATE", undefined);
      if (result !== 0n) fail("0, for success, in the answer to CHECK_DEVICE_STATE", `${result}`);
    },
  },
  {
    id: "state.load-nonsense",
    title: "A state that was never saved is reported as a failure",
    section: aboutMessage("CHECK_DEVICE_STATE"),
    writes: true,
    needs: state,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const [ours, theirs] = trial.pair();
      const request = { direction: 1, phase: 0 };
      const { value, fds } = await peer.ask("SET_DEVICE_STATE_FD", request, { fds: [theirs] });
      trial.closePair(theirs);
      if (value.error !== 0) return pass("SET_DEVICE_STATE_FD fails");
      const own = fds.take();
      fds.close();
      await trial.writeAll(own ?? ours, new Uint8Array(64).fill(0xa5));
      if (own === undefined) trial.closePair(ours);
      else close(own);
      const { value: result } = await peer.ask("CHECK_DEVICE_STATE", undefined);
      if (result === 0n) fail("an error from CHECK_DEVICE_STATE", "success");
    },
  },
  {
    id: "state.direction",
    title: "SET_DEVICE_STATE_FD with a direction that does not exist is an error",
    section: aboutMessage("SET_DEVICE_STATE_FD"),
    needs: state,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const [, theirs] = trial.pair();
      await peer.tell("SET_DEVICE_STATE_FD", { direction: 7, phase: 0 }, { fds: [theirs] });
      const message = await peer.wire.next();
      if (message === "end") return pass("closes the connection");
      if (message === "nothing") fail("an answer", "nothing");
      message.fds.close();
      if (message.payload.length === 8 && message.payload[0] === 0) return open("accepts it");
    },
  },
  {
    id: "postcopy.advise",
    title: "POSTCOPY_ADVISE is answered with a userfaultfd and no payload",
    section: aboutMessage("POSTCOPY_ADVISE"),
    needs: { protocol: ["PAGEFAULT"] },
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      await peer.tell("POSTCOPY_ADVISE", undefined);
      const message = await peer.wire.next();
      if (typeof message === "string") fail("an answer to POSTCOPY_ADVISE", message);
      const fds = message.fds.length;
      message.fds.close();
      if (fds !== 1) return open(`${fds} descriptors; the system may not allow a userfaultfd`);
      if (message.payload.length > 0) return open(`a payload of ${message.payload.length} bytes`);
    },
  },
  {
    id: "shmem.config",
    title: "GET_SHMEM_CONFIG tells of regions of whole pages, as many as it says",
    section: aboutMessage("GET_SHMEM_CONFIG"),
    needs: { protocol: ["SHMEM"] },
    run: async (trial) => {
      const peer = await trial.open();
      const { value, fds } = await peer.ask("GET_SHMEM_CONFIG", undefined);
      fds.close();
      const sizes = value.sizes.filter((size) => size > 0n);
      if (sizes.length !== value.numRegions) fail(`${value.numRegions} sizes`, `${sizes.length}`);
      const odd = sizes.find((size) => size % BigInt(PAGE) !== 0n);
      if (odd !== undefined) fail("sizes that are multiples of a page", `${odd}`);
    },
  },
  {
    id: "iommu.requests",
    title: "With ACCESS_PLATFORM all addresses go through the IOTLB",
    section: vhostUser("IOMMU support"),
    needs: { protocol: ["BACKEND_REQ"], ring: ["ACCESS_PLATFORM"], requests: true },
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const memory = trial.memory();
      await peer.share(memory);
      await peer.set("SET_BACKEND_REQ_FD", undefined, [trial.pair()[1]]);
      // One mapping of everything, at addresses of its own: what IOVAs have to do with nothing else.
      const shift = 0x40_0000_0000n;
      const iova = BigInt(memory.guestAddress) + shift;
      const answer = await peer.ask("IOTLB_MSG", {
        iova,
        size: regionOf(memory).size,
        userAddress: memory.userAddress,
        permission: 3,
        type: IotlbType.UPDATE,
      });
      answer.fds.close();
      const drive = await trial.driveOn(peer, memory, { userBase: iova });
      const placed = drive.place();
      const { descriptor } = drive.ring;
      const view = new DataView(descriptor.bytes.buffer, descriptor.bytes.byteOffset);
      for (let i = 0; i < 4; i++) {
        const at = view.getBigUint64(16 * i, true);
        if (at === 0n) continue;
        writeDescriptor(descriptor.bytes, i, {
          address: at + shift,
          length: view.getUint32(16 * i + 8, true),
          flags: view.getUint16(16 * i + 12, true),
          next: view.getUint16(16 * i + 14, true),
        });
      }
      await drive.one(placed);
    },
  },
];
