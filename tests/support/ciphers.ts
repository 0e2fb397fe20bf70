import { createCipheriv, createDecipheriv } from "node:crypto";
import { type Chain, defineDevice, type Device } from "../../mod.ts";
import type { CryptoSession } from "../../src/protocol/mod.ts";

/** CIPHER_CREATE_SESSION, the one operation whose sessions are kept here. */
const CREATE = 2n;
/** VIRTIO_CRYPTO_CIPHER_AES_CBC. */
const AES_CBC = 3;
/** What is done with data: the operation of a request and the direction of a session, less 1. */
const ENCRYPT = 0;
/** Bytes of a block of AES, and of what stands for the one before the first. */
const BLOCK = 16;
/** Bytes of a request before the initialisation vector. */
const REQUEST = 72;
/** VIRTIO_CRYPTO_OK, VIRTIO_CRYPTO_ERR and VIRTIO_CRYPTO_INVSESS. */
const [OK, ERROR, NO_SESSION] = [0, 1, 4];

interface Cipher {
  readonly key: Uint8Array;
  readonly operation: number;
}

/** AES-CBC. Deno's has no keys of 192 bits, so the chaining is done here. */
function cbc({ key, operation }: Cipher, iv: Uint8Array, source: Uint8Array): Uint8Array {
  const make = operation === ENCRYPT ? createCipheriv : createDecipheriv;
  const block = make(`aes-${8 * key.length}-ecb`, key, null);
  block.setAutoPadding(false);
  const target = new Uint8Array(source.length);
  const mix = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, i) => byte ^ b[i]);
  let before = iv;
  for (let at = 0; at < source.length; at += BLOCK) {
    const input = source.subarray(at, at + BLOCK);
    const output = operation === ENCRYPT
      ? block.update(mix(input, before))
      : mix(block.update(input), before);
    target.set(output, at);
    before = operation === ENCRYPT ? output : input;
  }
  return target;
}

/** A device that encrypts by AES-CBC with Node's crypto: virtio 1.4, section 5.9. Its sessions come by vhost-user. */
export class Ciphers {
  /** To be served. */
  readonly device: Device;
  /** Bytes of every key that a session was made with. */
  readonly keyLengths: number[] = [];
  /** Requests done well, by operation. */
  readonly done: [encrypted: number, decrypted: number] = [0, 0];
  readonly #sessions = new Map<bigint, Cipher>();
  readonly #wrong: boolean;
  #next = 0n;

  /** @param wrong whether a bit is wrong in all that it encrypts */
  constructor(wrong = false) {
    this.#wrong = wrong;
    this.device = defineDevice({
      type: 20,
      name: "ciphers",
      queues: [(chain) => this.#serve(chain)],
      crypto: { create: (session) => this.#create(session), close: (id) => this.#close(id) },
    });
  }

  /** Sessions that are open. */
  get open(): number {
    return this.#sessions.size;
  }

  #create({ opCode, session }: CryptoSession): bigint {
    if (opCode !== CREATE) throw new RangeError(`operation ${opCode}: only ${CREATE} is known`);
    const view = new DataView(session.buffer, session.byteOffset, session.byteLength);
    // QEMU's structure is the guest's, in the host's byte order: cipher, key length, ..., direction, ..., key.
    const [cipher, length, direction] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint8(25)];
    if (cipher !== AES_CBC) throw new RangeError(`cipher ${cipher}: only ${AES_CBC} is known`);
    if (![16, 24, 32].includes(length)) throw new RangeError(`key of ${length} bytes`);
    if (direction !== 1 && direction !== 2) throw new RangeError(`direction ${direction}`);
    const id = this.#next++;
    this.#sessions.set(id, { key: session.slice(48, 48 + length), operation: direction - 1 });
    this.keyLengths.push(length);
    return id;
  }

  #close(id: bigint): void {
    if (!this.#sessions.delete(id)) throw new RangeError(`no session ${id}`);
  }

  #serve(chain: Chain): void {
    // The last byte is for the status, wherever it lies. Linux's driver leaves more room before it than it says, of memory
    // that it has named already: none of that may be touched.
    const last = chain.writable.byteLength - 1;
    const status = this.#do(chain, last);
    chain.writable.copyFrom(Uint8Array.of(status), last);
    chain.written = last + 1;
  }

  /** Does a request with so much room. Returns its status. */
  #do(chain: Chain, room: number): number {
    const request = chain.read(REQUEST);
    if (request.length < REQUEST) return ERROR;
    const view = new DataView(request.buffer);
    const operation = view.getUint32(0, true);
    const cipher = this.#sessions.get(view.getBigUint64(8, true));
    if (cipher === undefined || cipher.operation !== operation) return NO_SESSION;
    const [ivLength, sourceLength, targetLength] = [24, 28, 32].map((at) => view.getUint32(at, true));
    if (ivLength !== BLOCK || sourceLength % BLOCK !== 0 || targetLength !== sourceLength) return ERROR;
    const iv = chain.read(ivLength);
    const source = chain.read(sourceLength);
    if (iv.length !== ivLength || source.length !== sourceLength || room < targetLength) return ERROR;
    const output = cbc(cipher, iv, source);
    if (this.#wrong && operation === ENCRYPT) output[0] ^= 1;
    chain.writable.copyFrom(output, 0);
    this.done[operation]++;
    return OK;
  }
}
