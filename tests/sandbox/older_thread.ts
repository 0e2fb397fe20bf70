/** A thread that is older than the sandbox. */

import { answering } from "../support/thread.ts";
import { attempt } from "./attempts.ts";

const answer = answering(async (message) => {
  const [what, argument] = message as [string, string];
  answer(await attempt(what, argument));
});
answer("up");
