/**
 * The ready devices and the requests that they know.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Device } from "../../../mod.ts";
import { BlkDevice, MemoryStorage } from "../../../src/devices/blk/mod.ts";
import { ConsoleDevice, type ConsoleEnd, type PortLink } from "../../../src/devices/console/mod.ts";
import { GpioDevice, GpioLines } from "../../../src/devices/gpio/mod.ts";
import { Eeprom, I2cDevice, Lm75, SimulatedI2cBus } from "../../../src/devices/i2c/mod.ts";
import { EventType, Keyboard } from "../../../src/devices/input/mod.ts";
import { EchoNetwork, NetDevice, SwitchNetwork, UserNetwork } from "../../../src/devices/net/mod.ts";
import { RngDevice } from "../../../src/devices/rng/mod.ts";
import { RtcDevice, SimulatedClock } from "../../../src/devices/rtc/mod.ts";
import {
  clockProtocol,
  ScmiDevice,
  ScmiSensorType,
  sensorProtocol,
  SimulatedScmiClock,
  SimulatedSensor,
} from "../../../src/devices/scmi/mod.ts";
import { ScsiDevice } from "../../../src/devices/scsi/mod.ts";
import { NullOutput, SoundDevice, ToneInput } from "../../../src/devices/sound/mod.ts";
import { SimulatedSpiBus, SpiDevice, SpiFlash } from "../../../src/devices/spi/mod.ts";
import { VsockDevice, VsockGroup } from "../../../src/devices/vsock/mod.ts";
import type { Random } from "../../support/random.ts";
import type { Answer, Extra } from "./driver.ts";
import type { Field, Form } from "./form.ts";
import { frame } from "./frames.ts";
import { told } from "./unchecked.ts";

/** A device that is worked on. */
export interface Subject {
  /** Its name on the command line: `guest-` and this. */
  readonly name: string;
  /** Makes it. Errors that it tells of are its own business: they do not end anything. */
  make(): Device;
  /** Rings. */
  readonly queues: number;
  /** Rings whose requests the device keeps as long as it likes. */
  readonly holds?: readonly number[];
  /** Its requests. The first is made correctly before and after each case, and must be answered rightly. */
  readonly forms: readonly Form[];
  /** Whether the answer to the first request is right. */
  isRight(answer: Answer): void;
  /** What it may write beyond what it says. */
  readonly extra?: Extra;
  /** Bytes of its configuration space. */
  readonly config?: number;
  /** Cases in continuous integration, and the least requests that they have to bring an answer to. */
  readonly cases: number;
  readonly least: number;
}

const SECTORS = 2048;
/** The last byte, or the last few, are a status that is written in any case. */
const lastBytes = (count: number): Extra => (_, room) => [[room - count, room]];
const ignore = (): void => {};

const sector: Field = [8, 0, 1, 7, 2040, 2047, 2048, 1n << 55n];
const lengths = [512, 512, 1024, 4096, 65536, 0, 100];

const blk: Subject = {
  name: "blk",
  make: () => new BlkDevice({ storage: new MemoryStorage(SECTORS * 512), numQueues: 2 }),
  queues: 2,
  config: 96,
  extra: lastBytes(1),
  forms: [
    { name: "GET_ID", queue: 0, fields: [[4, 8], [4, 0], [8, 0]], room: [21, 21, 513, 20, 1] },
    ...[0, 1].flatMap((queue): Form[] => [
      { name: "IN", queue, fields: [[4, 0], [4, 0, 1], sector], room: lengths.map((length) => length + 1) },
      { name: "OUT", queue, fields: [[4, 1], [4, 0], sector], data: lengths, room: [1] },
      { name: "FLUSH", queue, fields: [[4, 4], [4, 0], [8, 0]], room: [1] },
      ...[11, 13, 14].map((type): Form => ({
        name: `ranges ${type}`,
        queue,
        fields: [[4, type], [4, 0], [8, 0], sector, [4, 8, 0, 1, 64, 0xffff_ffff], [4, 0, 0, 1, 2]],
        data: [0, 0, 16, 32, 256, 8],
        room: [1],
      })),
    ]),
  ],
  isRight: ({ written, bytes }) => {
    assert.deepEqual([written, String.fromCharCode(...bytes.subarray(0, 10))], [21, "vhost-user"]);
  },
  cases: 60,
  least: 600,
};

