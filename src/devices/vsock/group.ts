/**
 * Guests that may reach each other.
 *
 * @module
 */

import type { VsockGuest } from "./guest.ts";

/** A device in a group. */
export interface Member {
  /** Its CID. */
  readonly guestCid: number;
  /** Its guest, while a front-end is connected. */
  readonly guest: VsockGuest | undefined;
}

const membersOf = new WeakMap<VsockGroup, Map<number, Member>>();

/**
 * Guests that may connect to each other, by CID: the devices that were given the same group. A device may be in several.
 * In the guest, that takes VMADDR_FLAG_TO_HOST in `svm_flags`, or a kernel that has no guests of its own.
 *
 * @example
 * ```ts
 * import { VsockDevice, VsockGroup } from "@vhost/user/devices/vsock";
 *
 * const groups = [new VsockGroup()];
 * const three = new VsockDevice({ guestCid: 3, groups });
 * const four = new VsockDevice({ guestCid: 4, groups });
 * three.close();
 * four.close();
 * ```
 */
export class VsockGroup {
  /** A group with nobody in it. */
  constructor() {
    membersOf.set(this, new Map());
  }

  /** The CIDs of those in it. */
  get cids(): number[] {
    return [...membersOf.get(this)?.keys() ?? []];
  }
}

/**
 * Joins all of some groups, or none.
 *
 * @throws {RangeError} when in one there is another with the same CID
 */
export function joinGroups(groups: readonly VsockGroup[], member: Member): void {
  const all = new Set(groups);
  for (const group of all) {
    if (membersOf.get(group)?.has(member.guestCid)) {
      throw new RangeError(`a guest with the CID ${member.guestCid} is in this group already`);
    }
  }
  for (const group of all) membersOf.get(group)?.set(member.guestCid, member);
}

/** Ends {@link joinGroups}. */
export function leaveGroups(groups: readonly VsockGroup[], member: Member): void {
  for (const group of groups) {
    const members = membersOf.get(group);
    if (members?.get(member.guestCid) === member) members.delete(member.guestCid);
  }
}

/** The guest that has a CID, in the first group that has one. */
export function findGuest(groups: readonly VsockGroup[], cid: number): VsockGuest | undefined {
  for (const group of groups) {
    const guest = membersOf.get(group)?.get(cid)?.guest;
    if (guest !== undefined) return guest;
  }
  return undefined;
}
