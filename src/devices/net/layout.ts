/**
 * Numbers and structures of the network device (virtio 1.4, section 5.1; Linux `virtio_net.h`).
 *
 * @module
 */

import { bytes, Struct, u16, u32, u8 } from "../../protocol/struct.ts";

/** Feature bits of the device type. */
export const netFeatures = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  GSO: 6,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  GUEST_UFO: 10,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  HOST_UFO: 14,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  CTRL_RX_EXTRA: 20,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  DEVICE_STATS: 50,
  HASH_TUNNEL: 51,
  VQ_NOTF_COAL: 52,
  NOTF_COAL: 53,
  GUEST_USO4: 54,
  GUEST_USO6: 55,
  HOST_USO: 56,
  HASH_REPORT: 57,
  GUEST_HDRLEN: 59,
  RSS: 60,
  RSC_EXT: 61,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
} as const;

/**
 * Bytes of the header before each frame: u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset,
 * u16 num_buffers. The same with and without MRG_RXBUF, as all drivers here have VERSION_1.
 */
export const NET_HEADER_SIZE = 12;

/** Bytes of the same header in front of a legacy driver (no VERSION_1) without MRG_RXBUF: num_buffers is absent. */
export const LEGACY_HEADER_SIZE = 10;

/** Bits of the header's flags. */
export const NetHeaderFlag = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;

/** What the header's gso_type says. */
export const GsoType = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** Bytes of an Ethernet header: destination, source, type. */
export const ETHERNET_HEADER = 14;

/** The longest frame: 64 KiB of IP packet to be cut into segments, its Ethernet header, a VLAN tag. */
export const MAX_FRAME: number = 65536 + ETHERNET_HEADER + 4;

/** The configuration space. */
export interface NetConfig {
  /** The guest's address. */
  readonly mac: Uint8Array;
  /** Bit 0: the link is up. */
  readonly status: number;
  /** Queue pairs. */
  readonly maxVirtqueuePairs: number;
  /** Largest payload of a frame, bytes. */
  readonly mtu: number;
  /** Mbit/s; all ones for unknown. */
  readonly speed: number;
  /** 1 full duplex, 0 half, 255 unknown. */
  readonly duplex: number;
  /** Padding. */
  readonly unused: Uint8Array;
}

/** Layout of the configuration space, as far as the features go that are offered here: 20 bytes. */
export const netConfig: Struct<NetConfig> = new Struct<NetConfig>({
  mac: bytes(6),
  status: u16,
  maxVirtqueuePairs: u16,
  mtu: u16,
  speed: u32,
  duplex: u8,
  unused: bytes(3),
});
