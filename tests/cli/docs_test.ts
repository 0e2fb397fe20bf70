import test from "node:test";
import { argumentWord, loadAll, type Options, sectionsOf, spelling } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands.ts";
import { checkGenerated, table } from "../support/generated.ts";

const OPTIONS = "Options";

function optionTable(options: Options): string[] {
  return table(
    ["Option", "What it does"],
    Object.entries(options).map(([name, option]) => [`\`${spelling(name, option)}\``, option.help]),
  );
}

test("docs/command-line.md has every option of every command", { timeout: 20_000 }, async () => {
  const all = await loadAll(commands);
  /** Options that several commands have in common, under their own heading. */
  const shared = new Map<string, Options>();
  const lines = all.flatMap(([name, command]) => {
    const { argument, summary, examples } = command;
    const headings: string[] = [];
    let own: Options = {};
    for (const [heading, options] of sectionsOf(command)) {
      if (heading === OPTIONS) own = options;
      else {
        shared.set(heading, options);
        headings.push(heading);
      }
    }
    return [
      "",
      `### ${name}`,
      "",
      summary.replaceAll("\n", " "),
      "",
      "```text",
      `vhost-user ${name}${argument === undefined ? "" : ` ${argumentWord(argument)}`} [options]`,
      "```",
      "",
      ...argument === undefined ? [] : [`\`${argument.name}\`: ${argument.help.replaceAll("\n", " ")}`, ""],
      ...optionTable(own),
      ...headings.flatMap((heading) => ["", `And those of [${heading}](#${heading.toLowerCase()}).`]),
      "",
      "```sh",
      ...examples.map(([line]) => line),
      "```",
    ];
  });
  const common = [...shared].flatMap((
    [heading, options],
  ) => ["", `### ${heading}`, "", ...optionTable(options)]);
  checkGenerated("docs/command-line.md", "commands", [...lines.slice(1), ...common]);
});
