/**
 * Feature bits: number of each by its name.
 *
 * @module
 */

/**
 * Protocol features (vhost-user, "Protocol features"), negotiated by GET/SET_PROTOCOL_FEATURES. SHMEM had number 20, then
 * 21, in crosvm before August 2026. Other names: {@link protocolFeatureAliases}.
 */
export const protocolFeatures = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  GET_VRING_BASE_INFLIGHT: 20,
  GPA_ADDRESSES: 21,
  SHMEM: 22,
} as const;

/** Name of a protocol feature. */
export type ProtocolFeature = keyof typeof protocolFeatures;

/** Names of protocol features in older documents, and in the code of others. */
export const protocolFeatureAliases: Readonly<Partial<Record<ProtocolFeature, readonly string[]>>> = {
  MTU: ["NET_MTU"],
  BACKEND_REQ: ["SLAVE_REQ"],
  BACKEND_SEND_FD: ["SLAVE_SEND_FD"],
  SHMEM: ["SHMEM_MAP"],
};

/**
 * Features of rings and transport (virtio 1.4, section 6; vhost), negotiated by GET/SET_FEATURES. The other numbers
 * belong to the device type.
 */
export const ringFeatures = {
  NOTIFY_ON_EMPTY: 24,
  LOG_ALL: 26,
  ANY_LAYOUT: 27,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  NOTIF_CONFIG_DATA: 39,
  RING_RESET: 40,
  ADMIN_VQ: 41,
  SUSPEND: 43,
} as const;

/** Name of a ring feature. */
export type RingFeature = keyof typeof ringFeatures;

/** Names of ring features in older documents, and in the code of others. */
export const ringFeatureAliases: Readonly<Partial<Record<RingFeature, readonly string[]>>> = {
  LOG_ALL: ["VHOST_F_LOG_ALL"],
  PROTOCOL_FEATURES: ["VHOST_USER_F_PROTOCOL_FEATURES"],
  ACCESS_PLATFORM: ["IOMMU_PLATFORM"],
};

/** The mask with the bits of the given numbers. */
export function mask(...bits: number[]): bigint {
  return bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
}

/** Whether a mask has a bit. */
export function has(features: bigint, bit: number): boolean {
  return (features >> BigInt(bit)) % 2n === 1n;
}

/** The names of a mask's bits, lowest first; a bit without a name is `bit N`. */
export function featureNames(features: bigint, names: Readonly<Record<string, number>>): string[] {
  const byBit = new Map(Object.entries(names).map(([name, bit]) => [bit, name]));
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (has(features, bit)) found.push(byBit.get(bit) ?? `bit ${bit}`);
  }
  return found;
}

/** Bits of the virtio device status (virtio 1.4, section 2.1). */
export const DeviceStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  SUSPEND: 16,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;
