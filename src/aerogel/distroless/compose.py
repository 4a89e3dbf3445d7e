"""Puts a distroless image together: packages and generated files in, one canonical layer tar out.

No maintainer script runs, nothing is written to a file system, and ownership exists only in the tar, so it works as
any user and for any architecture. The same packages and recipe give the same bytes, whatever the time, locale,
user, umask or hash seed.
Not for: choosing and fetching packages (`base`), nor `debian` itself (`buildroot`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from aerogel.distroless import certificates, ldcache, osrelease, status
from aerogel.distroless.externals import External, place_external
from aerogel.distroless.java import link_rule
from aerogel.distroless.layout import Item, Layout, merged_usr
from aerogel.distroless.makers import wanted_makers
from aerogel.distroless.placing import place_accounts, place_paths, place_timezone
from aerogel.distroless.recipe import TRIPLETS, Recipe
from aerogel.distroless.rules import LICENCES, Filter, Rule, profile, unused_licences
from aerogel.distroless.underlay import Underlay
from aerogel.distroless.unpacked import Unpacked
from aerogel.distroless.work import Bench, Work
from aerogel.errors import AerogelError
from aerogel.files.entry import LNK, REG, SYM

__all__ = ["Composition", "applets", "compose", "lay_out", "nothing_beside", "package_rules"]

_LICENCES = b"usr/share/common-licenses/"
_COPYRIGHT = re.compile(rb"usr/share/doc/[^/]+/copyright(?:\..*)?")
_BUSYBOX = b"busybox/busybox"


class Composition(NamedTuple):
    """What to write, in order, and the newest time of the packages: seconds since 1970."""

    items: list[Item]
    epoch: int
    layout: Layout


def nothing_beside(name: str) -> bytes:
    """For recipes that are built in: they name no files."""
    raise AerogelError(f"`{name}` cannot be read: the base has no folder", code="base.no-file")


def compose(
    recipe: Recipe,
    packages: Sequence[Unpacked],
    arch: str,
    bench: Bench | None = None,
    read: Callable[[str], bytes] = nothing_beside,
    externals: Sequence[tuple[External, Path]] = (),
    underlay: Underlay | None = None,
) -> Composition:
    """The image's tree; on top of `underlay`, what differs from that. `arch` is Debian's name of the architecture.

    `bench` is needed by recipes that want a maker, `read` gives the files beside the declaration,
    `externals` are the fetched files of what is in no apt archive.
    Raises `distroless.*` for packages that do not fit together, `base.*` for a declaration that does not fit them.
    """
    layout, ordered, dropped = lay_out(recipe, packages, underlay)
    single = {
        path: data
        for one in ordered
        if one.package.name == "ca-certificates"
        for path, data in _certificates(one).items()
    }
    if recipe.rules == "micro":
        dropped.setdefault("base-files", set()).update(_drop_licences(layout))
    for one_external, path in externals:
        assert bench is not None  # who fetches them gives one
        place_external(layout, one_external, path, bench.stack)
    _add_system_files(layout, recipe, underlay)
    if not recipe.bundle:
        single = {}
    own = {name.encode(): read(name) for name in recipe.certificates}
    more = trusted = single | own
    if underlay is not None:
        trusted = _merge_certificates(layout, trusted, hash_links=recipe.hash_links)
    elif trusted:
        _add_certificates(layout, single, own, hash_links=recipe.hash_links)
    if recipe.busybox:
        _add_applets(layout)
    for maker in wanted_makers(recipe):
        assert bench is not None  # who selects such a recipe gives one
        maker.make(Work(recipe, arch, ordered, layout, bench, trusted, more))
    if recipe.timezone:
        place_timezone(layout, recipe.timezone)
    users, groups = (underlay.users, underlay.groups) if underlay is not None else ((), ())
    place_paths(layout, recipe.paths, (*users, *recipe.users), (*groups, *recipe.groups), read)
    _add_library_cache(layout, recipe, arch)
    for one in ordered:
        _add_status(layout, one, dropped[one.package.name], busybox=recipe.busybox)
    return Composition(layout.ordered(), layout.epoch, layout)


def lay_out(
    recipe: Recipe, packages: Sequence[Unpacked], underlay: Underlay | None = None
) -> tuple[Layout, list[Unpacked], dict[str, set[str]]]:
    """The files of packages that the rules keep, the packages in the order of that, and the rules that dropped some."""
    layout = Layout()
    if underlay is not None:
        layout = Layout(underlay.items, epoch=underlay.epoch, owner_below=underlay.owner)
    # base-files first: the modes of its directories are the ones that count.
    ordered = sorted(packages, key=lambda each: (each.package.name != "base-files", each.package.name))
    dropped: dict[str, set[str]] = {}
    for one in ordered:
        name = one.package.name
        rename = _to_busybox if recipe.busybox and name == "busybox-static" else None
        dropped[name] = layout.add_package(one, Filter(package_rules(recipe, name), name).dropped_by, rename)
    layout.prune()
    layout.merge_usr()
    return layout, ordered, dropped


def package_rules(recipe: Recipe, name: str) -> tuple[Rule, ...]:
    """The rules for a package: those of the profile, with what the declaration keeps, and what it drops besides."""
    rules = profile(recipe.rules)
    if recipe.rules == "micro" and recipe.java is not None and recipe.java.version is not None:
        rules += (link_rule(recipe.java.version),)
    own = recipe.slices.get(name)
    if own is None:
        return rules
    kept = tuple(msgspec.structs.replace(rule, keep=(*rule.keep, *own.keep)) for rule in rules)
    if not own.drop:
        return kept
    return (*kept, Rule(name="declared", why=own.why or "left out by the declaration", drop=own.drop, keep=own.keep))


def _to_busybox(path: bytes) -> bytes:
    path = merged_usr(path)
    return _BUSYBOX if path == b"usr/bin/busybox" else path


def _certificates(unpacked: Unpacked) -> dict[bytes, bytes]:
    return {
        entry.path: unpacked.read(offset, entry.size)
        for entry, offset in unpacked.entries
        if entry.kind == REG and entry.path.startswith(certificates.SOURCE) and entry.path.endswith(b".crt")
    }


def _add_certificates(layout: Layout, single: dict[bytes, bytes], own: dict[bytes, bytes], *, hash_links: bool) -> None:
    bundle = certificates.bundle(single) + certificates.bundle(own)
    layout.write(certificates.BUNDLE, bundle)
    for path, target in certificates.LINKS.items():
        layout.link(path, target)
    if hash_links:
        folder, _, name = certificates.BUNDLE.rpartition(b"/")
        for link in certificates.hash_links(bundle):
            layout.link(folder + b"/" + link, name)


def _merge_certificates(layout: Layout, more: dict[bytes, bytes], *, hash_links: bool) -> dict[bytes, bytes]:
    """Adds to the bundle of the image below; returns what is trusted then."""
    there = layout.resolve(certificates.BUNDLE)
    before = layout.read(there) if there is not None and there.entry.kind in (REG, LNK) else b""
    bundle = certificates.added(before, more)
    trusted = {certificates.BUNDLE: bundle} if bundle else {}
    if bundle == before:
        return trusted
    layout.write(certificates.BUNDLE, bundle)
    for path, target in certificates.LINKS.items():
        if layout.items.get(layout.landed(path)) is None:
            layout.link(path, target)
    folder, _, name = certificates.BUNDLE.rpartition(b"/")
    for link in certificates.hash_links(bundle) if hash_links else ():
        _link_hash(layout, folder, link, name)
    return trusted


def _link_hash(layout: Layout, folder: bytes, link: bytes, name: bytes) -> None:
    """A link by a subject, behind those of other files that the image has for it."""
    head, number = link.removesuffix(b"0"), 0
    while True:
        path = layout.landed(b"%s/%s%d" % (folder, head, number))
        there = layout.items.get(path)
        if there is None:
            layout.link(path, name)
        if there is None or there.entry.link == name:
            return
        number += 1


def _drop_licences(layout: Layout) -> list[str]:
    names = {
        path.removeprefix(_LICENCES).decode(): layout.items[path].entry.link.decode()
        for path in layout.items
        if path.startswith(_LICENCES) and not layout.is_below(path)
    }
    texts = [
        layout.read(item)
        for path, item in layout.items.items()
        if item.entry.kind in (REG, LNK) and _COPYRIGHT.fullmatch(path)
    ]
    unused = unused_licences(names, texts)
    for name in unused:
        del layout.items[_LICENCES + name.encode()]
    return [LICENCES] if unused else []


def _add_system_files(layout: Layout, recipe: Recipe, underlay: Underlay | None) -> None:
    place_accounts(layout, recipe.users, recipe.groups, underlay)
    if b"etc/nsswitch.conf" not in layout.below:
        layout.write(b"etc/nsswitch.conf", osrelease.NSSWITCH)
    debian = layout.resolve(b"usr/lib/os-release")
    if underlay is not None and (debian is None or layout.is_below(debian.entry.path)):
        return
    if debian is None:
        raise AerogelError(
            f"the recipe `{recipe.name}` does not have the package `base-files`", code="distroless.no-base-files"
        )
    layout.write(b"usr/lib/os-release", osrelease.os_release(layout.read(debian), recipe.suite))
    layout.link(b"etc/os-release", b"../usr/lib/os-release")


def _add_applets(layout: Layout) -> None:
    """Links for what busybox can do, by the table of names in the program itself."""
    busybox = layout.items.get(_BUSYBOX)
    if busybox is None:
        raise AerogelError("`busybox-static` has no program `busybox`", code="distroless.busybox")
    for name in applets(layout.read(busybox)):
        if name != b"busybox":
            layout.link(b"busybox/" + name, b"busybox")


def applets(program: bytes) -> list[bytes]:
    """Names of the applets in a busybox: NUL-terminated strings in sorted order, from `[` on.

    Raises `distroless.busybox` if there is no such table.
    """
    table = re.search(rb"\[\0\[\[\0(?:[a-z0-9][a-z0-9_.-]*\0)+", program)
    names: list[bytes] = []
    for name in table[0].split(b"\0") if table else ():
        if names and name <= names[-1]:
            break
        names.append(name)
    if b"sh" not in names:
        raise AerogelError("`busybox` has no table of applets that can be read", code="distroless.busybox")
    return names


def _add_library_cache(layout: Layout, recipe: Recipe, arch: str) -> None:
    """/etc/ld.so.cache, if the recipe wants it; the one of an image below gets what comes."""
    before = layout.resolve(ldcache.PATH) if ldcache.PATH in layout.below else None
    if before is None or before.entry.kind != REG:
        if recipe.library_cache:
            layout.write(ldcache.PATH, ldcache.write_cache(_libraries(layout, arch)))
        return
    known = ldcache.read_cache(layout.read(before))
    kept = [one for one in known if layout.resolve(one.path.lstrip(b"/")) is not None]
    more = _libraries(layout, arch, is_own=True)
    if more or len(kept) < len(known):
        names = {(one.soname, one.path) for one in more}
        kept = [one for one in kept if (one.soname, one.path) not in names]
        layout.write(ldcache.PATH, ldcache.write_cache([*kept, *more]))


def _libraries(layout: Layout, arch: str, *, is_own: bool = False) -> list[ldcache.Library]:
    """The libraries where the loader looks, with `is_own` those alone that no image below has."""
    libraries = []
    for folder in ldcache.directories(TRIPLETS[arch]):
        prefix = folder + b"/"
        for path in sorted(path for path in layout.items if path.startswith(prefix)):
            if is_own and layout.is_below(path):
                continue
            name = path.removeprefix(prefix)
            if b"/" in name or not ldcache.is_library_name(name):
                continue
            item = layout.resolve(path)
            if item is None or item.entry.kind not in (REG, LNK):
                continue
            found = ldcache.read_soname(partial(layout.read, item))
            if found is None:
                continue
            soname, flags, big_endian = found
            if not soname or (layout.items[path].entry.kind == SYM and name.endswith(b".so")):
                soname = name  # ldconfig keeps the link that the linker uses under its own name
            if prefix + soname not in layout.items:
                layout.link(prefix + soname, name)  # as ldconfig would
            libraries.append(ldcache.Library(soname, b"/" + prefix + soname, flags, big_endian))
    return libraries


def _add_status(layout: Layout, one: Unpacked, dropped: set[str], *, busybox: bool) -> None:
    name = one.package.name
    usual = layout.landed if layout.below else merged_usr
    rename = _to_busybox if busybox and name == "busybox-static" else usual

    def is_there(path: bytes) -> bool:
        item = layout.items.get(rename(path))
        return item is not None and item.owner == name

    place = status.DIRECTORY + b"/" + name.encode()
    layout.write(place, status.control_file(one.control["control"], dropped))
    if "md5sums" in one.control:
        layout.write(place + b".md5sums", status.sums_file(one.control["md5sums"], is_there))
