"""/etc/ld.so.cache once more, when a build put libraries on a distroless base that has one.

The base's file was written when the base was composed. A layer that brings `/usr/local/lib/libx.so.1` would need
`ldconfig`, which runs scripts of nobody there; so the image gets one small layer more: the file with the new
libraries, and the links of their sonames, as ldconfig makes them. Nothing is added when the file stays as it is, when
the build brought one of its own, or for other bases, whose RUN steps have ldconfig.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import msgspec

from aerogel.distroless import ldcache
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, TRIPLETS
from aerogel.errors import AerogelError
from aerogel.export.image import Finished
from aerogel.files.codec import Codec, LayerWriter
from aerogel.files.entry import REG, SYM, Entry, parents
from aerogel.files.index import LayerIndex
from aerogel.files.tar import TarWriter, read_entries
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest
from aerogel.oci.types import History, timestamp
from aerogel.solve.materials import Materials, save_layer
from aerogel.solve.stepkey import key_of

__all__ = ["with_library_cache"]

_RECORDS = b"var/lib/dpkg/status.d"
_CREATED_BY = "aerogel: /etc/ld.so.cache, with the libraries of the layers below"


def with_library_cache(finished: Finished, materials: Materials, codec: Codec) -> Finished:
    """The image, with a layer more if libraries came. Raises `store.*`, `codec.*`."""
    arch = DEBIAN_ARCHITECTURES.get(str(finished.platform))
    if arch is None or not 0 < finished.base < len(finished.layers):
        return finished
    folders = ldcache.directories(TRIPLETS[arch])
    store = materials.store
    key = key_of(b"ldcache 1", b"%d %d" % (finished.base, finished.epoch_s), *(one.encode() for one in finished.layers))
    with store.once(key, materials.on_wait):
        known = store.actions.get(key)
        if known is None or not all(materials.is_here(Digest(one)) for one in known["layers"]):
            # The base comes last: its layers may still be in a registry, and most builds bring no library.
            base, above = finished.layers[: finished.base], finished.layers[finished.base :]
            comes = any(_brings(materials.index(layer), folders) for layer in above)
            comes = comes and _is_ours([materials.index(layer) for layer in base])
            layer = _made(finished, materials, codec, folders) if comes else None
            known = {"layers": [layer] if layer else [], "chain": []}
            store.actions.put(key, {"op": "ldcache", "inputs": list(finished.layers)}, known)
    return _added(finished, Digest(known["layers"][0])) if known["layers"] else finished


def _is_ours(base: Sequence[LayerIndex]) -> bool:
    """Whether a base was put together without scripts and has the file."""
    paths = {entry.path for index in base for entry in index.entries if entry.path in (ldcache.PATH, _RECORDS)}
    return paths == {ldcache.PATH, _RECORDS}


def _brings(index: LayerIndex, folders: Sequence[bytes]) -> bool:
    """Whether a layer has, or takes away, something that looks like a library where the loader looks."""
    for entry in index.entries:
        folder, _, name = entry.path.rpartition(b"/")
        if _real(folder) in folders and ldcache.is_library_name(name.removeprefix(b".wh.")):
            return True
    return False


def _real(folder: bytes) -> bytes:
    return b"usr/" + folder if folder.startswith(b"lib") else folder


def _added(finished: Finished, layer: Digest) -> Finished:
    config = finished.config
    made = History(created=timestamp(finished.epoch_s), created_by=_CREATED_BY)
    rootfs = msgspec.structs.replace(config.rootfs, diff_ids=(*config.rootfs.diff_ids, layer))
    config = msgspec.structs.replace(config, rootfs=rootfs, history=(*config.history, made))
    return msgspec.structs.replace(finished, config=config, layers=(*finished.layers, layer))


def _made(finished: Finished, materials: Materials, codec: Codec, folders: Sequence[bytes]) -> Digest | None:
    """The layer, or None when there is nothing to say."""
    tree = materials.tree(finished.layers)
    origin = tree.origin(ldcache.PATH)
    if origin is None or origin.layer >= finished.base:
        return None
    before = _contents(materials, finished.layers[origin.layer], {ldcache.PATH})[ldcache.PATH]
    kept = [
        one
        for one in ldcache.read_cache(before)
        if (found := _file(tree, one.path.lstrip(b"/"))) is not None and _layer(tree, found) < finished.base
    ]
    links: dict[bytes, bytes] = {}
    new = _new_libraries(finished, materials, tree, folders, links)
    after = ldcache.write_cache([*kept, *new])
    if after == before and not links:
        return None
    return _write(finished, materials, codec, tree, after, links)


def _file(tree: LayerTree, path: bytes) -> bytes | None:
    """The file that a path leads to."""
    try:
        found = tree.resolve(path)
    except AerogelError:
        return None
    entry = tree.lookup(found)
    return found if entry is not None and entry.kind == REG else None


def _layer(tree: LayerTree, path: bytes) -> int:
    origin = tree.origin(path)
    return 0 if origin is None else origin.layer


def _new_libraries(
    finished: Finished,
    materials: Materials,
    tree: LayerTree,
    folders: Sequence[bytes],
    links: dict[bytes, bytes],
) -> list[ldcache.Library]:
    """What layers above the base have where the loader looks; the links that are missing go into `links`."""
    names: dict[bytes, list[bytes]] = {}
    for folder in folders:
        for name in tree.children(folder) if tree.lookup(folder) is not None else ():
            file = _file(tree, folder + b"/" + name) if ldcache.is_library_name(name) else None
            if file is not None and _layer(tree, file) >= finished.base:
                names.setdefault(file, []).append(folder + b"/" + name)
    heads: dict[bytes, tuple[bytes, int, bool]] = {}
    for number in range(finished.base, len(finished.layers)):
        wanted = {path for path in names if _layer(tree, path) == number}
        for path, data in _contents(materials, finished.layers[number], wanted).items() if wanted else ():
            found = ldcache.read_soname(lambda at, size, data=data: data[at : at + size])  # type: ignore[misc]
            if found is not None:
                heads[path] = found
    libraries = []
    for file, paths in names.items():
        for path in paths if file in heads else ():
            soname, flags, big_endian = heads[file]
            folder, _, name = path.rpartition(b"/")
            entry = tree.lookup(path)
            if not soname or (entry is not None and entry.kind == SYM and name.endswith(b".so")):
                soname = name  # ldconfig keeps the link that the linker uses under its own name
            place = folder + b"/" + soname
            if tree.lookup(place) is None:
                links[place] = name
            libraries.append(ldcache.Library(soname, b"/" + place, flags, big_endian))
    return libraries


def _contents(materials: Materials, layer: Digest, wanted: set[bytes]) -> dict[bytes, bytes]:
    """The files of a layer by path; hard links are followed."""
    index = materials.index(layer)
    targets = {entry.path: entry.link if entry.link and entry.kind != SYM else entry.path for entry in index.entries}
    files = {targets[path] for path in wanted if path in targets}
    found: dict[bytes, bytes] = {}
    with materials.open_tar(layer) as stream:
        for entry, content in read_entries(stream):
            if entry.path in files:
                found[entry.path] = b"".join(iter(lambda content=content: content.read(1 << 20), b""))  # type: ignore[misc]
                if len(found) == len(files):
                    break
    return {path: found[targets[path]] for path in wanted if targets.get(path) in found}


def _write(
    finished: Finished,
    materials: Materials,
    codec: Codec,
    tree: LayerTree,
    cache: bytes,
    links: dict[bytes, bytes],
) -> Digest:
    entries = {ldcache.PATH: Entry(ldcache.PATH, REG, 0o644, size=len(cache), mtime=finished.epoch_s)}
    entries |= {
        path: Entry(path, SYM, 0o777, mtime=finished.epoch_s, link=posixpath.basename(target))
        for path, target in links.items()
    }
    for path in list(entries):
        for parent in parents(path):
            there = tree.lookup(parent)
            if there is not None:
                entries.setdefault(parent, there)
    index = LayerIndex([], [])
    with materials.store.blobs.write() as blob, LayerWriter(blob.fd, codec) as writer:
        tar = TarWriter(writer.write)
        for path in sorted(entries, key=lambda one: one.replace(b"/", b"\0")):
            tar.entry(entries[path])
            index.entries.append(entries[path])
            index.offsets.append(tar.offset)
            if path == ldcache.PATH:
                tar.content(cache)
                tar.pad()
        tar.close()
        made = writer.finish()
        blob.commit(Digest(str(made.digest)), made.size)
    save_layer(materials.store, made, index)
    return Digest(made.diff_id)
