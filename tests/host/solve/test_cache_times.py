"""What make does with products in a cache mount: a source that changed is newer than they are, whatever its layer says.

Debian packages: busybox-static, make.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = pytest.mark.host("busybox")

SOURCES = ("a", "b", "c")
MAKEFILE = """\
all: $(B)/all
$(B)/all: $(B)/a.o $(B)/b.o $(B)/c.o
\tcat $^ > $@
$(B)/%.o: %.src
\t@echo making $*
\tcp $< $@
"""
HEAD = """\
FROM scratch AS base
COPY busybox /bin/
COPY tools /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
FROM base AS work
WORKDIR /src
"""
COPIED = "COPY src .\n"
MAKE = "RUN --mount=type=cache,target=/b make -s B=/b && cp /b/all /all\n"


class Project:
    """Three sources and a Makefile; `make` builds and gives what was made again and what came out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        (self.context / "src").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", self.context / "busybox")
        self.tool("make")
        (self.context / "src/Makefile").write_text(MAKEFILE)
        for name in SOURCES:
            self.write(name, f"{name}-1\n")
        self.aerogel = Aerogel(folder / "state")
        self.aerogel.env.pop("SOURCE_DATE_EPOCH", None)

    def tool(self, name: str) -> None:
        """A program of this host with its libraries."""
        program = shutil.which(name) or ""
        needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in [f"/bin/{name}", *re.findall(r"(/\S+) \(0x", needed)]:
            place = self.context / "tools" / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program if path == f"/bin/{name}" else path, place)

    def write(self, name: str, text: str) -> None:
        """With a time in the past that is always the same: nothing but the content tells of a change."""
        path = self.context / "src" / f"{name}.src"
        path.write_text(text)
        os.utime(path, (1_600_000_000, 1_600_000_000))

    def make(
        self, text: str = COPIED + MAKE, *words: str, state: str = "state", check: bool = True
    ) -> tuple[set[str], str]:
        (self.context / "Dockerfile").write_text(HEAD + text)
        aerogel = Aerogel(self.folder / state)
        aerogel.env.pop("SOURCE_DATE_EPOCH", None)
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        words = ("--progress=plain", "--json", "-o", f"type=local,dest={out}", "-o", "type=image", *words)
        done = aerogel("build", str(self.context), *words, check=check)
        self.said = done.stderr
        made = set(re.findall(r"making (\w+)", done.stderr))
        self.result = json.loads(done.stdout) if check else {}
        return made, (out / "all").read_text() if check else ""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_changed_is_made_again_and_nothing_else(project: Project) -> None:
    """Also with the same size and time, and when a file is what it was once: the product is not."""
    assert project.make() == ({"a", "b", "c"}, "a-1\nb-1\nc-1\n")
    project.write("b", "b-2\n")
    assert project.make() == ({"b"}, "a-1\nb-2\nc-1\n")
    project.write("b", "b-1\n")
    assert project.make("ENV X=1\n" + COPIED + MAKE) == ({"b"}, "a-1\nb-1\nc-1\n")
    assert project.make("ENV X=2\n" + COPIED + MAKE) == (set(), "a-1\nb-1\nc-1\n")
    assert "modification time" not in project.said, "nothing is in the future"
    (project.context / "src/a.src").unlink()
    project.write("c", "c-2\n")
    assert project.make() == ({"c"}, "a-1\nb-1\nc-2\n"), "make finds its product"
    project.write("a", "a-2\n")
    assert project.make() == ({"a"}, "a-2\nb-1\nc-2\n")
    # And the image is the one of an empty cache.
    image = project.result["image_id"]
    assert project.make(state="other")[0] == {"a", "b", "c"}
    assert project.result["image_id"] == image


def test_a_build_that_failed_half_way_leaves_nothing_that_looks_new(project: Project) -> None:
    project.make()
    project.write("a", "a-2\n")
    project.write("c", "c-2\n")
    fails = MAKE.replace("make -s B=/b", "make -s B=/b /b/a.o && false && make -s B=/b")
    assert project.make(COPIED + fails, check=False)[0] == {"a"}
    assert project.make() == ({"c"}, "a-2\nb-1\nc-2\n")


