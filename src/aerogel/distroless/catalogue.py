"""The built-in base images by the names that Dockerfiles use; no registry is asked.

- `gcr.io/distroless/NAME[-debianN][:TAG]` for those that upstream has, `aerogel/NAME[-debianN][:TAG]` for all;
- TAG is the name of a variant, `latest` if there is none; `-parity` behind it (`parity` alone: `latest-parity`)
  chooses whole packages in place of the profile `micro`;
- `aerogel/NAME+PACKAGE+...[:TAG]` adds packages of Debian, `probe` the program for HEALTHCHECK;
- `debian[:RELEASE[-slim]]`.

A name that carries a digest is never built in: a composed image has a digest of its own. The declarations are
`data/bases/*.yaml`; what is read here is `data/bases.json`, made from them by `tools/gen_bases.py`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence

import msgspec

from aerogel.decoding import prepare
from aerogel.distroless.declaration import Declaration, Part
from aerogel.distroless.extend import Family, family
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, RELEASES, Recipe, make_recipe
from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = [
    "OWN",
    "PARITY",
    "PREFIX",
    "VARIANTS",
    "Choice",
    "built_in",
    "choose",
    "declarations",
    "find",
    "find_declaration",
    "lookup",
    "names",
    "suggestion",
    "tags",
    "there_is",
    "unknown",
    "upstream",
    "with_more",
    "with_packages",
    "without_architecture",
]

PREFIX = "gcr.io/distroless/"
OWN = "aerogel/"
VARIANTS = ("latest", "nonroot", "debug", "debug-nonroot")
"""The tags that upstream has."""
PARITY = "parity"
PROBE = "probe"
"""In place of a package in `aerogel/NAME+PACKAGE`: the program for HEALTHCHECK."""

_ARCHITECTURES = {name.split("/")[1]: name for name in DEBIAN_ARCHITECTURES}
"""The platform by the word at the end of upstream's tags: `arm` is `linux/arm/v7`."""

_PACKAGE = re.compile(r"[a-z0-9](?:[a-z0-9.-]|\+\+)*")
"""A name between plus signs: `g++` and `libstdc++6` have two of their own."""


