"""From an options Struct to a parser, and from words to a value of that Struct; help texts.

The parser is argparse's, made for the chosen command only. Flags behave as docker's do: short ones combine
(`-it`), a boolean takes `=true` or `=false`, and with a `rest` field everything after the first positional word
belongs to it. Not here: what the commands are (`commands.table`) and what an option means (the command).

What a value may come from, weakest first: the Struct's default, the table `[command]` of the configuration files,
the variable `AEROGEL_<COMMAND>_<FIELD>`, the flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from aerogel.commands.result import Result
from aerogel.commands.table import Command
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.flag import Flag
from aerogel.settings import Color, Progress, Settings, key_span, parse_scalar, refuse_in_project, setting_type

__all__ = [
    "Common",
    "Option",
    "Parsed",
    "Specification",
    "command_parser",
    "help_text",
    "options_of",
    "parse",
    "specification",
    "usage",
    "variable_of",
]

SWITCH, VALUE, LIST, TABLE = "switch", "value", "list", "table"


class Common(Struct, frozen=True, kw_only=True):
    """Flags that every command has."""

    progress: Annotated[
        Progress | None, Flag("How progress is shown", group="Common", setting="progress", env="AEROGEL_PROGRESS")
    ] = None
    color: Annotated[
        Color | None, Flag("When to use colours", group="Common", setting="color", env="AEROGEL_COLOR")
    ] = None
    debug: Annotated[
        bool | None,
        Flag("Show a traceback for every error", short="D", group="Common", setting="debug", env="AEROGEL_DEBUG"),
    ] = None
    json: Annotated[bool, Flag("Print the result as JSON", group="Common")] = False


class Option(NamedTuple):
    """One field of an options Struct, as a parser needs it. `item` is the type of a value or of a list's item."""

    field: str
    flag: Flag
    kind: str
    item: Any
    default: Any
    is_required: bool
    keys_may_stand_alone: bool

    @property
    def long(self) -> str:
        return self.flag.name or self.field.strip("_").replace("_", "-")

    @property
    def metavar(self) -> str:
        if self.flag.metavar:
            return self.flag.metavar
        if get_origin(self.item) is Literal:
            return "|".join(get_args(self.item))
        if self.flag.positional:
            return self.long.upper()
        return {TABLE: "KEY=VALUE"}.get(self.kind) or {int: "N", float: "N"}.get(self.item, "VALUE")

    def names(self) -> list[str]:
        return [*([f"-{self.flag.short}"] if self.flag.short else []), f"--{self.long}"]

    def negative(self) -> str:
        """The flag that switches a boolean off."""
        return f"--no-{self.long}"


class Specification(NamedTuple):
    """A command module, taken apart: what it takes, what it gives, examples of its use (comment, command)."""

    command: Command
    module: ModuleType
    options_type: type[Struct]
    result_type: type[Result]
    options: tuple[Option, ...]
    common: tuple[Option, ...]
    examples: tuple[tuple[str, str], ...]

    @property
    def summary(self) -> str:
        return " ".join((self.options_type.__doc__ or "").split("\n\n", maxsplit=1)[0].split())


class Parsed(NamedTuple):
    """The outcome of parsing. `given` are the flags that were set by any source, for `Flag(setting=...)`."""

    options: Any
    common: Common
    settings: Settings


def specification(command: Command) -> Specification:
    """Imports the command's module and reads its `run(options, world) -> result`."""
    from importlib import import_module

    module = import_module(command.module)
    hints = get_type_hints(module.run)
    options_type, result_type = hints["options"], hints["return"]
    if not isinstance(result_type, type):  # a union, the usual result first
        result_type = get_args(result_type)[0]
    options = options_of(options_type)
    taken = {option.long for option in options}
    shown = set() if result_type.__struct_fields__ and result_type.is_data else {"json"}
    common = tuple(one for one in options_of(Common) if one.long not in taken | shown)
    return Specification(command, module, options_type, result_type, options, common, getattr(module, "EXAMPLES", ()))


def options_of(struct: type[Struct]) -> tuple[Option, ...]:
    """The fields of an options Struct in their order; every field must be `Annotated[type, Flag(...)]`."""
    return tuple(_option(field) for field in msgspec.structs.fields(struct))


