"""A Debian archive as this run sees it: verified Release files, package indexes and .deb files, all cached.

For: everything that comes from a mirror. A suite's `InRelease` is checked against the trusted keys, every index
against `InRelease`, every .deb against its index; nothing else makes a byte acceptable. Not for: deciding which
packages are wanted (`resolve`) or unpacking (`deb`).

The cache; files appear by rename, so readers need no lock::

    <cache>/
    ├── releases-v1/<suite>         the last verified InRelease, and where it came from
    ├── indexes-v1/<sha256>         `index.write_index` of the Packages text with that digest
    ├── debs-v1/<aa>/<sha256>.deb   verified packages
    └── partial/<sha256>            a download that was cut; flock'ed while somebody writes it

Spec: Debian repository format; apt-secure(8).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from aerogel.debian.cache import Cache, unpacked, wrong_in_folder
from aerogel.debian.index import PackageIndex, write_index
from aerogel.debian.keyring import Keyring
from aerogel.debian.mirror import Place, Sources, snapshot_time
from aerogel.debian.package import Package
from aerogel.debian.progress import Meter
from aerogel.debian.release import IndexFile, Release, check_release, parse_release
from aerogel.debian.transport import fetch_file, read_url, root_url
from aerogel.errors import EXIT_NETWORK, AerogelError, Diagnostic
from aerogel.events import NullSink, Progress, Sink, Warned
from aerogel.net.fault import HttpError
from aerogel.net.http import Http
from aerogel.net.proxy import redact

__all__ = ["Archive", "Seen"]

_RELEASE_LIMIT = 16 << 20
_SKEW_WAITS_S = (1.0, 3.0)
"""Pauses before an index that does not match is asked for again: mirrors are out of step for moments only."""
_ABSENT = frozenset({401, 403, 404, 410})
_SHA256 = re.compile("[0-9a-f]{64}")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Seen:
    """The Release files that a run goes by, so that all that it composes is of one state of each suite."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.releases: dict[str, Release] = {}


