"""Registries for commands: the client of a run, and images on their way from a registry into the store.

Here the two meet that do not know each other: `registry` and `store`. Blobs come in parallel, each checked before it
has a name in the store; the image gets its name when all of it is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from aerogel.commands.transport import http_client
from aerogel.commands.world import World
from aerogel.errors import EXIT_INTERRUPTED, EXIT_NETWORK, AerogelError
from aerogel.events import Message, Progress, Sink, step
from aerogel.oci.digest import Digest
from aerogel.oci.image import Image, document, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest, decode
from aerogel.registry.client import Registries, Repository, RepositoryBlobs
from aerogel.registry.credentials import Credentials
from aerogel.registry.host_files import HostFiles, OwnHost
from aerogel.registry.referrers import list_referrers
from aerogel.settings import Settings
from aerogel.store.images import describe
from aerogel.store.store import Store

__all__ = [
    "PARALLEL",
    "Meter",
    "Pulled",
    "bring_blobs",
    "check_platform",
    "credentials",
    "in_parallel",
    "index_images",
    "keep_image",
    "open_registries",
    "pull_image",
    "pull_referrers",
    "stored_by_digest",
]

PARALLEL = 4
"""Blobs that move at the same time."""

_SETTLE = 8 << 20
"""Bytes of a blob after which the medium may begin with them."""


def open_registries(world: World, insecure: Iterable[str] = ()) -> Registries:
    """The client with the settings' proxies, certificates, credentials and insecure registries; the caller closes.

    `insecure` are more registries that may be spoken to without TLS.
    """
    insecure = {*insecure, *(name.strip() for name in world.settings.insecure_registry.split(","))} - {""}
    return Registries(
        http_client(world),
        credentials(world),
        hosts=_host_files(world.settings).load(frozenset(insecure)),
        on_secret=world.redactor.add,
        clock=_clock,
        tell=lambda text: world.sink.emit(Message(text)),
    )


def _host_files(settings: Settings) -> HostFiles:
    """Where the user's files say how registries are asked."""

    def beside(path: Path, name: str) -> str:
        return str(path.parent / name) if name else ""

    conf, drop_ins = settings.registries_conf
    return HostFiles(
        own={
            registry: OwnHost(
                mirrors=tuple(entry.mirrors),
                insecure=entry.insecure,
                blocked=entry.blocked,
                ca=beside(path, entry.ca),
                client_cert=beside(path, entry.client_cert),
                client_key=beside(path, entry.client_key),
                headers=tuple(entry.headers.items()),
                where=str(path),
            )
            for registry, (entry, path) in settings.registries.items()
        },
        conf=conf,
        drop_ins=drop_ins,
        hosts=settings.host_folders,
        certificates=settings.certificate_folders,
    )


def _clock() -> float:
    import time

    return time.monotonic()


