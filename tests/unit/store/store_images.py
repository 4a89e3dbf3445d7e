"""Real small images for the tests of the store and its archives."""

from __future__ import annotations

import io
from collections.abc import Mapping

from aerogel.files.codec import Codec, LayerWriter, select
from aerogel.files.entry import DIR, REG, SYM, Entry
from aerogel.files.index import build_index
from aerogel.files.tar import TarWriter
from aerogel.oci import edit
from aerogel.oci.digest import Digest
from aerogel.oci.image import Image, create
from aerogel.oci.platform import Platform
from aerogel.oci.types import Descriptor, History
from aerogel.store.store import Store

HOST = Platform.host()


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """A canonical layer: directories, a symbolic link, the files."""
    out = io.BytesIO()
    writer = TarWriter(out.write)
    writer.entry(Entry(b"bin", DIR, 0o755))
    writer.entry(Entry(b"bin/link", SYM, 0o777, link=b"../etc/name"))
    writer.entry(Entry(b"etc", DIR, 0o755))
    for name, content in sorted(files.items()):
        writer.entry(Entry(f"etc/{name}".encode(), REG, 0o644, uid=1000, gid=1000, size=len(content)))
        writer.content(content)
        writer.pad()
    writer.close()
    return out.getvalue()


def add_layer(store: Store, tar: bytes, codec: Codec) -> tuple[Descriptor, Digest]:
    """Puts a layer in the store as a build does."""
    with store.blobs.write() as blob, LayerWriter(blob.fd, codec) as writer:
        index = build_index(io.BytesIO(tar), writer.write)
        layer = writer.finish()
        blob.commit(Digest(str(layer.digest)), layer.size)
    descriptor = Descriptor(media_type=str(layer.media_type), digest=Digest(str(layer.digest)), size=layer.size or 0)
    diff_id = Digest(layer.diff_id)
    store.layers.save(diff_id, size=layer.size_uncompressed, blobs={codec.name: descriptor}, index=index)
    return descriptor, diff_id


def make_image(
    store: Store,
    compression: str = "gzip",
    *,
    text: bytes = b"text",
    platform: Platform = HOST,
    copies: int = 1,
) -> Image:
    """Two layers and a config that uses what configs have; `copies` repeats the second layer."""
    codec = select(compression)
    config = edit.empty_config(platform, "2024-05-06T07:08:09Z")
    first = add_layer(store, layer_tar({"name": text * 1000, "other": bytes(100_000)}), codec)
    second = add_layer(store, layer_tar({"name": b"second " + text}), codec)
    layers = [first, *[second] * copies]
    for number, (_, diff_id) in enumerate(layers):
        history = History(
            created="2024-05-06T07:08:09Z", created_by=f"COPY {number} /", comment="buildkit.dockerfile.v0"
        )
        config = edit.add_layer(config, diff_id, history)
    config = edit.add_history(config, History(created="2024-05-06T07:08:09Z", created_by='CMD ["/bin/x"]'))
    config = edit.set_env(config, {"PATH": "/bin", "LANG": "C.UTF-8"})
    config = edit.set_labels(config, {"a": "ü"})
    config = edit.set_run(config, user="1000", cmd=("/bin/x",), working_dir="/etc")
    return create(config, [descriptor for descriptor, _ in layers], store.blobs)
