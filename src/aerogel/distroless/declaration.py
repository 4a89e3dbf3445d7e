"""What a base image is, as a person writes it down in `base.yaml`: the structs of the format.

For: the fields, their types and what they mean; the JSON schema and the reference page are made from here. A `Part`
is everything that can be said of an image's content; a `Declaration` is a part with a name and with more parts that
count for one release, profile or variant only. Not for: reading text (`reading`), putting parts together (`extend`),
or what is done with them (`recipe`, `compose`).

Every field may be left out: what is not said is inherited from the declaration that `extends` names. `null` says that
nothing is inherited; in the values here that is `unset`, because None stands for what is not said.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "API_VERSION",
    "APPENDED",
    "Accounts",
    "Certificates",
    "Debian",
    "Declaration",
    "Dotnet",
    "GroupEntry",
    "ImageSettings",
    "Java",
    "Layers",
    "Nodejs",
    "PackageEntry",
    "Part",
    "PathEntry",
    "Python",
    "ReleasePart",
    "Repository",
    "Resolve",
    "Selected",
    "Slice",
    "Slices",
    "Sources",
    "UserEntry",
    "Variant",
]

API_VERSION = "aerogel/v1"

APPENDED = frozenset(
    ("additional", "extra", "groups", "locales", "packages", "paths", "skip", "tests", "users", "variables", "without")
)
"""Lists that grow along `extends`; any other list takes the place of the inherited one."""


END = r"$(?!\n)"
"""The end of a text in a pattern; `$` alone matches before a last line feed as well, but not in JavaScript."""


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"
):
    """Field names have hyphens in the text; an unknown one is refused."""


Arch = Annotated[str, Meta(description="Debian's name of an architecture: `amd64`, `arm64`, `armhf`, ...")]
PerArch = str | dict[str, str]
"""One text, or one for each architecture by Debian's name."""


class Debian(_Struct, frozen=True, kw_only=True):
    """Debian's own archive; its address is the mirror of the run, never said here."""

    suites: Annotated[
        tuple[str, ...] | None, Meta(description="Suites; without them the release, its updates and its security fixes")
    ] = None
    components: Annotated[tuple[str, ...] | None, Meta(description="`main` if nothing is said")] = None
    allow_expired: Annotated[
        bool | None,
        Meta(description="Accept a signature whose date has run out: mirrors of testing are renewed late"),
    ] = None
    snapshot: Annotated[
        Annotated[str, Meta(pattern=rf"^[0-9]{{8}}T[0-9]{{6}}Z{END}")] | None,
        Meta(description="The archive as it was then (UTC), `20261101T000000Z`, by the setting `snapshot-mirror`"),
    ] = None


class Repository(_Struct, frozen=True, kw_only=True):
    """Another signed apt archive."""

    id: Annotated[str, Meta(description="Name in locks and messages", pattern=rf"^[a-z0-9][a-z0-9.-]*{END}")]
    uri: Annotated[str, Meta(description="The archive's root: `https://...` or `file:/...`")]
    suites: Annotated[tuple[str, ...], Meta(description="Suites to take packages from", min_length=1)]
    components: Annotated[tuple[str, ...], Meta(description="Components")] = ("main",)
    signed_by: Annotated[
        str, Meta(description="File with the OpenPGP keys that must have signed, beside the declaration")
    ]


class Sources(_Struct, frozen=True, kw_only=True):
    """Where packages come from."""

    debian: Annotated[Debian | None, Meta(description="Debian's archive")] = None
    extra: Annotated[tuple[Repository, ...], Meta(description="Other apt archives with keys of their own")] = ()


