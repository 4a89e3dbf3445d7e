"""What COPY, ADD and WORKDIR put into a layer, computed on trees: nothing is read, nothing is made.

The result is the sorted entries of the layer and, for each regular file, the path in the source tree whose content it
has. Every parent directory stands in the layer once: a new one as the instruction makes it, an existing one as it is.
Standard library only. Spec: the Dockerfile reference, COPY (destination rules, `--parents`, `--exclude`); BuildKit's
tests say what the prose leaves open.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import NamedTuple

from aerogel.errors import AerogelError, nearest
from aerogel.files.chmod import Chmod
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry, directory, parents, shown, sort_key
from aerogel.files.glob import has_wildcard, matcher, unescape
from aerogel.files.graft import CopyError, CopyItem, Graft, Grafted, check_name, or_link
from aerogel.files.pattern import PatternMatcher
from aerogel.files.tree import Tree, follow

__all__ = ["CopyError", "CopyItem", "CopyOptions", "plan_copy", "plan_directory", "plan_inline"]


class CopyOptions(NamedTuple):
    """How to copy. `chown` is (uid, gid); without it the owner is 0:0, or the source's with `keep_owner`.

    `epoch` (seconds since 1970) is the time of everything copied or made; None keeps those of the source. `exclude` are ignore-file patterns, matched
    below each copied source. `unpack` gives the entries of a file that is an archive, or None; such a file is extracted.
    """

    chown: tuple[int, int] | None = None
    chmod: Chmod | None = None
    keep_owner: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    epoch: int | None = 0
    unpack: Callable[[bytes], Sequence[Entry] | None] | None = None


def plan_copy(
    source: Tree, patterns: Sequence[str], dest: str, target: Tree, options: CopyOptions
) -> Collection[CopyItem]:
    """The layer that copies what the patterns name in `source` to `dest` (absolute) in `target`, in its order.

    A folder that goes where nothing is yet is not held: its items are made anew each time that they are gone through,
    so the trees must stay open. Raises CopyError `copy.missing`, `copy.not-directory`, `copy.is-directory`,
    AerogelError `copy.bad-pattern`.
    """
    planner = _Planner(source, target, options)
    for left, pattern in zip(range(len(patterns) - 1, -1, -1), patterns, strict=True):
        try:
            if options.parents:
                planner.with_parents(pattern, dest)
            else:
                for path, name in _matches(source, pattern):
                    planner.settle()
                    planner.one(path, name, dest)
            if not left:
                return planner.items()
            planner.settle()
        except CopyError:
            raise
        except AerogelError as error:
            raise CopyError.about(pattern, error) from error
    return planner.items()


def plan_directory(
    path: str, target: Tree, *, owner: tuple[int, int], mode: int, epoch: int | None
) -> Collection[CopyItem]:
    """The layer of a WORKDIR: the missing directories, or nothing. Raises CopyError `copy.not-directory`."""
    planner = _Planner(target, target, CopyOptions(chown=owner, epoch=epoch))
    planner.make(planner.resolve(_relative(path)), path, mode)
    return planner.items()


def plan_inline(
    name: bytes, size: int, dest: str, target: Tree, options: CopyOptions, mode: int = 0o644
) -> Collection[CopyItem]:
    """The layer with one file that is in no tree: its content is the caller's; `source` is its name."""
    planner = _Planner(target, target, options)
    planner.inline(Entry(name, REG, mode, 0, 0, size, planner.now), name, dest)
    return planner.items()


