"""Bases by name or path for the commands that make them: the recipe, the lock beside it, where its packages come from.

`./base.yaml[:TAG]` has its lock in `./base.lock.json`. A lock that does not fit its declaration any more is a warning
and is not used; with `--locked` it is an error.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aerogel.commands.world import World
from aerogel.distroless.catalogue import OWN, Choice, choose, declarations, tags, unknown
from aerogel.distroless.recipe import Recipe
from aerogel.errors import EXIT_FAILED, EXIT_USAGE, AerogelError, Diagnostic, Source
from aerogel.oci.platform import Platform
from aerogel.oci.reference import is_path_name

if TYPE_CHECKING:  # what they import is not needed to find a result that is kept already
    from aerogel.commands.underlays import Found
    from aerogel.debian.archive import Archive
    from aerogel.distroless.base import Selection
    from aerogel.distroless.declaration import Repository
    from aerogel.distroless.declared import Beside, Declared
    from aerogel.distroless.lock import Lock, LockedUnderlay
    from aerogel.distroless.pool import Pool
    from aerogel.distroless.underlay import Underlay
    from aerogel.net.http import Http
    from aerogel.oci.types import ImageConfig

__all__ = [
    "RecipeSource",
    "archive_of",
    "beside_here",
    "find_recipe",
    "known_tags",
    "lock_path",
    "locked_image",
    "open_recipe",
    "scratch_folders",
    "vendor_path",
]


def lock_path(path: str) -> str:
    """The lock of a declaration: beside it, `base.yaml` has `base.lock.json`."""
    return f"{posixpath.splitext(path)[0]}.lock.json"


def vendor_path(path: str) -> str:
    """The folder of packages that `aerogel base vendor` fills."""
    return posixpath.join(posixpath.dirname(path), "vendor")


class RecipeSource:
    """A recipe with where it is from. `declared` is None for a built-in base; `lock` None when there is none."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        choice: Choice,
        declared: Declared | None = None,
        beside: Beside | None = None,
        lock: Lock | None = None,
        path: str = "",
    ) -> None:
        self.recipe = recipe
        self.choice = choice
        self.declared = declared
        self._beside = beside
        self.lock = lock
        self.path = path
        """Where the lock belongs to, without it: the declaration, or the name of a built-in base."""
        self.lock_words = f"aerogel base lock {path}"
        """The command that makes the lock."""
        self.must_be_locked = False
        self.mends_vendored = False
        """What is damaged in the vendored folder is fetched anew, and no error."""
        self._underlays: dict[str, Underlay] = {}

    @property
    def tag(self) -> str:
        """The variant, with the profile if the tag chose one: the key of the lock."""
        return f"{self.choice.variant}-{self.choice.profile}" if self.choice.profile else self.choice.variant

    def beside_key(self, platform: Platform, world: World) -> bytes:
        """What beside the recipe decides: the lock, the local packages for a platform, an image of this machine."""
        digests = [b"" if self.lock is None else self.lock.digest.encode()]
        if self._beside is not None and self.recipe.underlay and not self._has_vendored():
            from aerogel.commands.underlays import state_of

            with self._at_extends():
                digests.append(state_of(self.recipe.underlay, platform, world, self._beside))
        if self._beside is not None and any(each.deb for each in self.recipe.archives):
            from aerogel.distroless.base import debian_architecture
            from aerogel.distroless.externals import file_name

            arch = debian_architecture(platform)
            names = (file_name(each, arch) for each in self.recipe.archives)
            digests += [self._beside.digest(name).encode() for name in names if name]
        return b" ".join(digests)

    @property
    def read(self) -> Callable[[str], bytes]:
        from aerogel.distroless.compose import nothing_beside

        return nothing_beside if self._beside is None else self._beside.read

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Gives errors of the block their place in the declaration, and its name to the hint to lock it."""
        if self.declared is None:
            yield
            return
        with self.declared.placed():
            try:
                yield
            except AerogelError as error:
                self.name_in_hints(error)
                raise

    def name_in_hints(self, error: AerogelError) -> None:
        """What reads locks and packages does not know the declaration: its hints say `aerogel base lock` alone."""
        error.hints = tuple(each.replace("`aerogel base lock`", f"`{self.lock_words}`") for each in error.hints)

    def all_recipes(self) -> dict[str, Recipe]:
        """The recipe of every tag that a lock has: the variants, in the profile that the declaration chooses."""
        variants = self.choice.family.variants or ("latest",)
        if self.declared is not None:
            return {name: self.declared.recipe(name) for name in variants}
        repository = self.path
        found = {}
        for name in variants:
            chosen = choose(f"{repository}:{name}")
            assert chosen is not None  # it is one of the base's own variants
            found[name] = chosen.recipe()
        return found

    def files(self) -> dict[str, str]:
        """The SHA-256 of what was read besides the declaration, by names relative to its folder."""
        if self._beside is None:
            return {}
        folder = posixpath.dirname(self.path)
        seen = {
            name: digest for name, digest in self._beside.seen.items() if name not in (self.path, lock_path(self.path))
        }
        return {posixpath.relpath(name, folder or "."): digest for name, digest in sorted(seen.items())}

    def changed_files(self, lock: Lock) -> list[str]:
        """Those files that are not as they were when the lock was made."""
        now = self.files()
        known = lock.files if isinstance(lock.files, dict) else {}
        return [
            posixpath.normpath(posixpath.join(posixpath.dirname(self.path), name))
            for name in known
            if known[name] != now.get(name)
        ]

    def pool(self, archive: Archive, world: World, *, recipe: Recipe | None = None) -> Pool:
        """The places that the packages come from, of the recipe or of another one of the same base."""
        from aerogel.debian.archive import Archive
        from aerogel.debian.keyring import Keyring
        from aerogel.debian.mirror import Place, Sources
        from aerogel.distroless.externals import Fetcher
        from aerogel.distroless.pool import Pool

        http = _http(world)
        cache = world.settings.cache / "debian-v1"

        def open_extra(one: Repository) -> Archive:
            key = self.read(one.signed_by)
            place = Place(one.uri.rstrip("/"), "option")
            folder = cache / f"extra-{hashlib.sha256(one.uri.encode()).hexdigest()[:16]}"
            return Archive(
                Sources((place,), (place,)),
                folder,
                http,
                keyring=Keyring(key),
                sink=world.sink,
                prefix=f"{one.id}:",
                is_locked=self.lock is not None,
                vendor=self._vendor(),
                mends_vendored=self.mends_vendored,
            )

        fetcher = Fetcher(
            cache, http, world.settings.environment, vendor=self._vendor(), mends_vendored=self.mends_vendored
        )
        return Pool(
            archive,
            repositories=(recipe or self.recipe).repositories,
            archives=(recipe or self.recipe).archives,
            open_extra=open_extra,
            path=None if self._beside is None else self._beside.path,
            fetcher=fetcher,
        )

    def _vendor(self) -> Path | None:
        if self.lock is None or self._beside is None:
            return None
        folder = self._beside.path(vendor_path(self.path))
        return folder if folder.is_dir() else None

    def archive(self, world: World, *, refresh: bool = False, number: int = 0) -> Archive:
        """Debian's archive for this recipe: with a lock no index is asked for."""
        return archive_of(
            world,
            refresh=refresh,
            number=number,
            is_locked=self.lock is not None,
            vendor=self._vendor(),
            mends_vendored=self.mends_vendored,
            allow_expired=self.recipe.allow_expired,
            snapshot=self.recipe.snapshot,
        )

    def _has_vendored(self) -> bool:
        """Whether images lie beside the lock: then nobody else is asked for one."""
        from aerogel.commands.underlays import IMAGES

        vendor = self._vendor()
        return vendor is not None and (vendor / IMAGES).is_dir()

    def image(
        self,
        platform: Platform,
        world: World,
        *,
        locked: LockedUnderlay | None = None,
        refresh: bool = False,
    ) -> Found:
        """The image that the base is laid on, by its lock or by `locked`. Raises what `find_underlay` raises."""
        from aerogel.commands.underlays import find_underlay

        assert self._beside is not None  # only declarations in files extend images
        if locked is None and self.lock is not None:
            locked = locked_image(self.lock, platform)
        find = partial(
            find_underlay, self.recipe.underlay, platform, world, self._beside, locked=locked, refresh=refresh
        )
        with self._at_extends():
            try:
                return find(vendor=self._vendor())
            except AerogelError:
                if not self.mends_vendored:
                    raise
                return find()

    @contextmanager
    def _at_extends(self) -> Iterator[None]:
        """Gives errors of the block the place where the declaration says what it extends."""
        try:
            yield
        except AerogelError as error:
            if error.span is None and self.declared is not None:
                error.span = self.declared.document.spans.get(("extends",))
            raise

    def underlay(
        self,
        platform: Platform,
        world: World,
        *,
        locked: LockedUnderlay | None = None,
        refresh: bool = False,
    ) -> Underlay | None:
        """That image, to be put on top of; None for a base that extends none.

        Raises `base.circle` for one that was made from this declaration, and what `image` raises.
        """
        if not self.recipe.underlay:
            return None
        from aerogel.commands.underlays import open_underlay
        from aerogel.distroless.base import debian_architecture

        if (kept := self._underlays.get(str(platform))) is not None:
            return kept
        text = self.recipe.underlay
        with self._at_extends():
            found = self.image(platform, world, locked=locked, refresh=refresh)
            self._check_circle(found)
            underlay = self._underlays[str(platform)] = open_underlay(text, found, world)
            if not underlay.packages(debian_architecture(platform)):
                message = f"the image `{text}` has no list of packages: nothing counts as installed in it"
                world.warn_once(Diagnostic(message, code="base.image-packages"))
        return underlay

    def _check_circle(self, found: Found) -> None:
        """An image says in its history what it was made from."""
        text, mark = self.recipe.underlay, f"aerogel: {self.choice.family.name}:"
        history = (one.created_by for one in found.image.config.history)
        if any(one.startswith(mark) and one.endswith(f" on {text}") for one in history):
            raise AerogelError(
                f"the image `{text}` was made from `{self.path}`: it would be put on top of itself",
                code="base.circle",
                hints=["give what is built another name than the image that it extends"],
                exit_status=EXIT_USAGE,
            )

    def platforms(self, world: World) -> list[Platform]:
        """All platforms of the base; of one that extends an image those that the image has."""
        if self._beside is None or not self.recipe.underlay:
            return [Platform.parse(each) for each in self.recipe.platforms]
        from aerogel.commands.underlays import platforms_of_image

        known = {str(Platform.parse(each).normal()) for each in self.recipe.platforms}
        found = platforms_of_image(self.recipe.underlay, world, self._beside)
        return [each for each in found if str(each) in known]

    def locked_recipe(self, platform: str, arch: str) -> Recipe:
        """The recipe with the digests that the lock has for what is in no apt archive."""
        from aerogel.distroless.externals import externals_of
        from aerogel.distroless.lock import with_archives

        found = self.lock.platforms.get(platform) if self.lock is not None else None
        digests = {each.name: each.sha256 for each in found.archives} if found else {}
        return with_archives(self.recipe, externals_of(self.recipe.archives, arch), digests)

    def select(
        self, platform: Platform, pool: Pool, world: World, *, number: int = 0, refresh: bool = False
    ) -> Selection:
        """The packages: those of the lock, else those of today. Raises `base.locked` for what the lock lacks.

        `refresh` asks the registry for an image that the store has too.
        """
        from aerogel.distroless.base import debian_architecture, select
        from aerogel.distroless.libraries import Means, with_libraries
        from aerogel.distroless.lock import locked_selection

        arch = debian_architecture(platform)
        if self.lock is not None:
            found = self.lock.platforms.get(str(platform.normal()))
            recipe = self.locked_recipe(str(platform.normal()), arch)
            is_there = found is not None and self.tag in found.images
            underlay = self.underlay(platform, world) if is_there else None
            selection = locked_selection(recipe, platform, arch, self.lock, self.tag, underlay)
            if selection is not None:
                pool.local(arch)
                pool.check_local(selection.packages)
                self.check_slices(selection, world)
                return selection
            raise AerogelError(
                f"`{lock_path(self.path)}` has nothing for `{self.tag}` on {platform}",
                code="base.locked",
                hints=[f"lock it: `{self.lock_words}`, with `--platform` for platforms"],
            )
        underlay = self.underlay(platform, world, refresh=refresh)
        found_today = select(self.recipe, platform, pool, underlay=underlay)
        with scratch_folders(world) as scratch:
            means = Means(world.helper, scratch, world.sink, self.read)
            selection = with_libraries(found_today, pool, world.settings.cache / "debian-v1", means, step=number)
        self.check_slices(selection, world)
        return selection

    def check_slices(self, selection: Selection, world: World) -> None:
        """Warns of rules about packages that are not in the image; raises `base.slice` for a misspelt one."""
        if self.declared is None or not selection.recipe.slices:
            return
        from aerogel.distroless.sliced import idle_slices

        names = [each.name for each in selection.packages]
        for each in idle_slices(self.declared.family, selection.recipe, names, is_locked=self.lock is not None):
            world.warn_once(each)

    def check(self, platform: Platform, layers: Sequence[str], config: ImageConfig) -> None:
        """Compares what came out with the lock. Raises `base.moved` if the lock must hold and does not."""
        if self.lock is None:
            return
        from aerogel.distroless.lock import composer, config_digest

        image = self.lock.platforms[str(platform.normal())].images[self.tag]
        found = config_digest(config)
        if image.matches(layers, found):
            return
        raise AerogelError(
            f"`{self.recipe.name}` came out otherwise than the lock says",
            code="base.moved",
            detail="\n".join(
                f"{word} {', '.join((*each, f'config {digest}'))}"
                for word, each, digest in (
                    ("expected", image.layers, image.config or "any"),
                    ("found   ", layers, found),
                )
            ),
            hints=["aerogel composes bases in another way now: look at the difference, then lock again"]
            if self.lock.composer != composer()
            else ["the same packages gave other bytes: please report it"],
            exit_status=EXIT_FAILED,
        )


