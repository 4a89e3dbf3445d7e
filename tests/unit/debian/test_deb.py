from __future__ import annotations

import contextlib
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from debian_repo import ar, compress, deb, special, tar
from hypothesis import given
from hypothesis import strategies as st

from aerogel.debian.deb import open_deb
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, LNK, REG, SYM

BIG = bytes(range(256)) * 5000


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "test.deb"
    path.write_bytes(data)
    return path


def read_all(path: Path) -> None:
    with open_deb(path) as found:
        for _, content in found.entries():
            content.read()


@pytest.mark.parametrize("codec", ["xz", "gz", "zst", ""])
def test_reads_control_and_data(tmp_path: Path, codec: str) -> None:
    folder = special("./usr/", tarfile.DIRTYPE)
    folder.mode = 0o755
    entries = [
        special("./", tarfile.DIRTYPE),
        folder,
        ("./usr/big", BIG),
        special("./usr/link", tarfile.SYMTYPE, "../etc/x"),
        special("./usr/same", tarfile.LNKTYPE, "./usr/big"),
    ]
    path = write(tmp_path, deb({"Depends": "libc6"}, entries, codec=codec))
    with open_deb(path) as found:
        assert found.data_codec == codec
        assert found.control["control"].startswith(b"Package: hello\nVersion: 1.0\n")
        seen = [(entry.path, entry.kind, entry.link, content.read()) for entry, content in found.entries()]
    assert seen == [
        (b"", DIR, b"", b""),
        (b"usr", DIR, b"", b""),
        (b"usr/big", REG, b"", BIG),
        (b"usr/link", SYM, b"../etc/x", b""),
        (b"usr/same", LNK, b"usr/big", b""),
    ]


@pytest.mark.parametrize("codec", ["xz", "gz", "zst", ""])
def test_the_same_package_without_compression(tmp_path: Path, codec: str) -> None:
    """Also for dpkg itself: emulated build roots are set up from these."""
    entries = [special("./usr", tarfile.DIRTYPE), ("./usr/big", BIG), special("./usr/x", tarfile.SYMTYPE, "big")]
    plain = tmp_path / "plain.deb"
    with open_deb(write(tmp_path, deb(entries=entries, codec=codec))) as found, plain.open("wb") as out:
        found.write_plain(out)
        contents = [(entry, content.read()) for entry, content in found.entries()]
        with open_deb(plain) as written:
            assert (written.data_codec, written.control) == ("", found.control)
            assert [(entry, content.read()) for entry, content in written.entries()] == contents
    if shutil.which("dpkg-deb") is not None:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", plain], capture_output=True, check=True)
        assert done.stdout == tar(entries)
        done = subprocess.run(["dpkg-deb", "--field", plain, "Package"], capture_output=True, check=True)
        assert done.stdout == b"hello\n"


def test_reads_what_dpkg_deb_builds(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is the oracle")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True, mode=0o755)
    (root / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    (root / ("usr/" + "long/" * 40)).mkdir(parents=True)
    (root / ("usr/" + "long/" * 40) / "file").write_bytes(BIG)
    for codec in ("xz", "gzip", "zstd", "none"):
        built = subprocess.run(["dpkg-deb", f"-Z{codec}", "--build", root, tmp_path / "x.deb"], capture_output=True)
        if built.returncode != 0 and codec == "zstd":
            continue  # before dpkg 1.21.18
        assert built.returncode == 0, built.stderr
        with open_deb(tmp_path / "x.deb") as found:
            contents = {entry.path: content.read() for entry, content in found.entries()}
        assert contents[b"usr/" + b"long/" * 40 + b"file"] == BIG
        assert len(contents) == 43


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([("../../etc/passwd", b"x")], "`..` component"),
        ([("./a/../../etc/passwd", b"x")], "`..` component"),
        ([special("./dev/sda", tarfile.BLKTYPE)], "is a block device"),
        ([special("./dev/null", tarfile.CHRTYPE)], "is a character device"),
        ([special("./pipe", tarfile.FIFOTYPE)], "is a fifo"),
        ([special("./shadow", tarfile.LNKTYPE, "/etc/shadow")], "is a hard link to `etc/shadow`, no file before it"),
        ([special("./x", tarfile.LNKTYPE, "./y"), ("./y", b"")], "is a hard link to `y`, no file before it"),
        ([special("./l", tarfile.SYMTYPE, "/etc"), special("./h", tarfile.LNKTYPE, "./l")], "no file before it"),
        ([special("./l", tarfile.SYMTYPE, "/etc"), ("./l/passwd", b"x")], "lies below `l`, which is no directory"),
        ([("./a", b"x"), ("./a/b", b"x")], "lies below `a`, which is no directory"),
        ([("./a", b"x"), ("./a", b"y")], "occurs twice"),
        ([special("./l", tarfile.SYMTYPE, "")], "its entry `l` is a symbolic link to nothing"),
    ],
)
def test_tricks_are_refused(tmp_path: Path, entries: list[object], what: str) -> None:
    with open_deb(write(tmp_path, deb(entries=entries))) as found:  # type: ignore[arg-type]  # a list of both kinds
        with pytest.raises(AerogelError) as caught:
            for _ in found.entries():
                pass
    assert caught.value.code == "debian.deb-unsafe"
    assert what in caught.value.message


