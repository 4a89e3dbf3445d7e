"""The clients for what is fetched from elsewhere, as the settings of a run want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.commands.ambient import proxies
from aerogel.commands.world import World
from aerogel.solve.remotes import Remotes

if TYPE_CHECKING:
    from aerogel.net.git import GitClient
    from aerogel.net.http import Http

__all__ = ["http_client", "open_remotes"]


def open_remotes(world: World) -> Remotes:
    """The remote sources of a build; the caller closes them."""
    return Remotes(world.store, lambda: http_client(world), lambda: _git_client(world), world.sink)


def http_client(world: World) -> Http:
    """A client with the proxies and certificates of the settings."""
    from aerogel.net.http import Http

    settings = world.settings
    return Http(proxies=proxies(settings), ca="auto" if settings.ca == "none" else settings.ca)


def _git_client(world: World) -> GitClient:
    from aerogel.net.git import GitClient

    settings = world.settings
    return GitClient(settings.cache / "git-v1", settings.environment, proxies=proxies(settings), ca=str(settings.ca))
