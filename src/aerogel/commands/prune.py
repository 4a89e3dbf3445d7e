"""`aerogel prune`: removes from the local store what no image needs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of
from aerogel.commands.du import measured
from aerogel.commands.format import size
from aerogel.commands.result import Result
from aerogel.commands.volumes import volumes_of
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.digest import Digest
from aerogel.runtime.volumes import users_of

__all__ = ["ABSENT", "EXAMPLES", "Prune", "PruneResult", "run"]

EXAMPLES = (
    ("what was not used for a week", "aerogel prune --older-than 7d"),
    ("everything but the images that have a name", "aerogel prune --all"),
)

ABSENT = {
    ("--filter",): "`--older-than 24h` removes what was not used for so long",
    ("--volumes",): "`aerogel volume prune` removes those that no container has; `--all` removes cache mounts too",
    ("--keep-storage", "--max-used-space", "--reserved-space"): "`--max-size 10GB` says how much may stay",
}
"""What to use instead of docker's flags that `aerogel prune` does not have."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Prune(Struct, frozen=True, kw_only=True):
    """Remove what nothing needs: layers that no result of a step and no image has, images without a name.

    With a flag also results of steps, cache mounts, downloads, logs and records of builds. Images that have a name stay.
    """

    all: Annotated[bool, Flag("Remove everything but images that have a name", short="a")] = False
    older_than: Annotated[str, Flag("Remove what was not used for so long, such as `12h` or `7d`", metavar="TIME")] = ""
    max_size: Annotated[str, Flag("Remove the oldest until no more is taken, such as `10GB`", metavar="SIZE")] = ""
    keep_untagged: Annotated[bool, Flag("Keep images that have no name")] = False
    dry_run: Annotated[bool, Flag("Only tell what would be removed")] = False
    force: Annotated[bool, Flag("Accepted for docker's sake: nothing is asked", short="f", hidden=True)] = False


class PruneResult(Result, frozen=True, kw_only=True):
    images: tuple[Digest, ...]
    actions: int
    layers: int
    snapshots: int
    blobs: int
    mounts: int
    files: int
    """Downloads, logs, records of builds."""
    freed_bytes: int
    dry_run: bool
    left: tuple[str, ...] = ()
    """What is there still that could go, and how."""

    def text(self) -> str:
        verb = "would be removed" if self.dry_run else "removed"
        return (
            f"{verb}: {len(self.images)} images, {self.actions} step results, {self.layers} layers, "
            f"{self.snapshots} snapshots, {self.blobs} blobs, {self.mounts} cache mounts, {self.files} other files, "
            f"{size(self.freed_bytes)}" + "".join(f"\nleft: {line}" for line in self.left)
        )


def run(options: Prune, world: World) -> PruneResult:
    """Removes. Raises `prune.bad-value`, `store.busy` while another process uses the store, `store.*`."""
    from aerogel.store.gc import prune

    cutoff = world.clock() - _seconds(options.older_than) if options.older_than else None
    done = prune(
        world.store,
        cutoff_s=cutoff,
        max_size_bytes=_bytes(options.max_size) if options.max_size else None,
        whole_cache=options.all,
        keep_untagged=options.keep_untagged,
        dry_run=options.dry_run,
        remove=None if options.dry_run else lambda path: world.helper().call("remove", {"path": path}),
        measure=lambda path: measured(path, world),
        needed=_needed(world),
    )
    return PruneResult(
        images=done.images,
        actions=done.actions,
        layers=done.layers,
        snapshots=done.snapshots,
        blobs=done.blobs,
        mounts=done.mounts,
        files=done.files,
        freed_bytes=done.freed_bytes,
        dry_run=options.dry_run,
        left=_left(options, world),
    )


def _needed(world: World) -> list[str]:
    """The keys of the snapshots that containers are made of."""
    lowers = {lower for seen in containers_of(world).list() for lower in seen.container.sandbox.root.lowers}
    names = {part for lower in lowers for part in lower.split("/") if part.startswith("sha256-")}
    return [name.replace("-", ":", 1) for name in names]


def _left(options: Prune, world: World) -> tuple[str, ...]:
    """What this command leaves alone, for those who wanted more."""
    found = []
    ended = sum(not seen.is_running for seen in containers_of(world).list())
    if ended:
        found.append(f"{_count(ended, 'container')} that ended: `aerogel container prune`")
    containers = containers_of(world).list()
    unused = sum(not users_of(each.name, containers) for each in volumes_of(world).list())
    if unused:
        found.append(f"{_count(unused, 'volume')} that no container has: `aerogel volume prune -a`")
    if not (options.all or options.older_than or options.max_size):
        from aerogel.store.gc import du

        used = du(world.store, lambda path: measured(path, world))
        kinds = (
            (used.actions, used.actions_bytes, "step result"),
            (used.mounts, used.mounts_bytes, "cache mount"),
            (used.failed, used.failed_bytes, "failed step"),
        )
        parts = [f"{_count(number, word)} ({size(taken)})" for number, taken, word in kinds if number]
        if parts:
            found.append(f"{', '.join(parts)}: `aerogel prune --all`, or `--older-than 7d`")
    return tuple(found)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal()):
        raise _bad("--older-than", text, "a number and one of `s`, `m`, `h`, `d`, `w`: `12h`, `7d`")
    return float(int(number) * _UNITS[unit])


def _bytes(text: str) -> int:
    number = text.rstrip("KMGTBkmgtb")
    unit = text[len(number) :].upper()
    unit = unit if unit in _SIZES else f"{unit}B"
    if unit not in _SIZES or not (number.isascii() and number.isdecimal()):
        raise _bad("--max-size", text, "a number and `KB`, `MB`, `GB` or `TB`: `10GB`")
    return int(number) * _SIZES[unit]


def _bad(flag: str, text: str, valid: str) -> AerogelError:
    return AerogelError(
        f"`{flag} {text}` cannot be understood",
        code="prune.bad-value",
        exit_status=EXIT_USAGE,
        hints=[f"write {valid}"],
    )