def locked_image(lock: Lock, platform: Platform) -> LockedUnderlay | None:
    """The image that a lock says a base is laid on."""
    found = lock.platforms.get(str(platform.normal()))
    image = found.image if found is not None else None
    return image or None


@contextmanager
def scratch_folders(world: World) -> Iterator[Callable[[], str]]:
    """Makes folders beside the snapshots; they are removed at the end of the block."""
    made: list[str] = []

    def scratch() -> str:
        made.append(world.store.snapshots.new(world.helper().rung.map_id))
        return made[-1]

    try:
        yield scratch
    finally:
        for path in made:
            world.store.snapshots.discard(path, lambda each: world.helper().call("remove", {"path": each}))


def _http(world: World) -> Http:
    from aerogel.commands.transport import proxies
    from aerogel.net.http import Http

    settings = world.settings
    return Http(proxies=proxies(settings), ca="auto" if settings.ca == "none" else settings.ca)


def archive_of(
    world: World,
    *,
    refresh: bool = False,
    number: int = 0,
    is_locked: bool = False,
    vendor: Path | None = None,
    mends_vendored: bool = False,
    allow_expired: bool = False,
    snapshot: str = "",
) -> Archive:
    """The Debian archive of this run: the mirror of the settings, else the host's. `number` is the step's.

    With `snapshot` the archive of that moment; what a lock names may come from today's as well. All bases of a run are
    chosen from one state of each suite: what builds and what runs have libraries of the same versions.
    """
    from aerogel.debian.archive import Archive
    from aerogel.debian.mirror import at_snapshot, discover

    settings = world.settings
    if snapshot:
        later = discover(settings.mirror, settings.security_mirror) if is_locked else None
        sources = at_snapshot(snapshot, settings.snapshot_mirror, later)
    else:
        sources = discover(settings.mirror, settings.security_mirror)
    return Archive(
        sources,
        settings.cache / "debian-v1",
        _http(world),
        sink=world.sink,
        refresh=refresh,
        step=number,
        is_locked=is_locked,
        vendor=vendor,
        mends_vendored=mends_vendored,
        allow_expired=allow_expired,
        snapshot=snapshot,
        seen=world.seen((refresh, allow_expired, is_locked, snapshot)),
    )


