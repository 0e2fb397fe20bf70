import assert from "node:assert/strict";
import test from "node:test";
import { checkHeader, header } from "../../src/protocol/header.ts";
import {
  backendMessages,
  frontendMessages,
  messageName,
  type MessageTable,
} from "../../src/protocol/messages.ts";
import { codecOf, type PayloadTypes } from "../../src/protocol/payloads.ts";
import { codecProven } from "../coverage/codec.ts";
import { backendExchanges } from "./backend_vectors.ts";
import { frontendExchanges } from "./frontend_vectors.ts";
import { hex } from "./hex.ts";
import type { Exchange, Frame } from "./vector.ts";
import type { MessageRow } from "../../src/protocol/messages.ts";

type Direction = [
  side: "front-end" | "back-end",
  table: MessageTable,
  exchanges: Readonly<Record<string, Exchange<MessageRow>>>,
];

const directions: Direction[] = [
  ["front-end", frontendMessages, frontendExchanges],
  ["back-end", backendMessages, backendExchanges],
];

/** Which codec a row's answer has. */
function answerKind({ reply }: MessageRow): keyof PayloadTypes {
  return reply === "ack" || reply === "always ack" ? "u64" : reply;
}

/** Bytes to values and back, both compared with what was written by hand. */
function checkFrame({ wire, value }: Frame<unknown>, row: MessageRow, kind: keyof PayloadTypes): number {
  const frame = hex(wire);
  const payload = frame.subarray(12);
  const head = header.decode(frame);
  assert.equal(head.request, row.id, "request");
  assert.equal(head.size, payload.length, "size");
  checkHeader(head, "");
  assert.deepEqual(header.encode(head), frame.slice(0, 12));

  const codec = codecOf(kind);
  assert.ok(payload.length >= codec.minimum && payload.length <= codec.maximum, `${payload.length} bytes`);
  assert.deepEqual(codec.decode(payload), value);
  assert.deepEqual(codec.encode(value), payload.slice());
  return head.flags;
}

for (const [side, table, exchanges] of directions) {
  test(`every ${side} message has its bytes written down`, { timeout: 5000 }, () => {
    assert.deepEqual(Object.keys(exchanges), Object.keys(table));
  });

  for (const [name, row] of Object.entries(table)) {
    const exchange = exchanges[name];
    if (exchange === undefined) continue;

    test(`${side} ${name}: the request`, { timeout: 5000 }, () => {
      const flags = checkFrame(exchange.request, row, row.payload);
      assert.ok(flags === 1 || flags === 9, `flags ${flags}`);
      assert.equal(messageName(table, row.id), name);
      codecProven(side, name, "request");
    });

    test(`${side} ${name}: the answer`, { timeout: 5000 }, () => {
      assert.equal(checkFrame(exchange.reply, row, answerKind(row)), 5);
      codecProven(side, name, "answer");
    });
  }
}
