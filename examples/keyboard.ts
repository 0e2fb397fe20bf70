/**
 * A keyboard that types by itself, a greeting every five seconds: a demonstration, an installer without hands, a test.
 *
 *     deno run --allow-ffi examples/keyboard.ts
 *
 * and the socket is `/tmp/keyboard.sock`, for `-device vhost-user-input-pci`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { Keyboard } from "@vhost/user/devices/input";

const keyboard = new Keyboard({ name: "typist" });
await serve(keyboard, { socketPath: "/tmp/keyboard.sock" });

setInterval(() => void keyboard.type("hello\n"), 5000);