class Archive:
    """Access to one set of places; to be shared by the threads of a run.

    `refresh` asks the mirror for a new `InRelease` even if the cached one is still valid; `offline` never asks and
    takes what is cached, expired or not. `allow_expired` accepts any date. `is_locked`: the digests of packages come from
    a lock, so they are fetched without asking for a signature first; `vendor` is a folder of .deb files that is looked
    into before; a damaged one there is an error, or with `mends_vendored` passed over. `snapshot` is the moment of which
    the places are: signatures must have been valid then. `prefix` stands before the names of suites in packages, for
    archives that are not Debian's. `step` is whose progress the fetching of indexes is. `now` gives seconds since 1970.
    """

    def __init__(
        self,
        sources: Sources,
        cache: Path,
        http: Http,
        *,
        keyring: Keyring | None = None,
        sink: Sink | None = None,
        refresh: bool = False,
        offline: bool = False,
        allow_expired: bool = False,
        is_locked: bool = False,
        vendor: Path | None = None,
        mends_vendored: bool = False,
        prefix: str = "",
        snapshot: str = "",
        seen: Seen | None = None,
        jobs: int = 8,
        step: int = 0,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._sources = sources
        self._cache = Cache(cache, snapshot)
        self._http = http
        self._keyring = keyring or Keyring.shipped()
        self._sink = sink or NullSink()
        self._refresh = refresh
        self._offline = offline
        self._allow_expired = allow_expired
        self._is_locked = is_locked
        self._vendor = vendor
        self._mends_vendored = mends_vendored
        self._prefix = prefix
        self._jobs = jobs
        self._step = step
        self._snapshot = snapshot
        self._now: Callable[[], float] = partial(snapshot_time, snapshot) if snapshot else now
        self._sleep = sleep
        seen = seen or Seen()
        self._lock, self._releases = seen.lock, seen.releases
        self._indexes: dict[tuple[str, str, str], PackageIndex] = {}

    def trust_locked(self) -> None:
        """From here on the digests of packages come from a lock."""
        self._is_locked = True

    def uri(self, suite: str) -> str:
        """The archive root that serves a suite."""
        return self.release(suite).uri

    def release(self, suite: str) -> Release:
        """The verified Release file of a suite; asked for once per run.

        Raises:
            AerogelError: `debian.signature`, `debian.wrong-suite`, `debian.expired`, `debian.future`,
                `debian.release`, `debian.no-suite`, `debian.offline`, `net.*`.
        """
        with self._lock:
            found = self._releases.get(suite)
            if found is None:
                if not _SUITE.fullmatch(suite):
                    raise AerogelError(
                        f"`{suite}` is no name of a Debian suite",
                        code="debian.suite",
                        hints=["suites are called `trixie`, `trixie-updates`, `trixie-security`"],
                    )
                found = self._releases[suite] = self._find_release(suite, force=self._refresh)
            return found

    def _find_release(self, suite: str, *, force: bool) -> Release:
        cached = self._cached_release(suite)
        if self._offline:
            if cached is None:
                raise _offline(f"the Release file of `{suite}`")
            return cached
        if cached is not None and not force and self._is_current(cached):
            return cached
        found, data = self._fetch_release(suite)
        if cached is not None and found.date < cached.date and self._is_current(cached):
            self._warn(
                f"`{redact(found.uri)}` serves an older `{suite}` than was seen before: the newer one is kept",
                "debian.older-release",
            )
            return cached
        self._cache.save_release(suite, _origin(found.uri), data)
        return found

    def _is_current(self, release: Release) -> bool:
        return self._allow_expired or not (0 < release.valid_until < self._now())

    def _cached_release(self, suite: str) -> Release | None:
        """The cached file, if it still verifies and is from a place that this run would ask."""
        saved = self._cache.load_release(suite)
        if saved is None:
            return None
        origin, data = saved
        place = next((place for place in self._sources.places(suite) if _origin(place.uri) == origin), None)
        if place is None:
            return None
        try:
            return self._verified(place, suite, data, allow_expired=True)
        except AerogelError:
            return None  # a key was withdrawn, or the file is damaged: a new one is fetched

    def _verified(self, place: Place, suite: str, data: bytes, *, allow_expired: bool) -> Release:
        name = redact(_release_url(place.uri, suite))
        signed = self._keyring.verify(data, name, place.keys)
        release = parse_release(
            signed.text,
            asked=suite,
            uri=place.uri,
            sha256=hashlib.sha256(data).hexdigest(),
            signers=signed.signers,
        )
        try:
            check_release(release, name, self._now(), allow_expired=allow_expired)
        except AerogelError as error:
            if self._snapshot and error.code != "debian.wrong-suite":
                error.hints = (f"seen from the snapshot {self._snapshot}: choose another moment",)
            raise
        if release.origin != "Debian" and place.origin != "option":
            raise AerogelError(f"`{name}` is an archive of `{release.origin}`, not of Debian", code="debian.no-suite")
        return release

    def _fetch_release(self, suite: str) -> tuple[Release, bytes]:
        faults: list[AerogelError] = []
        for place in self._sources.places(suite):
            url = _release_url(place.uri, suite)
            try:
                label = f"Release file of {suite}"
                self._sink.emit(Progress(self._step, label, 0, 0))
                data = read_url(self._http, url, _RELEASE_LIMIT)
                self._sink.emit(Progress(self._step, label, len(data), len(data)))
                release = self._verified(place, suite, data, allow_expired=self._allow_expired)
            except AerogelError as error:
                faults.append(error)
                continue
            for fault in faults:
                if not isinstance(fault, HttpError) and fault.code != "debian.no-suite":
                    self._warn(f"{fault.message}; `{redact(place.uri)}` is used instead", fault.code)
            return release, data
        raise _no_release(suite, faults, self._sources.skipped)

    def index(self, suite: str, component: str = "main", arch: str = "amd64") -> PackageIndex:
        """The packages of a suite for an architecture (those for all architectures included).

        Raises:
            AerogelError: what `release` raises; `debian.no-architecture`, `debian.mirror-skew`,
                `debian.index-missing`, `debian.index`.
        """
        key = (suite, component, arch)
        found = self._indexes.get(key)
        if found is None:
            found = self._indexes[key] = self._find_index(suite, component, arch)
        return found

    def indexes(
        self, suites: Sequence[str], components: Sequence[str] = ("main",), arch: str = "amd64"
    ) -> list[PackageIndex]:
        """All indexes of several suites, fetched at the same time.

        The first suite must have the architecture; another that has not is left out with a warning, because ports
        lose updates and security support before they leave the archive.
        """
        from concurrent.futures import ThreadPoolExecutor

        wanted = [(suite, component) for suite in suites for component in components]
        found: list[PackageIndex] = []
        with ThreadPoolExecutor(max(1, min(4, len(wanted)))) as pool:
            futures = [pool.submit(self.index, suite, component, arch) for suite, component in wanted]
            for (suite, _), future in zip(wanted, futures, strict=True):
                try:
                    found.append(future.result())
                except AerogelError as error:
                    if error.code != "debian.no-architecture" or suite == suites[0]:
                        raise
                    self._warn(error.message, error.code)
        return found

    def _find_index(self, suite: str, component: str, arch: str) -> PackageIndex:
        release = self.release(suite)
        for wait_s in (*_SKEW_WAITS_S, None):
            variants = release.packages_files(component, arch)
            if not variants:
                raise _no_architecture(release, component, arch)
            key = min(variants, key=lambda file: len(file.path)).sha256  # of the plain text, whoever compressed it
            label = self._prefix + suite
            found = self._cache.load_index(key, suite=label, component=component, arch=arch)
            if found is not None:
                return found
            if self._offline:
                raise _offline(f"the package index of `{suite}` for {arch}")
            try:
                self._make_index(release, variants, key, f"{suite} {arch}")
            except AerogelError as error:
                if error.code not in ("debian.mirror-skew", "debian.index-missing") or wait_s is None:
                    raise
                release = self._renewed(release, wait_s)
            else:
                found = self._cache.load_index(key, suite=label, component=component, arch=arch)
                assert found is not None  # written a moment ago
                return found
        raise AssertionError("unreachable")

    def _renewed(self, release: Release, wait_s: float) -> Release:
        """A new Release file after a mismatch: the mirror may have been updated since, or be in the middle of it."""
        with self._lock:
            known = self._releases[release.asked]
            if known.sha256 != release.sha256:
                return known
            found = self._find_release(release.asked, force=True)
            if found.sha256 == release.sha256:
                self._sleep(wait_s)
                found = self._find_release(release.asked, force=True)
            self._releases[release.asked] = found
            return found

    def _make_index(self, release: Release, variants: Sequence[IndexFile], key: str, label: str) -> None:
        meter = Meter(self._sink, self._step, f"package index of {label}", variants[0].size)
        with self._cache.scratch() as path:
            chosen = self._download_index(release, variants, path, meter)
            name = redact(_file_url(release.uri, release.asked, chosen.path))
            limit = next((file.size for file in variants if file.path.endswith("/Packages")), 2 << 30)
            with self._cache.scratch() as made:
                with open(made, "wb") as out:
                    write_index(unpacked(path, chosen.path, limit, name), out, name)
                self._cache.keep_index(made, key)

    def _download_index(self, release: Release, variants: Sequence[IndexFile], path: Path, meter: Meter) -> IndexFile:
        """Tries each variant by its digest, then by its name; returns the one that matched."""
        wrong: list[str] = []
        for file in variants:
            folder = file.path.rpartition("/")[0]
            names = [f"{folder}/by-hash/SHA256/{file.sha256}"] if release.by_hash else []
            for name in [*names, file.path]:
                url = _file_url(release.uri, release.asked, name)
                try:
                    found = fetch_file(self._http, url, path, limit=4 * file.size + (1 << 20), on_bytes=meter.add)
                except HttpError as error:
                    if error.status in _ABSENT or error.code == "net.too-large":
                        if error.code == "net.too-large":
                            wrong.append(f"{redact(url)}: expected {file.size} bytes, found many more")
                        continue
                    raise
                if found == file.sha256:
                    return file
                wrong.append(
                    f"{redact(url)}\n  expected sha256:{file.sha256} ({file.size} bytes)\n  found    sha256:{found}"
                )
                meter.reset()
        path_name = variants[0].path
        if not wrong:
            raise AerogelError(
                f"`{redact(release.uri)}` has no `{path_name}` of `{release.asked}`, though its InRelease names it",
                code="debian.index-missing",
                hints=["the mirror is incomplete; use another mirror with `--mirror`"],
                exit_status=EXIT_NETWORK,
                temporary=True,
            )
        raise AerogelError(
            f"`{path_name}` of `{release.asked}` does not match the signed InRelease",
            code="debian.mirror-skew",
            detail="\n".join(wrong),
            hints=["the mirror is out of step with itself, or the file was changed; try later, or use another mirror"],
            exit_status=EXIT_NETWORK,
            temporary=True,
        )

    def fetch(self, package: Package, on_bytes: Callable[[int], object] | None = None) -> Path:
        """The verified .deb in the cache, downloaded if it is not there; its digest is checked in any case.

        Raises:
            AerogelError: `debian.deb-digest`, `debian.deb-missing`, `debian.offline`, `base.digest`, `net.*`.
        """
        if not _SHA256.fullmatch(package.sha256):  # it names files of the cache
            raise AerogelError(f"`{package.sha256[:80]}` of `{package}` is no SHA-256 digest", code="debian.index")
        path = self._cache.deb(package.sha256)
        if path is not None:
            if on_bytes is not None:
                on_bytes(package.size)
            return path
        if self._vendor is not None and self._take_vendored(package):
            return self.fetch(package, on_bytes)
        if self._offline:
            raise _offline(f"`{package}`")
        if package.filename.startswith("/") or ".." in package.filename.split("/"):
            raise AerogelError(f"the index has no usable file name for `{package}`", code="debian.index")
        with self._cache.partial(package.sha256) as partial:
            path = self._cache.deb(package.sha256)  # somebody else may have brought it meanwhile
            if path is None:
                self._download_deb(package, partial, on_bytes)
                path = self._cache.keep_deb(partial, package.sha256)
            return path

    def _take_vendored(self, package: Package) -> bool:
        """Copies a .deb of the vendored folder into the cache, if it is there. Raises `base.digest` if it is another one."""
        assert self._vendor is not None
        names = (f"{package.sha256}.deb", os.path.basename(package.filename))
        path = next((path for name in names if os.path.lexists(path := self._vendor / name)), None)
        if path is None:
            return False
        with self._cache.scratch() as scratch:
            try:
                digest = fetch_file(self._http, f"file:{quote(str(path))}", scratch, limit=package.size)
                found = f"sha256:{digest}"
            except HttpError as error:
                found = error.message  # a folder, or a file that may not be read
            if found == package.digest:
                self._cache.keep_deb(scratch, package.sha256)
                return True
        if self._mends_vendored:
            return False
        raise wrong_in_folder(path, package.sha256, found)

    def _roots(self, suite: str) -> list[str]:
        """Archive roots that may have a package of a suite: the one whose signed index named it, or for a lock any."""
        name = suite.removeprefix(self._prefix)
        return [place.uri for place in self._sources.places(name)] if self._is_locked else [self.uri(name)]

    def _download_deb(self, package: Package, partial: Path, on_bytes: Callable[[int], object] | None) -> None:
        faults: list[AerogelError] = []
        for root in self._roots(package.suite):
            try:
                if faults:
                    os.truncate(partial, 0)
                self._download_from(root, package, partial, on_bytes)
                return
            except AerogelError as error:
                faults.append(error)
        raise _telling(faults)

    def _download_from(
        self, root: str, package: Package, partial: Path, on_bytes: Callable[[int], object] | None
    ) -> None:
        url = root_url(root, package.filename)
        found = ""
        for resume in (True, False):
            continued = resume and partial.stat().st_size > 0
            try:
                found = fetch_file(
                    self._http, url, partial, limit=package.size + (1 << 20), resume=resume, on_bytes=on_bytes
                )
            except HttpError as error:
                if error.status in _ABSENT:
                    raise AerogelError(
                        f"the mirror has no `{package}` any more: {error.message}",
                        code="debian.deb-missing",
                        hints=[
                            "the lock is older than what the mirror keeps: `aerogel base update` moves it on; "
                            "`aerogel base vendor` keeps packages beside a lock"
                            if self._is_locked
                            else "the cached index is older than the mirror: build again with `--pull`"
                        ],
                        exit_status=EXIT_NETWORK,
                    ) from None
                raise
            if found == package.sha256:
                return
            if on_bytes is not None:
                on_bytes(-partial.stat().st_size)
            if not continued:
                break
        size = partial.stat().st_size
        os.truncate(partial, 0)
        raise AerogelError(
            f"`{os.path.basename(package.filename)}` is not the file that the signed index describes",
            code="debian.deb-digest",
            detail=f"{redact(url)}\n  expected sha256:{package.sha256} ({package.size} bytes)\n"
            f"  found    sha256:{found} ({size} bytes)",
            hints=["the mirror, a proxy or somebody between has changed it; try again, or use another mirror"],
            exit_status=EXIT_NETWORK,
        )

    def fetch_all(self, packages: Sequence[Package], *, step: int = 0, label: str = "") -> list[Path]:
        """The .deb files of several packages, in their order, downloaded at the same time with progress of `step`.

        Raises:
            AerogelError: the first fault; what was complete stays in the cache.
        """
        from concurrent.futures import ThreadPoolExecutor

        meter = Meter(self._sink, step, label or f"{len(packages)} packages", sum(each.size for each in packages))
        pool = ThreadPoolExecutor(max(1, min(self._jobs, len(packages))))
        try:
            futures = [pool.submit(self.fetch, package, meter.add) for package in packages]
            paths = [future.result() for future in futures]
        except BaseException:
            meter.cancel()  # what still runs ends with its next piece
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        meter.done()
        return paths

    def _warn(self, text: str, code: str) -> None:
        self._sink.emit(Warned(Diagnostic(text, code=code)))


def _origin(uri: str) -> str:
    """What the cache remembers of a root: not the address, which may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()


def _release_url(uri: str, suite: str) -> str:
    return _file_url(uri, suite, "InRelease")


def _file_url(uri: str, suite: str, path: str) -> str:
    return root_url(uri, f"dists/{suite}/{path}")


def _offline(what: str) -> AerogelError:
    return AerogelError(
        f"{what} is not in the cache, and no mirror may be asked",
        code="debian.offline",
        hints=["run once without `--offline`"],
        exit_status=EXIT_NETWORK,
    )


def _no_architecture(release: Release, component: str, arch: str) -> AerogelError:
    if release.components and not any(component in name.split("/") for name in release.components):
        what, known = f"component `{component}`", ", ".join(release.components)
    else:
        known = ", ".join(name for name in release.architectures if name != "all")
        what = f"packages for {arch}"
    return AerogelError(f"`{release.asked}` has no {what}", code="debian.no-architecture", hints=[f"it has: {known}"])


def _telling(faults: Sequence[AerogelError]) -> AerogelError:
    """Of what several places said about one file: a wrong file counts more than one that is gone, and that more than
    a place that is down; the others are told below.
    """
    ranks = {"debian.deb-digest": 0, "debian.deb-missing": 1}
    first = min(faults, key=lambda error: ranks.get(error.code, 2))
    others = [error.message for error in faults if error is not first]
    first.detail = "\n".join([*filter(None, [first.detail]), *others])
    return first


def _no_release(suite: str, faults: Sequence[AerogelError], skipped: Sequence[str]) -> AerogelError:
    """The one error for a suite that no place served: a lie counts more than a place that is down."""
    lies = [error for error in faults if not isinstance(error, HttpError) and error.code != "debian.no-suite"]
    down = [error for error in faults if isinstance(error, HttpError) and error.status not in _ABSENT]
    left_out = [f"apt source not used: {note}" for note in skipped]
    hint = "name a mirror with `--mirror` or the setting `AEROGEL_DEBIAN_MIRROR`"
    if lies or down:
        first = (lies or down)[0]
        others = [error.message for error in faults if error is not first]
        return AerogelError(
            first.message,
            code=first.code,
            detail="\n".join([*filter(None, [first.detail]), *others, *left_out]),
            hints=[*first.hints, hint],
            exit_status=EXIT_NETWORK,
            temporary=first.temporary,
        )
    return AerogelError(
        f"no mirror serves the Debian suite `{suite}`",
        code="debian.no-suite",
        detail="\n".join([*(error.message for error in faults), *left_out]),
        hints=["check the suite's name", hint],
        exit_status=EXIT_NETWORK,
    )
