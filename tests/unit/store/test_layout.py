"""Layouts and archives: written the same every time, read back whole, refused when they lie."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from store_images import make_image

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.image import Image, create_index, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor
from aerogel.oci.validate import validate, validate_descriptor
from aerogel.store.images import describe
from aerogel.store.layout import Root, write_docker_archive, write_oci_archive, write_oci_layout
from aerogel.store.load import Loaded, load_archive, load_layout
from aerogel.store.store import Store

NAME = Reference.parse("ghcr.io/owner/app:1")
OTHER = Reference.parse("app:2")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "data2", tmp_path / "cache2")


def oci(store: Store, *roots: Root) -> bytes:
    out = io.BytesIO()
    write_oci_archive(out.write, roots, store.blobs)
    return out.getvalue()


def docker(store: Store, *roots: Root) -> bytes:
    out = io.BytesIO()
    write_docker_archive(out.write, roots, store.blobs)
    return out.getvalue()


def files_of(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}  # type: ignore[union-attr]  # it is a file


def pack(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def loaded_image(found: Loaded, store: Store) -> Image:
    image = load(found.descriptor, store.blobs)
    assert validate(image) == []
    for layer in image.layers():
        record = store.layers.record(layer.diff_id)
        assert record is not None
        assert record.index
        assert layer.descriptor.digest in [blob.digest for blob in record.blobs.values()]
        assert [entry.path for entry in store.layers.index(layer.diff_id).entries][:2] == [b"bin", b"bin/link"]
    return image


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_an_oci_archive_comes_back_whole(store: Store, target: Store, compression: str) -> None:
    image = make_image(store, compression, copies=2)
    data = oci(store, Root(image.descriptor, (NAME, OTHER)))
    [found] = load_archive(io.BytesIO(data), target)
    assert found.references == tuple(sorted((NAME, OTHER), key=str))
    assert found.descriptor.digest == image.digest
    assert loaded_image(found, target).config == image.config
    assert oci(target, Root(found.descriptor, found.references)) == data
    meta = describe(found.descriptor, target.blobs)
    assert meta == describe(image.descriptor, store.blobs)
    assert meta.image_id == image.id
    assert meta.size == image.size
    target.images.tag(NAME, found.descriptor, meta)
    assert target.images.resolve(image.id) is not None


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_a_docker_archive_comes_back_with_the_same_id(store: Store, target: Store, compression: str) -> None:
    image = make_image(store, compression, copies=2)
    data = docker(store, Root(image.descriptor, (NAME, OTHER)))
    files = files_of(data)
    [listed] = json.loads(files["manifest.json"])
    assert listed["RepoTags"] == ["app:2", "ghcr.io/owner/app:1"]
    assert digest_of(files[listed["Config"]]) == image.id
    assert len(listed["Layers"]) == 3
    [found] = load_archive(io.BytesIO(data), target)
    assert set(found.references) == {NAME, OTHER}
    loaded = loaded_image(found, target)
    assert loaded.id == image.id
    assert (loaded.digest == image.digest) is (compression != "zstd")
    # What Docker wrote before version 25 has no layout beside its list.
    classic = pack({name: content for name, content in files.items() if name not in ("oci-layout", "index.json")})
    [again] = load_archive(io.BytesIO(classic), target)
    assert loaded_image(again, target).id == image.id
    assert set(again.references) == {NAME, OTHER}


def test_bytes_do_not_depend_on_time_umask_or_order(store: Store, tmp_path: Path) -> None:
    amd64 = Platform.parse("linux/amd64")
    one, two = (make_image(store, "uncompressed", text=text, platform=amd64) for text in (b"text", b"two"))
    roots = [Root(one.descriptor, (NAME,)), Root(two.descriptor, (OTHER,))]
    first = oci(store, *roots), docker(store, *roots)
    old = os.umask(0o077)
    try:
        with Store.open(tmp_path / "x", tmp_path / "y") as other:
            for name, text in ((OTHER, b"two"), (NAME, b"text")):
                image = make_image(other, "uncompressed", text=text, platform=amd64)
                other.images.tag(name, image.descriptor, describe(image.descriptor, other.blobs))
            again = [
                Root(found, (name,)) for name in (NAME, OTHER) if (found := other.images.resolve(name)) is not None
            ]
            assert (oci(other, *again), docker(other, *again)) == first
    finally:
        os.umask(old)
    # Golden: whoever changes these bytes changes what users compare.
    assert digest_of(first[0]) == "sha256:4b09a9b13162564bdb65b12519c1dda600ed387b0ccb5af699ba25f4977189ca"
    assert digest_of(first[1]) == "sha256:88775408dd9813fc3769b6fee71923429963b50e5c1f6e7c46233e5098226b21"


def test_an_index_and_an_image_without_a_name(store: Store, target: Store) -> None:
    platforms = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]
    made = [make_image(store, platform=platform, text=str(platform).encode()) for platform in platforms]
    index = create_index([image.descriptor for image in made], store.blobs)
    [found] = load_archive(io.BytesIO(oci(store, Root(index))), target)
    assert (found.references, found.descriptor.digest) == ((), index.digest)
    assert validate_descriptor(found.descriptor, target.blobs) == []
    assert describe(found.descriptor, target.blobs).platforms == ("linux/amd64", "linux/arm64")
    out = io.BytesIO()
    write_docker_archive(out.write, [Root(index, (NAME,))], store.blobs, platform=platforms[1])
    [single] = load_archive(io.BytesIO(out.getvalue()), target)
    assert single.descriptor.digest == made[1].digest


def test_an_index_with_one_platform_present(store: Store, target: Store) -> None:
    """As Docker 25 and later save it: the index is whole, the other platforms' blobs are not there."""
    made = [
        make_image(store, platform=Platform.parse(name), text=name.encode()) for name in ("linux/s390x", "linux/386")
    ]
    index = create_index([image.descriptor for image in made], store.blobs)
    files = files_of(oci(store, Root(index, (NAME,))))
    for part in walk(made[0].descriptor, store.blobs):
        del files[f"blobs/sha256/{part.digest[7:]}"]
    [found] = load_archive(io.BytesIO(pack(dict(files))), target)
    assert (found.descriptor.digest, found.references) == (made[1].digest, (NAME,))


