import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { type Command, loadAll, sectionsOf } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { bashCompletions } from "../../src/cli/completion/bash.ts";
import { fishCompletions } from "../../src/cli/completion/fish.ts";
import { completed } from "../../src/cli/completion/words.ts";
import { zshCompletions } from "../../src/cli/completion/zsh.ts";
import { tempDir } from "../support/cleanup.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { Terminal } from "../support/terminal.ts";
import { runHere } from "./run.ts";

/** What is typed after the program's name, with tabs, and the words that come of it. */
const typed: readonly (readonly [keys: string, words: readonly string[]])[] = [
  ["bl\t--r\t", ["blk", "--read-only"]],
  ["vs\t --uds-m\t600", ["vsock", "--uds-mode=600"]],
  ["blk --ai\ts\t", ["blk", "--aio=sync"]],
  ["blk --aio io\t", ["blk", "--aio", "io_uring"]],
  ["blk --sandbox=req\t--fd 3", ["blk", "--sandbox=required", "--fd", "3"]],
  ["blk --blk-file=dis\t", ["blk", "--blk-file=disk.img"]],
  ["blk --blk-file dis\t", ["blk", "--blk-file", "disk.img"]],
  ["blk --blk-file=my\t", ["blk", "--blk-file=my disk.img"]],
  ["blk --storage=me\t1M", ["blk", "--storage=mem:1M"]],
  ["blk --storage=file:dis\t", ["blk", "--storage=file:disk.img"]],
  ["scsi --lun=null:1M --lun me\t2M", ["scsi", "--lun=null:1M", "--lun", "mem:2M"]],
  ["check --device=vs\t", ["check", "--device=vsock"]],
  ["run mod\t", ["run", "module.ts"]],
  ["help cons\t", ["help", "console"]],
  ["man vso\t", ["man", "vsock"]],
  ["completions z\t", ["completions", "zsh"]],
];

/** A shell at whose prompt nothing but completion happens: what would be the program prints its words. */
async function startShell(t: TestContext, shell: "bash" | "zsh"): Promise<Terminal> {
  const dir = tempDir(t);
  for (const name of ["disk.img", "my disk.img", "module.ts"]) writeFileSync(join(dir, name), "");
  const rc = join(dir, shell === "bash" ? ".rc" : ".zshrc");
  const { out } = await runHere("completions", shell);
  writeFileSync(
    rc,
    [
      "PS1='ready> '",
      ...shell === "zsh" ? ["autoload -Uz compinit", "compinit -u -D", "unsetopt zle_bracketed_paste"] : [],
      out,
      "vhost-user() { printf '<%s>' \"$@\"; printf '.\\n'; }",
      "",
    ].join("\n"),
  );
  const command = shell === "bash"
    ? `${peerPath("bash")} --noprofile --rcfile ${rc} -i`
    : `${peerPath("zsh")} -d -i`;
  const terminal = new Terminal(t, command, {
    cwd: dir,
    env: {
      HOME: dir,
      ZDOTDIR: dir,
      INPUTRC: "/dev/null",
      HISTFILE: "/dev/null",
      TERM: "dumb",
      LC_ALL: "C.UTF-8",
    },
  });
  await terminal.wait(/ready> /);
  return terminal;
}

for (const shell of ["bash", "zsh"] as const) {
  realTest(`${shell} completes at its prompt`, [shell, "script"], {}, async (t) => {
    const terminal = await startShell(t, shell);
    for (const [keys, words] of typed) {
      terminal.type(`vhost-user ${keys}\n`);
      const [line] = await terminal.wait(/<[^\n]*>\.\r?\n/);
      assert.equal(line.trim(), `${words.map((word) => `<${word}>`).join("")}.`, keys);
      await terminal.wait(/ready> /);
    }
    terminal.type("exit\n");
    assert.equal(await terminal.end(), 0);
  });
}

/** What is offered for a command line whose last word is not complete. */
type Offers = (line: readonly string[]) => Promise<string[]>;

/** Asks bash, by its script. */
function bashOffers(t: TestContext, script: readonly string[], fn: string): Offers {
  const file = join(tempDir(t), "completions");
  writeFileSync(file, script.join("\n"));
  return async (line) => {
    const source = `compopt() { :; }; source ${file}; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); ${fn}; ` +
      'printf "%s\\n" "${COMPREPLY[@]}"';
    const { stdout } = await run(peerPath("bash"), ["-c", source, "bash", ...line]);
    return stdout.trim().split("\n").map((each) => each.replace(/=$/, ""));
  };
}

