/**
 * What stands beside each page: the map `docs/README.md`, whose tables and lists of links are its groups.
 *
 * @module
 */

/** A group of links. */
export interface Group {
  /** Its title. */
  readonly text: string;
  /** Whether it is folded at first. */
  readonly collapsed: boolean;
  /** Its links. */
  readonly items: readonly { readonly text: string; readonly link: string }[];
}

function capital(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

function itemsIn(text: string): Group["items"] {
  return [...text.matchAll(/\[([^\]]+)\]\(([^)#]+)\.md(#[^)]*)?\)/g)].map(([, title, page, anchor = ""]) => ({
    text: capital(title),
    link: `/${page}${anchor}`,
  }));
}

/** The groups of the map: what stands before its first table, a group for each row, and the devices. */
export function sidebar(map: string): Group[] {
  const [begin, devices] = map.split(/^## Devices$/m);
  const [intro] = begin.split(/^\|/m);
  const rows = [...begin.matchAll(/^\| ([^|\n]+?) +\| (.*) \|$/gm)].filter(([, , cell]) =>
    cell.includes("](")
  );
  return [
    { text: "Begin here", collapsed: false, items: itemsIn(intro) },
    ...rows.map(([, title, cell]) => ({ text: capital(title), collapsed: false, items: itemsIn(cell) })),
    {
      text: "Devices",
      collapsed: true,
      items: itemsIn(devices.split(/^## /m)[0]).filter(({ text }) =>
        !["Start", "Durability", "Speed"].includes(text)
      ),
    },
  ];
}
