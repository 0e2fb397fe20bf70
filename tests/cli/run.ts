import { main } from "../../src/cli/mod.ts";

/** How a command ended that ends by itself, and what it wrote. */
export interface Ended {
  /** The exit code. */
  readonly code: number;
  /** The standard output. */
  readonly out: string;
  /** The standard error. */
  readonly error: string;
}

/** Runs a command line that ends by itself, in this process. */
export async function runHere(...args: string[]): Promise<Ended> {
  const [out, error]: [string[], string[]] = [[], []];
  const code = await main(args, { out: (line) => out.push(line), error: (line) => error.push(line) });
  return { code, out: out.join("\n"), error: error.join("\n") };
}
