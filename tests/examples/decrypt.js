// Decrypts a disk of examples/encrypted_disk.ts as its documentation says, with none of its code. By Node it is OpenSSL that does it:
//   node decrypt.js FILE PASSPHRASE > IMAGE

import { Buffer } from "node:buffer";
import { createDecipheriv, pbkdf2Sync } from "node:crypto";
import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

/**
 * @param {Uint8Array} key
 * @param {Uint8Array} nonce
 * @param {Uint8Array} tag
 * @param {Uint8Array} authenticated
 * @param {Uint8Array} sealed
 */
function open(key, nonce, tag, authenticated, sealed) {
  const cipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  cipher.setAAD(authenticated);
  cipher.setAuthTag(tag);
  return Buffer.concat([cipher.update(sealed), cipher.final()]);
}

/**
 * The key of a disk.
 *
 * @param {Uint8Array} bytes
 * @param {string} passphrase
 * @returns {Uint8Array}
 */
export function keyOf(bytes, passphrase) {
  const file = Buffer.from(bytes);
  const key = pbkdf2Sync(passphrase, file.subarray(64, 96), file.readUInt32LE(32), 32, "sha256");
  return open(
    key,
    file.subarray(96, 108),
    file.subarray(140, 156),
    file.subarray(0, 96),
    file.subarray(108, 140),
  );
}

/**
 * The content of a disk.
 *
 * @param {Uint8Array} bytes
 * @param {Uint8Array} key
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function decrypt(bytes, key) {
  const file = Buffer.from(bytes);
  const plain = Buffer.alloc(Number(file.readBigUInt64LE(40)));
  for (let index = 0; index * 3584 < plain.length; index++) {
    const block = file.subarray(4096 * (1 + index), 4096 * (2 + index));
    const authenticated = Buffer.alloc(24);
    file.copy(authenticated, 0, 48, 64);
    authenticated.writeBigUInt64LE(BigInt(index), 16);
    open(key, block.subarray(0, 12), block.subarray(12, 28), authenticated, block.subarray(512))
      .copy(plain, index * 3584);
  }
  return new Uint8Array(plain);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = readFileSync(process.argv[2]);
  process.stdout.write(decrypt(file, keyOf(file, process.argv[3])));
}
