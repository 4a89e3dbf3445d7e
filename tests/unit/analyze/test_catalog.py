"""What images are found to hold, and the documents about it, by the official validators of their forms."""

from __future__ import annotations

import io
import json
import os
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import check_cyclonedx, check_spdx
from held import EXPECTED, STATUS, Files, elf, everything, go_program, jar, rust_program, store_image

from aerogel.analyze.catalog import Catalog, catalog
from aerogel.analyze.contents import Contents
from aerogel.analyze.documents import Subject
from aerogel.analyze.package import Package
from aerogel.analyze.sbom import render
from aerogel.oci.image import Image
from aerogel.oci.validate import validate
from aerogel.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", tmp_path / "cache") as opened:
        yield opened


def find(store: Store, image: Image, *, with_files: bool = False) -> Catalog:
    def spool() -> int:
        fd, path = store.scratch.file()
        os.unlink(path)
        return fd

    indexes = [store.layers.index(layer.diff_id) for layer in image.layers()]
    return catalog(Contents(image, indexes, spool), with_files=with_files)


def held(store: Store, files: Files) -> Catalog:
    return find(store, store_image(store, [files]))


def subject(image: Image) -> Subject:
    return Subject(
        name="registry.example/team/app",
        tag="1",
        digest=image.digest,
        platform="linux/amd64",
        created=image.config.created,
        tool_version="1.2",
    )


def named(found: Catalog, name: str) -> Package:
    [package] = [one for one in found.packages if one.full_name == name]
    return package


def test_everything(store: Store) -> None:
    image = store_image(store, everything())
    assert validate(image) == []
    found = find(store, image)
    assert {one.purl for one in found.packages} == EXPECTED
    assert found.notes == ()
    assert found.distro.version == "12"
    layers = [layer.diff_id for layer in image.layers()]
    assert named(found, "libc6").layer == layers[0]
    assert named(found, "tzdata").layer == layers[1]
    assert named(found, "libssl3").licenses == ("Apache-2.0", "GPL-2.0-or-later", "MIT", "odd words here")
    assert named(found, "libc6").licenses == ()
    assert named(found, "replaced-name").licenses == ("MIT OR Apache-2.0",)
    assert named(found, "git-pkg").licenses == ("MIT",)
    assert named(found, "@s/b").licenses == ("Apache-2.0", "Odd")
    assert named(found, "org.deep:core").location == "/srv/app.jar!/BOOT-INF/lib/core-0.9.jar"


def test_documents(store: Store) -> None:
    image = store_image(store, everything())
    found = find(store, image, with_files=True)
    spdx, cyclonedx = (render(found, subject(image), form) for form in ("spdx-json", "cyclonedx-json"))
    check_spdx(spdx)
    check_cyclonedx(cyclonedx)
    told = json.loads(spdx)
    refs = {ref["referenceLocator"] for one in told["packages"] for ref in one["externalRefs"]}
    assert refs > EXPECTED
    assert {one["purl"] for one in json.loads(cyclonedx)["components"] if "purl" in one} == EXPECTED
    assert told["creationInfo"]["created"] == "2024-05-06T07:08:09Z"
    names = {one["SPDXID"]: one["name"] for one in told["packages"]}
    needs = {
        (names[one["spdxElementId"]], names[one["relatedSpdxElement"]])
        for one in told["relationships"]
        if one["relationshipType"] == "DEPENDS_ON"
    }
    assert needs == {("libssl3", "libc6"), ("python3-six", "libc6"), ("a", "@s/b"), ("app", "serde")}
    files = {one["SPDXID"]: one["fileName"] for one in told["files"]}
    owned = {
        (names[one["spdxElementId"]], files[one["relatedSpdxElement"]])
        for one in told["relationships"]
        if one["relatedSpdxElement"] in files
    }
    # A list says `/lib/libc.so`, and `/lib` is a link.
    assert ("libc6", "./usr/lib/libc.so") in owned
    assert ("tzdata", "./usr/share/zoneinfo/UTC") in owned
    assert ("registry.example/team/app", "./bin/c") in owned
    assert len(owned) == len(found.files)


def test_the_same_bytes(store: Store, tmp_path: Path) -> None:
    image = store_image(store, everything())
    first = [
        render(find(store, image, with_files=True), subject(image), form) for form in ("spdx-json", "cyclonedx-json")
    ]
    with Store.open(tmp_path / "data2", tmp_path / "cache2") as other:
        again = store_image(other, everything())
        found = find(other, again, with_files=True)
        assert [render(found, subject(again), form) for form in ("spdx-json", "cyclonedx-json")] == first


def test_an_image_without_packages(store: Store) -> None:
    image = store_image(store, [{"a": b"x"}], created="")
    found = find(store, image)
    assert found == Catalog(found.distro, ())
    check_spdx(render(found, subject(image), "spdx-json"))
    check_cyclonedx(render(found, subject(image), "cyclonedx-json"))


def test_words_that_are_no_licence(store: Store) -> None:
    words = ["GPL", "see LICENSE", "MIT/X11", "(MIT OR", "ünïcode", "A" * 150, "SEE LICENSE IN x", "BSD, MIT", "Expat"]
    files = {
        f"m/node_modules/p{number}/package.json": json.dumps(
            {"name": f"p{number}", "version": "1", "license": word}
        ).encode()
        for number, word in enumerate(words)
    }
    image = store_image(store, [files])
    found = find(store, image)
    assert len(found.packages) == len(words)
    check_spdx(render(found, subject(image), "spdx-json"))
    check_cyclonedx(render(found, subject(image), "cyclonedx-json"))