/** Asks fish, by its script. */
function fishOffers(t: TestContext, script: readonly string[]): Offers {
  const file = join(tempDir(t), "completions");
  writeFileSync(file, script.join("\n"));
  return async (line) => {
    const { stdout } = await run(
      peerPath("fish"),
      ["--no-config", "-c", `source ${file}; complete -C $argv[1]`, line.join(" ")],
      { cwd: tempDir(t), env: { HOME: tempDir(t) } },
    );
    return stdout.trim().split("\n").map((each) => each.split("\t")[0].replace(/=$/, ""));
  };
}

/** Every option that help lists is offered, and nothing else. */
async function offersAll(offers: Offers): Promise<void> {
  const all = await loadAll(commands);
  assert.deepEqual(
    (await offers(["vhost-user", ""])).filter((each) => !each.startsWith("-")).sort(),
    [...all.map(([name]) => name), "help"].sort(),
  );
  for (const [name, command] of all) {
    const names = sectionsOf(command).flatMap(([, options]) => Object.keys(options)).map((each) =>
      `--${each}`
    );
    assert.deepEqual((await offers(["vhost-user", name, "--"])).sort(), names.sort(), name);
  }
}

realTest("bash offers every option that help lists", ["bash"], {}, async (t) => {
  const { out } = await runHere("completions", "bash");
  await offersAll(bashOffers(t, out.split("\n"), "_vhost_user"));
});

realTest("fish offers every option that help lists, and what its values are", ["fish"], {}, async (t) => {
  const { out } = await runHere("completions", "fish");
  const offers = fishOffers(t, out.split("\n"));
  await offersAll(offers);
  for (
    const [line, expected] of [
      [["bl"], ["blk"]],
      [["blk", "--sandbox=r"], ["--sandbox=required"]],
      [["blk", "--aio", ""], ["io_uring", "sync"]],
      [["blk", "--storage", "m"], ["mem:"]],
      [["help", "cons"], ["console"]],
      [["man", "blk", "--d"], ["--dir"]],
      [["completions", ""], ["bash", "fish", "zsh"]],
    ] as const
  ) assert.deepEqual((await offers(["vhost-user", ...line])).sort(), expected, line.join(" "));
});

/** A command in which everything is odd. */
const odd: Command = {
  summary: 'It\'s [odd]: "$HOME" `x` \\n. And more.',
  options: {
    "plain": { help: "It's a [switch]: 100% 'quoted' \"twice\" \\ $(false)." },
    "word": { value: "A:B", choices: ["a", "b"], help: "One of two: a or b." },
    "old": { value: "X", help: "Gone.", deprecated: { since: "0.1.0", renamedTo: "word" } },
    "inner": { help: "Not for people.", hidden: true },
  },
  examples: [],
  run: () => Promise.resolve(0),
};

for (
  const [shell, script, ask] of [
    ["bash", bashCompletions, (t: TestContext, lines: string[]) => bashOffers(t, lines, "_odd")],
    ["fish", fishCompletions, fishOffers],
  ] as const
) {
  realTest(`what is hidden, or will go, is not offered by ${shell}`, [shell], {}, async (t) => {
    const offers = ask(t, script("odd", completed([["do", odd]])));
    assert.deepEqual((await offers(["odd", "do", "--"])).sort(), ["--help", "--plain", "--word"]);
    assert.deepEqual((await offers(["odd", "do", "--word", ""])).sort(), ["a", "b"]);
  });
}

realTest("zsh reads whatever help may say, and offers it", ["zsh", "script"], {}, async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, "_odd"), zshCompletions("odd", completed([["do", odd]])).join("\n"));
  writeFileSync(
    join(dir, ".zshrc"),
    "PS1='ready> '\nfpath=($ZDOTDIR $fpath)\nautoload -Uz compinit\ncompinit -u -D\n" +
      "odd() { printf '<%s>' \"$@\"; printf '.\\n'; }\n",
  );
  const terminal = new Terminal(t, `${peerPath("zsh")} -d -i`, {
    cwd: dir,
    env: { HOME: dir, ZDOTDIR: dir, TERM: "dumb", LC_ALL: "C.UTF-8" },
  });
  await terminal.wait(/ready> /);
  terminal.type("odd do --\t");
  await terminal.wait(/--plain +-- It's a \[switch\]: 100% 'quoted' "twice" \\ \$\(false\)/);
  terminal.type("pl\t--w\tb\n");
  await terminal.wait(/<do><--plain><--word=b>\./);
  assert.doesNotMatch(terminal.shown, /--old|--inner|not found|error/);
  terminal.type("exit\n");
  assert.equal(await terminal.end(), 0);
});

test("a shell that nobody knows is refused", { timeout: 5000 }, async () => {
  const { code, error } = await runHere("completions", "zhs");
  assert.equal(code, 2);
  assert.match(error, /SHELL must be bash, zsh or fish, got 'zhs'; did you mean 'zsh'\?/);
});
