"""What is asked for: names and patterns to targets with everything inherited, `--set` applied, links followed.

Spec: `docker buildx bake --set`, bake file reference "target.inherits", "target.contexts".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aerogel.bake.definition import Definition
from aerogel.bake.entries import ENTRIES, merge_entries, parse_entries
from aerogel.bake.model import FIELDS, Group, Target
from aerogel.bake.values import ValueFault, to_bool
from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = ["LINK", "Resolved", "parse_overrides", "resolve"]

LINK = "target:"
"""What a context begins with that is another target."""

_KEYS = {
    "platform": "platforms",
    "platforms": "platforms",
    "secrets": "secret",
    "output": "output",
    "outputs": "output",
}
_DOTTED = ("args", "contexts", "extra-hosts", "labels", "resources", "secret")


class _Override(NamedTuple):
    key: str
    name: str
    value: str | None
    is_added: bool
    text: str


class Resolved(NamedTuple):
    """What is built: targets by name, linked ones among them, and the groups that were named."""

    groups: dict[str, Group]
    targets: dict[str, Target]

    def shown(self) -> dict[str, Any]:
        """What `--print` prints."""
        groups = {name: self.groups[name].shown() for name in sorted(self.groups)}
        targets = {name: self.targets[name].shown() for name in sorted(self.targets)}
        return {**({"group": groups} if groups else {}), "target": targets}


def resolve(
    definition: Definition, names: Sequence[str], overrides: Sequence[str], environment: Mapping[str, str]
) -> Resolved:
    """Raises AerogelError `bake.no-target`, `bake.bad-set`, `bake.cycle`, `bake.link`."""
    return _Resolver(definition, parse_overrides(overrides, definition, environment)).run(names)


def parse_overrides(
    given: Sequence[str], definition: Definition, environment: Mapping[str, str]
) -> dict[str, list[_Override]]:
    """The `--set` by name of target."""
    found: dict[str, list[_Override]] = {}
    for text in given:
        head, sign, value = text.partition("=")
        is_added = head.endswith("+")
        pattern, dot, rest = head.removesuffix("+").partition(".")
        key, _, name = rest.partition(".")
        if not dot or not key:
            raise _bad_set(
                text, "it names no attribute", "write `TARGET.KEY=VALUE`, for example `*.platform=linux/arm64`"
            )
        key = _KEYS.get(key, key)
        if key not in FIELDS and key not in ("push", "load"):
            guess = nearest(key, [*FIELDS, "platform", "push", "load"])
            raise _bad_set(text, f"there is no attribute `{key}`", f"did you mean `{guess}`?" if guess else "")
        if key in ("inherits", "description"):
            raise _bad_set(text, f"`{key}` cannot be set", "change the bake file")
        if (key in _DOTTED and key != "secret") and not name:
            raise _bad_set(text, f"`{key}` needs a name", f"write `{pattern}.{key}.NAME=VALUE`")
        if not sign:
            if key != "args":
                raise _bad_set(text, "it has no value", f"write `{head}=VALUE`")
            if name not in environment:
                continue
            value = environment[name]
        for target in _matching(pattern, definition, text):
            found.setdefault(target, []).append(_Override(key, name, value, is_added, text))
    return found


def _matching(pattern: str, definition: Definition, text: str) -> list[str]:
    if pattern in definition.targets:
        return [pattern]
    matches = [name for name in definition.targets if _glob(pattern).fullmatch(name)]
    if not matches:
        guess = nearest(pattern, definition.targets)
        hint = f"did you mean `{guess}`?" if guess else "targets are " + _listed(definition.targets)
        raise _bad_set(text, f"no target matches `{pattern}`", hint)
    return matches


def _glob(pattern: str) -> re.Pattern[str]:
    """Go's path.Match for names without slashes."""
    parts = re.findall(r"\\.|\[\^?[^]]*\]|.", pattern)
    made = []
    for part in parts:
        if part == "*":
            made.append(".*")
        elif part == "?":
            made.append(".")
        elif part.startswith("[") and len(part) > 1:
            made.append(part)
        else:
            made.append(re.escape(part.removeprefix("\\") if len(part) > 1 else part))
    return re.compile("".join(made))


