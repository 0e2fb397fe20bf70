import assert from "node:assert/strict";
import test from "node:test";
import { protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";
import {
  backendMessages,
  frontendMessages,
  messageName,
  type MessageRow,
  type MessageTable,
} from "../../src/protocol/messages.ts";

// The message tables of the specification once more, as a person would copy them: number, name, how it is answered
// (own payload; ack when asked; always an ack), descriptors with it, descriptors with the answer, and what it needs.
// ADD_MEM_REG comes without a descriptor in one case only: the eight zero bytes of postcopy.

const frontEnd = `
   1 GET_FEATURES           own     0     0    -
   2 SET_FEATURES           ack     0     0    -
   3 SET_OWNER              ack     0     0    -
   4 RESET_OWNER            ack     0     0    -
   5 SET_MEM_TABLE          ack     0-32  0    -
   6 SET_LOG_BASE           own     1     0    LOG_SHMFD
   7 SET_LOG_FD             ack     1     0    -
   8 SET_VRING_NUM          ack     0     0    -
   9 SET_VRING_ADDR         ack     0     0    -
  10 SET_VRING_BASE         ack     0     0    -
  11 GET_VRING_BASE         own     0     0    -
  12 SET_VRING_KICK         ack     0-1   0    -
  13 SET_VRING_CALL         ack     0-1   0    -
  14 SET_VRING_ERR          ack     0-1   0    -
  15 GET_PROTOCOL_FEATURES  own     0     0    ring:PROTOCOL_FEATURES
  16 SET_PROTOCOL_FEATURES  ack     0     0    ring:PROTOCOL_FEATURES
  17 GET_QUEUE_NUM          own     0     0    MQ
  18 SET_VRING_ENABLE       ack     0     0    ring:PROTOCOL_FEATURES
  19 SEND_RARP              ack     0     0    RARP
  20 NET_SET_MTU            ack     0     0    MTU
  21 SET_BACKEND_REQ_FD     ack     1     0    BACKEND_REQ
  22 IOTLB_MSG              always  0     0    ring:ACCESS_PLATFORM
  23 SET_VRING_ENDIAN       ack     0     0    CROSS_ENDIAN
  24 GET_CONFIG             own     0     0    CONFIG
  25 SET_CONFIG             ack     0     0    CONFIG
  26 CREATE_CRYPTO_SESSION  own     0     0    CRYPTO_SESSION
  27 CLOSE_CRYPTO_SESSION   ack     0     0    CRYPTO_SESSION
  28 POSTCOPY_ADVISE        own     0     1    PAGEFAULT
  29 POSTCOPY_LISTEN        always  0     0    PAGEFAULT
  30 POSTCOPY_END           always  0     0    PAGEFAULT
  31 GET_INFLIGHT_FD        own     0     0-1  INFLIGHT_SHMFD
  32 SET_INFLIGHT_FD        ack     1     0    INFLIGHT_SHMFD
  33 GPU_SET_SOCKET         ack     1     0    -
  34 RESET_DEVICE           ack     0     0    RESET_DEVICE
  35 VRING_KICK             ack     0     0    INBAND_NOTIFICATIONS
  36 GET_MAX_MEM_SLOTS      own     0     0    CONFIGURE_MEM_SLOTS
  37 ADD_MEM_REG            ack     0-1   0    CONFIGURE_MEM_SLOTS
  38 REM_MEM_REG            ack     0-1   0    CONFIGURE_MEM_SLOTS
  39 SET_STATUS             ack     0     0    STATUS
  40 GET_STATUS             own     0     0    STATUS
  41 GET_SHARED_OBJECT      own     0     0-1  SHARED_OBJECT
  42 SET_DEVICE_STATE_FD    own     1     0-1  DEVICE_STATE
  43 CHECK_DEVICE_STATE     own     0     0    DEVICE_STATE
  44 GET_SHMEM_CONFIG       own     0     0    SHMEM`;

const backEnd = `
   1 IOTLB_MSG                ack     0    0    ring:ACCESS_PLATFORM
   2 CONFIG_CHANGE_MSG        ack     0    0    CONFIG
   3 VRING_HOST_NOTIFIER_MSG  ack     0-1  0    HOST_NOTIFIER
   4 VRING_CALL               ack     0    0    INBAND_NOTIFICATIONS
   5 VRING_ERR                ack     0    0    INBAND_NOTIFICATIONS
   6 SHARED_OBJECT_ADD        ack     0    0    SHARED_OBJECT
   7 SHARED_OBJECT_REMOVE     ack     0    0    SHARED_OBJECT
   8 SHARED_OBJECT_LOOKUP     always  0    0-1  SHARED_OBJECT
   9 SHMEM_MAP                ack     1    0    SHMEM
  10 SHMEM_UNMAP              ack     0    0    SHMEM`;

function count([fewest, most]: readonly [number, number] = [0, 0]): string {
  return fewest === most ? `${fewest}` : `${fewest}-${most}`;
}

function describe(name: string, row: MessageRow): string {
  const answer = row.reply === "ack" ? "ack" : row.reply === "always ack" ? "always" : "own";
  const needs = row.requires ?? (row.requiresRing === undefined ? "-" : `ring:${row.requiresRing}`);
  return [row.id, name, answer, count(row.fds), count(row.replyFds), needs].join(" ");
}

const directions: [string, MessageTable, string, number][] = [
  ["front-end", frontendMessages, frontEnd, 44],
  ["back-end", backendMessages, backEnd, 10],
];

for (const [side, table, written, last] of directions) {
  test(`the ${side} table says what the specification says`, { timeout: 5000 }, () => {
    const expected = written.trim().split("\n").map((line) => line.trim().split(/\s+/).join(" "));
    assert.deepEqual(Object.entries(table).map(([name, row]) => describe(name, row)), expected);
  });

  test(`the ${side} numbers run from 1 to ${last} without a gap`, { timeout: 5000 }, () => {
    const ids = Object.values(table).map(({ id }) => id);
    assert.deepEqual(ids, Array.from({ length: last }, (_, i) => i + 1));
  });

  test(`what a ${side} message needs is a feature that exists`, { timeout: 5000 }, () => {
    for (const [name, { requires, requiresRing }] of Object.entries(table)) {
      if (requires !== undefined) assert.ok(Object.hasOwn(protocolFeatures, requires), name);
      if (requiresRing !== undefined) assert.ok(Object.hasOwn(ringFeatures, requiresRing), name);
    }
  });

  test(`older ${side} names are not anybody's present name`, { timeout: 5000 }, () => {
    const aliases = Object.values(table).flatMap((row) => row.aliases ?? []);
    assert.equal(new Set(aliases).size, aliases.length);
    for (const alias of aliases) assert.ok(!Object.hasOwn(table, alias), alias);
  });

  test(`numbers outside the ${side} table have no name`, { timeout: 5000 }, () => {
    for (const id of [0, last + 1, 1000, 0xffff_ffff]) assert.equal(messageName(table, id), undefined);
  });
}

test("SET_BACKEND_REQ_FD and the channel's first five messages had another name", { timeout: 5000 }, () => {
  assert.deepEqual(frontendMessages.SET_BACKEND_REQ_FD.aliases, ["SET_SLAVE_REQ_FD"]);
  for (const [name, row] of Object.entries<MessageRow>(backendMessages)) {
    assert.deepEqual(row.aliases, row.id <= 5 ? [`SLAVE_${name}`] : undefined);
  }
});

test("while a postcopy migration arrives, tables and regions are answered with our addresses", {
  timeout: 5000,
}, () => {
  const rows = Object.entries<MessageRow>({ ...frontendMessages, ...backendMessages });
  const answered = rows.flatMap(([name, { postcopyReply }]) => postcopyReply ? [[name, postcopyReply]] : []);
  assert.deepEqual(answered, [["SET_MEM_TABLE", "memoryRegions"], ["ADD_MEM_REG", "memoryRegion"]]);
});