/** Commands of SCSI disks, with values where the standard has fields. */
function cdb(random: Random): number[] {
  const any = (...values: number[]): number => random.pick(values);
  const block = [0, 0, any(0, 0, 7, 255), any(0, 1, 8, 255)];
  const count = [0, any(0, 0, 1, 255), any(0, 1, 2, 8)];
  return any(0, 1) === 0
    ? [
      any(0x28, 0x2a, 0x88 - 0x60, 0x2f, 0x35, 0x25, 0x1a, 0x12, 0x00, 0x03),
      any(0, 1, 8),
      ...block,
      0,
      ...count,
    ]
    : [
      any(0x88, 0x8a, 0x8f, 0x91, 0x9e, 0xa0, 0x42, 0x41, 0x93, 0x5a, 0x55, 0xa8, 0x12, 0x1b, 0x15),
      any(0, 1, 8, 0x10),
      ...[any(0, 0x80, 0xb0, 0xb1, 0xb2), 0, 0, 0],
      ...block,
      ...[0, 0, any(0, 1), any(0, 1, 8, 255)],
      0,
      0,
    ];
}

function scsiRequest(random: Random): Uint8Array {
  const bytes = new Uint8Array(19 + 32);
  bytes.set([1, random.pick([0, 0, 0, 1]), 0x40, random.pick([0, 0, 1, 2])]);
  bytes.set(random.bytes(8), 8);
  bytes[16] = random.pick([0, 0, 1, 2, 4, 9]);
  bytes.set(cdb(random), 19);
  return bytes;
}

/** INQUIRY of unit 0. */
function inquiry(): Uint8Array {
  const bytes = new Uint8Array(19 + 32);
  bytes.set([1, 0, 0x40, 0]);
  bytes.set([0x12, 0, 0, 0, 36], 19);
  return bytes;
}

const lun: Field = [8, 0x4000_01n, 0x0140_0001n, 0x4001_0001n, 1];
const scsi: Subject = {
  name: "scsi",
  make: () =>
    new ScsiDevice({
      units: [{ storage: new MemoryStorage(SECTORS * 512) }, {
        storage: new MemoryStorage(1 << 16),
        readOnly: true,
      }],
      requestQueues: 2,
    }),
  queues: 4,
  holds: [1],
  config: 36,
  // Sense data and the answer have their places, whether they are used or not; what was read comes behind.
  extra: (_, room) => [[0, Math.min(room, 108)]],
  forms: [
    { name: "INQUIRY", queue: 2, build: inquiry, room: [108 + 36] },
    ...[2, 3].map((queue): Form => ({
      name: "command",
      queue,
      build: scsiRequest,
      data: [0, 0, 0, 512, 512, 1024, 24, 8, 100],
      room: [108, 108 + 36, 108 + 512, 108 + 4096, 108 + 255, 107, 108 + 65536],
    })),
    { name: "TMF", queue: 0, fields: [[4, 0], [4, 0, 1, 2, 3, 4, 5, 6, 7, 8], lun, [8, 0, 1]], room: [1] },
    { name: "AN", queue: 0, fields: [[4, 1, 2, 3], lun, [4, 0, 0xffff_ffff]], room: [5] },
    { name: "event", queue: 1, room: [16, 16, 15, 4096] },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[10], bytes[11]], [108 + 36, 0, 0]),
  cases: 80,
  least: 600,
};

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 10);
const OFFLOADS: readonly Field[] = [
  [1, 0, 1, 2, 3],
  [1, 0, 0, 1, 3, 4, 5, 0x80, 0x81],
  [2, 0, 34, 54, 66, 0xffff],
  [2, 0, 536, 1448, 1],
  [2, 0, 34, 14, 0xffff],
  [2, 0, 16, 6, 0xffff],
  [2, 0],
];

function netHeader(random: Random): number[] {
  const fields = random.int(0, 2) === 0
    ? OFFLOADS.map(([size, ...values]) => [size, random.pick(values)])
    : [];
  return fields.length === 0
    ? new Array(12).fill(0)
    : fields.flatMap(([size, value]) =>
      size === 1 ? [Number(value)] : [Number(value) & 0xff, Number(value) >> 8]
    );
}

function net(name: string, network: () => NetDevice): Subject {
  const received = [12 + 1514, 12 + 1514, 12 + 64, 12, 10, 4096, 65562, 100];
  return {
    name: `net-${name}`,
    make: network,
    // Control queues are the front-end's.
    queues: 2,
    holds: [0],
    config: 24,
    forms: [
      {
        name: "frame",
        queue: 1,
        build: () => Uint8Array.from([...new Array(12).fill(0), ...new Array(60).fill(2)]),
      },
      ...[1, 1, 1].map((queue): Form => ({
        name: "frame",
        queue,
        build: (random) => Uint8Array.from([...netHeader(random), ...frame(random)]),
        data: [0, 0, 0, 10, 1400, 20000],
      })),
      { name: "buffer", queue: 0, room: received },
      { name: "buffer", queue: 0, room: received },
    ],
    isRight: ({ written }) => assert.equal(written, 0),
    cases: 60,
    least: 400,
  };
}

