"""Control groups of version 2, as the kernel has them: the files of a real hierarchy, given to a user as systemd does.

Which controllers are in that hierarchy does not matter: freezing needs none. Debian packages: util-linux, busybox-static.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import Aerogel
from waiting import until

from aerogel.sandbox import cgroup, freezer
from aerogel.sandbox.freezer import Freezer

pytestmark = [
    pytest.mark.host("unshare", "setpriv"),
    pytest.mark.skipif(os.getuid() != 0, reason="groups are made, and given to a user, by root"),
]
COUNTS = (
    "import itertools, sys, time\nfor n in itertools.count():\n open(sys.argv[1], 'w').write(str(n)); time.sleep(0.01)"
)
ALONE = """
for each in $(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup .*/\\1/p' /proc/self/mountinfo); do umount -l $each; done
echo $$ >$1/cgroup.procs; shift; exec "$@"
"""
"""In a mount namespace of its own: as on a host that has version 2 alone."""


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Path]:
    """A group of the host's hierarchy, to be chowned as systemd does it for `Delegate=yes`."""
    with contextlib.ExitStack() as stack:
        place = cgroup.hierarchies("/proc/self").get("")
        if place is None:
            (tmp_path / "groups").mkdir()
            subprocess.run(["mount", "-t", "cgroup2", "groups", str(tmp_path / "groups")], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(tmp_path / "groups")], check=True)
            place = str(tmp_path / "groups")
        group = Path(place) / f"aerogel-given-{os.getpid()}"
        group.mkdir()
        try:
            yield group
        finally:
            empty(group)


def empty(group: Path) -> None:
    """Ends what is in it and removes it."""
    (group / "cgroup.kill").write_text("1")
    end = time.monotonic() + 60
    while "populated 1" in (group / "cgroup.events").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[tuple[int, Callable[[], bool]]]:
    """A process that counts, and whether it does so now."""
    file = tmp_path / "count"

    def counts() -> bool:
        before = file.read_text()
        time.sleep(0.1)
        return file.read_text() != before

    with subprocess.Popen([sys.executable, "-c", COUNTS, str(file)]) as process:
        until(file.exists)
        yield process.pid, counts
        process.kill()


@pytest.mark.parametrize("is_alone", [True, False], ids=["a group of its own", "among others"])
def test_a_process_stops_and_goes_on(
    given: Path, counter: tuple[int, Callable[[], bool]], monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    pid, counts = counter
    place = given / ("aerogel-17-1" if is_alone else "session.scope")
    place.mkdir()
    (place / "cgroup.procs").write_text(str(pid))
    monkeypatch.setattr(freezer, "hierarchies", lambda proc: {"": cgroup.hierarchies(proc)[""]} if pid else {})
    if not is_alone:  # the new group is made beside who asks
        monkeypatch.setattr(freezer, "hierarchies", lambda _proc: {"": str(place)})
    until(counts)
    ours = Freezer(lambda: [pid], "aerogel-17-paused")
    frozen = place if is_alone else place / "aerogel-17-paused"
    assert "frozen 1" in (frozen / "cgroup.events").read_text()
    assert not counts()
    ours.thaw()
    assert "frozen 0" in (frozen / "cgroup.events").read_text()
    until(counts)
    (place / "cgroup.procs").write_text(str(pid))
    ours.close()
    assert [path.name for path in place.iterdir() if path.is_dir()] == []


def test_a_group_with_processes_gets_controllers(given: Path, counter: tuple[int, Callable[[], bool]]) -> None:
    """A group with controllers for those below it may hold no process, so what is in it goes one down."""
    top = given.parent
    controllers = (top / "cgroup.controllers").read_text().split()
    if not controllers:
        pytest.skip("all controllers of this host belong to version 1")
    one = controllers[0]
    was = one in (top / "cgroup.subtree_control").read_text().split()
    (top / "cgroup.subtree_control").write_text(f"+{one}")
    try:
        (given / "cgroup.procs").write_text(str(counter[0]))
        assert cgroup._enable(str(given), (one,)) == str(given)
        assert (given / "cgroup.subtree_control").read_text().split() == [one]
        assert (given / "cgroup.procs").read_text() == ""
        assert (given / "aerogel-main/cgroup.procs").read_text().split() == [str(counter[0])]
        with pytest.raises(OSError, match="the controller `none` is not given to"):
            cgroup._enable(str(given), ("none",))
    finally:
        empty(given)
        if not was:
            (top / "cgroup.subtree_control").write_text(f"-{one}")
        given.mkdir()


@pytest.mark.host("busybox")
def test_a_container_of_a_user_is_paused(given: Path, ordinary: Aerogel) -> None:
    """On a host that has version 2 alone, where a group was given to the user; what it cannot hold is said."""
    entry = pwd.getpwnam(ordinary.account)
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(given / name, entry.pw_uid, entry.pw_gid)
    folder = Path(ordinary.env["HOME"]) / "paused"
    folder.mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nENTRYPOINT ["/bin/sh", "-c"]\n')
    os.chown(folder, entry.pw_uid, entry.pw_gid)

    def asked(*words: str) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "--mount", "sh", "-ec", ALONE, "sh", str(given), *ordinary.argv(*words)]
        done = subprocess.run(argv, env=ordinary.env, capture_output=True, text=True, timeout=120, cwd="/")
        assert done.returncode == 0, done.stderr
        return done

    asked("build", "-q", "-t", "paused", str(folder))
    script = "i=0; while :; do i=$((i+1)); echo $i >>/n; /bin/sh -c 'exec sleep 0.01'; done"
    done = asked("run", "-d", "--name", "box", "--memory", "64m", "paused", script)
    missing = {"memory"} - set((given / "cgroup.controllers").read_text().split())
    assert ("the controller `memory` is not given to" in done.stderr) == bool(missing), done.stderr
    assert asked("pause", "box").stdout == "box\n"
    (group,) = [path.parent for path in given.rglob("cgroup.events") if "frozen 1" in path.read_text()]
    assert len((group / "cgroup.procs").read_text().split()) >= 1
    asked("cp", "box:/n", f"{folder}/first")
    asked("cp", "box:/n", f"{folder}/second")
    assert (folder / "first").read_text() == (folder / "second").read_text() != ""
    asked("unpause", "box")
    assert "frozen 0" in (group / "cgroup.events").read_text()
    seen = (folder / "second").read_text()
    until(lambda: asked("exec", "box", "sh", "-c", "read x </n; echo $x").stdout not in ("", seen))
    asked("pause", "box")
    asked("rm", "-f", "box")
    assert list(given.iterdir()) != []
    until(lambda: [path for path in given.iterdir() if path.is_dir() and path.name != "aerogel-main"] == [])
