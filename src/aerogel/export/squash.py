"""Several layers as one: `--squash` (the whole result), `--squash=base`, `--squash=STAGE` (what came after it).

The new layer is what the merged files differ from those below: nothing that a later layer hides, whiteouts only for
what the layers that stay still have, names of one file as hard links, owners, modes, times and attributes as they
were. The entries are sorted, so the same layers give the same blob.
Spec: OCI image-spec v1.1 layer.md#representing-changes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from hashlib import sha256

import msgspec

from aerogel.export.merged import linked, write_entries
from aerogel.files.codec import Codec, LayerWriter
from aerogel.files.entry import DIR, REG, WHITEOUT, Entry, sort_key
from aerogel.files.tree import LayerTree, Origin
from aerogel.oci.digest import Digest
from aerogel.oci.types import History, ImageConfig, RootFS
from aerogel.solve.materials import Materials, save_layer

__all__ = ["changes", "squash"]

_VERSION = b"aerogel-squash-v1"


def squash(
    config: ImageConfig, layers: Sequence[Digest], keep: int, materials: Materials, codec: Codec
) -> tuple[ImageConfig, tuple[Digest, ...]]:
    """The config and the layers with all above the lowest `keep` as one; unchanged when that is one or none.

    The history keeps every entry; those whose layers are merged are marked as without one, and the new layer's
    comes last. Raises `store.*`, `tar.*`.
    """
    if len(layers) - keep < 2:
        return config, tuple(layers)
    layer = _squashed(layers, keep, materials, codec)
    kept = tuple(layers[:keep])
    # No change at all: then there is no layer.
    new = (*kept, layer) if layer is not None else kept
    history = _history(config, keep, len(layers) - keep, has_layer=layer is not None)
    rootfs = RootFS(diff_ids=new, unknown=config.rootfs.unknown)
    return msgspec.structs.replace(config, rootfs=rootfs, history=history), new


def _squashed(layers: Sequence[Digest], keep: int, materials: Materials, codec: Codec) -> Digest | None:
    """The merged layer, made or remembered; None when nothing differs."""
    store = materials.store
    facts = [_VERSION, b"%d" % keep, *(layer.encode() for layer in layers)]
    key = Digest(f"sha256:{sha256(b' '.join(facts)).hexdigest()}")
    with store.once(key, materials.on_wait):
        known = store.actions.get(key)
        if known is not None and all(materials.is_here(Digest(each)) for each in known["layers"]):
            return Digest(known["layers"][0]) if known["layers"] else None
        below = materials.tree(layers[:keep])
        entries = list(changes(below, materials.tree(layers), keep))
        made: list[Digest] = []
        if entries:
            for layer in layers:
                _make_readable(layers, layer, materials, codec)
            with store.blobs.write() as blob, LayerWriter(blob.fd, codec) as writer:
                index = write_entries(writer.write, entries, layers, materials.open_tar, store)
                found = writer.finish()
                blob.commit(Digest(str(found.digest)), found.size)
            save_layer(store, found, index)
            made.append(Digest(found.diff_id))
        store.actions.put(key, {"op": "squash", "keep": keep, "inputs": list(layers)}, {"layers": made, "chain": []})
        return made[0] if made else None


def _make_readable(layers: Sequence[Digest], layer: Digest, materials: Materials, codec: Codec) -> None:
    """A layer that is only a directory gets a blob."""
    record = materials.store.layers.record(layer)
    if record is None or not record.blobs:
        materials.blob(layers, list(layers).index(layer), codec)


def changes(below: LayerTree, whole: LayerTree, keep: int) -> Iterator[tuple[Entry, Origin | None]]:
    """The entries of one layer that makes `whole` out of `below`, sorted, with where the content lies.

    `whole` is merged from all layers, `below` from the lowest `keep` of them.
    """
    wanted = {entry.path for entry in whole.walk() if entry.path and _differs(entry, below, whole, keep)}
    groups: dict[Hashable, list[bytes]] = {}
    for entry in whole.walk():
        inode = whole.inode(entry.path)
        if inode is not None:
            groups.setdefault(inode, []).append(entry.path)
    for paths in groups.values():
        # A link to a file of a layer below is no link for every tool: all names of the file come along.
        if any(path in wanted for path in paths):
            wanted.update(paths)
    hidden = [Entry(path, REG, 0o644) for path in _gone(below, whole)]
    for path in [*wanted, *(entry.path for entry in hidden)]:
        parent = path.rpartition(b"/")[0]
        while parent and parent not in wanted:
            wanted.add(parent)
            parent = parent.rpartition(b"/")[0]
    kept = (entry for entry in whole.walk() if entry.path in wanted)
    found: list[tuple[Entry, Origin | None]] = [*linked(whole, kept), *((entry, None) for entry in hidden)]
    found.sort(key=lambda each: sort_key(each[0]))
    yield from found


def _differs(entry: Entry, below: LayerTree, whole: LayerTree, keep: int) -> bool:
    if keep == 0:
        return True
    origin, old = whole.origin(entry.path), below.origin(entry.path)
    if entry.kind == DIR:
        return below.lookup(entry.path) != entry
    return origin is None or origin.layer >= keep or origin != old


def _gone(below: LayerTree, whole: LayerTree) -> Iterator[bytes]:
    """The whiteouts: for what is below and no more there, topmost only."""
    pending = [b""]
    while pending:
        path = pending.pop()
        for name in below.children(path):
            inner = path + b"/" + name if path else name
            found, old = whole.lookup(inner), below.lookup(inner)
            if found is None:
                yield path + b"/" + WHITEOUT + name if path else WHITEOUT + name
            elif found.kind == DIR and old is not None and old.kind == DIR:
                pending.append(inner)


def _history(config: ImageConfig, keep: int, merged: int, *, has_layer: bool) -> tuple[History, ...]:
    entries: list[History] = []
    seen = 0
    for entry in config.history:
        is_merged = not entry.empty_layer and seen >= keep
        seen += not entry.empty_layer
        entries.append(msgspec.structs.replace(entry, empty_layer=True) if is_merged else entry)
    if has_layer:
        comment = f"{merged} layers as one"
        entries.append(History(created=config.created, created_by="aerogel build --squash", comment=comment))
    return tuple(entries)
