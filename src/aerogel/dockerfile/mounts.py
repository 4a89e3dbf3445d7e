"""`RUN --mount` and `RUN --device`: the options as written, and what they say once variables are expanded.

`read_mount` cuts, `resolve` checks and gives one of five values. A mount without any variable is resolved while
parsing, so that its faults come with all others. Spec: the Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from msgspec import Struct

from aerogel.dockerfile.ast import Device, MountOption, RunMount, Word
from aerogel.errors import AerogelError, Span, nearest

__all__ = [
    "BindMount",
    "CacheMount",
    "Mount",
    "SecretMount",
    "SshMount",
    "TmpfsMount",
    "read_device",
    "read_mount",
    "resolve",
]

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    *("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode"),
    *("uid", "gid", "env", "src", "dst", "destination", "ro", "rw"),
)
_FLAG_KEYS = ("readonly", "readwrite", "required")
_UNITS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MAX_UINT32 = 2**32 - 1
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class BindMount(Struct, frozen=True, kw_only=True, tag=True):
    """`type=bind`: `source` of the stage, image or context `from_` (empty: the build context) at `target`.

    `target` may be relative to the working directory, and empty for that itself. Writes are possible without `readonly`, and thrown away.
    """

    target: str
    source: str = ""
    from_: str = ""
    readonly: bool = True


class CacheMount(Struct, frozen=True, kw_only=True, tag=True):
    """`type=cache`: the directory `id` that outlives builds; `from_` and `source` seed it.

    `mode`, `uid` and `gid` are None when not given (BuildKit: 0755, 0, 0).
    """

    target: str
    id: str
    sharing: str = "shared"
    source: str = ""
    from_: str = ""
    readonly: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class TmpfsMount(Struct, frozen=True, kw_only=True, tag=True):
    """`type=tmpfs`: `size_bytes` 0 is no limit."""

    target: str
    size_bytes: int = 0


class SecretMount(Struct, frozen=True, kw_only=True, tag=True):
    """`type=secret`: the secret `id` as a file at `target` and as the variable `env`, each if not None."""

    id: str
    target: str | None
    env: str | None = None
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class SshMount(Struct, frozen=True, kw_only=True, tag=True):
    """`type=ssh`: an agent's socket; `target` None is `/run/buildkit/ssh_agent.N` with N counted from 0."""

    id: str = "default"
    target: str | None = None
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


def read_mount(value: Word) -> RunMount:
    """Cut the value of a `--mount`.

    Raises:
        AerogelError: for broken quotes, or a variable in `from`.
    """
    options: list[MountOption] = []
    for field, span in _fields(value):
        key, equals, text = field.partition("=")
        key = key.lower()
        inner = span
        if equals and span.text == field:
            inner = Span(span.source, span.start + len(key.encode("utf-8", "surrogateescape")) + 1, span.end)
        word = Word(text, inner) if equals else None
        if key == "from" and "$" in text[:-1]:
            raise AerogelError(
                "`from` of a mount takes no variable",
                code="dockerfile.variable-in-from",
                span=inner,
                hints=["give the image a name: `FROM $IMAGE AS name` with a global ARG, then `from=name`"],
            )
        options.append(MountOption(key, word, span))
    return RunMount(tuple(options), value.span)


def _fields(value: Word) -> list[tuple[str, Span]]:
    """The comma-separated fields; one in double quotes may hold commas, a double quote in it is doubled."""
    text, span = value.text, value.span
    exact = span.text == text and text.isascii()
    if not text:
        raise AerogelError("the value is empty", code="dockerfile.bad-mount", span=span)
    fields: list[tuple[str, Span]] = []
    at = 0
    while True:
        start = at
        if text.startswith('"', at):
            field, at = _quoted(value, at)
        else:
            end = text.find(",", at)
            at = len(text) if end < 0 else end
            field = text[start:at]
            if '"' in field:
                raise _bad_quote(value)
        fields.append((field, Span(span.source, span.start + start, span.start + at) if exact else span))
        if at == len(text):
            return fields
        at += 1


def _quoted(value: Word, at: int) -> tuple[str, int]:
    text = value.text
    parts: list[str] = []
    at += 1
    while True:
        end = text.find('"', at)
        if end < 0:
            raise _bad_quote(value)
        parts.append(text[at:end])
        at = end + 1
        if not text.startswith('"', at):
            break
        parts.append('"')
        at += 1
    if at < len(text) and text[at] != ",":
        raise _bad_quote(value)
    return "".join(parts), at


