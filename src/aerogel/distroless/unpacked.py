"""The content of a .deb ready to be picked from: its control files, its entries, and the bytes behind them.

Unpacking xz is half of the work of composing an image, so the plain contents of each package are kept. Packages are
immutable and named by digest, so what is kept is right for ever; its own digest is checked on every use, because a
cache may be damaged. What a package is called by an index or a lock is compared with its own control file, on every
use too: keys and caches go by digests. Not for: writing files anywhere else.

    <cache>/data-v1/<sha256 of the .deb>.data     the contents of its files, one after the other
    <cache>/data-v1/<sha256 of the .deb>.index    marshal: digest of that, control files, entries with offsets
    <cache>/data-v1/<sha256 of the .deb>.newest   marshal: newest time of its files, which were looked at only; control file

Each appears by rename, the index behind the contents; readers need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aerogel.debian.deb import open_deb
from aerogel.debian.memory import map_large_blocks
from aerogel.debian.package import Package
from aerogel.errors import AerogelError
from aerogel.files.entry import Entry
from aerogel.files.tar import CHUNK

__all__ = ["FOLDER", "Unpacked", "newest_time", "unpack"]

FOLDER = "data-v1"
_VERSION = 1
_NEWEST_VERSION = 2
_THREADS = 2
_FIELD = re.compile(rb"^(Package|Version|Architecture):(.*)$", re.MULTILINE | re.IGNORECASE)


class Unpacked(NamedTuple):
    """A package whose contents are open at `fd`; the offset beside an entry is where its content lies there."""

    package: Package
    control: dict[str, bytes]
    entries: list[tuple[Entry, int]]
    fd: int

    def read(self, offset: int, size: int) -> bytes:
        """Content by its place in the file."""
        return os.pread(self.fd, size, offset)


@contextmanager
def unpack(packages: Sequence[Package], debs: Sequence[Path], cache: Path) -> Iterator[list[Unpacked]]:
    """Opens packages whose verified .deb files are `debs`, in the same order; closes them at the end.

    Raises `debian.deb-damaged`, `debian.deb-unsafe` (devices, links to files that are not in the package),
    `debian.deb-name` for a file that is another package than it was taken for.
    """
    folder = cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    map_large_blocks()
    with ExitStack() as stack, ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(_open, package, deb, folder) for package, deb in zip(packages, debs, strict=True)]
        found = []
        faults = []
        for future in futures:
            try:
                one = future.result()
            except BaseException as error:  # noqa: BLE001 - raised below, when what was opened is known
                faults.append(error)
                continue
            stack.callback(os.close, one.fd)
            found.append(one)
        if faults:
            raise faults[0]
        yield found


def newest_time(packages: Sequence[Package], debs: Sequence[Path], cache: Path) -> int:
    """The newest time in any package, seconds since 1970, for packages that another program unpacks.

    Every entry is looked at as `unpack` does, which raises the same errors, but no content is kept.
    """
    folder = cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    map_large_blocks()
    with ThreadPoolExecutor(_THREADS) as pool:
        return max(pool.map(_newest, packages, debs, repeat(folder)), default=0)


def _newest(package: Package, deb: Path, folder: Path) -> int:
    found, control = _known_newest(kept := folder / f"{package.sha256}.newest") or (0, b"")
    if not control:
        with open_deb(deb) as opened:
            control = opened.control["control"]
            found = max((entry.mtime for entry, _ in opened.entries()), default=0)
        with _made(kept) as out:
            out.write(marshal.dumps((_NEWEST_VERSION, found, control)))
    _check_name(package, control)
    return found


def _known_newest(kept: Path) -> tuple[int, bytes] | None:
    with contextlib.suppress(FileNotFoundError, EOFError, ValueError, TypeError):  # damaged: it is made anew
        version, found, control = marshal.loads(kept.read_bytes())  # noqa: S302 - our own file
        if version == _NEWEST_VERSION and isinstance(found, int) and isinstance(control, bytes):
            return found, control
    return None


def _open(package: Package, deb: Path, folder: Path) -> Unpacked:
    kept = folder / f"{package.sha256}.data"
    opened = _kept(package, kept)
    if opened is None:
        _unpack(deb, kept)
        opened = _kept(package, kept)
        assert opened is not None  # written a moment ago
    try:
        _check_name(package, opened.control["control"])
    except BaseException:
        os.close(opened.fd)
        raise
    return opened


def _check_name(package: Package, control: bytes) -> None:
    """Raises `debian.deb-name` if the control file has another name, version or architecture, or several."""
    found = {(name.lower(), value.strip()) for name, value in _FIELD.findall(control)}
    wanted = {b"package": package.name, b"version": package.version, b"architecture": package.architecture}
    if found == {(name, value.encode()) for name, value in wanted.items()}:
        return
    said = (b"/".join(sorted(value for name, value in found if name == each)) or b"?" for each in wanted)
    raise AerogelError(
        f"`{os.path.basename(package.filename)}` is the package `{b' '.join(said).decode('utf-8', 'replace')}`, "
        f"and was taken for `{package}`",
        code="debian.deb-name",
        hints=[
            "if a lock calls it that, somebody has changed the lock: make it anew with `aerogel base lock`",
            "if the index of an archive does, the archive is wrong: use another mirror",
        ],
    )


def _kept(package: Package, kept: Path) -> Unpacked | None:
    try:
        index = kept.with_suffix(".index").read_bytes()
        fd = os.open(kept, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        version, digest, control, rows = marshal.loads(index)  # noqa: S302 - our own file
        if version == _VERSION and _digest(fd) == digest:
            return Unpacked(package, control, [(Entry(*row[:-1]), row[-1]) for row in rows], fd)
    except (EOFError, ValueError, TypeError):
        pass  # damaged: it is made anew
    os.close(fd)
    return None


def _digest(fd: int) -> bytes:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    at = 0
    while got := os.preadv(fd, [buffer], at):
        hasher.update(buffer[:got])
        at += got
    return hasher.digest()


def _unpack(deb: Path, kept: Path) -> None:
    hasher = hashlib.sha256()
    rows = []
    offset = 0
    with open_deb(deb) as opened, _made(kept) as out:
        for entry, content in opened.entries():
            rows.append((*entry, offset))
            offset += entry.size
            while data := content.read(CHUNK):
                hasher.update(data)
                out.write(data)
        index = marshal.dumps((_VERSION, hasher.digest(), dict(opened.control), rows))
    with _made(kept.with_suffix(".index")) as out:
        out.write(index)


@contextmanager
def _made(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well."""
    fd, scratch = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with open(fd, "wb") as out:
            yield out
        os.rename(scratch, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        raise
