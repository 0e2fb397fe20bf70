import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BlkDevice, FileStorage } from "../../src/devices/blk/mod.ts";
import { parseWav, type PcmFormatName, wavHeader } from "../../src/devices/sound/mod.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import type { Emulator, Guest } from "../support/guest.ts";
import { installProgram } from "../support/guest_program.ts";
import { sha256 } from "../support/image.ts";
import { InProcess } from "../support/in_process.ts";
import { type OurBackend, startBackend } from "../support/our_backend.ts";
import { type PeerName, realTest } from "../support/peers.ts";
import { Random } from "../support/random.ts";
import { restoreGuest } from "../support/snapshot.ts";

// Our sound card in Linux guests: what their own sound system plays and records is compared sample by sample.

const needs: readonly PeerName[] = ["qemu", "guest", "cc"];

/** Numbers of ALSA's formats. */
const ALSA = { U8: 1, S16: 2, S32: 10, FLOAT: 14, S24_3: 32 } as const;

interface Stage {
  readonly guest: Guest;
  readonly card: OurBackend;
  /** Runs `pcm_io` and returns what it took, ms, and how often it was late. */
  pcm(...args: (string | number)[]): Promise<{ took: number; late: number }>;
}

/** A guest with a card and the program that uses it. */
async function stage(t: TestContext, args: readonly string[], emulator: Emulator = "qemu"): Promise<Stage> {
  const card = await startBackend(t, "sound", args, { permissions: ["--allow-run=/bin/sh", "--allow-env"] });
  const guest = await restoreGuest(t, { emulator });
  const program = await installProgram(t, guest, "pcm_io");
  await guest.plug("vhost-user-snd-pci", card.socket);
  await guest.waitFor("[ -e /dev/snd/controlC0 ]");
  return {
    guest,
    card,
    pcm: async (...args) => {
      const said = await guest.run(`${program} ${args.join(" ")} || { dmesg | tail; false; }`, 60_000);
      const match = /^(\d+) ms, late (\d+)$/.exec(said);
      assert.ok(match, said);
      return { took: Number(match[1]), late: Number(match[2]) };
    },
  };
}

/** Puts bytes into a file of the guest, by a disk. */
async function give(t: TestContext, guest: Guest, bytes: Uint8Array): Promise<void> {
  const file = join(tempDir(t), "samples");
  writeFileSync(file, bytes);
  assert.equal(bytes.length % 512, 0);
  const storage = new FileStorage(file, { readOnly: true });
  onEnd(t, () => storage.close());
  const disk = await InProcess.serve(t, new BlkDevice({ storage }));
  await guest.plug("vhost-user-blk-pci", disk.socket, { id: "samples", slot: 2 });
  await guest.waitFor("[ -b /dev/vda ]");
  await guest.run("cp /dev/vda /tmp/samples");
  await guest.unplug("samples");
}

/**
 * Runs something until the guest has kept up with it: a recorder that is too late has lost samples, and begins anew. A busy
 * machine cannot keep up always, but now and then.
 */
async function inTime<T extends { late: number }>(act: () => Promise<T>): Promise<T> {
  for (let attempt = 1;; attempt++) {
    const result = await act();
    if (result.late === 0) return result;
    assert.ok(attempt < 10, "the guest was late ten times");
  }
}

/** The samples of a WAV file. */
function samples(path: string): { format: PcmFormatName; channels: number; rate: number; bytes: Uint8Array } {
  const file = readFileSync(path);
  const read = (target: Uint8Array, position: number) => file.copy(target, 0, position);
  const { params, offset, length } = parseWav(read, file.length);
  return { ...params, bytes: file.subarray(offset, offset + length) };
}

for (const emulator of ["qemu", "qemu11"] as const) {
  realTest(
    `${emulator}: what is played and recorded is the same, sample by sample, and takes its time`,
    [
      ...needs,
      emulator,
    ],
    { timeout: 90_000 },
    async (t) => {
      const played = join(tempDir(t), "played.wav");
      const { guest, card, pcm } = await stage(t, [`--output=wav:${played}`, "--input=tone:441"], emulator);
      const frames = 96_000;
      const data = Random.of(t).bytes(frames * 4);
      await give(t, guest, data);
      assert.match(await guest.run("cat /proc/asound/cards"), /VirtIO SoundCard/);
      // Two seconds at 48000 Hz, in periods of 50 ms.
      const { took, late } = await pcm("play", "/tmp/samples", ALSA.S16, 2, 48000, 2400, 8);
      assert.ok(took >= 1950, `${took} ms for 2000 ms of sound`);
      const result = samples(played);
      assert.deepEqual([result.format, result.channels, result.rate], ["S16", 2, 48000]);
      // Where the guest was late, it has played on.
      assert.equal(result.bytes.length >= data.length, true, `late ${late}`);
      if (late === 0) assert.equal(sha256(result.bytes.subarray(0, data.length)), sha256(data));

      // A second of the tone: 441 Hz at 44100 frames per second are 100 frames a period.
      const recorded = await inTime(() => pcm("record", "/tmp/recorded", ALSA.S16, 1, 44100, 4410, 8, 44100));
      assert.ok(recorded.took >= 950, `${recorded.took} ms for 1000 ms of sound`);
      const tone = Int16Array.from(
        { length: 44100 },
        (_, i) => Math.round(0.5 * Math.sin(2 * Math.PI * i / 100) * 0x7fff),
      );
      const sum = await guest.run("sha256sum </tmp/recorded | cut -c1-64");
      assert.equal(sum, sha256(new Uint8Array(tone.buffer)));
      await guest.stop();
      await card.checkUnharmed();
    },
  );
}

