"""Runs a program as on an older kernel: system calls that came later do not exist.

    python old_kernel.py PROGRAM ARGUMENT...

As on Linux 4.19: nothing of the new interface of mounts, no openat2, close_range, pidfd_open or faccessat2, and no
notification of a supervisor, which came with 5.0. Needs root.
"""

import os
import struct
import sys

from aerogel.sandbox import syscalls

MISSING = (424, 425, 428, 429, 430, 431, 432, 433, 434, 435, 436, 437, 438, 439, 440, 441, 442, 452)
"""From pidfd_send_signal to fchmodat2: the numbers are the same on all machines."""
SECCOMP = {"x86_64": 317, "aarch64": 277}
LISTENER = 1 << 3
ALLOW, ENOSYS, EINVAL = 0x7FFF0000, 0x00050026, 0x00050016


def op(code, value, yes=0, no=0):
    """One instruction of a filter."""
    return struct.pack("=HBBI", code, yes, no, value)


def program(machine):
    """A filter: the missing calls get ENOSYS, a filter with a listener EINVAL."""
    code = [op(0x20, 0)]
    for number in MISSING:
        code += [op(0x15, number, 0, 1), op(0x06, ENOSYS)]
    code += [op(0x15, SECCOMP[machine], 0, 3), op(0x20, 24), op(0x45, LISTENER, 0, 1), op(0x06, EINVAL)]
    return b"".join([*code, op(0x06, ALLOW)])


if __name__ == "__main__":
    syscalls.set_filter(program(os.uname().machine))
    os.execvp(sys.argv[1], sys.argv[1:])
