import type { frontendMessages } from "../../src/protocol/messages.ts";
import { hex } from "./hex.ts";
import type { Exchanges } from "./vector.ts";

// Every message from front-end to back-end with its answer, byte by byte: id | flags | size | payload. Flags are 01,
// 09 where an acknowledgement is asked for, and 05 in every answer. Written by hand from the specification and from
// what QEMU 11.1.3 sent; what the codec puts out was never copied here.

/** Number `2^28 + 2^29 + 2^30 + 2^32`. */
const features = "00 00 00 70 01 00 00 00";
const blkConfig = `
  00 00 02 00 00 00 00 00  00 00 00 00  7e 00 00 00  00 00 00 00  00 02 00 00  00*8
  01 00 01 00  00*20  01`;
const uuid = "01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef";

export const frontendExchanges: Exchanges<typeof frontendMessages> = {
  GET_FEATURES: {
    request: { wire: "01 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: `01 00 00 00 | 05 00 00 00 | 08 00 00 00 | ${features}`, value: 0x1_7000_0000n },
  },
  SET_FEATURES: {
    request: { wire: `02 00 00 00 | 09 00 00 00 | 08 00 00 00 | ${features}`, value: 0x1_7000_0000n },
    reply: { wire: "02 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_OWNER: {
    request: { wire: "03 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "03 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  RESET_OWNER: {
    request: { wire: "04 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "04 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_MEM_TABLE: {
    // 256 MiB of QEMU's RAM around the hole below 1 MiB: 72 bytes, only as many regions as there are.
    request: {
      wire: `05 00 00 00 | 09 00 00 00 | 48 00 00 00 | 02 00 00 00  00 00 00 00
        00 00 00 00 00 00 00 00  00 00 0a 00 00 00 00 00  00 00 00 00 12 7f 00 00  00 00 00 00 00 00 00 00
        00 00 0c 00 00 00 00 00  00 00 f4 0f 00 00 00 00  00 00 0c 00 12 7f 00 00  00 00 0c 00 00 00 00 00`,
      value: [
        { guestAddress: 0n, size: 0xa_0000n, userAddress: 0x7f12_0000_0000n, mmapOffset: 0n },
        {
          guestAddress: 0xc_0000n,
          size: 0xff4_0000n,
          userAddress: 0x7f12_000c_0000n,
          mmapOffset: 0xc_0000n,
        },
      ],
    },
    reply: { wire: "05 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_LOG_BASE: {
    // A bit for each page of 256 MiB. The answer repeats the 16 bytes.
    request: {
      wire: "06 00 00 00 | 01 00 00 00 | 10 00 00 00 | 00 20 00 00 00 00 00 00  00 10 00 00 00 00 00 00",
      value: { size: 0x2000n, offset: 0x1000n },
    },
    reply: {
      wire: "06 00 00 00 | 05 00 00 00 | 10 00 00 00 | 00 20 00 00 00 00 00 00  00 10 00 00 00 00 00 00",
      value: { size: 0x2000n, offset: 0x1000n },
    },
  },
  SET_LOG_FD: {
    request: { wire: "07 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "07 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_NUM: {
    request: {
      wire: "08 00 00 00 | 01 00 00 00 | 08 00 00 00 | 02 00 00 00  80 00 00 00",
      value: { index: 2, num: 128 },
    },
    reply: { wire: "08 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_ADDR: {
    // Used stands before available.
    request: {
      wire: `09 00 00 00 | 09 00 00 00 | 28 00 00 00 | 01 00 00 00  01 00 00 00
        00 10 67 45 12 7f 00 00  40 1a 67 45 12 7f 00 00  00 18 67 45 12 7f 00 00  40 1a 67 0e 00 00 00 00`,
      value: {
        index: 1,
        flags: 1,
        descriptor: 0x7f12_4567_1000n,
        used: 0x7f12_4567_1a40n,
        available: 0x7f12_4567_1800n,
        log: 0xe67_1a40n,
      },
    },
    reply: { wire: "09 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_BASE: {
    // The start of a packed ring: both indices 0, both wrap counters 1.
    request: {
      wire: "0a 00 00 00 | 01 00 00 00 | 08 00 00 00 | 01 00 00 00  00 80 00 80",
      value: { index: 1, num: 0x8000_8000 },
    },
    reply: { wire: "0a 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_VRING_BASE: {
    request: {
      wire: "0b 00 00 00 | 01 00 00 00 | 08 00 00 00 | 01 00 00 00  00 00 00 00",
      value: { index: 1, num: 0 },
    },
    reply: {
      wire: "0b 00 00 00 | 05 00 00 00 | 08 00 00 00 | 01 00 00 00  34 12 00 00",
      value: { index: 1, num: 0x1234 },
    },
  },
  SET_VRING_KICK: {
    request: {
      wire: "0c 00 00 00 | 09 00 00 00 | 08 00 00 00 | 03 00 00 00 00 00 00 00",
      value: { index: 3, noDescriptor: false },
    },
    reply: { wire: "0c 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_CALL: {
    // Bit 8: no descriptor.
    request: {
      wire: "0d 00 00 00 | 01 00 00 00 | 08 00 00 00 | ff 01 00 00 00 00 00 00",
      value: { index: 255, noDescriptor: true },
    },
    reply: { wire: "0d 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_ERR: {
    request: {
      wire: "0e 00 00 00 | 01 00 00 00 | 08 00 00 00 | 00 00 00 00 00 00 00 00",
      value: { index: 0, noDescriptor: false },
    },
    reply: { wire: "0e 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_PROTOCOL_FEATURES: {
    request: { wire: "0f 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: {
      wire: "0f 00 00 00 | 05 00 00 00 | 08 00 00 00 | 29 a2 41 00 00 00 00 00",
      value: 0x41_a229n,
    },
  },
  SET_PROTOCOL_FEATURES: {
    request: {
      wire: "10 00 00 00 | 01 00 00 00 | 08 00 00 00 | 29 a2 01 00 00 00 00 00",
      value: 0x1_a229n,
    },
    reply: { wire: "10 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_QUEUE_NUM: {
    request: { wire: "11 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "11 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00 01 00 00 00 00 00 00", value: 256n },
  },
  SET_VRING_ENABLE: {
    request: {
      wire: "12 00 00 00 | 09 00 00 00 | 08 00 00 00 | 07 00 00 00  01 00 00 00",
      value: { index: 7, num: 1 },
    },
    reply: { wire: "12 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SEND_RARP: {
    // As QEMU sent it: the address of its card, in memory order.
    request: {
      wire: "13 00 00 00 | 01 00 00 00 | 08 00 00 00 | 52 54 00 12 34 56 00 00",
      value: 0x5634_1200_5452n,
    },
    reply: { wire: "13 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  NET_SET_MTU: {
    request: {
      wire: "14 00 00 00 | 09 00 00 00 | 08 00 00 00 | dc 05 00 00 00 00 00 00",
      value: 1500n,
    },
    // Any number but 0 says no.
    reply: { wire: "14 00 00 00 | 05 00 00 00 | 08 00 00 00 | 01 00 00 00 00 00 00 00", value: 1n },
  },
  SET_BACKEND_REQ_FD: {
    request: { wire: "15 00 00 00 | 09 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "15 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  IOTLB_MSG: {
    // 26 bytes of fields, and 6 to fill up to 32.
    request: {
      wire: `16 00 00 00 | 09 00 00 00 | 20 00 00 00
        00 f0 ff ff 00 00 00 00  00 10 00 00 00 00 00 00  00 a0 34 12 12 7f 00 00  03  02  00*6`,
      value: {
        iova: 0xffff_f000n,
        size: 0x1000n,
        userAddress: 0x7f12_1234_a000n,
        permission: 3,
        type: 2,
      },
    },
    reply: { wire: "16 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_VRING_ENDIAN: {
    request: {
      wire: "17 00 00 00 | 01 00 00 00 | 08 00 00 00 | 00 00 00 00  01 00 00 00",
      value: { index: 0, num: 1 },
    },
    reply: { wire: "17 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_CONFIG: {
    // QEMU asks a disk for 57 bytes, and sends as many dummies.
    request: {
      wire: "18 00 00 00 | 01 00 00 00 | 45 00 00 00 | 00 00 00 00  39 00 00 00  00 00 00 00  00*57",
      value: { offset: 0, flags: 0, data: new Uint8Array(57) },
    },
    reply: {
      wire: `18 00 00 00 | 05 00 00 00 | 45 00 00 00 | 00 00 00 00  39 00 00 00  00 00 00 00 ${blkConfig}`,
      value: { offset: 0, flags: 0, data: hex(blkConfig) },
    },
  },
  SET_CONFIG: {
    request: {
      wire: "19 00 00 00 | 09 00 00 00 | 0d 00 00 00 | 20 00 00 00  01 00 00 00  01 00 00 00  7f",
      value: { offset: 32, flags: 1, data: new Uint8Array([0x7f]) },
    },
    reply: { wire: "19 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  CREATE_CRYPTO_SESSION: {
    // Opcode first, number of the session last, 1072 bytes.
    request: {
      wire: `1a 00 00 00 | 01 00 00 00 | 30 04 00 00
        02 00 00 00 00 00 00 00  03 00 00 00  10 00 00 00  00*1048  00*8`,
      value: { opCode: 2n, session: hex("03 00 00 00  10 00 00 00  00*1048"), sessionId: 0n },
    },
    reply: {
      wire: `1a 00 00 00 | 05 00 00 00 | 30 04 00 00
        02 00 00 00 00 00 00 00  03 00 00 00  10 00 00 00  00*1048  fe ff ff ff ff ff ff ff`,
      value: { opCode: 2n, session: hex("03 00 00 00  10 00 00 00  00*1048"), sessionId: -2n },
    },
  },
  CLOSE_CRYPTO_SESSION: {
    request: {
      wire: "1b 00 00 00 | 01 00 00 00 | 08 00 00 00 | 05 00 00 00 00 00 00 00",
      value: 5n,
    },
    reply: { wire: "1b 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  POSTCOPY_ADVISE: {
    // The answer is a descriptor without a payload.
    request: { wire: "1c 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "1c 00 00 00 | 05 00 00 00 | 00 00 00 00", value: undefined },
  },
  POSTCOPY_LISTEN: {
    request: { wire: "1d 00 00 00 | 09 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "1d 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  POSTCOPY_END: {
    request: { wire: "1e 00 00 00 | 09 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "1e 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_INFLIGHT_FD: {
    // 20 bytes of fields, and 4 to fill up to 24.
    request: {
      wire: "1f 00 00 00 | 01 00 00 00 | 18 00 00 00 | 00*8  00*8  02 00  80 00  00*4",
      value: { mmapSize: 0n, mmapOffset: 0n, numQueues: 2, queueSize: 128 },
    },
    reply: {
      wire:
        "1f 00 00 00 | 05 00 00 00 | 18 00 00 00 | 80 10 00 00 00 00 00 00  00 20 00*6  02 00  80 00  00*4",
      value: { mmapSize: 0x1080n, mmapOffset: 0x2000n, numQueues: 2, queueSize: 128 },
    },
  },
  SET_INFLIGHT_FD: {
    request: {
      wire: "20 00 00 00 | 01 00 00 00 | 18 00 00 00 | 80 10 00 00 00 00 00 00  00*8  02 00  80 00  00*4",
      value: { mmapSize: 0x1080n, mmapOffset: 0n, numQueues: 2, queueSize: 128 },
    },
    reply: { wire: "20 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GPU_SET_SOCKET: {
    request: { wire: "21 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "21 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  RESET_DEVICE: {
    request: { wire: "22 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "22 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  VRING_KICK: {
    request: {
      wire: "23 00 00 00 | 09 00 00 00 | 08 00 00 00 | 05 00 00 00  00 00 00 00",
      value: { index: 5, num: 0 },
    },
    reply: { wire: "23 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_MAX_MEM_SLOTS: {
    request: { wire: "24 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "24 00 00 00 | 05 00 00 00 | 08 00 00 00 | fd 01 00 00 00 00 00 00", value: 509n },
  },
  ADD_MEM_REG: {
    // 8 bytes of padding before the region: 40.
    request: {
      wire: `25 00 00 00 | 09 00 00 00 | 28 00 00 00 | 00*8
        00 00 00 00 01 00 00 00  00 00 00 80 00 00 00 00  00 00 00 40 12 7f 00 00  00 00 00 c0 00 00 00 00`,
      value: {
        guestAddress: 0x1_0000_0000n,
        size: 0x8000_0000n,
        userAddress: 0x7f12_4000_0000n,
        mmapOffset: 0xc000_0000n,
      },
    },
    reply: { wire: "25 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  REM_MEM_REG: {
    request: {
      wire: `26 00 00 00 | 09 00 00 00 | 28 00 00 00 | 00*8
        00 00 00 00 01 00 00 00  00 00 00 80 00 00 00 00  00 00 00 40 12 7f 00 00  00 00 00 00 00 00 00 00`,
      value: {
        guestAddress: 0x1_0000_0000n,
        size: 0x8000_0000n,
        userAddress: 0x7f12_4000_0000n,
        mmapOffset: 0n,
      },
    },
    reply: { wire: "26 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SET_STATUS: {
    request: {
      wire: "27 00 00 00 | 01 00 00 00 | 08 00 00 00 | 0f 00 00 00 00 00 00 00",
      value: 15n,
    },
    reply: { wire: "27 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_STATUS: {
    request: { wire: "28 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "28 00 00 00 | 05 00 00 00 | 08 00 00 00 | 4f 00 00 00 00 00 00 00", value: 0x4fn },
  },
  GET_SHARED_OBJECT: {
    request: { wire: `29 00 00 00 | 01 00 00 00 | 10 00 00 00 | ${uuid}`, value: hex(uuid) },
    reply: { wire: "29 00 00 00 | 05 00 00 00 | 00 00 00 00", value: undefined },
  },
  SET_DEVICE_STATE_FD: {
    request: {
      wire: "2a 00 00 00 | 01 00 00 00 | 08 00 00 00 | 01 00 00 00  00 00 00 00",
      value: { direction: 1, phase: 0 },
    },
    // Success; use the descriptor that you sent.
    reply: {
      wire: "2a 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00 01 00 00 00 00 00 00",
      value: { error: 0, noDescriptor: true },
    },
  },
  CHECK_DEVICE_STATE: {
    request: { wire: "2b 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "2b 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  GET_SHMEM_CONFIG: {
    // Always 256 sizes: 2056 bytes. Here 0 has 1 GiB and 2 has a page.
    request: { wire: "2c 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: {
      wire: `2c 00 00 00 | 05 00 00 00 | 08 08 00 00 | 02 00 00 00  00 00 00 00
        00 00 00 40 00 00 00 00  00*8  00 10 00 00 00 00 00 00  00*2024`,
      value: {
        numRegions: 2,
        sizes: Array.from({ length: 256 }, (_, shmid) => shmid === 0 ? 1n << 30n : shmid === 2 ? 4096n : 0n),
      },
    },
  },
};
