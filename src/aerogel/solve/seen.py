"""Which times files have for a step with cache mounts: a file that changed looks newer than what the caches hold.

Inside the store what COPY brings has one old time (`solve.times`). A program that keeps products in a cache mount and
compares times (make, cargo) would take every changed source for an old one. So each cache knows what the steps that
had it last saw at each path, and at which time. A path that holds what it held then has the time that it had then.
Any other gets one that is later than everything in the cache and not in the future. What a path held when a product
was made is what counts, not whether a content was ever seen: a file that is changed back is a changed file.

What identifies a file is its content and what it is worked on with: the base and the programs that steps unpacked.
The times are shown by copies of the files in a directory above the layers, which the step sees and nothing else:
layers, keys and images do not know of them. What a step copies with its time gets the old one back (`files.settle`).
"""

from __future__ import annotations

import marshal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from aerogel.files.copy import CopyItem
from aerogel.files.entry import DIR, REG, SYM
from aerogel.files.host import HostTree
from aerogel.files.tree import LayerTree, Tree
from aerogel.graph.ops import Node, frame
from aerogel.oci.digest import Digest
from aerogel.solve.content import LayerContent
from aerogel.solve.keys import content_of_node
from aerogel.solve.materials import Materials
from aerogel.solve.times import COPIED_S
from aerogel.store.disk import read_file
from aerogel.store.mounts import HeldCache

__all__ = ["Shown", "View", "bases_of", "show", "view_of_context", "view_of_layers"]

_MAX_KNOWN = 100_000
"""Paths that a cache remembers. One that it forgot looks changed, so nothing is wrong then but slow."""
_FAR_S = 10
"""A last use so far in the future tells that the clock was set back: it is not waited for."""
_UNSURE = b""
"""Identifies no content: steps that saw different ones had the cache at the same time."""

_Seen = dict[bytes, tuple[bytes, int]]
"""By place: what was there, and its time in seconds since 1970; 0 for the one that it has in its layer."""


class _File(NamedTuple):
    """Something that a step can compare times of. `time` is that in the layer, COPIED_S for a file of a context."""

    identity: bytes
    time: int


class View(NamedTuple):
    """A tree that the step sees at `target` (empty: its root): `directories` are the layers, the lowest first.

    `ground` is a digest of all in it that has times of its own.
    """

    target: str
    directories: tuple[str, ...]
    files: Mapping[bytes, _File]
    ground: bytes


class Shown(NamedTuple):
    """`directories` go above the layers of views, by target; `settled` are times in them and what stands for these."""

    directories: Mapping[str, str]
    settled: tuple[tuple[int, int], ...]


def bases_of(node: Node) -> int:
    """How many of the layers that a node has are those of its base image."""
    at = node
    while at.root is not None:
        at = at.root
    return len(content_of_node(at))


def view_of_layers(
    target: str, layers: Sequence[Digest], bases: int, materials: Materials, source: bytes | None = None
) -> View:
    """What the layers show, of which the lowest `bases` are an image's; with `source` only what is at and below it."""
    tree = materials.tree(layers)
    marks = {COPIED_S, *(mark for layer in layers[bases:] if (mark := materials.index(layer).mark) is not None)}
    ground = [layer.encode() for layer in layers[:bases]]
    files: dict[bytes, _File] = {}
    for at in range(bases, len(layers)):
        index = materials.index(layers[at])
        contents: Mapping[bytes, bytes] | None = None
        is_ground = False
        for entry in index.entries:
            found = tree.lookup(entry.path)
            if found is None or found.kind not in (REG, DIR, SYM):
                continue
            if found.kind == DIR:
                if found.mtime in marks and entry.kind == DIR:
                    files[entry.path] = _names(tree, entry.path, found.mtime)
                continue
            origin = tree.origin(entry.path)
            if origin is None or origin.layer != at:
                continue
            if found.kind == SYM:
                ground += [entry.path, found.link]
            elif index.mark is None:
                if contents is None:
                    contents = _contents(layers[at], materials)
                files[entry.path] = _File(_digest(b"content", contents.get(origin.entry.path, b"")), found.mtime)
            elif found.mtime in marks:
                files[entry.path] = _File(_digest(b"made", *(each.encode() for each in layers[: at + 1])), found.mtime)
            else:
                is_ground = True
        if is_ground:
            ground.append(layers[at].encode())
    if source is not None:
        below = source + b"/" if source else b""
        files = {path: file for path, file in files.items() if path == source or path.startswith(below)}
    return View(target, tuple(materials.directories(layers)), files, _digest(*ground))


def view_of_context(target: str, tree: HostTree, source: bytes, directory: str) -> View:
    """What a bind mount shows of a context, laid out in `directory`."""
    start = len(source) + 1 if source else 0
    files: dict[bytes, _File] = {}
    links: list[bytes] = []
    for entry in tree.walk(source):
        path = entry.path[start:]
        if entry.kind == REG:
            files[path or b"file"] = _File(_digest(b"content", tree.digest(entry.path)), COPIED_S)
        elif entry.kind == DIR:
            files[path] = _names(tree, entry.path, COPIED_S)
        elif entry.kind == SYM:
            links += [path, entry.link]
    return View(target, (directory,), files, _digest(*links))


def _names(tree: Tree, path: bytes, time_s: int) -> _File:
    """A directory: its time tells of what came and went in it."""
    return _File(_digest(b"names", b"%d" % time_s, *tree.children(path)), time_s)


