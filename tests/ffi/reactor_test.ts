import assert from "node:assert/strict";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { setImmediate } from "node:timers";
import { setTimeout as sleep } from "node:timers/promises";
import { EpollEvent } from "../../ffi/epoll.ts";
import { consume, eventfd, signal } from "../../ffi/eventfd.ts";
import { close } from "../../ffi/fd.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { type Looker, Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { onEnd } from "../support/cleanup.ts";

/** An eventfd that is watched until the test is over. */
function bell(t: TestContext, reactor: Reactor, ring: (fd: number) => void): number {
  const fd = eventfd();
  onEnd(t, () => {
    reactor.unwatch(fd);
    close(fd);
  });
  reactor.watch(fd, () => ring(fd));
  return fd;
}

/** Waits until something is so. */
async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (holds()) return;
    await sleep(1);
  }
  assert.fail(`never happened: ${what}`);
}

/** Looks as it is told to, and counts. */
class Counter implements Looker {
  looks = 0;
  idles = 0;
  readonly #onLook: (looks: number) => boolean;
  readonly #onIdle: () => boolean;
  constructor(onLook: (looks: number) => boolean, onIdle: () => boolean = () => false) {
    this.#onLook = onLook;
    this.#onIdle = onIdle;
  }
  look(): boolean {
    return this.#onLook(++this.looks);
  }
  idle(): boolean {
    this.idles++;
    return this.#onIdle();
  }
}

/** A reactor that runs, since it watches something that never rings. */
function running(t: TestContext): Reactor {
  const reactor = new Reactor();
  bell(t, reactor, () => assert.fail("nobody rang"));
  return reactor;
}

test("a watched descriptor calls back, each time it rings", { timeout: 5000 }, async (t) => {
  let rung = 0;
  const fd = bell(t, new Reactor(), (fd) => {
    assert.equal(consume(fd), "rung");
    rung++;
  });
  for (let i = 1; i <= 5; i++) {
    signal(fd);
    await until(`ring ${i}`, () => rung === i);
  }
  await sleep(20);
  assert.equal(rung, 5);
});

test("what rang before it was watched calls back too", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const fd = eventfd();
  signal(fd);
  let rung = 0;
  reactor.watch(fd, () => {
    consume(fd);
    rung++;
  });
  onEnd(t, () => {
    reactor.unwatch(fd);
    close(fd);
  });
  await until("the ring", () => rung === 1);
});

test("what is not taken calls back again", { timeout: 5000 }, async (t) => {
  let calls = 0;
  const fd = bell(t, new Reactor(), (fd) => {
    if (++calls === 3) consume(fd);
  });
  signal(fd);
  await until("three calls", () => calls === 3);
  await sleep(20);
  assert.equal(calls, 3);
});

test("100 that ring at once are all heard", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const heard = new Set<number>();
  const all = Array.from({ length: 100 }, () =>
    bell(t, reactor, (fd) => {
      consume(fd);
      heard.add(fd);
    }));
  for (const fd of all) signal(fd);
  await until("all of them", () => heard.size === 100);
});

test("what is paused does not call back until it is resumed", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  let rung = 0;
  const fd = bell(t, reactor, (fd) => {
    consume(fd);
    rung++;
  });
  reactor.pause(fd);
  reactor.pause(fd);
  signal(fd);
  await sleep(20);
  assert.equal(rung, 0);

  reactor.resume(fd);
  await until("the ring", () => rung === 1);
});

test("pausing and resuming what is not watched does nothing", { timeout: 5000 }, (t) => {
  const reactor = running(t);
  const fd = eventfd();
  onEnd(t, () => close(fd));
  reactor.pause(fd);
  reactor.resume(fd);
  reactor.unwatch(fd);
});

test("what is not watched any more does not call back", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  let rung = 0;
  const fd = bell(t, reactor, () => rung++);
  reactor.unwatch(fd);
  signal(fd);
  await sleep(20);
  assert.equal(rung, 0);
});

