"""The list of a layer's entries with where their content lies in the tar: what is asked of a layer without opening it.

Saved beside each layer as columns in `marshal` form (fifty thousand entries load in 30 ms). The account files are
held whole, so that `--chown=name` and `USER name` need no blob. Only for files that this program wrote: `marshal`
is not a format for what others send. Standard library only.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable
from typing import Any

from aerogel.errors import AerogelError
from aerogel.files.entry import REG, Entry
from aerogel.files.tar import CHUNK, Readable, read_entries

__all__ = ["MARK", "MAX_ENTRIES", "SMALL_FILES", "LayerIndex", "build_index", "mark_of"]

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
