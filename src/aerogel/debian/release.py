"""A suite's Release file: what it says of itself, and the digests of its indexes.

Parsing and judging only; fetching is `archive`'s. Spec: Debian repository format, "Release files".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from aerogel.debian.control import paragraphs
from aerogel.errors import AerogelError
from aerogel.net.proxy import redact

__all__ = ["IndexFile", "Release", "check_release", "parse_release"]

FUTURE_S = 24 * 3600
"""How far ahead of this machine's clock a Release file may be dated."""


class IndexFile(msgspec.Struct, frozen=True, gc=False):
    """A file below `dists/<suite>/` as the Release file describes it; `size` is bytes."""

    path: str
    sha256: str
    size: int


class Release(msgspec.Struct, frozen=True):
    """A verified Release file. Dates are seconds since 1970 (`valid_until` 0: no limit).

    `asked` is the suite's name as it was asked for, `uri` the archive root that served it, `sha256` the digest of the
    `InRelease` file, `signers` the fingerprints of the certificates that signed.
    """

    asked: str
    uri: str
    suite: str
    codename: str
    origin: str
    version: str
    date: int
    valid_until: int
    by_hash: bool
    architectures: tuple[str, ...]
    components: tuple[str, ...]
    files: Mapping[str, IndexFile]
    sha256: str
    signers: tuple[str, ...]

    def packages_files(self, component: str, arch: str) -> list[IndexFile]:
        """The variants of a Packages index in the order in which they are tried: .xz, .gz, plain."""
        stem = f"{component}/binary-{arch}/Packages"
        return [self.files[stem + end] for end in (".xz", ".gz", "") if stem + end in self.files]


def parse_release(text: bytes, *, asked: str, uri: str, sha256: str, signers: tuple[str, ...]) -> Release:
    """Reads the signed text of an InRelease file.

    Raises:
        AerogelError: `debian.release` when fields are missing or do not parse.
    """
    try:
        fields = next(paragraphs(text.decode("utf-8")))
        return Release(
            asked=asked,
            uri=uri,
            suite=fields.get("suite", ""),
            codename=fields.get("codename", ""),
            origin=fields.get("origin", ""),
            version=fields.get("version", ""),
            date=_seconds(fields["date"]),
            valid_until=_seconds(fields["valid-until"]) if "valid-until" in fields else 0,
            by_hash=fields.get("acquire-by-hash", "no").lower() == "yes",
            architectures=tuple(fields.get("architectures", "").split()),
            components=tuple(fields.get("components", "").split()),
            files=_files(fields["sha256"]),
            sha256=sha256,
            signers=signers,
        )
    except (StopIteration, KeyError, ValueError, TypeError, AerogelError) as error:
        what = f"it has no `{error.args[0]}` field" if isinstance(error, KeyError) else str(error) or "it is empty"
        raise AerogelError(
            f"the Release file of `{asked}` at {redact(uri)} cannot be used: {what}", code="debian.release"
        ) from None


def _files(section: str) -> dict[str, IndexFile]:
    files = {}
    for line in section.split("\n"):
        words = line.split()
        if len(words) == 3:
            digest, size, path = words
            if len(digest) != 64 or not digest.isalnum():
                raise ValueError(f"`{path}` has no SHA-256 digest")
            files[path] = IndexFile(path, digest.lower(), int(size))
    return files


_DATE = re.compile(
    r"(?:[A-Z][a-z]{2}, )?(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d{1,2}):(\d\d):(\d\d) (?:UTC|GMT|Z|\+0000)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _seconds(text: str) -> int:
    """`Sat, 12 Sep 2026 07:55:41 UTC`; as in apt, no other zone will do."""
    found = _DATE.fullmatch(text.strip())
    if found is None or found[2] not in _MONTHS:
        raise ValueError(f"`{text}` is no date in UTC")
    day, _, year, hour, minute, second = found.groups()
    moment = datetime(int(year), _MONTHS.index(found[2]) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    return int(moment.timestamp())


def check_release(release: Release, name: str, now: float, *, allow_expired: bool) -> None:
    """Sees that a signed Release file is the one asked for, and of this time.

    A signature says who published the text, not that it is what the mirror was asked for: another suite's file or an
    old one would pass it.

    Raises:
        AerogelError: `debian.wrong-suite`, `debian.expired`, `debian.future`.
    """
    if release.asked not in (release.suite, release.codename):
        raise AerogelError(
            f"`{name}` is for another suite: expected `{release.asked}`, found suite `{release.suite}`, "
            f"codename `{release.codename}`",
            code="debian.wrong-suite",
            hints=["the mirror serves files in the wrong place; use another mirror"],
        )
    if allow_expired:
        return
    if release.valid_until and release.valid_until < now:
        raise AerogelError(
            f"`{name}` was valid until {_date(release.valid_until)}, {_days(now - release.valid_until)} ago",
            code="debian.expired",
            hints=["the mirror is not updated any more, or it withholds updates; use another mirror"],
        )
    if release.date > now + FUTURE_S:
        raise AerogelError(
            f"`{name}` is dated {_date(release.date)}, {_days(release.date - now)} in the future",
            code="debian.future",
            hints=["set this machine's clock"],
        )


def _date(seconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _days(seconds: float) -> str:
    hours = int(seconds // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{max(1, hours)} hours"
