"""What the red team tries: system calls with the errors that are right answers, and scripts that must be held."""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL, EIO, ENOENT, ENOSYS, ENOTDIR, ENOTTY, EPERM, EROFS, ESRCH

from forged import ROOM, chain, compat, program

__all__ = ["CALLS", "ON_PROOT", "SCRIPTS"]

_NO = (EPERM, ENOSYS)
_PIECE = (0x400000).to_bytes(8, "little") + (8).to_bytes(8, "little")
_KILL_ALL_CAPS = (0x20080522).to_bytes(4, "little") + bytes(4)
_NEWNS, _NEWUSER, _NEWNET, _NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
_INODE_HANDLE = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(8, "little") + ROOM

CALLS = {
    "mount": (program(165, b"x", b"/tmp", b"tmpfs", 0, 0), _NO),
    "mount over proc": (program(165, b"/tmp", b"/proc", 0, 4096, 0), _NO),
    "umount of a mask": (program(166, b"/proc/kcore", 0), _NO),
    "lazy umount of proc": (program(166, b"/proc", 2), _NO),
    "unshare of users": (program(272, _NEWUSER), _NO),
    "unshare of mounts": (program(272, _NEWNS), _NO),
    "unshare of the network": (program(272, _NEWNET), _NO),
    "clone with users": (program(56, _NEWUSER | 17, 0, 0, 0, 0), _NO),
    "clone with processes": (program(56, _NEWPID | 17, 0, 0, 0, 0), _NO),
    "clone3": (program(435, ROOM, 88), (ENOSYS,)),
    "setns": (program(308, 0, 0), _NO),
    "pivot_root": (program(155, b"/", b"/tmp"), _NO),
    "open_tree": (program(428, -100, b"/", 1), _NO),
    "move_mount": (program(429, -100, b"/tmp", -100, b"/", 0), _NO),
    "fsopen": (program(430, b"tmpfs", 0), _NO),
    "fspick": (program(433, -100, b"/", 0), _NO),
    "mount_setattr": (program(442, -100, b"/", 0, ROOM, 32), _NO),
    "open_by_handle_at": (program(304, -100, _INODE_HANDLE, 0), _NO),
    "keyctl": (program(250, 1, 0), _NO),
    "add_key": (program(248, b"user", b"x", b"y", 1, -1), _NO),
    "request_key": (program(249, b"user", b"x", 0, 0), _NO),
    "ptrace of process 1": (program(101, 16, 1, 0, 0), (EPERM, ESRCH)),
    "ptrace seizes process 1": (program(101, 0x4206, 1, 0, 0), (EPERM, ESRCH, EIO)),
    "reads the memory of process 1": (program(310, 1, _PIECE, 1, _PIECE, 1, 0), (EPERM, ESRCH)),
    "writes the memory of process 1": (program(311, 1, _PIECE, 1, _PIECE, 1, 0), (EPERM, ESRCH)),
    "takes a descriptor of process 1": (chain([(434, 1, 0), (438, -1000, 0, 0)]), (EPERM, ENOSYS)),
    "bpf": (program(321, 5, ROOM, 128), _NO),
    "userfaultfd": (program(323, 0), _NO),
    "io_uring": (program(425, 8, ROOM), _NO),
    "perf_event_open": (program(298, ROOM, 0, -1, -1, 0), (*_NO, EACCES)),
    "kexec_load": (program(246, 0, 0, 0, 0), _NO),
    "init_module": (program(175, ROOM, 8, b""), _NO),
    "finit_module": (program(313, 0, b"", 0), _NO),
    "delete_module": (program(176, b"none", 0), _NO),
    "swapon": (program(167, b"/none", 0), _NO),
    "reboot": (program(169, 0, 0, 0, 0), (*_NO,)),
    "settimeofday": (program(164, ROOM, 0), _NO),
    "clock_settime": (program(227, 0, ROOM), _NO),
    "syslog": (program(103, 3, ROOM, 10), _NO),
    "iopl": (program(172, 3), _NO),
    "ioperm": (program(173, 0x378, 1, 1), _NO),
    "quotactl": (program(179, 0x80000101, b"/dev/none", 0, ROOM), _NO),
    "acct": (program(163, b"/tmp/acct"), _NO),
    "sethostname": (program(170, b"pwned", 5), _NO),
    "setdomainname": (program(171, b"pwned", 5), _NO),
    "fanotify_init": (program(300, 0, 0), _NO),
    "no randomized addresses": (program(135, 0x0040000), _NO),
    "vsock": (program(41, 40, 1, 0), _NO),
    "kcmp": (program(312, 1, 1, 0, 0, 0), _NO),
    "move_pages": (program(279, 1, 0, 0, 0, 0, 0), _NO),
    "vhangup": (program(153), _NO),
    "uselib": (program(134, b"/bin/sh"), _NO),
    "lookup_dcookie": (program(212, 0, ROOM, 10), _NO),
    "numbers of x32": (program(0x40000000 + 165, b"x", b"/tmp", b"tmpfs", 0, 0), _NO),
    "a number of the future": (program(999), (ENOSYS,)),
    "mount as a 32-bit program": (compat(21, 0, 0, 0, 0, 0), _NO),
    "keyctl as a 32-bit program": (compat(288, 1, 0), _NO),
    "pushes a key into a terminal": (program(16, 1, 0x5412, b"x"), (EPERM, EIO, ENOTTY)),
    "steals a terminal": (program(16, 1, 0x540E, 1), (EPERM, ENOTTY)),
    "takes all capabilities": (program(126, _KILL_ALL_CAPS, b"\xff" * 24), (EPERM,)),
    "climbs out of a root": (
        chain([(161, b"/tmp"), (80, b"../../../../../../../.."), (2, b"proc/1/root/etc/shadow", 0)]),
        (ENOENT, EPERM, EACCES, ENOTDIR),
    ),
    "a program in memory that mounts": (
        chain([(319, b"x", 0), (322, -1000, b"", 0, 0, 0x1000)]),  # the empty file is no program
        (8, EACCES, EINVAL, EFAULT),
    ),
}  # fmt: skip
"""Name: the program, and the errors that it may end with."""

