"""Makes locks of bases: what every tag means on every platform today, composed once to know what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from aerogel.commands.keeping import Keeping
from aerogel.commands.recipes import RecipeSource, lock_path, locked_image, scratch_folders
from aerogel.commands.world import World
from aerogel.debian.archive import Archive
from aerogel.distroless.base import (
    Selection,
    compose_base,
    debian_architecture,
    image_config,
    python_of,
    select,
    select_tools,
)
from aerogel.distroless.externals import externals_of
from aerogel.distroless.java import wants_java
from aerogel.distroless.libraries import Means, with_libraries
from aerogel.distroless.lock import (
    SCHEMA,
    Lock,
    LockedArchive,
    LockedImage,
    LockedPackage,
    LockedPlatform,
    LockedSuite,
    LockedTools,
    LockedUnderlay,
    composer,
    config_digest,
    parse_lock,
    recipes_digest,
    with_archives,
)
from aerogel.distroless.makers import wanted_makers
from aerogel.distroless.pool import LOCAL, Pool
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.underlay import Underlay
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, Source
from aerogel.events import step
from aerogel.files.codec import LayerWriter
from aerogel.oci.digest import Digest
from aerogel.oci.platform import Platform

__all__ = ["HOSTS", "hosts_of", "lock_file", "make_lock", "platforms_of", "read_lock", "write_lock"]

HOSTS = ("linux/amd64", "linux/arm64")
"""Kinds of machine that a lock has makers' tools for, besides that of the machine which makes it."""

_OF_CONFIG = (
    "name",
    "env",
    "entrypoint",
    "cmd",
    "user",
    "workdir",
    "labels",
    "stop_signal",
    "volumes",
    "ports",
    "tests",
    "forgets",
)
"""Fields of a recipe that no layer depends on."""


def read_lock(path: Path, name: str, words: str = "aerogel base lock") -> Lock:
    """`words` is the command that makes it. Raises `base.lock`, `base.no-file`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AerogelError(
            f"`{name}` cannot be read: {(error.strerror or str(error)).lower()}",
            code="base.no-file",
            hints=[f"make a lock: `{words}`"],
            exit_status=EXIT_USAGE,
        ) from None
    return parse_lock(Source(name, data))


def write_lock(path: Path, lock: Lock) -> None:
    """Writes the file whole: under another name, then renamed."""
    from aerogel.store.disk import write_whole

    write_whole(path, lambda file: file.write(lock.encode()))


def platforms_of(source: RecipeSource, text: str, known: Lock | None, world: World) -> list[Platform]:
    """Platforms to lock: those asked for (`all`: those of the base), else those of the lock, else the host's."""
    if text == "all":
        return source.platforms(world)
    if text:
        return list(dict.fromkeys(Platform.parse(each) for each in text.split(",") if each.strip()))
    if known is not None:
        return [Platform.parse(each) for each in known.platforms]
    return [Platform.host()]


def hosts_of(text: str, known: Lock | None) -> list[str]:
    """Kinds of machine that are to compose: those asked for, else those of the lock, else `HOSTS` and this one."""
    asked = [str(Platform.parse(each).normal()) for each in text.split(",") if each.strip()]
    return list(dict.fromkeys(asked or (known.hosts if known else ()) or (*HOSTS, str(Platform.host().normal()))))


def make_lock(
    source: RecipeSource,
    platforms: Sequence[Platform],
    world: World,
    *,
    hosts: Sequence[str] = HOSTS,
    must_have_hosts: bool = False,
    refresh: bool = False,
    suites: Sequence[str] = (),
    keep: Lock | None = None,
) -> Lock:
    """Chooses, fetches and composes everything. `suites` takes the place of the release's own.

    `hosts` are the kinds of machine that must find their tools in it; one that Debian or another archive has not got
    is left out with a warning, unless `must_have_hosts`.

    With `keep` a package moves on only if a package of its source is in the security archive, and all else stays as
    that lock has it. Raises what composing raises.
    """
    archive = source.archive(world, refresh=refresh)
    recipes = source.all_recipes()
    files = source.files()
    keeping = Keeping(keep)
    while True:
        made: dict[str, LockedPlatform] = {}
        seen: dict[str, LockedSuite] = {}
        for platform in platforms:
            number = world.take_numbers()
            with step(world.sink, number, f"locking {source.choice.family.name} for {platform}"), source.placed():
                made[str(platform.normal())] = _platform(
                    source, recipes, platform, archive, world, number,
                    suites=suites, keep=keeping, seen=seen, refresh=refresh,
                )  # fmt: skip
        if keeping.is_settled(world):
            break
    tools = _hosts(source, recipes, hosts, archive, world, suites=suites, must=must_have_hosts, keep=keeping)
    return Lock(
        schema=SCHEMA,
        composer=composer(),
        declaration=recipes_digest(recipes),
        files=files or msgspec.UNSET,
        name=source.choice.family.name,
        suites=dict(sorted(seen.items())),
        hosts=tools,
        platforms=made,
    )