const cid: Field = [8, 3, 3, 3, 2, 4];
const port: Field = [4, 1, 1234, 99, 0xffff_ffff];

function packet(name: string, queue: number, op: readonly number[], data: readonly number[]): Form {
  return {
    name,
    queue,
    fields: [
      cid,
      [8, 2, 2, 2, 4, 5],
      port,
      port,
      [4, ...new Set([...data, 0, 44, 65536, 0xffff_ffff])],
      [2, 1, 1, 2, 0],
      [2, ...op],
      [4, 0, 1, 2, 3],
      [4, 65536, 100, 0, 0xffff_ffff],
      [4, 0, 0, 10, 0xffff_ffff],
    ],
    data,
  };
}

const vsock: Subject = {
  name: "vsock",
  make: () => {
    const device = new VsockDevice({
      guestCid: 3,
      groups: [new VsockGroup()],
      maxConnections: 8,
      bufferSize: 1 << 16,
      listen: {
        1234: ({ readable, writable }) => readable.pipeTo(writable).catch(ignore),
        1: ignore,
      },
      onError: told,
    });
    return device;
  },
  queues: 3,
  holds: [0, 2],
  config: 8,
  forms: [
    packet("RST", 1, [3], [0]),
    packet("REQUEST", 1, [1, 1, 2], [0]),
    packet("RW", 1, [5], [10, 100, 4000, 65536, 0]),
    packet("RW", 1, [5], [1, 65000]),
    packet("SHUTDOWN", 1, [4, 6, 7, 8, 0], [0, 3]),
    { name: "buffer", queue: 0, room: [44, 44 + 4096, 4096, 43, 44 + 65536, 45] },
    { name: "buffer", queue: 0, room: [4096] },
    { name: "event", queue: 2, room: [4, 4, 3, 100] },
  ],
  isRight: ({ written }) => assert.equal(written, 0),
  cases: 80,
  least: 600,
};

/** An end that gives back what it gets. */
function echo(): ConsoleEnd {
  let link: PortLink;
  return {
    attach(port): void {
      link = port;
      port.connected(true);
    },
    output(data, from): number {
      const bytes = new Uint8Array(data.byteLength - from);
      data.copyTo(bytes, from);
      link.input(bytes);
      return bytes.length;
    },
    refilled: ignore,
  } as ConsoleEnd;
}

const console_: Subject = {
  name: "console",
  make: () => new ConsoleDevice({ ports: [{ end: echo(), console: true }, { end: echo(), name: "agent" }] }),
  queues: 6,
  holds: [0, 2, 4],
  config: 12,
  forms: [
    { name: "DEVICE_READY", queue: 3, fields: [[4, 0xffff_ffff], [2, 0], [2, 1]] },
    {
      name: "control",
      queue: 3,
      fields: [[4, 0, 1, 2, 0xffff_ffff], [2, 0, 1, 2, 3, 4, 5, 6, 7], [2, 1, 0]],
      data: [0, 0, 1, 200],
    },
    { name: "output", queue: 1, data: [1, 80, 4096, 30000, 0] },
    { name: "output", queue: 5, data: [1, 80, 4096, 0] },
    ...[0, 2, 4].map((queue): Form => ({ name: "buffer", queue, room: [4096, 256, 16, 8, 1, 65536] })),
  ],
  isRight: ({ written }) => assert.equal(written, 0),
  cases: 60,
  least: 400,
};

const rng: Subject = {
  name: "rng",
  make: () => new RngDevice(),
  queues: 1,
  forms: [
    { name: "bytes", queue: 0, room: [64, 1, 4096, 65536, 70000, 0] },
    { name: "readable", queue: 0, data: [1, 100], room: [0, 64] },
  ],
  isRight: ({ written, bytes }) => {
    assert.equal(written, 64);
    assert.ok(new Set(bytes).size > 8, "random bytes");
  },
  cases: 40,
  least: 400,
};

const input: Subject = {
  name: "input",
  make: () => {
    const keyboard = new Keyboard();
    return keyboard;
  },
  queues: 2,
  holds: [0],
  config: 136,
  forms: [
    { name: "LED", queue: 1, fields: [[2, EventType.LED], [2, 0, 1, 2, 9], [4, 0, 1]] },
    {
      name: "status",
      queue: 1,
      fields: [[2, 0, 1, 2, 0x11, 0x12, 0x14], [2, 0, 1, 0x2ff], [4, 0, 1]],
      data: [0, 8, 80, 1000],
    },
    { name: "buffer", queue: 0, room: [8, 8, 7, 16, 4096] },
  ],
  isRight: ({ written }) => assert.equal(written, 0),
  cases: 40,
  least: 300,
};

