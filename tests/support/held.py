"""Images that hold given files, and programs and archives with what scanners look for in them, made by hand."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from aerogel.files.codec import GZIP, LayerWriter
from aerogel.files.entry import DIR, REG, SYM, Entry, parents
from aerogel.files.index import build_index
from aerogel.files.tar import TarWriter
from aerogel.oci.digest import Digest
from aerogel.oci.edit import add_layer, empty_config
from aerogel.oci.image import Image, create
from aerogel.oci.platform import Platform
from aerogel.oci.types import Descriptor, History
from aerogel.store.store import Store

Files = Mapping[str, bytes | str]
"""Path -> content, or as text the target of a symbolic link; a path that ends with `*` is executable."""


def layer_tar(files: Files) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    paths = {path.rstrip("*").encode(): (content, path.endswith("*")) for path, content in files.items()}
    folders = {folder for path in paths for folder in parents(path)}
    for path in sorted({*paths, *folders}, key=lambda each: each.split(b"/")):
        if path not in paths:
            writer.entry(Entry(path, DIR, 0o755))
            continue
        content, is_program = paths[path]
        if isinstance(content, str):
            writer.entry(Entry(path, SYM, 0o777, link=content.encode()))
            continue
        writer.entry(Entry(path, REG, 0o755 if is_program else 0o644, size=len(content)))
        writer.content(content)
        writer.pad()
    writer.close()
    return out.getvalue()


def store_image(store: Store, layers: Sequence[Files], created: str = "2024-05-06T07:08:09Z") -> Image:
    """An image of these layers in the store, lowest first."""
    config = empty_config(Platform.parse("linux/amd64"), created)
    blobs = []
    for number, files in enumerate(layers):
        with store.blobs.write() as blob, LayerWriter(blob.fd, GZIP) as writer:
            index = build_index(io.BytesIO(layer_tar(files)), writer.write)
            made = writer.finish()
            blob.commit(Digest(str(made.digest)), made.size)
        descriptor = Descriptor(media_type=str(made.media_type), digest=Digest(str(made.digest)), size=made.size or 0)
        diff_id = Digest(made.diff_id)
        store.layers.save(diff_id, size=made.size_uncompressed, blobs={GZIP.name: descriptor}, index=index)
        blobs.append(descriptor)
        config = add_layer(config, diff_id, History(created=created, created_by=f"layer {number}"))
    return create(config, blobs, store.blobs)


def elf(sections: Mapping[str, bytes], *, wide: bool = True, big: bool = False, address: int = 0x400000) -> bytes:
    """An ELF file with these sections; each lies in memory at `address` plus its place in the file."""
    order = ">" if big else "<"
    # One segment, of the whole file: what reads by addresses looks for one.
    body = bytearray((64 + 56) if wide else (52 + 32))
    names = bytearray(b"\0")
    rows = [(0, 0, 0, 0, 0)]
    for name, data in [*sections.items(), (".shstrtab", b"")]:
        at = len(names)
        names += name.encode() + b"\0"
        body += bytes(-len(body) % 16)
        content = bytes(names) if name == ".shstrtab" else data
        rows.append((at, 1, address + len(body), len(body), len(content)))
        body += content
    body += bytes(-len(body) % 16)
    table = len(body)
    for at, kind, where, offset, size in rows:
        if wide:
            body += struct.pack(f"{order}IIQQQQIIQQ", at, kind, 2, where, offset, size, 0, 0, 16, 0)
        else:
            body += struct.pack(f"{order}IIIIIIIIII", at, kind, 2, where, offset, size, 0, 0, 16, 0)
    head = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    segment = (
        struct.pack(f"{order}IIQQQQQQ", 1, 6, 0, address, address, len(body), len(body), 16)
        if wide
        else struct.pack(f"{order}IIIIIIII", 1, 0, address, address, len(body), len(body), 6, 16)
    )
    form, size = (f"{order}HHIQQQIHHHHHH", 64) if wide else (f"{order}HHIIIIIHHHHHH", 52)
    machine = 62 if wide else 3
    count = len(rows)
    body[:size] = head + struct.pack(
        form, 2, machine, 1, 0, size, table, 0, size, len(segment), 1, 64 if wide else 40, count, count - 1
    )
    body[size : size + len(segment)] = segment
    return bytes(body)


def _counted(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + data


def go_program(modules: str, version: str = "go1.22.3") -> bytes:
    """As Go 1.18 and later link it."""
    info = bytes(16) + modules.encode() + bytes(16)
    blob = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + _counted(version.encode()) + _counted(info)
    return elf({".text": bytes(64), ".go.buildinfo": blob})


def old_go_program(modules: str, version: str = "go1.17.5") -> bytes:
    """As Go before 1.18 links it: addresses of strings."""
    info = bytes(16) + modules.encode() + bytes(16)
    # The data comes first, at 128; each of Go's strings is an address and a length.
    data = version.encode() + info
    start = 0x400000 + 128
    strings = struct.pack("<QQQQ", start, len(version), start + len(version), len(info))
    data += bytes(-len(data) % 16)
    at = start + len(data)
    blob = b"\xff Go buildinf:" + bytes([8, 0]) + struct.pack("<QQ", at, at + 16)
    return elf({".data": data + strings, ".go.buildinfo": blob})


def rust_program(packages: Sequence[Mapping[str, object]]) -> bytes:
    """As cargo-auditable links it."""
    return elf({".text": bytes(64), ".dep-v0": zlib.compress(json.dumps({"packages": packages}).encode())})


def jar(pom: tuple[str, str, str] | None = None, manifest: str = "", inner: Mapping[str, bytes] | None = None) -> bytes:
    """A Java archive; `pom` is group, artifact, version."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), f"Manifest-Version: 1.0\r\n{manifest}\r\n")
        if pom is not None:
            name = f"META-INF/maven/{pom[0]}/{pom[1]}/pom.properties"
            text = "groupId={}\nartifactId={}\nversion={}\n".format(*pom)
            archive.writestr(zipfile.ZipInfo(name), text)
        for name, data in (inner or {}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


STATUS = """Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.15-1~deb12u1
Maintainer: Debian OpenSSL Team <openssl@example.org>
Depends: libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0
Homepage: https://www.openssl.org/
Description: text
 Package: not-one

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9+deb12u8)
Version: 2.36-9+deb12u9

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: python3-six
Status: install ok installed
Architecture: all
Version: 1.16.0-4
Depends: libc6
"""
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: Apache-2.0 or GPL-2+
Files: x
License: Expat
Files: y
License: odd words here
"""
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n{}\n\nBody: not a header\nVersion: 9\n"


def everything() -> list[Files]:
    """Two layers with packages of each kind; the second replaces and removes some of the first."""
    site = "usr/lib/python3/dist-packages"
    modules = (
        "path\texample.com/app/cmd\nmod\texample.com/app\t(devel)\t\n"
        "dep\tgithub.com/a/b/v2\tv2.1.0\th1:x=\n"
        "dep\tgolang.org/x/sys\tv0.1.0\th1:y=\n=>\tgolang.org/x/sys\tv0.2.0\th1:z=\nbuild\tCGO_ENABLED=0\n"
    )
    crates = [
        {"name": "app", "version": "0.1.0", "source": "local", "root": True, "dependencies": [1, 2]},
        {"name": "serde", "version": "1.0.200", "source": "crates.io"},
        {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"},
    ]
    spring = jar(
        ("com.example", "app", "1.0"),
        inner={"BOOT-INF/lib/core-0.9.jar": jar(("org.deep", "core", "0.9"), inner={"a.war": jar(("w", "w", "2"))})},
    )
    return [
        {
            "etc/os-release": "../usr/lib/os-release",
            "usr/lib/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "var/lib/dpkg/status": STATUS.encode(),
            "var/lib/dpkg/info/python3-six.list": f"/.\n/usr\n/{site}/six-1.16.0.egg-info/PKG-INFO\n".encode(),
            "var/lib/dpkg/info/libc6:amd64.list": b"/.\n/lib/libc.so\n",
            "lib": "usr/lib",
            "usr/lib/libc.so": b"libc",
            f"{site}/six-1.16.0.egg-info/PKG-INFO": METADATA.format("six", "1.16.0", "License: MIT").encode(),
            "usr/share/doc/libssl3/copyright": COPYRIGHT.encode(),
            "usr/share/doc/libc6/copyright": b"free form\nLicense: GPL\n",
            "opt/old-1.0.dist-info/METADATA": METADATA.format("old", "1.0", "").encode(),
            "opt/replaced.dist-info/METADATA": METADATA.format("Replaced", "1.0", "").encode(),
        },
        {
            "var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 2024a-0\nArchitecture: all\n",
            "var/lib/dpkg/status.d/tzdata.md5sums": b"0123  usr/share/zoneinfo/UTC\n",
            "usr/share/zoneinfo/UTC": b"TZif",
            "opt/.wh.old-1.0.dist-info": b"",
            "opt/replaced.dist-info/METADATA": METADATA.format(
                "Replaced_Name", "2.0", "License-Expression: mit OR apache-2.0"
            ).encode(),
            "opt/git-0.1.dist-info/METADATA": METADATA.format(
                "git.pkg", "0.1", "Classifier: License :: OSI Approved :: MIT License"
            ).encode(),
            "opt/git-0.1.dist-info/direct_url.json": json.dumps(
                {"url": "https://user:pw@g.example/x.git", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
            ).encode(),
            "srv/node_modules/a/package.json": (
                b'{"name":"a","version":"1.2.3","license":"MIT","dependencies":{"@s/b":"^1"}}'
            ),
            "srv/node_modules/a/lib/package.json": b'{"name":"inside","version":"9"}',
            "srv/node_modules/@s/b/package.json": (
                b'{"name":"@s/b","version":"2.0.0-rc.1","licenses":[{"type":"Apache-2.0"},{"type":"Odd"}]}'
            ),
            "srv/package.json": b'{"name":"app","version":"1"}',
            "srv/app.jar": spring,
            "srv/plain-2.5.jar": jar(manifest="Implementation-Vendor-Id: org.plain\r\nBundle-License: Apache-2.0\r\n"),
            "bin/go*": go_program(modules),
            "bin/old-go*": old_go_program("path\tx\nmod\texample.com/old\tv1.0.0\th1:x=\n"),
            "bin/rust*": rust_program(crates),
            "bin/c*": elf({".text": b"x" * 100}),
            "bin/script*": b"#!/bin/sh\n" + b"x" * 100,
        },
    ]


EXPECTED = {
    "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc%402.36-9%2Bdeb12u8",
    "pkg:deb/debian/libssl3@3.0.15-1~deb12u1?arch=amd64&distro=debian-12&upstream=openssl",
    "pkg:deb/debian/python3-six@1.16.0-4?arch=all&distro=debian-12",
    "pkg:deb/debian/tzdata@2024a-0?arch=all&distro=debian-12",
    "pkg:pypi/replaced-name@2.0",
    "pkg:pypi/git-pkg@0.1?vcs_url=git%2Bhttps://g.example/x.git%40" + "c" * 40,
    "pkg:npm/a@1.2.3",
    "pkg:npm/%40s/b@2.0.0-rc.1",
    "pkg:maven/com.example/app@1.0",
    "pkg:maven/org.deep/core@0.9",
    "pkg:maven/w/w@2",
    "pkg:maven/org.plain/plain@2.5",
    "pkg:golang/stdlib@1.22.3",
    "pkg:golang/example.com/app",
    "pkg:golang/github.com/a/b/v2@v2.1.0",
    "pkg:golang/golang.org/x/sys@v0.2.0",
    "pkg:golang/stdlib@1.17.5",
    "pkg:golang/example.com/old@v1.0.0",
    "pkg:cargo/app@0.1.0",
    "pkg:cargo/serde@1.0.200",
}
"""The package URLs of what `everything` holds."""
