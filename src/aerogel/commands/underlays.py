"""The image that a declaration extends: found as copy and FROM find one, with the same credentials and policies.

`docker://NAME` is asked of its registry, a name without a word in front as FROM does: the local store, then an alias, then the
registry. With a lock the image is that of its digest: from `vendor/images` beside the lock, from the store, or from where
it was; a file or a name of the store that means another image now is an error.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from aerogel.commands.endpoints import open_origin
from aerogel.commands.lookup import find_image
from aerogel.commands.policy import may_use, refuse
from aerogel.commands.registries import check_platform, open_registries, pull_image, stored_by_digest
from aerogel.commands.world import World
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES
from aerogel.distroless.underlay import Underlay
from aerogel.errors import EXIT_FAILED, EXIT_USAGE, AerogelError
from aerogel.files.codec import open_uncompressed
from aerogel.files.tar import CHUNK
from aerogel.oci.digest import Digest, hex_of
from aerogel.oci.ends import DAEMONS, End, parse_end
from aerogel.oci.image import Image, document, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor, Index
from aerogel.store.layout import Root, write_oci_layout
from aerogel.store.load import load_digest, record_layers
from aerogel.store.store import Store

if TYPE_CHECKING:
    from aerogel.distroless.declared import Beside
    from aerogel.distroless.lock import LockedUnderlay

__all__ = ["IMAGES", "Found", "find_underlay", "open_underlay", "platforms_of_image", "state_of", "vendor_image"]

IMAGES = "images"
"""The OCI layout in a folder of vendored packages."""


class Found(NamedTuple):
    """An image of the store; `meant` is what its name meant, the image itself or an index of it."""

    image: Image
    meant: Digest


def _is_bare(text: str, end: End) -> bool:
    return end.kind == "store" and not text.startswith("store:")


def find_underlay(
    text: str,
    platform: Platform,
    world: World,
    beside: Beside,
    *,
    locked: LockedUnderlay | None = None,
    vendor: Path | None = None,
    refresh: bool = False,
) -> Found:
    """The image for a platform, whole in the store. `refresh` asks the registry for a name that the store has too.

    Raises `base.moved` for what is not as the lock says, `base.no-file`, `base.outside`, `oci.platform-missing`,
    `image.not-found`, `registry.*`, `net.*`, `archive.*`, `copy.*`, `policy.*`, `store.*`.
    """
    if world.settings.bases == "builtin":
        raise AerogelError(
            f"the declaration extends the image `{text}`, and the setting `bases` allows built-in bases only",
            code="build.no-base",
            hints=["set `bases` to `auto`"],
        )
    if locked is not None and vendor is not None:
        kept = load_digest(str(vendor / IMAGES), locked.digest, world.store)
        if kept is not None:
            return Found(load(kept, world.store.blobs, platform), locked.digest)
    end = parse_end(text)
    if end.kind == "docker" or _is_bare(text, end):
        name = world.settings.aliases.get(text, text) if _is_bare(text, end) else end.name
        reference = Reference.parse(name)
        if locked is not None:
            wanted = locked.index if isinstance(locked.index, str) else locked.digest
            reference = msgspec.structs.replace(reference, tag=None, digest=wanted)
        may_store = reference.digest is not None or (_is_bare(text, end) and not refresh)
        found = (_stored(reference, platform, world) if may_store else None) or _pulled(
            text, reference, platform, world, is_locked=locked is not None
        )
    elif end.kind == "store":
        found = _named(end, platform, world)
    else:
        found = _read(end, platform, world, beside)
    check_platform(found.image, text, platform)
    if locked is not None and found.image.digest != locked.digest:
        raise AerogelError(
            f"`{text}` is not the image that was locked",
            code="base.moved",
            detail=f"expected {locked.digest}\nfound    {found.image.digest}",
            hints=["if it was changed on purpose, lock it: `aerogel base update`"],
            exit_status=EXIT_FAILED,
        )
    return found


def _stored(reference: Reference, platform: Platform, world: World) -> Found | None:
    """An image of the store, if all of it is here and it is for the platform."""
    store = world.store
    record = store.images.find(reference, platform)
    descriptor = record.descriptor if record is not None else stored_by_digest(store, reference, platform)
    if descriptor is None or not may_use(world, reference, reference.digest or descriptor.digest):
        return None
    image = load(descriptor, store.blobs, platform)
    if not platform.matches(image.config.platform):
        return None
    if not all(store.blobs.has(layer.descriptor.digest) for layer in image.layers()):
        return None
    return Found(image, reference.digest or image.digest)


def _pulled(text: str, reference: Reference, platform: Platform, world: World, *, is_locked: bool) -> Found:
    try:
        with closing(open_registries(world)) as registries:
            pulled = pull_image(world, registries, reference, platform, number=world.take_numbers())
    except AerogelError as error:
        if not is_locked or error.code != "registry.not-found":
            raise
        raise AerogelError(
            f"the registry has the locked image of `{text}` no more: `{reference.digest}`",
            code="base.moved",
            detail=error.message,
            hints=[
                "lock the image of today: `aerogel base update`",
                "`aerogel base vendor` keeps images beside a lock",
            ],
            exit_status=EXIT_FAILED,
        ) from None
    return Found(pulled.image, pulled.served.digest)


def _named(end: End, platform: Platform, world: World) -> Found:
    record = world.store.images.find(end.name, platform) or find_image(world.store, end.name)
    refuse(world, end.reference(), record.descriptor.digest)
    image = load(record.descriptor, world.store.blobs, platform)
    return Found(image, record.descriptor.digest)


def _read(end: End, platform: Platform, world: World, beside: Beside) -> Found:
    if end.kind not in DAEMONS:
        path = beside.path(end.path)
        if not path.exists():
            beside.read(end.path)  # says what is wrong
        end = end._replace(path=str((world.settings.directory / path).absolute()))
    with closing(open_registries(world)) as registries:
        origin = open_origin(end, world, registries)
    return Found(load(origin.descriptor, origin.blobs, platform), origin.descriptor.digest)


def open_underlay(text: str, found: Found, world: World) -> Underlay:
    """What a base is put on. Reads each layer that is not known yet. Raises `oci.diff-id`, `store.*`, `codec.*`, `tar.*`."""
    store, image = world.store, found.image
    record_layers(image, store)
    indexes = [store.layers.index(layer.diff_id) for layer in image.layers()]
    return Underlay(text, image.digest, image.config, indexes, _Plain(image, store).layer, found.meant)


class _Plain:
    """The layers of an image as plain tars, in files without a name that go with this object."""

    def __init__(self, image: Image, store: Store) -> None:
        self._image = image
        self._store = store
        self._fds: dict[int, int] = {}

    def layer(self, number: int) -> int:
        """A descriptor to read at any place. Raises `store.*`, `codec.*`."""
        if number not in self._fds:
            fd, path = self._store.scratch.file()
            os.unlink(path)
            weakref.finalize(self, os.close, fd)
            blob = self._image.layers()[number].descriptor
            with self._store.blobs.open(blob.digest, blob.size) as compressed:
                stream = open_uncompressed(compressed, blob.media_type)
                while data := stream.read(CHUNK):
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
            self._fds[number] = fd
        return self._fds[number]


def state_of(text: str, platform: Platform, world: World, beside: Beside) -> bytes:
    """What tells whether the image of a name that lies on this machine is another one; nothing for those of registries and
    other programs, which are kept until they are asked for anew.
    """
    end = parse_end(text)
    store = world.store
    if end.kind == "docker" or end.kind in DAEMONS:
        return b""
    if end.kind != "store":
        path = beside.path(end.path)
        name = os.path.join(end.path, "index.json") if path.is_dir() else end.path
        return beside.digest(name).encode()
    reference = Reference.parse(world.settings.aliases.get(text, end.name))
    for one in store.images.paths(reference):
        world.witness.keep(one)
    record = store.images.find(reference, platform)
    return b"" if record is None else record.descriptor.digest.encode()


def platforms_of_image(text: str, world: World, beside: Beside) -> list[Platform]:
    """The platforms that an image is there for and Debian too. Raises as `find_underlay`."""
    end = parse_end(text)
    if end.kind == "docker" or _is_bare(text, end):
        end = end._replace(kind="docker", name=world.settings.aliases.get(text, end.name))
    elif end.path:
        end = end._replace(path=str((world.settings.directory / beside.path(end.path)).absolute()))
    with closing(open_registries(world)) as registries:
        origin = open_origin(end, world, registries)
        found, _ = document(origin.descriptor, origin.blobs)
        if isinstance(found, Index):
            told = [each.platform.normal() for each in found.manifests if each.platform is not None]
        else:
            told = [load(origin.descriptor, origin.blobs).config.platform.normal()]
    known = [each for each in dict.fromkeys(told) if str(each) in DEBIAN_ARCHITECTURES]
    if not known:
        raise AerogelError(
            f"the image `{text}` is for no platform that Debian has",
            code="oci.platform-missing",
            hints=[f"it has {', '.join(f'`{each}`' for each in told)}"] if told else [],
            exit_status=EXIT_USAGE,
        )
    return known


def vendor_image(found: Found, folder: Path, store: Store) -> Descriptor:
    """Puts an image into a folder of vendored packages; what is damaged there is replaced."""
    for part in walk(found.image.descriptor, store.blobs):
        path = folder / IMAGES / "blobs" / part.digest.replace(":", "/")
        if path.is_file():
            with path.open("rb") as file:
                is_right = hashlib.file_digest(file, "sha256").hexdigest() == hex_of(part.digest)
            if not is_right:
                path.unlink()
    write_oci_layout(str(folder / IMAGES), [Root(found.image.descriptor)], store.blobs)
    return found.image.descriptor
