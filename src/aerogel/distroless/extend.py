"""Puts a declaration together with what it extends, and chooses release, profile and variant.

Order, later wins: the base's part before the one of what extends it, in each the part itself, then the one for the
release, then the one for the profile; after all of them the parts of the variant, base first, a variant that it
extends first. Only `run-as` and `workdir` of a declaration count more than those in a variant of its base. Texts, numbers and most lists are replaced; maps are joined; the lists named in
`declaration.APPENDED` grow; `without` takes inherited packages away, `unset` any inherited field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from aerogel.distroless.declaration import APPENDED, Accounts, Declaration, ImageSettings, PackageEntry, Part, Variant
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.oci.platform import Platform

__all__ = ["Family", "family", "forgotten", "merged"]

S = TypeVar("S", bound=msgspec.Struct)
_OWN = (("accounts", "run-as"), ("image", "workdir"))
"""Who runs, and where."""
_VARIANTS = ("variants",)
_OF_CONTAINER = (("accounts",), ("image",))
_OF_FAMILY = (("method",), ("platforms",))
"""Fields of a whole declaration that are inherited."""
_MAX_CHAIN = 20


def merged(base: S, over: S) -> S:
    """`over` on top of `base`; both of one type, fields that are None or empty say nothing."""
    changes: dict[str, Any] = {}
    for name in base.__struct_fields__:
        before, after = getattr(base, name), getattr(over, name)
        if after is None or (not after and isinstance(after, tuple | str)):
            continue
        if isinstance(after, msgspec.Struct) and isinstance(before, msgspec.Struct):
            changes[name] = merged(before, after)
        elif isinstance(after, dict) and isinstance(before, dict):
            changes[name] = before | after
        elif isinstance(after, tuple) and name in APPENDED:
            changes[name] = (*(one for one in before or () if one not in after), *after)
        else:
            changes[name] = after
    return msgspec.structs.replace(base, **changes) if changes else base


def forgotten(value: S, path: Sequence[str], above: tuple[str, ...] = ()) -> S:
    """A struct without what it says at a path of the text's names; there need be nothing. `above` leads to the struct.

    Raises `base.field` for a path that names no field.
    """
    encoded = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
    name = encoded.get(path[0]) if path else None
    if name is None:
        near = nearest(path[0], encoded) if path else None
        raise AerogelError(
            f"`unset` names `{'.'.join((*above, *path))}`, which is no field",
            code="base.field",
            hints=[f"did you mean `{near}`?"] if near else [f"known here: {', '.join(encoded)}"],
            exit_status=EXIT_USAGE,
        )
    inner, rest = getattr(value, name), path[1:]
    if rest and isinstance(inner, dict):
        key = rest[0]
        if len(rest) > 1 and isinstance(inner.get(key), msgspec.Struct):
            return msgspec.structs.replace(
                value, **{name: inner | {key: forgotten(inner[key], rest[1:], (*above, *path[:2]))}}
            )
        return msgspec.structs.replace(value, **{name: {one: what for one, what in inner.items() if one != key}})
    if rest and isinstance(inner, msgspec.Struct):
        return msgspec.structs.replace(value, **{name: forgotten(inner, rest, (*above, path[0]))})
    if rest:
        return value
    default = next(one.default for one in msgspec.structs.fields(value) if one.name == name)
    return msgspec.structs.replace(value, **{name: default})


class Family:
    """A declaration with all that it extends, the base of all first."""

    def __init__(self, chain: Sequence[Declaration]) -> None:
        self.chain = tuple(chain)
        self.declaration = chain[-1]
        self._variants: list[dict[str, Variant]] = []
        """Of each declaration of the chain, those that no later one removes."""
        for one in self.chain:
            self._remove(one)
            self._variants.append(dict(one.variants or {}))
        self.image = ""
        """The image of somebody that all is laid on, by its name; empty for none."""

    def _remove(self, one: Declaration) -> None:
        """Takes away the variants that a declaration has as `null`. Raises `base.variant` for one that is not there."""
        for path in one.unset:
            if path[:1] != _VARIANTS:
                continue
            known = self.variants
            if len(path) > 1 and path[1] not in known:
                near = nearest(path[1], known)
                raise AerogelError(
                    f"`{one.name}` removes the variant `{path[1]}`, which is not there",
                    code="base.variant",
                    hints=[f"did you mean `{near}`?"] if near else [f"variants are {', '.join(known) or 'none'}"],
                    exit_status=EXIT_USAGE,
                )
            for there in self._variants:
                for name in path[1:2] or known:
                    there.pop(name, None)

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def method(self) -> str:
        return self._last("method") or "files"

    @property
    def platforms(self) -> tuple[str, ...]:
        return self._last("platforms") or ()

    def platforms_of(self, release: str) -> tuple[str, ...]:
        """The platforms of the base that a release has: Debian 12 is not made for RISC-V."""
        parts = [one.releases[release] for one in self.chain if one.releases and release in one.releases]
        names = [{str(Platform.parse(name).normal()) for name in part.platforms} for part in parts if part.platforms]
        return tuple(
            one for one in self.platforms if all(str(Platform.parse(one).normal()) in known for known in names)
        )

    @property
    def releases(self) -> tuple[str, ...]:
        """Suites, the usual one first: those that the declaration states, else those of its base."""
        stated = [one.releases for one in self.chain if one.releases]
        return tuple(stated[-1]) if stated else ()

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self._variants for name in one))

    def _last(self, field: str) -> Any:
        for one in reversed(self.chain):
            if value := getattr(one, field):
                return value
            if (field,) in one.unset:
                return None
        return None

    def part(self, release: str, profile: str, variant: str, more: Part | None = None) -> Part:
        """Everything that counts for a choice; `more` is said last."""
        whole = Part()
        for one in self._parts(release, profile, variant):
            whole = _joined(whole, one)
        whole = self._own_user(whole, variant)
        return whole if more is None else _joined(whole, more)

    def forgets(self, release: str, profile: str, variant: str) -> tuple[tuple[str, ...], ...]:
        """The paths that are taken back of who runs, and how."""
        parts = self._parts(release, profile, variant)
        return tuple(dict.fromkeys(path for part in parts for path in part.unset if path[:1] in _OF_CONTAINER))

    def _own_user(self, whole: Part, variant: str) -> Part:
        """Who runs and where: what a declaration says itself counts more than the variants of what it extends."""
        names = self._variant_chain(variant)
        said: dict[tuple[str, str], str | None] = {}
        for one, variants in zip(self.chain, self._variants, strict=True):
            for part in (one, *(variants.get(name) for name in names)):
                if part is None:
                    continue
                said |= {field: None for field in _OWN if field in part.unset or field[:1] in part.unset}
                accounts, image = part.accounts, part.image
                said |= {_OWN[0]: accounts.run_as} if accounts and accounts.run_as else {}
                said |= {_OWN[1]: image.workdir} if image and image.workdir else {}
        for field, value in said.items():
            if value is None:
                whole = forgotten(whole, field)
            elif field == _OWN[0]:
                whole = merged(whole, Part(accounts=Accounts(run_as=value)))
            else:
                whole = merged(whole, Part(image=ImageSettings(workdir=value)))
        return whole

    def _parts(self, release: str, profile: str, variant: str) -> Iterator[Part]:
        for one in self.chain:
            yield one
            if one.releases and release in one.releases:
                yield one.releases[release]
            for label, part in (one.profiles or {}).items():
                if label == profile:
                    yield part
        for name in self._variant_chain(variant):
            yield from (one[name] for one in self._variants if name in one)

    def check_circles(self) -> None:
        """Raises `base.circle` for variants that extend each other, whichever is wanted."""
        for name in self.variants:
            try:
                self._variant_chain(name)
            except AerogelError as error:
                if error.code == "base.circle":  # others are told by who wants the variant
                    raise

    def _variant_chain(self, name: str) -> list[str]:
        found = [name]
        while True:
            bases = [one[found[0]].extends for one in self._variants if found[0] in one]
            base = next((each for each in reversed(bases) if each), None)
            if base is None:
                return found
            if base in found:
                circle = (*reversed(found[: found.index(base) + 1]), base)
                raise AerogelError(
                    f"variants extend each other in a circle: {' -> '.join(f'`{each}`' for each in circle)}",
                    code="base.circle",
                    exit_status=EXIT_USAGE,
                )
            if base not in self.variants:
                near = nearest(base, self.variants)
                raise AerogelError(
                    f"the variant `{found[0]}` of `{self.name}` extends `{base}`, which is not there",
                    code="base.variant",
                    hints=[f"did you mean `{near}`?"] if near else [f"variants are {', '.join(self.variants)}"],
                    exit_status=EXIT_USAGE,
                )
            found.insert(0, base)


def _joined(base: Part, over: Part) -> Part:
    names = set(over.without)
    if names:
        kept = tuple(one for one in base.packages if _called(one) not in names)
        base = msgspec.structs.replace(base, packages=kept)
    for path in over.unset:
        if path not in _OF_FAMILY and path[:1] != _VARIANTS:
            base = forgotten(base, path)
    return msgspec.structs.replace(merged(base, _plain(over)), unset=())


def _called(entry: str | PackageEntry) -> str:
    if isinstance(entry, str):
        return entry.partition(" ")[0]
    return (entry.name or entry.deb or entry.url or entry.pypi or entry.npm or "").partition(" ")[0]


def _plain(part: Part) -> Part:
    """The part of a declaration or a variant without what else those say."""
    if type(part) is Part:
        return part
    return Part(**{name: getattr(part, name) for name in Part.__struct_fields__})


def family(declaration: Declaration, find: Callable[[str, Declaration], Declaration]) -> Family:
    """A declaration and its bases; `find` gives the one that `extends` names.

    Raises `base.circle`, and what `find` raises.
    """
    chain = [declaration]
    while chain[0].extends is not None:
        base = find(chain[0].extends, chain[0])
        if len(chain) > _MAX_CHAIN or any(one is base or one == base for one in chain):
            names = " -> ".join(f"`{one.name}`" for one in (*reversed(chain), base))
            raise AerogelError(
                f"declarations extend each other in a circle: {names}", code="base.circle", exit_status=EXIT_USAGE
            )
        chain.insert(0, base)
    return Family(chain)