class _Resolver:
    def __init__(self, definition: Definition, overrides: Mapping[str, list[_Override]]) -> None:
        self.definition = definition
        self.overrides = overrides
        self.merged: dict[str, Target] = {}
        """With what they inherit; values that are not set are not there."""
        self.done: dict[str, Target] = {}

    def run(self, names: Sequence[str]) -> Resolved:
        wanted = list(dict.fromkeys(found for name in names for found in self._names(name)))
        targets: dict[str, Target] = {}
        groups: dict[str, Group] = {}
        for name in wanted:
            inner, seen = self._group(name, [])
            for each in inner:
                targets[each] = self.target(each)
            for each in seen:
                groups[each] = self.definition.groups[each]
        default = groups.get("default")
        chosen = [name for name in wanted if name != "default" or default is None]
        if default is None or chosen:
            members = sorted({*(default.targets if default is not None else ()), *chosen})
            groups["default"] = Group("default", members, default.description if default is not None else "")
        else:
            groups["default"] = Group("default", sorted(default.targets), default.description)
        for name in list(targets):
            self._link(name, targets[name], targets, [])
        return Resolved(groups, targets)

    def _names(self, name: str) -> list[str]:
        name = name.replace(".", "_")
        if not any(char in name for char in "*?["):
            return [name]
        pattern = _glob(name)
        found = [each for each in (*self.definition.groups, *self.definition.targets) if pattern.fullmatch(each)]
        if not found:
            raise AerogelError(
                f"no target matches `{name}`",
                code="bake.no-target",
                exit_status=EXIT_USAGE,
                hints=["targets are " + _listed(self.definition.targets)],
            )
        return found

    def _group(self, name: str, path: Sequence[str]) -> tuple[list[str], list[str]]:
        """The targets and the groups of a name."""
        group = self.definition.groups.get(name)
        if group is None or name in path:
            return ([name] if group is None else []), []
        targets, groups = [], [name]
        for each in group.targets:
            inner, seen = self._group(each, [*path, name])
            targets += inner
            groups += seen
        return targets, groups

    def target(self, name: str, path: tuple[str, ...] = ()) -> Target:
        """The target with what it inherits, with what the command line says, and with defaults."""
        if name not in self.done:
            made = Target(name)
            made.merge(self._inherited(name, path))
            made.normalize()
            made.values.pop("inherits", None)
            made.values.setdefault("context", made.home or ".")
            if not made.values.get("dockerfile"):
                made.values["dockerfile"] = "Dockerfile"
            self.done[name] = made
        return self.done[name]

    def _inherited(self, name: str, path: tuple[str, ...]) -> Target:
        if name in self.merged:
            return self.merged[name]
        written = self.definition.targets.get(name)
        if written is None:
            raise self._no_target(name, path)
        made = Target(name)
        for parent in written.values.get("inherits") or ():
            if parent in (*path, name):
                circle = " -> ".join(f"`{each}`" for each in (*path, name, parent))
                raise AerogelError(
                    f"targets inherit from each other in a circle: {circle}",
                    code="bake.cycle",
                    span=written.spans.get("inherits"),
                    exit_status=EXIT_USAGE,
                    hints=["let one of them stand alone"],
                )
            if parent not in self.definition.targets:
                error = self._no_target(parent, ())
                error.span = written.spans.get("inherits")
                raise error
            made.merge(self._inherited(parent, (*path, name)))
        made.merge(written)
        given = self.overrides.get(name, ())
        for override in given:
            _apply(made, override)
        _add_arrays(made, given)
        for override in given:
            if override.key in ("push", "load"):
                _set_output(made, override.key, is_on=_switch(override))
        self.merged[name] = made
        return made

    def _no_target(self, name: str, path: Sequence[str]) -> AerogelError:
        del path
        known = [*self.definition.targets, *self.definition.groups]
        guess = nearest(name, known)
        if name == "default" and known:
            hints = [
                'name a target, or make a group: `group "default" { targets = [...] }`',
                "targets are " + _listed(known),
            ]
        else:
            hints = [
                f"did you mean `{guess}`?" if guess else "targets are " + _listed(known) if known else "there is none"
            ]
        return AerogelError(f"there is no target `{name}`", code="bake.no-target", exit_status=EXIT_USAGE, hints=hints)

    def _link(self, name: str, target: Target, targets: dict[str, Target], path: Sequence[str]) -> None:
        """Brings in what `contexts` name as targets."""
        path = [*path, name]
        for context in (target.get("contexts") or {}).values():
            if not context.startswith(LINK):
                continue
            other = context.removeprefix(LINK)
            if other in path:
                circle = " -> ".join(f"`{each}`" for each in (*path[path.index(other) :], other))
                raise AerogelError(
                    f"targets link to each other in a circle: {circle}",
                    code="bake.cycle",
                    span=target.spans.get("contexts"),
                    exit_status=EXIT_USAGE,
                    hints=["a target cannot be a context of itself"],
                )
            if other not in self.definition.targets:
                error = self._no_target(other, path)
                error.span = target.spans.get("contexts")
                raise error
            if other not in targets:
                made = self.target(other)
                targets[other] = Target(other, {**made.values, "output": [{"type": "cacheonly"}]}, made.spans)
                targets[other].is_linked = True
            linked = targets[other]
            self._link(other, linked, targets, path)
            more = linked.get("entitlements") or []
            if more:
                target.values["entitlements"] = list(dict.fromkeys([*(target.get("entitlements") or []), *more]))
            self._check_platforms(target, linked)

    def _check_platforms(self, target: Target, linked: Target) -> None:
        ours, theirs = target.get("platforms") or [], linked.get("platforms") or []
        lacking = [platform for platform in ours if platform not in theirs]
        if len(ours) > 1 and len(theirs) > 1 and lacking:
            raise AerogelError(
                f"target `{target.name}` is built for `{lacking[0]}`, and its context `{linked.name}` is not",
                code="bake.link",
                span=target.spans.get("contexts"),
                exit_status=EXIT_USAGE,
                hints=[f"add the platform to target `{linked.name}`"],
            )


