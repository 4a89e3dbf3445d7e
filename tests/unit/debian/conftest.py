from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from debian_repo import Repo, Signer
from fault_server import FaultServer, serve


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def repo(signer: Signer) -> Repo:
    return Repo(signer)
