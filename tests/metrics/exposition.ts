import assert from "node:assert/strict";

/** A sample of a scrape. */
export interface ScrapedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric of a scrape. */
export interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: ScrapedSample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

/** Reads the labels of a sample, as they are quoted. Returns them and what follows. */
function labelsOf(text: string): [labels: Record<string, string>, rest: string] {
  const labels: Record<string, string> = {};
  let rest = text;
  while (!rest.startsWith("}")) {
    const match = /^([^=]+)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,?)/.exec(rest);
    assert.ok(match !== null, `labels: ${rest}`);
    const [all, name, value, comma] = match;
    assert.match(name, LABEL);
    assert.ok(!Object.hasOwn(labels, name), `label ${name} twice`);
    labels[name] = value.replace(/\\(.)/g, (_, each) => each === "n" ? "\n" : each);
    rest = rest.slice(all.length);
    assert.ok(comma === "," || rest.startsWith("}"), `labels: ${rest}`);
  }
  return [labels, rest.slice(1)];
}

/**
 * Reads Prometheus's text format 0.0.4, and refuses what breaks its rules: HELP and TYPE come once and first, all samples of a
 * metric follow in one piece, no sample comes twice, buckets grow and end in +Inf, which is the count.
 */
export function parseExposition(text: string): Map<string, Family> {
  assert.ok(text.endsWith("\n"), "the last line must end too");
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let current = "";
  let help: { name: string; text: string } | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (comment !== null) {
      const [, kind, name, rest] = comment;
      assert.match(name, NAME);
      if (kind === "HELP") {
        assert.ok(!families.has(name), `${name} twice`);
        help = { name, text: rest };
        continue;
      }
      assert.equal(help?.name, name, `TYPE of ${name} without its HELP`);
      assert.match(rest, /^(counter|gauge|histogram)$/);
      families.set(current = name, { type: rest, help: help?.text ?? "", samples: [] });
      continue;
    }
    const match = /^([^{ ]+)(\{)?/.exec(line);
    assert.ok(match !== null, `no sample: ${line}`);
    const [start, name, brace] = match;
    assert.match(name, NAME);
    const [labels, rest] = brace === undefined
      ? [{}, line.slice(start.length)]
      : labelsOf(line.slice(start.length));
    const value = /^ (\+Inf|-Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(rest)?.[1];
    assert.ok(value !== undefined, `value: ${line}`);
    const family = families.get(current);
    const own = family?.type === "histogram" ? name.replace(/_(bucket|sum|count)$/, "") : name;
    assert.equal(own, current, `${name} is not among the samples of its metric`);
    const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
    assert.ok(!seen.has(key), `${key} twice`);
    seen.add(key);
    family?.samples.push({ name, labels, value: value === "+Inf" ? Infinity : Number(value) });
  }
  for (const [name, { type, samples }] of families) {
    assert.ok(samples.length > 0, `${name} has no sample`);
    if (type === "counter") assert.match(name, /_total$/);
    if (type === "histogram") checkHistogram(name, samples);
  }
  return families;
}

function checkHistogram(name: string, samples: readonly ScrapedSample[]): void {
  const byRing = Map.groupBy(samples, ({ labels: { le: _, ...rest } }) => JSON.stringify(rest));
  for (const [which, all] of byRing) {
    const buckets = all.filter((each) => each.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => labels.le === "+Inf" ? Infinity : Number(labels.le));
    assert.equal(bounds.at(-1), Infinity, which);
    for (let i = 1; i < buckets.length; i++) {
      assert.ok(bounds[i] > bounds[i - 1], `${which}: bound ${bounds[i]}`);
      assert.ok(buckets[i].value >= buckets[i - 1].value, `${which}: bucket ${bounds[i]}`);
    }
    const [count] = all.filter((each) => each.name === `${name}_count`);
    assert.equal(count.value, buckets.at(-1)?.value, which);
    assert.equal(all.filter((each) => each.name === `${name}_sum`).length, 1, which);
  }
}

/** The one figure of a metric that has these labels. */
export function figure(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const base = families.has(name) ? name : name.replace(/_(bucket|sum|count)$/, "");
  const found = (families.get(base)?.samples ?? []).filter((each) =>
    each.name === name && Object.entries(labels).every(([key, value]) => each.labels[key] === value)
  );
  assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}: ${JSON.stringify(found)}`);
  return found[0].value;
}
