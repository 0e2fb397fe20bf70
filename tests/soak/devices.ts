import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Device } from "../../mod.ts";
import { BlkDevice, BlkRequest, FileStorage } from "../../src/devices/blk/mod.ts";
import { ConsoleDevice, ScriptEnd } from "../../src/devices/console/mod.ts";
import { GpioDevice, GpioDirection, GpioLines, GpioMessage } from "../../src/devices/gpio/mod.ts";
import { Eeprom, I2cDevice, SimulatedI2cBus } from "../../src/devices/i2c/mod.ts";
import { Keyboard } from "../../src/devices/input/mod.ts";
import { EchoNetwork, NET_HEADER_SIZE, NetDevice, netFeatures } from "../../src/devices/net/mod.ts";
import { RngDevice } from "../../src/devices/rng/mod.ts";
import { RtcClockType, RtcDevice, RtcMessage, SimulatedClock } from "../../src/devices/rtc/mod.ts";
import { ScmiDevice, sensorProtocol, SimulatedSensor } from "../../src/devices/scmi/mod.ts";
import { MemoryStorage, ScsiDevice } from "../../src/devices/scsi/mod.ts";
import { NullOutput, SoundDevice } from "../../src/devices/sound/mod.ts";
import { SimulatedSpiBus, SpiDevice, SpiFlash, spiTransferHead } from "../../src/devices/spi/mod.ts";
import { VSOCK_HEADER_SIZE, VsockDevice, VsockOp } from "../../src/devices/vsock/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { packed } from "../devices/request_driver.ts";
import { be, cdb } from "../devices/scsi_driver.ts";
import { concat, u32, u64 } from "../session/wire.ts";
import { sameBytes } from "../session/scene.ts";
import type { Random } from "../support/random.ts";
import type { Returned, SoakGuest } from "./guest.ts";

type Fields = (readonly [bytes: 1 | 2 | 4 | 8, value: number | bigint])[];

/** A device, and what a guest does with it. */
export interface SoakDevice {
  readonly name: string;
  readonly device: Device;
  readonly queues: number;
  readonly deviceFeatures?: bigint;
  /** How many guests' threads work at once. */
  readonly threads?: number;
  /** Threads of its second server; none by default. */
  readonly workers?: number;
  /** Whether rings are stopped only between one piece of work and the next: what comes meanwhile would be lost. */
  readonly settled?: true;
  /** Does something, and checks it. `thread` is the number of the guest's thread. */
  work(guest: SoakGuest, random: Random, thread: number): Promise<void>;
  /** Work was cut off: what it was about to do may have been done, or not. */
  cut?(thread: number): void;
  /** Lets go of what the device holds. */
  close?(): void;
}

const DISK = 1 << 20;
const SECTOR = 512;

/** What a disk holds, and what it may hold where a write was cut off. */
class DiskModel {
  readonly #bytes = new Uint8Array(DISK);
  readonly #doubt: { at: number; bytes: Uint8Array }[] = [];
  readonly #writing = new Map<number, { at: number; bytes: Uint8Array }>();
  readonly #threads: number;

  constructor(threads: number) {
    this.#threads = threads;
  }

