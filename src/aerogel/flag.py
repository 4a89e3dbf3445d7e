"""The metadata of one option: what `Annotated[type, Flag(...)]` carries beside the type.

One declaration gives the command line flag, the configuration key, the environment variable, the help text, the
completion and the reference page. Read by `cli.parse`, `settings` and `tools/gen_reference.py`. Floor 1: standard
library only; knows nothing of parsers.
"""

from __future__ import annotations

__all__ = ["Flag"]


class Flag:
    """How one field of an options Struct is given by a user. The type of the field says what values it takes.

    `short` is one letter; `name` replaces the flag's long name (default: the field's, `_` becomes `-`).
    `positional` fields take words that are not flags, `rest` takes everything after the first positional, flags
    included. `setting` names the field of `Settings` that the value replaces when it is given. `env` is the whole
    name of an environment variable (default: `AEROGEL_<COMMAND>_<FIELD>`, for settings `AEROGEL_<FIELD>`).
    `complete` is what a shell offers: `file`, `directory`, or `base` for a base or its declaration. `bare` is the value of the flag without one; another
    value then needs `=`.
    """

    __slots__ = (
        "bare",
        "complete",
        "env",
        "group",
        "help",
        "hidden",
        "metavar",
        "name",
        "positional",
        "rest",
        "setting",
        "short",
    )

    def __init__(
        self,
        help: str,  # noqa: A002 - the word that users of argparse know
        *,
        short: str = "",
        name: str = "",
        metavar: str = "",
        group: str = "Options",
        env: str = "",
        setting: str = "",
        complete: str = "",
        bare: str = "",
        positional: bool = False,
        rest: bool = False,
        hidden: bool = False,
    ) -> None:
        self.help = help
        self.short = short
        self.name = name
        self.metavar = metavar
        self.group = group
        self.env = env
        self.setting = setting
        self.complete = complete
        self.bare = bare
        self.positional = positional or rest
        self.rest = rest
        self.hidden = hidden

    def __repr__(self) -> str:
        return f"Flag({self.help!r})"
