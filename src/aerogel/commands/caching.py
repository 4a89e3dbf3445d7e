"""`--cache-from` and `--cache-to`: results of steps from and to registries and folders.

Read when something is looked for that the store does not know: the list of results first, a layer when its bytes are
asked for. What comes is unpacked, checked against its diff id and compressed here again, so nothing of how a cache
packed a layer gets into the store. Written are the results of all stages, or of those of the image: layers go out as
soon as their step has ended (`cache_early`), the list of results after the build.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, BinaryIO, cast

import msgspec

from aerogel.commands.cache_carried import MOUNTS, pack, unpack
from aerogel.commands.cache_early import Early
from aerogel.commands.cache_flags import CacheSource, CacheTarget, parse_cache_from, parse_cache_to
from aerogel.commands.cache_places import (
    CACHE_TYPE,
    LAYER,
    RECORDS_TYPE,
    SIZE,
    FolderCache,
    ImageCache,
    Place,
    RegistryCache,
    Target,
    parse_manifest,
)
from aerogel.commands.cache_s3 import S3Cache, need_library
from aerogel.commands.registries import Meter, open_registries
from aerogel.commands.world import World
from aerogel.decoding import prepare
from aerogel.errors import AerogelError, Diagnostic
from aerogel.events import Warned, step
from aerogel.files.codec import GZIP, Codec, open_uncompressed
from aerogel.graph.ops import Base, Node
from aerogel.graph.steps import Step
from aerogel.oci.digest import Digest, digest_of, is_digest, short
from aerogel.oci.types import LAYER_TYPES, OCI_MANIFEST, Descriptor, Manifest
from aerogel.registry.client import Registries
from aerogel.solve.imported import Imported, Known
from aerogel.solve.materials import Materials, take_tar
from aerogel.solve.offers import Offer, Offers
from aerogel.solve.solver import Outcome, Solver

__all__ = ["BROKEN", "CacheRecord", "CacheRecords", "Caches", "bring"]

BROKEN = "cache.broken"
"""Code of the error that says that a cache does not have what it promised; `detail` names the cache."""

_FAULTS = ("cache.", "codec.", "index.", "layout.", "net.", "oci.", "registry.", "tar.")
"""Errors of these areas are the cache's; a full disk is not."""
_FORMAT = 1
_PARALLEL = 4
_DIGITS = 16


class CacheRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step gave: the layer that each step from its base up to it added, or an empty text."""

    key: Digest
    chain: tuple[str, ...]
    content: str = ""
    """The content key of the same step."""


class CacheRecords(msgspec.Struct, frozen=True):
    """The config of a cache."""

    format: int
    results: tuple[CacheRecord, ...]


class Caches:
    """The caches of one build. Raises `build.bad-cache` for flags that cannot be."""

    def __init__(self, cache_from: Sequence[str], cache_to: Sequence[str], world: World) -> None:
        self._world = world
        environment = world.settings.environment
        self.sources = [parse_cache_from(text, environment) for text in cache_from]
        self.targets = [parse_cache_to(text, environment) for text in cache_to]
        if any(each.kind == "s3" for found in (self.sources, self.targets) for each in found):
            need_library()
        self._places: dict[int, Place] = {}
        self._early: dict[int, Early] = {}
        self._lost: set[int] = set()
        """Targets, by number, that do not answer and need not."""
        self._stack = ExitStack()
        self._open: Registries | None = None

    def __bool__(self) -> bool:
        return bool(self.sources or self.targets)

    def close(self) -> None:
        for early in self._early.values():
            early.close()
        self._stack.close()

    def _registries(self) -> Registries:
        if self._open is None:
            self._open = self._stack.enter_context(closing(open_registries(self._world)))
        return self._open

    def _target(self, number: int, image: Descriptor) -> Target:
        return self._places.get(number) or ImageCache(image, self._world.store)

    def _place(self, spec: CacheSource | CacheTarget) -> Place:
        if spec.bucket is not None:
            return S3Cache(spec.bucket, self._world)
        if spec.reference is not None:
            return RegistryCache(self._registries(), spec.reference)
        folder = os.path.join(self._world.settings.directory, spec.folder)
        digest = spec.digest if isinstance(spec, CacheSource) else ""
        return FolderCache(folder, spec.tag, self._world.store, digest)

    # Reading.

    def lend(self, imported: Imported, offers: Offers, codec: Codec) -> None:
        """Lets a run find what these caches have. Layers that come are compressed with the codec."""
        for source in self.sources:
            imported.add(partial(self._load, source, offers, codec))

    def _load(self, source: CacheSource, offers: Offers, codec: Codec) -> Known | None:
        """What a cache knows. One that cannot be read is told and left out."""
        place = self._place(source)
        origin = str(place)
        with step(self._world.sink, self._world.take_numbers(), f"read cache {origin}") as running:
            try:
                manifest = parse_manifest(place.manifest(), origin)
                known = _known(place.read(manifest.config), origin)
            except AerogelError as error:
                if not error.code.startswith(_FAULTS):
                    raise
                # Nothing to stop for: the first build of all finds no cache.
                running.note = "not used"
                self._warn(f"the cache `{origin}` is not used: {error.message}", "cache.not-used", error.hints)
                return None
            if source.with_mounts:
                self._take_mounts(place, manifest)
            layers = list(_layers(manifest))
            running.note = f"{len(known.chains)} results, {len(layers)} layers"
        for diff_id, blob, size in layers:
            offers.add(
                diff_id, Offer(origin, blob, partial(self._bring, place, diff_id, blob, codec), size, place.home)
            )
        return known

    def _take_mounts(self, place: Place, manifest: Manifest) -> None:
        """Makes the caches of mounts that are in a cache and not here."""
        for blob in manifest.layers:
            if blob.media_type != MOUNTS:
                continue
            try:
                with (
                    self._world.store.blobs.write() as scratch,
                    os.fdopen(os.dup(scratch.fd), "r+b", buffering=0) as file,
                ):
                    place.fetch(blob, cast("BinaryIO", file), lambda _: None)
                    file.seek(0)
                    unpack(cast("BinaryIO", file), self._world)
            except AerogelError as error:
                if not error.code.startswith((*_FAULTS, "extract.")):
                    raise
                self._warn(
                    f"the cache mounts of `{place}` are not used: {error.message}", "cache.not-used", error.hints
                )

    def _bring(self, place: Place, layer: Digest, blob: Descriptor, codec: Codec) -> None:
        """Puts a layer of a cache in the store, as a build here would have packed it."""
        store = self._world.store
        number = self._world.take_numbers()
        try:
            with step(self._world.sink, number, f"layer {short(layer)} from {place}"), store.blobs.write() as scratch:
                meter = Meter(self._world.sink, number, short(layer), blob.size)
                with os.fdopen(os.dup(scratch.fd), "r+b", buffering=0) as file:
                    place.fetch(blob, cast("BinaryIO", file), meter.add)
                    file.seek(0)
                    made, _ = take_tar(store, open_uncompressed(cast("BinaryIO", file), blob.media_type), codec)
        except AerogelError as error:
            if not error.code.startswith(_FAULTS):
                raise
            raise _broken(place, layer, error.message) from error
        if made.diff_id != layer:
            raise _broken(place, layer, f"it is `{made.diff_id}`")

    def give_up(self, error: AerogelError, imported: Imported, offers: Offers) -> bool:
        """Whether an error is one of a cache, which is told and not used any more."""
        if error.code != BROKEN or error.detail is None:
            return False
        imported.drop(error.detail)
        offers.drop(error.detail)
        self._warn(f"{error.message}: the cache is not used any more", "cache.not-used", ())
        return True

    def _warn(self, message: str, code: str, hints: Iterable[str]) -> None:
        self._world.sink.emit(Warned(Diagnostic(message, code=code, hints=tuple(hints))))

    # Writing.

    def begin(self, steps: Sequence[Step], targets: Sequence[Node], materials: Materials) -> None:
        """Before the first step: asks every target whether it can be written. Raises as `write`."""
        for number, target in enumerate(self.targets):
            if target.kind == "inline" or number in self._places or number in self._lost:
                continue
            try:
                place = self._place(target)
                place.check()
            except AerogelError as error:
                if not target.may_fail:
                    raise
                name = target.bucket.bucket if target.bucket else target.reference or target.folder
                self._warn(f"the cache `{name}` was not written: {error.message}", "cache.not-written", error.hints)
                self._lost.add(number)
                continue
            self._places[number] = place
            nodes = _nodes(steps, targets, is_whole=target.is_whole)
            send = partial(self._send, place, materials, target.codec or GZIP)
            self._early[number] = Early(send, frozenset(node.digest for node in nodes))

    def made(self, node: Node, outcome: Outcome) -> None:
        """A step has ended: what it made goes out beside the next steps."""
        if outcome.layers and outcome.chain and outcome.chain[-1]:
            for early in self._early.values():
                early.add(node.digest, outcome.layers)

    def _send(self, place: Target, materials: Materials, codec: Codec, stack: tuple[Digest, ...]) -> Descriptor:
        """Gives a place the last of some layers, which is here."""
        blob = materials.blob(stack, len(stack) - 1, codec)
        place.place(blob, partial(self._world.store.blobs.open, blob.digest, blob.size))
        return blob

    def write(
        self, steps: Sequence[Step], targets: Sequence[Node], solver: Solver, materials: Materials, image: Descriptor
    ) -> None:
        """Puts the results of a build in its caches. Raises `registry.*`, `net.*`, `store.*`, `layout.*`, `cache.s3`."""
        if self.targets and solver.resumed:
            self._warn("a step went on from a failed state, so no cache is written", "cache.not-written", ())
            return
        for number, target in enumerate(self.targets):
            if number in self._lost:
                continue
            place = self._target(number, image)
            nodes = _nodes(steps, targets, is_whole=target.is_whole)
            try:
                with step(self._world.sink, self._world.take_numbers(), f"write cache {place}") as running:
                    mounts = pack(nodes, self._world) if target.with_mounts else None
                    results = _results(nodes, solver, materials)
                    running.note = self._write(
                        number, place, results, materials, _Parts((), (mounts,) if mounts else ())
                    )
            except AerogelError as error:
                if not target.may_fail:
                    raise
                self._warn(f"the cache `{place}` was not written: {error.message}", "cache.not-written", error.hints)

    def salvage(self, steps: Sequence[Step], targets: Sequence[Node], solver: Solver, materials: Materials) -> None:
        """After a build that failed: adds what its steps made to what its caches have. A fault here is a warning."""
        for number, place in self._places.items() if not solver.resumed else ():
            nodes = [
                node
                for node in _nodes(steps, targets, is_whole=self.targets[number].is_whole)
                if _is_made(node, solver)
            ]
            results = _results(nodes, solver, materials)
            try:
                kept = _kept(place)
                if {each.key for each in results} <= {each.key for each in kept.records}:
                    continue
                with step(self._world.sink, self._world.take_numbers(), f"write cache {place}") as running:
                    running.note = self._write(number, place, results, materials, kept)
            except AerogelError as error:
                self._warn(f"the cache `{place}` was not written: {error.message}", "cache.not-written", error.hints)

    def _write(self, number: int, place: Target, results: list[_Result], materials: Materials, more: _Parts) -> str:
        """`more` goes in as well: what the place has and is to keep, and what is in the store."""
        records = _records(results, more.records)
        blobs = self._blobs(number, place, results, materials)
        held = {blob.digest for blob in blobs}
        others = [blob for blob in more.blobs if blob.digest not in held]
        for blob in others:
            if self._world.store.blobs.has(blob.digest):
                place.place(blob, partial(self._world.store.blobs.open, blob.digest, blob.size))
        manifest = Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            artifact_type=CACHE_TYPE,
            subject=place.subject,
            config=Descriptor(media_type=RECORDS_TYPE, digest=digest_of(records), size=len(records)),
            layers=(*sorted(blobs, key=lambda blob: blob.annotations[LAYER]), *others),
        )
        place.finish(manifest, records)
        return f"{len(results)} results, {len(blobs)} layers, {sum(blob.size for blob in blobs)} bytes"

    def _blobs(self, number: int, place: Target, results: list[_Result], materials: Materials) -> list[Descriptor]:
        """The layers of the results, which the place has then."""
        stacks: dict[Digest, tuple[Digest, ...]] = {}
        for result in results:
            base = len(result.layers) - sum(1 for layer in result.chain if layer)
            for position in range(base, len(result.layers)):
                stacks.setdefault(result.layers[position], result.layers[: position + 1])
        early, codec = self._early.get(number), self.targets[number].codec or GZIP

        def put(layer: Digest, stack: tuple[Digest, ...]) -> Descriptor:
            there = next((each for each in materials.offers.of(layer) if place.home and each.home == place.home), None)
            if there is not None and not materials.is_stored(layer):
                # It came from there and nobody asked for it: there it stays.
                blob, size = there.blob, there.size
                place.place(blob, partial(_gone, place, layer))
            else:
                sent = early.sent(layer) if early is not None else None
                blob, size = sent or self._send(place, materials, codec, stack), materials.size(layer)
            annotations = {LAYER: str(layer), SIZE: str(size)}
            return Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, annotations=annotations)

        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="cache") as pool:
            return [future.result() for future in [pool.submit(put, *each) for each in stacks.items()]]


class _Result(msgspec.Struct, frozen=True):
    """A result to be written. `layers` are the base's and those of the chain."""

    key: Digest
    chain: tuple[str, ...]
    layers: tuple[Digest, ...]
    content: str = ""


