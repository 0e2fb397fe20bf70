import assert from "node:assert/strict";
import test from "node:test";
import { FieldError, ProtocolError } from "../../src/protocol/error.ts";
import { codecOf, payloads, type PayloadTypes, xenMemoryRegion } from "../../src/protocol/payloads.ts";
import { decode } from "../../src/transport/responder.ts";
import { hex } from "./hex.ts";

const top = "ff ff ff ff ff ff ff ff";
const page = "00 10 00 00 00 00 00 00";
const zero = "00*8";

/** A payload that no peer may send, and what it is told. */
function refuses(kind: keyof PayloadTypes, what: string, wire: string, text: RegExp): void {
  test(`${kind}: ${what} is refused`, { timeout: 5000 }, () => {
    assert.throws(() => codecOf(kind).decode(hex(wire)), (error) => {
      assert.ok(error instanceof FieldError, String(error));
      assert.equal(error.name, "FieldError");
      assert.match(error.message, text);
      return true;
    });
  });
}

const beyond = /within 64 bits/;

refuses(
  "vringAddress",
  "a descriptor table at 8",
  `${zero} 08 00*7 ${zero} ${zero} ${zero}`,
  /^descriptor address must be a multiple of 16, got 0x8$/,
);
refuses(
  "vringAddress",
  "a used ring at 2",
  `${zero} ${zero} 02 00*7 ${zero} ${zero}`,
  /^used address must be a multiple of 4, got 0x2$/,
);
refuses(
  "vringAddress",
  "an available ring at 1",
  `${zero} ${zero} ${zero} 01 00*7 ${zero}`,
  /^available address must be a multiple of 2, got 0x1$/,
);
refuses(
  "vringAddress",
  "a flag that is not LOG",
  `00*4 02 00*3 ${zero} ${zero} ${zero} ${zero}`,
  /^flags must be 0 or 1, got 2$/,
);

refuses("vringDescriptor", "bit 9", "00 02 00*6", /^ring must be .* 8 bits and flag bit 8, got 0x200$/);
refuses("vringDescriptor", "bit 63", "00*7 80", /^ring must be .* got 0x8000000000000000$/);
refuses("vringArea", "bit 9", `00 02 00*6 ${page} ${zero}`, /^ring must be .* got 0x200$/);

refuses(
  "memoryRegion",
  "size 0",
  `${zero} ${zero} ${zero} ${zero} ${zero}`,
  /^region size must be more than 0/,
);
refuses("memoryRegion", "a guest end beyond 2^64", `${zero} ${top} ${page} ${zero} ${zero}`, beyond);
refuses("memoryRegion", "a user end beyond 2^64", `${zero} ${zero} ${page} ${top} ${zero}`, beyond);
refuses("memoryRegion", "a file end beyond 2^64", `${zero} ${zero} ${page} ${zero} ${top}`, beyond);
refuses(
  "memoryRegions",
  "size 0 in the second region",
  `02 00*7 ${zero} ${page} ${zero} ${zero} ${page} ${zero} ${page} ${zero}`,
  /^region size must be more than 0/,
);
refuses(
  "memoryRegions",
  "a guest end beyond 2^64",
  `01 00*7 ${top} ${page} ${zero} ${zero}`,
  /^region guest address must be .* within 64 bits/,
);
refuses(
  "memoryRegions",
  "a user end beyond 2^64",
  `01 00*7 ${zero} ${page} ${top} ${zero}`,
  /^region user address must be .* within 64 bits/,
);
refuses(
  "memoryRegions",
  "a file end beyond 2^64",
  `01 00*7 ${zero} ${page} ${zero} ${top}`,
  /^region mmap offset must be .* within 64 bits/,
);
refuses(
  "memoryRegions",
  "a number in the padding",
  `01 00 00 00 01 00 00 00 ${zero} ${page} ${zero} ${zero}`,
  /^padding must be 0, got 1$/,
);
refuses(
  "memoryRegions",
  "a 33rd region",
  `21 00*7 00*1024`,
  /^number of regions must be at most 32, got 33$/,
);
refuses(
  "memoryRegions",
  "a count of 2^32 - 1",
  "ff ff ff ff 00*4",
  /^number of regions must be at most 32, got 4294967295$/,
);
refuses(
  "memoryRegions",
  "a byte too few",
  `02 00*7 ${zero} ${page} ${zero} ${zero} 00*31`,
  /^payload must be 72 bytes for 2 regions, got 71 bytes$/,
);

for (const length of [9, 39]) {
  refuses(
    "addedRegion",
    `neither a region nor the eight bytes of postcopy, but ${length}`,
    `00*${length}`,
    new RegExp(`^payload must be 40 bytes, or 8 during postcopy, got ${length} bytes$`),
  );
}
refuses("requestedUuid", "a part of one", "00*15", /^payload must be 16 bytes, or none, got 15 bytes$/);
refuses("addedRegion", "size 0", "00*40", /^region size must be more than 0/);

