"""What `-o` and `--annotation` say, as buildx reads them, and what is said when they cannot be read."""

from __future__ import annotations

import pytest

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.export.annotation import annotations_for, parse_annotation, refuse_levels
from aerogel.export.output import Output, Variant, parse_output
from aerogel.files.codec import Codec, select
from aerogel.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output(type="local", dest="out")),
        ("out/a:b", Output(type="local", dest="out/a:b")),
        ("-", Output(type="tar", dest="-")),
        ("type=local,dest=x", Output(type="local", dest="x")),
        ("type=tar", Output(type="tar", dest="-")),
        ("type=tar,dest=a.tar", Output(type="tar", dest="a.tar")),
        ("type=oci", Output(type="oci", dest="-")),
        ("type=oci,dest=x,tar=false", Output(type="oci", dest="x", tar=False)),
        ("type=docker", Output(type="docker")),
        ("type=docker,dest=-", Output(type="docker", dest="-")),
        ("type=cacheonly", Output(type="cacheonly")),
        ("type=registry", Output(type="registry", push=True)),
        ("type=image,push=true", Output(type="image", push=True)),
        ("type=image,name=a,push-by-digest=true", Output(type="image", names=("a",), push=True, by_digest=True)),
        ('type=image,"name=a:1,b:2"', Output(type="image", names=("a:1", "b:2"))),
        ("type=image,store=false,unpack=1", Output(type="image", store=False, unpack=True)),
        ("type=image,name-canonical=true", Output(type="image")),
        ("type=image,oci-artifact=true", Output(type="image")),
        (
            "type=registry,dangling-name-prefix=h/a,registry.insecure=true",
            Output(type="registry", push=True, anonymous="h/a", is_insecure=True),
        ),
        ("type=local,dest=x,platform-split=false", Output(type="local", dest="x", split=False)),
        (
            "type=image,compression=zstd,compression-level=9,force-compression=true",
            Output(type="image", variant=Variant(codec=Codec("zstd", "zstd", 9), force=True)),
        ),
        ("type=image,compression-level=1", Output(type="image", variant=Variant(codec=select("gzip", 1)))),
        ("type=image,oci-mediatypes=0", Output(type="image", variant=Variant(docker=True))),
        ("type=oci,dest=a,rewrite-timestamp=true", Output(type="oci", dest="a", variant=Variant(rewrite=True))),
    ],
)
def test_outputs(text: str, expected: Output) -> None:
    assert parse_output(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=occi,dest=x", "output type `occi` is not known", "did you mean `oci`?"),
        (
            "dest=x,name=y",
            "the output `dest=x,name=y` has no type",
            "types are `image`, `registry`, `oci`, `docker`, `tar`, `local`, `docker-daemon`, `containers-storage`, `cacheonly`",
        ),
        ("type=tar,x", "`x` in the output `type=tar,x` has no value", "write `key=value,key=value`"),
        ("type=local", "output `local` needs a folder", "write `type=local,dest=FOLDER`"),
        ("type=local,dest=-", "output `local` needs a folder", "write `type=local,dest=FOLDER`"),
        ("type=oci,tar=false", "output `oci` as a folder needs its name", "write `type=oci,tar=false,dest=FOLDER`"),
        (
            "type=docker,tar=false,dest=x",
            "output `docker` is always an archive",
            "write `type=oci,tar=false,dest=FOLDER` for a folder",
        ),
        ("type=image,compresion=gzip", "output `image` has no key `compresion`", "did you mean `compression`?"),
        (
            "type=local,dest=x,name=y",
            "output `local` has no key `name`",
            "known keys are `type`, `dest`, `platform-split`, `rewrite-timestamp`",
        ),
        (
            "type=local,dest=x,mode=delete",
            "output `local` has no key `mode`: nothing in the folder is ever removed",
            "empty the folder before the build",
        ),
        (
            "type=tar,attestation-prefix=a",
            "output `tar` has no key `attestation-prefix`: SBOM and provenance belong to images",
            "write the image with `type=oci,dest=FILE`",
        ),
        (
            "type=docker,context=default",
            "output `docker` has no key `context`: docker's contexts are not read",
            "write `type=docker-daemon` and name the daemon in `DOCKER_HOST`",
        ),
        (
            "type=image,prefer-nondist-layers=true",
            "output `image` has no key `prefer-nondist-layers`: every layer is one that may be pushed",
            "leave it out",
        ),
        (
            "type=image,buildinfo=true",
            "output `image` has no key `buildinfo`: it is gone since BuildKit 0.12",
            "`--provenance` tells what the image was made from",
        ),
        (
            "type=image,oci-artifact=false",
            "`oci-artifact=false`: SBOM and provenance are always artifacts that refer to the image",
            "leave it out: an index entry for them would make an index of each image",
        ),
        (
            "type=image,name-canonical=yes",
            "`name-canonical=yes` is neither `true` nor `false`",
            "write `name-canonical=true` or leave it out",
        ),
        (
            "type=cacheonly,dest=x",
            "output `cacheonly` has no key `dest`",
            "known keys are `type`",
        ),
        (
            "type=image,push=maybe",
            "`push=maybe` is neither `true` nor `false`",
            "write `push=true` or leave it out",
        ),
        (
            "type=image,compression-level=fast",
            "`compression-level=fast` is not a number",
            "levels are 0 to 9 for gzip, 1 to 22 for zstd",
        ),
        (
            "type=tar,annotation.a=b",
            "output `tar` is no image and has no annotations",
            "give them to `type=image` or `type=oci`",
        ),
    ],
)
def test_what_cannot_be_read(text: str, message: str, hint: str) -> None:
    with pytest.raises(AerogelError) as caught:
        parse_output(text)
    error = caught.value
    assert (error.message, error.code, error.exit_status) == (message, "build.bad-output", EXIT_USAGE)
    assert tuple(error.hints) == (hint,)


def test_levels_of_compression() -> None:
    with pytest.raises(AerogelError, match="compression level 30 does not exist for zstd") as caught:
        parse_output("type=image,compression=zstd,compression-level=30")
    assert caught.value.exit_status == EXIT_USAGE
    with pytest.raises(AerogelError, match="compression `estargz` is not known"):
        parse_output("type=image,compression=estargz")


def test_annotations_of_outputs() -> None:
    text = "type=image,annotation.a=1,annotation-index.b=2,annotation-manifest[linux/arm64].org.x=3,annotation-manifest-descriptor.c=4"
    found = parse_output(text).variant.annotations
    arm, amd = Platform.parse("linux/arm64"), Platform.parse("linux/amd64")
    assert annotations_for(found, "manifest", arm) == {"a": "1", "org.x": "3"}
    assert annotations_for(found, "manifest", amd) == {"a": "1"}
    assert annotations_for(found, "index") == {"b": "2"}
    assert annotations_for(found, "manifest-descriptor", amd) == {"c": "4"}


def test_annotation_flags() -> None:
    both = parse_annotation("index,manifest:org.a", "x:y")
    assert (both.levels, both.key, both.value) == (("index", "manifest"), "org.a", "x:y")
    one = parse_annotation("manifest[linux/amd64]:k", "v")
    assert (one.levels, one.platform, one.key) == (("manifest",), "linux/amd64", "k")
    # A key may hold a colon.
    assert parse_annotation("com.example:key", "v").key == "com.example:key"
    with pytest.raises(AerogelError, match="annotations have no level `indx`"):
        parse_annotation("indx:k", "v")
    with pytest.raises(AerogelError, match="an image of one platform has no index"):
        refuse_levels([both], is_index=False)
    refuse_levels([both], is_index=True)
