/**
 * System calls by what they are for, with their numbers (Linux, arch/x86/entry/syscalls/syscall_64.tbl and
 * include/uapi/asm-generic/unistd.h).
 *
 * @module
 */

import { arch } from "./deno.ts";

/** `name number number`: on x86-64, and on aarch64, which lacks the old ones. */
const table = {
  /** What the data plane makes; first, because an old kernel goes through the list for each call. */
  frequent: `
    write 1 64, io_uring_enter 426 426, epoll_wait 232 -, epoll_pwait 281 22, futex 202 98, read 0 63,
    recvmsg 47 212, sendmsg 46 211, preadv 295 69, pwritev 296 70, readv 19 65, writev 20 66`,
  /** Memory of this process. Postcopy needs userfaultfd at any time. */
  memory: `
    madvise 28 233, mprotect 10 226, mmap 9 222, munmap 11 215, mremap 25 216, brk 12 214,
    mincore 27 232, msync 26 227, mlock 149 228, mlock2 325 284, munlock 150 229, membarrier 324 283,
    memfd_create 319 279, userfaultfd 323 282, pkey_alloc 330 289, pkey_free 331 290,
    pkey_mprotect 329 288, mseal 462 462, map_shadow_stack 453 453`,
  /** Threads and how they run. */
  threads: `
    exit 60 93, exit_group 231 94, restart_syscall 219 128, set_tid_address 218 96,
    set_robust_list 273 99, get_robust_list 274 100, rseq 334 293, gettid 186 178, sched_yield 24 124,
    sched_getaffinity 204 123, sched_setaffinity 203 122, sched_getparam 143 121,
    sched_setparam 142 118, sched_getscheduler 145 120, sched_setscheduler 144 119,
    sched_getattr 315 275, sched_setattr 314 274, sched_get_priority_max 146 125,
    sched_get_priority_min 147 126, getcpu 309 168, getpriority 140 141, setpriority 141 140,
    arch_prctl 158 -, prctl 157 167, futex_waitv 449 449, futex_wake 454 454, futex_wait 455 455,
    futex_requeue 456 456`,
  /** Receiving signals. */
  signals: `
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132, pause 34 -, signalfd 282 -,
    signalfd4 289 74`,
  /** Clocks and timers. */
  time: `
    clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101,
    gettimeofday 96 169, time 201 -, times 100 153, timerfd_create 283 85, timerfd_settime 286 86,
    timerfd_gettime 287 87, timer_create 222 107, timer_settime 223 110, timer_gettime 224 108,
    timer_getoverrun 225 109, timer_delete 226 111, getitimer 36 102, setitimer 38 103, alarm 37 -`,
  /** What is open already, and what has no name. */
  descriptors: `
    close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25, fstat 5 80,
    fstatfs 138 44, lseek 8 62, pread64 17 67, pwrite64 18 68, preadv2 327 286, pwritev2 328 287,
    readahead 187 213, sync_file_range 277 84, fsync 74 82, fdatasync 75 83, ftruncate 77 46,
    fallocate 285 47, fadvise64 221 223, copy_file_range 326 285, sendfile 40 71, splice 275 76,
    pipe 22 -, pipe2 293 59, eventfd 284 -, eventfd2 290 19, epoll_create 213 -, epoll_create1 291 20,
    epoll_ctl 233 21, epoll_pwait2 441 441, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
    flock 73 32`,
  /** Sockets that are there. */
  sockets: `
    accept 43 202, accept4 288 242, getpeername 52 205, getsockname 51 204, getsockopt 55 209,
    setsockopt 54 208, recvfrom 45 207, recvmmsg 299 243, sendto 44 206, sendmmsg 307 269,
    shutdown 48 210`,
  /** Questions that change nothing. */
  questions: `
    stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, access 21 -, faccessat 269 48,
    faccessat2 439 439, readlink 89 -, readlinkat 267 78, getcwd 79 17, umask 95 166, uname 63 160,
    sysinfo 99 179, getpid 39 172, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176,
    getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, getpgid 121 155,
    getpgrp 111 -, getsid 124 156, getrlimit 97 163, getrusage 98 165, getrandom 318 278`,
  /** Reaching others, and being reached, through sockets. */
  connecting: `
    bind 49 200, connect 42 203, listen 50 201`,
  /** Opening files by their names. */
  opening: `
    open 2 -, openat 257 56, openat2 437 437, creat 85 -, getdents64 217 61`,
  /** Removing files. */
  removing: `
    unlink 87 -, unlinkat 263 35`,
  /** Everything else that is done to names. */
  naming: `
    mkdir 83 -, mkdirat 258 34, rmdir 84 -, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -,
    linkat 265 37, symlink 88 -, symlinkat 266 36, truncate 76 45, chmod 90 -, fchmod 91 52,
    fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, fchownat 260 54, lchown 94 -,
    utimensat 280 88, chdir 80 49, fchdir 81 50`,
  /** What is allowed by its arguments. */
  checked: `
    socket 41 198, socketpair 53 199, clone 56 220, clone3 435 435, kill 62 129, tgkill 234 131,
    ioctl 16 29, prlimit64 302 261`,
  /** What no device needs and an intruder likes, also where programs are started. */
  dangerous: `
    ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
    pidfd_getfd 438 438, kcmp 312 272, mount 165 40, umount2 166 39, mount_setattr 442 442,
    move_mount 429 429, open_tree 428 428, fsopen 430 430, fsconfig 431 431, fsmount 432 432,
    fspick 433 433, pivot_root 155 41, chroot 161 51, setns 308 268, unshare 272 97, bpf 321 280,
    perf_event_open 298 241, init_module 175 105, finit_module 313 273, delete_module 176 106,
    kexec_load 246 104, kexec_file_load 320 294, reboot 169 142, swapon 167 224, swapoff 168 225,
    acct 163 89, quotactl 179 60, quotactl_fd 443 443, add_key 248 217, request_key 249 218,
    keyctl 250 219, open_by_handle_at 304 265, name_to_handle_at 303 264, io_uring_setup 425 425,
    io_uring_register 427 427, personality 135 92, syslog 103 116, settimeofday 164 170,
    clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171, sethostname 170 161,
    setdomainname 171 162, iopl 172 -, ioperm 173 -, vhangup 153 58, fanotify_init 300 262, mknod 133 -,
    mknodat 259 33`,
  /** What the sandbox itself is made of. */
  own: `
    seccomp 317 277, landlock_create_ruleset 444 444, landlock_add_rule 445 445,
    landlock_restrict_self 446 446, execve 59 221`,
};

/** A purpose of system calls. */
export type CallGroup = keyof typeof table;

/** What is known of a system call. */
export interface SystemCall {
  /** Its name. */
  readonly name: string;
  /** Its number on this processor; `undefined` where there is none. */
  readonly number: number | undefined;
}

/** The system calls of a group. */
export function callsOf(group: CallGroup, on: typeof arch = arch): SystemCall[] {
  return table[group].split(",").map((each) => {
    const [name, x86, arm] = each.trim().split(" ");
    const text = on === "x86_64" ? x86 : arm;
    return { name, number: text === "-" ? undefined : Number(text) };
  });
}

/** All groups. */
export const callGroups: readonly CallGroup[] = Object.keys(table) as CallGroup[];

/**
 * The number of a system call on this processor.
 *
 * @throws {RangeError} for one that it does not have, or that the table does not
 */
export function callNumber(name: string): number {
  for (const group of callGroups) {
    for (const call of callsOf(group)) {
      if (call.name === name && call.number !== undefined) return call.number;
    }
  }
  throw new RangeError(`no system call ${name} on ${arch}`);
}
