"""The commands: name, module, one line of help, other names. Nothing of a command is imported to list them."""

from __future__ import annotations

__all__ = ["COMMANDS", "Command", "find_command"]


class Command:
    """One command. `module` has an options Struct, a result Struct and `run(options, world)`."""

    __slots__ = ("aliases", "group", "help", "module", "name")

    def __init__(self, name: str, module: str, summary: str, *, group: str, aliases: tuple[str, ...] = ()) -> None:
        self.name = name
        self.module = f"aerogel.commands.{module}"
        self.help = summary
        self.group = group
        self.aliases = aliases


COMMANDS = (
    Command(
        "build",
        "build",
        "Build an image from a Dockerfile",
        group="Build and run",
        aliases=("buildx build", "buildx b", "image build", "builder build"),
    ),
    Command("version", "version", "Show versions of aerogel and of what it uses", group="Host"),
)


def find_command(words: list[str]) -> tuple[Command, list[str]] | None:
    """The command that the words begin with and the words after it; docker's two-word names count as one."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) < length:
            continue
        for command in COMMANDS:
            if name == command.name or name in command.aliases:
                return command, words[length:]
    return None
