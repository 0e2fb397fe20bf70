/**
 * The messages that start and stop a ring.
 *
 * @module
 */

import { signal } from "../../ffi/eventfd.ts";
import { has, ringFeatures } from "../protocol/features.ts";
import type { GuestRing, RingPlace } from "./guest_ring.ts";
import type { FrontEndSession } from "./session.ts";

/** Ring addresses are this process's, or the guest's (vhost-user, "Ring addresses"); our IOMMU maps one to one. */
function ringAddress(session: FrontEndSession, { guestAddress, userAddress }: RingPlace): bigint {
  const guest = session.negotiated("GPA_ADDRESSES") || session.accepted("ACCESS_PLATFORM");
  return guest ? BigInt(guestAddress) : userAddress;
}

async function setDescriptor(
  session: FrontEndSession,
  name: "SET_VRING_ERR" | "SET_VRING_CALL" | "SET_VRING_KICK",
  index: number,
  fd: number,
): Promise<void> {
  await session.request(name, { index, noDescriptor: fd < 0 }, fd < 0 ? [] : [fd]);
}

/** Starts a ring, whose memory is shared, where it stands. */
export async function startRing(session: FrontEndSession, ring: GuestRing): Promise<void> {
  const { index, kick } = ring;
  await session.request("SET_VRING_NUM", { index, num: ring.size });
  await session.request("SET_VRING_BASE", { index, num: ring.base });
  if (ring.endianness === "big") await session.request("SET_VRING_ENDIAN", { index, num: 1 });
  await session.request("SET_VRING_ADDR", {
    index,
    flags: 0,
    descriptor: ringAddress(session, ring.descriptor),
    used: ringAddress(session, ring.used),
    available: ringAddress(session, ring.available),
    log: 0n,
  });
  // A descriptor wins over messages, so there must be none where messages are wanted.
  const inBand = kick < 0 && session.negotiated("INBAND_NOTIFICATIONS");
  if (!inBand) {
    await setDescriptor(session, "SET_VRING_ERR", index, ring.error);
    await setDescriptor(session, "SET_VRING_CALL", index, ring.call);
    await setDescriptor(session, "SET_VRING_KICK", index, kick);
  }
  if (has(session.features, ringFeatures.PROTOCOL_FEATURES)) {
    await session.request("SET_VRING_ENABLE", { index, num: 1 });
  }
  // Something may be in the ring already; older back-ends start at the first kick only.
  if (inBand) await session.request("VRING_KICK", { index, num: 0 });
  else if (kick >= 0) signal(kick);
}

/** Stops a ring: the back-end finishes what it has. Returns the position from which it would go on. */
export async function stopRing(session: FrontEndSession, index: number): Promise<number> {
  const { value } = await session.request("GET_VRING_BASE", { index, num: 0 });
  return value.num;
}
