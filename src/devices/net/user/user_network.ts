/**
 * A network that ends in this process: each connection of a guest is handed to a function.
 *
 * @module
 */

import type { Frame } from "../frame.ts";
import { MAX_FRAME } from "../layout.ts";
import type { NetGuest, Network, NetworkPort, Offloads } from "../network.ts";
import { checksumOf, wordSum } from "../finish.ts";
import { answerDhcp, DHCP_CLIENT, DHCP_SERVER, type Lease } from "./dhcp.ts";
import { DNS_PORT, NameServer } from "./dns.ts";
import {
  addressText,
  ETHERNET,
  EtherType,
  get16,
  get32,
  IpProtocol,
  IPV4,
  type Ipv4,
  parseIpv4,
  put16,
  put32,
  putChecksum,
  putHeaders,
  UDP,
} from "./packet.ts";
import { parseSegment, TCP, TcpConnection, TcpFlag, type TcpLink, type TcpStreams } from "./tcp.ts";

/** The network as QEMU's user-mode network has it: 10.0.2.0/24. */
const LEASE: Lease = { guest: 0x0a00_020f, gateway: 0x0a00_0202, dns: 0x0a00_0203, mask: 24, mtu: 1500 };
const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 0x0a, 0x00, 0x02, 0x02);
const BROADCAST = 0xffff_ffff;
const BROADCAST_MAC = new Uint8Array(6).fill(0xff);
/** Connections of one guest. */
const MOST_CONNECTIONS = 4096;

const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const ARP = 28;
const ICMP_ECHO = 8;
const ICMP_UNREACHABLE = 3;
const ICMP_PORT = 3;

/** A guest calls. */
export interface GuestConnection {
  /** The name that the guest has asked for, when it did: see {@link UserNetworkOptions.names}. */
  readonly host: string | undefined;
  /** The address that it called. Behind a name it is one that was made up for that name. */
  readonly address: string;
  /** The port. */
  readonly port: number;
  /**
   * Accepts the call. It may take its time: the guest waits as for a distant machine.
   *
   * @throws {TypeError} when the guest has given up
   */
  accept(): TcpStreams;
  /** Refuses it: the guest's `connect` fails with "connection refused". */
  refuse(): void;
  /** Breaks it off, before or after it was accepted. */
  abort(): void;
}

/**
 * Decides about a call. When it returns, or its promise resolves, without having accepted, the call is refused. What it throws
 * breaks the connection off.
 */
export type ConnectionHandler = (connection: GuestConnection) => void | Promise<void>;

/** What a user-mode network is made of. */
export interface UserNetworkOptions {
  /** Takes the guests' calls. */
  readonly onConnection: ConnectionHandler;
  /**
   * Which names there are, all in lower case. To the guest each has an address of its own (in 198.18.0.0/15) by which its
   * calls are told apart. By default there are none.
   */
  readonly names?: (name: string) => boolean;
  /** Told of what a handler throws. Nobody is by default: breaking off is answer enough. */
  readonly onError?: (error: unknown, connection: GuestConnection) => void;
}

/**
 * User-mode networking. The guest gets its address by DHCP (10.0.2.15), names from a server at 10.0.2.3, and TCP with
 * whatever a function lets it talk to; `ping` reaches the gateway (10.0.2.2). Nothing of the host's network is set up or
 * needed, and nothing is reached that the function does not reach. There is no IPv6, and no UDP but that of DHCP and DNS.
 *
 * Every guest that connects has a network of its own.
 *
 * @example A network in which there is one web server, which is this function
 * ```ts
 * import { NetDevice, UserNetwork } from "@vhost/user/devices/net";
 *
 * const network = new UserNetwork({
 *   names: (name) => name === "greeter.test",
 *   onConnection: async (connection) => {
 *     if (connection.host !== "greeter.test" || connection.port !== 80) return;
 *     const { writable } = connection.accept();
 *     const writer = writable.getWriter();
 *     await writer.write(new TextEncoder().encode("HTTP/1.0 200 OK\r\n\r\nhello\r\n"));
 *     await writer.close();
 *   },
 * });
 * export const card = new NetDevice({ network });
 * ```
 */
export class UserNetwork implements Network {
  /** What is sent here comes by memory, where nothing falls over: checksums are not looked at, and segments may be long. */
  readonly offloads: Offloads = { checksum: true, segmentation: true };
  readonly #options: UserNetworkOptions;
  readonly #ports = new Set<UserPort>();

  /** A network without guests. */
  constructor(options: UserNetworkOptions) {
    this.#options = options;
  }

