"""Programs without their symbol tables, which are for debuggers: a fifth of Node.js.

Debian's packages come stripped; what comes from elsewhere is stripped here if its entry says `strip-symbols`. As with
`strip --strip-unneeded` nothing that is loaded changes or moves: the symbol tables and sections for debuggers go, with
the relocations of these, and what stays behind them moves up. It is copied piece by piece for any architecture, with
no tool (`strip` itself takes three times the size of a program). Object files are left alone: linking needs their symbols.
Spec: System V ABI chapter 4 (sections), chapter 5 (what is loaded).
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aerogel.checks.dynamic import Reader
from aerogel.distroless.layout import Item, Place
from aerogel.errors import AerogelError
from aerogel.files.entry import REG, shown
from aerogel.files.tar import CHUNK

if TYPE_CHECKING:
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.work import Work

__all__ = ["strip_symbols", "wants_strip", "without_symbols"]

_ELF = b"\x7fELF"
_PROGRAM, _SHARED = 2, 3
_NULL, _SYMTAB, _STRTAB, _RELA, _NOBITS, _REL, _GROUP, _INDEXES = 0, 2, 3, 4, 8, 9, 17, 18
_ALLOCATED, _INFO_IS_SECTION = 0x2, 0x40
_FOR_DEBUGGERS = (b".debug", b".zdebug", b".gdb_index", b".gnu.debuglto_", b".line", b".stab")
_MAX_NAMES = 1 << 20
_MAX_ALIGN = 4096
"""Of what is not loaded; pages of 2 MiB are for code."""

Piece = bytes | tuple[int, int]
"""Bytes, or offset and size of what is copied from the file."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int

    @property
    def end(self) -> int:
        return self.offset + (0 if self.kind == _NOBITS else self.size)

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & _ALLOCATED)


class _Form(NamedTuple):
    """How the headers of a class and byte order are laid out; `table` is where the file's header has its numbers."""

    order: str
    section: struct.Struct
    word: str
    table: int
    counts: int


def wants_strip(recipe: Recipe) -> bool:
    """Whether any entry of `packages` says so."""
    return any(each.strip_symbols for each in recipe.archives)


def strip_symbols(work: Work) -> None:
    """Strips every program and library in the directories of the entries that say so. Raises `distroless.cache`."""
    folders = [(each.to or "").strip("/").encode() + b"/" for each in work.recipe.archives if each.strip_symbols]
    layout = work.layout
    spool = work.bench.stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
    for path, item in sorted(layout.items.items()):
        if not path.startswith(tuple(folders)) or item.entry.kind != REG or layout.read(item, 0, len(_ELF)) != _ELF:
            continue
        pieces = without_symbols(partial(layout.read, item), item.entry.size)
        if pieces is None:
            continue
        work.tell(f"leaving symbols out of /{shown(path)}")
        start = spool.tell()
        for piece in pieces:
            if isinstance(piece, bytes):
                spool.write(piece)
                continue
            at, left = piece
            while left:
                data = layout.read(item, at, min(left, CHUNK))
                if not data:
                    raise AerogelError(f"`/{shown(path)}` was cut in the cache", code="distroless.cache")
                spool.write(data)
                at, left = at + len(data), left - len(data)
        size = spool.tell() - start
        layout.items[path] = Item(item.entry._replace(size=size), Place(spool.fileno(), start), item.owner)
    spool.flush()


def without_symbols(read: Reader, size: int) -> list[Piece] | None:
    """The file without its symbols, as pieces of it; None for one that has none or is no sound program or library."""
    head = read(0, 64)
    if head[:4] != _ELF or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    if head[4] == 2:
        form = _Form(order, struct.Struct(f"{order}IIQQQQIIQQ"), "Q", 40, 58)
    else:
        form = _Form(order, struct.Struct(f"{order}IIIIIIIIII"), "I", 32, 46)
    try:
        pieces = _stripped(read, size, head, form)
    except struct.error:
        return None
    # Sections of a sound file have each byte once: less of them is less.
    whole = sum(len(each) if isinstance(each, bytes) else each[1] for each in pieces or ())
    return pieces if whole < size else None


