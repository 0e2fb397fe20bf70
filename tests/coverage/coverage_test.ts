import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { close } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { FrontEnd } from "../../src/frontend/mod.ts";
import { mask, protocolFeatures, ringFeatures } from "../../src/protocol/features.ts";
import { type FrontendMessage, frontendMessages } from "../../src/protocol/messages.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { startDeno } from "../support/our_backend.ts";
import { broken, emptyRows } from "./check.ts";
import { type Claims, Sightings } from "./claims.ts";
import { destination, recording } from "./destination.ts";
import { programOf } from "./programs.ts";
import { type SessionRecord, SESSIONS } from "./record.ts";
import { render } from "./render.ts";
import { rows } from "./rows.ts";
import { provenProtocol, provenRing } from "./rules.ts";
import { Witness } from "./witness.ts";

const LIMIT = { timeout: 20_000 };
const here = fileURLToPath(new URL(".", import.meta.url));

const SESSION: SessionRecord = {
  test: "real/a_test.ts",
  side: "back-end",
  peer: { name: "QEMU", file: "/usr/bin/qemu-system-x86_64" },
  main: [],
  channel: [],
  acknowledged: [],
  withDescriptors: [],
  offered: "0x0",
  offeredProtocol: "0x0",
  protocol: "0x0",
  completed: "0x0",
  packed: false,
  indirect: false,
  logged: false,
};

const NO_CLAIMS: Claims = {
  "front-end messages": {},
  "back-end messages": {},
  "protocol features": {},
  "ring features": {},
};

function seen(...sessions: Partial<SessionRecord>[]): Sightings {
  return new Sightings(sessions.map((each) => ({ ...SESSION, ...each })), [], ({ name }) => name);
}

const NAMES = {
  "front-end messages": rows["front-end messages"].map(({ name }) => name),
  "back-end messages": rows["back-end messages"].map(({ name }) => name),
  "protocol features": rows["protocol features"].map(({ name }) => name),
  "ring features": rows["ring features"].map(({ name }) => name),
};

test("docs/coverage.md is what the evidence says", LIMIT, () => {
  const claims = JSON.parse(readFileSync(join(here, "evidence.json"), "utf8"));
  const page = readFileSync(join(here, "../../docs/coverage.md"), "utf8");
  assert.ok(page === render(claims), "it is not; deno task coverage writes it");
});

test("the page has every name, also the older ones", LIMIT, () => {
  const page = render(NO_CLAIMS);
  for (const name of Object.values(NAMES).flat()) assert.ok(page.includes(`\`${name}\``), name);
  for (
    const name of [
      "SLAVE_REQ",
      "SLAVE_SEND_FD",
      "SET_SLAVE_REQ_FD",
      "NET_MTU",
      "SHMEM_MAP",
      "SLAVE_VRING_CALL",
    ]
  ) {
    assert.ok(page.includes(`\`${name}\``), name);
  }
});

test("a feature counts when it was acknowledged and used", LIMIT, () => {
  const hex = (...bits: number[]): string => `0x${mask(...bits).toString(16)}`;
  const protocol = (feature: keyof typeof protocolFeatures, session: Partial<SessionRecord>): boolean =>
    provenProtocol({ ...SESSION, protocol: hex(protocolFeatures[feature]), ...session }).includes(feature);
  assert.equal(protocol("CONFIG", { main: ["GET_CONFIG"] }), true);
  assert.equal(protocol("CONFIG", { channel: ["CONFIG_CHANGE_MSG"] }), true);
  assert.equal(protocol("CONFIG", { main: ["GET_STATUS"] }), false);
  assert.equal(protocol("CONFIG", { main: ["GET_CONFIG"], protocol: "0x0" }), false);
  assert.equal(protocol("REPLY_ACK", { main: ["SET_OWNER"] }), false);
  assert.equal(protocol("REPLY_ACK", { main: ["SET_OWNER"], acknowledged: ["SET_OWNER"] }), true);
  assert.equal(protocol("BACKEND_SEND_FD", { channel: ["SHMEM_UNMAP"] }), false);
  assert.equal(protocol("BACKEND_SEND_FD", { channel: ["SHMEM_MAP"], withDescriptors: ["SHMEM_MAP"] }), true);
  assert.equal(protocol("GPA_ADDRESSES", {}), false);
  assert.equal(protocol("GPA_ADDRESSES", { completed: hex(32) }), true);
  assert.equal(protocol("XEN_MMAP", { completed: hex(32), main: ["SET_MEM_TABLE"] }), false);

  const ring = (feature: keyof typeof ringFeatures, session: Partial<SessionRecord>): boolean =>
    provenRing({ ...SESSION, completed: hex(ringFeatures[feature]), ...session }).includes(feature);
  assert.equal(ring("EVENT_IDX", {}), true);
  assert.equal(ring("EVENT_IDX", { completed: hex(32) }), false);
  assert.equal(ring("INDIRECT_DESC", {}), false);
  assert.equal(ring("INDIRECT_DESC", { indirect: true }), true);
  assert.equal(ring("RING_PACKED", {}), false);
  assert.equal(ring("RING_PACKED", { packed: true }), true);
  assert.equal(ring("LOG_ALL", { main: ["SET_LOG_BASE"] }), false);
  assert.equal(ring("LOG_ALL", { main: ["SET_LOG_BASE"], logged: true }), true);
  assert.equal(ring("LOG_ALL", { main: ["SET_LOG_BASE"], side: "front-end" }), true);
  assert.equal(ring("ACCESS_PLATFORM", {}), false);
  assert.equal(ring("ACCESS_PLATFORM", { main: ["IOTLB_MSG"] }), true);
});

