"""The root file system as a tar and as a folder, by aerogel and by a real BuildKit: the same files."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import BASE, Aerogel, Buildkit, base_archive, buildkit
from cases import Case, populate
from cases_copy import TREE

pytestmark = [pytest.mark.host, pytest.mark.slow]

CASES = [
    Case("tree-copy", "FROM scratch\nCOPY . /app/\nCOPY --chown=7:8 setuid /bin/x\n", TREE),
    Case("tree-base", "FROM differential\nCOPY d /data/sub/d\n", TREE),
    Case(
        "tree-removed",
        "FROM differential\nRUN rm -r /data/sub /out; mkdir /data/sub; echo new >/data/sub/two; rm /tofile\n",
        {"a": ""},
    ),
    Case(
        "tree-links",
        "FROM differential\nRUN cd /real; echo 1 >f; ln f g; ln -s /nowhere s; chown 5:6 f; chmod 2750 .\n"
        "RUN ln /data/file /data/again; mkfifo -m 600 /pipe\n",
        {"a": ""},
    ),
    Case(
        "tree-stage", "FROM differential AS a\nRUN mkdir -m 1777 /o; echo 1 >/o/f\nFROM scratch\nCOPY --from=a /o /o\n"
    ),
]


class Kept(NamedTuple):
    """What both must agree on; times are aerogel's own."""

    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    digest: str
    link: str


def read_tar(path: Path) -> tuple[dict[str, Kept], set[frozenset[str]]]:
    found: dict[str, Kept] = {}
    groups: dict[str, set[str]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if not name or name == ".":
                continue
            if member.islnk():
                target = member.linkname.removeprefix("./").lstrip("/")
                groups.setdefault(target, {target}).add(name)
                found[name] = found[target]
                continue
            data = archive.extractfile(member) if member.isfile() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data is not None else ""
            kind = member.type.decode()
            mode = 0 if member.issym() else member.mode & 0o7777
            found[name] = Kept(kind, mode, (member.uid, member.gid), member.size, digest, member.linkname)
    return found, {frozenset(group) for group in groups.values()}


def read_folder(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Kind, mode and content; BuildKit gives everything to who runs its client, aerogel as root to the image's owners."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        name = str(path.relative_to(folder))
        content = os.readlink(path) if path.is_symlink() else path.read_text(errors="replace") if path.is_file() else ""
        mode = 0 if path.is_symlink() else stat.S_IMODE(state.st_mode)
        found[name] = (str(stat.S_IFMT(state.st_mode)), mode, content)
    return found


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Buildkit, Aerogel, Path]]:
    folder = tmp_path_factory.mktemp("trees")
    ours = Aerogel(folder)
    with buildkit(folder) as theirs:
        base_archive(folder / "base.tar")
        (folder / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
        assert theirs.build(BASE, folder / "Dockerfile", folder) == ""
        theirs.save([BASE], folder / "saved.tar")
        assert ours.client("load", "-i", str(folder / "saved.tar")).returncode == 0
        yield theirs, ours, folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_files(case: Case, builders: tuple[Buildkit, Aerogel, Path]) -> None:
    theirs, ours, folder = builders
    place = folder / case.name
    place.mkdir()
    (place / "Dockerfile").write_text(case.dockerfile)
    populate(place / "context", case.context)
    for form, dest in (("tar", "a.tar"), ("local", "a")):
        args = ("-o", f"type={form},dest={place / 'theirs' / dest}")
        (place / "theirs").mkdir(exist_ok=True)
        assert theirs.build(f"{case.name}:{form}", place / "Dockerfile", place / "context", args) == ""
    (place / "ours").mkdir()
    words = ["build", "--ca=none", "-f", str(place / "Dockerfile"), "-o", f"type=tar,dest={place}/ours/a.tar"]
    done = ours.client(*words, "-o", str(place / "ours/a"), str(place / "context"))
    assert done.returncode == 0, done.stderr.decode()
    assert read_tar(place / "ours/a.tar") == read_tar(place / "theirs/a.tar")
    assert read_folder(place / "ours/a") == read_folder(place / "theirs/a")
