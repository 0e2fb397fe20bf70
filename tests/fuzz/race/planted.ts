/**
 * A device with a mistake in it, for the test of `changing-memory`. What is after the `?` of the URL says which.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Device } from "../../../mod.ts";
import type { Subject } from "../guest/devices.ts";
import { changing } from "./target.ts";

const mistake = new URL(import.meta.url).search.slice(1);
/** Bytes that a request may name. */
const MOST = 16;
/** What guests have sent. */
const kept = new Uint8Array(1024);

const subject: Subject = {
  name: "planted",
  make: () =>
    new Device({
      type: 42,
      name: "planted",
      queues: [(chain) => {
        const { readable, writable } = chain;
        if (readable.byteLength < 4 || writable.byteLength < 1 || readable.getUint32(0) > MOST) return;
        // Somebody else may have changed it since it was checked.
        const length = mistake === "twice" ? readable.getUint32(0) : 0;
        const ok = new DataView(new ArrayBuffer(MOST + 1)).getUint8(length);
        if (mistake === "secret") {
          readable.copyTo(kept);
          chain.written = writable.copyFrom(kept.subarray(0, writable.byteLength));
          return;
        }
        writable.setUint8(0, ok);
        chain.written = 1;
      }],
    }),
  queues: 1,
  forms: [
    { name: "length", queue: 0, fields: [[4, 16, 1, 3, 17]], room: [1, 200, 200] },
    { name: "data", queue: 0, fields: [[4, 16, 0]], data: [200], room: [1, 100, 200] },
  ],
  isRight: ({ written }) => assert.equal(written, 1),
  cases: 1,
  least: 1,
};

export default changing("planted", "A device with a mistake in it.", [{ name: "planted", subject }], {
  cases: 1,
  least: 1,
});
