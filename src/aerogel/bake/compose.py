"""The `build` sections of compose files as targets: interpolation, `.env`, `x-bake`.

Read with PyYAML; several files are merged as compose does. Services without `build` are no targets.
Spec: compose specification build.md and interpolation; bake's guide "Compose file".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aerogel.bake.definition import Definition, valid_name
from aerogel.bake.entries import parse_entries
from aerogel.bake.model import Group, Target
from aerogel.bake.values import ValueFault
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span

__all__ = ["add_compose", "interpolate", "parse_dotenv"]

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)|\{(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*)(?:(?P<sign>:?[-+?])(?P<word>(?:[^{}]|\{[^}]*\})*))?\}|(?P<bad>))"
)
_X_BAKE = {
    **{name: name for name in ("tags", "cache-from", "cache-to", "platforms", "output", "no-cache-filter")},
    **{name: name for name in ("secret", "ssh", "pull", "no-cache", "contexts", "annotations")},
    "outputs": "output",
}
_LINE = re.compile(
    r"^\s*(?:export\s+)?(?P<name>[\w.]+)\s*[=:]\s*(?P<value>'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^#\n]*?)\s*(?:\s#.*)?$"
)


def parse_dotenv(text: str, lookup: Callable[[str], str | None]) -> dict[str, str]:
    """The variables of an `.env` file; values in double quotes and bare ones may use others."""
    found: dict[str, str] = {}

    def known(name: str) -> str | None:
        return found.get(name, lookup(name))

    for line in text.splitlines():
        match = _LINE.match(line)
        if line.lstrip().startswith("#") or match is None:
            continue
        value = match["value"].strip()
        if value[:1] == "'" and value[-1:] == "'":
            found[match["name"]] = value[1:-1]
            continue
        if value[:1] == '"' and value[-1:] == '"':
            value = value[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        found[match["name"]] = interpolate(value, known, None)
    return found


def interpolate(text: str, lookup: Callable[[str], str | None], span: Span | None) -> str:
    """`$NAME`, `${NAME:-word}` and its kin; `$$` is one `$`. Raises `bake.compose-variable`."""

    def one(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["name"] or match["braced"]
        if name is None:
            raise _fault(f"`{text}` has a `$` without a variable", span, "write `$$` for one `$`", code="variable")
        value, sign = lookup(name), match["sign"] or ""
        is_there = value is not None and (value != "" or not sign.startswith(":"))
        word = match["word"] or ""
        if sign.endswith("-"):
            return value or "" if is_there else interpolate(word, lookup, span)
        if sign.endswith("+"):
            return interpolate(word, lookup, span) if is_there else ""
        if sign.endswith("?") and not is_there:
            message = f"the variable `{name}` is not set: {word or 'it is needed'}"
            raise _fault(message, span, "set it in the environment, in `.env` or with `--var`", code="variable")
        return value or ""

    return _VARIABLE.sub(one, text)


def add_compose(sources: Sequence[Source], lookup: Callable[[str], str | None], into: Definition) -> None:
    """Adds a target for each service with a `build`, and the group `default` of them. Raises AerogelError `bake.*`."""
    whole: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    for source in sources:
        data, places = _load(source, lookup)
        spans |= places
        whole = _merged(whole, data)
    services = whole.get("services") or {}
    if not isinstance(services, Mapping):
        raise _fault("`services` is no map", spans.get("services"))
    names = []
    for name, service in services.items():
        build = (service or {}).get("build") if isinstance(service, Mapping | None) else None
        if build is None:
            continue
        span = spans.get(f"services.{name}")
        target_name = str(name).replace(".", "_")
        valid_name(target_name, span)
        names.append(target_name)
        into.add_target(_Service(str(name), target_name, service, build, whole, lookup, span).target())
    if services:
        into.add_group(Group("default", names))


class _Service:
    """One service with a `build`."""

    def __init__(
        self,
        service: str,
        name: str,
        data: Mapping[str, Any],
        build: Any,
        whole: Mapping[str, Any],
        lookup: Callable[[str], str | None],
        span: Span | None,
    ) -> None:
        self.service, self.name, self.data, self.whole, self.lookup, self.span = (
            service,
            name,
            data,
            whole,
            lookup,
            span,
        )
        self.build: Mapping[str, Any] = {"context": build} if isinstance(build, str) else build
        if not isinstance(self.build, Mapping):
            raise _fault(f"`build` of the service `{service}` is neither a folder nor a map", span)
        if "extends" in data:
            raise _fault(
                f"the service `{service}` uses `extends`, which is not read",
                span,
                "write its `build` in full, or use YAML anchors",
            )

    def target(self) -> Target:
        build = self.build
        try:
            values: dict[str, Any] = {
                "context": _text(build.get("context")),
                "contexts": self._contexts(build.get("additional_contexts")),
                "dockerfile": _text(build.get("dockerfile")),
                "dockerfile-inline": _text(build.get("dockerfile_inline")),
                "args": self._args(),
                "labels": {key: value or "" for key, value in _pairs(build.get("labels")).items()},
                "tags": _texts(build.get("tags")),
                "cache-from": parse_entries("cache-from", _texts(build.get("cache_from"))),
                "cache-to": parse_entries("cache-to", _texts(build.get("cache_to"))),
                "target": _text(build.get("target")),
                "network": _text(build.get("network")),
                "platforms": _texts(build.get("platforms")),
                "ssh": parse_entries("ssh", _ssh(build.get("ssh"))),
                "secret": [self._secret(each) for each in build.get("secrets") or ()],
                "shm-size": _text(build.get("shm_size")),
                "ulimits": _ulimits(build.get("ulimits")),
                "extra-hosts": _hosts(build.get("extra_hosts")),
                "entitlements": _texts(build.get("entitlements")),
                "no-cache": True if build.get("no_cache") else None,
                "pull": True if build.get("pull") else None,
            }
            attest = [
                _attest(kind, build[kind]) for kind in ("sbom", "provenance") if build.get(kind) not in (None, "")
            ]
            values["attest"] = parse_entries("attest", attest)
            target = Target(self.name, {key: value for key, value in values.items() if value not in (None, [], {})})
            self._extend(target, build.get("x-bake"))
        except ValueFault as error:
            raise _fault(f"service `{self.service}`: {error}", self.span) from None
        if not target.get("tags") and self.data.get("image"):
            target.values["tags"] = [str(self.data["image"])]
        if self.span is not None:
            target.spans = dict.fromkeys(target.values, self.span)
        return target

    def _args(self) -> dict[str, str | None]:
        """A name without a value takes the service's environment, then the shell's; else it is left out."""
        own = _pairs(self.data.get("environment"))
        found: dict[str, str | None] = {}
        for name, value in _pairs(self.build.get("args")).items():
            known = value if value is not None else own.get(name) or self.lookup(name)
            if known is not None:
                found[name] = known
        return found

    def _contexts(self, given: Any) -> dict[str, str]:
        found = {}
        for name, value in _pairs(given).items():
            text = value or ""
            service = text.removeprefix("service:")
            found[name] = f"target:{service.replace('.', '_')}" if service != text else text
        return found

    def _secret(self, given: Any) -> dict[str, Any]:
        source = given if isinstance(given, str) else str((given or {}).get("source", ""))
        defined = (self.whole.get("secrets") or {}).get(source)
        if not isinstance(defined, Mapping):
            raise ValueFault(f"the secret `{source}` is not defined under `secrets`")
        name = source if isinstance(given, str) else str(given.get("target") or source)
        if defined.get("environment"):
            return {"id": name, "env": str(defined["environment"])}
        if defined.get("file"):
            return {"id": name, "src": str(defined["file"])}
        raise ValueFault(f"the secret `{source}` has neither `file` nor `environment`")

    def _extend(self, target: Target, given: Any) -> None:
        """`x-bake`: attributes of bake that compose has not."""
        if given is None:
            return
        if not isinstance(given, Mapping):
            raise ValueFault("`x-bake` is no map")
        more = Target(target.name)
        for key, value in given.items():
            field = _X_BAKE.get(str(key))
            if field is None:
                known = ", ".join(f"`{name}`" for name in sorted(_X_BAKE))
                raise ValueFault(f"`x-bake` has no `{key}`: known are {known}")
            if field in ("pull", "no-cache"):
                more.values[field] = bool(value)
            elif field == "contexts":
                more.values[field] = self._contexts(value)
            else:
                texts = value.split() if isinstance(value, str) else _texts(value)
                is_plain = field in ("tags", "platforms", "no-cache-filter", "annotations")
                more.values[field] = texts if is_plain else parse_entries(field, texts)
        if "tags" in more.values:
            more.values["tags"] = list(dict.fromkeys([*(target.get("tags") or []), *more.values["tags"]]))
        if "platforms" in more.values:
            more.values["platforms"] = list(
                dict.fromkeys([*(target.get("platforms") or []), *more.values["platforms"]])
            )
        target.merge(more)


# YAML.


def _load(source: Source, lookup: Callable[[str], str | None]) -> tuple[dict[str, Any], dict[str, Span]]:
    """The file as plain data with variables replaced, and the places of its services."""
    import yaml

    try:
        node = yaml.compose(source.data.decode("utf-8"), Loader=yaml.SafeLoader)
        data = yaml.safe_load(source.data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _fault(f"`{source.name}` is not UTF-8", Span(source, error.start, error.start + 1)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = mark.index if mark is not None else 0
        problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        raise _fault(f"`{source.name}` is not YAML: {problem}", _span(source, at, at + 1), code="syntax") from None
    if not isinstance(data, Mapping) or not isinstance(node, yaml.MappingNode):
        raise _fault(f"`{source.name}` is no compose file: it is no map", Span(source, 0, 1), code="syntax")
    spans: dict[str, Span] = {}
    for key, value in node.value:
        spans[str(key.value)] = _mark(source, key)
        if key.value == "services" and isinstance(value, yaml.MappingNode):
            for name, _ in value.value:
                spans[f"services.{name.value}"] = _mark(source, name)
    wanted = {key: data[key] for key in ("services", "secrets") if key in data}
    return _interpolated(wanted, lookup, spans, ""), spans


def _mark(source: Source, node: Any) -> Span:
    return _span(source, node.start_mark.index, node.end_mark.index)


def _span(source: Source, start: int, end: int) -> Span:
    text = source.data.decode("utf-8", "replace")
    return Span(source, len(text[:start].encode()), len(text[:end].encode()))


def _interpolated(data: Any, lookup: Callable[[str], str | None], spans: Mapping[str, Span], path: str) -> Any:
    if isinstance(data, str):
        place = ".".join(path.split(".")[:2])
        return interpolate(data, lookup, spans.get(place) or spans.get(path.split(".", 1)[0]))
    if isinstance(data, Mapping):
        return {
            str(key): _interpolated(value, lookup, spans, f"{path}.{key}".lstrip(".")) for key, value in data.items()
        }
    if isinstance(data, list):
        return [_interpolated(value, lookup, spans, path) for value in data]
    return data


def _merged(old: Any, new: Any) -> Any:
    """As compose merges files: maps key by key, lists one after the other, the rest from the last."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _merged(old[key], value) if key in old else value for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(item for item in new if item not in old)]
    return old if new is None else new


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        raise ValueFault("a string is needed, not a list or a map")
    return str(value)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueFault(f"a list is needed, not `{value}`")
    return [text for item in value if (text := _text(item)) is not None]


