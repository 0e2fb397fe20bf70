/**
 * A network of one web page: every guest that connects finds `hello.test` and nothing else.
 *
 *     deno run --allow-ffi examples/net.ts
 *
 * and the socket is `/tmp/net.sock`. The guest gets its address by DHCP; `wget -O - http://hello.test/` is answered by the
 * function below, without a socket of this machine. For a network that leads elsewhere, see `net_firewall.ts`.
 *
 * @module
 */

import { serve } from "@vhost/user";
import { NetDevice, UserNetwork } from "@vhost/user/devices/net";

const page = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nHello, guest.\n";

const network = new UserNetwork({
  names: (name) => name === "hello.test",
  onConnection: async ({ host, port, accept }) => {
    if (host !== "hello.test" || port !== 80) return; // Refused.
    const { readable, writable } = accept();
    await readable.getReader().read(); // The request, whatever it is.
    const writer = writable.getWriter();
    await writer.write(new TextEncoder().encode(page));
    await writer.close();
  },
});

await serve(new NetDevice({ network }), { socketPath: "/tmp/net.sock" });
