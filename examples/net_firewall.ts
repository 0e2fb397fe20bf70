/**
 * A network with a firewall in TypeScript: each guest has a socket and rules of its own, by name and port, for what it may
 * call. Without a rule that allows it, nothing is reached and no name exists.
 *
 *     deno run --allow-ffi --allow-net examples/net_firewall.ts
 *
 * has the rules in {@link RULES} below, and the sockets `/tmp/firewall-build.sock` and `/tmp/firewall-web.sock`. Others are
 * given by `--rule`, and `--stats` serves what was counted as JSON:
 *
 *     deno run --allow-ffi --allow-net examples/net_firewall.ts --rule='* deny *:25' --rule='shop allow *.example.com:443' \
 *       --rule='shop allow api.test:80=127.0.0.1:8080' --stats=9465
 *
 * With `--help` it says how rules are written. Each call and each name that is refused is a line of the log, with the rule
 * that decided. In a guest, DHCP gives the address and the name server.
 *
 * **How.** A guest's TCP connections end in this process, which knows them by the name that the guest has asked for: a name
 * has an address of its own in each guest. `UserNetwork` hands each to a function, `proxy` continues it by a socket of this
 * machine, and this file decides and counts. Rules that name no single machine never lead to this machine or to private networks.
 *
 * **Limits.** TCP over IPv4 only: no UDP but DHCP and DNS, so no QUIC (browsers then use TCP), no `ping` but of the gateway.
 * Rules see names and ports; what is said inside a connection they do not. A guest is whoever has its socket.
 *
 * @module
 */

import { createServer } from "node:http";
import process from "node:process";
import { parseArgs } from "node:util";
import { serve } from "@vhost/user";
import {
  AllowList,
  type GuestConnection,
  NetDevice,
  proxy,
  type Target,
  UserNetwork,
} from "@vhost/user/devices/net";

/** GUEST ACTION WHERE; the first rule that fits a call decides. */
const RULES = [
  // Nobody sends mail.
  "* deny *:25",
  // A machine that builds: its packages, and nothing else.
  "build allow deb.debian.org:80",
  "build allow registry.npmjs.org:443",
  // A machine to browse with, but not there.
  "web deny *.example.com",
  "web allow *:80",
  "web allow *:443",
];

const HELP = `Usage: deno run --allow-ffi --allow-net examples/net_firewall.ts [options]

Serves a network for each guest that rules name, with nothing in it but what they allow.

  --rule='GUEST ACTION WHERE'
               A rule, several times; without any, those in the file. GUEST is a name, or * for all guests; ACTION is
               allow or deny; WHERE is a NAME, *.NAME (what is below it), ADDRESS, ADDRESS/BITS or *, then :PORT for one
               port only, then =HOST or =HOST:PORT to lead it elsewhere. The first that fits counts, * among the others.
  --folder=DIR Where the sockets are: DIR/firewall-GUEST.sock; /tmp by default.
  --stats=PORT Serve what was counted at http://127.0.0.1:PORT/.
  --quiet      Do not log what is allowed.
  --help       Print this text.`;

/** A rule, and how often it has decided. */
interface Rule {
  readonly text: string;
  readonly allow: boolean;
  /** It alone: what it says of names and addresses is said in one place of the toolkit. */
  readonly list: AllowList;
  calls: number;
}

/** What there is to know of a guest. */
interface Counts {
  names: number;
  refusedNames: number;
  connections: number;
  refused: number;
  bytesSent: number;
  bytesReceived: number;
}

/** The rules of a guest, as `proxy` asks for them. */
class Firewall extends AllowList {
  readonly guest: string;
  readonly rules: readonly Rule[];
  readonly counts: Counts = {
    names: 0,
    refusedNames: 0,
    connections: 0,
    refused: 0,
    bytesSent: 0,
    bytesReceived: 0,
  };
  readonly #quiet: boolean;

  constructor(guest: string, rules: readonly Rule[], quiet: boolean) {
    super([]);
    this.guest = guest;
    this.rules = rules;
    this.#quiet = quiet;
  }

  /** The guest asks for a name: it exists where some port of it may be called. */
  override knows(name: string): boolean {
    const known = this.rules.some(({ allow, list }) => allow && list.knows(name));
    this.counts[known ? "names" : "refusedNames"]++;
    if (!known) this.#log("no name", name, "no rule");
    return known;
  }