def beside_here(world: World) -> Beside:
    """Files relative to the folder of the run."""
    from aerogel.distroless.declared import Beside

    return Beside(world.settings.directory, look=world.witness.look)


def find_recipe(
    name: str,
    world: World,
    home: Callable[[], Beside] | None = None,
    *,
    must_be_locked: bool = False,
    heeds_lock: bool = True,
) -> RecipeSource | None:
    """The base that a name in FROM or on the command line means; None if it is none of ours.

    `home` gives the folder that paths are relative to; without it, this one. Without `heeds_lock` the lock beside the
    declaration is not read: it is to be made anew. Raises `base.*`.
    """
    if is_path_name(name):
        from aerogel.distroless.declared import load_declared, split_path

        path, tag = split_path(name)
        beside = home() if home is not None else beside_here(world)
        declared = load_declared(path, beside)
        recipe = declared.recipe(tag)
        source = RecipeSource(recipe, choice=declared.choose(tag), declared=declared, beside=beside, path=declared.path)
        source.lock_words = f"aerogel base lock {_from_here(declared.path, beside, world)}"
        if heeds_lock:
            source.lock = _fitting_lock(source, beside, world, must_be_locked=must_be_locked)
        return source
    choice = choose(name)
    if choice is None:
        return None
    head = name.rpartition("/")
    repository = head[0] + head[1] + head[2].partition(":")[0]
    return RecipeSource(choice.recipe(), choice=choice, path=repository)


