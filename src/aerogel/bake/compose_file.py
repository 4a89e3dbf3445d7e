"""Compose files as plain data: read with PyYAML, variables replaced, `include` and `extends` resolved, files merged.

Only what builds need is kept: `services` and `secrets`. Folders that an included or extended file names are written as
seen from the project, which is the current folder, or with `is_relative` the folder of the first file.
Spec: compose specification merge.md, include.md, services.md#extends.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aerogel.bake.interpolation import interpolate, parse_dotenv
from aerogel.bake.model import below
from aerogel.bake.values import ValueFault
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span, nearest

__all__ = ["Project", "fault", "load", "pairs", "text_of", "texts_of"]

_MAX_FILES = 100
Lookup = Callable[[str], str | None]


class Project(NamedTuple):
    """All files together. `spans` has the places of services as `services.NAME`."""

    data: dict[str, Any]
    spans: dict[str, Span]


def load(sources: Sequence[Source], lookup: Lookup, read: Callable[[str], Source], *, is_relative: bool) -> Project:
    """Reads the files in order; `read` gives more of them by their path. Raises AerogelError `bake.*`."""
    loader = _Loader(read, posixpath.dirname(sources[0].name) if is_relative else "")
    whole: dict[str, Any] = {}
    for source in sources:
        whole = _merged(whole, loader.file(source, lookup, "", ()))
    return Project(_plain(whole), loader.spans)


class _Loader:
    def __init__(self, read: Callable[[str], Source], home: str) -> None:
        self._read = read
        self._home = home
        self._count = 0
        self.spans: dict[str, Span] = {}

    def file(self, source: Source, lookup: Lookup, folder: str, trail: tuple[str, ...]) -> dict[str, Any]:
        """One file with what it includes and extends. `folder` is where its folders are, as the project sees it."""
        data, places = self._opened(source, lookup, folder)
        self.spans |= {**places, **self.spans} if trail else places
        for entry in data.pop("include", None) or ():
            self._include(entry, data, source, places.get("include"), lookup, (*trail, source.name))
        services = data["services"]
        for name in services:
            services[name] = self._extended(name, services, source, lookup, ())
        return data

    def _opened(self, source: Source, lookup: Lookup, folder: str) -> tuple[dict[str, Any], dict[str, Span]]:
        self._count += 1
        data, spans = _parsed(source)
        wanted = {key: data[key] for key in ("include", "services", "secrets") if data.get(key) is not None}
        found = _interpolated(wanted, lookup, spans, "")
        for key, kind in (("services", Mapping), ("secrets", Mapping), ("include", list)):
            if not isinstance(found.setdefault(key, {} if kind is Mapping else []), kind):
                raise fault(f"`{key}` is no {'map' if kind is Mapping else 'list'}", spans.get(key))
        for service in found["services"].values():
            if isinstance(service, dict):
                _normalize(service, folder)
        for secret in found["secrets"].values():
            if folder and isinstance(secret, dict) and isinstance(secret.get("file"), str):
                secret["file"] = below(folder, secret["file"])
        return found, spans

    def _beside(self, source: Source, name: str, what: str, span: Span | None) -> Source:
        """The file that another one names. Raises `bake.no-file` with the place of what named it."""
        if self._count >= _MAX_FILES:
            raise fault(f"more than {_MAX_FILES} files include or extend each other", span, "does one lead to itself?")
        if "://" in name or name.startswith("oci:"):
            raise fault(f"{what} names `{name}`, and only files are read", span, "fetch it, and name the file")
        try:
            return self._read(posixpath.normpath(posixpath.join(posixpath.dirname(source.name), name)))
        except AerogelError as error:
            error.span = error.span or span
            error.hints = (f"{what} is relative to the folder of `{source.name}`",)
            raise

    def _seen(self, folder: str) -> str:
        """A folder as the project sees it; empty for the project's own."""
        return "" if folder == self._home else posixpath.relpath(folder or ".", self._home or ".")

    # include

    def _include(
        self,
        entry: Any,
        data: dict[str, Any],
        source: Source,
        span: Span | None,
        lookup: Lookup,
        trail: tuple[str, ...],
    ) -> None:
        given = entry if isinstance(entry, Mapping) else {"path": entry}
        try:
            paths, files = _several(given.get("path")), _several(given.get("env_file"))
            folder = text_of(given.get("project_directory"))
        except ValueFault as error:
            raise fault(f"`include`: {error}", span) from None
        if not paths:
            raise fault("an entry of `include` names no `path`", span, "write `- path: FILE` or `- FILE`")
        sources = [self._beside(source, path, "`include`", span) for path in paths]
        here = posixpath.dirname(source.name)
        project = posixpath.normpath(posixpath.join(here, folder)) if folder else posixpath.dirname(sources[0].name)
        known = self._with_env([posixpath.join(here, name) for name in files], project, lookup, source, span)
        whole: dict[str, Any] = {}
        for one in sources:
            if one.name in trail:
                circle = " -> ".join(f"`{name}`" for name in (*trail[trail.index(one.name) :], one.name))
                raise fault(f"compose files include each other in a circle: {circle}", span, code="cycle")
            whole = _merged(whole, self.file(one, known, self._seen(project), trail))
        for key in ("services", "secrets"):
            for name, value in whole[key].items():
                if data[key].setdefault(name, value) != value:
                    raise fault(
                        f"`{name}` of `{key}` is in `{source.name}` and in what it includes",
                        self.spans.get(f"{key}.{name}", span),
                        "give one of them another name, or use `extends`",
                    )

    def _with_env(
        self, files: Sequence[str], project: str, lookup: Lookup, source: Source, span: Span | None
    ) -> Lookup:
        """The variables of an included project: those that are known, then those of its own `.env`."""
        texts = [self._beside(Source("", b""), name, "`env_file`", span).data for name in files if name != "/dev/null"]
        if not files and project != posixpath.dirname(source.name):
            try:
                texts = [self._read(posixpath.join(project, ".env")).data]
            except AerogelError:
                texts = []  # it need not be there
        found: dict[str, str] = {}
        for text in texts:
            found |= parse_dotenv(text.decode("utf-8", "replace"), lookup)

        def known(name: str) -> str | None:
            value = lookup(name)
            return found.get(name) if value is None else value

        return known

    # extends

    def _extended(
        self, name: str, services: dict[str, Any], source: Source, lookup: Lookup, trail: tuple[tuple[str, str], ...]
    ) -> Any:
        service = services[name]
        if not isinstance(service, Mapping) or service.get("extends") is None:
            return service
        span = self.spans.get(f"services.{name}")
        given = service["extends"]
        base, file = (given.get("service"), given.get("file")) if isinstance(given, Mapping) else (given, None)
        if not isinstance(base, str) or not base:
            raise fault(f"`extends` of the service `{name}` names no service", span, "write `extends: {service: NAME}`")
        if (source.name, name) in trail:
            circle = " -> ".join(f"`{one}`" for _, one in (*trail, (source.name, name)))
            raise fault(f"services extend each other in a circle: {circle}", span, code="cycle")
        others = services
        if file is not None:
            other = self._beside(source, str(file), "`extends`", span)
            others = services if other.name == source.name else self._services(other, lookup)
            trail, source = (*trail, (source.name, name)), other
        else:
            trail = (*trail, (source.name, name))
        if base not in others:
            guess = nearest(base, others)
            hint = f"did you mean `{guess}`?" if guess else "services are " + ", ".join(f"`{one}`" for one in others)
            raise fault(f"the service `{name}` extends `{base}`, which `{source.name}` has not", span, hint)
        found = self._extended(base, others, source, lookup, trail)
        own = {key: value for key, value in service.items() if key != "extends"}
        return _merged(found, own) if isinstance(found, Mapping) else own

    def _services(self, source: Source, lookup: Lookup) -> dict[str, Any]:
        data, _ = self._opened(source, lookup, self._seen(posixpath.dirname(source.name)))
        found: dict[str, Any] = data["services"]
        return found


