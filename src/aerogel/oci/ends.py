"""The ends of a copy: a registry, the local store, an OCI layout, archives. Their names are skopeo's.

`docker://NAME` is a registry, `oci:FOLDER[:TAG]` a layout, `oci-archive:FILE[:TAG]` and `docker-archive:FILE[:NAME]`
are files, `docker-daemon:NAME` and `containers-storage:NAME` are what docker and podman keep, `store:NAME` or `NAME` alone
is the local store.
"""

from __future__ import annotations

from typing import NamedTuple

from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.oci.reference import Reference

__all__ = ["DAEMONS", "FILES", "KINDS", "End", "parse_end"]

FILES = ("docker-archive", "oci", "oci-archive")
DAEMONS = ("containers-storage", "docker-daemon")
_LONG = ("containers-storage", "docker-archive", "docker-daemon", "oci-archive")
"""Words that nobody calls an image, with a letter wrong."""
KINDS = ("docker", "store", *FILES, *DAEMONS)
_ABSENT = {"dir": "`oci:FOLDER`, a folder that other tools read too"}


class End(NamedTuple):
    """One end by its words. A file or folder has a `path`, and `name` is a tag or a reference in it, or nothing."""

    kind: str
    path: str = ""
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "store":
            return self.name
        sign = "//" if self.kind == "docker" else ""
        return f"{self.kind}:{sign}{self.path}{':' if self.path and self.name else ''}{self.name}"

    def reference(self) -> Reference:
        """Raises `oci.reference`."""
        try:
            return Reference.parse(self.name)
        except AerogelError as error:
            error.exit_status = EXIT_USAGE
            raise


def parse_end(text: str) -> End:
    """Raises `copy.bad-name`."""
    kind, sign, rest = text.partition(":")
    if kind in _ABSENT and sign:
        raise AerogelError(
            f"`{kind}:` is not read or written here",
            code="copy.bad-name",
            exit_status=EXIT_USAGE,
            hints=[f"use {_ABSENT[kind]}"],
        )
    if not sign or kind not in KINDS:
        almost = nearest(kind, _LONG) if sign else None
        if almost is not None and "/" not in kind:
            raise AerogelError(
                f"`{text}` would be the image `{kind}` of the local store",
                code="copy.bad-name",
                exit_status=EXIT_USAGE,
                hints=[f"did you mean `{almost}:{rest}`?", f"if not, write `store:{text}`"],
            )
        guess = nearest(kind, KINDS) if rest.startswith("/") or "/" in rest else None
        if rest.startswith("//"):
            raise AerogelError(
                f"`{text}` begins with no known word",
                code="copy.bad-name",
                exit_status=EXIT_USAGE,
                hints=[f"did you mean `{guess}:{rest}`?" if guess else "a registry is `docker://NAME`"],
            )
        return End("store", name=text)
    if kind == "docker":
        if not rest.startswith("//"):
            raise AerogelError(
                f"`{text}` names no registry",
                code="copy.bad-name",
                exit_status=EXIT_USAGE,
                hints=[f"write `docker://{rest}`"],
            )
        return End(kind, name=rest[2:])
    if kind == "store" or (kind in DAEMONS and rest):
        return End(kind, name=rest)
    path, _, name = rest.partition(":")
    if not path:
        raise AerogelError(
            f"`{text}` names no {'image' if kind in DAEMONS else 'file'}",
            code="copy.bad-name",
            exit_status=EXIT_USAGE,
            hints=[f"write `{kind}:NAME`" if kind in DAEMONS else f"write `{kind}:PATH` or `{kind}:PATH:TAG`"],
        )
    return End(kind, path, name)
