"""`aerogel top`: the processes of a running container."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.format import columns
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import nearest
from aerogel.flag import Flag
from aerogel.runtime.processes import FIELDS, processes_of

__all__ = ["EXAMPLES", "Top", "TopResult", "run"]

EXAMPLES = (("ids and commands alone", "aerogel top web -o pid,args"),)

_FULL = (
    ("user", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("stime", "STIME"),
    ("tty", "TTY"),
    ("time", "TIME"),
    ("args", "CMD"),
)
_AUX = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "stime", "time", "args")
_NAMES = {
    "%cpu": "pcpu",
    "%mem": "pmem",
    "cmd": "args",
    "command": "args",
    "ucmd": "comm",
    "tname": "tty",
    "tt": "tty",
    "start": "stime",
    "start_time": "stime",
    "cputime": "time",
    "vsize": "vsz",
    "rssize": "rss",
    "s": "stat",
    "state": "stat",
    "thcount": "nlwp",
    "euser": "user",
    "euid": "uid",
    "egid": "gid",
    "pgrp": "pgid",
    "sess": "sid",
}


class Top(Struct, frozen=True, kw_only=True):
    """Show the processes of a running container, with the ids that they have on this host.

    The options of ps(1) that are known: `-ef` (as without any), `aux`, and `-o` with names of columns.
    """

    container: Annotated[str, Flag("Name or id of a running container", positional=True, metavar="CONTAINER")]
    options: Annotated[tuple[str, ...], Flag("Options of ps(1)", rest=True, metavar="OPTION")] = ()


class TopResult(Result, frozen=True, kw_only=True):
    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        # what a process is called must not reach the terminal as codes
        rows = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in self.processes]
        return columns(self.titles, rows)


def run(options: Top, world: World) -> TopResult:
    """Raises `container.not-found`, `container.not-running`, `top.options`."""
    fields = _columns(options.options)
    seen = containers_of(world).running(options.container)
    found = processes_of(seen.state.pid)
    rows = tuple(tuple(FIELDS[name][1](each) for name, _ in fields) for each in found)
    return TopResult(titles=tuple(title for _, title in fields), processes=rows)


def _columns(given: tuple[str, ...]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    words = list(given)
    while words:
        word = words.pop(0)
        if word in ("-ef", "-e", "-f", "-fe", "-A", "ef"):
            found = found or list(_FULL)
        elif word in ("aux", "-aux", "axu"):
            found = [(name, FIELDS[name][0]) for name in _AUX]
        elif word.startswith(("-o", "-eo", "o", "-Ao")):
            names = word.partition("o")[2] or (words.pop(0) if words else "")
            found += [_column(name) for name in names.replace(" ", ",").split(",") if name]
        else:
            hint = "`-ef`, `aux` and `-o pid,args` are; columns are " + ", ".join(f"`{each}`" for each in FIELDS)
            raise fault(f"option `{word}` of ps is not known here", "top.options", hint)
    return found or list(_FULL)


def _column(text: str) -> tuple[str, str]:
    name, sign, title = text.partition("=")
    name = _NAMES.get(name.lower(), name.lower())
    if name not in FIELDS:
        guess = nearest(name, FIELDS)
        known = ", ".join(f"`{each}`" for each in FIELDS)
        raise fault(
            f"column `{name}` is not known",
            "top.options",
            f"did you mean `{guess}`?" if guess else f"there are {known}",
        )
    return name, title if sign else FIELDS[name][0]
