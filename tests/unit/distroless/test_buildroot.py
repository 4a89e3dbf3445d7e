"""What is unpacked before dpkg runs, and what is only looked at."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from debian_repo import deb, special

from aerogel.debian.deb import open_deb
from aerogel.debian.package import Package
from aerogel.distroless.buildroot import needed_first, uncompressed
from aerogel.distroless.unpacked import FOLDER, newest_time
from aerogel.errors import AerogelError


def package(name: str, *, data: bytes = b"", **fields: object) -> Package:
    sha256 = hashlib.sha256(data).hexdigest()
    return Package(name, "1", "amd64", f"pool/{name}.deb", len(data), sha256, name, "1", **fields)


def test_what_dpkg_and_scripts_count_on_comes_first() -> None:
    packages = [
        package("base-files", essential=True, pre_depends="awk"),
        package("mawk", provides="awk", depends="libc6 (>= 2.4)"),
        package("libc6"),
        package("dpkg", depends="tar"),
        package("tar"),
        package("golang", depends="gcc, libc6"),
        package("gcc", depends="binutils"),
        package("binutils"),
        package("python3", pre_depends="python3-minimal | nothing", depends="libpython3"),
        package("python3-minimal", depends="libexpat1"),
        package("libexpat1"),
        package("libpython3"),
        package("libc6-i386"),
    ]
    expected = {"base-files", "mawk", "libc6", "dpkg", "tar", "python3-minimal", "libexpat1", "libc6-i386"}
    assert needed_first(packages) == expected


def made(folder: Path, entries: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> tuple[Package, Path]:
    data = deb({"Version": "1"}, entries)
    path = folder / f"{hashlib.sha256(data).hexdigest()}.deb"
    path.write_bytes(data)
    return package("hello", data=data), path


def aged(name: str, mtime: int) -> tarfile.TarInfo:
    found = special(name, tarfile.DIRTYPE)
    found.mtime = mtime
    return found


def test_the_newest_time_is_found_once(tmp_path: Path) -> None:
    one, first = made(tmp_path, [aged("./a", 70), aged("./b", 50)])
    two, second = made(tmp_path, [aged("./c", 60)])
    assert newest_time([one, two], [first, second], tmp_path) == 70
    assert newest_time([], [], tmp_path) == 0
    assert sorted(path.suffix for path in (tmp_path / FOLDER).iterdir()) == [".newest", ".newest"]
    first.unlink()
    assert newest_time([one], [first], tmp_path) == 70
    (tmp_path / FOLDER / f"{two.sha256}.newest").write_bytes(b"damaged")
    assert newest_time([two], [second], tmp_path) == 60


def test_what_is_only_looked_at_has_its_name(tmp_path: Path) -> None:
    """The second time it is the name that was kept with the time."""
    one, path = made(tmp_path, [aged("./a", 70)])
    other = msgspec.structs.replace(one, name="other")
    for _ in range(2):
        with pytest.raises(AerogelError, match="is the package `hello 1 amd64`, and was taken for `other 1 amd64`"):
            newest_time([other], [path], tmp_path)
    assert newest_time([one], [path], tmp_path) == 70


def test_packages_without_compression_in_their_order(tmp_path: Path) -> None:
    debs = [made(tmp_path, [special(f"./{name}", tarfile.DIRTYPE)])[1] for name in "ba"]
    (folder := tmp_path / "plain").mkdir()
    found = uncompressed(debs, folder)
    assert found == [folder / deb.name for deb in debs]
    for path, name in zip(found, (b"b", b"a"), strict=True):
        with open_deb(path) as opened:
            assert (opened.data_codec, [entry.path for entry, _ in opened.entries()]) == ("", [name])
    debs[1].write_bytes(debs[1].read_bytes()[:-40])
    with pytest.raises(AerogelError, match="it is truncated"):
        uncompressed(debs, folder)


@pytest.mark.parametrize(
    "entry",
    [special("./dev", tarfile.CHRTYPE), special("./../out", tarfile.DIRTYPE), special("./a", tarfile.LNKTYPE, "./b")],
)
def test_what_dpkg_unpacks_is_checked_too(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    one, path = made(tmp_path, [entry])
    with pytest.raises(AerogelError) as caught:
        newest_time([one], [path], tmp_path)
    assert caught.value.code == "debian.deb-unsafe"
    assert not list((tmp_path / FOLDER).iterdir())
