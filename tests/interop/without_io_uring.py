#!/usr/bin/python3
"""without_io_uring.py COMMAND...: runs a command that the kernel lets make no io_uring, as containers are."""
import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, FAIL_WITH_EPERM = 0x7fff0000, 0x00050000 | 1
IO_URING_SETUP = 425  # the first of three; on every architecture
LOAD, IS_LESS_SKIP, RETURN = 0x20, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JGE|K, BPF_RET|K


def instruction(code, if_true, if_false, operand):
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def forbid():
    program = b"".join([
        instruction(LOAD, 0, 0, 0),                               # the number of the system call
        instruction(IS_LESS_SKIP, 0, 2, IO_URING_SETUP),          # below the three: allow
        instruction(IS_LESS_SKIP, 1, 0, IO_URING_SETUP + 3),      # above: allow
        instruction(RETURN, 0, 0, FAIL_WITH_EPERM),
        instruction(RETURN, 0, 0, ALLOW)])
    memory = ctypes.create_string_buffer(program, len(program))
    filter_program = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(memory)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0 or \
            libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), filter_program, zero, zero) != 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


forbid()
os.execvp(sys.argv[1], sys.argv[1:])
