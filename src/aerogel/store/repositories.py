"""What was pushed to a registry of this store (`aerogel registry serve`): repositories, their tags and manifests.

::

    <data>/registry-v1/<64 hex>/        SHA-256 of the repository's name
        name                            the name
        blobs/<algorithm>-<hex>         empty: the repository has this blob, which lies in `blobs`
        manifests/<algorithm>-<hex>     JSON: descriptor, subject, artifact type and annotations
        tags/<tag>                      JSON: the digest

Each file is put in place whole, blobs before manifests before tags, so no lock is needed and a killed server leaves
nothing half. What is here is not pruned. Images that were built or pulled are elsewhere (`images`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from aerogel.decoding import parse_json
from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.types import Descriptor, from_dict, to_dict
from aerogel.store.disk import disk_errors, read_file, unlink
from aerogel.store.scratch import Scratch

__all__ = ["Repositories", "Stored"]


class Stored:
    """One repository."""

    def __init__(self, root: str, name: str, scratch: Scratch) -> None:
        self._root = f"{root}/{sha256(name.encode()).hexdigest()}"
        self.name = name
        self._scratch = scratch

    def _path(self, kind: str, name: str) -> str:
        return f"{self._root}/{kind}/{name.replace(':', '-')}"

    def _names(self, kind: str) -> list[str]:
        with disk_errors(self._root):
            try:
                return sorted(os.listdir(f"{self._root}/{kind}"))
            except FileNotFoundError:
                return []

    def _begin(self) -> None:
        if not os.path.exists(f"{self._root}/name"):
            self._scratch.write_file(f"{self._root}/name", self.name.encode())

    # Blobs.

    def has_blob(self, digest: Digest) -> bool:
        return os.path.exists(self._path("blobs", digest))

    def add_blob(self, digest: Digest) -> None:
        """The blob is in the store. Raises `store.*`."""
        self._begin()
        if not self.has_blob(digest):
            self._scratch.write_file(self._path("blobs", digest), b"")

    def remove_blob(self, digest: Digest) -> bool:
        return unlink(self._path("blobs", digest))

    def blobs(self) -> list[Digest]:
        return [Digest(name.replace("-", ":", 1)) for name in self._names("blobs")]

    # Manifests.

    def manifest(self, digest: Digest) -> Descriptor | None:
        record = _parse(read_file(self._path("manifests", digest)))
        return None if record is None else _descriptor(record.get("descriptor"))

    def add_manifest(self, descriptor: Descriptor, subject: str) -> None:
        """The manifest is in the store. `descriptor` has what a list of referrers tells of it. Raises `store.*`."""
        self._begin()
        record = {"descriptor": to_dict(descriptor), "subject": subject}
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        self._scratch.write_file(self._path("manifests", descriptor.digest), data)

    def remove_manifest(self, digest: Digest) -> bool:
        """Removes it with its tags."""
        for tag in self.tags():
            if self.tag(tag) == digest:
                self.untag(tag)
        return unlink(self._path("manifests", digest))

    def manifests(self) -> list[tuple[Descriptor, str]]:
        """Every manifest and what it refers to, by digest."""
        found = []
        for name in self._names("manifests"):
            record = _parse(read_file(f"{self._root}/manifests/{name}"))
            descriptor = None if record is None else _descriptor(record.get("descriptor"))
            if record is not None and descriptor is not None:
                found.append((descriptor, str(record.get("subject") or "")))
        return found

    # Tags.

    def tag(self, tag: str) -> Digest | None:
        record = _parse(read_file(self._path("tags", tag)))
        return None if record is None else Digest(str(record.get("digest")))

    def set_tag(self, tag: str, digest: Digest) -> None:
        self._scratch.write_file(self._path("tags", tag), json.dumps({"digest": digest}).encode())

    def untag(self, tag: str) -> bool:
        return unlink(self._path("tags", tag))

    def tags(self) -> list[str]:
        return self._names("tags")


class Repositories:
    """All repositories of one store that something was pushed to."""

    def __init__(self, data: str, scratch: Scratch) -> None:
        self._root = f"{data}/registry-v1"
        self._scratch = scratch

    def of(self, name: str) -> Stored:
        return Stored(self._root, name, self._scratch)

    def all(self) -> Iterator[Stored]:
        try:
            folders = sorted(os.listdir(self._root))
        except FileNotFoundError:
            return
        for folder in folders:
            name = read_file(f"{self._root}/{folder}/name")
            if name is not None and sha256(name).hexdigest() == folder:
                yield self.of(name.decode())

    def digests(self) -> Iterator[Digest]:
        """Everything in `blobs` that must stay."""
        for repository in self.all():
            yield from repository.blobs()
            for descriptor, _ in repository.manifests():
                yield descriptor.digest


def _parse(data: bytes | None) -> dict[str, Any] | None:
    try:
        found = parse_json(data or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _descriptor(value: object) -> Descriptor | None:
    try:
        return from_dict(value, Descriptor)
    except AerogelError:
        return None
