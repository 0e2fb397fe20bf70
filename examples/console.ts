/**
 * A console that logs in by itself and runs a command:
 *
 *   deno run --allow-ffi examples/console.ts
 */

import { serve } from "@vhost/user";
import { ConsoleDevice, ScriptEnd } from "@vhost/user/devices/console";

const steps = [
  { after: "login: ", say: "root\n" },
  { after: "# ", say: "uname -a\n" },
  { after: "# ", say: "poweroff\n" },
];

let seen = "";
const end = new ScriptEnd(async (bytes) => {
  seen += new TextDecoder().decode(bytes);
  if (steps.length === 0 || !seen.endsWith(steps[0].after)) return;
  console.log(seen);
  seen = "";
  const step = steps.shift();
  if (step !== undefined) await end.send(step.say);
});

await serve(new ConsoleDevice({ ports: [{ end, console: true }] }), { socketPath: "/tmp/console.sock" });
