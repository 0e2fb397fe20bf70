import {
  protocolFeatureAliases,
  protocolFeatures,
  ringFeatureAliases,
  ringFeatures,
} from "../../src/protocol/features.ts";
import { backendMessages, frontendMessages, type MessageTable } from "../../src/protocol/messages.ts";
import type { Kind } from "./claims.ts";

/** A row of the documentation. */
export interface Row {
  /** Number of the message or the bit. */
  readonly id: number;
  /** Its name. */
  readonly name: string;
  /** Other names. */
  readonly aliases: readonly string[];
}

function messages(table: MessageTable): Row[] {
  return Object.entries(table).map(([name, { id, aliases = [] }]) => ({ id, name, aliases }));
}

function features(
  bits: Readonly<Record<string, number>>,
  aliases: Readonly<Record<string, readonly string[] | undefined>>,
): Row[] {
  return Object.entries(bits).map(([name, id]) => ({ id, name, aliases: aliases[name] ?? [] }));
}

/** Every row, from the tables that the library itself works by. */
export const rows: Readonly<Record<Kind, readonly Row[]>> = {
  "front-end messages": messages(frontendMessages),
  "back-end messages": messages(backendMessages),
  "protocol features": features(protocolFeatures, protocolFeatureAliases),
  "ring features": features(ringFeatures, ringFeatureAliases),
};
