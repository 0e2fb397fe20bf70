/**
 * An I2C bus with a part of your own at address 0x20, a stopwatch, and an EEPROM at 0x50.
 *
 *     deno run --allow-ffi examples/i2c.ts
 *
 * and the socket is `/tmp/i2c.sock`, for `-device vhost-user-i2c-pci`. In the guest, `i2cget -y 0 0x20` gives the seconds.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { Eeprom, I2cDevice, type I2cPart, SimulatedI2cBus } from "@vhost/user/devices/i2c";

// A part of your own: reads give the seconds that have passed.
const stopwatch: I2cPart = {
  address: 0x20,
  write: () => {},
  read: (length) => new Uint8Array(length).fill(performance.now() / 1000),
};

const bus = new SimulatedI2cBus([stopwatch, new Eeprom({ address: 0x50 })]);
await serve(new I2cDevice({ bus }), { socketPath: "/tmp/i2c.sock" });
