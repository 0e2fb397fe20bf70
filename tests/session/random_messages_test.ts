import assert from "node:assert/strict";
import { test } from "node:test";
import { type FrontendMessage, frontendMessages } from "../../src/protocol/mod.ts";
import { close } from "../../ffi/fd.ts";
import { Mapping, memoryFile } from "../../ffi/mapping.ts";
import { onEnd } from "../support/cleanup.ts";
import { Random } from "../support/random.ts";
import { noteDescriptors, oddDescriptors } from "./descriptors.ts";
import { messageBytes, NEED_REPLY, PLAIN, type RawPeer } from "./raw_peer.ts";
import { pollOnce } from "./rings.ts";
import { eventually, Scene, verify } from "./scene.ts";
import { onStage } from "./stage.ts";
import { concat, sendMessage, u32, u64 } from "./wire.ts";

const CONNECTIONS = 250;
const MESSAGES = 40;
/** Without PAGEFAULT: its front-end decides when our accesses to memory go on. */
const PROTOCOL = 0xffff_ffff_ffff_feffn;
const GPA_ADDRESSES = 1n << 21n;
const ALL = 0xffff_ffff_ffff_ffffn;
const NAMES = Object.keys(frontendMessages) as FrontendMessage[];
/** What sets rings and memory up, so that there is something to go wrong later. */
const LIKELY = NAMES.filter((name) => /MEM|VRING|FEATURES|STATUS|CONFIG/.test(name));

function random64(random: Random): bigint {
  return BigInt(random.int(0, 2 ** 32 - 1)) << 32n | BigInt(random.int(0, 2 ** 32 - 1));
}

/** A payload: noise, or what makes sense as far as its form goes. */
function payloadOf(random: Random, name: FrontendMessage): Uint8Array {
  const small = () => random.int(0, 5);
  const address = () => 0x1000 * random.int(0, 12);
  const region = () =>
    u64(address(), random.pick([4096, 4096, 8192, 0, 65536]), address(), random.pick([0, 0, 0, 4096, 1]));
  switch (random.int(0, 19)) {
    case 0:
      return new Uint8Array(random.bytes(random.int(0, 64)));
    case 1:
      return new Uint8Array(random.bytes(random.pick([0, 8, 16, 20, 24, 32, 40, 48, 72, 269, 1072, 4096])));
  }
  switch (frontendMessages[name].payload) {
    case "none":
      return new Uint8Array(0);
    case "u64":
      return u64(random.pick([0, 1, small(), 0xff, 0x1_7000_0000, 0x1_a229]));
    case "vringState":
      return u32(small(), random.pick([0, 1, 8, 64, 65535, small()]));
    case "vringDescriptor":
      return u64(small() | random.pick([0, 0, 0x100]));
    case "vringAddress":
      return concat(u32(small(), small() >> 2), u64(address(), address() + 0x400, address() + 0x800, 0));
    case "memoryRegions": {
      const count = random.int(0, 3);
      return concat(u32(count, 0), ...Array.from({ length: count }, region));
    }
    case "memoryRegion":
      return concat(u64(0), region());
    case "log":
      return u64(random.pick([0, 1, 8, 4096, 1 << 20]), random.pick([0, 0, 8, 4096]));
    case "inflight":
      return concat(
        u64(random.pick([0, 4096, 65536]), random.pick([0, 0, 8])),
        u32(small() | random.pick([8, 64, 128]) << 16, 0),
      );
    case "config": {
      const length = random.int(0, 60);
      return concat(u32(random.int(0, 40), length, small() >> 2), new Uint8Array(random.bytes(length)));
    }
    default:
      return new Uint8Array(random.bytes(random.int(0, 48)));
  }
}

/** As many descriptors as belong to a message, or any number. */
function fdsOf(random: Random, name: FrontendMessage, payload: Uint8Array, all: readonly number[]): number[] {
  const { fds } = frontendMessages[name] as { fds?: readonly [number, number] };
  let count = fds === undefined ? 0 : Math.min(fds[1], random.pick([1, 1, 1, fds[0]]));
  if (name === "SET_MEM_TABLE" && payload.length >= 8) count = Math.min(32, payload[0]);
  if (random.int(0, 29) === 0) count = random.int(0, 32);
  return Array.from({ length: count }, () => random.pick(all));
}

