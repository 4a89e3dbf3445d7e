"""ADD of local archives: every compression, merging, links, owners, and what only looks like one."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import zstandard
from cases import Case, File, Make

__all__ = ["CASES"]

Rows = list[tuple[str, bytes, int, int, str | bytes]]
"""Name, type, mode, owner, link target or content."""

_D, _F, _S, _H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

ROWS: Rows = [
    ("top", _D, 0o750, 7, ""),
    ("top/file", _F, 0o640, 8, b"file\n"),
    ("top/suid", _F, 0o4711, 0, b"suid\n"),
    ("top/link", _S, 0o777, 9, "file"),
    ("top/hard", _H, 0o640, 8, "top/file"),
    ("other/no/parents", _F, 0o600, 3, b"deep\n"),
    ("data", _D, 0o700, 5, ""),
    ("data/file", _F, 0o600, 6, b"replaced\n"),
]


def _tar(rows: Rows, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, mode, owner, what in rows:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, owner, owner, 1_500_000_000
            content = what if isinstance(what, bytes) else b""
            info.linkname = what if isinstance(what, str) else ""
            info.size = len(content)
            if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = 1, 3
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _archive(rows: Rows, compress: Callable[[bytes], bytes] = bytes, form: int = tarfile.GNU_FORMAT) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(compress(_tar(rows, form)))

    return make


_xz = functools.partial(lzma.compress, format=lzma.FORMAT_XZ)
_NAME_IS_NO_MATTER: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("a.bin", bytes),
    "gzip": ("a.tar.gz", functools.partial(gzip.compress, mtime=0)),
    "bzip2": ("a", bz2.compress),
    "xz": ("a.txt", _xz),
}


def _two_members(path: Path) -> None:
    data = _tar(ROWS)
    path.write_bytes(gzip.compress(data[:1024], mtime=0) + gzip.compress(data[1024:], mtime=0))


def _case(name: str, rows: Rows, *lines: str, base: str = "differential", **more: object) -> Case:
    text = "\n".join([f"FROM {base}", *lines, ""])
    return Case(name, text, {"a.tar": _archive(rows), "b.tar": _archive(ROWS[:5]), "f": "f\n"}, **more)  # type: ignore[arg-type]  # the fields of Case


CASES = [
    *(
        Case(f"archive-{kind}", f"FROM differential\nADD {name} /x/\n", {name: _archive(ROWS, compress)})
        for kind, (name, compress) in _NAME_IS_NO_MATTER.items()
    ),
    Case("archive-gzip-of-two-members", "FROM scratch\nADD a /x\n", {"a": _two_members}),
    Case(
        "archive-pax",
        "FROM scratch\nADD a /x\n",
        {"a": _archive([("n" * 150 + "/" + "m" * 150, _F, 0o644, 3_000_000, b"x")], form=tarfile.PAX_FORMAT)},
    ),
    Case("archive-ustar", "FROM scratch\nADD a /x\n", {"a": _archive(ROWS, form=tarfile.USTAR_FORMAT)}),
    Case("archive-copied-by-copy", "FROM scratch\nCOPY a.tar /x/\n", {"a.tar": _archive(ROWS)}),
    Case(
        "archive-that-is-none",
        "FROM scratch\nADD a.tar.gz b.tgz /x/\n",
        {"a.tar.gz": lambda path: path.write_bytes(gzip.compress(b"only text\n", mtime=0)), "b.tgz": "no gzip\n"},
    ),
    Case("archive-empty", "FROM differential\nADD a /x\n", {"a": _archive([])}),
    Case("archive-empty-into-scratch-slash", "FROM scratch\nADD a f /x/\n", {"a": _archive([]), "f": "f\n"}),
    Case(
        "archive-damaged",
        "FROM scratch\nADD a /x/\n",
        {"a": File(gzip.compress(_tar(ROWS), mtime=0)[:200])},
        fails=True,
    ),
    Case("archive-in-a-directory-stays", "FROM scratch\nADD d /x/\n", {"d/a.tar": _archive(ROWS), "d/f": "f\n"}),
    _case("archive-no-slash", ROWS, "ADD a.tar /new/dir"),
    _case("archive-into-root-merges", ROWS, "ADD a.tar /"),
    _case("archive-into-scratch", ROWS, "ADD a.tar /", base="scratch"),
    _case("archive-dest-is-file", ROWS, "ADD a.tar /data/file", fails=True),
    _case("archive-dest-is-link", ROWS, "ADD a.tar /todir"),
    _case("archive-dest-is-link-slash", ROWS, "ADD a.tar /absolute/"),
    _case("archive-two", ROWS, "ADD a.tar b.tar f /x/"),
    _case("archive-glob", ROWS, "ADD *.tar /x/"),
    _case("archive-twice", ROWS, "ADD a.tar /x/", "ADD a.tar /x/"),
    _case("archive-chmod", ROWS, "ADD --chmod=700 a.tar /x/y/"),
    _case("archive-chown", ROWS, "ADD --chown=app:staff a.tar /x/y/"),
    _case("archive-workdir", ROWS, "WORKDIR /w", "ADD a.tar sub"),
    _case(
        "archive-dot-prefix",
        [("./", _D, 0o711, 4, ""), ("./x", _F, 0o644, 4, b"x\n"), ("./d/y", _F, 0o644, 0, b"y\n")],
        "ADD a.tar /q",
    ),
    _case("archive-root-mode-existing", [("./", _D, 0o711, 4, ""), ("./x", _F, 0o644, 4, b"x\n")], "ADD a.tar /data/"),
    _case("archive-name-twice", [("x", _F, 0o644, 1, b"old\n"), ("x", _F, 0o600, 2, b"new\n")], "ADD a.tar /q/"),
    _case(
        "archive-file-then-dir",
        [("x", _F, 0o644, 1, b"old\n"), ("x", _D, 0o700, 2, ""), ("x/y", _F, 0o600, 2, b"")],
        "ADD a.tar /q/",
    ),
    _case("archive-dir-then-file", [("x", _D, 0o700, 2, ""), ("x", _F, 0o644, 1, b"new\n")], "ADD a.tar /q/"),
    _case("archive-file-over-dir", [("data", _F, 0o644, 1, b"a file\n")], "ADD a.tar /"),
    _case(
        "archive-dir-over-file", [("data/file", _D, 0o700, 1, ""), ("data/file/x", _F, 0o600, 0, b"")], "ADD a.tar /"
    ),
    _case("archive-dir-over-link", [("todir", _D, 0o700, 1, ""), ("todir/x", _F, 0o600, 0, b"x\n")], "ADD a.tar /"),
    _case("archive-file-over-link", [("tofile", _F, 0o600, 1, b"mine\n")], "ADD a.tar /"),
    _case("archive-through-link-of-root", [("todir/x", _F, 0o600, 1, b"x\n")], "ADD a.tar /"),
    _case(
        "archive-through-own-link",
        [("d", _D, 0o755, 0, ""), ("l", _S, 0o777, 0, "d"), ("l/x", _F, 0o600, 1, b"x\n")],
        "ADD a.tar /q/",
    ),
    _case("archive-leaves-with-dots", [("../../x", _F, 0o600, 1, b"x\n")], "ADD a.tar /q/", fails=True),
    _case("archive-absolute-names", [("/abs/x", _F, 0o600, 1, b"x\n")], "ADD a.tar /q/"),
    _case("archive-link-to-link", [("l", _S, 0o777, 0, "nowhere"), ("h", _H, 0o777, 0, "l")], "ADD a.tar /q/"),
    _case(
        "archive-hardlink-first", [("h", _H, 0o777, 0, "f"), ("f", _F, 0o644, 0, b"f\n")], "ADD a.tar /q/", fails=True
    ),
    _case(
        "archive-hardlink-chain",
        [("f", _F, 0o644, 2, b"f\n"), ("g", _H, 0o644, 2, "f"), ("h", _H, 0o644, 2, "g")],
        "ADD a.tar /q/",
    ),
    _case(
        "archive-fifo-and-device",
        [("p", tarfile.FIFOTYPE, 0o600, 1, ""), ("c", tarfile.CHRTYPE, 0o666, 0, "")],
        "ADD a.tar /q/",
    ),
    _case("archive-whiteout", [(".wh.x", _F, 0o600, 0, b""), ("y", _F, 0o600, 0, b"")], "ADD a.tar /q/"),
    Case("archive-zstd", "FROM scratch\nADD a /x/\n", {"a": _archive(ROWS, zstandard.ZstdCompressor().compress)}),
]
