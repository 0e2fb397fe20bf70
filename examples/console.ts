/**
 * A console that logs in by itself, runs a command and ends the guest: an installation without hands, a test.
 *
 *     deno run --allow-ffi examples/console.ts
 *
 * and the socket is `/tmp/console.sock`. What to wait for and what to say is the list `steps`; the guest has a `getty` on
 * `hvc0`. In QEMU 11 a console is `-device vhost-user-test-device-pci,virtio-id=3,num_vqs=4,vq_size=64,config_size=12`. For
 * people, there is `web_console.ts`.
 *
 * @module
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
