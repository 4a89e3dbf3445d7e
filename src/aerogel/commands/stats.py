"""`aerogel stats`: what running containers use of the machine, as it changes.

Processor and memory are added up over the processes; docker reads them from control groups, which hold what the kernel
keeps for files as well. Network is counted for those that have one of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.format import size, table_or_template
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.runtime.containers import Seen
from aerogel.runtime.processes import Proc, processes_of

__all__ = ["EXAMPLES", "Stats", "StatsLine", "StatsResult", "run", "text"]

EXAMPLES = (("once, as data", "aerogel stats --no-stream --json"),)

_BETWEEN_S = 1.0
_FIRST_S = 0.3
"""Between the two looks of `--no-stream`."""


class Stats(Struct, frozen=True, kw_only=True):
    """Show what containers use of processors, memory, network and disk."""

    names: Annotated[
        tuple[str, ...], Flag("Names or ids of containers; default: all that run", positional=True, metavar="CONTAINER")
    ] = ()
    all: Annotated[bool, Flag("Those that have ended as well", short="a")] = False
    no_stream: Annotated[bool, Flag("Look once instead of again and again")] = False
    no_trunc: Annotated[bool, Flag("Show whole ids")] = False
    format: Annotated[str, Flag("`table`, `json` or a template such as `{{.Name}}`", metavar="TEMPLATE")] = ""


class StatsLine(Struct, frozen=True, kw_only=True):
    """One container. Sizes are bytes."""

    id: str
    name: str
    cpu_percent: float
    """Of one processor."""
    memory_bytes: int
    limit_bytes: int
    memory_percent: float
    received_bytes: int
    sent_bytes: int
    read_bytes: int
    written_bytes: int
    pids: int
    """Processes and threads."""


class StatsResult(Result, frozen=True, kw_only=True):
    containers: tuple[StatsLine, ...]


class _Sample(Struct, frozen=True, kw_only=True):
    at: float
    processes: tuple[Proc, ...]


def run(options: Stats, world: World) -> StatsResult:
    """Looks twice; without `--no-stream` writes a table each second until it is interrupted, or nothing is left to show.

    Raises `container.not-found`.
    """
    before = _samples(options, world)
    time.sleep(_FIRST_S)
    while True:
        found = _look(options, world, before)
        if options.no_stream:
            return StatsResult(containers=tuple(line for line, _ in found.values()))
        _show(options, StatsResult(containers=tuple(line for line, _ in found.values())), world)
        before = {key: sample for key, (_, sample) in found.items()}
        time.sleep(_BETWEEN_S)


def _wanted(options: Stats, world: World) -> list[Seen]:
    containers = containers_of(world)
    if options.names:
        return [containers.find(name) for name in options.names]
    return [seen for seen in containers.list() if options.all or seen.is_running]


def _sample(seen: Seen) -> _Sample:
    found = processes_of(seen.state.pid) if seen.is_running and seen.state.pid else []
    return _Sample(at=time.monotonic(), processes=tuple(found))


def _samples(options: Stats, world: World) -> dict[str, _Sample]:
    return {seen.container.id: _sample(seen) for seen in _wanted(options, world)}


def _look(options: Stats, world: World, before: dict[str, _Sample]) -> dict[str, tuple[StatsLine, _Sample]]:
    found = {}
    for seen in _wanted(options, world):
        now = _sample(seen)
        found[seen.container.id] = (_line(seen, before.get(seen.container.id, now), now), now)
    return found


def _line(seen: Seen, before: _Sample, now: _Sample) -> StatsLine:
    earlier = {(one.pid, one.start_s): one.cpu_s for one in before.processes}
    used = sum(one.cpu_s - earlier.get((one.pid, one.start_s), 0.0) for one in now.processes)
    memory = sum(one.own_bytes for one in now.processes)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(seen.container.resources.memory_bytes or machine, machine)
    has_network = seen.container.sandbox.network != "host" and bool(now.processes)
    received, sent = _network(now.processes[0].pid) if has_network else (0, 0)
    disk = [_disk(one.pid) for one in now.processes]
    return StatsLine(
        id=seen.container.id,
        name=seen.container.name,
        cpu_percent=round(100 * max(used, 0.0) / max(now.at - before.at, 0.001), 2) if now is not before else 0.0,
        memory_bytes=memory,
        limit_bytes=limit,
        memory_percent=round(100 * memory / limit, 2),
        received_bytes=received,
        sent_bytes=sent,
        read_bytes=sum(each[0] for each in disk),
        written_bytes=sum(each[1] for each in disk),
        pids=sum(one.threads for one in now.processes),
    )


def _network(pid: int) -> tuple[int, int]:
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            rows = [line.partition(":") for line in file if ":" in line]
    except OSError:
        return 0, 0
    numbers = [row[2].split() for row in rows if row[0].strip() != "lo"]
    return sum(int(row[0]) for row in numbers), sum(int(row[8]) for row in numbers)


def _disk(pid: int) -> tuple[int, int]:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            found = dict(line.split(": ") for line in file)
        return int(found["read_bytes"]), int(found["write_bytes"])
    except (OSError, KeyError):  # another user's, or it has just ended
        return 0, 0


def _show(options: Stats, result: StatsResult, world: World) -> None:
    shown = text(options, result)
    clear = "\033[H\033[2J" if os.isatty(world.streams.stdout) else ""
    data = memoryview(f"{clear}{shown}\n".encode("utf-8", "replace"))
    while data:
        data = data[os.write(world.streams.stdout, data) :]


def text(options: Stats, result: StatsResult) -> str:
    fields = [("ID", "CONTAINER ID"), ("Name", "NAME"), ("CPUPerc", "CPU %"), ("MemUsage", "MEM USAGE / LIMIT")]
    fields += [("MemPerc", "MEM %"), ("NetIO", "NET I/O"), ("BlockIO", "BLOCK I/O"), ("PIDs", "PIDS")]
    return table_or_template(options.format, fields, _rows(result.containers, whole=options.no_trunc))


def _rows(lines: Sequence[StatsLine], *, whole: bool) -> list[dict[str, str]]:
    return [
        {
            "ID": line.id if whole else line.id[:12],
            "Container": line.id if whole else line.id[:12],
            "Name": line.name,
            "CPUPerc": f"{line.cpu_percent:.2f}%",
            "MemUsage": f"{_binary(line.memory_bytes)} / {_binary(line.limit_bytes)}",
            "MemPerc": f"{line.memory_percent:.2f}%",
            "NetIO": f"{size(line.received_bytes)} / {size(line.sent_bytes)}",
            "BlockIO": f"{size(line.read_bytes)} / {size(line.written_bytes)}",
            "PIDs": str(line.pids),
        }
        for line in lines
    ]


def _binary(size_bytes: int) -> str:
    """`1.5MiB`, as docker shows memory."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g}{unit}"