def _digest(*parts: bytes) -> bytes:
    return sha256(frame(*parts)).digest()[:16]


def _contents(layer: Digest, materials: Materials) -> Mapping[bytes, bytes]:
    """The digests of what is in the files of a layer; read once."""
    store = materials.store
    path = f"{store.cache}/contents-v1/{layer.rpartition(':')[2]}"
    data = read_file(path)
    if data is not None:
        try:
            known: dict[bytes, bytes] = dict(marshal.loads(data))  # noqa: S302 - our own file
        except (ValueError, TypeError, EOFError):
            pass
        else:
            return known
    tree = LayerTree([materials.index(layer)])
    items = [CopyItem(entry, entry.path) for entry in materials.index(layer).entries if entry.kind == REG]
    found = LayerContent(materials, [layer], tree).digests(items)
    store.scratch.write_file(path, marshal.dumps(found))
    return found


def show(
    caches: Sequence[tuple[HeldCache, bool]],
    views: Sequence[View],
    materials: Materials,
    folder: str,
    give_up: Callable[[], object],
) -> Shown:
    """Makes, in the directory `folder`, what the step sees instead of its files, and notes that in its caches.

    With each cache goes whether the step may write to it. May wait for the clock, some seconds at most, if a cache was
    used just now; `give_up` is called meanwhile and may raise. Raises `shown.failed`, `store.*`.
    """
    try:
        ground = _digest(*(view.ground for view in views))
        files = {
            _place(view, path): _File(_digest(ground, file.identity), file.time)
            for view in views
            for path, file in view.files.items()
        }
        times, settled = _times(caches, files, give_up)
        return _written(views, times, settled, materials, folder)
    finally:
        for cache, _ in caches:
            cache.share()


def _place(view: View, path: bytes) -> bytes:
    return view.target.encode("utf-8", "surrogateescape") + b"\0" + path


def _times(
    caches: Sequence[tuple[HeldCache, bool]], files: Mapping[bytes, _File], give_up: Callable[[], object]
) -> tuple[dict[bytes, int], dict[int, int]]:
    """The times that places get which have others in their layers, and what stands for each of these times."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for cache, _ in caches:
            stack.enter_context(cache.turn())
        known = [_known(cache) for cache, _ in caches]
        changed = {place for place, file in files.items() if any(_is_changed(seen, place, file) for seen in known)}
        groups = sorted({files[place].time for place in changed})
        new = dict(zip(groups, _later(caches, known, len(groups), give_up), strict=True))
        times: dict[bytes, int] = {}
        for place, file in files.items():
            if place in changed:
                times[place] = new[file.time]
            elif later := max((seen[place][1] for seen in known if seen is not None and place in seen), default=0):
                times[place] = later
        for (cache, is_writable), seen in zip(caches, known, strict=True):
            if is_writable:
                _note(cache, seen or {}, files, times, changed)
    return times, {seconds: files[place].time for place, seconds in times.items()}


def _known(cache: HeldCache) -> _Seen | None:
    """What is known of what steps saw; None of an empty cache, in which nothing was made of anything."""
    seen = cache.seen()
    return None if seen is None and cache.is_new and not cache.is_seeded else seen or {}


def _is_changed(seen: _Seen | None, place: bytes, file: _File) -> bool:
    return seen is not None and seen.get(place, (_UNSURE, 0))[0] != file.identity


def _later(
    caches: Sequence[tuple[HeldCache, bool]], known: Sequence[_Seen | None], count: int, give_up: Callable[[], object]
) -> list[int]:
    """So many seconds, later than all that is in the caches and than all times that were given, and over by now."""
    if not count:
        return []
    now = time.time()
    ends = [cache.last_use_ns / 1e9 or now for cache, _ in caches if not cache.is_new]
    given = [seconds for seen in known if seen is not None for _, seconds in seen.values()]
    first = int(max([*ends, *given, COPIED_S])) + 1
    while (now := time.time()) < first + count < now + _FAR_S + count:
        give_up()
        time.sleep(min(0.1, first + count - now))
    first = max(first, int(now) - count)
    return list(range(first, first + count))


def _note(
    cache: HeldCache, seen: _Seen, files: Mapping[bytes, _File], times: Mapping[bytes, int], changed: set[bytes]
) -> None:
    now = {
        place: (file.identity if cache.is_alone or place not in changed else _UNSURE, times.get(place, 0))
        for place, file in files.items()
    }
    rest = ((place, what) for place, what in seen.items() if place not in now)
    kept = dict(_first(rest, max(0, _MAX_KNOWN - len(now)))) | now
    if kept != seen or cache.is_new:
        cache.note(kept)


def _first(items: Iterator[tuple[bytes, tuple[bytes, int]]], count: int) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def _written(
    views: Sequence[View], times: Mapping[bytes, int], settled: Mapping[int, int], materials: Materials, folder: str
) -> Shown:
    directories: dict[str, str] = {}
    for number, view in enumerate(views):
        rows = [
            (path.decode("utf-8", "surrogateescape"), seconds)
            for path in view.files
            if (seconds := times.get(_place(view, path)))
        ]
        if rows:
            directories[view.target] = f"{folder}/shown-{number}"
            args = {"path": directories[view.target], "lowers": list(view.directories), "rows": rows}
            materials.helper().call("show", args)
    return Shown(directories, tuple(sorted(settled.items())))
