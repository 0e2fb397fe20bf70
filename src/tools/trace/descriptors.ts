/**
 * What a descriptor is.
 *
 * @module
 */

import { blockDeviceSize, type FileKind, fileStatus, linkTarget } from "../../../ffi/fd.ts";
import { OsError } from "../../../ffi/os_error.ts";

/** What a descriptor refers to. */
export interface DescriptorInfo {
  /**
   * `"file"`, `"block device"`, `"character device"`, `"socket"`, `"pipe"`, `"directory"`, `"memfd"`, `"dma-buf"`; for what
   * has no file its name in the kernel, such as `"eventfd"` or `"userfaultfd"`.
   */
  readonly kind: string;
  /** Path of a file, name of a memfd. Chosen by the peer. */
  readonly name?: string;
  /** Bytes, of what has a size. */
  readonly size?: number;
  /** Inode number; what is the same file has the same one. Absent where all share one (eventfds). */
  readonly inode?: bigint;
  /** Whether the file has no path any more. */
  readonly deleted?: boolean;
}

const DELETED = " (deleted)";
const SIZED: readonly FileKind[] = ["file", "block device"];

/** Looks at a descriptor. Never throws. */
export function inspectDescriptor(fd: number): DescriptorInfo {
  try {
    const { kind, size, inode } = fileStatus(fd);
    const target = linkTarget(fd);
    const anonymous = /^anon_inode:\[?(.*?)\]?$/.exec(target);
    if (anonymous !== null) return { kind: anonymous[1] };
    if (!target.startsWith("/")) return { kind, inode };
    const deleted = target.endsWith(DELETED);
    const path = deleted ? target.slice(0, -DELETED.length) : target;
    const special = /^\/(memfd|dmabuf):(.*)$/s.exec(path);
    if (special !== null) {
      return { kind: special[1] === "memfd" ? "memfd" : "dma-buf", name: special[2], size, inode };
    }
    const bytes = kind === "block device" ? blockDeviceSize(fd) : size;
    return {
      kind,
      name: path,
      ...(SIZED.includes(kind) ? { size: bytes } : {}),
      inode,
      ...(deleted ? { deleted } : {}),
    };
  } catch (error) {
    if (error instanceof OsError) return { kind: "other" };
    throw error;
  }
}

const UNITS = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const;

/** A number of bytes, in the largest unit of which it is a whole number. */
export function sizeText(bytes: number): string {
  const unit = UNITS.find(([, size]) => bytes >= size && bytes % size === 0);
  return unit === undefined ? `${bytes} bytes` : `${bytes / unit[1]} ${unit[0]}`;
}

/** Text that a peer has chosen, without what could command a terminal. */
export function safeText(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** A descriptor in words, such as `memfd "ram" 256 MiB`. */
export function descriptorText({ kind, name, size, deleted }: DescriptorInfo): string {
  return [
    kind,
    ...(name === undefined || name === "" ? [] : [`"${safeText(name)}"`]),
    ...(size === undefined ? [] : [sizeText(size)]),
    ...(deleted ? ["(deleted)"] : []),
  ].join(" ");
}
