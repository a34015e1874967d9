#!/usr/bin/env python3
"""Runs a command under a system-call filter that refuses IP_FREEBIND and IPV6_FREEBIND, like old
kernels and gVisor do.

  scripts/without_freebind.py COMMAND...
"""

import ctypes
import os
import socket
import struct
import sys

# System call number of setsockopt, and AUDIT_ARCH of seccomp(2), by `uname -m`.
SETSOCKOPT = {"x86_64": (54, 0xC000003E), "aarch64": (208, 0xC00000B7), "riscv64": (208, 0xC00000F3)}
OPTIONS = ((socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ENOPROTOOPT = 92
# Offsets in struct seccomp_data: the number of the call, the architecture, the low words of the
# second and the third argument.
NUMBER, ARCHITECTURE, LEVEL, NAME = 0, 4, 24, 32


def program():
    """Returns the instructions of the filter, each (code, jump if true, jump if false, value)."""
    number, architecture = SETSOCKOPT[os.uname().machine]
    lines = [(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 1, 0, architecture), (RETURN, 0, 0, ALLOW),
             (LOAD, 0, 0, NUMBER), (IF_EQUAL, 1, 0, number), (RETURN, 0, 0, ALLOW)]
    for level, name in OPTIONS:
        lines += [(LOAD, 0, 0, LEVEL), (IF_EQUAL, 0, 3, level),
                  (LOAD, 0, 0, NAME), (IF_EQUAL, 0, 1, name), (RETURN, 0, 0, ERRNO | ENOPROTOOPT)]
    return lines + [(RETURN, 0, 0, ALLOW)]


def main():
    lines = program()
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    fprog = struct.pack("@HP", len(lines), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or \
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0):
        sys.exit(f"{sys.argv[0]}: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
