"""The archive's folder in the cache: see `archive` for its picture. Writers rename, readers need no lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aerogel.debian.index import FORMAT, PackageIndex, open_index
from aerogel.debian.memory import map_large_blocks
from aerogel.decoding import prepare
from aerogel.errors import EXIT_FAILED, EXIT_HOST, AerogelError

__all__ = ["Cache", "unpacked", "wrong_in_folder"]


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    origin: str
    data: bytes


class Cache:
    """Reads and writes the cache folder, which is made when something is first kept."""

    def __init__(self, root: Path, snapshot: str = "") -> None:
        """`snapshot` keeps the Release files of one moment apart from those of today."""
        self._root = root
        self._snapshot = f"@{snapshot}" if snapshot else ""

    def load_release(self, suite: str) -> tuple[str, bytes] | None:
        """The digest of the archive root's address, and the InRelease file kept for a suite; not verified."""
        prepare(_Saved)
        try:
            saved = msgspec.msgpack.decode(self._release(suite).read_bytes(), type=_Saved)
        except (OSError, msgspec.DecodeError):
            return None
        return saved.origin, saved.data

    def save_release(self, suite: str, origin: str, data: bytes) -> None:
        with self.scratch() as path:
            path.write_bytes(msgspec.msgpack.encode(_Saved(origin, data)))
            self._keep(path, self._release(suite))

    def _release(self, suite: str) -> Path:
        return self._root / "releases-v1" / (suite.replace("/", "_") + self._snapshot)

    def load_index(self, key: str, *, suite: str, component: str, arch: str) -> PackageIndex | None:
        try:
            return open_index(self._root / FORMAT / key, suite=suite, component=component, arch=arch)
        except (OSError, ValueError):
            return None

    def keep_index(self, path: Path, key: str) -> None:
        self._keep(path, self._root / FORMAT / key)

    def deb(self, sha256: str) -> Path | None:
        """A kept .deb whose content still has its digest."""
        path = self._deb(sha256)
        try:
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return path
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def keep_deb(self, path: Path, sha256: str) -> Path:
        target = self._deb(sha256)
        self._keep(path, target)
        return target

    def _deb(self, sha256: str) -> Path:
        return self._root / "debs-v1" / sha256[:2] / f"{sha256}.deb"

    @contextlib.contextmanager
    def partial(self, key: str) -> Iterator[Path]:
        """A file to download into, for one process at a time; what a killed one left is still in it."""
        path = self._folder("partial") / key
        with self._writing():
            yield from self._locked(path)

    @staticmethod
    def _locked(path: Path) -> Iterator[Path]:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_same(fd, path):
                    try:
                        yield path
                    finally:
                        if _is_same(fd, path) and os.fstat(fd).st_size == 0:
                            os.unlink(path)
                    return
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new empty file on the cache's file system; removed at the end unless it was renamed."""
        folder = self._folder("partial")
        with self._writing():
            fd, name = tempfile.mkstemp(prefix="tmp-", dir=folder)
            os.close(fd)
            try:
                yield Path(name)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    def _keep(self, path: Path, target: Path) -> None:
        os.chmod(path, 0o644)
        self._make(target.parent)
        os.replace(path, target)

    def _folder(self, name: str) -> Path:
        return self._make(self._root / name)

    def _make(self, path: Path) -> Path:
        with self._writing():
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that is full or read-only is the host's fault, not a bug."""
        try:
            yield
        except OSError as error:
            raise AerogelError(
                f"cannot write to the cache `{self._root}`: {(error.strerror or str(error)).lower()}",
                code="debian.cache",
                hints=["set XDG_CACHE_HOME or AEROGEL_ROOT to a folder with space that you may write to"],
                exit_status=EXIT_HOST,
            ) from None


def _is_same(fd: int, path: Path) -> bool:
    """Whether the name still means the locked file: the one before may have renamed it away."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def wrong_in_folder(path: Path, sha256: str, found: str) -> AerogelError:
    """For a file of a vendored folder that has another digest, or none: `found` is that, or why there is none."""
    return AerogelError(
        f"`{path.parent.name}/{path.name}` is not the file that was locked",
        code="base.digest",
        detail=f"expected sha256:{sha256}\nfound    {found}",
        hints=["`aerogel base vendor` puts the right one in its place, from the cache or from where it was"],
        exit_status=EXIT_FAILED,
    )


def unpacked(path: Path, name: str, limit: int, shown: str) -> Iterator[bytes]:
    """The content of a .xz, .gz or plain file in pieces, at most `limit` bytes.

    Raises:
        AerogelError: `debian.index` when it is damaged or too large; `shown` names it.
    """
    import gzip
    import lzma
    import zlib

    map_large_blocks()
    suffix = Path(name).suffix
    total = 0
    try:
        with lzma.open(path) if suffix == ".xz" else gzip.open(path) if suffix == ".gz" else open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                total += len(chunk)
                if total > limit:
                    raise AerogelError(f"`{shown}` unpacks to more than {limit} bytes", code="debian.index")
                yield chunk
    except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AerogelError(f"`{shown}` is damaged: {error}", code="debian.index") from None
