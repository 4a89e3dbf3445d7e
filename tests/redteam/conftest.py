"""The red team's target: a small root on each rung that this user can take, and a canary on the host that stays as it was."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for place in (HERE.parent / "host" / "sandbox", HERE.parent / "tests"):  # the second is where ordinary accounts have it
    if (place / "boxes.py").exists():
        sys.path.insert(0, str(place))

from boxes import make_layer  # noqa: E402
from field import Field, field_of  # noqa: E402

from aerogel.sandbox.launch import Helper  # noqa: E402

RUNGS: tuple[str, ...] = ("root", "ident", "single", "chroot")
if os.getuid() != 0:
    with open("/etc/subuid") as ranges:
        has_range = any(line.startswith(f"{getpass.getuser()}:") for line in ranges)
    RUNGS = ("auto",) if has_range or not shutil.which("proot") else ("auto", "proot")


@pytest.fixture(scope="session", params=RUNGS)
def field(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("field")
    layer = make_layer(folder / "layer")
    with Helper.start(str(folder / "state"), isolation=request.param) as helper:
        made = field_of(helper, layer, folder)
        yield made
    assert made.changes() == []