const stream: Field = [4, 0, 1, 2];
const sound: Subject = {
  name: "sound",
  make: () =>
    new SoundDevice({ output: new NullOutput(), input: new ToneInput(440), speed: 1000, onError: told }),
  queues: 4,
  holds: [1, 2, 3],
  config: 16,
  // What was recorded comes before the status, which is at the end.
  extra: (request, room) =>
    request.queue === 3 ? [[0, room]] : request.queue === 2 ? [[0, Math.min(8, room)]] : [],
  forms: [
    {
      name: "PCM_INFO",
      queue: 0,
      fields: [[4, 0x100], [4, 0, 1, 2], [4, 2, 1, 0, 3, 0xffff_ffff], [4, 32, 31, 33, 0]],
      room: [68, 36, 4, 3, 4096],
    },
    {
      name: "info",
      queue: 0,
      fields: [[4, 1, 2, 0x200, 0x300], [4, 0, 1], [4, 1, 2, 0], [4, 24, 32, 0]],
      room: [4, 28, 52, 100],
    },
    {
      name: "SET_PARAMS",
      queue: 0,
      fields: [
        [4, 0x101],
        stream,
        [4, 4000, 8000, 0, 0xffff_ffff],
        [4, 1000, 4000, 0, 3, 0xffff_ffff],
        [4, 0, 16, 1],
        [1, 1, 2, 0, 255],
        [1, 5, 4, 19, 255],
        [1, 7, 1, 255],
        [1, 0],
      ],
      room: [4],
    },
    ...[1, 2].map((): Form => ({
      name: "command",
      queue: 0,
      fields: [[4, 0x102, 0x103, 0x104, 0x105], stream],
      room: [4],
    })),
    { name: "event", queue: 1, room: [8, 7, 16] },
    {
      name: "play",
      queue: 2,
      fields: [[4, 0, 0, 1, 5]],
      data: [1000, 4000, 0, 7, 60000],
      room: [8, 8, 7, 9],
    },
    { name: "record", queue: 3, fields: [[4, 1, 1, 0, 5]], room: [1008, 4008, 8, 7, 60008] },
  ],
  isRight: ({ written, bytes }) => {
    assert.deepEqual([written, ...bytes.subarray(0, 4)], [68, 0, 0x80, 0, 0]);
  },
  cases: 80,
  least: 400,
};

const gpio: Subject = {
  name: "gpio",
  make: () => new GpioDevice({ chip: new GpioLines(["button", "", "red lamp", ""]), onError: told }),
  queues: 2,
  holds: [1],
  config: 8,
  forms: [
    { name: "GET_LINE_NAMES", queue: 0, fields: [[2, 1], [2, 0], [4, 0]], room: [1 + 18, 2, 18, 100] },
    ...[1, 2, 3].map((): Form => ({
      name: "request",
      queue: 0,
      fields: [[2, 2, 3, 4, 5, 6, 0, 7], [2, 0, 1, 3, 4, 0xffff], [4, 0, 1, 2, 3, 4, 8]],
      room: [2, 2, 1, 3],
    })),
    { name: "unmask", queue: 1, fields: [[2, 0, 1, 3, 4, 0xffff]], room: [1, 1, 0, 2] },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[0], bytes[1]], [19, 0, 98]),
  cases: 40,
  least: 400,
};

/** A request of I²C or SPI ends with a byte of status; before that is what was read. */
const i2c: Subject = {
  name: "i2c",
  make: () =>
    new I2cDevice({ bus: new SimulatedI2cBus([new Eeprom({ size: 256 }), new Lm75()]), onError: told }),
  queues: 1,
  forms: [
    { name: "read", queue: 0, fields: [[2, 0x48 << 1], [2, 0], [4, 2]], room: [3] },
    {
      name: "read",
      queue: 0,
      fields: [[2, 0xa0, 0x90, 0x91, 0xf0, 0xffff], [2, 0], [4, 2, 3, 6]],
      room: [2, 257, 1, 0, 65536, 65537],
    },
    {
      name: "write",
      queue: 0,
      fields: [[2, 0xa0, 0x90, 0x20], [2, 0], [4, 0, 1, 4]],
      data: [1, 2, 9, 300, 0, 65535],
      room: [1, 1, 2],
    },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[2]], [3, 0]),
  cases: 40,
  least: 300,
};

