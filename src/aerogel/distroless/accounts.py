"""/etc/passwd and /etc/group written from values, and the directories that accounts need; no useradd.

Spec: passwd(5), group(5); the exact content is that of GoogleContainerTools/distroless.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.files.entry import Entry, directory

__all__ = [
    "GROUPS",
    "NONROOT",
    "USERS",
    "Group",
    "User",
    "group_file",
    "homes",
    "merged_groups",
    "merged_users",
    "parsed_groups",
    "parsed_users",
    "passwd_file",
]

NONROOT = 65532
"""User and group id of `nonroot`."""
_NUMBER = re.compile("[0-9]{1,10}")


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


def parsed_users(data: bytes) -> tuple[User, ...]:
    """The users of a passwd file; lines that are none are left out."""
    found = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and all(map(_NUMBER.fullmatch, fields[2:4])):
            name, _, uid, gid, comment, home, shell = fields
            found.append(User(name, int(uid), int(gid), home, comment, shell))
    return tuple(found)


def parsed_groups(data: bytes) -> tuple[Group, ...]:
    """The groups of a group file; lines that are none are left out."""
    found = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) == 4 and _NUMBER.fullmatch(fields[2]):
            found.append(Group(fields[0], int(fields[2]), tuple(filter(None, fields[3].split(",")))))
    return tuple(found)


def merged_users(there: Sequence[User], declared: Sequence[User]) -> list[User]:
    """The users that a file with those of `there` lacks: declared ones, and of `USERS` those whose name and number are
    free. Raises `base.account` for a declared user who is there with other numbers.
    """
    known = {each.name: each for each in there}
    numbers = {each.uid for each in there}
    added = [each for each in USERS if each.name not in known and each.uid not in numbers]
    for each in declared:
        old = known.get(each.name)
        if old is None:
            added.append(each)
        elif (old.uid, old.gid) != (each.uid, each.gid):
            raise _taken("user", each.name, f"{old.uid}:{old.gid}")
    return added


def merged_groups(there: Sequence[Group], declared: Sequence[Group], users: Sequence[User]) -> list[Group]:
    """The groups that a file lacks; of `GROUPS` those that the added `users` need, unless their number has a name.

    Raises `base.account` for a declared group that is there with another number or without a member.
    """
    known = {each.name: each for each in there}
    numbers = {each.gid for each in there} | {each.gid for each in declared}
    needed = {each.gid for each in users} - numbers
    added = [each for each in GROUPS if each.gid in needed and each.name not in known]
    for each in declared:
        old = known.get(each.name)
        if old is None:
            added.append(each)
        elif old.gid != each.gid:
            raise _taken("group", each.name, str(old.gid))
        elif not set(each.members) <= set(old.members):
            members = ", ".join(sorted(set(each.members) - set(old.members)))
            raise AerogelError(
                f"the group `{each.name}` of the image lacks the members {members}, and its line stays as it is",
                code="base.account",
                hints=["declare a group of another name"],
                exit_status=EXIT_USAGE,
            )
    return added


def _taken(kind: str, name: str, numbers: str) -> AerogelError:
    return AerogelError(
        f"the image has the {kind} `{name}` already, with {numbers}",
        code="base.account",
        hints=[f"give it these numbers, or declare a {kind} of another name"],
        exit_status=EXIT_USAGE,
    )
