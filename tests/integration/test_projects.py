"""Dockerfiles in the shapes of well-known projects (`tests/projects/`), built and run.

Their build stages share the texts of the steps that install packages, with each other and with the examples, so that
the session's store makes each of them once. Packages come from Debian and from the Python index.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from process import ROOT, Aerogel

PROJECTS = ROOT / "tests" / "projects"

pytestmark = [pytest.mark.host("newuidmap"), pytest.mark.network, pytest.mark.slow]

GREETED = """\
$GREETING stays as it is
Hello is filled in
"""


def build(aerogel: Aerogel, name: str, *words: str) -> dict:
    """Builds a project; a second build finds every step."""
    built = aerogel.json("build", f"tests/projects/{name}", "-t", name, *words)
    again = aerogel.json("build", f"tests/projects/{name}", *words)
    assert again["image_id"] == built["image_id"]
    assert {step["status"] for step in again["steps"]} <= {"CACHED", "SKIPPED"}
    return built


def config_of(aerogel: Aerogel, name: str) -> dict:
    return json.loads(aerogel("inspect", name).stdout)[0]["Config"]


@pytest.mark.parametrize("path", sorted(PROJECTS.rglob("Dockerfile")), ids=lambda path: path.parent.name)
def test_projects_break_no_rule(aerogel: Aerogel, path: Path) -> None:
    assert aerogel("lint", "--error", str(path)).stdout.startswith("no warnings")


def test_flask(aerogel: Aerogel) -> None:
    build(aerogel, "flask")
    assert aerogel("run", "flask", "greet", "<Ada>").stdout.strip() == "<p>Hello, &lt;Ada&gt;!</p>"


def test_django(aerogel: Aerogel) -> None:
    build(aerogel, "django")
    assert aerogel("run", "django", "visit", "Ada").stdout.strip() == "Ada: 2"


def test_node(aerogel: Aerogel) -> None:
    built = build(aerogel, "node")
    assert aerogel("run", "node", "node", "server.js", "--once").stdout == "up for 2 minutes\n"
    assert aerogel("run", "node", "ls", "lib").stdout == "uptime.js\n"
    config = config_of(aerogel, "node")
    assert config["ExposedPorts"] == {"3000/tcp": {}}
    assert config["Healthcheck"]["Interval"] == 30_000_000_000
    assert set(built["stages"]) == {"base", "dependencies", "test", "stage-3"}


def test_go(aerogel: Aerogel) -> None:
    build(aerogel, "go", "--build-arg", "VERSION=1.2")
    done = aerogel("run", "-e", "LANGUAGE=de", "go", "Ada")
    assert done.stdout == "Hallo, Ada (greet 1.2)\n"


def test_rust(aerogel: Aerogel) -> None:
    built = build(aerogel, "rust")
    assert aerogel("run", "rust").stdout == "2 3 5 7 11 13 17 19\n"
    assert built["size"] < 20_000_000


def test_java(aerogel: Aerogel) -> None:
    build(aerogel, "java")
    assert aerogel("run", "java", "owner").stdout == "demo team\n"


def test_monorepo(aerogel: Aerogel) -> None:
    built = build(aerogel, "monorepo")
    assert len(built["stages"]) == 11, "the stage `docs` is not needed"
    assert aerogel("run", "monorepo", "api.py", "Ada").stdout == "Greeting(name='Ada', words='2') Hello, Ada\n"
    assert aerogel("run", "monorepo", "worker.py", "a b", "c").stdout == "3\n"
    page = aerogel("run", "monorepo", "-c", "print(open('web/bundle.html').read())").stdout
    assert page.strip() == "<style>p { margin: 0 }</style><p>words</p>"


def test_heredocs(aerogel: Aerogel) -> None:
    build(aerogel, "heredocs")
    pages = "Hello, $HOME\n" + "Hello from a script\n" + "perl counts to 3\n"
    assert aerogel("run", "heredocs").stdout == "tabs go, $names stay\n" + pages + GREETED


def test_onbuild(aerogel: Aerogel) -> None:
    aerogel("build", "tests/projects/onbuild/base", "-t", "localhost/python-onbuild")
    triggers = config_of(aerogel, "localhost/python-onbuild")["OnBuild"]
    assert len(triggers) == 5
    build(aerogel, "onbuild/app", "-t", "onbuild", "--build-arg", "ROLE=writer")
    assert aerogel("run", "onbuild").stdout == "writer --long\n"
    assert not config_of(aerogel, "onbuild").get("OnBuild")


def test_windows_line_ends(aerogel: Aerogel) -> None:
    assert b"\r\n" in (PROJECTS / "crlf" / "Dockerfile").read_bytes()
    build(aerogel, "crlf")
    assert aerogel("run", "crlf").stdout == "[site]\nname=windows\n"
    config = config_of(aerogel, "crlf")
    assert config["Labels"] == {"path": r"C:\temp"}
    assert {"EDITOR=none", "NOTE=two words"} <= set(config["Env"])
