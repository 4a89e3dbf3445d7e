"""From a recipe to a base image: choose packages, fetch them, compose, and say what came out.

For: the one call that a build makes when FROM names a built-in image. `select` is cheap and gives the key under which
a result may be kept; `compose_base` does the work and streams the layer into a writer. Not for: keeping the result.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aerogel.debian.control import Relation, relations
from aerogel.debian.index import PackageIndex
from aerogel.debian.package import Package
from aerogel.debian.resolve import Chosen, resolve
from aerogel.distroless import probe
from aerogel.distroless.apt import apt_files
from aerogel.distroless.closure import check_closure
from aerogel.distroless.compose import compose, nothing_beside
from aerogel.distroless.externals import External, externals_of, place_external
from aerogel.distroless.java import check_version, java_env, settled
from aerogel.distroless.layering import layered
from aerogel.distroless.layout import Item, Layout, write_layer
from aerogel.distroless.makers import wanted_makers
from aerogel.distroless.placing import place_paths
from aerogel.distroless.pool import LOCAL, Index, Origin, Pinned, Pool
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, Recipe
from aerogel.distroless.rules import SLIM, profile
from aerogel.distroless.underlay import Underlay, inherited
from aerogel.distroless.unpacked import Unpacked, newest_time, unpack
from aerogel.distroless.work import Bench
from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError, Diagnostic, nearest
from aerogel.events import Sink, StepLog, Warned
from aerogel.files.codec import LayerBlob, LayerWriter
from aerogel.files.index import LayerIndex
from aerogel.oci.digest import Digest
from aerogel.oci.edit import whole_history
from aerogel.oci.platform import Platform
from aerogel.oci.types import ContainerConfig, History, ImageConfig, RootFS, timestamp
from aerogel.sandbox.emulator import Emulator

if TYPE_CHECKING:  # what they import is not needed to find a result that is kept already
    from aerogel.sandbox.launch import Helper

__all__ = [
    "TOOL_SKIP",
    "ComposedBase",
    "Keep",
    "Selection",
    "ToolSets",
    "compose_base",
    "debian_architecture",
    "fetched_externals",
    "image_config",
    "make_bench",
    "python_of",
    "select",
    "select_tools",
    "selection_key",
    "suites",
]


TOOL_SKIP = (
    "awk",
    "mawk",
    "debconf",
    "debconf-2.0",
    "cdebconf",
    "openssl-provider-legacy",
    "readline-common",
    "perl-base",
    "perl",
    "dpkg",
)
"""What tools need for their installation only, which does not take place."""


class Selection(msgspec.Struct, frozen=True):
    """A recipe with the packages that it means today, dependencies first.

    `key` is the digest of all that decides the result: recipe, rules, architecture and the packages' digests.
    """

    recipe: Recipe
    platform: Platform
    arch: str
    chosen: tuple[Chosen, ...]
    key: Digest
    tools: dict[str, tuple[Chosen, ...]] = {}
    """What makers need to run on this machine, by maker."""
    underlay: Underlay | None = None
    """The image that it is laid on."""

    @property
    def packages(self) -> list[Package]:
        return [each.package for each in self.chosen]

    @property
    def summary(self) -> str:
        """`composed from debian trixie, 31 packages`."""
        number = len(self.chosen)
        on = f" on {self.recipe.underlay}" if self.recipe.underlay else ""
        return f"composed from debian {self.recipe.suite}, {number} package{'s' if number != 1 else ''}{on}"


class ComposedBase(msgspec.Struct, frozen=True):
    """The last layer of the image (its bytes went to the writer), its index, and the image's config.

    `lower` are the layers below, lowest first: most images have one layer.
    """

    blob: LayerBlob
    index: LayerIndex
    config: ImageConfig
    epoch: int
    """Newest time in any package, seconds since 1970; also the config's `created`."""
    summary: str
    lower: tuple[tuple[LayerBlob, LayerIndex], ...] = ()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(str(each) for each in self.config.rootfs.diff_ids)


