"""The CA bundle and the names under which OpenSSL looks for it, without openssl and without a script.

`/etc/ssl/certs/ca-certificates.crt` holds every certificate; `/usr/lib/ssl/cert.pem` and `/usr/lib/ssl/certs` are
where Debian's OpenSSL looks when no variable says otherwise. A hash link `/etc/ssl/certs/HASH.0` serves programs
that only take a directory. All links name the bundle: OpenSSL loads every certificate of the file that a link
leads to, so a second copy of each certificate would be dead weight.
Spec: openssl-rehash(1); X509_NAME_hash and x509_name_canon of OpenSSL 3; RFC 5280 4.1; RFC 7468.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping

from aerogel.errors import AerogelError

__all__ = ["BUNDLE", "LINKS", "SOURCE", "added", "after_issuer", "bundle", "ders", "hash_links", "subject_hash", "take"]

SOURCE = b"usr/share/ca-certificates/"
"""Where the package `ca-certificates` keeps the single certificates."""
BUNDLE = b"etc/ssl/certs/ca-certificates.crt"
LINKS = {b"usr/lib/ssl/cert.pem": b"/etc/ssl/certs/ca-certificates.crt", b"usr/lib/ssl/certs": b"/etc/ssl/certs"}
"""Path of a link -> its target: OpenSSL's built-in defaults."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
_UTF8 = 0x0C
_CODECS = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii"}
"""String types that OpenSSL brings into canonical form; the wide ones are added below."""
_CODECS |= {0x1C: "utf-32-be", 0x1E: "utf-16-be"}


def bundle(certificates: Mapping[bytes, bytes]) -> bytes:
    """The bundle of PEM files by path, in the order of the paths, each ended by a line end.

    Raises `distroless.certificate` for a file that holds no certificate.
    """
    parts = []
    for path in sorted(certificates):
        text = certificates[path]
        if not _PEM.search(text):
            raise _fault(path, "holds no PEM certificate")
        parts.append(text if text.endswith(b"\n") else text + b"\n")
    return b"".join(parts)


def added(there: bytes, more: Mapping[bytes, bytes]) -> bytes:
    """A bundle with those PEM files behind it of which it lacks a certificate. Raises as `bundle`."""
    known = set(ders(there))
    parts = [there if not there or there.endswith(b"\n") else there + b"\n"]
    texts = (bundle({path: more[path]}) for path in sorted(more))
    parts += [text for text in texts if not known.issuperset(ders(text))]
    return b"".join(parts)


def hash_links(pem: bytes) -> list[bytes]:
    """Names `HASH.0` for every subject in a PEM text, sorted.

    Certificates of one subject share a name: the file behind it holds them all.
    """
    return sorted({b"%08x.0" % subject_hash(der) for der in ders(pem)})


def ders(pem: bytes) -> Iterable[bytes]:
    """The certificates of a PEM text in DER. Raises `distroless.certificate`."""
    for match in _PEM.finditer(pem):
        try:
            yield base64.b64decode(b"".join(match[1].split()), validate=True)
        except binascii.Error as error:
            raise _fault(b"", f"holds damaged base64: {error}") from None


def subject_hash(der: bytes) -> int:
    """What `openssl x509 -hash` prints, from a certificate in DER. Raises `distroless.certificate`."""
    try:
        subject = _subject(memoryview(der))
        canonical = b"".join(_relative_name(part) for part in _items(subject))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise _fault(b"", f"holds a certificate that cannot be read: {error}") from None
    return int.from_bytes(hashlib.sha1(canonical).digest()[:4], "little")


def _fault(path: bytes, what: str) -> AerogelError:
    name = f"`{path.decode('utf-8', 'replace')}`" if path else "the bundle"
    return AerogelError(f"{name} {what}", code="distroless.certificate")


def take(data: memoryview) -> tuple[int, memoryview, memoryview]:
    """Tag, content and rest of the first DER item. Raises IndexError, ValueError."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[2 : 2 + count], "big")
        at += count
    if at + length > len(data):
        raise ValueError("an item is longer than what holds it")
    return tag, data[at : at + length], data[at + length :]


def _items(data: memoryview) -> Iterable[memoryview]:
    while data:
        _, content, data = take(data)
        yield content


def after_issuer(der: memoryview) -> memoryview:
    """What follows in Certificate.tbsCertificate after version, serial, algorithm and issuer: validity, subject, ..."""
    _, certificate, _ = take(der)
    _, rest, _ = take(certificate)
    tag, _, after = take(rest)
    if tag == 0xA0:
        rest = after
    for _ in range(3):
        _, _, rest = take(rest)
    return rest


def _subject(der: memoryview) -> memoryview:
    _, _, rest = take(after_issuer(der))
    tag, subject, _ = take(rest)
    if tag != _SEQUENCE:
        raise ValueError("its subject is not a sequence")
    return subject


def _wrap(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _relative_name(content: memoryview) -> bytes:
    """A RelativeDistinguishedName in OpenSSL's canonical form: every string folded and as UTF-8, the set sorted."""
    attributes = []
    for attribute in _items(content):
        _, oid, rest = take(attribute)
        tag, value, _ = take(rest)
        codec = _CODECS.get(tag)
        text = None if codec is None else _fold(bytes(value).decode(codec).encode())
        string = _wrap(tag, bytes(value)) if text is None else _wrap(_UTF8, text)
        attributes.append(_wrap(_SEQUENCE, _wrap(_OID, bytes(oid)) + string))
    return _wrap(_SET, b"".join(sorted(attributes)))


def _fold(text: bytes) -> bytes:
    """ASCII letters lower, white space at the ends gone and collapsed in between; other bytes as they are."""
    return b" ".join(text.lower().split())
