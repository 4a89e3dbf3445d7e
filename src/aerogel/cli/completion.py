"""`aerogel completion`: a completion script, made by shtab from the parsers of all commands.

A command like the others, but in `cli`, since it needs the parsers.
"""

from __future__ import annotations

import argparse
import re
from typing import Annotated, Literal, get_args, get_origin

from msgspec import Struct

from aerogel.cli.parse import command_parser, specification
from aerogel.commands.result import Result
from aerogel.commands.table import COMMANDS
from aerogel.commands.world import World
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "Completion", "CompletionResult", "run", "text"]

EXAMPLES = (
    ("bash, for this user", "aerogel completion bash > ~/.local/share/bash-completion/completions/aerogel"),
    ("zsh", "aerogel completion zsh > ~/.zfunc/_aerogel"),
    ("fish", "aerogel completion fish > ~/.config/fish/completions/aerogel.fish"),
)


_ADVICE = re.compile(r"^# Usage:\n(?:#.*\n)+", re.MULTILINE)
"""What shtab says about where to put a script: other places than the help of this command."""

_BASES = {
    "bash": """_aerogel_bases() {{
  compgen -W "{names}" -- "$1"
  _shtab_compgen_files "$1"
}}""",
    "zsh": """_aerogel_bases() {{
  _alternative 'bases:base:({names})' 'files:file:_files'
}}""",
    "fish": """function _aerogel_bases
  string split ' ' '{names}'
  __fish_complete_path (commandline -ct)
end""",
}
"""What offers a base by the name that `aerogel base` takes, or a declaration."""


class Completion(Struct, frozen=True, kw_only=True):
    """Print a completion script for a shell."""

    shell: Annotated[
        Literal["bash", "zsh", "fish", "tcsh"],
        Flag("Which shell: `bash`, `zsh`, `fish` or `tcsh`", positional=True, metavar="SHELL"),
    ]


class CompletionResult(Result, frozen=True, kw_only=True):
    script: str


def run(options: Completion, world: World) -> CompletionResult:
    """Builds the parser of every command."""
    del world
    import shtab

    parser = argparse.ArgumentParser(prog="aerogel")
    parser.add_argument("--version", action="store_true", help="Print the version")
    commands = parser.add_subparsers()
    families = {"": commands}
    offered = {"file": shtab.FILE, "directory": shtab.DIRECTORY, "base": _bases(str(shtab.FILE["tcsh"]))}
    names = {command.name for command in COMMANDS}
    words = [command.name for command in COMMANDS]
    for command in COMMANDS:
        if command.name.rpartition(" ")[0] in names:  # `debug last` is a command, and a word of the command `debug`
            continue
        below = [name.rpartition(" ")[2] for name in words if name.rpartition(" ")[0] == command.name]
        spec = specification(command)
        made = command_parser(spec)
        fields = {one.field: one for one in (*spec.options, *spec.common)}
        for action in made._actions:
            option = fields.get(action.dest)
            if option is not None and option.flag.complete:
                action.complete = offered[option.flag.complete]  # type: ignore[attr-defined] # shtab's protocol
            elif option is not None and below and option.flag.positional and not option.flag.rest:
                action.choices = below
            elif option is not None and get_origin(option.item) is Literal:
                action.choices = get_args(option.item)
        family, _, word = command.name.rpartition(" ")
        if family and family not in families:
            help_of_all = f"Of these: {', '.join(one.name for one in COMMANDS if one.name.startswith(f'{family} '))}"
            families[family] = commands.add_parser(family, help=help_of_all, add_help=False).add_subparsers()
        families[family].add_parser(word, help=command.help, parents=[made], add_help=False)
    script: str = shtab.complete(parser, shell=options.shell)
    return CompletionResult(script=_ADVICE.sub("", script, count=1))


def _bases(files: str) -> dict[str, str | dict[str, str]]:
    """What shtab makes functions of; in tcsh there are `files` only."""
    from aerogel.distroless.catalogue import declarations

    calls = {"bash": "_aerogel_bases", "zsh": "_aerogel_bases", "fish": "(_aerogel_bases)", "tcsh": files}
    names = " ".join(declarations())
    return {**calls, "preamble": {shell: form.format(names=names) for shell, form in _BASES.items()}}


def text(options: Completion, result: CompletionResult) -> str:
    del options
    return result.script
