import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type FrontendMessage, frontendMessages } from "../../src/protocol/mod.ts";
import { anEvent, noteDescriptors } from "./descriptors.ts";
import { messageBytes, NEED_REPLY, PLAIN, type RawPeer } from "./raw_peer.ts";
import { aWhile, LIMIT, Scene, verify } from "./scene.ts";
import { concat, u32, u64 } from "./wire.ts";

const KICK = "SET_VRING_KICK";

/** Something that no peer may send: with how many descriptors, and what is said about it. */
interface Mistake {
  readonly what: string;
  readonly name: FrontendMessage | number;
  readonly payload?: Uint8Array;
  readonly fds?: number;
  readonly said: RegExp;
}

const zeros = (length: number): Uint8Array => new Uint8Array(length);

const mistakes: readonly Mistake[] = [
  { what: "an unknown id", name: 45, said: /message 45: no such message/ },
  { what: "a huge id", name: 0xffff_ffff, said: /message 4294967295: no such message/ },
  {
    what: "a payload where none belongs",
    name: "SET_OWNER",
    payload: zeros(8),
    said: /SET_OWNER: payload: expected 0 bytes, got 8$/,
  },
  {
    what: "a payload too short",
    name: "SET_FEATURES",
    payload: zeros(7),
    said: /SET_FEATURES: payload: expected 8 bytes, got 7$/,
  },
  {
    what: "a payload too long",
    name: "SET_FEATURES",
    payload: zeros(9),
    said: /SET_FEATURES: payload: expected 8 bytes, got 9$/,
  },
  {
    what: "no payload",
    name: "SET_VRING_ADDR",
    said: /SET_VRING_ADDR: payload: expected 40 bytes, got 0$/,
  },
  {
    what: "the largest payload of all",
    name: "SET_VRING_ADDR",
    payload: zeros(4096),
    said: /SET_VRING_ADDR: payload: expected 40 bytes, got 4096$/,
  },
  {
    what: "half a region",
    name: "SET_MEM_TABLE",
    payload: concat(u32(1, 0), zeros(16)),
    fds: 1,
    said: /SET_MEM_TABLE: payload must be 40 bytes for 1 regions, got 24 bytes$/,
  },
  {
    what: "half a header of regions",
    name: "SET_MEM_TABLE",
    payload: zeros(4),
    said: /SET_MEM_TABLE: payload: expected 8 to 1032 bytes, got 4$/,
  },
  {
    what: "a descriptor where none belongs",
    name: "SET_OWNER",
    fds: 1,
    said: /SET_OWNER: descriptors: expected 0, got 1$/,
  },
  {
    what: "two descriptors for one ring",
    name: "SET_VRING_CALL",
    payload: u64(0),
    fds: 2,
    said: /SET_VRING_CALL: descriptors: expected 0 to 1, got 2$/,
  },
  {
    what: "a descriptor and the word that there is none",
    name: KICK,
    payload: u64(0x100),
    fds: 1,
    said: /SET_VRING_KICK: descriptors must be none with flag bit 8, got 1$/,
  },
  {
    what: "no descriptor without a word about it",
    name: "SET_VRING_ERR",
    payload: u64(1),
    said: /SET_VRING_ERR: descriptors must be one without flag bit 8, got 0$/,
  },
  {
    what: "no descriptor for a region",
    name: "SET_MEM_TABLE",
    payload: concat(u32(1, 0), u64(0, 4096, 0, 0)),
    said: /SET_MEM_TABLE: descriptors must be one for each of 1 regions, got 0$/,
  },
  {
    what: "more descriptors than regions",
    name: "SET_MEM_TABLE",
    payload: concat(u32(1, 0), u64(0, 4096, 0, 0)),
    fds: 3,
    said: /SET_MEM_TABLE: descriptors must be one for each of 1 regions, got 3$/,
  },
  {
    what: "a new region without its file",
    name: "ADD_MEM_REG",
    payload: concat(u64(0), u64(0, 4096, 0, 0)),
    said: /ADD_MEM_REG: descriptors.* got 0$/,
  },
  {
    what: "a channel without its socket",
    name: "SET_BACKEND_REQ_FD",
    said: /SET_BACKEND_REQ_FD: descriptors: expected 1, got 0$/,
  },
  {
    what: "a channel of two sockets",
    name: "SET_BACKEND_REQ_FD",
    fds: 2,
    said: /SET_BACKEND_REQ_FD: descriptors: expected 1, got 2$/,
  },
  ...(["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ENABLE"] as const).flatMap((name) =>
    [4, 256, 0xffff_ffff].map((ring): Mistake => ({
      what: `ring ${ring}`,
      name,
      payload: u32(ring, 1),
      said: new RegExp(`${name}: ring must be 0 to 3, got ${ring}$`),
    }))
  ),
  ...([KICK, "SET_VRING_CALL", "SET_VRING_ERR"] as const).flatMap((name) => [
    {
      what: "ring 4",
      name,
      payload: u64(4),
      fds: 1,
      said: new RegExp(`${name}: ring must be 0 to 3, got 4$`),
    },
    {
      what: "a bit that means nothing",
      name,
      payload: u64(0x200),
      fds: 1,
      said: new RegExp(`${name}: ring must be a number of 8 bits and flag bit 8, got 0x200$`),
    },
  ]),
  {
    what: "a ring past the last",
    name: "SET_VRING_ADDR",
    payload: concat(u32(4, 0), u64(0, 0, 0, 0)),
    said: /SET_VRING_ADDR: ring must be 0 to 3, got 4$/,
  },
  {
    what: "flags that mean nothing",
    name: "SET_VRING_ADDR",
    payload: concat(u32(0, 2), u64(0, 0, 0, 0)),
    said: /SET_VRING_ADDR: flags must be 0 or 1, got 2$/,
  },
  ...([["descriptor", 8], ["used", 2], ["available", 1]] as const).map(([part, by], i): Mistake => ({
    what: `a misaligned ${part} address`,
    name: "SET_VRING_ADDR",
    payload: concat(u32(0, 0), u64(...[0, 1, 2].map((at) => at === i ? by : 0), 0)),
    said: new RegExp(`SET_VRING_ADDR: ${part} address must be a multiple of ${by * 2}, got 0x${by}$`),
  })),
  ...[0, 3, 65536, 32769, 0xffff_ffff].map((size): Mistake => ({
    what: `a ring of ${size}`,
    name: "SET_VRING_NUM",
    payload: u32(2, size),
    said: new RegExp(`SET_VRING_NUM: ring 2: size must be a power of two up to 32768, got ${size}$`),
  })),
  {
    what: "a position of more than 16 bits",
    name: "SET_VRING_BASE",
    payload: u32(1, 0x1_0000),
    said: /SET_VRING_BASE: ring 1: base must have 16 bits, got 65536$/,
  },
  { what: "a display's socket", name: "GPU_SET_SOCKET", fds: 1, said: /GPU_SET_SOCKET: / },
];

