"""Libraries that a composed base lacks."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from aerogel.checks.dynamic import read_dynamic
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.closure import check_closure, missing_libraries
from aerogel.distroless.layout import Layout
from aerogel.errors import AerogelError
from aerogel.events import Event, Warned


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []

    def emit(self, event: Event, /) -> None:
        assert isinstance(event, Warned)
        self.said.append("\n".join([event.diagnostic.message, *event.diagnostic.hints]))


def test_missing_libraries():
    data = Path("/bin/ls").read_bytes()
    dynamic = read_dynamic(lambda at, size: data[at : at + size])
    assert dynamic is not None
    first, *others = dynamic.needed
    layout = Layout()
    layout.write(b"usr/bin/ls", data, mode=0o755)
    layout.write(b"usr/bin/script", b"#!/bin/sh\n" * 20, mode=0o755)
    assert sorted(missing_libraries(layout)) == sorted(dynamic.needed)
    for name in others:
        layout.write(b"usr/lib/x86_64-linux-gnu/" + name.encode(), b"")
    assert missing_libraries(layout) == {first: b"usr/bin/ls"}
    recipe = lookup("gcr.io/distroless/base-debian12")
    heard = Heard()
    check_closure(layout, recipe, heard)
    (said,) = heard.said
    assert said.startswith(f"`/usr/bin/ls` of `{recipe.name}` needs the library `{first}`, which is not in the base\n")
    assert "hint" not in said
    assert said.endswith("`resolve: {elf-closure: off}` does not look for it")
    with pytest.raises(AerogelError) as caught:
        check_closure(layout, msgspec.structs.replace(recipe, elf_closure="error"), heard)
    assert caught.value.code == "base.missing-library"
    check_closure(layout, msgspec.structs.replace(recipe, elf_closure="off"), heard)
    layout.link(first.encode(), b"anywhere")
    check_closure(layout, recipe, heard)
    assert len(heard.said) == 1
