/**
 * A keyboard that types by itself: a demonstration, an installer without hands, a test.
 *
 *   deno run --allow-ffi examples/keyboard.ts
 */

import { serve } from "@vhost/user";
import { Keyboard } from "@vhost/user/devices/input";

const keyboard = new Keyboard({ name: "typist" });
await serve(keyboard, { socketPath: "/tmp/keyboard.sock" });

setInterval(() => void keyboard.type("hello\n"), 5000);
