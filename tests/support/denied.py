"""Runs a program as in a default container of Docker: its capabilities, and a filter that refuses namespaces and mounts.

    python denied.py PROGRAM ARGUMENT...

Needs root. Debian packages: util-linux (setpriv).
"""

import os
import struct
import sys

from aerogel.sandbox import syscalls

CAPABILITIES = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,"
    "setfcap"
)
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = {
    "x86_64": {
        "mount": 165,
        "umount2": 166,
        "unshare": 272,
        "setns": 308,
        "pivot_root": 155,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
    },
    "aarch64": {
        "mount": 40,
        "umount2": 39,
        "unshare": 97,
        "setns": 268,
        "pivot_root": 41,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
    },
}
MISSING = (428, 429, 430, 431, 432, 442)  # open_tree, move_mount, fsopen, fsconfig, fsmount, mount_setattr
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026


def op(code, value, yes=0, no=0):
    """One instruction of a filter."""
    return struct.pack("=HBBI", code, yes, no, value)


def program(machine):
    """A filter: the calls of `REFUSED` get EPERM, those of `MISSING` ENOSYS."""
    code = [op(0x20, 4), op(0x15, ARCHES[machine], 1, 0), op(0x06, ALLOW), op(0x20, 0)]
    for number in REFUSED[machine].values():
        code += [op(0x15, number, 0, 1), op(0x06, EPERM)]
    for number in MISSING:
        code += [op(0x15, number, 0, 1), op(0x06, ENOSYS)]
    return b"".join([*code, op(0x06, ALLOW)])


if __name__ == "__main__":
    kept = ",".join(f"+{name}" for name in CAPABILITIES.split(","))
    syscalls.set_filter(program(os.uname().machine))
    os.execvp("setpriv", ["setpriv", "--bounding-set", f"-all,{kept}", *sys.argv[1:]])