def test_a_pipe_and_a_compressed_archive(store: Store, target: Store) -> None:
    image = make_image(store)
    data = oci(store, Root(image.descriptor, (NAME,)))
    [found] = load_archive(io.BytesIO(gzip.compress(data)), target)
    assert found.descriptor.digest == image.digest
    read_fd, write_fd = os.pipe()
    import threading

    def feed() -> None:
        with os.fdopen(write_fd, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(read_fd, "rb") as stream:
        [found] = load_archive(stream, target)
    thread.join()
    assert found.descriptor.digest == image.digest


def test_layouts_are_made_added_to_and_read(store: Store, target: Store, tmp_path: Path) -> None:
    one, two = make_image(store), make_image(store, text=b"two")
    directory = str(tmp_path / "layout")
    write_oci_layout(directory, [Root(one.descriptor, (NAME,)), Root(two.descriptor)], store.blobs)
    write_oci_layout(directory, [Root(two.descriptor, (OTHER,))], store.blobs)
    write_oci_layout(directory, [Root(two.descriptor, (NAME,)), Root(two.descriptor)], store.blobs)
    entries = json.loads(Path(directory, "index.json").read_bytes())["manifests"]
    assert len(entries) == 3
    [found] = load_layout(directory, target)
    assert found.descriptor.digest == two.digest
    assert set(found.references) == {NAME, OTHER}
    assert not [name for name in os.listdir(f"{directory}/blobs/sha256") if name.startswith(".")]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(AerogelError) as caught:
        write_oci_layout(str(tmp_path / "other"), [Root(one.descriptor)], store.blobs)
    assert caught.value.code == "layout.not-one"


def changed_layer(files: dict[str, bytes], image: Image) -> None:
    files[f"blobs/sha256/{image.manifest.layers[0].digest[7:]}"] += b"x"


def flipped_layer(files: dict[str, bytes], image: Image) -> None:
    name = f"blobs/sha256/{image.manifest.layers[0].digest[7:]}"
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])


def missing_layer(files: dict[str, bytes], image: Image) -> None:
    del files[f"blobs/sha256/{image.manifest.layers[1].digest[7:]}"]


def changed_config(files: dict[str, bytes], image: Image) -> None:
    files[f"blobs/sha256/{image.id[7:]}"] = b"{}"


def changed_manifest(files: dict[str, bytes], image: Image) -> None:
    files[f"blobs/sha256/{image.digest[7:]}"] += b" "


