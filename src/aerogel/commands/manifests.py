"""Lists of images in the making: indexes of the local store, put together from images here and in registries.

Of a member that is in a registry only the documents come; its layers stay there until they are pushed elsewhere.
"""

from __future__ import annotations

import msgspec

from aerogel.commands.policy import enforce, may_use
from aerogel.commands.registries import open_registries
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.oci.digest import is_digest
from aerogel.oci.image import create_index, images, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, decode
from aerogel.registry.client import Registries
from aerogel.store.images import ImageRecord, describe

__all__ = [
    "find_list",
    "is_member",
    "keep_list",
    "list_name",
    "members_of",
    "open_registries",
    "read_list",
    "with_platform",
]


def list_name(text: str) -> Reference:
    """The name of a list. Raises `manifest.name`, `oci.reference`."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise AerogelError(
            f"`{text}` has a digest; a list has a name",
            code="manifest.name",
            exit_status=EXIT_USAGE,
            hints=[f"write `{reference.name}:TAG`"],
        )
    return reference


def find_list(world: World, name: str) -> ImageRecord | None:
    """The list of a name in the store; None when there is no image of this name.

    Raises `manifest.no-list` for an image that is none.
    """
    record = world.store.images.find(name)
    if record is not None and record.descriptor.media_type not in INDEX_TYPES:
        raise AerogelError(
            f"`{name}` is one image and no list",
            code="manifest.no-list",
            exit_status=EXIT_USAGE,
            hints=["`aerogel manifest create LIST IMAGE...` makes a list"],
        )
    return record


def read_list(world: World, record: ImageRecord) -> Index:
    return decode(world.store.blobs.read(record.descriptor.digest, record.descriptor.size), Index)


def members_of(world: World, registries: Registries, name: str) -> list[Descriptor]:
    """The images that a name means, with their platforms: of the store, else of a registry; of an index all of them.

    Raises `registry.*`, `net.*`, `policy.*`, `oci.*`.
    """
    record = world.store.images.find(name)
    if record is not None and record.references:
        meant = record.references[0]
        if not may_use(world, meant, meant.digest or record.descriptor.digest):
            record = None  # the registry is asked, and whoever refuses says why
    top = record.descriptor if record is not None else _fetched(world, registries, Reference.parse(name))
    blobs = world.store.blobs
    if top.media_type in INDEX_TYPES:
        return list(decode(blobs.read(top.digest, top.size), Index).manifests)
    (image,) = images(top, blobs)
    platform = image.config.platform.normal()
    return [msgspec.structs.replace(top, annotations={}, platform=platform if platform.architecture else None)]


def _fetched(world: World, registries: Registries, reference: Reference) -> Descriptor:
    """Brings the documents of an image into the store; where its layers are is noted."""
    store = world.store
    repository = registries.repository(reference)
    source = repository.blobs()
    served = source.resolve(reference)
    enforce(world, repository, reference, served.digest)
    kept = {image.manifest.config.digest for image in images(served, source)}
    for part in walk(served, source):
        if part.media_type in INDEX_TYPES or part.media_type in MANIFEST_TYPES or part.digest in kept:
            store.blobs.put(source.read(part.digest, part.size))
        elif not part.urls and not store.blobs.has(part.digest):
            store.origins.note(part.digest, str(repository))
    return served


def keep_list(world: World, reference: Reference, members: list[Descriptor]) -> Descriptor:
    """Puts a list in the store under its name. Raises `store.*`."""
    store = world.store
    unique = {each.digest: each for each in members}
    made = create_index(list(unique.values()), store.blobs)
    store.images.tag(reference, made, describe(made, store.blobs), is_own=True)
    store.sync()
    return made


def with_platform(old: Platform | None, **given: str) -> Platform:
    """A platform with what was said in its place; `os`, `architecture`, `variant`."""
    base = old or Platform.host()
    return msgspec.structs.replace(base, **{key: value for key, value in given.items() if value})


def is_member(descriptor: Descriptor, text: str) -> bool:
    """Whether a word is the digest of a member, or what is after `@` in a name is."""
    word = text.rpartition("@")[2]
    return is_digest(word) and descriptor.digest == word
