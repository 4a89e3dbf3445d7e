"""Where a base image comes from: named context, local store, alias, built-in catalogue, registry, in this order.

An earlier stage comes before all of these; `graph.stages` has seen to it. Each base is found once for a build, and a
message says which one was taken. A composed base is kept as a step result until `--pull` asks for a new one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, Span, nearest
from aerogel.events import Message, StepLog, Warned, step
from aerogel.files.codec import GZIP, LayerBlob, LayerWriter
from aerogel.graph.ops import frame
from aerogel.graph.stages import ContextRef, ImageRef, SourceRef
from aerogel.graph.steps import BaseImage
from aerogel.oci.digest import Digest, is_digest
from aerogel.oci.edit import whole_history
from aerogel.oci.image import Image, load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference, is_own_name
from aerogel.oci.types import Descriptor, ImageConfig, from_dict, to_dict
from aerogel.settings import key_span
from aerogel.solve.materials import Materials, save_layer

if TYPE_CHECKING:
    from aerogel.commands.recipes import RecipeSource
    from aerogel.debian.archive import Archive
    from aerogel.debian.mirror import Sources
    from aerogel.distroless.base import Selection
    from aerogel.distroless.declared import Beside
    from aerogel.distroless.pool import Pool

__all__ = ["Bases"]

_VERSION = b"aerogel-base-v1"


class Bases:
    """Finds the bases of one build. `images` are named contexts that stand for an image, by name.

    `stages` are the names of the Dockerfile's stages: an image that is not found may be a misspelt stage.
    """

    def __init__(
        self,
        world: World,
        materials: Materials,
        images: dict[str, str | Descriptor],
        *,
        pull: bool,
        stages: Sequence[str] = (),
        home: Callable[[], Beside] | None = None,
    ) -> None:
        """`home` gives the folder to which paths to declarations are relative: the context; without it, this one."""
        self._stages = stages
        self._home = home
        self._world = world
        self._materials = materials
        self._images = images
        self._pull = pull
        self._refused: set[str] = set()
        """Names of images of the store that a policy does not let be used without asking the registry."""
        self.is_quiet = False
        """Nothing is said of a base that is at hand."""
        self.will_run = False
        """A command will run on the bases: a host that cannot run one says so before anything is fetched."""
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], BaseImage] = {}
        self.digests: dict[str, Digest] = {}
        """What each name meant: an image, or the layer of a composed base."""
        self._busy: dict[tuple[str, str], threading.Lock] = {}

    def resolve(self, ref: SourceRef, platform: str, span: Span) -> BaseImage:
        """The image of a reference. Raises `build.no-base` with the span, `debian.*`, `net.*`, `sandbox.*`."""
        if isinstance(ref, ContextRef):
            image = self._images[ref.name]
        elif isinstance(ref, ImageRef):
            image = ref.name
        else:
            raise TypeError(f"{ref!r} is no image")
        name = image.digest if isinstance(image, Descriptor) else image
        key = (name, platform)
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            if key not in self._found:
                try:
                    self._found[key] = (
                        self._loaded(image, f"context `{ref.name}`", platform)
                        if isinstance(image, Descriptor)
                        else self._find(image, platform, (image,))
                    )
                except AerogelError as error:
                    if error.span is None:
                        error.span = span
                    if error.code == "build.no-base" and _may_be_stage(span):
                        error.message = error.message.replace("base image", "stage or image", 1)
                    raise
            return self._found[key]

    def _find(self, name: str, platform: str, chain: tuple[str, ...]) -> BaseImage:
        """`chain` has the aliases that led here, and the name itself at the end."""
        bases = self._world.settings.bases
        if is_own_name(name):
            return self._own(name, platform)
        reference = _parsed(name)
        # With --pull a stored image is the last resort, as for docker: it may be one that was built here.
        found = None if self._pull or bases == "builtin" else self._stored(reference, name, platform)
        if found is not None:
            return found
        alias = self._world.settings.aliases.get(name)
        if alias is not None and alias != name:
            if alias in chain:
                raise self._alias_loop((*chain[chain.index(alias) :], alias))
            self._tell(name, f"alias of {alias}")
            return self._find(alias, platform, (*chain, alias))
        if bases in ("auto", "builtin"):
            found = self._probe(name, platform) or self._built_in(name, platform)
            if found is not None:
                return found
        if name.lower() in self._stages or bases == "builtin":
            raise _missing(name, bases, self._stages)
        try:
            return self._pulled(reference, name, platform)
        except AerogelError as error:
            if name in self._refused and reference.digest is None:
                hint = f"what the local store has under this name came from elsewhere; `aerogel tag {name} {name}` makes it yours"
                error.hints = (*error.hints, hint)
            if error.code.startswith(("policy.", "sign.")):
                raise
            found = self._stored(reference, name, platform) if self._pull else None
            if found is None:
                raise _not_pulled(error, name, bases, self._stages) from error
            self._world.sink.emit(
                Warned(Diagnostic(f"`{name}` was not brought up to date: {error.message}", code="build.stale-base"))
            )
            return found

    def _own(self, name: str, platform: str) -> BaseImage:
        """A declaration by its path, or a built-in base with packages added: no other place has such names."""
        from aerogel.distroless.catalogue import unknown

        if self._world.settings.bases == "registry":
            raise AerogelError(
                f"base image `{name}` is composed here, and the setting `bases` allows images of registries only",
                code="build.no-base",
                hints=["set `bases` to `auto`"],
            )
        found = self._built_in(name, platform)
        if found is None:
            raise unknown(name)
        return found

    def _pulled(self, reference: Reference, name: str, platform: str) -> BaseImage:
        """The image of a registry; its layers come when they are needed."""
        self._world.witness.doubt(name)
        from aerogel.commands.lazily import pull_lazily
        from aerogel.commands.registries import open_registries

        if self.will_run:
            self._world.helper()
        number = self._world.take_numbers()
        with closing(open_registries(self._world)) as registries:
            wanted = Platform.parse(platform)
            offers = self._materials.offers
            pulled = pull_lazily(self._world, registries, reference, wanted, offers, number=number)
        self._tell(name, f"registry, {pulled.served.digest}")
        config = pulled.image.config
        return BaseImage(tuple(config.rootfs.diff_ids), whole_history(config))

    def _alias_loop(self, names: Sequence[str]) -> AerogelError:
        """The aliases lead back to where they began. The place is that of the last of them."""
        places = [
            span
            for file in self._world.settings.files
            if names[-2] in file.table.get("aliases", {}) and (span := key_span(file.source, names[-2])) is not None
        ]
        return AerogelError(
            "the aliases lead in a circle: " + " -> ".join(f"`{name}`" for name in names),
            code="build.alias-loop",
            span=places[-1] if places else None,
            hints=["let one of them name an image, or remove it"],
            exit_status=EXIT_USAGE,
        )

    def _stored(self, reference: Reference, name: str, platform: str) -> BaseImage | None:
        """An image of the local store, if it is for the platform."""
        store = self._world.store
        for path in store.images.paths(reference):
            self._world.witness.keep(path)
        wanted = Platform.parse(platform)
        record = store.images.find(reference, wanted)
        descriptor = None if record is None else record.descriptor
        if descriptor is None and reference.digest is not None:
            self._world.witness.doubt(name)
            from aerogel.commands.registries import stored_by_digest

            descriptor = stored_by_digest(store, reference, wanted)
        if descriptor is None:
            return None
        from aerogel.commands.policy import may_use

        if not may_use(self._world, reference, reference.digest or descriptor.digest):
            self._refused.add(name)
            return None
        found = self._loaded(descriptor, name, platform)
        if not wanted.matches(found.config.platform):
            self._tell(name, f"local store has it for {found.config.platform}, not for {wanted}")
            return None
        return found

    def _loaded(self, descriptor: Descriptor, name: str, platform: str) -> BaseImage:
        """An image whose blobs are in the store."""
        image = load(descriptor, self._world.store.blobs, Platform.parse(platform))
        self._adopt(image)
        self._tell(name, f"local store, {image.descriptor.digest}")
        return BaseImage(tuple(image.config.rootfs.diff_ids), whole_history(image.config))

    def _adopt(self, image: Image) -> None:
        """Makes the layers of an image known by their diff ids; those that are elsewhere stay there."""
        store, layers = self._world.store, image.layers()
        absent = [layer for layer in layers if not store.blobs.has(layer.descriptor.digest)]
        if any(store.origins.of(layer.descriptor.digest) for layer in absent):
            from aerogel.commands.lazily import offer_layers

            self._world.witness.doubt(image.digest)
            offer_layers(image, self._world, self._materials.offers)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda layer: self._materials.adopt(layer.diff_id, layer.descriptor), layers):
                pass

    def _probe(self, name: str, platform: str) -> BaseImage | None:
        if name not in ("aerogel/probe", "aerogel/probe:latest"):
            return None
        from aerogel.commands.probing import probe_image

        found = probe_image(platform, self._world, self._materials)
        if not self.is_quiet:
            self._tell(name, f"built in, {found.diff_ids[0]}")
        return found

    def _built_in(self, name: str, platform: str) -> BaseImage | None:
        import msgspec

        from aerogel.commands.recipes import find_recipe

        source = find_recipe(name, self._world, self._home)
        if source is None:
            return None
        beside = source.beside_key(Platform.parse(platform), self._world)
        facts = (_VERSION, source.recipe.way, msgspec.json.encode(source.recipe), platform.encode(), beside)
        key = Digest("sha256:" + hashlib.sha256(frame(*facts)).hexdigest())
        with self._world.store.once(key):
            known = None if self._pull else self._world.store.actions.get(key)
            self._world.witness.keep(self._world.store.actions.path(key))
            if known is not None and all(self._materials.is_here(Digest(each)) for each in known["layers"]):
                if not self.is_quiet:
                    self._tell(name, known["summary"])
                return BaseImage(tuple(known["layers"]), from_dict(known["config"], ImageConfig))
            return self._compose(source, name, platform, key)

    def _compose(self, source: RecipeSource, name: str, platform: str, key: Digest) -> BaseImage:
        recipe = source.recipe
        if self.will_run or recipe.kind == "buildroot":
            self._world.helper()
        store = self._world.store
        number = self._world.take_numbers()
        archive = source.archive(self._world, refresh=self._pull, number=number)
        with step(self._world.sink, number, f"FROM {name}") as running, source.placed():
            pool = source.pool(archive, self._world)
            selection = source.select(Platform.parse(platform), pool, self._world, number=number, refresh=self._pull)
            known = store.actions.get(selection.key)
            if known is None or not all(self._materials.is_here(Digest(each)) for each in known["layers"]):
                self._world.sink.emit(StepLog(number, f"{selection.summary}\n".encode()))
                known = self._composed(selection, pool, source, number)
            else:
                running.status = "REUSED"
            config = from_dict(known["config"], ImageConfig)
            source.check(selection.platform, known["layers"], config)
        facts = {"base": recipe.name, "platform": platform, "selection": selection.key}
        for each in (selection.key, key):
            store.actions.put(each, facts, known)
        self._tell(name, known["summary"])
        return BaseImage(tuple(known["layers"]), config)

    def _composed(self, selection: Selection, pool: Pool, source: RecipeSource, number: int) -> dict[str, Any]:
        """Fetches the packages and puts the layer in the store; what is kept of it."""
        from aerogel.distroless.base import compose_base

        store = self._world.store
        made: list[str] = []

        def scratch() -> str:
            made.append(store.snapshots.new(self._world.helper().rung.map_id))
            return made[-1]

        def keep(fill: Callable[[LayerWriter], None]) -> LayerBlob:
            with store.blobs.write() as blob, LayerWriter(blob.fd, GZIP) as writer:
                fill(writer)
                layer = writer.finish()
                blob.commit(Digest(str(layer.digest)), layer.size)
                return layer

        try:
            with store.blobs.write() as blob, LayerWriter(blob.fd, GZIP) as writer:
                composed = compose_base(
                    selection,
                    pool,
                    writer,
                    cache=self._cache,
                    helper_factory=self._world.helper,
                    scratch=scratch,
                    sink=self._world.sink,
                    step=number,
                    read=source.read,
                    keep=keep,
                )
                blob.commit(Digest(str(composed.blob.digest)), composed.blob.size)
        finally:
            for path in made:
                store.snapshots.discard(path, self._materials.remove)
        for layer, index in (*composed.lower, (composed.blob, composed.index)):
            save_layer(store, layer, index)
        return {
            "layers": list(composed.diff_ids),
            "config": to_dict(composed.config),
            "summary": f"{composed.summary}, {composed.blob.diff_id}",
        }

    @property
    def _cache(self) -> Path:
        return self._world.settings.cache / "debian-v1"

    def archive(self, number: int = 0) -> Archive:
        """The Debian archive of this run: the mirror of the settings, else the host's. `number` is the step's."""
        from aerogel.commands.recipes import archive_of

        return archive_of(self._world, refresh=self._pull, number=number)

    def sources(self) -> Sources:
        """Where Debian's packages come from in this run."""
        from aerogel.debian.mirror import discover

        return discover(self._world.settings.mirror, self._world.settings.security_mirror)

    def _tell(self, name: str, what: str) -> None:
        digest = what.rpartition(", ")[2]
        if is_digest(digest) and not name.startswith("context "):
            self.digests[name] = Digest(digest)
        self._world.sink.emit(Message(f"FROM {name} -> {what}"))


