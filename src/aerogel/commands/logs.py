"""`aerogel logs`: what a container in the background has said."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.runtime.logs import read_log, time_text

__all__ = ["EXAMPLES", "Logs", "LogsResult", "parse_moment", "run"]

EXAMPLES = (
    ("the last lines, and those that come", "aerogel logs -f --tail 20 web"),
    ("of the last ten minutes, with times", "aerogel logs --since 10m -t web"),
)

_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d*)?)s)?")


class Logs(Struct, frozen=True, kw_only=True):
    """Print the output of a container that was started with `-d`."""

    container: Annotated[str, Flag("Name or id of a container", positional=True, metavar="CONTAINER")]
    follow: Annotated[bool, Flag("Go on with what comes until the container ends", short="f")] = False
    tail: Annotated[str, Flag("How many of the last lines, or `all`", short="n", metavar="N")] = "all"
    since: Annotated[str, Flag("From this time on: `10m`, `1h30m`, RFC 3339 or seconds since 1970")] = ""
    until: Annotated[str, Flag("Up to this time")] = ""
    timestamps: Annotated[bool, Flag("Show the time of each line", short="t")] = False


class LogsResult(Result, frozen=True, kw_only=True):
    is_data: ClassVar[bool] = False


def run(options: Logs, world: World) -> LogsResult:
    """Writes standard output and standard error as the container did. Raises `container.not-found`, `logs.*`."""
    containers = containers_of(world)
    seen = containers.find(options.container)
    if not seen.container.is_detached:
        raise AerogelError(
            f"container `{options.container}` writes to the terminal of its `aerogel run`",
            code="logs.foreground",
            hints=["the output of a container is kept when it is started with `-d`"],
        )
    if options.tail != "all" and not (options.tail.isascii() and options.tail.isdecimal()):
        raise fault(f"`--tail {options.tail}` is not a number of lines", "logs.tail", "write a number, or `all`")
    now = world.clock()
    since = parse_moment(options.since, "--since", now) if options.since else 0
    until = parse_moment(options.until, "--until", now) if options.until else None

    def goes_on() -> bool:
        found = containers.read(seen.folder)
        return found is not None and found.is_running

    tail = None if options.tail == "all" else int(options.tail)
    last = {1: b"\n", 2: b"\n"}
    for line in read_log(f"{seen.folder}/log", tail=tail, goes_on=goes_on if options.follow else None):
        if line.time_ns < since:
            continue
        if until is not None and line.time_ns > until:
            break
        fd = world.streams.stderr if line.stream == "stderr" else world.streams.stdout
        number = 2 if line.stream == "stderr" else 1
        is_new = last[number].endswith(b"\n")
        last[number] = line.text
        stamp = f"{time_text(line.time_ns)} ".encode() if options.timestamps and is_new else b""
        _write(fd, stamp + line.text)
    return LogsResult()


def parse_moment(text: str, flag: str, now: float) -> int:
    """Nanoseconds since 1970 of `10m` (so long ago), of a time in RFC 3339 or of a number of seconds.

    A time without zone is the host's. Raises `logs.time`.
    """
    found = _SPAN.fullmatch(text)
    if found and any(found.groups()):
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        return int((now - hours * 3600 - minutes * 60 - seconds) * 1e9)
    try:
        return int(float(text) * 1e9) if re.fullmatch(r"\d+(\.\d*)?", text) else _date(text)
    except ValueError:
        hint = "write `10m`, `1h30m`, `2026-05-01T12:00:00` or seconds since 1970"
        raise fault(f"`{flag} {text}` is not a time", "logs.time", hint) from None


def _date(text: str) -> int:
    # docker's own times have nanoseconds, of which only microseconds are understood here
    return int(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp() * 1e9)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
