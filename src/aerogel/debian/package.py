"""One binary package as an index describes it: the value that resolution, locks and downloads pass along.

Not the whole paragraph: description, maintainer and tags stay in the package's own control file, which
`deb.read_control` returns byte for byte (that is what goes to `/var/lib/dpkg/status.d`).
Spec: Debian Policy 5.3, 7; repository format "Packages indices".
"""

from __future__ import annotations

import msgspec

__all__ = ["Package"]


class Package(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A candidate. Relation fields are the raw text of the index; `control.relations` parses them.

    `size` and `installed_size` are bytes (the index counts the latter in KiB). `suite` and `component` say which
    index it came from; `filename` is relative to the archive's root. `essential` is `Essential: yes`.
    """

    name: str
    version: str
    architecture: str
    filename: str
    size: int
    sha256: str
    source: str
    source_version: str
    depends: str = ""
    pre_depends: str = ""
    recommends: str = ""
    provides: str = ""
    conflicts: str = ""
    breaks: str = ""
    replaces: str = ""
    multi_arch: str = ""
    priority: str = ""
    section: str = ""
    essential: bool = False
    installed_size: int = 0
    suite: str = ""
    component: str = ""

    @property
    def digest(self) -> str:
        """`sha256:` and the hexadecimal digest of the .deb."""
        return f"sha256:{self.sha256}"

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture}"
