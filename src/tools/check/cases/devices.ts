/**
 * What is peculiar to file systems, networks, sockets and entropy sources.
 *
 * @module
 */

import type { Case } from "../case.ts";
import { fail, type Finding, open, pass, virtio } from "../finding.ts";
import { fuseInit, fuseRequest, type Request, vsockPacket } from "../profile.ts";
import type { CheckRing } from "../ring.ts";
import { type Drive, UNWRITTEN } from "../drive.ts";

const requests = { requests: true } as const;
const ENOSYS = -38;
const GETATTR = 3;
const FORGET = 2;
const ROOT = 1n;

/** A driver that has started a FUSE session. */
async function session(drive: Drive): Promise<Drive> {
  await drive.one(drive.place(fuseInit()), "FUSE_INIT");
  return drive;
}

/** A request to which there is no answer. */
function silent(request: Request): Request {
  return { ...request, writable: 0, check: () => undefined };
}

/** Room for something that the device brings by itself, made available. */
function receive(drive: Drive, ring: CheckRing, room: number): Uint8Array {
  const placed = drive.place(
    { readable: new Uint8Array(0), writable: room, check: () => undefined },
    {},
    ring,
  );
  ring.offer(placed.head);
  ring.kick();
  return placed.answer;
}

/** The address that a vsock device has given to its guest. */
async function guestCid(drive: Drive): Promise<bigint> {
  const request = { offset: 0, flags: 0, data: new Uint8Array(8) };
  const { value, fds } = await drive.peer.ask("GET_CONFIG", request);
  fds.close();
  return new DataView(value.data.buffer, value.data.byteOffset).getBigUint64(0, true);
}

