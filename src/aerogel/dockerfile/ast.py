"""The syntax tree of a Dockerfile: one frozen Struct per instruction, each with its place in the source.

It holds what was written, checked as far as that is possible without knowing a variable: nothing in here is
expanded. A `Word` that BuildKit expands keeps its quotes and escapes; `aerogel.dockerfile.words` expands it.
What an instruction does is not here (`aerogel.graph`).

Spec: the Dockerfile reference of BuildKit's frontend 1.26 with its labs features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from aerogel.errors import Source, Span

__all__ = [
    "Add",
    "Arg",
    "ArgItem",
    "Cmd",
    "Comment",
    "Copy",
    "Device",
    "Directive",
    "Directives",
    "Dockerfile",
    "Entrypoint",
    "Env",
    "ExecForm",
    "Expose",
    "Flag",
    "From",
    "Healthcheck",
    "Heredoc",
    "Instruction",
    "Label",
    "Maintainer",
    "MountOption",
    "Node",
    "Onbuild",
    "Pair",
    "Run",
    "RunMount",
    "Shell",
    "ShellForm",
    "Stage",
    "Stopsignal",
    "User",
    "Volume",
    "Word",
    "Workdir",
]


class Word(Struct, frozen=True):
    """A piece of text and where it stands.

    `text` is as written for words that are split at blanks (quotes, escapes and variables still in it), decoded
    for elements of a JSON array, and without its quotes for the value of a flag.
    """

    text: str
    span: Span


class Comment(Struct, frozen=True):
    """A comment line: `text` without the `#` and the blanks around it; `span` from the `#` to the line's end."""

    text: str
    span: Span


class Flag(Struct, frozen=True):
    """`--name` or `--name=value` after a keyword; `value` is None without `=`, and has no quotes any more."""

    name: str
    value: Word | None
    span: Span


class Heredoc(Struct, frozen=True):
    """A here-document.

    `expand` is false when any part of the word was quoted. `body` holds the lines as they stand, with their line
    ends; `span` is the `<<WORD` in the instruction, `body_span` the lines without the terminator, and `terminator`
    the line that ends it.
    """

    name: str
    body: str
    expand: bool
    strip_tabs: bool
    descriptor: int
    span: Span
    body_span: Span
    terminator: Span

    @property
    def text(self) -> str:
        """The content: the body, without leading tabs after `<<-`."""
        if not self.strip_tabs:
            return self.body
        return re.sub(r"(?m)^\t+", "", self.body)


class ShellForm(Struct, frozen=True, tag=True):
    """A command line for the shell, untouched but for the joining of continued lines."""

    text: str
    span: Span


class ExecForm(Struct, frozen=True, tag=True):
    """A JSON array of strings, decoded."""

    words: tuple[Word, ...]
    span: Span

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word.text for word in self.words)


class Node(Struct, frozen=True, kw_only=True):
    """What all instructions have.

    `span` runs from the keyword to the end of the last line, here-documents included. `keyword` is as written.
    `original` is the logical line: continuations joined, comments gone, blanks at both ends gone. `comments` are the
    comment lines right above. `blank` is the first empty line inside the instruction's continuation, if any.
    """

    span: Span
    keyword: Word
    original: str
    comments: tuple[Comment, ...] = ()
    flags: tuple[Flag, ...] = ()
    blank: Span | None = None


class From(Node, frozen=True, kw_only=True, tag=True):
    """`FROM [--platform=PLATFORM] BASE [AS NAME]`. `name` is as written; `connective` is the `AS` as written."""

    base: Word
    name: Word | None = None
    connective: Word | None = None
    platform: Word | None = None


class ArgItem(Struct, frozen=True):
    """One variable of an ARG. `value` is None without `=`; `description` comes from the comment above."""

    name: Word
    value: Word | None
    description: str = ""


class Arg(Node, frozen=True, kw_only=True, tag=True):
    """`ARG NAME[=DEFAULT] ...`. Names and defaults are expanded."""

    items: tuple[ArgItem, ...]


class Pair(Struct, frozen=True):
    """`key=value`, or `key value` to the end of the line (`legacy`)."""

    key: Word
    value: Word
    legacy: bool = False


class Env(Node, frozen=True, kw_only=True, tag=True):
    """`ENV KEY=VALUE ...` or `ENV KEY VALUE`. Keys and values are expanded with what was before the instruction."""

    pairs: tuple[Pair, ...]


class Label(Node, frozen=True, kw_only=True, tag=True):
    """`LABEL KEY=VALUE ...` or `LABEL KEY VALUE`."""

    pairs: tuple[Pair, ...]


class Copy(Node, frozen=True, kw_only=True, tag=True):
    """`COPY [flags] SOURCE ... DESTINATION`, or the same as a JSON array (`json`).

    `sources` are paths; sources that are here-documents are in `heredocs`. `from_` and `exclude` are not expanded,
    the other words are.
    """

    sources: tuple[Word, ...]
    destination: Word
    heredocs: tuple[Heredoc, ...] = ()
    json: bool = False
    from_: Word | None = None
    chown: Word | None = None
    chmod: Word | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[Word, ...] = ()


