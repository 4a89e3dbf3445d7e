"""Locales, compiled by Debian's own localedef from Debian's own sources, for any byte order.

`de_DE`, `de_DE.UTF-8`, `de_DE.ISO-8859-15@euro`; without a character set it is UTF-8. The result is a directory below
/usr/lib/locale, as `localedef --no-archive` makes it; a locale of the release's glibc fits that glibc on every
architecture of one byte order.
Spec: localedef(1), locale(5); glibc `_nl_normalize_codeset`.
"""

from __future__ import annotations

import gzip
import re
import zlib

from aerogel.distroless.layout import Layout
from aerogel.distroless.work import Work
from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = ["TOOLS", "directory_of", "make_locales", "parse_locale"]

TOOLS = ("libc-bin", "locales")
"""Packages with localedef and what it reads."""

_NAME = re.compile(r"(C|[a-z]{2,3}(?:_[A-Z]{2})?)(?:\.([A-Za-z0-9_-]+))?(@[a-z]+)?")
_SOURCES = b"usr/share/i18n/locales/"
_CHARMAPS = b"usr/share/i18n/charmaps/"
_BIG_ENDIAN = ("s390x",)
_FOLDER = b"usr/lib/locale"


def parse_locale(name: str) -> tuple[str, str]:
    """The definition (`de_DE@euro`) and the character set. Raises `base.locale`."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise _fault(f"`{name}` is no name of a locale", "locales are called `de_DE`, `en_US.UTF-8`, `sr_RS@latin`")
    return found[1] + (found[3] or ""), found[2] or "UTF-8"


def directory_of(name: str) -> str:
    """The directory in which glibc looks: the character set in lower case with letters and digits only."""
    definition, charset = parse_locale(name)
    language, at, modifier = definition.partition("@")
    letters = re.sub(r"[^a-z0-9]", "", charset.lower())
    return f"{language}.{'iso' if letters.isdigit() else ''}{letters}{at}{modifier}"


def make_locales(work: Work) -> None:
    """Puts the locales of the recipe into the image. Raises `base.locale`, `distroless.tool`, `sandbox.*`."""
    names = [each for each in work.recipe.locales if not _is_there(work.layout, each)]
    if not names:
        return
    with work.room(work.tools("locales")) as room:
        for name in names:
            definition, charset = parse_locale(name)
            _check(room.layout, definition, charset)
        order = "--big-endian" if work.arch in _BIG_ENDIAN else "--little-endian"
        for name in names:
            definition, charset = parse_locale(name)
            folder = directory_of(name)
            room.layout.write(b"out/.keep", b"")
            room.run(["localedef", "--no-archive", order, "-i", definition, "-f", charset, f"/out/{folder}"])
            room.take(work.layout, b"out/" + folder.encode(), _FOLDER + b"/" + folder.encode())


def _is_there(layout: Layout, name: str) -> bool:
    """Whether a package brings it, as libc-bin does C.UTF-8."""
    return _FOLDER + b"/" + directory_of(name).encode() + b"/LC_CTYPE" in layout.items


def _check(layout: Layout, definition: str, charset: str) -> None:
    """That the sources are there; the character set is unpacked, as there is no gzip in the room. Raises `base.locale`."""
    if _SOURCES + definition.encode() not in layout.items:
        known = [path.removeprefix(_SOURCES).decode() for path in layout.items if path.startswith(_SOURCES)]
        near = nearest(definition, known)
        raise _fault(f"Debian has no locale `{definition}`", *([f"did you mean `{near}`?"] if near else []))
    path = _CHARMAPS + charset.encode()
    packed = layout.items.get(path + b".gz")
    if path in layout.items or packed is None:
        if path not in layout.items:
            known = [
                one.removeprefix(_CHARMAPS).decode().removesuffix(".gz")
                for one in layout.items
                if one.startswith(_CHARMAPS)
            ]
            near = nearest(charset, known)
            raise _fault(f"Debian has no character set `{charset}`", *([f"did you mean `{near}`?"] if near else []))
        return
    try:
        layout.write(path, gzip.decompress(layout.read(packed)))
    except (OSError, EOFError, zlib.error) as error:
        raise AerogelError(f"the character set `{charset}` is damaged: {error}", code="base.locale") from None


def _fault(message: str, *hints: str) -> AerogelError:
    return AerogelError(message, code="base.locale", hints=hints, exit_status=EXIT_USAGE)
