"""The list of a layer's entries with where their content lies in the tar: what is asked of a layer without opening it.

Saved beside each layer as columns in `marshal` form (fifty thousand entries load in 30 ms). The account files are
held whole, so that `--chown=name` and `USER name` need no blob. Only for files that this program wrote: `marshal`
is not a format for what others send. Standard library only.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from aerogel.errors import AerogelError
from aerogel.files.entry import REG, Entry
from aerogel.files.pyc import is_compiled
from aerogel.files.tar import CHUNK, Readable, read_entries

__all__ = [
    "MARK",
    "MAX_ENTRIES",
    "SMALL_FILES",
    "IndexWriter",
    "LayerIndex",
    "Summary",
    "build_index",
    "mark_of",
    "read_summary",
]

MARK = b"AEROGEL.mark"
"""The global PAX record that a layer of a RUN begins with inside the store: the time of what the step wrote."""

SMALL_FILES = frozenset({b"etc/passwd", b"etc/group"})
"""Paths whose content an index holds."""

MAX_ENTRIES = 1 << 21
"""Of one layer. Each takes about 600 bytes of memory, and one of 14 bytes can be had in a compressed layer."""

_MAX_SMALL = 4 << 20
_DIGITS = 13
_FORMAT = 1
_MARKED = 2
"""The format with a mark at its end."""
# Form 2 has no references between objects, which depend on who else holds them: equal lists give equal bytes.
_MARSHAL = 2
_MAX_RUNS = 1000
_PIECE = 1 << 15
_HEAD = struct.Struct("<cI")
"""How marshal begins what has a length."""
_UNIT = struct.Struct("<ci")
"""A number of 32 bits."""


class Summary(NamedTuple):
    """What is asked of a layer as a whole."""

    mark: int | None
    """As in `LayerIndex`."""
    times: frozenset[int]
    """All times of entries, in seconds."""
    has_compiled: bool
    """Whether a file of Python's compiler is among them."""


