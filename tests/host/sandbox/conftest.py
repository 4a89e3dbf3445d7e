"""The helper and the tiny root of the sandbox's tests; see `boxes` for the packages that they need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box, make_layer

from aerogel.errors import AerogelError
from aerogel.sandbox.launch import Helper


@pytest.fixture(scope="session")
def layer(tmp_path_factory) -> str:
    return make_layer(tmp_path_factory.mktemp("image") / "layer")


@pytest.fixture(scope="session")
def session_helper(tmp_path_factory) -> Iterator[Helper]:
    try:
        helper = Helper.start(
            str(tmp_path_factory.mktemp("state")), preload=("sample_jobs",), search=(str(Path(__file__).parent),)
        )
    except AerogelError as error:
        pytest.skip(f"{error.message}: {error.detail}")
    with helper:
        yield helper


@pytest.fixture
def box(session_helper, layer, tmp_path) -> Iterator[Box]:
    yield Box(session_helper, layer, tmp_path)
    session_helper.call("aerogel.sandbox.discard:discard", {"path": str(tmp_path)})
    tmp_path.mkdir()
