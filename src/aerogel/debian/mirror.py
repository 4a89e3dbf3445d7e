"""Where Debian comes from: an option or setting, else the host's own apt sources, else the fallback list.

For: the ordered places that may serve a suite. Which of them does is found out by `archive`, which asks for the
suite's `InRelease` there: a host that runs another release, or another system, is no hindrance. Whoever serves it,
it is trusted by its signature only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from aerogel.debian.apt_sources import AptEntry, expand_uri, read_apt_sources
from aerogel.errors import EXIT_USAGE, AerogelError

__all__ = ["Place", "Sources", "at_snapshot", "discover", "is_security", "snapshot_time"]


class Place(msgspec.Struct, frozen=True):
    """An archive root (no end slash). `origin` is `option`, `host`, `sibling` or `fallback`.

    `keys` are keyring paths or armoured keys that may sign besides Debian's; `suites` are those it is known for.
    """

    uri: str
    origin: str
    keys: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()


class Sources(msgspec.Struct, frozen=True):
    """Places for the archive and for security updates, in the order in which they are tried."""

    archive: tuple[Place, ...]
    security: tuple[Place, ...]
    skipped: tuple[str, ...] = ()

    def places(self, suite: str) -> tuple[Place, ...]:
        """The places to ask for a suite, those that are known for it first."""
        found = self.security if is_security(suite) else self.archive
        return tuple(sorted(found, key=lambda place: suite not in place.suites))


def is_security(suite: str) -> bool:
    """Whether a suite is published on the security archive."""
    return suite.endswith(("-security", "/updates"))


def discover(mirror: str | None = None, security_mirror: str | None = None, *, apt: Path = Path("/etc/apt")) -> Sources:
    """The places for this run.

    `mirror` and `security_mirror` are archive roots (`http://host/debian`, `file:/path`, `mirror+file:/list`;
    several separated by blanks); a name without scheme gets `http://`. Without `security_mirror` the one beside
    `mirror` (`.../debian-security`) is tried first, then the host's. `apt` is the host's apt configuration folder.

    Raises:
        AerogelError: `debian.mirror` when an option is no address.
    """
    host = read_apt_sources(apt)
    skipped = list(host.skipped)
    fallback = _fallback()
    if mirror:
        archive = [Place(uri, "option") for uri in _option(mirror, skipped)]
    else:
        archive = [*_host_places(host.entries, security=False), Place(fallback["archive"], "fallback")]
    if security_mirror:
        security = [Place(uri, "option") for uri in _option(security_mirror, skipped)]
    else:
        beside = [
            Place(f"{place.uri}-security", "sibling", place.keys) for place in archive if place.origin != "fallback"
        ]
        known = _host_places(host.entries, security=True)
        security = [*beside, *known] if mirror else [*known, *beside]
        security.append(Place(fallback["security"], "fallback"))
    return Sources(_unique(archive), _unique(security), tuple(skipped))


def at_snapshot(moment: str, mirror: str | None, later: Sources | None = None) -> Sources:
    """The places of the archive as it was at a moment (`20261101T000000Z`), on a server such as Debian's own of its past.

    `mirror` is the server's root; below it are `archive/debian/MOMENT` and `archive/debian-security/MOMENT`. `later`
    are places that are tried after it, for what is known by digest.

    Raises:
        AerogelError: `debian.snapshot` without a mirror, unless there are `later` ones; `debian.mirror`.
    """
    if not mirror and later is None:
        raise AerogelError(
            f"the archive of {moment} is asked for, and no server of Debian's past is known",
            code="debian.snapshot",
            hints=["name one with the setting `AEROGEL_DEBIAN_SNAPSHOT_MIRROR`"],
            exit_status=EXIT_USAGE,
        )
    roots = [root.rstrip("/") for root in _option(mirror, [])] if mirror else []
    archive = [Place(f"{root}/archive/debian/{moment}", "option") for root in roots]
    security = [Place(f"{root}/archive/debian-security/{moment}", "option") for root in roots]
    if later is not None:
        return Sources(_unique([*archive, *later.archive]), _unique([*security, *later.security]), later.skipped)
    return Sources(_unique(archive), _unique(security))


def snapshot_time(moment: str) -> float:
    """Seconds since 1970 of `20261101T000000Z`. Raises `debian.snapshot`."""
    try:
        return datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise AerogelError(
            f"`{moment}` is no moment",
            code="debian.snapshot",
            hints=["write it as `20261101T000000Z`, in UTC"],
            exit_status=EXIT_USAGE,
        ) from None


_RELEASES = ("bullseye", "bookworm", "trixie", "forky", "duke", "sid", "oldoldstable", "oldstable", "stable", "testing")


def _host_places(entries: Sequence[AptEntry], *, security: bool) -> list[Place]:
    """The host's mirrors of one kind; those that look like Debian's main archive first."""
    rated: list[tuple[tuple[bool, bool], Place]] = []
    for entry in entries:
        suites = [suite for suite in entry.suites if not suite.endswith("/") or is_security(suite)]
        if not suites:
            continue  # a flat repository holds no suite
        secure = any(is_security(suite) for suite in suites)
        if secure != security and not (not security and secure and len(suites) > 1):
            continue
        known = any(
            suite.removesuffix("-security").partition("-")[0].partition("/")[0] in _RELEASES for suite in suites
        )
        rate = (not known, "main" not in entry.components)
        rated += [(rate, Place(uri, "host", entry.keys, tuple(suites))) for uri in entry.uris]
    return [place for _, place in sorted(rated, key=lambda pair: pair[0])]


def _unique(places: Iterable[Place]) -> tuple[Place, ...]:
    """One place per root; suites and keys of equal roots are joined."""
    found: dict[str, Place] = {}
    for place in places:
        before = found.get(place.uri)
        if before is None:
            found[place.uri] = place
        else:
            found[place.uri] = Place(
                place.uri,
                before.origin,
                tuple(dict.fromkeys(before.keys + place.keys)),
                tuple(dict.fromkeys(before.suites + place.suites)),
            )
    return tuple(found.values())


def _option(text: str, skipped: list[str]) -> list[str]:
    uris: list[str] = []
    for word in text.split():
        spelled = word if word.startswith(("file:", "copy:", "mirror+file:")) or "://" in word else f"http://{word}"
        found = expand_uri(spelled, "the mirror option", skipped)
        if not found or found[0] in ("http:", "https:"):
            raise AerogelError(
                f"`{word}` is no mirror that can be used" + (f": {skipped[-1]}" if skipped else ""),
                code="debian.mirror",
                hints=["name the archive's root, as in `http://mirror.example.org/debian`"],
                exit_status=EXIT_USAGE,
            )
        uris += found
    return uris


def _fallback() -> dict[str, str]:
    from importlib.resources import files

    data = files("aerogel.debian").joinpath("data", "mirrors.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, str])
