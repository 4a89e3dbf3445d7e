"""Small images as the documents and blobs of a registry, made with the standard library."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

from loop_registry import LoopRegistry, sha

from aerogel.oci.platform import Platform
from aerogel.oci.types import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST


def layer_tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def serve_image(
    server: LoopRegistry,
    name: str,
    *tags: str,
    files: dict[str, bytes] | None = None,
    platform: str = "",
    history: bool = True,
) -> str:
    """Puts an image of two layers in the registry; its digest."""
    where = Platform.parse(platform) if platform else Platform.host()
    tars = [layer_tar(files or {"greeting": b"hello\n" * 5000}), layer_tar({"second": b"2"})]
    layers = []
    for tar in tars:
        blob = gzip.compress(tar, mtime=0)
        layers.append({"mediaType": OCI_LAYER_GZIP, "digest": server.add_blob(name, blob), "size": len(blob)})
    config = json.dumps(
        {
            "architecture": where.architecture,
            "os": where.os,
            **({"variant": where.variant} if where.variant else {}),
            "created": "2024-05-01T10:00:00Z",
            "config": {"Cmd": ["/hello"], "Env": ["A=1"]},
            "history": [{"created_by": "the first"}, {"created_by": "the second"}] if history else None,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": server.add_blob(name, config), "size": len(config)},
        "layers": layers,
    }
    return server.add_manifest(name, json.dumps(manifest).encode(), OCI_MANIFEST, *tags)


def serve_index(server: LoopRegistry, name: str, tag: str, platforms: dict[str, str]) -> str:
    """Puts an index in the registry: platform -> digest of a manifest that is there."""
    entries = []
    for text, digest in platforms.items():
        os_name, architecture = text.split("/")
        kind, data = server.manifests[name][digest]
        platform = {"os": os_name, "architecture": architecture}
        entries.append({"mediaType": kind, "digest": digest, "size": len(data), "platform": platform})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    assert sha(json.dumps(index).encode())
    return server.add_manifest(name, json.dumps(index).encode(), OCI_INDEX, tag)
