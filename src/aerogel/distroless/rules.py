"""Which files of the packages an image keeps: a profile is a list of stated rules, each with its reason.

For: deciding about one path of one package, and naming the rule that dropped it (scanners and users see it). Not
for: what is generated instead (`compose`). A rule never changes a file's content.

Patterns are absolute paths: `*` stands for anything but `/`. A pattern that matches a directory covers everything
below it. `keep` wins over `drop` of the same rule; a path goes if any rule of the profile drops it.
"""

from __future__ import annotations

import re

import msgspec

from aerogel.errors import AerogelError, nearest

__all__ = ["LICENCES", "MICRO", "PARITY", "PROFILES", "SLIM", "Filter", "Rule", "profile", "unused_licences"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`why` is shown to users. `packages` limits the rule to packages of these names (patterns; empty: all)."""

    name: str
    why: str
    drop: tuple[str, ...]
    keep: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


LICENCES = "licences"
"""Name of the rule that `unused_licences` applies: it looks at content, so it is no pattern."""

_CERTIFICATES = Rule(
    name="certificates",
    why="the bundle is generated from the single certificates; the tool that makes it needs a shell",
    packages=("ca-certificates",),
    drop=("/etc", "/usr/sbin", "/usr/share/ca-certificates", "/usr/share/doc/*/examples"),
)
_LIBC_TOOLS = Rule(
    name="libc-tools",
    why="programs for administrators; ldconfig stays because ctypes.util.find_library runs it",
    packages=("libc-bin",),
    drop=("/usr/bin", "/usr/sbin", "/usr/share/libc-bin", "/var/cache"),
    keep=("/usr/sbin/ldconfig",),
)

MICRO = (
    _CERTIFICATES,
    _LIBC_TOOLS,
    Rule(
        name="docs",
        why="nothing reads documentation in an image; copyright files stay, they must be passed on",
        drop=("/usr/share/doc/*/*",),
        keep=("/usr/share/doc/*/copyright", "/usr/share/doc/*/copyright.*"),
    ),
    Rule(
        name="manuals",
        why="data for people and for packaging tools, not for programs",
        drop=tuple(
            f"/usr/share/{name}"
            for name in (
                "man",
                "info",
                "lintian",
                "bug",
                "doc-base",
                "menu",
                "applications",
                "bash-completion",
                "dict",
                "misc",
                "gdb",
                "gcc",
                "i18n",
            )
        ),
    ),
    Rule(
        name="translations", why="messages stay English; the locale C.UTF-8 itself stays", drop=("/usr/share/locale",)
    ),
    Rule(
        name="zones",
        why="`right` counts leap seconds and `posix` repeats every zone; the zones themselves all stay",
        drop=("/usr/share/zoneinfo/right", "/usr/share/zoneinfo/posix"),
    ),
    Rule(
        name="gconv",
        why="converters beyond what Debian's own libc-gconv split calls core: Unicode and Latin",
        drop=("/usr/lib/*/gconv/*.so",),
        keep=tuple(
            f"/usr/lib/*/gconv/{name}.so"
            for name in ("ANSI_X3.110", "CP1252", "ISO8859-1", "ISO8859-15", "UNICODE", "UTF-*")
        ),
    ),
    Rule(
        name="engines",
        why="OpenSSL engines are deprecated and none is loaded unless configured",
        drop=("/usr/lib/*/engines-3",),
    ),
    Rule(
        name="host-setup",
        why="for logins, for init and for package set-up, none of which an image without a shell has",
        drop=(
            "/etc/skel",
            "/etc/profile.d",
            "/etc/issue",
            "/etc/issue.net",
            "/etc/update-motd.d",
            "/etc/cron*",
            "/etc/init.d",
            "/etc/dpkg",
            "/usr/share/base-files",
            "/usr/share/binfmts",
            "/usr/lib/binfmt.d",
            "/usr/share/debconf",
        ),
    ),
    Rule(
        name="python-extras",
        why="tests, tutorials, installers and headers of the standard library, which no program imports",
        packages=("libpython3*", "python3*"),
        drop=tuple(
            f"/usr/lib/python3*/{name}"
            for name in ("test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "config-3*")
        ),
    ),
    Rule(
        name="python-nis",
        why="NIS look-ups (gone in Python 3.13) would pull in Kerberos and RPC libraries",
        packages=("libpython3*",),
        drop=("/usr/lib/python3*/lib-dynload/nis.*",),
    ),
)
"""The default: what a program needs at run time, and what a licence or a scanner asks for."""

PARITY = (_CERTIFICATES, _LIBC_TOOLS)
"""Whole packages, except for the two that upstream cuts as well."""

SLIM = Rule(
    name="slim",
    why="as Docker's `-slim` images: dpkg is told to do the same for what is installed later",
    drop=(
        *(f"/usr/share/{name}/*" for name in ("info", "linda", "lintian", "locale", "man")),
        "/usr/share/doc/*/*",
    ),
    keep=("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias"),
)
"""For build roots; equal to what `apt.apt_files` tells dpkg."""

PROFILES = {"micro": MICRO, "parity": PARITY}


def profile(name: str) -> tuple[Rule, ...]:
    """The rules of a profile. Raises `distroless.unknown-profile`."""
    rules = PROFILES.get(name)
    if rules is None:
        known = nearest(name, PROFILES)
        raise AerogelError(
            f"there is no profile `{name}`, only {' and '.join(f'`{each}`' for each in PROFILES)}",
            code="distroless.unknown-profile",
            hints=[f"did you mean `{known}`?"] if known else [],
        )
    return rules


class Filter:
    """The rules that count for one package, compiled."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[Rule, ...], package: str) -> None:
        self._rules = [
            (rule.name, _covers(rule.drop), _covers(rule.keep) if rule.keep else None)
            for rule in rules
            if not rule.packages or _covers(rule.packages).fullmatch(package.encode())
        ]

    def dropped_by(self, path: bytes) -> str | None:
        """Name of the rule that drops a path (relative, as in `Entry`), or None if it stays."""
        for name, drop, keep in self._rules:
            if drop.match(path) and not (keep and keep.match(path)):
                return name
        return None


def _covers(patterns: tuple[str, ...]) -> re.Pattern[bytes]:
    """Matches what any pattern names and what lies below it."""
    parts = [re.escape(pattern.removeprefix("/")).replace(r"\*", "[^/]*") for pattern in patterns]
    return re.compile(f"(?:{'|'.join(parts)})(?:/|$)".encode(), re.DOTALL)


_LICENCE = re.compile(rb"common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")


def unused_licences(names: dict[str, str], copyrights: list[bytes]) -> set[str]:
    """Texts in /usr/share/common-licenses that no copyright file of the image refers to.

    `names` maps each file there to its link target, empty for a regular file. A text is used if it or a link to it
    is named; the licence of a package that is in the image is thus always complete.
    """
    used: set[str] = set()
    for text in copyrights:
        for match in _LICENCE.finditer(text):
            name = match[1].decode()
            # A full stop that ends a sentence is not part of the name; `GPL-2+` means `GPL-2` or later.
            while name and name not in names and name[-1] in "+.":
                name = name[:-1]
            while name in names and name not in used:
                used.add(name)
                name = names[name]
    return set(names) - used