def _option(field: msgspec.structs.FieldInfo) -> Option:
    kind, *extras = get_args(field.type)
    flag = next(extra for extra in extras if isinstance(extra, Flag))
    members = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) not in (Literal, list, tuple, dict) and members:
        kind = members[0]
    origin = get_origin(kind)
    item, form, alone = kind, VALUE, False
    if origin in (list, tuple):
        item, form = get_args(kind)[0], LIST
    elif origin is dict:
        alone = type(None) in get_args(get_args(kind)[1])
        item, form = str, TABLE
    elif kind is bool:
        form = SWITCH
    default = field.default_factory() if callable(field.default_factory) else field.default
    return Option(field.name, flag, form, item, default, is_required=field.required, keys_may_stand_alone=alone)


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def command_parser(spec: Specification, *, complete: bool = True) -> argparse.ArgumentParser:
    """The parser of one command. With `complete` it has the positional words as well, for help and completion.

    Without, only flags (and one remainder for a `rest` field): the positional words are what is left over, since
    argparse cannot mix optional positional words with flags.
    """
    parser = _Parser(
        prog=f"aerogel {spec.command.name}",
        usage=usage(spec),
        description=spec.summary or spec.command.help,
        epilog=_examples(spec),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    positional = [one for one in spec.options if one.flag.positional]
    words = parser.add_argument_group("Words")
    for option in positional if complete else ():
        _add_positional(words, option)
    for option in _flags(spec):
        title = option.flag.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_flag(groups[title], option)
    helper = groups.get("Common") or parser.add_argument_group("Common")
    short = ["-h"] if all(one.flag.short != "h" for one in spec.options) else []
    helper.add_argument(*short, "--help", action="store_true", dest="help", help="Show this help")
    if not complete and any(one.flag.rest for one in positional):
        parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def usage(spec: Specification) -> str:
    """`aerogel run [OPTIONS] IMAGE [ARG...]`."""
    words = ["aerogel", spec.command.name, "[OPTIONS]"]
    for option in (one for one in spec.options if one.flag.positional):
        word = option.metavar + ("..." if option.kind == LIST else "")
        words.append(word if option.is_required else f"[{word}]")
    return " ".join(words)


def _add_positional(group: Any, option: Option) -> None:
    many: str | None = None if option.is_required else "?"
    if option.kind == LIST:
        many = argparse.REMAINDER if option.flag.rest else "+" if option.is_required else "*"
    group.add_argument(option.field, nargs=many, metavar=option.metavar, help=_escape(option.flag.help))


def _add_flag(group: Any, option: Option) -> None:
    words = argparse.SUPPRESS if option.flag.hidden else _escape(_help_of(option))
    if option.kind == SWITCH:
        group.add_argument(*option.names(), dest=option.field, action="store_true", help=words)
        group.add_argument(option.negative(), dest=option.field, action="store_false", help=argparse.SUPPRESS)
        return
    group.add_argument(
        *option.names(),
        dest=option.field,
        action="store" if option.kind == VALUE else "append",
        metavar=f"[{option.metavar}]" if option.flag.bare else option.metavar,
        type=_converter(option),
        help=words,
    )


def _help_of(option: Option) -> str:
    default = option.default
    if option.kind == SWITCH and default is True:
        return f"{option.flag.help} (default; `{option.negative()}` switches it off)"
    if default in (None, "", False, msgspec.NODEFAULT, (), {}) or option.kind in (LIST, TABLE):
        return option.flag.help
    return f"{option.flag.help} (default: {default})"


def _escape(words: str) -> str:
    return words.replace("%", "%%")


def _converter(option: Option) -> Any:
    def convert(text: str) -> Any:
        if option.kind == TABLE:
            key, sign, value = text.partition("=")
            if not key or not (sign or option.keys_may_stand_alone):
                raise argparse.ArgumentTypeError(f"must be `KEY=VALUE`, not `{text}`")
            return key, value if sign else None
        try:
            return parse_scalar(text, option.item)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _examples(spec: Specification) -> str:
    if not spec.examples:
        return ""
    lines = ["Examples:"]
    for comment, command in spec.examples:
        lines += [f"  # {comment}", f"  {command}"]
    return "\n".join(lines)


def help_text(spec: Specification) -> str:
    """The whole help of a command, without colour, ending with a line end."""
    return command_parser(spec).format_help()


def parse(spec: Specification, words: Sequence[str], settings: Settings) -> Parsed | None:
    """The words after the command's name as options; None when help was asked for.

    Raises `AerogelError` with exit status 2 and code `cli.*`.
    """
    given, extras = _parse_flags(spec, words)
    if given.pop("help", False):
        return None
    left = given.pop("rest", None)
    unknown, positional = (extras, left) if left is not None else _split(extras)
    if unknown:
        raise _unknown_flag(spec, unknown[0])
    for option in (*spec.options, *spec.common):
        if option.kind == TABLE and option.field in given:
            given[option.field] = dict(given[option.field])
    given.update(_positional(spec, list(positional) if left is None else _after_dashes(positional)))
    own = {option.field for option in spec.options}
    common = {name: value for name, value in given.items() if name not in own}
    values = {**_from_files(spec, settings), **_from_variables(spec, settings)}
    values |= {name: value for name, value in given.items() if name in own}
    for option in spec.options:
        if option.is_required and option.field not in values:
            raise _missing(spec, option)
    options = _convert(spec, values)
    flags = Common(**common)
    return Parsed(options, flags, _with_flags(settings, spec, options, flags))


def _with_flags(settings: Settings, spec: Specification, options: Any, common: Common) -> Settings:
    """The settings with those fields replaced for which a flag was given, checked by the setting's own type."""
    changed: dict[str, Any] = {}
    for struct, known in ((common, spec.common), (options, spec.options)):
        for option in known:
            value = getattr(struct, option.field)
            if not option.flag.setting or value is None:
                continue
            try:
                changed[option.flag.setting] = parse_scalar(str(value), setting_type(option.flag.setting))
            except ValueError as error:
                raise _usage(f"flag `--{option.long}` {error}", "cli.value", _see_help(spec)) from None
    return msgspec.structs.replace(settings, **changed) if changed else settings


def _parse_flags(spec: Specification, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    parser = command_parser(spec, complete=False)
    try:
        found, extras = parser.parse_known_args(_spell_out(spec, words))
    except argparse.ArgumentError as error:
        raise _flag_error(spec, error) from None
    return vars(found), extras


def _spell_out(spec: Specification, words: Sequence[str]) -> list[str]:
    """`--rm=true` as `--rm` and `--rm=false` as `--no-rm`, which argparse understands; `--squash` with its value."""
    switches = {name: one for one in _flags(spec) if one.kind == SWITCH for name in one.names()}
    bare = {name: one.flag.bare for one in _flags(spec) if one.flag.bare for name in one.names()}
    with_value = {name for one in _flags(spec) if one.kind != SWITCH for name in one.names()} - bare.keys()
    has_rest = any(one.flag.rest for one in spec.options)
    done: list[str] = []
    is_value = False
    for at, word in enumerate(words):
        name, sign, value = word.partition("=")
        if not is_value and (word == "--" or (has_rest and (not word.startswith("-") or word == "-"))):
            return [*done, *words[at:]]
        if not is_value and sign and name in switches:
            try:
                is_on = parse_scalar(value, bool)
            except ValueError as error:
                raise _usage(f"flag `{name}` {error}", "cli.value") from None
            done.append(name if is_on else switches[name].negative())
        elif not is_value and word in bare:
            done.append(f"{word}={bare[word]}")
        else:
            done.append(word)
        is_value = not is_value and word in with_value
    return done


def _flags(spec: Specification) -> list[Option]:
    return [one for one in (*spec.options, *spec.common) if not one.flag.positional]


def _split(extras: Sequence[str]) -> tuple[list[str], list[str]]:
    """What argparse left over, as unknown flags and positional words."""
    unknown: list[str] = []
    words: list[str] = []
    for at, word in enumerate(extras):
        if word == "--":
            words += extras[at + 1 :]
            break
        is_flag = word.startswith("-") and word != "-" and not word[1:].replace(".", "", 1).isdigit()
        (unknown if is_flag else words).append(word)
    return unknown, words


def _after_dashes(words: list[str]) -> list[str]:
    return words[1:] if words[:1] == ["--"] else words


def _positional(spec: Specification, words: list[str]) -> dict[str, Any]:
    """Positional words on positional fields: single ones first, a list takes what remains."""
    found: dict[str, Any] = {}
    left = list(words)
    for option in spec.options:
        if not option.flag.positional or not left:
            continue
        if option.kind == LIST:
            found[option.field], left = [_word(option, one) for one in left], []
        else:
            found[option.field] = _word(option, left.pop(0))
    if left:
        takes = " ".join(one.metavar for one in spec.options if one.flag.positional) or "no words"
        raise _usage(
            f"`aerogel {spec.command.name}` does not know what to do with `{left[0]}`",
            "cli.extra-word",
            f"it takes {takes}",
            _see_help(spec),
        )
    return found


def _word(option: Option, text: str) -> Any:
    try:
        return parse_scalar(text, option.item)
    except ValueError as error:
        raise _usage(f"{option.metavar} {error}", "cli.value") from None


def _from_files(spec: Specification, settings: Settings) -> dict[str, Any]:
    known = {option.field: option for option in spec.options}
    values: dict[str, Any] = {}
    for file in settings.files:
        table = file.table.get(spec.command.name)
        if not isinstance(table, dict):
            continue
        for key, value in table.items():
            field = key.replace("-", "_")
            if field not in known:
                guess = nearest(key, [one.long for one in known.values()])
                raise AerogelError(
                    f"`aerogel {spec.command.name}` has no option `{key}`",
                    code="settings.unknown",
                    span=key_span(file.source, key),
                    hints=[f"did you mean `{guess}`?"] if guess else [],
                    exit_status=EXIT_USAGE,
                )
            refuse_in_project(file, spec.command.name, key)
            values[field] = value
    return values


def _from_variables(spec: Specification, settings: Settings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in spec.options:
        if option.flag.positional:
            continue
        variable = option.flag.env or variable_of(spec.command, option)
        text = settings.environment.get(variable)
        if not text:
            continue
        try:
            if option.kind == TABLE:
                values[option.field] = dict(_converter(option)(one) for one in text.split(","))
            elif option.kind == LIST:
                values[option.field] = [parse_scalar(one, option.item) for one in text.split(",")]
            else:
                values[option.field] = parse_scalar(text, option.item)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise _usage(f"environment variable `{variable}` {error}", "settings.value") from None
    return values


def variable_of(command: Command, option: Option) -> str:
    """The environment variable that gives an option."""
    return option.flag.env or f"AEROGEL_{command.name}_{option.long}".upper().replace("-", "_").replace(" ", "_")


def _convert(spec: Specification, values: dict[str, Any]) -> Any:
    try:
        return msgspec.convert(values, type=spec.options_type)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        field = place.rstrip("`").split("[", maxsplit=1)[0]
        raise _usage(
            f"option `{field.replace('_', '-') or spec.command.name}`: {text[:1].lower()}{text[1:]}",
            "cli.value",
            _see_help(spec),
        ) from None


def _usage(message: str, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_USAGE)


def _see_help(spec: Specification) -> str:
    return f"`aerogel {spec.command.name} --help` shows what it takes"


def _missing(spec: Specification, option: Option) -> AerogelError:
    what = option.metavar if option.flag.positional else f"--{option.long}"
    example = f"for example `{spec.examples[0][1]}`; " if spec.examples else ""
    return _usage(f"`aerogel {spec.command.name}` needs {what}", "cli.missing", example + _see_help(spec))


def _unknown_flag(spec: Specification, word: str) -> AerogelError:
    name = word.split("=", maxsplit=1)[0]
    absent = getattr(spec.module, "ABSENT", {})
    for names, instead in absent.items():
        given = name if name.startswith("--") else name[:2]
        if given in names:
            return _usage(f"`aerogel {spec.command.name}` has no flag `{given}`", "cli.unknown-flag", instead)
    known = [name for one in _flags(spec) if not one.flag.hidden for name in one.names()]
    guess = nearest(name, known) if name.startswith("--") else None
    return _usage(
        f"`aerogel {spec.command.name}` has no flag `{name}`",
        "cli.unknown-flag",
        f"did you mean `{guess}`?" if guess else _see_help(spec),
    )


def _flag_error(spec: Specification, error: argparse.ArgumentError) -> AerogelError:
    name = (error.argument_name or "").split("/")[-1]
    message = error.message
    if message.startswith("expected "):
        return _usage(f"flag `{name}` needs a value", "cli.value", _see_help(spec))
    if message.startswith("ignored explicit argument"):
        letter = message.split("'")[1]
        return _unknown_flag(spec, f"-{letter}")
    if not name:
        return _usage(message, "cli.usage", _see_help(spec))
    return _usage(f"flag `{name}` {message}", "cli.value", _see_help(spec))
