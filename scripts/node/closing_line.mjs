// A reporter for Node's test runner: at the end a line such as Deno's, for whoever counts. Files that could not be run are
// failures; what was cancelled, such as a test that has run out of time, has failed.
// deno-lint-ignore explicit-function-return-type -- types are for TypeScript.
export default async function* closingLine(events) {
  for await (const { type, data } of events) {
    // Each file has a summary of its own before.
    if (type !== "test:summary" || data.file !== undefined) continue;
    const { passed, failed, cancelled, skipped, todo } = data.counts;
    const outcome = data.success && passed > 0 ? "ok" : "FAILED";
    yield `\n${outcome} | ${passed} passed | ${failed + cancelled} failed | ${skipped + todo} ignored ` +
      `(${Math.round(data.duration_ms)}ms)\n`;
  }
}