def _normalize(service: dict[str, Any], folder: str) -> None:
    """`build` as a map, and what may be a list of `name=value` as one; folders as the project sees them."""
    build = service.get("build")
    if isinstance(build, str):
        build = service["build"] = {"context": build}
    holders = [(service, "environment")]
    if isinstance(build, dict):
        holders += [(build, key) for key in ("args", "labels", "additional_contexts")]
    for holder, key in holders:
        if isinstance(holder.get(key), list):
            try:
                holder[key] = dict(pairs(holder[key]))
            except ValueFault:
                continue  # told when it is read
    if not folder or not isinstance(build, dict):
        return
    if build.get("context") or "dockerfile" in build or "dockerfile_inline" in build:
        build["context"] = below(folder, str(build.get("context") or "."))
    contexts = build.get("additional_contexts")
    if isinstance(contexts, dict):
        build["additional_contexts"] = {
            key: below(folder, value) if isinstance(value, str) and not value.startswith("service:") else value
            for key, value in contexts.items()
        }


# YAML.


class _Reset:
    """`!reset`: what an earlier file says is taken away."""


class _Override(NamedTuple):
    """`!override`: it takes the place of what an earlier file says."""

    value: Any


_MAX_NODES = 1_000_000


def _size(node: Any) -> int:
    """How many values there are, those behind aliases as often as they are named."""
    known: dict[int, int] = {}

    def size(one: Any) -> int:
        found = known.get(id(one))
        if found is None:
            known[id(one)] = _MAX_NODES  # one that holds itself has no end
            parts = one.value if isinstance(one.value, list) else []
            inner = (part for each in parts for part in (each if isinstance(each, tuple) else (each,)))
            found = known[id(one)] = 1 + sum(map(size, inner))
        return found

    return 0 if node is None else size(node)


