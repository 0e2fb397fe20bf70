/**
 * A switch for guests, with a rule: nobody sends mail. Frames pass a function on their way from one guest to another.
 *
 *     deno run --allow-ffi examples/net_firewall.ts
 */

import { serve } from "@vhost/user";
import { type Frame, NetDevice, type Network, SwitchNetwork } from "@vhost/user/devices/net";

const SMTP = 25;

/** Whether a frame is TCP over IPv4 to a port. */
function isTcpTo(port: number, frame: Frame): boolean {
  if (frame.byteLength < 34 || frame.getUint16(12) !== 0x0800 || frame.getUint8(23) !== 6) return false;
  const tcp = 14 + (frame.getUint8(14) & 15) * 4;
  return frame.byteLength >= tcp + 4 && frame.getUint16(tcp + 2) === port;
}

const lan = new SwitchNetwork();
const network: Network = {
  offloads: lan.offloads,
  attach: (guest) => {
    const port = lan.attach(guest);
    return {
      send: (frame, pair) => isTcpTo(SMTP, frame) || port.send(frame, pair),
      detach: () => port.detach?.(),
    };
  },
};

await serve(new NetDevice({ network }), { socketPath: "/tmp/net.sock" });
