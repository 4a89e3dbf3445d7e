"""The truststore of Java as its own tools read it: the form is checked here byte by byte, by keytool elsewhere."""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path

import pytest

from aerogel.distroless.keystore import keystore, read_keystore
from aerogel.errors import AerogelError


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ca")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=Test -keyout key -out pem"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=folder)
    return Path(folder / "pem").read_bytes()


def entries(store: bytes) -> list[tuple[str, int, bytes]]:
    """Alias, time in milliseconds and DER of each entry; the seal is checked."""
    body, seal = store[:-20], store[-20:]
    assert hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest() == seal
    magic, version, count = struct.unpack_from(">III", body)
    assert (magic, version) == (0xFEEDFEED, 2)
    at, found = 12, []
    for _ in range(count):
        tag, length = struct.unpack_from(">IH", body, at)
        assert tag == 2
        alias = body[at + 6 : at + 6 + length].decode()
        at += 6 + length
        moment, size = struct.unpack_from(">QH", body, at)
        assert body[at + 10 : at + 10 + size] == b"X.509"
        at += 10 + size
        (length,) = struct.unpack_from(">I", body, at)
        found.append((alias, moment, body[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(body)
    return found


def test_every_certificate_is_an_entry_dated_by_its_validity(pem: bytes, tmp_path: Path) -> None:
    store = keystore({b"usr/share/ca-certificates/mozilla/B_Two.crt": pem, b"~corp.pem": pem + pem})
    found = entries(store)
    assert [alias for alias, *_ in found] == ["b_two", "~corp", "~corp-2"]
    der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
    assert {data for *_, data in found} == {der}
    (tmp_path / "pem").write_bytes(pem)
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "pem"), "-noout", "-startdate", "-dateopt", "iso_8601"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    from datetime import datetime

    begin = datetime.fromisoformat(shown.strip().partition("=")[2].replace(" ", "T", 1))
    assert {moment for _, moment, _ in found} == {int(begin.timestamp() * 1000)}


def test_the_order_of_files_does_not_matter(pem: bytes) -> None:
    assert keystore({b"a.crt": pem, b"b.crt": pem}) == keystore({b"b.crt": pem, b"a.crt": pem})


def test_what_is_no_certificate_is_refused() -> None:
    text = (
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(b"\x30\x03\x02\x01\x01") + b"\n-----END CERTIFICATE-----\n"
    )
    with pytest.raises(AerogelError, match="the certificate `corp` cannot be read") as caught:
        keystore({b"corp.pem": text})
    assert caught.value.code == "distroless.certificate"


def test_one_that_is_there_is_added_to(pem: bytes) -> None:
    """Its entries stay as they are, in their order; a certificate that it has comes no second time."""
    der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
    mine = b"\0\0\0\2\0\4mine" + (7000).to_bytes(8, "big") + b"\0\5X.509" + (3).to_bytes(4, "big") + b"\x30\1\0"
    body = struct.pack(">III", 0xFEEDFEED, 2, 1) + mine
    seal = hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()
    there = read_keystore(body + seal)
    made = keystore({b"x/mine.crt": pem}, there)
    assert entries(made)[0] == ("mine", 7000, b"\x30\1\0")
    assert [(alias, data) for alias, _, data in entries(made)[1:]] == [("mine-2", der)]
    assert keystore({b"y/corp.pem": pem}, read_keystore(made)) == made
    assert read_keystore(keystore({})) == {}


def test_what_cannot_be_added_to(pem: bytes) -> None:
    good = keystore({b"a.crt": pem})

    def sealed(body: bytes, password: str = "changeit") -> bytes:
        return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()

    for data, said in (
        (b"", "is not of the form JKS"),
        (b"\x30\x82\1\2" + bytes(100), "is not of the form JKS"),
        (good[:-1], "is damaged, or its password is not Java's own"),
        (good[:50] + b"!" + good[51:], "is damaged, or its password is not Java's own"),
        (sealed(good[:-20], "secret"), "is damaged, or its password is not Java's own"),
        (sealed(good[:-30]), "ends early"),
        (sealed(good[:4] + b"\0\0\0\1" + good[8:-20]), "is not of version 2"),
        (sealed(good[:12] + b"\0\0\0\1" + good[16:-20]), "holds a key"),
        (sealed(good[:8] + b"\xff\xff\xff\xff" + good[12:-20]), "ends early"),
    ):
        with pytest.raises(ValueError, match=said):
            read_keystore(data)