/** Cases by kind of device. */
export const deviceCases: readonly Case[] = [
  {
    id: "fs.init",
    title: "FUSE_INIT is answered with major version 7",
    section: virtio("5.11.6"),
    devices: ["fs"],
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      const placed = drive.place(fuseInit());
      await drive.one(placed, "FUSE_INIT");
      const view = new DataView(placed.answer.buffer, placed.answer.byteOffset + 16);
      if (view.getUint32(0, true) !== 7) fail("7", `${view.getUint32(0, true)}`);
      return pass(`7.${view.getUint32(4, true)}`);
    },
  },
  {
    id: "fs.root",
    title: "The root is a directory",
    section: virtio("5.11.6"),
    devices: ["fs"],
    needs: requests,
    run: async (trial) => {
      const drive = await session(await trial.drive());
      const request = fuseRequest(GETATTR, ROOT, new Uint8Array(16), 104);
      const placed = drive.place(request);
      await drive.one(placed, "FUSE_GETATTR of the root");
      const mode = new DataView(placed.answer.buffer, placed.answer.byteOffset + 16).getUint32(16 + 60, true);
      if ((mode & 0o170000) !== 0o040000) fail("the mode of a directory", `0${mode.toString(8)}`);
    },
  },
  {
    id: "fs.unknown",
    title: "An operation that nobody knows is answered with ENOSYS",
    section: virtio("5.11.6"),
    devices: ["fs"],
    needs: requests,
    run: async (trial): Promise<Finding | void> => {
      const drive = await session(await trial.drive());
      let error = 0;
      const request = fuseRequest(3999, ROOT, new Uint8Array(0), 64, (code) => void (error = code));
      await drive.one(drive.place(request), "the request");
      if (error !== ENOSYS) return open(`error ${error}`);
    },
  },
  {
    id: "fs.forget",
    title: "FORGET on the high priority queue is returned without an answer",
    section: virtio("5.11.6.2"),
    devices: ["fs"],
    needs: requests,
    run: async (trial) => {
      const drive = await session(await trial.drive());
      // One look-up too few would do harm; of a node that was never looked up there is none.
      const body = new Uint8Array(8);
      const request = silent(fuseRequest(FORGET, 0x7fff_ffffn, body, 0));
      const [hiprio] = drive.rings;
      await drive.one(drive.place(request, {}, hiprio), "FORGET", hiprio);
    },
  },
  {
    id: "fs.split",
    title: "A FUSE header may be split over descriptors",
    section: virtio("2.7.4.1"),
    devices: ["fs"],
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ size: 256 });
      await drive.one(drive.place(fuseInit(), { cut: 24 }), "FUSE_INIT in pieces");
    },
  },
  {
    id: "net.arp",
    title: "A device that answers ARP delivers to the receive ring, with num_buffers 1",
    section: virtio("5.1.9.4.1"),
    devices: ["net"],
    needs: requests,
    run: async (trial): Promise<Finding> => {
      const drive = await trial.drive();
      const [rx] = drive.rings;
      const answer = receive(drive, rx, 2048);
      const frame = new Uint8Array(12 + 42);
      const arp = frame.subarray(12);
      arp.fill(0xff, 0, 6);
      arp.set([0x02, 0, 0, 0, 0, 1], 6);
      arp.set([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 1, 10, 0, 2, 15], 12);
      arp.set([10, 0, 2, 2], 38);
      await drive.one(drive.place({ readable: frame, writable: 0, check: () => undefined }), "the frame");
      if (!await rx.returns(1, trial.soon)) return open("nothing comes back");
      const [{ written }] = rx.collect();
      if (written < 12 + 42) return open(`${written} bytes come back`);
      const buffers = new DataView(answer.buffer, answer.byteOffset).getUint16(10, true);
      const came = buffers === UNWRITTEN * 0x101 ? "nothing is written there" : `${buffers}`;
      if (buffers !== 1) fail("num_buffers 1 in a received frame, without MRG_RXBUF", came);
      return pass("is answered");
    },
  },
  {
    id: "net.large",
    title: "A frame of 1514 bytes in two pieces is taken",
    section: virtio("2.7.4.1"),
    devices: ["net"],
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive({ size: 256 });
      const frame = new Uint8Array(12 + 1514);
      frame.set(drive.request().readable);
      const request = { readable: frame, writable: 0, check: () => undefined };
      await drive.one(drive.place(request, { cut: 800 }), "the frame");
    },
  },
  {
    id: "net.short",
    title: "A frame shorter than its header does no harm",
    section: virtio("5.1.9.2"),
    devices: ["net"],
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      const placed = drive.place({ readable: new Uint8Array(5), writable: 0, check: () => undefined });
      drive.ring.offer(placed.head);
      drive.ring.kick();
      await drive.ring.returns(1, trial.soon);
      if (!await drive.peer.answers()) return pass("closes the connection");
      return pass(drive.ring.returned > 0 ? "is returned" : "the ring stands still");
    },
  },
  {
    id: "rng.bytes",
    title: "An entropy request gives at least one byte",
    section: virtio("5.4.6.2"),
    devices: ["rng"],
    needs: requests,
    run: async (trial) => {
      const drive = await trial.drive();
      for (const room of [1, 16, 4096]) {
        const placed = drive.place({
          readable: new Uint8Array(0),
          writable: room,
          check: (_, written) => written >= 1 && written <= room ? undefined : `${written} bytes of ${room}`,
        });
        await drive.one(placed, `a request for ${room} bytes`);
        if (room === 4096 && placed.answer.subarray(0, 64).every((byte) => byte === placed.answer[0])) {
          fail("random bytes", "64 times the same");
        }
      }
    },
  },
  {
    id: "vsock.cid",
    title: "The guest's address is not a reserved one",
    section: virtio("5.10.6.4.2"),
    devices: ["vsock"],
    needs: { requests: true, protocol: ["CONFIG"] },
    run: async (trial) => {
      const cid = await guestCid(await trial.drive());
      if ([0n, 1n, 2n, 0xffff_ffffn].includes(cid) || cid >> 32n !== 0n) {
        fail("an address other than 0, 1, 2 and 2^32 - 1, of 32 bits", `${cid}`);
      }
    },
  },
  {
    id: "vsock.reset",
    title: "A connection to a port where nobody listens is reset",
    section: virtio("5.10.6.5"),
    devices: ["vsock"],
    needs: { requests: true, protocol: ["CONFIG"] },
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      const [rx] = drive.rings;
      const answer = receive(drive, rx, 4096);
      const packet = vsockPacket(1, 54_321, await guestCid(drive));
      await drive.one(drive.place({ readable: packet, writable: 0, check: () => undefined }), "the packet");
      if (!await rx.returns(1, trial.patience)) fail("a packet with operation 3, RST", "nothing comes back");
      const op = new DataView(answer.buffer, answer.byteOffset).getUint16(30, true);
      if (op !== 3) fail("operation 3, RST", `operation ${op}`);
    },
  },
  {
    id: "vsock.unknown-type",
    title: "A packet of an unknown type is answered by a reset",
    section: virtio("5.10.6.4.2"),
    devices: ["vsock"],
    needs: { requests: true, protocol: ["CONFIG"] },
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      const [rx] = drive.rings;
      const answer = receive(drive, rx, 4096);
      const packet = vsockPacket(5, 54_321, await guestCid(drive));
      new DataView(packet.buffer).setUint16(28, 77, true);
      await drive.one(drive.place({ readable: packet, writable: 0, check: () => undefined }), "the packet");
      if (!await rx.returns(1, trial.patience)) fail("a packet with operation 3, RST", "nothing comes back");
      const op = new DataView(answer.buffer, answer.byteOffset).getUint16(30, true);
      if (op !== 3) fail("operation 3, RST", `operation ${op}`);
    },
  },
];
