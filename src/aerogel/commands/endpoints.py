"""Where a copy begins: the image of a registry, the local store, an OCI layout, an archive, another program."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from aerogel.commands.lookup import find_image
from aerogel.commands.policy import enforce, enforce_elsewhere
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import step
from aerogel.net.engine import Engine
from aerogel.net.podman import save_from_podman
from aerogel.oci.digest import Digest
from aerogel.oci.ends import DAEMONS, End
from aerogel.oci.image import Blobs
from aerogel.oci.reference import Reference
from aerogel.oci.types import REF_NAME, Descriptor, Index, decode
from aerogel.registry.client import Registries, Repository
from aerogel.registry.referrers import list_referrers
from aerogel.store.disk import disk_errors
from aerogel.store.load import Loaded, load_archive, load_layout
from aerogel.store.store import Store

__all__ = ["Origin", "open_origin"]

_COMPANIONS = (".sig", ".att", ".sbom")
"""Ends of the tags under which cosign keeps signatures, attestations and SBOMs of a digest."""


class Origin(Protocol):
    """Where an image comes from."""

    descriptor: Descriptor
    blobs: Blobs

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to a manifest."""
        ...

    def companions(self, subject: Digest) -> tuple[tuple[str, Descriptor], ...]:
        """Tags that belong to a manifest by their names, as cosign's."""
        ...


class _FromRegistry:
    def __init__(self, repository: Repository, reference: Reference) -> None:
        self.repository = repository
        self._reference = reference
        self.source = repository.blobs()
        self.blobs: Blobs = self.source
        self.descriptor = self.source.resolve(reference)

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        found = list_referrers(self.repository, subject)
        for each in found:
            self.source.resolve(Reference(self._reference.registry, self._reference.repository, None, each.digest))
        return found

    def companions(self, subject: Digest) -> tuple[tuple[str, Descriptor], ...]:
        found = []
        for end in _COMPANIONS:
            tag = subject.replace(":", "-") + end
            name = Reference(self._reference.registry, self._reference.repository, tag, None)
            try:
                found.append((tag, self.source.resolve(name)))
            except AerogelError as error:
                if error.code != "registry.not-found":
                    raise
        return tuple(found)


class _FromStore:
    def __init__(self, store: Store, descriptor: Descriptor) -> None:
        self._store = store
        self.blobs: Blobs = store.blobs
        self.descriptor = descriptor

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return self._store.referrers.of(subject)

    def companions(self, subject: Digest) -> tuple[tuple[str, Descriptor], ...]:
        del subject
        return ()


def open_origin(end: End, world: World, registries: Registries) -> Origin:
    """What a name means; files are read into the store, where nothing has their name.

    Raises `image.not-found`, `registry.*`, `net.*`, `archive.*`, `copy.which`, `oci.*`, `store.*`.
    """
    store = world.store
    if end.kind == "docker":
        reference = end.reference()
        origin = _FromRegistry(registries.repository(reference), reference)
        enforce(world, origin.repository, reference, origin.descriptor.digest)
        return origin
    if end.kind == "store":
        return _FromStore(store, find_image(store, end.name).descriptor)
    path = world.settings.directory / end.path
    enforce_elsewhere(world, end.kind, end.name if end.kind in DAEMONS else end.path, path if end.path else None)
    if end.kind in DAEMONS:
        return _FromStore(store, _saved(end, world))
    if path.is_dir():
        found = load_layout(str(path), store)
        labels = _labels(path.joinpath("index.json").read_bytes()) if path.joinpath("index.json").exists() else {}
    else:
        with disk_errors(str(path)), path.open("rb") as stream:
            found = _read_archive(end, stream, store)
        labels = {}
    return _FromStore(store, _chosen(end, found, labels).descriptor)


def _read_archive(end: End, stream: BinaryIO, store: Store) -> list[Loaded]:
    try:
        return load_archive(stream, store)
    except AerogelError as error:
        if error.code == "archive.no-image":
            error.message = error.message.replace("this is", f"`{end.path}` is", 1)
        raise


def _saved(end: End, world: World) -> Descriptor:
    """Brings an image of another program into the store, where it gets no name. Raises `daemon.*`, `podman.*`."""
    environment = world.settings.environment
    opened = (
        Engine(environment).save(end.name) if end.kind == "docker-daemon" else save_from_podman(end.name, environment)
    )
    with step(world.sink, world.take_numbers(), f"read {end}"), opened as stream:
        (found, *_) = load_archive(stream, world.store)
    return found.descriptor


def _labels(data: bytes) -> dict[Digest, str]:
    return {each.digest: each.annotations.get(REF_NAME, "") for each in decode(data, Index).manifests}


def _chosen(end: End, found: list[Loaded], labels: dict[Digest, str]) -> Loaded:
    """The image of a file that was meant. Raises `copy.which`."""

    def names(loaded: Loaded) -> set[str]:
        said = {loaded.label, labels.get(loaded.descriptor.digest, ""), loaded.descriptor.digest}
        for reference in loaded.references:
            said |= {str(reference), reference.familiar(), reference.tag or ""}
        return said - {""}

    matching = [loaded for loaded in found if not end.name or end.name in names(loaded)]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(f"`{name}`" for loaded in found for name in sorted(names(loaded))[:2])
    what = f"has no image `{end.name}`" if end.name else f"has {len(found)} images"
    raise AerogelError(
        f"`{end.path}` {what}",
        code="copy.which",
        exit_status=EXIT_USAGE,
        hints=[f"name one of {listed}" if listed else "nothing is in it"],
    )