class LayerIndex:
    """The entries of one layer in the order of its tar, whiteouts included."""

    __slots__ = ("entries", "mark", "offsets", "small")

    def __init__(
        self,
        entries: list[Entry],
        offsets: list[int],
        small: dict[bytes, bytes] | None = None,
        mark: int | None = None,
    ) -> None:
        self.entries = entries
        self.offsets = offsets
        """Of each entry's content in the uncompressed tar, in bytes."""
        self.small = small or {}
        """Content of those of `SMALL_FILES` that are regular files here."""
        self.mark = mark
        """The time in seconds of what the step wrote whose layer this is; see `files.settle`."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerIndex):
            return NotImplemented
        return (self.entries, self.offsets, self.small, self.mark) == (
            other.entries,
            other.offsets,
            other.small,
            other.mark,
        )

    __hash__ = None  # type: ignore[assignment] # mutable lists inside

    def __len__(self) -> int:
        return len(self.entries)

    def summary(self) -> Summary:
        times = frozenset(entry.mtime for entry in self.entries)
        return Summary(self.mark, times, any(is_compiled(entry.path) for entry in self.entries))

    def dumps(self) -> bytes:
        """The saved form: equal indexes give equal bytes."""
        columns = list(zip(*self.entries, strict=True))
        saved = (_FORMAT, columns, self.offsets, sorted(self.small.items()))
        return marshal.dumps(saved if self.mark is None else (_MARKED, *saved[1:], self.mark), _MARSHAL)

    @classmethod
    def loads(cls, data: bytes) -> LayerIndex:
        """Raises AerogelError `index.damaged` for what `dumps` of this version did not write."""
        try:
            version, columns, offsets, small, *mark = marshal.loads(data)  # noqa: S302 - own file, checked by the store
            if version != (_MARKED if mark else _FORMAT) or len(mark) > 1:
                raise ValueError(version)
            entries = list(map(Entry._make, zip(*columns, strict=True)))
            if len(entries) != len(offsets):
                raise ValueError(len(offsets))
            return cls(entries, offsets, dict(small), *mark)
        except (ValueError, TypeError, EOFError) as error:
            raise AerogelError("the index of a layer is damaged or of another version", code="index.damaged") from error


class IndexWriter:
    """An index in the making, whose entries are not held as objects: `pieces` are what `LayerIndex.dumps` gives."""

    __slots__ = ("_columns", "_count", "_has_compiled", "_times", "mark", "small")

    def __init__(self) -> None:
        self._columns = tuple(_Column() for _ in (*Entry._fields, "offset"))
        self._count = 0
        self._times: set[int] = set()
        self._has_compiled = False
        self.small: dict[bytes, bytes] = {}
        """As in `LayerIndex`."""
        self.mark: int | None = None

    def __len__(self) -> int:
        return self._count

    def summary(self) -> Summary:
        return Summary(self.mark, frozenset(self._times), self._has_compiled)

    def add(self, entry: Entry, offset: int) -> None:
        """The next entry, and where its content begins in the tar."""
        self._count += 1
        self._times.add(entry.mtime)
        self._has_compiled = self._has_compiled or is_compiled(entry.path)
        for column, value in zip(self._columns, (*entry, offset), strict=True):
            column.add(value)

    def pieces(self) -> Iterator[bytes | bytearray]:
        """The saved form. May be asked for again."""
        size = struct.pack("<I", self._count)
        is_marked = self.mark is not None
        yield b"(" + struct.pack("<I", 4 + is_marked) + marshal.dumps(_MARKED if is_marked else _FORMAT, _MARSHAL)
        yield b"[" + struct.pack("<I", len(Entry._fields) if self._count else 0)
        for column in self._columns[:-1] if self._count else ():
            yield b"(" + size
            yield from column.pieces()
        yield b"[" + size
        yield from self._columns[-1].pieces()
        yield marshal.dumps(sorted(self.small.items()), _MARSHAL)
        if is_marked:
            yield marshal.dumps(self.mark, _MARSHAL)


class _Column:
    """The values of one field of all entries: as they are saved, equal ones behind each other once."""

    __slots__ = ("_data", "_full", "_last", "_packed", "_runs", "_times")

    def __init__(self) -> None:
        self._runs: list[tuple[bytes, int]] | None = []
        self._full: list[bytes] = []
        self._data = bytearray()
        """What was before, when there are many runs, behind what is full: one that grows for long leaves holes."""
        self._last: object = None
        self._packed = b""
        self._times = 0

    def add(self, value: Any) -> None:
        if self._times and value == self._last:
            self._times += 1
            return
        self._end()
        self._last, self._packed, self._times = value, marshal.dumps(value, _MARSHAL), 1

    def _end(self) -> None:
        if not self._times:
            return
        if self._runs is None:
            self._data += self._packed * self._times
            if len(self._data) > _PIECE:
                self._full.append(bytes(self._data))
                self._data.clear()
            return
        self._runs.append((self._packed, self._times))
        if len(self._runs) > _MAX_RUNS:
            self._data += b"".join(packed * times for packed, times in self._runs)
            self._runs = None

    def pieces(self) -> Iterator[bytes | bytearray]:
        yield from self._full
        yield self._data
        for packed, times in self._runs or ():
            yield packed * times
        yield self._packed * self._times


def read_summary(stream: BinaryIO) -> Summary | None:
    """The summary of a saved index, without its entries; None when it takes those to tell.

    That is when the layer is marked, or a number takes more than 32 bits.
    """
    unit = _UNIT.size
    head = stream.read(2 * unit + _HEAD.size)
    if head[: 2 * unit] != b"(" + struct.pack("<I", 4) + marshal.dumps(_FORMAT, _MARSHAL):
        return None
    kind, columns = _HEAD.unpack(head[2 * unit :])
    if kind != b"[" or columns != len(Entry._fields):
        return None
    _, count = _HEAD.unpack(stream.read(_HEAD.size))
    has_compiled = False
    for _ in range(count):
        path = stream.read(_HEAD.unpack(stream.read(_HEAD.size))[1])
        has_compiled = has_compiled or is_compiled(path)
    times: set[int] = set()
    for field in Entry._fields[1 : Entry._fields.index("mtime") + 1]:
        stream.read(_HEAD.size)
        left = count
        while left:
            some = min(left, _MAX_RUNS)
            block = stream.read(some * unit)
            if block[::unit] != b"i" * some:
                return None
            if field == "mtime":
                times.update(number for _, number in _UNIT.iter_unpack(block))
            left -= some
    return Summary(None, frozenset(times), has_compiled)


class _Tee:
    """Reads a stream to the end and hands every byte on."""

    __slots__ = ("_copy", "_stream")

    def __init__(self, stream: Readable, copy: Callable[[bytes], Any]) -> None:
        self._stream = stream
        self._copy = copy

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if data:
            self._copy(data)
        return data


def build_index(
    stream: Readable,
    tee: Callable[[bytes], Any] | None = None,
    *,
    keep: Iterable[bytes] = SMALL_FILES,
) -> LayerIndex:
    """The index of a tar stream, which is read to its very end; `tee` gets every byte (a `LayerWriter.write`, say).

    `keep` are the paths whose content is held in `small`. Raises AerogelError `tar.*`
    (`tar.too-many-entries`).
    """
    source = _Tee(stream, tee) if tee is not None else stream
    wanted = frozenset(keep)
    entries: list[Entry] = []
    offsets: list[int] = []
    small: dict[bytes, bytes] = {}
    notes: dict[bytes, bytes] = {}
    for entry, content in read_entries(source, notes):
        if len(entries) == MAX_ENTRIES:
            raise AerogelError(
                f"a layer has more than {MAX_ENTRIES} entries",
                code="tar.too-many-entries",
                hints=["a layer of so many files is damaged or hostile; a RUN that makes so many can be made two"],
            )
        entries.append(entry)
        offsets.append(content.offset)
        if entry.path in wanted:
            small.pop(entry.path, None)
            if entry.kind == REG and entry.size <= _MAX_SMALL:
                small[entry.path] = content.read()
    while source.read(CHUNK):
        pass
    return LayerIndex(entries, offsets, small, mark_of(notes))


def mark_of(notes: dict[bytes, bytes]) -> int | None:
    """The mark among the global records of a layer's tar."""
    text = notes.get(MARK, b"")
    return int(text) if text.isdigit() and len(text) < _DIGITS else None
