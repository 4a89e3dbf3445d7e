"""What `base update --security-only` keeps of a lock: packages without a fix, and the tools that made files of them.

Tools are in no image, so no fix of theirs is asked for. They stay as the lock has them for each kind of machine while
what they work on stays, and are those of today where it moves: a Java is linked by the `jlink` of its own version. All
platforms of a lock share the tools. Where something moves on some platforms only, as the archive has its fix for them
first, it waits for the others if tools and image must be of one version, else all take the tools of today.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from aerogel.commands.world import World
from aerogel.debian.resolve import Chosen
from aerogel.distroless.base import Selection, selection_key
from aerogel.distroless.lock import Lock, LockedPackage, kept_tools, locked_packages
from aerogel.distroless.makers import MAKERS
from aerogel.distroless.pool import Pool
from aerogel.distroless.security import security_only
from aerogel.errors import EXIT_FAILED, AerogelError, Diagnostic

__all__ = ["Keeping"]

_TIED = frozenset(maker.name for maker in MAKERS if maker.tied)


class Keeping:
    """A lock that is moved on, and what was found out of its tools on the way. `lock` None: nothing is kept."""

    def __init__(self, lock: Lock | None) -> None:
        self.lock = lock
        self._held: set[str] = set()
        """Sources that do not move."""
        self._fresh: set[str] = set()
        """Makers that take the tools of today everywhere."""
        self._moved: dict[str, dict[tuple[str, str], set[str]]] = {}
        """By maker: on which platforms and for which tags it works on something new, and the sources of that."""
        self._stayed: dict[str, set[tuple[str, str]]] = {}
        """By maker: where it does not."""

    def selection(self, selection: Selection, tag: str, pool: Pool, world: World) -> Selection:
        """The selection with packages and tools of the lock wherever no fix of security has come.

        Raises `base.host` if the lock has no tools for this machine, and what `security_only` raises.
        """
        if self.lock is None:
            return selection
        tools = kept_tools(selection.tools, self.lock, selection.recipe)
        before = _locked(selection, tag, self.lock)
        pool.trust_locked()
        pool.local(selection.arch)
        cache = world.settings.cache / "debian-v1"
        found = security_only(selection, before, pool, cache, world.sink, held=self._held)
        place = (str(selection.platform.normal()), tag)
        used = dict(selection.tools)
        for maker, today in selection.tools.items():
            moved = _moved(today, tools[maker], before, found)
            if moved is not None:
                self._moved.setdefault(maker, {})[place] = moved
                continue
            self._stayed.setdefault(maker, set()).add(place)
            if maker not in self._fresh:
                used[maker] = tools[maker]
        key = selection_key(found.recipe, found.arch, found.chosen, used, found.underlay)
        return msgspec.structs.replace(found, tools=used, key=key)

    def tools(self, host: str, maker: str) -> tuple[LockedPackage, ...] | None:
        """What a machine of this kind keeps for a maker; None if it takes the tools of today."""
        if self.lock is None or maker in self._fresh or maker in self._moved:
            return None
        return self.lock.hosts.get(host, {}).get(maker)

    def is_settled(self, world: World) -> bool:
        """Whether all platforms can share the tools; else all are to be chosen once more.

        Raises `base.together` if what is held moves on some of them all the same.
        """
        settled = True
        for maker, places in self._moved.items():
            waiting = self._stayed.get(maker)
            if not waiting or maker in self._fresh:
                continue
            settled = False
            if maker not in _TIED:
                self._fresh.add(maker)
                continue
            sources = set[str]().union(*places.values())
            text = f"{_named(sources)} moves on {_named(one for one, _ in places)} and not on {_named(one for one, _ in waiting)}"
            if sources <= self._held:
                raise AerogelError(
                    f"{text}: one set of tools cannot serve both",
                    code="base.together",
                    hints=["the mirror is between two updates: try again later, or lock fewer platforms"],
                    exit_status=EXIT_FAILED,
                )
            self._held |= sources
            message = f"{text} yet, so it stays on all: what makes files of it must be of its version"
            hints = ["update again later: the archive has not got the fix for all platforms yet"]
            world.warn_once(Diagnostic(message, code="base.together", hints=hints))
        if not settled:
            self._moved.clear()
            self._stayed.clear()
        return settled


def _locked(selection: Selection, tag: str, lock: Lock) -> Selection:
    """What the lock has for a tag; for a new one all that it has for the platform, of which it takes what it needs."""
    found = lock.platforms.get(str(selection.platform.normal()))
    if found is None:
        return msgspec.structs.replace(selection, chosen=())
    image = found.images.get(tag)
    names = image.packages if image is not None else [each.name for each in found.packages]
    return msgspec.structs.replace(selection, chosen=locked_packages(found, names))


def _named(words: Iterable[str]) -> str:
    return " and ".join(f"`{each}`" for each in sorted(set(words)))


def _moved(today: Sequence[Chosen], kept: Sequence[Chosen], before: Selection, after: Selection) -> set[str] | None:
    """The sources of what a maker works on that is not as it was; None if all of it is.

    A maker works on packages of the names that its tools have: the modules of Java are in the JDK that links them.
    """
    names = {each.package.name for each in today if len(each.why) == 1}
    if names != {each.package.name for each in kept if len(each.why) == 1}:
        return set()
    old, new = ({each.name: each for each in one.packages if each.name in names} for one in (before, after))
    changed = {name for name in names if (name in old) != (name in new)}
    changed |= {name for name in old.keys() & new.keys() if old[name].digest != new[name].digest}
    return {(new.get(name) or old[name]).source for name in changed} if changed else None
