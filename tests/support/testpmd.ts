import { join } from "node:path";
import type { Scope } from "./cleanup.ts";
import { dpdkLibraries, peerPath } from "./peers.ts";
import { Child } from "./process.ts";
import { TextReader } from "./stream.ts";

/** How testpmd is started. */
export interface TestpmdOptions {
  /** Parts to load besides the memory pool, by the names of their libraries. */
  readonly drivers: readonly string[];
  /** Its device: the value of `--vdev`. */
  readonly vdev: string;
  /** The processor that it runs on. */
  readonly core?: number;
  /** Queues of each direction. */
  readonly queues?: number;
  /** Its own options, as they come after `--`. */
  readonly options?: readonly string[];
}

/** Counts of a port. */
export interface PortStats {
  readonly received: number;
  readonly sent: number;
}

/** DPDK's program for tests, obeying over a pipe. */
export class Testpmd {
  readonly child: Child;
  readonly #reader: TextReader;

  /** Starts it; returns when its device is there. */
  static async start(scope: Scope, options: TestpmdOptions): Promise<Testpmd> {
    const { drivers, vdev, core = 0, queues = 1 } = options;
    // It would keep what it says until its end, to anything but a terminal.
    const child = Child.start(scope, "stdbuf", [
      ...["-oL", peerPath("testpmd")],
      ...["--lcores", `0@${core},1@${core}`, "--no-huge", "-m", "256", "--no-pci", "--no-shconf"],
      ...["librte_mempool_ring.so.25", ...drivers].flatMap((name) => ["-d", join(dpdkLibraries, name)]),
      ...["--vdev", vdev, "--", "-i", "--no-mlockall", "--total-num-mbufs=8192"],
      ...[`--rxq=${queues}`, `--txq=${queues}`, ...options.options ?? []],
    ], { pipe: true, env: { LD_LIBRARY_PATH: dpdkLibraries } });
    const testpmd = new Testpmd(child);
    await testpmd.#prompt();
    return testpmd;
  }

  private constructor(child: Child) {
    this.child = child;
    this.#reader = new TextReader(child.stdout);
  }

  async #prompt(): Promise<string> {
    const answer = await this.#reader.take(/testpmd> /, 30_000);
    if (!answer) {
      throw new Error(`testpmd does not answer: ${this.#reader.pending.slice(-2000)}\n${this.child.output}`);
    }
    return answer.before;
  }

  /** Runs a command and returns what it says. */
  async command(text: string): Promise<string> {
    this.child.stdin.write(`${text}\n`);
    return await this.#prompt();
  }

  /** What its port has counted since the start. */
  async stats(): Promise<PortStats> {
    const text = await this.command("show port stats 0");
    const number = (name: string): number => Number(new RegExp(`${name}: *(\\d+)`).exec(text)?.[1]);
    return { received: number("RX-packets"), sent: number("TX-packets") };
  }
}