test("a callback may end another's watch, although that rang as well", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  const rung: number[] = [];
  const bells: number[] = [];
  for (let i = 0; i < 2; i++) {
    bells.push(bell(t, reactor, (fd) => {
      consume(fd);
      rung.push(fd);
      for (const other of bells) if (other !== fd) reactor.unwatch(other);
    }));
  }
  for (const fd of bells) signal(fd);
  await until("one ring", () => rung.length > 0);
  await sleep(20);
  assert.equal(rung.length, 1);
});

test("a callback that fails is told of, and the others go on", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const errors: unknown[] = [];
  reactor.onError = (error) => errors.push(error);
  const mistake = new Error("a mistake");
  let rung = 0;
  const bells = [0, 1, 2].map((i) =>
    bell(t, reactor, (fd) => {
      consume(fd);
      rung++;
      if (i === 1) throw mistake;
    })
  );
  for (let round = 1; round <= 2; round++) {
    for (const fd of bells) signal(fd);
    await until(`round ${round}`, () => rung === 3 * round);
  }
  assert.deepEqual(errors, [mistake, mistake]);
});

test("a descriptor may be watched for writing", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const fd = eventfd();
  let calls = 0;
  onEnd(t, () => close(fd));
  reactor.watch(fd, () => {
    calls++;
    reactor.unwatch(fd);
  }, EpollEvent.OUT);
  await until("room to write", () => calls === 1);
});

test("watching can start anew while the thread is about to end, at any moment of that", {
  timeout: 10_000,
}, async (t) => {
  const reactor = new Reactor();
  for (let ticks = 0; ticks < 40; ticks++) {
    let rung = 0;
    const fd = bell(t, reactor, (fd) => {
      consume(fd);
      rung++;
    });
    signal(fd);
    await until(`ring ${ticks}`, () => rung === 1);
    reactor.unwatch(fd);
    for (let i = 0; i < ticks; i++) await (i % 4 === 3 ? new Promise((done) => setImmediate(done)) : null);
  }
});

test("what cannot be watched says so, and is not watched", { timeout: 5000 }, (t) => {
  const reactor = new Reactor();
  const file = openFile("/etc/passwd", OpenFlag.READ_ONLY);
  onEnd(t, () => close(file));
  assert.throws(() => reactor.watch(file, () => {}), { name: "OsError", call: "epoll_ctl", code: "EPERM" });
  reactor.resume(file);

  const fd = bell(t, reactor, () => {});
  assert.throws(() => reactor.watch(fd, () => {}), { name: "OsError", code: "EEXIST" });
});

test("asleep, the process uses no processor", { timeout: 10_000 }, async (t) => {
  const reactor = running(t);
  reactor.wake(new Counter(() => false));
  await sleep(100);
  const loads: number[] = [];
  // The runtime may still be compiling or collecting garbage; what spins would spin all the time.
  for (let attempt = 0; attempt < 4; attempt++) {
    const start = performance.now();
    const before = process.cpuUsage();
    await sleep(500);
    const { user, system } = process.cpuUsage(before);
    loads.push((user + system) / 1000 / (performance.now() - start));
    if (loads[attempt] < 0.05) return;
  }
  assert.fail(`load: ${loads.map((load) => `${(100 * load).toFixed(1)} %`).join(", ")}`);
});

test("looking goes on as long as there is work, then asks to be told once", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  const counter = new Counter((looks) => looks <= 10_000);
  reactor.wake(counter);
  await until("all the work", () => counter.looks > 10_000);
  await sleep(20);
  assert.equal(counter.idles, 1);
  const { looks } = counter;
  await sleep(20);
  assert.equal(counter.looks, looks, "asleep");
});

test("what came in while asking to be told is looked at again", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  let came = 3;
  const counter = new Counter(() => false, () => came-- > 0);
  reactor.wake(counter);
  await until("the last question", () => counter.idles === 4);
  await sleep(20);
  assert.equal(counter.idles, 4);
  assert.ok(counter.looks >= 4);
});

test("waking twice is waking once", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  reactor.pollCeiling = 0;
  const counter = new Counter(() => false);
  reactor.wake(counter);
  reactor.wake(counter);
  await until("a look", () => counter.idles > 0);
  await sleep(20);
  assert.deepEqual([counter.looks, counter.idles], [1, 1]);
});