def _apply(target: Target, override: _Override) -> None:
    """All but lists, which are gathered first."""
    key, name, value = override.key, override.name, override.value or ""
    values = target.values
    if key == "secret" and name:
        _set_secret(target, override)
    elif key in _DOTTED and key != "secret":
        values[key] = {**(values.get(key) or {}), name: value}
    elif key in ("no-cache", "pull"):
        values[key] = _switch(override)
    elif FIELDS.get(key) == "text":
        values[key] = value


def _add_arrays(target: Target, overrides: Sequence[_Override]) -> None:
    """Lists: several `--set` of one key make the new list; `+=` and some keys add to the old one."""
    gathered: dict[str, list[_Override]] = {}
    for override in overrides:
        if FIELDS.get(override.key) in ("list", "entries") and not (override.key == "secret" and override.name):
            gathered.setdefault(override.key, []).append(override)
    for key, group in gathered.items():
        texts = [override.value or "" for override in group]
        is_added = any(override.is_added for override in group) or key in ("annotations", "attest", "entitlements")
        old = target.values.get(key) or []
        try:
            if key in ENTRIES:
                new = parse_entries(key, texts)
                target.values[key] = merge_entries(key, old if is_added else [], new)
            else:
                words = [part for text in texts for part in (text.split(",") if key == "platforms" else [text])]
                target.values[key] = [*(old if is_added else []), *words]
        except ValueFault as error:
            raise _bad_set(group[-1].text, str(error), "") from None


def _set_secret(target: Target, override: _Override) -> None:
    try:
        made = parse_entries("secret", [override.value])[0]
    except ValueFault as error:
        raise _bad_set(override.text, str(error), "") from None
    entries = target.values.get("secret") or []
    if not any(entry.get("id") == override.name for entry in entries):
        raise _bad_set(
            override.text, f"target `{target.name}` has no secret `{override.name}`", "declare it in the file"
        )
    target.values["secret"] = [
        {"id": override.name, **{key: made[key] for key in ("src", "env") if key in made}}
        if entry.get("id") == override.name
        else entry
        for entry in entries
    ]


def _set_output(target: Target, key: str, *, is_on: bool) -> None:
    """`--push` and `--load`: outputs that are images are pushed, and there is one for the local store."""
    old = target.values.get("output") or []
    if key == "push":
        if not is_on:
            made = [entry for entry in old if entry["type"] != "registry"]
            target.values["output"] = [
                {**entry, "push": "false"} if entry["type"] == "image" else entry for entry in made
            ]
            return
        made = [{**entry, "push": "true"} if entry["type"] == "image" else entry for entry in old]
        if not any(entry["type"] in ("image", "registry") for entry in made):
            made.append({"type": "image", "push": "true"})
    elif is_on:
        made = list(old)
        if not any(entry["type"] == "docker" and not entry.get("dest") for entry in made):
            made.append({"type": "docker"})
    else:
        made = [entry for entry in old if entry["type"] != "docker" or entry.get("dest")]
    target.values["output"] = made


def _switch(override: _Override) -> bool:
    try:
        return to_bool(override.value)
    except ValueFault as error:
        raise _bad_set(override.text, str(error), "") from None


def _bad_set(text: str, why: str, hint: str) -> AerogelError:
    return AerogelError(
        f"`--set {text}`: {why}",
        code="bake.bad-set",
        exit_status=EXIT_USAGE,
        hints=[hint or "`aerogel bake --print` shows what the files say"],
    )


def _listed(names: Any) -> str:
    found = sorted(names)
    return ", ".join(f"`{name}`" for name in found[:12]) + (" and others" if len(found) > 12 else "") or "none"
