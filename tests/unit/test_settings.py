from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.errors import AerogelError
from aerogel.settings import load_settings


def test_places(tmp_path):
    found = load_settings({"HOME": "/home/x"}, str(tmp_path))
    assert (found.data, found.cache) == (Path("/home/x/.local/share/aerogel"), Path("/home/x/.cache/aerogel"))
    found = load_settings({"HOME": "/home/x", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "relative"}, str(tmp_path))
    assert (found.data, found.cache) == (Path("/d/aerogel"), Path("/home/x/.cache/aerogel"))
    found = load_settings({"HOME": "/home/x", "AEROGEL_ROOT": "here"}, str(tmp_path))
    assert (found.data, found.cache) == (tmp_path / "here/data", tmp_path / "here/cache")


def test_files_then_environment(tmp_path):
    (tmp_path / "config/aerogel").mkdir(parents=True)
    (tmp_path / "config/aerogel/aerogel.toml").write_text(
        'mirror = "http://a.example"\njobs = 2\n[aliases]\na = "1"\nb = "1"'
    )
    (tmp_path / "aerogel.toml").write_text('jobs = 3\nsecurity-mirror = "http://s.example"\n[aliases]\nb = "2"\n')
    environ = {
        "HOME": "/x",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "SOURCE_DATE_EPOCH": "0",
        "AEROGEL_DEBUG": "1",
    }
    found = load_settings(environ, str(tmp_path))
    assert (found.mirror, found.security_mirror, found.jobs) == ("http://a.example", "http://s.example", 3)
    assert found.aliases == {"a": "1", "b": "2"}
    assert (found.source_date_epoch, found.debug) == (0, True)
    assert load_settings(environ | {"AEROGEL_JOBS": "9"}, str(tmp_path)).jobs == 9