/** Shares memory full of noise, or of zeros, and starts the rings there. */
function begin(random: Random, peer: RawPeer, file: number, event: number): void {
  const say = (name: FrontendMessage, payload: Uint8Array, fds: readonly number[] = []): void => {
    sendMessage(peer.fd, messageBytes(name, payload, NEED_REPLY), fds);
  };
  say("SET_MEM_TABLE", concat(u32(1, 0), u64(0x1000, 0x10000, 0x1000, 0)), [file]);
  for (let ring = 0; ring < 4; ring++) {
    const at = 0x1000 * random.int(1, 14);
    say("SET_VRING_NUM", u32(ring, random.pick([1, 8, 64, 256])));
    say("SET_VRING_BASE", u32(ring, random.pick([0, random.int(0, 0xffff)])));
    say("SET_VRING_ADDR", concat(u32(ring, 0), u64(at, at + 0x400, at + 0x800, 0)));
    say("SET_VRING_CALL", u64(ring), [event]);
    const polled = random.int(0, 1) === 0;
    say("SET_VRING_KICK", u64(polled ? ring | 0x100 : ring), polled ? [] : [event]);
    say("SET_VRING_ENABLE", u32(ring, 1));
  }
}

/** Says random things until the back-end has had enough, or everything is said. */
async function talk(random: Random, peer: RawPeer, odd: Readonly<Record<string, number>>): Promise<number> {
  const all = Object.values(odd);
  await peer.negotiate(
    random.pick([PROTOCOL, PROTOCOL & ~GPA_ADDRESSES]),
    0n,
    random.pick([undefined, ALL, random64(random)]),
  );
  if (random.int(0, 1) === 0) begin(random, peer, random.pick([odd.noise, odd.zeros]), odd["an event"]);
  for (let said = 0; said < MESSAGES; said++) {
    const name = random.pick(random.int(0, 3) === 0 ? NAMES : LIKELY);
    const payload = payloadOf(random, name);
    const flags = random.int(0, 99) === 0 ? random.int(0, 63) : random.int(0, 9) === 0 ? PLAIN : NEED_REPLY;
    const size = random.int(0, 99) === 0 ? random.int(0, 5000) : payload.length;
    const bytes = messageBytes(name, payload, flags, size);
    if (sendMessage(peer.fd, bytes, fdsOf(random, name, payload, all)) < 0) return said;
    // Now and then the answers are read, so that neither side is always ahead.
    if (random.int(0, 3) === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return MESSAGES;
}

test("thousands of random messages leave no trace", { timeout: 30_000 }, async (t) => {
  const random = new Random(20240817);
  const noise = memoryFile("noise", 0x10000);
  onEnd(t, () => close(noise));
  const filling = new Mapping(noise, 0x10000);
  new Uint8Array(filling.buffer).set(random.bytes(0x10000));
  filling.unmap();
  const zeros = memoryFile("zeros", 0x10000);
  onEnd(t, () => close(zeros));
  const odd = { ...oddDescriptors(t), noise, zeros };
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  await verify(driver, 1);
  const { frontEnd, ring } = await onStage(t, scene);
  await pollOnce(ring(), ring({ index: 1 }));
  frontEnd.close();
  await eventually("the first front-end has left", () => scene.server.sessions === 1);
  const unchanged = noteDescriptors();
  let said = 0;
  for (let i = 0; i < CONNECTIONS; i++) {
    const peer = scene.peer();
    said += await talk(random, peer, odd);
    peer.close();
    if (i % 25 === 0) await verify(driver, i);
  }
  await unchanged();
  await eventually("only the driver is left", () => scene.server.sessions === 1);
  await verify(driver, 2);
  await verify(await scene.driver(), 3);
  assert.ok(said > CONNECTIONS * 3, `${said} messages were said`);
  t.diagnostic(`${said} messages, ${scene.log.problems.length} problems`);
});
