/**
 * What an intruder would try from within a device, past the permissions of Deno: each returns "done" or the error's name.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { connect as connectTcp } from "node:net";
import process from "node:process";
import { errno, libc } from "../../ffi/deno.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag, removeFile } from "../../ffi/file.ts";
import { Native } from "../../ffi/native.ts";
import { OsError } from "../../ffi/os_error.ts";
import { connect } from "../../ffi/socket.ts";
import { callNumber } from "../../ffi/system_calls.ts";

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const TIOCSTI = 0x5412n;
const ONES = 0xffff_ffff_ffff_ffffn;

function told(result: number, call: string): string {
  return result < 0 ? new OsError(call, errno(), "trying").code : "done";
}

const attempts: Readonly<Record<string, (argument: string) => unknown>> = {
  open: (path) => close(openFile(path, OpenFlag.READ_ONLY)),
  create: (path) => close(openFile(path, OpenFlag.WRITE_ONLY | OpenFlag.CREATE)),
  unlink: (path) => removeFile(path),
  // By the runtime, in threads of its own.
  readFile: (path) => readFile(path),
  spawn: (path) =>
    new Promise((resolve, reject) => {
      const child = spawn(path);
      child.on("error", reject);
      child.on("exit", (code) => resolve(code === 0 ? "done" : `status ${code}`));
    }),
  tcp: (port) =>
    new Promise((resolve, reject) => {
      const socket = connectTcp({ host: "127.0.0.1", port: Number(port) }, () => resolve(socket.destroy()));
      socket.on("error", reject);
    }),
  inet: () => told(libc.socket(AF_INET, SOCK_STREAM, 0), "socket"),
  unix: (path) => close(connect(path)),
  datagrams: () => {
    const pair = new Native(8);
    return told(libc.socketpair(1, SOCK_DGRAM, 0, pair.address), "socketpair");
  },
  signal: (pid) => process.kill(Number(pid), 0),
  type: () => told(libc.ioctl(-1, TIOCSTI, 0n), "ioctl"),
  // Arguments that no call takes for good.
  call: (name) => told(libc.syscall(BigInt(callNumber(name)), ONES, ONES, ONES, ONES, ONES, ONES), name),
};

/** Tries something. Returns "done" or the name of what has kept it from being done. */
export async function attempt(what: string, argument: string): Promise<string> {
  try {
    const result = await attempts[what](argument);
    return typeof result === "string" ? result : "done";
  } catch (error) {
    const { code, name, message } = error as Error & { code?: string };
    return code ?? `${name}: ${message}`;
  }
}