  /** Connections of all guests, those that wait for an answer as well. */
  get connections(): number {
    let sum = 0;
    for (const port of this.#ports) sum += port.connections;
    return sum;
  }

  /** {@link Network.attach}. */
  attach(guest: NetGuest): NetworkPort {
    const port: UserPort = new UserPort(guest, this.#options, () => this.#ports.delete(port));
    this.#ports.add(port);
    return port;
  }

  /** Breaks all connections off. */
  close(): void {
    for (const port of this.#ports) port.detach();
  }
}

class UserPort implements NetworkPort, TcpLink {
  readonly mss = LEASE.mtu - IPV4 - TCP;
  readonly room: Uint8Array<ArrayBuffer>;
  connections = 0;
  readonly #guest: NetGuest;
  readonly #options: UserNetworkOptions;
  readonly #names: NameServer;
  readonly #gone: () => void;
  /** A frame of the guest, and one for it. */
  readonly #input: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_FRAME);
  readonly #output: Uint8Array<ArrayBuffer> = new Uint8Array(ETHERNET + LEASE.mtu);
  /** The guest's hardware address, as it was last seen. */
  readonly #mac: Uint8Array<ArrayBuffer> = new Uint8Array(6);
  /** By both ports, then by the address called. */
  readonly #table = new Map<number, Map<number, TcpConnection>>();
  /** Those that have to acknowledge something at the end of the burst, and those that wait for room. */
  readonly #touched = new Set<TcpConnection>();
  readonly #blocked = new Set<TcpConnection>();

  constructor(guest: NetGuest, options: UserNetworkOptions, gone: () => void) {
    this.#guest = guest;
    this.#options = options;
    this.#names = new NameServer(options.names ?? (() => false));
    this.#gone = gone;
    this.room = this.#output.subarray(ETHERNET + IPV4);
  }

  send(frame: Frame): void {
    const input = this.#input;
    const length = frame.copyTo(input);
    const type = get16(input, 12);
    if (type === EtherType.ARP) return this.#arp(length);
    if (type !== EtherType.IPV4) return;
    const packet = parseIpv4(input, length);
    if (packet === undefined) return;
    this.#mac.set(input.subarray(6, 12));
    if (packet.protocol === IpProtocol.UDP) this.#udp(packet);
    // Who has not taken its address yet has no business with others.
    else if (packet.source !== LEASE.guest) return;
    else if (packet.protocol === IpProtocol.TCP) this.#tcp(packet);
    else if (packet.protocol === IpProtocol.ICMP) this.#icmp(packet);
  }

  flush(): void {
    for (const connection of this.#touched) connection.acknowledge();
    this.#touched.clear();
  }

  refilled(): void {
    const blocked = [...this.#blocked];
    this.#blocked.clear();
    for (const connection of blocked) connection.pump();
  }

  detach(): void {
    for (const byAddress of [...this.#table.values()]) {
      for (const connection of [...byAddress.values()]) connection.lose();
    }
    this.#touched.clear();
    this.#blocked.clear();
    this.#gone();
  }

  /** Everybody but the guest itself is behind the gateway. */
  #arp(length: number): void {
    const input = this.#input;
    if (length < ETHERNET + ARP || get16(input, ETHERNET + 6) !== ARP_REQUEST) return;
    // Hardware Ethernet with 6 bytes, protocol IPv4 with 4.
    if (get32(input, ETHERNET) !== 0x0001_0800 || get16(input, ETHERNET + 4) !== 0x0604) return;
    const wanted = get32(input, ETHERNET + 24);
    // A guest that asks for its own address wants to know whether another has it.
    if (wanted === LEASE.guest || wanted === get32(input, ETHERNET + 14)) return;
    const answer = this.#output;
    answer.set(input.subarray(6, 12), 0);
    answer.set(GATEWAY_MAC, 6);
    put16(answer, 12, EtherType.ARP);
    answer.set(input.subarray(ETHERNET, ETHERNET + 6), ETHERNET);
    put16(answer, ETHERNET + 6, ARP_REPLY);
    answer.set(GATEWAY_MAC, ETHERNET + 8);
    put32(answer, ETHERNET + 14, wanted);
    answer.set(input.subarray(ETHERNET + 8, ETHERNET + 18), ETHERNET + 18);
    this.#guest.deliver(answer.subarray(0, ETHERNET + ARP));
  }

  #icmp({ destination, start, end }: Ipv4): void {
    const input = this.#input;
    const size = end - start;
    if (size < 8 || input[start] !== ICMP_ECHO) return;
    if (destination !== LEASE.gateway && destination !== LEASE.dns) return;
    if (size > this.room.length) return;
    const { room } = this;
    room.set(input.subarray(start, end));
    put16(room, 0, 0);
    put16(room, 2, 0);
    put16(room, 2, checksumOf(wordSum(room, 0, size)));
    this.#deliver(IpProtocol.ICMP, destination, LEASE.guest, size, this.#mac);
  }

  #udp(packet: Ipv4): void {
    const { source, destination, start, end } = packet;
    const input = this.#input;
    if (end - start < UDP) return;
    const size = get16(input, start + 4);
    if (size < UDP || start + size > end) return;
    const to = get16(input, start + 2);
    const data = input.subarray(start + UDP, start + size);
    if (to === DHCP_SERVER && (destination === BROADCAST || destination === LEASE.gateway)) {
      const answer = answerDhcp(data, LEASE);
      if (answer !== undefined) {
        this.#sendUdp(answer, LEASE.gateway, DHCP_SERVER, BROADCAST, DHCP_CLIENT, BROADCAST_MAC);
      }
    } else if (source !== LEASE.guest || destination === BROADCAST || destination >>> 28 === 0xe) {
      return;
    } else if (to === DNS_PORT && destination === LEASE.dns) {
      const answer = this.#names.answer(data);
      if (answer !== undefined) {
        this.#sendUdp(answer, LEASE.dns, DNS_PORT, source, get16(input, start), this.#mac);
      }
    } else {
      this.#unreachable(packet);
    }
  }

  #sendUdp(
    data: Uint8Array,
    source: number,
    sourcePort: number,
    destination: number,
    port: number,
    mac: Uint8Array,
  ): void {
    const { room } = this;
    const size = UDP + data.length;
    if (size > room.length) return;
    put16(room, 0, sourcePort);
    put16(room, 2, port);
    put16(room, 4, size);
    room.set(data, UDP);
    this.#deliver(IpProtocol.UDP, source, destination, size, mac, 6);
  }

  /** There is nobody at that port (RFC 792): sooner than a silence, the guest's programs try something else. */
  #unreachable({ destination, start, end }: Ipv4): void {
    const { room } = this;
    const quoted = Math.min(end, start + 8) - ETHERNET;
    const size = 8 + quoted;
    room.fill(0, 0, 8);
    room[0] = ICMP_UNREACHABLE;
    room[1] = ICMP_PORT;
    room.set(this.#input.subarray(ETHERNET, ETHERNET + quoted), 8);
    put16(room, 2, checksumOf(wordSum(room, 0, size)));
    this.#deliver(IpProtocol.ICMP, destination, LEASE.guest, size, this.#mac);
  }

  /** Delivers `size` bytes of {@link room}, with a checksum at a place in them, if there is one. */
  #deliver(
    protocol: number,
    source: number,
    destination: number,
    size: number,
    mac: Uint8Array,
    checksum = -1,
  ): void {
    const output = this.#output;
    const length = putHeaders(output, mac, GATEWAY_MAC, protocol, source, destination, size);
    if (checksum >= 0) putChecksum(output, size, checksum);
    this.#guest.deliver(output.subarray(0, length));
  }

  #tcp({ destination, start, end }: Ipv4): void {
    const input = this.#input;
    const segment = parseSegment(input, start, end);
    if (segment === undefined) return;
    const guestPort = get16(input, start);
    const port = get16(input, start + 2);
    const ports = guestPort * 0x1_0000 + port;
    const known = this.#table.get(ports)?.get(destination);
    if (known !== undefined) {
      known.segment(segment);
      this.#touched.add(known);
      return;
    }
    if ((segment.flags & (TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST)) === TcpFlag.SYN) {
      const connection = new TcpConnection(this, guestPort, destination, port, segment);
      if (this.connections >= MOST_CONNECTIONS) return connection.refuse();
      let byAddress = this.#table.get(ports);
      if (byAddress === undefined) this.#table.set(ports, byAddress = new Map());
      byAddress.set(destination, connection);
      this.connections++;
      this.#call(connection);
    } else if ((segment.flags & TcpFlag.RST) === 0) {
      this.#reset(guestPort, destination, port, segment.acknowledgement);
    }
  }