def test_absolute_names_stay_below_the_root(tmp_path: Path) -> None:
    with open_deb(write(tmp_path, deb(entries=[("/etc/x", b"x")]))) as found:
        assert [entry.path for entry, _ in found.entries()] == [b"etc/x"]


@pytest.mark.parametrize("codec", ["xz", "gz", "zst", ""])
def test_truncated_anywhere(tmp_path: Path, codec: str) -> None:
    whole = deb(entries=[("./big", BIG)], codec=codec)
    for cut in [*range(0, 300, 7), len(whole) // 2, len(whole) - 2]:
        with pytest.raises(AerogelError) as caught:
            read_all(write(tmp_path, whole[:cut]))
        assert caught.value.code == "debian.deb-damaged", cut


@pytest.mark.parametrize("codec", ["xz", "gz", "zst", ""])
def test_a_data_member_that_ends_early(tmp_path: Path, codec: str) -> None:
    """The `ar` archive is whole, the compressed stream in it is not."""
    end = f".{codec}" if codec else ""
    data = compress(tar([("./big", BIG)]), codec)
    control = compress(tar([("./control", b"Package: x\n")]), codec)
    path = write(
        tmp_path,
        ar([("debian-binary", b"2.0\n"), (f"control.tar{end}", control), (f"data.tar{end}", data[: len(data) // 2])]),
    )
    with pytest.raises(AerogelError) as caught:
        read_all(path)
    assert caught.value.code == "debian.deb-damaged"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "does not begin as an `ar`"),
        (b"PK\x03\x04" * 30, "does not begin as an `ar`"),
        (ar([]), "first member"),
        (ar([("debian-binary", b"9.0\n")]), "format is b'9.0'"),
        (ar([("debian-binary", b"2.0\n"), ("data.tar", b"")]), "control tar followed by a data tar"),
        (ar([("debian-binary", b"2.0\n"), ("control.tar.lzma", b""), ("data.tar", b"")]), "not gz, xz or zst"),
        (
            ar([("debian-binary", b"2.0\n"), ("control.tar.xz", b"junk" * 50), ("data.tar", b"")]),
            "`control.tar.xz` is damaged",
        ),
        (
            ar([("debian-binary", b"2.0\n"), ("control.tar.zst", b"junk" * 50), ("data.tar", b"")]),
            "`control.tar.zst` is damaged",
        ),
        (
            ar([("debian-binary", b"2.0\n"), ("control.tar", tar([("./x", b"")])), ("data.tar", b"")]),
            "no `control` file",
        ),
    ],
)
def test_what_is_no_package(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(AerogelError) as caught, open_deb(write(tmp_path, data)):
        pass
    assert caught.value.code == "debian.deb-damaged"
    assert what in caught.value.message


@pytest.mark.slow
def test_a_control_tar_that_explodes(tmp_path: Path) -> None:
    bomb = compress(tar([("./control", bytes(70 << 20))]), "xz")
    data = ar([("debian-binary", b"2.0\n"), ("control.tar.xz", bomb), ("data.tar", tar([]))])
    with pytest.raises(AerogelError, match="far too large"), open_deb(write(tmp_path, data)):
        pass


def wide_xz(data: bytes) -> bytes:
    """The stream with a header that asks for 2 GiB to unpack it."""
    made = bytearray(lzma.compress(data))
    size = (made[12] + 1) * 4
    assert made[14:16] == b"\x21\x01"  # LZMA2 with one byte of properties
    made[16] = 38
    made[12 + size - 4 : 12 + size] = zlib.crc32(made[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(made)


def wide_zstd(data: bytes) -> bytes:
    """A frame with a window of 1 GiB and one block as it is."""
    return b"\x28\xb5\x2f\xfd" + bytes((0, 20 << 3)) + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize(("codec", "widen"), [("xz", wide_xz), ("zst", wide_zstd)])
def test_a_stream_that_asks_for_much_memory(tmp_path: Path, codec: str, widen: Callable[[bytes], bytes]) -> None:
    """Some bytes decide what unpacking costs: more than the largest that compressors use is refused."""
    control = tar([("./control", b"Package: x\n")])
    data = ar([("debian-binary", b"2.0\n"), (f"control.tar.{codec}", widen(control)), ("data.tar", tar([]))])
    with pytest.raises(AerogelError, match=f"`control.tar.{codec}` is damaged") as caught:
        with open_deb(write(tmp_path, data)):
            pass
    assert caught.value.code == "debian.deb-damaged"


def test_members_of_nobody_are_skipped(tmp_path: Path) -> None:
    data = ar(
        [
            ("debian-binary", b"2.0\nmore\n"),
            ("_extra", b"?"),
            ("control.tar/", tar([("./control", b"Package: x\n")])),
            ("data.tar", tar([("./a", b"1")])),
        ]
    )
    with open_deb(write(tmp_path, data)) as found:
        assert [entry.path for entry, _ in found.entries()] == [b"a"]


SMALL = deb(
    entries=[("./a", b"hello"), special("./b", tarfile.SYMTYPE, "a"), special("./c", tarfile.LNKTYPE, "./a")], codec=""
)


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=6))
def test_damage_never_ends_in_anything_but_an_error_of_ours(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for at, value in changes:
        data[at] = value
    with tempfile.NamedTemporaryFile() as file, contextlib.suppress(AerogelError):
        file.write(data)
        file.flush()
        read_all(Path(file.name))
