"""The `syntax` directive: which frontend a file asks for, and whether what is built in here will do.

A frontend is never pulled. Spec: the Dockerfile reference, "syntax".
"""

from __future__ import annotations

import re

from aerogel.dockerfile.ast import Dockerfile
from aerogel.errors import Diagnostic

__all__ = ["FRONTEND_VERSION", "syntax_warning"]

FRONTEND_VERSION = (1, 26)
"""The version of BuildKit's frontend whose language is understood here, labs features included."""

_OFFICIAL = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?"
    r"(?::(?:(?P<major>[0-9]{1,6})(?:\.(?P<minor>[0-9]{1,6}))?[0-9a-z.-]*|[a-z][a-z0-9._-]*))?"
    r"(?:@sha256:[0-9a-f]{64})?\Z"
)


def syntax_warning(dockerfile: Dockerfile) -> Diagnostic | None:
    """A warning if the file asks for a newer or another frontend than the one built in."""
    directive = dockerfile.directives.syntax
    if directive is None:
        return None
    value = directive.value
    name = value.text.split(" ")[0]
    built_in = ".".join(map(str, FRONTEND_VERSION))
    if name == "dockerfile.v0":
        return None
    match = _OFFICIAL.match(name)
    if match is None:
        return Diagnostic(
            f"the frontend `{name}` is not used: the built-in one reads the file",
            code="dockerfile.other-frontend",
            span=value.span,
            hints=[f"built in is the language of `docker/dockerfile:{built_in}-labs`"],
        )
    major, minor = int(match["major"] or FRONTEND_VERSION[0]), int(match["minor"] or 0)
    if (major, minor) > FRONTEND_VERSION:
        return Diagnostic(
            f"the file asks for frontend {major}.{minor}, built in is {built_in}",
            code="dockerfile.newer-frontend",
            span=value.span,
            hints=["what is newer is refused as unknown"],
        )
    return None
