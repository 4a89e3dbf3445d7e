"""The record of a build, written at its end however it ends: what `aerogel why` and `aerogel history` read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from aerogel import __version__
from aerogel.commands.build_model import Build
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.graph.steps import Step
from aerogel.redact import redact
from aerogel.solve.records import steps_of
from aerogel.solve.solver import Solver

__all__ = ["FORMAT", "Recording", "recorded"]

FORMAT = 1


class Recording:
    """One build in the making: one platform of one image."""

    def __init__(
        self, options: Build, world: World, steps: Sequence[Step], *, dockerfile: str, platform: str, times: int
    ) -> None:
        self._world = world
        self._steps = steps
        self._began = world.clock()
        self._zero = time.monotonic()
        context = redact(options.context)
        if "://" not in context and context != "-":
            context = os.path.abspath(world.settings.directory / context)
        identity = "\0".join((context, redact(dockerfile), options.target.lower(), platform))
        self._record: dict[str, Any] = {
            "format": FORMAT,
            "id": "",
            "version": __version__,
            "identity": sha256(identity.encode("utf-8", "surrogateescape")).hexdigest(),
            "began": self._began,
            "context": _text(context),
            "dockerfile": _text(redact(dockerfile)),
            "target": options.target,
            "platform": platform,
            "times": times,
            "names": list(options.tag),
            "image": "",
        }

    def keep(self, solver: Solver, error: BaseException | None) -> None:
        """The solver has ended, with an error or without."""
        fault, result = {}, "done"
        if isinstance(error, AerogelError):
            fault, result = {"code": error.code, "message": error.message}, "failed"
        elif error is not None:
            result = "canceled"
        builds = self._world.store.builds
        steps = steps_of(self._steps, solver)
        self._record |= {
            "id": builds.new_id(self._began),
            "result": result,
            "duration": round(time.monotonic() - self._zero, 4),
            "error": self._redacted(fault),
            "steps": self._redacted(steps),
        }
        builds.put(self._record)

    def finish(self, image: str) -> None:
        """The image is in the store, and has this id."""
        self._record["image"] = image
        self._record["duration"] = round(time.monotonic() - self._zero, 4)
        self._world.store.builds.put(self._record)

    def _redacted(self, value: Any) -> Any:
        """Without the secrets of this run, wherever they turn up."""
        match value:
            case str():
                return self._world.redactor.text(value)
            case dict():
                return {name: self._redacted(each) for name, each in value.items()}
            case list():
                return [self._redacted(each) for each in value]
            case _:
                return value


@contextmanager
def recorded(recordings: Sequence[Recording], solver: Solver) -> Iterator[None]:
    """The solver works in the block; what becomes of it is written down however it ends."""
    try:
        yield
    except BaseException as error:
        for each in recordings:
            each.keep(solver, error)
        raise
    for each in recordings:
        each.keep(solver, None)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
