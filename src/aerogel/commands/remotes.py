"""The clients for what is fetched from elsewhere, as the settings of a run want them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from aerogel.commands.transport import http_client, proxies
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.solve.ambient import Lent
from aerogel.solve.remotes import Remotes

if TYPE_CHECKING:
    from aerogel.net.git import GitClient

__all__ = ["open_remotes"]


_NOTHING = Lent()
_CREDENTIALS = ("HTTP_AUTH_HEADER_", "HTTP_AUTH_TOKEN_", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN")


def open_remotes(world: World, lent: Lent = _NOTHING) -> Remotes:
    """The remote sources of a build; the caller closes them. Raises `build.secret` for credentials that cannot be."""
    secrets = _credentials(world, lent.secrets)
    agent = lent.agents.get("default", "")
    return Remotes(
        world.store, lambda: http_client(world), lambda: _git_client(world, secrets, agent), world.sink, secrets
    )


def _credentials(world: World, secrets: Mapping[str, bytes]) -> Mapping[str, str]:
    """The secrets that are sent to servers, by name."""
    found: dict[str, str] = {}
    for name, content in secrets.items():
        if not name.startswith(_CREDENTIALS):
            continue
        text = content.decode("utf-8", "surrogateescape").strip()
        if not text.isascii() or not text.isprintable():
            raise AerogelError(
                f"secret `{name}` cannot be sent to a server: it is not one line of ASCII",
                code="build.secret",
                exit_status=EXIT_USAGE,
                hints=["a token, or the value of an `Authorization` header, is one line"],
            )
        world.redactor.add(text)
        world.redactor.add(base64.b64encode(f"x-access-token:{text}".encode()).decode())
        found[name] = text
    return MappingProxyType(found)


def _git_client(world: World, secrets: Mapping[str, str], agent: str) -> GitClient:
    from aerogel.net.git import GitClient

    settings = world.settings
    environment = {**settings.environment, "SSH_AUTH_SOCK": agent} if agent else settings.environment
    return GitClient(
        settings.cache / "git-v1", environment, proxies=proxies(settings), ca=str(settings.ca), secrets=secrets
    )
