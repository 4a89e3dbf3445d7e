"""What to write in place of a command whose tool a base without a shell does not have: pip, npm, apt-get.

The answer is two stages: a base that has the tool, and what to copy from it. For packages of Debian there is a shorter
one as well, the name in FROM with the packages added; only who knows the bases can tell that name (`Extend`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aerogel.files.tree import Tree
from aerogel.graph.ops import Run

__all__ = ["Extend", "Extended", "extends_nothing", "with_builder"]


class Extended(NamedTuple):
    """How a base gets packages: `how` says it, empty when it cannot be said; `root` has apt, and is of its release."""

    how: str
    root: str


Extend = Callable[[Sequence[str]], Extended]
"""Names of Debian's packages -> how the base that the stage's FROM names gets them."""


def extends_nothing(_: Sequence[str]) -> Extended:
    """For a base that is not known."""
    return Extended("", "debian")


_RECORDS = b"var/lib/dpkg/status.d"
_SBOM = b"var/lib/db/sbom"
_PIP = re.compile(r"(?:/\S*/)?(?:pip3?|python3? -m pip)\s+install\s+(.+)", re.DOTALL)
_NPM = re.compile(r"(?:/\S*/)?(?:npm|npx|yarn|pnpm)\s+.+", re.DOTALL)
_NODE = re.compile(rb"node-\S*-(\d+)\.[0-9.]+\.spdx\.json")
_SHELL = ("/bin/sh", "-c")

_APT = re.compile(r"(?:/usr/bin/)?apt(?:-get)?")
_TIDIED = re.compile(r"/var/(?:lib/apt|cache/(?:apt|debconf)|log)(?:/.*)?|/(?:var/)?tmp/.*")
_FED = re.compile(
    r"\s*(?:/bin/|/usr/bin/env\s+)?(?:ba|da)?sh(?:\s+-\w+)*\s*<<-?\s*([\"']?)(\w+)\1[ \t]*\n(.*?)\n?\2\s*", re.DOTALL
)
"""`bash -e <<EOF`: a shell, and what it is given."""
_BLOCKS = frozenset(("!", "{", "case", "do", "elif", "else", "for", "if", "then", "until", "while"))
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9.+-]+)(=\S+)?")
_WITH_VALUE = frozenset((
    *("-a", "-c", "-o", "-t", "--config-file", "--default-release", "--host-architecture", "--option"),
    *("--target-release", "--solver"),
))  # fmt: skip


class _Script(NamedTuple):
    """What a step runs. `line` is it in one line, empty if that cannot be; `is_simple`: one command after the other."""

    line: str
    commands: list[list[str]]
    is_simple: bool


def with_builder(op: Run, tree: Tree | None, extend: Extend) -> str:
    """What to write in place of the command; empty for commands and for bases of which nothing is known."""
    if tree is None or tree.lookup(_RECORDS) is None:
        return ""
    script = _script(op)
    place = op.cwd if op.cwd not in ("", "/") else "/app"
    if (found := _PIP.fullmatch(script.line)) is not None:
        is_older = tree.lookup(b"usr/bin/python3.11") is not None
        builder, install = "aerogel/python3-build" + ":bookworm" * is_older, f"/venv/bin/pip install {found[1]}"
        steps = [f"`RUN python3 -m venv /venv && {install}`"]
        copies = ["COPY --from=build /venv /venv", "ENV PATH=/venv/bin:$PATH"]
    elif _NPM.fullmatch(script.line) is not None:
        folder = tree.children(_SBOM) if tree.lookup(_SBOM) is not None else []
        version = next((match[1].decode() for name in folder if (match := _NODE.fullmatch(name))), "24")
        builder = f"aerogel/nodejs{version}-build"
        steps = [f"`WORKDIR {place}`", "`COPY package*.json ./`", f"`RUN {script.line}`"]
        copies = [f"COPY --from=build {place} {place}"]
    elif any(_of_apt(each)[0] == "install" for each in script.commands):
        return _with_packages(script, extend)
    else:
        return ""
    return f"this base has no shell: {_two_stages(builder, steps, copies)}"


def _two_stages(builder: str, steps: Sequence[str], copies: Sequence[str]) -> str:
    after = " and ".join(f"`{one}`" for one in copies)
    return f"put a stage before it, `FROM {builder} AS build`, {', '.join(steps)}; in place of this RUN write {after}"


def _script(op: Run) -> _Script:
    if op.argv[:2] != _SHELL:
        return _Script(shlex.join(op.argv), [list(op.argv)], is_simple=True)
    text = op.argv[2]
    fed = _FED.fullmatch(text)
    text = re.sub(r"\\\r?\n", " ", text if fed is None else fed[3])
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    commands: list[list[str]] = [[]]
    is_simple = True
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            words = list(lexer)
        except ValueError:  # a quote that another line closes
            words, is_simple = line.split(), False
        for word in words:
            if not set(word) <= set("();<>|&"):
                commands[-1].append(word)
            else:
                commands.append([])
                is_simple = is_simple and word in ("&&", ";")
        if words[-1:] != ["&&"]:
            commands.append([])
    commands = [each for each in commands if each]
    is_simple = is_simple and not any(each[0] in _BLOCKS for each in commands)
    if len(lines) > 1:
        line = " && ".join(each.rstrip("; ").removesuffix("&&").rstrip() for each in lines) if is_simple else ""
    else:
        line = "".join(lines)
    return _Script(line if re.search("[\"']", line) else " ".join(line.split()), commands, is_simple)


def _of_apt(command: Sequence[str]) -> tuple[str, list[str]]:
    """What `apt-get` is to do, and with what; empty if it is another program."""
    words = list(command)
    while words and (words[0] in ("sudo", "env", *_BLOCKS) or re.match(r"[A-Za-z_]\w*=", words[0])):
        del words[0]
    if not words or not _APT.fullmatch(words[0]):
        return "", []
    plain: list[str] = []
    skip = True
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in _WITH_VALUE
        else:
            plain.append(word)
    return (plain[0], plain[1:]) if plain else ("", [])


def _is_tidy(command: Sequence[str]) -> bool:
    """Whether a command only stands around an installation, and does nothing for the image without it."""
    if command[0] == "rm":
        return all(word.startswith("-") or _TIDIED.fullmatch(word) for word in command[1:])
    return command[0] in (":", "set", "true") or _of_apt(command)[0] not in ("", "install", "remove", "purge")


def _with_packages(script: _Script, extend: Extend) -> str:
    """For installations: the base with the packages, if nothing else is done, and a stage that does all of it."""
    asked = [word for each in script.commands if _of_apt(each)[0] == "install" for word in _of_apt(each)[1]]
    packages = [found for word in asked if (found := _PACKAGE.fullmatch(word)) is not None]
    is_all = len(packages) == len(asked) > 0 and script.is_simple
    is_all = is_all and all(_is_tidy(each) or _of_apt(each)[0] == "install" for each in script.commands)
    how, root = extend(list(dict.fromkeys(each[1] for each in packages)) if is_all else [])
    update = "" if any(_of_apt(each)[0] == "update" for each in script.commands) else "apt-get update"
    steps = [f"`RUN {update}{update and ' && '}{script.line}`"]
    if not script.line:
        steps = [*([f"`RUN {update}`"] if update else []), "this RUN"]
    stages = f"{_two_stages(root, steps, ['COPY --from=build /PATH /PATH'])} for each file that you need"
    if not (how and is_all):
        return f"this base has no shell and no apt: {stages}"
    versions = [each[0] for each in packages if each[2]]
    if versions:
        how += f" (a version, as in `{versions[0]}`, is the `pin` of a package in a declaration)"
    return f"this base has no shell and no apt: {how}, and leave this RUN out; or {stages}"
