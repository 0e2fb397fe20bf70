import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { edgesOf, GpioIoctl, GpioLineFlag, GpioSize, packLineRequest } from "../../ffi/gpio.ts";
import { I2cIoctl, packI2cTransfer } from "../../ffi/i2c.ts";
import { packSpiTransfer, SpiIoctl } from "../../ffi/spi.ts";
import type { Native } from "../../ffi/native.ts";
import { HostGpioChip } from "../../src/devices/gpio/mod.ts";
import { HostI2cBus } from "../../src/devices/i2c/mod.ts";
import { HostSpiBus } from "../../src/devices/spi/mod.ts";
import { tempDir } from "../support/cleanup.ts";

// No such hardware, nor a kernel that simulates some, is at hand: what is handed to the kernel is held against the
// kernel's own headers, by a C program.

const PROGRAM = String.raw`
#include <linux/gpio.h>
#include <linux/i2c.h>
#include <linux/i2c-dev.h>
#include <linux/spi/spidev.h>
#include <stdio.h>
#include <string.h>

static unsigned char bytes[65536];

int main(int argc, char **argv)
{
  size_t size = fread(bytes, 1, sizeof bytes, stdin);
  if (!strcmp(argv[1], "numbers")) {
    printf("%lu %lu %lu %lu %lu %lu\n", (unsigned long)GPIO_GET_CHIPINFO_IOCTL, (unsigned long)GPIO_V2_GET_LINEINFO_IOCTL,
      (unsigned long)GPIO_V2_GET_LINE_IOCTL, (unsigned long)GPIO_V2_LINE_SET_CONFIG_IOCTL,
      (unsigned long)GPIO_V2_LINE_GET_VALUES_IOCTL, (unsigned long)GPIO_V2_LINE_SET_VALUES_IOCTL);
    printf("%zu %zu %zu %zu %zu\n", sizeof(struct gpiochip_info), sizeof(struct gpio_v2_line_info),
      sizeof(struct gpio_v2_line_config), sizeof(struct gpio_v2_line_request), sizeof(struct gpio_v2_line_event));
    printf("%zu %zu %zu\n", __builtin_offsetof(struct gpiochip_info, lines), __builtin_offsetof(struct gpio_v2_line_info, offset),
      __builtin_offsetof(struct gpio_v2_line_request, fd));
    printf("%d %d %d %d\n", GPIO_V2_LINE_FLAG_INPUT, GPIO_V2_LINE_FLAG_OUTPUT, GPIO_V2_LINE_FLAG_EDGE_RISING,
      GPIO_V2_LINE_FLAG_EDGE_FALLING);
    printf("%d %d %d %d %d\n", I2C_FUNCS, I2C_RDWR, I2C_RDWR_IOCTL_MAX_MSGS, I2C_M_RD, I2C_M_TEN);
    printf("%lu %lu %lu\n", (unsigned long)SPI_IOC_MESSAGE(1), (unsigned long)SPI_IOC_RD_MODE32, (unsigned long)SPI_IOC_RD_MAX_SPEED_HZ);
  } else if (!strcmp(argv[1], "spi")) {
    struct spi_ioc_transfer *s = (void *)bytes;
    unsigned long base = (s->tx_buf ? s->tx_buf : s->rx_buf) - sizeof *s;
    printf("%ld %ld %u %u %u %u %u", s->tx_buf ? (long)(s->tx_buf - base) : -1, s->rx_buf ? (long)(s->rx_buf - base) : -1, s->len,
      s->speed_hz, s->bits_per_word, s->cs_change, s->delay_usecs);
    for (size_t i = sizeof *s; i < size; i++) printf(" %u", bytes[i]);
    printf("\n");
  } else if (!strcmp(argv[1], "line")) {
    struct gpio_v2_line_request *r = (void *)bytes;
    printf("%zu %u %u %s %llu %u", size - sizeof *r, r->num_lines, r->offsets[0], r->consumer, r->config.flags, r->config.num_attrs);
    for (unsigned i = 0; i < r->config.num_attrs; i++)
      printf(" %u %llu %llu", r->config.attrs[i].attr.id, r->config.attrs[i].attr.values, r->config.attrs[i].mask);
    printf("\n");
  } else if (!strcmp(argv[1], "event")) {
    struct gpio_v2_line_event events[] = {
      { .id = GPIO_V2_LINE_EVENT_RISING_EDGE }, { .id = GPIO_V2_LINE_EVENT_FALLING_EDGE }, { .id = GPIO_V2_LINE_EVENT_RISING_EDGE } };
    fwrite(events, sizeof events, 1, stdout);
  } else {
    struct i2c_rdwr_ioctl_data *d = (void *)bytes;
    unsigned char *base = (void *)d->msgs - sizeof *d;
    struct i2c_msg *m = (void *)(bytes + sizeof *d);
    printf("%u\n", d->nmsgs);
    for (unsigned i = 0; i < d->nmsgs; i++, m++) {
      unsigned long at = m->buf - base;
      printf("%u %u %u", m->addr, m->flags, m->len);
      for (unsigned k = 0; k < m->len; k++) printf(" %u", at + k < size ? bytes[at + k] : 999);
      printf("\n");
    }
  }
  return 0;
}
`;

