/**
 * The configuration space.
 *
 * @module
 */

import { blkConfig } from "../../../devices/blk/layout.ts";
import { payloads } from "../../../protocol/payloads.ts";
import type { Case } from "../case.ts";
import { aboutMessage, fail, type Finding, notOffered, open, pass, virtio } from "../finding.ts";
import { encode, type Peer } from "../peer.ts";
import type { Trial } from "../trial.ts";
import { reactionFinding } from "./framing.ts";

const GET = aboutMessage("GET_CONFIG");
const SET = aboutMessage("SET_CONFIG");
const config = { protocol: ["CONFIG"] } as const;

/** Bytes that every kind of device with a configuration space has. */
const lengths: Readonly<Record<string, number>> = { blk: 60, fs: 40, net: 8, vsock: 8 };

/** Reads; a back-end may have no configuration space and say so. */
async function read(peer: Peer, offset: number, length: number): Promise<Uint8Array> {
  const request = { offset, flags: 0, data: new Uint8Array(length) };
  await peer.tell("GET_CONFIG", request);
  const message = await peer.wire.next();
  if (message === "nothing") fail("an answer to GET_CONFIG", "nothing");
  if (message === "end") fail("an answer to GET_CONFIG", "the connection was closed");
  message.fds.close();
  const { payload } = message;
  if (payload.length === 0 || (payload.length === 12 && length > 0)) {
    notOffered(`the first ${length} bytes of a configuration space: GET_CONFIG fails`);
  }
  if (payload.length !== 12 + length) fail(`${12 + length} bytes, as asked`, `${payload.length} bytes`);
  const answer = payloads.config.decode(payload);
  if (answer.offset !== offset) fail(`offset ${offset}`, `offset ${answer.offset}`);
  if (answer.data.length !== length) fail(`size ${length}`, `size ${answer.data.length}`);
  return answer.data;
}

/** A part of the configuration space that cannot be given. */
async function wrongPart(trial: Trial, bytes: Uint8Array): Promise<Finding> {
  const reaction = await (await trial.open()).attempt("GET_CONFIG", bytes);
  switch (reaction) {
    case "refused":
      return pass("answers failure");
    case "closed":
      return open("closes the connection; failure is an answer without payload");
    default:
      return open("is answered");
  }
}

/** How much of the configuration space to look at. */
function lengthOf(trial: Trial): number {
  return lengths[trial.settings.device] ?? 8;
}