class PackageEntry(_Struct, frozen=True, kw_only=True):
    """A package that needs more than a name. Exactly one of `name`, `deb`, `url`, `pypi` and `npm` is given.

    In `deb`, `url`, `pypi`, `npm`, `version`, `keep` and `purl`, `{arch}` stands for Debian's name of the
    architecture, `{version}` for the version, `{for}` for what `for` has for the architecture.
    """

    name: Annotated[str | None, Meta(description="A Debian package, or a relation such as `libpq5 (>= 17)`")] = None
    pin: Annotated[str | None, Meta(description="Pattern that the version must match: `17.*`")] = None
    deb: Annotated[str | None, Meta(description="A .deb beside the declaration")] = None
    url: Annotated[
        str | None, Meta(description="An archive (.tar.gz, .tar.xz, .tar.zst, .zip), .deb or plain file")
    ] = None
    pypi: Annotated[str | None, Meta(description="A wheel, fetched with the user's own pip")] = None
    npm: Annotated[str | None, Meta(description="A package, fetched with the user's own npm")] = None
    version: Annotated[str | None, Meta(description="Version of what `url`, `pypi` or `npm` names")] = None
    sha256: Annotated[PerArch | None, Meta(description="Digest in hexadecimal; needed for `url`")] = None
    sha512: Annotated[PerArch | None, Meta(description="Digest in hexadecimal, or npm's `sha512-...`")] = None
    to: Annotated[str | None, Meta(description="Directory of the image that gets the files")] = None
    strip: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Leading directories to leave out of the names in the archive"),
    ] = None
    keep: Annotated[
        tuple[str, ...] | None, Meta(description="Patterns of the files to take, after `strip`; all if not given")
    ] = None
    purl: Annotated[str | None, Meta(description="Package URL for scanners: `pkg:generic/node@{version}`")] = None
    strip_symbols: Annotated[bool | None, Meta(description="Leave symbol tables out of programs and libraries")] = None
    archs: Annotated[
        tuple[str, ...] | None, Meta(description="Architectures that have the entry; all if not given")
    ] = None
    for_: dict[str, str] | None = msgspec.field(default=None, name="for")
    """What `{for}` stands for, by architecture; the entry counts for these architectures only."""


class Resolve(_Struct, frozen=True, kw_only=True):
    """How the list of packages becomes a closure."""

    recommends: Annotated[bool | None, Meta(description="Take recommended packages too")] = None
    skip: Annotated[
        tuple[str, ...], Meta(description="Packages that count as present wherever they are needed and are never added")
    ] = ()
    elf_closure: Annotated[
        Literal["add", "error", "warn", "off"] | None,
        Meta(
            description="What to do when a program of the base lacks a library: `add` takes the package that has it, "
            "`error` and `warn` name it"
        ),
    ] = None


class Slice(_Struct, frozen=True, kw_only=True):
    """Files of one package that stay or go, besides what the profile says."""

    drop: Annotated[tuple[str, ...], Meta(description="Absolute paths; `*` stands for anything but `/`")] = ()
    keep: Annotated[tuple[str, ...], Meta(description="Paths that stay whatever another rule says")] = ()
    why: Annotated[str, Meta(description="Shown by `aerogel base show --rules`")] = ""


class Slices(_Struct, frozen=True, kw_only=True):
    """Which files of the packages stay."""

    profile: Annotated[Literal["micro", "parity"] | None, Meta(description="The stated rules to go by")] = None
    packages: Annotated[dict[str, Slice] | None, Meta(description="Package name -> rule of this base")] = None


class Python(_Struct, frozen=True, kw_only=True):
    """What is done with Python modules."""

    bytecode: Annotated[Literal["unchecked-hash", "none"] | None, Meta(description="Compile modules ahead of time")] = (
        None
    )
    sourceless: Annotated[bool | None, Meta(description="Leave the source out, bytecode only")] = None


class Java(_Struct, frozen=True, kw_only=True):
    """A Java runtime made by jlink."""

    version: Annotated[int | None, Meta(description="17, 21 or 25")] = None
    modules: Annotated[
        Literal["all"] | tuple[str, ...] | None,
        Meta(description="`all` (Java SE and what serves it), or names of modules"),
    ] = None
    cds: Annotated[
        bool | None,
        Meta(
            description="Make the archive of classes that starts the JVM faster; by itself for amd64 and arm64 from Java 21"
        ),
    ] = None
    languages: Annotated[
        Literal["all"] | tuple[str, ...] | None,
        Meta(description="Languages whose formats and names are kept (`en`, `de`, ...), or `all`"),
    ] = None
    jdk: Annotated[bool | None, Meta(description="Link every module: compiler and tools as well")] = None