Keep = Callable[[Callable[[LayerWriter], None]], LayerBlob]
"""Has a layer written by what it is called with, keeps and returns it."""


def suites(suite: str) -> tuple[str, ...]:
    """The suites that make up a release today: itself, its updates, its security fixes."""
    return suite, f"{suite}-updates", f"{suite}-security"


def select(
    recipe: Recipe,
    platform: Platform,
    archive: Origin,
    *,
    using: Sequence[str] = (),
    underlay: Underlay | None = None,
) -> Selection:
    """The packages for a recipe, by the archive's current indexes; downloads no package.

    `using` names other suites than those of the release, the first of which must have the architecture. What
    `underlay` has installed is not chosen.

    Raises `distroless.platform` for one that Debian does not have, `base.image-*` for an image that does not fit, and
    what `Archive` and `resolve` raise.
    """
    arch = debian_architecture(platform)
    _check_platform(recipe, platform)
    installed: tuple[Package, ...] = ()
    if underlay is not None:
        underlay.check(recipe)
        installed = underlay.packages(arch)
        _check_pins(recipe, installed)
    recipe = settled(recipe, arch, lambda: Emulator().may_run(str(platform)))
    wanted = using or recipe.suites or suites(recipe.suite)
    indexes = _indexes(recipe, archive, wanted, arch)
    check_version(recipe, arch, indexes, installed)
    names = [text for text in recipe.packages if not (group := relations(text)) or _applies(group[0][0], arch)]
    names += [f"{each.name} (= {each.version})" for index in indexes if index.suite == LOCAL for each in _all(index)]
    if recipe.kind == "buildroot":
        # debootstrap's `minbase`: `required` adds useradd, passwd and mount to what is essential.
        names += sorted({package.name for index in indexes for package in index.with_priority("required")})
    chosen = resolve(
        names,
        indexes,
        arch=arch,
        essential=recipe.kind == "buildroot",
        recommends=recipe.recommends,
        skip=recipe.skip,
        installed=installed,
    )
    tools = select_tools(recipe, archive, Platform.host(), using=using)
    for index in archive.indexes(wanted, recipe.components, arch):
        if isinstance(index, PackageIndex):  # what makers run needs the room
            index.rest()
    key = selection_key(recipe, arch, chosen, tools, underlay)
    return Selection(recipe, platform, arch, tuple(chosen), key, tools, underlay)


def _check_pins(recipe: Recipe, installed: Sequence[Package]) -> None:
    """Raises `base.pin` for a package of the image below that a pin does not fit."""
    for each in installed:
        pattern = recipe.pins.get(each.name)
        if pattern is not None and not fnmatch.fnmatchcase(each.version, pattern):
            raise AerogelError(
                f"the image `{recipe.underlay}` has {each.name} {each.version}, which does not fit the pin `{pattern}`",
                code="base.pin",
                hints=["what an image has is not replaced: take the pin back, or extend another image"],
            )


def _check_platform(recipe: Recipe, platform: Platform) -> None:
    """Some of a base's packages are for its own platforms only: on another one they would be missing."""
    known = [str(Platform.parse(each).normal()) for each in recipe.platforms]
    if known and str(platform.normal()) not in known:
        raise AerogelError(
            f"`{recipe.name}` is not made for `{platform}`",
            code="distroless.platform",
            hints=[f"platforms are {', '.join(known)}"],
            exit_status=EXIT_USAGE,
        )


def _indexes(recipe: Recipe, archive: Origin, wanted: Sequence[str], arch: str) -> list[Index]:
    found = archive.indexes(wanted, recipe.components, arch)
    missing = [name for name in recipe.pins if not any(index.named(name) for index in found)]
    if not recipe.pins or missing:
        return list(found)  # `resolve` says what is missing
    pinned: list[Index] = [Pinned(index, recipe.pins) for index in found]
    for name, pattern in recipe.pins.items():
        if not any(index.named(name) for index in pinned):
            known = sorted({each.version for index in found for each in index.named(name)})
            raise AerogelError(
                f"no version of `{name}` fits the pin `{pattern}`",
                code="base.pin",
                hints=[f"there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"],
            )
    return pinned


