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
        "sha256:6abd20b667a5ef16d7dd798b9c8a1f209a894f6df11529a86dbba2277219bea3",
        "sha256:ba6b767490d3fd65b3ec16c870bd158062899fbe45e5cb7520a43f8e8b269836",
        "sha256:b06fb78dfeb50c46e8314984ebbd094e8ae5c696cc89e42a2bf6cf9b7c001d27",
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


@pytest.mark.parametrize("op", [Base(()), Mkdir("/a"), Copy(sources=(), dest="/a")])
def test_platforms_count_for_commands_alone(op: Base | Mkdir | Copy) -> None:
    inputs = () if isinstance(op, Base) else (Node(Base(())),)
    assert Node(op, inputs, "linux/arm64").digest == Node(op, inputs, "linux/amd64").digest


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
