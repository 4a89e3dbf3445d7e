"""`base.lock.json`: exactly which packages a declaration means, for every platform and tag, and what must come out.

Made by `aerogel base lock`, read by every build of the declaration beside it. It names packages by digest and by their
path in the archive; it has no address of a mirror, and nothing that differs from machine to machine.

A lock counts for the declaration it was made from: the digest of all recipes is in it, so a changed declaration is
noticed. `layers` are the diff ids that came out when it was made and `config` the digest of the base's config, with
`composer`, the version of the rules of composition: an aerogel that composes otherwise says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from aerogel.debian import version as versions
from aerogel.debian.package import Package
from aerogel.debian.resolve import Chosen
from aerogel.decoding import prepare
from aerogel.distroless.base import Selection, ToolSets, selection_key
from aerogel.distroless.declaration import END
from aerogel.distroless.externals import External
from aerogel.distroless.makers import wanted_makers
from aerogel.distroless.recipe import COMPOSE_VERSION, Recipe
from aerogel.distroless.underlay import Underlay
from aerogel.errors import EXIT_HOST, EXIT_USAGE, AerogelError, Source
from aerogel.oci.digest import PATTERN, Digest, is_digest
from aerogel.oci.platform import Platform
from aerogel.oci.types import ImageConfig, encode

__all__ = [
    "SCHEMA",
    "Change",
    "Lock",
    "LockedArchive",
    "LockedImage",
    "LockedPackage",
    "LockedPlatform",
    "LockedSuite",
    "LockedTools",
    "LockedUnderlay",
    "changes",
    "composer",
    "config_digest",
    "kept_tools",
    "locked_packages",
    "locked_selection",
    "members",
    "parse_lock",
    "recipes_digest",
    "with_archives",
]

SCHEMA = "aerogel/base-lock/v2"

Sha256 = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{END}")]
"""A digest names files of the cache: nothing else may stand in its place."""
PackageName = Annotated[str, Meta(pattern=rf"^[a-z0-9][a-z0-9+.-]*{END}")]
"""A name is that of a file in the image."""
FilePath = Annotated[str, Meta(pattern=rf"(?:^|/)(?!\.\.?{END})[^/\x00-\x1f]+{END}")]
"""Its last part is that of a file in a folder of vendored packages."""
DiffId = Annotated[str, Meta(pattern=rf"^sha256:[0-9a-f]{{64}}{END}")]
Chain = Annotated[tuple[str, ...], Meta(min_length=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    pass


class LockedSuite(_Struct, frozen=True, kw_only=True):
    """A signed `InRelease` that packages were chosen from. `date` is seconds since 1970."""

    in_release: Sha256
    date: int
    signers: tuple[str, ...]


class LockedPackage(_Struct, frozen=True, kw_only=True):
    """A .deb. `path` is relative to the archive's root, `why` leads from what is asked for to the package."""

    name: PackageName
    version: str
    arch: str
    source: str
    source_version: str
    suite: str
    path: FilePath
    sha256: Sha256
    size: Annotated[int, Meta(ge=0)]
    why: Chain

    @classmethod
    def of(cls, chosen: Chosen) -> LockedPackage:
        one = chosen.package
        return cls(
            name=one.name,
            version=one.version,
            arch=one.architecture,
            source=one.source,
            source_version=one.source_version,
            suite=one.suite,
            path=one.filename,
            sha256=one.sha256,
            size=one.size,
            why=chosen.why,
        )

    def chosen(self) -> Chosen:
        package = Package(
            name=self.name,
            version=self.version,
            architecture=self.arch,
            filename=self.path,
            size=self.size,
            sha256=self.sha256,
            source=self.source,
            source_version=self.source_version,
            suite=self.suite,
        )
        return Chosen(package, self.why)


class LockedArchive(_Struct, frozen=True, kw_only=True):
    """A file that is no package of an apt archive; `name` is `kind:name@version`, never an address."""

    name: str
    sha256: Sha256
    purl: str = ""