class _Parts(msgspec.Struct, frozen=True):
    """Of a cache: results, and blobs with the annotations that they have there."""

    records: tuple[CacheRecord, ...] = ()
    blobs: tuple[Descriptor, ...] = ()


def _kept(place: Place) -> _Parts:
    """What a target has. Raises `cache.malformed` for something else, which a build that failed does not replace.

    That is so for an image, which may bring a cache of its own (`type=inline`) along.
    """
    try:
        manifest = parse_manifest(place.manifest(), str(place))
    except AerogelError as error:
        if error.code not in ("cache.missing", "registry.not-found"):
            raise
        return _Parts()
    if manifest.subject is not None:
        raise AerogelError(f"`{place}` is an image", code="cache.malformed")
    data = place.read(manifest.config)
    _known(data, str(place))
    return _Parts(msgspec.json.decode(data, type=CacheRecords).results, manifest.layers)


def _is_made(node: Node, solver: Solver) -> bool:
    """Whether a step has a result, in a build where others failed or were never begun."""
    try:
        return solver.peek(node) is not None
    except (AerogelError, CancelledError):
        return False


def bring(layers: Iterable[Digest], materials: Materials) -> None:
    """Sees to it that layers of a result are here, unless they are a base image's. Raises `cache.broken`."""
    materials.bring_all([layer for layer in layers if materials.offers.part(layer) is None])


