"""`aerogel base why`: what pulled a package into a base, or whose a file is."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from aerogel.commands.recipes import RecipeSource, open_recipe
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_FAILED, AerogelError, nearest
from aerogel.flag import Flag
from aerogel.oci.platform import Platform

if TYPE_CHECKING:
    from aerogel.distroless.underlay import Underlay

__all__ = ["EXAMPLES", "BaseWhy", "BaseWhyResult", "Reason", "run"]

EXAMPLES = (
    ("why a package is there", "aerogel base why python3 zlib1g"),
    ("which package has a library", "aerogel base why base.yaml libz.so.1"),
)


class BaseWhy(Struct, frozen=True, kw_only=True):
    """Tell what pulled a package, or the package of a file, into a base."""

    name: Annotated[
        str, Flag("A declaration or a built-in base, with `:TAG`", positional=True, metavar="BASE", complete="base")
    ]
    wanted: Annotated[
        str, Flag("A package, or a file by its name (`libz.so.1`) or path", positional=True, metavar="PACKAGE")
    ]
    platform: Annotated[str, Flag("Platform to look at", metavar="OS/ARCH")] = ""


class Reason(Struct, frozen=True, kw_only=True):
    """The chain from what is asked for to the package; of an image that the base extends, from its name.

    `path` is the file that was looked for, empty for a package; `package` is empty for a file of the image that is of none.
    """

    package: str
    version: str
    why: tuple[str, ...]
    path: str = ""


class BaseWhyResult(Result, frozen=True, kw_only=True):
    reasons: tuple[Reason, ...]

    def text(self) -> str:
        from aerogel.distroless.underlay import is_image

        lines = []
        for one in self.reasons:
            if one.path and not one.package:
                lines.append(f"{one.path} is of the image {one.why[0]}, and of no package")
                continue
            what = f"{one.path} is of {one.package} {one.version}" if one.path else f"{one.package} {one.version}"
            chain = (
                " has ".join(one.why) if one.why[0] != one.package and is_image(one.why[0]) else " needs ".join(one.why)
            )
            lines.append(f"{what}: {chain}" if len(one.why) > 1 else f"{what}: asked for by the base")
        return "\n".join(lines)


def run(options: BaseWhy, world: World) -> BaseWhyResult:
    """Selects the packages, or takes the lock's. Raises `base.not-there`, and what selecting raises."""
    source = open_recipe(options.name, world)
    platform = Platform.parse(options.platform or world.settings.platform or str(Platform.host()))
    pool = source.pool(source.archive(world), world)
    with source.placed():
        selection = source.select(platform, pool, world)
    found = [
        Reason(package=each.package.name, version=each.package.version, why=each.why)
        for each in selection.chosen
        if each.package.name == options.wanted
    ]
    underlay = selection.underlay
    there = underlay.packages(selection.arch) if underlay is not None else ()
    if underlay is not None:
        found += [
            Reason(package=each.name, version=each.version, why=(underlay.reference, each.name))
            for each in there
            if each.name == options.wanted
        ]
    if not found and ("." in options.wanted or "/" in options.wanted):
        found = _owners(options.wanted, source, world, platform)
    if not found:
        names = [each.name for each in (*there, *selection.packages)]
        near = nearest(options.wanted, names)
        raise AerogelError(
            f"`{options.wanted}` is not in `{source.recipe.name}`",
            code="base.not-there",
            hints=[f"did you mean `{near}`?"] if near else [f"packages are {', '.join(sorted(names))}"],
            exit_status=EXIT_FAILED,
        )
    return BaseWhyResult(reasons=tuple(found))


def _below(wanted: str, underlay: Underlay, arch: str) -> list[Reason]:
    """The files of the image that the base is laid on; those of no package are its own."""
    versions = {each.name: each.version for each in underlay.packages(arch)}
    found = []
    for path in underlay.items:
        name = "/" + path.decode("utf-8", "replace")
        if name.lstrip("/") == wanted.lstrip("/") or ("/" not in wanted and posixpath.basename(name) == wanted):
            owner = underlay.owner(path)
            why = (underlay.reference, owner) if owner else (underlay.reference,)
            found.append(Reason(package=owner, version=versions.get(owner, ""), why=why, path=name))
    return found


def _owners(wanted: str, source: RecipeSource, world: World, platform: Platform) -> list[Reason]:
    """The packages that ship a file, by its name or its path."""
    from aerogel.distroless.layout import merged_usr
    from aerogel.distroless.unpacked import unpack

    pool = source.pool(source.archive(world), world)
    selection = source.select(platform, pool, world)
    debs = pool.fetch_all(selection.packages)
    path = merged_usr(wanted.lstrip("/").encode())
    found = _below(wanted, selection.underlay, selection.arch) if selection.underlay is not None else []
    with unpack(selection.packages, debs, world.settings.cache / "debian-v1") as unpacked:
        for each, one in zip(selection.chosen, unpacked, strict=True):
            for entry, _ in one.entries:
                name = merged_usr(entry.path)
                if name == path or ("/" not in wanted and posixpath.basename(name) == path):
                    shown = "/" + name.decode("utf-8", "replace")
                    found.append(
                        Reason(package=each.package.name, version=each.package.version, why=each.why, path=shown)
                    )
    return found
