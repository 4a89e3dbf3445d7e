"""The declaration of a base image: which packages, by which rules, and how a container of it runs.

A recipe is a value: `catalogue` makes the built-in ones, `compose` and `buildroot` carry them out. It names no
versions and no mirror; those come from the archive at the time of the build.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "COMPOSE_VERSION",
    "DEBIAN_ARCHITECTURES",
    "PATH",
    "RELEASES",
    "SCRIPT_ONLY",
    "TRIPLETS",
    "Kind",
    "Recipe",
    "Release",
]

COMPOSE_VERSION = b"aerogel-base-v1"
"""Part of every key: changes when the same packages would give other bytes."""

Kind = Literal["distroless", "buildroot"]
"""`distroless`: files put together without running anything; `buildroot`: set up by dpkg in the sandbox."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SCRIPT_ONLY = (
    "awk",
    "mawk",
    "debconf",
    "debconf-2.0",
    "cdebconf",
    "openssl",
    "openssl-provider-legacy",
    "readline-common",
    "perl-base",
    "perl",
    "dpkg",
)
"""Dependencies that only maintainer scripts use, or that upstream leaves out on purpose (the legacy provider)."""


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


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A base image before resolution.

    - `name` is what the user may write in FROM (canonical: release and variant stated);
    - `packages` are pulled in with their dependencies, except for names in `skip` and what only they need;
    - `rules` names the profile of `rules` that decides about files;
    - `links` are symbolic links to add, path -> target, absolute;
    - `hash_links` adds the CA directory's hash links, `library_cache` /etc/ld.so.cache;
    - `busybox` puts a shell into /busybox (the `debug` variants);
    - `slim` (build roots) leaves out manuals and documentation, now and in later installs.
    """

    name: str
    kind: Kind = "distroless"
    suite: str
    packages: tuple[str, ...]
    skip: tuple[str, ...] = ()
    rules: str = "micro"
    links: tuple[tuple[str, str], ...] = ()
    hash_links: bool = False
    library_cache: bool = False
    busybox: bool = False
    slim: bool = False
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