def test_two_contexts_share_a_cache(project: Project, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = Project(tmp_path / "second")
    other.write("a", "a-9\n")
    other.folder = project.folder
    assert project.make()[1] == "a-1\nb-1\nc-1\n"
    assert other.make() == ({"a"}, "a-9\nb-1\nc-1\n")
    assert project.make("ENV X=1\n" + COPIED + MAKE) == ({"a"}, "a-1\nb-1\nc-1\n")


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=bind,source=src,target=. --mount=type=cache,target=/b make -s B=/b && cp /b/all /all\n",
        "RUN --mount=type=bind,source=src,target=.,rw --mount=type=cache,target=/b make -s B=/b && cp /b/all /all\n",
        "FROM base AS got\nCOPY src /in\nFROM base\nWORKDIR /src\n"
        + MAKE.replace("RUN", "RUN --mount=from=got,source=/in,target=."),
        "COPY src /in\nRUN for f in /in/*; do cat $f > ${f##*/}; done\n" + MAKE,
        "COPY src /in\nRUN cp -p /in/* .\n" + MAKE,
    ],
    ids=["context", "writable", "stage", "step", "times-kept-by-a-step"],
)
def test_it_is_so_wherever_the_sources_come_from(project: Project, text: str) -> None:
    everything = {"a", "b", "c"}
    assert project.make(text) == (everything, "a-1\nb-1\nc-1\n")
    project.write("b", "b-2\n")
    made, found = project.make(text)
    assert (found, "b" in made) == ("a-1\nb-2\nc-1\n", True)
    assert project.make(text, "--no-cache") == (set(), "a-1\nb-2\nc-1\n")


def test_times_that_a_step_copies_are_in_no_layer(project: Project) -> None:
    """And files that it opens for writing, or directories that it goes through, are not in it either."""
    text = COPIED + (
        "RUN --mount=type=cache,target=/b make -s B=/b && cp /b/all /all && cp -p a.src /kept && ls -ld . > /dev/null "
        "&& : >> c.src && touch b.src && mkdir -p sub && echo x > sub/x && rm sub/x\n"
    )
    project.make(text)
    project.write("a", "a-2\n")
    project.write("c", "c-2\n")
    assert project.make(text)[0] == {"a", "c"}
    image = project.result["image_id"]
    project.make(text, state="other")
    assert project.result["image_id"] == image


def test_a_clock_that_was_set_back(project: Project) -> None:
    """Products of the future are older than a source that changed, all the same."""
    project.make()
    (cache,) = (project.aerogel.state / "cache/mounts-v1").glob("*/*-0")
    later = time.time() + 7200
    for path in [*(cache / "fs").glob("*.o"), cache / "lock"]:
        os.utime(path, (later, later))
    project.write("a", "a-2\n")
    assert project.make() == ({"a"}, "a-2\nb-1\nc-1\n")


def test_a_cache_that_lost_what_it_knew(project: Project) -> None:
    project.make()
    (cache,) = (project.aerogel.state / "cache/mounts-v1").glob("*/*-0")
    (cache / "seen").write_bytes(b"damaged")
    project.write("a", "a-2\n")
    assert project.make() == ({"a", "b", "c"}, "a-2\nb-1\nc-1\n")


def test_another_base_makes_all_again(project: Project) -> None:
    (project.context / "tools/more").write_text("other programs\n")
    text = HEAD.replace("FROM base AS work", "FROM img AS work")
    (project.context / "base").write_text(HEAD.partition("FROM base")[0])
    for content, made in (("1", {"a", "b", "c"}), ("2", {"a", "b", "c"}), ("2", set())):
        (project.context / "tools/more").write_text(content)
        project.aerogel("build", "-t", "img", "-f", str(project.context / "base"), str(project.context))
        (project.context / "Dockerfile").write_text(text + COPIED + MAKE)
        done = project.aerogel("build", "--no-cache", "--progress=plain", str(project.context))
        assert set(re.findall(r"making (\w+)", done.stderr)) == made


def test_steps_that_have_the_cache_at_once(project: Project) -> None:
    """Two contents of one path in a shared cache: neither is known to be what a product was made of."""
    (project.context / "two").mkdir()
    shutil.copytree(project.context / "src", project.context / "two/src")
    (project.context / "two/src/a.src").write_text("a-9\n")
    slow = "RUN --mount=type=cache,target=/b %s make -s B=/b/%s && %s\n"
    meet = "touch /b/%s.in; for i in $(seq 900); do [ -e /b/%s.in ] && break; sleep 0.1; done; "
    text = (
        "FROM work AS one\nCOPY src .\n"
        + slow % (meet % ("one", "two"), "x", "cp /b/x/all /one; rm /b/two.in")
        + "FROM work AS two\nCOPY two/src .\n"
        + slow % (meet % ("two", "one") + "sleep 1;", "y", "cp /b/y/all /two; rm /b/one.in")
        + "FROM base\nCOPY --from=one /one /all\nCOPY --from=two /two /two\n"
    ).replace("make -s", "mkdir -p /b/x /b/y && make -s")
    assert project.make(text, "--jobs=2")[1] == "a-1\nb-1\nc-1\n"
    again = COPIED + "RUN --mount=type=cache,target=/b make -s B=/b/%s && cp /b/%s/all /all\n"
    assert project.make(again % ("y", "y"))[1] == "a-1\nb-1\nc-1\n"
    assert project.make(again % ("x", "x"))[1] == "a-1\nb-1\nc-1\n"
