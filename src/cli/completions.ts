/**
 * `vhost-user completions`.
 *
 * @module
 */

import { type Command, type Commands, loadAll } from "./command.ts";
import { bashCompletions } from "./completion/bash.ts";
import { fishCompletions } from "./completion/fish.ts";
import { completed } from "./completion/words.ts";
import { zshCompletions } from "./completion/zsh.ts";

const PROGRAM = "vhost-user";

const SHELLS = { bash: bashCompletions, zsh: zshCompletions, fish: fishCompletions } as const;

/** Prints a script with which a shell completes command lines. */
export function completionsOf(commands: Commands): Command {
  return {
    summary: "Prints a script for a shell, by which it completes command lines of vhost-user.",
    argument: { name: "SHELL", choices: Object.keys(SHELLS), help: "bash, zsh or fish." },
    options: {},
    examples: [
      [
        "vhost-user completions bash >~/.local/share/bash-completion/completions/vhost-user",
        "For bash, from the next shell on (with the package bash-completion; without it, source the file).",
      ],
      [
        "vhost-user completions zsh >/usr/local/share/zsh/site-functions/_vhost-user",
        "For zsh: any directory in its fpath.",
      ],
      ["vhost-user completions fish >~/.config/fish/completions/vhost-user.fish", "For fish."],
      ["source <(vhost-user completions bash)", "For this shell alone."],
    ],
    run: async ({ SHELL }, output) => {
      const script = SHELLS[SHELL as keyof typeof SHELLS];
      for (const line of script(PROGRAM, completed(await loadAll(commands)))) output.out(line);
      return 0;
    },
  };
}
