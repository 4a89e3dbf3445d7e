"""Files that are written from values: accounts, os-release, certificates, the loader's cache, package records."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from small_elf import shared_library

from aerogel.distroless import accounts, certificates, ldcache, status
from aerogel.distroless.osrelease import NSSWITCH, os_release
from aerogel.errors import AerogelError

HOST_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def test_accounts_are_exactly_upstreams():
    assert accounts.passwd_file() == (
        b"root:x:0:0:root:/root:/sbin/nologin\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
        b"nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
    )
    assert accounts.group_file() == b"root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n"
    homes = {entry.path: (entry.mode, entry.uid, entry.gid) for entry in accounts.homes(5)}
    assert homes == {b"root": (0o700, 0, 0), b"home/nonroot": (0o700, 65532, 65532)}


def test_nsswitch_names_only_what_static_programs_have():
    for line in NSSWITCH.decode().splitlines():
        assert set(line.split(":")[1].split()) <= {"files", "dns"}


DEBIAN_OS_RELEASE = b"""PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
SUPPORT_URL="https://www.debian.org/support"
BUG_REPORT_URL="https://bugs.debian.org/"
"""


def test_os_release():
    text = os_release(DEBIAN_OS_RELEASE, "bookworm").decode().splitlines()
    assert text[0] == 'PRETTY_NAME="Distroless"'
    assert 'ID="debian"' in text
    assert 'VERSION_ID="12"' in text
    assert 'VERSION="Debian GNU/Linux 12 (bookworm)"' in text


def test_os_release_of_testing_is_refused():
    with pytest.raises(AerogelError) as caught:
        os_release(b'NAME="Debian GNU/Linux"\n', "forky")
    assert caught.value.code == "distroless.os-release"


def test_status_says_what_is_missing():
    control = b"Package: libc6\nVersion: 2.41-12\nDescription: x\n y\n"
    assert status.control_file(control, []) == control
    marked = status.control_file(control, ["docs", "gconv", "docs"])
    assert marked == control + b"X-Aerogel-Files: partial\nX-Aerogel-Rules: docs, gconv\n"
    sums = b"d41d8cd98f00b204e9800998ecf8427e  usr/lib/a b\n" * 1 + b"0cc175b9c0f1b6a831c399e269772661  usr/lib/c\n"
    assert status.sums_file(sums, lambda path: path == b"usr/lib/a b").splitlines() == sums.splitlines()[:1]


def bundle_certificates():
    pem = HOST_BUNDLE.read_bytes()
    return re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", pem, re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(not HOST_BUNDLE.exists() or not shutil.which("openssl"), reason="needs openssl and its CAs")
def test_subject_hashes_are_openssls():
    pems = bundle_certificates()[:40]
    for pem in pems:
        shown = subprocess.run(["openssl", "x509", "-noout", "-hash"], input=pem, capture_output=True, check=True)
        assert certificates.hash_links(pem) == [shown.stdout.strip() + b".0"]


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    assert len(content) < 128
    return bytes((tag, len(content))) + content


def test_subject_hash_folds_case_space_and_string_types():
    """Known answer: `openssl x509 -hash` gave the same for the two spellings."""

    def certificate(tag: int, name: bytes) -> bytes:
        subject = der(0x30, der(0x31, der(0x30, der(0x06, b"\x55\x04\x03"), der(tag, name))))
        empty = der(0x30)
        return der(0x30, der(0x30, der(0x02, b"\x01"), empty, empty, empty, subject))

    plain = certificates.subject_hash(certificate(0x13, b"Example CA"))
    assert plain == certificates.subject_hash(certificate(0x0C, b"  example   ca "))
    assert plain == certificates.subject_hash(certificate(0x1E, "EXAMPLE CA".encode("utf-16-be")))
    assert plain != certificates.subject_hash(certificate(0x13, b"Example CB"))


def test_bundle_is_in_path_order_and_refuses_what_is_no_certificate():
    one, two = (
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(bytes([n]) * 9) + b"\n-----END CERTIFICATE-----"
        for n in (1, 2)
    )
    assert certificates.bundle({b"m/b.crt": two, b"m/a.crt": one + b"\n"}) == one + b"\n" + two + b"\n"
    with pytest.raises(AerogelError) as caught:
        certificates.bundle({b"m/x.crt": b"hello"})
    assert caught.value.code == "distroless.certificate"
    with pytest.raises(AerogelError):
        certificates.hash_links(one)


def test_cache_order_is_the_loaders():
    names = [b"libz.so.1", b"libz.so.10", b"libz.so.2", b"liba.so", b"lib2.so.1", b"libz.so"]
    libraries = [ldcache.Library(name, b"/usr/lib/" + name, 0x303, big_endian=False) for name in names]
    data = ldcache.write_cache(libraries)
    found = re.findall(rb"/usr/lib/([^\0]+)\0", data)
    assert found == [b"lib2.so.1", b"libz.so.10", b"libz.so.2", b"libz.so.1", b"libz.so", b"liba.so"]
    assert data == ldcache.write_cache(reversed(libraries))


def test_cache_byte_orders():
    library = ldcache.Library(b"libc.so.6", b"/usr/lib/s390x-linux-gnu/libc.so.6", 0x403, big_endian=True)
    big = ldcache.write_cache([library])
    assert big[:20] == b"glibc-ld.so.cache1.1"
    assert big[20:24] == b"\0\0\0\1"
    assert big[28] == 3
    little = ldcache.write_cache([library._replace(big_endian=False)])
    assert little[20:24] == b"\1\0\0\0"
    assert little[28] == 2
    assert ldcache.write_cache([])[20:28] == bytes(8)


def slice_of(data: bytes, at: int, size: int) -> bytes:
    return data[at : at + size]


def test_library_names():
    assert all(map(ldcache.is_library_name, [b"libc.so.6", b"libssl.so", b"ld-linux-x86-64.so.2", b"ld64.so.2"]))
    assert not any(map(ldcache.is_library_name, [b"libfoo.a", b"_ssl.cpython-313.so", b"libfoo.so1", b"gconv"]))


@pytest.mark.skipif(not os.path.exists("/sbin/ldconfig"), reason="needs ldconfig")
def test_ldconfig_reads_what_we_wrote(tmp_path):
    directory = next((d for d in sorted(Path("/usr/lib").glob("*-linux-gnu*")) if list(d.glob("libc.so.6"))), None)
    if directory is None:
        pytest.skip("no multiarch directory")
    libraries = []
    for path in sorted(directory.iterdir()):
        if ldcache.is_library_name(os.fsencode(path.name)) and path.is_file() and not path.name.endswith(".so"):
            data = path.read_bytes()
            found = ldcache.read_soname(partial(slice_of, data))
            if found:
                name = found[0] or os.fsencode(path.name)
                libraries.append(ldcache.Library(name, os.fsencode(directory) + b"/" + name, found[1], found[2]))
    cache = tmp_path / "cache"
    cache.write_bytes(ldcache.write_cache(libraries))
    run = ["/sbin/ldconfig", "-p", "-C"]
    mine = subprocess.run([*run, cache], capture_output=True, check=True).stdout.decode().splitlines()[1:]
    assert [line.split()[0] for line in mine] == [
        library.soname.decode() for library in sorted(set(libraries), key=ldcache.sort_key, reverse=True)
    ]
    theirs = subprocess.run(run[:2], capture_output=True, check=True, env={"LC_ALL": "C"}).stdout.decode()
    names = [line.split()[0].encode() for line in theirs.splitlines()[1:] if "=>" in line]
    assert len(names) > 50
    assert all(ldcache.compare(left, right) >= 0 for left, right in itertools.pairwise(names))
    real = {line.replace("=> /lib/", "=> /usr/lib/") for line in theirs.splitlines()[1:]}
    missing = [line for line in mine if line not in real and "libc6" in line]
    assert len(missing) < len(mine) / 20, missing


@pytest.mark.parametrize(
    ("wide", "order", "machine", "flags"),
    [
        (True, "<", 62, 0x303),
        (True, "<", 183, 0xA03),
        (False, "<", 40, 0x903),
        (True, ">", 22, 0x403),
        (True, "<", 21, 0x503),
        (True, "<", 243, 0x1003),
        (False, "<", 3, 0x003),
    ],
)
def test_what_the_loader_of_each_machine_asks_for(wide: bool, order: str, machine: int, flags: int):
    """glibc's numbers: entries with others are passed over, and the library is not found."""
    data = shared_library(wide, order, machine)
    assert ldcache.read_soname(partial(slice_of, data)) == (b"libx.so.1", flags, order == ">")
    assert ldcache.read_soname(partial(slice_of, data[:40])) is None


def test_soname_of_what_is_no_library():
    with open(sys.executable, "rb") as file:
        head = file.read(64)
    assert ldcache.read_soname(lambda at, size: b"text"[at : at + size]) is None
    assert ldcache.read_soname(lambda at, size: head[at : at + size]) is None