def wrong_diff_id(files: dict[str, bytes], image: Image) -> None:
    rootfs = msgspec.structs.replace(
        image.config.rootfs, diff_ids=(digest_of(b"lie"), *image.config.rootfs.diff_ids[1:])
    )
    from aerogel.oci.types import encode

    config = encode(msgspec.structs.replace(image.config, rootfs=rootfs))
    files[f"blobs/sha256/{digest_of(config)[7:]}"] = config
    placed = msgspec.structs.replace(image.manifest.config, digest=digest_of(config), size=len(config))
    manifest = encode(msgspec.structs.replace(image.manifest, config=placed))
    files[f"blobs/sha256/{digest_of(manifest)[7:]}"] = manifest
    index = json.loads(files["index.json"])
    index["manifests"][0] |= {"digest": digest_of(manifest), "size": len(manifest)}
    files["index.json"] = json.dumps(index).encode()


def no_json(files: dict[str, bytes], image: Image) -> None:
    files["index.json"] = b"{"


def no_digest(files: dict[str, bytes], image: Image) -> None:
    files["index.json"] = files["index.json"].replace(b"sha256:", b"sha256:../../", 1)


def old_version(files: dict[str, bytes], image: Image) -> None:
    files["oci-layout"] = b'{"imageLayoutVersion":"9"}'


def huge_index(files: dict[str, bytes], image: Image) -> None:
    files["index.json"] = b" " * (17 << 20)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (changed_layer, "store.mismatch"),
        (flipped_layer, "store.mismatch"),
        (missing_layer, "archive.missing"),
        (changed_config, "store.mismatch"),
        (changed_manifest, "store.mismatch"),
        (wrong_diff_id, "oci.diff-id"),
        (no_json, "oci.malformed"),
        (no_digest, "oci.malformed"),
        (old_version, "archive.version"),
        (huge_index, "archive.too-large"),
    ],
)
def test_an_oci_archive_that_lies(
    store: Store, target: Store, tmp_path: Path, lie: Callable[[dict[str, bytes], Image], None], code: str
) -> None:
    image = make_image(store)
    files = files_of(oci(store, Root(image.descriptor, (NAME,))))
    lie(files, image)
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(pack(dict(files))), target)
    assert caught.value.code == code
    assert target.images.list() == []
    for digest, _ in target.blobs.all():
        assert digest_of(target.blobs.read(digest)) == digest
    assert not list(Path(target.data).glob("scratch/*/f-*"))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def docker_files(store: Store) -> tuple[dict[str, bytes], dict[str, object]]:
    image = make_image(store, "uncompressed")
    files = files_of(docker(store, Root(image.descriptor, (OTHER,))))
    [listed] = json.loads(files["manifest.json"])
    return {name: content for name, content in files.items() if name.startswith("blobs/")}, listed


def test_docker_archives_with_links(store: Store, target: Store) -> None:
    files, listed = docker_files(store)
    first, second = (str(name) for name in listed["Layers"])  # type: ignore[attr-defined]  # a list of names
    packed: dict[str, bytes | tarfile.TarInfo] = {
        "id1/layer.tar": files[first],
        "id2/layer.tar": files[second],
        "id3/layer.tar": link("id3/layer.tar", "../id1/layer.tar"),
        "id4/layer.tar": link("id4/layer.tar", "id2/layer.tar", tarfile.LNKTYPE),
        "./config.json": files[str(listed["Config"])],
        "./manifest.json": json.dumps(
            [{"Config": "config.json", "Layers": ["id3/layer.tar", "./id4/layer.tar"], "RepoTags": None}]
        ).encode(),
    }
    [found] = load_archive(io.BytesIO(pack(packed)), target)
    assert found.references == ()
    assert loaded_image(found, target).size


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Config": "../../etc/passwd"}, "archive.missing"),
        ({"Config": "/etc/passwd"}, "archive.missing"),
        ({"Config": "loop"}, "archive.missing"),
        ({"Config": "host"}, "archive.missing"),
        ({"Layers": []}, "oci.layers"),
        ({"Layers": ["a", "b"]}, "archive.missing"),
        ({"Layers": "x"}, "oci.malformed"),
        ({"RepoTags": ["Not A Name"]}, "oci.reference"),
        ({"Config": None}, "oci.malformed"),
    ],
)
def test_a_docker_archive_that_lies(store: Store, target: Store, change: dict[str, object], code: str) -> None:
    files, listed = docker_files(store)
    packed: dict[str, bytes | tarfile.TarInfo] = {
        **files,
        "loop": link("loop", "loop"),
        "host": link("host", "/etc/passwd"),
        "manifest.json": json.dumps([{**listed, **change}]).encode(),
    }
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(pack(packed)), target)
    assert caught.value.code == code
    assert target.images.list() == []


