import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Abs,
  EventType,
  Key,
  Keyboard,
  Mouse,
  Rel,
  Tablet,
  TouchScreen,
} from "../../src/devices/input/mod.ts";
import type { InputDevice } from "../../src/devices/input/mod.ts";
import type { Scope } from "../support/cleanup.ts";
import type { Guest } from "../support/guest.ts";
import { InProcess } from "../support/in_process.ts";
import { realTest } from "../support/peers.ts";
import { restoreGuest } from "../support/snapshot.ts";

type Triple = [type: number, code: number, value: number];
const SYN: Triple = [0, 0, 0];

/** Plugs a device in; returns the guest's file for it. */
async function plug(scope: Scope, guest: Guest, device: InputDevice, slot = 0): Promise<[InProcess, string]> {
  const served = await InProcess.serve(scope, device);
  await guest.plug("vhost-user-input-pci", served.socket, { id: `vu${slot}`, slot });
  const name = device.profile.name;
  await guest.waitFor(`grep -q '"${name}"' /proc/bus/input/devices`);
  const handlers = await guest.run(
    `grep -A 5 '"${name}"' /proc/bus/input/devices | sed -n 's/.*Handlers=.*\\(event[0-9]*\\).*/\\1/p'`,
  );
  await guest.waitFor(`[ -c /dev/input/${handlers} ]`);
  return [served, `/dev/input/${handlers}`];
}

/** What the guest's kernel has of a device. */
function about(guest: Guest, device: InputDevice): Promise<string> {
  return guest.run(`grep -B 1 -A 12 '"${device.profile.name}"' /proc/bus/input/devices`);
}

let readings = 0;

/** Reads a number of events in the guest, while something happens here. */
async function read(guest: Guest, file: string, count: number, happen: () => unknown): Promise<Triple[]> {
  // The reader says on the kernel's console that it has the file open: what came before is not for it.
  const mark = `opened ${++readings} times`;
  const reading = guest.run(
    `exec 3<${file}; echo ${mark} >/dev/ttyS0; dd bs=24 count=${count} iflag=fullblock <&3 2>/dev/null | xxd -p -c 24`,
  );
  reading.catch(() => {});
  for (const deadline = Date.now() + 10_000; !guest.console.includes(mark); await sleep(5)) {
    assert.ok(Date.now() < deadline, `the guest opens ${file}`);
  }
  await happen();
  const text = await reading;
  return text.split("\n").map((line) => {
    const view = new DataView(Uint8Array.from(line.match(/../g) ?? [], (hex) => parseInt(hex, 16)).buffer);
    return [view.getUint16(16, true), view.getUint16(18, true), view.getInt32(20, true)];
  });
}

