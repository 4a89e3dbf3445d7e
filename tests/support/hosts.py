"""Runs a program as on a host of some kind, which this one is not: what it refuses is refused here as well.

    python hosts.py apparmor|no-newuidmap|no-proot|pod|quota ACCOUNT PROGRAM ARGUMENT...

Needs root. `apparmor`: Ubuntu since 23.10, where a user namespace of an ordinary user has no rights. `no-newuidmap`: the
package uidmap is not installed. `pod`: not root, no capability, no new rights, namespaces refused, as in a restricted
Kubernetes pod; `no-proot`: such a pod without the program proot. `quota`: user.max_user_namespaces is 0. Debian packages: util-linux (setpriv, unshare).
"""

import os
import pwd
import sys

from denied import ALLOW, ARCHES, EPERM, REFUSED, op

from aerogel.sandbox import syscalls

NEWNS, NEWUSER = 0x20000, 0x10000000
SYSCTL = "/proc/sys/kernel"


def refuse_unshare(mask):
    """A filter: unshare(2) with a flag of the mask gets EPERM."""
    machine = os.uname().machine
    jump_if_set, load = 0x45, 0x20
    code = [op(load, 4), op(0x15, ARCHES[machine], 1, 0), op(0x06, ALLOW), op(load, 0)]
    code += [op(0x15, REFUSED[machine]["unshare"], 0, 3), op(load, 16), op(jump_if_set, mask, 0, 1), op(0x06, EPERM)]
    return b"".join([*code, op(0x06, ALLOW)])


def as_account(account, *options):
    entry = pwd.getpwnam(account)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", *options]


def pretend(kind, account):
    """Makes this process one of such a host; the words to put before the program."""
    if kind == "quota":
        code = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -sys_admin,-sys_chroot "$@"'
        return ["unshare", "--user", "--map-root-user", "sh", "-c", code, "sh"]
    if kind == "no-proot":
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.mount("/dev/null", "/usr/bin/proot", "", syscalls.MS_BIND)
    if kind in ("pod", "no-proot"):
        syscalls.set_filter(refuse_unshare(NEWUSER | NEWNS))
        return as_account(account, "--bounding-set=-all", "--no-new-privs")
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    if kind == "no-newuidmap":
        for name in ("newuidmap", "newgidmap"):
            syscalls.mount("/dev/null", f"/usr/bin/{name}", "", syscalls.MS_BIND)
    elif kind == "apparmor":
        with open(f"{SYSCTL}/random/boot_id", encoding="ascii") as file:
            boot_id = file.read()
        syscalls.mount("kernel", SYSCTL, "tmpfs")
        os.mkdir(f"{SYSCTL}/random")
        for name, text in (("apparmor_restrict_unprivileged_userns", "1\n"), ("random/boot_id", boot_id)):
            with open(f"{SYSCTL}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        syscalls.set_filter(refuse_unshare(NEWNS))
    return as_account(account)


if __name__ == "__main__":
    words = [*pretend(sys.argv[1], sys.argv[2]), *sys.argv[3:]]
    os.execvp(words[0], words)