class Add(Node, frozen=True, kw_only=True, tag=True):
    """`ADD [flags] SOURCE ... DESTINATION`, or the same as a JSON array (`json`).

    `keep_git_dir` and `unpack` are None when not given: their default depends on the source.
    """

    sources: tuple[Word, ...]
    destination: Word
    heredocs: tuple[Heredoc, ...] = ()
    json: bool = False
    chown: Word | None = None
    chmod: Word | None = None
    checksum: Word | None = None
    link: bool = False
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    exclude: tuple[Word, ...] = ()


class MountOption(Struct, frozen=True):
    """One `key=value` of a `--mount`; `key` in lower case, `value` None without `=`."""

    key: str
    value: Word | None
    span: Span


class RunMount(Struct, frozen=True):
    """A `--mount` as written. All values but `from` are expanded: see `aerogel.dockerfile.mounts.resolve`."""

    options: tuple[MountOption, ...]
    span: Span


class Device(Struct, frozen=True):
    """A `--device`: a CDI device name, and whether the step may not run without it."""

    name: str
    required: bool
    span: Span


class Run(Node, frozen=True, kw_only=True, tag=True):
    """`RUN [flags] COMMAND`. `network`: `default`, `none`, `host` or `sandbox`; `security`: `sandbox` or `insecure`.

    Here-documents only in the shell form; `command.text` then still holds their `<<WORD`.
    """

    command: ShellForm | ExecForm
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[Device, ...] = ()


class Workdir(Node, frozen=True, kw_only=True, tag=True):
    """`WORKDIR PATH`."""

    path: Word


class User(Node, frozen=True, kw_only=True, tag=True):
    """`USER NAME[:GROUP]`."""

    user: Word


class Expose(Node, frozen=True, kw_only=True, tag=True):
    """`EXPOSE PORT[-PORT][/PROTOCOL] ...` in the order of the source. Each one is expanded, then split at blanks."""

    ports: tuple[Word, ...]


class Volume(Node, frozen=True, kw_only=True, tag=True):
    """`VOLUME PATH ...`, or a JSON array (`json`)."""

    paths: tuple[Word, ...]
    json: bool = False


class Cmd(Node, frozen=True, kw_only=True, tag=True):
    """`CMD COMMAND`; an empty command clears the inherited one."""

    command: ShellForm | ExecForm


class Entrypoint(Node, frozen=True, kw_only=True, tag=True):
    """`ENTRYPOINT COMMAND`; an empty command clears the inherited one."""

    command: ShellForm | ExecForm


class Healthcheck(Node, frozen=True, kw_only=True, tag=True):
    """`HEALTHCHECK NONE` (`command` is None) or `HEALTHCHECK [flags] CMD COMMAND`.

    Durations in nanoseconds, 0 when not given; `retries` 0 when not given.
    """

    command: ShellForm | ExecForm | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class Shell(Node, frozen=True, kw_only=True, tag=True):
    """`SHELL ["program", "argument", ...]`."""

    command: ExecForm


class Stopsignal(Node, frozen=True, kw_only=True, tag=True):
    """`STOPSIGNAL SIGNAL`: a name or a number, after expansion."""

    signal: Word


class Onbuild(Node, frozen=True, kw_only=True, tag=True):
    """`ONBUILD INSTRUCTION`: the text that goes in the image configuration, and the same parsed."""

    expression: str
    instruction: Instruction


class Maintainer(Node, frozen=True, kw_only=True, tag=True):
    """`MAINTAINER NAME` (deprecated)."""

    name: Word


Instruction = (
    Add
    | Arg
    | Cmd
    | Copy
    | Entrypoint
    | Env
    | Expose
    | From
    | Healthcheck
    | Label
    | Maintainer
    | Onbuild
    | Run
    | Shell
    | Stopsignal
    | User
    | Volume
    | Workdir
)
"""Every instruction; a `From` never stands in `Stage.instructions`, it is `Stage.origin`."""


class Stage(Struct, frozen=True):
    """A FROM and what follows it. `name` is in lower case and empty without `AS`; `span` covers all of it."""

    name: str
    base: Word
    platform: Word | None
    instructions: tuple[Instruction, ...]
    span: Span
    description: str
    origin: From


class Directive(Struct, frozen=True):
    """A parser directive `# name=value`; `name` in lower case."""

    name: str
    value: Word
    span: Span


class Directives(Struct, frozen=True):
    """The parser directives of the file; `escape` is the escape character in force."""

    escape: str = "\\"
    syntax: Directive | None = None
    check: Directive | None = None
    all: tuple[Directive, ...] = ()


class Dockerfile(Struct, frozen=True):
    """A parsed Dockerfile: directives, the ARGs before the first FROM, the stages."""

    source: Source
    directives: Directives
    args: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    def instructions(self) -> Iterator[Instruction]:
        """All instructions in the order of the source."""
        yield from self.args
        for stage in self.stages:
            yield stage.origin
            yield from stage.instructions
