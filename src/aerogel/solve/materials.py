"""Layers in the form that a step needs them: as a directory to mount, as a blob to export, as bytes to copy.

A layer is known by its diff id. Here it gets what it lacks: a snapshot directory from its blob (when a command runs
on it), a blob from its snapshot directory (when an image with it is exported). Each is made once, whoever asks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aerogel.errors import AerogelError
from aerogel.files.codec import Codec, LayerBlob, LayerWriter, open_uncompressed
from aerogel.files.index import IndexWriter, LayerIndex, Summary, build_index
from aerogel.files.tar import Readable
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor
from aerogel.solve.offers import Offer, Offers
from aerogel.solve.times import COPIED_S, Times
from aerogel.solve.unpacking import BLOCK, Filling, bring_unpacked, flat_part, offered_stack
from aerogel.store.store import Store

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["FS", "Materials", "make_layer_root", "save_layer", "take_tar"]

_T = TypeVar("_T")

_ROOT_MODE = 0o755
_PARALLEL = 4
_TIMES = Times()

FS = "fs"
"""The directory inside a snapshot that holds the layer's files."""


def take_tar(
    store: Store, stream: Readable, codec: Codec | None, give_up: Callable[[], object] | None = None
) -> tuple[LayerBlob, LayerIndex]:
    """Reads a layer's tar to its end in one pass: diff id, index and, with a codec, the blob; stores them.

    `give_up` is called for each block and may raise. Raises `tar.*`, `codec.*`, `store.*`.
    """
    if codec is None:
        with LayerWriter(None, None, on_block=give_up) as writer:
            index = build_index(stream, writer.write)
            layer = writer.finish()
    else:
        with store.blobs.write() as blob, LayerWriter(blob.fd, codec, on_block=give_up, blocks=store.blocks) as writer:
            index = build_index(stream, writer.write)
            layer = writer.finish()
            blob.commit(Digest(str(layer.digest)), layer.size)
    save_layer(store, layer, index)
    return layer, index


def save_layer(store: Store, layer: LayerBlob, index: LayerIndex | IndexWriter) -> None:
    """Makes the layer known to the store; its blob must be there already."""
    blobs = {}
    if layer.digest is not None and layer.size is not None and layer.codec is not None:
        blobs[layer.codec] = Descriptor(media_type=layer.media_type or "", digest=Digest(layer.digest), size=layer.size)
    store.layers.save(Digest(layer.diff_id), size=layer.size_uncompressed, blobs=blobs, index=index)


def make_layer_root(path: str) -> None:
    """Makes the root directory of a layer, whatever the umask: its mode is that of "/" in what is mounted from it."""
    os.mkdir(path)
    os.chmod(path, _ROOT_MODE)


def _stack_key(layers: Sequence[Digest]) -> str:
    """The name of several layers unpacked into one directory."""
    from hashlib import sha256

    return f"sha256:{sha256(b'stack ' + b' '.join(layer.encode() for layer in layers)).hexdigest()}"


