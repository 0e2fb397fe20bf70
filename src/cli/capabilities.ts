/**
 * `vhost-user capabilities`.
 *
 * @module
 */

import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import process from "node:process";
import { type Command, type Commands, firstSentence, loadAll, type Options, UsageError } from "./command.ts";
import { wordsBefore } from "./own_program.ts";
import { version } from "./version.ts";

/** The types of `VHostUserBackendType` (QEMU, docs/interop/vhost-user.json): only back-ends of these can be listed. */
const TYPES: ReadonlySet<string> = new Set(
  "9p balloon block caif console crypto gpu input net rng rpmsg rproc-serial scsi vsock fs".split(" "),
);

/** What is written: for management software to find a back-end by, and the program that it then starts. */
interface Entry {
  /** The command that it is about. */
  readonly name: string;
  /** The name of the file. */
  readonly file: string;
  /** `VhostUserBackend` of QEMU's docs/interop/vhost-user.json. */
  readonly description: {
    readonly description: string;
    readonly type: string;
    readonly binary: string;
    readonly tags: readonly string[];
  };
}

/** The entries of those commands that serve a device with a type that can be listed. */
function entriesOf(
  all: readonly (readonly [name: string, command: Command])[],
  priority: string,
  programs: string,
): Entry[] {
  return all.flatMap(([name, { summary, capabilities }]) =>
    capabilities === undefined || !TYPES.has(capabilities.type) ? [] : [{
      name,
      file: `${priority}-vhost-user-${name}.json`,
      description: {
        description: `@vhost/user: ${firstSentence(summary)}`,
        type: capabilities.type,
        binary: join(programs, `vhost-user-${name}`),
        tags: [`version=${version}`],
      },
    }]
  );
}

/** Leave to write, which this command alone needs. */
const WRITE = /^(--allow-write|-W)(=|$)/;

/** How this program was started, without the leave to write, for a script that stands elsewhere. */
function ownWords(): string[] {
  const words = wordsBefore().filter((word) => !WRITE.test(word));
  const script = words.pop();
  if (script === undefined) return [process.execPath];
  // A module of JSR or npm is named in the same way everywhere, a file is not.
  return [process.execPath, ...words, /^[a-z][a-z\d+.-]+:/.test(script) ? script : resolve(script)];
}

/** A word of a shell. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The program of an entry. */
function scriptOf(name: string, start: string): string {
  return `#!/bin/sh\n# Written by 'vhost-user capabilities'.\nexec ${start} ${name} "$@"\n`;
}

function write(path: string, text: string, mode: number): string {
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

function absolute(name: string, path: string): string {
  if (!isAbsolute(path)) throw new UsageError(`--${name} must be an absolute path, got '${path}'`);
  return path;
}

const options: Options = {
  "dir": {
    value: "DIR",
    offer: "directory",
    help: "Write the files into this directory: /usr/share/qemu/vhost-user for a package,\n" +
      "/etc/qemu/vhost-user for this machine, ~/.config/qemu/vhost-user for one user.",
  },
  "programs": {
    value: "DIR",
    offer: "directory",
    help: "Where the programs are that the files name, vhost-user-blk and so on (default /usr/libexec).\n" +
      "With --dir they are written, too: scripts that start this program.",
  },
  "start": {
    value: "COMMAND",
    help: "What the scripts start, as a shell reads it (default: what this program was started by).",
  },
  "priority": {
    value: "NN",
    help: "Two digits that the files' names begin with (default 50). The first that fits is taken.",
  },
  "root": {
    value: "DIR",
    offer: "directory",
    help: "Write below this directory as if it were the root: for making a package.",
  },
};

/** Prints or installs the files by which management software finds the back-ends. */
export function capabilitiesOf(commands: Commands): Command {
  return {
    summary:
      "Describes the devices to management software. These are the files of /usr/share/qemu/vhost-user (QEMU's\n" +
      "docs/interop/vhost-user.json): without --dir they are printed as one object, by file name.",
    options,
    examples: [
      ["vhost-user capabilities", "Prints what would be written."],
      [
        "vhost-user capabilities --dir=/etc/qemu/vhost-user --programs=/usr/local/libexec",
        "Installs the files and programs on this machine.",
      ],
      [
        'vhost-user capabilities --root="$PWD/package" --dir=/usr/share/qemu/vhost-user --start=/usr/bin/vhost-user',
        "Puts them into a package that has vhost-user in /usr/bin.",
      ],
    ],
    permissions: [{ flags: ["--allow-write=DIR,DIR"], when: "--dir=DIR, with the directory of --programs" }],
    run: async ({ dir, programs = "/usr/libexec", start, priority = "50", root = "/" }, output) => {
      if (!/^\d\d$/.test(String(priority))) {
        throw new UsageError(`--priority must be two digits, got '${priority}'`);
      }
      const program = absolute("programs", String(programs));
      const entries = entriesOf(await loadAll(commands), String(priority), program);
      if (dir === undefined) {
        const files = entries.map(({ file, description }) => [file, description] as const);
        output.out(JSON.stringify(Object.fromEntries(files), null, 2));
        return 0;
      }
      const words = start === undefined ? ownWords().map(quoted).join(" ") : String(start);
      const [files, scripts] = [absolute("dir", String(dir)), program].map((path) =>
        join(String(root), path)
      );
      mkdirSync(files, { recursive: true });
      mkdirSync(scripts, { recursive: true });
      for (const { name, file, description } of entries) {
        output.out(write(join(scripts, `vhost-user-${name}`), scriptOf(name, words), 0o755));
        output.out(write(join(files, file), `${JSON.stringify(description, null, 2)}\n`, 0o644));
      }
      return 0;
    },
  };
}