test("who rests is not looked at, nor asked", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  const resting = new Counter(() => true);
  const other = new Counter((looks) => looks < 100);
  reactor.wake(resting);
  reactor.wake(other);
  reactor.rest(resting);
  reactor.rest(resting);
  await until("the other", () => other.idles === 1);
  assert.deepEqual([resting.looks, resting.idles], [0, 0]);
});

test("endless work does not keep timers and descriptors waiting", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const worker = new Counter(() => true);
  let rung = 0;
  const fd = bell(t, reactor, (fd) => {
    consume(fd);
    rung++;
  });
  reactor.wake(worker);
  onEnd(t, () => reactor.rest(worker));
  for (let i = 1; i <= 5; i++) {
    signal(fd);
    const start = performance.now();
    await until(`ring ${i}`, () => rung === i);
    assert.ok(performance.now() - start < 1000);
  }
  assert.ok(worker.looks > 100);
});

/** Wakes a looker again and again, each time after it has fallen asleep, and tells how often it looked each time. */
async function looksPerSleep(reactor: Reactor, times: number, counter: Counter): Promise<number[]> {
  const looks: number[] = [];
  for (let i = 0; i < times; i++) {
    const before = counter.looks;
    reactor.wake(counter);
    await until("sleep", () => counter.idles === i + 1);
    looks.push(counter.looks - before);
  }
  return looks;
}

test("looking in vain is tried now and then, not each time", { timeout: 10_000 }, async (t) => {
  const reactor = running(t);
  const looks = await looksPerSleep(reactor, 100, new Counter(() => false));
  const once = looks.filter((each) => each === 1).length;
  assert.ok(once >= 50, `${once} times only one look: ${looks}`);
  assert.ok(Math.max(...looks) >= 16, `never more than ${Math.max(...looks)} looks`);
});

test("looking that pays is done each time", { timeout: 10_000 }, async (t) => {
  const reactor = running(t);
  reactor.pollCeiling = 5;
  // Each time it wakes there is work at once, and again after some hundred looks.
  let start = 0;
  const counter: Counter = new Counter((looks) => looks - start === 200, () => {
    start = counter.looks;
    return false;
  });
  const looks = await looksPerSleep(reactor, 40, counter);
  const paid = looks.filter((each) => each > 200).length;
  assert.ok(paid >= 30, `${paid} of 40 times it looked long enough: ${looks}`);
});

test("looking in vain ends, also when it may last longer than one turn", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  // So long that no pause of the whole machine passes for the end of it.
  reactor.pollCeiling = 150;
  const counter = new Counter(() => false);
  const looks = await looksPerSleep(reactor, 12, counter);
  assert.ok(Math.max(...looks) > 100, `${looks}`);
  await sleep(20);
  const before = counter.looks;
  await sleep(20);
  assert.equal(counter.looks, before, "asleep");
});

test("a ceiling of 0 turns looking off", { timeout: 5000 }, async (t) => {
  const reactor = running(t);
  reactor.pollCeiling = 0;
  const looks = await looksPerSleep(reactor, 40, new Counter(() => false));
  assert.deepEqual(looks, new Array(40).fill(1));
});

test("there is one reactor for the process", { timeout: 5000 }, () => {
  assert.equal(Reactor.shared(), Reactor.shared());
});

test("what is waited for can change, with a pause between or without", { timeout: 5000 }, async (t) => {
  const reactor = new Reactor();
  const [ours, theirs] = socketPair();
  let calls = 0;
  reactor.watch(ours, () => calls++, 0);
  onEnd(t, () => {
    reactor.unwatch(ours);
    close(ours);
  });
  await sleep(20);
  assert.equal(calls, 0, "nothing is waited for");
  reactor.change(ours, EpollEvent.OUT);
  await until("it takes something", () => calls > 0);
  reactor.pause(ours);
  await sleep(5);
  calls = 0;
  reactor.resume(ours, EpollEvent.IN);
  await sleep(20);
  assert.equal(calls, 0, "there is nothing to read");
  reactor.change(ours, 0);
  close(theirs);
  await until("the peer has left", () => calls > 0);
});