class Nodejs(_Struct, frozen=True, kw_only=True):
    """What is done with the node program."""

    strip: Annotated[bool | None, Meta(description="Leave its symbol table out")] = None
    options: Annotated[dict[str, str] | None, Meta(description="Further settings of the part")] = None


class Dotnet(_Struct, frozen=True, kw_only=True):
    """What .NET needs."""

    icu: Annotated[bool | None, Meta(description="Globalisation data")] = None
    options: Annotated[dict[str, str] | None, Meta(description="Further settings of the part")] = None


class Certificates(_Struct, frozen=True, kw_only=True):
    """Whom TLS trusts."""

    bundle: Annotated[Literal["debian", "none"] | None, Meta(description="The authorities that Debian has")] = None
    additional: Annotated[
        tuple[str, ...], Meta(description="PEM files beside the declaration that are trusted besides")
    ] = ()
    hash_links: Annotated[bool | None, Meta(description="Links by subject for programs that take a directory")] = None
    java_keystore: Annotated[
        Literal["auto", "always", "never"] | None, Meta(description="Java's truststore; `auto`: if there is a Java")
    ] = None
    variables: Annotated[
        tuple[str, ...],
        Meta(
            description="Variables that name the bundle if there is an `additional`: for programs with a list of their own"
        ),
    ] = ()


class UserEntry(_Struct, frozen=True, kw_only=True):
    """An account without a password."""

    name: Annotated[str, Meta(pattern=rf"^[a-z_][a-z0-9_-]*{END}")]
    uid: Annotated[int, Meta(ge=0, le=4294967294)]
    gid: Annotated[
        Annotated[int, Meta(ge=0, le=4294967294)] | None,
        Meta(description="Primary group; a group of the user's name and number if not given"),
    ] = None
    home: Annotated[str, Meta(description="Home directory, made with mode 0700")] = "/nonexistent"
    comment: str = ""
    shell: str = "/sbin/nologin"


class GroupEntry(_Struct, frozen=True, kw_only=True):
    """A group; `members` besides those whose primary group it is."""

    name: Annotated[str, Meta(pattern=rf"^[a-z_][a-z0-9_-]*{END}")]
    gid: Annotated[int, Meta(ge=0, le=4294967294)]
    members: tuple[str, ...] = ()


class Accounts(_Struct, frozen=True, kw_only=True):
    """Users and groups besides `root`, `nobody` and `nonroot`."""

    users: tuple[UserEntry, ...] = ()
    groups: tuple[GroupEntry, ...] = ()
    run_as: Annotated[str | None, Meta(description="Who the container runs as: a name, or `uid[:gid]`")] = None


class PathEntry(_Struct, frozen=True, kw_only=True):
    """Something at a path. Exactly one of `dir`, `file`, `link` and `remove` is given."""

    dir: Annotated[str | None, Meta(description="A directory")] = None
    file: Annotated[str | None, Meta(description="A file, with `text` or `source`")] = None
    link: Annotated[str | None, Meta(description="A symbolic link to `to`")] = None
    remove: Annotated[str | None, Meta(description="What packages have at this path, and below it, is left out")] = None
    to: Annotated[str | None, Meta(description="Target of the link")] = None
    text: Annotated[str | None, Meta(description="Content of the file")] = None
    source: Annotated[str | None, Meta(description="File beside the declaration that has the content")] = None
    owner: Annotated[str | int | None, Meta(description="User, by name or number, optionally `user:group`")] = None
    mode: Annotated[str | int | None, Meta(description="Permissions in octal")] = None


