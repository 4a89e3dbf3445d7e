"""What every RUN sees of the host and no key or layer knows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Sink, Warned
from aerogel.graph.ops import STEP_HOSTNAME
from aerogel.redact import Redactor
from aerogel.sandbox.cgroup import Group, Resources, make_group
from aerogel.sandbox.emulator import Emulator
from aerogel.sandbox.spec import Limit, Mount, Rung, Sandbox, unheld
from aerogel.solve.builders import Extended, extends_nothing
from aerogel.solve.logs import Logs

__all__ = ["Ambient", "Lent"]


class Lent(NamedTuple):
    """What the user lends to the steps of one build, and how far they may go.

    `secrets` are contents by id, `agents` paths of ssh agents' sockets by id. `timeout_s` is for each step, None for
    no limit; `logs` keeps what steps print; `redactor` knows the secrets.
    """

    secrets: Mapping[str, bytes] = MappingProxyType({})
    agents: Mapping[str, str] = MappingProxyType({})
    limits: tuple[Limit, ...] = ()
    shm_size_bytes: int = 64 << 20
    timeout_s: float | None = None
    resources: Resources = Resources()
    logs: Logs | None = None
    redactor: Redactor | None = None


class Ambient:
    """What every RUN sees of the host and no key or layer knows: environment and mounts.

    `env` is set unless the step sets it. `mounts` gives the mounts for a root that has these paths: it is asked
    with a function that tells whether a path exists in the root. `emulator` knows how a step for another platform runs,
    `extend` how the base of a name gets packages, for those who try to install them without a shell.
    """

    __slots__ = ("_lock", "_told", "emulator", "env", "extend", "lent", "mounts")

    def __init__(
        self,
        env: Mapping[str, str],
        mounts: Callable[[Callable[[str], bool]], tuple[Mount, ...]],
        lent: Lent = Lent(),  # noqa: B008 - a tuple, made once and never changed
        emulator: Emulator | None = None,
        extend: Callable[[str, Sequence[str]], Extended] = lambda _, packages: extends_nothing(packages),
    ) -> None:
        self.extend = extend
        self.emulator = Emulator() if emulator is None else emulator
        self.env = env
        self.mounts = mounts
        self.lent = lent
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def group(self, sink: Sink) -> Group | None:
        """A control group with the limits of the build; None, with one warning, where none can be made."""
        if not self.lent.resources.controllers:
            return None
        try:
            return make_group(self.lent.resources)
        except AerogelError as error:
            self._tell(Diagnostic(error.message, code=error.code, hints=error.hints), sink)
            return None

    def check(self, sandbox: Sandbox, rung: Rung, sink: Sink) -> None:
        """Warns once of what is asked for and does not hold where nothing can be mounted."""
        remark = unheld(sandbox, rung, STEP_HOSTNAME)
        if remark is not None:
            self._tell(remark, sink)

    def _tell(self, remark: Diagnostic, sink: Sink) -> None:
        with self._lock:
            if remark.message in self._told:
                return
            self._told.add(remark.message)
        sink.emit(Warned(remark))
