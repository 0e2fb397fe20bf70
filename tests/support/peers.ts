import { constants, existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { firstFile, which } from "./path.ts";

/** The directory `scripts/guest/build` writes to. */
export const guestDir: string = process.env.VHOST_GUEST_DIR ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "vhost-user", "guest");

/** The directory `scripts/unpack-peers` writes to. */
const peersDir: string = process.env.VHOST_PEERS_DIR ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "vhost-user", "peers");

/** Where DPDK's libraries are unpacked. */
export const dpdkLibraries: string = join(peersDir, "dpdk/usr/lib/x86_64-linux-gnu");

/** The directory `scripts/install-node` writes to. */
const nodeDir: string = process.env.VHOST_NODE_DIR ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "vhost-user", "node");

/** Where distributions put QEMU's loadable parts. */
const moduleFolders = [
  "/usr/lib/x86_64-linux-gnu/qemu",
  "/usr/lib64/qemu",
  "/usr/lib64/qemu-kvm",
  "/usr/lib/qemu",
];

/** How to find what the tests need from outside, one row each. */
const peers = {
  /** The system emulator, a front-end of every device. */
  "qemu": () => which("qemu-system-x86_64"),
  /** QEMU 11, which Debian's stable releases do not have yet. */
  "qemu11": () => firstFile([join(peersDir, "qemu11/qemu-system-x86_64")], constants.X_OK),
  /** QEMU for a big-endian machine, whose firmware has a legacy driver for disks. */
  "qemu-ppc": () => firstFile([join(peersDir, "ppc/usr/bin/qemu-system-ppc64")], constants.X_OK),
  /** Reads and writes through QEMU's block layer. */
  "qemu-io": () => which("qemu-io"),
  /** Copies, compares and times disks through QEMU's block layer. */
  "qemu-img": () => which("qemu-img"),
  /** The reference back-end for disks. */
  "qemu-storage-daemon": () => which("qemu-storage-daemon"),
  /** The driver that makes qemu-io and qemu-img vhost-user front-ends. */
  "libblkio": () => firstFile(moduleFolders.map((folder) => join(folder, "block-blkio.so"))),
  /** A compiler and the headers of libblkio, for front-ends in C. */
  "libblkio-dev": () => firstFile(["/usr/include/blkio.h"]) && which("cc"),
  /** Its web server sends ranges, and says by an ETag what they are of. */
  "busybox": () => which("busybox"),
  /** A compiler of static programs, for the guest. */
  "cc": () => firstFile(["/usr/lib/x86_64-linux-gnu/libc.a"]) && which("cc"),
  /** The kernel that QEMU boots; its initramfs stands beside it. */
  "guest": () => firstFile([join(guestDir, "vmlinux")]),
  /** User-Mode Linux: a kernel that is a program, and a front-end of its own. */
  "uml": () => which("linux.uml"),
  /** The initramfs for User-Mode Linux. */
  "uml-guest": () => firstFile([join(guestDir, "uml.cpio")]),
  /** The reference back-end for file systems. */
  "virtiofsd": () => which("virtiofsd"),
  /** A back-end for networks. */
  "passt": () => which("passt"),
  /** DPDK's program for tests, a back-end for networks; its libraries lie beside it. */
  "testpmd": () => firstFile([join(peersDir, "dpdk/usr/bin/dpdk-testpmd")], constants.X_OK),
  /** DPDK's front-end for networks, which testpmd loads. */
  "virtio-user": () => firstFile([join(dpdkLibraries, "librte_net_virtio.so.25")]),
  /** Interfaces of the host whose wire is a descriptor; making one takes an administrator. */
  "tun": () => process.getuid?.() === 0 && existsSync("/dev/net/tun") ? "/dev/net/tun" : undefined,
  /** Starts a program with a socket, as systemd does. */
  "systemd-socket-activate": () => which("systemd-socket-activate"),
  /** Judges the files of services. */
  "systemd-analyze": () => which("systemd-analyze"),
  /** A browser, for pages. */
  "chromium": () => which("chromium-headless-shell") ?? which("chromium"),
  /** Versions of Node, a runtime of the package for npm. */
  "node22": () => firstFile([join(nodeDir, "22/node")], constants.X_OK),
  "node24": () => firstFile([join(nodeDir, "24/node")], constants.X_OK),
  "node26": () => firstFile([join(nodeDir, "26/node")], constants.X_OK),
  /** A server of disks over the network, with faults to plug in. */
  "nbdkit": () => which("nbdkit"),
  /** The same of QEMU's block layer. */
  "qemu-nbd": () => which("qemu-nbd"),
  /** Makes certificates. */
  "openssl": () => which("openssl"),
  /** A back-end for sockets. */
  "vhost-device-vsock": () => firstFile([join(peersDir, "vsock/usr/bin/vhost-device-vsock")], constants.X_OK),
  /** Shells, for which the command line has completions. */
  "bash": () => which("bash"),
  "zsh": () => which("zsh"),
  "fish": () => which("fish"),
  /** Gives programs a terminal. */
  "script": () => which("script"),
  /** Programs that read the pages of the manual. */
  "groff": () => which("groff"),
  "mandoc": () => which("mandoc"),
} satisfies Record<string, () => string | undefined>;

/** The name of something the tests need from outside. */
export type PeerName = keyof typeof peers;

/** What installs these. */
function installers(names: readonly PeerName[]): string {
  const scripts = names.map((name) =>
    name.startsWith("node") ? "scripts/install-node" : "scripts/install-peers"
  );
  return [...new Set(scripts)].join(" and ");
}

/** Finds a peer: its path, or why there is none and what to do about it. */
export function peer(name: PeerName): { path: string } | { missing: string } {
  const path = peers[name]();
  return path ? { path } : { missing: `missing ${name}: run ${installers([name])}` };
}

/** The path of a peer that must be there; a test that named it in its needs can rely on it. */
export function peerPath(name: PeerName): string {
  const found = peer(name);
  if ("missing" in found) throw new Error(found.missing);
  return found.path;
}

/** Options of {@linkcode realTest}. */
export interface RealTestOptions {
  /** Milliseconds until the test fails and what it started is stopped; 120 000 by default. */
  timeout?: number;
}

/**
 * Declares a test that needs programs from outside. If one is missing the test is skipped and its title says
 * why; with `VHOST_REAL=required` in the environment it fails instead.
 */
export function realTest(
  name: string,
  needs: readonly PeerName[],
  options: RealTestOptions,
  fn: (t: TestContext) => Promise<void>,
): void {
  const absent = needs.filter((name) => "missing" in peer(name));
  const missing = absent.length > 0 ? `missing ${absent.join(", ")}: run ${installers(absent)}` : "";
  const { timeout = 120_000 } = options;
  if (!missing) {
    test(name, { timeout }, fn);
  } else if (process.env.VHOST_REAL === "required") {
    test(name, () => {
      throw new Error(missing);
    });
  } else {
    // The skip is declared, not called from the test: Deno counts a test that skips itself as passed.
    test(`${name} [${missing}]`, { skip: missing }, () => {});
  }
}
