from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.sandbox.cgroup import Resources, make_group

SYSTEMD = "30 24 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
BOTH = SYSTEMD + "31 24 0:27 / {point}/v1/memory rw - cgroup cgroup rw,memory\n"


def proc(folder: Path, mounts: str, groups: str, root: str = "/") -> str:
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts.format(point=folder / "fs", root=root))
    return str(folder)


@pytest.mark.parametrize(
    ("mounts", "groups", "root", "where"),
    [
        (SYSTEMD, "0::/user.slice/session-1.scope\n", "/", "fs/user.slice/session-1.scope"),
        (SYSTEMD, "0::/docker/x/y\n", "/docker/x", "fs/y"),
        (SYSTEMD, "0::/../outside\n", "/", "fs"),
        (BOTH, "4:memory:/a/b\n0::/\n", "/", "fs/v1/memory/a/b"),
    ],
)
def test_the_group_of_this_process_is_found(tmp_path: Path, mounts: str, groups: str, root: str, where: str) -> None:
    place = tmp_path / where
    place.mkdir(parents=True)
    (place / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(AerogelError) as caught:
        make_group(Resources(memory_bytes=1 << 20), proc(tmp_path, mounts, groups, root))
    assert caught.value.code == "sandbox.no-cgroup"
    if "v1" in where:  # a directory of the disk has no files of a group
        assert caught.value.message.endswith("no such file or directory")
    else:
        assert caught.value.message.endswith(f"the controller `memory` is not given to `{place}`")
    assert [path.name for path in place.iterdir() if path.is_dir()] == []


def test_no_groups_at_all(tmp_path: Path) -> None:
    with pytest.raises(AerogelError) as caught:
        make_group(Resources(cpus=1.5), proc(tmp_path, "", "0::/\n"))
    assert (
        caught.value.message
        == "`--cpus` cannot be held here: no control group can be made: no control groups are mounted"
    )