def _stripped(read: Reader, size: int, head: bytes, form: _Form) -> list[Piece] | None:
    (kind,) = struct.unpack_from(f"{form.order}H", head, 16)
    (table,) = struct.unpack_from(form.order + form.word, head, form.table)
    width, count, names_at = struct.unpack_from(f"{form.order}HHH", head, form.counts)
    if kind not in (_PROGRAM, _SHARED) or not 0 < names_at < count or width != form.section.size:
        return None
    sections = [_Section(*each) for each in form.section.iter_unpack(read(table, width * count))]
    if len(sections) != count or any(each.end > size for each in sections):
        return None
    names = read(sections[names_at].offset, min(sections[names_at].size, _MAX_NAMES))
    gone = _not_needed(sections, names, names_at)
    if not gone:
        return None
    if any(each.align > _MAX_ALIGN and not each.is_loaded for each in sections):
        return None
    end = max(_loaded_end(read, head, form), *(each.end for each in sections if each.is_loaded))
    if end > size:
        return None
    return _laid_out(head, form, sections, gone, end)


def _not_needed(sections: Sequence[_Section], names: bytes, names_at: int) -> set[int]:
    """Numbers of the sections to leave out."""
    loose = {number for number, each in enumerate(sections) if not each.is_loaded and each.kind != _NULL}
    tables = {number for number in loose if sections[number].kind in (_SYMTAB, _INDEXES)}
    used = {each.link for number, each in enumerate(sections) if number not in tables}
    strings = {sections[number].link for number in tables} - used
    gone = tables | {number for number in strings & loose if sections[number].kind == _STRTAB}
    for number in loose:
        is_for_debuggers = names.startswith(_FOR_DEBUGGERS, sections[number].name)
        if is_for_debuggers or sections[number].kind in (_REL, _RELA, _GROUP):
            gone.add(number)
    return gone - {names_at}


def _loaded_end(read: Reader, head: bytes, form: _Form) -> int:
    """Where what program headers name ends, these themselves included."""
    wide = form.word == "Q"
    (table,) = struct.unpack_from(form.order + form.word, head, 32 if wide else 28)
    width, count = struct.unpack_from(f"{form.order}HH", head, form.counts - 4)
    ends: list[int] = [len(head), table + width * count]
    headers = read(table, width * count)
    for start in range(0, width * count, width or 1):
        if wide:
            offset, _, _, length = struct.unpack_from(f"{form.order}QQQQ", headers, start + 8)
        else:
            offset, _, _, length = struct.unpack_from(f"{form.order}IIII", headers, start + 4)
        ends.append(offset + length)
    return max(ends)


def _laid_out(head: bytes, form: _Form, sections: list[_Section], gone: set[int], end: int) -> list[Piece]:
    last = max((number for number, each in enumerate(sections) if each.is_loaded), default=0)
    # Symbols of the loader name sections by number: up to the last loaded one each keeps its own.
    kept = [number for number in range(len(sections)) if number not in gone or number < last]
    numbers = {number: place for place, number in enumerate(kept) if number not in gone}
    moved: dict[int, int] = {}
    pieces: list[Piece] = [(0, end)]
    at = end
    for number in sorted(numbers, key=lambda each: sections[each].offset):
        one = sections[number]
        if one.is_loaded or one.kind == _NULL or one.end <= end:
            continue
        padding = -at % max(one.align, 1)
        moved[number] = at + padding
        pieces += [bytes(padding), (one.offset, one.size)]
        at = moved[number] + one.size
    padding = -at % 8
    table = b"".join(
        form.section.pack(*_renumbered(sections[number], moved.get(number), numbers))
        if number in numbers
        else bytes(form.section.size)
        for number in kept
    )
    (names_at,) = struct.unpack_from(f"{form.order}H", head, form.counts + 4)
    new = bytearray(head)
    struct.pack_into(form.order + form.word, new, form.table, at + padding)
    struct.pack_into(f"{form.order}HH", new, form.counts + 2, len(kept), numbers[names_at])
    pieces[0] = bytes(new)
    return [pieces[0], (len(head), end - len(head)), *pieces[1:], bytes(padding) + table]


def _renumbered(one: _Section, offset: int | None, numbers: dict[int, int]) -> _Section:
    info = numbers.get(one.info, 0) if one.flags & _INFO_IS_SECTION else one.info
    return one._replace(offset=one.offset if offset is None else offset, link=numbers.get(one.link, 0), info=info)
