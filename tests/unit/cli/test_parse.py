"""Words to options, through a command module made for the test."""

from __future__ import annotations

import types
from typing import Annotated, Literal

import pytest
from msgspec import Struct

from aerogel import settings as settings_module
from aerogel.cli import parse as parsing
from aerogel.commands.result import Result
from aerogel.commands.table import COMMANDS, Command
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.flag import Flag
from aerogel.settings import load_settings


class Demo(Struct, frozen=True, kw_only=True):
    """Try every kind of option.

    More words that the summary does not have.
    """

    path: Annotated[str, Flag("Where", positional=True)] = "."
    tag: Annotated[tuple[str, ...], Flag("Names", short="t", metavar="NAME")] = ()
    build_arg: Annotated[dict[str, str | None], Flag("Values")] = {}
    label: Annotated[dict[str, str], Flag("Labels")] = {}
    quiet: Annotated[bool, Flag("Less", short="q")] = False
    color_words: Annotated[bool, Flag("More")] = True
    output: Annotated[Literal["oci", "docker"], Flag("Form", short="o")] = "oci"
    jobs: Annotated[int | None, Flag("How many", short="j")] = None
    mirror: Annotated[str | None, Flag("Mirror", setting="mirror")] = None
    no_cache: Annotated[bool, Flag("No cache")] = False


class Start(Struct, frozen=True, kw_only=True):
    image: Annotated[str, Flag("Image", positional=True)]
    words: Annotated[tuple[str, ...], Flag("Command", rest=True, metavar="ARG")] = ()
    interactive: Annotated[bool, Flag("Input", short="i")] = False
    tty: Annotated[bool, Flag("Terminal", short="t")] = False
    rm: Annotated[bool, Flag("Throw away")] = True
    env: Annotated[tuple[str, ...], Flag("Environment", short="e")] = ()


class Nothing(Result, frozen=True, kw_only=True):
    pass


class Something(Result, frozen=True, kw_only=True):
    word: str = ""


def run_demo(options: Demo, world: World) -> Something:
    return Something(word=options.path)


def run_start(options: Start, world: World) -> Nothing:
    return Nothing()


def spec_of(name: str, run: object) -> parsing.Specification:
    module = types.ModuleType(name)
    module.run = run
    module.EXAMPLES = (("the usual", f"aerogel {name} ."),)
    import sys

    sys.modules[f"aerogel.commands.{name}"] = module
    try:
        return parsing.specification(Command(name, name, "Test", group="Test"))
    finally:
        del sys.modules[f"aerogel.commands.{name}"]


DEMO = spec_of("demo", run_demo)
START = spec_of("start", run_start)


def settings(tmp_path, toml="", **environ):
    own = tmp_path / ".config" / "aerogel" / "aerogel.toml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(toml)
    return load_settings({"HOME": str(tmp_path), **environ}, str(tmp_path))


def demo(words, tmp_path, toml="", **environ):
    return parsing.parse(DEMO, words.split(), settings(tmp_path, toml, **environ))


def fault(words, tmp_path, spec=DEMO, toml="", **environ):
    with pytest.raises(AerogelError) as caught:
        parsing.parse(spec, words.split(), settings(tmp_path, toml, **environ))
    assert caught.value.exit_status == 2
    return caught.value


def test_defaults(tmp_path):
    assert demo("", tmp_path).options == Demo()


@pytest.mark.parametrize("words", ["-t a -t b ctx", "ctx -t a --tag=b", "-ta ctx --tag b", "-t a -t b -- ctx"])
def test_repeated_flags_mix_with_positional_words(words, tmp_path):
    assert demo(words, tmp_path).options == Demo(path="ctx", tag=("a", "b"))


def test_tables(tmp_path):
    options = demo("--build-arg A=1 --build-arg B --build-arg C=x=y --label k=", tmp_path).options
    assert options.build_arg == {"A": "1", "B": None, "C": "x=y"}
    assert options.label == {"k": ""}


