"""Who we are at a registry: docker's `config.json`, podman's `auth.json`, and credential programs.

Files are read when a registry is first asked, in the given order; the first that knows the registry wins. Keys may be
a host, docker's URL forms (`https://index.docker.io/v1/`) or podman's `host/namespace/repository`. In each file a
program of `credHelpers` comes before `auths`, `auths` before `credsStore`.
Spec: docker cli config.json; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aerogel.decoding import parse_json
from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError
from aerogel.net.credential import call_credential_program
from aerogel.oci.reference import DEFAULT_REGISTRY

__all__ = ["Credential", "Credentials"]

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105 - the user name that stands for an identity token


class Credential(msgspec.Struct, frozen=True):
    """A user and password, or an identity token. `where` names the file or program, for messages."""

    username: str
    password: str
    identity_token: str = ""
    where: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ***)"


class Credentials:
    """The credentials of one user. `on_secret` learns each secret before it is used."""

    def __init__(
        self,
        files: Sequence[Path],
        environment: Mapping[str, str],
        *,
        on_secret: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._files = tuple(files)
        self._environment = environment
        self._on_secret = on_secret

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """What to say to a registry; None for anonymous. Raises `registry.config`, `net.credential-program`."""
        for file in self._files:
            table = _read(file)
            found = self._in_file(file, table, registry, repository) if table else None
            if found is not None:
                for secret in (found.password, found.identity_token):
                    if secret:
                        self._on_secret(secret)
                return found
        return None

    def _in_file(self, file: Path, table: dict[str, Any], registry: str, repository: str) -> Credential | None:
        helpers = _table(table, "credHelpers", file)
        for key, program in helpers.items():
            if _host(key) == _host(registry) and isinstance(program, str):
                found = self._ask(program, registry)
                if found is not None:
                    return found
        auths = _table(table, "auths", file)
        for key in _keys(registry, repository):
            entry = auths.get(key)
            if isinstance(entry, dict) and (found := _decoded(entry, file)):
                return found
        for key, entry in auths.items():
            is_it = _is_whole_host(key) and _host(key) == _host(registry)
            if is_it and isinstance(entry, dict) and (found := _decoded(entry, file)):
                return found
        store = table.get("credsStore")
        return self._ask(store, registry) if isinstance(store, str) and store else None

    def _ask(self, program: str, registry: str) -> Credential | None:
        answer = call_credential_program(program, "get", _server(registry).encode(), self._environment)
        if answer is None:
            return None
        try:
            value = parse_json(answer)
            username, secret = str(value["Username"]), str(value["Secret"])
        except (ValueError, KeyError, TypeError):
            raise AerogelError(
                f"`docker-credential-{program}` answers what is no credential",
                code="registry.config",
                exit_status=EXIT_HOST,
            ) from None
        where = f"docker-credential-{program}"
        if username == _TOKEN_USER:
            return Credential("", "", secret, where)
        return Credential(username, secret, "", where)

    def save(self, registry: str, credential: Credential) -> str:
        """Keeps a credential: by the program that the last file names, else in the file; returns where.

        Raises `registry.config`, `net.credential-program`.
        """
        file = self._files[-1]
        table = _read(file) or {}
        program = self._program(table, registry, file)
        if program:
            user, secret = credential.username, credential.password
            if credential.identity_token:
                user, secret = _TOKEN_USER, credential.identity_token
            data = {"ServerURL": _server(registry), "Username": user, "Secret": secret}
            call_credential_program(program, "store", json.dumps(data).encode(), self._environment)
            return f"docker-credential-{program}"
        entry = {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
        table["auths"] = {**_table(table, "auths", file), _server(registry): entry}
        _write(file, table)
        return str(file)

    def erase(self, registry: str) -> list[str]:
        """Forgets the credentials of a registry everywhere; returns where there were some. Raises as `save`."""
        found: list[str] = []
        for file in self._files:
            table = _read(file)
            if table is None:
                continue
            program = self._program(table, registry, file)
            if program and self._ask(program, registry) is not None:
                call_credential_program(program, "erase", _server(registry).encode(), self._environment)
                found.append(f"docker-credential-{program}")
            auths = _table(table, "auths", file)
            kept = {
                key: entry for key, entry in auths.items() if not _is_whole_host(key) or _host(key) != _host(registry)
            }
            if len(kept) != len(auths):
                table["auths"] = kept
                _write(file, table)
                found.append(str(file))
        return found

    @staticmethod
    def _program(table: dict[str, Any], registry: str, file: Path) -> str:
        for key, program in _table(table, "credHelpers", file).items():
            if _host(key) == _host(registry) and isinstance(program, str):
                return program
        store = table.get("credsStore")
        return store if isinstance(store, str) else ""


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _config(f"`{file}` cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not data.strip():
        return {}
    try:
        value = parse_json(data)
    except ValueError as error:
        raise _config(f"`{file}` is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _config(f"`{file}` is not a JSON object")
    return value


def _table(table: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = table.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _config(f"`{key}` in `{file}` is not a JSON object")
    return value


def _config(message: str) -> AerogelError:
    return AerogelError(
        message,
        code="registry.config",
        exit_status=EXIT_USAGE,
        hints=["it holds credentials of registries: mend it, or set DOCKER_CONFIG or REGISTRY_AUTH_FILE to another"],
    )


def _decoded(entry: dict[str, Any], file: Path) -> Credential | None:
    token = entry.get("identitytoken") or ""
    user, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            raise _config(f"an `auth` in `{file}` is not base64 of `user:password`") from None
        user, _, password = text.partition(":")
    if not (user or token):
        return None
    return Credential(str(user), str(password), str(token), str(file))


def _write(file: Path, table: dict[str, Any]) -> None:
    """Readable for the user only, whole or not at all; a link to the file stays one."""
    target = Path(os.path.realpath(file))
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as stream:
                json.dump(table, stream, indent="\t", ensure_ascii=False)
                stream.write("\n")
            made.replace(target)
        finally:
            made.unlink(missing_ok=True)
    except OSError as error:
        raise AerogelError(
            f"cannot write `{file}`: {(error.strerror or str(error)).lower()}",
            code="registry.config",
            exit_status=EXIT_HOST,
        ) from None


def _server(registry: str) -> str:
    """The name under which docker keeps a registry's credentials."""
    return _HUB_KEY if registry in _HUB_HOSTS else registry


def _keys(registry: str, repository: str) -> list[str]:
    """Podman's keys, the most special first: `host/a/b`, `host/a`, `host`."""
    parts = repository.split("/") if repository else []
    return ["/".join((registry, *parts[:count])) for count in range(len(parts), -1, -1)]


def _is_whole_host(key: str) -> bool:
    """Whether a key means a whole registry, not one of its namespaces."""
    rest = key.partition("://")[2] if "://" in key else key
    return rest.partition("/")[2].strip("/") in ("", "v1", "v2")


def _host(key: str) -> str:
    rest = key.partition("://")[2] if "://" in key else key
    host = rest.partition("/")[0].lower()
    return DEFAULT_REGISTRY if host in _HUB_HOSTS else host
