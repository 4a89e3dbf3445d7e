"""The truststore of Java (`cacerts`, the JKS form) made of PEM certificates, without keytool and without Java.

The file depends on the certificates alone: each is dated with the begin of its validity, as upstream's is. The
password is Java's own default, `changeit`; it guards nothing, it only seals the file against accidents.
Spec: sun.security.provider.JavaKeyStore (JKS version 2); RFC 5280 4.1.2.5.
"""

from __future__ import annotations

import calendar
import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aerogel.distroless.certificates import after_issuer, ders, take
from aerogel.errors import AerogelError

if TYPE_CHECKING:
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.work import Work

__all__ = ["PATH", "add_keystore", "keystore", "wants_keystore"]

PATH = b"etc/ssl/certs/java/cacerts"
"""Where Debian keeps it; the runtime's `lib/security/cacerts` is a link to it."""

_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_PASSWORD = "changeit"  # noqa: S105 - known to everybody, see above
_SEAL = b"Mighty Aphrodite"
_UTC_TIME = 0x17


def wants_keystore(recipe: Recipe) -> bool:
    """Whether the image has a truststore: `auto` is for images with a Java."""
    return recipe.java_keystore == "always" or (recipe.java_keystore == "auto" and recipe.java is not None)


def add_keystore(work: Work) -> None:
    """Writes the truststore of the certificates that the bundle holds."""
    work.layout.write(PATH, keystore(work.certificates))


def keystore(certificates: Mapping[bytes, bytes]) -> bytes:
    """A truststore of PEM files by path; the alias of each certificate is the name of its file in small letters.

    Raises `distroless.certificate` for one that cannot be read.
    """
    entries = {}
    for path in sorted(certificates):
        name = path.rpartition(b"/")[2].decode("utf-8", "replace").removesuffix(".crt").removesuffix(".pem").lower()
        for number, der in enumerate(ders(certificates[path])):
            alias = name if not number else f"{name}-{number + 1}"
            while alias in entries:
                alias += "-2"
            entries[alias] = der
    body = b"".join(part.to_bytes(4, "big") for part in (_MAGIC, _VERSION, len(entries)))
    for alias in sorted(entries):
        der = entries[alias]
        body += _TRUSTED.to_bytes(4, "big") + _text(alias) + (_begin(alias, der) * 1000).to_bytes(8, "big", signed=True)
        body += _text("X.509") + len(der).to_bytes(4, "big") + der
    return body + hashlib.sha1(_PASSWORD.encode("utf-16-be") + _SEAL + body).digest()


def _text(text: str) -> bytes:
    """Java's `writeUTF`; the names of certificates have nothing outside the basic plane."""
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _begin(alias: str, der: bytes) -> int:
    """`notBefore` in seconds since 1970: in tbsCertificate after version, serial, algorithm and issuer."""
    try:
        rest = after_issuer(memoryview(der))
        _, validity, _ = take(rest)
        tag, moment, _ = take(validity)
        text = bytes(moment).decode("ascii")
        if tag == _UTC_TIME:
            text = ("19" if text >= "50" else "20") + text
        return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
    except (IndexError, ValueError) as error:
        raise AerogelError(
            f"the certificate `{alias}` cannot be read: {error}", code="distroless.certificate"
        ) from None
