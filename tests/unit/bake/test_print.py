"""`aerogel bake --print` against golden files, in the form that buildx prints.

A case is a folder with bake files; `words` are arguments, one a line, `env` variables. What the files say are the
examples of the bake reference and of its guides, changed in names, and combinations of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aerogel.cli import main

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "bake"


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no variables of the user."""
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    for name in ("SOURCE_DATE_EPOCH", "TAG", "FOO", "STAGE", "BUILDX_BAKE_FILE", "FROM_ENV", "TAGS", "COUNT", "DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "state"))


def words_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for line in (folder / "env").read_text().splitlines() if (folder / "env").exists() else ():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return (folder / "words").read_text().splitlines() if (folder / "words").exists() else []


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_print(
    case: str,
    golden: Callable[[Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(GOLDEN / case, monkeypatch)
    if case == "set":
        monkeypatch.setenv("FROM_ENV", "env")
    assert main.main(["bake", "--print", *words]) == 0, capsys.readouterr().err
    seen = capsys.readouterr().out
    json.loads(seen)
    golden(GOLDEN / case / "expected.json", seen)


def test_compose_in_the_form_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the bake reference shows for its example of two files, to the letter but for the order of labels."""
    monkeypatch.chdir(GOLDEN / "merge-compose")
    assert main.main(["bake", "--print", "webapp"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "group": {"default": {"targets": ["webapp"]}},
        "target": {
            "webapp": {
                "context": ".",
                "dockerfile": "Dockerfile",
                "labels": {"com.example.foo": "foo", "com.example.bar": "bar", "com.example.name": "Bob"},
                "tags": ["foo"],
            }
        },
    }


def test_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(GOLDEN / "attributes")
    assert main.main(["bake", "--list", "type=targets,format=json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "all", "description": "lib", "group": True},
        {"name": "app", "description": "the app"},
        {"name": "default", "description": "everything (all, app)", "group": True},
        {"name": "lib"},
        {"name": "tool"},
    ]
    assert main.main(["bake", "--list", "variables"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"],
        ["DEBUG", "false"],
        ["NOTHING", "<null>"],
        ["PLATFORMS", "list", "of", "string", '["linux/amd64","linux/arm64"]'],
    ]


def test_files_are_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.hcl").write_text('target "default" { tags = ["one"] }\n')
    (tmp_path / "two.hcl").write_text('target "default" { target = "two" }\n')
    monkeypatch.setenv("BUILDX_BAKE_FILE", "one.hcl:two.hcl")
    assert main.main(["bake", "--print"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["default"] == {
        "context": ".",
        "dockerfile": "Dockerfile",
        "tags": ["one"],
        "target": "two",
    }