def _bad_quote(value: Word) -> AerogelError:
    return AerogelError(
        "a double quote in a comma-separated list stands only around a whole field, or doubled inside one",
        code="dockerfile.bad-mount",
        span=value.span,
    )


def read_device(value: Word) -> Device:
    """Read a `--device`: `NAME[,required]`, or `name=NAME`.

    Raises:
        AerogelError: `dockerfile.bad-device`.
    """
    name = ""
    required = False
    for field, span in _fields(value):
        key, equals, text = field.partition("=")
        key = key.lower()
        if key == "required":
            required = _boolean(key, text, span) if equals else True
        elif key == "name" and equals:
            if name:
                raise AerogelError(f"the device is already `{name}`", code="dockerfile.bad-device", span=span)
            name = text
        elif not name:
            name = field
        else:
            near = nearest(key, ["name", "required"])
            hints = [f"did you mean `{near}`?"] if near else ["the form is `--device=NAME[,required]`"]
            raise AerogelError(f"a device has no option `{key}`", code="dockerfile.bad-device", span=span, hints=hints)
    return Device(name, required, value.span)


class _Options:
    """The options of a mount by their full names, with the place of each."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.spans: dict[str, Span] = {}
        self.readonly: bool | None = None
        self.required: bool | None = None


def resolve(mount: RunMount, expand: Callable[[Word], str]) -> Mount:
    """What the mount says, its values expanded with `expand`; in the order of the options, as BuildKit checks them.

    Raises:
        AerogelError: `dockerfile.bad-mount` and what `expand` raises.
    """
    options = _Options()
    kind = "bind"
    for option in mount.options:
        key = _ALIASES.get(option.key, option.key)
        if option.value is None:
            if key not in _FLAG_KEYS:
                near = nearest(option.key, _FLAG_KEYS) if option.key not in _KEYS else None
                hints = [f"did you mean `{near}`?"] if near else _value_hints(option.key)
                raise _error(f"`{option.key}` of a mount needs a value", option.span, hints)
            value = "true"
        else:
            value = expand(option.value) if key != "from" else option.value.text
        span = option.value.span if option.value is not None else option.span
        if key == "type":
            kind = value.lower()
            if kind not in _TYPES:
                raise _error(f"`{value}` is no type of a mount", span, _choice_hints(value, _TYPES))
        elif option.key not in _KEYS:
            raise _error(f"a mount has no option `{option.key}`", option.span, _key_hints(option.key))
        elif key in ("readonly", "readwrite"):
            options.readonly = _boolean(option.key, value, span) == (key == "readonly")
        else:
            _check_option(kind, key, value, span)
            if key == "required":
                options.required = _boolean(key, value, span)
        options.texts[key] = value
        options.spans[key] = span
    return _build(kind, options, mount.span)


def _check_option(kind: str, key: str, value: str, span: Span) -> None:
    if key == "required" and kind not in ("secret", "ssh"):
        raise _error(f"`required` is for secret and ssh mounts, not for `{kind}`", span, _order_hints())
    if key == "size" and kind != "tmpfs":
        raise _error(f"`size` is for tmpfs mounts, not for `{kind}`", span, _order_hints())
    if key == "sharing" and value.lower() not in _SHARING:
        raise _error(f"`{value}` is no way of sharing a cache", span, _choice_hints(value, _SHARING))


def _build(kind: str, options: _Options, span: Span) -> Mount:
    text, spans = options.texts, options.spans
    if kind not in ("secret", "ssh", "cache"):
        for key in ("mode", "uid", "gid"):
            if key in text:
                raise _error(
                    f"`{key}` is for cache, secret and ssh mounts, not for `{kind}`", spans[key], _order_hints()
                )
    if text.get("sharing") and kind != "cache":
        raise _error(f"`sharing` is for cache mounts, not for `{kind}`", spans["sharing"], _order_hints())
    mode = _number(text, spans, "mode", 8)
    uid, gid = _number(text, spans, "uid", 10), _number(text, spans, "gid", 10)
    target, source, from_ = text.get("target", ""), text.get("source", ""), text.get("from", "")
    if kind == "secret":
        return _secret(options, span, (0o400 if mode is None else mode, uid or 0, gid or 0))
    if kind == "ssh":
        if source:
            raise _error(
                "an ssh mount has no `source`", spans["source"], ["`id` says which agent, `target` where its socket is"]
            )
        return SshMount(
            id=text.get("id") or "default",
            target=target or None,
            required=bool(options.required),
            mode=0o600 if mode is None else mode,
            uid=uid or 0,
            gid=gid or 0,
        )
    if target.startswith("/") and _clean(target) == "/":
        raise _error(
            f"a {kind} mount cannot cover the root directory", spans["target"], ["give it a `target` below `/`"]
        )
    if kind == "tmpfs":
        size = _size(text["size"], spans["size"]) if "size" in text else 0
        return TmpfsMount(target=target, size_bytes=size)
    if kind == "cache":
        return CacheMount(
            target=target,
            id=text.get("id") or _clean(target),
            sharing=(text.get("sharing") or "shared").lower(),
            source=source,
            from_=from_,
            readonly=bool(options.readonly),
            mode=mode,
            uid=uid,
            gid=gid,
        )
    readonly = True if options.readonly is None else options.readonly
    return BindMount(target=target, source=source, from_=from_, readonly=readonly)


def _secret(options: _Options, span: Span, owner: tuple[int, int, int]) -> SecretMount:
    text, spans = options.texts, options.spans
    if text.get("from"):
        raise _error(
            "a secret mount has no `from`", spans["from"], ["its `id` says which secret: `--secret id=NAME,src=FILE`"]
        )
    if text.get("source") and text.get("id"):
        raise _error("`source` of a secret is another name of `id`", spans["source"], ["give one of them"])
    target, env = text.get("target", ""), text.get("env")
    name = text.get("id") or text.get("source") or ""
    if not name and not target:
        raise _error("a secret mount needs an `id` or a `target`", span, ["for example `--mount=type=secret,id=token`"])
    name = name or posixpath.basename(target)
    if not name or name in (".", ".."):
        raise _error(f"the secret needs an `id`: its target `{target}` gives none", spans["target"], ["add `id=NAME`"])
    file: str | None = target or None
    if file is None and env is None:
        file = "/run/secrets/" + posixpath.basename(name)
    mode, uid, gid = owner
    return SecretMount(
        id=name,
        target=file,
        env=(env or name) if env is not None else None,
        required=bool(options.required),
        mode=mode,
        uid=uid,
        gid=gid,
    )


def _clean(path: str) -> str:
    return posixpath.normpath(path).replace("//", "/")


def _error(message: str, span: Span, hints: list[str] | None = None) -> AerogelError:
    return AerogelError(message, code="dockerfile.bad-mount", span=span, hints=hints or ())


def _key_hints(key: str) -> list[str]:
    near = nearest(key, _KEYS)
    if near and near != key:
        return [f"did you mean `{near}`?"]
    return ["there are " + ", ".join(f"`{each}`" for each in _KEYS if each not in _ALIASES)]


def _value_hints(key: str) -> list[str]:
    known = key if key in _KEYS else nearest(key, _KEYS)
    return [f"write `{known}=...`"] if known else _key_hints(key)


def _choice_hints(value: str, choices: tuple[str, ...]) -> list[str]:
    near = nearest(value, choices)
    return [f"did you mean `{near}`?"] if near else ["one of " + ", ".join(f"`{choice}`" for choice in choices)]


def _order_hints() -> list[str]:
    return ["`type=` must stand before the options that depend on it"]


def _boolean(key: str, value: str, span: Span) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise _error(f"`{key}` is `true` or `false`, not `{value}`", span, [f"`{key}` alone is `true`"])


def _number(texts: dict[str, str], spans: dict[str, Span], key: str, base: int) -> int | None:
    if key not in texts:
        return None
    text = texts[key]
    digits = "01234567" if base == 8 else "0123456789"
    if text and all(c in digits for c in text) and len(text.lstrip("0")) <= 11:
        number = int(text, base)
        if number <= _MAX_UINT32:
            return number
    what = "an octal number" if base == 8 else "a number"
    limit = f"{_MAX_UINT32:{'o' if base == 8 else 'd'}}"
    example = "for example `mode=0700`" if base == 8 else f"for example `{key}=1000`; names are not looked up here"
    raise _error(f"`{key}` is {what} up to {limit}, not `{text}`", spans[key], [example])


def _size(text: str, span: Span) -> int:
    """Bytes of `512m`, `1.5 GiB` and the like: binary units, any case."""
    head = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(head) :].lower()
    head = head.removesuffix(" ")
    number = head.partition(".")
    plain = all(part.isdecimal() and part.isascii() for part in (number[0], number[2]) if part)
    power = 0 if unit in ("", "b") else _UNITS.get(unit[0], -1)
    if power > 0 and unit[1:] not in ("", "b", "ib"):
        power = -1
    if not plain or power < 0 or not (number[0] or number[2]) or len(head) > 30:
        hints = ["a number and one of `b`, `k`, `m`, `g`, `t`, `p`: `64m`"]
        raise _error(f"`{text}` is no size", span, hints)
    return int(float(head) * 1024**power)
