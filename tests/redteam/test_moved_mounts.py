"""What a step does to the places of its mounts: moved, removed, replaced by links, linked to. Nothing outside is touched.

Where nothing can be mounted, mounts are put into the tree and taken out again, by a process that the step's root does
not hold: it must not follow what the step left in their way. Debian packages: busybox-static, proot, util-linux.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from process import Aerogel
from small_image import HEAD

pytestmark = [
    pytest.mark.host("busybox", "proot", "setpriv"),
    pytest.mark.skipif(os.getuid() != 0, reason="root has all of these rungs, ordinary accounts have not"),
]

BASE = HEAD.replace("FROM scratch", "FROM scratch AS base", 1)
OUT = "CANARY"
MOVES = {
    "the folder of a cache becomes a link": ("cache", "/a/secret", f"mv /a /b; ln -s {OUT} /a"),
    "the folder of a tmpfs becomes a link": ("tmpfs", "/a/secret", f"mv /a /b; ln -s {OUT} /a"),
    "the folder of a bind becomes a link": ("bind", "/a/empty", f"mv /a /b; ln -s {OUT} /a"),
    "the folder of new folders becomes a link": ("tmpfs", "/q/folder/below", f"rm -rf /q; mkdir /q; ln -s {OUT}/folder /q/folder"),
    "a cache becomes a link": ("cache", "/c", f"rm -rf /c; mv /c /d; ln -s {OUT} /c"),
    "a cache becomes a file": ("cache", "/c", "rm -rf /c; mv /c /d; echo file >/c"),
    "a cache moves": ("cache", "/c", "echo x >/c/x; mv /c /d"),
    "a cache is removed": ("cache", "/c", "rm -rf /c"),
    "a cache is removed with the folder around it": ("cache", "/root/deep/c", "rm -rf /root"),
    "a cache is made again": ("cache", "/c", "rm -rf /c; mkdir /c; echo x >/c/x"),
    "the folder of hosts becomes a link": ("tmpfs", "/t", f"mv /etc /x; ln -s {OUT} /etc"),
    "the folder of hosts is removed": ("tmpfs", "/t", "rm -rf /etc"),
    "the devices become a link": ("tmpfs", "/t", f"rm -rf /dev/null; mv /dev /x; ln -s {OUT} /dev"),
    "the folder of a secret becomes a link": ("secret,id=s", "/a/hosts", f"rm -rf /a; ln -s {OUT} /a"),
}  # fmt: skip
"""Name: kind of the mount, its target, what the step does."""
RUNGS = {"root": [], "single": [], "chroot": [], "proot": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]}


class Confined(Aerogel):
    rung = "root"

    def argv(self, *words: str) -> list[str]:
        return [*RUNGS[self.rung], *super().argv(*words)]


def confined(folder: Path, rung: str) -> Confined:
    aerogel = Confined(folder / "state")
    aerogel.rung = rung
    aerogel.env |= {"AEROGEL_ISOLATION": rung, "AEROGEL_PROGRESS": "plain"}
    (folder / "context").mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "context/busybox")
    (folder / "context/f").write_text("from the context\n")
    (folder / "secret").write_text("sixteen letters of a secret")
    return aerogel


def canary(folder: Path) -> Path:
    place = folder / "canary"
    (place / "folder/below").mkdir(parents=True)
    for name in ("secret", "hosts", "hostname", "resolv.conf", "null", "empty"):
        (place / name).write_text("" if name == "empty" else f"the host's {name}")
    return place


def look(place: Path) -> list[tuple[object, ...]]:
    found = []
    for path in (place, *sorted(place.rglob("*"))):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path), about.st_mode, about.st_ino, about.st_uid, about.st_nlink, about.st_mtime_ns, content))
    return found


@pytest.mark.parametrize("rung", RUNGS)
def test_places_of_mounts(tmp_path: Path, rung: str) -> None:
    """A stage for each case: what it does to its mount, and the same mount again."""
    aerogel = confined(tmp_path, rung)
    text, last, before = BASE + "RUN mkdir -p /etc /a\n", "FROM scratch\n", {}
    for number, (kind, target, script) in enumerate(MOVES.values()):
        (tmp_path / str(number)).mkdir()
        outside = canary(tmp_path / str(number))
        before[outside] = look(outside)
        mount = f"--mount=type={kind},target={target}" + (f",id=red{number},uid=5,mode=0750" if kind == "cache" else "")
        text += f"FROM base AS s{number}\nRUN {mount} {script.replace(OUT, str(outside))}; true\n"
        text += f"RUN {mount} touch {target}/more 2>/dev/null; ls -ld {target}; echo {number} >/again\n"
        last += f"COPY --from=s{number} /again /{number}\n"
    (tmp_path / "context/Dockerfile").write_text(text + last)
    secret = f"id=s,src={tmp_path / 'secret'}"
    done = aerogel("build", "--secret", secret, str(tmp_path / "context"), check=False)
    for (name, _), (outside, old) in zip(MOVES.items(), before.items(), strict=True):
        assert look(outside) == old, (name, done.stderr)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "state/cache").glob("scratch/*"))
    listed = {one["id"] for one in aerogel.json("cache", "ls")["caches"]}
    assert listed == {f"red{number}" for number, (kind, *_) in enumerate(MOVES.values()) if kind == "cache"}


LINKS = """RUN --mount=type=cache,target=/c echo one >/c/f; echo own >/own
RUN --mount=type=cache,target=/c --mount=type=bind,target=/ctx --mount=type=bind,from=base,source=/bin,target=/st mkdir /got; \\
    ln /c/f /got/1; ln /ctx/f /got/2; ln /st/busybox /got/3; ln /own /c/own; cp -l /bin/busybox /c/b; for f in /got/*; do echo step >$f; done; echo step >>/own; true
RUN --mount=type=cache,target=/c cp -a /got /seen; for f in /c/*; do echo later >$f; done
RUN --mount=type=bind,target=/ctx cat /seen/* /got/* /own /ctx/f; cmp /bin/busybox /ctx/busybox && echo whole
"""


@pytest.mark.parametrize("rung", RUNGS)
def test_hard_links_to_what_is_lent(tmp_path: Path, rung: str) -> None:
    """A layer shares no file with a cache, a context or another layer: what a later step writes there is not in it."""
    aerogel = confined(tmp_path, rung)
    (tmp_path / "context/Dockerfile").write_text(f"{BASE}FROM base\n{LINKS}")
    first = aerogel("build", "--no-cache", str(tmp_path / "context"))
    assert "later" not in first.stderr.replace("echo later", "")
    assert "own\n" in first.stderr
    assert "whole\n" in first.stderr
    assert (tmp_path / "context/f").read_text() == "from the context\n"
    for path in (tmp_path / "state/cache/snapshots-v1").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in ("busybox", "Dockerfile"):
            assert b"later" not in path.read_bytes()
