/**
 * What a changelog has to say, and what is deprecated in sources.
 *
 * @module
 */

/** Headings that Keep a Changelog has, and the one of the first version. */
const KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"];

/** A version of a changelog. */
interface Release {
  readonly version: string;
  readonly date: string;
  /** Text by kind of change. */
  readonly changes: ReadonlyMap<string, string>;
}

/** Something that will go. */
export interface Deprecated {
  /** What the changelog has to name. */
  readonly name: string;
  /** The version that it is deprecated since. */
  readonly since: string;
}

/** The versions of a changelog, in order. */
function releasesOf(text: string): Release[] {
  return text.split(/^## /m).slice(1).map((part) => {
    const [, version = "", date = ""] = /^\[([^\]]+)\] - (.+)$/m.exec(part) ?? [];
    const changes = part.split(/^### /m).slice(1).map((each) => {
      const end = each.indexOf("\n");
      return [each.slice(0, end), each.slice(end)] as const;
    });
    return { version, date, changes: new Map(changes) };
  });
}

/** Below 0 when the first is older. */
function compare(a: string, b: string): number {
  const [left, right] = [a, b].map((each) => each.split(".").map(Number));
  return left.map((part, i) => part - right[i]).find((difference) => difference !== 0) ?? 0;
}

/** What is wrong with a changelog. */
export function mistakes(text: string, version: string, deprecated: readonly Deprecated[] = []): string[] {
  const releases = releasesOf(text);
  const found: string[] = [];
  for (const [i, release] of releases.entries()) {
    const { version: own, date, changes } = release;
    if (!/^\d+\.\d+\.\d+$/.test(own)) found.push(`'${own}' is no version`);
    const open = i === 0 && date === "unreleased";
    if (!open && !/^\d{4}-\d\d-\d\d$/.test(date)) found.push(`${own} has the date '${date}'`);
    if (i > 0 && compare(releases[i - 1].version, own) <= 0) found.push(`${own} stands below what is older`);
    if (changes.size === 0) found.push(`${own} has no changes`);
    for (const kind of changes.keys()) if (!KINDS.includes(kind)) found.push(`${own} has '${kind}'`);
  }
  if (releases[0]?.version !== version) {
    found.push(`the first version is ${releases[0]?.version}, not ${version}`);
  }
  for (const { name, since } of deprecated) {
    const release = releases.find(({ version }) => version === since);
    if (!release?.changes.get("Deprecated")?.includes(name)) {
      found.push(`${name} is deprecated since ${since}, which does not say so`);
    }
  }
  return found;
}

/**
 * What documentation comments of a module call deprecated.
 *
 * @throws {Error} for one that does not say since when, or what to use
 */
export function deprecatedIn(path: string, source: string): Deprecated[] {
  return [...source.matchAll(/@deprecated\b([^\n]*)\n(?:(?!export)[^])*?export [^\n(={<:]*?(\w+)\s*[(={<:]/g)]
    .map(
      ([, text, name]) => {
        const [, since] = /^ since (\d+\.\d+\.\d+): \S+/.exec(text) ?? [];
        if (since === undefined) {
          throw new Error(`${path}: ${name}: "@deprecated since X.Y.Z: what to do" is the form`);
        }
        return { name, since };
      },
    );
}
