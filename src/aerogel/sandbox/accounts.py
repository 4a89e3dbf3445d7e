"""Who a command runs as: users and groups looked up in the image's own files.

Standard library only: part of the helper. Spec: Dockerfile reference USER; runc `libcontainer/user` GetExecUser.
"""

from __future__ import annotations

from typing import NamedTuple

from aerogel.errors import AerogelError

__all__ = ["Account", "find_account", "with_groups"]

_MAX_ID = (1 << 32) - 2


class Account(NamedTuple):
    """The ids and the home directory of a command."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find_account(spec: str, passwd: bytes, group: bytes) -> Account:
    """The account for `name`, `uid`, `name:group`, `uid:gid` or nothing (root).

    A number needs no entry. Supplementary groups are taken only when no group is named, as runc does.
    Raises AerogelError `sandbox.no-user`, `sandbox.no-group`.
    """
    user_part, colon, group_part = spec.partition(":")
    user_part = user_part or "0"
    users, groups = _lines(passwd, 7), _lines(group, 4)
    found = next((u for u in users if u[0] == user_part), None)
    if found is None and _is_id(user_part):
        found = next((u for u in users if u[2] == user_part), None)
    if found is not None:
        name, uid, gid, home = found[0], int(found[2]), int(found[3]), found[5] or "/"
    elif _is_id(user_part):
        name, uid, gid, home = "", int(user_part), 0, "/"
    else:
        raise AerogelError(
            f"the image has no user `{user_part}`",
            code="sandbox.no-user",
            hints=[_known("users", users), "a numeric user id needs no entry in /etc/passwd"],
        )
    if colon and group_part:
        return Account(uid, _gid_of(group_part, groups), (), home)
    extra = {int(g[2]) for g in groups if name and name in g[3].split(",")}
    return Account(uid, gid, tuple(sorted(extra)), home)


def with_groups(account: Account, more: list[str], group: bytes) -> Account:
    """The account with more supplementary groups. Raises AerogelError `sandbox.no-group`."""
    if not more:
        return account
    groups = _lines(group, 4)
    return account._replace(groups=tuple(sorted({*account.groups, *(_gid_of(each, groups) for each in more)})))


def _gid_of(part: str, groups: list[list[str]]) -> int:
    found = next((g for g in groups if g[0] == part), None)
    if found is not None:
        return int(found[2])
    if _is_id(part):
        return int(part)
    raise AerogelError(
        f"the image has no group `{part}`",
        code="sandbox.no-group",
        hints=[_known("groups", groups), "a numeric group id needs no entry in /etc/group"],
    )


def _lines(data: bytes, fields: int) -> list[list[str]]:
    """The usable lines of a passwd or group file; the image wrote it, so the others are skipped."""
    found = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        parts = line.strip().split(":")
        parts += [""] * (fields - len(parts))
        ids = parts[2:4] if fields == 7 else parts[2:3]
        if parts[0] and all(_is_id(i) for i in ids):
            found.append(parts)
    return found


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID


def _known(what: str, entries: list[list[str]]) -> str:
    names = [e[0] for e in entries]
    if not names:
        return f"its {'/etc/passwd' if what == 'users' else '/etc/group'} names no {what}"
    shown = ", ".join(f"`{name}`" for name in names[-8:])
    return f"its {what} are {shown}" if len(names) <= 8 else f"the last of its {len(names)} {what} are {shown}"
