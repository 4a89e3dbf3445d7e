"""/etc/ld.so.cache of an image whose layers put libraries on a distroless base: read back entry by entry."""

from __future__ import annotations

import functools
import json
import struct
from functools import partial
from pathlib import Path

import pytest
from own_bases import AMD64, DECLARATION, Archive, Base

from aerogel.distroless import ldcache

WIDE = "usr/lib/x86_64-linux-gnu"


def slice_of(data: bytes, at: int, size: int) -> bytes:
    return data[at : at + size]


@pytest.fixture(scope="module")
def library() -> tuple[bytes, str]:
    """A real library of this host, and its soname."""
    for folder in sorted(Path("/usr").glob("lib*/**/libc.so.6")):
        for path in sorted(folder.parent.glob("lib*.so.*")):
            data = path.read_bytes()
            found = ldcache.read_soname(partial(slice_of, data))
            if found is not None and found[0].startswith(b"lib") and len(data) < 200_000:
                return data, found[0].decode()
    raise AssertionError("no library on this host")


@pytest.fixture
def image(base: Base, archive: Archive, library: tuple[bytes, str]):
    """Builds with the lines of a Dockerfile; the layers and the entries of the cache: path -> soname."""
    data, soname = library
    archive.put("libtool1", "1.1", entries=((f"./usr/lib/x86_64-linux-gnu/{soname}", data),))
    archive.publish()
    base.write("base.yaml", DECLARATION + "library-cache: true\n")
    base.write("lib.so", data)

    def made(*lines: str) -> tuple[int, dict[str, str], Path]:
        base.write("Dockerfile", "\n".join(("FROM ./base.yaml", *lines, "")))
        base("build", *AMD64, "-t", "one", "-o", "type=local,dest=out", ".")
        layers = json.loads(base("inspect", "one"))[0]["RootFS"]["Layers"]
        found = ldcache.read_cache((base.folder / "out/etc/ld.so.cache").read_bytes())
        entries = {one.path.decode(): one.soname.decode() for one in found}
        assert ldcache.write_cache(found) == (base.folder / "out/etc/ld.so.cache").read_bytes()
        return len(layers), entries, base.folder / "out"

    return made


def test_a_library_of_a_layer_is_in_it(image, library):
    soname = library[1]
    layers, entries, out = image("COPY lib.so /usr/local/lib/libmine.so.1.2.3", "COPY lib.so /opt/libother.so.1")
    assert layers == 4
    assert entries == {f"/usr/local/lib/{soname}": soname, f"/{WIDE}/{soname}": soname}
    assert (out / "usr/local/lib" / soname).readlink() == Path("libmine.so.1.2.3")
    again = image("COPY lib.so /usr/local/lib/libmine.so.1.2.3", "COPY lib.so /opt/libother.so.1")
    assert again[:2] == (layers, entries)


def test_nothing_is_added_when_nothing_changes(image, library):
    soname = library[1]
    assert image("COPY lib.so /opt/libother.so.1")[:2] == (2, {f"/{WIDE}/{soname}": soname})
    assert image("COPY Dockerfile /usr/local/lib/notes.txt")[0] == 2
    assert image("COPY Dockerfile /usr/local/lib/libtext.so")[0] == 2, "a linker script is no library"
    assert image(f"COPY lib.so /{WIDE}/{soname}")[:2] == (2, {f"/{WIDE}/{soname}": soname}), "it is in its place"


def test_a_file_of_ones_own_stays(image, base, library):
    base.write("own", ldcache.write_cache([]))
    assert image("COPY lib.so /usr/lib/libmine.so.1", "COPY own /etc/ld.so.cache")[:2] == (3, {})


def test_what_is_no_cache_has_no_entries():
    assert ldcache.read_cache(b"") == []
    assert ldcache.read_cache(b"x" * 100) == []
    data = ldcache.write_cache([ldcache.Library(b"liba.so", b"/usr/lib/liba.so", 3, False)])
    assert ldcache.read_cache(data) == [ldcache.Library(b"liba.so", b"/usr/lib/liba.so", 3, False)]
    assert ldcache.read_cache(data[:60]) == []
    big = [ldcache.Library(b"b.so", b"/usr/lib/liba.so", 3, True)]
    assert ldcache.read_cache(ldcache.write_cache(big)) == big
    # One for some processors must not become one for all.
    two = [ldcache.Library(b"liba.so", path, 3, False) for path in (b"/usr/lib/hw/liba.so", b"/usr/lib/liba.so")]
    data = bytearray(ldcache.write_cache(two))
    at = next(at for at in (48, 72) if data[struct.unpack_from("<I", data, at + 8)[0] :].startswith(b"/usr/lib/hw/"))
    struct.pack_into("<Q", data, at + 16, 1 << 62)
    assert ldcache.read_cache(bytes(data)) == two[1:]


def test_numbers_in_names_have_any_length():
    names = [b"liba.so.%s" % number for number in (b"9" * 5000, b"10", b"1" + b"0" * 5000, b"010", b"9")]
    order = sorted(names, key=functools.cmp_to_key(ldcache.compare))
    assert [names.index(each) for each in order] == [4, 1, 3, 0, 2]
