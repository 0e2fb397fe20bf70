import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { AllowList, type GuestConnection, NetDevice, UserNetwork } from "../../src/devices/net/mod.ts";
import { answerDhcp } from "../../src/devices/net/user/dhcp.ts";
import { NameServer } from "../../src/devices/net/user/dns.ts";
import { get16, get32, put16, put32 } from "../../src/devices/net/user/packet.ts";
import { isInternal } from "../../src/devices/net/user/rules.ts";
import { parseSegment, TCP, TcpConnection, TcpFlag, type TcpLink } from "../../src/devices/net/user/tcp.ts";
import { bytesOf, eventually, LIMIT, sameBytes, Scene } from "../session/scene.ts";
import { Random } from "../support/random.ts";
import { frameOf, mac, NetDriver } from "./net_driver.ts";

test("a list allows what it names, and leads it where it says", LIMIT, () => {
  const list = new AllowList([
    "example.com:443",
    "*.example.org",
    "api.test:80=127.0.0.1:8080",
    "api.test=10.0.0.1",
    "192.0.2.0/24:53",
    "198.51.100.7",
  ]);
  const find = (host: string | undefined, address: string, port: number): string => {
    const target = list.find(host, address, port);
    return target === undefined ? "refused" : `${target.host}:${target.port}${target.exact ? " exact" : ""}`;
  };
  assert.equal(find("example.com", "198.18.0.1", 443), "example.com:443 exact");
  assert.equal(find("example.com", "198.18.0.1", 80), "refused");
  assert.equal(find("www.example.org", "198.18.0.2", 80), "www.example.org:80");
  assert.equal(find("a.b.example.org", "198.18.0.2", 22), "a.b.example.org:22");
  assert.equal(find("example.org", "198.18.0.2", 80), "refused");
  assert.equal(find("badexample.org", "198.18.0.2", 80), "refused");
  assert.equal(find("api.test", "198.18.0.3", 80), "127.0.0.1:8080 exact");
  assert.equal(find("api.test", "198.18.0.3", 81), "10.0.0.1:81 exact");
  assert.equal(find(undefined, "192.0.2.9", 53), "192.0.2.9:53");
  assert.equal(find(undefined, "192.0.3.9", 53), "refused");
  assert.equal(find(undefined, "198.51.100.7", 1), "198.51.100.7:1 exact");
  assert.equal(
    find(undefined, "198.18.0.1", 443),
    "refused",
    "an address that stands for a name, but for none of ours",
  );
  assert.deepEqual(
    ["example.com", "x.example.org", "example.org", "api.test"].map((name) => list.knows(name)),
    [
      true,
      true,
      false,
      true,
    ],
  );
  const all = new AllowList(["*:80"]);
  assert.equal(all.find(undefined, "203.0.113.1", 80)?.exact, false);
  assert.equal(all.find("any.where", "198.18.0.1", 80)?.host, "any.where");
  assert.equal(all.find("any.where", "198.18.0.1", 81), undefined);
});

test("what is no rule is refused, with what was expected", LIMIT, () => {
  for (
    const rule of [
      "",
      " ",
      "a b",
      "*.",
      "*.*",
      "a..b",
      "x:0",
      "x:65536",
      "x:y",
      "1.2.3.4/33",
      "1.2.3.4/x",
      "x=",
      "x=y:0",
      "x=y=z",
      "a:1:2",
      "-a",
      "1.2.3.4/1/1",
    ]
  ) assert.throws(() => new AllowList([rule]), /a rule must be NAME/, rule);
});

test("addresses that only this machine should reach", LIMIT, () => {
  const inside = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.9.9",
    "192.168.1.1",
    "169.254.169.254",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "::ffff:127.0.0.1",
  ];
  const outside = [
    "8.8.8.8",
    "172.32.0.1",
    "172.15.0.1",
    "192.167.0.1",
    "198.20.0.1",
    "2001:db8::1",
    "::ffff:8.8.8.8",
  ];
  assert.deepEqual(inside.filter((address) => !isInternal(address)), []);
  assert.deepEqual(outside.filter((address) => isInternal(address)), []);
});

function question(name: string, type = 1): Uint8Array {
  const labels = name.split(".").flatMap((label) => [label.length, ...new TextEncoder().encode(label)]);
  return Uint8Array.of(0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, type, 0, 1);
}

