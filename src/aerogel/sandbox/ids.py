"""The ranges of subordinate ids that this user may map, and the programs that map them.

Spec: subuid(5), subgid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from typing import Any

from aerogel.sandbox.rungs import FIRST_USER_NAMESPACE

__all__ = ["MIN_COUNT", "free_range", "map_id", "own_map_id", "single_map_id", "subordinate_ids"]

MIN_COUNT = 65536
"""Images use ids up to 65534 (`nobody`), so fewer do not serve."""

_FIRST = 100000
"""Where useradd(8) begins with ranges: SUB_UID_MIN of login.defs(5)."""

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def subordinate_ids(ask: Callable[[list[str]], str], etc: str = "/etc") -> dict[str, Any]:
    """What the helper needs: newuidmap, newgidmap (paths), uids, gids (lists of [start, count]).

    When something is missing: problem, message, fixes instead. `etc` is where subuid and subgid are, `ask` runs a
    program and returns its output.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        # newuidmap looks its caller up, whatever the files of ranges say
        message = f"user id {uid} has no account here, so it can have no range of ids"
        fixes = [f"as root: `useradd --uid {uid} NAME` makes an account with a range", "or run as a user of this host"]
        return _problem("no-account", message, fixes)
    tools = {tool: shutil.which(tool, path=_SEARCH) for tool in ("newuidmap", "newgidmap")}
    if not all(tools.values()):
        missing = " and ".join(f"`{tool}`" for tool, path in tools.items() if not path)
        fixes = ["as root: `apt-get install uidmap` (Debian, Ubuntu) or `dnf install shadow-utils` (Fedora)"]
        return _problem("no-newuidmap", f"{missing} cannot be found", fixes)
    ranges = {
        kind: _ranges(f"{etc}/{kind}", name, uid) or _from_directory(ask, kind, name) for kind in ("subuid", "subgid")
    }
    for kind, found in ranges.items():
        if not found:
            first = free_range(etc)
            free = f"{first}-{first + MIN_COUNT - 1}"
            message = f"`{etc}/{kind}` has no range of ids for user `{name}`"
            fixes = [f"as root: `usermod --add-subuids {free} --add-subgids {free} {name}`, which no other user has"]
            return _problem("no-range", message, fixes)
        count = sum(length for _, length in found)
        if count < MIN_COUNT:
            return _problem(
                "small-range",
                f"`{etc}/{kind}` gives user `{name}` {count} ids, images need {MIN_COUNT}",
                [f"as root: make the range in `{etc}/{kind}` larger"],
            )
    return {**tools, "uids": ranges["subuid"], "gids": ranges["subgid"]}


def map_id(ids: dict[str, Any]) -> str:
    """A short name of the mapping, the same for the same owners on disk."""
    parts = [f"u{os.getuid()}", *(f"{start}-{count}" for start, count in ids["uids"])]
    if ids["gids"] != ids["uids"] or os.getgid() != os.getuid():
        parts += [f"g{os.getgid()}", *(f"{start}-{count}" for start, count in ids["gids"])]
    return ".".join(parts)


def own_map_id(name: str) -> str:
    """The name of the mapping when root keeps its own: `name`, and the outer ranges when it is itself mapped."""
    if os.stat("/proc/self/ns/user").st_ino == FIRST_USER_NAMESPACE:
        return name
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return ".".join([name, *("-".join(words) for words in ranges)])


def single_map_id() -> str:
    """The name of the mapping of this user's own id alone."""
    return f"s{os.getuid()}-{os.getgid()}"


def _problem(problem: str, message: str, fixes: list[str]) -> dict[str, Any]:
    return {"problem": problem, "message": message, "fixes": fixes}


def free_range(etc: str = "/etc") -> int:
    """The first id of a range of MIN_COUNT ids that is nobody's, neither as subordinate nor as own ids."""
    taken = [each for kind in ("subuid", "subgid") for _, *each in _lines(f"{etc}/{kind}")]
    taken += [[int(words[2]), 1] for kind in ("passwd", "group") for words in _words(f"{etc}/{kind}") if len(words) > 2]
    start = _FIRST
    for first, count in sorted(taken):
        if first < start + MIN_COUNT and start < first + count:
            start = first + count
    return start


def _ranges(path: str, name: str, uid: int) -> list[list[int]]:
    """The user's ranges, by name or number."""
    found: list[list[int]] = []
    for user, start, count in _lines(path):
        if user in (name, str(uid)) and count and [start, count] not in found:
            found.append([start, count])
    return found


def _lines(path: str) -> list[tuple[str, int, int]]:
    """User, first id and number of ids of each line; lines that make no sense are skipped."""
    return [
        (words[0], int(words[1]), int(words[2])) for words in _words(path) if len(words) == 3 and _is_number(words[1])
    ]


def _words(path: str) -> list[list[str]]:
    """The fields of the lines whose third is a number."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip().split(":") for line in file.read().split("\n")]
    except OSError:
        return []
    return [words for words in lines if len(words) > 2 and _is_number(words[2])]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _from_directory(ask: Callable[[list[str]], str], kind: str, name: str) -> list[list[int]]:
    """Ranges that are kept elsewhere (sssd, LDAP), by `getsubids` of shadow 4.9."""
    tool = shutil.which("getsubids", path=_SEARCH)
    if not tool:
        return []
    found = []
    for line in ask([tool, *(["-g"] if kind == "subgid" else []), name]).split("\n"):
        words = line.split()
        if len(words) == 4 and words[2].isdigit() and words[3].isdigit():
            found.append([int(words[2]), int(words[3])])
    return found
