/** A thread that is older than the sandbox. */

import { attempt } from "./attempts.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<[string, string]>) => void;
  postMessage(text: string): void;
};
scope.onmessage = async ({ data }) => scope.postMessage(await attempt(...data));
scope.postMessage("up");
