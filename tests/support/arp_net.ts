import { type Chain, defineDevice, type Device, type OwnedQueue } from "../../mod.ts";

const VIRTIO_NET_F_MTU = 1n << 3n;
const HEADER = 12;
const ETHERNET = 14;
const ARP = 28;

/**
 * A network in which one machine answers ARP, by an address whose last byte counts its answers since power-on: the guest
 * sees whether the device's state has moved with it.
 */
export class ArpNet {
  /** To be served. */
  readonly device: Device;
  /** Addresses that it was to announce (SEND_RARP), as text. */
  readonly announced: string[] = [];
  /** States that it has loaded. */
  loads = 0;
  /** What the guest's MTU was said to be. */
  mtu = 0;
  #answers = 0;
  #toGuest: OwnedQueue | undefined;

  /** A network. */
  constructor() {
    this.device = defineDevice({
      type: 1,
      name: "ARP net",
      features: VIRTIO_NET_F_MTU,
      queues: [
        { start: (queue) => this.#toGuest = queue, stop: () => this.#toGuest = undefined },
        (chain) => this.#fromGuest(chain),
      ],
      reset: () => this.#answers = 0,
      state: {
        save: () => Uint8Array.of(this.#answers),
        load: ([answers]) => {
          this.loads++;
          this.#answers = answers;
        },
      },
      announce: (mac) =>
        this.announced.push(Array.from(mac, (b) => b.toString(16).padStart(2, "0")).join(":")),
      setMtu: (mtu) => this.mtu = mtu,
    });
  }

  #fromGuest(chain: Chain): void {
    const frame = chain.read();
    const arp = frame.subarray(HEADER + ETHERNET, HEADER + ETHERNET + ARP);
    const isRequest = frame[HEADER + 12] === 0x08 && frame[HEADER + 13] === 0x06 && arp[7] === 1;
    if (!isRequest) return;
    const room = this.#toGuest?.take();
    if (!room) return;
    const guest = arp.slice(8, 18);
    const wanted = arp.slice(24, 28);
    const here = Uint8Array.of(2, 0, 0, 0, 0, ++this.#answers);
    const header = new Uint8Array(HEADER);
    header[10] = 1; // One buffer.
    room.write(Uint8Array.of(
      ...header,
      ...[...guest.subarray(0, 6), ...here, 0x08, 0x06],
      ...[0, 1, 8, 0, 6, 4, 0, 2, ...here, ...wanted, ...guest],
    ));
    this.#toGuest?.complete(room);
  }
}
