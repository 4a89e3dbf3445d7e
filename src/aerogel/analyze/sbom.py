"""The forms of an SBOM, and the bytes of a document.

The same image and name give the same bytes: names of documents come from digests, times from the image's config.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from aerogel.analyze import cyclonedx, spdx
from aerogel.analyze.catalog import Catalog
from aerogel.analyze.documents import Subject

__all__ = ["FORMATS", "PREDICATES", "document", "render"]

FORMATS: Mapping[str, Callable[[Catalog, Subject], dict[str, object]]] = {
    "spdx-json": spdx.document,
    "cyclonedx-json": cyclonedx.document,
}
PREDICATES = {"spdx-json": "https://spdx.dev/Document", "cyclonedx-json": "https://cyclonedx.org/bom"}
"""The type that each form has as the predicate of an in-toto statement."""


def document(catalog: Catalog, subject: Subject, form: str) -> dict[str, object]:
    """The document as JSON values. `form` is one of `FORMATS`."""
    return FORMATS[form](catalog, subject)


def render(catalog: Catalog, subject: Subject, form: str) -> bytes:
    """The document as JSON in UTF-8 with a line end."""
    return (json.dumps(document(catalog, subject, form), ensure_ascii=False, indent=1) + "\n").encode()
