/**
 * Status, resets, and the channel from the back-end.
 *
 * @module
 */

import { close } from "../../../../ffi/fd.ts";
import { eventfd } from "../../../../ffi/eventfd.ts";
import { DeviceStatus } from "../../../protocol/features.ts";
import { backendMessages } from "../../../protocol/messages.ts";
import { Connection } from "../../../transport/connection.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, open, pass, vhostUser, virtio } from "../finding.ts";
import { encode } from "../peer.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const STATUS = aboutMessage("SET_STATUS");
const RESET = aboutMessage("RESET_DEVICE");
const CHANNEL = vhostUser("Back-end communication");
const status = { protocol: ["STATUS"] } as const;
const reset = { protocol: ["RESET_DEVICE"] } as const;
const resetAndRequests = { ...reset, requests: true } as const;
const channel = { protocol: ["BACKEND_REQ"] } as const;

const { ACKNOWLEDGE, DRIVER, FEATURES_OK } = DeviceStatus;

/** What came on a channel, or `undefined`. */
async function heard(trial: Trial, fd: number): Promise<string | undefined> {
  const connection = new Connection(fd, backendMessages);
  return await trial.until(() => {
    const message = connection.receive();
    if (message === null) return undefined;
    if (message === "end") return "the end";
    message.fds.close();
    return message.name;
  }, trial.settings.quiet);
}