def _hosts(
    source: RecipeSource,
    recipes: Mapping[str, Recipe],
    hosts: Sequence[str],
    archive: Archive,
    world: World,
    *,
    suites: Sequence[str],
    must: bool,
    keep: Keeping,
) -> dict[str, LockedTools]:
    """The makers' tools of all tags, for every kind of machine."""
    found: dict[str, LockedTools] = {}
    versions: dict[str, set[str]] = {}
    for host in hosts:
        tools: dict[str, dict[str, LockedPackage]] = {}
        try:
            with source.placed():
                for recipe in recipes.values():
                    for maker, found_here in _tools_of(source, recipe, host, archive, world, suites, keep).items():
                        tools.setdefault(maker, {}).update({each.name: each for each in found_here})
        except AerogelError as error:
            if must or host == str(Platform.host().normal()):
                raise
            message = f"machines of `{host}` will not be able to compose by this lock: {error.message}"
            world.warn_once(Diagnostic(message, code="base.host", hints=list(error.hints)))
            continue
        found[host] = {maker: tuple(members.values()) for maker, members in tools.items()}
        asked = {each for members in tools.values() for each in members.values() if len(each.why) == 1}
        for each in asked:
            versions.setdefault(each.name, set()).add(each.version.partition("+b")[0])
    for name, several in sorted(versions.items()):
        if len(several) > 1:
            message = (
                f"`{name}`, which makes files, is not of one version for all machines: {', '.join(sorted(several))}"
            )
            hints = ["the mirror is between two updates: lock again later, or for one kind with `--hosts`"]
            world.warn_once(Diagnostic(message, code="base.host", hints=hints))
    return found


def _tools_of(
    source: RecipeSource,
    recipe: Recipe,
    host: str,
    archive: Archive,
    world: World,
    suites: Sequence[str],
    keep: Keeping,
) -> LockedTools:
    """By maker what a kind of machine needs for a recipe: what is kept, else what Debian has today."""
    wanted = [maker.name for maker in wanted_makers(recipe) if maker.tools(recipe)]
    kept = {name: tools for name in wanted if (tools := keep.tools(host, name)) is not None}
    if len(kept) == len(wanted):
        return kept
    pool = source.pool(archive, world, recipe=recipe)
    today = select_tools(recipe, pool, Platform.parse(host), using=suites)
    return {name: tuple(map(LockedPackage.of, chosen)) for name, chosen in today.items()} | kept


