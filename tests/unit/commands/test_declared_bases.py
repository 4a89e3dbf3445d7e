"""FROM with a path to a declaration, and with packages added to a built-in base: how far one gets without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.cli import main as entry
from aerogel.distroless.declared import Beside, load_declared, split_path
from aerogel.errors import AerogelError
from aerogel.oci.reference import is_own_name, is_path_name

BASE = """\
apiVersion: aerogel/v1
kind: Base
name: app
extends: ../common/base.yml
packages: [{deb: "tool_{arch}.deb"}]
certificates: {additional: [corp.pem]}
"""
COMMON = """\
apiVersion: aerogel/v1
kind: Base
name: common
extends: cc
paths: [{file: /etc/motd, source: motd}]
variants: {app: {accounts: {run-as: "1000"}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("app/base.yaml", BASE),
        ("common/base.yml", COMMON),
        ("common/motd", "hello\n"),
        ("app/corp.pem", "pem\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_are_seen_from_the_declaration_that_names_them(folder: Path):
    seen: list[Path] = []
    found = load_declared("./app/base.yaml", Beside(folder, is_closed=True, look=seen.append))
    recipe = found.recipe("app")
    assert [one.name for one in found.family.chain][-2:] == ["common", "app"]
    assert recipe.user == "1000"
    assert recipe.certificates == ("app/corp.pem",)
    assert recipe.paths[0].source == "common/motd"
    assert recipe.archives[0].deb == "app/tool_{arch}.deb"
    assert set(recipe.inputs) == {"app/corp.pem", "common/motd"}
    assert {path.name for path in seen} == {"base.yaml", "base.yml", "corp.pem", "motd"}
    before = recipe.inputs["common/motd"]
    (folder / "common/motd").write_text("other\n")
    assert found.recipe("app").inputs["common/motd"] != before


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("motd", "../../../etc/passwd"), "base.outside", "is outside of the build context"),
        (("motd", "motdd"), "base.no-file", "`common/motdd` cannot be read: no such file or directory"),
        (("extends: cc", "extends: ../app/base.yaml"), "base.circle", "declarations extend each other in a circle"),
        (("extends: cc", "extends: ccc"), "base.unknown", "there is no built-in base `ccc`"),
        (("name: common", "name: common\nnames: [gcr.io/x]"), "base.field", "`names` is for the built-in bases"),
    ],
)
def test_faults(folder: Path, change: tuple[str, str], code: str, message: str):
    path = folder / "common/base.yml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(AerogelError) as caught:
        load_declared("./app/base.yaml", Beside(folder, is_closed=True)).recipe()
    assert caught.value.code == code
    assert message in caught.value.message
    assert caught.value.exit_status == 2


def test_a_link_does_not_lead_out_of_the_context(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_text("secret")
    (folder / "common/motd").unlink()
    (folder / "common/motd").symlink_to(outside)
    with pytest.raises(AerogelError) as caught:
        load_declared("./app/base.yaml", Beside(folder, is_closed=True)).recipe()
    assert caught.value.code == "base.outside"


def test_unknown_variant(folder: Path):
    with pytest.raises(AerogelError) as caught:
        load_declared("app/base.yaml", Beside(folder)).recipe("nonrot")
    assert caught.value.message == "`app/base.yaml` has no variant `nonrot`"
    assert caught.value.hints == ("did you mean `nonroot`?",)


def test_paths_are_no_references():
    assert split_path("./base.yaml:nonroot") == ("./base.yaml", "nonroot")
    assert split_path("/a:b/base.yml") == ("/a:b/base.yml", "")
    assert is_path_name("../x.yaml")
    assert is_own_name("aerogel/python3+libpq5:nonroot")
    assert not any(map(is_own_name, ("base.yaml", "a/b.yaml:1", "aerogel/python3", "localhost:5000/a")))
    with pytest.raises(AerogelError) as caught:
        split_path("./base.json")
    assert caught.value.code == "base.no-file"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "FROM ./base.yaml",
            "error: `base.yaml` cannot be read: no such file or directory\n  --> Dockerfile:1:6\n",
        ),
        (
            "FROM aerogel/pyton3+libpq5:nonroot",
            """\
error: `aerogel/pyton3+libpq5:nonroot` is not a built-in base image
  --> Dockerfile:1:6
 1 | FROM aerogel/pyton3+libpq5:nonroot
   |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: did you mean `aerogel/python3+libpq5:nonroot`?""",
        ),
    ],
)
def test_what_a_build_says(
    line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", "http://127.0.0.1:1/debian")
    (tmp_path / "Dockerfile").write_text(f"{line}\n")
    assert entry.main(["build", "--progress", "plain", "."]) == 2
    assert expected in capfd.readouterr().err


def test_the_schema_knows_what_the_reader_knows():
    schema = json.loads((Path(__file__).parents[3] / "docs/reference/base.schema.json").read_text())
    fields = schema["$defs"]["Declaration"]["properties"]
    assert {"apiVersion", "packages", "library-cache", "variants"} <= set(fields)
    assert schema["$defs"]["Declaration"]["additionalProperties"] is False
