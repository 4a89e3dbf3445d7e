"""`aerogel login`: credentials of a registry, tried and kept where docker keeps them."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Annotated

from msgspec import Struct

from aerogel.commands.registries import credentials, open_registries
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.flag import Flag
from aerogel.oci.reference import DEFAULT_REGISTRY
from aerogel.registry.credentials import Credential

__all__ = ["EXAMPLES", "Login", "LoginResult", "registry_of", "run"]

EXAMPLES = (("with a token from a file", "aerogel login -u amy --password-stdin registry.example < token"),)


class Login(Struct, frozen=True, kw_only=True):
    """Keep the credentials of a registry.

    They go to the credential program that docker's configuration names, else into that configuration.
    """

    registry: Annotated[str, Flag("Registry; default: Docker Hub", positional=True, metavar="HOST[:PORT]")] = (
        DEFAULT_REGISTRY
    )
    username: Annotated[str, Flag("User", short="u", metavar="NAME")] = ""
    password: Annotated[str, Flag("Password; others can see it in the list of processes", short="p")] = ""
    password_stdin: Annotated[bool, Flag("Read the password from standard input")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class LoginResult(Result, frozen=True, kw_only=True):
    registry: str
    where: str
    """The file or credential program that keeps them."""

    def text(self) -> str:
        return f"Login Succeeded, kept in {self.where}"


def run(options: Login, world: World) -> LoginResult:
    """Tries the credentials and keeps them. Raises `login.*`, `registry.*`, `net.*`."""
    registry = registry_of(options.registry)
    if not options.username:
        raise _usage("there is no user to log in", "name one with `-u NAME`")
    password = _password(options, world)
    world.redactor.add(password)
    credential = Credential(options.username, password)
    with closing(open_registries(world)) as registries:
        registries.endpoint(registry, credential=credential).sign_in()
    return LoginResult(registry=registry, where=credentials(world).save(registry, credential))


def registry_of(text: str) -> str:
    """The registry that a user names, maybe as a URL. Raises `login.registry`."""
    host = text.partition("://")[2] if "://" in text else text
    host = host.removesuffix("/").removesuffix("/v1").removesuffix("/v2").lower()
    if not host or "/" in host or "@" in host or any(c.isspace() for c in host):
        raise AerogelError(
            f"`{text}` is not a registry",
            code="login.registry",
            hints=["a registry is `host` or `host:port`"],
            exit_status=EXIT_USAGE,
        )
    return DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io") else host


def _password(options: Login, world: World) -> str:
    if options.password:
        return options.password
    if options.password_stdin:
        with os.fdopen(os.dup(world.streams.stdin), "rb") as stream:
            password = stream.read(1 << 20).decode("utf-8", "surrogateescape").rstrip("\r\n")
    elif os.isatty(world.streams.stdin):
        from getpass import getpass

        password = getpass("Password: ")
    else:
        raise _usage("there is no password, and no terminal to ask for one", "pipe it in with `--password-stdin`")
    if not password:
        raise _usage("the password is empty", "pipe it in with `--password-stdin`")
    return password


def _usage(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="login.missing", hints=[hint], exit_status=EXIT_USAGE)