def test_records_beside_what_no_package_manager_knows(store: Store) -> None:
    """As in the image of Node.js: the program came by npm, and lies in no node_modules."""
    record = {"packages": [{"name": "n", "externalRefs": [
        {"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:b"},
        {"referenceType": "purl", "referenceLocator": "pkg:npm/%40team/node-linux-x64@24.11.0?os=linux"},
    ]}, {"name": "none"}]}  # fmt: skip
    double = {"packages": [{"externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:npm/m@1"}]}]}
    files = {"node": record, "m": double}
    held_files: Files = {f"var/lib/db/sbom/{name}.spdx.json": json.dumps(one).encode() for name, one in files.items()}
    image = store_image(store, [held_files | {"opt/node_modules/m/package.json": b'{"name": "m", "version": "1"}'}])
    found = find(store, image)
    one = named(found, "@team/node-linux-x64")
    assert one.purl == "pkg:npm/%40team/node-linux-x64@24.11.0?os=linux"
    assert one.location == "/var/lib/db/sbom/node.spdx.json"
    assert named(found, "m").location == "/opt/node_modules/m/package.json"  # told once, by its own file
    check_spdx(render(found, subject(image), "spdx-json"))
    check_cyclonedx(render(found, subject(image), "cyclonedx-json"))


HOSTILE: dict[str, Files] = {
    "records of other kinds": {
        "var/lib/db/sbom/a.spdx.json": b'{"packages": [1, {"externalRefs": [{"referenceType": "purl", "referenceLocator": "x"}]}]}',
        "var/lib/db/sbom/b.spdx.json": b"[" * 100_000,
        "var/lib/db/sbom/c.spdx.json": b'{"packages": {"externalRefs": 1}}',
        "var/lib/db/sbom/d.spdx.json": json.dumps(
            {"packages": [{"externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:npm/a\ud800b@1"}]}]}
        ).encode(),
    },
    "json that is none": {"node_modules/a/package.json": b"{", "node_modules/b/package.json": b"[" * 100_000},
    "json of other kinds": {
        "node_modules/a/package.json": b"[]",
        "node_modules/b/package.json": b'{"name":1,"version":"1"}',
        "node_modules/c/package.json": b'{"name":"../x y","version":"1"}',
        "node_modules/d/package.json": b'{"name":"d","version":""}',
    },
    "status of bytes": {"var/lib/dpkg/status": bytes(range(256)) * 50, "etc/os-release": bytes(range(256))},
    "names that lead out": {"var/lib/dpkg/status": b"Package: ../../x\nVersion: 1\n\nPackage: A B\nVersion: 2\n"},
    "metadata without a version": {"a.dist-info/METADATA": b"Name: x\n", "b.egg-info": b"\xff\xfe\0"},
    "elf without sections": {"a*": b"\x7fELF" + bytes(200), "b*": b"\x7fELF\2\1\1" + b"\xff" * 200},
    "elf that points far": {"a*": elf({".go.buildinfo": b"\xff Go buildinf:" + b"\x08\0" + b"\xff" * 40})},
    "go strings that never end": {"a*": elf({".go.buildinfo": b"\xff Go buildinf:\x08\2" + bytes(16) + b"\xff" * 64})},
    "rust that is no zlib": {"a*": elf({".dep-v0": b"x" * 100})},
    "rust that is no list": {"a*": rust_program([1, None, {"name": 5}, {"name": "x", "version": "a b"}])},  # type: ignore[list-item]
    "jar that is none": {"a.jar": b"PK" + bytes(100), "b.jar": b"", "c.war": jar()[:-5]},
    "links in a circle": {"etc/os-release": "os-release", "usr/lib/os-release": "../../etc/os-release"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_left_out(store: Store, name: str) -> None:
    assert held(store, HOSTILE[name]).packages == ()


def test_damaged_programs_and_archives(store: Store) -> None:
    """No damage of a good file raises anything."""
    rng = random.Random(3)
    good = [go_program("mod\ta.b/c\tv1\t\n"), rust_program([{"name": "x", "version": "1"}]), jar(("a", "b", "1"))]
    files: dict[str, bytes] = {}
    for number in range(150):
        data = bytearray(good[number % 3])
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        files[f"f{number}.jar" if number % 3 == 2 else f"f{number}*"] = bytes(data)
    held(store, files)


def test_archives_that_grow(store: Store) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/MANIFEST.MF", bytes(40 << 20))
        archive.writestr("inner.jar", bytes(40 << 20))
    nested = jar(("a", "b", "1"))
    for _ in range(6):
        nested = jar(inner={"x.jar": nested})
    tracemalloc.start()
    found = held(
        store,
        {
            "bomb.jar": bomb.getvalue(),
            "deep.jar": nested,
            "wide.jar": jar(inner={f"{n}.jar": jar() for n in range(1100)}),
        },
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.packages == ()
    assert len(found.notes) == 3
    assert peak < 120 << 20


def test_a_large_program_is_not_held_in_memory(store: Store) -> None:
    program = go_program("mod\texample.com/big\tv3.0.0\t\n")
    # The sections stay where they are; what follows is only large.
    image = store_image(store, [{"bin/big*": program + bytes(64 << 20)}])
    tracemalloc.start()
    found = find(store, image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.purl for one in found.packages if one.name == "big"] == ["pkg:golang/example.com/big@v3.0.0"]
    assert peak < 16 << 20


def test_a_status_file_too_large(store: Store) -> None:
    found = held(store, {"var/lib/dpkg/status": STATUS.encode() + b"x" * (65 << 20)})
    assert found.packages == ()
    assert found.notes == ("`/var/lib/dpkg/status` is too large to be read",)
