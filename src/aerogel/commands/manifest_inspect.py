"""`aerogel manifest`: the document that a name means, of the local store, else of its registry."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated, Any

from msgspec import Struct

from aerogel.commands.manifests import open_registries
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.oci.reference import Reference

__all__ = ["EXAMPLES", "ManifestInspect", "ManifestInspectResult", "run"]

EXAMPLES = (
    ("of an image", "aerogel manifest alpine:3.20"),
    ("what its registry has now", "aerogel manifest inspect --remote registry.example/team/app:1"),
)


class ManifestInspect(Struct, frozen=True, kw_only=True):
    """Print the manifest or the index of an image as JSON."""

    name: Annotated[str, Flag("Name of an image", positional=True, metavar="IMAGE")]
    remote: Annotated[bool, Flag("Ask the registry although the image is here")] = False
    verbose: Annotated[bool, Flag("With digest, size and media type of the document", short="v")] = False
    insecure_registry: Annotated[
        str | None,
        Flag("Registries that may be spoken to without TLS", metavar="HOST[:PORT],...", setting="insecure_registry"),
    ] = None


class ManifestInspectResult(Result, frozen=True, kw_only=True):
    reference: str
    digest: str
    size: int
    media_type: str
    document: dict[str, Any]
    is_verbose: bool = False

    def text(self) -> str:
        about = {"digest": self.digest, "size": self.size, "mediaType": self.media_type}
        shown = {"Ref": self.reference, "Descriptor": about, "Document": self.document}
        return json.dumps(shown if self.is_verbose else self.document, indent=3, ensure_ascii=False)


def run(options: ManifestInspect, world: World) -> ManifestInspectResult:
    """Raises `registry.*`, `net.*`, `oci.*`."""
    record = None if options.remote else world.store.images.find(options.name)
    if record is not None:
        descriptor = record.descriptor
        data = world.store.blobs.read(descriptor.digest, descriptor.size)
    else:
        reference = Reference.parse(options.name)
        with closing(open_registries(world)) as registries:
            found = registries.repository(reference).document(reference)
        descriptor, data = found.descriptor, found.data
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise AerogelError(f"the manifest of `{options.name}` is no JSON", code="oci.malformed") from None
    return ManifestInspectResult(
        reference=options.name,
        digest=descriptor.digest,
        size=descriptor.size,
        media_type=descriptor.media_type,
        document=document,
        is_verbose=options.verbose,
    )