def _platform(
    source: RecipeSource,
    recipes: Mapping[str, Recipe],
    platform: Platform,
    archive: Archive,
    world: World,
    number: int,
    *,
    suites: Sequence[str],
    keep: Keeping,
    seen: dict[str, LockedSuite],
    refresh: bool,
) -> LockedPlatform:
    arch = debian_architecture(platform)
    locked = locked_image(keep.lock, platform) if keep.lock is not None else None
    underlay = source.underlay(platform, world, locked=locked, refresh=refresh)
    packages: dict[str, LockedPackage] = {}
    archives: dict[str, LockedArchive] = {}
    images: dict[str, LockedImage] = {}
    layers: dict[bytes, tuple[tuple[str, ...], int]] = {}
    for tag, bare in recipes.items():
        pool = source.pool(archive, world, recipe=bare)
        digests = _fetch_externals(bare, arch, pool, archives)
        recipe = with_archives(bare, externals_of(bare.archives, arch), digests)
        with scratch_folders(world) as scratch:
            selection = with_libraries(
                select(recipe, platform, pool, using=suites, underlay=underlay),
                pool,
                world.settings.cache / "debian-v1",
                Means(world.helper, scratch, world.sink, source.read),
                using=suites,
                step=number,
            )
        source.check_slices(selection, world)
        selection = keep.selection(selection, tag, pool, world)
        _note_suites(selection, archive, pool, seen)
        packages |= {each.package.name: LockedPackage.of(each) for each in selection.chosen}
        selection = _with_classes(selection)
        layer = msgspec.json.encode((_layer_part(selection.recipe), [each.digest for each in selection.packages]))
        if layer not in layers:
            layers[layer] = _composed(source, selection, pool, world, number)
        diff_ids, epoch = layers[layer]
        names = tuple(each.package.name for each in selection.chosen)
        classes = selection.recipe.java.cds if wants_java(selection.recipe) and selection.recipe.java else None
        own = diff_ids[len(underlay.config.rootfs.diff_ids) :] if underlay is not None else diff_ids
        config = config_digest(image_config(selection, tuple(map(Digest, own)), epoch))
        images[tag] = LockedImage(packages=names, layers=diff_ids, config=config, created=epoch, classes=classes)
    return LockedPlatform(
        image=_locked(underlay, arch) if underlay is not None else msgspec.UNSET,
        packages=tuple(packages.values()),
        archives=tuple(archives.values()),
        images=images,
    )


def _locked(underlay: Underlay, arch: str) -> LockedUnderlay:
    return LockedUnderlay(
        reference=underlay.reference,
        digest=underlay.digest,
        index=underlay.index if underlay.index != underlay.digest else msgspec.UNSET,
        packages={each.name: each.version for each in underlay.packages(arch)},
    )


def _with_classes(selection: Selection) -> Selection:
    """With it said that the archive of Java's classes must be made, unless it is known that it is not."""
    java = selection.recipe.java
    if java is None or java.version is None or java.cds is not None or selection.recipe.rules != "micro":
        return selection
    recipe = msgspec.structs.replace(selection.recipe, java=msgspec.structs.replace(java, cds=True))
    return msgspec.structs.replace(selection, recipe=recipe)


def _layer_part(recipe: Recipe) -> Recipe:
    empty = Recipe(name="", suite="", packages=())
    return msgspec.structs.replace(recipe, **{field: getattr(empty, field) for field in _OF_CONFIG})


def _fetch_externals(recipe: Recipe, arch: str, pool: Pool, archives: dict[str, LockedArchive]) -> dict[str, str]:
    """Digests by identity; what is fetched here is in the cache afterwards."""
    for one in externals_of(recipe.archives, arch):
        if one.identity not in archives:
            assert pool.fetcher is not None  # a pool of a recipe source has one
            digest = pool.fetcher.fetch(one, python=python_of(recipe), may_be_new=True)[1]
            archives[one.identity] = LockedArchive(name=one.identity, sha256=digest, purl=one.purl)
    return {name: each.sha256 for name, each in archives.items()}


def _note_suites(selection: Selection, archive: Archive, pool: Pool, seen: dict[str, LockedSuite]) -> None:
    for suite in sorted({each.package.suite for each in selection.chosen} - {LOCAL}):
        if suite not in seen:
            release = pool.release(suite) if ":" in suite else archive.release(suite)
            seen[suite] = LockedSuite(in_release=release.sha256, date=release.date, signers=release.signers)


def _composed(
    source: RecipeSource, selection: Selection, pool: Pool, world: World, number: int
) -> tuple[tuple[str, ...], int]:
    """The diff ids of the layers, and their time."""
    with scratch_folders(world) as scratch, LayerWriter(None, None) as writer:
        composed = compose_base(
            selection,
            pool,
            writer,
            cache=world.settings.cache / "debian-v1",
            helper_factory=world.helper,
            scratch=scratch,
            sink=world.sink,
            step=number,
            read=source.read,
        )
    return composed.diff_ids, composed.epoch


def lock_file(source: RecipeSource, given: str, world: World) -> Path:
    """Where the lock of a base is: as asked, beside its declaration, or `NAME.lock.json` here for a built-in one."""
    if given:
        return world.settings.directory / given
    if source.declared is not None:
        return source.declared.beside.path(lock_path(source.path))
    return world.settings.directory / f"{source.choice.family.name}.lock.json"