realTest("formats and rates: a file has what the guest plays", needs, { timeout: 90_000 }, async (t) => {
  const played = join(tempDir(t), "played.wav");
  const { guest, card, pcm } = await stage(t, [`--output=wav:${played}`, "--speed=4"]);
  const data = Random.of(t).bytes(24 * 4096);
  await give(t, guest, data);
  let count = 0;
  for (
    const [format, channels, rate] of [
      ["U8", 1, 44100],
      ["S24_3", 2, 96000],
      ["S32", 2, 44100],
      ["FLOAT", 1, 192000],
    ] as const
  ) {
    await pcm("play", "/tmp/samples", ALSA[format], channels, rate, rate / 20, 16);
    const file = ++count === 1 ? played : played.replace(".wav", `-${count}.wav`);
    const result = samples(file);
    assert.deepEqual([result.format, result.channels, result.rate], [format, channels, rate]);
    const whole = result.bytes.subarray(0, data.length);
    assert.equal(sha256(whole), sha256(data), `${format}: ${result.bytes.length} bytes`);
  }
  await guest.unplug();
  await guest.stop();
  await card.checkUnharmed();
});

realTest("a guest hears what a file has, then silence", needs, { timeout: 90_000 }, async (t) => {
  const source = join(tempDir(t), "source.wav");
  const input = Random.of(t).bytes(4000 * 6);
  const params = { format: "S24_3", channels: 2, rate: 8000 } as const;
  writeFileSync(source, Buffer.concat([wavHeader(params, input.length), input]));
  const { guest, card, pcm } = await stage(t, ["--output=none", `--input=wav:${source}`, "--speed=0.5"]);
  await inTime(() => pcm("record", "/tmp/recorded", ALSA.S24_3, 2, 8000, 400, 3, 4800));
  const expected = Buffer.concat([input, Buffer.alloc(800 * 6)]);
  assert.equal(await guest.run("sha256sum </tmp/recorded | cut -c1-64"), sha256(expected));
  // What the file has not is not on offer.
  await assert.rejects(pcm("record", "/tmp/recorded", ALSA.S16, 2, 8000, 400, 3, 800), /Invalid argument/);
  await assert.rejects(guest.run("[ -e /dev/snd/pcmC0D0p ]"), /status 1/);
  await guest.stop();
  await card.checkUnharmed();
});

realTest("a pause lasts, what was dropped is not played on, and a program can listen", needs, {
  timeout: 90_000,
}, async (t) => {
  const folder = tempDir(t);
  const listen = `f=${folder}/$$; cat >$f; mv $f $f-$SOUND_FORMAT-$SOUND_CHANNELS-$SOUND_RATE.wav`;
  const { guest, card, pcm } = await stage(t, [`--output=exec:${listen}`]);
  const third = 16_384;
  const data = Random.of(t).bytes(3 * third * 2);
  await give(t, guest, data);
  let before: string[] = [];
  const { took } = await inTime(() => {
    before = readdirSync(folder);
    return pcm("play", "/tmp/samples", ALSA.S16, 1, 16000, 1600, 4, 700);
  });
  // Two thirds less what was still in the buffer of 400 ms, and the pause.
  assert.ok(took >= 2 * 1024 - 400 + 700 - 50, `${took} ms`);
  let heard: string[] = [];
  for (const deadline = Date.now() + 10_000; heard.length === 0; await sleep(20)) {
    assert.ok(Date.now() < deadline, `nobody has heard: ${readdirSync(folder)}`);
    heard = readdirSync(folder).filter((name) => name.endsWith(".wav") && !before.includes(name));
  }
  assert.match(heard[0], /-S16-1-16000\.wav$/);
  const { bytes } = samples(join(folder, heard[0]));
  assert.ok(bytes.length <= 2 * third * 2, `${bytes.length} bytes`);
  assert.ok(bytes.length >= 2 * third * 2 - 5 * 3200, `${bytes.length} bytes`);
  assert.equal(sha256(bytes), sha256(data.subarray(0, bytes.length)));
  await guest.stop();
  await card.checkUnharmed();
});
