"""Files that say where registries are asked: podman's `registries.conf`, containerd's `hosts.toml`, `certs.d`, our own.

Each is read when a registry is first asked that it may concern. Keys that are for other tools are passed over; what
has the wrong form is the user's fault and names the file (`registry.config`).
Spec: containers-registries.conf(5) version 2, containers-certs.d(5); containerd docs/hosts.md; docker "certificates".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from aerogel.decoding import prepare
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.net.peer import NOBODY, Peer
from aerogel.oci.reference import DEFAULT_REGISTRY
from aerogel.registry.hosts import BLOBS, HUB_HOST, PULL, PUSH, RESOLVE, Hosts, Mirror, Place, Rule

__all__ = ["HostFiles", "OwnHost"]

_T = TypeVar("_T", bound=msgspec.Struct)
_FROM = {
    "all": frozenset({PULL, RESOLVE, BLOBS}),
    "digest-only": frozenset({PULL, BLOBS}),
    "tag-only": frozenset({RESOLVE, BLOBS}),
}
_NAMES_REGISTRY = re.compile(rb"(?m)^\s*(\[\[\s*\"?registry\b|\"?registry\"?\s*=)")
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", HUB_HOST})


class OwnHost(msgspec.Struct, frozen=True, kw_only=True):
    """What our own configuration says about one registry. Files are absolute paths."""

    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    blocked: bool = False
    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    where: str = ""


class HostFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files and folders of one user, strongest first; those that are not there say nothing."""

    own: Mapping[str, OwnHost] = {}
    conf: Path | None = None
    """The main `registries.conf`."""
    drop_ins: tuple[Path, ...] = ()
    """Folders of more of them, of which the later ones win."""
    hosts: tuple[Path, ...] = ()
    """Folders of `HOST/hosts.toml`."""
    certificates: tuple[Path, ...] = ()
    """Folders of `HOST/*.crt`, `HOST/*.cert` with `HOST/*.key`."""

    def load(self, insecure: frozenset[str] = frozenset()) -> Hosts:
        """Nothing is read yet."""
        named = {registry for registry, each in self.own.items() if each.insecure}
        shared = cache(lambda: _conf_rules(self.conf, self.drop_ins))
        return Hosts(
            (self._own_rules, lambda _: shared(), cache(lambda registry: _hosts_rules(self.hosts, registry))),
            insecure=insecure | named,
            trust=cache(self._trust),
        )

    def _own_rules(self, registry: str) -> Sequence[Rule]:
        found = []
        for prefix, each in self.own.items():
            if (each.mirrors or each.blocked) and prefix.partition("/")[0] == registry:
                mirrors = tuple(_own_mirror(text, prefix, each.where) for text in each.mirrors)
                found.append(Rule(prefix=prefix, where=each.where, mirrors=mirrors, is_blocked=each.blocked))
        return found

    def _trust(self, registry: str) -> Peer:
        own = self.own.get(registry)
        found = _certificates(self.certificates, registry)
        if own is None:
            return found
        clients = ((own.client_cert, own.client_key),) if own.client_cert else found.clients
        authorities = (*((own.ca,) if own.ca else ()), *found.authorities)
        return Peer(authorities=authorities, clients=clients, headers=own.headers)


