"""What refers to an image of the store: SBOM and provenance, as artifact manifests whose `subject` is the image.

::

    <data>/images-v1/referrers/<hex of the image's manifest>/<hex of the artifact's manifest>.json

The file holds the artifact's descriptor as a list of referrers has it, with its type and annotations. It is written
after the blobs of the artifact; a file whose blobs are gone counts as absent. An artifact stays as long as its image.
Spec: OCI distribution-spec v1.1 "Listing Referrers"; image-spec v1.1 manifest.md#guidelines-for-artifact-usage.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, hex_of
from aerogel.oci.types import Descriptor, decode, encode
from aerogel.store.blobs import Blobs
from aerogel.store.disk import disk_errors, read_file, unlink
from aerogel.store.scratch import Scratch

__all__ = ["Referrers"]


class Referrers:
    """The artifacts of all images of one store."""

    def __init__(self, data: str, scratch: Scratch, blobs: Blobs) -> None:
        self._root = f"{data}/images-v1/referrers"
        self._scratch = scratch
        self._blobs = blobs

    def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        """The artifacts of an image, by type and digest. Raises `store.*`."""
        folder = f"{self._root}/{hex_of(subject)}"
        with disk_errors(folder):
            try:
                names = os.listdir(folder)
            except FileNotFoundError:
                return ()
        found = []
        for name in names:
            data = read_file(f"{folder}/{name}")
            with suppress(AerogelError):  # a file that is no descriptor tells of nothing
                descriptor = decode(data or b"", Descriptor)
                if self._blobs.size(descriptor.digest) == descriptor.size:
                    found.append(descriptor)
        return tuple(
            sorted(found, key=lambda each: (each.artifact_type, sorted(each.annotations.items()), each.digest))
        )

    def add(
        self, subject: Digest, descriptor: Descriptor, replaces: Callable[[Descriptor], bool] = lambda _: False
    ) -> None:
        """Lets an artifact, whose blobs are in the store, belong to an image. `replaces` says which others go.

        Raises `store.*`.
        """
        self._blobs.sync()
        self._scratch.write_file(self._path(subject, descriptor.digest), encode(descriptor))
        for old in self.of(subject):
            if old.digest != descriptor.digest and replaces(old):
                self.remove(subject, old.digest)

    def remove(self, subject: Digest, digest: Digest) -> None:
        """Takes one artifact away from an image; `store.gc` removes its blobs."""
        unlink(self._path(subject, digest))

    def subjects(self) -> tuple[Digest, ...]:
        """The images that have artifacts."""
        with disk_errors(self._root):
            try:
                return tuple(Digest(f"sha256:{name}") for name in sorted(os.listdir(self._root)))
            except FileNotFoundError:
                return ()

    def forget(self, subject: Digest) -> None:
        """Takes all artifacts away from an image that goes."""
        for descriptor in self.of(subject):
            self.remove(subject, descriptor.digest)
        with suppress(OSError):
            os.rmdir(f"{self._root}/{hex_of(subject)}")

    def _path(self, subject: Digest, digest: Digest) -> str:
        return f"{self._root}/{hex_of(subject)}/{hex_of(digest)}.json"
