import { provenProtocol, provenRing } from "./rules.ts";
import type { CodecRecord, SessionRecord, Side } from "./record.ts";

/** The tables of the documentation. */
export const KINDS = [
  "front-end messages",
  "back-end messages",
  "protocol features",
  "ring features",
] as const;

/** One of the tables. */
export type Kind = (typeof KINDS)[number];

/** The peers that have proven something, each with the test in which they did. */
export type Proofs = Readonly<Record<string, string>>;

/** What is claimed of a row. */
export interface Claim {
  /** Of a message: whether its bytes, written by hand, were read and written. */
  readonly codec?: true;
  /** Peers of our back-end. */
  readonly "back-end"?: Proofs;
  /** Peers of our front-end. */
  readonly "front-end"?: Proofs;
}

/** Everything that is claimed: by kind of row, then by name. This is what is committed. */
export type Claims = Readonly<Record<Kind, Readonly<Record<string, Claim>>>>;

/** What a run has seen. */
export class Sightings {
  /** Tests by kind, name, side and peer. */
  readonly #tests = new Map<string, Set<string>>();
  readonly #codec = new Map<string, Set<string>>();
  readonly #offered = { "protocol features": 0n, "ring features": 0n };

  /**
   * Takes the lines of a run.
   *
   * @param label a peer by name and version; `undefined` for one that does not count
   */
  constructor(
    sessions: readonly SessionRecord[],
    codec: readonly CodecRecord[],
    label: (peer: SessionRecord["peer"]) => string | undefined,
  ) {
    for (const session of sessions) {
      const peer = label(session.peer);
      if (peer === undefined) continue;
      const see = (kind: Kind, names: readonly string[]): void => {
        for (const name of names) add(this.#tests, key(kind, name, session.side, peer), session.test);
      };
      see("front-end messages", session.main);
      see("back-end messages", session.channel);
      see("protocol features", provenProtocol(session));
      see("ring features", provenRing(session));
      if (session.side !== "back-end") continue;
      this.#offered["ring features"] |= BigInt(session.offered);
      this.#offered["protocol features"] |= BigInt(session.offeredProtocol);
    }
    for (const { from, message, part } of codec) add(this.#codec, key(`${from} messages`, message), part);
  }

  /** The features that a back-end of ours was seen to offer. */
  offered(kind: "protocol features" | "ring features"): bigint {
    return this.#offered[kind];
  }

  /** The tests in which a peer has proven something. */
  tests(kind: Kind, name: string, side: Side, peer: string): ReadonlySet<string> {
    return this.#tests.get(key(kind, name, side, peer)) ?? new Set();
  }

  /** Whether both halves of a message were read and written. */
  codec(kind: Kind, name: string): boolean {
    return this.#codec.get(key(kind, name))?.size === 2;
  }

  /** Every peer seen, ours among them. */
  get peers(): string[] {
    return [...new Set([...this.#tests.keys()].map((each) => each.split("|")[3]))].sort();
  }

  /**
   * What can be claimed: of every row and peer one test, the one of `before` if it has been seen again.
   *
   * @param rows the rows of each kind
   */
  claims(rows: Readonly<Record<Kind, readonly string[]>>, before?: Claims): Claims {
    const proofs = (kind: Kind, name: string, side: Side): [] | [[Side, Proofs]] => {
      const found = this.peers.flatMap((peer) => {
        const tests = this.tests(kind, name, side, peer);
        const known = before?.[kind]?.[name]?.[side]?.[peer];
        const test = known !== undefined && tests.has(known) ? known : [...tests].sort()[0];
        return test === undefined ? [] : [[peer, test]];
      });
      return found.length === 0 ? [] : [[side, Object.fromEntries(found)]];
    };
    const claim = (kind: Kind, name: string): Claim => ({
      ...this.codec(kind, name) ? { codec: true } : {},
      ...Object.fromEntries([...proofs(kind, name, "back-end"), ...proofs(kind, name, "front-end")]),
    });
    return Object.fromEntries(
      KINDS.map((kind) => [kind, Object.fromEntries(rows[kind].map((name) => [name, claim(kind, name)]))]),
    ) as unknown as Claims;
  }
}

function key(...parts: string[]): string {
  return parts.join("|");
}

function add(map: Map<string, Set<string>>, at: string, value: string): void {
  const known = map.get(at);
  if (known === undefined) map.set(at, new Set([value]));
  else known.add(value);
}