/** Cases about status, reset and channel. */
export const stateCases: readonly Case[] = [
  {
    id: "status.new",
    title: "The status of a new connection is 0",
    section: virtio("2.1"),
    needs: status,
    run: async (trial) => {
      const peer = await trial.open();
      const now = await peer.number("GET_STATUS");
      if (now !== 0n) return open(`0x${now.toString(16)}`);
    },
  },
  {
    id: "status.kept",
    title: "GET_STATUS tells what SET_STATUS said",
    section: STATUS,
    needs: status,
    run: async (trial) => {
      const peer = await trial.open();
      for (const value of [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK]) {
        await peer.set("SET_STATUS", BigInt(value));
        const now = await peer.number("GET_STATUS");
        if (now !== BigInt(value)) fail(`0x${value.toString(16)}`, `0x${now.toString(16)}`);
      }
    },
  },
  {
    id: "status.zero",
    title: "SET_STATUS 0 sets the status back",
    section: virtio("2.4.1"),
    needs: status,
    run: async (trial) => {
      const peer = await trial.open();
      await peer.set("SET_STATUS", BigInt(ACKNOWLEDGE | DRIVER));
      await peer.set("SET_STATUS", 0n);
      const now = await peer.number("GET_STATUS");
      if (now !== 0n) fail("0", `0x${now.toString(16)}`);
    },
  },
  {
    id: "status.session",
    title: "Requests are served when the driver goes through all states",
    section: virtio("3.1.1"),
    needs: { ...status, requests: true },
    run: async (trial) => {
      const drive = await trial.drive();
      const { DRIVER_OK } = DeviceStatus;
      for (const value of [1, 3, 11, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK]) {
        await drive.peer.set("SET_STATUS", BigInt(value));
      }
      await drive.one();
      const now = Number(await drive.peer.number("GET_STATUS"));
      if ((now & DRIVER_OK) === 0) fail("DRIVER_OK to stay set", `0x${now.toString(16)}`);
    },
  },
  {
    id: "reset.twice",
    title: "RESET_DEVICE may be sent several times in a row",
    section: RESET,
    needs: reset,
    run: async (trial) => {
      const peer = await trial.open();
      for (let i = 0; i < 3; i++) await peer.set("RESET_DEVICE", undefined);
      await peer.barrier();
    },
  },
  {
    id: "reset.disables",
    title: "RESET_DEVICE disables all rings",
    section: RESET,
    needs: resetAndRequests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.set("RESET_DEVICE", undefined);
      await drive.peer.barrier();
      drive.ring.offer(drive.place().head);
      drive.ring.kick();
      await trial.quiet();
      if (drive.ring.returned > 0) {
        fail("the ring to be left alone after RESET_DEVICE", "a request was returned");
      }
    },
  },
  {
    id: "reset.again",
    title: "After RESET_DEVICE the device can be used again",
    section: RESET,
    needs: resetAndRequests,
    run: async (trial) => {
      const drive = await trial.drive();
      await drive.one();
      for (const ring of drive.rings) await drive.peer.stop(ring);
      await drive.peer.set("RESET_DEVICE", undefined);
      await drive.peer.setFeatures(drive.peer.features);
      await drive.peer.share(drive.memory);
      const again = await trial.driveOn(drive.peer, drive.memory);
      await again.one(again.place(), "a request after RESET_DEVICE");
    },
  },
  {
    id: "reset.memory",
    title: "RESET_DEVICE leaves the memory table in place, as QEMU relies on",
    section: RESET,
    needs: resetAndRequests,
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      for (const ring of drive.rings) await drive.peer.stop(ring);
      await drive.peer.set("RESET_DEVICE", undefined);
      await drive.peer.setFeatures(drive.peer.features);
      const again = await trial.driveOn(drive.peer, drive.memory);
      const placed = again.place();
      again.ring.offer(placed.head);
      again.ring.kick();
      if (!await again.ring.returns(1, trial.patience)) return open("the memory is gone");
    },
  },
  {
    id: "reset.owner",
    title: "RESET_OWNER does not end a session",
    section: aboutMessage("RESET_OWNER"),
    needs: { requests: true },
    run: async (trial): Promise<Finding | void> => {
      const drive = await trial.drive();
      await drive.one();
      await drive.peer.tell("RESET_OWNER", undefined);
      if (!await drive.peer.answers()) return open("closes the connection");
      // It may disable the rings.
      const enable = encode("SET_VRING_ENABLE", { index: drive.ring.index, num: 1 });
      const reaction = await drive.peer.attempt("SET_VRING_ENABLE", enable);
      if (reaction === "refused" || reaction === "closed") {
        return open("forgets the session, which it should not");
      }
      const placed = drive.place();
      drive.ring.offer(placed.head);
      drive.ring.kick();
      if (!await drive.ring.returns(1, trial.patience)) return open("the ring stands still afterwards");
    },
  },
  {
    id: "channel.set",
    title: "SET_BACKEND_REQ_FD is accepted, also a second time",
    section: aboutMessage("SET_BACKEND_REQ_FD"),
    needs: channel,
    run: async (trial) => {
      const peer = await trial.open();
      for (let i = 0; i < 2; i++) await peer.set("SET_BACKEND_REQ_FD", undefined, [trial.pair()[1]]);
      await peer.barrier();
    },
  },
  {
    id: "channel.replaced",
    title: "A channel that is replaced is closed",
    section: CHANNEL,
    needs: channel,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const witness = trial.witness();
      await peer.set("SET_BACKEND_REQ_FD", undefined, [witness.fd]);
      witness.release();
      await peer.set("SET_BACKEND_REQ_FD", undefined, [trial.pair()[1]]);
      if (await witness.gone(trial.soon)) return;
      peer.wire.close();
      if (await witness.gone(trial.patience)) return open("is closed only with the connection");
      fail("the first channel to be closed", "it is still open when the connection has ended");
    },
  },
  {
    id: "channel.quiet",
    title: "Nothing is sent on the channel while all rings are stopped",
    section: vhostUser("Suspended device state"),
    needs: channel,
    run: async (trial) => {
      const peer = await trial.open();
      const [ours, theirs] = trial.pair();
      await peer.set("SET_BACKEND_REQ_FD", undefined, [theirs]);
      const message = await heard(trial, ours);
      if (message !== undefined) fail("nothing", message);
    },
  },
  {
    id: "channel.not-a-socket",
    title: "A channel that is not a socket does no harm",
    section: CHANNEL,
    needs: channel,
    run: async (trial) => {
      const peer = await trial.open();
      const fd = eventfd();
      trial.after(() => close(fd));
      return reactionFinding(await peer.attempt("SET_BACKEND_REQ_FD", new Uint8Array(0), { fds: [fd] }));
    },
  },
  {
    id: "channel.leaves",
    title: "A front-end that closes its end of the channel does no harm",
    section: CHANNEL,
    needs: channel,
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open();
      const witness = trial.witness();
      await peer.set("SET_BACKEND_REQ_FD", undefined, [witness.fd]);
      witness.close();
      await trial.quiet();
      return pass(await peer.answers() ? "goes on" : "closes the connection");
    },
  },
];