/** Cases about the configuration space. */
export const configCases: readonly Case[] = [
  {
    id: "config.read",
    title: "GET_CONFIG answers with the size and the offset of the request",
    section: GET,
    needs: config,
    run: async (trial) => {
      const peer = await trial.open();
      await read(peer, 0, lengthOf(trial));
    },
  },
  {
    id: "config.parts",
    title: "A part of the configuration space is the same as in the whole",
    section: GET,
    needs: config,
    run: async (trial) => {
      const peer = await trial.open();
      const length = lengthOf(trial);
      const whole = await read(peer, 0, length);
      for (const [offset, size] of [[0, 1], [0, 4], [4, 4], [3, 2], [length - 1, 1]]) {
        const part = await read(peer, offset, size);
        if (part.some((byte, i) => byte !== whole[offset + i])) {
          fail(`bytes ${offset} to ${offset + size - 1} as in the whole`, "others");
        }
      }
    },
  },
  {
    id: "config.before-features",
    title: "The configuration space can be read before SET_FEATURES",
    section: virtio("2.5.2"),
    needs: config,
    run: async (trial) => {
      const peer = await trial.peer();
      await peer.number("GET_FEATURES");
      const protocol = await peer.number("GET_PROTOCOL_FEATURES");
      const bit = 1n << 9n;
      await peer.tell("SET_PROTOCOL_FEATURES", protocol & bit);
      await read(peer, 0, lengthOf(trial));
    },
  },
  {
    id: "config.whole",
    title: "All 256 bytes that can be asked for",
    section: GET,
    needs: config,
    run: async (trial): Promise<Finding> => {
      const peer = await trial.open();
      const bytes = encode("GET_CONFIG", { offset: 0, flags: 0, data: new Uint8Array(256) });
      const reaction = await peer.attempt("GET_CONFIG", bytes);
      return reaction === "accepted" ? pass("are given") : open(reaction);
    },
  },
  {
    id: "config.beyond",
    title: "GET_CONFIG beyond 256 bytes does no harm",
    section: GET,
    needs: config,
    run: (trial) =>
      wrongPart(trial, encode("GET_CONFIG", { offset: 250, flags: 0, data: new Uint8Array(16) })),
  },
  {
    id: "config.overflow",
    title: "GET_CONFIG at offset 2^32 - 4 does no harm",
    section: GET,
    needs: config,
    run: (trial) =>
      wrongPart(trial, encode("GET_CONFIG", { offset: 0xffff_fffc, flags: 0, data: new Uint8Array(8) })),
  },
  {
    id: "config.lying-size",
    title: "GET_CONFIG whose size field exceeds its payload does no harm",
    section: GET,
    needs: config,
    run: async (trial) => {
      const bytes = encode("GET_CONFIG", { offset: 0, flags: 0, data: new Uint8Array(8) });
      new DataView(bytes.buffer).setUint32(4, 256, true);
      return await wrongPart(trial, bytes);
    },
  },
  {
    id: "config.read-only",
    title: "SET_CONFIG of a read-only field is not accepted",
    section: SET,
    devices: ["blk", "fs", "vsock"],
    writes: true,
    needs: config,
    run: async (trial): Promise<Finding | void> => {
      const peer = await trial.open();
      const before = await read(peer, 0, 8);
      // What stands there already, changed in its lowest bit.
      const data = before.slice();
      data[0] ^= 1;
      const reaction = await peer.attempt("SET_CONFIG", encode("SET_CONFIG", { offset: 0, flags: 0, data }));
      if (reaction === "closed") return pass("closes the connection");
      if (reaction === "dropped") fail("failure", "success, and then the end of the connection");
      const after = await read(peer, 0, 8);
      const changed = after.some((byte, i) => byte !== before[i]);
      if (changed) fail("the field to stay", "it has changed");
      if (reaction === "accepted") fail("failure: read-only fields must not be accepted", "success");
      if (reaction === "passed over") return pass("leaves it");
    },
  },
  {
    id: "config.set-beyond",
    title: "SET_CONFIG beyond the configuration space does no harm",
    section: SET,
    writes: true,
    needs: config,
    run: async (trial) => {
      const peer = await trial.open();
      const bytes = encode("SET_CONFIG", { offset: 0xffff_fff0, flags: 0, data: new Uint8Array(64) });
      return reactionFinding(await peer.attempt("SET_CONFIG", bytes));
    },
  },
  {
    id: "config.writeback",
    title: "The driver can switch the cache of a disk",
    section: virtio("5.2.5"),
    devices: ["blk"],
    writes: true,
    needs: { ...config, device: { CONFIG_WCE: 11, FLUSH: 9 } },
    run: async (trial) => {
      const peer = await trial.open();
      const at = blkConfig.offsets.writeback;
      // The whole: that parts are right is another case.
      const writeback = async () => (await read(peer, 0, lengthOf(trial)))[at];
      const before = await writeback();
      try {
        for (const mode of [1 - before, before]) {
          await peer.set("SET_CONFIG", { offset: at, flags: 0, data: Uint8Array.of(mode) });
          const now = await writeback();
          if (now !== mode) fail(`writeback ${mode}`, `${now}`);
        }
      } finally {
        await peer.tell("SET_CONFIG", { offset: at, flags: 0, data: Uint8Array.of(before) });
        await peer.answers().catch(() => {});
      }
    },
  },
];