def _may_be_stage(span: Span) -> bool:
    """Whether the name stands in `--from=` or `from=`, where a stage is meant more often than an image."""
    return span.source.data[: span.start].lower().endswith(b"from=")


def _parsed(name: str) -> Reference:
    """Raises `oci.reference`, with the name to write when packages were to be added to a built-in base."""
    try:
        return Reference.parse(name)
    except AerogelError as error:
        from aerogel.distroless.catalogue import with_packages

        near = with_packages(name)
        if near is not None:
            error.hints = (f"did you mean `{near}`?",)
        raise


def _missing(name: str, bases: str, stages: Sequence[str]) -> AerogelError:
    from aerogel.distroless.catalogue import suggestion, there_is, without_architecture

    if name.lower() in stages:
        return AerogelError(
            f"stage `{name.lower()}` comes later in the Dockerfile, and no image has this name",
            code="build.no-base",
            hints=["a stage can only start from an earlier one: move it up"],
        )
    near = nearest(name, stages) or suggestion(name)
    if name.partition(":")[0].endswith((".yaml", ".yml")):
        near = f"./{name}"
    of_platform = without_architecture(name)
    if near is None and of_platform is not None:
        near = f"FROM --platform={of_platform[0]} {of_platform[1]}"
    hints = [f"did you mean `{near}`?"] if near else []
    if near not in stages:
        hints.append(f"{there_is()}; `aerogel images` lists the local ones")
    if bases == "registry":
        hints = hints[:1] if near else ["`aerogel images` lists the local ones"]
    return AerogelError(f"base image `{name}` was not found", code="build.no-base", hints=hints)


def _not_pulled(error: AerogelError, name: str, bases: str, stages: Sequence[str]) -> AerogelError:
    """Why the registry, the last place, did not give the image, and where it is not either."""
    missing = _missing(name, bases, stages)
    guess = missing.hints[:1] if missing.hints and missing.hints[0].startswith("did you mean") else ()
    if error.code in ("registry.not-found", "registry.unauthorized", "registry.denied"):
        missing.detail = error.message
        missing.hints = tuple(dict.fromkeys((*guess, *error.hints, *missing.hints)))
        return missing
    if guess:
        # A misspelt name is likelier than a host without a network that the build would need.
        missing.message = f"base image `{name}` is not known here"
        missing.hints = (*guess, f"the registry, asked last, did not answer: {error.message}", *error.hints)
        missing.exit_status = error.exit_status
        return missing
    places = "the local store" if bases == "registry" else "the local store, the aliases and the built-in bases"
    error.message = f"base image `{name}` cannot be fetched: {error.message}"
    error.hints = (f"the registry was asked last: `{name}` is not in {places}", *error.hints, *missing.hints)
    return error