test("names have addresses of their own", LIMIT, () => {
  const server = new NameServer((name) => name.endsWith(".test"));
  const ask = (name: string, type?: number): { code: number; address: string | undefined } => {
    const answer = server.answer(question(name, type));
    assert.ok(answer);
    assert.equal(get16(answer, 0), 0x1234);
    assert.equal(get16(answer, 2) & 0xfff0, 0x8180);
    const found = get16(answer, 6) === 1 ? answer.subarray(answer.length - 4).join(".") : undefined;
    return { code: get16(answer, 2) & 15, address: found };
  };
  assert.deepEqual(ask("a.test"), { code: 0, address: "198.18.0.1" });
  assert.deepEqual(ask("B.TEST"), { code: 0, address: "198.18.0.2" });
  assert.deepEqual(ask("A.test"), { code: 0, address: "198.18.0.1" });
  assert.deepEqual(ask("a.test", 28), { code: 0, address: undefined });
  assert.deepEqual(ask("a.example"), { code: 3, address: undefined });
  assert.equal(server.nameOf(0xc612_0002), "b.test");
  assert.equal(server.nameOf(0xc612_0003), undefined);
});

test("whatever is asked of the name server is answered in form, or not at all", LIMIT, () => {
  const server = new NameServer(() => true);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.tuple(fc.constant([...question("a.test")]), fc.nat(30), fc.nat(255)).map(([bytes, at, value]) => {
          const copy = Uint8Array.from(bytes);
          copy[at % copy.length] = value;
          return copy;
        }),
      ),
      (message) => {
        const answer = server.answer(message);
        if (answer === undefined) return;
        assert.ok(answer.length >= 12 && answer.length <= message.length + 16);
        assert.notEqual(answer[2] & 0x80, 0);
      },
    ),
    { numRuns: 2000 },
  );
});

test("whatever is asked of the DHCP server is answered in form, or not at all", LIMIT, () => {
  const lease = { guest: 0x0a00_020f, gateway: 0x0a00_0202, dns: 0x0a00_0203, mask: 24, mtu: 1500 };
  const head = new Uint8Array(240);
  head[0] = 1;
  put32(head, 236, 0x6382_5363);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.boolean(), (options, whole) => {
      const message = whole ? Uint8Array.from([...head, ...options]) : options;
      const answer = answerDhcp(message, lease);
      if (answer !== undefined) assert.equal(get32(answer, 236), 0x6382_5363);
    }),
    { numRuns: 2000 },
  );
  const type = (options: number[]): number | undefined =>
    answerDhcp(Uint8Array.from([...head, ...options, 255]), lease)?.[242];
  assert.equal(type([53, 1, 1]), 2, "an offer");
  assert.equal(type([53, 1, 3, 50, 4, 10, 0, 2, 15]), 5, "a lease");
  assert.equal(type([53, 1, 3, 50, 4, 10, 0, 2, 16]), 6, "another address than its own");
  assert.equal(type([53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 1, 2, 3, 4]), undefined, "another server's");
});

/** The guest's side of a connection, which loses some of what it is sent. */
class Peer implements TcpLink {
  readonly mss = 1000;
  readonly room = new Uint8Array(2000);
  readonly received: number[] = [];
  readonly lost: (segment: number) => boolean;
  connection: TcpConnection;
  segments = 0;
  forgotten = 0;
  window = 65535;
  finSeen = false;
  reset = false;
  #next = 0;
  #sequence = 1000;
  #answers: (() => void)[] = [];
  #busy = false;

  constructor(lost: (segment: number) => boolean, scale = false) {
    this.lost = lost;
    const syn = new Uint8Array(TCP + 8);
    put32(syn, 4, 999);
    syn[12] = (TCP + 8) / 4 << 4;
    syn[13] = TcpFlag.SYN;
    put16(syn, 14, this.window);
    syn.set([2, 4, 3, 232, 1, 3, 3, 0].slice(0, scale ? 8 : 4), TCP);
    const segment = parseSegment(syn, 0, syn.length);
    assert.ok(segment);
    this.connection = new TcpConnection(this, 4000, 0x0a00_0001, 80, segment);
  }

