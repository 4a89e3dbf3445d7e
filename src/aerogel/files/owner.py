"""`--chown` and the owner of WORKDIR: names to numbers by the account files of a tree. Standard library only."""

from __future__ import annotations

from aerogel.errors import AerogelError, nearest
from aerogel.files.tree import Tree

__all__ = ["parse_owner"]

_MAX_ID = 0xFFFFFFFE


def parse_owner(spec: str, target: Tree) -> tuple[int, int]:
    """`user[:group]` as numbers; each part a name or a number.

    A user given by number alone has the group of the same number, one given by name its own group; a group without
    a user is root's. Raises AerogelError `copy.no-user`, `copy.no-group`, `copy.bad-owner`.
    """
    user, _, group = spec.partition(":")
    if not user and not group:
        raise AerogelError(
            f"`{spec}` is not an owner", code="copy.bad-owner", hints=["write `user`, `user:group`, `uid` or `uid:gid`"]
        )
    uid, gid = _user(user, target) if user else (0, 0)
    return uid, _group(group, target) if group else gid


def _user(name: str, target: Tree) -> tuple[int, int]:
    number = _number(name)
    if number is not None:
        return number, number
    rows = _rows(target, b"etc/passwd", 4)
    for row in rows:
        if row[0] == name:
            return int(row[2]), int(row[3])
    raise _unknown("user", name, [row[0] for row in rows], "/etc/passwd")


def _group(name: str, target: Tree) -> int:
    number = _number(name)
    if number is not None:
        return number
    rows = _rows(target, b"etc/group", 3)
    for row in rows:
        if row[0] == name:
            return int(row[2])
    raise _unknown("group", name, [row[0] for row in rows], "/etc/group")


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    if int(text) > _MAX_ID:
        raise AerogelError(f"`{text}` is too large for a user or group number", code="copy.bad-owner")
    return int(text)


def _rows(target: Tree, path: bytes, fields: int) -> list[list[str]]:
    """The lines of an account file that have all fields and numbers where numbers stand."""
    text = (target.small(path) or b"").decode("utf-8", "surrogateescape")
    rows = [line.split(":") for line in text.split("\n") if line and not line.startswith("#")]
    return [row for row in rows if len(row) >= fields and all(each.isdecimal() for each in row[2:fields])]


def _unknown(what: str, name: str, known: list[str], file: str) -> AerogelError:
    guess = nearest(name, known)
    if guess:
        hint = f"did you mean `{guess}`?"
    elif known:
        hint = f"`{file}` of this stage has " + ", ".join(f"`{each}`" for each in known[:12])
    else:
        hint = f"this stage has no `{file}`: use a number"
    return AerogelError(f"{what} `{name}` is not in the image", code=f"copy.no-{what}", hints=[hint])
