"""Blobs by digest, one immutable file each, in the form of an OCI layout's `blobs` folder.

::

    <data>/blobs/<algorithm>/<hex>      mode 0444, complete from the moment it has this name

A blob is written under a scratch name and renamed. It is not synced one by one: `sync` does so for those that a
tag is about to promise, and whoever reads to the end has checked size and digest, so a blob that a power cut left
torn is found, dropped and made again, never used. Two writers of one blob do not disturb each other.
Spec: OCI image-spec v1.1 image-layout.md#blobs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, VerifiedReader, digest_of, new_hash, of_hash
from aerogel.store.disk import disk_error, disk_errors, is_same_file
from aerogel.store.scratch import Scratch

if TYPE_CHECKING:
    from aerogel.oci.types import Descriptor

__all__ = ["MAX_DOCUMENT", "BlobWriter", "Blobs"]

MAX_DOCUMENT = 16 << 20
"""Largest blob that `read` takes into memory (manifests, configs)."""

_CHUNK = 1 << 20


class Blobs:
    """The blobs of one store."""

    def __init__(self, data: str, scratch: Scratch) -> None:
        self._root = f"{data}/blobs"
        self._scratch = scratch
        self._unsynced: set[Digest] = set()
        self.on_missing: Callable[[Digest, int | None], bool] | None = None
        """Asked for a blob (of this size, if that is known) that is not here; whether it is now. Called by `open` and `read`."""
        self._lock = threading.Lock()

    def path(self, digest: Digest) -> str:
        """Where the blob is or would be; for readers that cannot take a stream, never for writing."""
        algorithm, _, encoded = digest.partition(":")
        return f"{self._root}/{algorithm}/{encoded}"

    def has(self, digest: Digest) -> bool:
        return self.size(digest) is not None

    def size(self, digest: Digest) -> int | None:
        """Size in bytes, None when the blob is not here."""
        try:
            return os.stat(self.path(digest)).st_size
        except OSError:
            return None

    def open(self, digest: Digest, size: int | None = None) -> BinaryIO:
        """The content from its start; reading to the end raises `store.corrupt` unless it is what the digest says.

        A blob that is not is dropped from the store. Raises `store.missing`. The caller closes.
        """
        stream = self.open_unchecked(digest, size)

        def drop() -> None:
            self._drop(digest, stream.fileno())

        reader = VerifiedReader(
            stream,
            digest,
            self.size(digest) if size is None else size,
            what=f"blob `{digest}` in the store",
            code="store.corrupt",
            on_mismatch=drop,
        )
        return cast("BinaryIO", reader)  # read, readinto, close, fileno: all that a forward reader has

    def open_unchecked(self, digest: Digest, size: int | None = None) -> BinaryIO:
        """The same for a reader that finds out itself whether the content is right, as a registry does."""
        if self.on_missing is not None and not self.has(digest):
            self.on_missing(digest, size)
        # An unbuffered file is one in all that is used here.
        return cast("BinaryIO", os.fdopen(self.open_fd(digest), "rb", buffering=0))

    def open_fd(self, digest: Digest) -> int:
        """A read-only descriptor for random access; nothing is checked. Raises `store.missing`. The caller closes."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise disk_error(self._root, error) from error

    def read(self, digest: Digest, size: int | None = None) -> bytes:
        """The whole of a small blob, checked. Raises `store.missing`, `store.corrupt`, `store.too-large`."""
        found = self.size(digest)
        if found is not None and found > MAX_DOCUMENT:
            raise AerogelError(f"blob `{digest}` has {found} bytes, too many for a document", code="store.too-large")
        with self.open(digest, size) as stream:
            return stream.read()

    def _drop(self, digest: Digest, fd: int) -> None:
        """Removes a blob that was found wrong, unless another process has put a new file there meanwhile."""
        path = self.path(digest)
        try:
            if is_same_file(fd, path):
                os.unlink(path)
        except OSError:
            return  # a read-only store: the error that follows says what is wrong

    def write(self) -> BlobWriter:
        """Begins a blob. Use as a context manager: without `commit` nothing stays. Raises `store.*`."""
        fd, path = self._scratch.file()
        return BlobWriter(self, fd, path)

    def resume(self, digest: Digest) -> BlobWriter:
        """The same for a blob that another process may have begun: `fd` holds what it has left, right or wrong.

        Waits while another one writes it. Raises `store.*`.
        """
        fd, path = self._scratch.part(digest.replace(":", "-"))
        return BlobWriter(self, fd, path)

    def put(self, data: bytes, media_type: str = "") -> Descriptor:
        """Stores a small blob and returns its descriptor. Raises `store.*`."""
        from aerogel.oci.types import Descriptor

        digest = digest_of(data)
        if self.size(digest) != len(data):
            with self.write() as writer:
                writer.write(data)
                writer.commit(digest)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def copy_in(self, stream: BinaryIO, digest: Digest, size: int | None = None) -> Digest:
        """Stores what a stream holds if it is what `digest` (and `size`) say. Raises `store.mismatch`, `store.*`."""
        with self.write() as writer:
            while data := stream.read(_CHUNK):
                writer.write(data)
                if size is not None and writer.size > size:
                    break
            return writer.commit(digest, size)

    def _place(self, path: str, digest: Digest) -> None:
        target = self.path(digest)
        with disk_errors(self._root):
            try:
                os.rename(path, target)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                os.rename(path, target)
        with self._lock:
            self._unsynced.add(digest)

    def sync(self, digests: Iterable[Digest] | None = None) -> None:
        """Waits until the blobs that this process wrote (those of `digests` only) are on the medium. Raises `store.*`."""
        with self._lock:
            todo = self._unsynced & set(digests) if digests is not None else set(self._unsynced)
        for digest in sorted(todo):
            path = self.path(digest)
            with disk_errors(self._root):
                _fsync(path)
        if todo:
            with disk_errors(self._root):
                for directory in sorted({os.path.dirname(self.path(digest)) for digest in todo}):
                    _fsync(directory)
            with self._lock:
                self._unsynced -= todo

    def all(self) -> Iterator[tuple[Digest, int]]:
        """Every blob with its size on disk, in no order."""
        try:
            algorithms = os.listdir(self._root)
        except FileNotFoundError:
            return
        for algorithm in algorithms:
            with os.scandir(f"{self._root}/{algorithm}") as entries:
                for entry in entries:
                    yield Digest(f"{algorithm}:{entry.name}"), entry.stat().st_size

    def remove(self, digest: Digest) -> int:
        """Deletes a blob; returns the bytes that this frees. For `store.gc`, which knows what is needed."""
        path = self.path(digest)
        with disk_errors(self._root):
            try:
                size = os.stat(path).st_size
                os.unlink(path)
            except FileNotFoundError:
                return 0
        return size


