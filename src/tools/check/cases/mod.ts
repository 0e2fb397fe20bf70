/**
 * All cases, in the order in which they are tried.
 *
 * @module
 */

import type { Case } from "../case.ts";
import { badRingCases } from "./bad_rings.ts";
import { blkCases } from "./blk.ts";
import { brokenRingCases } from "./broken_rings.ts";
import { configCases } from "./config.ts";
import { deviceCases } from "./devices.ts";
import { formatCases } from "./formats.ts";
import { framingCases } from "./framing.ts";
import { memoryCases } from "./memory.ts";
import { messageCases } from "./messages.ts";
import { deviceStateCases } from "./device_state.ts";
import { migrationCases } from "./migration.ts";
import { ringStopCases } from "./ring_stops.ts";
import { slotCases } from "./slots.ts";
import { negotiationCases } from "./negotiation.ts";
import { ringCases } from "./rings.ts";
import { stateCases } from "./state.ts";
import { virtqueueCases } from "./virtqueue.ts";

/** A group of cases. */
export interface Group {
  /** What they are about. */
  readonly title: string;
  /** The cases. */
  readonly cases: readonly Case[];
}

/** All groups. */
export const groups: readonly Group[] = [
  { title: "Connections and framing", cases: framingCases },
  { title: "Negotiation", cases: negotiationCases },
  { title: "Messages, by the table", cases: messageCases },
  { title: "Memory", cases: [...memoryCases, ...slotCases] },
  { title: "Ring states", cases: [...ringCases, ...ringStopCases] },
  { title: "Rings set up wrongly", cases: badRingCases },
  { title: "Virtqueues", cases: virtqueueCases },
  { title: "Broken virtqueues", cases: brokenRingCases },
  { title: "Packed rings and other formats", cases: formatCases },
  { title: "Configuration space", cases: configCases },
  { title: "Status, reset, channel", cases: stateCases },
  { title: "Migration and more", cases: [...migrationCases, ...deviceStateCases] },
  { title: "Disks", cases: blkCases },
  { title: "Other devices", cases: deviceCases },
];

/** All cases. */
export const allCases: readonly Case[] = groups.flatMap(({ cases }) => cases);
