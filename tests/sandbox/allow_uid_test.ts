import assert from "node:assert/strict";
import { chmodSync, existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { close } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { userIdOf } from "../../ffi/users.ts";
import { defineDevice, serve } from "../../mod.ts";
import { RawPeer } from "../session/raw_peer.ts";
import { LogBook } from "../session/scene.ts";
import { onEnd, tempDir } from "../support/cleanup.ts";
import { startCommand } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { qemuIoArguments } from "../support/qemu_io.ts";

const LIMIT = { timeout: 30_000 };
const me = process.getuid?.() ?? -1;
const nothing = defineDevice({ type: 4, name: "rng", queues: [(chain) => chain.write(chain.read())] });

/** A socket's path that other users can reach. */
function openPlace(t: TestContext): string {
  const directory = tempDir(t);
  chmodSync(directory, 0o755);
  return join(directory, "socket");
}

test("a front-end of another user is turned away, with a word about who it was", LIMIT, async (t) => {
  const log = new LogBook();
  const socketPath = join(tempDir(t), "socket");
  const server = await serve(nothing, { socketPath, log: log.write, allowUids: [me + 1, me + 2] });
  onEnd(t, () => server.close());
  const peer = RawPeer.connect(socketPath);
  onEnd(t, () => peer.close());
  await peer.end();
  assert.deepEqual(log.lines, [
    `warning: rng: refused a front-end of user ${me} (process ${process.pid}); allowed: ${me + 1}, ${me + 2}`,
  ]);
  assert.equal(server.sessions, 0);
});

test("a front-end of an allowed user is served", LIMIT, async (t) => {
  const socketPath = join(tempDir(t), "socket");
  const server = await serve(nothing, { socketPath, allowUids: [me] });
  onEnd(t, () => server.close());
  const peer = RawPeer.connect(socketPath);
  onEnd(t, () => peer.close());
  assert.notEqual(await peer.number("GET_FEATURES"), 0n);
});

test("a connected descriptor is asked as well", LIMIT, async () => {
  const [ours, theirs] = socketPair();
  await assert.rejects(
    serve(nothing, { fd: ours, allowUids: [] }),
    new RegExp(`serve: refused a front-end of user ${me} \\(process ${process.pid}\\); allowed: nobody`),
  );
  close(theirs);
});

test("users are known by their names", () => {
  assert.equal(userIdOf("root"), 0);
  assert.equal(userIdOf("no-such-user"), undefined);
});

test("the command line says what it cannot understand, and whom it does not serve", LIMIT, async (t) => {
  const start = async (args: readonly string[], fds: readonly number[] = []): Promise<[number, string]> => {
    const child = startCommand(t, ["blk", "--storage=null:1M", ...args], { fds });
    return [await child.waitEnd(20_000), child.output];
  };
  const path = `--socket-path=${join(tempDir(t), "socket")}`;
  assert.deepEqual(await start([path, "--allow-uid=root,no-such-user"]), [
    2,
    "vhost-user blk: --allow-uid: there is no user 'no-such-user'\nTry 'vhost-user blk --help'.\n",
  ]);
  const [ours, theirs] = socketPair();
  const [status, output] = await start([`--allow-uid=${me + 1}`, "--fd=3"], [ours]);
  close(theirs);
  assert.equal(status, 1, output);
  assert.match(
    output,
    new RegExp(`refused a front-end of user ${me} \\(process \\d+\\); allowed: ${me + 1}$`, "m"),
  );
});

realTest(
  "qemu-io as another user: let in by name, or turned away",
  ["qemu-io", "libblkio"],
  LIMIT,
  async (t) => {
    assert.equal(me, 0, "only root can be somebody else");
    const nobody = userIdOf("nobody");
    const asNobody = (socket: string) =>
      run(
        "setpriv",
        [
          "--reuid=nobody",
          "--clear-groups",
          "--",
          peerPath("qemu-io"),
          ...qemuIoArguments(socket, ["write -P 7 0 64k", "read -P 7 0 64k"]),
        ],
        { check: false },
      );
    const serveTo = async (users: string, mode: string) => {
      const socket = openPlace(t);
      const child = startCommand(t, [
        "blk",
        "--storage=mem:1M",
        `--socket-path=${socket}`,
        `--socket-mode=${mode}`,
        `--allow-uid=${users}`,
      ]);
      await child.waitLine(/ on /, 20_000);
      assert.ok(existsSync(socket));
      return { socket, child };
    };
    const welcome = await serveTo("nobody", "666");
    const { code, stdout, stderr } = await asNobody(welcome.socket);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /read 65536\/65536 bytes/);

    const guarded = await serveTo("root", "666");
    assert.notEqual((await asNobody(guarded.socket)).code, 0);
    await guarded.child.waitLine(
      new RegExp(`^warning: blk: refused a front-end of user ${nobody} \\(process \\d+\\); allowed: 0$`),
    );

    // By default the file's mode says no before that.
    const shut = await serveTo("nobody", "600");
    const refused = await asNobody(shut.socket);
    assert.match(refused.stdout + refused.stderr, /Permission denied/);
    assert.doesNotMatch(shut.child.output, /refused/);
  },
);
