"""The rules of BuildKit's `--check` for Dockerfiles, and the function that runs them.

Each rule is one record in `RULES`; what a rule says and at which lines is BuildKit's, the caret inside the line is
ours. Rules about the values of variables are in `aerogel.lint.variables`. A page per rule: `docs/lint/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from aerogel.dockerfile.ast import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    ShellForm,
    Stage,
    Word,
)
from aerogel.lint.rule import Finding, Options, Rule, Subject, allowed, parse_options
from aerogel.lint.variables import (
    check_expose,
    constant_platform,
    expanded,
    invalid_default,
    redundant_platform,
    relative_workdir,
    undefined_argument,
    undefined_variable,
)

__all__ = ["RULES", "check", "file_options", "wrong_platform"]

_RESERVED = ("context", "scratch")
_SECRET = re.compile(r"(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)")
_NO_SECRET = re.compile(r"(?i)(?:_|^)(?:public|file|version)(?:_|$)")


def check(subject: Subject, options: Options | None = None) -> list[Finding]:
    """All findings in the order of the source; `options` default to those of the file's `check` directive.

    Raises:
        AerogelError: `lint.bad-options` for a broken directive.
    """
    options = file_options(subject) if options is None else options
    names = [rule.name for rule in RULES]
    findings = [
        finding
        for rule in RULES
        if rule.check is not None
        for finding in rule.check(subject)
        if allowed(finding, rule, options, names)
    ]
    return sorted(findings, key=lambda finding: (finding.node.span.start, finding.span.start, finding.rule))


def file_options(subject: Subject) -> Options:
    """The options of the file's `# check=` directive."""
    directive = subject.dockerfile.directives.check
    if directive is None:
        return Options()
    text = directive.value.text.split(" ")[0]
    return parse_options(text, directive.value.span, [rule.name for rule in RULES])


def _names(subject: Subject) -> Iterator[tuple[Stage, From, Word]]:
    for stage in subject.dockerfile.stages:
        if stage.origin.name is not None:
            yield stage, stage.origin, stage.origin.name


def _stage_name_casing(subject: Subject) -> Iterator[Finding]:
    for _, node, name in _names(subject):
        if name.text != name.text.lower():
            yield Finding("StageNameCasing", f"Stage name '{name.text}' should be lowercase", name.span, node)


def _from_as_casing(subject: Subject) -> Iterator[Finding]:
    for _, node, _name in _names(subject):
        keyword, connective = node.keyword.text, node.connective
        if connective is None or keyword not in (keyword.lower(), keyword.upper()):
            continue
        wanted = connective.text.lower() if keyword == keyword.lower() else connective.text.upper()
        if connective.text != wanted:
            message = f"'{connective.text}' and '{keyword}' keywords' casing do not match"
            yield Finding("FromAsCasing", message, connective.span, node)


def _no_empty_continuation(subject: Subject) -> Iterator[Finding]:
    for node in subject.dockerfile.instructions():
        if node.blank is not None:
            heredocs = getattr(node, "heredocs", ())
            last = min((heredoc.body_span.line - 1 for heredoc in heredocs), default=node.span.end_line)
            yield Finding("NoEmptyContinuation", "Empty continuation line", node.blank, node, line=last)


def _consistent_casing(subject: Subject) -> Iterator[Finding]:
    nodes: list[Instruction] = []
    for stage in subject.dockerfile.stages:
        nodes += (stage.origin, *stage.instructions)
    words = [node.keyword.text for node in nodes]
    lower = sum(word == word.lower() for word in words)
    upper = sum(word == word.upper() and word != word.lower() for word in words)
    for node in nodes:
        word = node.keyword.text
        wanted = word.lower() if lower > upper else word.upper()
        if word != wanted:
            casing = "lowercase" if lower > upper else "uppercase"
            message = f"Command '{word}' should match the case of the command majority ({casing})"
            yield Finding("ConsistentInstructionCasing", message, node.keyword.span, node)


