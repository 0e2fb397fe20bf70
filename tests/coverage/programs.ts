/** A program at the other end of a connection. */
export interface PeerProgram {
  /** Its name in {@link programs}, `"ours"`, or the path of one that is not known. */
  readonly name: string;
  /** The file that tells its version. */
  readonly file?: string;
}

/** Where a version is found. Programs that scripts/unpack-peers unpacks have it in a file beside them. */
export interface Version {
  /** For a program that is installed: printed for `--version`, in the name of the file, or known to dpkg. */
  readonly at: "--version" | "name" | "package";
  /** The part that counts, in parentheses: a release with other repairs is the same peer. */
  readonly is: RegExp;
}

/** How a program is recognised, and how its version is found. */
export interface Program {
  /** What documents call it. */
  readonly name: string;
  /** One of the files that its process has mapped. The first row that fits counts. */
  readonly file: RegExp;
  /** Its version. */
  readonly version: Version;
}

const prints = (is: RegExp): Version => ({ at: "--version", is });

/** The programs that tests meet, one row each. */
export const programs: readonly Program[] = [
  { name: "QEMU", file: /\/qemu-system-[^/]+$/, version: prints(/version (\d+\.\d+)/) },
  { name: "qemu-storage-daemon", file: /\/qemu-storage-daemon$/, version: prints(/version (\d+\.\d+)/) },
  // Of whatever program, qemu-io or one in C: it is the library that is the front-end.
  { name: "libblkio", file: /\/libblkio\.so\.[\d.]+$/, version: { at: "name", is: /\.so\.(\d+\.\d+)/ } },
  { name: "User-Mode Linux", file: /\/linux(\.uml)?$/, version: prints(/^(\d+\.\d+)/) },
  { name: "virtiofsd", file: /\/virtiofsd$/, version: prints(/virtiofsd (\d+\.\d+)/) },
  // It says nothing to a pipe.
  { name: "passt", file: /\/passt(\.\w+)?$/, version: { at: "package", is: /git(\d{8})/ } },
  { name: "DPDK", file: /\/dpdk-testpmd$/, version: prints(/(\d+\.\d+)/) },
  { name: "vhost-device-vsock", file: /\/vhost-device-vsock$/, version: prints(/vsock (\d+\.\d+)/) },
];

/** Which program has these files mapped, of which the first is what was started. */
export function programOf(files: readonly string[]): PeerProgram {
  for (const { name, file: pattern } of programs) {
    const file = files.find((each) => pattern.test(each));
    if (file !== undefined) return { name, file };
  }
  return { name: files[0] ?? "nothing" };
}