@pytest.mark.parametrize("swap", [True, False])
def test_a_docker_archive_with_other_layers(store: Store, target: Store, swap: bool) -> None:
    files, listed = docker_files(store)
    layers = list(listed["Layers"])  # type: ignore[call-overload]  # a list of names
    if swap:
        listed["Layers"] = layers[::-1]
    else:
        files[layers[0]] = gzip.compress(files[layers[1]])
    packed: dict[str, bytes | tarfile.TarInfo] = {**files, "manifest.json": json.dumps([listed]).encode()}
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(pack(packed)), target)
    assert caught.value.code == ("store.mismatch" if swap else "oci.diff-id")


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[1]", b"[" * 100_000, b'[{"Config":1}]'])
def test_a_docker_list_that_is_none(target: Store, manifest: bytes) -> None:
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(pack({"manifest.json": manifest})), target)
    assert caught.value.code == "oci.malformed"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "archive.no-image"),
        (b"some text, but no archive" * 100, "archive.no-image"),
        (pack({"etc/passwd": b"x"}), "archive.no-image"),
        (pack({"index.json": b"{}"}), "archive.no-image"),
        (pack({"a": link("a", "", tarfile.FIFOTYPE)}), "archive.kind"),
        (pack({"../up": b"x"}), "tar.path"),
        (gzip.compress(b"text"), "archive.no-image"),
        (gzip.compress(pack({"a": b"x" * 5000}))[:-20], "codec.truncated"),
        (pack({"a": bytes(5000)})[:2000], "tar.truncated"),
    ],
)
def test_what_is_no_archive(target: Store, data: bytes, code: str) -> None:
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(data), target)
    assert caught.value.code == code


def test_a_directory_is_read_inside_only(store: Store, target: Store, tmp_path: Path) -> None:
    files, listed = docker_files(store)
    (tmp_path / "secret.json").write_text("{}")
    inside = tmp_path / "inside"
    for name, content in files.items():
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(content)
    (inside / "manifest.json").write_text(json.dumps([listed]))
    [found] = load_layout(str(inside), target)
    assert found.references == (OTHER,)
    (inside / "manifest.json").write_text(json.dumps([{**listed, "Config": "../secret.json"}]))
    with pytest.raises(AerogelError) as caught:
        load_layout(str(inside), target)
    assert caught.value.code == "archive.path"
    with pytest.raises(AerogelError) as caught:
        load_layout(str(tmp_path / "nowhere"), target)
    assert caught.value.code == "archive.no-image"


def test_a_blob_that_is_damaged_in_the_store_is_not_written_out(store: Store) -> None:
    image = make_image(store)
    path = Path(store.blobs.path(image.manifest.layers[0].digest))
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(AerogelError) as caught:
        oci(store, Root(image.descriptor))
    assert caught.value.code == "store.corrupt"


def test_a_name_needs_a_tag(store: Store) -> None:
    image = make_image(store)
    name = NAME.with_digest(Digest(image.digest))
    for write in (oci, docker):
        with pytest.raises(AerogelError) as caught:
            write(store, Root(image.descriptor, (name,)))
        assert caught.value.code == "store.name"


@pytest.mark.slow
def test_an_archive_of_very_many_files(target: Store) -> None:
    entry = tarfile.TarInfo("x").tobuf()
    with pytest.raises(AerogelError) as caught:
        load_archive(io.BytesIO(entry * 100_002 + bytes(1024)), target)
    assert caught.value.code == "archive.too-many"


def test_descriptors_of_a_list_carry_nothing_foreign(store: Store) -> None:
    image = make_image(store)
    noisy = msgspec.structs.replace(image.descriptor, annotations={"x": "y"}, urls=("http://x",), data="eA==")
    assert oci(store, Root(noisy)) == oci(
        store, Root(Descriptor(media_type=noisy.media_type, digest=noisy.digest, size=noisy.size))
    )