def _duplicate_stage_name(subject: Subject) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage, node, name in _names(subject):
        if stage.name in seen:
            message = f'Duplicate stage name "{stage.name}", stage names should be unique'
            yield Finding("DuplicateStageName", message, name.span, node)
        seen.add(stage.name)


def _reserved_stage_name(subject: Subject) -> Iterator[Finding]:
    for stage, node, name in _names(subject):
        if stage.name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield Finding("ReservedStageName", message, name.span, node)


def _json_args(subject: Subject) -> Iterator[Finding]:
    with_shell: set[str] = set()
    for stage in subject.dockerfile.stages:
        has_shell = stage.base.text.lower() in with_shell
        for node in stage.instructions:
            if isinstance(node, Shell):
                has_shell = True
            elif isinstance(node, Cmd | Entrypoint) and isinstance(node.command, ShellForm) and not has_shell:
                message = (
                    f"JSON arguments recommended for {node.keyword.text} to prevent unintended behavior related to "
                    "OS signals"
                )
                yield Finding("JSONArgsRecommended", message, node.command.span, node)
        if has_shell and stage.name:
            with_shell.add(stage.name)


def _maintainer(subject: Subject) -> Iterator[Finding]:
    for node in subject.dockerfile.instructions():
        if isinstance(node, Maintainer):
            message = "Maintainer instruction is deprecated in favor of using label"
            hint = f'write `LABEL org.opencontainers.image.authors="{node.name.text}"`'
            yield Finding("MaintainerDeprecated", message, node.keyword.span, node, (hint,))


def _multiple(subject: Subject) -> Iterator[Finding]:
    for stage in subject.dockerfile.stages:
        last: dict[type, Instruction] = {}
        for node in stage.instructions:
            if not isinstance(node, Cmd | Entrypoint | Healthcheck):
                continue
            earlier = last.get(type(node))
            if earlier is not None:
                message = (
                    f"Multiple {node.keyword.text} instructions should not be used in the same stage because only the "
                    "last one will be used"
                )
                yield Finding("MultipleInstructionsDisallowed", message, earlier.keyword.span, earlier)
            last[type(node)] = node


def _legacy_pairs(subject: Subject) -> Iterator[Finding]:
    for node in subject.dockerfile.instructions():
        if isinstance(node, Env | Label):
            word = node.keyword.text
            for pair in node.pairs:
                if pair.legacy:
                    message = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
                    yield Finding("LegacyKeyValueFormat", message, pair.key.span, node)


def _secrets(subject: Subject) -> Iterator[Finding]:
    for stage in subject.dockerfile.stages:
        for node in stage.instructions:
            if isinstance(node, Env):
                keyword, keys = "ENV", [pair.key for pair in node.pairs]
            elif isinstance(node, Arg):
                keyword, keys = "ARG", [item.name for item in node.items]
            else:
                continue
            for key in keys:
                if _SECRET.search(key.text) and not _NO_SECRET.search(key.text):
                    message = f'Do not use ARG or ENV instructions for sensitive data ({keyword} "{key.text}")'
                    yield Finding("SecretsUsedInArgOrEnv", message, key.span, node, ("use `RUN --mount=type=secret`",))


def _descriptions(subject: Subject) -> Iterator[Finding]:
    for node in subject.dockerfile.instructions():
        if isinstance(node, From):
            keyword, keys = "FROM", [node.name.text.lower()] if node.name else []
        elif isinstance(node, Arg):
            keyword, keys = "ARG", [item.name.text for item in node.items]
        else:
            continue
        if not keys or not node.comments or node.comments[-1].text.split(" ")[0] in keys:
            continue
        example = keys[0] if len(keys) == 1 else "<arg_key>"
        message = f"Comment for {keyword} should follow the format: `# {example} <description>`"
        yield Finding("InvalidDefinitionDescription", message, node.comments[-1].span, node)


