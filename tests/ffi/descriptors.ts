import { readdirSync, readFileSync, readlinkSync } from "node:fs";

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/** The flags of an open descriptor, as the kernel tells them. */
export function descriptorFlags(fd: number): { closeOnExec: boolean; nonBlocking: boolean } {
  const match = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"));
  if (match === null) throw new Error(`no flags of descriptor ${fd}`);
  const flags = parseInt(match[1], 8);
  return { closeOnExec: (flags & O_CLOEXEC) !== 0, nonBlocking: (flags & O_NONBLOCK) !== 0 };
}

/** How many descriptors of this process refer to a memory file of this name. */
export function countMemoryFiles(name: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`/memfd:${name} `);
    } catch {
      // Closed in between, such as the descriptor of the directory itself.
      return false;
    }
  }).length;
}

/** How many mappings of this process are of a memory file of this name. */
export function countMappings(name: string): number {
  return readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) =>
    line.includes(`/memfd:${name} `)
  )
    .length;
}
