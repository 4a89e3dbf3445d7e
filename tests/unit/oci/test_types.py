"""The JSON documents: round trips, unknown keys, canonical bytes, refusals."""

from __future__ import annotations

import json

import msgspec
import pytest

from aerogel.errors import AerogelError
from aerogel.oci.digest import digest_of
from aerogel.oci.platform import Platform
from aerogel.oci.types import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    ContainerConfig,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
    decode,
    encode,
    timestamp,
    to_dict,
)

SHA = digest_of(b"x")

# What `docker image inspect` era Docker 20.10 wrote for a real image, shortened.
DOCKER_CONFIG = {
    "architecture": "amd64",
    "config": {
        "Hostname": "",
        "Domainname": "",
        "User": "app",
        "AttachStdin": False,
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["PATH=/usr/bin", "A=b=c"],
        "Cmd": None,
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000, "Retries": 3},
        "ArgsEscaped": True,
        "Image": "sha256:1234",
        "Volumes": {"/data": {}},
        "WorkingDir": "/app",
        "Entrypoint": ["/bin/app"],
        "OnBuild": ["COPY . /app"],
        "Labels": {"a": "ü"},
        "StopSignal": "SIGINT",
        "StopTimeout": 7,
        "Shell": ["/bin/bash", "-c"],
    },
    "container": "abc",
    "created": "2024-01-02T03:04:05.678901234Z",
    "docker_version": "20.10.24",
    "history": [
        {"created": "2024-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD file", "comment": "c", "extra": [1]},
        {"created": "2024-01-02T03:04:05Z", "created_by": "CMD", "empty_layer": True},
    ],
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [SHA]},
    "moby.buildkit.buildinfo.v1": "e30=",
}


def test_a_config_of_docker_is_read_whole() -> None:
    config = decode(json.dumps(DOCKER_CONFIG).encode(), ImageConfig)
    run = config.config
    assert run.user == "app"
    assert run.env == ("PATH=/usr/bin", "A=b=c")
    assert run.cmd == ()
    assert run.entrypoint == ("/bin/app",)
    assert run.healthcheck == Healthcheck(test=("CMD-SHELL", "true"), interval=30_000_000_000, retries=3)
    assert run.on_build == ("COPY . /app",)
    assert run.shell == ("/bin/bash", "-c")
    assert run.stop_signal == "SIGINT"
    assert run.args_escaped
    assert list(run.volumes) == ["/data"]
    assert list(run.exposed_ports) == ["8080/tcp"]
    assert config.history[1].empty_layer
    assert config.platform == Platform(os="linux", architecture="amd64")


def test_unknown_keys_survive_an_edit() -> None:
    config = decode(json.dumps(DOCKER_CONFIG).encode(), ImageConfig)
    edited = msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, user="root"))
    again = json.loads(encode(edited))
    assert again["docker_version"] == "20.10.24"
    assert again["moby.buildkit.buildinfo.v1"] == "e30="
    assert again["config"]["StopTimeout"] == 7
    assert again["config"]["Hostname"] == ""
    assert again["config"]["User"] == "root"
    assert again["history"][0]["extra"] == [1]
    expected = json.loads(json.dumps(DOCKER_CONFIG))
    expected["config"]["User"] = "root"
    del expected["config"]["Cmd"]
    assert again == expected
    assert decode(encode(edited), ImageConfig) == edited


def test_canonical_bytes() -> None:
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        config=ContainerConfig(labels={"b": "2", "a": "<ü>"}, env=("B=1", "A=2")),
        rootfs=RootFS(diff_ids=(SHA,)),
        history=(History(created_by="RUN x", empty_layer=True),),
    )
    assert encode(config).decode() == (
        '{"architecture":"amd64","config":{"Env":["B=1","A=2"],"Labels":{"a":"<ü>","b":"2"}},'
        '"history":[{"created_by":"RUN x","empty_layer":true}],"os":"linux",'
        f'"rootfs":{{"diff_ids":["{SHA}"],"type":"layers"}}}}'
    )


def test_required_keys_stay_in_an_empty_config() -> None:
    assert json.loads(encode(ImageConfig())) == {
        "architecture": "",
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def test_required_lists_stay_when_they_are_empty() -> None:
    manifest = Manifest(schema_version=2, config=Descriptor(digest=SHA, size=1))
    assert json.loads(encode(manifest))["layers"] == []
    assert json.loads(encode(Index(schema_version=2))) == {"schemaVersion": 2, "manifests": []}


def test_manifest_and_index_round_trip() -> None:
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=SHA, size=1, annotations={"k": "v"}, urls=("u",), data="eA==")
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=SHA, size=1),
        layers=(layer,),
        subject=layer,
        artifact_type="t/x",
    )
    plain = to_dict(manifest)
    assert set(plain) == {"schemaVersion", "mediaType", "config", "layers", "subject", "artifactType"}
    assert set(plain["layers"][0]) == {"mediaType", "digest", "size", "annotations", "urls", "data"}
    assert decode(encode(manifest), Manifest) == manifest
    index = Index(
        schema_version=2,
        manifests=(Descriptor(media_type=OCI_MANIFEST, digest=SHA, size=0, platform=Platform.parse("linux/arm/v7")),),
    )
    assert json.loads(encode(index))["manifests"][0] == {
        "mediaType": OCI_MANIFEST,
        "digest": SHA,
        "size": 0,
        "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
    }
    assert decode(encode(index), Index) == index


def test_unknown_keys_of_descriptors_and_platforms_survive() -> None:
    data = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": SHA,
                "size": 3,
                "x": {"y": None},
                "platform": {"os": "linux", "architecture": "amd64", "features": ["sse4"], "os.version": "10"},
            }
        ],
        "z": [1.5],
    }
    assert json.loads(encode(decode(json.dumps(data).encode(), Index))) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "manifest is not JSON"),
        (b"\xff\xfe", "manifest is not JSON"),
        (b"[" * 100_000, "manifest is not JSON"),
        (b"[]", "manifest is malformed: expected `object`, got `array`"),
        (b"{}", "manifest is malformed: object missing required field `schemaVersion`"),
        (b'{"schemaVersion":"2"}', "`$.schemaVersion`"),
        (b'{"schemaVersion":2,"config":{"digest":"sha256:1","size":1}}', "`$.config.digest`"),
        (b'{"schemaVersion":2,"config":{"digest":"%b","size":-1}}' % SHA.encode(), "`$.config.size`"),
        (b'{"schemaVersion":2,"config":{"digest":"%b","size":1},"layers":{}}' % SHA.encode(), "`$.layers`"),
    ],
)
def test_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(AerogelError) as caught:
        decode(data, Manifest)
    assert caught.value.code == "oci.malformed"
    assert message in caught.value.message


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(AerogelError) as caught:
        encode(ImageConfig(author=b"caf\xe9".decode("utf-8", "surrogateescape")))
    assert caught.value.code == "oci.encode"
    assert "byte `e9`" in caught.value.message
    half = decode(b'{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"\\udce9\\ud800"}}}', ImageConfig)
    with pytest.raises(AerogelError) as caught:
        encode(half)
    assert "bytes `e9 ed a0 80` is not UTF-8" in caught.value.message


def test_timestamp() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(1_700_000_000) == "2023-11-14T22:13:20Z"
