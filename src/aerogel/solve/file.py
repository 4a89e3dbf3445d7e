"""COPY, ADD and WORKDIR: a layer written straight from its sources, no root file system anywhere.

Both trees are indexes; only the bytes of the copied files are read, once, into the layer. Spec: the Dockerfile
reference, COPY, ADD and WORKDIR.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from aerogel.errors import AerogelError
from aerogel.files.codec import Codec, LayerBlob, LayerWriter
from aerogel.files.copy import CopyItem, plan_directory, plan_inline
from aerogel.files.entry import REG, Entry, shown
from aerogel.files.host import HostTree
from aerogel.files.index import SMALL_FILES, LayerIndex
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
from aerogel.solve.stepkey import key_of
from aerogel.store.builds import Row

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_DIGEST_BYTES = 32

__all__ = ["Copying", "copying", "making"]


class Copying:
    """The layer of a COPY, ADD or WORKDIR that is planned and not yet written: its items, sorted as a layer is.

    What the layer will be depends on the items and their contents only, so these make its key.
    """

    def __init__(self, items: list[tuple[CopyItem, Source]], materials: Materials) -> None:
        self._items = items
        self._materials = materials
        self._identities = {item.entry.path: source.identity(item) for item, source in items if _has_content(item)}

    @property
    def is_known(self) -> bool:
        """Whether all contents are known without reading more."""
        return all(self._identities.values())

    def shape(self) -> Digest:
        """A key that covers all but the contents that must be read: layers with one key have one shape as well."""
        return self._key(b"shape")

    def key(self) -> Digest:
        """The content key. Reads, once, the files of layers whose contents are not known yet."""
        unknown: dict[int, tuple[LayerContent, list[CopyItem]]] = {}
        for item, source in self._items:
            if isinstance(source, LayerContent) and not self._identities.get(item.entry.path, b"-"):
                unknown.setdefault(id(source), (source, []))[1].append(item)
        for source, items in unknown.values():
            found = source.digests(items)
            self._identities.update((item.entry.path, found[item.source or b""]) for item in items)
        return self._key(b"layer")

    def _key(self, kind: bytes) -> Digest:
        parts = []
        for item, _ in self._items:
            path, number, mode, uid, gid, size, mtime, link, rdev, xattrs = item.entry
            head = b"%d %d %d %d %d %d %d %d %d" % (number, mode, uid, gid, size, mtime, *rdev, len(xattrs))
            parts += [head, path, link, self._identities.get(path, b""), *(each for pair in xattrs for each in pair)]
        return key_of(kind, *parts)

    def rows(self) -> list[Row]:
        """The items as `Selections` keeps them. After `key` or `write`."""
        found = []
        for item, _ in self._items:
            entry = item.entry
            content = self._identities.get(entry.path, b"")
            if len(content) > _DIGEST_BYTES:
                content = sha256(content).digest()
            found.append((entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, content))
        return found

    def write(self, codec: Codec, secrets: Mapping[str, bytes]) -> Digest | None:
        """Writes and stores the layer with its index; None for one without items.

        Raises `copy.*`, `store.*`, and `solve.secret-leak` if one of the secrets is in it.
        """
        if not self._items:
            return None
        for opened in {id(source): source for _, source in self._items}.values():
            if isinstance(opened, LayerContent):
                opened.open([item for item, its in self._items if its is opened])
        store = self._materials.store
        unknown = {path for path, identity in self._identities.items() if not identity}
        with store.blobs.write() as blob, LayerWriter(blob.fd, codec) as writer:
            scanner = LeakScanner(looked_for(secrets))
            tar = _IndexingTar(scanner.watched(writer.write), unknown)
            write_items(self._items, tar)
            if scanner.found is not None:
                raise LeakError(*scanner.found, tar.path_at(scanner.found[0]), is_copied=True)
            layer: LayerBlob = writer.finish()
            if layer.digest is None or layer.size is None:
                raise AerogelError("a layer was written without a blob", code="store.io")
            blob.commit(Digest(layer.digest), layer.size)
        save_layer(store, layer, LayerIndex(tar.entries, tar.offsets, tar.small))
        self._identities.update((path, digest.digest()) for path, digest in tar.digests.items())
        return Digest(layer.diff_id)


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
    found: dict[bytes, tuple[CopyItem, Source]] = {}
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
            found.update((item.entry.path, (item, source)) for item in items)
        for each in op.sources:
            if each.inline is None:
                continue
            content = InlineContent(each.inline.content)
            name, size = each.inline.name.encode(), len(each.inline.content)
            for item in plan_inline(name, size, op.dest, target, options, each.inline.mode):
                found[item.entry.path] = (item, content)
        yield Copying([found[path] for path in sorted(found, key=_order)], materials)


def making(op: Mkdir, layers: tuple[Digest, ...], materials: Materials) -> Copying:
    """Plans a WORKDIR: no items when the directory is there. Raises `copy.*` for a file in the way."""
    target = materials.tree(layers)
    owner = parse_owner(op.user, target) if op.user else (0, 0)
    items = plan_directory(op.path, target, owner=owner, mode=0o755, epoch=materials.times.copied)
    return Copying([(item, InlineContent(b"")) for item in items], materials)


def _has_content(item: CopyItem) -> bool:
    return item.entry.kind == REG and item.source is not None and item.entry.size > 0


class _IndexingTar(TarWriter):
    """Notes what it writes, for the layer's index, and the digests of the contents at these paths."""

    __slots__ = ("_keep", "_sum", "_unknown", "digests", "entries", "offsets", "small")

    def __init__(self, write: Callable[[bytes | memoryview], object], unknown: Container[bytes]) -> None:
        super().__init__(write)
        self.digests: dict[bytes, Hash] = {}
        self._unknown = unknown
        self._sum: Hash | None = None
        self.entries: list[Entry] = []
        self.offsets: list[int] = []
        self.small: dict[bytes, bytes] = {}
        self._keep = b""

    def entry(self, entry: Entry) -> None:
        super().entry(entry)
        self.entries.append(entry)
        self.offsets.append(self.offset)
        self._sum = None
        if entry.path in self._unknown:
            self._sum = self.digests[entry.path] = sha256()
        self._keep = entry.path if entry.path in SMALL_FILES and entry.kind == REG else b""
        if self._keep:
            self.small[self._keep] = b""

    def content(self, data: bytes | memoryview) -> None:
        super().content(data)
        if self._sum is not None:
            self._sum.update(data)
        if self._keep:
            self.small[self._keep] += bytes(data)

    def path_at(self, offset: int) -> str:
        """The path of the entry that byte `offset` of the tar belongs to."""
        number = bisect_right([at + entry.size for entry, at in zip(self.entries, self.offsets, strict=True)], offset)
        return f"/{shown(self.entries[min(number, len(self.entries) - 1)].path)}"


def _order(path: bytes) -> list[bytes]:
    return path.split(b"/")
