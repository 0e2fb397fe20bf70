import assert from "node:assert/strict";
import { request } from "node:http";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { main } from "../../src/cli/mod.ts";
import { tempDir } from "../support/cleanup.ts";
import { type OurBackend, root, startBackend } from "../support/our_backend.ts";
import { peerPath, realTest } from "../support/peers.ts";
import { run } from "../support/process.ts";
import { blkioDisk } from "../support/qemu_io.ts";
import { BlkDriver } from "../../src/tools/blk_driver.ts";
import { type Family, figure, parseExposition } from "./exposition.ts";

const LIMIT = { timeout: 60_000 };

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

/** Asks for a page, of `http://…` or `unix:PATH`. */
function get(url: string, path = "/metrics", method = "GET"): Promise<Answer> {
  const where = url.startsWith("unix:") ? { socketPath: url.slice(5) } : {
    host: new URL(url).hostname.replace(/^\[|\]$/g, ""),
    port: new URL(url).port,
  };
  return new Promise((resolve, reject) => {
    request({ ...where, path, method, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (more) => text += more);
      response.once("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          type: response.headers["content-type"] ?? "",
          text,
        }));
    }).once("error", reject).end();
  });
}

interface Disk {
  readonly backend: OurBackend;
  readonly url: string;
  scrape(): Promise<Map<string, Family>>;
}

/** A disk that serves metrics. */
async function disk(
  t: TestContext,
  where: string,
  permissions: readonly string[],
  ...args: string[]
): Promise<Disk> {
  const backend = await startBackend(t, "blk", [
    "--storage=null:1M",
    "--shared",
    `--metrics-listen=${where}`,
    ...args,
  ], { permissions });
  const line = await backend.child.waitLine(/^metrics on /);
  const url = line.replace("metrics on ", "");
  const scrape = async (): Promise<Map<string, Family>> => {
    const { status, type, text } = await get(url);
    assert.deepEqual([status, type], [200, "text/plain; version=0.0.4; charset=utf-8"]);
    return parseExposition(text);
  };
  return { backend, url, scrape };
}

for (
  const [how, args, permissions] of [
    ["in the server's thread", [], []],
    ["in two workers", ["--workers=2"], [`--allow-read=${root}`]],
  ] as const
) {
  realTest(
    `requests that libblkio sends are those that are counted, ${how}`,
    ["qemu-img", "libblkio"],
    {},
    async (t) => {
      const { backend, scrape } = await disk(t, "0", ["--allow-net=127.0.0.1", ...permissions], ...args);
      const bench = async (count: number, ...more: string[]): Promise<Map<string, Family>> => {
        const image = ["--image-opts", blkioDisk(backend.socket)];
        await run(peerPath("qemu-img"), ["bench", `-c${count}`, "-d16", "-s4k", "-tnone", ...more, ...image]);
        return await scrape();
      };
      const of = { ring: "0", device: "blk", socket: backend.socket };
      const total = (families: Map<string, Family>, name: string) =>
        figure(families, `vhost_user_${name}`, of);
      const first = await bench(100);
      // Whatever else it sends, it sends with each run.
      const reads = await bench(5100);
      const rest = total(first, "requests_total") - 100;
      assert.ok(rest >= 0 && rest < 10, `${rest} requests besides`);
      assert.equal(total(reads, "requests_total"), 5200 + 2 * rest);
      assert.equal(total(reads, "requests_returned_total"), 5200 + 2 * rest);
      assert.equal(total(reads, "requests_in_flight"), 0);
      assert.equal(
        total(reads, "written_bytes_total") - total(first, "written_bytes_total"),
        5100 * 4097 + rest,
      );
      const writes = await bench(3000, "-w");
      const sent = total(writes, "requests_total") - total(reads, "requests_total");
      const bytes = total(writes, "read_bytes_total") - total(reads, "read_bytes_total");
      assert.equal(bytes, 3000 * 4096 + sent * 16);
      assert.ok(sent >= 3000 && sent < 3010, `${sent} requests for 3000 writes`);
      const timed = figure(writes, "vhost_user_request_duration_seconds_count", of);
      assert.ok(timed > 0 && timed <= total(writes, "requests_total"), `${timed} were timed`);
      assert.equal(figure(writes, "vhost_user_sessions_total", { device: "blk" }), 3);
      assert.equal(figure(writes, "vhost_user_sessions_failed_total", { device: "blk" }), 0);
    },
  );
}

