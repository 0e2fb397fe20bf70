/**
 * `vhost-user man`.
 *
 * @module
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, type Commands, loadAll } from "./command.ts";
import { commandPage, type Page, programPage } from "./roff.ts";

/** Prints manual pages, or writes them into a directory. */
export function manOf(commands: Commands): Command {
  return {
    summary: "Prints a page of the manual. The format is roff, which man shows and packages install.",
    argument: {
      name: "COMMAND",
      choices: Object.keys(commands),
      help: "The command whose page it is; otherwise that of vhost-user itself.",
      optional: true,
    },
    options: {
      "dir": {
        value: "DIR",
        offer: "directory",
        help: "Write the page into this directory, or without a COMMAND all pages, and print their paths.",
      },
    },
    examples: [
      ["vhost-user man blk | man -l -", "Shows the page of blk."],
      ["vhost-user man --dir=/usr/local/share/man/man1", "Installs all pages: man vhost-user-blk."],
    ],
    permissions: [{ flags: ["--allow-write=DIR"], when: "--dir=DIR" }],
    run: async ({ COMMAND, dir }, output) => {
      const all = await loadAll(commands);
      const pages: readonly Page[] = [
        ...COMMAND === undefined ? [programPage(all)] : [],
        ...all.filter(([name]) => COMMAND === undefined || name === COMMAND).map(([name, command]) =>
          commandPage(name, command)
        ),
      ];
      if (dir === undefined) {
        for (const line of pages[0].lines) output.out(line);
        return 0;
      }
      mkdirSync(String(dir), { recursive: true });
      for (const { file, lines } of pages) {
        const path = join(String(dir), file);
        writeFileSync(path, `${lines.join("\n")}\n`);
        output.out(path);
      }
      return 0;
    },
  };
}
