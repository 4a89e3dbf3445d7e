"""From a cut line to the instruction it is, with the checks that need no variable.

One function per instruction. Each appends what is wrong to `faults` and returns what can be made of the rest, or
None, so that one run finds all faults of a file. Spec: BuildKit's frontend 1.26, one section of the Dockerfile
reference per instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypedDict

from aerogel.dockerfile import ast
from aerogel.dockerfile.ast import Instruction, Word
from aerogel.dockerfile.durations import parse_duration
from aerogel.dockerfile.flags import BOOLEAN, LIST, STRING, read_flags
from aerogel.dockerfile.mounts import read_device, read_mount, resolve
from aerogel.dockerfile.split import INSTRUCTIONS, Split, parse_heredoc_word
from aerogel.errors import MAX_FAULTS, AerogelError, Span, nearest

__all__ = ["Context", "build", "describe"]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_ONBUILD = re.compile(r"[\t\n\f\r ]*onbuild[\t\n\f\r ]*", re.IGNORECASE)
_MILLISECOND_NS = 1_000_000
_NETWORKS = ("default", "none", "host", "sandbox")
_SECURITIES = ("sandbox", "insecure")


class Context(NamedTuple):
    """What the functions share: the list of faults and the escape character."""

    faults: list[AerogelError]
    escape: str


class _Base(TypedDict):
    span: Span
    keyword: Word
    original: str
    comments: tuple[ast.Comment, ...]
    flags: tuple[ast.Flag, ...]
    blank: Span | None


def build(parts: Split, span: Span, context: Context) -> Instruction | None:
    """The instruction of a line; `span` is all of it. None after a fault that leaves nothing."""
    builder = _BUILDERS.get(parts.name)
    if builder is None:
        context.faults.append(_unknown(parts, guess=len(context.faults) < MAX_FAULTS))
        return None
    try:
        return builder(parts, span, context)
    except AerogelError as error:
        context.faults.append(error)
        return None


def _unknown(parts: Split, *, guess: bool) -> AerogelError:
    keyword = parts.keyword.text
    near = nearest(keyword, INSTRUCTIONS) if guess else None
    hints = [f"did you mean `{near}`?"] if near else []
    if not near and keyword.startswith(("&&", "|", "-", ";")):
        hints = ["it looks like the rest of a command: the line above must end with the escape character"]
    if keyword == "":
        return AerogelError(
            "the line has no instruction", code="dockerfile.unknown-instruction", span=parts.line.span(0, 0)
        )
    return AerogelError(
        f"there is no instruction `{keyword}`",
        code="dockerfile.unknown-instruction",
        span=parts.keyword.span,
        hints=hints or ["instructions are " + ", ".join(INSTRUCTIONS)],
    )


def _base(parts: Split, span: Span) -> _Base:
    line = parts.line
    return {
        "span": span,
        "keyword": parts.keyword,
        "original": line.text[parts.begin :],
        "comments": line.comments,
        "flags": parts.flags,
        "blank": line.blank,
    }


def _fail(message: str, code: str, span: Span, *hints: str) -> NoReturn:
    raise AerogelError(message, code=f"dockerfile.{code}", span=span, hints=hints)


def _need(parts: Split, form: str) -> None:
    if not parts.words:
        _fail(
            f"{parts.keyword.text.upper()} needs an argument",
            "missing-argument",
            parts.keyword.span,
            f"the form is `{form}`",
        )


def _from(parts: Split, span: Span, context: Context) -> ast.From:
    words = parts.words
    form = "the form is `FROM [--platform=PLATFORM] IMAGE [AS NAME]`"
    if not words:
        _fail("FROM needs an image", "bad-from", parts.keyword.span, form)
    connective = name = None
    if len(words) == 3 and words[1].text.lower() == "as":
        connective, name = words[1], words[2]
        if not _STAGE_NAME.match(name.text.lower()):
            _fail(
                f"`{name.text}` cannot be the name of a stage",
                "bad-stage-name",
                name.span,
                "a name begins with a letter; letters, digits, `-`, `_` and `.` follow",
            )
    elif len(words) != 1:
        wrong = words[1] if words[1].text.lower() != "as" else words[-1]
        hints = [form]
        if len(words) == 3 and nearest(words[1].text, ["as"]):
            hints.insert(0, "did you mean `AS`?")
        if words[1].text.lower() == "as" and len(words) == 2:
            _fail("the name of the stage is missing after `AS`", "bad-from", words[1].span, form)
        _fail("FROM takes an image, and `AS` with one name", "bad-from", wrong.span, *hints)
    flags = read_flags(parts, {"platform": STRING}, context.faults)
    return ast.From(
        **_base(parts, span), base=words[0], name=name, connective=connective, platform=flags.word("platform")
    )


def _arg(parts: Split, span: Span, _context: Context) -> ast.Arg:
    _need(parts, "ARG NAME[=DEFAULT] ...")
    items: list[ast.ArgItem] = []
    for word in parts.words:
        name, equals, value = word.text.partition("=")
        if not name:
            _fail("the name before `=` is missing", "blank-name", word.span)
        name_word, value_word = word, None
        if equals:
            middle = word.span.start + len(name.encode("utf-8", "surrogateescape"))
            source = word.span.source
            if source.data[middle : middle + 1] == b"=":
                name_word = Word(name, Span(source, word.span.start, middle))
                value_word = Word(value, Span(source, middle + 1, word.span.end))
            else:
                name_word, value_word = Word(name, word.span), Word(value, word.span)
        items.append(ast.ArgItem(name_word, value_word, describe(parts.line.comments, name)))
    return ast.Arg(**_base(parts, span), items=tuple(items))


def describe(comments: tuple[ast.Comment, ...], name: str) -> str:
    """The comment that begins with the name and a blank, without them; empty if there is none."""
    if name:
        for comment in comments:
            if comment.text.startswith(name + " "):
                return comment.text[len(name) + 1 :]
    return ""


def _pairs(parts: Split, context: Context) -> tuple[ast.Pair, ...]:
    read_flags(parts, {}, context.faults)
    keyword = parts.keyword.text.upper()
    if not parts.pairs:
        _fail(
            f"{keyword} needs an argument",
            "missing-argument",
            parts.keyword.span,
            f"the form is `{keyword} NAME=VALUE ...`",
        )
    for pair in parts.pairs:
        if not pair.key.text:
            _fail(
                "the name before `=` is missing",
                "blank-name",
                Span(pair.key.span.source, pair.key.span.start, pair.value.span.end),
            )
    return tuple(parts.pairs)


def _env(parts: Split, span: Span, context: Context) -> ast.Env:
    return ast.Env(**_base(parts, span), pairs=_pairs(parts, context))


def _label(parts: Split, span: Span, context: Context) -> ast.Label:
    return ast.Label(**_base(parts, span), pairs=_pairs(parts, context))


class _Files(NamedTuple):
    sources: tuple[Word, ...]
    heredocs: tuple[ast.Heredoc, ...]
    destination: Word


def _files(parts: Split) -> _Files:
    """Sources and destination of COPY and ADD."""
    keyword = parts.keyword.text.upper()
    words = parts.words
    if len(words) < 2:
        at = words[0].span if words else parts.keyword.span
        what = "a destination" if words else "a source and a destination"
        _fail(f"{keyword} needs {what}", "missing-destination", at, f"the form is `{keyword} SOURCE ... DESTINATION`")
    if _heredoc_name(words[-1]) is not None:
        _fail("a here-document cannot be the destination", "heredoc-destination", words[-1].span)
    bodies = {heredoc.name: heredoc for heredoc in parts.heredocs}
    sources: list[Word] = []
    heredocs: list[ast.Heredoc] = []
    for word in words[:-1]:
        name = _heredoc_name(word)
        if name is None:
            sources.append(word)
        elif name in bodies:
            heredocs.append(bodies[name])
        else:
            _fail(
                f"`{word.text}` stands for a here-document, but it has no lines",
                "bad-heredoc",
                word.span,
                "here-documents are not possible in a JSON array, nor beside a quote that is not closed",
            )
    return _Files(tuple(sources), tuple(heredocs), words[-1])


def _heredoc_name(word: Word) -> str | None:
    try:
        heredoc = parse_heredoc_word(word.text)
    except AerogelError:
        return None
    return heredoc.name if heredoc else None


def _copy(parts: Split, span: Span, context: Context) -> ast.Copy:
    kinds = {
        "from": STRING,
        "chown": STRING,
        "chmod": STRING,
        "link": BOOLEAN,
        "parents": BOOLEAN,
        "exclude": LIST,
    }
    flags = read_flags(parts, kinds, context.faults)
    from_ = flags.word("from")
    if from_ is not None and any(c in from_.text for c in ("$", "'", '"', context.escape)):
        context.faults.append(
            AerogelError(
                "`--from` takes no variable",
                code="dockerfile.variable-in-from",
                span=from_.span,
                hints=["give the image a name: `FROM $IMAGE AS name` with a global ARG, then `--from=name`"],
            )
        )
    files = _files(parts)
    return ast.Copy(
        **_base(parts, span),
        sources=files.sources,
        destination=files.destination,
        heredocs=files.heredocs,
        json=parts.json,
        from_=from_,
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        link=bool(flags.boolean("link")),
        parents=bool(flags.boolean("parents")),
        exclude=flags.words("exclude"),
    )


def _add(parts: Split, span: Span, context: Context) -> ast.Add:
    kinds = {
        "chown": STRING,
        "chmod": STRING,
        "checksum": STRING,
        "link": BOOLEAN,
        "keep-git-dir": BOOLEAN,
        "unpack": BOOLEAN,
        "exclude": LIST,
    }
    flags = read_flags(parts, kinds, context.faults)
    files = _files(parts)
    return ast.Add(
        **_base(parts, span),
        sources=files.sources,
        destination=files.destination,
        heredocs=files.heredocs,
        json=parts.json,
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        checksum=flags.word("checksum"),
        link=bool(flags.boolean("link")),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
        exclude=flags.words("exclude"),
    )


def _command(parts: Split, first: int = 0) -> ast.ShellForm | ast.ExecForm:
    words = parts.words[first:]
    if parts.json:
        start = parts.line.text.index("[", parts.start)
        return ast.ExecForm(tuple(words), parts.line.span(start, parts.end))
    if words:
        return ast.ShellForm(words[0].text, words[0].span)
    return ast.ShellForm("", parts.rest.span)


def _run(parts: Split, span: Span, context: Context) -> ast.Run:
    if not parts.words and not parts.heredocs:
        _fail("RUN needs a command", "missing-argument", parts.keyword.span, "the form is `RUN [flags] COMMAND`")
    kinds = {"mount": LIST, "network": STRING, "security": STRING, "device": LIST}
    flags = read_flags(parts, kinds, context.faults)
    mounts: list[ast.RunMount] = []
    devices: list[ast.Device] = []
    for word in flags.words("mount"):
        try:
            mount = read_mount(word)
            if not any(c in word.text for c in ("$", "'", '"', context.escape)):
                resolve(mount, lambda value: value.text)
            mounts.append(mount)
        except AerogelError as error:
            context.faults.append(error)
    for word in flags.words("device"):
        try:
            devices.append(read_device(word))
        except AerogelError as error:
            context.faults.append(error)
    return ast.Run(
        **_base(parts, span),
        command=_command(parts),
        heredocs=tuple(parts.heredocs),
        mounts=tuple(mounts),
        network=_choice(flags.word("network"), _NETWORKS, "a network mode", context),
        security=_choice(flags.word("security"), _SECURITIES, "a security mode", context),
        devices=tuple(devices),
    )


def _choice(word: Word | None, choices: tuple[str, ...], what: str, context: Context) -> str:
    """The value of a flag, or the first choice if it was not given or is none of them."""
    if word is None or word.text in choices:
        return word.text if word else choices[0]
    near = nearest(word.text, choices)
    hint = f"did you mean `{near}`?" if near else "one of " + ", ".join(f"`{choice}`" for choice in choices)
    context.faults.append(
        AerogelError(f"`{word.text}` is not {what}", code="dockerfile.bad-flag-value", span=word.span, hints=[hint])
    )
    return choices[0]


def _workdir(parts: Split, span: Span, context: Context) -> ast.Workdir:
    _need(parts, "WORKDIR PATH")
    read_flags(parts, {}, context.faults)
    return ast.Workdir(**_base(parts, span), path=parts.words[0])


def _user(parts: Split, span: Span, context: Context) -> ast.User:
    _need(parts, "USER NAME[:GROUP]")
    read_flags(parts, {}, context.faults)
    return ast.User(**_base(parts, span), user=parts.words[0])


def _expose(parts: Split, span: Span, context: Context) -> ast.Expose:
    _need(parts, "EXPOSE PORT[-PORT][/PROTOCOL] ...")
    read_flags(parts, {}, context.faults)
    return ast.Expose(**_base(parts, span), ports=tuple(parts.words))


def _volume(parts: Split, span: Span, context: Context) -> ast.Volume:
    _need(parts, "VOLUME PATH ...")
    read_flags(parts, {}, context.faults)
    for word in parts.words:
        if not word.text.strip():
            _fail("the path of a volume is empty", "empty-volume", word.span)
    paths = tuple(Word(word.text.strip(), word.span) for word in parts.words)
    return ast.Volume(**_base(parts, span), paths=paths, json=parts.json)


def _cmd(parts: Split, span: Span, context: Context) -> ast.Cmd:
    read_flags(parts, {}, context.faults)
    return ast.Cmd(**_base(parts, span), command=_command(parts))


def _entrypoint(parts: Split, span: Span, context: Context) -> ast.Entrypoint:
    read_flags(parts, {}, context.faults)
    return ast.Entrypoint(**_base(parts, span), command=_command(parts))


def _healthcheck(parts: Split, span: Span, context: Context) -> ast.Healthcheck:
    form = "the form is `HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD COMMAND`"
    if not parts.words:
        _fail("HEALTHCHECK needs an argument", "missing-argument", parts.keyword.span, form)
    kind = parts.words[0]
    if kind.text.upper() == "NONE":
        if len(parts.words) > 1:
            _fail("HEALTHCHECK NONE takes no argument", "bad-healthcheck", parts.words[1].span)
        return ast.Healthcheck(**_base(parts, span), command=None)
    names = ("interval", "timeout", "start-period", "start-interval", "retries")
    flags = read_flags(parts, dict.fromkeys(names, STRING), context.faults)
    if kind.text.upper() != "CMD":
        near = nearest(kind.text, ["CMD", "NONE"])
        _fail(
            f"HEALTHCHECK has no `{kind.text}`",
            "bad-healthcheck",
            kind.span,
            f"did you mean `{near}`?" if near else form,
        )
    if len(parts.words) < 2:
        _fail("the command after HEALTHCHECK CMD is missing", "bad-healthcheck", kind.span, form)
    return ast.Healthcheck(
        **_base(parts, span),
        command=_command(parts, 1),
        interval_ns=_interval(flags.word("interval"), "interval", context),
        timeout_ns=_interval(flags.word("timeout"), "timeout", context),
        start_period_ns=_interval(flags.word("start-period"), "start-period", context),
        start_interval_ns=_interval(flags.word("start-interval"), "start-interval", context),
        retries=_retries(flags.word("retries"), context),
    )


def _interval(word: Word | None, name: str, context: Context) -> int:
    if word is None or not word.text:
        return 0
    duration = parse_duration(word.text)
    if duration is not None and (duration == 0 or duration >= _MILLISECOND_NS):
        return duration
    what = "is no duration" if duration is None else "is less than a millisecond"
    hint = "a duration has a unit: `30s`, `1m30s`, `500ms`"
    context.faults.append(
        AerogelError(f"`--{name}={word.text}` {what}", code="dockerfile.bad-duration", span=word.span, hints=[hint])
    )
    return 0


def _retries(word: Word | None, context: Context) -> int:
    if word is None or not word.text:
        return 0
    text = word.text.removeprefix("+")
    if text.isascii() and text.isdecimal() and len(text.lstrip("0")) <= 10 and int(text) < 2**31:
        return int(text)
    message = f"`--retries={word.text}` is no number from 0 on"
    context.faults.append(AerogelError(message, code="dockerfile.bad-flag-value", span=word.span))
    return 0


def _shell(parts: Split, span: Span, context: Context) -> ast.Shell:
    read_flags(parts, {}, context.faults)
    form = 'the form is `SHELL ["program", "argument", ...]`'
    if not parts.words:
        _fail("SHELL needs an argument", "missing-argument", parts.keyword.span, form)
    if not parts.json:
        _fail("SHELL takes only a JSON array of strings", "shell-not-json", parts.rest.span, form)
    return ast.Shell(**_base(parts, span), command=ast.ExecForm(tuple(parts.words), parts.rest.span))


def _stopsignal(parts: Split, span: Span, _context: Context) -> ast.Stopsignal:
    _need(parts, "STOPSIGNAL SIGNAL")
    return ast.Stopsignal(**_base(parts, span), signal=parts.words[0])


def _maintainer(parts: Split, span: Span, context: Context) -> ast.Maintainer:
    _need(parts, "MAINTAINER NAME")
    read_flags(parts, {}, context.faults)
    return ast.Maintainer(**_base(parts, span), name=parts.words[0])


def _onbuild(parts: Split, span: Span, context: Context) -> ast.Onbuild | None:
    child = parts.child
    if child is None:
        _fail(
            "ONBUILD needs an instruction", "missing-argument", parts.keyword.span, "for example `ONBUILD COPY . /app`"
        )
    read_flags(parts, {}, context.faults)
    if child.name in ("onbuild", "from", "maintainer"):
        _fail(f"{child.name.upper()} cannot stand in an ONBUILD", "bad-onbuild", child.keyword.span)
    inner_span = Span(span.source, child.keyword.span.start, span.end)
    instruction = build(child, inner_span, context)
    if instruction is None:
        return None
    expression = _ONBUILD.sub("", parts.line.text, count=1)
    for heredoc in child.heredocs:
        expression += f"\n{heredoc.body}{heredoc.name}"
    return ast.Onbuild(**_base(parts, span), expression=expression, instruction=instruction)


_BUILDERS: dict[str, Callable[[Split, Span, Context], Instruction | None]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
