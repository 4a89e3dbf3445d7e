"""Which part of an index a command takes: all of it, or the image of one platform.

Used by `copy`, `push`, `save`. An index moves whole unless `--platform` names one; where there is room for one image
only (docker's archives, docker, podman) `--all-platforms` is refused, and this machine's platform is the default.
"""

from __future__ import annotations

import msgspec

from aerogel.commands.lookup import find_image
from aerogel.commands.registries import check_platform
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.oci.image import Blobs, load
from aerogel.oci.platform import Platform
from aerogel.oci.types import INDEX_TYPES, Descriptor
from aerogel.store.images import ImageRecord
from aerogel.store.store import Store

__all__ = ["check_room", "find_chosen", "one_platform", "parse_choice"]


def parse_choice(platform: str | None, *, is_all: bool) -> Platform | None:
    """The platform that was named, if one was. Raises `cli.platforms` when all were asked for as well."""
    if platform and is_all:
        raise AerogelError(
            "`--platform` and `--all-platforms` cannot both be",
            code="cli.platforms",
            exit_status=EXIT_USAGE,
            hints=["`--platform` takes one image of an index, `--all-platforms` the whole index"],
        )
    try:
        return Platform.parse(platform) if platform else None
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


def one_platform(descriptor: Descriptor, blobs: Blobs, platform: Platform, name: str) -> Descriptor:
    """The image for a platform that a descriptor means. Raises `oci.platform-missing` and as `oci.image.load`."""
    image = load(descriptor, blobs, platform)
    check_platform(image, name, platform)
    return image.descriptor


def find_chosen(store: Store, name: str, platform: Platform | None, *, is_all: bool) -> ImageRecord:
    """What a name of the store means: with `platform` one image, without it all that its record has.

    Raises `image.not-found`, `image.no-index` when all platforms are asked for and the store has them as images of their
    own, `oci.*`, `store.*`.
    """
    found = store.images.find(name, platform) or find_image(store, name)
    if platform is not None:
        chosen = one_platform(found.descriptor, store.blobs, platform, name)
        return msgspec.structs.replace(found, descriptor=chosen)
    tagged = [one for one in found.references if one.digest is None and one.tag is not None]
    if is_all and found.descriptor.media_type not in INDEX_TYPES and tagged:
        several = sorted({digest for one in tagged[:1] for digest in store.images.digests(one)})
        if len(several) > 1:
            raise AerogelError(
                f"`{name}` means {len(several)} images of one platform each here, and no index of them",
                code="image.no-index",
                exit_status=EXIT_USAGE,
                hints=["pull it with `--all-platforms`, or make an index with `aerogel manifest create`"],
            )
    return found


def check_room(descriptor: Descriptor, place: str) -> None:
    """Raises `copy.one-platform`: `place` has room for one image, and all of an index are asked for."""
    if descriptor.media_type in INDEX_TYPES:
        raise AerogelError(
            f"{place} has room for one platform, not for an index",
            code="copy.one-platform",
            exit_status=EXIT_USAGE,
            hints=["name one with `--platform OS/ARCH`, or write `oci-archive`, which takes all"],
        )