def credentials(world: World) -> Credentials:
    """What docker's and podman's files say."""
    settings = world.settings
    return Credentials(settings.auth_files, settings.environment, on_secret=world.redactor.add)


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is in the store now. `served` is what its name meant at the registry, maybe an index."""

    reference: Reference
    image: Image
    served: Descriptor
    size: int
    """Bytes that came."""


class Meter:
    """Counts the bytes of parallel transfers into progress events, for all and for each blob; `cancel` makes them stop."""

    def __init__(self, sink: Sink, number: int, label: str, total: int) -> None:
        self._sink = sink
        self._number = number
        self._label = label
        self._total = total
        self._lock = threading.Lock()
        self._shown = 0
        self._is_canceled = False
        self.done = 0

    def add(self, count: int) -> None:
        """Raises `registry.canceled` when another transfer has failed."""
        with self._lock:
            if self._is_canceled:
                raise AerogelError("the transfer was given up", code="registry.canceled", exit_status=EXIT_INTERRUPTED)
            self.done += count
            if abs(self.done - self._shown) < max(1 << 18, self._total // 100) and self.done != self._total:
                return
            self._shown = self.done
            self._sink.emit(Progress(self._number, self._label, self.done, self._total))

    def of(self, blob: Descriptor) -> Callable[[int], None]:
        """What counts the bytes of one blob, and so of all; it may go back."""
        done = shown = 0

        def add(count: int) -> None:
            nonlocal done, shown
            self.add(count)
            done += count
            if abs(done - shown) >= max(1 << 18, blob.size // 100) or done == blob.size:
                shown = done
                self._sink.emit(Progress(self._number, self._label, done, blob.size, blob=blob.digest))

        return add

    def cancel(self) -> None:
        with self._lock:
            self._is_canceled = True


def pull_image(
    world: World,
    registries: Registries,
    reference: Reference,
    platform: Platform,
    *,
    number: int = 1,
) -> Pulled:
    """Brings one image into the store, under its name if it has a tag and no digest. `number` is the step's.

    Each blob is checked by its digest. What a layer holds is looked at when it is first needed, and compared with the
    image's config then: to unpack everything twice would take most of the time of a pull.

    Raises `registry.*`, `net.*`, `oci.*` (`oci.platform-missing`), `policy.*`, `store.*`.
    """
    from aerogel.commands.policy import enforce

    store = world.store
    repository = registries.repository(reference)
    with step(world.sink, number, f"pull {reference.familiar()}") as running:
        source = repository.blobs()
        served = source.resolve(reference)
        remote = load(served, source, platform)
        check_platform(remote, reference.familiar(), platform)
        enforce(world, repository, reference, served.digest, remote.digest)
        size = bring_blobs(world, repository, (layer.descriptor for layer in remote.layers()), number)
        image = keep_image(store, reference, remote, served, source)
        if not size:
            running.note = "all layers are here"
    return Pulled(reference=reference, image=image, served=served, size=size)


def bring_blobs(world: World, repository: Repository, blobs: Iterable[Descriptor], number: int) -> int:
    """Brings what the store lacks of the blobs, each checked by its digest; the bytes that had to come.

    They have no name there. `number` is the step's. Raises `registry.*`, `net.*`, `store.*`.
    """
    wanted = [blob for blob in {blob.digest: blob for blob in blobs}.values() if _is_wanted(blob, world.store)]
    size = sum(blob.size for blob in wanted)
    meter = Meter(world.sink, number, repository.name, size)
    in_parallel((partial(_fetch, blob, repository, world.store, meter) for blob in wanted), meter)
    return size


def keep_image(store: Store, reference: Reference, remote: Image, served: Descriptor, source: RepositoryBlobs) -> Image:
    """Puts the documents of an image into the store, under its name if it has a tag and no digest; the image there.

    `served` is what the registry gave for the name: the manifest of the image or an index of it.
    """
    store.blobs.put(remote.config_bytes)
    store.blobs.put(remote.manifest_bytes)
    if served.digest != remote.digest:
        store.blobs.put(source.read(served.digest))
    image = msgspec.structs.replace(remote, blobs=store.blobs)
    meta = describe(image.descriptor, store.blobs)
    if reference.digest is None:
        store.images.tag(reference, image.descriptor, meta, beside=index_images(served, source))
    else:
        store.images.add(image.descriptor, meta)
    return image


def pull_referrers(world: World, registries: Registries, pulled: Pulled, *, number: int = 1) -> tuple[Descriptor, ...]:
    """Brings what the registry lists as referring to an image that is in the store now; they belong to it then.

    What refers to the index that its name means is brought too, and stays as long as the image does. Raises `registry.*`
    (`registry.bad-referrer`), `net.*`, `oci.*`, `store.*`.
    """
    repository = registries.repository(pulled.reference)
    found: list[Descriptor] = []
    with step(world.sink, number, f"pull what refers to {pulled.reference.familiar()}") as running:
        for subject in dict.fromkeys((pulled.image.digest, pulled.served.digest)):
            for artifact in list_referrers(repository, subject):
                _take_referrer(world, repository, subject, artifact, number)
                found.append(artifact)
        running.note = f"{len(found)} artifacts" if len(found) != 1 else "1 artifact"
    return tuple(found)


def _take_referrer(world: World, repository: Repository, subject: Digest, artifact: Descriptor, number: int) -> None:
    store = world.store
    name = Reference(repository.endpoint.registry, repository.name, None, artifact.digest)
    source = repository.blobs()
    data = source.read(source.resolve(name).digest)
    what = f"artifact `{artifact.digest}`"
    is_index = artifact.media_type in INDEX_TYPES
    told = decode(data, Index, what=what).subject if is_index else decode(data, Manifest, what=what).subject
    if told is None or told.digest != subject:
        raise AerogelError(
            f"the registry lists `{artifact.digest}` for `{subject}`, which it does not refer to",
            code="registry.bad-referrer",
            exit_status=EXIT_NETWORK,
            hints=["pull the image without `--referrers`, and tell who runs the registry"],
        )
    parts = walk(artifact, source)
    bring_blobs(world, repository, (part for part in parts if not _is_document(part)), number)
    for part in parts:
        if _is_document(part):
            store.blobs.put(source.read(part.digest, part.size))
    store.referrers.add(subject, artifact)


def _is_document(part: Descriptor) -> bool:
    return part.media_type in INDEX_TYPES or part.media_type in MANIFEST_TYPES


def index_images(served: Descriptor, source: RepositoryBlobs) -> frozenset[Digest]:
    """The images of the index that a name means; none when it means one image."""
    found, _ = document(served, source)
    return frozenset(each.digest for each in found.manifests) if isinstance(found, Index) else frozenset()


def in_parallel(jobs: Iterable[Callable[[], object]], meter: Meter) -> None:
    """Runs the jobs on a few threads; the first fault stops the others and is raised."""
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(max_workers=PARALLEL, thread_name_prefix="blob") as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            done = wait(futures, return_when=FIRST_EXCEPTION).done
            faults = [fault for fault in (future.exception() for future in done) if fault is not None]
            if faults:
                raise faults[0]
        except BaseException:
            meter.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_wanted(blob: Descriptor, store: Store) -> bool:
    """Foreign layers (`urls`) lie elsewhere; what is here is not fetched again."""
    return not blob.urls and store.blobs.size(blob.digest) != blob.size


def _fetch(blob: Descriptor, repository: Repository, store: Store, meter: Meter) -> None:
    count, unsettled = meter.of(blob), 0

    def add(number: int) -> None:
        nonlocal unsettled
        count(number)
        unsettled += number
        if unsettled >= _SETTLE:
            unsettled = 0
            writer.settle()

    with store.once(f"blob-{blob.digest}"):
        if not _is_wanted(blob, store):
            count(blob.size)  # another process has brought it meanwhile
            return
        with store.blobs.resume(blob.digest) as writer:
            try:
                with os.fdopen(os.dup(writer.fd), "r+b", buffering=0) as file:
                    repository.fetch(blob.digest, blob.size, cast("BinaryIO", file), on_bytes=add)
            except (AerogelError, KeyboardInterrupt) as error:
                writer.is_kept = _may_go_on(error)
                raise
            writer.commit(blob.digest, blob.size)
        store.blobs.sync([blob.digest])  # the medium takes it while others still come


def _may_go_on(error: BaseException) -> bool:
    """Whether what has come of a blob is of use to the next pull: not when it is wrong, gone, or the disk is full."""
    code = error.code if isinstance(error, AerogelError) else "net."
    useless = ("registry.digest-mismatch", "registry.not-found", "net.size-mismatch", "net.too-large")
    return code.startswith(("net.", "registry.")) and code not in useless


def check_platform(image: Image, name: str, platform: Platform) -> None:
    """Raises `oci.platform-missing` for an image of one platform, which another one was asked of."""
    found = image.config.platform
    if found.architecture and not platform.matches(found):
        raise AerogelError(
            f"image `{name}` is for `{found.normal()}`, not for `{platform}`",
            code="oci.platform-missing",
            hints=[f"take it as it is with `--platform {found.normal()}`"],
        )


def stored_by_digest(store: Store, reference: Reference, platform: Platform) -> Descriptor | None:
    """The image that an index of the store, named by its digest, has for a platform; None when it is not here."""
    digest = reference.digest
    size = None if digest is None else store.blobs.size(digest)
    if digest is None or size is None:
        return None
    with suppress(AerogelError):
        image = load(Descriptor(digest=digest, size=size), store.blobs, platform)
        here, origins = store.blobs.has, store.origins.of
        if all(layer.urls or here(layer.digest) or origins(layer.digest) for layer in image.manifest.layers):
            return image.descriptor
    return None