  /** The guest calls. */
  override find(host: string | undefined, address: string, port: number): Target | undefined {
    for (const rule of this.rules) {
      const target = rule.list.find(host, address, port);
      if (target === undefined) continue;
      rule.calls++;
      return this.#decided(rule.allow ? target : undefined, `${host ?? address}:${port}`, `'${rule.text}'`);
    }
    return this.#decided(undefined, `${host ?? address}:${port}`, "no rule");
  }

  #decided(target: Target | undefined, called: string, by: string): Target | undefined {
    this.counts[target === undefined ? "refused" : "connections"]++;
    if (target === undefined || !this.#quiet) {
      this.#log(target === undefined ? "refused" : "allowed", called, by);
    }
    return target;
  }

  #log(what: string, called: string, by: string): void {
    console.log(`${new Date().toISOString()} ${this.guest}: ${what} ${called} by ${by}`);
  }

  /** A call whose bytes are counted. */
  counted(connection: GuestConnection): GuestConnection {
    const counting = (
      key: "bytesSent" | "bytesReceived",
    ): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> =>
      new TransformStream({
        transform: (bytes, next) => {
          this.counts[key] += bytes.length;
          next.enqueue(bytes);
        },
      });
    return {
      ...connection,
      accept: () => {
        const { readable, writable } = connection.accept();
        const received = counting("bytesReceived");
        // How that ends, both of its ends learn.
        received.readable.pipeTo(writable).catch(() => {});
        return { readable: readable.pipeThrough(counting("bytesSent")), writable: received.writable };
      },
    };
  }
}

/** Makes each guest's firewall of rules as they are written. */
function firewalls(texts: readonly string[], quiet: boolean): Firewall[] {
  const rules = texts.map((text) => {
    const [, guest, action, where] =
      /^([\w-]+|\*) (allow|deny) (\S+)$/.exec(text.trim().replace(/\s+/g, " ")) ?? [];
    if (where === undefined) throw new TypeError(`a rule must be GUEST allow|deny WHERE, got '${text}'`);
    return { guest, text, allow: action === "allow", list: new AllowList([where]) };
  });
  const guests = new Set(rules.map(({ guest }) => guest).filter((guest) => guest !== "*"));
  if (guests.size === 0) throw new TypeError("no rule names a guest");
  return [...guests].map((name) => {
    const own = rules.filter(({ guest }) => guest === name || guest === "*");
    return new Firewall(name, own.map(({ text, allow, list }) => ({ text, allow, list, calls: 0 })), quiet);
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rule: { type: "string", multiple: true, default: RULES },
      folder: { type: "string", default: "/tmp" },
      stats: { type: "string" },
      quiet: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(HELP);
  const walls = firewalls(values.rule, values.quiet);
  for (const wall of walls) {
    // What was allowed may come to nothing: a name that is not there, a machine that does not answer or is not to be reached.
    const handle = proxy(wall, (text) => {
      if (!/^connected |: no rule allows it$/.test(text)) console.log(`${wall.guest}: ${text}`);
    });
    const network = new UserNetwork({
      names: (name) => wall.knows(name),
      onConnection: (connection) => handle(wall.counted(connection)),
      onError: (error) => console.error(`${wall.guest}: ${(error as Error).message}`),
    });
    const socketPath = `${values.folder}/firewall-${wall.guest}.sock`;
    await serve(new NetDevice({ network }), { socketPath });
    console.log(`${wall.guest}: ${wall.rules.length} rules, ${socketPath}`);
  }
  if (values.stats === undefined) return;
  const server = createServer((_, response) => {
    const all = walls.map(({ guest, counts, rules }) => [
      guest,
      { ...counts, rules: rules.map(({ text, calls }) => ({ rule: text, calls })) },
    ]);
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify(Object.fromEntries(all), undefined, 2)}\n`);
  });
  server.listen(Number(values.stats), "127.0.0.1", () => {
    const address = server.address();
    if (typeof address === "object") console.log(`counts at http://127.0.0.1:${address?.port}/`);
  });
}

try {
  await main();
} catch (error) {
  console.error(`net_firewall: ${(error as Error).message}`);
  process.exit(2);
}
