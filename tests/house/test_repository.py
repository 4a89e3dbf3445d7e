"""Rules that hold for the whole tree: no hosts of package indexes, no paths of a machine, docs that are true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aerogel.cli.parse import parse, specification
from aerogel.commands.table import find_command
from aerogel.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]

ALLOWED_HOSTS = {"mirrors.edge.kernel.org", "mirrors.ocf.berkeley.edu"}
"""The fallback mirrors: written in one data file of `debian`, trusted by signature only."""

MACHINE_PATHS = ("/work/main", "/work/shared", "/work/.", "/opt/dev", "/root/.pyenv", "/opt/pypi", "/tmp/lead")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    found = {}
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found[str(path.relative_to(ROOT))] = data.decode("utf-8", "replace")
    return found


def configured_hosts() -> set[str]:
    """Host names that this machine's pip, apt and npm are configured with, and pip's own default."""
    commands = (
        [sys.executable, "-m", "pip", "config", "list"],
        [
            sys.executable,
            "-c",
            "from pip._internal.models import index as i; print(i.PyPI.url, i.PyPI.file_storage_domain)",
        ],
        ["apt-get", "indextargets", "--format", "$(SITE)"],
        ["npm", "config", "get", "registry"],
    )
    said = ""
    for command in commands:
        try:
            said += subprocess.run(command, capture_output=True, text=True, timeout=60).stdout + "\n"
        except FileNotFoundError:
            continue
    hosts = {urlsplit(one).hostname for one in re.findall(r"\w+://[^\s'\"]+", said)}
    hosts |= set(re.findall(r"(?m)(?<=\s)[\w-]+(?:\.[\w-]+){2,}$", said))
    return {host for host in hosts if host and "." in host}


def test_no_host_of_a_package_index():
    hosts = configured_hosts() - ALLOWED_HOSTS
    assert hosts, "this machine names no package index, so nothing could be checked"
    wrong = [
        f"{name}:{text[: text.index(host)].count(chr(10)) + 1}: host #{number} of this machine's configuration"
        for name, text in texts().items()
        for number, host in enumerate(sorted(hosts), 1)
        if host in text
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_path_of_a_machine():
    own = str(Path(__file__).relative_to(ROOT))
    wrong = [
        f"{name}: {path}" for name, text in texts().items() if name != own for path in MACHINE_PATHS if path in text
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_lock_files_hold_names_versions_and_hashes_only():
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (ROOT / name).read_text().splitlines()
        known = re.compile(r"# .*|[a-z0-9-]+==[\w.]+(?: ; [\w ='.<>]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
        assert [line for line in lines if not known.fullmatch(line)] == []


def run_tool(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_reference_is_current():
    run_tool("tools/gen_reference.py", "--check")


def test_declarations_and_what_is_made_from_them_agree():
    run_tool("tools/gen_bases.py", "--check")


def test_lock_files_fit_the_project():
    run_tool("tools/lock.py", "--check")


def links(text: str) -> list[str]:
    return [one.split("#")[0] for one in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in one and one[0] != "#"]


def test_links_in_documents_lead_somewhere():
    wrong = [
        f"{name}: {link}"
        for name, text in texts().items()
        if name.endswith(".md")
        for link in links(text)
        if link and not ((ROOT / name).parent / link).exists()
    ]
    assert not wrong


def test_names_in_the_architecture_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:src|tests|tools|docs|examples)/[\w./-]+|[a-z]+/[a-z_]+\.py)`", text))
    missing = [one for one in named if not (ROOT / one).exists() and not (ROOT / "src/aerogel" / one).exists()]
    assert named
    assert not missing


def test_architecture_fits_two_pages():
    assert len((ROOT / "ARCHITECTURE.md").read_text().split()) <= 1500


def test_dependencies_are_explained():
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"(?ms)^dependencies = \[(.*?)^\]", project)
    assert listed is not None
    names = re.findall(r'"([\w-]+)', listed.group(1))
    text = (ROOT / "docs/dependencies.md").read_text()
    assert [name for name in names if f"## {name}" not in text] == []
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    modules = {"PyNaCl": "nacl", "PyYAML": "yaml", "packageurl-python": "packageurl", "python-hcl2": "hcl2"}
    imported = {name: rf"(?m)^\s*(?:import|from) {modules.get(name, name)}\b" for name in names}
    assert [name for name in names if not re.search(imported[name], source)] == [], "never used"


def console_lines() -> list[tuple[str, str]]:
    """(file, line) of every command in a `console` block of the documents."""
    return [
        (name, line.strip())
        for name, text in texts().items()
        if name.endswith(".md")
        for block in re.findall(r"(?ms)^```console\n(.*?)^```", text)
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def aerogel_part(line: str) -> str:
    """The part of a pipe that is ours, or the first one."""
    parts = [part.strip() for part in line.split("|")]
    return next((part for part in parts if "aerogel" in part.split()[0]), parts[0])


def test_test_files_have_names_of_their_own():
    """pytest imports them by base name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


HARMLESS = ("doctor --offline", "images", "version", "completion bash")


@pytest.mark.parametrize(("name", "line"), console_lines())
def test_console_blocks(name, line, tmp_path):
    """Every command parses with the flags that exist; those that need nothing run."""
    words = shlex.split(re.split(r"[<>]", aerogel_part(line))[0])
    if words[0] in ("./check", "alias"):
        return
    assert words[0] in ("aerogel", "./aerogel"), f"{name}: {line}"
    found = find_command(words[1:])
    assert found is not None, f"{name}: no such command: {line}"
    command, rest = found
    settings = load_settings({"HOME": str(tmp_path), "AEROGEL_ROOT": str(tmp_path / "r")}, str(ROOT))
    assert parse(specification(command), rest, settings) is not None
    if " ".join(words[1:]) in HARMLESS:
        environ = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run([sys.executable, "-m", "aerogel", *words[1:]], env=environ, cwd=ROOT, capture_output=True)
        assert done.returncode in (0, 3), done.stderr.decode()
        assert done.stdout
