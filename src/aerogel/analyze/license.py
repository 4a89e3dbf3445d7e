"""Words for licences as SPDX expressions, where they can be understood.

Debian's short names, Python's classifiers and npm's fields each have words of their own. What is not understood
stays as it is; the documents give it a `LicenseRef-`. Spec: SPDX 2.3 annex D; DEP-5; PEP 639.
"""

from __future__ import annotations

import re
from functools import cache

__all__ = ["MAX_WORDS", "expression", "from_classifier", "from_debian", "is_expression"]

MAX_WORDS = 200
"""Longest text that is taken for the name of a licence, in characters; longer ones are its text."""

_DEBIAN = {
    "expat": "MIT",
    "mit/x11": "X11",
    "x11": "X11",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "apache-2": "Apache-2.0",
    "asl-2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "isc": "ISC",
    "mpl-2": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "mpl-1.1": "MPL-1.1",
    "psf-2": "PSF-2.0",
    "python-2.0": "Python-2.0",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "wtfpl": "WTFPL",
    "wtfpl-2": "WTFPL",
    "openssl": "OpenSSL",
    "curl": "curl",
}
_GNU = re.compile(r"(?i)(A?GPL|LGPL|GFDL)-v?(\d(?:\.\d)?)(\+|-or-later|-only)?")
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "zlib/libpng License": "Zlib",
}


@cache
def expression(text: str) -> str:
    """The canonical SPDX expression that a text is; empty when it is none."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if not text or len(text) > MAX_WORDS or "LicenseRef" in text:
        return ""
    try:
        return canonicalize_license_expression(text)
    except (InvalidLicenseExpression, ValueError, RecursionError, SyntaxError, MemoryError):
        return ""


def is_expression(text: str) -> bool:
    """Whether a text is an SPDX expression."""
    return bool(expression(text))


def from_debian(word: str) -> str:
    """A DEP-5 short name: the SPDX identifier, or the word itself."""
    word = word.strip().rstrip(",;")
    known = _DEBIAN.get(word.lower())
    if known is not None:
        return known
    gnu = _GNU.fullmatch(word)
    if gnu is not None:
        number = gnu[2] if "." in gnu[2] else f"{gnu[2]}.0"
        later = "or-later" if gnu[3] in ("+", "-or-later") else "only"
        return expression(f"{gnu[1].upper()}-{number}-{later}") or word
    return expression(word) or word


def from_classifier(text: str) -> str:
    """A trove classifier `License :: ...`: an SPDX identifier, its last words, or nothing."""
    last = text.rpartition("::")[2].strip()
    return _CLASSIFIERS.get(last, last if last != "OSI Approved" else "")
