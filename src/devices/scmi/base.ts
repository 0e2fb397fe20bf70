/**
 * The base protocol: who is there.
 *
 * @module
 */

import { ScmiError, type ScmiProtocol, ScmiStatus } from "./protocol.ts";

/** Number of the base protocol. */
export const BASE = 0x10;

const VENDOR = "vhost-user";
const AGENT = "guest";
/** This agent, whatever its number. */
const OWN = 0xffff_ffff;

/** The base protocol, version 2.0, of a platform with these other protocols and one agent. */
export function baseProtocol(others: readonly ScmiProtocol[]): ScmiProtocol {
  return {
    id: BASE,
    version: 0x2_0000,
    attributes: () => [1 << 8 | others.length],
    messages: {
      // BASE_DISCOVER_VENDOR
      3: () => [VENDOR],
      // BASE_DISCOVER_SUB_VENDOR
      4: () => [VENDOR],
      // BASE_DISCOVER_IMPLEMENTATION_VERSION
      5: () => [1],
      // BASE_DISCOVER_LIST_PROTOCOLS: numbers of a byte, four to a word
      6: (parameters, room) => {
        const skip = parameters.u32();
        if (skip > others.length) throw new ScmiError(ScmiStatus.INVALID_PARAMETERS);
        const most = 4 * Math.max(0, Math.floor((room - 4) / 4));
        const ids = others.slice(skip, skip + most).map(({ id }) => id);
        const words = Array.from(
          { length: Math.ceil(ids.length / 4) },
          (_, i) => ids.slice(4 * i, 4 * i + 4).reduce((word, id, k) => word | id << 8 * k, 0) >>> 0,
        );
        return [ids.length, ...words];
      },
      // BASE_DISCOVER_AGENT: 0 is the platform
      7: (parameters) => {
        const agent = parameters.u32();
        if (agent === 0) return [0, "platform"];
        if (agent === 1 || agent === OWN) return [1, AGENT];
        throw new ScmiError(ScmiStatus.NOT_FOUND);
      },
    },
  };
}