realTest("a guest has a keyboard, and lights it", ["qemu", "guest"], {}, async (t) => {
  const seen: Triple[] = [];
  const keyboard = new Keyboard({ onStatus: (...event) => seen.push(event) });
  const guest = await restoreGuest(t);
  const [served, file] = await plug(t, guest, keyboard);
  const facts = await about(guest, keyboard);
  assert.match(facts, /EV=120003/, "SYN, KEY, LED and REP");
  assert.match(facts, /LED=7/);
  const typed = await read(guest, file, 12, () => keyboard.type("Hi"));
  const { LEFTSHIFT, H, I } = Key;
  const expected = ([[LEFTSHIFT, 1], [H, 1], [H, 0], [LEFTSHIFT, 0], [I, 1], [I, 0]] as const).flatMap((
    [code, value],
  ): Triple[] => [[EventType.KEY, code, value], SYN]);
  assert.deepEqual(typed, expected);

  // What is held is repeated by the guest itself.
  const held = await read(guest, file, 6, () => keyboard.press("X"));
  assert.deepEqual(held.slice(0, 2), [[1, Key.X, 1], SYN]);
  assert.ok(held.slice(2).some(([type, , value]) => type === 1 && value === 2), `repeated: ${held}`);
  keyboard.release("X");

  // What happens while the guest stands still arrives when it goes on, once.
  const after = await read(guest, file, 4, async () => {
    await guest.qmp("stop");
    keyboard.tap("Z");
    await guest.qmp("cont");
  });
  assert.deepEqual(after, [[1, Key.Z, 1], SYN, [1, Key.Z, 0], SYN]);

  // An event as the guest's programs write it: a time of 16 bytes, type 0x11, code 1, value.
  const light = (value: number) =>
    guest.run(
      `{ head -c 16 /dev/zero; printf '\\021\\0\\001\\0\\00${value}\\0\\0\\0'; } >/tmp/light; dd if=/tmp/light of=${file} bs=24 2>/dev/null`,
    );
  await light(1);
  await served.until("caps lock is lit", () => keyboard.isLit("CAPS_LOCK"));
  await light(0);
  await served.until("caps lock is dark", () => !keyboard.isLit("CAPS_LOCK"));
  assert.deepEqual(seen.filter(([type]) => type === EventType.LED).slice(-2), [[17, 1, 1], [17, 1, 0]]);

  // It loses groups when there are too many, but no key stays pressed for ever, and none is forgotten.
  await guest.qmp("stop");
  keyboard.press("LEFTCTRL", "F");
  for (let i = 0; i < 2000; i++) keyboard.tap("KPDOT");
  keyboard.release("F");
  await guest.qmp("cont");
  await keyboard.drained();
  assert.equal(await guest.run("echo well"), "well");
  keyboard.release("LEFTCTRL");
  await guest.unplug();
  await guest.stop();
  await served.checkUnharmed();
});

realTest("a guest has a mouse, a tablet and a touch screen", ["qemu", "guest"], {}, async (t) => {
  const guest = await restoreGuest(t);
  const [mouse, tablet, screen] = [new Mouse(), new Tablet(), new TouchScreen({ slots: 5 })];
  const all = [
    await plug(t, guest, mouse, 0),
    await plug(t, guest, tablet, 1),
    await plug(t, guest, screen, 2),
  ];
  const [[, mouseFile], [, tabletFile], [, screenFile]] = all;
  assert.deepEqual(
    await read(guest, mouseFile, 7, () => {
      mouse.move(5, -7);
      mouse.scroll(-1);
      mouse.press();
    }),
    [[2, Rel.X, 5], [2, Rel.Y, -7], SYN, [2, Rel.WHEEL, -1], SYN, [1, Key.BTN_LEFT, 1], SYN],
  );
  assert.deepEqual(
    await read(guest, tabletFile, 3, () => tablet.moveTo(100, 32767)),
    [[3, Abs.X, 100], [3, Abs.Y, 32767], SYN],
  );
  assert.match(await about(guest, screen), /PROP=2/);
  const touched = await read(guest, screenFile, 15, () => {
    screen.touch(0, 10, 20);
    screen.touch(3, 30, 40);
    screen.lift(0);
  });
  const { MT_SLOT, MT_TRACKING_ID, MT_POSITION_X, MT_POSITION_Y, X, Y } = Abs;
  // The guest's kernel leaves out what it knows: that the first finger has slot 0.
  assert.deepEqual(touched, [
    [3, MT_TRACKING_ID, 0],
    [3, MT_POSITION_X, 10],
    [3, MT_POSITION_Y, 20],
    [1, Key.BTN_TOUCH, 1],
    [3, X, 10],
    [3, Y, 20],
    SYN,
    [3, MT_SLOT, 3],
    [3, MT_TRACKING_ID, 1],
    [3, MT_POSITION_X, 30],
    [3, MT_POSITION_Y, 40],
    SYN,
    [3, MT_SLOT, 0],
    [3, MT_TRACKING_ID, -1],
    SYN,
  ]);
  await guest.stop();
  for (const [served] of all) await served.checkUnharmed();
});
