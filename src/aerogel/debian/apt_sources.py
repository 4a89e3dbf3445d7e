"""The host's apt sources: one-line `.list` files and deb822 `.sources` files, as values.

For: finding out which mirrors the host uses, with the keys that go with them. Reads files only; what apt itself
would refuse or what is not understood is left out and told in `AptSources.skipped`.
Spec: sources.list(5), apt-transport-mirror(1), apt_auth.conf(5).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import msgspec

from aerogel.debian.control import paragraphs
from aerogel.errors import AerogelError

__all__ = ["AptEntry", "AptSources", "expand_uri", "read_apt_sources"]

_TRANSPORTS = ("http", "https", "file", "copy")


class AptEntry(msgspec.Struct, frozen=True):
    """One binary source. `uris` have no end slash; `keys` are paths of keyrings or armoured keys."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keys: tuple[str, ...]
    file: str


class AptSources(msgspec.Struct, frozen=True):
    entries: tuple[AptEntry, ...]
    skipped: tuple[str, ...]


def read_apt_sources(apt: Path) -> AptSources:
    """All enabled binary sources below an apt configuration folder, in apt's own order."""
    files = [apt / "sources.list"]
    folder = apt / "sources.list.d"
    if folder.is_dir():
        files += sorted(
            path for path in folder.iterdir() if re.fullmatch(r"[A-Za-z0-9_.-]+\.(list|sources)", path.name)
        )
    entries: list[AptEntry] = []
    skipped: list[str] = []
    trusted = _trusted_keys(apt)
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(f"{path}: {error.strerror}")
            continue
        parse = _deb822 if path.suffix == ".sources" else _one_line
        try:
            entries += parse(text, str(path), trusted, skipped)
        except AerogelError as error:
            skipped.append(f"{path}: {error.message}")
    logins = _read_logins(apt, skipped)
    entries = [
        msgspec.structs.replace(entry, uris=tuple(_with_login(uri, logins) for uri in entry.uris)) for entry in entries
    ]
    return AptSources(tuple(entries), tuple(skipped))


class _Login(msgspec.Struct, frozen=True):
    """An entry of `auth.conf`; `machine` may have a scheme, a port and the beginning of a path."""

    machine: str
    login: str
    password: str


def _read_logins(apt: Path, skipped: list[str]) -> list[_Login]:
    files = [apt / "auth.conf"]
    folder = apt / "auth.conf.d"
    if folder.is_dir():
        files += sorted(path for path in folder.iterdir() if path.suffix == ".conf")
    logins: list[_Login] = []
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(f"{path}: {error.strerror}")
            continue
        fields: dict[str, str] = {}
        words = iter(" ".join(line.partition("#")[0] for line in text.splitlines()).split())
        for word in words:
            if word == "machine":
                fields = {}
            fields[word] = next(words, "")
            if fields.keys() >= {"machine", "login", "password"}:
                logins.append(_Login(fields["machine"], fields["login"], fields["password"]))
                fields = {}
    return logins


def _with_login(uri: str, logins: list[_Login]) -> str:
    """The URI with the first login that is for it; without a scheme a login is for https only."""
    scheme, _, rest = uri.partition("://")
    if "@" in rest.partition("/")[0]:
        return uri
    for login in logins:
        wanted, separator, place = login.machine.rpartition("://")
        if (wanted if separator else "https") == scheme and _is_below(rest, place):
            return f"{scheme}://{quote(login.login, safe='')}:{quote(login.password, safe='')}@{rest}"
    return uri


def _is_below(rest: str, place: str) -> bool:
    """Whether `host[:port]/path` lies at or below `host[:port][/path]`."""
    host, _, path = place.partition("/")
    found, _, below = rest.partition("/")
    return host == found and below.startswith(path)


def _trusted_keys(apt: Path) -> tuple[str, ...]:
    """The keyrings that apt takes for entries without Signed-By."""
    folder = apt / "trusted.gpg.d"
    found = [apt / "trusted.gpg"] if (apt / "trusted.gpg").is_file() else []
    if folder.is_dir():
        found += sorted(path for path in folder.iterdir() if path.suffix in (".gpg", ".asc"))
    return tuple(str(path) for path in found)


_LINE = re.compile(r"(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)(.*)")


def _one_line(text: str, file: str, trusted: tuple[str, ...], skipped: list[str]) -> list[AptEntry]:
    """Line = type, [options], URI, suite, components; `#` begins a comment."""
    entries = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            skipped.append(f"{file}:{number}: not a source line")
            continue
        kind, options, uri, suite, components = found.groups()
        if kind != "deb":
            continue
        values = dict(option.partition("=")[::2] for option in (options or "").split())
        keys = values.get("signed-by") or values.get("signed-by+")
        uris = expand_uri(uri.strip('"'), f"{file}:{number}", skipped)
        if uris:
            entries.append(
                AptEntry(
                    uris,
                    (suite,),
                    tuple(components.split()),
                    _keys(keys.split(","), trusted) if keys else trusted,
                    file,
                )
            )
    return entries


def _deb822(text: str, file: str, trusted: tuple[str, ...], skipped: list[str]) -> list[AptEntry]:
    entries = []
    for fields in paragraphs(text):
        if fields.get("enabled", "yes").lower() in ("no", "false", "without", "off", "disable", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        uris = tuple(uri for spelled in fields.get("uris", "").split() for uri in expand_uri(spelled, file, skipped))
        suites = tuple(fields.get("suites", "").split())
        if not uris or not suites:
            skipped.append(f"{file}: a paragraph without usable `URIs` or `Suites`")
            continue
        signed = fields.get("signed-by", "")
        if "-----BEGIN PGP" in signed:
            keys: tuple[str, ...] = (_inline_key(signed),)
        else:
            keys = _keys(signed.replace(",", " ").split(), trusted) if signed else trusted
        entries.append(AptEntry(uris, suites, tuple(fields.get("components", "").split()), keys, file))
    return entries


def _inline_key(value: str) -> str:
    """An armoured key in a field: empty lines are spelled as one dot."""
    lines = [line.strip() for line in value.strip().split("\n")]
    return "\n".join("" if line == "." else line for line in lines) + "\n"


def _keys(names: list[str], trusted: tuple[str, ...]) -> tuple[str, ...]:
    """Paths as they are; a fingerprint means that key of apt's own keyrings, which are then all taken."""
    paths = tuple(name for name in names if name.startswith("/"))
    return paths if len(paths) == len(names) else paths + trusted


def expand_uri(uri: str, where: str, skipped: list[str]) -> tuple[str, ...]:
    """The archive roots that a URI stands for: itself, or the lines of a `mirror+file:` list by their priority."""
    scheme, colon, rest = uri.partition(":")
    if colon and scheme in _TRANSPORTS:
        return (uri.rstrip("/"),)
    if scheme != "mirror+file":
        skipped.append(f"{where}: `{scheme}` is a transport that is not supported")
        return ()
    path = "/" + rest.lstrip("/")
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError as error:
        skipped.append(f"{path}: {error.strerror}")
        return ()
    rated: list[tuple[int, str]] = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        options = dict(word.partition(":")[::2] for word in words[1:])
        priority = options.get("priority", "")
        if options.get("type", "deb") not in ("deb", "index"):
            continue
        if words[0].partition(":")[0] in _TRANSPORTS:
            rated.append((int(priority) if priority.isdigit() else 1 << 30, words[0].rstrip("/")))
        else:
            skipped.append(f"{path}: `{words[0]}` is no address that is supported")
    return tuple(mirror for _, mirror in sorted(rated, key=lambda pair: pair[0]))
