import { has } from "../../src/protocol/features.ts";
import { type Claim, type Claims, type Kind, KINDS, type Sightings } from "./claims.ts";
import { type Exception, exceptions } from "./rules.ts";
import { rows } from "./rows.ts";

/** Why a row need not be proven by a real peer, if that is so. */
export function exceptionOf(kind: Kind, name: string): Exception | undefined {
  return (exceptions[kind] as Readonly<Record<string, Exception>>)[name];
}

/** The peers of both sides that are not ourselves. */
function realPeers(claim: Claim): string[] {
  return [...new Set([...Object.keys(claim["back-end"] ?? {}), ...Object.keys(claim["front-end"] ?? {})])]
    .filter((peer) => peer !== "ours");
}

/** What is missing in a row: nothing if all is well. */
function gaps(kind: Kind, name: string, claim: Claim): string[] {
  const exception = exceptionOf(kind, name);
  const real = realPeers(claim);
  if (exception !== undefined && real.length > 0) {
    return [`${exception.kind}, says tests/coverage/rules.ts, but ${real.join(", ")} has proven it`];
  }
  return [
    ...kind.endsWith("messages") && claim.codec !== true ? ["no codec"] : [],
    ...exception?.kind === "not offered" ? [] : [
      ...claim["back-end"] === undefined ? ["nobody has used it with our back-end"] : [],
      ...claim["front-end"] === undefined ? ["nobody has used it with our front-end"] : [],
    ],
    ...exception === undefined && real.length === 0 ? ["no real peer has proven it"] : [],
  ];
}

/** Rows that are empty or not what they say, in words. */
export function emptyRows(claims: Claims): string[] {
  return KINDS.flatMap((kind) =>
    rows[kind].flatMap(({ name }) =>
      gaps(kind, name, claims[kind]?.[name] ?? {}).map((gap) => `${kind}: ${name}: ${gap}`)
    )
  );
}

/** Claims that a run has not seen again, and features that it has seen and should not have, in words. */
export function broken(claims: Claims, seen: Sightings): string[] {
  const found: string[] = [];
  for (const kind of KINDS) {
    const names = rows[kind].map(({ name }) => name);
    for (const [name, claim] of Object.entries(claims[kind] ?? {})) {
      if (!names.includes(name)) found.push(`${kind}: ${name}: there is no such row`);
      if (claim.codec === true && !seen.codec(kind, name)) {
        found.push(`${kind}: ${name}: codec was not seen again`);
      }
      for (const side of ["back-end", "front-end"] as const) {
        for (const [peer, test] of Object.entries(claim[side] ?? {})) {
          if (seen.tests(kind, name, side, peer).has(test)) continue;
          found.push(`${kind}: ${name}: our ${side} with ${peer} was not seen again in tests/${test}`);
        }
      }
    }
    if (kind !== "protocol features" && kind !== "ring features") continue;
    for (const { name, id } of rows[kind]) {
      if (exceptionOf(kind, name)?.kind !== "not offered" || !has(seen.offered(kind), id)) continue;
      found.push(`${kind}: ${name}: not offered, says tests/coverage/rules.ts, but it was`);
    }
  }
  return found;
}