  /** A range of a thread's own. */
  range(random: Random, thread: number): { at: number; length: number } {
    const part = Math.floor(DISK / SECTOR / this.#threads);
    const sectors = random.int(1, 16);
    return { at: SECTOR * (part * thread + random.int(0, part - sectors)), length: SECTOR * sectors };
  }

  writing(thread: number, at: number, bytes: Uint8Array): void {
    this.#writing.set(thread, { at, bytes });
  }

  written(thread: number): void {
    const done = this.#writing.get(thread);
    this.#writing.delete(thread);
    if (done === undefined) return;
    this.#bytes.set(done.bytes, done.at);
    const end = done.at + done.bytes.length;
    // What was in doubt is not any more, where all of it was written over.
    for (let i = this.#doubt.length - 1; i >= 0; i--) {
      const { at, bytes } = this.#doubt[i];
      if (at >= done.at && at + bytes.length <= end) this.#doubt.splice(i, 1);
    }
  }

  cut(thread: number): void {
    const under = this.#writing.get(thread);
    this.#writing.delete(thread);
    if (under !== undefined) this.#doubt.push(under);
  }

  /** Each sector must be what it was, or what a write that was cut off would have made of it. */
  check(at: number, got: Uint8Array): void {
    for (let from = at; from < at + got.length; from += SECTOR) {
      const sector = got.subarray(from - at, from - at + SECTOR);
      const possible = [
        this.#bytes.subarray(from, from + SECTOR),
        ...this.#doubt.filter((each) => from >= each.at && from < each.at + each.bytes.length)
          .map((each) => each.bytes.subarray(from - each.at, from - each.at + SECTOR)),
      ];
      if (possible.some((each) => each.every((byte, i) => byte === sector[i]))) continue;
      sameBytes(sector, possible[0], `sector ${from / SECTOR}`);
    }
  }
}

function blk(name: string, path: string, workers?: number): SoakDevice {
  const threads = 3;
  const storage = new FileStorage(path);
  const device = new BlkDevice({ storage, numQueues: 2 });
  const model = new DiskModel(threads);
  const header = (type: number, at: number): Uint8Array => concat(u32(type, 0), u64(BigInt(at / SECTOR)));
  return {
    name,
    device,
    queues: 2,
    threads,
    workers,
    async work(guest, random, thread): Promise<void> {
      const { at, length } = model.range(random, thread);
      const queue = thread % 2;
      if (random.int(0, 1) === 0) {
        const bytes = random.bytes(length);
        model.writing(thread, at, bytes);
        const { bytes: [status] } = await guest.ask(queue, [header(BlkRequest.OUT, at), bytes], [1]);
        assert.equal(status, 0);
        model.written(thread);
      } else {
        const { bytes, written } = await guest.ask(queue, [header(BlkRequest.IN, at)], [length, 1]);
        assert.deepEqual([written, bytes[length]], [length + 1, 0]);
        model.check(at, bytes.subarray(0, length));
      }
    },
    cut: (thread) => model.cut(thread),
    close: () => {
      device.close();
      storage.close();
    },
  };
}

function scsi(): SoakDevice {
  const device = new ScsiDevice({ units: [{ storage: new MemoryStorage(DISK) }] });
  const threads = 2;
  const model = new DiskModel(threads);
  let id = 0n;
  const run = async (
    guest: SoakGuest,
    command: Uint8Array,
    out: readonly Uint8Array[],
    room: number,
  ): Promise<Uint8Array | undefined> => {
    const request = new Uint8Array(51);
    request.set(concat(Uint8Array.of(1, 0, 0x40, 0, 0, 0, 0, 0), u64(++id)));
    request.set(command, 19);
    const { bytes } = await guest.ask(2, [request, ...out], [108, room]);
    assert.equal(bytes[11], 0, "response");
    // 6/29/00: the unit was reset; the command was not carried out.
    if (bytes[10] !== 0) {
      assert.deepEqual([bytes[10], bytes[12 + 2] & 15, bytes[12 + 12]], [2, 6, 0x29]);
      return undefined;
    }
    return bytes.subarray(108);
  };
  return {
    name: "scsi",
    device,
    queues: 3,
    threads,
    async work(guest, random, thread): Promise<void> {
      const { at, length } = model.range(random, thread);
      const where = [be(at / SECTOR, 4), 0, be(length / SECTOR, 2), 0];
      if (random.int(0, 1) === 0) {
        const bytes = random.bytes(length);
        model.writing(thread, at, bytes);
        const done = await run(guest, cdb(0x2a, 0, ...where), [bytes], 0);
        if (done === undefined) model.cut(thread);
        else model.written(thread);
      } else {
        const bytes = await run(guest, cdb(0x28, 0, ...where), [], length);
        if (bytes !== undefined) model.check(at, bytes);
      }
    },
    cut: (thread) => model.cut(thread),
    close: () => device.close(),
  };
}

/** Rings with room for what comes: one answer is asked for, and something is sent that brings it. */
async function echoed(guest: SoakGuest, sent: Uint8Array, room: number): Promise<Returned> {
  const [answer] = await Promise.all([guest.ask(0, [], [room]), guest.ask(1, [sent])]);
  return answer;
}

function net(): SoakDevice {
  const failures: unknown[] = [];
  const device = new NetDevice({ network: new EchoNetwork(), onError: (error) => failures.push(error) });
  return {
    name: "net",
    settled: true,
    device,
    queues: 2,
    deviceFeatures: mask(netFeatures.MAC),
    async work(guest, random): Promise<void> {
      const frame = random.bytes(random.int(60, 1514));
      const { written, bytes } = await echoed(guest, concat(new Uint8Array(NET_HEADER_SIZE), frame), 1600);
      assert.equal(written, NET_HEADER_SIZE + frame.length);
      sameBytes(bytes.subarray(NET_HEADER_SIZE, written), frame, "frame");
      assert.deepEqual(failures, []);
    },
  };
}

function console_(): SoakDevice {
  const end: ScriptEnd = new ScriptEnd((bytes) => void end.send(bytes.slice()));
  return {
    name: "console",
    settled: true,
    device: new ConsoleDevice({ ports: [{ end, console: true }] }),
    queues: 2,
    async work(guest, random): Promise<void> {
      // What a session before this one was not shown comes first.
      const sent = random.bytes(random.int(16, 2000));
      const mark = sent.subarray(0, 16);
      const done = guest.ask(1, [sent]);
      let got = Buffer.alloc(0);
      for (let at = -1; at < 0 || got.length < at + sent.length; at = got.indexOf(mark)) {
        const { written, bytes } = await guest.ask(0, [], [512]);
        got = Buffer.concat([got, bytes.subarray(0, written)]);
      }
      await done;
      sameBytes(got.subarray(got.indexOf(mark)), sent, "console");
    },
  };
}

function vsock(): SoakDevice {
  const device = new VsockDevice({
    guestCid: 3,
    listen: { 7: ({ readable, writable }) => readable.pipeTo(writable).catch(() => {}) },
    onError: () => {},
  });
  let port = 1000;
  return {
    name: "vsock",
    settled: true,
    device,
    queues: 2,
    async work(guest, random): Promise<void> {
      const srcPort = ++port;
      const packet = (op: number, payload: Uint8Array = new Uint8Array(0), flags = 0): Uint8Array =>
        concat(
          u64(3n),
          u64(2n),
          u32(srcPort, 7, payload.length),
          packed([2, 1], [2, op]),
          u32(flags, 1 << 18, 0),
          payload,
        );
      const take = async (): Promise<{ op: number; payload: Uint8Array }> => {
        for (;;) {
          const { bytes } = await guest.ask(0, [], [4096]);
          const view = new DataView(bytes.buffer);
          // Of a connection that another session left over.
          if (view.getUint32(20, true) !== srcPort) continue;
          const op = view.getUint16(30, true);
          if (op === VsockOp.CREDIT_UPDATE) continue;
          return {
            op,
            payload: bytes.slice(VSOCK_HEADER_SIZE, VSOCK_HEADER_SIZE + view.getUint32(24, true)),
          };
        }
      };
      const first = take();
      await guest.ask(1, [packet(VsockOp.REQUEST)]);
      assert.equal((await first).op, VsockOp.RESPONSE);
      const sent = random.bytes(random.int(1, 3000));
      await guest.ask(1, [packet(VsockOp.RW, sent)]);
      const parts: Uint8Array[] = [];
      for (let got = 0; got < sent.length;) {
        const { op, payload } = await take();
        assert.equal(op, VsockOp.RW);
        parts.push(payload);
        got += payload.length;
      }
      sameBytes(concat(...parts), sent, "vsock");
      await guest.ask(1, [packet(VsockOp.RST)]);
    },
    close: () => device.close(),
  };
}

function rng(): SoakDevice {
  return {
    name: "rng",
    device: new RngDevice(),
    queues: 1,
    threads: 2,
    async work(guest, random): Promise<void> {
      const length = random.int(64, 4096);
      const { written, bytes } = await guest.ask(0, [], [length]);
      assert.equal(written, length);
      assert.ok(new Set(bytes).size > 20, "it looks random");
    },
  };
}

function input(): SoakDevice {
  const keyboard = new Keyboard();
  return {
    name: "input",
    settled: true,
    device: keyboard,
    queues: 2,
    async work(guest): Promise<void> {
      const rooms = Array.from({ length: 4 }, () => guest.ask(0, [], [8]));
      keyboard.tap("A");
      for (const { written, bytes } of await Promise.all(rooms)) {
        assert.equal(written, 8);
        const type = bytes[0] | bytes[1] << 8;
        assert.ok(type === 0 || type === 1 || type === 4, `event of type ${type}`);
      }
      await guest.ask(1, [packed([2, 0x11], [2, 0], [4, 1])]);
    },
  };
}

function sound(): SoakDevice {
  const OK = 0x8000;
  return {
    name: "sound",
    settled: true,
    device: new SoundDevice({ output: new NullOutput(), speed: 1000 }),
    queues: 4,
    async work(guest, random): Promise<void> {
      const control = async (request: Uint8Array): Promise<number> => {
        const { bytes } = await guest.ask(0, [request], [4]);
        return new DataView(bytes.buffer).getUint32(0, true);
      };
      assert.equal(await control(concat(u32(0x101, 0, 4000, 1000, 0), Uint8Array.of(1, 5, 7, 0))), OK);
      for (const code of [0x102, 0x104]) assert.equal(await control(u32(code, 0)), OK);
      for (let i = 0; i < 3; i++) {
        const { bytes } = await guest.ask(2, [u32(0), random.bytes(1000)], [8]);
        assert.equal(new DataView(bytes.buffer).getUint32(0, true), OK);
      }
      for (const code of [0x105, 0x103]) assert.equal(await control(u32(code, 0)), OK);
    },
  };
}

function gpio(): SoakDevice {
  const lines = new GpioLines(4);
  return {
    name: "gpio",
    settled: true,
    device: new GpioDevice({ chip: lines }),
    queues: 2,
    async work(guest, random): Promise<void> {
      const line = random.int(0, 3);
      const ask = async (type: number, value = 0): Promise<number> => {
        const { written, bytes } = await guest.ask(0, [packed([2, type], [2, line], [4, value])], [2]);
        assert.deepEqual([written, bytes[0]], [2, 0]);
        return bytes[1];
      };
      await ask(GpioMessage.SET_DIRECTION, GpioDirection.OUT);
      const level = random.int(0, 1);
      await ask(GpioMessage.SET_VALUE, level);
      assert.equal(await ask(GpioMessage.GET_VALUE), level);
    },
  };
}

function i2c(): SoakDevice {
  return {
    name: "i2c",
    device: new I2cDevice({ bus: new SimulatedI2cBus([new Eeprom({ size: 256 })]) }),
    queues: 1,
    deviceFeatures: 1n,
    async work(guest, random): Promise<void> {
      const page = 8 * random.int(0, 31);
      const sent = random.bytes(8);
      const group = async (flags: number, out: Uint8Array, room: number): Promise<Uint8Array> => {
        const { bytes } = await guest.ask(0, [packed([2, 0xa0], [2, 0], [4, flags]), out], [room, 1]);
        assert.equal(bytes[room], 0);
        return bytes.subarray(0, room);
      };
      await group(0, concat(Uint8Array.of(page), sent), 0);
      const [, got] = await Promise.all([
        group(1, Uint8Array.of(page), 0),
        group(2, new Uint8Array(0), 8),
      ]);
      sameBytes(got, sent, "EEPROM");
    },
  };
}

function spi(): SoakDevice {
  const flash = new SpiFlash({ size: 65536 });
  return {
    name: "spi",
    device: new SpiDevice({ bus: new SimulatedSpiBus([flash]) }),
    queues: 1,
    async work(guest, random): Promise<void> {
      const head = spiTransferHead.encode({
        chipSelectId: 0,
        bitsPerWord: 8,
        csChange: 1,
        txNbits: 0,
        rxNbits: 0,
        reserved0: 0,
        reserved1: 0,
        mode: 0,
        freq: 1_000_000,
        wordDelayNs: 0,
        csSetupNs: 0,
        csDelayHoldNs: 0,
        csChangeDelayInactiveNs: 0,
      });
      const command = async (bytes: readonly number[], length = 0): Promise<Uint8Array> => {
        const all = Uint8Array.from([...bytes, ...new Array(length).fill(0)]);
        const room = length === 0 ? 0 : all.length;
        const { bytes: got } = await guest.ask(0, [head, all], [room, 1]);
        assert.equal(got[room], 0);
        return got.subarray(length === 0 ? 0 : bytes.length, room);
      };
      const block = random.int(0, 15) << 4;
      const data = [...random.bytes(32)];
      await command([6]);
      await command([0x20, 0, block, 0]);
      await command([6]);
      await command([2, 0, block, 0, ...data]);
      assert.deepEqual([...await command([3, 0, block, 0], 32)], data);
    },
  };
}

function rtc(): SoakDevice {
  const clock = new SimulatedClock(RtcClockType.UTC, 0n, 1000);
  let last = 0n;
  return {
    name: "rtc",
    settled: true,
    device: new RtcDevice({ clocks: [clock] }),
    queues: 2,
    deviceFeatures: 1n,
    async work(guest): Promise<void> {
      const ask = async (type: number, room: number, ...fields: Fields): Promise<DataView> => {
        const { written, bytes } = await guest.ask(0, [packed([2, type], [2, 0], [4, 0], ...fields)], [room]);
        assert.deepEqual([written, bytes[0]], [room, 0]);
        return new DataView(bytes.buffer, 8);
      };
      const now = (await ask(RtcMessage.READ, 16, [2, 0], [2, 0], [4, 0])).getBigUint64(0, true);
      assert.ok(now >= last, "it goes on");
      last = now;
      const soon = now + 1_000_000_000n;
      const expired = guest.ask(1, [], [16]);
      await ask(RtcMessage.SET_ALARM, 8, [8, soon], [2, 0], [1, 1], [1, 0], [4, 0]);
      assert.equal((await expired).written, 16);
    },
  };
}

function scmi(): SoakDevice {
  const sensor = new SimulatedSensor("soc", 41.5);
  return {
    name: "scmi",
    device: new ScmiDevice({ protocols: [sensorProtocol([sensor])] }),
    queues: 2,
    async work(guest, random): Promise<void> {
      sensor.value = random.int(0, 100);
      const { written, bytes } = await guest.ask(0, [u32((6 | 0x15 << 10) >>> 0, 0, 0)], [128]);
      const view = new DataView(bytes.buffer);
      assert.ok(written >= 16);
      assert.deepEqual([view.getInt32(4, true), view.getBigInt64(8, true)], [
        0,
        BigInt(sensor.value) * 1000n,
      ]);
    },
  };
}

/** All devices; disks on two files of {@link DISK} bytes. */
export function soakDevices(file: string, other: string): SoakDevice[] {
  return [
    blk("blk", file),
    blk("blk in workers", other, 2),
    scsi(),
    net(),
    vsock(),
    console_(),
    rng(),
    input(),
    sound(),
    gpio(),
    i2c(),
    spi(),
    rtc(),
    scmi(),
  ];
}

/** Bytes of a disk. */
export const diskSize: number = DISK;