/** A shared disk with a front-end that works all the time, and one that does not. */
async function stage(t: TestContext): Promise<{ scene: Scene; peer: RawPeer; stillServes(): Promise<void> }> {
  const scene = await Scene.disk(t);
  const driver = await scene.driver();
  await verify(driver, 1);
  const unchanged = noteDescriptors();
  const peer = scene.peer();
  await peer.negotiate();
  const stillServes = async () => {
    peer.close();
    await verify(driver, 2);
    await unchanged();
    const other = await scene.driver();
    await verify(other, 3);
    await other.close();
    await unchanged();
    assert.deepEqual(scene.log.problems, []);
  };
  return { scene, peer, stillServes };
}

for (const { what, name, payload, fds = 0, said } of mistakes) {
  test(
    `${name} with ${what} is refused: the peer is told, or dropped when it does not ask`,
    LIMIT,
    async (t) => {
      const odd = anEvent(t);
      const { scene, peer, stillServes } = await stage(t);
      const given = Array.from({ length: fds }, () => odd);
      assert.equal(await peer.ack(name, payload, given), 1n);
      await scene.log.problem(
        new RegExp(`^warning: blk: a request of the front-end failed: .*${said.source}`),
      );
      await peer.number("GET_FEATURES");
      peer.say(name, payload, given);
      await peer.end();
      await scene.log.problem(new RegExp(`^error: blk: the session is over: .*${said.source}`));
      await stillServes();
    },
  );
}

