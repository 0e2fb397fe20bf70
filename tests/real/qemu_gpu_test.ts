import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { ask, Display } from "../support/display.ts";
import { type Emulator, Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";

const [WIDTH, HEIGHT] = [64, 32];

/** A picture in which no pixel is like another, as the display takes it: blue, green, red, and one byte of nothing. */
function picture(): Uint8Array {
  return Uint8Array.from({ length: 4 * WIDTH * HEIGHT }, (_, i) => {
    const pixel = i >> 2;
    return [pixel, pixel >> 8, 255 - pixel, 0][i & 3];
  });
}

/** What a driver does first. The guest has none for displays, and QEMU hands out its display's socket to one that is up. */
const DRIVE = `
for at in /sys/bus/pci/devices/*; do [ $(cat $at/device) = 0x1050 ] && break; done
echo \${at##*/} >/sys/bus/pci/drivers/virtio-pci/unbind
echo 1 >$at/enable
common=$(sed -n 5p $at/resource | cut -d ' ' -f 1)
poke() { devmem $((common + $1)) $2 $3; }
poke 0x14 8 0; poke 0x14 8 1; poke 0x14 8 3
poke 8 32 0; poke 12 32 2; poke 8 32 1; poke 12 32 1
poke 0x14 8 11; poke 0x14 8 15
devmem $((common + 0x14)) 8`;

for (const emulator of ["qemu", "qemu11"] as const satisfies readonly Emulator[]) {
  realTest(
    `a graphics device of ours draws on the screen: ${emulator}`,
    [emulator, "guest"],
    {},
    async (t) => {
      const display = new Display();
      onEnd(t, () => display.close());
      const device = await InProcess.serve(t, display.device);
      const guest = await Guest.start(t, {
        emulator,
        devices: [
          "-chardev",
          `socket,id=c0,path=${device.socket}`,
          "-device",
          "vhost-user-gpu-pci,id=gpu,chardev=c0",
        ],
      });
      assert.equal(await guest.run(DRIVE), "0x0F");
      await device.until("the display", () => display.socket !== undefined);
      assert.equal((await display.ask(ask.GET_PROTOCOL_FEATURES)).getBigUint64(0, true) & 1n, 1n, "EDID");
      const info = await display.ask(ask.GET_DISPLAY_INFO);
      assert.equal(info.byteLength, 24 + 16 * 24);
      const [width, height, enabled] = [32, 36, 40].map((at) => info.getUint32(at, true));
      assert.ok(width > 0 && height > 0 && enabled === 1, `${width} x ${height}, ${enabled}`);
      const edid = await display.ask(ask.GET_EDID, 0);
      assert.equal(edid.getBigUint64(32), 0x00ff_ffff_ffff_ff00n, "how every EDID begins");
      const pixels = picture();
      await display.tell(ask.SCANOUT, 0, WIDTH, HEIGHT);
      await display.tell(ask.UPDATE, 0, 0, 0, WIDTH, HEIGHT, pixels);
      // It is answered in turn, so the picture is there.
      await display.ask(ask.GET_PROTOCOL_FEATURES);
      const filename = join(tempDir(t), "screen.ppm");
      await guest.qmp("screendump", { filename, device: "gpu" });
      const screen = readFileSync(filename);
      const head = `P6\n${WIDTH} ${HEIGHT}\n255\n`;
      assert.equal(screen.subarray(0, head.length).toString(), head);
      const rgb = Uint8Array.from(
        { length: 3 * WIDTH * HEIGHT },
        (_, i) => pixels[4 * Math.floor(i / 3) + 2 - i % 3],
      );
      assert.deepEqual(new Uint8Array(screen.subarray(head.length)), rgb);
      assert.deepEqual(device.all("GPU_SET_SOCKET").map(({ fds }) => fds), [1]);
      await guest.stop();
      await device.checkUnharmed();
    },
  );
}
