"""Images for declarations to extend: of files in the store, with certificates, and what is said of them."""

from __future__ import annotations

import json
import os
import shutil

from own_bases import Base

BOTH = ("--platform", "linux/amd64,linux/arm64")
OS_RELEASE = b'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n'
STATUS = b"""\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Source: glibc
Provides: libc6-abi (= 2.41)

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: libtool1
Status: install ok installed
Architecture: amd64
Version: 1.0

"""


def declared(extends: str, rest: str = "packages: [tool]\n") -> str:
    return f"apiVersion: aerogel/v1\nkind: Base\nname: mine\nextends: {extends}\n{rest}"


def config(base: Base, reference: str) -> dict:
    return json.loads(base("inspect", reference))[0]["Config"]


def image(
    base: Base, name: str, files: dict[str, bytes], platform: str = "linux/amd64", links: dict[str, bytes] | None = None
) -> None:
    """An image of files and links in the store."""
    folder = base.folder / "image"
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        base.write(f"image/{path}", content)
    for path, target in (links or {}).items():
        os.symlink(target, os.fsencode(folder / path))
    base.write("image.Dockerfile", "FROM scratch\nCOPY . /\n")
    base("build", "--platform", platform, "-t", name, "-f", "image.Dockerfile", "image")


def certificate(name: str) -> bytes:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(made, made, key.public_key(), 1)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2040, 1, 1, tzinfo=UTC)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