class ImageSettings(_Struct, frozen=True, kw_only=True):
    """How a container of the image runs."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: Annotated[dict[str, str] | None, Meta(description="Variables, in this order")] = None
    workdir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    volumes: tuple[str, ...] | None = None
    ports: Annotated[tuple[str, ...] | None, Meta(description="`8080/tcp`")] = None


class Layers(_Struct, frozen=True, kw_only=True):
    """How the files are put into layers."""

    strategy: Annotated[
        Literal["single", "origin"] | None,
        Meta(description="One layer, or the largest source packages in layers of their own"),
    ] = None
    budget: Annotated[Annotated[int, Meta(ge=1, le=127)] | None, Meta(description="Most layers for `origin`")] = None


class Part(_Struct, frozen=True, kw_only=True):
    """Everything that can be said of an image's content."""

    sources: Sources | None = None
    packages: Annotated[
        tuple[str | PackageEntry, ...], Meta(description="Packages; what they depend on comes by itself")
    ] = ()
    without: Annotated[tuple[str, ...], Meta(description="Inherited entries of `packages` to leave out, by name")] = ()
    resolve: Resolve | None = None
    slices: Slices | None = None
    python: Python | None = None
    java: Java | None = None
    nodejs: Nodejs | None = None
    dotnet: Dotnet | None = None
    certificates: Certificates | None = None
    locales: Annotated[
        tuple[str, ...], Meta(description="Locales, also C.UTF-8 where no package brings it: `de_DE`")
    ] = ()
    timezone: Annotated[str | None, Meta(description="`Europe/Berlin`; UTC if nothing is said")] = None
    accounts: Accounts | None = None
    paths: tuple[PathEntry, ...] = ()
    library_cache: Annotated[bool | None, Meta(description="Write /etc/ld.so.cache")] = None
    busybox: Annotated[bool | None, Meta(description="A shell and its tools in /busybox")] = None
    probe: Annotated[bool | None, Meta(description="`/aerogel-probe`, for HEALTHCHECK")] = None
    slim: Annotated[bool | None, Meta(description="Build roots only: no documentation, now and in later installs")] = (
        None
    )
    image: ImageSettings | None = None
    layers: Layers | None = None
    tests: Annotated[tuple[str, ...], Meta(description="Structure tests beside the declaration")] = ()
    unset: Annotated[
        tuple[tuple[str, ...], ...],
        Meta(description="Inherited fields that do not count, each by its path; `null` as a value says the same"),
    ] = ()


class Variant(Part, frozen=True, kw_only=True):
    """A part for one tag; `extends` names another variant that comes first."""

    extends: str | None = None


class Selected(_Struct, frozen=True, kw_only=True):
    """What a tag means, when tags are not the names of variants."""

    release: str
    variant: str = "latest"


class ReleasePart(Part, frozen=True, kw_only=True):
    """What counts for one release only."""

    platforms: Annotated[
        tuple[str, ...] | None, Meta(description="Those of the base that this release has; all if not given")
    ] = None


class Declaration(Part, frozen=True, kw_only=True):
    """A base image."""

    api_version: Annotated[Literal["aerogel/v1"], Meta(description="Version of the format")] = msgspec.field(
        name="apiVersion"
    )
    kind: Literal["Base"]
    name: Annotated[
        str, Meta(description="`FROM aerogel/NAME` for built-in ones", pattern=rf"^[a-z0-9]+(?:[._-][a-z0-9]+)*{END}")
    ]
    summary: Annotated[str, Meta(description="One line for `aerogel base list`")] = ""
    method: Annotated[
        Literal["files", "dpkg"] | None,
        Meta(description="`files`: put together without running a script; `dpkg`: set up by dpkg in the sandbox"),
    ] = None
    names: Annotated[
        tuple[str, ...], Meta(description="Further repositories by which FROM knows it (built-in ones only)")
    ] = ()
    extends: Annotated[
        str | None,
        Meta(
            description="A built-in base, a declaration beside this one (`./other.yaml`), or an image to put all on top of: "
            "`docker://NAME`, `oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`, `store:NAME`, `docker-daemon:NAME`, "
            "`containers-storage:NAME`; a name with a registry is looked for as FROM does"
        ),
    ] = None
    platforms: Annotated[
        tuple[str, ...] | None, Meta(description="`linux/amd64`, `linux/arm/v7`, ...; those of the base if not given")
    ] = None
    releases: Annotated[
        dict[str, ReleasePart] | None,
        Meta(description="Releases that there are, the usual one first, and what counts for one only"),
    ] = None
    profiles: Annotated[
        dict[Literal["micro", "parity"], Part] | None, Meta(description="What counts for one profile only")
    ] = None
    variants: Annotated[
        dict[str, Variant] | None,
        Meta(description="Tags, and what counts for one only; `null` removes an inherited one"),
    ] = None
    tags: Annotated[dict[str, Selected] | None, Meta(description="Tags that choose a release (built-in ones only)")] = (
        None
    )
