"""Digests: what is one, and streams that check them."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import AerogelError
from aerogel.oci import digest as digests
from aerogel.oci.digest import Digest, VerifiedReader

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_digest_of_nothing_is_the_known_one() -> None:
    assert digests.digest_of(b"") == EMPTY
    assert digests.short(Digest(EMPTY)) == "e3b0c44298fc"
    assert digests.algorithm_of(Digest(EMPTY)) == "sha256"
    assert digests.hex_of(Digest(EMPTY)) == EMPTY[7:]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a digest: a digest is `<algorithm>:<hex>`"),
        ("abc", "a digest is `<algorithm>:<hex>`"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "known algorithms are `sha256`, `sha384`, `sha512`"),
        ("sha256:abc", "`sha256` has 64 hex digits, this has 3"),
        ("sha256:" + "A" * 64, "in lower case"),
        ("sha256:" + "g" * 64, "hex digits are"),
    ],
)
def test_refused_with_what_is_valid(text: str, why: str) -> None:
    with pytest.raises(AerogelError) as caught:
        digests.parse(text)
    assert caught.value.code == "oci.digest"
    assert why in caught.value.message


@given(st.binary(max_size=200), st.sampled_from(sorted(digests.ALGORITHMS)))
def test_every_made_digest_parses(data: bytes, algorithm: str) -> None:
    made = digests.of_hash(hashlib.new(algorithm, data))
    assert digests.parse(made) == made
    digests.check(data, made, what="blob")


def test_check_shows_both_digests() -> None:
    with pytest.raises(AerogelError) as caught:
        digests.check(b"x", Digest(EMPTY), what="manifest")
    assert caught.value.message == "manifest is not what its digest names"
    assert f"expected {EMPTY}" in caught.value.detail
    assert digests.digest_of(b"x") in caught.value.detail


@given(st.binary(max_size=5000), st.integers(1, 700), st.booleans())
def test_reader_hands_out_everything_when_right(data: bytes, step: int, knows_size: bool) -> None:
    reader = VerifiedReader(io.BytesIO(data), digests.digest_of(data), len(data) if knows_size else None)
    parts = []
    while part := reader.read(step):
        parts.append(part)
    assert b"".join(parts) == data
    assert reader.read(step) == b""


def _drain_into(reader: VerifiedReader) -> None:
    buffer = bytearray(512)
    while reader.readinto(buffer):
        pass


@given(st.binary(min_size=1, max_size=3000), st.integers(0, 2999), st.integers(1, 255), st.booleans())
def test_reader_raises_on_any_changed_byte(data: bytes, at: int, flip: int, into: bool) -> None:
    changed = bytearray(data)
    changed[at % len(data)] ^= flip
    dropped = []
    reader = VerifiedReader(
        io.BytesIO(bytes(changed)),
        digests.digest_of(data),
        len(data),
        code="store.corrupt",
        on_mismatch=lambda: dropped.append(1),
    )
    with pytest.raises(AerogelError) as caught:
        _drain_into(reader) if into else reader.read()
    assert caught.value.code == "store.corrupt"
    assert digests.digest_of(data) in caught.value.detail
    assert digests.digest_of(bytes(changed)) in caught.value.detail
    assert dropped == [1]


@pytest.mark.parametrize(("found", "told"), [(b"abc", "3 bytes"), (b"abcde", "more"), (b"", "0 bytes")])
def test_reader_raises_on_a_wrong_length(found: bytes, told: str) -> None:
    reader = VerifiedReader(io.BytesIO(found), digests.digest_of(b"abcd"), 4)
    with pytest.raises(AerogelError) as caught:
        reader.read()
    assert told in caught.value.detail
