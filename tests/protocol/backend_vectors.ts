import type { backendMessages } from "../../src/protocol/messages.ts";
import { hex } from "./hex.ts";
import type { Exchanges } from "./vector.ts";

// The same for the channel from back-end to front-end.

const uuid = "01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef";

export const backendExchanges: Exchanges<typeof backendMessages> = {
  IOTLB_MSG: {
    // A miss: who asks knows neither size nor user address.
    request: {
      wire: `01 00 00 00 | 09 00 00 00 | 20 00 00 00
        00 f0 ff ff 00 00 00 00  00*8  00*8  01  01  00*6`,
      value: { iova: 0xffff_f000n, size: 0n, userAddress: 0n, permission: 1, type: 1 },
    },
    reply: { wire: "01 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  CONFIG_CHANGE_MSG: {
    request: { wire: "02 00 00 00 | 01 00 00 00 | 00 00 00 00", value: undefined },
    reply: { wire: "02 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  VRING_HOST_NOTIFIER_MSG: {
    // One number of 64 bits names the ring: bits 0 to 7 the index, bit 8 no descriptor.
    request: {
      wire: `03 00 00 00 | 09 00 00 00 | 18 00 00 00
        04 01 00 00 00 00 00 00  00 10 00 00 00 00 00 00  00 30 00 00 00 00 00 00`,
      value: { index: 4, noDescriptor: true, size: 0x1000n, offset: 0x3000n },
    },
    reply: { wire: "03 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  VRING_CALL: {
    request: {
      wire: "04 00 00 00 | 09 00 00 00 | 08 00 00 00 | 01 00 00 00  00 00 00 00",
      value: { index: 1, num: 0 },
    },
    reply: { wire: "04 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  VRING_ERR: {
    request: {
      wire: "05 00 00 00 | 09 00 00 00 | 08 00 00 00 | 01 00 00 00  00 00 00 00",
      value: { index: 1, num: 0 },
    },
    reply: { wire: "05 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SHARED_OBJECT_ADD: {
    request: { wire: `06 00 00 00 | 01 00 00 00 | 10 00 00 00 | ${uuid}`, value: hex(uuid) },
    reply: { wire: "06 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SHARED_OBJECT_REMOVE: {
    request: { wire: `07 00 00 00 | 01 00 00 00 | 10 00 00 00 | ${uuid}`, value: hex(uuid) },
    reply: { wire: "07 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SHARED_OBJECT_LOOKUP: {
    request: { wire: `08 00 00 00 | 01 00 00 00 | 10 00 00 00 | ${uuid}`, value: hex(uuid) },
    reply: { wire: "08 00 00 00 | 05 00 00 00 | 08 00 00 00 | 01 00 00 00 00 00 00 00", value: 1n },
  },
  SHMEM_MAP: {
    // The region's number is one byte, followed by 7 of padding.
    request: {
      wire: `09 00 00 00 | 09 00 00 00 | 28 00 00 00 | 01 00*7
        00 20 00 00 00 00 00 00  00 10 00 00 00 00 00 00  00 40 00 00 00 00 00 00  01 00 00 00 00 00 00 00`,
      value: { shmid: 1, fdOffset: 0x2000n, shmOffset: 0x1000n, length: 0x4000n, flags: 1n },
    },
    reply: { wire: "09 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
  SHMEM_UNMAP: {
    request: {
      wire: `0a 00 00 00 | 09 00 00 00 | 28 00 00 00 | 01 00*7
        00*8  00 10 00 00 00 00 00 00  00 40 00 00 00 00 00 00  00*8`,
      value: { shmid: 1, fdOffset: 0n, shmOffset: 0x1000n, length: 0x4000n, flags: 0n },
    },
    reply: { wire: "0a 00 00 00 | 05 00 00 00 | 08 00 00 00 | 00*8", value: 0n },
  },
};