test("what was not agreed on proves nothing, whatever is answered", LIMIT, (t) => {
  const ends = socketPair();
  onEnd(t, () => ends.forEach(close));
  const witness = new Witness("front-end", ends[0], () => {});
  const handled = (name: FrontendMessage, value: bigint): boolean => {
    witness.prove("front-end", {
      ...{ id: frontendMessages[name].id, name, row: frontendMessages[name], value },
      ...{ descriptors: 0, due: true },
    }, true);
    return witness.record?.main.includes(name) ?? false;
  };
  assert.equal(handled("SET_FEATURES", 0n), true);
  assert.equal(handled("SEND_RARP", 0n), false);
  assert.equal(handled("SET_PROTOCOL_FEATURES", mask(protocolFeatures.RARP)), true);
  assert.equal(handled("NET_SET_MTU", 1500n), false);
  assert.equal(handled("SEND_RARP", 0n), true);
});

test("a claim keeps its test as long as that shows it", LIMIT, () => {
  const of = (sightings: Sightings, before?: Claims): Claims => sightings.claims(NAMES, before);
  const main = ["GET_FEATURES"];
  const first = of(seen({ main, test: "real/b_test.ts" }));
  assert.deepEqual(first["front-end messages"].GET_FEATURES, { "back-end": { QEMU: "real/b_test.ts" } });
  const both = seen({ main }, { main, test: "real/b_test.ts" });
  assert.deepEqual(of(both, first)["front-end messages"], first["front-end messages"]);
  const other = of(seen({ main }), first)["front-end messages"].GET_FEATURES;
  assert.deepEqual(other, { "back-end": { QEMU: "real/a_test.ts" } });
});

test("what was claimed and not seen again is told", LIMIT, () => {
  const claims: Claims = {
    ...NO_CLAIMS,
    "front-end messages": { GET_FEATURES: { codec: true, "back-end": { QEMU: "real/a_test.ts" } } },
  };
  const again = new Sightings(
    [{ ...SESSION, main: ["GET_FEATURES"] }],
    [
      { from: "front-end", message: "GET_FEATURES", part: "request" },
      { from: "front-end", message: "GET_FEATURES", part: "answer" },
    ],
    ({ name }) => name,
  );
  assert.deepEqual(broken(claims, again), []);
  const of = "front-end messages: GET_FEATURES";
  assert.deepEqual(broken(claims, seen({})), [
    `${of}: codec was not seen again`,
    `${of}: our back-end with QEMU was not seen again in tests/real/a_test.ts`,
  ]);
  for (
    const not of [{ test: "real/b_test.ts" }, { side: "front-end" as const }, { peer: { name: "ours" } }]
  ) assert.equal(broken(claims, seen({ main: ["GET_FEATURES"], ...not })).length, 2, JSON.stringify(not));
  assert.deepEqual(broken({ ...NO_CLAIMS, "ring features": { NOTHING: {} } }, seen({})), [
    "ring features: NOTHING: there is no such row",
  ]);
  assert.match(
    broken(NO_CLAIMS, seen({ offeredProtocol: "0x20000" }))[0],
    /XEN_MMAP: not offered, .* but it was/,
  );
});

test("a row is empty without a codec, one of our sides, or a real peer", LIMIT, () => {
  const gaps = (kind: keyof Claims, name: string, claim: Claims[keyof Claims][string]): string[] =>
    emptyRows({ ...NO_CLAIMS, [kind]: { [name]: claim } })
      .filter((line) => line.startsWith(`${kind}: ${name}: `)).map((line) =>
        line.split(": ").slice(2).join(": ")
      );
  const ours = { ours: "a_test.ts" };
  const both = { codec: true, "back-end": ours, "front-end": ours } as const;
  assert.equal(gaps("front-end messages", "GET_FEATURES", {}).length, 4);
  assert.deepEqual(gaps("front-end messages", "GET_FEATURES", both), ["no real peer has proven it"]);
  const real = { ...both, "front-end": { "DPDK 24.11": "b_test.ts" } };
  assert.deepEqual(gaps("front-end messages", "GET_FEATURES", real), []);
  // Without a peer our two sides have to do; with one it is no exception any more.
  assert.deepEqual(gaps("front-end messages", "SET_LOG_FD", both), []);
  assert.equal(gaps("front-end messages", "SET_LOG_FD", { codec: true, "back-end": ours }).length, 1);
  assert.match(gaps("front-end messages", "SET_LOG_FD", real)[0], /but DPDK 24.11 has proven it/);
  assert.deepEqual(gaps("ring features", "SR_IOV", {}), []);
  assert.deepEqual(
    gaps("ring features", "EVENT_IDX", { "back-end": { QEMU: "a_test.ts" }, "front-end": ours }),
    [],
  );
});