  hasRoom(): boolean {
    return true;
  }

  forget(): void {
    this.forgotten++;
  }

  transmit(_: TcpConnection, length: number): void {
    const bytes = this.room.slice(0, length);
    if (this.lost(this.segments++)) return;
    const flags = bytes[13];
    if ((flags & TcpFlag.RST) !== 0) {
      this.reset = true;
      return;
    }
    const sequence = get32(bytes, 4);
    const payload = bytes.subarray((bytes[12] >>> 4) * 4);
    let news = payload.length > 0;
    if ((flags & TcpFlag.SYN) !== 0) {
      this.#next = (sequence + 1) >>> 0;
      news = true;
    } else if (sequence === this.#next && this.window > 0) {
      for (const byte of payload) this.received.push(byte);
      this.#next = (this.#next + payload.length) >>> 0;
    }
    if ((flags & TcpFlag.FIN) !== 0) {
      news = true;
      if (((sequence + payload.length) >>> 0) === this.#next && !this.finSeen) {
        this.finSeen = true;
        this.#next = (this.#next + 1) >>> 0;
      }
    }
    if (news) this.say(TcpFlag.ACK);
  }

  /** Sends a segment, once whatever is being sent to it is through. */
  say(flags: number, data: Uint8Array = new Uint8Array(0), skip = 0): void {
    const bytes = new Uint8Array(TCP + data.length);
    put32(bytes, 4, this.#sequence - skip);
    put32(bytes, 8, this.#next);
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    put16(bytes, 14, this.window);
    bytes.set(data, TCP);
    this.#sequence += data.length - skip + ((flags & TcpFlag.FIN) !== 0 ? 1 : 0);
    this.#answers.push(() => {
      const segment = parseSegment(bytes, 0, bytes.length);
      if (segment !== undefined) this.connection.segment(segment);
      this.connection.acknowledge();
    });
    if (this.#busy) return;
    this.#busy = true;
    queueMicrotask(() => {
      this.#busy = false;
      for (let next = this.#answers.shift(); next !== undefined; next = this.#answers.shift()) next();
    });
  }
}

for (
  const [name, every] of [["no segment", Infinity], ["one segment in seven", 7], ["one in three", 3]] as const
) {
  test(`a guest that loses ${name} gets all bytes in order`, { timeout: 30_000 }, async (t) => {
    const random = Random.of(t);
    // At random: what comes round is resonant with what is sent again, and can lose the same segment for ever.
    const peer = new Peer((n) => n > 0 && random.int(1, every === Infinity ? 1e9 : every) === 1);
    const { writable } = peer.connection.accept();
    const writer = writable.getWriter();
    const data = bytesOf(3, every === 3 ? 30_000 : 600_000);
    for (let at = 0; at < data.length;) {
      const size = random.int(1, 50_000);
      await writer.write(data.subarray(at, at + size));
      at += size;
    }
    await writer.close();
    // What is lost again when it is sent again takes a quarter of a second each time, and more.
    for (const deadline = Date.now() + 20_000; !peer.finSeen && Date.now() < deadline;) await sleep(5);
    sameBytes(Uint8Array.from(peer.received), data);
    peer.say(TcpFlag.FIN | TcpFlag.ACK);
    await eventually("the connection is over", () => peer.forgotten === 1);
    assert.equal(peer.reset, false);
  });
}

test("what the guest sends twice, late or half is read once and in order", LIMIT, async () => {
  const peer = new Peer(() => false);
  const { readable } = peer.connection.accept();
  const reading = new Response(readable).arrayBuffer();
  await Promise.resolve();
  const data = bytesOf(4, 5000);
  peer.say(TcpFlag.ACK, data.subarray(0, 1000));
  peer.say(TcpFlag.ACK, data.subarray(500, 2000), 500);
  peer.say(TcpFlag.ACK, data.subarray(0, 2000), 2000);
  peer.say(TcpFlag.ACK, data.subarray(2000));
  peer.say(TcpFlag.FIN | TcpFlag.ACK);
  sameBytes(new Uint8Array(await reading), data);
  peer.connection.abort();
  assert.equal(peer.reset, true);
  assert.equal(peer.forgotten, 1);
});

test("a guest that takes nothing for a while is asked until it does", LIMIT, async () => {
  const peer = new Peer(() => false);
  const { writable } = peer.connection.accept();
  await eventually("it is established", () => peer.segments > 0);
  await Promise.resolve();
  peer.window = 0;
  peer.say(TcpFlag.ACK);
  await Promise.resolve();
  const writer = writable.getWriter();
  await writer.write(bytesOf(5, 3000));
  const before = peer.segments;
  await eventually("it is asked", () => peer.segments > before);
  assert.deepEqual(peer.received, []);
  peer.window = 65535;
  await eventually("it has all", () => peer.received.length === 3000);
  peer.connection.abort();
});

test("a call that nobody accepts is refused; one that is broken off fails for both", LIMIT, async () => {
  const refused = new Peer(() => false);
  refused.connection.refuse();
  assert.equal(refused.reset, true);
  assert.throws(() => refused.connection.accept(), /over/);
  const broken = new Peer(() => false);
  const { readable, writable } = broken.connection.accept();
  await Promise.resolve();
  await Promise.resolve();
  broken.say(TcpFlag.RST);
  await assert.rejects(readable.getReader().read(), /broken the connection off/);
  await assert.rejects(writable.getWriter().write(Uint8Array.of(1)), /broken the connection off/);
  assert.equal(broken.forgotten, 1);
});

test("nothing that a guest sends harms a user-mode network", { timeout: 60_000 }, async (t) => {
  const errors: unknown[] = [];
  const calls: GuestConnection[] = [];
  const network = new UserNetwork({
    names: (name) => name.length < 5,
    onConnection: (connection) => {
      calls.push(connection);
      if (connection.port % 3 === 0) connection.accept();
      if (connection.port % 3 === 1) throw new Error("no");
    },
  });
  const scene = await Scene.open(t, new NetDevice({ network, onError: (error) => errors.push(error) }));
  const guest = await NetDriver.connect(t, scene.path, { buffers: 32 });
  const word = fc.oneof(fc.constantFrom(0, 1, 53, 67, 68, 80, 0xffff), fc.nat(0xffff));
  const packet = fc.record({
    type: fc.constantFrom(0x0800, 0x0806, 0x86dd, 0x8100),
    protocol: fc.constantFrom(1, 6, 17, 17, 6, 0),
    lengths: fc.tuple(fc.nat(15), word),
    destination: fc.constantFrom(0x0a00_0202, 0x0a00_0203, 0xffff_ffff, 0xc612_0001, 0x0a00_020f),
    body: fc.uint8Array({ maxLength: 120 }),
    ports: fc.tuple(word, word),
    right: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(packet, { maxLength: 20 }), async (packets) => {
      for (const { type, protocol, lengths: [ihl, total], destination, body, ports, right } of packets) {
        const bytes = new Uint8Array(20 + 4 + body.length);
        bytes[0] = 0x40 | (right ? 5 : ihl);
        put16(bytes, 2, right ? bytes.length : total);
        bytes[9] = protocol;
        put32(bytes, 12, 0x0a00_020f);
        put32(bytes, 16, destination);
        put16(bytes, 20, ports[0]);
        put16(bytes, 22, ports[1]);
        bytes.set(body, 24);
        const frame = frameOf("52:55:0a:00:02:02", "02:00:00:00:00:01", bytes);
        put16(frame, 12, type);
        await guest.send(frame);
      }
      guest.received.length = 0;
    }),
    { numRuns: 60 },
  );
  assert.deepEqual(errors, []);
  assert.deepEqual(scene.log.problems, []);
  // And then it asks who has the gateway's address.
  const ask = new Uint8Array(28);
  ask.set([0, 1, 8, 0, 6, 4, 0, 1], 0);
  ask.set(mac("02:00:00:00:00:01"), 8);
  put32(ask, 14, 0x0a00_020f);
  put32(ask, 24, 0x0a00_0202);
  const frame = frameOf("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", ask);
  put16(frame, 12, 0x0806);
  guest.received.length = 0;
  await guest.send(frame);
  const [{ frame: answer }] = await guest.take(1);
  assert.equal(get16(answer, 20), 2);
  assert.deepEqual(answer.subarray(22, 28), mac("52:55:0a:00:02:02"));
  network.close();
  assert.equal(network.connections, 0);
});
