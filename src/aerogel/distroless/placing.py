"""What a declaration says of single paths, accounts and the time zone, put into the layout of an image.

Later entries of `paths` come on top of earlier ones. A path whose parents lead through a link of the image is placed
where that leads, so `/bin/tool` lands in `/usr/bin`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aerogel.distroless import accounts
from aerogel.distroless.accounts import Group, User
from aerogel.distroless.declaration import PathEntry
from aerogel.distroless.layout import Item, Layout
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.files.entry import DIR, REG, SYM, Entry, directory, parents, shown

if TYPE_CHECKING:
    from aerogel.distroless.underlay import Underlay

__all__ = ["place_accounts", "place_paths", "place_timezone"]

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_ZONES = b"usr/share/zoneinfo/"


def place_accounts(
    layout: Layout, users: Sequence[User], groups: Sequence[Group], underlay: Underlay | None = None
) -> None:
    """/etc/passwd, /etc/group and the home directories; the lines of an image below stay as they are."""
    if underlay is not None:
        _merge_accounts(layout, users, groups, underlay)
        return
    everybody = (*accounts.USERS, *users)
    layout.write(b"etc/passwd", accounts.passwd_file(everybody))
    layout.write(b"etc/group", accounts.group_file((*accounts.GROUPS, *groups)))
    for entry in accounts.homes(layout.epoch, accounts.USERS):
        layout.add_directory(entry)
    for entry in accounts.homes(layout.epoch, users):
        if entry.path and entry.path not in layout.items:  # what packages have keeps its mode and owner
            layout.add_directory(entry)


def _merge_accounts(layout: Layout, users: Sequence[User], groups: Sequence[Group], underlay: Underlay) -> None:
    more = accounts.merged_users(underlay.users, users)
    joined = accounts.merged_groups(underlay.groups, groups, more)
    added = ((b"etc/passwd", accounts.passwd_file(tuple(more))), (b"etc/group", accounts.group_file(tuple(joined))))
    for path, lines in added:
        before = underlay.read(path) or b""
        between = b"\n" if lines and before and not before.endswith(b"\n") else b""
        layout.write(path, before + between + lines)
    for entry in accounts.homes(layout.epoch, tuple(more)):
        if entry.path and layout.resolve(entry.path) is None:
            layout.add_directory(entry._replace(path=layout.landed(entry.path)))


def place_timezone(layout: Layout, zone: str) -> None:
    """/etc/localtime and /etc/timezone. Raises `base.timezone` for a zone that the image does not have."""
    path = _ZONES + zone.encode()
    found = layout.resolve(path) if _ZONE.fullmatch(zone) else None
    if found is None or found.entry.kind == DIR:
        known = [shown(one.removeprefix(_ZONES)) for one in layout.items if one.startswith(_ZONES)]
        near = nearest(zone, known)
        hints = [f"did you mean `{near}`?"] if near else ["zones are called `Europe/Berlin`, `Etc/UTC`"]
        if not known:
            hints = ["add the package `tzdata`"]
        raise AerogelError(
            f"there is no time zone `{zone}` in the image", code="base.timezone", hints=hints, exit_status=EXIT_USAGE
        )
    layout.link(b"etc/localtime", b"/" + path)
    layout.write(b"etc/timezone", zone.encode() + b"\n")


def place_paths(
    layout: Layout,
    entries: Sequence[PathEntry],
    users: Sequence[User],
    groups: Sequence[Group],
    read: Callable[[str], bytes],
) -> None:
    """Directories, files and links of a declaration; what `remove` names goes. Raises `base.path`."""
    ids = {user.name: user.uid for user in (*accounts.USERS, *users)}
    primary = {user.name: user.gid for user in (*accounts.USERS, *users)}
    group_ids = {group.name: group.gid for group in (*accounts.GROUPS, *groups)}
    for entry in entries:
        path, kind = _subject(entry)
        where = _landed(layout, path)
        if kind == "remove":
            _remove(layout, where, path)
            continue
        uid, gid = _owner(entry.owner, ids, primary, group_ids, path)
        if kind == "link":
            if any(each.startswith(where + b"/") for each in layout.items):
                hint = f"take it away before: `- {{remove: {path}}}`"
                raise _fault(f"`{path}` is to be a link, and a directory with something in it is there", hint)
            layout.link(where, (entry.to or "").encode())
            continue
        default = 0o755 if kind == "dir" else 0o644
        mode = _mode(entry.mode, default, path)
        if kind == "dir":
            old = layout.items.get(where)
            if old is not None and old.entry.kind != DIR:
                raise _fault(f"`{path}` is to be a directory, and the packages have something else there")
            layout.add_directory(directory(where, mode=mode, uid=uid, gid=gid, mtime=layout.epoch))
            continue
        content = (entry.text or "").encode() if entry.source is None else read(entry.source)
        made = Entry(where, REG, mode, uid, gid, len(content), layout.epoch)
        if (old := layout.items.get(where)) is not None and old.entry.kind == DIR:
            raise _fault(f"`{path}` is to be a file, and the packages have a directory there")
        layout.items[where] = Item(made, content)


def _subject(entry: PathEntry) -> tuple[str, str]:
    """Path and kind of an entry that is as it should be."""
    given = [(kind, path) for kind in ("dir", "file", "link", "remove") if (path := getattr(entry, kind)) is not None]
    if len(given) != 1:
        raise _fault("an entry of `paths` has one of `dir`, `file`, `link` and `remove`")
    kind, path = given[0]
    steps = path.rstrip("/").split("/")
    if not path.startswith("/") or len(steps) < 2 or any(step in ("", ".", "..") for step in steps[1:]) or "\0" in path:
        raise _fault(f"`{path}` is no absolute path without `.` and `..`")
    if kind == "link" and not entry.to:
        raise _fault(f"the link `{path}` has no `to`")
    if kind == "file" and (entry.text is None) == (entry.source is None):
        raise _fault(f"the file `{path}` has either `text` or `source`")
    stray = [name for name in ("to",) if kind != "link" and entry.to is not None]
    stray += [name for name in ("text", "source") if kind != "file" and getattr(entry, name) is not None]
    stray += [name for name in ("owner", "mode") if kind in ("link", "remove") and getattr(entry, name) is not None]
    if stray:
        raise _fault(f"`{stray[0]}` means nothing for `{kind}: {path}`")
    return path.rstrip("/"), kind


def _landed(layout: Layout, path: str) -> bytes:
    """Where a path lies when links above it are followed."""
    where = layout.real(path.lstrip("/").encode("utf-8", "surrogateescape"))
    for parent in parents(where):
        item = layout.items.get(parent)
        if item is None or item.entry.kind != SYM:
            continue
        found = layout.resolve(parent)
        if found is None or found.entry.kind != DIR:
            raise _fault(f"`{path}` lies below the link `/{shown(parent)}`, which leads to no directory")
        whole = found.entry.path + where[len(parent) :]
        return _landed(layout, "/" + whole.decode("utf-8", "surrogateescape"))
    return where


def _remove(layout: Layout, where: bytes, path: str) -> None:
    gone = [each for each in layout.items if each == where or each.startswith(where + b"/")]
    if not gone:
        raise _fault(f"there is nothing at `{path}` to remove")
    for each in gone:
        del layout.items[each]


def _owner(
    owner: str | int | None, users: dict[str, int], primary: dict[str, int], groups: dict[str, int], path: str
) -> tuple[int, int]:
    """Numbers of `user[:group]`; the group of a user by name is the user's, of a number the same number."""
    if owner is None:
        return 0, 0
    user, colon, group = str(owner).partition(":")
    uid = _number(user, users, "user", path)
    if not colon:
        return uid, primary.get(user, uid)
    return uid, _number(group, groups, "group", path)


def _number(name: str, known: dict[str, int], kind: str, path: str) -> int:
    if name.isascii() and name.isdigit() and int(name) < 1 << 32:
        return int(name)
    if name in known:
        return known[name]
    near = nearest(name, known)
    hint = f"did you mean `{near}`?" if near else f"{kind}s are {', '.join(known)}"
    raise _fault(f"`owner` of `{path}` names the {kind} `{name}`, whom nothing declares", hint)


def _mode(mode: str | int | None, default: int, path: str) -> int:
    if mode is None:
        return default
    text = str(mode)
    if not re.fullmatch(r"(?:0o?)?[0-7]{3,4}", text):
        raise _fault(f"`mode` of `{path}` is no permission in octal: `{text}`", 'write `"0755"`')
    return int(text.removeprefix("0o"), 8)


def _fault(message: str, *hints: str) -> AerogelError:
    return AerogelError(message, code="base.path", hints=hints, exit_status=EXIT_USAGE)
