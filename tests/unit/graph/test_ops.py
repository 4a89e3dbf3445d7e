"""Definition digests: golden ones, so that a change of format is seen, and what must and must not change them."""

from __future__ import annotations

import msgspec
import pytest

from aerogel.errors import AerogelError, Source, Span
from aerogel.graph.config import go_duration, go_list, go_quote
from aerogel.graph.ops import Base, Copy, CopySource, Local, Mkdir, Node, Run, frame
from aerogel.graph.ports import parse_ports

SPAN = Span(Source("Dockerfile", b"EXPOSE x"), 7, 8)
RUN = Run(argv=("/bin/sh", "-c", "true"), env=(("PATH", "/bin"),), cwd="/")


def test_golden_digests() -> None:
    base = Node(Base(("sha256:" + "0" * 64,)), (), "linux/amd64")
    run = Node(RUN, (base,), "linux/amd64")
    copy = Node(
        Copy(sources=(CopySource(input=1, path="a"),), dest="/b/"), (run, Node(Local("context"))), "linux/amd64"
    )
    assert [node.digest for node in (base, run, copy)] == [
        "sha256:7371b63739a9b6c6f06cb59d841f1f0e6b28eae86fc54dc8e07bf83fc3a9c56a",
        "sha256:1a4b6fcd5daaf1f71771fa62fc1b6c7bf1543ccf0c6570c484fbe8b74d6d5c7b",
        "sha256:bae1ea19df94ab37f4ea6ef8c9bbc383e57c4489dbdbdd6da8ae547aa50b4716",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("/bin/sh", "-c", "false")},
        {"argv": ("/bin/sh", "-ctrue")},
        {"env": (("PATH", "/bin"), ("A", ""))},
        {"env": (("PATH", "/bi"),)},
        {"cwd": "/a"},
        {"user": "app"},
        {"network": "none"},
        {"hostname": "other"},
    ],
)
def test_every_field_of_run_counts(change: dict[str, object]) -> None:
    base = Node(Base(()))
    assert Node(msgspec.structs.replace(RUN, **change), (base,)).digest != Node(RUN, (base,)).digest


def test_platform_and_inputs_count() -> None:
    base, other = Node(Base(())), Node(Base(("sha256:" + "1" * 64,)))
    assert len({Node(RUN, (base,)).digest, Node(RUN, (other,)).digest, Node(RUN, (base,), "linux/arm64").digest}) == 3


def test_kinds_do_not_collide() -> None:
    base = Node(Base(()))
    assert Node(Mkdir("/a"), (base,)).digest != Node(Copy(sources=(), dest="/a"), (base,)).digest


def test_frame_is_injective_on_neighbours() -> None:
    assert frame(b"ab", b"c") != frame(b"a", b"bc") != frame(b"abc") != frame(b"", b"abc")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (2_000_000, "2ms"),
        (500_000_000, "500ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (5_405_250_000_000, "1h30m5.25s"),
    ],
)
def test_go_duration(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


def test_go_quote() -> None:
    assert go_quote('a"b\\c\n\t\x01é') == '"a\\"b\\\\c\\n\\t\\x01é"'
    assert go_list(("a b", "c"), quoted=True) == '["a b" "c"]'
    assert go_list(("a", "c")) == "[a c]"


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", ["80/tcp"]),
        ("53/udp", ["53/udp"]),
        ("8000-8002/TCP", ["8000/tcp", "8001/tcp", "8002/tcp"]),
        ("127.0.0.1:8080:80", ["80/tcp"]),
        ("9/sctp", ["9/sctp"]),
    ],
)
def test_ports(text: str, ports: list[str]) -> None:
    assert parse_ports(text, SPAN) == ports


@pytest.mark.parametrize("text", ["", "http", "80/icmp", "90-80", "70000", "-1", "1-", "80/"])
def test_bad_ports(text: str) -> None:
    with pytest.raises(AerogelError) as caught:
        parse_ports(text, SPAN)
    assert caught.value.code == "graph.bad-port"
    assert caught.value.hints
