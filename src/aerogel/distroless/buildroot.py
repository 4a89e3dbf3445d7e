"""`debian`: the essential packages and apt, set up by dpkg inside the sandbox, as debootstrap does.

1. The contents of the packages that dpkg and every script may count on are laid out as one tree, so that dpkg itself
   can run in it. All others are unpacked by dpkg only: a compiler need not be written twice.
2. `dpkg --install` of all packages in that tree: their scripts run with the identities of the image, never the host's.
   Under emulation the packages are handed over without compression: xz takes six times as long there.
3. The tree is written as one canonical layer, without what differs from run to run: logs, caches, backups.
The clock is kept out by SOURCE_DATE_EPOCH (shadow's days) and by no file being newer than the newest package, so two
runs, by root or by a user with subordinate ids, give the same bytes.

What is in it, and why: every essential package, every one of priority `required` (useradd, mount) and apt, which is
debootstrap's `minbase`; debian-archive-keyring, without which apt trusts nothing; tzdata, as in Docker's own
`debian`. No ca-certificates, as there. `slim` leaves out documentation, manuals and translations.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from aerogel.debian.control import relations
from aerogel.debian.deb import open_deb
from aerogel.debian.package import Package
from aerogel.distroless.apt import apt_files
from aerogel.distroless.layout import Layout
from aerogel.distroless.recipe import PATH, Recipe
from aerogel.distroless.room import archive_tree, extract_items, pipe
from aerogel.distroless.rules import SLIM, Filter
from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import AerogelError
from aerogel.events import Progress, Sink, StepLog
from aerogel.files.index import LayerIndex
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

if TYPE_CHECKING:
    from aerogel.sandbox.launch import Helper

__all__ = ["LEFT_OUT", "compose_buildroot", "needed_first", "uncompressed"]

LEFT_OUT = (
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/log/alternatives.log",
    "var/log/apt/eipp.log.xz",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
)
"""What set-up leaves that differs from run to run or belongs to the sandbox."""

_POLICY = b"#!/bin/sh\n# No service is started while an image is built.\nexit 101\n"
_DEBS = "/aerogel-packages"
_TAIL_LINES = 30
_THREADS = 2


def needed_first(packages: Sequence[Package]) -> set[str]:
    """Names of the packages whose files must be there before dpkg and scripts run, by Debian Policy 3.8 and 7.2.

    Those are the essential ones, dpkg, all that another one depends on even for unpacking, and what they need. Other
    sizes of libraries (libc6-i386 and such) are among them, whose folders are links into `/usr` before there are files.
    """
    providers: dict[str, list[Package]] = {}
    for each in packages:
        for name in (each.name, *(one.name for group in relations(each.provides) for one in group)):
            providers.setdefault(name, []).append(each)
    todo = [each for each in packages if each.essential or each.name == "dpkg" or each.name.startswith("libc6-")]
    todo += [
        one
        for each in packages
        for group in relations(each.pre_depends)
        for way in group
        for one in providers.get(way.name, ())
    ]
    found: set[str] = set()
    while todo:
        each = todo.pop()
        if each.name not in found:
            found.add(each.name)
            for group in (*relations(each.pre_depends), *relations(each.depends)):
                todo += [one for way in group for one in providers.get(way.name, ())]
    return found


def compose_buildroot(
    recipe: Recipe,
    packages: Sequence[Unpacked],
    debs: Sequence[Path],
    write: Callable[[bytes | memoryview], object],
    *,
    epoch: int,
    helper: Helper,
    scratch: str,
    sink: Sink,
    step: int = 0,
    emulated: bool = False,
    add: Callable[[Layout], object] = lambda _: None,
) -> tuple[LayerIndex, int]:
    """Sets the packages up below `scratch` and writes the layer; returns its index and epoch (seconds since 1970).

    `packages` are those of `needed_first`, `debs` are the files of all in the order of their dependencies, in folders
    that the sandbox may read. `epoch` is the newest time in the others. `add` puts in what is in no package. `emulated` when they are for another machine. `scratch` is an empty directory of the state directory's file system; it is empty again at the end.
    Raises `distroless.setup` with the last lines of dpkg's output, `sandbox.*`.
    """
    layout = _layout(recipe, packages)
    layout.epoch = max(layout.epoch, epoch)
    add(layout)
    tree, work, plain = (f"{scratch}/{name}" for name in ("tree", "work", "packages"))
    os.mkdir(tree, 0o755)
    os.mkdir(work, 0o700)
    os.mkdir(plain, 0o755)
    try:
        extract_items(helper, layout.ordered(), tree)
        root = Rootfs(upper=tree, work=work)
        time = "in emulation, which takes minutes" if emulated else "which can take a minute"
        sink.emit(StepLog(step, f"setting up {len(debs)} packages, {time}; the result is kept\n".encode()))
        if emulated:
            debs = uncompressed(debs, Path(plain))
        _set_up(helper, root, debs, layout.epoch, sink, step, emulated=emulated)
        sink.emit(StepLog(step, b"writing the layer\n"))
        return archive_tree(helper, tree, layout.epoch, LEFT_OUT, write), layout.epoch
    finally:
        for path in (tree, work, plain):
            helper.call("remove", {"path": path})


def uncompressed(debs: Sequence[Path], folder: Path) -> list[Path]:
    """The same packages, in the same order, written into `folder` without compression. Raises `debian.deb-damaged`."""

    def write(deb: Path) -> Path:
        path = folder / deb.name
        with open_deb(deb) as opened, open(path, "wb") as out:
            opened.write_plain(out)
        return path

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(write, debs))


def _layout(recipe: Recipe, packages: Sequence[Unpacked]) -> Layout:
    layout = Layout()
    ordered = sorted(packages, key=lambda each: (each.package.name != "base-files", each.package.name))
    rules = (SLIM,) if recipe.slim else ()
    for one in ordered:
        layout.add_package(one, Filter(rules, one.package.name).dropped_by)
    layout.merge_usr()
    for path, content in apt_files(recipe.suite, slim=recipe.slim).items():
        layout.write(path, content)
    for path in (b"var/lib/dpkg/status", b"var/lib/dpkg/available"):
        layout.write(path, b"")
    return layout


def _set_up(
    helper: Helper, root: Rootfs, debs: Sequence[Path], epoch: int, sink: Sink, step: int, *, emulated: bool
) -> None:
    folder = os.path.commonpath([deb.parent for deb in debs])
    sandbox = Sandbox(
        argv=("dpkg", "--force-depends", "--install", *(f"{_DEBS}/{deb.relative_to(folder)}" for deb in debs)),
        root=root,
        env=(
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("PATH", PATH),
            ("SOURCE_DATE_EPOCH", str(epoch)),
            ("TZ", "UTC"),
        ),
        mounts=(
            Mount(kind="bind", source=folder, target=_DEBS, readonly=True),
            Mount(kind="file", target="/usr/sbin/policy-rc.d", data=_POLICY, mode=0o755, readonly=True),
            Mount(kind="tmpfs", target="/tmp"),
        ),
        network="none",
        emulated=emulated,
    )
    tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
    with ExitStack() as stack:
        reading, writing = pipe(stack)
        process = helper.run(sandbox, stdout=writing.fileno(), stderr=writing.fileno())
        writing.close()
        done = 0
        for line in BufferedReader(reading):
            # What dpkg says matters only when it fails: it warns a lot while the root is half set up.
            tail.append(line)
            if line.startswith(b"Setting up "):
                done += 1
                sink.emit(Progress(step, "setting up packages", done, len(debs), "packages"))
        result = process.wait()
    if result.fault is not None:
        raise result.fault
    if result.code != 0:
        raise AerogelError(
            f"dpkg could not set up the build root: it ended with status {result.code}",
            code="distroless.setup",
            detail=b"".join(tail).decode("utf-8", "replace"),
        )
