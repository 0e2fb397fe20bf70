import assert from "node:assert/strict";
import { test } from "node:test";
import { metrics as api } from "@opentelemetry/api";
import { metrics, observe } from "../../src/metrics/mod.ts";
import { LIMIT, Scene } from "../session/scene.ts";

test("observing ends", LIMIT, async (t) => {
  const scene = await Scene.disk(t);
  const callbacks = new Set<unknown>();
  const instrument = {
    addCallback: (callback: unknown) => void callbacks.add(callback),
    removeCallback: (callback: unknown) => void callbacks.delete(callback),
  };
  const end = observe(scene.server, {
    createObservableCounter: () => instrument,
    createObservableGauge: () => instrument,
    createHistogram: () => ({ record: () => {} }),
  });
  assert.equal(callbacks.size, metrics.length);
  assert.equal(scene.server.metrics.measuring, true);
  end();
  assert.equal(callbacks.size, 0);
  // A meter of the real interface will do as well; without OTEL_DENO it does nothing.
  observe(scene.server, api.getMeter("test"))();
});
