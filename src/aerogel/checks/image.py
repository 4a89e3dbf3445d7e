"""Whether what a build added can run on what is below it: libraries, their versions, the machine, data that programs need.

Only files that the build added are judged: programs, and Python's extension modules. A library counts as there when a
file of its name is anywhere in the image: programs have many ways to be told where. A plugin that nobody loads is not
judged. `docs/lint/` has a page for each rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from aerogel.checks.dynamic import Dynamic
from aerogel.checks.sonames import package_of
from aerogel.errors import AerogelError
from aerogel.files.entry import DIR, REG, Entry
from aerogel.files.tree import LayerTree
from aerogel.oci.types import ContainerConfig

__all__ = ["Found", "Subject", "check_image", "is_candidate", "is_python_module"]

_MACHINES = {3: "386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
_DEBIAN = {"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}
"""Debian's names of architectures that have another one."""
_ALSO = {"amd64": "386", "arm64": "arm"}
_MODULE = re.compile(rb"\.(?:cpython-3(\d+)[^/.]*|abi3)\.so$")
_PACKAGES = re.compile(rb"(?:^|.*/)lib/python3\.(\d+)/(?:site|dist)-packages/")
_PYTHON = re.compile(rb"python3\.(\d+)")
_TLS = re.compile(r"lib(?:ssl|gnutls|curl|curl-gnutls)\.so\.\d+")
_NUMBERS = re.compile(r"\d+")
_BUNDLES = (
    b"etc/ssl/certs/ca-certificates.crt",
    b"etc/ssl/cert.pem",
    b"etc/ssl/ca-bundle.pem",
    b"etc/pki/tls/certs/ca-bundle.crt",
    b"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    b"usr/lib/ssl/cert.pem",
    b"usr/local/share/certs/ca-root-nss.crt",
)
_ZONES = b"usr/share/zoneinfo"
_GO_TLS = b"crypto/x509.loadSystemRoots"
_GO_ZONES = b"time.LoadLocation"
_GO_OWN_ZONES = b"time/tzdata."
_GO = (_GO_TLS, _GO_ZONES, _GO_OWN_ZONES)
_DEBIAN = {"2.31": "11", "2.36": "12", "2.41": "13"}
"""The C library of Debian's releases."""


class Found(NamedTuple):
    """One fault. `path` is the file that shows it, whose layer says which instruction is meant."""

    rule: str
    message: str
    path: bytes
    hints: tuple[str, ...] = ()


class Subject(NamedTuple):
    """A finished image. `dynamic` has the ELF files of the layers from `base` on; `given` reads one of any layer.

    `linked` says which of some functions a program of Go has; None for others. `release` is the release of Debian whose
    packages hints name. `started` are the programs that ENTRYPOINT or CMD names: others judge whether those can start.
    """

    tree: LayerTree
    config: ContainerConfig
    architecture: str
    base: int
    dynamic: Mapping[bytes, Dynamic]
    given: Callable[[bytes], Dynamic | None]
    linked: Callable[[bytes, tuple[bytes, ...]], frozenset[bytes] | None]
    release: str = "13"
    base_name: str = ""
    """What FROM says."""
    started: frozenset[bytes] = frozenset()


def is_candidate(entry: Entry) -> bool:
    """Whether a file may be an ELF file that matters."""
    return entry.kind == REG and entry.size >= 64 and (bool(entry.mode & 0o111) or b".so" in entry.path)


def is_python_module(path: bytes) -> bool:
    """Whether a file is a module in C that Python would import; wheels and their copies, not those of Python itself."""
    return bool(_MODULE.search(path)) and b"/lib-dynload/" not in path


def check_image(subject: Subject) -> list[Found]:
    """All faults, in the order of rules."""
    checks = _Checks(subject)
    return [
        *checks.machines(),
        *checks.loaders(),
        *checks.libraries(),
        *checks.python(),
        *checks.certificates(),
        *checks.zones(),
    ]


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")


