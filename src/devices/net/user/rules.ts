/**
 * Which machines a guest may reach.
 *
 * @module
 */

import { parseAddress } from "./packet.ts";

/** Where a call that is allowed goes. */
export interface Target {
  /** Name or address. */
  readonly host: string;
  /** The port. */
  readonly port: number;
  /**
   * Whether the rule names exactly this machine. Otherwise it was the guest who chose, and it must not be led to what only this
   * machine can reach.
   */
  readonly exact: boolean;
}

interface Rule {
  /** All names; a name; the end of one, with its dot; or a range of addresses. */
  readonly kind: "all" | "name" | "suffix" | "range";
  readonly name: string;
  readonly address: number;
  readonly bits: number;
  /** 0 for all. */
  readonly port: number;
  readonly target: { readonly host: string; readonly port: number } | undefined;
}

const NAME = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*$/;

function wrong(rule: string): never {
  throw new TypeError(
    "a rule must be NAME, *.NAME, * or ADDRESS[/BITS], then :PORT, then =HOST[:PORT] where that goes elsewhere; " +
      `got ${JSON.stringify(rule)}`,
  );
}

function portOf(text: string | undefined, rule: string): number {
  if (text === undefined) return 0;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  return port >= 1 && port <= 65535 ? port : wrong(rule);
}

function parse(rule: string): Rule {
  const [left, right, ...more] = rule.toLowerCase().split("=");
  const [host, port, ...rest] = left.split(":");
  const [place, placePort, ...others] = right?.split(":") ?? [];
  if (more.length + rest.length + others.length > 0 || (right !== undefined && place === "")) wrong(rule);
  const target = right === undefined ? undefined : { host: place, port: portOf(placePort, rule) };
  const common = { name: "", address: 0, bits: 0, port: portOf(port, rule), target };
  if (host === "*") return { ...common, kind: "all" };
  const [first, bits, ...tooMany] = host.split("/");
  const address = parseAddress(first);
  if (address !== undefined) {
    const size = bits === undefined ? 32 : /^\d{1,2}$/.test(bits) ? Number(bits) : NaN;
    if (!(size >= 0 && size <= 32) || tooMany.length > 0) wrong(rule);
    return { ...common, kind: "range", address, bits: size };
  }
  const suffix = host.startsWith("*.");
  const name = suffix ? host.slice(2) : host;
  if (!NAME.test(name)) wrong(rule);
  return { ...common, kind: suffix ? "suffix" : "name", name: suffix ? `.${name}` : name };
}

/**
 * An allow-list: what no rule names is refused. Rules are
 *
 * - `example.com`: this name, at all ports; `example.com:443`: at one,
 * - `*.example.com`: all names below it, but not it itself,
 * - `192.0.2.1`, `192.0.2.0/24`: addresses,
 * - `*`: everything.
 *
 * Behind `=` may stand where that leads: `api.test:80=127.0.0.1:8080`. The first rule that fits counts.
 */
export class AllowList {
  readonly #rules: readonly Rule[];

  /**
   * A list of rules.
   *
   * @throws {TypeError} for what is no rule
   */
  constructor(rules: readonly string[]) {
    this.#rules = rules.map(parse);
  }

  /** Whether there is such a name, at any port. */
  knows(name: string): boolean {
    return this.#rules.some((rule) => fitsName(rule, name));
  }

  /** Where a call goes, or `undefined` when it is to be refused. */
  find(host: string | undefined, address: string, port: number): Target | undefined {
    const number = parseAddress(address) ?? 0;
    for (const rule of this.#rules) {
      if (rule.port !== 0 && rule.port !== port) continue;
      if (host === undefined ? !fitsAddress(rule, number) : !fitsName(rule, host)) continue;
      const { target, kind } = rule;
      if (target !== undefined) return { host: target.host, port: target.port || port, exact: true };
      return {
        host: host ?? address,
        port,
        exact: kind === "name" || (kind === "range" && rule.bits === 32),
      };
    }
    return undefined;
  }
}

function fitsName({ kind, name }: Rule, host: string): boolean {
  return kind === "all" || (kind === "name" && host === name) || (kind === "suffix" && host.endsWith(name));
}

function fitsAddress({ kind, address, bits }: Rule, called: number): boolean {
  if (kind === "all") return true;
  return kind === "range" && (bits === 0 || (address ^ called) >>> 32 - bits === 0);
}

/** Whether an address is of this machine, its links, or no machine in particular: not for who may call anything. */
export function isInternal(address: string): boolean {
  const number = parseAddress(address.replace(/^::ffff:/i, ""));
  if (number === undefined) {
    // Loopback, unspecified, link-local, unique local.
    return /^(::1?$|fe[89ab]|f[cd])/i.test(address);
  }
  const first = number >>> 24;
  return first === 127 || first === 0 || first === 10 || first >= 224 ||
    number >>> 16 === 0xa9fe || number >>> 20 === 0xac1 || number >>> 16 === 0xc0a8 ||
    number >>> 17 === 0x6309;
}
