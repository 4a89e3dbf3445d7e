"""The completion scripts in their shells. Debian packages: bash, zsh, fish."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aerogel.cli.completion import Completion, run
from aerogel.commands.world import World

BASH = """
source "$1"
complete=$(complete -p aerogel | sed 's/.*-F \\([^ ]*\\).*/\\1/')
shift
COMP_WORDS=(aerogel "$@")
COMP_CWORD=$#
COMP_LINE="aerogel $*"
COMP_POINT=${#COMP_LINE}
"$complete" aerogel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.slow

LINES = (
    ("cac", {"cache"}),
    ("cache ", {"export", "import", "ls", "rm"}),
    ("cache l", {"ls"}),
    ("build --no-c", {"--no-cache", "--no-cache-filter"}),
    ("build --progress ", {"auto", "tty", "plain", "json", "quiet"}),
    ("completion z", {"zsh"}),
    ("debug ", {"last"}),
    ("volume ", {"create", "inspect", "ls", "prune", "rm"}),
    ("bake --on-", {"--on-error"}),
    ("bake --on-error ", {"fail", "debug"}),
    ("sta", {"start", "stats"}),
    ("base show dot", {"dotnet", "dotnet-deps", "dotnet-deps-icu"}),
    ("base build cc", {"cc", "cc-build"}),
    ("base init --extends ph", {"php"}),
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory):
    def make(shell: str) -> Path:
        path = tmp_path_factory.mktemp("completion") / f"aerogel.{shell}"
        path.write_text(run(Completion(shell=shell), World.__new__(World)).script)
        return path

    return make


def said(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([*words], capture_output=True, text=True, cwd=cwd, env={"PATH": "/usr/bin:/bin", "HOME": "/"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_completes(script, tmp_path):
    path = script("bash")
    for line, offered in LINES:
        assert set(said("bash", "-c", BASH, "bash", path, *line.split(" "), cwd=tmp_path).split()) == offered, line


def test_fish_completes(script, tmp_path):
    path = script("fish")
    for line, offered in LINES:
        found = said("fish", "--no-config", "-c", f"source {path}; complete -C 'aerogel {line}'", cwd=tmp_path)
        assert {each.split("\t")[0] for each in found.splitlines()} == offered, line


def test_a_folder_is_offered_where_one_is_wanted(script, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert said("bash", "-c", BASH, "bash", script("bash"), "build", "", cwd=tmp_path).split() == ["folder"]


def test_zsh_loads_it_and_knows_the_words(script, tmp_path):
    (tmp_path / "_aerogel").write_text(script("zsh").read_text())
    program = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -D -u; print $_comps[aerogel]"
    assert said("zsh", "-f", "-c", program, cwd=tmp_path) == "_aerogel\n"
    program = f'compdef() {{ }}; eval "$(<{tmp_path}/_aerogel)"; _describe() {{ print ${{(P)2}} }}; _values() {{ }}; '
    program += "_shtab_aerogel_cache_commands"
    listed = said("zsh", "-f", "-c", program, cwd=tmp_path)
    assert "ls:List the directories" in listed
    assert "rm:Remove directories" in listed
    program = f'compdef() {{ }}; eval "$(<{tmp_path}/_aerogel)"; _alternative() {{ print -l "$@" }}; _aerogel_bases'
    assert "nodejs24" in said("zsh", "-f", "-c", program, cwd=tmp_path).split()


def test_a_declaration_is_offered_beside_the_bases(script, tmp_path):
    (tmp_path / "rubyists.yaml").touch()
    (tmp_path / "folder").mkdir()
    for shell in ("bash", "fish"):
        path = script(shell)
        words = ("-c", BASH, "bash", path, "base", "why", "ru")
        fish = ("--no-config", "-c", f"source {path}; complete -C 'aerogel base why ru'")
        found = said(shell, *(words if shell == "bash" else fish), cwd=tmp_path).splitlines()
        assert {each.split("\t")[0] for each in found} == {"ruby", "rubyists.yaml"}, shell
