/**
 * The devices that hostile front-ends work on: every ready one, and a custom one with everything that a device can have.
 *
 * @module
 */

import { close } from "../../../ffi/fd.ts";
import { memoryFile } from "../../../ffi/mapping.ts";
import {
  type Chain,
  defineDevice,
  type Device,
  type DeviceBehaviour,
  type FrontEndLink,
  type ServeOptions,
} from "../../../mod.ts";
import { BlkDevice, MemoryStorage, NullStorage } from "../../../src/devices/blk/mod.ts";
import { ConsoleDevice, ScriptEnd } from "../../../src/devices/console/mod.ts";
import { GpioDevice, GpioLines } from "../../../src/devices/gpio/mod.ts";
import { Eeprom, I2cDevice, SimulatedI2cBus } from "../../../src/devices/i2c/mod.ts";
import { Keyboard } from "../../../src/devices/input/mod.ts";
import { EchoNetwork, NetDevice, SwitchNetwork, UserNetwork } from "../../../src/devices/net/mod.ts";
import { RngDevice } from "../../../src/devices/rng/mod.ts";
import { RtcDevice } from "../../../src/devices/rtc/mod.ts";
import { ScmiDevice, sensorProtocol, SimulatedSensor } from "../../../src/devices/scmi/mod.ts";
import { ScsiDevice } from "../../../src/devices/scsi/mod.ts";
import { NullInput, NullOutput, SoundDevice } from "../../../src/devices/sound/mod.ts";
import { SimulatedSpiBus, SpiDevice, SpiFlash } from "../../../src/devices/spi/mod.ts";
import { VsockDevice } from "../../../src/devices/vsock/mod.ts";
import { onEnd, type Scope } from "../../support/cleanup.ts";

/** A device, and how it is served. */
export interface Subject {
  /** Its name in cases. */
  readonly name: string;
  /** Makes it; it is closed with the scope. */
  make(scope: Scope): Device;
  /** How it is served. */
  readonly options?: Partial<ServeOptions>;
}

const MIB = 1 << 20;

/** Devices whose rings run in the thread of the sessions. */
export const subjects: readonly Subject[] = [
  {
    name: "blk",
    make: () => new BlkDevice({ storage: new MemoryStorage(MIB), numQueues: 4, shared: true }),
    options: { iommu: true },
  },
  { name: "blk-exclusive", make: () => new BlkDevice({ storage: new MemoryStorage(MIB), numQueues: 2 }) },
  {
    name: "scsi",
    make: () =>
      new ScsiDevice({
        units: [{ storage: new MemoryStorage(MIB), id: "a" }, { storage: new MemoryStorage(MIB) }],
      }),
  },
  {
    name: "net",
    make: () => new NetDevice({ network: new EchoNetwork(), queuePairs: 2 }),
    options: { inBandNotifications: true },
  },
  {
    name: "net-switch",
    make: () => new NetDevice({ network: new SwitchNetwork() }),
    options: { iommu: true },
  },
  {
    name: "net-user",
    make: () => new NetDevice({ network: new UserNetwork({ names: () => false, onConnection: () => {} }) }),
  },
  {
    name: "vsock",
    make: () =>
      new VsockDevice({
        guestCid: 3,
        listen: { 1234: ({ readable, writable }) => void readable.pipeTo(writable).catch(() => {}) },
        onError: () => {},
      }),
  },
  {
    name: "console",
    make: () =>
      new ConsoleDevice({
        ports: [
          { end: new ScriptEnd(() => {}), console: true },
          { end: new ScriptEnd(() => {}), name: "channel" },
        ],
      }),
  },
  { name: "rng", make: () => new RngDevice(), options: { inBandNotifications: true, iommu: true } },
  { name: "input", make: () => new Keyboard() },
  { name: "sound", make: () => new SoundDevice({ output: new NullOutput(), input: new NullInput() }) },
  { name: "gpio", make: () => new GpioDevice({ chip: new GpioLines(8) }) },
  { name: "i2c", make: () => new I2cDevice({ bus: new SimulatedI2cBus([new Eeprom({ address: 0x50 })]) }) },
  { name: "spi", make: () => new SpiDevice({ bus: new SimulatedSpiBus([new SpiFlash({ size: MIB })]) }) },
  { name: "rtc", make: () => new RtcDevice() },
  {
    name: "scmi",
    make: () => new ScmiDevice({ protocols: [sensorProtocol([new SimulatedSensor("soc", 40)])] }),
  },
  { name: "custom", make: custom, options: { iommu: true, inBandNotifications: true } },
];

/** The same for devices that can have theirs in worker threads. */
export const workerSubjects: readonly Subject[] = [
  {
    name: "blk-workers",
    make: () => new BlkDevice({ storage: new MemoryStorage(MIB), numQueues: 4, shared: true }),
    options: { workers: 2, iommu: true },
  },
  {
    name: "null-workers",
    make: () => new BlkDevice({ storage: new NullStorage(MIB), numQueues: 4, shared: true }),
    options: { workers: 1, inBandNotifications: true },
  },
];

/** Has everything that a device can have, and asks its front-end for all that can be asked for whenever it is written to. */
function custom(scope: Scope): Device {
  const file = memoryFile("shared", MIB);
  onEnd(scope, () => close(file));
  return defineDevice({ type: 63, name: "custom", connect: (link) => behaviour(link, file) });
}

const UUID = new Uint8Array(16).fill(0x5a);

function behaviour(link: FrontEndLink, file: number): DeviceBehaviour {
  const config = new Uint8Array(64);
  let crypto = 0n;
  const refused = (): void => {};
  const ask = (): void => {
    const window = { shmid: 7, fdOffset: 0n, shmOffset: 0n, length: 4096n, flags: 0n };
    link.windows.map(window, file).then(() => link.windows.unmap(window)).catch(refused);
    link.request("SHARED_OBJECT_ADD", UUID).catch(refused);
    link.request("SHARED_OBJECT_LOOKUP", UUID).then(({ fds }) => fds.close(), refused);
    link.request("VRING_HOST_NOTIFIER_MSG", { index: 0, noDescriptor: false, size: 4096n, offset: 0n }, [
      file,
    ])
      .then(({ fds }) => fds.close(), refused);
  };
  const echo = (chain: Chain): void => void chain.write(chain.read());
  return {
    queues: [echo, async (chain) => (await Promise.resolve(), echo(chain)), echo, echo],
    config: {
      read: () => config,
      write: (offset, data) => {
        if (offset + data.length > config.length) throw new RangeError("past the end");
        config.set(data, offset);
        ask();
      },
    },
    crossEndian: true,
    state: { save: () => new Uint8Array(200_000), load: () => {} },
    sharedMemory: new Map([[0, MIB], [7, 4096]]),
    sharedObject: (uuid) => uuid[0] % 2 === 0 ? file : undefined,
    announce: () => {},
    setMtu: () => {},
    crypto: {
      create: ({ opCode }) => {
        if (opCode % 3n === 0n) throw new Error("unknown algorithm");
        return crypto++;
      },
      close: (id) => {
        if (id >= crypto) throw new Error("unknown session");
      },
    },
    setGpuSocket: close,
    hostNotifiers: true,
  };
}
