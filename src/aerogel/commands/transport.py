"""The HTTP client of a run, as its settings want it. Light: a push that has nothing to send is over in a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.commands.world import World
from aerogel.settings import Settings

if TYPE_CHECKING:
    from aerogel.net.http import Http

__all__ = ["http_client", "proxies"]


def http_client(world: World) -> Http:
    """A client with the proxies and certificates of the settings."""
    from aerogel.net.http import Http

    settings = world.settings
    return Http(proxies=proxies(settings), ca="auto" if settings.ca == "none" else settings.ca)


def proxies(settings: Settings) -> dict[str, str]:
    """The host's proxies as `net.http` wants them; a lower-case variable wins, as with curl."""
    found: dict[str, str] = {}
    for kind in ("http", "https", "all", "no"):
        name = f"{kind}_proxy"
        value = settings.environment.get(name) or settings.environment.get(name.upper(), "")
        if value:
            found[kind] = value
    return found