@pytest.mark.parametrize(
    ("words", "quiet", "color_words", "no_cache"),
    [
        ("-q", True, True, False),
        ("--quiet=false", False, True, False),
        ("-q=1 --no-color-words", True, False, False),
        ("--no-cache", False, True, True),
        ("--no-cache=false --color-words=no", False, False, False),
    ],
)
def test_switches(words, quiet, color_words, no_cache, tmp_path):
    options = demo(words, tmp_path).options
    assert (options.quiet, options.color_words, options.no_cache) == (quiet, color_words, no_cache)


def test_a_dash_is_a_word(tmp_path):
    assert demo("-", tmp_path).options.path == "-"


def test_flag_after_file_and_variable(tmp_path):
    toml = 'mirror = "http://file.example"\n[demo]\njobs = 1\nlabel = {a = "b"}\nquiet = true\n'
    parsed = demo("-j 3", tmp_path, toml, AEROGEL_DEMO_JOBS="2", AEROGEL_DEMO_TAG="a,b")
    assert parsed.options == Demo(jobs=3, label={"a": "b"}, quiet=True, tag=("a", "b"))
    assert demo("", tmp_path, toml, AEROGEL_DEMO_JOBS="2").options.jobs == 2
    assert demo("", tmp_path, toml).options.jobs == 1


def test_a_flag_replaces_a_setting(tmp_path):
    parsed = demo("--mirror http://flag.example --progress plain -D", tmp_path, 'mirror = "http://file.example"')
    assert (parsed.settings.mirror, parsed.settings.progress, parsed.settings.debug) == (
        "http://flag.example",
        "plain",
        True,
    )
    assert demo("", tmp_path, 'mirror = "http://file.example"').settings.mirror == "http://file.example"


def test_rest_belongs_to_the_command(tmp_path):
    parsed = parsing.parse(
        START, ["-it", "-e", "A=1", "--rm=false", "img", "-x", "--rm=false", "--", "6", "*", "-7"], settings(tmp_path)
    )
    assert parsed.options == Start(
        image="img",
        words=("-x", "--rm=false", "--", "6", "*", "-7"),
        interactive=True,
        tty=True,
        env=("A=1",),
        rm=False,
    )


def test_double_dash_before_the_image(tmp_path):
    parsed = parsing.parse(START, ["--", "img", "sh"], settings(tmp_path))
    assert (parsed.options.image, parsed.options.words) == ("img", ("sh",))


def test_value_that_looks_like_a_switch_is_kept(tmp_path):
    assert parsing.parse(START, ["-e", "rm=true", "img"], settings(tmp_path)).options.env == ("rm=true",)


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        ("--taag x", "cli.unknown-flag", "`aerogel demo` has no flag `--taag`", "did you mean `--tag`?"),
        ("--push=1", "cli.unknown-flag", "`aerogel demo` has no flag `--push`", "`aerogel demo --help` shows"),
        ("-qx", "cli.unknown-flag", "`aerogel demo` has no flag `-x`", "`aerogel demo --help` shows"),
        ("-t", "cli.value", "flag `--tag` needs a value", "shows what it takes"),
        ("-j many", "cli.value", "flag `--jobs` must be a whole number, not `many`", "shows"),
        ("-o tar", "cli.value", "flag `--output` must be one of `oci`, `docker`, not `tar`", "shows"),
        ("--quiet=perhaps", "cli.value", "flag `--quiet` must be `true` or `false`, not `perhaps`", ""),
        ("--label k", "cli.value", "flag `--label` must be `KEY=VALUE`, not `k`", "shows"),
        ("a b", "cli.extra-word", "`aerogel demo` does not know what to do with `b`", "it takes PATH"),
    ],
)
def test_wrong_words(words, code, message, hint, tmp_path):
    error = fault(words, tmp_path)
    assert (error.code, error.message) == (code, message)
    assert hint in "\n".join(error.hints)


def test_missing_word(tmp_path):
    error = fault("-it", tmp_path, START)
    assert (error.code, error.message) == ("cli.missing", "`aerogel start` needs IMAGE")


def test_wrong_variable(tmp_path):
    error = fault("", tmp_path, AEROGEL_DEMO_OUTPUT="zip")
    assert (error.code, error.message) == (
        "settings.value",
        "environment variable `AEROGEL_DEMO_OUTPUT` must be one of `oci`, `docker`, not `zip`",
    )


