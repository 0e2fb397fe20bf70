/**
 * Landlock (landlock(7)): a thread gives up what it does not need of the file system.
 *
 * @module
 */

import { errno, libc } from "./deno.ts";
import { close, fileStatus } from "./fd.ts";
import { openFile, OpenFlag } from "./file.ts";
import { Native } from "./native.ts";
import { check, Errno, OsError } from "./os_error.ts";
import { setNoNewPrivileges } from "./seccomp.ts";
import { callNumber } from "./system_calls.ts";

const CREATE_RULESET = BigInt(callNumber("landlock_create_ruleset"));
const ADD_RULE = BigInt(callNumber("landlock_add_rule"));
const RESTRICT_SELF = BigInt(callNumber("landlock_restrict_self"));

// Linux, include/uapi/linux/landlock.h.
const VERSION = 1n;
const PATH_BENEATH = 1n;
const TSYNC = 8n;
/** The first version that restricts all threads at once: Linux 7.0. */
const EVERY_THREAD = 8;
const WRITE_FILE = 1n << 1n;
const READ_FILE = 1n << 2n;
const READ_DIR = 1n << 3n;
const REMOVE_FILE = 1n << 5n;
const MAKE_REG = 1n << 8n;
const TRUNCATE = 1n << 14n;
/** How many rights there are from each version on. */
const RIGHTS = [0n, 13n, 14n, 15n, 15n, 16n] as const;

/**
 * What may be done with a file, or with all below a directory: be read; be read and written; in a directory also be made; be
 * removed from a directory.
 */
export type FileAccess = "read" | "write" | "create" | "remove";

/** A file or directory that stays within reach. */
export interface FileNeed {
  /** Where it is. One that does not exist is left out. */
  readonly path: string;
  /** What is done with it. */
  readonly access: FileAccess;
}

/** The version of Landlock's interface; 0 where the kernel has none. */
export function landlockVersion(): number {
  return Math.max(0, libc.syscall(CREATE_RULESET, 0n, 0n, VERSION, 0n, 0n, 0n));
}

/** Whether a version restricts threads that exist already, besides the calling one. */
export function landlockReachesThreads(version: number): boolean {
  return version >= EVERY_THREAD;
}

function rightsOf(access: FileAccess, isDirectory: boolean, version: number): bigint {
  if (access === "remove") return isDirectory ? REMOVE_FILE : 0n;
  const read = READ_FILE | (isDirectory ? READ_DIR : 0n);
  if (access === "read") return read;
  const make = access === "create" && isDirectory ? MAKE_REG : 0n;
  return read | WRITE_FILE | make | (version >= 3 ? TRUNCATE : 0n);
}

function addRule(ruleset: number, { path, access }: FileNeed, version: number): void {
  let fd: number;
  try {
    fd = openFile(path, OpenFlag.PATH_ONLY);
  } catch (error) {
    if (error instanceof OsError && error.errno === Errno.ENOENT) return;
    throw error;
  }
  try {
    const rights = rightsOf(access, fileStatus(fd).kind === "directory", version);
    if (rights === 0n) return;
    // struct landlock_path_beneath_attr, packed: the rights, and the descriptor at 8.
    const rule = new Native(16);
    rule.set64(0, rights);
    rule.set32(8, fd);
    check(
      libc.syscall(ADD_RULE, BigInt(ruleset), PATH_BENEATH, rule.address, 0n, 0n, 0n),
      "landlock_add_rule",
      `allowing ${path}`,
    );
  } finally {
    close(fd);
  }
}

/**
 * Restricts the calling thread, and those that it will start, to these files, for good; what is open stays so. From version 8
 * on (Linux 7.0) all threads of the process.
 *
 * @throws {OsError} ENOSYS or EOPNOTSUPP where the kernel has no Landlock
 */
export function restrictFiles(files: readonly FileNeed[]): void {
  const version = landlockVersion();
  const handled = (1n << RIGHTS[Math.min(version, RIGHTS.length - 1)]) - 1n;
  const attributes = new Native(8);
  attributes.set64(0, handled);
  const ruleset = libc.syscall(CREATE_RULESET, attributes.address, 8n, 0n, 0n, 0n, 0n);
  if (ruleset < 0) throw new OsError("landlock_create_ruleset", errno(), "making a ruleset");
  try {
    for (const file of files) addRule(ruleset, file, version);
    setNoNewPrivileges();
    const flags = landlockReachesThreads(version) ? TSYNC : 0n;
    check(
      libc.syscall(RESTRICT_SELF, BigInt(ruleset), flags, 0n, 0n, 0n, 0n),
      "landlock_restrict_self",
      "restricting the files",
    );
  } finally {
    close(ruleset);
  }
}
