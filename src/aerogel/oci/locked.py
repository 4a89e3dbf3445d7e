"""Private keys as cosign keeps them in `cosign.key`: scrypt makes a key of the password, NaCl's secretbox locks.

Only what cosign writes is read, and only with costs that cosign could have written: a file cannot ask for more memory.
Spec: go-securesystemslib `encrypted`; NaCl secretbox (XSalsa20, Poly1305); RFC 7914 (scrypt).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re

from aerogel.errors import AerogelError

__all__ = ["PASSWORD_HINT", "is_locked_by_cosign", "lock", "unlock"]

PASSWORD_HINT = "give it in the variable `AEROGEL_KEY_PASSWORD`"  # noqa: S105 - words, not a password
_LABELS = ("SIGSTORE", "COSIGN")
_PEM = re.compile(rb"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s(.*?)-----END ", re.DOTALL)
_COST, _BLOCK, _PARALLEL = 65536, 8, 1
"""Of scrypt, as cosign writes them; 64 MiB of memory."""
_MOST_COST = 1 << 20
_KEY_BYTES = 32
_LINE = 64


def is_locked_by_cosign(pem: bytes) -> bool:
    return any(f"ENCRYPTED {label} PRIVATE KEY".encode() in pem for label in _LABELS)


def unlock(pem: bytes, password: str, what: str) -> bytes:
    """The key, PKCS #8 in DER. Raises `sign.key` for a damaged file, `sign.password`."""
    try:
        found = _PEM.search(pem)
        if found is None:
            raise ValueError
        box = json.loads(base64.b64decode(b"".join(found[2].split()), validate=True))
        kdf, cipher = box["kdf"], box["cipher"]
        params = kdf["params"]
        costs = tuple(int(params[name]) for name in ("N", "r", "p"))
        salt, nonce = base64.b64decode(kdf["salt"]), base64.b64decode(cipher["nonce"])
        text = base64.b64decode(box["ciphertext"])
        names = (kdf["name"], cipher["name"])
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise _bad(what, "has the name of a key of cosign, and is damaged") from None
    if names != ("scrypt", "nacl/secretbox") or not 1 < costs[0] <= _MOST_COST or costs[1:] != (_BLOCK, _PARALLEL):
        raise _bad(what, "is locked in a way that cosign does not use")
    if not password and not _opens(text, nonce, _derived("", salt, costs[0])):
        raise AerogelError(
            f"`{what}` is encrypted, and there is no password", code="sign.password", hints=[PASSWORD_HINT]
        )
    opened = _opens(text, nonce, _derived(password, salt, costs[0]))
    if not opened:
        raise AerogelError(f"`{what}` cannot be opened with this password", code="sign.password", hints=[PASSWORD_HINT])
    return opened


def lock(der: bytes, password: str) -> bytes:
    """A file as `cosign generate-key-pair` writes it."""
    from nacl.secret import SecretBox
    from nacl.utils import random

    salt = random(_KEY_BYTES)
    nonce = random(SecretBox.NONCE_SIZE)
    text = SecretBox(_derived(password, salt, _COST)).encrypt(der, nonce).ciphertext
    box = {
        "kdf": {"name": "scrypt", "params": {"N": _COST, "r": _BLOCK, "p": _PARALLEL}, "salt": _base64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _base64(nonce)},
        "ciphertext": _base64(text),
    }
    body = _base64(json.dumps(box, separators=(",", ":")).encode())
    lines = [body[at : at + _LINE] for at in range(0, len(body), _LINE)]
    label = f"ENCRYPTED {_LABELS[0]} PRIVATE KEY"
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()


def _opens(text: bytes, nonce: bytes, key: bytes) -> bytes:
    """What is in the box; nothing when the key is another one."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        return SecretBox(key).decrypt(text, nonce)
    except (CryptoError, ValueError):
        return b""


def _derived(password: str, salt: bytes, cost: int) -> bytes:
    most = 128 * _BLOCK * (cost + _PARALLEL + 2)
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=_BLOCK, p=_PARALLEL, maxmem=most, dklen=_KEY_BYTES)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bad(what: str, why: str) -> AerogelError:
    return AerogelError(f"`{what}` {why}", code="sign.key", hints=["make a pair with `aerogel key generate`"])