test("metrics are at one path of a Unix socket or a port of this machine", LIMIT, async (t) => {
  const path = join(tempDir(t), "metrics.sock");
  const { url } = await disk(t, `unix:${path}`, [
    `--allow-net=unix:${path}`,
    `--allow-read=${path}`,
    `--allow-write=${path}`,
  ]);
  assert.equal(url, `unix:${path}`);
  assert.equal((await get(url)).status, 200);
  assert.equal((await get(url, "/metrics?name=x")).status, 200);
  assert.equal((await get(url, "/")).status, 404);
  assert.equal((await get(url, "/metrics", "POST")).status, 405);
  const local = await disk(t, "0", ["--allow-net=127.0.0.1"]);
  assert.match(local.url, /^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
  assert.equal((await get(local.url, "/metrics", "HEAD")).text, "");
  assert.equal((await get(local.url)).status, 200);
});

for (
  const [args, complaint] of [
    [["--metrics-listen=here"], /--metrics-listen must be \[ADDRESS:\]PORT .* got "here"/],
    [["--metrics-listen=unix:"], /--metrics-listen must be/],
    [["--metrics-listen=example.com:80"], /with an IP address/],
    [["--metrics-listen=99999"], /--metrics-listen must be/],
    [["--log-level=loud"], /--log-level must be debug, info, warning or error, got 'loud'/],
    [["--log-format=xml"], /--log-format must be text or json, got 'xml'/],
    [["--log-level=debug", "--verbose"], /give either --log-level or --verbose/],
  ] as const
) {
  test(`${args.join(" ")} is refused`, LIMIT, async (t) => {
    const said: string[] = [];
    const output = { out: () => {}, error: (line: string) => void said.push(line) };
    const path = join(tempDir(t), "s");
    assert.equal(await main(["blk", "--storage=null:1M", `--socket-path=${path}`, ...args], output), 2);
    assert.match(said.join("\n"), complaint);
  });
}

/** What a disk writes to the standard error, line by line, while a driver comes, breaks a ring and goes. */
async function logOf(t: TestContext, ...args: string[]): Promise<string[]> {
  const backend = await startBackend(t, "blk", ["--storage=null:1M", "--sandbox=off", ...args]);
  const driver = await BlkDriver.connect(backend.socket, { depth: 4, maxTransfer: 4096 });
  await driver.read(0, 512);
  await driver.close();
  await backend.child.waitLine(/left|session\.ended/);
  return backend.child.output.split("\n").filter((line) => line !== "" && !/^vhost-user blk: /.test(line));
}

test("--log-level=info says who comes and goes, in text or in JSON", LIMIT, async (t) => {
  assert.deepEqual(await logOf(t, "--log-level=info"), [
    "info: blk: a front-end has connected",
    "info: blk: the front-end has left",
  ]);
  const records = (await logOf(t, "--verbose", "--log-format=json")).map((line) => JSON.parse(line));
  assert.deepEqual(records.map(({ time: _, ...rest }) => rest), [
    {
      level: "info",
      event: "session.connected",
      text: "blk: a front-end has connected",
      device: "blk",
      session: 1,
    },
    { level: "info", event: "session.ended", text: "blk: the front-end has left", device: "blk", session: 1 },
  ]);
  for (const { time } of records) assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, time);
});

test("--trace in JSON is a record a message", LIMIT, async (t) => {
  const lines = await logOf(t, "--trace", "--log-level=info", "--log-format=json");
  const records = lines.map((line) => JSON.parse(line));
  const messages = records.filter(({ event }) => event === "message");
  assert.ok(messages.length > 10);
  for (const { level, session, text } of messages) {
    assert.deepEqual([level, session], ["debug", 1]);
    assert.match(text, /^[→←] /);
  }
});