def test_registries(tmp_path):
    (tmp_path / "config/aerogel").mkdir(parents=True)
    (tmp_path / "config/aerogel/aerogel.toml").write_text(
        '[registries."a.example"]\nca = "ca.pem"\n[registries."b.example"]\nmirrors = ["m"]\nheaders = {A = "b"}\n'
    )
    environ = {"HOME": "/x", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    found = load_settings(environ, str(tmp_path)).registries
    assert (found["a.example"][0].ca, found["a.example"][1]) == ("ca.pem", tmp_path / "config/aerogel/aerogel.toml")
    assert (found["b.example"][0].mirrors, found["b.example"][0].headers) == (["m"], {"A": "b"})
    (tmp_path / "aerogel.toml").write_text('[registries."b.example"]\nmirror = "m"\n')
    with pytest.raises(AerogelError) as caught:
        load_settings(environ, str(tmp_path))
    assert caught.value.code == "settings.value"
    assert "unknown field `mirror`" in caught.value.message


@pytest.mark.parametrize(
    ("toml", "code", "line", "hint"),
    [
        ('miror = "x"', "settings.unknown", 1, "did you mean `mirror`?"),
        ('\njobs = "many"', "settings.value", 2, None),
        ("jobs = ", "settings.syntax", None, None),
        ('bases = "none"', "settings.value", 1, None),
    ],
)
def test_wrong_files(toml, code, line, hint, tmp_path):
    (tmp_path / "aerogel.toml").write_text(toml)
    with pytest.raises(AerogelError) as caught:
        load_settings({"HOME": "/x"}, str(tmp_path))
    error = caught.value
    assert (error.code, error.exit_status) == (code, 2)
    assert (error.span.line if error.span else None) == line
    if hint:
        assert hint in error.hints


@pytest.mark.parametrize("name", ["AEROGEL_JOBS", "AEROGEL_BASES", "AEROGEL_DEBUG", "SOURCE_DATE_EPOCH"])
def test_wrong_variables(name, tmp_path):
    with pytest.raises(AerogelError, match=f"`{name}` must be") as caught:
        load_settings({"HOME": "/x", name: "?"}, str(tmp_path))
    assert caught.value.code == "settings.value"


def test_ci_and_docker_config(tmp_path):
    assert load_settings({"HOME": "/x", "CI": "true"}, str(tmp_path)).is_ci
    assert not load_settings({"HOME": "/x", "CI": "false"}, str(tmp_path)).is_ci
    assert load_settings({"HOME": "/x"}, str(tmp_path)).docker_config == Path("/x/.docker")


def test_signatures(tmp_path):
    own, project = tmp_path / "aerogel" / "aerogel.toml", tmp_path / "p" / "aerogel.toml"
    for path in (own, project):
        path.parent.mkdir()
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    own.write_text('[signatures]\n"a.example/b/" = "k.pub"\n"*" = "none"\n')
    project.write_text('[signatures]\n"a.example" = "reject"\n')
    assert load_settings(environ, str(project.parent)).signatures == (
        (True, {"a.example/b": (str(own.parent / "k.pub"),), "*": ("none",)}),
        (False, {"a.example": ("reject",)}),
    )
    own.write_text('[signatures]\n"a.example" = { identity = "me", issuer = "https://i", trusted-root = "r.json" }\n')
    [(_, rules), _] = load_settings(environ, str(project.parent)).signatures
    [rule] = rules["a.example"]
    assert (rule.identity, rule.issuer, rule.trusted_root) == ("me", "https://i", str(own.parent / "r.json"))
    own.write_text('[signatures]\n"a.example" = { key = ["k.pub", "/l.pub"], signed-for = "b.example/a/" }\n')
    [(_, rules), _] = load_settings(environ, str(project.parent)).signatures
    [rule] = rules["a.example"]
    assert (rule.keys, rule.signed_for) == ((str(own.parent / "k.pub"), "/l.pub"), "b.example/a")
    for said in (
        '{ identity = "me" }',
        '{ key = "k", trusted-root = "r" }',
        "{ key = [] }",
        '{ key = [""] }',
        '{ signed-for = "any" }',
        '{ key = "k", signed-for = "team" }',
        '{ key = "k", signed-for = "*" }',
        '{ identity = "me", issuer = "" }',
        '{ identity = "a", issuer = "b", key = "k" }',
    ):
        own.write_text(f'[signatures]\n"a.example" = {said}\n')
        with pytest.raises(AerogelError) as caught:
            load_settings(environ, str(tmp_path))
        assert caught.value.code.startswith("settings."), said
    for scope in ("localhost", "h:5000/team", "a.example/team:1", "*.example", "docker.io/library/alpine"):
        own.write_text(f'[signatures]\n"{scope}" = "reject"\n')
        load_settings(environ, str(tmp_path))
    # What can never fit would let everything through.
    for scope in ("alpine", "team/app", "https://a.example", "a.example/*", "*.example/b", "a.example /b", ""):
        own.write_text(f'[signatures]\n"{scope}" = "reject"\n')
        with pytest.raises(AerogelError, match="is no registry and no name") as caught:
            load_settings(environ, str(tmp_path))
        assert caught.value.code == "settings.value"


@pytest.fixture
def project(tmp_path):
    """Settings of a user's file and a project's."""
    own = tmp_path / "aerogel" / "aerogel.toml"
    own.parent.mkdir()
    (tmp_path / "project").mkdir()

    def read(users: str, projects: str):
        own.write_text(users)
        (tmp_path / "project" / "aerogel.toml").write_text(projects)
        return load_settings({"XDG_CONFIG_HOME": str(tmp_path)}, str(tmp_path / "project"))

    return read


@pytest.mark.parametrize(
    ("toml", "what"),
    [
        *((f"{key} = 'x'", f"`{key}`") for key in ("root", "ca", "insecure_registry", "insecure-registry")),
        ("isolation = 'chroot'", "`isolation`"),
        *(
            (f'[registries."a.example"]\nblocked = true\n{key} = {value}', f'`{key}` of `[registries."a.example"]`')
            for key, value in (
                ("insecure", "true"),
                ("insecure", "false"),
                ("mirrors", '["b.example"]'),
                ("ca", '"ca.pem"'),
                ("client_cert", '"me.pem"'),
                ("client_key", '"me.key"'),
                ("headers", '{A = "b"}'),
            )
        ),
    ],
)
def test_what_a_project_may_not_set(toml, what, project):
    """A clone of somebody's repository does not decide whom its user trusts; the user's own file does."""
    project(toml, "")
    with pytest.raises(AerogelError) as caught:
        project("", toml)
    error = caught.value
    assert (error.code, error.exit_status) == ("settings.project", 2)
    assert error.message == f"a project's `aerogel.toml` may not set {what}"
    assert error.span.text == what.split("`")[1]
    assert "write it into your own file" in error.hints[1]


def test_a_project_may_block_and_takes_nothing_back(project):
    users = '[registries."a.example"]\nca = "ca.pem"\nmirrors = ["m"]\n[registries."b.example"]\nblocked = true\n'
    before = project(users, "").registries
    assert project(users, '[registries."a.example"]\n[registries."b.example"]\nblocked = false\n').registries == before
    found = project(users, '[registries."a.example"]\nblocked = true\n[registries."c.example"]\nblocked = true\n')
    assert [name for name, (entry, _) in found.registries.items() if entry.blocked] == [
        "a.example",
        "b.example",
        "c.example",
    ]
    entry, path = found.registries["a.example"]
    assert (entry.ca, entry.mirrors, path) == ("ca.pem", ["m"], before["a.example"][1])
