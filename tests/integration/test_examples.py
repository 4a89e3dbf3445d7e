"""The four examples, built and run from end to end, as root and as an ordinary user."""

from __future__ import annotations

import pytest
from process import Aerogel

pytestmark = [pytest.mark.host("useradd", "newuidmap", "setpriv"), pytest.mark.network, pytest.mark.slow]

RUNS = {
    "calculator-go": (["6", "*", "7"], "42\n"),
    "calculator-python": (["6", "*", "7"], "42\n"),
    "hello-cc": (["Grace", "Ada"], "Hello, Ada!\nHello, Grace!\n"),
    "static-c": ([], "Hello from nonroot (65532)!\n"),
}


def build_and_run(aerogel: Aerogel, name: str) -> dict:
    built = aerogel.json("build", f"examples/{name}", "-t", name)
    words, expected = RUNS[name]
    assert aerogel("run", name, *words).stdout == expected
    return built


@pytest.mark.parametrize("name", RUNS)
def test_example(aerogel: Aerogel, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    built = build_and_run(aerogel, name)
    final, build = built["size"], built["stages"]["build"]
    with capsys.disabled():
        print(
            f"\n{name}: build stage {build / 1e6:.1f} MB, image {final / 1e6:.2f} MB, {build / final:.0f} times smaller"
        )
    assert {step["status"] for step in built["steps"]} <= {"RAN", "REUSED", "CACHED", "SKIPPED"}
    if name == "calculator-go":
        assert final < 3_000_000
        assert build / final >= 100
    again = aerogel.json("build", f"examples/{name}", "-t", name)
    assert again["image_id"] == built["image_id"]
    assert {step["status"] for step in again["steps"]} <= {"CACHED", "SKIPPED"}


@pytest.mark.parametrize("name", RUNS)
def test_example_as_ordinary_user(aerogel: Aerogel, ordinary: Aerogel, name: str) -> None:
    as_user = build_and_run(ordinary, name)
    as_root = aerogel.json("build", str(ordinary.checkout / "examples" / name))
    assert as_user["image_id"] == as_root["image_id"], "the account changes the image"


def test_exit_status_is_passed_on(aerogel: Aerogel) -> None:
    aerogel("build", "examples/calculator-python", "-t", "calculator-python")
    done = aerogel("run", "calculator-python", "6", "/", "0", check=False)
    assert (done.returncode, done.stderr) == (1, "calculator: division by zero\n")


def test_runs_as_its_user_without_a_shell(aerogel: Aerogel) -> None:
    aerogel("build", "examples/calculator-python", "-t", "calculator-python")
    script = "import os; print(os.getuid(), os.path.exists('/bin/sh'), os.environ['LANG'])"
    done = aerogel("run", "--entrypoint", "/usr/bin/python3.13", "calculator-python", "-c", script)
    assert done.stdout == "65532 False C.UTF-8\n"
