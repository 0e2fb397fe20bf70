import assert from "node:assert/strict";
import { test } from "node:test";
import { FunctionNetwork, NetDevice, netFeatures, SwitchNetwork } from "../../src/devices/net/mod.ts";
import { mask } from "../../src/protocol/features.ts";
import { aWhile, bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import type { Scope } from "../support/cleanup.ts";
import { ALL, mac, NetDriver, type NetHeader } from "./net_driver.ts";

// Frames whose checksums and segments a driver has left to the device. Sums are computed here anew, word by word.

const A = mac("02:00:00:00:00:0a");
const B = mac("02:00:00:00:00:0b");

/** The one's complement sum of 16-bit words (RFC 1071). */
function sum16(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) {
      sum += part[i] * 256 + (part[i + 1] ?? 0);
      if (sum > 0xffff) sum -= 0xffff;
    }
  }
  return sum;
}

interface Packet {
  readonly frame: Uint8Array<ArrayBuffer>;
  /** First byte of the IP and of the TCP or UDP header, and of the payload. */
  readonly ip: number;
  readonly transport: number;
  readonly payload: number;
}

/** A TCP or UDP packet whose checksum field has the sum of the pseudo header, as Linux leaves it. */
function packet(version: 4 | 6, protocol: 6 | 17, data: Uint8Array, flags = 0x18, vlan = false): Packet {
  const ip = vlan ? 18 : 14;
  const transport = ip + (version === 4 ? 20 : 40);
  const payload = transport + (protocol === 6 ? 20 : 8);
  const frame = new Uint8Array(payload + data.length);
  const view = new DataView(frame.buffer);
  frame.set(B, 0);
  frame.set(A, 6);
  if (vlan) view.setUint32(12, 0x8100_0005);
  view.setUint16(ip - 2, version === 4 ? 0x0800 : 0x86dd);
  if (version === 4) {
    frame.set([0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], ip);
    view.setUint16(ip + 2, frame.length - ip);
    view.setUint16(ip + 10, ~sum16(frame.subarray(ip, transport)) & 0xffff);
  } else {
    frame.set([0x60, 0, 0, 0, 0, 0, protocol, 64], ip);
    view.setUint16(ip + 4, frame.length - transport);
    frame.set(bytesOf(1, 32), ip + 8);
  }
  view.setUint16(transport, 1234);
  view.setUint16(transport + 2, 80);
  if (protocol === 6) {
    view.setUint32(transport + 4, 0xffff_ff00);
    view.setUint32(transport + 8, 77);
    frame[transport + 12] = 0x50;
    frame[transport + 13] = flags;
    view.setUint16(transport + 14, 1000);
  } else {
    view.setUint16(transport + 4, frame.length - transport);
  }
  frame.set(data, payload);
  view.setUint16(transport + (protocol === 6 ? 16 : 6), sum16(...pseudo({ frame, ip, transport, payload })));
  return { frame, ip, transport, payload };
}

/** The pseudo header in words: addresses, length, protocol. */
function pseudo({ frame, ip, transport }: Packet): Uint8Array[] {
  const version = frame[ip] >> 4;
  const addresses = version === 4 ? frame.subarray(ip + 12, ip + 20) : frame.subarray(ip + 8, ip + 40);
  const length = frame.length - transport;
  return [addresses, Uint8Array.of(length >> 8, length, 0, version === 4 ? frame[ip + 9] : frame[ip + 6])];
}

/** Whether all checksums of a packet are right: a sum with the checksum in it is all ones. */
function checkSums(each: Packet): void {
  const { frame, ip, transport } = each;
  if (frame[ip] >> 4 === 4) assert.equal(sum16(frame.subarray(ip, transport)), 0xffff, "IP header");
  assert.equal(sum16(...pseudo(each), frame.subarray(transport)), 0xffff, "TCP or UDP");
}

const NO_OFFLOADS = ALL &
  ~mask(netFeatures.GUEST_CSUM, netFeatures.GUEST_TSO4, netFeatures.GUEST_TSO6, netFeatures.GUEST_ECN);

async function twoGuests(
  t: Scope,
  features: bigint,
): Promise<{ card: NetDevice; a: NetDriver; b: NetDriver }> {
  const card = new NetDevice({ network: new SwitchNetwork() });
  const scene = await Scene.open(t, card);
  const a = await NetDriver.connect(t, scene.path);
  const b = await NetDriver.connect(t, scene.path, { features, buffers: 60 });
  return { card, a, b };
}

for (const version of [4, 6] as const) {
  for (const protocol of [6, 17] as const) {
    for (const [length, vlan] of [[0, false], [1, false], [1400, false], [1401, true]] as const) {
      const name = `IPv${version}, protocol ${protocol}, ${length} bytes${vlan ? ", VLAN" : ""}`;
      test(`a checksum is computed for a guest that does not: ${name}`, LIMIT, async (t) => {
        const { a, b } = await twoGuests(t, NO_OFFLOADS);
        const sent = packet(version, protocol, bytesOf(5, length), 0x18, vlan);
        const csumOffset = protocol === 6 ? 16 : 6;
        await a.send(sent.frame, { header: { flags: 1, csumStart: sent.transport, csumOffset } });
        const [{ frame, header }] = await b.take(1);
        assert.equal(header.flags | header.gsoType, 0);
        checkSums({ ...sent, frame: frame.slice() });
        sameBytes(frame.subarray(sent.payload), sent.frame.subarray(sent.payload));
      });
    }
  }
}

