"""The image `aerogel/probe`, which holds the probe alone: nothing is fetched for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from aerogel.distroless.base import debian_architecture
from aerogel.distroless.probe import IMAGE, MTIME_S, PATH, program, write_probe_layer
from aerogel.files.codec import GZIP, LayerWriter
from aerogel.graph.steps import BaseImage
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform
from aerogel.oci.types import ContainerConfig, History, ImageConfig, RootFS, timestamp
from aerogel.solve.materials import save_layer

if TYPE_CHECKING:
    from aerogel.commands.world import World
    from aerogel.solve.materials import Materials

__all__ = ["probe_image"]


def probe_image(platform: str, world: World, materials: Materials) -> BaseImage:
    """The image, made when it is not there. Raises `distroless.platform`."""
    wanted = Platform.parse(platform).normal()
    arch = debian_architecture(wanted)
    digest = hashlib.sha256(program(arch)).hexdigest()
    key = Digest("sha256:" + hashlib.sha256(f"aerogel-probe 1 {arch} {digest}".encode()).hexdigest())
    store = world.store
    world.witness.keep(store.actions.path(key))
    with store.once(key):
        known = store.actions.get(key)
        if known is None or not materials.is_here(Digest(known["layers"][0])):
            with store.blobs.write() as blob, LayerWriter(blob.fd, GZIP) as writer:
                index = write_probe_layer(arch, writer.write)
                made = writer.finish()
                blob.commit(Digest(str(made.digest)), made.size)
            save_layer(store, made, index)
            known = {"layers": [made.diff_id]}
            store.actions.put(key, {"base": IMAGE, "platform": platform}, known)
    created = timestamp(MTIME_S)
    config = ImageConfig(
        created=created,
        architecture=wanted.architecture,
        os=wanted.os,
        variant=wanted.variant,
        config=ContainerConfig(entrypoint=(f"/{PATH.decode()}",)),
        rootfs=RootFS(diff_ids=(Digest(known["layers"][0]),)),
        history=(History(created=created, created_by=f"aerogel: {IMAGE}"),),
    )
    return BaseImage(tuple(known["layers"]), config)