def test_unknown_key_in_the_file_points_at_it(tmp_path):
    error = fault("", tmp_path, toml="[demo]\njbos = 3\n")
    assert error.code == "settings.unknown"
    assert (error.span.line, error.span.text, error.hints) == (2, "jbos", ("did you mean `jobs`?",))


def test_wrong_type_in_the_file(tmp_path):
    assert "option `jobs`: expected `int | null`, got `str`" in fault("", tmp_path, toml='[demo]\njobs = "3"\n').message


def test_help_groups_and_examples(tmp_path):
    assert demo("--help", tmp_path) is None
    text = parsing.help_text(DEMO)
    assert text.startswith("usage: aerogel demo ")
    assert "\nTry every kind of option.\n" in text
    assert "-t NAME, --tag NAME" in text
    assert "--build-arg KEY=VALUE" in text
    assert "(default: oci)" in text
    assert text.endswith("Examples:\n  # the usual\n  aerogel demo .\n")


def test_json_only_for_commands_with_data():
    assert "--json" in parsing.help_text(DEMO)
    assert "--json" not in parsing.help_text(START)


def test_json_everywhere_but_where_programs_write():
    """Commands whose output is that of a program, files or a text that has its own form in data."""
    without = {
        command.name for command in COMMANDS if "--json" not in parsing.help_text(parsing.specification(command))
    }
    assert without == {"run", "debug", "debug last", "exec", "logs", "attach", "cp", "lint", "format"}
    assert "--format" in parsing.help_text(parsing.specification(next(one for one in COMMANDS if one.name == "lint")))


def test_completion_parser_has_the_positional_words():
    assert {action.dest for action in parsing.command_parser(START)._actions} >= {"image", "words", "tty"}


class Loose(Struct, frozen=True, kw_only=True):
    bases: Annotated[str | None, Flag("Bases", setting="bases")] = None


def run_loose(options: Loose, world: World) -> Nothing:
    return Nothing()


def test_a_flag_for_a_setting_is_checked_by_the_setting(tmp_path):
    error = fault("--bases nowhere", tmp_path, spec_of("loose", run_loose))
    assert error.message == "flag `--bases` must be one of `auto`, `builtin`, `registry`, not `nowhere`"


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        *(("build", key, "true") for key in ("push", "output", "secret", "ssh", "allow", "network", "tag", "cache-to")),
        *(("build", key, "true") for key in ("insecure-registry", "isolation", "build-context", "context")),
        *(("run", key, "true") for key in ("volume", "mount", "env", "env_file", "cap-add", "security-opt", "publish")),
        *(("pull", "quiet", "true"), ("login", "password", "'x'"), ("verify", "key", "'theirs.pub'")),
        ("registry serve", "public", "true"),
    ],
)
def test_options_that_a_project_may_not_give(command, key, value, tmp_path):
    spec = parsing.specification(next(each for each in COMMANDS if each.name == command))
    (tmp_path / "aerogel.toml").write_text(f'["{command}"]\n{key} = {value}\n')
    with pytest.raises(AerogelError) as caught:
        parsing.parse(spec, [], load_settings({"HOME": "/nowhere"}, str(tmp_path)))
    assert caught.value.code == "settings.project"
    assert caught.value.message == f"a project's `aerogel.toml` may not set `{key}` of `[{command}]`"
    assert caught.value.span.text == key


def test_options_that_a_project_may_give(tmp_path):
    spec = parsing.specification(next(each for each in COMMANDS if each.name == "build"))
    (tmp_path / "aerogel.toml").write_text('[build]\ntarget = "all"\nlabel = {a = "b"}\n')
    parsed = parsing.parse(spec, ["."], load_settings({"HOME": "/nowhere"}, str(tmp_path)))
    assert (parsed.options.target, parsed.options.label) == ("all", {"a": "b"})


def test_every_refused_option_is_one_of_some_command():
    """A name that changes must not go past the list."""
    known = {option.field for each in COMMANDS for option in parsing.specification(each).options}
    assert set(settings_module._USERS_OPTIONS) - known == set()
    assert set(settings_module._PROJECTS_COMMANDS) <= {each.name for each in COMMANDS}