def _applies(relation: Relation, arch: str) -> bool:
    return relation.applies_to(arch)


def _all(index: Index) -> list[Package]:
    return [each for name in index.names() for each in index.named(name)]


ToolSets = dict[str, tuple[Chosen, ...]]
"""By maker."""


def select_tools(recipe: Recipe, archive: Origin, host: Platform, *, using: Sequence[str] = ()) -> ToolSets:
    """The closures of what the makers of a recipe run on a kind of machine, by the archive's current indexes.

    `using` as for `select`. Raises what `Archive` and `resolve` raise.
    """
    found: ToolSets = {}
    for maker in wanted_makers(recipe):
        if names := maker.tools(recipe):
            machine = debian_architecture(host)
            indexes = _indexes(recipe, archive, using or recipe.suites or suites(recipe.suite), machine)
            found[maker.name] = tuple(resolve(names, indexes, arch=machine, skip=(*TOOL_SKIP, *maker.skip)))
    return found


def selection_key(
    recipe: Recipe, arch: str, chosen: Sequence[Chosen], tools: ToolSets, underlay: Underlay | None = None
) -> Digest:
    """The digest of all that decides the result."""
    rules = (*profile(recipe.rules), SLIM) if recipe.slim else profile(recipe.rules)
    parts = [recipe.way, msgspec.json.encode(recipe), msgspec.json.encode(rules), arch.encode()]
    if recipe.kind == "buildroot":
        parts += [part for pair in sorted(apt_files(recipe.suite, slim=recipe.slim).items()) for part in pair]
    named = [_named(each.package) for each in chosen]
    parts += named if recipe.kind == "buildroot" else sorted(named)  # dpkg installs in their order
    parts += [msgspec.json.encode(each) for each in externals_of(recipe.archives, arch)]
    for maker in wanted_makers(recipe):
        parts.append(f"{maker.name} {maker.version}".encode())
    for name, packages in sorted(tools.items()):
        parts += [f"{name} build".encode(), *sorted(_named(each.package) for each in packages)]
    if underlay is not None:
        parts.append(underlay.digest.encode())
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return Digest(f"sha256:{hasher.hexdigest()}")


def _named(package: Package) -> bytes:
    """Which file it is, and what it is called: a lock says that, and files and layers go by it."""
    said = (package.digest, package.name, package.version, package.architecture)
    return msgspec.json.encode((*said, package.source, package.source_version))


def debian_architecture(platform: Platform) -> str:
    """Debian's name of a platform. Raises `distroless.platform`."""
    name = str(platform.normal())
    arch = DEBIAN_ARCHITECTURES.get(name)
    if arch is None:
        near = nearest(name, DEBIAN_ARCHITECTURES)
        raise AerogelError(
            f"no base image can be composed for `{name}`",
            code="distroless.platform",
            hints=[f"did you mean `{near}`?"] if near else [f"platforms are {', '.join(DEBIAN_ARCHITECTURES)}"],
        )
    return arch


