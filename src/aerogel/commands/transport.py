"""The HTTP client of a run, as its settings want it, and its trust for the clients of libraries.

Light: a push that has nothing to send is over in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.commands.world import World
from aerogel.settings import Settings

if TYPE_CHECKING:
    from aerogel.net.http import Http

__all__ = ["http_client", "proxies", "trusted_file"]


def http_client(world: World) -> Http:
    """A client with the proxies and certificates of the settings."""
    from aerogel.net.http import Http

    settings = world.settings
    return Http(proxies=proxies(settings), ca="auto" if settings.ca == "none" else settings.ca)


def trusted_file(world: World, *variables: str) -> str | None:
    """One file with the certificates that our own client trusts, for libraries that take just one.

    None where the system has no such file and `--ca` names none, or one of the library's own `variables` is set: its own
    way then. The file lasts as long as the store is open. Raises `net.ca`, `store.*`.
    """
    import os

    from aerogel.net.peer import read_certificates, system_file

    settings = world.settings
    system = system_file(settings.environment.get("SSL_CERT_FILE", ""))
    if settings.ca in ("auto", "none", ""):
        return None if any(settings.environment.get(variable) for variable in variables) else system
    data = [read_certificates(path) for path in (system, str(settings.directory / settings.ca)) if path]
    fd, path = world.store.scratch.file()
    with os.fdopen(fd, "wb") as file:
        file.write(b"\n".join(data))
    return path


def proxies(settings: Settings) -> dict[str, str]:
    """The host's proxies as `net.http` wants them; a lower-case variable wins, as with curl."""
    found: dict[str, str] = {}
    for kind in ("http", "https", "all", "no"):
        name = f"{kind}_proxy"
        value = settings.environment.get(name) or settings.environment.get(name.upper(), "")
        if value:
            found[kind] = value
    return found