const spi: Subject = {
  name: "spi",
  make: () => new SpiDevice({ bus: new SimulatedSpiBus([new SpiFlash({ size: 65536 })]), onError: told }),
  queues: 1,
  config: 32,
  forms: [
    {
      name: "JEDEC id",
      queue: 0,
      build: () => {
        const bytes = new Uint8Array(32 + 4);
        bytes.set([0, 8, 1]);
        bytes[32] = 0x9f;
        return bytes;
      },
      room: [5],
    },
    {
      name: "transfer",
      queue: 0,
      fields: [
        [1, 0, 0, 1],
        [1, 8, 8, 16, 0, 33],
        [1, 1, 0, 2],
        [1, 0, 1, 2],
        [1, 0, 1, 4],
        [1, 0],
        [2, 0],
        [4, 0, 3, 0x20],
        ...[1, 2, 3, 4, 5].map((): Field => [4, 0, 0, 0, 1_000_000, 0xffff_ffff]),
      ],
      data: [1, 4, 5, 0, 260, 4096],
      room: [1, 5, 6, 261, 0, 4097],
    },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[4]], [5, 0]),
  cases: 40,
  least: 300,
};

const clock: Field = [2, 0, 1, 2, 0xffff];
const rtc: Subject = {
  name: "rtc",
  make: () =>
    new RtcDevice({
      clocks: [new SimulatedClock(0, 1000n, 1), new SimulatedClock(2, 5n)],
      onError: told,
    }),
  queues: 2,
  holds: [1],
  forms: [
    { name: "CFG", queue: 0, fields: [[2, 0x1000], [2, 0], [4, 0]], room: [16, 15, 17] },
    {
      name: "clock",
      queue: 0,
      fields: [[2, 1, 2, 0x1001, 0x1002, 0x1003, 0x1005, 3], [2, 0], [4, 0], clock, [1, 0, 1, 0xff], [1, 0], [
        4,
        0,
      ]],
      room: [16, 24, 8, 7],
    },
    {
      name: "SET_ALARM",
      queue: 0,
      fields: [[2, 0x1004], [2, 0], [4, 0], [8, 0, 1, 2000, (1n << 64n) - 1n], clock, [1, 1, 0, 2], [1, 0], [
        4,
        0,
      ]],
      room: [8],
    },
    { name: "alarm", queue: 1, room: [16, 15, 16, 100] },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[0], bytes[8]], [16, 0, 2]),
  cases: 40,
  least: 300,
};

const command = (protocol: number, message: number): number => (message | protocol << 10) >>> 0;
const scmi: Subject = {
  name: "scmi",
  make: () =>
    new ScmiDevice({
      protocols: [
        sensorProtocol([new SimulatedSensor("a", 1), new SimulatedSensor("b", 2, ScmiSensorType.CELSIUS)]),
        clockProtocol([new SimulatedScmiClock({ name: "c", rate: 1, rates: { min: 1, max: 100, step: 7 } })]),
      ],
      onError: told,
    }),
  queues: 2,
  holds: [1],
  forms: [
    { name: "VERSION", queue: 0, fields: [[4, command(0x10, 0)]], room: [12, 8, 7, 128] },
    ...[1, 2].map((): Form => ({
      name: "command",
      queue: 0,
      fields: [
        [
          4,
          ...[0x10, 0x14, 0x15, 0x99].flatMap((id) => Array.from({ length: 12 }, (_, n) => command(id, n))),
        ],
      ],
      data: [0, 4, 8, 12, 16, 3],
      room: [128, 8, 12, 28, 4, 4096],
    })),
    { name: "notification", queue: 1, room: [128, 8] },
  ],
  isRight: ({ written, bytes }) => assert.deepEqual([written, bytes[4], bytes[8], bytes[10]], [12, 0, 0, 2]),
  cases: 40,
  least: 400,
};

/** All of them. */
export const subjects: readonly Subject[] = [
  blk,
  scsi,
  net("echo", () => new NetDevice({ network: new EchoNetwork(), mac: MAC, mtu: 1500, onError: told })),
  net("switch", () => new NetDevice({ network: new SwitchNetwork(), onError: told })),
  net("user", () =>
    new NetDevice({
      network: new UserNetwork({
        names: (name) => name === "echo.test",
        onConnection: (connection) => {
          if (connection.port !== 7) return;
          const { readable, writable } = connection.accept();
          return readable.pipeTo(writable).catch(ignore);
        },
      }),
      onError: told,
    })),
  vsock,
  console_,
  rng,
  input,
  sound,
  gpio,
  i2c,
  spi,
  rtc,
  scmi,
];
