"""Composition from packages that are made here: paths, links, records, determinism."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
from small_elf import shared_library

from aerogel.debian.package import Package
from aerogel.distroless import ldcache
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.compose import applets, compose
from aerogel.distroless.layout import Layout, write_layer
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry
from aerogel.files.index import build_index

TIME = 1_700_000_000
OS_RELEASE = b'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n'


@pytest.fixture
def make(tmp_path: Path):
    """Packages from {path: content bytes | ("->", target) | ("==", hard link target) | None for a directory}."""
    fds = []

    def package(name: str, files: dict[str, object], *, mtime: int = TIME, md5sums: bytes = b"") -> Unpacked:
        path = tmp_path / f"{name}.data"
        entries = []
        with path.open("wb") as out:
            for raw, content in files.items():
                at = raw.encode()
                if content is None:
                    entries.append((Entry(at, DIR, 0o755, mtime=mtime), 0))
                elif isinstance(content, tuple):
                    kind = SYM if content[0] == "->" else LNK
                    entries.append((Entry(at, kind, 0o777, mtime=mtime, link=content[1].encode()), 0))
                else:
                    entries.append((Entry(at, REG, 0o644, size=len(content), mtime=mtime), out.tell()))
                    out.write(content)
        fds.append(os.open(path, os.O_RDONLY))
        value = Package(
            name=name,
            version="1",
            architecture="amd64",
            filename="",
            size=0,
            sha256="0" * 64,
            source=name,
            source_version="1",
        )
        control = {"control": f"Package: {name}\nVersion: 1\n".encode()}
        if md5sums:
            control["md5sums"] = md5sums
        return Unpacked(value, control, entries, fds[-1])

    yield package
    for fd in fds:
        os.close(fd)


def base_files(make, more: dict[str, object] | None = None) -> Unpacked:
    files: dict[str, object] = {
        "bin": ("->", "usr/bin"),
        "etc": None,
        "etc/os-release": ("->", "../usr/lib/os-release"),
        "tmp": None,
        "usr/lib/os-release": OS_RELEASE,
        "usr/share/common-licenses/GPL": ("->", "GPL-3"),
        "usr/share/common-licenses/GPL-3": b"gpl",
        "usr/share/common-licenses/GFDL": b"gfdl",
        "usr/share/doc/base-files/README": b"read",
        "usr/share/doc/base-files/copyright": b"see /usr/share/common-licenses/GPL",
    }
    return make("base-files", files | (more or {}))


STATIC = lookup("gcr.io/distroless/static")


def tree(recipe: Recipe, packages, arch="amd64"):
    return {item.entry.path.decode(): item for item in compose(recipe, packages, arch).items}


def content(item):
    return (
        item.content
        if isinstance(item.content, bytes)
        else os.pread(item.content.fd, item.entry.size, item.content.offset)
    )


def layer(recipe: Recipe, packages) -> bytes:
    out = io.BytesIO()
    write_layer(compose(recipe, packages, "amd64").items, out.write)
    return out.getvalue()


def test_generated_files_and_records(make):
    sums = b"0" * 32 + b"  usr/lib/os-release\n" + b"1" * 32 + b"  usr/share/doc/base-files/README\n"
    found = tree(STATIC, [base_files(make)._replace(control={"control": b"Package: base-files\n", "md5sums": sums})])
    assert content(found["etc/passwd"]).startswith(b"root:x:0:0:root:/root:/sbin/nologin\n")
    assert found["home/nonroot"].entry[2:5] == (0o700, 65532, 65532)
    assert b'PRETTY_NAME="Distroless"' in content(found["usr/lib/os-release"])
    assert found["etc/os-release"].entry.link == b"../usr/lib/os-release"
    record = content(found["var/lib/dpkg/status.d/base-files"]).decode()
    assert record == "Package: base-files\nX-Aerogel-Files: partial\nX-Aerogel-Rules: docs, licences\n"
    # The os-release of the image is not the package's any more.
    assert content(found["var/lib/dpkg/status.d/base-files.md5sums"]) == b""
    assert "usr/share/doc/base-files/README" not in found
    assert {path for path in found if path.startswith("usr/share/common-licenses/")} == {
        "usr/share/common-licenses/GPL",
        "usr/share/common-licenses/GPL-3",
    }
    assert found["bin"].entry.link == b"usr/bin"
    assert found["etc/passwd"].entry.mtime == TIME


def test_paths_of_an_unmerged_release_move_into_usr(make):
    libc = make(
        "libc6",
        {
            "lib": None,
            "lib/x86_64-linux-gnu/ld.so": b"ld",
            "lib/x86_64-linux-gnu/up": ("->", "../../usr/lib/other"),
            "lib/x86_64-linux-gnu/beside": ("->", "ld.so"),
            "lib64": None,
            "lib64/ld.so.2": ("->", "/lib/x86_64-linux-gnu/ld.so"),
            "sbin/tool": b"tool",
            "sbin/same": ("==", "sbin/tool"),
        },
        md5sums=b"0" * 32 + b"  lib/x86_64-linux-gnu/ld.so\n",
    )
    found = tree(STATIC, [base_files(make), libc])
    assert found["lib"].entry.link == b"usr/lib"
    assert found["lib64"].entry.link == b"usr/lib64"
    assert found["sbin"].entry.link == b"usr/sbin"
    assert content(found["usr/lib/x86_64-linux-gnu/ld.so"]) == b"ld"
    assert found["usr/lib/x86_64-linux-gnu/up"].entry.link == b"/usr/lib/other"
    assert found["usr/lib/x86_64-linux-gnu/beside"].entry.link == b"ld.so"
    assert (found["usr/sbin/same"].entry.kind, found["usr/sbin/tool"].entry.kind) == (REG, LNK)
    assert found["usr/sbin/tool"].entry.link == b"usr/sbin/same"
    assert b"ld.so" in content(found["var/lib/dpkg/status.d/libc6.md5sums"])


def test_directories_emptied_by_rules_go_and_shipped_empty_ones_stay(make):
    files = {"opt": None, "usr/share/man": None, "usr/share/man/x.1": b"x", "usr/share/doc/x": None}
    package = make("x", files | {"usr/share/doc/x/NEWS": b"n"})
    found = tree(STATIC, [base_files(make), package])
    assert "opt" in found
    assert "usr/share/man" not in found
    assert "usr/share/doc/x" not in found


def test_the_same_path_in_two_packages_is_refused(make):
    with pytest.raises(AerogelError) as caught:
        compose(STATIC, [base_files(make), make("b", {"opt/f": b"1"}), make("a", {"opt/f": b"2"})], "amd64")
    assert caught.value.code == "distroless.file-conflict"
    assert "`/opt/f` is in two packages: `a` and `b`" in caught.value.message


def test_nothing_is_written_through_a_link(make):
    one, two = make("a", {"opt/dir": ("->", "/etc")}), make("b", {"opt/dir/f": b"x"})
    with pytest.raises(AerogelError) as caught:
        compose(STATIC, [base_files(make), one, two], "amd64")
    assert caught.value.code == "distroless.through-link"


def test_without_base_files(make):
    with pytest.raises(AerogelError) as caught:
        compose(STATIC, [make("a", {"opt/f": b"1"})], "amd64")
    assert caught.value.code == "distroless.no-base-files"


def test_order_of_packages_does_not_matter(make):
    packages = [base_files(make), make("a", {"opt/a": b"1"}), make("b", {"opt/b": b"22", "opt": None})]
    assert layer(STATIC, packages) == layer(STATIC, packages[::-1])


def test_the_layer_is_canonical_and_tarfile_reads_it(make):
    long = "opt/" + "d" * 90 + "/" + "f" * 120
    packages = [base_files(make), make("a", {long: b"x" * 3000, "opt/a": b""}, mtime=TIME + 9)]
    data = layer(STATIC, packages)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert members[long].size == 3000
        read = tar.extractfile(long)
        assert read is not None
        assert read.read() == b"x" * 3000
        paths = [member.name.split("/") for member in tar.getmembers()]
    assert paths == sorted(paths)
    assert members["opt"].isdir()
    assert members["etc/passwd"].mtime == TIME + 9


def test_the_index_is_what_a_scan_of_the_layer_gives(make):
    composition = compose(STATIC, [base_files(make), make("a", {"opt/a": b"abc"})], "amd64")
    out = io.BytesIO()
    index = write_layer(composition.items, out.write)
    out.seek(0)
    scanned = build_index(out)
    assert index.entries == scanned.entries
    assert index.small == scanned.small
    assert [o for e, o in zip(index.entries, index.offsets, strict=True) if e.size] == [
        o for e, o in zip(scanned.entries, scanned.offsets, strict=True) if e.size
    ]


def test_links_of_links_resolve_inside(make):
    layout = Layout()
    files = {"lib/a": ("->", "/usr/lib/b"), "usr/lib/b": ("->", "../../../lib/c"), "usr/lib/c": b"c", "o": ("->", "o")}
    layout.add_package(make("a", files), lambda _: None)
    found = layout.resolve(b"lib/a")
    assert found is not None
    assert found.entry.path == b"usr/lib/c"
    assert layout.resolve(b"o") is None
    assert layout.resolve(b"nowhere") is None


def test_links_of_folders_resolve_too(make):
    """A folder above may be a link, and `..` behind it is that of where it leads."""
    layout = Layout()
    files = {"opt/real/deep/a": b"a", "opt/real/b": ("->", "deep/../../c"), "opt/c": b"c", "srv": ("->", "/opt/real")}
    layout.add_package(make("a", files | {"lib/d": b"d", "opt/lib": ("->", "/lib")}), lambda _: None)
    paths = (b"srv/deep/a", b"srv/b", b"opt/real/deep/../../c", b"opt/lib/d", b"srv/c")
    found = [layout.resolve(path) for path in paths]
    assert [one and one.entry.path for one in found] == [b"opt/real/deep/a", b"opt/c", b"opt/c", b"usr/lib/d", None]


def test_libraries_get_the_link_that_programs_ask_for(make):
    """As ldconfig makes it: the loader looks for the name inside of the file."""
    data = shared_library(wide=True, order="<", machine=62)
    folder = "usr/lib/x86_64-linux-gnu"
    recipe = msgspec.structs.replace(STATIC, library_cache=True)
    found = tree(recipe, [base_files(make), make("x", {f"{folder}/libx.so.1.2.3": data, f"{folder}/x.txt": b"x"})])
    assert found[f"{folder}/libx.so.1"].entry.link == b"libx.so.1.2.3"
    (one,) = ldcache.read_cache(content(found["etc/ld.so.cache"]))
    assert (one.soname, one.path) == (b"libx.so.1", f"/{folder}/libx.so.1".encode())


@pytest.mark.parametrize("soname", [b"../../x.so", b"/etc/x.so1", b"..", b"a/x.so"])
def test_a_name_inside_of_a_library_leads_nowhere(make, soname: bytes):
    data = shared_library(wide=True, order="<", machine=62).replace(
        b"libx.so.1\0".ljust(11, b"\0"), soname.ljust(11, b"\0")
    )
    assert soname in data
    folder = "usr/lib/x86_64-linux-gnu"
    recipe = msgspec.structs.replace(STATIC, library_cache=True)
    found = tree(recipe, [base_files(make), make("x", {f"{folder}/libx.so.1": data})])
    (one,) = ldcache.read_cache(content(found["etc/ld.so.cache"]))
    assert (one.soname, one.path) == (b"libx.so.1", f"/{folder}/libx.so.1".encode())
    assert not any(".." in path or path.startswith("/") for path in found)


def test_applets():
    program = b"\x7fELF junk\x02[[\0more [\0[[\0ash\0cat\0sh\0zcat\0Usage"
    assert applets(program) == [b"[", b"[[", b"ash", b"cat", b"sh", b"zcat"]
    with pytest.raises(AerogelError):
        applets(b"no table")


def test_debug_variant(make):
    busybox = make("busybox-static", {"usr/bin/busybox": b"\x7fELF [\0[[\0cat\0sh\0U"})
    found = tree(lookup("gcr.io/distroless/static:debug"), [base_files(make), busybox])
    assert "usr/bin/busybox" not in found
    assert found["busybox/busybox"].entry.size
    assert found["busybox/sh"].entry.link == b"busybox"
