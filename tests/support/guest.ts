import { closeSync, openSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "./agent.ts";
import { onEnd, type Scope, tempDir } from "./cleanup.ts";
import { guestDir, peerPath } from "./peers.ts";
import { Child } from "./process.ts";
import { type Json, Qmp, type QmpEvent } from "./qmp.ts";
import { connectUnix } from "./stream.ts";

/** The name of a QEMU among the peers. */
export type Emulator = "qemu" | "qemu11";

/** Options of {@linkcode Guest}; all have defaults. */
export interface GuestOptions {
  /** Which QEMU; `qemu`, the system's, by default. */
  emulator?: Emulator;
  /** Memory in MiB; 256 by default. */
  memory?: number;
  /** Processors; 1 by default. */
  smp?: number;
  /** More arguments for QEMU: the devices. */
  devices?: readonly string[];
  /** Modules to load at boot, each with what it depends on; `all` is one of the names. */
  modules?: readonly string[];
  /** More words for the kernel's command line. */
  cmdline?: string;
  /** More properties of the machine (`q35`), such as `kernel-irqchip=split`. */
  machine?: string;
  /**
   * The object with the id `m0` that is the guest's memory. It must be shared memory: without `share=on`
   * everything negotiates well and nothing arrives, because the back-end maps private zero pages.
   */
  memoryBackend?: string;
  /**
   * Waits for a migration instead of booting: `defer`, or where to listen. The guest that arrives has booted
   * elsewhere, so its agent is taken to be ready.
   */
  incoming?: string;
  /** PCIe slots to plug devices into while the guest runs, `rp0` and so on; none by default. */
  slots?: number;
}

/** Options of {@linkcode Guest.plug}. */
export interface PlugOptions {
  /** The id of the device; `vu0` by default. */
  id?: string;
  /** The slot; 0 by default. */
  slot?: number;
  /** Milliseconds between attempts to connect again when the back-end goes away; never by default. */
  reconnectMs?: number;
  /** More properties of the device. */
  props?: Json;
  /** Queue pairs of a network device, queues for data of one for ciphers. */
  queues?: number;
}

/** Words that spare an emulated processor its self-tests and calibrations: half a second of the boot. */
const cmdline = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests " +
  "random.trust_cpu=on tsc=reliable no_timer_check agent=ttyS1";

/** How long a boot may take, in milliseconds: thirty times what it takes on an idle machine. Ten were too few once. */
const BOOT_PATIENCE = 90_000;

/** The arguments that make QEMU's machine: two with the same can exchange their state. */
export function machineArguments(options: GuestOptions): string[] {
  const { memory = 256, smp = 1, modules = [], slots = 0 } = options;
  const backend = options.memoryBackend ?? `memory-backend-memfd,id=m0,size=${memory}M,share=on`;
  const machine = ["q35", "memory-backend=m0", ...options.machine ? [options.machine] : []].join(",");
  const words = [cmdline, `mods=${modules.join(",")}`, options.cmdline ?? ""].join(" ").trim();
  const ports = Array.from({ length: slots }, (_, i) => [
    "-device",
    `pcie-root-port,id=rp${i},slot=${i + 1},chassis=${i + 1}`,
  ]);
  return [
    ["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"],
    // Emulation everywhere, also where KVM is at hand: what passes here then passes there.
    ["-accel", "tcg,tb-size=256", "-cpu", "max", "-smp", `${smp}`, "-m", `${memory}M`],
    ["-M", machine, "-object", backend],
    // Not SeaBIOS, which would drive a disk before Linux does.
    ["-bios", "qboot.rom"],
    ["-kernel", join(guestDir, "vmlinux"), "-initrd", join(guestDir, "base.cpio"), "-append", words],
    ...ports,
    options.devices ?? [],
  ].flat();
}

/** A Linux guest in QEMU, with a shell that the test can use. */
export class Guest {
  /** The emulator. */
  readonly qemu: Child;
  #monitor: Qmp;
  #agent: Agent;
  #console: string;
  /** What stands between a device and its socket, by the device's id: how to take it away. */
  #between = new Map<string, readonly [command: string, id: string]>();

  /** Starts QEMU and, unless it waits for a migration, waits until Linux has booted. */
  static async start(scope: Scope, options: GuestOptions = {}): Promise<Guest> {
    const dir = tempDir(scope);
    const [consoleLog, agentSocket, monitorSocket] = ["console", "agent", "qmp"].map((n) => join(dir, n));
    closeSync(openSync(consoleLog, "w"));
    const qemu = Child.start(scope, peerPath(options.emulator ?? "qemu"), [
      ...machineArguments(options),
      ...["-serial", `file:${consoleLog}`, "-serial", `unix:${agentSocket},server=on,wait=off`],
      ...["-qmp", `unix:${monitorSocket},server=on,wait=off`],
      ...options.incoming ? ["-incoming", options.incoming] : [],
    ]);
    const monitor = await Qmp.connect(scope, monitorSocket, qemu);
    const gone = (): string | undefined => qemu.code === undefined ? undefined : qemu.output;
    const port = await connectUnix(agentSocket, 1000, gone);
    onEnd(scope, () => {
      port.destroy();
    });
    const guest = new Guest(qemu, monitor, port, consoleLog);
    if (!options.incoming) await guest.#agent.ready(BOOT_PATIENCE);
    return guest;
  }

  private constructor(qemu: Child, monitor: Qmp, port: Socket, consoleLog: string) {
    this.qemu = qemu;
    this.#monitor = monitor;
    this.#console = consoleLog;
    this.#agent = new Agent({ readable: port, writable: port, describe: () => this.describe() });
  }

  /** What the guest's kernel has written to its console. */
  get console(): string {
    return readFileSync(this.#console, "utf8");
  }

  /** Everything worth knowing when something went wrong. */
  describe(): string {
    const state = this.qemu.code === undefined ? "runs" : `ended with status ${this.qemu.code}`;
    const said = this.qemu.output || "(no output)";
    return `QEMU ${state}: ${said}\nconsole: ${this.console.slice(-4000) || "(empty)"}`;
  }

  /** Runs a shell script in the guest and returns its output. See {@linkcode Agent.run}. */
  run(script: string, timeout?: number): Promise<string> {
    return this.#agent.run(script, timeout);
  }

  /** Waits in the guest until a shell condition holds, such as `[ -b /dev/vda ]`. */
  async waitFor(condition: string, timeout: number = 10_000): Promise<void> {
    // A counted loop, so that the agent answers again after a failure.
    await this.run(
      `n=${timeout / 20}; until ${condition}; do [ $((n -= 1)) -gt 0 ] || exit 1; usleep 20000; done`,
      timeout * 2,
    );
  }

  /** Runs a command of QEMU's monitor. */
  qmp(command: string, args?: Json): Promise<Json> {
    return this.#monitor.execute(command, args);
  }

  /** Waits for an event of QEMU's monitor, counting those that have come and were not taken. */
  waitQmpEvent(name: string, timeout?: number, matches?: (data: Json) => boolean): Promise<QmpEvent> {
    return this.#monitor.waitEvent(name, timeout, matches);
  }

  /** Waits until `query-status` (or another query) says `status`. */
  async waitStatus(status: string, query: string = "query-status", timeout: number = 20_000): Promise<void> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const answer = await this.qmp(query);
      if (answer.status === status) return;
      if (answer.status === "failed" || Date.now() > deadline) {
        throw new Error(`${query} is not "${status}": ${JSON.stringify(answer)}\n${this.describe()}`);
      }
      await sleep(10);
    }
  }

  /**
   * Plugs a vhost-user device into a slot of the running guest: `vhost-user-blk-pci`, or `virtio-net-pci` for
   * a network, `virtio-crypto-pci` for ciphers. `socket` is where the back-end listens. Returns when QEMU has the device; the guest takes a
   * moment longer.
   */
  async plug(driver: string, socket: string, options: PlugOptions = {}): Promise<void> {
    const { id = "vu0", slot = 0, reconnectMs, props = {}, queues = 1 } = options;
    const chardev = `${id}-socket`;
    await this.qmp("chardev-add", {
      id: chardev,
      backend: {
        type: "socket",
        data: {
          addr: { type: "unix", data: { path: socket } },
          server: false,
          ...reconnectMs === undefined ? {} : { "reconnect-ms": reconnectMs },
        },
      },
    });
    let link: Json = { chardev };
    if (driver.startsWith("virtio-net")) {
      link = { netdev: `${id}-net` };
      await this.qmp("netdev_add", { type: "vhost-user", id: link.netdev, chardev, queues });
      this.#between.set(id, ["netdev_del", `${id}-net`]);
    } else if (driver.startsWith("virtio-crypto")) {
      link = { cryptodev: `${id}-crypto` };
      await this.qmp("object-add", {
        "qom-type": "cryptodev-vhost-user",
        id: link.cryptodev,
        chardev,
        queues,
      });
      this.#between.set(id, ["object-del", `${id}-crypto`]);
    }
    await this.qmp("device_add", { driver, id, bus: `rp${slot}`, ...link, ...props });
  }

  /** Unplugs a device and waits until the guest has let it go. */
  async unplug(id: string = "vu0"): Promise<void> {
    await this.qmp("device_del", { id });
    await this.waitQmpEvent("DEVICE_DELETED", undefined, (data) => data.device === id);
    const between = this.#between.get(id);
    this.#between.delete(id);
    if (between !== undefined) await this.qmp(between[0], { id: between[1] });
    // A network takes its socket along.
    if (between?.[0] !== "netdev_del") await this.qmp("chardev-remove", { id: `${id}-socket` });
  }

  /** Has the guest boot again, by its own `reboot` or as the button on the case does. */
  async reboot(how: "command" | "button"): Promise<void> {
    await this.qmp("set-action", { reboot: "reset" });
    if (how === "button") await this.qmp("system_reset");
    // A moment later, so that the agent can answer.
    else await this.run("(usleep 100000; reboot -f) &");
    await this.#agent.ready(BOOT_PATIENCE);
  }

  /** Ends the guest as pulling the plug would. */
  async stop(): Promise<void> {
    await this.qemu.stop();
  }
}
