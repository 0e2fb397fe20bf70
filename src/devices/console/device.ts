/**
 * The console device.
 *
 * @module
 */

import type { Iovec } from "../../../ffi/iovec.ts";
import { Native } from "../../../ffi/native.ts";
import { Device, type DeviceBehaviour } from "../../backend/device.ts";
import type { StateKeeper } from "../../backend/device_state.ts";
import { has, mask } from "../../protocol/features.ts";
import { Control } from "./control.ts";
import type { OutputData } from "./end.ts";
import { consoleConfig, consoleFeatures, MAX_PORTS } from "./layout.ts";
import { ConsolePort, type PortOptions, type PortState } from "./port.ts";
import { consoleRequests } from "./request_format.ts";

/** What a console is made of. */
export interface ConsoleOptions {
  /** Its ports, 1 to 127. The first one should be a terminal: drivers that know only one port use it as that. */
  readonly ports: readonly PortOptions[];
}

/** The longest name of a port, bytes. */
const MAX_NAME = 255;

function checked({ ports }: ConsoleOptions): void {
  if (ports.length < 1 || ports.length > MAX_PORTS) {
    throw new RangeError(`a console has 1 to ${MAX_PORTS} ports, got ${ports.length}`);
  }
  const names = ports.flatMap(({ name }) => name === undefined ? [] : [name]);
  for (const name of names) {
    const { length } = new TextEncoder().encode(name);
    if (length === 0 || length > MAX_NAME || /[\0/\n]/.test(name)) {
      throw new RangeError(
        `a port's name has 1 to ${MAX_NAME} bytes, no slash, line end or zero; got ${JSON.stringify(name)}`,
      );
    }
    if (names.indexOf(name) !== names.lastIndexOf(name)) throw new RangeError(`two ports are named ${name}`);
  }
}

/**
 * A console (virtio device 3; virtio 1.4, section 5.3): terminals and channels between the guest and whatever is at the
 * other ends. It is for one guest at a time.
 *
 * Nothing is lost and nothing comes twice while both sides are there: what an end does not take stays in the guest's ring,
 * and what the guest does not take stays with the end.
 *
 * @example A terminal on a Unix socket
 * ```ts
 * import { serve } from "@vhost/user";
 * import { ConsoleDevice, UnixEnd } from "@vhost/user/devices/console";
 *
 * const folder = `/tmp/console-${crypto.randomUUID()}`;
 * const end = new UnixEnd({ path: `${folder}-terminal.sock` });
 * const device = new ConsoleDevice({ ports: [{ end, console: true }] });
 * const server = await serve(device, { socketPath: `${folder}.sock` });
 * // … and when it is no longer needed:
 * server.close();
 * end.close();
 * ```
 */
export class ConsoleDevice extends Device {
  /** Its ports. */
  readonly ports: readonly ConsolePort[];

  /**
   * A console that no guest has.
   *
   * @throws {RangeError} for ports that cannot be
   */
  constructor(options: ConsoleOptions) {
    checked(options);
    super({
      type: 3,
      name: "console",
      requests: consoleRequests,
      features: mask(consoleFeatures.SIZE, consoleFeatures.MULTIPORT, consoleFeatures.EMERG_WRITE),
      exclusive: true,
      connect: () => this.#connect(),
    });
    this.ports = options.ports.map((port, id) =>
      new ConsolePort(id, port, {
        connected: (port) => this.#control?.connected(port),
        resized: (port) => {
          this.#control?.resized(port);
          if (port.id === 0 && !this.#multiport) this.configChanged();
        },
      })
    );
    this.#emergency = options.ports[0].end;
  }

  #control: Control | undefined;
  #multiport = false;
  readonly #emergency: PortOptions["end"];
  readonly #byte = new Native(1);
  readonly #data: OutputData = {
    byteLength: 1,
    copyTo: (target, position = 0) => {
      if (position > 0 || target.length === 0) return 0;
      target[0] = this.#byte.bytes[0];
      return 1;
    },
    toIovec: (iovec: Iovec, position: number, length: number) => {
      if (position > 0 || length < 1) return 0;
      iovec.push(Number(this.#byte.address), 1);
      return 1;
    },
  };

  #reset(): void {
    this.#multiport = false;
    this.#control?.reset();
    for (const port of this.ports) port.reset();
  }

  #connect(): DeviceBehaviour {
    const control = this.#control = new Control(this.ports);
    const [first, ...others] = this.ports;
    this.#reset();
    return {
      queues: [
        first.receiver,
        first.transmitter,
        control.receiver,
        (chain) => control.take(chain),
        ...others.flatMap(({ receiver, transmitter }) => [receiver, transmitter]),
      ],
      config: {
        read: () =>
          consoleConfig.encode({
            cols: first.columns,
            rows: first.rows,
            maxPorts: this.ports.length,
            emergencyWrite: 0,
          }),
        write: (offset, data) => {
          const at = consoleConfig.offsets.emergencyWrite - offset;
          // Some front-ends write the whole space whatever the driver has written; it reads as zero.
          if (at >= 0 && at < data.length && data[at] !== 0) this.#write(data[at]);
        },
      },
      negotiated: (features) => {
        this.#multiport = has(features, consoleFeatures.MULTIPORT);
        // Without control messages the first port is open, and there is no other.
        if (!this.#multiport) first.guestOpen = true;
      },
      reset: () => this.#reset(),
      disconnected: () => {
        this.#reset();
        this.#control = undefined;
      },
      state: this.#keeper,
    };
  }

  /** Writes a character of the driver that has no ring yet; when it cannot be taken now, it is lost. */
  #write(byte: number): void {
    this.#byte.bytes[0] = byte;
    this.#emergency.output(this.#data, 0);
  }

  readonly #keeper: StateKeeper = {
    save: () => new TextEncoder().encode(JSON.stringify(this.ports.map(({ state }) => state))),
    load: (bytes) => {
      const states = statesOf(bytes);
      if (states.length !== this.ports.length) {
        throw new RangeError(
          `the state is that of a console with ${states.length} ports, this one has ${this.ports.length}`,
        );
      }
      states.forEach((state, i) => this.ports[i].state = state);
      // Somebody may be at an end here and was not there, or the other way round.
      for (const port of this.ports) this.#control?.connected(port);
    },
  };
}

/** @throws {TypeError} for what is no state */
function statesOf(bytes: Uint8Array): PortState[] {
  const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const isState = (each: unknown): each is PortState => {
    const { open, ready, taken } = (each ?? {}) as Record<string, unknown>;
    return typeof open === "boolean" && typeof ready === "boolean" && Number.isSafeInteger(taken) &&
      (taken as number) >= 0;
  };
  if (!Array.isArray(value) || !value.every(isState)) {
    throw new TypeError("not the state of a console's ports");
  }
  return value.map(({ open, ready, taken }) => ({ open, ready, taken }));
}