_PLAIN = ("chroot",)
_ROOTED = ("root", "ident", "subid", "single")
_OF_OTHERS = (*_ROOTED, "chroot")
"""Not `proot`, where a step is the user that runs aerogel: it may end what is that user's."""

ON_PROOT = {
    "keyctl as a 32-bit program": (EINVAL,),  # proot takes its number for that of accept4, and finds no address
    "takes all capabilities": (0,),  # told, as setuid is: there are none to give
    "a program in memory that mounts": (ENOSYS,),
}
"""Further right answers there."""

_DEVICES = """
for d in null zero full random urandom tty; do
    chmod 600 /dev/$d; chown 5:6 /dev/$d; mv /bin/ls /dev/$d; cp -a /bin/ls /dev/$d; ln -f /bin/ls /dev/$d; rm -f /dev/$d; mv /dev/$d /tmp/x
done
for f in kcore keys timer_list sched_debug; do chmod 0 /proc/$f; chown 5 /proc/$f; rm -f /proc/$f; done
rm -rf /dev; mv /dev /tmp/d; echo held
"""

SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory of process 1": ("try dd if=/proc/1/mem of=/dev/null bs=1 count=1", ()),
    "root of process 1": ("try ls /proc/1/root/", ()),
    "folder of process 1": ("try ls /proc/1/cwd/", ()),
    "program of process 1": ("try head -c 4 /proc/1/exe", ()),
    "overwrites the program of process 1": ("try sh -c ': >>/proc/1/exe'", ()),
    "variables of process 1": ("try cat /proc/1/environ", ()),
    "descriptors of process 1": ("try sh -c 'for f in /proc/1/fd/*; do readlink $f && exit 0; done; exit 1'", ()),
    "map of process 1": ("try cat /proc/1/maps", ()),
    "namespaces of process 1": ("try readlink -f /proc/1/ns/mnt/x; try cat /proc/1/ns/mnt", ()),
    "stack of process 1": ("try cat /proc/1/stack", ()),
    "roots of all processes": ("for p in /proc/[0-9]*; do try cat $p/root$CANARY/secret; done", ()),
    "folders of all processes": ("for p in /proc/[0-9]*; do try cat $p/cwd$CANARY/secret; done", ()),
    "variables of all processes": ("empty sh -c 'cat /proc/[0-9]*/environ | tr \"\\0\" \"\\n\" | grep ^PYTEST_CURRENT'", ()),
    "a link through the own root": ("ln -s $CANARY/secret /tmp/l; try cat /proc/self/root/tmp/l", ()),
    "a link through the own folder": ("cd /tmp; ln -s $CANARY/secret k; try cat /proc/self/cwd/k", ()),
    "a link to the canary": ("ln -s / /tmp/r; try cat /tmp/r$CANARY/secret; try cat $CANARY/secret", ()),
    "dots": ("try cat ../../../../../../../..$CANARY/secret", ()),
    "kills process 1": ("kill -9 1; kill -TERM 1; sleep 0.1; echo held: process 1 lives", _ROOTED),
    "kills a process of the host": ("try kill -9 $HOST", _OF_OTHERS),
    "kills all": ("trap '' TERM; kill -TERM -1 2>/dev/null; sleep 0.1; echo held: itself", _ROOTED),
    "core pattern": ("try sh -c 'echo \"|/x\" >/proc/sys/kernel/core_pattern'", ()),
    "path of modprobe": ("try sh -c 'echo /x >/proc/sys/kernel/modprobe'", ()),
    "binfmt": ("try sh -c ': >/proc/sys/fs/binfmt_misc/register'", ()),
    "sysrq": ("try sh -c 'echo h >/proc/sysrq-trigger'", ()),
    "uevent helper": ("try sh -c ': >/sys/kernel/uevent_helper'", ()),
    "release agent": ("try sh -c ': >/sys/fs/cgroup/release_agent'; try mkdir /sys/fs/cgroup/aerogel-red", ()),
    "settings of memory": ("try sh -c ': >/sys/kernel/mm/transparent_hugepage/enabled'", ()),
    "a module's parameter": ("try sh -c 'for f in /sys/module/*/parameters/*; do : >$f && exit 0; done; exit 1'", ()),
    "oom score": ("try sh -c 'echo -1000 >/proc/self/oom_score_adj'", ()),
    "memory of the kernel": ("empty head -c 4 /proc/kcore", ()),
    "keys": ("empty cat /proc/keys", ()),
    "timers": ("empty cat /proc/timer_list", ()),
    "firmware": ("empty ls /sys/firmware", _ROOTED),
    "writable /proc/sys": ("try mount -o remount,rw /proc/sys", ()),
    "a fresh proc": ("try mount -t proc proc /tmp", ()),
    "a bind mount": ("try mount --bind / /tmp", ()),
    "umount of hosts": ("try umount -l /etc/hosts", ()),
    "a user namespace": ("try unshare -U true; try unshare -r true", ()),
    "a mount namespace": ("try unshare -m true", ()),
    "a disk": ("mknod /tmp/disk b 8 0; for d in /tmp/disk /dev/sda /dev/vda; do empty head -c 1 $d; done", ()),
    "memory by a device": ("mknod /tmp/mem c 1 1; empty head -c 1 /tmp/mem; empty head -c 1 /dev/mem", ()),
    "the log of the kernel": ("mknod /tmp/k c 1 11; empty head -c 1 /tmp/k; empty head -c 1 /dev/kmsg", ()),
    "a tty of the host": ("mknod /tmp/t c 4 0; try stty -F /tmp/t", ()),
    "the host's name": ("try hostname pwned", ()),
    "files of the network": ('for f in hosts hostname resolv.conf; do try sh -c ": >>/etc/$f"; done', _ROOTED),
    "moves hosts away": ("try mv /etc/hosts /tmp/; try rm /etc/hosts; try mv /etc /tmp/etc", _ROOTED),
    "hard links to lent files": ("try ln /etc/hosts /tmp/h; try ln /dev/null /tmp/n", _ROOTED),
    "writes to its image": (
        "echo x >>/etc/passwd; rm -rf /srv; chmod 777 /bin; chmod 600 /bin/ls; ln /bin/busybox /tmp/b; echo y >>/tmp/b; echo held",
        _ROOTED,
    ),
    "devices of the host": (_DEVICES, ()),
    "new devices": ("mknod /dev/disk b 8 0; empty head -c 1 /dev/disk", ()),
    "descriptors that it got": ("empty sh -c 'ls /proc/self/fd | grep -v ^[0-3]$'", ()),
    "fills /dev": ("try dd if=/dev/zero of=/dev/big bs=1M count=70", _ROOTED),
    "fills shared memory": ("try dd if=/dev/zero of=/dev/shm/big bs=1M count=70", _ROOTED),
    "abstract sockets without a network": ("empty grep @ /proc/net/unix", ("netless", *_ROOTED)),
    "interfaces without a network": ("empty sh -c 'grep : /proc/net/dev | grep -v lo:'", ("netless", *_ROOTED)),
    "set-user-id without new privileges": (
        "try sh -c '[ $(/setuid/busybox id -u) = 0 ]'; try sh -c '[ $(/setuid/busybox id -ru) = 0 ]'", ("suid", *_ROOTED),
    ),
    "capabilities of an ordinary user": ("empty sh -c 'grep -E \"^Cap(Eff|Prm|Inh|Amb)\" /proc/self/status | grep [1-9a-f]$'", ("app", "root", "ident", "subid", "chroot")),
}  # fmt: skip
"""Name: the script; and the rungs that it is for, all when none is named, with `app`, `suid` or `netless` for how it runs."""

del EROFS