refuses("log", "an end beyond 2^64", `${page} ${top}`, /^log offset must be .* within 64 bits/);

refuses("iotlb", "permission 4", `${zero} ${page} ${zero} 04 02 00*6`, /^permission must be .* got 4$/);
refuses("iotlb", "type 0", `${zero} ${page} ${zero} 03 00 00*6`, /^type must be 1 or 2 or 3 or 4, got 0$/);
refuses("iotlb", "type 5", `${zero} ${page} ${zero} 03 05 00*6`, /^type must be 1 or 2 or 3 or 4, got 5$/);
refuses(
  "iotlb",
  "an end beyond 2^64",
  `${top} ${page} ${zero} 03 02 00*6`,
  /^iova must be .* within 64 bits/,
);
refuses("iotlb", "a user end beyond 2^64", `${zero} ${page} ${top} 03 02 00*6`, /^user address must be/);

refuses(
  "config",
  "a byte after the 256th",
  "00 01 00 00  01 00 00 00  00*4  00",
  /^configuration range must be within 256 bytes, got 256 \+ 1$/,
);
refuses(
  "config",
  "offset 257",
  "01 01 00 00  00 00 00 00  00*4",
  /^configuration range must be .* 257 \+ 0$/,
);
refuses("config", "size 257", "00 00 00 00  01 01 00 00  00*4", /^configuration range must be .* 0 \+ 257$/);
refuses(
  "config",
  "a range that wraps around",
  "ff ff ff ff  ff ff ff ff  00*4",
  /^configuration range must be .* 4294967295 \+ 4294967295$/,
);
refuses(
  "config",
  "fewer data than it says",
  "00 00 00 00  04 00 00 00  00*4  00*3",
  /^configuration data must be 4 bytes, got 3 bytes$/,
);
refuses(
  "config",
  "more data than it says",
  "00 00 00 00  04 00 00 00  00*4  00*5",
  /^configuration data must be 4 bytes, got 5 bytes$/,
);

refuses("inflight", "an end beyond 2^64", `${page} ${top} 01 00 80 00 00*4`, /^mmap offset must be/);
refuses("inflight", "no queue", `${page} ${zero} 00 00 80 00 00*4`, /^number of queues must be more than 0/);
refuses("inflight", "queue size 0", `${page} ${zero} 01 00 00 00 00*4`, /^queue size must be more than 0/);

refuses("deviceState", "direction 2", "02 00 00 00  00 00 00 00", /^direction must be 0 or 1, got 2$/);
refuses("deviceState", "phase 1", "00 00 00 00  01 00 00 00", /^phase must be 0, got 1$/);

refuses(
  "shmemMapping",
  "flag 2",
  `01 00*7 ${zero} ${zero} ${page} 02 00*7`,
  /^flags must be 0 or 1, got 0x2$/,
);
refuses(
  "shmemMapping",
  "a file end beyond 2^64",
  `01 00*7 ${top} ${zero} ${page} ${zero}`,
  /^file offset must be/,
);
refuses(
  "shmemMapping",
  "an end beyond 2^64",
  `01 00*7 ${zero} ${top} ${page} ${zero}`,
  /^region offset must be/,
);

test("a region may end exactly below the top of the address space", { timeout: 5000 }, () => {
  const value = payloads.memoryRegion.decode(hex(`${zero} ff ef ${"ff ".repeat(6)} ${page} ${zero} ${zero}`));
  assert.equal(value.guestAddress + value.size, 2n ** 64n - 1n);
});

test("User-Mode Linux sends 72 bytes for one region, and is understood", { timeout: 5000 }, () => {
  const regions = payloads.memoryRegions.decode(
    hex(`01 00*7  ${zero} 00 00 00 04 00*4 00 00 00 60 00*4 ${page}  00*32`),
  );
  assert.deepEqual(regions, [
    { guestAddress: 0n, size: 0x400_0000n, userAddress: 0x6000_0000n, mmapOffset: 0x1000n },
  ]);
});

test("the table's acknowledgement after postcopy is a table of no regions", { timeout: 5000 }, () => {
  assert.deepEqual(payloads.memoryRegions.decode(hex(zero)), []);
});

test("eight zero bytes added are no region, but the acknowledgement of postcopy", { timeout: 5000 }, () => {
  assert.equal(payloads.addedRegion.decode(hex(zero)), undefined);
  assert.deepEqual(payloads.addedRegion.encode(undefined), hex(zero));
});

test("QEMU asks for a shared object without saying which", { timeout: 5000 }, () => {
  assert.equal(payloads.requestedUuid.decode(new Uint8Array(0)), undefined);
  assert.deepEqual(payloads.requestedUuid.encode(undefined), new Uint8Array(0));
});

test("crosvm's 32 regions are understood", { timeout: 5000 }, () => {
  const regions = payloads.memoryRegions.decode(
    hex(`20 00*7 ${`${zero} ${page} ${zero} ${zero} `.repeat(32)}`),
  );
  assert.equal(regions.length, 32);
});

