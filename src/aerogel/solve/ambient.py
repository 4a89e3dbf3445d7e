"""What every RUN sees of the host and no key or layer knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aerogel.sandbox.spec import Mount

__all__ = ["Ambient"]


class Ambient:
    """What every RUN sees of the host and no key or layer knows: environment and mounts.

    `env` is set unless the step sets it. `mounts` gives the mounts for a root that has these paths: it is asked
    with a function that tells whether a path exists in the root.
    """

    __slots__ = ("env", "mounts")

    def __init__(self, env: Mapping[str, str], mounts: Callable[[Callable[[str], bool]], tuple[Mount, ...]]) -> None:
        self.env = env
        self.mounts = mounts
