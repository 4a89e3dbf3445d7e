"""/var/lib/dpkg/status.d: the records by which scanners recognise the packages of an image without dpkg.

Per package, `NAME` is its control file byte for byte, and `NAME.md5sums` lists the files. A package of which rules
dropped files says so in two fields of its own, and its sums name only what is there: a scanner that checks them
finds no fault, and one that wants to know what is missing can see it.
Spec: GoogleContainerTools/distroless PACKAGE_METADATA.md; Debian Policy 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["DIRECTORY", "PARTIAL", "control_file", "sums_file"]

DIRECTORY = b"var/lib/dpkg/status.d"
PARTIAL = "X-Aerogel-Files"
"""Field that is `partial` in the record of a package of which files were left out."""


def control_file(control: bytes, dropped_by: Iterable[str]) -> bytes:
    """The record of a package; `dropped_by` names the rules that left out files of it."""
    text = control.rstrip(b"\n") + b"\n"
    rules = sorted(set(dropped_by))
    if rules:
        text += f"{PARTIAL}: partial\nX-Aerogel-Rules: {', '.join(rules)}\n".encode()
    return text


def sums_file(md5sums: bytes, is_there: Callable[[bytes], bool]) -> bytes:
    """The lines of a package's md5sums whose paths (relative, as the package names them) are in the image."""
    kept = [
        line
        for line in md5sums.splitlines()
        if (found := line.split(b"  ", 1)) and len(found) == 2 and is_there(found[1])
    ]
    return b"".join(line + b"\n" for line in kept)