test("a region in Xen's longer form is understood, and Xen's part ignored", { timeout: 5000 }, () => {
  const region = { guestAddress: 0n, size: 4096n, userAddress: 0n, mmapOffset: 0n };
  const wire = hex(`${zero} ${zero} ${page} ${zero} ${zero} 01 00 00 00 05 00 00 00`);
  assert.deepEqual(payloads.memoryRegion.decode(wire), region);
  assert.deepEqual(xenMemoryRegion.decode(wire.subarray(8)), { ...region, xenMmapFlags: 1, domainId: 5 });
  assert.equal(xenMemoryRegion.size, 40);
});

test("the dummy bytes of a GET_CONFIG may be left out", { timeout: 5000 }, () => {
  const value = payloads.config.decode(hex("08 00 00 00  04 00 00 00  00 00 00 00"));
  assert.deepEqual(value, { offset: 8, flags: 0, data: new Uint8Array(4) });
});

test("a configuration space of 256 bytes is read to its end", { timeout: 5000 }, () => {
  assert.equal(payloads.config.decode(hex("00*4  00 01 00 00  00*4  00*256")).data.length, 256);
  assert.equal(payloads.config.decode(hex("fc 00 00 00  04 00 00 00  00*4  00*4")).offset, 252);
});

test("an error of SET_DEVICE_STATE_FD is its low byte", { timeout: 5000 }, () => {
  assert.deepEqual(payloads.deviceStateReply.decode(hex("01 01 00*6")), { error: 1, noDescriptor: true });
});

// [fewest, most] bytes of each payload.
const sizes: { readonly [K in keyof PayloadTypes]: readonly [number, number] } = {
  none: [0, 0],
  u64: [8, 8],
  vringState: [8, 8],
  vringDescriptor: [8, 8],
  vringAddress: [40, 40],
  memoryRegions: [8, 8 + 32 * 32],
  memoryRegion: [40, 48],
  addedRegion: [8, 48],
  log: [16, 16],
  iotlb: [32, 32],
  config: [12, 12 + 256],
  vringArea: [24, 24],
  inflight: [24, 24],
  uuid: [16, 16],
  requestedUuid: [0, 16],
  deviceState: [8, 8],
  deviceStateReply: [8, 8],
  shmemMapping: [40, 40],
  shmemConfig: [2056, 2056],
  cryptoSession: [1072, 1072],
};

for (const [kind, [fewest, most]] of Object.entries(sizes)) {
  test(`${kind}: ${fewest} to ${most} bytes, not one fewer or more`, { timeout: 5000 }, () => {
    const codec = codecOf(kind as keyof PayloadTypes);
    assert.deepEqual([codec.minimum, codec.maximum], [fewest, most]);
    for (const length of [fewest - 1, most + 1].filter((each) => each >= 0)) {
      assert.throws(() => decode("SET_OWNER", codec, new Uint8Array(length)), (error) => {
        assert.ok(error instanceof ProtocolError);
        assert.equal(error.request, "SET_OWNER");
        const expected = fewest === most ? `${fewest}` : `${fewest} to ${most}`;
        assert.equal(error.message, `SET_OWNER: payload: expected ${expected} bytes, got ${length}`);
        return true;
      });
    }
  });
}

test("every kind of payload has its sizes written down", { timeout: 5000 }, () => {
  assert.deepEqual(Object.keys(payloads), Object.keys(sizes));
});

test("a bad field of a message is told with the message's name", { timeout: 5000 }, () => {
  assert.throws(
    () => decode("SET_VRING_KICK", payloads.vringDescriptor, hex("00 02 00*6")),
    { name: "ProtocolError", message: /^SET_VRING_KICK: ring must be .* got 0x200$/ },
  );
});

test("what cannot be sent is refused before it is", { timeout: 5000 }, () => {
  const say = (run: () => unknown, message: RegExp): void =>
    assert.throws(run, { name: "FieldError", message });
  say(() => payloads.u64.encode(-1n), /^value must be an unsigned 64-bit integer, got 0x-1$/);
  say(() => payloads.u64.encode(2n ** 64n), /got 0x10000000000000000$/);
  say(
    () => payloads.vringState.encode({ index: 0, num: -1 }),
    /^num must be an unsigned 32-bit integer, got -1$/,
  );
  say(() => payloads.vringState.encode({ index: 0.5, num: 0 }), /^index must be .* got 0.5$/);
  say(
    () => payloads.vringDescriptor.encode({ index: 256, noDescriptor: false }),
    /^ring must be 0 to 255, got 256$/,
  );
  say(
    () => payloads.vringDescriptor.encode({ index: -1, noDescriptor: false }),
    /^ring must be 0 to 255, got -1$/,
  );
  say(() => payloads.uuid.encode(new Uint8Array(17)), /^uuid must be at most 16 bytes, got 17 bytes$/);
  say(() => payloads.shmemConfig.encode({ numRegions: 0, sizes: [] }), /^sizes must be 256 numbers, got 0$/);
});
