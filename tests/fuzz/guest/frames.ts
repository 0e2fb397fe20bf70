/**
 * Frames of a guest on a user-mode network: what it answers, and what is nearly that.
 *
 * @module
 */

import {
  ETHERNET,
  IpProtocol,
  IPV4,
  put16,
  put32,
  putChecksum,
  putHeaders,
  UDP,
} from "../../../src/devices/net/user/packet.ts";
import type { Random } from "../../support/random.ts";

const GUEST = Uint8Array.of(2, 0, 0, 0, 0, 10);
const GATEWAY = 0x0a00_0202;
const SERVER = 0x0a00_0203;
const OWN = 0x0a00_020f;
const ECHO = 0xc612_0001;
const BROADCAST = 0xffff_ffff;

function ip(random: Random, protocol: number, to: number, body: Uint8Array, checksum = -1): Uint8Array {
  const bytes = new Uint8Array(ETHERNET + IPV4 + body.length);
  bytes.set(body, ETHERNET + IPV4);
  const from = random.pick([OWN, OWN, OWN, OWN, 0, GATEWAY]);
  putHeaders(
    bytes,
    random.pick([GUEST, new Uint8Array(6).fill(255)]),
    GUEST,
    protocol,
    from,
    to,
    body.length,
  );
  if (checksum >= 0 && random.int(0, 3) > 0) putChecksum(bytes, body.length, checksum);
  return bytes;
}

function udp(random: Random, to: number, port: number, data: Uint8Array): Uint8Array {
  const body = new Uint8Array(UDP + data.length);
  put16(body, 0, random.pick([68, 53, 1000, 0]));
  put16(body, 2, port);
  put16(body, 4, random.pick([body.length, body.length, body.length, 0, 7, 8, body.length + 1, 0xffff]));
  body.set(data, UDP);
  return ip(random, IpProtocol.UDP, to, body, 6);
}

function tcp(random: Random): Uint8Array {
  const options = random.pick([[], [], [2, 4, 5, 180], [2, 0, 0, 0], [3, 3, 7, 0], [1, 1, 1, 1], [2, 4], [
    8,
    200,
    0,
    0,
  ]]);
  const header = 20 + Math.ceil(options.length / 4) * 4;
  const body = new Uint8Array(header + random.pick([0, 0, 1, 100, 1400]));
  put16(body, 0, random.pick([1000, 1001, 0, 65535]));
  put16(body, 2, random.pick([7, 7, 7, 80, 0]));
  put32(body, 4, random.pick([0, 1, 100, 101, 0x7fff_ffff, 0xffff_ffff]));
  put32(body, 8, random.pick([0, 1, 2, 0x8000_0000, 0xffff_ffff]));
  body[12] = random.pick([header / 4, header / 4, header / 4, 0, 4, 15]) << 4;
  body[13] = random.pick([0x02, 0x02, 0x10, 0x18, 0x11, 0x04, 0x12, 0x29, 0xff, 0]);
  put16(body, 14, random.pick([65535, 0, 1, 1000]));
  body.set(options, 20);
  return ip(random, IpProtocol.TCP, random.pick([ECHO, ECHO, GATEWAY, 0x0101_0101, BROADCAST]), body, 16);
}

function dhcp(random: Random): Uint8Array {
  const data = new Uint8Array(random.pick([300, 300, 548, 241, 240, 239, 10, 0]));
  if (data.length >= 240) {
    data.set([random.pick([1, 1, 2]), 1, 6, 0, 1, 2, 3, 4]);
    data.set(GUEST, 28);
    data.set([0x63, 0x82, 0x53, 0x63], 236);
    const options = random.pick([
      [53, 1, 1, 255],
      [53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 255],
      [53, 0, 255],
      [53, 255],
      [0, 0, 0, 53, 1, 8],
      [55, 200, 1],
      [53, 1, 7],
      [61, 7],
      [],
    ]);
    data.set(options.slice(0, data.length - 240), 240);
  }
  return udp(random, random.pick([BROADCAST, BROADCAST, GATEWAY, SERVER]), 67, data);
}

function dns(random: Random): Uint8Array {
  const name = (
    text: string,
  ): number[] => [...text.split(".").flatMap((label) => [label.length, ...label].map(byte)), 0];
  const byte = (each: string | number): number => typeof each === "number" ? each : each.charCodeAt(0);
  const question = random.pick([
    name("echo.test"),
    name("echo.test"),
    name("other.test"),
    name(""),
    // Pointers to themselves, forwards, outside.
    [0xc0, 12],
    [0xc0, 14, 0xc0, 12],
    [0xff, 0xff],
    [63, ...new Array(63).fill(97)],
    [64, 97],
    [3, 97],
    [1, 0xff, 0],
    new Array(300).fill(1),
  ]);
  const head = [
    0,
    1,
    random.pick([1, 0x81, 0x10]),
    0,
    0,
    random.pick([1, 1, 0, 2, 255]),
    0,
    0,
    0,
    random.pick([0, 1]),
    0,
    0,
  ];
  const rest = [0, random.pick([1, 1, 28, 255]), 0, random.pick([1, 1, 3])];
  const all = Uint8Array.from([...head, ...question, ...rest]);
  return udp(
    random,
    SERVER,
    53,
    all.slice(0, random.int(0, 5) === 0 ? random.int(0, all.length) : all.length),
  );
}

function arp(random: Random): Uint8Array {
  const bytes = new Uint8Array(ETHERNET + 28);
  bytes.fill(255, 0, 6);
  bytes.set(GUEST, 6);
  put16(bytes, 12, 0x0806);
  bytes.set([0, 1, 8, 0, random.pick([6, 6, 0, 255]), 4, 0, random.pick([1, 1, 2, 0])], ETHERNET);
  bytes.set(GUEST, ETHERNET + 8);
  put32(bytes, ETHERNET + 14, random.pick([OWN, 0]));
  put32(bytes, ETHERNET + 24, random.pick([GATEWAY, OWN, BROADCAST, 0]));
  return bytes;
}

function icmp(random: Random): Uint8Array {
  const body = new Uint8Array(random.pick([8, 64, 1480, 7, 0]));
  body[0] = random.pick([8, 8, 0, 3]);
  return ip(random, IpProtocol.ICMP, random.pick([GATEWAY, SERVER, ECHO]), body);
}

/** A frame, most of the time one that means something; at times with a byte that is wrong, or cut off. */
export function frame(random: Random): Uint8Array {
  const bytes = random.pick([tcp, tcp, tcp, dhcp, dns, arp, icmp])(random);
  if (random.int(0, 5) === 0) bytes[random.int(0, bytes.length - 1)] = random.int(0, 255);
  return random.int(0, 9) === 0 ? bytes.slice(0, random.int(0, bytes.length)) : bytes;
}
