from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aerogel.debian.version import RELATIONS, check, compare, key, satisfies
from aerogel.errors import AerogelError

ORDERED = [
    "~~",
    "~~a",
    "~",
    "0",
    "0+deb1",
    "1a",
    "1+",
    "1.0~rc1",
    "1.0~rc1-1",
    "1.0",
    "1.0-0+b1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1.1",
    "1.0-10",
    "1.0a",
    "1.0+git",
    "1.0.1",
    "1.2",
    "1.10",
    "1.10.0",
    "2",
    "10",
    "1:0~",
    "1:0",
    "1:1.0-1",
    "2:0",
]


def test_each_is_smaller_than_all_behind_it() -> None:
    for i, left in enumerate(ORDERED):
        assert compare(left, left) == 0
        for right in ORDERED[i + 1 :]:
            assert (compare(left, right), compare(right, left)) == (-1, 1), (left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [("1.0", "1.0-0"), ("0:1", "1"), ("1.", "1.0"), ("1.00", "1.0"), ("1-", "1-0"), ("007", "7"), ("", "0")],
)
def test_spellings_of_the_same(left: str, right: str) -> None:
    assert compare(left, right) == 0
    assert key(left) == key(right) or left == "1."


def test_a_number_of_any_length() -> None:
    assert compare("1" + "0" * 6000, "9" * 5999) == 1


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations(relation: str) -> None:
    found = [satisfies(version, relation, "1.0") for version in ("0.9", "1.0", "1.1")]
    assert (
        found
        == {
            "<<": [True, False, False],
            "<=": [True, True, False],
            "=": [False, True, False],
            ">=": [False, True, True],
            ">>": [False, False, True],
        }[relation]
    )
    assert satisfies("0.9", "", "")


def test_check() -> None:
    assert check("1:2.36-9+deb12u4") == "1:2.36-9+deb12u4"
    for bad in ("", "1 0", "1/0", "a:1", "ü"):
        with pytest.raises(AerogelError) as caught:
            check(bad)
        assert caught.value.code == "debian.version"


DPKG = shutil.which("dpkg")
TAIL = st.text(alphabet="0019aAbZ.+~-", max_size=8)
VERSION = st.builds(
    lambda epoch, first, rest: epoch + first + rest, st.sampled_from(["", "0:", "1:"]), st.sampled_from("0123"), TAIL
)


@pytest.mark.skipif(DPKG is None, reason="dpkg is the oracle")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VERSION, VERSION)
def test_as_dpkg_orders(left: str, right: str) -> None:
    if left.endswith("-") or right.endswith("-"):
        return  # dpkg calls an empty revision an error; indexes have none
    assert DPKG is not None
    relation = {-1: "lt", 0: "eq", 1: "gt"}[compare(left, right)]
    done = subprocess.run([DPKG, "--compare-versions", left, relation, right], capture_output=True)
    assert done.returncode == 0, (left, relation, right, done.stderr)