class Choice(msgspec.Struct, frozen=True):
    """What a name in FROM means: a base with release, profile (None: the base's own), variant and packages to add."""

    family: Family
    release: str
    variant: str
    profile: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The canonical name, with release and variant."""
        one = self.family.declaration
        repository = one.names[0] if one.names else OWN + one.name
        added = "".join(f"+{package}" for package in self.packages)
        if added:
            repository = OWN + one.name
        if one.tags:
            tag = self.release if self.variant == "latest" else f"{self.release}-{self.variant}"
            return f"{repository}{added}:{tag}"
        number = next((f"-debian{each.version}" for each in RELEASES if each.suite == self.release), "")
        tag = f"{self.variant}-{self.profile}" if self.profile else self.variant
        return f"{repository}{number}{added}:{tag}"

    @property
    def local_name(self) -> str:
        """The canonical name of a declaration in a file."""
        tag = f"{self.variant}-{self.profile}" if self.profile else self.variant
        return f"{self.family.name}:{tag}"

    def _more(self) -> Part | None:
        """What the name adds; `probe` is no package of Debian."""
        packages = tuple(package for package in self.packages if package != PROBE)
        return Part(packages=packages, probe=PROBE in self.packages or None) if self.packages else None

    def recipe(self) -> Recipe:
        """Raises nothing for a built-in base: tests make all of them."""
        return make_recipe(
            self.family,
            name=self.name,
            release=self.release,
            profile=self.profile,
            variant=self.variant,
            more=self._more(),
        )


@functools.cache
def declarations() -> dict[str, Declaration]:
    """The built-in declarations by name, in the order in which they are shown."""
    with open(os.path.join(os.path.dirname(__file__), "data", "bases.json"), "rb") as file:
        data = file.read()
    prepare(tuple[Declaration, ...])
    return {one.name: one for one in msgspec.json.decode(data, type=tuple[Declaration, ...])}


@functools.cache
def built_in(name: str) -> Family:
    """A built-in base. Raises `base.unknown`."""

    def base(wanted: str, _: Declaration) -> Declaration:
        return find_declaration(wanted)

    return family(find_declaration(name), base)


def find_declaration(name: str) -> Declaration:
    """The declaration of a built-in base. Raises `base.unknown`."""
    found = declarations().get(name)
    if found is None:
        near = nearest(name, declarations())
        raise AerogelError(
            f"there is no built-in base `{name}`",
            code="base.unknown",
            hints=[f"did you mean `{near}`?"] if near else [f"there are {', '.join(declarations())}"],
            exit_status=EXIT_USAGE,
        )
    return found


def upstream() -> tuple[str, ...]:
    """The bases that upstream has too, in order."""
    return tuple(name for name, one in declarations().items() if any(each.startswith(PREFIX) for each in one.names))


@functools.cache
def _repositories() -> dict[str, tuple[str, str | None]]:
    """Every repository -> base and release (None: the usual one)."""
    found: dict[str, tuple[str, str | None]] = {}
    for name, one in declarations().items():
        for repository in (*one.names, OWN + name):
            found[repository] = name, None
            if not one.tags:
                for release in built_in(name).releases:
                    for number in (each.version for each in RELEASES if each.suite == release):
                        found[f"{repository}-debian{number}"] = name, release
    return found


def names() -> list[str]:
    """Every built-in name without the tags, for completion and for `did you mean`."""
    return list(_repositories())


def tags(name: str) -> list[str]:
    """The tags of a base, by its short name."""
    base = built_in(name)
    if base.declaration.tags:
        return list(base.declaration.tags)
    variants = base.variants or ("latest",)
    if base.method != "files":
        return list(variants)
    return [*variants, PARITY, *(f"{one}-{PARITY}" for one in variants)]


def find(reference: str) -> Recipe | None:
    """The recipe of a FROM name in its short or full form, or None if nothing of that name is built in."""
    choice = choose(reference)
    return None if choice is None else choice.recipe()


def choose(reference: str) -> Choice | None:
    """What a FROM name means, or None if nothing of that name is built in."""
    repository, tag = _split(reference)
    repository, packages = _parts(repository) if repository.startswith(OWN) else (repository, ())
    known = _repositories().get(repository)
    if known is None or packages is None:
        return None
    name, release = known
    base = built_in(name)
    added = tuple(dict.fromkeys(packages))
    if base.declaration.tags:
        selected = base.declaration.tags.get(tag or "latest")
        return None if selected is None else Choice(base, selected.release, selected.variant, None, added)
    variant, profile = tag or "latest", None
    if variant not in (*base.variants, "latest"):
        variant, dash, last = f"-{variant}".rpartition("-")
        variant, profile = variant.removeprefix("-") or "latest", PARITY
        if not dash or last != PARITY or variant not in (*base.variants, "latest") or base.method != "files":
            return None
    return Choice(base, release or base.releases[0], variant, profile, added)


def lookup(reference: str) -> Recipe:
    """As `find`. Raises `distroless.unknown-image` with what is near, or with what there is."""
    recipe = find(reference)
    if recipe is not None:
        return recipe
    raise unknown(reference)


def unknown(reference: str) -> AerogelError:
    """The error for a name that is not built in."""
    near, of_platform = suggestion(reference), without_architecture(reference)
    hints = [f"did you mean `{near}`?"] if near else []
    if of_platform is not None:
        hints = [f"did you mean `{of_platform[1]}` for the platform {of_platform[0]}?"]
    if not hints:
        hints.append(there_is())
        hints.append(f"tags are {', '.join(VARIANTS)} and {PARITY}; releases are `-debian13` and `-debian12`")
    return AerogelError(
        f"`{reference}` is not a built-in base image",
        code="distroless.unknown-image",
        hints=hints,
        exit_status=EXIT_USAGE,
    )


def there_is() -> str:
    """Where the names of all bases are, as a hint: there are too many to read here."""
    return f"`aerogel base list` shows what is built in, such as `debian`, `{PREFIX}static` and `{OWN}cc`"


_ELSEWHERE = frozenset((
    *("alpine", "busybox", "buildpack-deps", "eclipse-temurin", "gcc", "golang", "gradle", "httpd", "java"),
    *("mariadb", "maven", "memcached", "mysql", "nginx", "node", "openjdk", "perl", "php", "postgres", "pypy", "python"),
    *("redis", "registry", "ruby", "rust", "tomcat", "ubuntu"),
))  # fmt: skip
"""Images of Docker Hub that many build from: who names one has not misspelt another."""


def suggestion(reference: str) -> str | None:
    """A built-in name that is nearly the given one, with a tag when the given one has a tag."""
    repository, tag = _split(reference)
    repository, plus, packages = repository.partition("+")
    added = plus + packages
    known = _repositories()
    if repository in known:
        near = nearest(tag, tags(known[repository][0]))
        return f"{repository}{added}:{near}" if near else None
    if repository in _ELSEWHERE:
        return None
    near = nearest(repository, known)
    if near is None and "/" not in repository:
        prefixed = {one.rpartition("/")[2]: one for one in reversed(known) if one.startswith((PREFIX, OWN))}
        short = nearest(repository, prefixed)
        near = prefixed[short] if short else None
    if near is None or not tag:
        return near + added if near else None
    there = tags(known[near][0])
    kept = tag if tag in there else nearest(tag, there)
    return f"{near}{added}:{kept}" if kept else near + added


def with_more(reference: str, packages: Sequence[str]) -> str | None:
    """The name in FROM for a built-in base with packages added to it; None for other images, and for odd packages."""
    repository, tag = _split(reference)
    base, known = _parts(repository)
    if known is None or choose(reference) is None:
        return None
    added = dict.fromkeys((*known, *packages))
    name = "+".join((OWN + base.rpartition("/")[2], *added)) + (tag and f":{tag}")
    return name if choose(name) is not None else None


def with_packages(reference: str) -> str | None:
    """The name for `gcr.io/distroless/NAME+PACKAGE[:TAG]`: names of registries cannot have a `+`, aerogel's own do."""
    repository, tag = _split(reference)
    if "+" not in repository:
        return None
    base, _, packages = repository.partition("+")
    name = f"{OWN}{base.rpartition('/')[2]}+{packages}{tag and ':'}{tag}"
    is_near = base in _repositories() or "/" not in base
    return name if is_near and choose(name) is not None else None


def without_architecture(reference: str) -> tuple[str, str] | None:
    """Platform and name of a tag that upstream has for each architecture: `latest-amd64`, `nonroot-arm64`."""
    repository, tag = _split(reference)
    variant, _, arch = tag.rpartition("-")
    platform = _ARCHITECTURES.get(arch)
    name = f"{repository}:{variant}"
    return (platform, name) if platform and variant and choose(name) is not None else None


def _parts(repository: str) -> tuple[str, Sequence[str] | None]:
    """A base and the packages behind it; None for what cannot be packages."""
    base, plus, text = repository.partition("+")
    found: list[str] = []
    while plus:
        one = _PACKAGE.match(text)
        if one is None or text[one.end() : one.end() + 1] not in ("", "+"):
            return base, None
        found.append(one[0])
        plus, text = text[one.end() : one.end() + 1], text[one.end() + 1 :]
    return base, found


def _split(reference: str) -> tuple[str, str]:
    """Repository and tag, Docker's own prefix removed; a digest makes a repository that is not built in."""
    text = reference.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("library/")
    if "@" in text:
        return text, ""
    head, slash, last = text.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag
