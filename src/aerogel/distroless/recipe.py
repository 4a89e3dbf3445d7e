"""A base image with everything chosen: which packages, by which rules, and how a container of it runs.

A recipe is a value: `make_recipe` makes it from a declaration, `compose` and `buildroot` carry it out. It names no
versions and no mirror; those come from the archive at the time of the build, or from a lock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from aerogel.distroless.accounts import GROUPS, USERS, Group, User
from aerogel.distroless.certificates import BUNDLE
from aerogel.distroless.declaration import (
    Accounts,
    Certificates,
    Debian,
    Dotnet,
    ImageSettings,
    Java,
    Layers,
    Nodejs,
    PackageEntry,
    Part,
    PathEntry,
    Python,
    Repository,
    Resolve,
    Slice,
    Slices,
    Sources,
)
from aerogel.distroless.extend import Family
from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = [
    "BUILT_IN_LOCALES",
    "COMPOSE_VERSION",
    "DEBIAN_ARCHITECTURES",
    "PATH",
    "RELEASES",
    "TRIPLETS",
    "Kind",
    "Recipe",
    "Release",
    "is_plain_path",
    "make_recipe",
]

BUILT_IN_LOCALES = ("C", "POSIX")
"""What glibc has without a file."""

COMPOSE_VERSION = b"aerogel-base-v1"
_ROOT_VERSION = b" root-v2"
_JAVA_VERSION = b" java-v3"
"""Part of every key: changes when the same packages would give other bytes."""

Kind = Literal["distroless", "buildroot"]
"""`distroless`: files put together without running anything; `buildroot`: set up by dpkg in the sandbox."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Release(msgspec.Struct, frozen=True):
    """A Debian release as recipes know it."""

    suite: str
    version: str


RELEASES = (Release("trixie", "13"), Release("bookworm", "12"))
"""Newest stable first: it is what a name without a release means."""

DEBIAN_ARCHITECTURES = {
    "linux/amd64": "amd64",
    "linux/arm64": "arm64",
    "linux/arm/v7": "armhf",
    "linux/386": "i386",
    "linux/ppc64le": "ppc64el",
    "linux/s390x": "s390x",
    "linux/riscv64": "riscv64",
}
"""Platform in normal form -> Debian's name of the architecture."""

TRIPLETS = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "i386": "i386-linux-gnu",
    "ppc64el": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}
"""Debian architecture -> multiarch directory below /usr/lib."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A base image before resolution: a declaration with release, profile and variant chosen, all of them said.

    - `name` is what the user may write in FROM (canonical: release and variant stated);
    - `packages` are pulled in with their dependencies, except for names in `skip` and what only they need; `pins` are
      patterns for versions;
    - `archives` are packages that are not in an apt archive: local files, addresses, wheels, packages of npm;
    - `suites` and `components` are of Debian's archive, no suites: those of the release; `snapshot` is the moment at
      which the archive is looked at, `20261101T000000Z`, empty for now;
    - `rules` names the profile of `rules` that decides about files, `slices` adds to it by package;
    - `inputs` has the SHA-256 of every file beside the declaration that is read, packages left out;
    - `underlay` is the image that it is laid on, as the declaration says it; `forgets` are fields of how that runs which
      do not count, by their paths in a declaration;
    - `slim` (build roots) leaves out manuals and documentation, now and in later installs.
    """

    name: str
    kind: Kind = "distroless"
    suite: str
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    allow_expired: bool = False
    snapshot: str = ""
    repositories: tuple[Repository, ...] = ()
    platforms: tuple[str, ...] = ()
    packages: tuple[str, ...]
    pins: dict[str, str] = {}
    archives: tuple[PackageEntry, ...] = ()
    skip: tuple[str, ...] = ()
    recommends: bool = False
    elf_closure: Literal["add", "error", "warn", "off"] = "warn"
    rules: str = "micro"
    slices: dict[str, Slice] = {}
    python: Python | None = None
    java: Java | None = None
    nodejs: Nodejs | None = None
    dotnet: Dotnet | None = None
    bundle: bool = True
    certificates: tuple[str, ...] = ()
    hash_links: bool = False
    java_keystore: Literal["auto", "always", "never"] = "auto"
    locales: tuple[str, ...] = ()
    timezone: str = ""
    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    paths: tuple[PathEntry, ...] = ()
    library_cache: bool = False
    busybox: bool = False
    probe: bool = False
    slim: bool = False
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    layers: Layers | None = None
    tests: tuple[str, ...] = ()
    inputs: dict[str, str] = {}
    underlay: str = ""
    forgets: tuple[tuple[str, ...], ...] = ()

    @property
    def way(self) -> bytes:
        """Which way of composing makes it, a part of every key: another one where the same would give other bytes."""
        is_java = self.java is not None and self.java.version is not None
        return COMPOSE_VERSION + (_ROOT_VERSION if self.kind == "buildroot" else _JAVA_VERSION if is_java else b"")


