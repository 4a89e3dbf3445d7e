"""COPY, ADD and WORKDIR: a layer written straight from its sources, no root file system anywhere.

Both trees are indexes; only the bytes of the copied files are read, once, into the layer. Spec: the Dockerfile
reference, COPY, ADD and WORKDIR.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import count, repeat
from typing import TYPE_CHECKING

from aerogel.errors import AerogelError
from aerogel.files.codec import Codec, LayerBlob, LayerWriter
from aerogel.files.copy import CopyItem, plan_directory, plan_inline
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.host import HostTree
from aerogel.files.index import SMALL_FILES, IndexWriter, LayerIndex
from aerogel.files.owner import parse_owner
from aerogel.files.tar import TarWriter
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Base, Copy, Git, Http, Local, Mkdir, Node
from aerogel.oci.digest import Digest
from aerogel.solve.content import ContextContent, InlineContent, LayerContent, Source, write_items
from aerogel.solve.leaks import LeakError, LeakScanner, looked_for
from aerogel.solve.materials import Materials, save_layer
from aerogel.solve.remotes import Remotes
from aerogel.solve.selection import options_of, select
from aerogel.solve.stepkey import KeyWriter
from aerogel.store.builds import Row

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_DIGEST_BYTES = 32
_IN_BLOCK = 1024

__all__ = ["Copying", "copying", "making"]


class Copying:
    """The layer of a COPY, ADD or WORKDIR that is planned and not yet written: its items, in the order of a layer.

    What the layer will be depends on the items and their contents only, so these make its key. The items may be made
    anew each time that they are gone through; of each only the identity of its content is held.
    """

    def __init__(self, items: Collection[tuple[CopyItem, Source]], materials: Materials) -> None:
        self._items = items
        self._materials = materials
        self._identities = _Identities()
        key = KeyWriter(b"layer")
        for item, source in items:
            identity = source.identity(item) if _has_content(item) else None
            if identity is not None:
                self._identities.append(identity)
            if not self._identities.unknown:
                key.add(*_parts(item.entry, identity))
        self._known = None if self._identities.unknown else key.key()
        """The key when it is known without reading."""

    @property
    def is_known(self) -> bool:
        """Whether all contents are known without reading more."""
        return self._known is not None

    def shape(self) -> Digest:
        """A key that covers all but the contents that must be read: layers with one key have one shape as well."""
        return self._key(b"shape")

    def key(self) -> Digest:
        """The content key. Reads, once, the files of layers whose contents are not known yet."""
        if self._known is not None:
            return self._known
        unknown: dict[int, tuple[LayerContent, list[tuple[int, CopyItem]]]] = {}
        for number, (item, source) in self._with_content():
            if isinstance(source, LayerContent) and not self._identities[number]:
                unknown.setdefault(id(source), (source, []))[1].append((number, item))
        for source, items in unknown.values():
            found = source.digests([item for _, item in items])
            for number, item in items:
                self._identities[number] = found[item.source or b""]
        self._known = self._key(b"layer")
        return self._known

    def _with_content(self) -> Iterator[tuple[int, tuple[CopyItem, Source]]]:
        """The items that have content, numbered."""
        return enumerate(pair for pair in self._items if _has_content(pair[0]))

    def _key(self, kind: bytes) -> Digest:
        key = KeyWriter(kind)
        for item, identity in self._identified():
            key.add(*_parts(item.entry, identity))
        return key.key()

    def _identified(self) -> Iterator[tuple[CopyItem, bytes]]:
        numbers = count()
        for item, _ in self._items:
            yield item, self._identities[next(numbers)] if _has_content(item) else b""

    def rows(self) -> Iterator[Row]:
        """The items as `Selections` keeps them. After `key` or `write`."""
        for item, identity in self._identified():
            entry = item.entry
            content = sha256(identity).digest() if len(identity) > _DIGEST_BYTES else identity
            yield entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, content

    def write(self, codec: Codec, secrets: Mapping[str, bytes]) -> Digest | None:
        """Writes and stores the layer with its index; None for one without items.

        Raises `copy.*`, `store.*`, and `solve.secret-leak` if one of the secrets is in it.
        """
        if not len(self._items):
            return None
        for opened in {id(source): source for _, source in self._items}.values():
            if isinstance(opened, LayerContent):
                opened.open(item for item, its in self._items if its is opened)
        store = self._materials.store
        identities = self._identities
        unknown = {}
        if identities.unknown:
            unknown = {item.entry.path: n for n, (item, _) in self._with_content() if not identities[n]}
        give_up = self._materials.on_wait
        with store.blobs.write() as blob, LayerWriter(blob.fd, codec, on_block=give_up, blocks=store.blocks) as writer:
            scanner = LeakScanner(looked_for(secrets))
            tar = _IndexingTar(scanner.watched(writer.write), unknown)
            write_items(self._items, tar)
            if scanner.found is not None:
                raise LeakError(*scanner.found, tar.path_at(scanner.found[0]), is_copied=True)
            layer: LayerBlob = writer.finish()
            if layer.digest is None or layer.size is None:
                raise AerogelError("a layer was written without a blob", code="store.io")
            blob.commit(Digest(layer.digest), layer.size)
        save_layer(store, layer, tar.index)
        for path, digest in tar.digests.items():
            identities[unknown[path]] = digest.digest()
        return Digest(layer.diff_id)


class _Identities:
    """What content each file has, by its number: most are of 32 bytes; empty what is not known yet."""

    __slots__ = ("_count", "_odd", "_plain", "unknown")

    def __init__(self) -> None:
        self._count = 0
        self._plain: list[bytearray] = []
        """Blocks: one array that grows for long leaves holes in the memory."""
        self._odd: dict[int, bytes] = {}
        self.unknown = 0

    def append(self, identity: bytes) -> None:
        number, self._count = self._count, self._count + 1
        if not number % _IN_BLOCK:
            self._plain.append(bytearray())
        if len(identity) == _DIGEST_BYTES:
            self._plain[-1] += identity
            return
        self._odd[number] = identity
        self._plain[-1] += bytes(_DIGEST_BYTES)
        self.unknown += not identity

    def __getitem__(self, number: int) -> bytes:
        odd = self._odd.get(number)
        if odd is not None:
            return odd
        block, at = divmod(number, _IN_BLOCK)
        return bytes(self._plain[block][at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES])

    def __setitem__(self, number: int, digest: bytes) -> None:
        self.unknown -= self._odd.pop(number, None) == b""
        block, at = divmod(number, _IN_BLOCK)
        self._plain[block][at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES] = digest


class _Sourced(Collection[tuple[CopyItem, Source]]):
    """Items that all have one source."""

    def __init__(self, items: Collection[CopyItem], source: Source) -> None:
        self._items = items
        self._source = source

    def __iter__(self) -> Iterator[tuple[CopyItem, Source]]:
        return zip(self._items, repeat(self._source))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, pair: object) -> bool:
        return any(each == pair for each in self)


@contextmanager
def copying(
    node: Node,
    op: Copy,
    inputs: tuple[tuple[Digest, ...], ...],
    contexts: dict[str, HostTree],
    remotes: Remotes,
    materials: Materials,
    *,
    origin: str,
) -> Iterator[Copying]:
    """Plans a COPY or ADD; what is opened for it is closed at the end of the block. Raises `copy.*`.

    `origin` is what messages call the image or stage that is copied from.
    """
    # A linked layer is made for any root: it sees none, so it follows no link and knows no names.
    target = LayerTree([]) if op.link else materials.tree(inputs[0])
    options = options_of(op, target, materials.times.copied)
    found: list[tuple[Collection[CopyItem], Source]] = []
    with ExitStack() as stack:
        for number in range(1, len(inputs)):
            where = node.inputs[number].op
            source: Source
            if isinstance(where, Local | Http | Git):
                tree = contexts[where.name] if isinstance(where, Local) else remotes.tree(where)
                source = ContextContent(tree, materials.store.cache, materials.times.copied)
                unpack = op.unpack if isinstance(where, Local) else isinstance(where, Http) and where.unpack
                its_options = options._replace(unpack=source.archives.entries if unpack else None)
                stack.callback(source.close)
                items = select(op, number, tree, target, its_options)
            else:
                layers = materials.tree(inputs[number])
                layers.title = origin
                items = select(op, number, layers, target, options)
                source = LayerContent(materials, inputs[number], layers, is_image=isinstance(where, Base))
                stack.callback(source.close)
            found.append((items, source))
        for each in op.sources:
            if each.inline is None:
                continue
            content = InlineContent(each.inline.content)
            name, size = each.inline.name.encode(), len(each.inline.content)
            found.append((plan_inline(name, size, op.dest, target, options, each.inline.mode), content))
        yield Copying(_merged(found), materials)


def making(op: Mkdir, layers: tuple[Digest, ...], materials: Materials) -> Copying:
    """Plans a WORKDIR: no items when the directory is there. Raises `copy.*` for a file in the way."""
    target = materials.tree(layers)
    owner = parse_owner(op.user, target) if op.user else (0, 0)
    items = plan_directory(op.path, target, owner=owner, mode=0o755, epoch=materials.times.copied)
    return Copying(_Sourced(items, InlineContent(b"")), materials)


def _merged(found: list[tuple[Collection[CopyItem], Source]]) -> Collection[tuple[CopyItem, Source]]:
    """The items of all sources in the order of a layer; of equal paths the last."""
    if len(found) == 1:
        return _Sourced(*found[0])
    by_path = {item.entry.path: (item, source) for items, source in found for item in items}
    return [by_path[path] for path in sorted(by_path, key=_order)]


def _has_content(item: CopyItem) -> bool:
    return item.entry.kind == REG and item.source is not None and item.entry.size > 0


def _parts(entry: Entry, identity: bytes | None) -> Iterator[bytes]:
    """What a key covers of an item."""
    path, number, mode, uid, gid, size, mtime, link, rdev, xattrs = entry
    yield b"%d %d %d %d %d %d %d %d %d" % (number, mode, uid, gid, size, mtime, *rdev, len(xattrs))
    yield path
    yield link
    yield identity or b""
    for pair in xattrs:
        yield from pair


class _IndexingTar(TarWriter):
    """Notes what it writes, for the layer's index, and the digests of the contents at these paths."""

    __slots__ = ("_keep", "_sum", "_unknown", "digests", "index")

    def __init__(self, write: Callable[[bytes | memoryview], object], unknown: Container[bytes]) -> None:
        super().__init__(write)
        self.digests: dict[bytes, Hash] = {}
        self._unknown = unknown
        self._sum: Hash | None = None
        self.index = IndexWriter()
        self._keep = b""

    def entry(self, entry: Entry) -> None:
        super().entry(entry)
        self.index.add(entry, self.offset)
        self._sum = None
        if entry.path in self._unknown:
            self._sum = self.digests[entry.path] = sha256()
        self._keep = entry.path if entry.path in SMALL_FILES and entry.kind == REG else b""
        if self._keep:
            self.index.small[self._keep] = b""

    def content(self, data: bytes | memoryview) -> None:
        super().content(data)
        if self._sum is not None:
            self._sum.update(data)
        if self._keep:
            self.index.small[self._keep] += bytes(data)

    def path_at(self, offset: int) -> str:
        """The path of the entry that byte `offset` of the tar belongs to."""
        index = LayerIndex.loads(b"".join(self.index.pieces()))
        ends = [at + entry.size for entry, at in zip(index.entries, index.offsets, strict=True)]
        return f"/{shown(index.entries[min(bisect_right(ends, offset), len(ends) - 1)].path)}"


def _order(path: bytes) -> list[bytes]:
    return path.split(b"/")
