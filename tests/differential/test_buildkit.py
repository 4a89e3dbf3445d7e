"""The same Dockerfile and context, built by aerogel and by a real BuildKit: the images must be the same.

All selected cases are built first, several at a time, and then judged one test each. What is newer than Debian's
BuildKit is not here but in `tests/golden/copy`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import BASE, Aerogel, Buildkit, Outcome, base_archive, buildkit
from cases import Case, populate
from cases_archive import CASES as ARCHIVE
from cases_config import CASES as CONFIG
from cases_copy import CASES as COPY
from cases_ignore import CASES as IGNORE
from cases_odd import CASES as ODD
from cases_run import CASES as RUN
from cases_syntax import CASES as SYNTAX
from explained import NEWER, OURS
from pictures import differences

pytestmark = [pytest.mark.host, pytest.mark.slow]

CASES = [*COPY, *ARCHIVE, *IGNORE, *CONFIG, *RUN, *SYNTAX, *ODD]


class Built(NamedTuple):
    """What the two builders made of a case."""

    theirs: Outcome
    ours: Outcome


def test_there_are_enough() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 150
    assert len(names) == len(set(names))
    assert {*NEWER, *OURS} <= set(names)


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Built]]:
    """Every selected case, built by both."""
    wanted = {item.name for item in request.session.items}
    cases = [case for case in CASES if f"test_same[{case.name}]" in wanted]
    folder = tmp_path_factory.mktemp("differential")
    with buildkit(folder) as theirs:
        yield build_all(cases, folder, theirs, Aerogel(folder))


def build_all(cases: list[Case], folder: Path, theirs: Buildkit, ours: Aerogel) -> dict[str, Built]:
    base_archive(folder / "base.tar")
    (folder / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
    assert theirs.build(BASE, folder / "Dockerfile", folder) == ""
    theirs.save([BASE], folder / "saved.tar")
    loaded = ours.client("load", "-i", str(folder / "saved.tar"))
    assert loaded.returncode == 0, loaded.stderr.decode()

    def build(case: Case) -> tuple[str, Outcome]:
        place = folder / case.name
        place.mkdir()
        dockerfile = place / "Dockerfile"
        dockerfile.write_bytes(os.fsencode(case.dockerfile))
        populate(place / "context", case.context)
        said = theirs.build(f"case/{case.name}:x", dockerfile, place / "context", case.args)
        return said, ours.build(case, dockerfile, place / "context")

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip((case.name for case in cases), pool.map(build, cases), strict=True))
    tags = {name: f"case/{name}:x" for name, (said, _) in outcomes.items() if not said}
    pictures = theirs.pictures(list(tags.values()), folder / "saved.tar")
    return {name: Built(said or pictures[tags[name]], image) for name, (said, image) in outcomes.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same(case: Case, built: dict[str, Built]) -> None:
    found = judge(case, *built[case.name])
    if found:
        pytest.fail("\n".join([case.dockerfile, *found]), pytrace=False)


def judge(case: Case, theirs: Outcome, ours: Outcome) -> list[str]:
    """What is wrong, in lines."""
    if isinstance(ours, str) and "Traceback" in ours:
        return [ours]
    if isinstance(ours, str) and isinstance(theirs, str):
        found = [] if case.fails else [f"both refuse: {ours}", last_line(theirs)]
    elif isinstance(ours, str):
        found = [f"BuildKit builds it, aerogel refuses: {ours}"]
    elif isinstance(theirs, str):
        found = [f"aerogel builds it, BuildKit refuses: {last_line(theirs)}"]
    else:
        found = ["both build it"] if case.fails else differences(theirs, ours)
    for pattern, fact in (*NEWER.get(case.name, ()), *OURS.get(case.name, ())):
        explained = [line for line in found if re.search(pattern, line)]
        if not explained:
            return [*found, f"no difference any more: {pattern} ({fact})"]
        found = [line for line in found if line not in explained]
    return found


def last_line(log: str) -> str:
    return log.strip().rpartition("\n")[2]