def make_recipe(
    family: Family,
    *,
    name: str,
    release: str,
    profile: str | None,
    variant: str,
    more: Part | None = None,
    read: Callable[[str], bytes] | None = None,
) -> Recipe:
    """The recipe of one choice. `read` gives the content of a file beside the declaration, by its name there.

    Raises `base.package`, `base.path`, `base.account`, and what `read` raises.
    """
    part = family.part(release, profile or "micro", variant, more)
    rules = profile or (part.slices or Slices()).profile or "micro"
    if rules != (profile or "micro"):
        part = family.part(release, rules, variant, more)
    slices, resolve = part.slices or Slices(), part.resolve or Resolve()
    sources, accounts = part.sources or Sources(), part.accounts or Accounts()
    trust, debian = part.certificates or Certificates(), sources.debian or Debian()
    packages, pins, archives = _packages(part)
    asked = {name.strip().partition(" ")[0] for text in packages for name in text.split("|")}
    users, groups = _accounts(accounts)
    files = _inputs(trust.additional, sources.extra, part.paths)
    made = Recipe(
        name=name,
        kind="buildroot" if family.method == "dpkg" else "distroless",
        suite=release,
        suites=debian.suites or (),
        components=debian.components or ("main",),
        allow_expired=bool(debian.allow_expired),
        repositories=sources.extra,
        platforms=family.platforms_of(release),
        packages=tuple(sorted(packages)) if family.method == "files" else packages,
        pins=pins,
        archives=archives,
        skip=tuple(each for each in resolve.skip if each not in asked),
        recommends=bool(resolve.recommends),
        elf_closure=resolve.elf_closure or "warn",
        rules=rules,
        slices=slices.packages or {},
        bundle=trust.bundle != "none",
        certificates=trust.additional,
        hash_links=bool(trust.hash_links),
        java_keystore=trust.java_keystore or "auto",
        locales=tuple(each for each in part.locales if each not in BUILT_IN_LOCALES),
        timezone=part.timezone or "",
        users=users,
        groups=groups,
        paths=part.paths,
        library_cache=bool(part.library_cache),
        busybox=bool(part.busybox),
        slim=bool(part.slim),
        user=_run_as(accounts.run_as, (*USERS, *users), is_open=bool(family.image)),
        underlay=family.image,
        forgets=family.forgets(release, rules, variant) if family.image else (),
        inputs={each: hashlib.sha256(read(each)).hexdigest() for each in files} if read and files else {},
    )
    return _checked_root(_with_settings(made, part, _checked_image(part.image or ImageSettings()), debian))


_FILES_ONLY = {
    "accounts": ("users", "groups"),
    "certificates": ("certificates", "hash_links"),
    "dotnet": ("dotnet",),
    "java": ("java",),
    "layers": ("layers",),
    "library-cache": ("library_cache",),
    "locales": ("locales",),
    "nodejs": ("nodejs",),
    "python": ("python",),
    "slices": ("slices",),
    "timezone": ("timezone",),
}
"""Fields of a declaration that dpkg knows nothing of, and what they are in a recipe."""


def _checked_root(recipe: Recipe) -> Recipe:
    """The recipe; what would be left out of a build root silently is refused."""
    if recipe.kind == "buildroot" and recipe.underlay:
        raise _fault(
            "`method` is dpkg, which sets up a root of its own, and `extends` names an image",
            "base.method",
            "leave `method` out: files are put on top of the image",
        )
    for field, names in _FILES_ONLY.items():
        if recipe.kind == "buildroot" and any(getattr(recipe, name) for name in names):
            raise _fault(
                f"`{field}` is for bases that are put together from files, and dpkg sets this one up",
                "base.method",
                "write what it shall do as a RUN in the Dockerfile that starts from it",
            )
    return recipe


def _with_settings(recipe: Recipe, part: Part, image: ImageSettings, debian: Debian) -> Recipe:
    """With what makers are told, how a container runs, and of when the archive is."""
    return msgspec.structs.replace(
        recipe,
        snapshot=debian.snapshot or "",
        layers=part.layers,
        tests=part.tests,
        python=part.python,
        java=part.java,
        nodejs=part.nodejs,
        dotnet=part.dotnet,
        probe=bool(part.probe),
        env=tuple(f"{key}={value}" for key, value in (_trust(part.certificates) | (image.env or {})).items()),
        entrypoint=image.entrypoint or (),
        cmd=image.cmd or (),
        workdir=image.workdir or "",
        labels=image.labels or {},
        stop_signal=image.stop_signal or "",
        volumes=image.volumes or (),
        ports=image.ports or (),
    )


