import { fileURLToPath } from "node:url";

/** Where evidence goes, and which test it is of. */
export interface Destination {
  /** A folder. */
  readonly folder: string;
  /** Whether it is known to be there: this process may not even look. */
  readonly exists: boolean;
  /** The test's file, from `tests/`. */
  readonly test: string;
}

/** The variable that names the folder. */
const VARIABLE = "VHOST_EVIDENCE";

/** What a random test does, the next run may not do. What the tests of all this do is nobody's evidence. */
const NO_EVIDENCE = /\/fuzz\/[^/]*$|\/coverage_test\.ts$/;

const tests = fileURLToPath(new URL("../", import.meta.url));

/** What of a process is needed: only the environment asks for a permission. */
interface Process {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly argv: readonly string[];
}

/**
 * Where the evidence of this process goes: as the query of the preloaded module's address says, in a process that a test
 * has started (it may not read the environment); in a test, as the environment says.
 */
export function destination(url: string, { env, argv }: Process): Destination | undefined {
  const query = new URL(url).searchParams;
  const [folder, test] = [query.get("folder"), query.get("test")];
  if (folder !== null && test !== null) return { folder, exists: true, test };
  const path = argv[1] ?? "";
  // Only tests may have asked; a program without the permission would be asked for it.
  if (!/_test\.ts$/.test(path) || NO_EVIDENCE.test(path) || env[VARIABLE] === undefined) return undefined;
  return {
    folder: env[VARIABLE],
    exists: false,
    test: path.startsWith(tests) ? path.slice(tests.length) : path,
  };
}

/** What makes a process of ours, started by this test, write down what it proves. */
export function recording(process: Process): string[] {
  const to = destination(import.meta.url, process);
  if (to === undefined) return [];
  const recorder = new URL("./recorder.ts", import.meta.url);
  recorder.searchParams.set("folder", to.folder);
  recorder.searchParams.set("test", to.test);
  return [`--preload=${recorder}`];
}
