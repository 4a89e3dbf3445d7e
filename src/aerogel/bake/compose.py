"""The `build` sections of compose files as targets, and `x-bake`. Services without `build` are no targets.

Spec: compose specification build.md; bake's guide "Compose file".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aerogel.bake.compose_file import fault, load, pairs, text_of, texts_of
from aerogel.bake.definition import Definition, valid_name
from aerogel.bake.entries import parse_entries
from aerogel.bake.model import Group, Target
from aerogel.bake.values import ValueFault
from aerogel.errors import Source, Span

__all__ = ["add_compose"]

_X_BAKE = {
    **{name: name for name in ("tags", "cache-from", "cache-to", "platforms", "output", "no-cache-filter")},
    **{name: name for name in ("secret", "ssh", "pull", "no-cache", "contexts", "annotations")},
    "outputs": "output",
}


def add_compose(
    sources: Sequence[Source], lookup: Callable[[str], str | None], into: Definition, read: Callable[[str], Source]
) -> None:
    """Adds a target for each service with a `build`, and the group `default` of them.

    `read` gives the files that `extends` and `include` name. Raises AerogelError `bake.*`.
    """
    project = load(sources, lookup, read, is_relative=into.is_relative)
    whole, spans = project.data, project.spans
    services = whole.get("services") or {}
    names = []
    for name, service in services.items():
        build = (service or {}).get("build") if isinstance(service, Mapping | None) else None
        if build is None:
            continue
        span = spans.get(f"services.{name}")
        target_name = str(name).replace(".", "_")
        valid_name(target_name, span)
        names.append(target_name)
        target = _Service(str(name), target_name, service, build, whole, lookup, span).target()
        into.add_target(target, sources[0].name)
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
            raise fault(f"`build` of the service `{service}` is neither a folder nor a map", span)

    def target(self) -> Target:
        build = self.build
        try:
            values: dict[str, Any] = {
                "context": text_of(build.get("context")),
                "contexts": self._contexts(build.get("additional_contexts")),
                "dockerfile": text_of(build.get("dockerfile")),
                "dockerfile-inline": text_of(build.get("dockerfile_inline")),
                "args": self._args(),
                "labels": {key: value or "" for key, value in pairs(build.get("labels")).items()},
                "tags": texts_of(build.get("tags")),
                "cache-from": parse_entries("cache-from", texts_of(build.get("cache_from"))),
                "cache-to": parse_entries("cache-to", texts_of(build.get("cache_to"))),
                "target": text_of(build.get("target")),
                "network": text_of(build.get("network")),
                "platforms": texts_of(build.get("platforms")),
                "ssh": parse_entries("ssh", _ssh(build.get("ssh"))),
                "secret": [self._secret(each) for each in build.get("secrets") or ()],
                "shm-size": text_of(build.get("shm_size")),
                "ulimits": _ulimits(build.get("ulimits")),
                "extra-hosts": _hosts(build.get("extra_hosts")),
                "entitlements": texts_of(build.get("entitlements")),
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
            raise fault(f"service `{self.service}`: {error}", self.span) from None
        if not target.get("tags") and self.data.get("image"):
            target.values["tags"] = [str(self.data["image"])]
        if self.span is not None:
            target.spans = dict.fromkeys(target.values, self.span)
        return target

    def _args(self) -> dict[str, str | None]:
        """A name without a value takes the service's environment, then the shell's; else it is left out."""
        own = pairs(self.data.get("environment"))
        found: dict[str, str | None] = {}
        for name, value in pairs(self.build.get("args")).items():
            known = value if value is not None else own.get(name) or self.lookup(name)
            if known is not None:
                found[name] = known
        return found

    def _contexts(self, given: Any) -> dict[str, str]:
        found = {}
        for name, value in pairs(given).items():
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
                texts = value.split() if isinstance(value, str) else texts_of(value)
                is_plain = field in ("tags", "platforms", "no-cache-filter", "annotations")
                more.values[field] = texts if is_plain else parse_entries(field, texts)
        if "tags" in more.values:
            more.values["tags"] = list(dict.fromkeys([*(target.get("tags") or []), *more.values["tags"]]))
        if "platforms" in more.values:
            more.values["platforms"] = list(
                dict.fromkeys([*(target.get("platforms") or []), *more.values["platforms"]])
            )
        target.merge(more)


# Values.


def _hosts(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): ",".join(item) if isinstance(item, list) else str(item) for key, item in value.items()}
    pairs = [re.split(r"[=:]", text, maxsplit=1) for text in texts_of(value)]
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def _ssh(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) if item is None else f"{key}={item}" for key, item in value.items()]
    return sorted(texts_of([value] if isinstance(value, str) else value))


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
