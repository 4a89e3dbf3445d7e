"""COPY, ADD and WORKDIR: a layer written straight from its sources, no root file system anywhere.

Both trees are indexes; only the bytes of the copied files are read, once, into the layer. Spec: the Dockerfile
reference, COPY, ADD and WORKDIR.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from aerogel.errors import AerogelError
from aerogel.files.codec import Codec, LayerBlob, LayerWriter
from aerogel.files.copy import CopyItem, plan_directory, plan_inline
from aerogel.files.entry import REG, Entry
from aerogel.files.host import HostTree
from aerogel.files.index import SMALL_FILES, LayerIndex
from aerogel.files.owner import parse_owner
from aerogel.files.tar import TarWriter
from aerogel.files.tree import LayerTree
from aerogel.graph.ops import Copy, Git, Http, Local, Mkdir, Node
from aerogel.oci.digest import Digest
from aerogel.solve.content import ContextContent, InlineContent, LayerContent, Source, write_items
from aerogel.solve.materials import Materials, save_layer
from aerogel.solve.remotes import Remotes
from aerogel.solve.selection import options_of, select

__all__ = ["copy", "mkdir"]


def copy(
    node: Node,
    op: Copy,
    inputs: tuple[tuple[Digest, ...], ...],
    contexts: dict[str, HostTree],
    remotes: Remotes,
    materials: Materials,
    codec: Codec,
    *,
    origin: str,
) -> Digest | None:
    """Makes the layer of a COPY or ADD; None when it changes nothing. Raises `copy.*`, `store.*`.

    `origin` is what messages call the image or stage that is copied from.
    """
    # A linked layer is made for any root: it sees none, so it follows no link and knows no names.
    target = LayerTree([]) if op.link else materials.tree(inputs[0])
    options = options_of(op, target, materials.epoch_s)
    found: dict[bytes, tuple[CopyItem, Source]] = {}
    with ExitStack() as stack:
        for number in range(1, len(inputs)):
            where = node.inputs[number].op
            source: Source
            if isinstance(where, Local | Http | Git):
                tree = contexts[where.name] if isinstance(where, Local) else remotes.tree(where)
                source = ContextContent(tree, materials.store.cache)
                unpack = op.unpack if isinstance(where, Local) else isinstance(where, Http) and where.unpack
                its_options = options._replace(unpack=source.archives.entries if unpack else None)
                items = select(op, number, tree, target, its_options)
            else:
                layers = materials.tree(inputs[number])
                layers.title = origin
                items = select(op, number, layers, target, options)
                source = LayerContent(materials, inputs[number], layers)
            stack.callback(source.close)
            found.update((item.entry.path, (item, source)) for item in items)
        for each in op.sources:
            if each.inline is None:
                continue
            content = InlineContent(each.inline.content)
            name, size = each.inline.name.encode(), len(each.inline.content)
            for item in plan_inline(name, size, op.dest, target, options, each.inline.mode):
                found[item.entry.path] = (item, content)
        ordered = [found[path] for path in sorted(found, key=_order)]
        for opened in {id(source): source for _, source in ordered}.values():
            if isinstance(opened, LayerContent):
                opened.open([item for item, its in ordered if its is opened])
        return _write_layer(ordered, materials, codec)


def mkdir(op: Mkdir, layers: tuple[Digest, ...], materials: Materials, codec: Codec) -> Digest | None:
    """Makes the layer of a WORKDIR; None when the directory is there. Raises `copy.*` for a file in the way."""
    target = materials.tree(layers)
    owner = parse_owner(op.user, target) if op.user else (0, 0)
    items = plan_directory(op.path, target, owner=owner, mode=0o755, epoch=materials.epoch_s)
    return _write_layer([(item, InlineContent(b"")) for item in items], materials, codec)


def _write_layer(items: list[tuple[CopyItem, Source]], materials: Materials, codec: Codec) -> Digest | None:
    """Writes the items, sorted as a layer is, and stores the layer with its index."""
    if not items:
        return None
    store = materials.store
    with store.blobs.write() as blob, LayerWriter(blob.fd, codec) as writer:
        tar = _IndexingTar(writer.write)
        write_items(items, tar)
        layer: LayerBlob = writer.finish()
        if layer.digest is None or layer.size is None:
            raise AerogelError("a layer was written without a blob", code="store.io")
        blob.commit(Digest(layer.digest), layer.size)
    save_layer(store, layer, LayerIndex(tar.entries, tar.offsets, tar.small))
    return Digest(layer.diff_id)


class _IndexingTar(TarWriter):
    """Notes what it writes, for the layer's index."""

    __slots__ = ("_keep", "entries", "offsets", "small")

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        super().__init__(write)
        self.entries: list[Entry] = []
        self.offsets: list[int] = []
        self.small: dict[bytes, bytes] = {}
        self._keep = b""

    def entry(self, entry: Entry) -> None:
        super().entry(entry)
        self.entries.append(entry)
        self.offsets.append(self.offset)
        self._keep = entry.path if entry.path in SMALL_FILES and entry.kind == REG else b""
        if self._keep:
            self.small[self._keep] = b""

    def content(self, data: bytes | memoryview) -> None:
        super().content(data)
        if self._keep:
            self.small[self._keep] += bytes(data)


def _order(path: bytes) -> list[bytes]:
    return path.split(b"/")
