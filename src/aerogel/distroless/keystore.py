"""The truststore of Java (`cacerts`, the JKS form) made of PEM certificates, without keytool and without Java.

The file depends on the certificates alone: each is dated with the begin of its validity, as upstream's is. The
password is Java's own default, `changeit`; it guards nothing, it only seals the file against accidents.
The one of an image below gets what comes; other forms (PKCS #12) and seals cannot be added to and are made anew.
Spec: sun.security.provider.JavaKeyStore (JKS version 2); RFC 5280 4.1.2.5.
"""

from __future__ import annotations

import calendar
import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from aerogel.distroless.certificates import after_issuer, ders, take
from aerogel.errors import AerogelError, Diagnostic
from aerogel.files.entry import LNK, REG

if TYPE_CHECKING:
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.work import Work

__all__ = ["PATH", "Kept", "add_keystore", "keystore", "read_keystore", "wants_keystore"]

PATH = b"etc/ssl/certs/java/cacerts"
"""Where Debian keeps it; the runtime's `lib/security/cacerts` is a link to it."""

_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_PASSWORD = "changeit"  # noqa: S105 - known to everybody, see above
_SEAL = b"Mighty Aphrodite"
_SEAL_SIZE = 20
_UTC_TIME = 0x17


def wants_keystore(recipe: Recipe) -> bool:
    """Whether the image may have a truststore: `auto` is for images with a Java, of our own or of the image below."""
    return recipe.java_keystore == "always" or (
        recipe.java_keystore == "auto" and (recipe.java is not None or bool(recipe.underlay and recipe.certificates))
    )


def add_keystore(work: Work) -> None:
    """Writes the truststore of the certificates that the bundle holds, or adds to that of the image below what comes."""
    layout, recipe = work.layout, work.recipe
    there = layout.resolve(PATH) if layout.below else None
    if there is None or there.entry.kind not in (REG, LNK):
        if recipe.java_keystore == "always" or recipe.java is not None:
            layout.write(PATH, keystore(work.certificates))
        return
    if not work.added:
        return
    try:
        made = keystore(work.added, read_keystore(layout.read(there)))
    except ValueError as error:
        work.bench.warn(
            Diagnostic(
                f"the truststore `/{PATH.decode()}` of the image {error}: it is made anew from the bundle of certificates, "
                "and what stands in it alone is dropped",
                code="base.keystore",
                hints=[
                    "name what shall be trusted: `certificates: {additional: [...]}`",
                    "or keep it as it is: `certificates: {java-keystore: never}`",
                ],
            )
        )
        made = keystore(work.certificates)
    layout.write(there.entry.path, made)


class Kept(NamedTuple):
    """An entry of a truststore as it stands there; `der` is empty for one that is no certificate."""

    data: bytes
    der: bytes


def read_keystore(data: bytes) -> dict[bytes, Kept]:
    """The entries of a truststore by alias. Raises ValueError, with the reason, for another form, another password or damage."""
    if data[:4] != _MAGIC.to_bytes(4, "big"):
        raise ValueError("is not of the form JKS")
    body, seal = data[:-_SEAL_SIZE], data[-_SEAL_SIZE:]
    if _sealed(body) != seal:
        raise ValueError("is damaged, or its password is not Java's own")
    at = 0

    def number(size: int) -> int:
        return int.from_bytes(text(size), "big")

    def text(size: int) -> bytes:
        nonlocal at
        if at + size > len(body):
            raise ValueError("ends early")
        at += size
        return body[at - size : at]

    text(4)
    if number(4) != _VERSION:
        raise ValueError("is not of version 2 of the form JKS")
    found: dict[bytes, Kept] = {}
    for _ in range(number(4)):
        start, tag = at, number(4)
        alias = text(number(2))
        text(8)
        if tag != _TRUSTED:
            raise ValueError("holds a key")  # nobody keeps one in a file that all may read
        text(number(2))
        der = text(number(4))
        found[alias] = Kept(body[start:at], der)
    return found


def keystore(certificates: Mapping[bytes, bytes], there: Mapping[bytes, Kept] | None = None) -> bytes:
    """A truststore of PEM files by path; the alias of each certificate is the name of its file in small letters.

    `there` are the entries of one that it is added to: they stay first, and what they have is not added again.
    Raises `distroless.certificate` for one that cannot be read.
    """
    kept = there or {}
    known = {each.der for each in kept.values()}
    entries: dict[str, bytes] = {}
    for path in sorted(certificates):
        name = path.rpartition(b"/")[2].decode("utf-8", "replace").removesuffix(".crt").removesuffix(".pem").lower()
        for number, der in enumerate(ders(certificates[path])):
            alias = name if not number else f"{name}-{number + 1}"
            while alias in entries or alias.encode() in kept:
                alias += "-2"
            if der not in known:
                entries[alias] = der
    body = b"".join(part.to_bytes(4, "big") for part in (_MAGIC, _VERSION, len(kept) + len(entries)))
    body += b"".join(each.data for each in kept.values())
    for alias in sorted(entries):
        der = entries[alias]
        body += _TRUSTED.to_bytes(4, "big") + _text(alias) + (_begin(alias, der) * 1000).to_bytes(8, "big", signed=True)
        body += _text("X.509") + len(der).to_bytes(4, "big") + der
    return body + _sealed(body)


def _sealed(body: bytes) -> bytes:
    return hashlib.sha1(_PASSWORD.encode("utf-16-be") + _SEAL + body).digest()


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
