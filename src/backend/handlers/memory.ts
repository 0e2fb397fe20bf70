/**
 * Guest memory: the table, slots, and its arrival by postcopy.
 *
 * @module
 */

import type { RegionSource } from "../../memory/guest_memory.ts";
import type { Region } from "../../memory/region.ts";
import { FieldError } from "../../protocol/error.ts";
import type { frontendMessages } from "../../protocol/messages.ts";
import { type Iotlb, IotlbType, type MemoryRegion } from "../../protocol/payloads.ts";
import { type Handlers, Reply } from "../../transport/responder.ts";
import { MAX_MEM_SLOTS, type SessionState } from "../session_state.ts";

/** A plain number of a 64-bit field. No machine has as much memory as 2^53. */
function plain(field: string, value: bigint): number {
  if (value >= 1n << 53n) throw new FieldError(field, "below 2^53", value);
  return Number(value);
}

function source(region: MemoryRegion, fd: number, accessible = true): RegionSource {
  return {
    guestAddress: plain("guest address", region.guestAddress),
    size: plain("region size", region.size),
    userAddress: plain("user address", region.userAddress),
    mmapOffset: plain("mmap offset", region.mmapOffset),
    fd,
    accessible,
  };
}

/** A region with the address that it has here, for a front-end that resolves our page faults. */
function ours(region: Region): MemoryRegion {
  return {
    guestAddress: BigInt(region.guestAddress),
    size: BigInt(region.size),
    userAddress: BigInt(region.hostAddress),
    mmapOffset: BigInt(region.mmapOffset),
  };
}

/** The handlers. */
export function memoryHandlers(state: SessionState): Handlers<typeof frontendMessages> {
  const { memory, postcopy } = state;
  return {
    SET_MEM_TABLE: (regions, fds) => {
      if (fds.length !== regions.length) {
        throw new FieldError("descriptors", `one for each of ${regions.length} regions`, fds.length);
      }
      if (postcopy.listening && regions.length === 0) return postcopy.acknowledged();
      const files = fds.list();
      const sources = regions.map((region, i) => source(region, files[i], !postcopy.listening));
      state.changeMemory(() => memory.replace(sources));
      if (!postcopy.listening) return;
      postcopy.await(memory.regions);
      const byGuest = new Map(memory.regions.map((region) => [region.guestAddress, region]));
      return new Reply(sources.map(({ guestAddress }) => ours(byGuest.get(guestAddress) as Region)));
    },
    GET_MAX_MEM_SLOTS: () => BigInt(MAX_MEM_SLOTS),
    ADD_MEM_REG: (region, fds) => {
      if (region === undefined) {
        if (!postcopy.listening) {
          throw new FieldError("payload", "a region, unless postcopy arrives", "8 bytes");
        }
        return postcopy.acknowledged();
      }
      const [fd] = fds.list();
      if (fd === undefined) throw new FieldError("descriptors", "1", 0);
      const added = memory.add(source(region, fd, !postcopy.listening));
      if (!postcopy.listening) return;
      postcopy.await([added]);
      return new Reply(ours(added));
    },
    REM_MEM_REG: (region) => {
      state.changeMemory(() => {
        memory.remove(source(region, -1));
        return true;
      });
    },
    IOTLB_MSG: (message) => iotlbMessage(state, message),
    POSTCOPY_ADVISE: () => new Reply<void>(undefined, [postcopy.advise()]),
    POSTCOPY_LISTEN: () => postcopy.listen(memory.regions.length),
    POSTCOPY_END: () => postcopy.end(),
  };
}

/** The largest address that a number holds exactly, and one more: ranges of a whole address space end here. */
const END = 2 ** 53;

function iotlbMessage(state: SessionState, message: Iotlb): void | Promise<void> {
  const iova = plain("iova", message.iova);
  const size = Math.min(Number(message.size), END - iova);
  if (message.type === IotlbType.UPDATE) {
    if (size === 0) throw new FieldError("size", "more than 0", 0);
    const address = plain("user address", message.userAddress);
    state.iotlb.update({ iova, size, address, permission: message.permission });
    state.iotlbChanged();
    return;
  }
  if (message.type !== IotlbType.INVALIDATE) {
    throw new FieldError(
      "type",
      `${IotlbType.UPDATE} (update) or ${IotlbType.INVALIDATE} (invalidate)`,
      message.type,
    );
  }
  const invalidate = (): void => {
    if (state.iotlb.invalidate(iova, size)) state.memoryChanged();
    for (const vring of state.vrings) vring.resume();
  };
  // The answer says that nothing uses the range any more: no request that is under way, on any ring.
  const pending = state.vrings.flatMap((vring) => vring.quiesce() ?? []);
  if (pending.length === 0) return invalidate();
  return Promise.all(pending).then(invalidate);
}
