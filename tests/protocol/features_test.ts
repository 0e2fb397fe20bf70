import assert from "node:assert/strict";
import test from "node:test";
import {
  DeviceStatus,
  featureNames,
  has,
  mask,
  protocolFeatures,
  ringFeatures,
} from "../../src/protocol/features.ts";

test("protocol features have the masks of the specification", { timeout: 5000 }, () => {
  const masks = Object.fromEntries(Object.entries(protocolFeatures).map(([name, bit]) => [name, mask(bit)]));
  assert.deepEqual(masks, {
    MQ: 0x1n,
    LOG_SHMFD: 0x2n,
    RARP: 0x4n,
    REPLY_ACK: 0x8n,
    MTU: 0x10n,
    BACKEND_REQ: 0x20n,
    CROSS_ENDIAN: 0x40n,
    CRYPTO_SESSION: 0x80n,
    PAGEFAULT: 0x100n,
    CONFIG: 0x200n,
    BACKEND_SEND_FD: 0x400n,
    HOST_NOTIFIER: 0x800n,
    INFLIGHT_SHMFD: 0x1000n,
    RESET_DEVICE: 0x2000n,
    INBAND_NOTIFICATIONS: 0x4000n,
    CONFIGURE_MEM_SLOTS: 0x8000n,
    STATUS: 0x1_0000n,
    XEN_MMAP: 0x2_0000n,
    SHARED_OBJECT: 0x4_0000n,
    DEVICE_STATE: 0x8_0000n,
    GET_VRING_BASE_INFLIGHT: 0x10_0000n,
    GPA_ADDRESSES: 0x20_0000n,
    SHMEM: 0x40_0000n,
  });
});

test("ring features have the numbers of virtio and vhost", { timeout: 5000 }, () => {
  assert.deepEqual({ ...ringFeatures }, {
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
  });
});

test("the device status has the bits of virtio", { timeout: 5000 }, () => {
  assert.deepEqual({ ...DeviceStatus }, {
    ACKNOWLEDGE: 0x1,
    DRIVER: 0x2,
    DRIVER_OK: 0x4,
    FEATURES_OK: 0x8,
    SUSPEND: 0x10,
    DEVICE_NEEDS_RESET: 0x40,
    FAILED: 0x80,
  });
});

test("a mask has the bits it was made of, up to bit 63", { timeout: 5000 }, () => {
  const bits = [0, 31, 32, 63];
  const all = mask(...bits);
  assert.equal(all, 0x8000_0001_8000_0001n);
  for (let bit = 0; bit < 64; bit++) assert.equal(has(all, bit), bits.includes(bit), `bit ${bit}`);
  assert.equal(mask(), 0n);
  assert.equal(mask(5, 5), 0x20n);
});

test("a mask is shown by names, lowest bit first", { timeout: 5000 }, () => {
  const names = featureNames(mask(63, 22, 3, 0), protocolFeatures);
  assert.deepEqual(names, ["MQ", "REPLY_ACK", "SHMEM", "bit 63"]);
  assert.deepEqual(featureNames(0n, protocolFeatures), []);
});
