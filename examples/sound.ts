/**
 * A sound card that shows how loud the guest is, and lets it record a tone.
 *
 *     deno run --allow-ffi examples/sound.ts
 *
 * and the socket is `/tmp/sound.sock`, for `-device vhost-user-snd-pci`. In the guest, `speaker-test` makes bars on this terminal.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { SoundDevice, type SoundOutput, ToneInput } from "@vhost/user/devices/sound";

const meter: SoundOutput = {
  range: { formats: ["S16"], rates: [44100, 48000], channelsMin: 1, channelsMax: 2 },
  open: () => ({
    write: (bytes) => {
      const samples = new Int16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1);
      const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      console.log("#".repeat(Math.round(peak / 0x8000 * 60)));
    },
    close: () => {},
  }),
};

await serve(new SoundDevice({ output: meter, input: new ToneInput(440) }), { socketPath: "/tmp/sound.sock" });
