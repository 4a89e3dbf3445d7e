"""Layers by origin: every file once, every parent there, the same files as in one layer."""

from __future__ import annotations

import pytest

from aerogel.distroless.declaration import Layers
from aerogel.distroless.layering import SMALLEST, layered
from aerogel.distroless.layout import Item
from aerogel.files.entry import DIR, REG, Entry, directory, parents

SOURCES = {"libc6": "glibc", "libc-bin": "glibc", "libssl3": "openssl", "zlib1g": "zlib"}


def file(path: str, size: int, owner: str = "") -> Item:
    return Item(Entry(path.encode(), REG, 0o644, size=size), b"x", owner)


ITEMS = sorted(
    [
        *(Item(directory(path, mode=0o700)) for path in (b"usr", b"usr/lib", b"usr/share", b"etc", b"empty")),
        file("usr/lib/libc.so", 2 * SMALLEST, "libc6"),
        file("usr/lib/ldconfig", 5, "libc-bin"),
        file("usr/lib/libssl.so", SMALLEST, "libssl3"),
        file("usr/lib/libz.so", SMALLEST - 1, "zlib1g"),
        file("usr/share/made", 3 * SMALLEST),
        file("etc/passwd", 10),
    ],
    key=lambda item: item.entry.path,
)


def paths(layer: list[Item]) -> list[str]:
    return [item.entry.path.decode() for item in layer if item.entry.kind != DIR]


@pytest.mark.parametrize("how", [None, Layers(), Layers(strategy="single", budget=3)])
def test_one_layer(how):
    assert layered(ITEMS, SOURCES, how) == [ITEMS]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, [["usr/lib/ldconfig", "usr/lib/libc.so"], ["usr/lib/libssl.so"]]),
        (2, [["usr/lib/ldconfig", "usr/lib/libc.so"]]),
        (1, []),
    ],
)
def test_large_sources_have_layers(budget, expected):
    found = layered(ITEMS, SOURCES, Layers(strategy="origin", budget=budget))
    assert [paths(layer) for layer in found[:-1]] == expected
    assert {"etc/passwd", "usr/share/made", "usr/lib/libz.so"} <= set(paths(found[-1]))
    assert sorted(path for layer in found for path in paths(layer)) == sorted(paths(ITEMS))
    for layer in found:
        there = {item.entry.path for item in layer}
        assert all(parent in there for path in there for parent in parents(path))
        assert [item for item in ITEMS if item in layer] == layer
    assert any(item.entry.path == b"empty" for item in found[-1])
