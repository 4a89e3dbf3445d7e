"""`aerogel logout`: forget the credentials of a registry."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from aerogel.commands.login import registry_of
from aerogel.commands.registries import credentials
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.flag import Flag
from aerogel.oci.reference import DEFAULT_REGISTRY

__all__ = ["EXAMPLES", "Logout", "LogoutResult", "run"]

EXAMPLES = (("of one registry", "aerogel logout registry.example"),)


class Logout(Struct, frozen=True, kw_only=True):
    """Forget the credentials of a registry."""

    registry: Annotated[str, Flag("Registry; default: Docker Hub", positional=True, metavar="HOST[:PORT]")] = (
        DEFAULT_REGISTRY
    )


class LogoutResult(Result, frozen=True, kw_only=True):
    registry: str
    removed: tuple[str, ...]
    """Files and credential programs that knew the registry."""

    def text(self) -> str:
        if not self.removed:
            return f"Not logged in to {self.registry}"
        return f"Removed the credentials of {self.registry} from {', '.join(self.removed)}"


def run(options: Logout, world: World) -> LogoutResult:
    """Removes them from every file that is searched. Raises `registry.config`, `net.credential-program`."""
    registry = registry_of(options.registry)
    return LogoutResult(registry=registry, removed=tuple(credentials(world).erase(registry)))