class Materials:
    """The layers of one build. `helper` starts the sandbox helper on first use."""

    def __init__(
        self, store: Store, helper: Callable[[], Helper], times: Times = _TIMES, offers: Offers | None = None
    ) -> None:
        self.offers = Offers() if offers is None else offers
        """Layers that can be had from elsewhere."""
        self.on_wait: Callable[[], object] | None = None
        """Called while another process does what is wanted here; may raise to give up."""
        self.store = store
        self.helper = helper
        self.times = times
        self._lock = threading.Lock()
        self._indexes: dict[Digest, LayerIndex] = {}
        self._summaries: dict[Digest, Summary] = {}
        self._newest: dict[Digest, int] = {}
        self._verified: set[Digest] = set()

    def tree(self, layers: Sequence[Digest]) -> LayerTree:
        """The merged tree of the layers, lowest first, from their indexes."""
        self.bring_all(layers)
        return LayerTree([self.index(layer) for layer in layers])

    def index(self, layer: Digest) -> LayerIndex:
        """The entries of the layer, loaded once; made from the blob when the store has none."""
        with self._lock:
            found = self._indexes.get(layer)
        if found is None:
            self.bring(layer)
            record = self.store.layers.record(layer)
            if record is not None and record.index:
                found = self.store.layers.index(layer)
            else:
                with self.open_tar(layer) as stream:
                    found = build_index(stream)
                if record is not None:
                    self.store.layers.save(layer, size=record.size, index=found)
            with self._lock:
                self._indexes[layer] = found
        return found

    def summary(self, layer: Digest) -> Summary:
        """What is asked of the layer as a whole, without its entries where that is possible."""
        with self._lock:
            index = self._indexes.get(layer)
            found = self._summaries.get(layer)
        if found is None:
            if index is None:
                self.bring(layer)
                record = self.store.layers.record(layer)
                is_here = record is not None and record.index
                found = self.store.layers.summary(layer) if is_here else self.index(layer).summary()
            else:
                found = index.summary()
            with self._lock:
                self._summaries[layer] = found
        return found

    def newest(self, layers: Sequence[Digest]) -> int:
        """The latest time in seconds that a file of the layers has, at least that of what COPY brings."""
        for layer in layers:
            if layer not in self._newest:
                self._newest[layer] = max(self.summary(layer).times, default=COPIED_S)
        return max([COPIED_S, *(self._newest[layer] for layer in layers)])

    def size(self, layer: Digest) -> int:
        """Bytes of the uncompressed tar; 0 for an unknown layer."""
        record = self.store.layers.record(layer)
        if record is None:
            return max((offer.size for offer in self.offers.of(layer)), default=0)
        return record.size

    def adopt(self, layer: Digest, blob: Descriptor) -> None:
        """Makes a layer of an image in the store known by its diff id, which is checked. Raises `store.corrupt`."""
        if self.is_stored(layer):
            return
        from aerogel.oci.types import LAYER_TYPES

        with self.store.blobs.open(blob.digest, blob.size) as stream, LayerWriter(None, None) as writer:
            index = build_index(open_uncompressed(stream, blob.media_type), writer.write)
            made = writer.finish()
        if made.diff_id != layer:
            raise AerogelError(
                f"a layer is not what its image says: expected diff id `{layer}`, found `{made.diff_id}`",
                code="store.corrupt",
                hints=["remove the image and load it again"],
            )
        name = f"foreign-{LAYER_TYPES.get(blob.media_type) or 'plain'}"
        self.store.layers.save(layer, size=made.size_uncompressed, blobs={name: blob}, index=index)

    def is_here(self, layer: Digest) -> bool:
        """Whether the layer can be used: it is stored, or can be had."""
        return self.is_stored(layer) or bool(self.offers.of(layer))

    def bring(self, layer: Digest) -> None:
        """Sees to it that a layer that can be had is stored. Raises what its offers raise."""
        if not self.offers.of(layer) or self.is_stored(layer):
            return
        with self.store.once(f"bring-{layer}", self.on_wait):
            if not self.is_stored(layer):
                self.offers.bring(layer)

    def bring_all(self, layers: Iterable[Digest]) -> None:
        """The same for several layers, some at a time."""
        wanted = [layer for layer in dict.fromkeys(layers) if self.offers.of(layer) and not self.is_stored(layer)]
        if not wanted:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="bring") as pool:
            futures = [pool.submit(self.bring, layer) for layer in wanted]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def is_stored(self, layer: Digest) -> bool:
        """Whether the store has a blob of the layer, or a directory under the mapping of this host."""
        record = self.store.layers.record(layer)
        if record is None:
            return False
        return bool(record.blobs) or self.directory(layer) is not None

    def directory(self, key: str) -> str | None:
        """The snapshot directory of a layer, by diff id, or of a stack, by its key; None if there is none."""
        found = self.store.snapshots.dir_for(self.helper().rung.map_id, key)
        return f"{found}/{FS}" if found is not None else None

    def directories(self, layers: Sequence[Digest]) -> list[str]:
        """The layers as directories in overlay form, lowest first; what is only a blob is unpacked.

        Layers that other tools made are unpacked on top of each other into one directory: they may leave out parent
        directories, and what a missing parent is depends on the layers below. So are the lowest layers of high stacks.
        """
        offers = offered_stack(layers, self)
        if offers:
            self._unpack_offered(layers, offers)
        self.bring_all(layers)
        number = 0
        while number < len(layers) and self.is_foreign(layers[number]):
            number += 1
        flat = flat_part(len(layers) - number + min(number, 1)) if not self.helper().rung.copies else 0
        if flat:
            number += flat - min(number, 1)
        base = [self._unpack(tuple(layers[:number]), is_stack=True)] if number else []
        return base + [self.directory(layer) or self._unpack((layer,), is_stack=False) for layer in layers[number:]]

    def is_foreign(self, layer: Digest) -> bool:
        """Whether only other tools made blobs of the layer, which is stored."""
        record = self.store.layers.record(layer)
        names = record.blobs if record is not None else {}
        return bool(names) and all(name.startswith("foreign-") for name in names)

    def _unpack_offered(self, layers: Sequence[Digest], offers: Mapping[Digest, Offer]) -> None:
        """Unpacks the lowest layers while they are fetched; when that fails they are fetched, and said what is wrong."""
        number = 0
        while number < len(layers) and (layers[number] in offers or self.is_foreign(layers[number])):
            number += 1
        stack = layers[:number]
        key, mapping = _stack_key(stack), self.helper().rung.map_id
        with self.store.once(f"unpack-{mapping}-{key}", self.on_wait):
            if self.directory(key) is not None:
                return
            made = self.store.snapshots.new(mapping)
            try:
                make_layer_root(f"{made}/{FS}")
                args: dict[str, object] = {"path": f"{made}/{FS}", "overlay": None}
                bring_unpacked(stack, offers, Filling(self, args, lambda layer: self._feed_stored(layer, args)))
                self.store.snapshots.commit(made, mapping, key, self.remove, stack)
            except AerogelError:
                self.store.snapshots.discard(made, self.remove)
            except BaseException:
                self.store.snapshots.discard(made, self.remove)
                raise

    def _feed_stored(self, layer: Digest, args: dict[str, object]) -> None:
        with self.open_tar(layer) as stream:
            self._feed(stream, layer, args)

    def _unpack(self, layers: tuple[Digest, ...], *, is_stack: bool) -> str:
        helper = self.helper()
        mapping = helper.rung.map_id
        snapshots = self.store.snapshots
        key = _stack_key(layers) if is_stack else layers[0]
        with self.store.once(f"unpack-{mapping}-{key}", self.on_wait):
            found = self.directory(key)
            if found is not None:
                return found
            made = snapshots.new(mapping)
            try:
                make_layer_root(f"{made}/{FS}")
                args: dict[str, object] = {
                    "path": f"{made}/{FS}",
                    "overlay": None if is_stack else helper.rung.overlay,
                }
                if is_stack:
                    self._pile(layers, args)
                else:
                    self._feed_stored(layers[0], args)
                parts = layers if is_stack else ()
                return f"{snapshots.commit(made, mapping, key, self.remove, parts)}/{FS}"
            except BaseException:
                snapshots.discard(made, self.remove)
                raise

    def _pile(self, layers: tuple[Digest, ...], args: dict[str, object]) -> None:
        """Unpacks layers onto each other, from the lowest or from where another pile ended."""
        begin = max(0, len(layers) - BLOCK)
        below = self.directory(_stack_key(layers[:begin])) if begin else None
        if below is None:
            begin = 0
        else:
            self._piped("archive", {"root": below}, partial(self._feed, layer=None, args=args))
        for number in range(begin, len(layers)):
            self.read_layer(layers, number, partial(self._feed, layer=layers[number], args=args))

    def _feed(self, stream: Readable, layer: Digest | None, args: dict[str, object]) -> None:
        """Runs the `extract` job on the tar, and checks the diff id of what went through, if there is one."""
        from hashlib import sha256

        read_fd, write_fd = os.pipe()
        digest = sha256()
        failures: list[BaseException] = []

        def pump() -> None:
            try:
                with os.fdopen(write_fd, "wb", buffering=0) as pipe:
                    while data := stream.read(1 << 18):
                        if self.on_wait is not None:
                            self.on_wait()
                        digest.update(data)
                        pipe.write(data)
            except BrokenPipeError:
                pass  # the job failed and says why
            except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
                failures.append(error)

        thread = threading.Thread(target=pump, name="unpack")
        thread.start()
        try:
            self.helper().call("extract", args, [read_fd])
        except AerogelError:
            os.close(read_fd)
            thread.join()
            # What could not be read is the cause of what could not be unpacked.
            if failures:
                raise failures[0] from None
            raise
        except BaseException:
            os.close(read_fd)
            thread.join()
            raise
        os.close(read_fd)
        thread.join()
        if failures:
            raise failures[0]
        if layer is not None and f"sha256:{digest.hexdigest()}" != layer:
            raise AerogelError(
                f"a layer is not what its image says: expected diff id `{layer}`, found `sha256:{digest.hexdigest()}`",
                code="store.corrupt",
                hints=["remove the image and pull or build it again"],
            )

    @contextmanager
    def open_tar(self, layer: Digest) -> Iterator[Readable]:
        """The uncompressed tar of the layer, from a blob. Raises `store.missing` when it has none."""
        self.bring(layer)
        record = self.store.layers.record(layer)
        if record is None or not record.blobs:
            raise AerogelError(f"layer `{layer}` has no blob in the store", code="store.missing")
        descriptor = next(iter(record.blobs.values()))
        with self.store.blobs.open(descriptor.digest, descriptor.size) as stream:
            try:
                yield open_uncompressed(stream, descriptor.media_type)
            except AerogelError as error:
                if error.code.startswith(("codec.", "tar.", "extract.")):
                    # A damaged blob shows itself in many ways before its end; then it is dropped and named.
                    self._blame(descriptor)
                raise

    def _blame(self, blob: Descriptor) -> None:
        """Raises `store.corrupt` if the blob is not what its digest says; it is dropped then."""
        with self.store.blobs.open(blob.digest, blob.size) as stream:
            while stream.read(1 << 20):
                pass

    def verify(self, blob: Descriptor) -> None:
        """Reads a blob through once in this process, before it is entered in the middle. Raises `store.corrupt`."""
        with self._lock:
            if blob.digest in self._verified:
                return
        self._blame(blob)
        with self._lock:
            self._verified.add(blob.digest)

    def blob(self, layers: Sequence[Digest], position: int, codec: Codec) -> Descriptor:
        """The compressed blob of layer `position` of a stack.

        The one of another tool is taken as it is; of ours the one with this codec, which is made if need be, from the
        layer's directory or from another blob. A layer of a base image that is not here stays where it is.
        """
        layer = layers[position]
        part = None if self.is_stored(layer) else self.offers.part(layer)
        if part is not None:
            return part
        self.bring(layer)
        record = self.store.layers.record(layer)
        if record is not None and record.blobs:
            if codec.name in record.blobs:
                return record.blobs[codec.name]
            if self.is_foreign(layer):
                return next(iter(record.blobs.values()))
            with self.open_tar(layer) as stream:
                made, _ = take_tar(self.store, stream, codec, self.on_wait)
        else:
            made, _ = self.read_layer(
                layers, position, lambda stream: take_tar(self.store, stream, codec, self.on_wait)
            )
        if made.diff_id != layer:
            raise AerogelError(
                f"layer `{layer}` gave `{made.diff_id}` when it was written again",
                code="store.corrupt",
                hints=["build again with `--no-cache`"],
            )
        return Descriptor(media_type=made.media_type or "", digest=Digest(str(made.digest)), size=made.size or 0)

    def read_layer(self, layers: Sequence[Digest], position: int, take: Callable[[Readable], _T]) -> _T:
        """What `take` makes of the tar of layer `position` of a stack, which it must read to its end.

        It comes from a blob, or else from the layer's directory.
        """
        self.bring(layers[position])
        record = self.store.layers.record(layers[position])
        if record is not None and record.blobs:
            with self.open_tar(layers[position]) as stream:
                return take(stream)
        upper, lowers = self.directories(layers[: position + 1])[-1], self.directories(layers[:position])
        return self.read_diff(upper, lowers, take, mark=self.summary(layers[position]).mark)

    def read_diff(
        self,
        upper: str,
        lowers: Sequence[str],
        take: Callable[[Readable], _T],
        *,
        mark: int | None = None,
        settle: Mapping[str, object] | None = None,
    ) -> _T:
        """What `take` makes of the layer tar of an upper directory, which it must read to its end.

        The directory is settled before (`files.settle`) with these arguments, or has been settled with this mark.
        """
        args: dict[str, object] = {"upper": upper, "lowers": list(lowers), "mark": mark}
        if settle is not None:
            args["settle"] = dict(settle)
        return self._piped("diff", args, take)

    def through_pipe(self, job: str, args: dict[str, object], codec: Codec | None) -> tuple[LayerBlob, LayerIndex]:
        """Runs a helper job that writes a layer tar, and stores what it writes."""
        return self._piped(job, args, lambda stream: take_tar(self.store, stream, codec, self.on_wait))

    def _piped(self, job: str, args: dict[str, object], take: Callable[[Readable], _T]) -> _T:
        read_fd, write_fd = os.pipe()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self.helper().call(job, args, [write_fd])
            except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
                failures.append(error)
            finally:
                os.close(write_fd)

        thread = threading.Thread(target=work, name=f"job {job}")
        thread.start()
        try:
            with os.fdopen(read_fd, "rb", buffering=0) as stream:
                result = take(stream)
        except BaseException as error:
            thread.join()
            # A job that failed half-way is the cause of a truncated tar; a disk that is full here breaks its pipe.
            if failures and isinstance(error, AerogelError) and error.code.startswith("tar."):
                raise failures[0] from None
            raise
        thread.join()
        if failures:
            raise failures[0]
        return result

    def remove(self, path: str) -> None:
        """Removes a tree that may belong to mapped owners."""
        self.helper().call("remove", {"path": path})
