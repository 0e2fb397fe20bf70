/**
 * A filter for the system calls of this process (seccomp(2)): a program in classic BPF, which the kernel runs for each call.
 *
 * @module
 */

import { arch, errno, libc } from "./deno.ts";
import { Native } from "./native.ts";
import { Errno, OsError } from "./os_error.ts";
import { type CallGroup, callNumber, callsOf } from "./system_calls.ts";

// Linux, include/uapi/linux/seccomp.h, audit.h, prctl.h.
const SET_MODE_FILTER = 1n;
const GET_ACTION_AVAIL = 2n;
const FLAG_TSYNC = 1n;
const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;
const KILL_PROCESS = 0x8000_0000;
const AUDIT_ARCH = arch === "x86_64" ? 0xc000_003e : 0xc000_00b7;
/** The 32-bit pointers of x86-64's x32 have numbers from here on. */
const X32 = 0x4000_0000;
const PR_SET_NO_NEW_PRIVS = 38n;
/** The last system call that is judged: what is newer looks as on an older kernel. */
const LAST = 462;

// struct seccomp_data.
const NUMBER = 0;
const ARCH = 4;
const argument = (index: number): number => 16 + 8 * index;

// linux/bpf_common.h.
const LOAD = 0x20;
const AND = 0x54;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER = 0x25;
const JUMP_AT_LEAST = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
/** The resolver of names asks it which addresses this machine has. */
const AF_NETLINK = 16;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SOCK_TYPE = 0xf;
const CLONE_THREAD = 0x0001_0000;
/** CLONE_NEWTIME, and from CLONE_NEWNS on those of mounts, cgroups, names, IPC, users, processes and networks. */
const CLONE_NEW = 0x7e02_0080;
/** Puts text into a terminal's input, as if somebody had typed it. */
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

/** One instruction: code, and how many to skip if true and if not; or a value. */
type Instruction = readonly [code: number, value: number, ifTrue?: number, ifFalse?: number];

const allow: Instruction = [RETURN, ALLOW];
const refuse = (number: number): Instruction => [RETURN, ERRNO | number];
/** Goes on with the next instruction if it compares so, and else skips as many as that is long. */
const when = (code: number, value: number, then: readonly Instruction[]): Instruction[] => [
  [code, value, 0, then.length],
  ...then,
];
/** Allows one of some values of an argument. */
const oneOf = (index: number, values: readonly number[], mask?: number): Instruction[] => [
  [LOAD, argument(index)],
  ...mask === undefined ? [] : [[AND, mask] as const],
  ...values.flatMap((value) => when(JUMP_EQUAL, value, [allow])),
  refuse(Errno.EPERM),
];

/** What a filter lets through. */
export interface CallPolicy {
  /** Groups that it allows besides those that every device needs. */
  readonly groups: readonly CallGroup[];
  /** Whether the groups are refused, and everything else is allowed: for a process that starts programs it knows nothing of. */
  readonly others: boolean;
  /** Whether Unix sockets may be made. */
  readonly unix: boolean;
  /** Whether Internet sockets may be made. */
  readonly inet: boolean;
}

/** What runtime and data plane cannot do without. */
const ALWAYS: readonly CallGroup[] = [
  "frequent",
  "memory",
  "threads",
  "signals",
  "time",
  "descriptors",
  "sockets",
  "questions",
];

/** Calls that are judged by their arguments. Only the lower half of each counts, as in the kernel. */
function judged({ unix, inet }: CallPolicy, pid: number): Readonly<Record<string, readonly Instruction[]>> {
  const families = [...unix ? [AF_UNIX] : [], ...inet ? [AF_INET, AF_INET6, AF_NETLINK] : []];
  return {
    socket: oneOf(0, families),
    // One for datagrams could send to any address.
    socketpair: oneOf(1, [SOCK_STREAM, SOCK_SEQPACKET], SOCK_TYPE),
    clone: [
      [LOAD, argument(0)],
      ...when(JUMP_ANY_BIT, CLONE_NEW, [refuse(Errno.EPERM)]),
      ...when(JUMP_ANY_BIT, CLONE_THREAD, [allow]),
      refuse(Errno.EPERM),
    ],
    // Its flags are in memory, where no filter can read them. The C library falls back to `clone`.
    clone3: [refuse(Errno.ENOSYS)],
    kill: oneOf(0, [pid]),
    tgkill: oneOf(0, [pid]),
    ioctl: notTyping,
    prlimit64: oneOf(0, [0, pid]),
  };
}