for (const version of [4, 6] as const) {
  test(`a long packet is cut for a guest that does not: IPv${version}`, LIMIT, async (t) => {
    const { a, b, card } = await twoGuests(t, NO_OFFLOADS);
    const data = bytesOf(6, 10_000);
    // PSH, FIN and CWR.
    const sent = packet(version, 6, data, 0x80 | 0x19);
    const header: Partial<NetHeader> = {
      flags: 1,
      gsoType: version === 4 ? 1 : 4,
      hdrLen: sent.payload,
      gsoSize: 1400,
      csumStart: sent.transport,
      csumOffset: 16,
    };
    await a.send(sent.frame, { header });
    const pieces = await b.take(8);
    let at = 0;
    pieces.forEach(({ frame, header }, i) => {
      const copy = frame.slice();
      const view = new DataView(copy.buffer);
      assert.equal(header.flags | header.gsoType, 0);
      checkSums({ ...sent, frame: copy });
      const part = copy.subarray(sent.payload);
      assert.equal(part.length, i < 7 ? 1400 : 200);
      sameBytes(part, data.subarray(at, at + part.length));
      assert.equal(view.getUint32(sent.transport + 4), (0xffff_ff00 + at) >>> 0, "sequence number");
      const flags = i === 0 ? 0x80 | 0x10 : i === 7 ? 0x19 : 0x10;
      assert.equal(copy[sent.transport + 13], flags, `flags of piece ${i}`);
      if (version === 4) {
        assert.equal(view.getUint16(sent.ip + 2), copy.length - sent.ip, "total length");
        assert.equal(view.getUint16(sent.ip + 4), (0xfffe + i) & 0xffff, "identification");
      } else {
        assert.equal(view.getUint16(sent.ip + 4), copy.length - sent.transport, "payload length");
      }
      at += part.length;
    });
    assert.equal(at, data.length);
    assert.equal(card.counters.dropped, 0);
  });
}

test("a guest that finishes frames itself gets them as they are", LIMIT, async (t) => {
  const { a, b } = await twoGuests(t, ALL);
  const sent = packet(4, 6, bytesOf(6, 10_000));
  const header = {
    flags: 1,
    gsoType: 1,
    hdrLen: sent.payload,
    gsoSize: 1400,
    csumStart: sent.transport,
    csumOffset: 16,
  };
  await a.send(sent.frame, { header });
  const [got] = await b.take(1);
  sameBytes(got.frame, sent.frame);
  assert.deepEqual({ ...got.header, numBuffers: 0 }, { ...header, numBuffers: 0 });
});

test("what cannot be finished is dropped", LIMIT, async (t) => {
  const { a, b, card } = await twoGuests(t, NO_OFFLOADS);
  const { frame, transport } = packet(4, 6, bytesOf(6, 3000));
  const bad: Partial<NetHeader>[] = [
    { flags: 1, csumStart: 4, csumOffset: 16 },
    { flags: 1, csumStart: transport, csumOffset: 65535 },
    { flags: 1, csumStart: 65535, csumOffset: 65535 },
    { flags: 1, csumStart: frame.length - 1, csumOffset: 0 },
    { flags: 1, gsoType: 1, gsoSize: 0, csumStart: transport, csumOffset: 16 },
    { flags: 1, gsoType: 4, gsoSize: 1400, csumStart: transport, csumOffset: 16, hdrLen: 1 },
    { flags: 1, gsoType: 3, gsoSize: 1400 },
    { flags: 1, gsoType: 5, gsoSize: 1400 },
    { flags: 0, gsoType: 0x7f, gsoSize: 1 },
  ];
  for (const header of bad) await a.send(frame, { header });
  await a.send(Uint8Array.from([...B, ...A, 8, 0, 0x4f]), { header: { flags: 1, gsoType: 1, gsoSize: 1 } });
  await eventually("all but the cut of IPv4 as IPv6 are dropped", () => card.counters.dropped >= 9);
  await aWhile();
  assert.ok(b.received.length <= 3, `${b.received.length} came`);
});

test(
  "a network that takes finished frames only does not let drivers leave them unfinished",
  LIMIT,
  async (t) => {
    const scene = await Scene.open(t, new NetDevice({ network: new FunctionNetwork(() => {}) }));
    const frontEnd = await scene.frontEnd({ deviceFeatures: ALL });
    const { CSUM, GUEST_CSUM, HOST_TSO4, HOST_TSO6, GUEST_TSO4, GUEST_TSO6 } = netFeatures;
    assert.equal(
      frontEnd.features & mask(CSUM, GUEST_CSUM, HOST_TSO4, HOST_TSO6, GUEST_TSO4, GUEST_TSO6),
      0n,
    );
  },
);
