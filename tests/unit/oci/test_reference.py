"""References: Docker's normalisation, familiar forms, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/alpine:1", "docker.io/library/alpine:1", "alpine:1"),
        ("index.docker.io/owner/app", "docker.io/owner/app:latest", "owner/app:latest"),
        ("owner/app", "docker.io/owner/app:latest", "owner/app:latest"),
        ("owner/group/app:v1", "docker.io/owner/group/app:v1", "owner/group/app:v1"),
        ("gcr.io/distroless/python3:nonroot", "gcr.io/distroless/python3:nonroot", "gcr.io/distroless/python3:nonroot"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
        ("[::1]/app", "[::1]/app:latest", "[::1]/app:latest"),
        ("FOO/bar", "FOO/bar:latest", "FOO/bar:latest"),
        (f"alpine@{SHA}", f"docker.io/library/alpine@{SHA}", f"alpine@{SHA}"),
        (f"alpine:3@{SHA}", f"docker.io/library/alpine:3@{SHA}", f"alpine:3@{SHA}"),
        ("a_b__c-d---e.f/x", "docker.io/a_b__c-d---e.f/x:latest", None),
        ("docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"),
        ("app:_x.Y-1", "docker.io/library/app:_x.Y-1", "app:_x.Y-1"),
        ("xn--n3h.com/app", "xn--n3h.com/app:latest", "xn--n3h.com/app:latest"),
    ],
)
def test_normalisation(text: str, canonical: str, familiar: str | None) -> None:
    if text == "a_b__c-d---e.f/x":
        # The dot makes the first part a registry, and a registry has no underscore.
        with pytest.raises(AerogelError, match="is not a registry"):
            Reference.parse(text)
        return
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar() == familiar
    assert Reference.parse(reference.familiar()) == reference


def test_no_default_tag_when_asked() -> None:
    assert str(Reference.parse("alpine", default_tag=None)) == "docker.io/library/alpine"
    assert Reference.parse("alpine", default_tag=None).familiar() == "alpine"
    bare = Reference.parse(f"docker.io/{HEX}", default_tag=None)
    assert bare.repository == f"library/{HEX}"
    assert Reference.parse(bare.familiar(), default_tag=None) == bare


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "it is empty", "for example"),
        ("https://gcr.io/app", "it has a URL scheme", "leave the scheme out: `gcr.io/app`"),
        ("a b", "white space", ""),
        ("app\n", "white space", ""),
        (HEX, "64 hex digits alone", f"NAME@sha256:{HEX}"),
        ("App", "a repository is lower case", "did you mean `app`?"),
        ("gcr.io/Distroless/cc:Tag", "a repository is lower case", "did you mean `gcr.io/distroless/cc:Tag`?"),
        ("app:", "the tag is empty", "a tag is letters, digits"),
        ("app:-x", "`-x` is not a tag", "a tag is letters, digits"),
        ("app:" + "x" * 129, "the tag has 129 characters, at most 128 are valid", ""),
        ("app:a:b", "`a:b` is not a tag", ""),
        ("a//b", "the repository has an empty part", "each part between `/`"),
        ("a/b/", "the repository has an empty part", "each part"),
        ("-a/b", "`-a` cannot stand in a repository", "each part"),
        ("a..b/c", "`a..b` is not a registry", "a registry is `host`"),
        ("/app", "the repository has an empty part", ""),
        ("gcr.io/", "the repository is missing", ""),
        (":tag", "the repository is missing", ""),
        ("app@sha256:12", "`sha256` has 64 hex digits, this has 2", ""),
        ("app@", "a digest is", ""),
        (f"app@md5:{HEX}", "known algorithms are", ""),
        ("h:5000/" + "a" * 256, "the repository has 256 characters, at most 255 are valid", ""),
        ("gcr.io:port/app", "`gcr.io:port` is not a registry", ""),
        ("ä/b", "cannot stand in a repository", ""),
    ],
)
def test_refused_with_what_is_valid(text: str, message: str, hint: str) -> None:
    with pytest.raises(AerogelError) as caught:
        Reference.parse(text)
    assert caught.value.code == "oci.reference"
    assert message in caught.value.message
    assert hint in "\n".join(caught.value.hints)


def test_with_tag_and_digest() -> None:
    reference = Reference.parse("app:1")
    assert str(reference.with_tag("2")) == "docker.io/library/app:2"
    assert str(reference.with_digest(Digest(SHA))) == f"docker.io/library/app@{SHA}"
    with pytest.raises(AerogelError):
        reference.with_tag("a b")


_PART = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
_DOMAIN = st.from_regex(r"([a-z0-9]{1,5}\.){1,2}[a-z]{2,4}(:[0-9]{1,5})?|localhost(:[0-9]{2,5})?", fullmatch=True)
_TAG = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_DIGEST = st.none() | st.just(SHA)


@given(st.none() | _DOMAIN, st.lists(_PART, min_size=1, max_size=3), _TAG, _DIGEST)
def test_both_forms_parse_back(domain: str | None, parts: list[str], tag: str | None, digest: str | None) -> None:
    text = "/".join(parts if domain is None else [domain, *parts])
    text += f":{tag}" if tag is not None else ""
    text += f"@{digest}" if digest else ""
    try:
        reference = Reference.parse(text)
    except AerogelError as error:
        # Only a first part that looks like a host but cannot be one, or a name that looks like an id.
        assert "is not a registry" in error.message or "64 hex" in error.message  # noqa: PT017 - several are valid
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert len(reference.familiar()) <= len(str(reference))


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused_in_form(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except AerogelError as error:
        assert error.code == "oci.reference"  # noqa: PT017 - parsing is allowed to succeed
    else:
        assert Reference.parse(reference.familiar()) == reference
