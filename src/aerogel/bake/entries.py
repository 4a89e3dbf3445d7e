"""The attributes that are lists of small records: caches, outputs, secrets, ssh agents, attestations.

Each may be written as a string of `key=value` or as an object; here each is a dict with the keys that `--print` shows.
Spec: bake file reference, `target.cache-from`, `cache-to`, `output`, `secret`, `ssh`, `attest`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aerogel.bake.values import ValueFault, kind, to_text

__all__ = ["ENTRIES", "merge_entries", "normal", "parse_entries", "to_flag"]

Entry = dict[str, Any]


def _fields(text: str) -> list[tuple[str, str]]:
    found = []
    for field in next(csv.reader([text]), []):
        key, sign, value = field.partition("=")
        if not sign:
            raise ValueFault(f"`{field}` has no value: write `key=value,key=value`")
        found.append((key, value))
    return found


def _cache(text: str) -> list[Entry]:
    if "=" not in text:
        return [{"type": "registry", "ref": ref} for ref in next(csv.reader([text]), [])]
    return [_typed({key.lower(): value for key, value in _fields(text)}, text)]


def _typed(entry: Entry, text: str) -> Entry:
    if not entry.get("type"):
        raise ValueFault(f"`{text}` has no `type`")
    return entry


def _output(text: str) -> list[Entry]:
    if "=" not in text and "," not in text:
        return [{"type": "tar", "dest": "-"} if text == "-" else {"type": "local", "dest": text}]
    return [_typed({key.strip().lower(): value for key, value in _fields(text)}, text)]


def _secret(text: str) -> list[Entry]:
    fields = {"src" if key.lower() == "source" else key.lower(): value for key, value in _fields(text)}
    unknown = [key for key in fields if key not in ("id", "src", "env", "type")]
    if unknown:
        raise ValueFault(f"a secret has no `{unknown[0]}`: known are `id`, `src`, `env` and `type`")
    if fields.pop("type", "") == "env" and "env" not in fields and "src" in fields:
        fields["env"] = fields.pop("src")
    return [{key: fields[key] for key in ("id", "src", "env") if fields.get(key)}]


def _ssh(text: str) -> list[Entry]:
    name, sign, paths = text.partition("=")
    return [{"id": name, **({"paths": paths.split(",")} if sign else {})}]


def _attest(text: str) -> list[Entry]:
    entry: Entry = dict(_fields(text))
    if "disabled" in entry:
        if entry["disabled"].lower() in ("false", "0", "f"):
            del entry["disabled"]
        else:
            entry["disabled"] = True
    return [_typed(entry, text)]


ENTRIES: Mapping[str, Callable[[str], list[Entry]]] = {
    "attest": _attest,
    "cache-from": _cache,
    "cache-to": _cache,
    "output": _output,
    "secret": _secret,
    "ssh": _ssh,
}
"""Attribute -> what reads the form of a string."""


def parse_entries(name: str, values: Iterable[Any]) -> list[Entry]:
    """Raises ValueFault."""
    found: list[Entry] = []
    for value in values:
        if isinstance(value, Mapping):
            found.append(_object(name, value))
        elif value not in (None, ""):
            if not isinstance(value, str):
                raise ValueFault(f"`{name}` holds strings or objects, not a {kind(value)}")
            found += ENTRIES[name](value)
    return found


def _object(name: str, value: Mapping[str, Any]) -> Entry:
    entry: Entry = {}
    for key, item in value.items():
        if item is None:
            continue
        if name == "ssh" and key == "paths":
            entry[key] = [to_text(path) for path in item]
        elif name == "attest" and key == "disabled":
            if item is True or item == "true":
                entry[key] = True
        else:
            entry["src" if name == "secret" and key in ("source", "src") else key] = to_text(item)
    if name in ("secret", "ssh"):
        known = ("id", "src", "env") if name == "secret" else ("id", "paths")
        unknown = [key for key in entry if key not in known]
        if unknown:
            raise ValueFault(f"`{name}` has no `{unknown[0]}`: known are " + ", ".join(f"`{key}`" for key in known))
        return entry
    return _typed(entry, to_flag(name, entry))


def normal(name: str, entries: list[Entry]) -> list[Entry]:
    """Without duplicates: of secrets, agents and attestations the last of a name counts, in the place of the first."""
    if name in ("secret", "ssh", "attest"):
        key = "type" if name == "attest" else "id"
        return list({entry.get(key, ""): entry for entry in entries}.values())
    found: list[Entry] = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def merge_entries(name: str, old: list[Entry], new: list[Entry]) -> list[Entry]:
    return normal(name, [*old, *new])


def to_flag(name: str, entry: Mapping[str, Any]) -> str:
    """The entry as `docker buildx build` takes it on its command line."""
    if name == "ssh":
        return str(entry["id"]) + ("=" + ",".join(entry["paths"]) if entry.get("paths") else "")
    order = {"type": 0, "id": 0, "dest": 1}
    fields = [
        f"{key}={'true' if entry[key] is True else entry[key]}"
        for key in sorted(entry, key=lambda key: (order.get(key, 2), key))
    ]
    return ",".join(f'"{field}"' if "," in field or '"' in field else field for field in fields)
