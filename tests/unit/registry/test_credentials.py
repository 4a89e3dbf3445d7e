from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.registry.auth import Challenge, parse_challenges
from aerogel.registry.credentials import Credential, Credentials

HUB = "https://index.docker.io/v1/"

PROGRAM = """#!/bin/sh
# Keeps one credential for each server in a folder, as the real programs keep them in a key ring.
read -r input
case $1 in
get)
    name=$(printf %s "$input" | tr -c 'a-z0-9\\n' _)
    cat "$STORE/$name" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
store)
    server=$(printf %s "$input" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/')
    printf %s "$input" > "$STORE/$(printf %s "$server" | tr -c 'a-z0-9\\n' _)" ;;
erase)
    rm -f "$STORE/$(printf %s "$input" | tr -c 'a-z0-9\\n' _)" ;;
esac
"""


def entry(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "ring").mkdir()
    program = programs / "docker-credential-ring"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return {"PATH": f"{programs}:{os.defpath}", "STORE": str(tmp_path / "ring")}


def config(tmp_path: Path, name: str, **table: object) -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize("key", [HUB, "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"])
def test_docker_hub_has_many_names(tmp_path: Path, key: str) -> None:
    found = Credentials([config(tmp_path, "a", auths={key: entry("amy", "secret")})], {}).find("docker.io", "library/x")
    assert found is not None
    assert (found.username, found.password) == ("amy", "secret")


def test_the_most_special_key_wins(tmp_path: Path) -> None:
    auths = {"host:1": entry("all", "1"), "host:1/team": entry("team", "2"), "host:1/team/app": entry("app", "3")}
    known = Credentials([config(tmp_path, "a", auths=auths)], {})
    users = [known.find("host:1", name).username for name in ("team/app", "team/other", "x")]  # type: ignore[union-attr]  # all are there
    assert users == ["app", "team", "all"]
    assert known.find("host:2", "team/app") is None


def test_the_first_file_that_knows_the_registry_wins(tmp_path: Path) -> None:
    files = [
        tmp_path / "not-there",
        config(tmp_path, "a", auths={"one": entry("a", "1")}),
        config(tmp_path, "b", auths={"one": entry("b", "2"), "two": entry("b", "2")}),
    ]
    known = Credentials(files, {})
    assert [known.find(name).username for name in ("one", "two")] == ["a", "b"]  # type: ignore[union-attr]  # all are there


def test_programs(tmp_path: Path, environment: dict[str, str]) -> None:
    file = config(tmp_path, "config.json", credsStore="ring", HttpHeaders={"x": "kept"})
    known = Credentials([file], environment)
    assert known.find("host:5000") is None
    assert known.save("host:5000", Credential("amy", "secret")) == "docker-credential-ring"
    found = known.find("host:5000")
    assert found == Credential("amy", "secret", "", "docker-credential-ring")
    assert "secret" not in file.read_text()
    assert "secret" not in repr(found)
    assert known.erase("host:5000") == ["docker-credential-ring"]
    assert known.find("host:5000") is None
    assert known.erase("host:5000") == []


def test_a_program_for_one_registry_and_an_identity_token(tmp_path: Path, environment: dict[str, str]) -> None:
    file = config(tmp_path, "config.json", credHelpers={"host:5000": "ring"}, auths={"other": entry("b", "2")})
    known = Credentials([file], environment)
    known.save("host:5000", Credential("", "", "identity"))
    assert known.find("host:5000") == Credential("", "", "identity", "docker-credential-ring")
    assert known.find("other").username == "b"  # type: ignore[union-attr]  # it is there


def test_a_program_that_is_not_there(tmp_path: Path, environment: dict[str, str]) -> None:
    known = Credentials([config(tmp_path, "config.json", credsStore="gone")], environment)
    with pytest.raises(AerogelError, match="`docker-credential-gone` is not installed"):
        known.find("host")


def test_login_and_logout_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "config.json"
    known = Credentials([file], {})
    known.save("docker.io", Credential("amy", "pa:ss"))
    known.save("host", Credential("bob", "x"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text())["auths"]) == {HUB, "host"}
    assert known.find("docker.io").password == "pa:ss"  # type: ignore[union-attr]  # it is there
    assert known.erase("docker.io") == [str(file)]
    assert set(json.loads(file.read_text())["auths"]) == {"host"}


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"host": {"auth": "%%"}}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(AerogelError, match=r"config\.json") as caught:
        Credentials([file], {}).find("host")
    assert caught.value.code == "registry.config"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://a/t?x=1",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t?x=1", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate, BASIC Realm=plain", [("negotiate", {}), ("basic", {"realm": "plain"})]),
        ('bearer realm = "q\\"uote"', [("bearer", {"realm": 'q"uote'})]),
        ("", []),
        ('"', []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert list(parse_challenges(header)) == [Challenge(*each) for each in expected]