def compose_base(
    selection: Selection,
    archive: Origin,
    writer: LayerWriter,
    *,
    cache: Path,
    helper_factory: Callable[[], Helper],
    scratch: Callable[[], str],
    sink: Sink,
    step: int = 0,
    read: Callable[[str], bytes] = nothing_beside,
    keep: Keep | None = None,
) -> ComposedBase:
    """Fetches the packages and writes the image's layer into `writer`, which is finished here.

    `cache` is the folder for unpacked packages (the archive's will do). `helper_factory` and `scratch` (a new empty
    directory on the state directory's file system, removed by the caller) are called for build roots and makers only.
    `read` gives the files beside the declaration. `keep` is called for each layer but the last with what writes it.
    Raises `distroless.foreign`, and what `Archive`, `compose` and `buildroot` raise; then `writer` is the caller's to abort.
    """
    recipe = selection.recipe
    below: list[tuple[LayerBlob, LayerIndex]] = []
    debs = archive.fetch_all(selection.packages, step=step)
    sink.emit(StepLog(step, b"unpacking the packages\n"))
    if recipe.kind == "buildroot":
        with ExitStack() as stack:
            taken = fetched_externals(recipe, selection.arch, archive)
            add = partial(_add_to_root, selection, taken, read, stack)
            index, epoch = _compose_root(selection, debs, writer, cache, helper_factory, scratch, sink, step, add)
    else:
        with unpack(selection.packages, debs, cache) as unpacked, ExitStack() as stack:
            sink.emit(StepLog(step, b"laying out the files\n"))
            taken = fetched_externals(recipe, selection.arch, archive)
            bench = make_bench(selection, archive, cache, stack, helper_factory, scratch, sink, step)
            composition = compose(recipe, unpacked, selection.arch, bench, read, taken, selection.underlay)
            check_closure(composition.layout, recipe, sink, selection.arch)
            sources = {each.name: each.source for each in selection.packages}
            *lower, last = layered(composition.items, sources, recipe.layers)
            below = [_lower(items, keep or _hashed) for items in lower]
            index, epoch = write_layer(last, writer.write), composition.epoch
    blob = writer.finish()
    diff_ids = (*(each.diff_id for each, _ in below), blob.diff_id)
    config = image_config(selection, tuple(map(Digest, diff_ids)), epoch)
    return ComposedBase(blob, index, config, epoch, selection.summary, tuple(below))


def _compose_root(
    selection: Selection,
    debs: Sequence[Path],
    writer: LayerWriter,
    cache: Path,
    helper_factory: Callable[[], Helper],
    scratch: Callable[[], str],
    sink: Sink,
    step: int,
    add: Callable[[Layout], None],
) -> tuple[LayerIndex, int]:
    """A build root: what dpkg needs is unpacked here, the rest only looked at."""
    from aerogel.distroless.buildroot import compose_buildroot, needed_first

    names = needed_first(selection.packages)
    pairs = list(zip(selection.packages, debs, strict=True))
    first = [pair for pair in pairs if pair[0].name in names]
    others = [pair for pair in pairs if pair[0].name not in names]
    epoch = newest_time([package for package, _ in others], [deb for _, deb in others], cache)
    with unpack([package for package, _ in first], [deb for _, deb in first], cache) as unpacked:
        sink.emit(StepLog(step, b"laying out the files\n"))
        with _foreign_named(selection):
            return compose_buildroot(
                selection.recipe,
                unpacked,
                debs,
                writer.write,
                epoch=epoch,
                helper=helper_factory(),
                scratch=scratch(),
                sink=sink,
                step=step,
                emulated=Emulator().prepare(helper_factory, str(selection.platform)),
                add=add,
            )


def _hashed(fill: Callable[[LayerWriter], None]) -> LayerBlob:
    """For a layer that nobody keeps."""
    with LayerWriter(None, None) as writer:
        fill(writer)
        return writer.finish()


def _lower(items: Sequence[Item], keep: Keep) -> tuple[LayerBlob, LayerIndex]:
    made: list[LayerIndex] = []

    def fill(writer: LayerWriter) -> None:
        made.append(write_layer(items, writer.write))

    return keep(fill), made[0]


def _add_to_root(
    selection: Selection,
    taken: Sequence[tuple[External, Path]],
    read: Callable[[str], bytes],
    stack: ExitStack,
    layout: Layout,
) -> None:
    """What a build root has besides packages."""
    recipe = selection.recipe
    for one, path in taken:
        place_external(layout, one, path, stack)
    if recipe.probe:
        layout.write(probe.PATH, probe.program(selection.arch), mode=0o755)
    place_paths(layout, recipe.paths, recipe.users, recipe.groups, read)