class LockedImage(_Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one tag is on one platform: names in the platform's `packages`, and the layers that came out.

    `config` is the digest of its config (older locks have none); `created` the time of the newest package, seconds since
    1970; `classes` says of a linked Java whether it has the
    archive of its classes, for which somebody must be able to run it.
    """

    packages: tuple[str, ...]
    layers: tuple[DiffId, ...]
    config: DiffId | msgspec.UnsetType = msgspec.UNSET
    created: Annotated[int, Meta(ge=0)]
    classes: bool | None = None

    def matches(self, layers: Sequence[str], config: str) -> bool:
        return self.layers == tuple(layers) and self.config in (config, msgspec.UNSET)


class LockedUnderlay(_Struct, frozen=True, kw_only=True):
    """The image that all is laid on. `digest` is that of its manifest, `index` of what the name meant if that is another;
    `packages` are those it has, with versions.
    """

    reference: str
    digest: Annotated[Digest, msgspec.Meta(pattern=PATTERN)]
    index: Annotated[Digest, msgspec.Meta(pattern=PATTERN)] | msgspec.UnsetType = msgspec.UNSET
    packages: dict[str, str]


class LockedPlatform(_Struct, frozen=True, kw_only=True):
    """One platform of the images."""

    image: LockedUnderlay | msgspec.UnsetType = msgspec.UNSET
    packages: tuple[LockedPackage, ...]
    archives: tuple[LockedArchive, ...] = ()
    images: dict[str, LockedImage]


LockedTools = dict[str, tuple[LockedPackage, ...]]
"""What makes files and is in no image, by maker."""


class Lock(_Struct, frozen=True, kw_only=True):
    """The whole file. `files` are the SHA-256 of those that the declaration names, relative to its folder, if any; `hosts` the
    kinds of machine that can compose, each with tools of its own architecture.
    """

    schema: str
    composer: str
    declaration: str
    files: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    name: str
    suites: dict[str, LockedSuite]
    hosts: dict[str, LockedTools]
    platforms: dict[str, LockedPlatform]

    def encode(self) -> bytes:
        """The text of the file: sorted keys, so that a difference is what changed."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()


class _Head(msgspec.Struct):
    schema: str


def parse_lock(source: Source) -> Lock:
    """Raises `base.lock` for what is no lock of this version."""
    prepare(Lock)
    try:
        schema = msgspec.json.decode(source.data, type=_Head).schema
        if schema == SCHEMA:
            return msgspec.json.decode(source.data, type=Lock)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        said = said if said.startswith("JSON") else said[:1].lower() + said[1:]
        raise _fault(f"`{source.name}` is no lock of a base: {said}") from None
    raise _fault(f"`{source.name}` is a lock of the form `{schema}`, not `{SCHEMA}`")


def _fault(message: str) -> AerogelError:
    return AerogelError(message, code="base.lock", hints=["make it anew: `aerogel base lock`"], exit_status=EXIT_USAGE)


def recipes_digest(recipes: Mapping[str, Recipe]) -> str:
    """What a lock remembers of the declaration: all that its tags mean, files beside it included."""
    encoder = msgspec.json.Encoder(order="sorted")
    return hashlib.sha256(encoder.encode(recipes)).hexdigest()


def with_archives(recipe: Recipe, externals: Sequence[External], locked: Mapping[str, str]) -> Recipe:
    """The recipe with the digests that a lock has for what is in no apt archive."""
    known = {one.location: locked[one.identity] for one in externals if one.identity in locked}
    if not known:
        return recipe
    archives = []
    for entry in recipe.archives:
        digests = {one.arch: known[one.location] for one in externals if one.location in known and _is(entry, one)}
        archives.append(msgspec.structs.replace(entry, sha256=digests) if digests else entry)
    return msgspec.structs.replace(recipe, archives=tuple(archives))


def _is(entry: object, one: External) -> bool:
    from aerogel.distroless.declaration import PackageEntry
    from aerogel.distroless.externals import externals_of

    return isinstance(entry, PackageEntry) and one in externals_of((entry,), one.arch)


def locked_selection(
    recipe: Recipe,
    platform: Platform,
    arch: str,
    lock: Lock,
    tag: str,
    underlay: Underlay | None = None,
) -> Selection | None:
    """What a lock chose for a tag and a platform, with its tools for this machine; None if it has not got them.

    Raises `base.host` if there are no such tools.
    """
    found = lock.platforms.get(str(platform.normal()))
    image = found.images.get(tag) if found is not None else None
    if found is None or image is None:
        return None
    chosen = locked_packages(found, image.packages)
    tools = _host_tools(recipe, lock)
    if image.classes is not None and recipe.java is not None:
        recipe = msgspec.structs.replace(recipe, java=msgspec.structs.replace(recipe.java, cds=image.classes))
    key = selection_key(recipe, arch, chosen, tools, underlay)
    return Selection(recipe, platform, arch, chosen, key, tools, underlay)


def locked_packages(found: LockedPlatform, names: Sequence[str]) -> tuple[Chosen, ...]:
    """Packages of a platform by name. Raises `base.lock` for one that is not there."""
    by_name = {each.name: each for each in found.packages}
    try:
        return tuple(by_name[name].chosen() for name in names)
    except KeyError as error:
        raise _fault(f"the lock names the package `{error.args[0]}` and does not describe it") from None


def kept_tools(today: ToolSets, lock: Lock, recipe: Recipe) -> ToolSets:
    """What the makers of a recipe run here by a lock, with tools of today for those makers that it knows nothing of.

    Raises `base.host` if it has no tools for this kind of machine.
    """
    known = {name for tools in lock.hosts.values() for name in tools}
    found = lock.hosts.get(str(Platform.host().normal()), {})
    if not today.keys() & known <= found.keys():
        return _host_tools(recipe, lock)
    return today | {name: tuple(each.chosen() for each in found[name]) for name in today if name in found}


def _host_tools(recipe: Recipe, lock: Lock) -> ToolSets:
    """What the makers of a recipe run on this kind of machine. Raises `base.host`."""
    host = Platform.host()
    wanted = [maker.name for maker in wanted_makers(recipe) if maker.tools(recipe)]
    found = lock.hosts.get(str(host.normal()), {})
    if all(name in found for name in wanted):
        return {name: tuple(each.chosen() for each in found[name]) for name in wanted}
    known = [name for name, tools in lock.hosts.items() if all(each in tools for each in wanted)]
    raise AerogelError(
        f"the lock names no tools with which a machine of `{host.normal()}` can make files of `{recipe.name}`",
        code="base.host",
        hints=[
            *([f"compose it on {' or '.join(f'`{each}`' for each in known)}"] if known else []),
            "lock it for this machine too: `aerogel base lock`, with `--hosts` for kinds of machine",
        ],
        exit_status=EXIT_HOST,
    )


class Change(NamedTuple):
    """A package that is not the same in two locks; an empty version: not there."""

    platform: str
    name: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """`added`, `removed`, `newer`, `older`, `moved` for an image, or `rebuilt` for the same version with other bytes."""
        if not self.before or not self.after:
            return "removed" if self.before else "added"
        if self.before == self.after:
            return "rebuilt"
        if is_digest(self.before):
            return "moved"
        return "newer" if versions.key(self.after) > versions.key(self.before) else "older"


def changes(before: Lock, after: Lock) -> list[Change]:
    """What differs between two locks, by platform and name."""
    found = []
    for platform in sorted({*before.platforms, *before.hosts, *after.platforms, *after.hosts}):
        old, new = (_contents(lock, platform) for lock in (before, after))
        found += [
            Change(platform, name, old.get(name, ("", ""))[0], new.get(name, ("", ""))[0])
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return found


def members(lock: Lock, platform: str) -> dict[str, LockedPackage]:
    """The packages by name; tools of such a machine have that of their maker in front: `java:libc6`."""
    found = lock.platforms.get(platform)
    tools = {f"{key}:{each.name}": each for key, group in lock.hosts.get(platform, {}).items() for each in group}
    return {each.name: each for each in found.packages} | tools if found is not None else tools


def _contents(lock: Lock, platform: str) -> dict[str, tuple[str, str]]:
    """Version and digest by name."""
    found = {name: (each.version, each.sha256) for name, each in members(lock, platform).items()}
    one = lock.platforms.get(platform)
    if one is not None:
        found |= {each.name: (each.name.rpartition("@")[2], each.sha256) for each in one.archives}
    if one is not None and isinstance(one.image, LockedUnderlay):
        found |= {f"image:{name}": (version, version) for name, version in one.image.packages.items()}
        found |= {one.image.reference: (one.image.digest, one.image.digest)}
    return found


def config_digest(config: ImageConfig) -> str:
    """What a lock says of the config of a base."""
    return f"sha256:{hashlib.sha256(encode(config)).hexdigest()}"


def composer() -> str:
    """The version of the rules of composition."""
    return COMPOSE_VERSION.decode()
