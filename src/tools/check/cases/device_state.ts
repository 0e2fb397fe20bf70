/**
 * State of the device, postcopy, shared memory regions, IOMMU.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { IotlbType } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, vhostUser } from "../finding.ts";
import { type Peer, regionOf } from "../peer.ts";
import { writeDescriptor } from "../ring.ts";
import type { Trial } from "../trial.ts";

const STATE = vhostUser("Migrating back-end state");
const PAGE = 4096;
const state = { protocol: ["DEVICE_STATE"] } as const;

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

/** Cases about state and about memory of other kinds. */
export const deviceStateCases: readonly Case[] = [
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