def _from_here(path: str, beside: Beside, world: World) -> str:
    """A declaration as a command run here names it; one outside of this folder keeps its own name."""
    here = world.settings.directory
    found = os.path.relpath(here / beside.root / path, here)
    return path if found.startswith("../") else found


def _fitting_lock(source: RecipeSource, beside: Beside, world: World, *, must_be_locked: bool) -> Lock | None:
    from aerogel.distroless.lock import parse_lock, recipes_digest

    name = lock_path(source.path)
    try:
        lock = parse_lock(Source(name, beside.read(name)))
    except AerogelError as error:
        if error.code != "base.no-file" or must_be_locked:
            if error.code == "base.no-file":
                error.hints = (f"make it: `{source.lock_words}`",)
            source.name_in_hints(error)
            raise
        return None
    if lock.declaration == recipes_digest(source.all_recipes()):
        return lock
    changed = source.changed_files(lock)[:1] or [source.path]
    stale = AerogelError(
        f"`{changed[0]}` has changed since `{name}` was made",
        code="base.lock-stale",
        hints=[f"make the lock anew: `{source.lock_words}`"],
        exit_status=EXIT_FAILED,
    )
    if must_be_locked:
        raise stale
    message = f"{stale.message}: the lock is not used"
    world.warn_once(Diagnostic(message, code=stale.code, hints=list(stale.hints)))
    return None


def open_recipe(name: str, world: World, *, must_be_locked: bool = False, heeds_lock: bool = True) -> RecipeSource:
    """As `find_recipe`, for commands: a file's name may lack the `./`, a built-in base its `aerogel/`."""
    path = name.partition(":")[0]
    if not is_path_name(name) and path.endswith((".yaml", ".yml")):
        name = f"./{name}"
    elif "/" not in name and name.partition(":")[0].partition("+")[0] in declarations():
        name = f"{OWN}{name}"
    found = find_recipe(name, world, must_be_locked=must_be_locked, heeds_lock=heeds_lock)
    if found is None:
        raise unknown(name)
    return found


def known_tags(source: RecipeSource) -> list[str]:
    """All tags of a base."""
    return source.declared.tags if source.declared is not None else tags(source.choice.family.name)
