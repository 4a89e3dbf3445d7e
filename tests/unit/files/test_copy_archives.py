"""What ADD makes of an archive: BuildKit's rules, which are those of moby's archive package."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aerogel.files.chmod import parse_chmod
from aerogel.files.copy import CopyError, CopyOptions, plan_copy
from aerogel.files.entry import DIR, LNK, REG, SYM, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree


def tree(*entries: Entry) -> LayerTree:
    return LayerTree([LayerIndex(list(entries), [0] * len(entries), {})])


def entry(path: str, kind: int = REG, mode: int = 0o644, owner: int = 7, link: str = "") -> Entry:
    return Entry(path.encode(), kind, mode, owner, owner, 3 if kind == REG else 0, 5, link.encode())


TARGET = tree(
    entry("dir", DIR, 0o755, 0),
    entry("dir/sub", DIR, 0o755, 0),
    entry("dir/sub/file", owner=0),
    entry("link", SYM, 0o777, 0, "dir"),
    entry("plain", owner=0),
)
SOURCE = tree(entry("a.tar"))


def extracted(archive: Sequence[Entry], dest: str, chown: tuple[int, int] | None = None, chmod: str = "") -> list[str]:
    options = CopyOptions(chown=chown, chmod=parse_chmod(chmod) if chmod else None, epoch=1, unpack=lambda _: archive)
    found = []
    for item in plan_copy(SOURCE, ["a.tar"], dest, TARGET, options):
        it = item.entry
        link = f" -> {it.link.decode()}" if it.link else ""
        found.append(f"{it.path.decode()}{'/' * (it.kind == DIR)} {it.mode:o} {it.uid}:{it.gid}{link}")
    return found


def test_owners_and_modes_are_the_archives() -> None:
    archive = [entry("d", DIR, 0o750), entry("d/f", mode=0o4711, owner=8), entry("no/parents", owner=9)]
    made = ["new/ 755 0:0", "new/d/ 750 7:7", "new/d/f 4711 8:8", "new/no/ 755 0:0", "new/no/parents 644 9:9"]
    assert extracted(archive, "/new/") == made
    assert extracted(archive, "/new/", chmod="600") == made
    assert extracted(archive, "/new/", chown=(1, 2)) == [
        "new/ 755 1:2",
        "new/d/ 750 1:2",
        "new/d/f 4711 1:2",
        "new/no/ 755 0:0",
        "new/no/parents 644 1:2",
    ]


def test_what_is_in_the_way_goes() -> None:
    assert extracted([entry("dir/sub")], "/") == ["dir/ 755 0:0", "dir/sub 644 7:7"]
    assert extracted([entry("plain", DIR), entry("plain/x")], "/") == ["plain/ 644 7:7", "plain/x 644 7:7"]
    assert extracted([entry("link", DIR, 0o700), entry("link/x")], "/") == ["link/ 700 7:7", "link/x 644 7:7"]
    assert extracted([entry("dir", DIR, 0o700)], "/") == ["dir/ 700 7:7"]


def test_a_file_of_the_archive_is_no_directory_again() -> None:
    with pytest.raises(CopyError) as caught:
        extracted([entry("dir/sub"), entry("dir/sub", DIR)], "/")
    assert caught.value.code == "copy.archive"


def test_links_lead_inside_the_destination() -> None:
    archive = [entry("d", DIR, 0o755), entry("l", SYM, 0o777, link="/d"), entry("l/x")]
    assert extracted(archive, "/q") == ["q/ 755 0:0", "q/d/ 755 7:7", "q/d/x 644 7:7", "q/l 777 7:7 -> /d"]
    assert extracted([entry("link/x")], "/") == ["dir/ 755 0:0", "dir/x 644 7:7"]


def test_hard_links() -> None:
    archive = [entry("f"), entry("g", LNK, link="f"), entry("h", LNK, link="g"), entry("s", SYM, 0o777, link="f")]
    archive.append(entry("t", LNK, link="s"))
    assert extracted(archive, "/q") == [
        "q/ 755 0:0",
        "q/f 644 7:7",
        "q/g 644 7:7 -> q/f",
        "q/h 644 7:7 -> q/f",
        "q/s 777 7:7 -> f",
        "q/t 777 7:7 -> f",
    ]


@pytest.mark.parametrize("target", ["none", "d", "a"])
def test_a_hard_link_to_no_file(target: str) -> None:
    archive = [
        entry("d", DIR, 0o755),
        entry("a", LNK, link="b"),
        entry("b", LNK, link="a"),
        entry("h", LNK, link=target),
    ]
    with pytest.raises(CopyError) as caught:
        extracted(archive[:1] + archive[3:] if target != "a" else archive, "/q")
    assert caught.value.code == "copy.archive"