class _Planner:
    """The layer in the making: `made` is what it holds so far, by path in the target."""

    def __init__(self, source: Tree, target: Tree, options: CopyOptions) -> None:
        self.source = source
        self.target = target
        self.options = options
        self.exclude = PatternMatcher(options.exclude) if options.exclude else None
        self.made: dict[bytes, CopyItem] = {}
        self.inodes: dict[bytes, Hashable] = {}
        self.word = 0
        self.now = int(time.time()) if options.epoch is None else options.epoch
        """The time of what the source does not have."""
        self.cleared: set[bytes] = set()
        """Directories of the target that a file of an archive replaced."""
        self.last: tuple[bytes, bytes, str] | None = None
        """A folder, its place and destination as asked for: asked for last, and not yet put."""

    # The target as it is with what was copied so far.

    def at(self, path: bytes) -> Entry | None:
        """What is at a path of the target; nothing below a file that replaced a directory's place."""
        item = self.made.get(path)
        if item is not None:
            return item.entry
        if self.cleared and any(each in self.cleared for each in (path, *parents(path))):
            return None
        return self.target.lookup(path)

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """The path with symbolic links followed inside the target."""
        return follow(path, self.at, follow_last=follow_last)

    def make(self, path: bytes, word: str, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
        """Makes a directory and its missing parents, with the instruction's owner unless another is given."""
        chmod = self.options.chmod
        if mode is None:
            # BuildKit's mkdir drops the special bits.
            mode = chmod.mode & 0o777 if chmod is not None and chmod.mode is not None else 0o755
        uid, gid = owner or self.options.chown or (0, 0)
        for each in [*parents(path), path]:
            if not each:
                continue
            found = self.at(each)
            if found is None:
                self._put(directory(each, mode=mode, uid=uid, gid=gid, mtime=self.now), None, None)
            elif found.kind != DIR:
                raise CopyError(
                    f"`/{shown(each)}` is a file, so nothing can be put below it",
                    code="copy.not-directory",
                    word=word,
                    hints=["choose another destination, or remove the file in an earlier step"],
                )

    def _put(self, entry: Entry, source: bytes | None, inode: Hashable | None) -> None:
        check_name(entry.path, source)
        self.made[entry.path] = CopyItem(entry, source)
        if inode is None:
            self.inodes.pop(entry.path, None)
        else:
            self.inodes[entry.path] = inode

    # What an instruction asks for.

    def one(self, path: bytes, name: bytes, dest: str) -> None:
        """One source; `name` is its last component as it was asked for."""
        self.word += 1
        found = self.source.lookup(path)
        if found is None:
            raise AssertionError(path)
        if found.kind == REG and self.options.unpack is not None:
            entries = self.options.unpack(path)
            if entries is not None:
                self._extract(path, entries, dest)
                return
        place = self._place(dest, name, is_dir=found.kind == DIR)
        if found.kind == DIR:
            self.last = (path, place, dest)
        else:
            self._entry(found, path, place, dest)

    def settle(self) -> None:
        """Puts what was asked for last: something else comes, which may go to the same places."""
        if self.last is not None:
            (path, place, dest), self.last = self.last, None
            self._children(path, b"", place, dest, None)

    def _extract(self, archive: bytes, entries: Sequence[Entry], dest: str) -> None:
        """The contents of an archive into a directory, as it says: no `--chmod`, and its owners unless `--chown`.

        What is in the way goes, but a directory stays for a directory. Links lead as if the destination were the root.
        """
        root = self.resolve(_relative(dest))
        self.make(root, dest, 0o755)
        by_path = {entry.path: entry for entry in entries}
        for entry in entries:
            if not entry.path:
                continue
            above, _, name = entry.path.rpartition(b"/")
            parent = _join(root, follow(above, lambda path: self.at(_join(root, path))))
            self.make(parent, dest, 0o755, (0, 0))
            place = _join(parent, name)
            file = _linked(entry, by_path, archive)
            self._clear(place, entry, archive)
            uid, gid = self.options.chown or (file.uid, file.gid)
            changed = file._replace(path=place, uid=uid, gid=gid, mtime=self._time(file))
            is_file = file.kind == REG
            self._put(changed, file.path if is_file else None, (archive, file.path) if is_file else None)
            self.made[place] = self.made[place]._replace(archive=archive)

    def _clear(self, place: bytes, entry: Entry, archive: bytes) -> None:
        """Makes room for an entry of an archive."""
        there = self.at(place)
        if there is None or there.kind == entry.kind == DIR:
            return
        if entry.kind == DIR and place in self.cleared:
            raise CopyError(
                f"the archive `{shown(archive)}` puts the directory `{shown(entry.path)}` onto its own file of that name",
                code="copy.archive",
                word=shown(archive),
            )
        if there.kind == DIR:
            if self.target.lookup(place) is not None:
                self.cleared.add(place)
            for path in [each for each in self.made if each.startswith(place + b"/")]:
                del self.made[path]
                self.inodes.pop(path, None)

    def inline(self, entry: Entry, name: bytes, dest: str) -> None:
        """A file that the source tree does not have."""
        place = self._place(dest, name, is_dir=False)
        self._check_replaceable(place, dest)
        self._put(self.changed(entry, place), name, None)

    def _place(self, dest: str, name: bytes, *, is_dir: bool) -> bytes:
        """Where a source goes; its directory is made."""
        if dest.endswith("/"):
            self.make(self.resolve(_relative(dest)), dest)
        place = self.resolve(_relative(dest))
        found = self.at(place) if place else directory(b"")
        if is_dir:
            if found is not None and found.kind != DIR:
                raise CopyError(
                    f"`{dest}` is a file, and a directory is copied there",
                    code="copy.not-directory",
                    word=dest,
                    hints=["choose another destination, or remove the file in an earlier step"],
                )
            self.make(place, dest)
            return place
        if found is not None and found.kind == DIR:
            place = place + b"/" + name if place else name
        self.make(place.rpartition(b"/")[0], dest)
        return place

    def _children(
        self, path: bytes, below: bytes, place: bytes, dest: str, pending: tuple[_Pending, ...] | None
    ) -> None:
        """What is in a directory, recursively; `below` is where we are under the copied source."""
        for name in self.source.children(path):
            inner = path + b"/" + name if path else name
            rest = below + b"/" + name if below else name
            to = place + b"/" + name if place else name
            found = self.source.lookup(inner)
            if found is None:
                continue
            excluded = self.exclude is not None and self.exclude.matches(rest)
            if found.kind == DIR:
                if not excluded:
                    self._wait_over(pending, dest)
                    self._merge(found, inner, to, dest)
                    self._children(inner, rest, to, dest, None)
                elif self.exclude is not None and self.exclude.has_exceptions:
                    # Something below may be excepted; the directory is made when that is seen.
                    self._children(inner, rest, to, dest, (*(pending or ()), _Pending(found, inner, to)))
            elif not excluded:
                self._wait_over(pending, dest)
                self._entry(found, inner, to, dest)

    def _wait_over(self, pending: tuple[_Pending, ...] | None, dest: str) -> None:
        """Makes the excluded directories above something that is not excluded, if they are not there."""
        for each in pending or ():
            if self.at(each.place) is None:
                self._merge(each.entry, each.path, each.place, dest)

    def _merge(self, found: Entry, path: bytes, place: bytes, dest: str) -> None:
        """A directory onto a place: a new one, or an existing one that takes owner and mode of the source."""
        there = self.at(place)
        if there is not None and there.kind != DIR:
            raise CopyError(
                f"`/{shown(place)}` is a file, and the directory `{shown(path)}` is copied there",
                code="copy.not-directory",
                word=dest,
                hints=["choose another destination, or remove the file in an earlier step"],
            )
        self._put(self.changed(found, place), None, None)

    def _entry(self, found: Entry, path: bytes, place: bytes, dest: str) -> None:
        """A file, link or device onto a place: what is there goes, unless it is a directory."""
        self._check_replaceable(place, dest)
        inode = self.source.inode(path) if found.kind == REG else None
        # Hard links stay within one source: BuildKit copies each by itself.
        self._put(self.changed(found, place), path if found.kind == REG else None, inode and (self.word, inode))

    def _check_replaceable(self, place: bytes, dest: str) -> None:
        there = self.at(place) if place else directory(b"")
        if there is not None and there.kind == DIR:
            raise CopyError(
                f"`/{shown(place)}` is a directory, and a file is copied there",
                code="copy.is-directory",
                word=dest,
                hints=["name the file below it, or remove the directory in an earlier step"],
            )

    def changed(self, found: Entry, place: bytes) -> Entry:
        """The entry as the layer has it: owner, mode and time of the instruction."""
        options = self.options
        _, kind, mode, uid, gid, size, mtime, link, rdev, xattrs = found
        if options.chown is not None:
            uid, gid = options.chown
        elif not options.keep_owner:
            uid = gid = 0
        if options.chmod is not None and kind != SYM:
            mode = options.chmod.apply(mode, is_dir=kind == DIR)
        time_s = mtime if options.epoch is None else options.epoch
        return Entry(place, kind, mode, uid, gid, size, time_s, link, rdev, xattrs)

    def _time(self, found: Entry) -> int:
        return found.mtime if self.options.epoch is None else self.options.epoch

    def with_parents(self, pattern: str, dest: str) -> None:
        """`--parents`: what the pattern matches keeps its path below the pivot `/./`, or below the root."""
        self.word += 1
        before, pivot, after = pattern.partition("/./")
        if not pivot:
            before, after = "", pattern
        root = self.source.resolve(_relative(before))
        wanted = _relative(after)
        if not any(has_wildcard(part) for part in (*_relative(before).split(b"/"), *wanted.split(b"/"))):
            path = _join(root, wanted)
            if self.source.lookup(path) is None:
                raise _missing(self.source, pattern)
        place = self.resolve(_relative(dest))
        self.make(place, dest)
        include = PatternMatcher([wanted.decode("utf-8", "surrogateescape")]) if wanted else None
        self._included(root, b"", place, dest, include, ())

    def _included(
        self,
        path: bytes,
        below: bytes,
        place: bytes,
        dest: str,
        include: PatternMatcher | None,
        pending: tuple[_Pending, ...],
    ) -> None:
        for name in self.source.children(path):
            inner, rest, to = _join(path, name), _join(below, name), _join(place, name)
            found = self.source.lookup(inner)
            if found is None:
                continue
            excluded = self.exclude is not None and self.exclude.matches(rest)
            wanted = not excluded and (include is None or include.matches(rest))
            if found.kind == DIR:
                below_pending = pending
                if wanted:
                    self._wait_over(pending, dest)
                    self._merge(found, inner, to, dest)
                else:
                    below_pending = (*pending, _Pending(found, inner, to))
                if not excluded or (self.exclude is not None and self.exclude.has_exceptions):
                    self._included(inner, rest, to, dest, include, below_pending)
            elif wanted:
                self._wait_over(pending, dest)
                self._entry(found, inner, to, dest)

    def items(self) -> Collection[CopyItem]:
        """The layer: sorted, with every parent, hard links after the file they are."""
        graft = None
        if self.last is not None:
            path, place, _ = self.last
            if self._is_free(place):
                graft = Graft(self.source, path, place, self.changed)
            else:
                self.settle()
        paths = [place + b"/"] if graft and place else []
        for path in [*self.made, *paths]:
            for parent in parents(path):
                if parent not in self.made:
                    found = self.target.lookup(parent) or directory(parent, mtime=self.now)
                    self.made[parent] = CopyItem(found, None)
        ordered = sorted(self.made.values(), key=lambda item: sort_key(item.entry))
        first: dict[Hashable, Entry] = {}
        for number, (entry, _, _) in enumerate(ordered):
            inode = self.inodes.get(entry.path)
            if inode is not None:
                ordered[number] = or_link(ordered[number], first, inode)
        return Grafted(ordered, graft) if graft else ordered

    def _is_free(self, place: bytes) -> bool:
        """Whether nothing is below a place, neither in the target nor of what was copied."""
        if self.exclude is not None or self.target.children(place):
            return False
        below = place + b"/"
        return not any(path.startswith(below) for path in self.made) if place else not self.made


def _linked(entry: Entry, by_path: dict[bytes, Entry], archive: bytes) -> Entry:
    """The file that a hard link of an archive is, through other hard links; anything else is itself."""
    file: Entry | None = entry
    for _ in by_path:
        if file is None or file.kind != LNK:
            break
        file = by_path.get(file.link)
    if file is None or file.kind == LNK or (file.kind == DIR and entry.kind == LNK):
        raise CopyError(
            f"the archive `{shown(archive)}` has `{shown(entry.path)}` as a hard link to `{shown(entry.link)}`, "
            "which is no file in it",
            code="copy.archive",
            word=shown(archive),
        )
    return file


class _Pending(NamedTuple):
    """A directory that is made only if something below it is copied."""

    entry: Entry
    path: bytes
    place: bytes


def _matches(source: Tree, pattern: str) -> Iterator[tuple[bytes, bytes]]:
    """The paths that a source word names, symbolic links followed, each with its name as it was asked for."""
    parts = [part for part in _relative(pattern).split(b"/") if part]
    plain = next((number for number, part in enumerate(parts) if has_wildcard(part)), len(parts))
    start = source.resolve(b"/".join(unescape(part) for part in parts[:plain]))
    if plain == len(parts):
        if source.lookup(start) is None:
            raise _missing(source, pattern)
        yield start, unescape(parts[-1]) if parts else b""
        return
    for path in _descend(source, start, parts[plain:]):
        name = path.rpartition(b"/")[2]
        followed = source.resolve(path)
        if source.lookup(followed) is None:
            raise _missing(source, shown(path))
        yield followed, name


def _descend(source: Tree, path: bytes, parts: list[bytes]) -> Iterator[bytes]:
    expression = matcher(parts[0])
    for name in source.children(path):
        if expression.fullmatch(name) is None:
            continue
        inner = _join(path, name)
        if len(parts) == 1:
            yield inner
        else:
            yield from _descend(source, inner, parts[1:])


def _missing(source: Tree, pattern: str) -> CopyError:
    """Says why there is nothing: an ignore rule, a wrong name, an empty folder."""
    wanted = _relative(pattern)
    slash = "/" if pattern.startswith("/") else ""
    hints: list[str] = []
    reason = source.explain(wanted)
    if re.match(r"--[a-z]+(?:-[a-z]+)*(?:=|$)", pattern):
        hints.append("flags come before the first source")
    elif reason:
        hints.append(reason)
    else:
        there = b""
        for part in [each for each in wanted.split(b"/") if each]:
            inner = _join(there, part)
            if source.lookup(inner) is None:
                names = [name.decode("utf-8", "replace") for name in source.children(there)]
                guess = nearest(part.decode("utf-8", "replace"), names)
                where = f"`{slash}{shown(there)}`" if there else f"the {source.title}"
                if guess:
                    hints.append(f"did you mean `{slash}{shown(_join(there, guess.encode()))}`?")
                elif names:
                    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                    hints.append(f"{where} has " + ", ".join(f"`{name}`" for name in names[:6]) + more)
                else:
                    hints.append(f"{where} is empty")
                break
            there = inner
        else:
            hints += _dangling(source, there, pattern)
    return CopyError(f"`{pattern}` is not in the {source.title}", code="copy.missing", word=pattern, hints=hints)


def _dangling(source: Tree, path: bytes, pattern: str) -> list[str]:
    """A hint for a path that is there but leads, by a symbolic link, to what is not."""
    for each in [*parents(path), path]:
        found = source.lookup(each)
        if found is not None and found.kind == SYM and source.lookup(source.resolve(each)) is None:
            name = pattern if each == path else shown(each)
            return [f"`{name}` is a symbolic link to `{shown(found.link)}`, which is not in the {source.title}"]
    return []


def _relative(path: str) -> bytes:
    """A path of an instruction as a tree has it: below the root, `..` stopped there."""
    return posixpath.normpath("/" + path).lstrip("/").encode("utf-8", "surrogateescape")


def _join(path: bytes, name: bytes) -> bytes:
    if not path or not name:
        return path or name
    return path + b"/" + name
