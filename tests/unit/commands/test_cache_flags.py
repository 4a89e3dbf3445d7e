"""What `--cache-from` and `--cache-to` take, and what is said of the rest."""

from __future__ import annotations

import pytest

from aerogel.commands.cache_flags import parse_cache_from, parse_cache_to
from aerogel.errors import AerogelError
from aerogel.files.codec import ZSTD


def test_forms():
    assert str(parse_cache_from("team/app:cache").reference) == "docker.io/team/app:cache"
    assert parse_cache_from("type=registry,ref=team/app:cache") == parse_cache_from("team/app:cache")
    local = parse_cache_from("type=local,src=.cache,tag=main")
    assert (local.folder, local.tag, local.reference) == (".cache", "main", None)
    assert parse_cache_to("team/app:cache").is_whole
    small = parse_cache_to("type=registry,ref=team/app,mode=min,ignore-error=true,compression=zstd")
    assert (small.is_whole, small.may_fail, small.codec) == (False, True, ZSTD)
    assert not parse_cache_to("type=inline").is_whole
    assert parse_cache_to("type=inline,mode=max").is_whole
    # What buildx needs to be told is so anyway.
    assert parse_cache_to("type=registry,ref=a,oci-mediatypes=true,image-manifest=true") == parse_cache_to("a")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=azblob,name=b", "`--cache-to` cannot speak to `azblob`", "keep the cache in a registry"),
        ("type=gha", "`--cache-to` cannot speak to `gha`", "type=local"),
        ("type=regsitry,ref=a", "`--cache-to` has no type `regsitry`", "did you mean `registry`?"),
        ("ref=a,mode=max", "`--cache-to ref=a,mode=max` has no type", "type=registry"),
        ("type=registry", "`--cache-to` of type `registry` needs `ref`", "type=registry,ref="),
        ("type=local,src=a", "`--cache-to` of type `local` has no key `src`", "known keys are"),
        ("type=registry,ref=a,mod=max", "`--cache-to` of type `registry` has no key `mod`", "did you mean `mode`?"),
        ("type=registry,ref=a,mode=all", "`--cache-to` has no `mode=all`", "mode=max"),
        ("type=registry,ref=a,ignore-error=maybe", "`ignore-error=maybe` is neither", "ignore-error=true"),
        ("type=registry,ref=a,image-manifest=false", "`--cache-to` cannot have `image-manifest=false`", "leave it out"),
        ("type=registry,ref=a@sha256:" + "0" * 64, "has a digest; a cache gets a tag", "ref=HOST/NAME:TAG"),
        ("type=registry,ref=a,compression-level=x", "`compression-level=x` is not a number", "levels are"),
        ("type=registry,team/app", "`team/app` in", "key=value"),
    ],
)
def test_what_is_refused(text: str, message: str, hint: str):
    with pytest.raises(AerogelError) as caught:
        parse_cache_to(text)
    assert message in caught.value.message
    assert hint in " ".join(caught.value.hints)
    assert (caught.value.code, caught.value.exit_status) == ("build.bad-cache", 2)


def test_an_inline_cache_is_read_by_the_name_of_its_image():
    with pytest.raises(AerogelError, match="has no type `inline`"):
        parse_cache_from("type=inline")
