import { join } from "node:path";
import { Agent } from "./agent.ts";
import { type Scope, tempDir } from "./cleanup.ts";
import { guestDir, peerPath } from "./peers.ts";
import { Child } from "./process.ts";

/** Options of {@linkcode Uml}. */
export interface UmlOptions {
  /** The devices: where each back-end listens, and the virtio id of what it is (2 is a disk). */
  devices: readonly { socket: string; id: number }[];
  /** Modules to load at boot, each with what it depends on. */
  modules?: readonly string[];
  /** Memory in MiB; 128 by default. */
  memory?: number;
  /** More words for the kernel's command line. */
  cmdline?: string;
}

/** How long a boot may take, in milliseconds: ten times what it takes on an idle machine. */
const BOOT_PATIENCE = 20_000;

/**
 * A guest in User-Mode Linux: the kernel runs as a program, and its virtio_uml driver is a vhost-user
 * front-end that shares no code with QEMU. It has one processor, and one queue per disk.
 */
export class Uml {
  /** The kernel. */
  readonly kernel: Child;
  #agent: Agent;

  /** Starts the kernel and waits until it has booted. The back-ends must be listening. */
  static async start(scope: Scope, options: UmlOptions): Promise<Uml> {
    const { devices, modules = [], memory = 128, cmdline = "" } = options;
    const kernel = Child.start(scope, peerPath("uml"), [
      ...[`mem=${memory}M`, `initrd=${join(guestDir, "uml.cpio")}`, `uml_dir=${tempDir(scope)}`, "quiet"],
      // The kernel's messages go to standard error, and the agent has the rest to itself.
      ...["con0=null,fd:2", "con1=fd:0,fd:1", "con=null", "agent=tty1", `mods=${modules.join(",")}`],
      ...devices.map(({ socket, id }) => `virtio_uml.device=${socket}:${id}`),
      ...cmdline.split(" ").filter((word) => word),
    ], { pipe: true, stubborn: true });
    const uml = new Uml(kernel);
    await uml.#agent.ready(BOOT_PATIENCE);
    return uml;
  }

  private constructor(kernel: Child) {
    this.kernel = kernel;
    const { stdin: writable, stdout: readable } = kernel;
    this.#agent = new Agent({ readable, writable, describe: () => this.describe() });
  }

  /** Everything worth knowing when something went wrong. */
  describe(): string {
    const state = this.kernel.code === undefined ? "runs" : `ended with status ${this.kernel.code}`;
    return `User-Mode Linux ${state}; console: ${this.kernel.output || "(empty)"}`;
  }

  /** Runs a shell script in the guest and returns its output. See {@linkcode Agent.run}. */
  run(script: string, timeout?: number): Promise<string> {
    return this.#agent.run(script, timeout);
  }

  /** Shuts the guest down, which resets its devices; returns when the kernel has ended. */
  async shutDown(): Promise<void> {
    await this.#agent.start("poweroff -f");
    await this.kernel.waitEnd();
  }

  /** Ends the guest as pulling the plug would. */
  async stop(): Promise<void> {
    await this.kernel.stop();
  }
}
