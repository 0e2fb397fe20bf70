/**
 * A service for a guest, and a connection to one in the guest.
 *
 *     deno run --allow-ffi examples/vsock.ts
 *
 * and the socket is `/tmp/vsock.sock`, for `-device vhost-user-vsock-pci`. In the guest, `socat - VSOCK-CONNECT:2:1234` is
 * answered in capitals; port 1235 answers with what port 5000 of the guest says.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { VsockDevice } from "@vhost/user/devices/vsock";

const device = new VsockDevice({
  guestCid: 3,
  listen: {
    // Port 1234 of the host: sends back in capitals what comes.
    1234: ({ readable, writable }) =>
      readable
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(
          new TransformStream<string, string>({
            transform: (text, out) => out.enqueue(text.toUpperCase()),
          }),
        )
        .pipeThrough(new TextEncoderStream())
        .pipeTo(writable),
    // Port 1235: asks port 5000 of the guest for its name, and answers with that.
    1235: async ({ writable }) => {
      const { readable } = await device.dial(5000);
      await readable.pipeTo(writable);
    },
  },
});

await serve(device, { socketPath: "/tmp/vsock.sock" });
