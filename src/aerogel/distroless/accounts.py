"""/etc/passwd and /etc/group written from values, and the directories that accounts need; no useradd.

Spec: passwd(5), group(5); the exact content is that of GoogleContainerTools/distroless.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aerogel.files.entry import Entry, directory

__all__ = ["GROUPS", "NONROOT", "USERS", "Group", "User", "group_file", "homes", "passwd_file"]

NONROOT = 65532
"""User and group id of `nonroot`."""


class User(msgspec.Struct, frozen=True):
    """An account without a password; `shell` never exists in these images."""

    name: str
    uid: int
    gid: int
    home: str
    comment: str = ""
    shell: str = "/sbin/nologin"


class Group(msgspec.Struct, frozen=True):
    """A group; `members` besides those whose primary group it is."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


USERS = (
    User("root", 0, 0, "/root", "root"),
    User("nobody", 65534, 65534, "/nonexistent", "nobody"),
    User("nonroot", NONROOT, NONROOT, "/home/nonroot", "nonroot"),
)
GROUPS = (
    Group("root", 0),
    Group("nobody", 65534),
    Group("tty", 5),
    Group("staff", 50),
    Group("nonroot", NONROOT),
)


def passwd_file(users: tuple[User, ...] = USERS) -> bytes:
    """The content of /etc/passwd, in the order given."""
    return b"".join(
        f"{user.name}:x:{user.uid}:{user.gid}:{user.comment}:{user.home}:{user.shell}\n".encode() for user in users
    )


def group_file(groups: tuple[Group, ...] = GROUPS) -> bytes:
    """The content of /etc/group, in the order given."""
    return b"".join(f"{group.name}:x:{group.gid}:{','.join(group.members)}\n".encode() for group in groups)


def homes(mtime: int, users: Sequence[User] = USERS) -> list[Entry]:
    """Home directories, mode 0700 and owned by their users; none for `/nonexistent`, and an empty path for `/`."""
    return [
        directory(user.home.strip("/").encode(), mode=0o700, uid=user.uid, gid=user.gid, mtime=mtime)
        for user in users
        if user.home != "/nonexistent"
    ]