def _pairs(value: Any) -> dict[str, str | None]:
    """A map, or a list of `name=value`."""
    if isinstance(value, Mapping):
        return {str(key): None if item is None else _text(item) or "" for key, item in value.items()}
    found: dict[str, str | None] = {}
    for text in _texts(value):
        name, sign, rest = text.partition("=")
        found[name] = rest if sign else None
    return found


def _hosts(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): ",".join(item) if isinstance(item, list) else str(item) for key, item in value.items()}
    pairs = [re.split(r"[=:]", text, maxsplit=1) for text in _texts(value)]
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def _ssh(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) if item is None else f"{key}={item}" for key, item in value.items()]
    return sorted(_texts([value] if isinstance(value, str) else value))


def _ulimits(value: Any) -> list[str]:
    found = []
    for name, limit in (value or {}).items():
        soft, hard = (limit.get("soft"), limit.get("hard")) if isinstance(limit, Mapping) else (limit, limit)
        found.append(f"{name}={soft}:{hard}")
    return found


def _attest(kind: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text in ("true", "false"):
        return f"type={kind}" + ("" if text == "true" else ",disabled=true")
    return f"type={kind},{text}"


def _fault(message: str, span: Span | None, *hints: str, code: str = "value") -> AerogelError:
    prefix = "bake.compose-variable" if code == "variable" else f"bake.{code}"
    more = hints or ("`build` of the compose specification says what may stand there",)
    return AerogelError(message, code=prefix, span=span, exit_status=EXIT_USAGE, hints=more)
