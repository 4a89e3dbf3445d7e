"""`aerogel base vendor`: copies everything that a lock names into a folder, so that it can be built for ever."""

from __future__ import annotations

import filecmp
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

from msgspec import Struct

from aerogel.commands.recipes import locked_image, open_recipe, vendor_path
from aerogel.commands.result import Result
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.events import step
from aerogel.flag import Flag

__all__ = ["EXAMPLES", "BaseVendor", "BaseVendorResult", "run"]

EXAMPLES = (("into `vendor` beside the lock", "aerogel base vendor base.yaml"),)


class BaseVendor(Struct, frozen=True, kw_only=True):
    """Copy the packages of a lock into a folder, and the image that it extends.

    A build looks into the folder `vendor` beside a lock before it asks a mirror: with all packages there it needs no
    network.
    """

    name: Annotated[str, Flag("A declaration with a lock", positional=True, metavar="BASE", complete="file")] = (
        "base.yaml"
    )
    output: Annotated[str, Flag("Another folder", short="o", metavar="FOLDER", complete="directory")] = ""


class BaseVendorResult(Result, frozen=True, kw_only=True):
    """`size` is bytes."""

    folder: str
    files: int
    size: int

    def text(self) -> str:
        return f"{self.folder}: {self.files} files, {self.size / 1e6:.1f} MB"


def run(options: BaseVendor, world: World) -> BaseVendorResult:
    """Fetches and copies. Raises `base.*`, `debian.*`, `net.*`."""
    from aerogel.commands.underlays import vendor_image
    from aerogel.distroless.base import debian_architecture, python_of
    from aerogel.distroless.externals import externals_of
    from aerogel.distroless.lock import members
    from aerogel.distroless.pool import LOCAL
    from aerogel.oci.image import walk
    from aerogel.oci.platform import Platform
    from aerogel.store.disk import disk_errors, write_whole

    source = open_recipe(options.name, world, must_be_locked=True)
    if source.lock is None or source.declared is None:
        raise AerogelError(
            f"`{options.name}` has no lock",
            code="base.locked",
            hints=["write a declaration that `extends` it, and lock that"],
            exit_status=EXIT_USAGE,
        )
    source.mends_vendored = True
    folder = Path(options.output) if options.output else Path(vendor_path(source.path))
    target = world.settings.directory / folder if options.output else source.declared.beside.path(str(folder))
    with disk_errors(str(target)):
        target.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Path] = {}
    blobs: dict[str, int] = {}
    number = world.take_numbers()
    with step(world.sink, number, f"vendoring {source.choice.family.name}"), source.placed():
        pool = source.pool(source.archive(world, number=number), world)
        for name in dict.fromkeys((*source.lock.platforms, *source.lock.hosts)):
            packages = [each.chosen().package for each in members(source.lock, name).values() if each.suite != LOCAL]
            if not packages:
                continue
            label = f"{len(packages)} packages for {name}"
            for package, path in zip(packages, pool.fetch_all(packages, step=number, label=label), strict=True):
                name_there = os.path.basename(package.filename)
                is_taken = wanted.setdefault(name_there, path) != path  # two archives have one name for two files
                wanted |= {f"{package.sha256}.deb": path} if is_taken else {}
        for name in source.lock.platforms:
            platform = Platform.parse(name)
            if locked_image(source.lock, platform) is not None:
                found = source.image(platform, world)
                vendor_image(found, target, world.store)
                blobs |= {each.digest: each.size for each in walk(found.image.descriptor, world.store.blobs)}
            arch = debian_architecture(platform)
            recipe = source.locked_recipe(name, arch)
            for one in externals_of(recipe.archives, arch):
                path = pool.fetch_external(one, python=python_of(recipe))
                wanted[path.name] = path
        for name, path in wanted.items():
            if not _is_same(target / name, path):
                write_whole(target / name, partial(_copy, path))
    size = sum(path.stat().st_size for path in wanted.values()) + sum(blobs.values())
    return BaseVendorResult(folder=str(folder), files=len(wanted) + len(blobs), size=size)


def _is_same(one: Path, other: Path) -> bool:
    """Whether a file is there already, byte for byte: a build would refuse another one."""
    return one.is_file() and filecmp.cmp(one, other, shallow=False)


def _copy(path: Path, out: BinaryIO) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, out, 1 << 20)
