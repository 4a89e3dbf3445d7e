"""Names of images in the store: which image each reference means, and what lists show of it.

::

    <data>/images-v1/
        refs/<40 hex>.json      {"name": canonical reference, "digest": ...}; the hex is of the name's sha256;
                                "others": digests of the same name for more platforms, pulled one by one;
                                "own": those that somebody here gave the name, by a build or by hand: of the rest
                                it is what a registry or an archive says
        by-digest/<hex>.json    {"descriptor": ..., "created": ..., "size": ...}: one image, tagged or not

One file for each reference, so that concurrent tags of different names never meet and of one name the last wins.
The image is recorded before the reference to it; a reference whose image is gone counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator, Sequence
from typing import Any

import msgspec

from aerogel.decoding import parse_json, prepare
from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, is_digest
from aerogel.oci.image import images, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference, is_own_name
from aerogel.oci.types import Descriptor, from_dict, to_dict
from aerogel.store.blobs import Blobs
from aerogel.store.disk import disk_errors, read_file, unlink
from aerogel.store.scratch import Scratch

__all__ = ["ImageMeta", "ImageRecord", "Images", "describe"]

_HEX = frozenset("0123456789abcdef")


class ImageMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show of an image."""

    image_id: str = ""
    """Docker's id: the digest of the config; empty for an index."""
    created: str = ""
    """RFC 3339, as in the config."""
    size: int = 0
    """Bytes of all its blobs, each once."""
    platforms: tuple[str, ...] = ()


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the store and its names."""

    descriptor: Descriptor
    meta: ImageMeta
    references: tuple[Reference, ...] = ()

    @property
    def id(self) -> str:
        """What people see as the id: the config's digest, for an index its own."""
        return self.meta.image_id or self.descriptor.digest