  /** A segment of no connection (RFC 9293, 3.10.7.1). */
  #reset(guestPort: number, address: number, port: number, sequence: number): void {
    const { room } = this;
    room.fill(0, 0, TCP);
    put16(room, 0, port);
    put16(room, 2, guestPort);
    put32(room, 4, sequence);
    room[12] = TCP / 4 << 4;
    room[13] = TcpFlag.RST;
    this.#deliver(IpProtocol.TCP, address, LEASE.guest, TCP, this.#mac, 16);
  }

  /** Hands a call to the function. */
  #call(tcp: TcpConnection): void {
    const connection: GuestConnection = {
      host: this.#names.nameOf(tcp.address),
      address: addressText(tcp.address),
      port: tcp.port,
      accept: () => tcp.accept(),
      refuse: () => tcp.refuse(),
      abort: () => tcp.abort(),
    };
    const failed = (error: unknown): void => {
      tcp.abort();
      this.#options.onError?.(error, connection);
    };
    try {
      const result = this.#options.onConnection(connection);
      if (result === undefined) tcp.refuse();
      else result.then(() => tcp.refuse(), failed);
    } catch (error) {
      failed(error);
    }
  }

  hasRoom(connection: TcpConnection): boolean {
    if (this.#guest.hasRoom(this.#output.length)) return true;
    this.#blocked.add(connection);
    return false;
  }

  transmit({ guestPort, address, port }: TcpConnection, length: number): void {
    put16(this.room, 0, port);
    put16(this.room, 2, guestPort);
    this.#deliver(IpProtocol.TCP, address, LEASE.guest, length, this.#mac, 16);
  }

  forget(connection: TcpConnection): void {
    const ports = connection.guestPort * 0x1_0000 + connection.port;
    const byAddress = this.#table.get(ports);
    if (byAddress?.get(connection.address) !== connection) return;
    byAddress.delete(connection.address);
    if (byAddress.size === 0) this.#table.delete(ports);
    this.connections--;
    this.#touched.delete(connection);
    this.#blocked.delete(connection);
  }
}
