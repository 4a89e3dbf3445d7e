"""What holds for all tests: options, shared fixtures, markers, and when a missing requirement skips a test.

`@pytest.mark.host("skopeo", "umoci")` names programs; `network` needs the Debian mirror or the package index. A test
whose requirement is missing is skipped with the reason; when `CI` is set it fails instead, so nothing is lost unseen.

After each test every image in the stores that it used is validated; `@pytest.mark.damage` is for tests that spoil one.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import checked
import mother
import pytest
from hypothesis import HealthCheck, settings

IS_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

ACCEPTED_SKIPS = {
    "umoci 0.4 does not know zstd": "nothing to install: the program lacks the format",
    "root has subordinate ids here": "the host's own accounts, which tests leave alone",
}
"""Reasons that do not fail under CI, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what came out into the golden files")
    parser.addoption("--whole-family", action="store_true", help="every base image on every platform: hours")
    parser.addoption("--family-record", default="", metavar="FILE", help="what passed of it, not to be tested again")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with the golden file at a path, or write it there with `--update-golden`."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(autouse=True)
def valid_images(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test all images that it left in a store are validated, unless it is marked `damage`."""
    yield
    if request.node.get_closest_marker("damage") is not None:
        checked.forget()
    found = checked.problems()
    assert found == []


def pytest_configure() -> None:
    checked.watch()
    # What examples cost depends on what else the host does: neither one that is slow nor their making is a fault.
    slow = [HealthCheck.too_slow]
    settings.register_profile("any host", deadline=None, suppress_health_check=slow, print_blob=True)
    settings.load_profile("any host")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in the background of a script: programs would inherit that, and what tests send them would be lost.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    mother.close_all()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Binary values give no test its name: compressed bytes differ from run to run, and workers must agree."""
    del config
    return argname if isinstance(val, bytes) and not val.isascii() else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    for mark in item.iter_markers("host"):
        missing = [name for name in mark.args if shutil.which(name, path=path) is None]
        if missing:
            pytest.skip(f"this host has no {', '.join(missing)}")
    if any(item.iter_markers("network")) and (reason := _why_no_network()):
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under CI a skip is a failure."""
    report = yield
    if IS_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in ACCEPTED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: skipped under CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a module that skips itself."""
    report = yield
    if IS_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: skipped under CI: {report.longrepr[2]}"
    return report


@functools.cache
def _why_no_network() -> str:
    """Empty when the host's Debian mirror answers; asked once."""
    if os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY"):
        return ""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True)
    sites = [one for one in listed.stdout.split() if "://" in one]
    if listed.returncode or not sites:
        return "apt names no Debian mirror on this host"
    parts = urlsplit(sites[0])
    try:
        socket.create_connection((parts.hostname, parts.port or 80), timeout=5).close()
    except OSError as error:
        return f"the Debian mirror does not answer: {error}"
    return ""