/** Compiles the program. Returns a function that runs it. */
function kernel(dir: string): (what: string, input?: Native) => Uint8Array {
  const [source, program] = [join(dir, "headers.c"), join(dir, "headers")];
  writeFileSync(source, PROGRAM);
  execFileSync("gcc", ["-Wall", "-Werror", "-o", program, source]);
  return (what, input) => execFileSync(program, [what], { input: input?.bytes ?? new Uint8Array(0) });
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

test("what the kernel is asked is what its headers say", { timeout: 60_000 }, (t) => {
  const ask = kernel(tempDir(t));
  assert.deepEqual(text(ask("numbers")).trim().split("\n"), [
    Object.values(GpioIoctl).join(" "),
    Object.values(GpioSize).join(" "),
    "64 64 588",
    Object.values(GpioLineFlag).join(" "),
    Object.values(I2cIoctl).join(" "),
    Object.values(SpiIoctl).join(" "),
  ]);
  const { INPUT, OUTPUT, EDGE_RISING } = GpioLineFlag;
  assert.equal(text(ask("line", packLineRequest(7, INPUT | EDGE_RISING, 0))), "0 1 7 vhost-user 20 0\n");
  assert.equal(text(ask("line", packLineRequest(3, OUTPUT, 1))), "0 1 3 vhost-user 8 1 2 1 1\n");
  assert.equal(text(ask("line", packLineRequest(3, OUTPUT, 0))), "0 1 3 vhost-user 8 1 2 0 1\n");
  assert.deepEqual(edgesOf(ask("event")), [1, 0, 1]);
  const messages = [
    { address: 0x50, tenBit: false, reads: false, data: Uint8Array.of(1, 2, 3) },
    { address: 0x50, tenBit: false, reads: true, data: new Uint8Array(2) },
    { address: 0x3a5, tenBit: true, reads: false, data: Uint8Array.of(255) },
    { address: 0x20, tenBit: false, reads: false, data: new Uint8Array(0) },
  ];
  assert.equal(
    text(ask("i2c", packI2cTransfer(messages))),
    "4\n80 0 3 1 2 3\n80 1 2 0 0\n933 16 1 255\n32 0 0\n",
  );
  const sent = Uint8Array.of(9, 8, 7);
  assert.equal(text(ask("spi", packSpiTransfer(1000, 3, sent))), "32 -1 3 1000 8 0 0 9 8 7\n");
  assert.equal(text(ask("spi", packSpiTransfer(0, 3, sent, true))), "32 35 3 0 8 0 0 9 8 7 0 0 0\n");
  assert.equal(text(ask("spi", packSpiTransfer(0, 2, undefined, true))), "-1 32 2 0 8 0 0 0 0\n");
});

test("what is no such device is refused by name", { timeout: 10_000 }, () => {
  assert.throws(() => new HostGpioChip({ path: "/dev/null" }), /ENOTTY.*asking a GPIO chip/);
  assert.throws(() => new HostGpioChip({ path: "/dev/gpiochip9999" }), /ENOENT.*\/dev\/gpiochip9999/);
  assert.throws(() => new HostI2cBus({ path: "/dev/null", addresses: [] }), /ENOTTY.*\/dev\/null/);
  assert.throws(() => new HostSpiBus({ path: "/dev/null" }), /ENOTTY.*asking an SPI part/);
});
