"""Python distributions: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, `*.egg-info`.

Spec: PyPA core metadata 2.4; PEP 610 (direct_url.json) names the repository of what no index gave.
"""

from __future__ import annotations

import json
import re
from email.parser import HeaderParser

from aerogel.analyze.license import MAX_WORDS, expression, from_classifier
from aerogel.analyze.package import Package

__all__ = ["direct_url", "is_metadata", "package_of"]

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def is_metadata(path: bytes) -> bool:
    """Whether a file tells of a distribution."""
    parent, _, name = path.rpartition(b"/")
    return (
        (name == b"METADATA" and parent.endswith(b".dist-info"))
        or (name == b"PKG-INFO" and parent.endswith(b".egg-info"))
        or name.endswith(b".egg-info")
    )


def package_of(text: str, location: str, layer: str, origin: str = "") -> Package | None:
    """The distribution that a metadata file tells of, None for one without name and version.

    `origin` is what `direct_url` gave.
    """
    headers = HeaderParser().parsestr(text.partition("\n\n")[0] + "\n\n")
    name, version = str(headers.get("Name", "")).strip(), str(headers.get("Version", "")).strip()
    if not _NAME.fullmatch(name) or not version or len(version) > MAX_WORDS:
        return None
    qualifiers = (("vcs_url", origin),) if origin else ()
    return Package(
        kind="pypi",
        # The name as the package URL and the indexes compare it (PEP 503).
        name=re.sub(r"[-_.]+", "-", name).lower(),
        version=version,
        location=location,
        qualifiers=qualifiers,
        licenses=_licenses(
            str(headers.get("License-Expression", "")),
            str(headers.get("License", "")),
            [str(one) for one in headers.get_all("Classifier", [])],
        ),
        supplier=str(headers.get("Author", "")).strip()[:MAX_WORDS],
        homepage=str(headers.get("Home-page", "")).strip()[:MAX_WORDS],
        layer=layer,
    )


def _licenses(spdx: str, words: str, classifiers: list[str]) -> tuple[str, ...]:
    known = expression(spdx.strip())
    if known:
        return (known,)
    words = words.strip()
    known = expression(words)
    if known:
        return (known,)
    found = {from_classifier(one) for one in classifiers if one.startswith("License ::")} - {""}
    if not found and words and words != "UNKNOWN" and "\n" not in words and len(words) <= MAX_WORDS:
        found = {words}
    return tuple(sorted(found))


def direct_url(text: str) -> str:
    """The repository and commit of a distribution that came from one, as a package URL names them; else nothing."""
    try:
        found = json.loads(text)
        vcs = found["vcs_info"]
        url, commit = found["url"], vcs["commit_id"]
        kind = vcs["vcs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    if not all(isinstance(one, str) for one in (url, commit, kind)) or "://" not in url:
        return ""
    # A password is nobody's business.
    return f"{kind}+{re.sub(r'://[^/@]*@', '://', url)}@{commit}"
