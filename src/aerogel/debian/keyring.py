"""Checks OpenPGP signatures of archive files against Debian's keys, in this process (pysequoia).

For: clear-signed `InRelease` files. The certificates of Debian 11 to 13 come with the package; keys that the host's
apt sources name (`Signed-By`) may be added per archive. Nothing is looked up anywhere.
Spec: RFC 9580, 7 (cleartext signature framework).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from aerogel.errors import AerogelError

if TYPE_CHECKING:
    from pysequoia import Cert

__all__ = ["Keyring", "Verified"]

_ARMOR = "-----BEGIN PGP"


class Verified(msgspec.Struct, frozen=True):
    """Text that was signed, and the fingerprints of the certificates that signed it (lower case, sorted)."""

    text: bytes
    signers: tuple[str, ...]


class Keyring:
    """Certificates that are trusted. `keys` are armoured or binary key material; `shipped` takes Debian's."""

    def __init__(self, *keys: bytes) -> None:
        self._keys = keys
        self._certs: list[Cert] | None = None

    @classmethod
    def shipped(cls) -> Keyring:
        """Debian's archive keys that come with this package."""
        from importlib.resources import files

        return cls(files("aerogel.debian").joinpath("data", "debian-archive.gpg").read_bytes())

    def verify(self, data: bytes, name: str, extra: Sequence[str] = ()) -> Verified:
        """The signed text of a clear-signed file: what stands outside the signature is thrown away.

        One good signature by a trusted certificate is enough. `extra` are paths of further keyrings, or armoured
        keys as text; what cannot be read of these is left out. `name` is for the error.

        Raises:
            AerogelError: `debian.signature`.
        """
        import pysequoia

        certs = list(self._trusted())
        unread: list[str] = []
        for key in extra:
            try:
                certs += _extra(key)
            except (OSError, ValueError) as error:
                unread.append(f"`{key.splitlines()[0]}`: {error}")
        asked: list[str] = []

        def store(wanted: list[str]) -> list[Cert]:
            asked.extend(wanted)
            return certs

        try:
            found = pysequoia.verify(bytes=data, store=store)
        except Exception as error:  # noqa: BLE001  the library raises whatever its error type maps to
            raise _refused(name, str(error).partition("\n")[0], asked, unread) from None
        signers = tuple(sorted({str(signature.certificate) for signature in found.valid_sigs}))
        if not signers or found.bytes is None:
            raise _refused(name, "nobody signed it", asked, unread)
        return Verified(bytes(found.bytes), signers)

    def _trusted(self) -> list[Cert]:
        if self._certs is None:
            self._certs = [cert for key in self._keys for cert in _split(key)]
        return self._certs


def _extra(key: str) -> list[Cert]:
    if key.startswith(_ARMOR):
        return _split(key.encode())
    with open(key, "rb") as file:
        return _split(file.read(16 << 20))


def _split(key: bytes) -> list[Cert]:
    """All certificates of a keyring, binary or one or more armoured blocks after another."""
    import pysequoia

    blocks = [key]
    if key.lstrip().startswith(_ARMOR.encode()):
        end = b"-----END PGP PUBLIC KEY BLOCK-----"
        blocks = [block + end for block in key.split(end) if _ARMOR.encode() in block]
    try:
        return [cert for block in blocks for cert in pysequoia.Cert.split_bytes(block)]
    except Exception as error:  # noqa: BLE001  the library raises whatever its error type maps to
        raise ValueError(f"not an OpenPGP keyring ({str(error).partition(chr(10))[0]})") from None


def _refused(name: str, why: str, asked: Sequence[str], unread: Sequence[str]) -> AerogelError:
    detail = [f"signed by key {key}" for key in dict.fromkeys(asked)]
    detail += [f"keyring not usable: {text}" for text in unread]
    return AerogelError(
        f"`{name}` is not signed by a key that is trusted: {why.strip().rstrip('.').lower()}",
        code="debian.signature",
        detail="\n".join(detail),
        hints=[
            "the mirror, a proxy or somebody between has changed it, or it is no Debian archive; use another mirror"
        ],
    )
