"""Targets and groups: their attributes, how two of them are merged, and what `--print` shows.

Spec: bake file reference; buildx's merge rules: some attributes are replaced as a whole, others are added to.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aerogel.bake.entries import ENTRIES, merge_entries, normal, parse_entries
from aerogel.bake.values import ValueFault, kind, to_bool, to_text
from aerogel.errors import Span

__all__ = ["FIELDS", "Group", "Target", "below", "read_field"]

FIELDS: Mapping[str, str] = {
    "description": "text",
    "inherits": "list",
    "annotations": "list",
    "attest": "entries",
    "context": "text",
    "contexts": "map",
    "dockerfile": "text",
    "dockerfile-inline": "text",
    "args": "map",
    "labels": "map",
    "tags": "list",
    "cache-from": "entries",
    "cache-to": "entries",
    "target": "text",
    "secret": "entries",
    "ssh": "entries",
    "platforms": "list",
    "output": "entries",
    "pull": "switch",
    "no-cache": "switch",
    "network": "text",
    "no-cache-filter": "list",
    "shm-size": "text",
    "ulimits": "list",
    "resources": "map",
    "call": "text",
    "entitlements": "list",
    "extra-hosts": "map",
    "policy": "any",
}
"""The attributes of a target in the order of `--print`, and what each one is."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:|github\.com/")
"""What is no folder of this host; as buildx knows addresses."""
_ADDED = frozenset({"annotations", "entitlements", "inherits", "no-cache-filter", "policy", "ulimits"})
_ESCAPED = frozenset({"annotations", "args", "dockerfile-inline", "extra-hosts", "labels"})


def read_field(name: str, value: Any) -> Any:
    """A value as the attribute has it. Raises ValueFault."""
    match FIELDS[name]:
        case "text":
            return to_text(value)
        case "switch":
            return to_bool(value)
        case "list":
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueFault(f"`{name}` is a list of strings, not a {kind(value)}")
            return [to_text(item) for item in value if item is not None]
        case "map":
            if not isinstance(value, Mapping):
                raise ValueFault(f"`{name}` is a map of strings, not a {kind(value)}")
            return {key: None if item is None else to_text(item) for key, item in value.items()}
        case "entries":
            if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
                raise ValueFault(f"`{name}` is a list, not a {kind(value)}")
            return parse_entries(name, value)
        case _:
            return value


def below(folder: str, place: str) -> str:
    """A context as seen from the parent of `folder`; what is no relative folder stays as it is."""
    special = ("cwd://", "target:", "docker-image:", "oci-layout://")
    if place.startswith(special) or posixpath.isabs(place) or _ADDRESS.match(place):
        return place
    return posixpath.normpath(posixpath.join(folder, place))


class Group:
    """Names that are built together."""

    def __init__(self, name: str, targets: Sequence[str] = (), description: str = "", span: Span | None = None) -> None:
        self.name = name
        self.targets = list(dict.fromkeys(targets))
        self.description = description
        self.span = span

    def shown(self) -> dict[str, Any]:
        """As `--print` has it."""
        return {**({"description": self.description} if self.description else {}), "targets": self.targets}


class Target:
    """One build. `values` has the attributes that are set, `spans` where each was set last."""

    def __init__(
        self, name: str, values: Mapping[str, Any] | None = None, spans: Mapping[str, Span] | None = None
    ) -> None:
        self.name = name
        self.values: dict[str, Any] = dict(values or {})
        self.spans: dict[str, Span] = dict(spans or {})
        self.home = ""
        """The folder that is the context when none is set; empty for the current one."""
        self.is_linked = False
        """Only another target asked for it: nothing of it is kept."""

    def get(self, name: str) -> Any:
        """None when it is not set."""
        return self.values.get(name)

    def merge(self, other: Target) -> None:
        """Takes over what another definition of the target says."""
        for name, value in other.values.items():
            if value is None:
                continue
            old = self.values.get(name)
            match FIELDS[name]:
                case "map":
                    found = dict(old or {})
                    # null leaves an earlier value, and an ARG's default, as they are
                    found.update({key: item for key, item in value.items() if item is not None})
                    if found or old is not None:
                        self.values[name] = found
                case "entries" if name not in ("cache-to", "output"):
                    self.values[name] = merge_entries(name, old or [], value)
                case _ if name in _ADDED:
                    self.values[name] = [*(old or []), *value]
                case _:
                    self.values[name] = value
            if name in other.spans:
                self.spans[name] = other.spans[name]
        self.home = other.home

    def rebase(self, folder: str) -> None:
        """Contexts in folders are now relative to `folder`, not to the current one."""
        self.home = folder
        if self.values.get("context"):
            self.values["context"] = below(folder, self.values["context"])
        if self.values.get("contexts"):
            self.values["contexts"] = {
                key: value and below(folder, value) for key, value in self.values["contexts"].items()
            }

    def normalize(self) -> None:
        """Duplicates go; `network = "host"` asks for its entitlement."""
        for name, value in self.values.items():
            if FIELDS[name] == "list":
                self.values[name] = list(dict.fromkeys(item for item in value if item))
            elif name in ENTRIES:
                self.values[name] = normal(name, value)
        if self.get("network") == "host":
            self.values["entitlements"] = list(dict.fromkeys([*(self.get("entitlements") or []), "network.host"]))
        contexts = self.values.get("contexts")
        if contexts is not None:
            self.values["contexts"] = {key: value for key, value in contexts.items() if value}

    def shown(self) -> dict[str, Any]:
        """As `--print` has it: what is empty is left out, what would be a template is escaped."""
        found: dict[str, Any] = {}
        for name, form in FIELDS.items():
            value = self.values.get(name)
            if value is None or value in ([], {}) or (name == "description" and not value) or name == "inherits":
                continue
            if name in _ESCAPED:
                value = _each(value, _escape)
            found[name] = dict(sorted(value.items())) if form == "map" else value
            if form == "entries":
                found[name] = [_sorted(entry) if name not in ("secret", "ssh") else entry for entry in value]
        return found


def _sorted(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in sorted(entry)}


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [change(item) for item in value]
    return {key: item if item is None else change(item) for key, item in value.items()}


def _escape(text: str) -> str:
    return text.replace("${", "$${").replace("%{", "%%{")
