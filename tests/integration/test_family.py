"""Every image of `aerogel base list`: upstream's structure tests, written anew, by our runner and by the other one.

CI has time for a selection (`family.covering`); `pytest --whole-family tests/integration/test_family.py` takes every base,
release, platform and tag, each by both runners with all commands, which is more than 700 images and hours. With
`--family-record FILE` a line is added for each image that passed, and it is left out the next time.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from family import BUILDERS, TESTS, Group, by_the_other, covering, whole
from process import ROOT, Aerogel
from structures import failed, ours, theirs

pytestmark = [pytest.mark.host, pytest.mark.network]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "group" in metafunc.fixturenames:
        is_whole = metafunc.config.getoption("--whole-family")
        chosen = left(metafunc.config.getoption("--family-record")) if is_whole else covering()
        values = [pytest.param(group, tags, id=f"{group}", marks=needs(group)) for group, tags in chosen]
        metafunc.parametrize(("group", "tags"), values)


def left(record: str) -> list[tuple[Group, tuple[str, ...]]]:
    """Everything but what a record says has passed: lines of group, tag and figures."""
    lines = Path(record).read_text().splitlines() if record and Path(record).exists() else []
    passed = {tuple(line.split()[:2]) for line in lines}
    found = [(group, tuple(tag for tag in group.every_tag if (f"{group}", tag) not in passed)) for group in whole()]
    return [(group, tags) for group, tags in found if tags]


def needs(group: Group) -> list[pytest.MarkDecorator]:
    return [pytest.mark.host("npm")] if group.name.startswith("nodejs") else []


def test_group(
    aerogel: Aerogel, other: Path, tmp_path: Path, request: pytest.FixtureRequest, group: Group, tags: tuple[str, ...]
) -> None:
    """The other runner is root in each image; owners and users are ours to see."""
    is_whole = request.config.getoption("--whole-family")
    for tag in tags:
        files, image = group.tests(tag, tmp_path, every=is_whole), group.image(tag, tmp_path)
        if not is_whole and not by_the_other(group, tag):
            assert failed(ours(aerogel, image, *files, platform=group.platform)) == []
            continue
        begun = time.monotonic()
        written = "type=image,name=family" + (",compression=uncompressed" if is_whole else "")
        aerogel("base", "build", "-o", written, "--platform", group.platform, image, cwd=tmp_path)
        found = ours(aerogel, "family", *files, platform=group.platform)
        assert failed(found) == []
        (tmp_path / tag).mkdir()
        assert theirs(aerogel, other, "family", tmp_path / tag, *files, platform=group.platform) == found
        if is_whole and (record := request.config.getoption("--family-record")):
            with Path(record).open("a") as file:
                file.write(f"{group} {tag} {len(found)} checks, {time.monotonic() - begun:.0f} s\n")
    if is_whole:
        aerogel("prune", "--max-size", "4GB")


def test_selection() -> None:
    """What CI leaves out is a matter of time, not of chance."""
    chosen = covering()
    everything = [group for group in whole() if group.name not in BUILDERS]
    assert {group.platform for group, _ in chosen} == {group.platform for group in everything} - {"linux/386"}
    assert {(group.name, tag) for group, tags in chosen for tag in tags} == {
        *((group.name, tag) for group in everything for tag in group.tags),
        ("cc", "latest-parity"),
    }
    releases = {(group.name, group.release) for group in everything} - {("cc-build", "bookworm")}
    assert {(group.name, group.release) for group, _ in chosen} == releases
    elsewhere = {(group.name, tag) for group, tags in chosen for tag in tags if group.platform != "linux/amd64"}
    assert {tag for _, tag in elsewhere} == {"latest", "nonroot", "debug", "debug-nonroot"}


ACCOUNT = """\
apiVersion: aerogel/v1
kind: Base
name: custom
extends: cc
releases: {%s: {}}
accounts: {users: [{name: custom, uid: 1002}], run-as: custom}
"""


@pytest.mark.parametrize("release", ["trixie", "bookworm"])
def test_programs_of_c_and_a_user_of_their_own(aerogel: Aerogel, other: Path, tmp_path: Path, release: str) -> None:
    """Upstream's examples: C, C++ and an account that resolves, also in a static program."""
    for name in ("hello.c", "hello.cc", "user.c"):
        program, _, kind = name.partition(".")
        compiler = ["g++"] if kind == "cc" else ["gcc", "-static"] if program == "user" else ["gcc"]
        source = ROOT / "tests/programs/family" / name
        subprocess.run([*compiler, "-O1", source, "-o", tmp_path / f"{program}_{kind}"], check=True, timeout=60)
    (tmp_path / "base.yaml").write_text(ACCOUNT % release)
    (tmp_path / "Dockerfile").write_text("FROM ./base.yaml\nCOPY hello_c hello_cc user_c /\n")
    aerogel("build", "-q", "-t", "programs", str(tmp_path))
    files = [TESTS / "programs.yaml", TESTS / "programs-user.yaml"]
    found = ours(aerogel, "programs", *files)
    assert failed(found) == []
    (tmp_path / "lent").mkdir()
    # The other one runs as root: the user is ours to see.
    assert theirs(aerogel, other, "programs", tmp_path / "lent", files[0]) == ours(aerogel, "programs", files[0])