for (
  const [what, bytes, said] of [
    ["version 0", messageBytes("SET_OWNER", zeros(0), 0x0), /SET_OWNER: header version must be 1, got 0$/],
    ["version 2", messageBytes("SET_OWNER", zeros(0), 0x2), /SET_OWNER: header version must be 1, got 2$/],
    ["version 3", messageBytes("SET_OWNER", zeros(0), 0xb), /SET_OWNER: header version must be 1, got 3$/],
    [
      "a reserved flag",
      messageBytes("SET_OWNER", zeros(0), 0x11),
      /reserved header flags must be 0, got 0x10$/,
    ],
    [
      "the last flag",
      messageBytes(7, zeros(0), 0x8000_0001),
      /SET_LOG_FD: reserved header flags .* 0x80000000$/,
    ],
    [
      "the flag of a reply",
      messageBytes("SET_OWNER", zeros(0), 0x5),
      /SET_OWNER: a reply came where a request/,
    ],
    ["both flags", messageBytes("SET_OWNER", zeros(0), 0xd), /SET_OWNER: a reply came where a request/],
    [
      "4097 bytes",
      messageBytes("SET_CONFIG", zeros(9), PLAIN, 4097),
      /SET_CONFIG: payload must have at most 4096 .* 4097$/,
    ],
    [
      "4 GiB",
      messageBytes("GET_FEATURES", zeros(0), NEED_REPLY, 0xffff_ffff),
      /at most 4096 bytes, header says 4294967295$/,
    ],
  ] as const
) {
  test(`a header with ${what} ends the session`, LIMIT, async (t) => {
    const { scene, peer, stillServes } = await stage(t);
    peer.bytes(bytes);
    await peer.end();
    await scene.log.problem(new RegExp(`^error: blk: the session is over: .*${said.source}`));
    await stillServes();
  });
}

for (
  const [what, bytes, fds, said] of [
    [
      "in the header",
      messageBytes("SET_OWNER").subarray(0, 5),
      0,
      /message header: the peer left after 5 bytes/,
    ],
    [
      "after the header",
      messageBytes("SET_FEATURES", u64(0)).subarray(0, 12),
      0,
      /SET_FEATURES: .* after 12 bytes/,
    ],
    [
      "in the payload",
      messageBytes("SET_VRING_CALL", u64(0)).subarray(0, 15),
      1,
      /SET_VRING_CALL: .* after 15 bytes/,
    ],
    ["having sent descriptors", messageBytes("SET_OWNER").subarray(0, 1), 32, /the peer left after 1 bytes/],
  ] as const
) {
  test(`a peer that leaves in mid-message, ${what}`, LIMIT, async (t) => {
    const event = anEvent(t);
    const { scene, peer, stillServes } = await stage(t);
    peer.bytes(bytes, Array.from({ length: fds }, () => event));
    await aWhile();
    peer.close();
    await scene.log.problem(new RegExp(`^error: .*${said.source}`));
    await stillServes();
  });
}

test("more descriptors than fit in the control data end the session", LIMIT, async (t) => {
  const event = anEvent(t);
  for (const count of [33, 34, 253]) {
    const { scene, peer, stillServes } = await stage(t);
    peer.bytes(messageBytes("SET_MEM_TABLE", zeros(8)), Array.from({ length: count }, () => event));
    await peer.end();
    await scene.log.problem(/^error: .*descriptors were lost: more came than this process can take$/);
    await stillServes();
  }
});

test(
  "descriptors with every byte of a message end the session before they are too many",
  LIMIT,
  async (t) => {
    const event = anEvent(t);
    const { scene, peer, stillServes } = await stage(t);
    const bytes = messageBytes("SET_VRING_CALL", u64(0));
    await assert.rejects(async () => {
      for (let i = 0; i < bytes.length; i++) {
        peer.bytes(bytes.subarray(i, i + 1), Array.from({ length: 20 }, () => event));
        await aWhile();
      }
    }, "the connection is closed in the middle");
    await scene.log.problem(/^error: .*message header: descriptors: at most 32, got 40$/);
    await stillServes();
  },
);

test("32 surplus descriptors with each message: all are closed", LIMIT, async (t) => {
  const event = anEvent(t);
  const given = Array.from({ length: 32 }, () => event);
  const { scene, peer: first, stillServes } = await stage(t);
  for (const name of [...Object.keys(frontendMessages) as FrontendMessage[], 0, 45, 1000]) {
    const peer = scene.peer();
    await peer.negotiate();
    peer.say(name, undefined, given);
    // The few that are always acknowledged are answered; the session goes on then.
    const answer = await peer.next();
    await scene.log.problem(
      answer === "end" ? /^error: blk: the session is over: / : /^warning: .* request .* failed: /,
    );
    peer.close();
  }
  await first.number("GET_FEATURES");
  await stillServes();
});
