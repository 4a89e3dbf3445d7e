"""COPY's rules, one case for each sentence of the reference, on trees without any file behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.files.chmod import parse_chmod
from aerogel.files.copy import CopyError, CopyOptions, plan_copy, plan_directory
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry
from aerogel.files.host import HostTree
from aerogel.files.index import LayerIndex
from aerogel.files.owner import parse_owner
from aerogel.files.tree import LayerTree


def tree(*rows: str, small: dict[bytes, bytes] | None = None) -> LayerTree:
    """Rows: `path` (a file), `path/` (a directory), `path -> target`, `path = target` (a hard link), each `:mode:uid`."""
    entries = []
    for row in rows:
        words, _, more = row.partition(":")
        mode, _, owner = more.partition(":")
        uid = int(owner or "7")
        if " -> " in words:
            path, _, link = words.partition(" -> ")
            entries.append(Entry(path.encode(), SYM, 0o777, uid, uid, link=link.encode()))
        elif " = " in words:
            path, _, link = words.partition(" = ")
            entries.append(Entry(path.encode(), LNK, 0o644, uid, uid, link=link.encode()))
        elif words.endswith("/"):
            entries.append(Entry(words[:-1].encode(), DIR, int(mode or "755", 8), uid, uid, mtime=9))
        else:
            entries.append(Entry(words.encode(), REG, int(mode or "644", 8), uid, uid, len(words), 9))
    return LayerTree([LayerIndex(entries, [0] * len(entries), small)])


SOURCE = tree(
    "a.txt", "b.txt:600", "c.md", "[odd]",
    "dir/:700", "dir/one", "dir/sub/:711", "dir/sub/two", "dir/sub/three.md", "dir/in -> ../a.txt",
    "empty/", "link -> a.txt", "dirlink -> dir", "out -> /../../dir/one", "loop -> loop",
    "hard1", "hard2 = hard1", "x/y/z/deep", "x/y/other",
)  # fmt: skip

TARGET = tree(
    "etc/:750:3",
    "etc/conf",
    "app/:701:5",
    "app/old",
    "app/sub/:777:5",
    "usr/",
    "usr/bin/",
    "bin -> usr/bin",
    "f",
    "dang -> /new/place",
)


def copied(words: str, target: LayerTree = TARGET, **options: object) -> list[str]:
    """What `COPY words` gives: `path <- source` or `path/`, with what differs from the plain."""
    *sources, dest = words.split()
    out = []
    options_ = CopyOptions(epoch=42, **options)  # type: ignore[arg-type] # of the test
    for item in plan_copy(SOURCE, sources, dest, target, options_):
        path, kind, mode, uid, gid, _, mtime, link, _, _ = item.entry
        source = item.source
        assert uid == gid
        assert mtime == 42 or (target.lookup(path) is not None and kind == DIR)
        shown = path.decode() + ("/" if kind == DIR else "")
        if kind == REG:
            assert source is not None
            shown += f" <- {source.decode()}"
        elif link:
            shown += (" -> " if kind == SYM else " = ") + link.decode()
        plain = {DIR: 0o755, REG: 0o644, LNK: 0o644, SYM: 0o777}[kind]
        out.append(shown + (f" {mode:o}" if mode != plain else "") + (f" {uid}" if uid else ""))
    return out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a.txt /x", ["x <- a.txt"]),
        ("a.txt /x/", ["x/", "x/a.txt <- a.txt"]),
        ("a.txt /x/y/z", ["x/", "x/y/", "x/y/z <- a.txt"]),
        ("a.txt /app", ["app/ 701 5", "app/a.txt <- a.txt"]),
        ("a.txt /app/old", ["app/ 701 5", "app/old <- a.txt"]),
        ("a.txt /f", ["f <- a.txt"]),
        ("a.txt /", ["a.txt <- a.txt"]),
        ("a.txt c.md /new/", ["new/", "new/a.txt <- a.txt", "new/c.md <- c.md"]),
        ("b.txt /b", ["b <- b.txt 600"]),
        ("dir /new", ["new/", "new/in -> ../a.txt", "new/one <- dir/one", "new/sub/ 711", "new/sub/three.md <- dir/sub/three.md", "new/sub/two <- dir/sub/two"]),
        ("dir/ /app/", ["app/ 701 5", "app/in -> ../a.txt", "app/one <- dir/one", "app/sub/ 711", "app/sub/three.md <- dir/sub/three.md", "app/sub/two <- dir/sub/two"]),
        ("dir/sub /", ["three.md <- dir/sub/three.md", "two <- dir/sub/two"]),
        ("empty /app", []),
        ("empty /e", ["e/"]),
        ("*.txt /t/", ["t/", "t/a.txt <- a.txt", "t/b.txt <- b.txt 600"]),
        ("d*r/o?e /t/", ["t/", "t/one <- dir/one"]),
        ("nothing* /t/", []),
        ("[[]odd] /t", ["t <- [odd]"]),
        ("\\[odd\\] /t/", ["t/", "t/[odd] <- [odd]"]),
        ("link /t/", ["t/", "t/link <- a.txt"]),
        ("l[i]nk /t/", ["t/", "t/link <- a.txt"]),
        ("dirlink /t", ["t/", "t/in -> ../a.txt", "t/one <- dir/one", "t/sub/ 711", "t/sub/three.md <- dir/sub/three.md", "t/sub/two <- dir/sub/two"]),
        ("dirlink/sub/two /t", ["t <- dir/sub/two"]),
        ("out /t", ["t <- dir/one"]),
        ("../../a.txt /t", ["t <- a.txt"]),
        ("/a.txt /../../t", ["t <- a.txt"]),
        ("dir/sub/../one /t", ["t <- dir/one"]),
        ("a.txt /bin/", ["usr/ 7", "usr/bin/ 7", "usr/bin/a.txt <- a.txt"]),
        ("a.txt /bin/b", ["usr/ 7", "usr/bin/ 7", "usr/bin/b <- a.txt"]),
        ("a.txt /dang", ["new/", "new/place <- a.txt"]),
        ("a.txt /dang/", ["new/", "new/place/", "new/place/a.txt <- a.txt"]),
        ("hard2 hard1 a.txt /h/", ["h/", "h/a.txt <- a.txt", "h/hard1 <- hard1", "h/hard2 <- hard2"]),
        ("hard2 /h", ["h <- hard2"]),
        ("a.txt b.txt /same", ["same <- b.txt 600"]),
    ],
)  # fmt: skip
def test_destination_rules(words: str, expected: list[str]) -> None:
    assert copied(words) == expected


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("dir /f", "copy.not-directory"),
        ("a.txt /f/x", "copy.not-directory"),
        ("a.txt /f/", "copy.not-directory"),
        ("a.txt /app/old/x/y", "copy.not-directory"),
        ("missing /t", "copy.missing"),
        ("dir/missing /t", "copy.missing"),
        ("a.txt/below /t", "copy.missing"),
        ("loop /t", "tree.loop"),
        ("[a /t", "copy.bad-pattern"),
    ],
)
def test_refusals(words: str, code: str) -> None:
    with pytest.raises(AerogelError) as caught:
        copied(words)
    assert caught.value.code == code


def test_a_flag_among_the_sources_says_where_it_belongs() -> None:
    with pytest.raises(AerogelError) as caught:
        copied("a.txt --chmod=755 /t")
    assert caught.value.message == "`--chmod=755` is not in the source"
    assert caught.value.hints == ("flags come before the first source",)


def test_file_over_directory_and_back() -> None:
    with pytest.raises(AerogelError) as caught:
        copied("dir /", target=tree("one/", "one/x"))
    assert caught.value.code == "copy.is-directory"
    with pytest.raises(AerogelError) as caught:
        copied("dir /", target=tree("sub"))
    assert caught.value.code == "copy.not-directory"


def test_owner_and_mode() -> None:
    assert copied("a.txt /x/y/z", chown=(5, 5)) == ["x/ 5", "x/y/ 5", "x/y/z <- a.txt 5"]
    assert copied("a.txt /app/n", chown=(9, 9)) == ["app/ 701 5", "app/n <- a.txt 9"]
    assert copied("a.txt /x/z", keep_owner=True) == ["x/", "x/z <- a.txt 7"]
    assert copied("a.txt link /x/", chmod=parse_chmod("4750")) == [
        "x/ 750",
        "x/a.txt <- a.txt 4750",
        "x/link <- a.txt 4750",
    ]
    assert copied("dir /d", chmod=parse_chmod("u=rwX,go=rX")) == [
        "d/", "d/in -> ../a.txt", "d/one <- dir/one", "d/sub/", "d/sub/three.md <- dir/sub/three.md", "d/sub/two <- dir/sub/two",
    ]  # fmt: skip
    assert copied("b.txt /b", chmod=parse_chmod("a+x,g+w")) == ["b <- b.txt 731"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("x/y/z/deep /p/", ["p/", "p/x/", "p/x/y/", "p/x/y/z/", "p/x/y/z/deep <- x/y/z/deep"]),
        ("x/./y/z/deep /p/", ["p/", "p/y/", "p/y/z/", "p/y/z/deep <- x/y/z/deep"]),
        ("./dir/./sub /p", ["p/", "p/sub/ 711", "p/sub/three.md <- dir/sub/three.md", "p/sub/two <- dir/sub/two"]),
        ("**/*.md /p/", ["p/", "p/c.md <- c.md", "p/dir/ 700", "p/dir/sub/ 711", "p/dir/sub/three.md <- dir/sub/three.md"]),
        ("none/* /p/", ["p/"]),
    ],
)  # fmt: skip
def test_parents(words: str, expected: list[str]) -> None:
    assert copied(words, parents=True) == expected


def test_parents_of_a_missing_path() -> None:
    with pytest.raises(AerogelError) as caught:
        copied("x/none /p/", parents=True)
    assert caught.value.code == "copy.missing"


def test_exclude() -> None:
    assert copied("dir /d", exclude=("**/*.md", "in")) == [
        "d/",
        "d/one <- dir/one",
        "d/sub/ 711",
        "d/sub/two <- dir/sub/two",
    ]
    assert copied("dir /d", exclude=("sub", "!sub/two", "in")) == [
        "d/",
        "d/one <- dir/one",
        "d/sub/ 711",
        "d/sub/two <- dir/sub/two",
    ]
    assert copied("dir /d", exclude=("*",)) == ["d/"]


def test_workdir() -> None:
    def made(path: str) -> list[tuple[bytes, int, int]]:
        items = plan_directory(path, TARGET, owner=(5, 6), mode=0o755, epoch=42)
        return [(item.entry.path, item.entry.uid, item.entry.gid) for item in items]

    assert made("/app") == made("/") == made("/bin") == []
    assert made("/app/new/dir") == [(b"app", 5, 5), (b"app/new", 5, 6), (b"app/new/dir", 5, 6)]
    with pytest.raises(AerogelError) as caught:
        made("/f/x")
    assert caught.value.code == "copy.not-directory"


def test_owner_names() -> None:
    accounts = {b"etc/passwd": b"root:x:0:0::/:\nweb:x:33:34::/:\n", b"etc/group": b"adm:x:4:\n"}
    target = tree("etc/", "etc/passwd", "etc/group", small=accounts)
    for spec, expected in {
        "web": (33, 34),
        "web:adm": (33, 4),
        "5": (5, 5),
        "5:6": (5, 6),
        "0:adm": (0, 4),
        ":adm": (0, 4),
        "web:": (33, 34),
    }.items():
        assert parse_owner(spec, target) == expected
    for spec, code in {
        "wep": "copy.no-user",
        "web:x": "copy.no-group",
        ":": "copy.bad-owner",
        "": "copy.bad-owner",
    }.items():
        with pytest.raises(AerogelError) as caught:
            parse_owner(spec, target)
        assert caught.value.code == code


class Walked(LayerTree):
    """A tree that counts how often it is walked whole."""

    walks = 0

    def walk(self, path: bytes = b"") -> Iterator[Entry]:
        self.walks += 1
        return super().walk(path)


def test_a_folder_into_an_empty_place_is_not_held() -> None:
    rows = [Entry(b"d", DIR, 0o755), *(Entry(b"d/%d" % n, REG, 0o644, size=1) for n in range(100, 200))]
    source = Walked([LayerIndex(rows, [0] * len(rows))])
    planned = plan_copy(source, ["d"], "/app", LayerTree([]), CopyOptions())
    before = source.walks
    assert len(planned) == 101
    assert list(planned) == list(planned)
    assert source.walks == before + 2
    assert [item.entry.path for item in planned][:2] == [b"app", b"app/100"]


def test_a_folder_with_a_name_of_a_removal(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / ".wh.x").touch()
    source = HostTree(tmp_path)
    with pytest.raises(CopyError) as caught:
        plan_copy(source, ["d"], "/app", LayerTree([]), CopyOptions())
    source.close()
    assert (caught.value.code, caught.value.word) == ("copy.whiteout-name", "d/e/.wh.x")


@pytest.mark.parametrize(
    "words", ["dir /app/new", "dir /", "dir x /app", "x dir /n", "dir dir /n", "/ /all", "/ /", "empty /e"]
)
def test_planned_at_once_or_as_it_is_asked_for(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *sources, dest = words.split()
    for target in (TARGET, LayerTree([])):
        at_once = []
        for streams in (True, False):
            if not streams:
                monkeypatch.setattr("aerogel.files.copy._Planner._is_free", lambda *_: False)
            try:
                at_once.append(list(plan_copy(SOURCE, sources, dest, target, CopyOptions())))
            except CopyError as error:
                at_once.append([error.code])
        monkeypatch.undo()
        assert at_once[0] == at_once[1]
