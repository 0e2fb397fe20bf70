import assert from "node:assert/strict";
import { test } from "node:test";
import { close, isOpen } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { mask, protocolFeatures } from "../../src/protocol/mod.ts";
import { eventually, LIMIT, Scene } from "../session/scene.ts";
import { echoDevice } from "./echo.ts";

test("SEND_RARP hands the device the MAC address, in the order of memory", LIMIT, async (t) => {
  const macs: string[] = [];
  const device = echoDevice({
    announce: (mac) => void macs.push([...mac].map((b) => b.toString(16)).join(":")),
  });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.RARP) });
  const captured = new DataView(Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0).buffer).getBigUint64(
    0,
    true,
  );
  await frontEnd.request("SEND_RARP", captured);
  assert.deepEqual(macs, ["52:54:0:12:34:56"]);
});

test("NET_SET_MTU is accepted or refused by the device, within bounds", LIMIT, async (t) => {
  const mtus: number[] = [];
  const device = echoDevice({
    setMtu: (mtu) => {
      if (mtu > 9000) throw new RangeError("too large for this network");
      mtus.push(mtu);
    },
  });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.MTU) });
  await frontEnd.request("NET_SET_MTU", 1500n);
  await assert.rejects(frontEnd.request("NET_SET_MTU", 9001n), /failure/);
  await scene.log.problem(/too large/);
  await assert.rejects(frontEnd.request("NET_SET_MTU", 67n), /failure/);
  await scene.log.problem(/MTU must be 68 to 65535/);
  assert.deepEqual(mtus, [1500]);
});

test("crypto sessions are created with an id, refused with a negative one, and closed", LIMIT, async (t) => {
  const closed: bigint[] = [];
  const device = echoDevice({
    crypto: {
      create: (session) => {
        if (session.opCode !== 3n) throw new Error("unknown algorithm");
        return 42n;
      },
      close: (id) => {
        if (id !== 42n) throw new Error(`no session ${id}`);
        closed.push(id);
      },
    },
  });
  const scene = await Scene.open(t, device);
  const frontEnd = await scene.frontEnd({ protocolFeatures: mask(protocolFeatures.CRYPTO_SESSION) });
  const session = { opCode: 3n, session: new Uint8Array(1056).fill(7), sessionId: 0n };
  const { value } = await frontEnd.request("CREATE_CRYPTO_SESSION", session);
  assert.deepEqual(value, { ...session, sessionId: 42n });
  const refused = await frontEnd.request("CREATE_CRYPTO_SESSION", { ...session, opCode: 4n });
  assert.equal(refused.value.sessionId, -1n);
  await scene.log.problem(/unknown algorithm/);
  await frontEnd.request("CLOSE_CRYPTO_SESSION", 42n);
  assert.deepEqual(closed, [42n]);
});

test("GPU_SET_SOCKET hands the device a socket of its own; other devices refuse it", LIMIT, async (t) => {
  const sockets: number[] = [];
  const scene = await Scene.open(t, echoDevice({ setGpuSocket: (fd) => void sockets.push(fd) }));
  const frontEnd = await scene.frontEnd();
  const [ours, theirs] = socketPair();
  await frontEnd.request("GPU_SET_SOCKET", undefined, [theirs]);
  close(theirs);
  await eventually("the socket", () => sockets.length === 1);
  assert.ok(isOpen(sockets[0]));
  close(sockets[0]);

  const other = await Scene.open(t, echoDevice());
  await assert.rejects((await other.frontEnd()).request("GPU_SET_SOCKET", undefined, [ours]), /failure/);
  await other.log.problem(/display/);
  close(ours);
});
