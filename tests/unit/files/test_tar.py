"""The tar codec against `tarfile`, in both directions, and against damaged input."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.files.entry import BLK, CHR, DIR, FIFO, LNK, REG, SYM, Entry, clean_path, parents, sort_key
from aerogel.files.tar import TarWriter, header, read_entries, scan


def make(entries: list[tuple[Entry, bytes]]) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for entry, content in entries:
        writer.entry(entry)
        if entry.kind == REG:
            writer.content(content)
            writer.pad()
    writer.close()
    assert writer.offset == len(out.getvalue())
    return out.getvalue()


_part = st.binary(min_size=1, max_size=180).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")
)
_path = st.lists(_part, min_size=1, max_size=4).map(b"/".join)
_xattr = st.tuples(
    st.binary(min_size=1, max_size=20).filter(lambda b: not {0, 0x3D} & set(b)).map(lambda b: b"user." + b),
    st.binary(min_size=1, max_size=60),
)


@st.composite
def _entry(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(st.sampled_from([REG, LNK, SYM, CHR, BLK, DIR, FIFO]))
    content = draw(st.binary(max_size=1500)) if kind == REG else b""
    link = draw(_path) if kind == LNK else draw(st.binary(min_size=1, max_size=300).filter(lambda b: 0 not in b))
    number = st.one_of(st.integers(0, 100), st.integers(0, (1 << 32) - 1))
    entry = Entry(
        draw(_path),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(number),
        draw(number),
        len(content),
        draw(st.integers(-(1 << 40), 1 << 40)),
        link if kind in (LNK, SYM) else b"",
        (draw(st.integers(0, 4095)), draw(st.integers(0, 1048575))) if kind in (CHR, BLK) else (0, 0),
        tuple(sorted(dict(draw(st.lists(_xattr, max_size=2))).items())),
    )
    return entry, content


def _encoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


@given(st.lists(_entry(), max_size=4))
@settings(max_examples=150, deadline=None)
def test_round_trip_and_tarfile_reads_it(entries: list[tuple[Entry, bytes]]) -> None:
    data = make(entries)
    assert [(e, c.read()) for e, c in read_entries(io.BytesIO(data))] == entries
    scanned = list(scan(io.BytesIO(data)))
    assert [e for e, _ in scanned] == [e for e, _ in entries]
    for (entry, offset), (_, content) in zip(scanned, entries, strict=True):
        assert data[offset : offset + entry.size] == content
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as oracle:
        for (entry, content), member in zip(entries, oracle, strict=True):
            assert member.name == _encoded(entry.path)
            assert member.type == bytes([entry.kind])
            assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
            assert (member.size, int(member.mtime), member.uname) == (entry.size, entry.mtime, "")
            assert member.linkname == _encoded(entry.link)
            assert (member.devmajor, member.devminor) == entry.rdev
            if entry.kind == REG:
                stream = oracle.extractfile(member)
                assert stream is not None
                assert stream.read() == content


@given(st.lists(_entry(), max_size=4), st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=150, deadline=None)
def test_reads_what_tarfile_writes(entries: list[tuple[Entry, bytes]], form: int) -> None:
    out = io.BytesIO()
    expected = []
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as oracle:
        for entry, content in entries:
            info = tarfile.TarInfo(_encoded(entry.path))
            info.type = bytes([entry.kind])
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
            info.linkname, info.size = _encoded(entry.link), entry.size
            info.devmajor, info.devminor = entry.rdev
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {
                    _encoded(b"SCHILY.xattr." + key): _encoded(value)
                    for key, value in entry.xattrs
                    if _clean(key, value)
                }
                entry = entry._replace(xattrs=tuple(x for x in entry.xattrs if _clean(*x)))  # noqa: PLW2901 - shorter
            else:
                entry = entry._replace(xattrs=())  # noqa: PLW2901 - shorter
            try:
                oracle.addfile(info, io.BytesIO(content))
            except ValueError:  # does not fit in ustar
                continue
            expected.append((entry, content))
    found = [(e, c.read()) for e, c in read_entries(io.BytesIO(out.getvalue()))]
    assert found == expected


def _clean(key: bytes, value: bytes) -> bool:
    return key.isascii() and value.isascii() and b"\0" not in value


def test_canonical_header_of_a_plain_file() -> None:
    block = header(Entry(b"usr/bin/x", REG, 0o755, 1, 2, 3, 4))
    assert len(block) == 512
    assert block[:100] == b"usr/bin/x".ljust(100, b"\0")
    assert block[100:156] == b"0000755\x000000001\x000000002\x0000000000003\x0000000000004\x00" + block[148:156]
    assert block[156:157] == b"0"
    assert block[257:265] == b"ustar\x0000"
    assert block[265:329] == bytes(64)
    assert header(Entry(b"d", DIR, 0o755))[:3] == b"d/\0"


def test_long_path_uses_the_prefix_before_pax() -> None:
    assert len(header(Entry(b"d" * 90 + b"/" + b"f" * 90, REG, 0o644))) == 512
    assert len(header(Entry(b"d" * 160 + b"/" + b"f" * 90, REG, 0o644))) == 3 * 512


def test_reads_global_pax_and_per_file_override() -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x", "uid": "77"}
    ) as tar:
        tar.addfile(tarfile.TarInfo("a"))
        other = tarfile.TarInfo("b")
        other.pax_headers = {"uid": "88", "mtime": "-1.5"}
        tar.addfile(other)
    found = [entry for entry, _ in scan(io.BytesIO(out.getvalue()))]
    assert [(e.path, e.uid, e.mtime) for e in found] == [(b"a", 77, 0), (b"b", 88, -2)]


def test_names_are_made_canonical() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("./", "./a//b/", "/etc/x", "./c/./d"):
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info)
        hard = tarfile.TarInfo("h")
        hard.type, hard.linkname = tarfile.LNKTYPE, "/./etc/x"
        tar.addfile(hard)
    found = [(entry.path, entry.link) for entry, _ in scan(io.BytesIO(out.getvalue()))]
    assert found == [(b"", b""), (b"a/b", b""), (b"etc/x", b""), (b"c/d", b""), (b"h", b"etc/x")]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "a/.."])
def test_dot_dot_is_refused(name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(AerogelError) as caught:
        list(scan(io.BytesIO(out.getvalue())))
    assert caught.value.code == "tar.path"


def test_v7_and_signed_checksum() -> None:
    block = bytearray(512)
    block[:4] = b"d\xff/\0"
    block[100:148] = b"000755 \x00" + b"000001 \x00" + b"000002 \x00" + b"00000000000 " + b"00000000004 "
    block[148:156] = b"        "
    total = sum(b - 256 if b > 127 else b for b in block)
    block[148:156] = b"%06o\0 " % total
    (found,) = [entry for entry, _ in scan(io.BytesIO(bytes(block) + bytes(1024)))]
    assert (found.path, found.kind, found.mode, found.uid, found.gid, found.mtime) == (b"d\xff", DIR, 0o755, 1, 2, 4)


def test_sparse_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("s")
        info.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(info)
    with pytest.raises(AerogelError) as caught:
        list(scan(io.BytesIO(out.getvalue())))
    assert caught.value.code == "tar.sparse"


def test_truncation_is_noticed_at_every_length() -> None:
    entries = [
        (Entry(b"a" * 300, REG, 0o644, size=700), b"x" * 700),
        (Entry(b"b", REG, 0o644, size=3), b"abc"),
    ]
    data = make(entries)
    ends = {0, 512 * 4 + 1024, len(data) - 1024, len(data) - 512, len(data)}
    for length in range(0, len(data), 37):
        for walk in (scan, read_entries):
            if length in ends:
                list(walk(io.BytesIO(data[:length])))
            else:
                with pytest.raises(AerogelError) as caught:
                    list(walk(io.BytesIO(data[:length])))
                assert caught.value.code == "tar.truncated", length


def test_a_truncated_file_is_noticed_when_its_content_is_sought_over(tmp_path: Path) -> None:
    size = 5 << 20
    path = tmp_path / "t"
    path.write_bytes(make([(Entry(b"a", REG, 0o644, size=size), bytes(size)), (Entry(b"b", DIR, 0o755), b"")]))
    with path.open("rb") as stream:
        assert [e.path for e, _ in scan(stream)] == [b"a", b"b"]
    os.truncate(path, size)
    with path.open("rb") as stream, pytest.raises(AerogelError) as caught:
        list(scan(stream))
    assert caught.value.code == "tar.truncated"


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_garbage_gives_an_error_of_the_house_or_entries(data: bytes) -> None:
    try:
        list(scan(io.BytesIO(data)))
    except AerogelError as error:
        assert error.code.startswith("tar.")  # noqa: PT017 - both outcomes are right


@given(st.integers(0, 511), st.integers(0, 255), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_gives_an_error_of_the_house(at: int, value: int, fix: bool) -> None:
    data = bytearray(header(Entry(b"a/b", REG, 0o644, 1, 2, 5, 6)) + b"hello".ljust(512, b"\0") + bytes(1024))
    data[at] = value
    if fix and not 148 <= at < 156:
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    try:
        list(scan(io.BytesIO(bytes(data))))
    except AerogelError as error:
        assert error.code.startswith("tar.")  # noqa: PT017 - both outcomes are right


def test_an_oversized_extension_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("n" * ((1 << 20) + 5)))
    with pytest.raises(AerogelError) as caught:
        list(scan(io.BytesIO(out.getvalue())))
    assert caught.value.code == "tar.extension-too-large"


def test_file_fd_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    for size in (4, 6):
        writer = TarWriter(lambda _: None)
        with path.open("rb") as stream, pytest.raises(AerogelError) as caught:
            writer.file_fd(Entry(b"f", REG, 0o644, size=size), stream.fileno())
        assert caught.value.code == "tar.changed"
    out = io.BytesIO()
    writer = TarWriter(out.write)
    with path.open("rb") as stream:
        writer.file_fd(Entry(b"f", REG, 0o644, size=5), stream.fileno())
    writer.close()
    assert [c.read() for _, c in read_entries(io.BytesIO(out.getvalue()))] == [b"12345"]


def test_misuse_of_the_writer_is_a_bug() -> None:
    writer = TarWriter(lambda _: None)
    writer.entry(Entry(b"f", REG, 0o644, size=5))
    with pytest.raises(ValueError):
        writer.content(b"123456")
    with pytest.raises(ValueError):
        writer.pad()
    with pytest.raises(ValueError):
        writer.close()


def test_xattr_name_with_equals_sign_is_refused() -> None:
    with pytest.raises(AerogelError) as caught:
        header(Entry(b"f", REG, 0o644, xattrs=((b"user.a=b", b"c"),)))
    assert caught.value.code == "tar.xattr-name"


@given(st.lists(_path, max_size=6))
def test_order_is_by_components(paths: list[bytes]) -> None:
    entries = [Entry(path, REG, 0) for path in paths]
    assert sorted(entries, key=sort_key) == sorted(entries, key=lambda e: e.path.split(b"/"))


def test_paths() -> None:
    assert parents(b"a/b/c") == [b"a", b"a/b"]
    assert parents(b"a") == parents(b"") == []
    assert clean_path(b"./a/./b//c/") == b"a/b/c"
    assert clean_path(b"a/b.") == b"a/b."
    assert clean_path(b"...") == b"..."
