import test from "node:test";
import { type Case, groups } from "../../src/tools/check/mod.ts";
import { checkGenerated, table } from "../support/generated.ts";

/** What a case takes, in words. */
function takes({ devices, writes, needs = {} }: Case): string {
  const { protocol = [], ring = [], device = {}, requests = false } = needs;
  return [
    ...devices === undefined ? [] : [devices.join(", ")],
    ...requests && devices === undefined ? ["requests"] : [],
    ...writes === true ? ["--write"] : [],
    ...ring,
    ...Object.keys(device),
    ...protocol,
  ].join(", ");
}

test("docs/check.md has every case", () => {
  checkGenerated(
    "docs/check.md",
    "cases",
    groups.flatMap(({ title, cases }, i) => [
      ...i === 0 ? [] : [""],
      `### ${title}`,
      "",
      ...table(
        ["Case", "What is right", "Where that is written", "Takes"],
        cases.map((each) => [`\`${each.id}\``, each.title, each.section, takes(each)]),
      ),
    ]),
  );
});