class Images:
    """The images of one store."""

    def __init__(self, data: str, scratch: Scratch, blobs: Blobs) -> None:
        self._refs = f"{data}/images-v1/refs"
        self._images = f"{data}/images-v1/by-digest"
        self._scratch = scratch
        self._blobs = blobs

    def add(self, descriptor: Descriptor, meta: ImageMeta) -> None:
        """Makes an image known by its digest and id, without a name. Raises `store.missing`, `store.*`.

        Its blobs are in the store already; they are on the medium when this returns.
        """
        if not self._blobs.has(descriptor.digest):
            raise AerogelError(f"image `{descriptor.digest}` is not in the store", code="store.missing")
        plain = Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
        record = {"descriptor": to_dict(plain), "meta": msgspec.to_builtins(meta)}
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        path = self._image_path(descriptor.digest)
        if read_file(path) == data:
            return
        self._blobs.sync()
        self._scratch.write_file(path, data)

    def tag(
        self,
        reference: Reference,
        descriptor: Descriptor,
        meta: ImageMeta,
        beside: Container[Digest] = (),
        *,
        is_own: bool = False,
    ) -> None:
        """Lets a name mean this image; before it may have meant another one, which loses it unless it is in `beside`.

        Those are the images of one index: each platform that was pulled stays. `is_own` says that the name is the word of
        whoever works here. Raises as `add`, and `store.name` for a reference without tag.
        """
        if reference.tag is None:
            raise AerogelError(f"`{reference.familiar()}` has no tag to give", code="store.name")
        self.add(descriptor, meta)
        name = f"{reference.name}:{reference.tag}"
        others = [digest for digest in self.digests(reference) if digest in beside and digest != descriptor.digest]
        own = {*self._own(reference), *([descriptor.digest] if is_own else [])}
        self._write_ref(name, [descriptor.digest, *others], own)

    def digests(self, reference: Reference) -> tuple[Digest, ...]:
        """What a name with a tag means, for one platform after the other; the last that was tagged is first."""
        name = f"{reference.name}:{reference.tag}"
        record = _parse(read_file(self._ref_path(name)))
        return _digests(record) if record is not None and record.get("name") == name else ()

    def is_own(self, reference: Reference, digest: Digest) -> bool:
        """Whether somebody here gave an image this name; for a name without tag, any tag of that repository."""
        if reference.digest is None:
            return digest in self._own(reference)
        named = (found for found, digests in self._all_refs() if digest in digests and found.name == reference.name)
        return any(digest in self._own(found) for found in named)

    def _own(self, reference: Reference) -> tuple[Digest, ...]:
        name = f"{reference.name}:{reference.tag}"
        record = _parse(read_file(self._ref_path(name)))
        listed = record.get("own") if record is not None and record.get("name") == name else None
        return tuple(Digest(each) for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()

    def _write_ref(self, name: str, digests: Sequence[Digest], own: Container[Digest]) -> None:
        kept = [digest for digest in digests if digest in own]
        record: dict[str, Any] = {"digest": digests[0], "name": name}
        record |= {"others": digests[1:]} if digests[1:] else {}
        record |= {"own": kept} if kept else {}
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        path = self._ref_path(name)
        if read_file(path) != data:
            self._scratch.write_file(path, data)

    def untag(self, reference: Reference) -> bool:
        """Takes a name away; the image stays, by its digest. False when there was no such name."""
        return unlink(self._ref_path(f"{reference.name}:{reference.tag}"))

    def remove(self, digest: Digest) -> tuple[Reference, ...]:
        """Forgets an image and all its names; `store.gc` removes the blobs.

        Returns the names that mean nothing any more; one that means images of other platforms too keeps those.
        """
        names = []
        for reference, found in self._all_refs():
            if digest not in found:
                continue
            left = [each for each in found if each != digest]
            if left:
                self._write_ref(f"{reference.name}:{reference.tag}", left, self._own(reference))
            else:
                self.untag(reference)
                names.append(reference)
        unlink(self._image_path(digest))
        return tuple(names)

    def resolve(self, name: Reference | str) -> Descriptor | None:
        """The image of a reference, a digest, an image id or the beginning of one (3 hex digits or more).

        A name wins over an id. Raises `store.ambiguous` when a beginning fits several, `oci.reference`.
        """
        record = self.find(name)
        return record.descriptor if record else None

    def find(self, name: Reference | str, platform: Platform | None = None) -> ImageRecord | None:
        """The same with what lists show; `references` holds the one that was asked for, if any.

        Of the images that a name means for several platforms the one for `platform`, else the last that was tagged.
        """
        if isinstance(name, Reference):
            return self._by_reference(name, platform)
        if is_digest(name):
            return self._by_id(name)
        if is_own_name(name):  # composed on demand, never tagged
            return None
        bare = name.removeprefix("sha256:")
        looks_like_id = len(bare) >= 3 and _HEX.issuperset(bare)
        if bare == name and not (looks_like_id and len(bare) == 64):
            found = self._by_reference(Reference.parse(name), platform)
            if found is not None:
                return found
        return self._by_id(bare) if looks_like_id else None

    def _by_reference(self, reference: Reference, platform: Platform | None) -> ImageRecord | None:
        if reference.digest is not None:
            return self._load(reference.digest, (reference,))
        found = [self._load(digest, (reference,)) for digest in self.digests(reference)]
        records = [record for record in found if record is not None]
        if platform is not None:
            for record in records:
                if any(platform.matches(Platform.parse(each)) for each in record.meta.platforms):
                    return record
        return records[0] if records else None

    def _by_id(self, text: str) -> ImageRecord | None:
        encoded = text.rpartition(":")[2]
        exact = self._load(Digest(f"sha256:{encoded}"), ()) if len(encoded) == 64 else None
        if exact is not None:
            return exact
        found = {
            record.descriptor.digest: record
            for record in self._all_images()
            if record.descriptor.digest.partition(":")[2].startswith(encoded)
            or record.meta.image_id.partition(":")[2].startswith(encoded)
        }
        if len(found) > 1 and len(encoded) < 64:
            raise AerogelError(
                f"`{text}` is the beginning of {len(found)} image ids",
                code="store.ambiguous",
                hints=["give more digits: " + ", ".join(f"`{record.id[7:23]}`" for record in list(found.values())[:5])],
            )
        return next(iter(found.values()), None)

    def list(self) -> list[ImageRecord]:
        """Every image with its names, newest first, then by name; untagged ones too."""
        names: dict[Digest, list[Reference]] = {}
        for reference, digests in self._all_refs():
            for digest in digests:
                names.setdefault(digest, []).append(reference)
        records = [
            msgspec.structs.replace(record, references=tuple(sorted(names.get(record.descriptor.digest, ()))))
            for record in self._all_images()
        ]
        records.sort(key=lambda record: ([str(name) for name in record.references], record.descriptor.digest))
        records.sort(key=lambda record: record.meta.created, reverse=True)
        return records

    def _load(self, digest: Digest, references: tuple[Reference, ...]) -> ImageRecord | None:
        record = _parse(read_file(self._image_path(digest)))
        if record is None:
            return None
        try:
            descriptor = from_dict(record["descriptor"], Descriptor)
            prepare(ImageMeta)
            meta = msgspec.convert(record["meta"], ImageMeta)
        except (KeyError, AerogelError, msgspec.ValidationError):
            return None
        if descriptor.digest != digest or self._blobs.size(digest) != descriptor.size:
            return None
        return ImageRecord(descriptor=descriptor, meta=meta, references=references)

    def _all_images(self) -> Iterator[ImageRecord]:
        for name in _names(self._images):
            record = self._load(Digest(f"sha256:{name.removesuffix('.json')}"), ())
            if record is not None:
                yield record

    def _all_refs(self) -> Iterator[tuple[Reference, tuple[Digest, ...]]]:
        for file in _names(self._refs):
            record = _parse(read_file(f"{self._refs}/{file}"))
            digests = () if record is None else _digests(record)
            if record is not None and isinstance(record.get("name"), str) and digests:
                try:
                    reference = Reference.parse(record["name"])
                except AerogelError:
                    continue  # damaged, as one that is no JSON
                yield reference, digests

    def paths(self, reference: Reference) -> tuple[str, ...]:
        """The files of the store that say what a name means here, whether they are there or not."""
        found = [] if reference.digest is not None else [self._ref_path(f"{reference.name}:{reference.tag}")]
        digests = self.digests(reference) if reference.digest is None else (reference.digest,)
        return (*found, *(path for digest in digests for path in self.paths_of(digest)))

    def paths_of(self, digest: Digest) -> tuple[str, ...]:
        """The files of the store that make an image known by its digest."""
        return (self._image_path(digest), self._blobs.path(digest))

    def _ref_path(self, name: str) -> str:
        # Names may be longer than a file name can be; the file says which name it is.
        return f"{self._refs}/{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"

    def _image_path(self, digest: Digest) -> str:
        return f"{self._images}/{digest.partition(':')[2]}.json"


def _digests(record: dict[str, Any]) -> tuple[Digest, ...]:
    """Those of a file of `refs`; what is none is left out."""
    others = record.get("others")
    listed = [record.get("digest"), *(others if isinstance(others, list) else ())]
    return tuple(Digest(each) for each in listed if isinstance(each, str) and is_digest(each))


def describe(descriptor: Descriptor, blobs: Blobs) -> ImageMeta:
    """What lists show of an image or index whose blobs are in the store. Raises `store.missing`, `oci.*`."""
    found = images(descriptor, blobs)
    parts = walk(descriptor, blobs)
    only = found[0] if len(found) == 1 and found[0].digest == descriptor.digest else None
    return ImageMeta(
        image_id=only.id if only else "",
        created=max((image.config.created for image in found), default=""),
        size=sum(part.size for part in parts if not part.urls or blobs.has(part.digest)),
        platforms=tuple(str(image.config.platform.normal()) for image in found),
    )


def _names(directory: str) -> list[str]:
    with disk_errors(directory):
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []


def _parse(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = parse_json(data) if data else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