def _several(paths: list[bytes]) -> str:
    """`a`, or `a` and 2 more."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"`{_shown(paths[0])}`{more}"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _with_packages(base: str, packages: list[str]) -> str:
    """The name of a base of ours with packages of Debian; empty for other bases."""
    for prefix in ("gcr.io/distroless/", "aerogel/"):
        if base.startswith(prefix):
            name, colon, tag = base.removeprefix(prefix).partition(":")
            return f"aerogel/{name}+{'+'.join(packages)}{colon}{tag}"
    return ""


def _version_key(version: str) -> tuple[str, list[int]]:
    return version.partition("_")[0], [int(number) for number in _NUMBERS.findall(version)]


class _Checks:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._tree = subject.tree
        modules = {path for path in subject.dynamic if _MODULE.search(path)}
        roots = [path for path, found in subject.dynamic.items() if found.interpreter and ".so" not in _last(path)]
        self._roots = sorted({*roots, *modules})
        self._names: dict[str, list[bytes]] | None = None
        self._entries: list[Entry] | None = None
        self._closed: dict[str, list[bytes]] = {}
        """Libraries that roots need, directly or not, and who."""
        self._is_native = {path: self._native(subject.dynamic[path]) for path in self._roots}

    def _native(self, found: Dynamic) -> bool:
        machine = _MACHINES.get(found.machine)
        mine = self._subject.architecture
        return machine is None or mine not in _MACHINES.values() or machine in (mine, _ALSO.get(mine))

    def _walk(self) -> list[Entry]:
        if self._entries is None:
            self._entries = list(self._tree.walk())
        return self._entries

    def _libraries(self) -> dict[str, list[bytes]]:
        """Every name of a library in the image -> where."""
        if self._names is None:
            self._names = {}
            for entry in self._walk():
                name = entry.path.rpartition(b"/")[2]
                if b".so" in name and entry.kind != DIR:
                    self._names.setdefault(name.decode("utf-8", "replace"), []).append(entry.path)
        return self._names

    def _lookup(self, path: str | bytes) -> Entry | None:
        raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        try:
            return self._tree.lookup(self._tree.resolve(raw.strip(b"/")))
        except AerogelError:
            return None

    # programs

    def machines(self) -> Iterator[Found]:
        """Programs for another machine."""
        folders = {folder.encode().strip(b"/") for folder in _search_path(self._subject.config)}
        wrong: dict[str, list[bytes]] = {}
        for path, found in sorted(self._subject.dynamic.items()):
            is_root = path in self._is_native or (path.rpartition(b"/")[0] in folders and not found.soname)
            if is_root and not self._native(found) and path not in self._subject.started:
                wrong.setdefault(_MACHINES[found.machine], []).append(path)
        for machine, paths in wrong.items():
            yield Found(
                "WrongArchitecture",
                f"{_several(paths)} {'is' if len(paths) == 1 else 'are'} built for {machine} "
                f"and the image for {self._subject.architecture}",
                paths[0],
                ("build it for the platform of the image: after `ARG TARGETARCH` its stage knows `$TARGETARCH`",),
            )

    def loaders(self) -> Iterator[Found]:
        """Dynamic programs whose loader is not there."""
        wrong: dict[str, list[bytes]] = {}
        for path in self._roots:
            loader = self._subject.dynamic[path].interpreter
            if loader and self._is_native[path] and self._lookup(loader) is None and path not in self._subject.started:
                wrong.setdefault(loader, []).append(path)
        for loader, paths in wrong.items():
            base = "or start the last stage from `gcr.io/distroless/base`; C++ and Rust need `gcr.io/distroless/cc`"
            if "/ld-musl" in loader:
                base = "or build it in a stage from `debian`, and start the last stage from `gcr.io/distroless/base`"
            yield Found(
                "MissingLoader",
                f"{_several(paths)} {'is' if len(paths) == 1 else 'are'} linked dynamically "
                f"and the loader `{loader}` is not in the image",
                paths[0],
                ("link it statically: `-static` for C and C++, `CGO_ENABLED=0` for Go, a musl target for Rust", base),
            )

    # libraries

    def libraries(self) -> Iterator[Found]:
        """Libraries that are not there, and libraries that are too old."""
        missing: dict[str, list[bytes]] = {}
        old: dict[tuple[str, str], list[bytes]] = {}
        for root in self._roots:
            loader = self._subject.dynamic[root].interpreter
            if not self._is_native[root] or (loader and self._lookup(loader) is None):
                continue
            for needed, users in self._closure(root, old):
                if needed not in self._libraries():
                    missing.setdefault(needed, []).extend(each for each in users if each not in missing[needed])
        grouped: dict[tuple[bytes, ...], list[str]] = {}
        for soname, paths in sorted(missing.items()):
            grouped.setdefault(tuple(sorted(paths)), []).append(soname)
        for group, sonames in sorted(grouped.items()):
            users = list(group)
            shown = _joined([f"`{soname}`" for soname in sonames])
            yield Found(
                "MissingLibrary",
                f"{_several(users)} {'needs' if len(users) == 1 else 'need'} "
                f"the librar{'y' if len(sonames) == 1 else 'ies'} {shown}, "
                f"which {'is' if len(sonames) == 1 else 'are'} not in the image",
                users[0],
                tuple(self._sources(sonames)),
            )
        yield from self._too_old(old)

    def _closure(self, root: bytes, old: dict[tuple[str, str], list[bytes]]) -> Iterator[tuple[str, list[bytes]]]:
        """What a root needs, directly or by libraries that were added too; notes versions that are not given."""
        pending, seen = [root], {root}
        while pending:
            path = pending.pop()
            found = self._subject.dynamic[path]
            for soname in found.needed:
                self._closed.setdefault(soname, []).append(root)
                yield soname, [path]
                for place in self._libraries().get(soname, ()):
                    real = self._tree.resolve(place)
                    if real in self._subject.dynamic and real not in seen:
                        seen.add(real)
                        pending.append(real)
            for library, version in self._not_given(found):
                users = old.setdefault((library, version), [])
                if path not in users:
                    users.append(path)

    def _not_given(self, found: Dynamic) -> Iterator[tuple[str, str]]:
        for library in dict.fromkeys(library for library, _ in found.wants):
            gives = set(self._gives(library, found.machine))
            if gives:
                wanted = {version for name, version in found.wants if name == library}
                yield from ((library, version) for version in sorted(wanted - gives) if "PRIVATE" not in version)

    def _too_old(self, old: dict[tuple[str, str], list[bytes]]) -> Iterator[Found]:
        newest: dict[tuple[str, bytes], str] = {}
        for (library, version), paths in old.items():
            for path in paths:
                known = newest.get((library, path), version)
                newest[library, path] = max(known, version, key=_version_key)
        grouped: dict[tuple[str, str], list[bytes]] = {}
        for (library, path), version in sorted(newest.items()):
            grouped.setdefault((library, version), []).append(path)
        for (library, version), paths in sorted(grouped.items()):
            prefix = version.partition("_")[0]
            machine = self._subject.dynamic[paths[0]].machine
            gives = [each for each in self._gives(library, machine) if each.partition("_")[0] == prefix]
            best = max((each for each in gives if _NUMBERS.search(each)), key=_version_key, default="")
            has = f"`{library}` of the image has `{best}` at most" if best else f"`{library}` of the image has no such"
            yield Found(
                "LibraryTooOld",
                f"{_several(paths)} {'needs' if len(paths) == 1 else 'need'} `{version}`, and {has}",
                paths[0],
                tuple(_newer(version, best)),
            )

    def _gives(self, library: str, machine: int) -> list[str]:
        """The versions that the files of a name have which the loader of a machine would take."""
        places = [self._tree.resolve(place) for place in self._libraries().get(library, ())]
        there = (self._subject.given(place) for place in places)
        return [each for one in there if one is not None and one.machine == machine for each in one.gives]

    def _sources(self, sonames: list[str]) -> Iterator[str]:
        arch = _DEBIAN.get(self._subject.architecture, self._subject.architecture)
        found = {soname: package_of(soname, self._subject.release, arch) for soname in sonames}
        packages = sorted({package for package in found.values() if package})
        if packages:
            have = f"Debian has {'it' if len(sonames) == 1 else 'them'} in {_joined([f'`{one}`' for one in packages])}"
            base = _with_packages(self._subject.base_name, packages)
            if self._subject.base_name.startswith("debian"):
                yield f"{have}: `apt-get install {' '.join(packages)}`"
            else:
                yield f"{have}: `FROM {base}` is this base with it" if base else have
        for soname, package in found.items():
            if not package:
                yield f"copy `{soname}` from the stage that the program comes from"
        if any(self._subject.dynamic[root].interpreter for soname in sonames for root in self._closed[soname]):
            yield "or link the program statically"

    # Python

    def python(self) -> Iterator[Found]:
        """Packages for another minor version of Python."""
        wanted: dict[bytes, list[bytes]] = {}
        for path in self._added_paths():
            module = _MODULE.search(path)
            packages = _PACKAGES.match(path)
            minor = (module[1] if module is not None else None) or (packages[1] if packages is not None else None)
            if minor:
                wanted.setdefault(minor, []).append(path)
        if not wanted:
            return
        there = self._pythons()
        if not there:
            return
        for minor, paths in sorted(wanted.items()):
            if minor in there:
                continue
            have = " and ".join(f"3.{each.decode()}" for each in sorted(there))
            folder = _PACKAGES.match(paths[0])
            what = f"`{_shown(folder[0].rstrip(b'/'))}`" if folder is not None else _several(paths)
            bases = {b"11": "12", b"13": "13"}
            hints = ["install the packages in a stage that has the Python of the last stage"]
            if minor in bases:
                hints.append(f"or start the last stage from `gcr.io/distroless/python3-debian{bases[minor]}`")
            yield Found(
                "PythonVersionMismatch",
                f"{what} is for Python 3.{minor.decode()}, and the image has Python {have}",
                paths[0],
                tuple(hints),
            )

    def _added_paths(self) -> Iterator[bytes]:
        for entry in self._walk():
            if entry.kind == REG and (b"python3." in entry.path or b".cpython-3" in entry.path):
                origin = self._tree.origin(entry.path)
                if origin is not None and origin.layer >= self._subject.base:
                    yield entry.path

    def _pythons(self) -> set[bytes]:
        """The minor versions of the interpreters that can be started."""
        found: set[bytes] = set()
        for entry in self._walk():
            name = entry.path.rpartition(b"/")[2]
            if entry.kind == DIR or not name.startswith(b"python3") or b"bin/" not in entry.path:
                continue
            try:
                real = self._tree.resolve(entry.path)
            except AerogelError:
                continue
            there = self._tree.lookup(real)
            minor = _PYTHON.fullmatch(real.rpartition(b"/")[2]) or _PYTHON.fullmatch(name)
            if there is not None and there.kind == REG and there.mode & 0o111 and minor is not None:
                found.add(minor[1])
        return found

    # data

    def certificates(self) -> Iterator[Found]:
        """Programs that speak TLS, and no certificates of authorities."""
        env = dict(pair.partition("=")[::2] for pair in self._subject.config.env)
        if env.get("SSL_CERT_FILE") or env.get("SSL_CERT_DIR") or any(self._lookup(path) for path in _BUNDLES):
            return
        if any(entry.path.endswith(b"cacert.pem") for entry in self._walk()):
            return
        users = sorted({root for soname, roots in self._closed.items() if _TLS.fullmatch(soname) for root in roots})
        users += [path for path in self._go() if _GO_TLS in (self._subject.linked(path, _GO) or ())]
        if users:
            yield Found(
                "MissingCertificates",
                f"{_several(users)} can speak TLS, and the image has no certificates of authorities: "
                "no server can be verified",
                users[0],
                (
                    "in a stage from Debian: `apt-get install ca-certificates`",
                    "or `COPY --from=gcr.io/distroless/static /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/`",
                ),
            )

    def _go(self) -> list[bytes]:
        """Programs that may be Go's."""
        return [
            path for path, found in sorted(self._subject.dynamic.items()) if not found.soname and not _is_library(path)
        ]

    def zones(self) -> Iterator[Found]:
        """A time zone that is asked for and not there."""
        copy = "`COPY --from=gcr.io/distroless/static /usr/share/zoneinfo /usr/share/zoneinfo`"
        zone = dict(pair.partition("=")[::2] for pair in self._subject.config.env).get("TZ", "").lstrip(":")
        is_named = re.fullmatch(r"[A-Z][A-Za-z_]+/[A-Za-z0-9_+/-]+", zone) and not zone.startswith("Etc/")
        if is_named and self._lookup(_ZONES + b"/" + zone.encode()) is None and self._adds():
            message = f"`TZ={zone}` names a time zone that is not in the image, so times are UTC"
            yield Found("MissingTimeZones", message, b"", (f"bring the zones: {copy}",))
            return
        if self._lookup(_ZONES) is not None:
            return
        for path in self._go():
            linked = self._subject.linked(path, _GO) or frozenset()
            if _GO_ZONES in linked and _GO_OWN_ZONES not in linked:
                yield Found(
                    "MissingTimeZones",
                    f"`{_shown(path)}` looks up time zones, and the image has none",
                    path,
                    (f"bring them: {copy}", 'or build them into the program: `import _ "time/tzdata"`'),
                )
                return

    def _adds(self) -> bool:
        return any(
            origin.layer >= self._subject.base for each in self._walk() if (origin := self._tree.origin(each.path))
        )


def _last(path: bytes) -> str:
    return path.rpartition(b"/")[2].decode("utf-8", "replace")


def _is_library(path: bytes) -> bool:
    return ".so" in _last(path)


def _search_path(config: ContainerConfig) -> list[str]:
    path = dict(pair.partition("=")[::2] for pair in config.env).get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return [folder for folder in path.split(":") if folder.startswith("/")]


def _newer(wanted: str, best: str) -> Iterator[str]:
    """What to do about a version that is not given."""
    if wanted.startswith("GLIBC_"):
        number = wanted.partition("_")[2]
        above = [debian for libc, debian in _DEBIAN.items() if _version_key(libc) >= _version_key(number)]
        release = _DEBIAN.get(best.partition("_")[2])
        if above:
            yield f"it was built on Debian {above[0]} or the like: start the last stage from `-debian{above[0]}` of this base"
        else:
            yield "it was built on a system newer than Debian 13: build it in a stage from `debian`"
        if release:
            yield f"or build it in a stage from `debian:{release}`"
        return
    yield "build it in a stage from the release of Debian that the last stage is made of"
