"""`aerogel container prune`: removes containers that have ended, with what they wrote and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Struct

from aerogel.commands.detaching import containers_of, remove
from aerogel.commands.du import measured
from aerogel.commands.format import size
from aerogel.commands.logs import parse_moment
from aerogel.commands.result import Result
from aerogel.commands.run_flags import fault
from aerogel.commands.world import World
from aerogel.errors import nearest
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "ContainerPrune", "ContainerPruneResult", "filters_of", "fits_labels", "run"]

EXAMPLES = (("those that are a day old", "aerogel container prune --filter until=24h"),)


class ContainerPrune(Struct, frozen=True, kw_only=True):
    """Remove the containers that have ended."""

    filter: Annotated[
        tuple[str, ...], Flag("Only those that fit: `until=24h`, `label=`, `label!=`", metavar="KEY=VALUE")
    ] = ()
    force: Annotated[bool, Flag("Accepted for docker's sake: nothing is asked", short="f", hidden=True)] = False


class ContainerPruneResult(Result, frozen=True, kw_only=True):
    ids: tuple[str, ...]
    freed_bytes: int

    def text(self) -> str:
        shown = ["Deleted Containers:", *self.ids, ""] if self.ids else []
        return "\n".join([*shown, f"Total reclaimed space: {size(self.freed_bytes)}"])


def run(options: ContainerPrune, world: World) -> ContainerPruneResult:
    """Raises `prune.filter`, `logs.time`."""
    filters = filters_of(options.filter, ("until", "label", "label!"))
    until = [parse_moment(value, "--filter until", world.clock()) / 1e9 for key, value in filters if key == "until"]
    ids: list[str] = []
    freed = 0
    for seen in containers_of(world).list():
        container = seen.container
        is_young = any(container.created > moment for moment in until)
        if seen.is_running or seen.state.status == "created" or is_young or not fits_labels(container.labels, filters):
            continue
        taken = measured(seen.folder, world)
        remove(seen, world)
        freed += taken
        ids.append(container.id)
    return ContainerPruneResult(ids=tuple(ids), freed_bytes=freed)


def filters_of(given: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """`key=value` or `key!=value` (then the key ends with `!`). Raises `prune.filter`."""
    found = []
    for text in given:
        key, sign, value = text.partition("=")
        if key not in known or not sign or not value:
            guess = nearest(key, known)
            shown = ", ".join(f"`{each}=`" for each in known)
            hint = f"did you mean `{guess}`?" if guess and guess != key else f"filters are {shown}"
            raise fault(f"filter `{text}` is not known", "prune.filter", hint)
        found.append((key, value))
    return found


def fits_labels(labels: Mapping[str, str], filters: Sequence[tuple[str, str]]) -> bool:
    """Whether the labels have what `label` filters want and not what `label!` filters name."""
    for key, text in filters:
        if key in ("label", "label!"):
            name, sign, wanted = text.partition("=")
            has = name in labels and (not sign or labels[name] == wanted)
            if has is (key == "label!"):
                return False
    return True
