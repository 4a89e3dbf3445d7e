"""The filter, run by a small interpreter of the kernel's BPF."""

import struct

import pytest

from aerogel.sandbox import seccomp

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ALLOW, EPERM, ENOSYS = "allow", "EPERM", "ENOSYS"


def decide(machine, arch, number, first=0):
    code = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    data = struct.pack("=IIQQ", number, arch, 0, first)
    accumulator = at = 0
    while True:
        op, if_true, if_false, value = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif op == 0x05:
            at += value
        elif op == 0x06:
            return {0x7FFF0000: ALLOW, 0x00050001: EPERM, 0x00050026: ENOSYS}[value]
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}[op]
            at += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "arch", "number", "first", "answer"),
    [
        ("x86_64", X86_64, 0, 0, ALLOW),  # read
        ("x86_64", X86_64, 59, 0, ALLOW),  # execve
        ("x86_64", X86_64, 161, 0, ALLOW),  # chroot: the capability is there
        ("x86_64", X86_64, 101, 0, ALLOW),  # ptrace
        ("x86_64", X86_64, 165, 0, EPERM),  # mount
        ("x86_64", X86_64, 272, 0, EPERM),  # unshare
        ("x86_64", X86_64, 250, 0, EPERM),  # keyctl
        ("x86_64", X86_64, 425, 0, EPERM),  # io_uring_setup
        ("x86_64", X86_64, 435, 0, ENOSYS),  # clone3: the C library falls back to clone
        ("x86_64", X86_64, 56, 0x00000011, ALLOW),  # clone as fork
        ("x86_64", X86_64, 56, 0x10000011, EPERM),  # clone with CLONE_NEWUSER
        ("x86_64", X86_64, 56, 0x02000000, EPERM),  # clone with CLONE_NEWCGROUP
        ("x86_64", X86_64, 41, 2, ALLOW),  # socket AF_INET
        ("x86_64", X86_64, 41, 40, EPERM),  # socket AF_VSOCK
        ("x86_64", X86_64, 135, 0x20008, ALLOW),  # personality
        ("x86_64", X86_64, 135, 0xFFFFFFFF, ALLOW),
        ("x86_64", X86_64, 135, 0x0040000, EPERM),  # ADDR_NO_RANDOMIZE
        ("x86_64", X86_64, 466, 0, ALLOW),
        ("x86_64", X86_64, 467, 0, ENOSYS),
        ("x86_64", X86_64, 0x40000000 | 59, 0, EPERM),  # x32
        ("x86_64", I386, 11, 0, ALLOW),  # execve
        ("x86_64", I386, 21, 0, EPERM),  # mount
        ("x86_64", I386, 52, 0, EPERM),  # umount2
        ("x86_64", I386, 120, 0x10000000, EPERM),  # clone
        ("x86_64", I386, 165, 0, ALLOW),  # getresuid, mount's number on the other side
        ("x86_64", AARCH64, 0, 0, ENOSYS),
        ("aarch64", AARCH64, 63, 0, ALLOW),  # read
        ("aarch64", AARCH64, 40, 0, EPERM),  # mount
        ("aarch64", AARCH64, 97, 0, EPERM),  # unshare
        ("aarch64", AARCH64, 220, 0x20000000, EPERM),  # clone
        ("aarch64", AARCH64, 198, 40, EPERM),
        ("aarch64", AARCH64, 92, 0x0040000, EPERM),
        ("aarch64", AARCH64, 442, 0, EPERM),  # mount_setattr
        ("aarch64", ARM, 4, 0, ENOSYS),
    ],
)
def test_decisions(machine, arch, number, first, answer):
    assert decide(machine, arch, number, first) == answer


def test_size():
    """Jumps reach 255 instructions far, a program may have 4096."""
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp.program(machine)) // 8 < 256
    with pytest.raises(KeyError):
        seccomp.program("riscv64")
