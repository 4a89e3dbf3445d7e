"""Images over blobs: making, loading, walking, copying, editing, and what `validate` finds."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import msgspec
import pytest
import zstandard

from aerogel.errors import AerogelError
from aerogel.oci import edit
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.image import Image, MemoryBlobs, copy, create, create_index, document, images, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.types import (
    DOCKER_LAYER_GZIP,
    EMPTY_JSON,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    encode,
)
from aerogel.oci.validate import validate, validate_descriptor

AMD64 = Platform.parse("linux/amd64")


def tar(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def compressed(plain: bytes, media_type: str) -> bytes:
    if media_type in (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP):
        half = len(plain) // 2
        return gzip.compress(plain[:half], mtime=0) + gzip.compress(plain[half:], mtime=0)
    if media_type == OCI_LAYER_ZSTD:
        half = len(plain) // 2
        return zstandard.compress(plain[:half]) + zstandard.compress(plain[half:])
    return plain


def make(blobs: MemoryBlobs, *media_types: str, platform: Platform = AMD64) -> Image:
    config = edit.empty_config(platform, "2024-01-01T00:00:00Z")
    layers = []
    for number, media_type in enumerate(media_types):
        plain = tar(f"file{number}", str(platform).encode() * 50_000)
        layers.append(blobs.put(compressed(plain, media_type), media_type))
        config = edit.add_layer(config, digest_of(plain), History(created_by=f"COPY {number}"))
        config = edit.add_history(config, History(created_by=f"LABEL {number}"))
    return create(config, layers, blobs)


def test_made_loaded_and_valid() -> None:
    blobs = MemoryBlobs()
    made = make(blobs, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER_GZIP)
    loaded = load(made.descriptor, blobs)
    assert (loaded.manifest, loaded.config, loaded.digest) == (made.manifest, made.config, made.digest)
    assert loaded.id == digest_of(encode(made.config))
    assert [layer.compression for layer in loaded.layers()] == ["", "gzip", "zstd", "gzip"]
    assert loaded.size == sum(part.size for part in walk(made.descriptor, blobs))
    assert validate(loaded) == []
    assert validate_descriptor(made.descriptor, blobs) == []


def test_an_image_without_layers_is_valid() -> None:
    blobs = MemoryBlobs()
    assert validate(make(blobs)) == []


def test_an_index_gives_the_image_of_the_platform() -> None:
    blobs = MemoryBlobs()
    made = {name: make(blobs, OCI_LAYER, platform=Platform.parse(name)) for name in ("linux/amd64", "linux/arm64")}
    attestation = msgspec.structs.replace(
        make(blobs, OCI_LAYER).descriptor,
        platform=Platform(os="unknown", architecture="unknown"),
        annotations={"vnd.docker.reference.type": "attestation-manifest"},
    )
    index = create_index([*(image.descriptor for image in made.values()), attestation], blobs)
    for name, image in made.items():
        assert load(index, blobs, Platform.parse(name)).digest == image.digest
    assert [image.digest for image in images(index, blobs)] == [image.digest for image in made.values()]
    with pytest.raises(AerogelError) as caught:
        load(index, blobs, Platform.parse("linux/s390x"))
    assert caught.value.code == "oci.platform-missing"
    assert caught.value.hints == ("it has `linux/amd64`, `linux/arm64`",)
    order = [part.digest for part in walk(index, blobs)]
    assert order[-1] == index.digest
    assert len(order) == len(set(order))
    for image in made.values():
        assert order.index(image.id) < order.index(image.digest)


def test_copy_moves_only_what_is_missing() -> None:
    source, target = MemoryBlobs(), MemoryBlobs()
    image = make(source, OCI_LAYER_GZIP)
    assert copy(image.descriptor, source, target) == image.size
    assert copy(image.descriptor, source, target) == 0
    assert validate_descriptor(image.descriptor, target) == []


def named(blobs: MemoryBlobs, value: object, media_type: str = OCI_MANIFEST) -> Descriptor:
    return blobs.put(json.dumps(value).encode(), media_type)


def test_what_is_no_image_is_refused() -> None:
    blobs = MemoryBlobs()
    empty = blobs.put(EMPTY_JSON, OCI_EMPTY)
    artifact = blobs.put(
        encode(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=empty, layers=(empty,))), OCI_MANIFEST
    )
    with pytest.raises(AerogelError) as caught:
        load(artifact, blobs)
    assert caught.value.code == "oci.not-an-image"
    assert images(artifact, blobs) == ()
    assert validate_descriptor(artifact, blobs) == []
    both = named(blobs, {"schemaVersion": 2, "manifests": [], "layers": [], "config": {}})
    old = named(blobs, {"schemaVersion": 1, "fsLayers": []})
    other = named(blobs, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    strange = named(blobs, {"schemaVersion": 2}, "text/plain")
    for descriptor in (both, old, other, strange):
        with pytest.raises(AerogelError) as caught:
            document(descriptor, blobs)
        assert caught.value.code == "oci.media-type"


def test_an_index_in_an_index_in_an_index_is_refused() -> None:
    blobs = MemoryBlobs()
    descriptor = make(blobs).descriptor
    for _ in range(3):
        descriptor = create_index([descriptor], blobs)
    assert load(descriptor, blobs, AMD64)
    assert len(images(descriptor, blobs)) == 1
    descriptor = create_index([descriptor], blobs)
    for reader in (load, images, walk):
        with pytest.raises(AerogelError, match="nested more than 4 deep"):
            reader(descriptor, blobs)


def test_edits_keep_the_rest() -> None:
    blobs = MemoryBlobs()
    image = make(blobs, OCI_LAYER_GZIP)
    config = edit.set_env(image.config, {"PATH": "/bin", "A": "1"})
    config = edit.set_env(config, {"PATH": "/usr/bin"})
    assert config.config.env == ("PATH=/usr/bin", "A=1")
    config = edit.set_labels(config, {"k": "v"})
    config = edit.set_run(config, user="app", entrypoint=("/app",))
    changed = edit.annotate(edit.with_config(image, config, blobs), {"a": "b"}, blobs)
    assert validate(changed) == []
    assert changed.manifest.layers == image.manifest.layers
    assert changed.config.config.user == "app"
    assert changed.manifest.annotations == {"a": "b"}
    assert load(changed.descriptor, blobs).config == config
    flat = edit.with_layers(
        changed,
        [(image.manifest.layers[0], image.config.rootfs.diff_ids[0])],
        [History(created_by="squash")],
        blobs,
    )
    assert validate(flat) == []
    with pytest.raises(AerogelError, match="names other layers"):
        edit.with_config(image, edit.empty_config(AMD64), blobs)
    with pytest.raises(AerogelError, match="cannot be the name"):
        edit.set_env(config, {"A=B": ""})
    with pytest.raises(AerogelError, match="empty name"):
        edit.set_labels(config, {"": ""})
    with pytest.raises(TypeError):
        edit.set_run(config, colour="red")


class Lying(MemoryBlobs):
    """Gives what it holds without checking, as a broken disk would."""

    def read(self, digest: Digest, _size: int | None = None, /) -> bytes:
        return super().read(digest)

    def replace(self, digest: Digest, data: bytes) -> None:
        self._held[digest] = data


@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_a_changed_layer_is_found(media_type: str) -> None:
    blobs = Lying()
    image = make(blobs, OCI_LAYER_GZIP, media_type)
    layer = image.manifest.layers[1]
    data = bytearray(blobs.read(layer.digest))
    data[len(data) // 2] ^= 1
    blobs.replace(layer.digest, bytes(data))
    problems = validate(image)
    assert any(text.startswith("layer 1: digest is sha256:") for text in problems)
    assert not any(text.startswith("layer 0") for text in problems)
    blobs.replace(layer.digest, bytes(data[:-7]))
    assert any("size is" in text for text in validate(image))


@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_another_diff_id_is_found(media_type: str) -> None:
    blobs = MemoryBlobs()
    image = make(blobs, media_type)
    wrong = msgspec.structs.replace(
        image.config, rootfs=msgspec.structs.replace(image.config.rootfs, diff_ids=(digest_of(b"x"),))
    )
    made = create(wrong, image.manifest.layers, blobs)
    [problem] = validate(made)
    assert problem.startswith("layer 0: diff id is sha256:")


@pytest.mark.parametrize(
    ("data", "media_type", "told"),
    [
        (b"no gzip", OCI_LAYER_GZIP, "is not gzip"),
        (gzip.compress(b"x" * 9999, mtime=0)[:-12], OCI_LAYER_GZIP, "is not gzip: it ends inside a member"),
        (b"", OCI_LAYER_GZIP, "is not gzip: it is empty"),
        (b"no zstd", OCI_LAYER_ZSTD, "is not zstd"),
        (b"x", "text/plain", "media type `text/plain` is not a layer's"),
    ],
)
def test_a_layer_of_another_kind_is_found(data: bytes, media_type: str, told: str) -> None:
    blobs = MemoryBlobs()
    config = edit.add_layer(edit.empty_config(AMD64), digest_of(data), History())
    image = create(config, [blobs.put(data, media_type)], blobs)
    assert any(told in text for text in validate(image))


def test_a_bomb_is_read_in_bounded_memory() -> None:
    import resource

    blobs = MemoryBlobs()
    bomb = zstandard.compress(bytes(1 << 27), 19)
    assert len(bomb) < 20_000
    config = edit.add_layer(edit.empty_config(AMD64), digest_of(b""), History())
    image = create(config, [blobs.put(bomb, OCI_LAYER_ZSTD)], blobs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(validate(image)) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_all_problems_of_the_documents_are_collected() -> None:
    blobs = MemoryBlobs()
    image = make(blobs, OCI_LAYER_GZIP)
    config = ImageConfig(
        created="yesterday",
        rootfs=msgspec.structs.replace(image.config.rootfs, type="turtles"),
        history=(History(empty_layer=True), History(), History(created="x")),
        config=msgspec.structs.replace(
            image.config.config, env=("A", "=b", "C=d"), exposed_ports={"80/http": {}, "8080/tcp": {}, "53": {}}
        ),
    )
    made = create(config, image.manifest.layers * 2, blobs)
    made = msgspec.structs.replace(
        made,
        descriptor=msgspec.structs.replace(
            made.descriptor, digest=digest_of(b"other"), size=1, media_type="text/plain", platform=AMD64
        ),
        manifest=msgspec.structs.replace(made.manifest, schema_version=3),
    )
    told = "\n".join(validate(made))
    for problem in (
        "manifest: size is",
        "manifest: digest is",
        "manifest: schema version is 3",
        "manifest: media type `text/plain`",
        "manifest: says it is",
        "config: no `os`",
        "config: no `architecture`",
        "config: platform is",
        "config: rootfs type is `turtles`",
        "config: history has 2 entries with a layer, there are 1 layers",
        "config: created: `yesterday`",
        "config: history: `x`",
        "config: environment entry `A`",
        "config: environment entry `=b`",
        "config: exposed port `80/http`",
        "manifest has 2 layers, config has 1 diff ids",
    ):
        assert problem in told
    assert "8080" not in told


def test_validate_of_what_is_missing() -> None:
    blobs = MemoryBlobs()
    image = make(blobs, OCI_LAYER_GZIP)
    partial = MemoryBlobs()
    for part in (image.descriptor, image.manifest.config):
        partial.put(blobs.read(part.digest))
    assert validate_descriptor(image.descriptor, partial) == [
        f"layer 0: blob `{image.manifest.layers[0].digest}` is missing"
    ]
    assert "is not here" in validate_descriptor(image.descriptor, MemoryBlobs())[0]
    foreign = msgspec.structs.replace(image.manifest.layers[0], urls=("https://example.org/layer",))
    manifest = msgspec.structs.replace(image.manifest, layers=(foreign,))
    assert validate_descriptor(partial.put(encode(manifest), OCI_MANIFEST), partial) == []
    config = Descriptor(media_type=OCI_CONFIG, digest=digest_of(b"gone"), size=4)
    broken = partial.put(encode(Manifest(schema_version=2, config=config)), OCI_MANIFEST)
    assert len(validate_descriptor(create_index([broken], partial), partial)) == 1