def _config(message: str, where: object) -> AerogelError:
    return AerogelError(
        f"{message} in `{where}`",
        code="registry.config",
        exit_status=EXIT_USAGE,
        hints=["it says where registries are asked: mend it, or take it away"],
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _config(f"{(error.strerror or str(error)).lower()}", path) from None


def _toml(path: Path, kind: type[_T]) -> _T | None:
    data = _read(path)
    if data is None:
        return None
    import tomllib

    prepare(kind)
    try:
        return msgspec.convert(tomllib.loads(data.decode()), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _config(f"no TOML ({error})", path) from None
    except RecursionError:
        raise _config("no TOML (it is nested too deeply)", path) from None
    except msgspec.ValidationError as error:
        raise _config(f"a value of the wrong type ({error})", path) from None


# Ours.


def _own_mirror(text: str, prefix: str, where: str) -> Mirror:
    scheme, sign, rest = text.rpartition("://")
    if (sign and scheme not in ("http", "https")) or not rest.strip("/") or any(one.isspace() for one in text):
        raise _config(f"`{text}` as a mirror, which is no `HOST[:PORT][/PATH]`", where)
    location = rest.rstrip("/")
    if "/" in prefix or "/" in location:
        place = Place(registry=location.partition("/")[0], scheme=scheme)
        return Mirror(place=place, location=location, can=_FROM["all"], tells_registry=True)
    return Mirror(place=Place(registry=location, scheme=scheme), can=_FROM["all"], tells_registry=True)


# Podman's.


class _ConfMirror(msgspec.Struct):
    location: str = ""
    insecure: bool = False
    pull_from: Literal["", "all", "digest-only", "tag-only"] = msgspec.field(default="", name="pull-from-mirror")


class _ConfRegistry(msgspec.Struct):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    by_digest_only: bool = msgspec.field(default=False, name="mirror-by-digest-only")
    mirror: list[_ConfMirror] = []


class _Conf(msgspec.Struct):
    registry: list[_ConfRegistry] = []


def _conf_rules(main: Path | None, drop_ins: Sequence[Path]) -> Sequence[Rule]:
    """The rules of the main file and of those in the folders; of two with one prefix the last wins."""
    files = [] if main is None else [main]
    for folder in drop_ins:
        try:
            files += sorted(path for path in folder.iterdir() if path.suffix == ".conf")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _config(f"{(error.strerror or str(error)).lower()}", folder) from None
    found: dict[str, Rule] = {}
    for path in files:
        data = _read(path)
        if data is None or not _NAMES_REGISTRY.search(data):
            continue  # most have short names only, and a parser takes a while
        conf = _toml(path, _Conf)
        for each in conf.registry if conf is not None else ():
            rule = _conf_rule(each, path)
            found[rule.prefix] = rule
    return tuple(found.values())


def _conf_rule(each: _ConfRegistry, path: Path) -> Rule:
    prefix = (each.prefix or each.location).rstrip("/")
    if not prefix:
        raise _config("a `[[registry]]` without `prefix` and `location`", path)
    for location in (each.location, *(mirror.location for mirror in each.mirror)):
        if "://" in location:
            raise _config(f"the location `{location}`, which has no scheme there,", path)
    if not each.location and not prefix.startswith("*."):
        each.location = prefix
    mirrors = []
    for mirror in each.mirror:
        if not mirror.location:
            raise _config(f"a mirror of `{prefix}` without `location`", path)
        can = _FROM["digest-only" if each.by_digest_only else mirror.pull_from or "all"]
        mirrors.append(_located(mirror.location, can, is_insecure=mirror.insecure))
    origin = _located(each.location, _FROM["all"], is_insecure=each.insecure)
    return Rule(prefix=prefix, where=str(path), mirrors=tuple(mirrors), origin=origin, is_blocked=each.blocked)


def _located(location: str, can: frozenset[str], *, is_insecure: bool) -> Mirror:
    location = location.rstrip("/")
    return Mirror(place=Place(registry=location.partition("/")[0], is_insecure=is_insecure), location=location, can=can)


# Containerd's.


class _Server(msgspec.Struct):
    capabilities: list[str] | None = None
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False
    header: dict[str, str | list[str]] = {}


class _HostsFile(_Server):
    server: str = ""
    host: dict[str, _Server] = {}


def _hosts_rules(folders: Sequence[Path], registry: str) -> Sequence[Rule]:
    name, _, port = registry.partition(":")
    names = [registry, f"{name}_{port}_"] if port else [registry]
    for folder in folders:
        for each in (*names, "_default"):
            path = folder / each / "hosts.toml"
            found = _toml(path, _HostsFile)
            if found is not None:
                return (_hosts_rule(found, registry, path),)
    return ()


def _hosts_rule(found: _HostsFile, registry: str, path: Path) -> Rule:
    mirrors = tuple(_host(url, each, registry, path) for url, each in found.host.items())
    return Rule(
        prefix=registry,
        where=str(path),
        mirrors=mirrors,
        origin=_host(found.server or f"https://{registry}", found, registry, path, is_given=bool(found.server)),
    )


def _host(url: str, server: _Server, registry: str, path: Path, *, is_given: bool = True) -> Mirror:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError:
        raise _config(f"the host `{url}`, which is no address,", path) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _config(f"the host `{url}`, which is no address,", path)
    api = parts.path.rstrip("/")
    if not server.override_path and not api.endswith("/v2"):
        api += "/v2"
    host = DEFAULT_REGISTRY if parts.netloc in _HUB_NAMES else parts.netloc
    peer = Peer(
        authorities=tuple(_beside(path, each) for each in ([server.ca] if isinstance(server.ca, str) else server.ca)),
        clients=_clients(server.client, path),
        is_verified=not server.skip_verify,
        headers=tuple((name, value) for name, values in server.header.items() for value in [_joined(values)]),
    )
    scheme = parts.scheme if is_given and "://" in url else ""
    place = Place(registry=host, scheme=scheme, path=api, peer=peer)
    given = server.capabilities
    can = {PULL, RESOLVE} if given is None else {each for each in given if each in (PULL, RESOLVE, PUSH)}
    if PULL in can:
        can.add(BLOBS)
    return Mirror(place=place, can=frozenset(can), tells_registry=host != registry)


def _joined(values: str | list[str]) -> str:
    return values if isinstance(values, str) else ", ".join(values)


def _beside(path: Path, name: str) -> str:
    """A file that is named in another one."""
    return str(path.parent / name)


def _clients(value: str | list[str | list[str]], path: Path) -> tuple[tuple[str, str], ...]:
    found = []
    for each in [value] if isinstance(value, str) else value:
        files = [each] if isinstance(each, str) else each
        if not 1 <= len(files) <= 2:
            raise _config("a `client` that is neither one file nor certificate and key", path)
        found.append((_beside(path, files[0]), _beside(path, files[1]) if len(files) == 2 else ""))
    return tuple(found)


# Docker's and podman's folders of certificates.


def _certificates(folders: Sequence[Path], registry: str) -> Peer:
    authorities: list[str] = []
    clients: list[tuple[str, str]] = []
    for folder in folders:
        place = folder / registry
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue  # most registries have none, and some folders are for others only
        authorities += [str(place / name) for name in names if name.endswith(".crt")]
        for name in names:
            if name.endswith(".cert"):
                key = name.removesuffix(".cert") + ".key"
                if key not in names:
                    raise _config(f"`{name}` without its key `{key}`", place)
                clients.append((str(place / name), str(place / key)))
    return Peer(authorities=tuple(authorities), clients=tuple(clients)) if authorities or clients else NOBODY
