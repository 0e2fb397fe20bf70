// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linux's driver for the SPI controller, and what a device tree says elsewhere: which parts are behind it.
 * A flash at chip select 0; a part that programs drive themselves (/dev/spidevB.C) at each of the others.
 */
#include <linux/module.h>
#include <linux/spi/spi.h>
#include <linux/virtio.h>

static int register_with_parts(struct device *dev, struct spi_controller *ctrl);

#undef module_virtio_driver
#define module_virtio_driver(driver) static struct virtio_driver *const spi_driver = &driver
#define devm_spi_register_controller register_with_parts
#include "spi-virtio.c"
#undef devm_spi_register_controller

static int register_with_parts(struct device *dev, struct spi_controller *ctrl)
{
	int i, ret = devm_spi_register_controller(dev, ctrl);

	for (i = 0; ret == 0 && i < ctrl->num_chipselect; i++) {
		struct spi_board_info part = { .max_speed_hz = 10000000, .chip_select = i };

		/* spidev has no name of its own; this one means the same. */
		strscpy(part.modalias, i == 0 ? "spi-nor" : "dh2228fv", sizeof(part.modalias));
		if (!spi_new_device(ctrl, &part))
			ret = -ENODEV;
	}
	return ret;
}

/* The driver leaves all of it to the device's end; this kernel calls remove whether there is one or not. */
static void nothing(struct virtio_device *vdev)
{
}

static int __init load(void)
{
	spi_driver->remove = nothing;
	return register_virtio_driver(spi_driver);
}
module_init(load);

static void __exit unload(void)
{
	unregister_virtio_driver(spi_driver);
}
module_exit(unload);
