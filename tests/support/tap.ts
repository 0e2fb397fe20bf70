import { readFileSync } from "node:fs";
import process from "node:process";
import { which } from "./path.ts";
import { run } from "./process.ts";

let made = 0;

/** An interface for one test: its name, and addresses of a network that nobody else has. */
export interface TapPlan {
  readonly name: string;
  /** The host's address, and the guest's; both with 30 bits of network. */
  readonly host: string;
  readonly guest: string;
}

/** Names an interface after this process. */
export function planTap(): TapPlan {
  const number = made++;
  // Blocks of four addresses in 10.128.0.0/9, by process: two processes at a time do not have the same.
  const block = ((process.pid % 0x4000) * 16 + number % 16) * 4;
  const address = (last: number): string =>
    `10.${128 + (block >> 16 & 0x7f)}.${block >> 8 & 0xff}.${(block & 0xff) + last}`;
  return { name: `vu${process.pid}.${number}`, host: address(1), guest: address(2) };
}

/** Gives the interface its addresses, the same each time, and takes it into use. */
export async function bringUp({ name, host }: TapPlan): Promise<void> {
  const busybox = which("busybox") ?? "busybox";
  const bytes = host.split(".").map((byte) => Number(byte).toString(16).padStart(2, "0"));
  await run(busybox, ["ip", "link", "set", name, "address", ["02", "00", ...bytes].join(":")]);
  await run(busybox, ["ip", "addr", "add", `${host}/30`, "dev", name]);
  await run(busybox, ["ip", "link", "set", name, "up"]);
}

/** A counter of the interface, such as `tx_packets`, which is what the guest receives. */
export function tapCounter(name: string, counter: string): number {
  return Number(readFileSync(`/sys/class/net/${name}/statistics/${counter}`, "utf8"));
}

/** Removes the interface, whoever has it open. */
export async function remove({ name }: TapPlan): Promise<void> {
  await run(which("busybox") ?? "busybox", ["ip", "link", "del", name]);
}
