"""An image as a value that two builders can be compared by, and the differences of two of them.

Times are left out: aerogel sets them by design. A layer without entries counts as no layer with `empty_layer` in its
history entry: BuildKit stores the empty tar, aerogel leaves it out, and the specification knows both.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Node", "Picture", "differences", "read_docker", "read_oci", "without_layers"]

CONFIG = [
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
]


class Node(NamedTuple):
    """What is at one path of the flattened root file system."""

    kind: str
    mode: str
    owner: str
    size: int
    digest: str
    link: str
    device: str
    xattrs: tuple[tuple[str, str], ...]


class Picture(NamedTuple):
    """A root file system, the path set of each layer, what the config says, and the history."""

    root: Mapping[str, Node]
    groups: frozenset[frozenset[str]]
    layers: tuple[frozenset[str], ...]
    config: Mapping[str, Any]
    history: tuple[tuple[str, bool], ...]


def read_docker(archive: tarfile.TarFile, name: str) -> Picture:
    """An image of what `docker save` wrote, by its tag."""
    rows = json.loads(_bytes(archive, "manifest.json"))
    [row] = [row for row in rows if name in (row["RepoTags"] or ())]
    return _picture(json.loads(_bytes(archive, row["Config"])), [_bytes(archive, path) for path in row["Layers"]])


def read_oci(archive: tarfile.TarFile) -> Picture:
    """The image of an OCI archive with plain or gzip layers."""
    manifest: dict[str, Any] = json.loads(_bytes(archive, "index.json"))
    while "manifests" in manifest:
        [found] = manifest["manifests"]
        manifest = json.loads(_bytes(archive, _blob(found)))
    layers = [_bytes(archive, _blob(layer)) for layer in manifest["layers"]]
    return _picture(json.loads(_bytes(archive, _blob(manifest["config"]))), layers)


def without_layers(told: dict[str, Any], texts: list[str]) -> Picture:
    """An image as `docker image inspect` tells it, with the texts of its history."""
    config = {"author": told.get("Author"), "os": told["Os"], "architecture": told["Architecture"]}
    history = [{"created_by": text, "empty_layer": True} for text in texts]
    return _picture({**config, "variant": told.get("Variant"), "config": told["Config"], "history": history}, [])


def _blob(descriptor: dict[str, Any]) -> str:
    digest: str = descriptor["digest"]
    return "blobs/" + digest.replace(":", "/")


def _bytes(archive: tarfile.TarFile, path: str) -> bytes:
    file = archive.extractfile(path)
    assert file is not None
    return file.read()


def _picture(config: dict[str, Any], blobs: list[bytes]) -> Picture:
    root: dict[str, Node] = {}
    inodes: dict[str, object] = {}
    layers: list[frozenset[str]] = []
    filled = iter(blobs)
    history: list[tuple[str, bool]] = []
    for entry in config.get("history") or []:
        empty = entry.get("empty_layer", False)
        if not empty:
            paths = frozenset(_apply(next(filled), root, inodes))
            empty = not paths
            if paths:
                layers.append(paths)
        history.append((entry.get("created_by", ""), empty))
    assert next(filled, None) is None, "more layers than entries of the history"
    groups: dict[object, set[str]] = {}
    for path, inode in inodes.items():
        groups.setdefault(inode, set()).add(path)
    inner = config.get("config") or {}
    return Picture(
        root=root,
        groups=frozenset(frozenset(group) for group in groups.values() if len(group) > 1),
        layers=tuple(layers),
        config={
            "Author": config.get("author") or None,
            **{key: inner.get(key) or None for key in CONFIG},
            "Platform": [config.get(key) or None for key in ("os", "architecture", "variant")],
        },
        history=tuple(history),
    )


def _apply(blob: bytes, root: dict[str, Node], inodes: dict[str, object]) -> Iterator[str]:
    """Puts a layer over the tree; gives its paths, a directory's with a slash."""
    with tarfile.open(fileobj=io.BytesIO(blob), errors="surrogateescape") as tar:
        entries = [(member, _content(tar, member)) for member in tar]
    for member, _ in entries:
        path = member.name.removeprefix("./").strip("/")
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _remove(root, inodes, folder, keep=True)
        elif name.startswith(".wh."):
            _remove(root, inodes, (folder + "/" if folder else "") + name[4:])
    for member, content in entries:
        path = member.name.removeprefix("./").strip("/")
        name = path.rpartition("/")[2]
        if not path or path == ".":
            continue
        yield path + ("/" if member.isdir() else "")
        if name.startswith(".wh."):
            continue
        if not (member.isdir() and path in root and root[path].kind == "dir"):
            _remove(root, inodes, path)
        if member.islnk():
            target = member.linkname.removeprefix("./").strip("/")
            root[path] = root[target]
            if target in inodes:
                inodes[path] = inodes[target]
            continue
        root[path] = _node(member, content)
        if member.isreg():
            inodes[path] = object()


def _remove(root: dict[str, Node], inodes: dict[str, object], path: str, *, keep: bool = False) -> None:
    for each in [each for each in root if each.startswith(path + "/") or (each == path and not keep)]:
        del root[each]
        inodes.pop(each, None)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _node(member: tarfile.TarInfo, content: bytes) -> Node:
    kinds = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block"}
    kinds |= {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.FIFOTYPE: "fifo"}
    prefix = "SCHILY.xattr."
    xattrs = sorted((key.removeprefix(prefix), value) for key, value in member.pax_headers.items() if prefix in key)
    return Node(
        kind=kinds[member.type],
        mode=oct(member.mode & 0o7777),
        owner=f"{member.uid}:{member.gid}",
        size=len(content),
        digest=hashlib.sha256(content).hexdigest()[:12] if member.isreg() else "",
        link=member.linkname if member.issym() else "",
        device=f"{member.devmajor}:{member.devminor}" if member.isdev() and not member.isfifo() else "",
        xattrs=tuple(xattrs),
    )


def differences(theirs: Picture, ours: Picture) -> list[str]:
    """One line each; empty if the images are the same."""
    found: list[str] = []
    for path in sorted({*theirs.root, *ours.root}):
        there, here = theirs.root.get(path), ours.root.get(path)
        if there != here:
            found.append(f"root /{ascii(path)[1:-1]}: BuildKit {_node_text(there)}, aerogel {_node_text(here)}")
    if theirs.groups != ours.groups:
        found.append(f"hard links: BuildKit {_groups(theirs)}, aerogel {_groups(ours)}")
    if len(theirs.layers) != len(ours.layers):
        found.append(f"layers: BuildKit {len(theirs.layers)}, aerogel {len(ours.layers)}")
    for number, (his, mine) in enumerate(zip(theirs.layers, ours.layers, strict=False)):
        if his != mine:
            text = f"BuildKit only {sorted(his - mine)!a}, aerogel only {sorted(mine - his)!a}"
            found.append(f"layer {number}: {text}")
    for key in theirs.config:
        there, here = theirs.config[key], ours.config[key]
        if there != here:
            found.append(f"config {key}: BuildKit {there!r}, aerogel {here!r}")
    if len(theirs.history) != len(ours.history):
        found.append(f"history: BuildKit {theirs.history}, aerogel {ours.history}")
    for number, (told, said) in enumerate(zip(theirs.history, ours.history, strict=False)):
        if told != said:
            found.append(f"history {number}: BuildKit {told!r}, aerogel {said!r}")
    return found


def _groups(picture: Picture) -> str:
    return ascii(sorted(sorted(group) for group in picture.groups))


def _node_text(node: Node | None) -> str:
    return "nothing" if node is None else " ".join(str(part) for part in node if part not in ("", ()))
