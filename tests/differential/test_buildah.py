"""A second voice: Debian's buildah builds some of the cases, and the images must be the same where it agrees.

It reads Dockerfiles with code of its own (imagebuilder), so agreement says more than that of two BuildKits. Compared
are the flattened root file system and the config; its layers and history are its own. Debian packages: buildah,
busybox-static.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import BASE, Aerogel, Outcome, base_archive
from cases import Case, populate
from cases_config import CASES as CONFIG
from cases_copy import CASES as COPY
from cases_ignore import CASES as IGNORE
from cases_syntax import CASES as SYNTAX
from explained import BUILDAH, BUILDAH_AT_TIMES
from pictures import Picture, differences, read_oci

pytestmark = [pytest.mark.host("buildah", "busybox"), pytest.mark.slow]

EACH = int(os.environ.get("AEROGEL_BUILDAH_EACH", "6"))
"""Of how many cases one is built; those with an explanation always are."""

ALL = [*COPY, *IGNORE, *CONFIG, *SYNTAX]
CASES = [case for number, case in enumerate(ALL) if number % EACH == 0 or case.name in BUILDAH]


class Buildah:
    """Buildah with its storage below `state`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._words = ["buildah", f"--root={state}/root", f"--runroot={state}/runroot", "--storage-driver=vfs"]
        (state / "containers.conf").write_text("[engine]\n")
        (state / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._env = {**os.environ, "CONTAINERS_CONF": f"{state}/containers.conf", "TMPDIR": str(state)}

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._words, *words], env=self._env, capture_output=True, timeout=120)

    def build(self, tag: str, args: tuple[str, ...], dockerfile: Path, context: Path) -> Outcome:
        policy = f"--signature-policy={self._state}/policy.json"
        words = [
            "bud",
            policy,
            "--isolation=chroot",
            "--pull-never",
            "--identity-label=false",
            "--format=docker",
            *args,
            "-t",
            tag,
        ]
        done = self._run(*words, "-f", str(dockerfile), str(context))
        if done.returncode != 0:
            return done.stderr.decode(errors="replace") or "refused"
        target = self._state / f"{tag}.tar"
        pushed = self._run("push", policy, "--format=oci", "--disable-compression", tag, f"oci-archive:{target}")
        assert pushed.returncode == 0, pushed.stderr.decode(errors="replace")
        with tarfile.open(target) as archive:
            found = read_oci(archive)
        target.unlink()
        return bare(found)


def bare(picture: Picture) -> Picture:
    """What is compared: not `ArgsEscaped`, which only Windows reads; no working directory is `/`."""
    config = {**picture.config, "ArgsEscaped": None, "WorkingDir": picture.config["WorkingDir"] or "/"}
    return picture._replace(layers=(), history=(), config=config)


@pytest.fixture(scope="module")
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Outcome, Outcome]]]:
    """What buildah and aerogel made of every selected case."""
    wanted = {item.name for item in request.session.items}
    folder = tmp_path_factory.mktemp("buildah")
    ours, theirs = Aerogel(folder), Buildah(folder)
    base_archive(folder / "base.tar")
    file = folder / "Dockerfile"
    file.write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
    assert not isinstance(theirs.build(BASE, (), file, folder), str)
    assert ours.client("build", "-t", BASE, "-f", str(file), str(folder)).returncode == 0

    def build(case: Case) -> tuple[str, tuple[Outcome, Outcome]]:
        place = folder / case.name
        place.mkdir()
        dockerfile = place / "Dockerfile"
        dockerfile.write_bytes(os.fsencode(case.dockerfile))
        populate(place / "context", case.context)
        made = ours.build(case, dockerfile, place / "context")
        made = made if isinstance(made, str) else bare(made)
        return case.name, (theirs.build(f"case-{case.name}", case.args, dockerfile, place / "context"), made)

    cases = [case for case in CASES if f"test_same_as_buildah[{case.name}]" in wanted]
    with ThreadPoolExecutor(3) as pool:
        yield dict(pool.map(build, cases))
    shutil.rmtree(folder / "root", ignore_errors=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_as_buildah(case: Case, built: dict[str, tuple[Outcome, Outcome]]) -> None:
    found = compare(case, *built[case.name])
    for pattern, fact in BUILDAH.get(case.name, ()):
        explained = [line for line in found if re.search(pattern, line)]
        assert explained or case.name in BUILDAH_AT_TIMES, f"no difference any more: {pattern} ({fact})"
        found = [line for line in found if line not in explained]
    if found:
        pytest.fail("\n".join([case.dockerfile, *found]), pytrace=False)


def compare(case: Case, theirs: Outcome, ours: Outcome) -> list[str]:
    if isinstance(ours, str) or isinstance(theirs, str):
        if isinstance(ours, str) == isinstance(theirs, str):
            return []
        return [f"only aerogel refuses: {ours}" if isinstance(ours, str) else f"only buildah refuses: {theirs}"]
    return [line.replace("BuildKit", "buildah") for line in differences(theirs, ours)]
