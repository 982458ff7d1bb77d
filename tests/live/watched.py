"""Runs a program that may tell nobody: ``python watched.py LOG PROGRAM``. Not a test; see test_no_telemetry.py.

Two watches. An audit hook sees what Python does: it writes the event to LOG and refuses. A seccomp filter sees what
native code does: a thread that asks the kernel for an internet socket ends the process with SIGSYS. Both hold in
forked children too. Sockets of the AF_UNIX kind are let be: threads and the C library's own look-ups use them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendmsg",
        "socket.sendto",
        "subprocess.Popen",
    }
)

# (AUDIT_ARCH_*, the number of the system call socket) from linux/audit.h and asm/unistd.h
SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
AF_INET, AF_INET6 = 2, 10


def watch_python(log: int) -> None:
    """Write forbidden audit events to the file descriptor ``log`` and refuse them."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event not in FORBIDDEN:
            return
        os.write(log, f"{event}\n".encode())
        # A fork goes on, so that what the child tries is written down as well.
        if event != "os.fork":
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(refuse)


def watch_native() -> None:
    """Have the kernel end this process, by SIGSYS, at its first internet socket. Linux only; needs no rights."""
    architecture, socket_call = SOCKET_CALL[platform.machine()]
    # struct sock_filter {u16 code; u8 jump_if_true, jump_if_false; u32 value}; offsets into struct seccomp_data.
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (LOAD, 0, 0, 4),
            (JUMP_IF_EQUAL, 0, 5, architecture),
            (LOAD, 0, 0, 0),
            (JUMP_IF_EQUAL, 0, 3, socket_call),
            (LOAD, 0, 0, 16),
            (JUMP_IF_EQUAL, 2, 0, AF_INET),
            (JUMP_IF_EQUAL, 1, 0, AF_INET6),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, KILL_PROCESS),
        )
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog {u16 length; struct sock_filter *filter}
    descriptor = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(descriptor), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({arguments[0]}) failed")


if __name__ == "__main__":
    watch_native()
    watch_python(os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY))
    exec(sys.argv[2], {"__name__": "__main__"})
