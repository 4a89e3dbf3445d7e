"""The built-in base images by the names that Dockerfiles use; no registry is asked.

`gcr.io/distroless/NAME[-debian13|-debian12][:latest|nonroot|debug|debug-nonroot]` and `debian[:RELEASE[-slim]]`.
A name that carries a digest is never built in: a composed image has a digest of its own.
Package lists: what GoogleContainerTools/distroless ships, as dependency roots; see `recipe.SCRIPT_ONLY` for what is
left out on purpose.
"""

from __future__ import annotations

from aerogel.distroless.recipe import PATH, RELEASES, SCRIPT_ONLY, Recipe
from aerogel.errors import EXIT_USAGE, AerogelError, nearest

__all__ = ["FAMILY", "PREFIX", "VARIANTS", "find", "lookup", "names", "suggestion"]

PREFIX = "gcr.io/distroless/"
FAMILY = ("static", "base-nossl", "base", "cc", "python3")
"""Names of the family, each based on the one before it."""
VARIANTS = ("latest", "nonroot", "debug", "debug-nonroot")

_DEBIAN_TAGS = {
    "latest": "trixie",
    "stable": "trixie",
    "trixie": "trixie",
    "13": "trixie",
    "oldstable": "bookworm",
    "bookworm": "bookworm",
    "12": "bookworm",
}
_STATIC = ("base-files", "ca-certificates", "media-types", "netbase", "tzdata")
_OPENSSL = {"trixie": ("libssl3t64",), "bookworm": ("libssl3",)}
_PYTHON = {"trixie": "3.13", "bookworm": "3.11"}
# libc6 depends on libgcc-s1 only for thread cancellation; upstream adds it in `cc`.
_NO_LIBGCC = ("libgcc-s1",)
# Needed by the module `nis` alone, which the rule `python-nis` drops.
_NO_NIS = ("libnsl2", "libtirpc3", "libtirpc3t64")


def names() -> list[str]:
    """Every built-in name without the tags, for completion and for `did you mean`."""
    family = [f"{PREFIX}{name}{suffix}" for name in FAMILY for suffix in ("", "-debian13", "-debian12")]
    return [*family, "debian"]


def find(reference: str) -> Recipe | None:
    """The recipe of a FROM name in its short or full form, or None if nothing of that name is built in."""
    repository, tag = _split(reference)
    if repository == "debian":
        release = _DEBIAN_TAGS.get(tag.removesuffix("-slim")) if tag else "trixie"
        return _debian(release, slim=tag.endswith("-slim")) if release else None
    if not repository.startswith(PREFIX) or (tag or "latest") not in VARIANTS:
        return None
    name, _, number = repository.removeprefix(PREFIX).partition("-debian")
    suites = [release.suite for release in RELEASES if number in ("", release.version)]
    if name not in FAMILY or not suites or repository.endswith("-debian"):
        return None
    return _distroless(name, suites[0], tag or "latest")


def lookup(reference: str) -> Recipe:
    """As `find`. Raises `distroless.unknown-image` with what is near, or with what there is."""
    recipe = find(reference)
    if recipe is not None:
        return recipe
    near = suggestion(reference)
    hints = [f"did you mean `{near}`?"] if near else []
    if not near:
        hints.append(f"built in are `debian` and `{PREFIX}NAME` with NAME one of {', '.join(FAMILY)}")
        hints.append(f"tags are {', '.join(VARIANTS)}; releases are `-debian13` and `-debian12`")
    raise AerogelError(
        f"`{reference}` is not a built-in base image",
        code="distroless.unknown-image",
        hints=hints,
        exit_status=EXIT_USAGE,
    )


def suggestion(reference: str) -> str | None:
    """A built-in name that is nearly the given one, with a tag when the given one has a tag."""
    repository, tag = _split(reference)
    if repository in names():
        near = nearest(tag, _tags(repository))
        return f"{repository}:{near}" if near else None
    near = nearest(repository, names())
    if near is None and "/" not in repository:
        short = nearest(repository, [name.removeprefix(PREFIX) for name in names()])
        near = PREFIX + short if short else None
    if near is None or not tag:
        return near
    known = _tags(near)
    kept = tag if tag in known else nearest(tag, known)
    return f"{near}:{kept}" if kept else near


def _tags(repository: str) -> list[str]:
    return _debian_tags() if repository == "debian" else list(VARIANTS)


def _debian_tags() -> list[str]:
    return [tag + suffix for tag in _DEBIAN_TAGS for suffix in ("", "-slim")] + ["stable-slim"]


def _split(reference: str) -> tuple[str, str]:
    """Repository and tag, Docker's own prefix removed; a digest makes a repository that is not built in."""
    text = reference.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("library/")
    if "@" in text:
        return text, ""
    head, slash, last = text.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag


def _debian(suite: str, *, slim: bool) -> Recipe:
    # Debian 12 otherwise takes the first alternative of `usrmerge | usr-is-merged`, a converter that needs all of Perl.
    merged = ("usr-is-merged",) if suite == "bookworm" else ()
    return Recipe(
        name=f"debian:{suite}{'-slim' if slim else ''}",
        kind="buildroot",
        suite=suite,
        packages=("apt", "debian-archive-keyring", "tzdata", *merged),
        rules="parity",
        slim=slim,
        env=(f"PATH={PATH}",),
        cmd=("bash",),
    )


def _packages(name: str, suite: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dependency roots, and what is skipped besides `SCRIPT_ONLY`."""
    found = list(_STATIC)
    if suite == "trixie":
        found.append("tzdata-legacy")
    level = FAMILY.index(name)
    if level >= FAMILY.index("base-nossl"):
        found.append("libc6")
    if level >= FAMILY.index("base"):
        found += _OPENSSL[suite]
    if level >= FAMILY.index("cc"):
        found += ["libgcc-s1", "libgomp1", "libstdc++6"]
    if name == "python3":
        version = _PYTHON[suite]
        found += [f"libpython{version}-stdlib", f"python{version}-minimal", "libc-bin"]
    return tuple(sorted(found)), _NO_LIBGCC if level < FAMILY.index("cc") else _NO_NIS


def _distroless(name: str, suite: str, variant: str) -> Recipe:
    packages, skip = _packages(name, suite)
    debug = variant.startswith("debug")
    nonroot = variant.endswith("nonroot")
    number = next(release.version for release in RELEASES if release.suite == suite)
    path = f"{PATH}:/busybox" if debug else PATH
    env: tuple[str, ...] = (f"PATH={path}", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    links: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    if name == "python3":
        python = f"python{_PYTHON[suite]}"
        env += ("LANG=C.UTF-8",)
        entrypoint = (f"/usr/bin/{python}",)
        links = (("/usr/bin/python", python), ("/usr/bin/python3", python))
    return Recipe(
        name=f"{PREFIX}{name}-debian{number}:{variant}",
        suite=suite,
        packages=(*packages, "busybox-static") if debug else packages,
        skip=(*SCRIPT_ONLY, *skip),
        links=links,
        hash_links=FAMILY.index(name) >= FAMILY.index("base"),
        library_cache=name == "python3",
        busybox=debug,
        env=env,
        entrypoint=("/busybox/sh",) if debug else entrypoint,
        user="65532" if nonroot else "0",
        workdir="/home/nonroot" if nonroot else "/",
    )
