/**
 * A process gives up all that it does not need any more: seccomp and Landlock together.
 *
 * @module
 */

import { type FileNeed, landlockReachesThreads, landlockVersion, restrictFiles } from "./landlock.ts";
import { Reactor } from "./reactor.ts";
import { filterCalls, seccompAvailable } from "./seccomp.ts";

export type { FileAccess, FileNeed } from "./landlock.ts";

/** What a program still needs, once its files are open and its sockets listen. By default nothing. */
export interface Needs {
  /** Files that it opens or removes; `"any"` for all that its user may. */
  readonly files?: readonly FileNeed[] | "any";
  /** Whether it makes Unix sockets, listens on them or connects them. */
  readonly unix?: boolean;
  /** Whether it makes Internet sockets, and asks for names. What the resolver of names reads is added to `files`. */
  readonly inet?: boolean;
  /** Whether it starts programs. Nobody knows what those need: only what is dangerous is refused then. */
  readonly programs?: boolean;
}

/** What has been given up. */
export interface Confined {
  /** Whether the system calls of all threads are filtered. */
  readonly calls: boolean;
  /** Whether files are out of reach by the filter as well, hence for all threads. */
  readonly noFiles: boolean;
  /** Version of Landlock that restricts files; 0 for none. */
  readonly landlock: number;
  /** Whether Landlock reaches all threads, or just the calling one and those that it starts. */
  readonly everyThread: boolean;
}

/** What the C library reads to find the address of a name (`getaddrinfo(3)`, nsswitch.conf(5)). */
const RESOLVER: readonly FileNeed[] = [
  ...[
    "resolv.conf",
    "hosts",
    "host.conf",
    "nsswitch.conf",
    "gai.conf",
    "services",
    "protocols",
    "ld.so.cache",
  ]
    .map((name) => `/etc/${name}`),
  ...["/lib", "/lib64", "/usr/lib", "/usr/lib64"],
].map((path) => ({ path, access: "read" }));

/** A decision about what a process may still do. */
export class Confinement {
  /** What is left. */
  readonly needs: Needs;

  /** Decides; nothing has happened yet. */
  constructor(needs: Needs) {
    const { inet = false, programs = false } = needs;
    const files = programs ? "any" : needs.files ?? [];
    this.needs = { ...needs, files: files === "any" || !inet ? files : [...files, ...RESOLVER] };
  }

  /** Whether something of the kernel's is missing for it; what, for people. */
  static missing(): string | undefined {
    const missing = [
      ...seccompAvailable() ? [] : ["seccomp filters"],
      ...landlockVersion() > 0 ? [] : ["Landlock"],
    ];
    return missing.length === 0 ? undefined : missing.join(" and ");
  }

  /**
   * Gives the rest up, for good, as far as the kernel can. Before that it starts the thread in which the shared reactor
   * sleeps, which could not be started well afterwards.
   *
   * @throws {OsError} when the kernel has a means and refuses it
   */
  async enter(): Promise<Confined> {
    await Reactor.shared().prepare();
    const { files = [], unix = false, inet = false, programs = false } = this.needs;
    const version = files === "any" ? 0 : landlockVersion();
    // Before the filter, which does not let it through.
    if (files !== "any" && version > 0) restrictFiles(files);
    const calls = seccompAvailable();
    const opens = files === "any" || files.some(({ access }) => access !== "remove");
    const removes = files === "any" || files.some(({ access }) => access === "remove");
    if (calls) {
      filterCalls(
        programs ? { groups: ["dangerous"], others: true, unix, inet } : {
          groups: [
            ...unix || inet ? ["connecting"] as const : [],
            ...opens ? ["opening"] as const : [],
            ...removes ? ["removing"] as const : [],
            ...files === "any" ? ["naming"] as const : [],
          ],
          others: false,
          unix,
          inet,
        },
      );
    }
    return {
      calls,
      noFiles: calls && !opens,
      landlock: version,
      everyThread: landlockReachesThreads(version),
    };
  }
}