test("programs are known by what they have mapped", LIMIT, () => {
  assert.equal(programOf(["/usr/bin/qemu-system-x86_64", "/lib/libblkio.so.1.5.0"]).name, "QEMU");
  assert.deepEqual(programOf(["/usr/bin/qemu-io", "/lib/libc.so.6", "/lib/libblkio.so.1.5.0"]), {
    name: "libblkio",
    file: "/lib/libblkio.so.1.5.0",
  });
  // Started by the dynamic linker.
  assert.equal(programOf(["/lib64/ld-linux-x86-64.so.2", "/x/usr/bin/dpdk-testpmd"]).name, "DPDK");
  assert.deepEqual(programOf(["/usr/bin/socat"]), { name: "/usr/bin/socat" });
});

test("only tests that were asked to, and what they start, record", LIMIT, () => {
  const url = "file:///x/recorder.ts";
  const argv = ["deno", join(here, "../real/a_test.ts")];
  assert.equal(destination(url, { env: {}, argv }), undefined);
  assert.equal(destination(url, { env: { VHOST_EVIDENCE: "/e" }, argv: ["deno", "/x/main.ts"] }), undefined);
  const chance = ["deno", join(here, "../fuzz/fuzz_test.ts")];
  assert.equal(destination(url, { env: { VHOST_EVIDENCE: "/e" }, argv: chance }), undefined);
  const found = destination(url, { env: { VHOST_EVIDENCE: "/e" }, argv });
  assert.deepEqual(found, { folder: "/e", exists: false, test: "real/a_test.ts" });
  assert.deepEqual(recording({ env: {}, argv }), []);
  const [preload] = recording({ env: { VHOST_EVIDENCE: "/e f" }, argv });
  const child = destination(preload.replace(/^--preload=/, ""), { env: {}, argv: [] });
  assert.deepEqual(child, { folder: "/e f", exists: true, test: "real/a_test.ts" });
});

test("a back-end writes down what went well, and only that", LIMIT, async (t) => {
  const folder = tempDir(t);
  const socket = join(folder, "socket");
  const child = startDeno(t, [
    ...recording({ env: { VHOST_EVIDENCE: folder }, argv: ["", join(here, "../real/a_test.ts")] }),
    join(here, "../../src/cli/mod.ts"),
    ...["blk", `--socket-path=${socket}`, "--storage=mem:1M"],
  ]);
  await child.waitSocket(socket);
  const records = async (count: number): Promise<SessionRecord[]> => {
    const file = join(folder, SESSIONS);
    for (const deadline = Date.now() + 5000;; await sleep(5)) {
      const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];
      if (lines.length >= count) return lines.map((line) => JSON.parse(line));
      assert.ok(Date.now() < deadline, `${lines.length} of ${count} records`);
    }
  };

  // Nothing but refusals: a ring that there is not, with an answer and without.
  for (const withoutProtocolFeatures of [0n, mask(protocolFeatures.REPLY_ACK)]) {
    const frontEnd = await FrontEnd.connect(socket, { withoutProtocolFeatures });
    onEnd(t, () => frontEnd.close());
    const told = frontEnd.request("SET_VRING_NUM", { index: 255, num: 4 });
    // Without an acknowledgement the session is over.
    const said = withoutProtocolFeatures === 0n ? /answered failure/ : /did not go on after it/;
    await assert.rejects(told, said);
    frontEnd.close();
  }
  const refused = await records(2);
  for (const { test, side, peer, main, acknowledged, completed } of refused) {
    assert.deepEqual([test, side, peer, completed], ["real/a_test.ts", "back-end", {
      name: "ours",
    }, "0x0"]);
    assert.ok(main.includes("SET_FEATURES") && main.includes("SET_STATUS"));
    assert.ok(!main.includes("SET_VRING_NUM") && !acknowledged.includes("SET_VRING_NUM"));
  }
  assert.ok(refused[0].acknowledged.includes("SET_FEATURES"));
  assert.deepEqual(refused[1].acknowledged, []);

  const driver = await BlkDriver.connect(socket, { depth: 1, maxTransfer: 4096 });
  onEnd(t, () => driver.close().catch(() => {}));
  await driver.write(0, new Uint8Array(512));
  await driver.close();
  const used = (await records(3))[2];
  assert.ok(used.main.includes("SET_VRING_KICK"));
  const proven = provenRing(used);
  for (const feature of ["VERSION_1", "EVENT_IDX", "PROTOCOL_FEATURES"] as const) {
    assert.ok(proven.includes(feature), feature);
  }
  assert.ok(!proven.includes("LOG_ALL"));
});