def _checked_image(image: ImageSettings) -> ImageSettings:
    """What a container is told; a runtime would find out late, or not at all. Raises `base.image`, `graph.bad-signal`."""
    for key in image.env or {}:
        if not key or "=" in key:
            raise _fault(f"`image.env` has the variable `{key}`, and a name is not empty and has no `=`", "base.image")
    for field, paths in (("workdir", (image.workdir or "/",)), ("volumes", image.volumes or ())):
        for path in paths:
            if not is_plain_path(path):
                raise _fault(f"`image.{field}`: `{path}` is no absolute path without `.` and `..`", "base.image")
    for port in image.ports or ():
        number = port.partition("/")[0]
        if not _PORT.fullmatch(port) or not 0 < int(number) < 1 << 16:
            raise _fault(f"`image.ports`: `{port}` is no port", "base.image", "write `8080/tcp`")
    if image.stop_signal:
        from aerogel.graph.signals import check_signal

        try:
            check_signal(image.stop_signal, None)
        except AerogelError as error:
            error.exit_status = EXIT_USAGE
            raise
    return image


def is_plain_path(path: str) -> bool:
    """Whether a path is absolute and says where it leads without `.`, `..` and empty steps."""
    steps = path.split("/")[1:]
    return path == "/" or (path.startswith("/") and not any(step in ("", ".", "..") for step in steps))


_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
_NUMBERS = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?")
_PORT = re.compile(r"[0-9]{1,5}(?:/(?:tcp|udp|sctp))?")


def _trust(certificates: Certificates | None) -> dict[str, str]:
    """The variables by which programs that trust a list of their own learn what the image trusts besides."""
    if certificates is None or not certificates.additional:
        return {}
    return dict.fromkeys(certificates.variables, f"/{BUNDLE.decode()}")


def _packages(part: Part) -> tuple[tuple[str, ...], dict[str, str], tuple[PackageEntry, ...]]:
    """Names for the archive, patterns for their versions, and what is not in an archive."""
    names: list[str] = []
    pins: dict[str, str] = {}
    archives: list[PackageEntry] = []
    for entry in part.packages:
        if isinstance(entry, str):
            if not entry.strip():
                raise _fault("an entry of `packages` is empty", "base.package")
            names.append(entry)
            continue
        given = [key for key in ("name", "deb", "url", "pypi", "npm") if getattr(entry, key)]
        if len(given) != 1:
            raise _fault("an entry of `packages` has one of `name`, `deb`, `url`, `pypi` and `npm`", "base.package")
        if entry.name is None:
            archives.append(entry)
            continue
        names.append(entry.name + (f" [{' '.join(entry.archs)}]" if entry.archs else ""))
        if entry.pin:
            pins[entry.name.partition(" ")[0]] = entry.pin
    return tuple(dict.fromkeys(names)), pins, tuple(archives)


def _accounts(accounts: Accounts) -> tuple[tuple[User, ...], tuple[Group, ...]]:
    users, groups = [], [Group(each.name, each.gid, each.members) for each in accounts.groups]
    taken = {each.name for each in (*USERS, *GROUPS)}
    for each in accounts.users:
        gid = each.uid if each.gid is None else each.gid
        users.append(User(each.name, each.uid, gid, each.home, each.comment, each.shell))
        if each.gid is None and all(each.name != group.name for group in groups):
            groups.append(Group(each.name, each.uid))
    for kind, names in (("user", [one.name for one in users]), ("group", [one.name for one in groups])):
        for name in names:
            if name in taken:
                raise _fault(f"the {kind} `{name}` is there already", "base.account", "every base has it")
            if names.count(name) > 1:
                raise _fault(f"the {kind} `{name}` is declared twice", "base.account")
    for user in users:
        bad = next((text for text in (user.home, user.comment, user.shell) if ":" in text or "\n" in text), None)
        if bad is not None:
            raise _fault(f"`{bad!r}` of the user `{user.name}` has a colon or a line end", "base.account")
        if not is_plain_path(user.home):
            raise _fault(
                f"the home `{user.home}` of the user `{user.name}` is no absolute path without `.` and `..`",
                "base.account",
            )
    for group in groups:
        bad = next((text for text in group.members if not _MEMBER.fullmatch(text)), None)
        if bad is not None:
            raise _fault(f"`{bad!r}` is no member that the group `{group.name}` can have", "base.account")
    return tuple(users), tuple(groups)


def _run_as(name: str | None, users: Sequence[User], *, is_open: bool = False) -> str:
    """By number, which Kubernetes' `runAsNonRoot` asks for. `is_open`: an image below may have other users too."""
    if not name or _NUMBERS.fullmatch(name):
        return name or ""
    if is_open:
        return name
    for user in users:
        if user.name == name:
            return str(user.uid)
    near = nearest(name, [user.name for user in users])
    hint = f"did you mean `{near}`?" if near else f"users are {', '.join(user.name for user in users)}"
    raise _fault(f"`run-as` names the user `{name}`, whom nothing declares", "base.account", hint)


def _inputs(
    certificates: Sequence[str],
    repositories: Sequence[Repository],
    paths: Sequence[PathEntry],
) -> list[str]:
    """The files beside the declaration that decide the result; packages differ by architecture and are read later."""
    found = [*certificates, *(each.signed_by for each in repositories)]
    return list(dict.fromkeys([*found, *(each.source for each in paths if each.source)]))


def _fault(message: str, code: str, *hints: str) -> AerogelError:
    return AerogelError(message, code=code, hints=hints, exit_status=EXIT_USAGE)