class BlobWriter:
    """A blob on its way. Write through `write` (hashed here) or straight to `fd` (the digest is then taken on trust).

    `commit` gives it its name; leaving the context without it removes it.
    """

    def __init__(self, blobs: Blobs, fd: int, path: str) -> None:
        self.fd = fd
        self.size = 0
        self.is_kept = False
        """What a writer of `Blobs.resume` has got stays, without a name, when it is not committed."""
        self._blobs = blobs
        self._path: str | None = path
        self._settled = 0
        self._hash = new_hash()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self.abort()
        # The codec knows nothing of stores: a full disk is told here, with what can be done.
        if isinstance(error, AerogelError) and error.code == "codec.write" and isinstance(error.__cause__, OSError):
            raise disk_error(self._blobs._root, error.__cause__) from error

    def write(self, data: bytes | memoryview) -> None:
        """Appends all of `data`. Raises `store.*`."""
        with disk_errors(self._blobs._root):
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view) :]
        self._hash.update(data)
        self.size += len(data)

    def settle(self) -> None:
        """Lets the medium begin with what was written since the last call, so that `Blobs.sync` has less to wait for.

        Linux begins to write what is said not to be needed soon, and keeps in memory what is being written.
        """
        end = os.fstat(self.fd).st_size
        if end > self._settled:
            os.posix_fadvise(self.fd, self._settled, end - self._settled, os.POSIX_FADV_DONTNEED)
        self._settled = end

    def commit(self, digest: Digest | None = None, size: int | None = None) -> Digest:
        """Ends the blob and gives it its name, at once complete. Raises `store.mismatch` when what was written
        through `write` is not what `digest` and `size` say, and `store.*`.
        """
        path = self._path
        if path is None:
            raise ValueError("the blob is committed or aborted already")
        with disk_errors(self._blobs._root):
            found_size = os.fstat(self.fd).st_size
        if size is not None and found_size != size:
            raise _mismatch(digest, f"expected {size} bytes\nfound    {found_size} bytes")
        if self.size or not found_size or digest is None:
            digest = self._checked(digest)
        with disk_errors(self._blobs._root):
            os.fchmod(self.fd, 0o444)
        self._blobs._place(path, digest)
        self._path = None
        with disk_errors(self._blobs._root):
            fd, self.fd = self.fd, -1
            os.close(fd)
        return digest

    def _checked(self, digest: Digest | None) -> Digest:
        if digest is None or digest.startswith("sha256:"):
            found = of_hash(self._hash)
        else:
            # sha384 and sha512 are rare enough to read the file once more.
            state = new_hash(digest)
            os.lseek(self.fd, 0, os.SEEK_SET)
            while data := os.read(self.fd, _CHUNK):
                state.update(data)
            found = of_hash(state)
        if digest is not None and found != digest:
            raise _mismatch(digest, f"expected {digest}\nfound    {found}")
        return found

    def abort(self) -> None:
        """Removes what was written, unless it is kept."""
        if self._path is None:
            return
        path, self._path = self._path, None
        keeps = self.is_kept and self.fd >= 0 and os.fstat(self.fd).st_size > 0
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if keeps:
            return
        try:
            os.unlink(path)
        except OSError:
            return  # scratch space: reclaimed later


def _fsync(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _missing(digest: Digest) -> AerogelError:
    return AerogelError(f"blob `{digest}` is not in the store", code="store.missing")


def _mismatch(digest: Digest | None, detail: str) -> AerogelError:
    return AerogelError(f"blob `{digest}` is not what its descriptor says", code="store.mismatch", detail=detail)
