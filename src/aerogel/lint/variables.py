"""The rules that need the values of variables, and the walk over the stages that knows them.

A value that depends on a base image that nobody has looked at is unknown, and nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aerogel.dockerfile.ast import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Run,
    Stage,
    Stopsignal,
    User,
    Volume,
    Word,
    Workdir,
)
from aerogel.dockerfile.words import Expansion, Lookup, expand_heredoc, expand_words, process
from aerogel.errors import AerogelError, Span, nearest
from aerogel.lint.rule import Finding, Subject
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference, is_own_name

__all__ = [
    "Environment",
    "check_expose",
    "constant_platform",
    "expanded",
    "invalid_default",
    "redundant_platform",
    "relative_workdir",
    "undefined_argument",
    "undefined_variable",
]

_AUTOMATIC = {
    "BUILDPLATFORM": "linux/amd64",
    "BUILDOS": "linux",
    "BUILDOSVERSION": "",
    "BUILDARCH": "amd64",
    "BUILDVARIANT": "",
    "TARGETPLATFORM": "linux/amd64",
    "TARGETOS": "linux",
    "TARGETOSVERSION": "",
    "TARGETARCH": "amd64",
    "TARGETVARIANT": "",
    "TARGETSTAGE": "default",
}
_NEVER_SET = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Environment:
    """The variables of a stage at one instruction.

    `values` are those with a known value, `declared` the arguments without one. `open` means that the base image
    may have set others.
    """

    __slots__ = ("declared", "escape", "open", "values", "workdir_set")

    def __init__(self, values: Mapping[str, str], escape: str, *, is_open: bool) -> None:
        self.values = dict(values)
        self.declared: set[str] = set()
        self.open = is_open
        self.escape = escape
        self.workdir_set = False

    def copy(self) -> Environment:
        other = Environment(self.values, self.escape, is_open=self.open)
        other.declared = set(self.declared)
        other.workdir_set = self.workdir_set
        return other

    def process(self, word: Word) -> Expansion | None:
        """The word expanded; None if it cannot be."""
        try:
            return process(word.text, self.values.get, self.escape)
        except AerogelError:
            return None

    def expand(self, word: Word) -> str | None:
        """The word expanded, or None if that depends on what is not known."""
        result = self.process(word)
        if result is None or (self.open and any(name not in self.declared for name in result.unset)):
            return None
        return result.text


def expanded(subject: Subject) -> Iterator[tuple[Instruction, Environment]]:
    """Every instruction of every stage with the environment it sees. The environment changes afterwards."""
    dockerfile = subject.dockerfile
    arguments = _global_arguments(subject, subject.build_args)
    by_name: dict[str, Environment] = {}
    for stage in dockerfile.stages:
        environment = _base(subject, stage, by_name, arguments)
        for node in stage.instructions:
            yield node, environment
            _apply(node, environment, arguments, subject.build_args)
        if stage.name:
            by_name[stage.name] = environment


def _base(subject: Subject, stage: Stage, by_name: dict[str, Environment], arguments: Mapping[str, str]) -> Environment:
    escape = subject.dockerfile.directives.escape
    try:
        base = process(stage.base.text, arguments.get, escape).text
    except AerogelError:
        base = stage.base.text
    known = by_name.get(base.lower())
    if known is not None:
        return known.copy()
    environment = {} if base == "scratch" else subject.base_environment(base)
    values = dict(environment or {})
    values.setdefault("PATH", _DEFAULT_PATH)
    return Environment(values, escape, is_open=environment is None)


def _apply(
    node: Instruction, environment: Environment, arguments: Mapping[str, str], build_args: Mapping[str, str]
) -> None:
    if isinstance(node, Workdir):
        environment.workdir_set = True
    elif isinstance(node, Env):
        pairs = [(environment.process(pair.key), environment.process(pair.value)) for pair in node.pairs]
        for key, text in pairs:
            if key is not None:
                environment.values[key.text] = text.text if text is not None else ""
    elif isinstance(node, Arg):
        for item in node.items:
            result = environment.process(item.value) if item.value is not None else None
            default = result.text if result is not None else arguments.get(item.name.text)
            value = build_args.get(item.name.text, default)
            environment.declared.add(item.name.text)
            if value is not None and item.name.text not in _NEVER_SET:
                environment.values[item.name.text] = value


def _global_arguments(subject: Subject, build_args: Mapping[str, str]) -> dict[str, str]:
    """The arguments before the first FROM that have a value, the automatic ones included."""
    escape = subject.dockerfile.directives.escape
    values = _AUTOMATIC | subject.automatic
    for arg in subject.dockerfile.args:
        for item in arg.items:
            name = item.name.text
            if name in build_args:
                values[name] = build_args[name]
            elif item.value is not None:
                try:
                    values[name] = process(item.value.text, values.get, escape).text
                except AerogelError:
                    continue
    return values


def undefined_argument(subject: Subject) -> Iterator[Finding]:
    values = _global_arguments(subject, subject.build_args)
    known = {*values, *(item.name.text for arg in subject.dockerfile.args for item in arg.items)}
    for stage in subject.dockerfile.stages:
        for word in (stage.base, stage.platform):
            if word is None:
                continue
            for name in _unset(word, values.get, subject.dockerfile.directives.escape):
                if name in known:
                    continue
                near = nearest(name, known)
                message = f"FROM argument '{name}' is not declared" + (f" (did you mean {near}?)" if near else "")
                yield Finding("UndefinedArgInFrom", message, _variable(word, name), stage.origin)


def _unset(word: Word, lookup: Lookup, escape: str) -> tuple[str, ...]:
    try:
        return process(word.text, lookup, escape).unset
    except AerogelError:
        return ()


def _variable(word: Word, name: str) -> Span:
    """The place of `$name` or `${name` in a word, or the word."""
    span = word.span
    data = span.source.data[span.start : span.end]
    for form in (f"${{{name}", f"${name}"):
        at = data.find(form.encode())
        if at >= 0:
            return Span(span.source, span.start + at, span.start + at + len(form.encode()))
    return span


def _platforms(subject: Subject) -> Iterator[tuple[Stage, From, Word, Expansion]]:
    values = _global_arguments(subject, subject.build_args)
    for stage in subject.dockerfile.stages:
        if stage.platform is not None:
            try:
                result = process(stage.platform.text, values.get, subject.dockerfile.directives.escape)
            except AerogelError:
                continue
            yield stage, stage.origin, stage.platform, result


def redundant_platform(subject: Subject) -> Iterator[Finding]:
    target = _global_arguments(subject, subject.build_args)["TARGETPLATFORM"]
    for _, node, word, result in _platforms(subject):
        if result.used == ("TARGETPLATFORM",) and not result.unset and result.text == target:
            message = f"Setting platform to predefined {word.text} in FROM is redundant as this is the default behavior"
            yield Finding("RedundantTargetPlatform", message, word.span, node)


def constant_platform(subject: Subject) -> Iterator[Finding]:
    for stage, node, word, result in _platforms(subject):
        if result.used or result.unset:
            continue
        try:
            platform = Platform.parse(result.text)
        except AerogelError:
            continue
        if platform.os not in stage.name and platform.architecture not in stage.name:
            message = f'FROM --platform flag should not use constant value "{result.text}"'
            yield Finding("FromPlatformFlagConstDisallowed", message, word.span, node)


def invalid_default(subject: Subject) -> Iterator[Finding]:
    values = _global_arguments(subject, {})
    for stage in subject.dockerfile.stages:
        try:
            base = process(stage.base.text, values.get, subject.dockerfile.directives.escape).text
        except AerogelError:
            return
        if is_own_name(base):
            continue
        try:
            Reference.parse(base)
        except AerogelError:
            message = f"Default value for ARG {stage.base.text} results in empty or invalid base image name"
            yield Finding("InvalidDefaultArgInFrom", message, stage.base.span, stage.origin)


def relative_workdir(subject: Subject) -> Iterator[Finding]:
    for node, environment in expanded(subject):
        if not isinstance(node, Workdir) or environment.workdir_set:
            continue
        path = environment.expand(node.path)
        if path is not None and not path.startswith("/"):
            message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
            yield Finding("WorkdirRelativePath", message, node.path.span, node)


def undefined_variable(subject: Subject) -> Iterator[Finding]:
    for node, environment in expanded(subject):
        if environment.open:
            continue
        for word, names in _uses(node, environment):
            for name in names:
                if name in environment.declared or name in _NEVER_SET:
                    continue
                near = nearest(name, environment.values)
                message = f"Usage of undefined variable '${name}'" + (f" (did you mean ${near}?)" if near else "")
                yield Finding("UndefinedVar", message, _variable(word, name), node)


def _uses(node: Instruction, environment: Environment) -> Iterator[tuple[Word, tuple[str, ...]]]:
    """The words of an instruction that are expanded, and the variables in them that have no value.

    The arguments of one ARG see each other; those of another instruction see what was before it.
    """
    if isinstance(node, Arg):
        for item in node.items:
            if item.value is not None:
                yield item.value, _unset(item.value, environment.values.get, environment.escape)
            environment.declared.add(item.name.text)
    for word in _expanded_words(node):
        yield word, _unset(word, environment.values.get, environment.escape)
    for heredoc in node.heredocs if isinstance(node, Add | Copy) else ():
        try:
            yield Word(heredoc.body, heredoc.body_span), expand_heredoc(heredoc, environment.values.get).unset
        except AerogelError:
            continue


def _expanded_words(node: Instruction) -> list[Word]:
    found: list[Word | None] = []
    if isinstance(node, Add | Copy):
        found = [node.chown, node.chmod, *node.sources, node.destination]
        if isinstance(node, Add):
            found.insert(2, node.checksum)
    elif isinstance(node, Env | Label):
        for pair in node.pairs:
            found += (pair.key, pair.value)
    elif isinstance(node, Run):
        found += (option.value for mount in node.mounts for option in mount.options if option.key != "from")
    elif isinstance(node, User):
        found = [node.user]
    elif isinstance(node, Workdir):
        found = [node.path]
    elif isinstance(node, Volume):
        found += node.paths
    elif isinstance(node, Stopsignal):
        found = [node.signal]
    return [word for word in found if word is not None]


def check_expose(subject: Subject) -> Iterator[tuple[Expose, Word, str]]:
    """The ports of EXPOSE after expansion, with the word each comes from."""
    for node, environment in expanded(subject):
        if not isinstance(node, Expose):
            continue
        for word in node.ports:
            try:
                ports = expand_words(word, environment.values.get, environment.escape)
            except AerogelError:
                continue
            for port in ports:
                yield node, word, port
