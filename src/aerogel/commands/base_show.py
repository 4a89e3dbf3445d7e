"""`aerogel base show`: what a base is, everything inherited put in; its file rules; the packages it means today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Struct

from aerogel.commands.format import columns
from aerogel.commands.recipes import known_tags, open_recipe
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.distroless.recipe import Recipe
from aerogel.flag import Flag
from aerogel.net.proxy import redact

if TYPE_CHECKING:
    from aerogel.debian.resolve import Chosen
    from aerogel.distroless.base import Selection

__all__ = ["EXAMPLES", "BaseShow", "BaseShowResult", "ShownPackage", "ShownRule", "run", "text"]

EXAMPLES = (
    ("what is said of a base", "aerogel base show python3"),
    ("which files of packages stay, and why", "aerogel base show --rules gcr.io/distroless/cc"),
    ("the packages of today", "aerogel base show --packages ./base.yaml:nonroot"),
)


class BaseShow(Struct, frozen=True, kw_only=True):
    """Show what a base image is made of."""

    name: Annotated[
        str, Flag("A built-in base or a declaration, with `:TAG`", positional=True, metavar="BASE", complete="base")
    ]
    rules: Annotated[bool, Flag("Show the rules that decide which files stay")] = False
    packages: Annotated[bool, Flag("Show the packages that it means today, or by its lock")] = False
    platform: Annotated[str, Flag("Platform for `--packages`", metavar="OS/ARCH")] = ""


class ShownRule(Struct, frozen=True, kw_only=True):
    """A file rule. Patterns are absolute paths; empty `packages` means all."""

    name: str
    why: str
    packages: tuple[str, ...]
    drop: tuple[str, ...]
    keep: tuple[str, ...]


class ShownPackage(Struct, frozen=True, kw_only=True):
    """A package, and the chain from what is asked for to it. `size` is bytes of the .deb.

    Of an image that the base extends, the suite is `image`, and the chain begins with its name.
    """

    name: str
    version: str
    arch: str
    suite: str
    size: int
    why: tuple[str, ...]


class BaseShowResult(Result, frozen=True, kw_only=True):
    """`recipe` is the declaration with everything inherited and chosen; tags are those that FROM may say."""

    name: str
    tags: tuple[str, ...]
    recipe: dict[str, Any]
    rules: tuple[ShownRule, ...] = ()
    packages: tuple[ShownPackage, ...] = ()


def _without_secrets(recipe: Recipe) -> Recipe:
    """Addresses may have a password or a token in them."""
    replace = msgspec.structs.replace
    return replace(
        recipe,
        repositories=tuple(replace(each, uri=redact(each.uri)) for each in recipe.repositories),
        archives=tuple(replace(each, url=redact(each.url)) if each.url else each for each in recipe.archives),
    )


def run(options: BaseShow, world: World) -> BaseShowResult:
    """Reads the declaration. Raises `base.*`, `distroless.unknown-image`; with `--packages` what selecting raises."""
    source = open_recipe(options.name, world)
    packages: tuple[ShownPackage, ...] = ()
    if options.packages:
        from aerogel.oci.platform import Platform

        wanted = options.platform or world.settings.platform or str(Platform.host())
        archive = source.archive(world)
        with source.placed():
            selection = source.select(Platform.parse(wanted), source.pool(archive, world), world)
        packages = tuple(
            ShownPackage(
                name=each.package.name,
                version=each.package.version,
                arch=each.package.architecture,
                suite=each.package.suite,
                size=each.package.size,
                why=each.why,
            )
            for each in (*_installed(selection), *selection.chosen)
        )
    return BaseShowResult(
        name=source.recipe.name,
        tags=tuple(known_tags(source)),
        recipe=msgspec.to_builtins(_without_secrets(source.recipe)),
        rules=_rules(source.recipe.rules, source.recipe.slices) if options.rules else (),
        packages=packages,
    )


def _installed(selection: Selection) -> list[Chosen]:
    """What the image has that the base is laid on, because of its name."""
    from aerogel.debian.resolve import Chosen

    underlay = selection.underlay
    if underlay is None:
        return []
    return [Chosen(one, (underlay.reference, one.name)) for one in underlay.packages(selection.arch)]


def _rules(profile_name: str, slices: dict[str, Any]) -> tuple[ShownRule, ...]:
    from aerogel.distroless.rules import LICENCES, profile

    found = [
        ShownRule(name=one.name, why=one.why, packages=one.packages, drop=one.drop, keep=one.keep)
        for one in profile(profile_name)
    ]
    if profile_name == "micro":
        why = "licence texts that no copyright file of the image refers to"
        folder = "/usr/share/common-licenses/*"
        found.append(ShownRule(name=LICENCES, why=why, packages=("base-files",), drop=(folder,), keep=()))
    found += [
        ShownRule(name="declared", why=one.why, packages=(package,), drop=one.drop, keep=one.keep)
        for package, one in slices.items()
    ]
    return tuple(found)


def text(options: BaseShow, result: BaseShowResult) -> str:
    """For people: the facts one a line, or the table that was asked for."""
    if options.rules:
        blocks = []
        for rule in result.rules:
            lines = [f"{rule.name}: {rule.why}"]
            lines += [f"  in    {', '.join(rule.packages)}"] if rule.packages else []
            lines += [f"  drop  {path}" for path in rule.drop] + [f"  keep  {path}" for path in rule.keep]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)
    if options.packages:
        rows = [[one.name, one.version, one.suite, " <- ".join(reversed(one.why[:-1]))] for one in result.packages]
        return columns(["PACKAGE", "VERSION", "FROM", "BECAUSE OF"], rows)
    lines = [f"name: {result.name}", f"tags: {', '.join(result.tags)}"]
    for key, value in result.recipe.items():
        if key in ("name", "inputs"):
            continue
        lines += _shown(key.replace("_", "-"), value)
    return "\n".join(lines)


def _shown(name: str, value: Any) -> list[str]:
    """A field: one line, or for a list of maps one more for each of them."""
    if isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
        return [f"{name}:", *(f"  - {_flat(each)}" for each in value)]
    return [f"{name}: {_flat(value)}"]


def _flat(value: Any) -> str:
    """As it would stand in YAML, without the brackets; empty fields of maps are left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_inner(each)}" for key, each in value.items() if each not in (None, "", (), [], {}))
    if isinstance(value, list | tuple):
        return ", ".join(map(_inner, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _inner(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{_flat(value)}}}"
    return f"[{_flat(value)}]" if isinstance(value, list | tuple) else _flat(value)
