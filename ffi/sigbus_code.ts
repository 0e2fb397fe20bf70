/**
 * The signal handler of `sigbus.ts` in machine code: the one thing that cannot be said in JavaScript, because the thread that
 * gets the signal is in the middle of JavaScript and may not run any before it has returned.
 *
 * `handler(signal, info, context)`, with what `sigbus.ts` says of its table:
 *
 * ```text
 * if info.si_code > 0:                     // by the kernel, for an access of this thread
 *   for each of table.count entries:       // an entry may change meanwhile: its end is read before and after its start
 *     if entry.start <= info.si_addr < entry.end:
 *       if mmap(start, end - start, READ|WRITE, PRIVATE|ANONYMOUS|FIXED|NORESERVE) worked:
 *         entry.hit = 1
 *         write(table.event, &table.one, 8)
 *         return                           // the access is made again, and finds a zero
 *       break
 * if table.old is a function: go on there
 * sigaction(SIGBUS, default)               // and the access is made again, which ends the process
 * return
 * ```
 *
 * It calls the kernel only, neither a library nor anything of this process, and uses none of its memory but the table. Both
 * were assembled with GNU as; the tests run the one of the machine that they are on. At the end is a place to fill in.
 *
 * @module
 */

import { arch } from "./deno.ts";

/** Bytes at the end: address of the table, and a `struct sigaction` of the kernel that is zero. */
export const LITERALS = 8 + 32;

const X86_64 = `
  8b4608               mov eax, [rsi+8]             ; si_code
  85c0                 test eax, eax
  0f8e8d000000         jle chain
  488b4610             mov rax, [rsi+16]            ; si_addr
  4c8b05b2000000       mov r8, [rip+table]
  418b08               mov ecx, [r8]                ; count
  4d8d4820             lea r9, [r8+32]              ; first entry
look:
  85c9                 test ecx, ecx
  7477                 jz chain
again:
  4d8b5108             mov r10, [r9+8]              ; end
  4d8b19               mov r11, [r9]                ; start
  4d3b5108             cmp r10, [r9+8]
  75f3                 jne again
  4c39d8               cmp rax, r11
  7205                 jb next
  4c39d0               cmp rax, r10
  7208                 jb found
next:
  4983c120             add r9, 32
  ffc9                 dec ecx
  ebdd                 jmp look
found:
  57                   push rdi
  56                   push rsi
  52                   push rdx
  4151                 push r9
  4150                 push r8
  4c89df               mov rdi, r11
  4c89d6               mov rsi, r10
  4829fe               sub rsi, rdi
  ba03000000           mov edx, 3                   ; PROT_READ | PROT_WRITE
  41ba32400000         mov r10d, 0x4032             ; MAP_NORESERVE | ANONYMOUS | FIXED | PRIVATE
  49c7c0ffffffff       mov r8, -1
  4531c9               xor r9d, r9d
  b809000000           mov eax, 9                   ; mmap
  0f05                 syscall
  4158                 pop r8
  4159                 pop r9
  5a                   pop rdx
  5e                   pop rsi
  5f                   pop rdi
  483d00f0ffff         cmp rax, -4096
  771d                 ja chain
  49c7411001000000     mov qword ptr [r9+16], 1     ; hit
  418b7804             mov edi, [r8+4]              ; event
  498d7008             lea rsi, [r8+8]              ; one
  ba08000000           mov edx, 8
  b801000000           mov eax, 1                   ; write
  0f05                 syscall
  c3                   ret
chain:
  4c8b0529000000       mov r8, [rip+table]
  498b4010             mov rax, [r8+16]             ; old
  4883f801             cmp rax, 1                   ; SIG_DFL, SIG_IGN
  7602                 jbe default
  ffe0                 jmp rax
default:
  488d351e000000       lea rsi, [rip+zero]
  31d2                 xor edx, edx
  bf07000000           mov edi, 7                   ; SIGBUS
  41ba08000000         mov r10d, 8
  b80d000000           mov eax, 13                  ; rt_sigaction
  0f05                 syscall
  c3                   ret
  cc
`;

/** Words as they lie in memory, the low byte first. */
const AARCH64 = `
  290840b9             ldr w9, [x1, #8]             // si_code
  3f010071             cmp w9, #0
  6d050054             b.le chain
  290840f9             ldr x9, [x1, #16]            // si_addr
  aa060058             ldr x10, table
  4b0140b9             ldr w11, [x10]               // count
  4c810091             add x12, x10, #32            // first entry
look:
  cb040034             cbz w11, chain
  90210091             add x16, x12, #8
again:
  0dfedfc8             ldar x13, [x16]              // end
  8efddfc8             ldar x14, [x12]              // start
  0f0240f9             ldr x15, [x16]
  bf010feb             cmp x13, x15
  81ffff54             b.ne again
  3f010eeb             cmp x9, x14
  63000054             b.lo next
  3f010deb             cmp x9, x13
  83000054             b.lo found
next:
  8c810091             add x12, x12, #32
  6b050051             sub w11, w11, #1
  f3ffff17             b look
found:
  e60300aa             mov x6, x0
  e70301aa             mov x7, x1
  f10302aa             mov x17, x2
  e0030eaa             mov x0, x14
  a1010ecb             sub x1, x13, x14
  620080d2             mov x2, #3                   // PROT_READ | PROT_WRITE
  430688d2             mov x3, #0x4032              // MAP_NORESERVE | ANONYMOUS | FIXED | PRIVATE
  04008092             mov x4, #-1
  050080d2             mov x5, #0
  c81b80d2             mov x8, #222                 // mmap
  010000d4             svc #0
  1ffc3fb1             cmn x0, #4095
  22010054             b.hs failed
  290080d2             mov x9, #1
  890900f9             str x9, [x12, #16]           // hit
  400540b9             ldr w0, [x10, #4]            // event
  41210091             add x1, x10, #8              // one
  020180d2             mov x2, #8
  080880d2             mov x8, #64                  // write
  010000d4             svc #0
  c0035fd6             ret
failed:
  e00306aa             mov x0, x6
  e10307aa             mov x1, x7
  e20311aa             mov x2, x17
chain:
  90010058             ldr x16, table
  100a40f9             ldr x16, [x16, #16]          // old
  1f0600f1             cmp x16, #1                  // SIG_DFL, SIG_IGN
  49000054             b.ls default
  00021fd6             br x16
default:
  e00080d2             mov x0, #7                   // SIGBUS
  01010010             adr x1, zero
  020080d2             mov x2, #0
  030180d2             mov x3, #8
  c81080d2             mov x8, #134                 // rt_sigaction
  010000d4             svc #0
  c0035fd6             ret
`;

/** The bytes of a listing: the first column, without the labels. */
function assembled(listing: string): Uint8Array {
  const hex = [...listing.matchAll(/^ {2}([0-9a-f]+)\b/gm)].map(([, digits]) => digits).join("");
  return new Uint8Array(hex.length / 2 + LITERALS).map((_, i) =>
    parseInt(hex.slice(2 * i, 2 * i + 2), 16) || 0
  );
}

/** The handler for this machine; {@link LITERALS} at its end are to be filled in. */
export function handlerCode(): Uint8Array {
  return assembled(arch === "x86_64" ? X86_64 : AARCH64);
}