def fetched_externals(recipe: Recipe, arch: str, archive: Origin) -> list[tuple[External, Path]]:
    """What is in no apt archive, fetched."""
    python = python_of(recipe)
    wanted = externals_of(recipe.archives, arch)
    if wanted and not isinstance(archive, Pool):
        raise AerogelError(f"`{wanted[0].identity}` cannot be fetched here", code="base.unlocked")
    return [(one, archive.fetch_external(one, python=python)) for one in wanted if isinstance(archive, Pool)]


def python_of(recipe: Recipe) -> str:
    """The version of Python in the image, for which wheels are taken; Debian 13's if there is none."""
    found = [match[1] for name in recipe.packages if (match := _PYTHON.match(name))]
    return found[0] if found else "3.13"


_PYTHON = re.compile(r"(?:lib)?python(3\.[0-9]+)-")


def make_bench(
    selection: Selection,
    archive: Origin,
    cache: Path,
    stack: ExitStack,
    helper_factory: Callable[[], Helper],
    scratch: Callable[[], str],
    sink: Sink,
    step: int,
) -> Bench:
    """The means of makers: their tools fetched and unpacked, for as long as `stack` is open."""
    tools: dict[str, Sequence[Unpacked]] = {}
    for name, chosen in selection.tools.items():
        packages = [each.package for each in chosen]
        label = f"{len(packages)} packages for {name}"
        debs = archive.fetch_all(packages, step=step, label=label)
        tools[name] = stack.enter_context(unpack(packages, debs, cache))

    def tell(text: str) -> None:
        sink.emit(StepLog(step, f"{text}\n".encode()))

    def warn(what: Diagnostic) -> None:
        sink.emit(Warned(what))

    return Bench(helper_factory, scratch, selection.platform, tools, stack, cache, tell, warn)


@contextmanager
def _foreign_named(selection: Selection) -> Iterator[None]:
    """Says it plainly when a build root fails because the machine cannot run its programs."""
    try:
        yield
    except AerogelError as error:
        if error.code == "sandbox.no-emulation":
            name = selection.recipe.name
            error.message = f"`{name}` cannot be set up for `{selection.platform}` here: {error.message}"
            raise
        if not error.code.startswith("sandbox.") or Platform.host().matches(selection.platform):
            raise
        raise AerogelError(
            f"`{selection.recipe.name}` cannot be set up for `{selection.platform}` here: its own programs must run for that",
            code="distroless.foreign",
            detail=error.message,
            hints=["install `qemu-user-static`, with which the kernel runs programs of other architectures"],
            exit_status=EXIT_HOST,
        ) from None


def image_config(selection: Selection, diff_ids: tuple[Digest, ...], epoch: int) -> ImageConfig:
    """The config of the composed image; `created` is the time of its newest package."""
    recipe, platform = selection.recipe, selection.platform.normal()
    created = timestamp(epoch)
    history = (History(created=created, created_by=f"aerogel: {recipe.name}, {selection.summary}"),) * len(diff_ids)
    env = (*recipe.env, *java_env(recipe, selection.packages))
    if selection.underlay is not None:
        below = whole_history(selection.underlay.config)
        return msgspec.structs.replace(
            below,
            created=created,
            config=inherited(selection.underlay, recipe, env),
            rootfs=msgspec.structs.replace(below.rootfs, diff_ids=(*below.rootfs.diff_ids, *diff_ids)),
            history=(*below.history, *history),
        )
    return ImageConfig(
        created=created,
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        config=ContainerConfig(
            user=recipe.user,
            env=env,
            entrypoint=recipe.entrypoint,
            cmd=recipe.cmd,
            working_dir=recipe.workdir,
            labels=recipe.labels,
            stop_signal=recipe.stop_signal,
            volumes={each: {} for each in recipe.volumes},
            exposed_ports={each: {} for each in recipe.ports},
        ),
        rootfs=RootFS(diff_ids=diff_ids),
        history=history,
    )