def _parsed(source: Source) -> tuple[dict[str, Any], dict[str, Span]]:
    """The file as plain data, and the places of its services."""
    import yaml

    class Loader(yaml.SafeLoader):
        """With compose's tags."""

    def overriding(loader: yaml.SafeLoader, node: yaml.Node) -> _Override:
        if isinstance(node, yaml.MappingNode):
            return _Override(loader.construct_mapping(node, deep=True))
        if isinstance(node, yaml.SequenceNode):
            return _Override(loader.construct_sequence(node, deep=True))
        return _Override(loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None)

    Loader.add_constructor("!reset", lambda *_: _Reset())
    Loader.add_constructor("!override", overriding)
    try:
        text = source.data.decode("utf-8")
        node = yaml.compose(text, Loader=Loader)
        if _size(node) > _MAX_NODES:
            message = f"`{source.name}` has more than {_MAX_NODES} values when its aliases are put in"
            raise fault(message, Span(source, 0, 1), code="syntax")
        data = yaml.load(text, Loader=Loader)  # noqa: S506 - a safe loader with two tags more
    except UnicodeDecodeError as error:
        raise fault(f"`{source.name}` is not UTF-8", Span(source, error.start, error.start + 1)) from None
    except RecursionError:
        raise fault(f"`{source.name}` is nested too deeply", Span(source, 0, 1), code="syntax") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = mark.index if mark is not None else 0
        problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        raise fault(f"`{source.name}` is not YAML: {problem}", _span(source, at, at + 1), code="syntax") from None
    if not isinstance(data, Mapping) or not isinstance(node, yaml.MappingNode):
        raise fault(f"`{source.name}` is no compose file: it is no map", Span(source, 0, 1), code="syntax")
    spans: dict[str, Span] = {}
    for key, value in node.value:
        spans[str(key.value)] = _mark(source, key)
        if key.value in ("services", "secrets") and isinstance(value, yaml.MappingNode):
            for name, _ in value.value:
                spans[f"{key.value}.{name.value}"] = _mark(source, name)
    return dict(data), spans


def _mark(source: Source, node: Any) -> Span:
    return _span(source, node.start_mark.index, node.end_mark.index)


def _span(source: Source, start: int, end: int) -> Span:
    text = source.data.decode("utf-8", "replace")
    return Span(source, len(text[:start].encode()), len(text[:end].encode()))


def _interpolated(data: Any, lookup: Lookup, spans: Mapping[str, Span], path: str) -> Any:
    if isinstance(data, str):
        place = ".".join(path.split(".")[:2])
        return interpolate(data, lookup, spans.get(place) or spans.get(path.split(".", 1)[0]))
    if isinstance(data, Mapping):
        return {
            str(key): _interpolated(value, lookup, spans, f"{path}.{key}".lstrip(".")) for key, value in data.items()
        }
    if isinstance(data, _Override):
        return _Override(_interpolated(data.value, lookup, spans, path))
    if isinstance(data, list):
        return [_interpolated(value, lookup, spans, path) for value in data]
    return data


def _merged(old: Any, new: Any) -> Any:
    """As compose merges files: maps key by key, lists one after the other, the rest from the last."""
    if isinstance(new, _Override):
        return new.value
    if isinstance(old, _Override):
        return _Override(_merged(old.value, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = {**old, **{key: _merged(old[key], value) if key in old else value for key, value in new.items()}}
        return {key: value for key, value in found.items() if not (isinstance(value, _Reset) and key in old)}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(item for item in new if item not in old)]
    return old if new is None else new


def _plain(data: Any) -> Any:
    """Without the tags that had nothing to change."""
    if isinstance(data, _Override):
        return _plain(data.value)
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items() if not isinstance(value, _Reset)}
    if isinstance(data, list):
        return [_plain(item) for item in data if not isinstance(item, _Reset)]
    return data


# Values.


def text_of(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        raise ValueFault("a string is needed, not a list or a map")
    return str(value)


def texts_of(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueFault(f"a list is needed, not `{value}`")
    return [text for item in value if (text := text_of(item)) is not None]


def pairs(value: Any) -> dict[str, str | None]:
    """A map, or a list of `name=value`."""
    if isinstance(value, Mapping):
        return {str(key): None if item is None else text_of(item) or "" for key, item in value.items()}
    found: dict[str, str | None] = {}
    for text in texts_of(value):
        name, sign, rest = text.partition("=")
        found[name] = rest if sign else None
    return found


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else texts_of(value)


def fault(message: str, span: Span | None, *hints: str, code: str = "value") -> AerogelError:
    """A user's mistake in a compose file."""
    more = hints or ("the compose specification says what may stand there",)
    return AerogelError(message, code=f"bake.{code}", span=span, exit_status=EXIT_USAGE, hints=more)