def _known(data: bytes, origin: str) -> Known:
    """Raises `cache.malformed`."""
    prepare(CacheRecords)
    try:
        records = msgspec.json.decode(data, type=CacheRecords)
        if records.format != _FORMAT:
            raise AerogelError(f"its format is {records.format}, not {_FORMAT}", code="cache.malformed")
        for text in {text for each in records.results for text in (each.key, each.content, *each.chain)}:
            if text and not is_digest(text):
                raise AerogelError(f"`{text[:80]}` in its list of results is no digest", code="cache.malformed")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise AerogelError(f"its list of results is malformed: {error}", code="cache.malformed") from error
    chains = {each.key: each.chain for each in records.results}
    return Known(origin, chains, {each.key: Digest(each.content) for each in records.results if each.content})


def _layers(manifest: Manifest) -> Iterable[tuple[Digest, Descriptor, int]]:
    """The layers of a cache with the bytes of their tars; what is no layer is left out."""
    for blob in manifest.layers:
        diff_id, size = blob.annotations.get(LAYER, ""), blob.annotations.get(SIZE, "")
        if not is_digest(diff_id) or blob.media_type not in LAYER_TYPES or blob.urls:
            continue
        number = int(size) if size.isascii() and size.isdecimal() and len(size) < _DIGITS else 0
        yield Digest(diff_id), Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size), number


def _nodes(steps: Sequence[Step], targets: Sequence[Node], *, is_whole: bool) -> list[Node]:
    """The nodes whose results are written, each once."""
    found = {}
    chosen: list[Node] = [step.node for step in steps] if is_whole else []
    for target in () if is_whole else targets:
        current: Node | None = target
        while current is not None:
            chosen.append(current)
            current = current.root
    for node in chosen:
        if not isinstance(node.op, Base):
            found[node.digest] = node
    return list(found.values())


def _results(nodes: Sequence[Node], solver: Solver, materials: Materials) -> list[_Result]:
    """What is known of the nodes, under both of their keys; results whose layers cannot be had are left out."""
    actions = materials.store.actions
    found: dict[Digest, _Result] = {}

    def add(key: Digest, result: dict[str, Any], content: str) -> None:
        layers = tuple(Digest(each) for each in result["layers"])
        if key not in found and "chain" in result and all(map(materials.is_here, layers)):
            found[key] = _Result(key, tuple(result["chain"]), layers, content)

    for node in nodes:
        outcome = solver.peek(node)
        key = solver.key(node)
        record = actions.record(key)
        content = str((record or {}).get("facts", {}).get("content") or "")
        if outcome is not None:
            add(key, {"layers": outcome.layers, "chain": outcome.chain}, content)
        kept = actions.record(Digest(content)) if content else None
        if content and kept is not None:
            add(Digest(content), kept["result"], "")
    return list(found.values())


def _records(results: Sequence[_Result], more: Sequence[CacheRecord] = ()) -> bytes:
    found = {each.key: each for each in more}
    found |= {each.key: CacheRecord(each.key, each.chain, each.content) for each in results}
    return msgspec.json.encode(CacheRecords(_FORMAT, tuple(found[key] for key in sorted(found))))


def _broken(place: Target, layer: Digest, why: str) -> AerogelError:
    return AerogelError(
        f"the cache `{place}` does not have the layer `{short(layer)}` that it promises: {why}",
        code=BROKEN,
        detail=str(place),
    )


def _gone(place: Target, layer: Digest) -> BinaryIO:
    raise _broken(place, layer, "it is gone")
