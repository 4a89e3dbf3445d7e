"""Structure tests of the bases that build, by both runners. They share what the tests of builders composed.

The builds of a runtime that has sisters (Node.js 22 and 26 beside 24) differ in one package: the structure of all is
tested, on Debian 13; `pytest --whole-family` takes the other releases and architectures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from family import BUILDERS, Group
from process import Aerogel
from structures import failed, ours, theirs

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.slow]


@pytest.mark.parametrize("name", BUILDERS)
def test_structure(aerogel: Aerogel, other: Path, tmp_path: Path, name: str) -> None:
    group = Group(name, "trixie", "linux/amd64")
    files, image = group.tests("latest", tmp_path), group.image("latest", tmp_path)
    aerogel("base", "build", "-t", "root", image)
    found = ours(aerogel, "root", *files)
    assert failed(found) == []
    (tmp_path / "lent").mkdir()
    assert theirs(aerogel, other, "root", tmp_path / "lent", *files) == found