def _copy_ignored(subject: Subject) -> Iterator[Finding]:
    if subject.is_ignored is None:
        return
    for node, environment in expanded(subject):
        if not isinstance(node, Add | Copy) or (isinstance(node, Copy) and node.from_ is not None):
            continue
        for word in node.sources:
            source = environment.expand(word)
            if source is None or (isinstance(node, Add) and _is_remote(source)):
                continue
            path = posixpath.normpath(source)
            if subject.is_ignored(path):
                verb = "Add" if isinstance(node, Add) else "Copy"
                message = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
                yield Finding("CopyIgnoredFile", message, word.span, node)


def _is_remote(source: str) -> bool:
    return "://" in source or source.startswith("git@")


def _expose_casing(subject: Subject) -> Iterator[Finding]:
    for node, word, port in check_expose(subject):
        protocol = port.rpartition("/")[2] if "/" in port else ""
        if protocol != protocol.lower():
            message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            yield Finding("ExposeProtoCasing", message, word.span, node)


def _expose_format(subject: Subject) -> Iterator[Finding]:
    for node, word, port in check_expose(subject):
        if ":" in port:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            yield Finding("ExposeInvalidFormat", message, word.span, node)


def wrong_platform(node: From, image: str, expected: str, actual: str) -> Finding:
    """The finding of InvalidBaseImagePlatform; for who has read the image's configuration."""
    message = f'Base image {image} was pulled with platform "{actual}", expected "{expected}" for current build'
    return Finding("InvalidBaseImagePlatform", message, node.base.span, node)


RULES = (
    Rule("StageNameCasing", "the name of a stage is in lower case", _stage_name_casing),
    Rule("FromAsCasing", "`AS` has the case of its `FROM`", _from_as_casing),
    Rule("NoEmptyContinuation", "no empty line inside an instruction", _no_empty_continuation),
    Rule("ConsistentInstructionCasing", "all instructions have the same case", _consistent_casing),
    Rule("DuplicateStageName", "the name of a stage is given once", _duplicate_stage_name),
    Rule("ReservedStageName", "no stage is named `scratch` or `context`", _reserved_stage_name),
    Rule("JSONArgsRecommended", "CMD and ENTRYPOINT are JSON arrays", _json_args),
    Rule("MaintainerDeprecated", "a label names the author, not MAINTAINER", _maintainer),
    Rule("UndefinedArgInFrom", "FROM uses only declared arguments", undefined_argument),
    Rule("WorkdirRelativePath", "the first WORKDIR of a stage is absolute", relative_workdir),
    Rule("UndefinedVar", "variables are set before they are used", undefined_variable),
    Rule("MultipleInstructionsDisallowed", "one CMD, ENTRYPOINT and HEALTHCHECK per stage", _multiple),
    Rule("LegacyKeyValueFormat", "ENV and LABEL have a `=`", _legacy_pairs),
    Rule("InvalidBaseImagePlatform", "the base image has the platform that is built for", None),
    Rule("RedundantTargetPlatform", "no `--platform=$TARGETPLATFORM`, it is the default", redundant_platform),
    Rule("SecretsUsedInArgOrEnv", "no secret in an ARG or ENV", _secrets),
    Rule("InvalidDefaultArgInFrom", "the defaults of the arguments give a valid base image", invalid_default),
    Rule("FromPlatformFlagConstDisallowed", "`--platform` of FROM is no constant", constant_platform),
    Rule("CopyIgnoredFile", "COPY and ADD name no file that the ignore file removes", _copy_ignored),
    Rule("InvalidDefinitionDescription", "a comment above FROM or ARG describes it", _descriptions, experimental=True),
    Rule("ExposeProtoCasing", "the protocol of EXPOSE is in lower case", _expose_casing),
    Rule("ExposeInvalidFormat", "EXPOSE has no address and no port of the host", _expose_format),
)
"""All rules, by the names that BuildKit gives them."""