const notTyping: readonly Instruction[] = [
  [LOAD, argument(1)],
  ...when(JUMP_EQUAL, TIOCSTI, [refuse(Errno.EPERM)]),
  ...when(JUMP_EQUAL, TIOCLINUX, [refuse(Errno.EPERM)]),
  allow,
];

/** The program, and how it judges: the number is loaded when a list of calls is gone through. */
function assemble(policy: CallPolicy): Instruction[] {
  const program: Instruction[] = [
    [LOAD, ARCH],
    // The numbers of another architecture mean something else.
    [JUMP_EQUAL, AUDIT_ARCH, 1, 0],
    [RETURN, KILL_PROCESS],
    [LOAD, NUMBER],
  ];
  if (arch === "x86_64") program.push(...when(JUMP_AT_LEAST, X32, [refuse(Errno.ENOSYS)]));
  const all = (groups: readonly CallGroup[], verdict: Instruction): void => {
    for (const { number } of groups.flatMap((group) => callsOf(group))) {
      if (number !== undefined) program.push(...when(JUMP_EQUAL, number, [verdict]));
    }
  };
  if (policy.others) {
    all(policy.groups, refuse(Errno.EPERM));
    program.push(...when(JUMP_EQUAL, callNumber("ioctl"), notTyping), allow);
    return program;
  }
  all([...ALWAYS, ...policy.groups], allow);
  const pid = libc.syscall(BigInt(callNumber("getpid")), 0n, 0n, 0n, 0n, 0n, 0n);
  for (const [name, steps] of Object.entries(judged(policy, pid))) {
    program.push(...when(JUMP_EQUAL, callNumber(name), steps));
  }
  for (const { number } of callsOf("opening")) {
    if (number !== undefined) program.push(...when(JUMP_EQUAL, number, [refuse(Errno.EACCES)]));
  }
  program.push(...when(JUMP_GREATER, LAST, [refuse(Errno.ENOSYS)]), refuse(Errno.EPERM));
  return program;
}

const seccomp = BigInt(callNumber("seccomp"));

/** Whether the kernel has filters. */
export function seccompAvailable(): boolean {
  const action = new Native(4);
  action.set32(0, ERRNO);
  return libc.syscall(seccomp, GET_ACTION_AVAIL, 0n, action.address, 0n, 0n, 0n) === 0;
}

/**
 * Sets the calling thread's no-new-privileges: set-user-id programs do not become what they were made for.
 *
 * @throws {OsError}
 */
export function setNoNewPrivileges(): void {
  if (libc.syscall(BigInt(callNumber("prctl")), PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n, 0n) !== 0) {
    throw new OsError("prctl", errno(), "setting no_new_privs");
  }
}

/**
 * Filters the system calls of all threads of this process, for good. Sets no-new-privileges in all of them.
 *
 * @throws {OsError} EINVAL or ENOSYS where the kernel has no filters
 */
export function filterCalls(policy: CallPolicy): void {
  const program = assemble(policy);
  // struct sock_filter: u16 code, u8 if true, u8 if false, u32 value; struct sock_fprog: u16 length, the address at 8.
  const filter = new Native(8 * program.length);
  program.forEach(([code, value, ifTrue = 0, ifFalse = 0], index) => {
    filter.view.setUint16(8 * index, code, true);
    filter.view.setUint8(8 * index + 2, ifTrue);
    filter.view.setUint8(8 * index + 3, ifFalse);
    filter.view.setUint32(8 * index + 4, value, true);
  });
  const header = new Native(16);
  header.view.setUint16(0, program.length, true);
  header.set64(8, filter.address);
  setNoNewPrivileges();
  const result = libc.syscall(seccomp, SET_MODE_FILTER, FLAG_TSYNC, header.address, 0n, 0n, 0n);
  if (result < 0) {
    throw new OsError("seccomp", errno(), `installing a filter of ${program.length} instructions`);
  }
  if (result > 0) {
    throw new OsError("seccomp", Errno.EBUSY, `installing a filter: thread ${result} has one of its own`);
  }
}
