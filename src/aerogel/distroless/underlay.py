"""An image of somebody that a base is laid on: `extends: docker://...` in a declaration.

Its layers stay as they are; the base is what comes on top. This says what the image has already, so that nothing comes
twice: its packages, by dpkg's database or `status.d`, its accounts, its files. And whether it fits at all: packages of
one release of Debian do not go on another one, nor on another system.
Not for: where the image comes from, nor what is put on top (`compose`).
Spec: os-release(5), passwd(5), group(5); Debian Policy 5.3.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from aerogel.debian.control import paragraphs
from aerogel.debian.package import Package
from aerogel.distroless.accounts import USERS, parsed_groups, parsed_users
from aerogel.distroless.layout import Item, Place
from aerogel.distroless.recipe import RELEASES, Recipe
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.files.entry import LNK, REG
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest
from aerogel.oci.ends import KINDS
from aerogel.oci.reference import is_path_name
from aerogel.oci.types import ContainerConfig, ImageConfig

if TYPE_CHECKING:
    from aerogel.distroless.accounts import Group, User

__all__ = ["INSTALLED", "Underlay", "inherited", "is_image", "settled"]

INSTALLED = "image"
"""The suite of packages that the image brings."""
_DATABASE = b"var/lib/dpkg/"
_STATUS = _DATABASE + b"status"
_RECORDS = _DATABASE + b"status.d"
_FIELD = re.compile(r"""(?m)^([A-Z_]+)=["']?(.*?)["']?[ \t]*$""")


def is_image(text: str) -> bool:
    """Whether `extends` names an image: with the word of a place in front, or as FROM names one of a registry."""
    if is_path_name(text) or text.endswith((".yaml", ".yml")):
        return False
    return text.partition(":")[0] in KINDS or "://" in text or any(sign in text for sign in "/:@")


class Underlay:
    """One image of one platform. `reference` is what the declaration says, `digest` is that of its manifest.

    `unpacked` gives a descriptor of the plain tar of a layer, by its number; it stays the giver's.
    """

    def __init__(
        self,
        reference: str,
        digest: Digest,
        config: ImageConfig,
        indexes: Sequence[LayerIndex],
        unpacked: Callable[[int], int],
        index: Digest | None = None,
    ) -> None:
        self.reference = reference
        self.index = index or digest
        """What the name meant: the image, or an index of it."""
        self.digest = digest
        self.config = config
        self.tree = LayerTree(indexes)
        self._unpacked = unpacked

    # Files

    @functools.cached_property
    def items(self) -> dict[bytes, Item]:
        """Its files by path, as a layout has them: hard links are files of their own."""
        found: dict[bytes, Item] = {}
        for entry in self.tree.walk():
            if entry.path:
                is_file = entry.kind in (REG, LNK)
                found[entry.path] = Item(entry, self._place(entry.path) if is_file else b"")
        return found

    def _place(self, path: bytes) -> Place:
        origin = self.tree.origin(path)
        assert origin is not None  # a file is in a layer
        return Place(self._unpacked(origin.layer), origin.offset)

    def read(self, path: bytes) -> bytes | None:
        """The content of what a path leads to; None if that is no file."""
        import os

        try:
            path = self.tree.resolve(path)
        except AerogelError:  # links in a circle
            return None
        entry = self.tree.lookup(path)
        if entry is None or entry.kind != REG:
            return None
        place = self._place(path)
        return os.pread(place.fd, entry.size, place.offset)

    @property
    def epoch(self) -> int:
        """When it was made, seconds since 1970; 0 when it does not say."""
        try:
            made = datetime.fromisoformat(self.config.created)
            # RFC 3339 has the zone always; without one it is nowhere the time of the machine that composes.
            return max(0, int((made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()))
        except (ValueError, OverflowError):
            return 0

    # What it says of itself

    @functools.cached_property
    def system(self) -> dict[str, str]:
        """The fields of its os-release; empty when it has none."""
        data = self.read(b"etc/os-release") or self.read(b"usr/lib/os-release") or b""
        return dict(_FIELD.findall(data.decode("utf-8", "replace")))

    @functools.cached_property
    def users(self) -> tuple[User, ...]:
        return parsed_users(self.read(b"etc/passwd") or b"")

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        return parsed_groups(self.read(b"etc/group") or b"")

    @functools.cached_property
    def _records(self) -> list[Package]:
        names = [_STATUS] if self.tree.lookup(_STATUS) is not None else []
        if self.tree.lookup(_RECORDS) is not None:
            children = (name for name in self.tree.children(_RECORDS) if not name.endswith(b".md5sums"))
            names += [_RECORDS + b"/" + name for name in children]
        found: dict[tuple[str, str], Package] = {}
        for name in names:
            text = (self.read(name) or b"").decode("utf-8", "replace")
            try:
                packages = [_package(fields) for fields in paragraphs(text)]
            except AerogelError as error:
                raise AerogelError(
                    f"the packages of the image `{self.reference}` cannot be read: "
                    f"`/{name.decode('utf-8', 'replace')}`: {error.message}",
                    code="base.image-packages",
                    hints=["make the image anew, or extend another one"],
                ) from None
            for package in filter(None, packages):
                found.setdefault((package.name, package.architecture), package)
        return list(found.values())

    def packages(self, arch: str) -> tuple[Package, ...]:
        """What is installed, for Debian's `arch`. Raises `base.image-packages`, `base.image-architecture`."""
        found = tuple(each for each in self._records if each.architecture in ("all", arch))
        others = sorted({each.architecture for each in self._records} - {"all", arch, ""})
        if others and not any(each.architecture == arch for each in found):
            raise AerogelError(
                f"the image `{self.reference}` has packages for {', '.join(others)}, and is wanted for {arch}",
                code="base.image-architecture",
                hints=["extend an image that is made for the platform"],
                exit_status=EXIT_USAGE,
            )
        return found

    @functools.cached_property
    def _owners(self) -> dict[bytes, str]:
        """Path -> the package that has it, by the lists of dpkg and of `status.d`."""
        info = _DATABASE + b"info"
        lists = {
            folder + b"/" + name: name.removesuffix(end).partition(b":")[0].decode("ascii", "replace")
            for folder, end in ((info, b".list"), (_RECORDS, b".md5sums"))
            if self.tree.lookup(folder) is not None
            for name in self.tree.children(folder)
            if name.endswith(end)
        }
        found: dict[bytes, str] = {}
        for place, package in lists.items():
            is_sums = place.endswith(b".md5sums")
            for line in (self.read(place) or b"").splitlines():
                path = (line.partition(b"  ")[2] if is_sums else line).strip().removeprefix(b"./").lstrip(b"/")
                if path and path != b".":
                    found.setdefault(path, package)
                    found.setdefault(self._real(path), package)
        return found

    def _real(self, path: bytes) -> bytes:
        try:
            return self.tree.resolve(path, follow_last=False)
        except AerogelError:
            return path

    def owner(self, path: bytes) -> str:
        """The package that has a path; empty for none."""
        return self._owners.get(path, "")

    # Whether it fits

    def check(self, recipe: Recipe) -> None:
        """Raises `base.image-system`, `base.image-release` for what packages of the recipe do not go on, `base.account`
        for a user that is not there.
        """
        system = self.system
        name = system.get("PRETTY_NAME") or system.get("NAME") or system.get("ID", "")
        if system.get("ID", "debian") != "debian":
            raise AerogelError(
                f"the image `{self.reference}` is {name}, not Debian: Debian's packages do not go on top of it",
                code="base.image-system",
                hints=["extend an image of Debian, or take the files with `COPY --from` in a Dockerfile"],
                exit_status=EXIT_USAGE,
            )
        found = self._release()
        if found and found != recipe.suite:
            known = found in {each.suite for each in RELEASES}
            raise AerogelError(
                f"the image `{self.reference}` is Debian {found}, and the packages are taken from {recipe.suite}",
                code="base.image-release",
                hints=[f"write `releases: {{{found}: {{}}}}`" if known else f"extend an image of {recipe.suite}"],
                exit_status=EXIT_USAGE,
            )
        settled(recipe.user, self, recipe)

    def _release(self) -> str:
        """The code name of its release; a number that is not known here as it is, empty when nothing is said."""
        code, number = self.system.get("VERSION_CODENAME", ""), self.system.get("VERSION_ID", "")
        return code or next((each.suite for each in RELEASES if each.version == number), number)


def _package(fields: Mapping[str, str]) -> Package | None:
    """A paragraph of the database; None for a package that is not installed."""
    name, version = fields.get("package", ""), fields.get("version", "")
    if not name or not version or fields.get("status", "installed").split()[-1:] != ["installed"]:
        return None
    source, _, source_version = fields.get("source", name).partition(" ")
    return Package(
        name=name,
        version=version,
        architecture=fields.get("architecture", ""),
        filename="",
        size=0,
        sha256="",
        source=source,
        source_version=source_version.strip("() ") or version,
        pre_depends=fields.get("pre-depends", ""),
        multi_arch=fields.get("multi-arch", ""),
        depends=fields.get("depends", ""),
        recommends=fields.get("recommends", ""),
        provides=fields.get("provides", ""),
        conflicts=fields.get("conflicts", ""),
        breaks=fields.get("breaks", ""),
        replaces=fields.get("replaces", ""),
        suite=INSTALLED,
    )


# How a container of it runs


def settled(user: str, underlay: Underlay, recipe: Recipe) -> str:
    """Who runs, by number where a name was said. Raises `base.account`."""
    name, colon, group = user.partition(":")
    if not name or name.isdigit():
        return user
    known = {each.name: each.uid for each in (*USERS, *recipe.users, *underlay.users)}
    if name not in known:
        near = nearest(name, known)
        raise AerogelError(
            f"`run-as` names the user `{name}`, whom neither the declaration nor the image has",
            code="base.account",
            hints=[f"did you mean `{near}`?"] if near else [f"users are {', '.join(known)}"],
            exit_status=EXIT_USAGE,
        )
    return f"{known[name]}{colon}{group}"


def inherited(underlay: Underlay, recipe: Recipe, env: Iterable[str]) -> ContainerConfig:
    """What the image says of its containers, with what the recipe says over it. `env` is that of the recipe."""
    base = underlay.config.config
    for path in recipe.forgets:
        base = _without(base, path)
    variables = dict(one.partition("=")[::2] for one in base.env)
    variables |= dict(one.partition("=")[::2] for one in env)
    changes = {
        "user": settled(recipe.user, underlay, recipe) or base.user,
        "env": tuple(f"{name}={value}" for name, value in variables.items()),
        "entrypoint": recipe.entrypoint or base.entrypoint,
        # As in a Dockerfile: a CMD was meant for the ENTRYPOINT that it came with.
        "cmd": recipe.cmd or (() if recipe.entrypoint else base.cmd),
        "working_dir": recipe.workdir or base.working_dir,
        "labels": base.labels | recipe.labels,
        "stop_signal": recipe.stop_signal or base.stop_signal,
        "volumes": base.volumes | {each: {} for each in recipe.volumes},
        "exposed_ports": base.exposed_ports | {each: {} for each in recipe.ports},
    }
    return msgspec.structs.replace(base, **changes)


_NAMES = {
    "entrypoint": "entrypoint",
    "cmd": "cmd",
    "env": "env",
    "workdir": "working_dir",
    "labels": "labels",
    "stop-signal": "stop_signal",
    "volumes": "volumes",
    "ports": "exposed_ports",
}
"""Field of a declaration's `image` -> field of the config."""


def _without(base: ContainerConfig, path: Sequence[str]) -> ContainerConfig:
    """Without what a declaration takes back: `null` at a path."""
    if path[0] == "accounts":
        return msgspec.structs.replace(base, user="") if path[1:] in ((), ("run-as",)) else base
    empty = ContainerConfig()
    if len(path) == 1:
        return msgspec.structs.replace(base, **{name: getattr(empty, name) for name in _NAMES.values()})
    name = _NAMES[path[1]]
    if len(path) == 2:
        return msgspec.structs.replace(base, **{name: getattr(empty, name)})
    value = getattr(base, name)
    if isinstance(value, dict):
        return msgspec.structs.replace(base, **{name: {key: each for key, each in value.items() if key != path[2]}})
    return msgspec.structs.replace(base, env=tuple(one for one in value if one.partition("=")[0] != path[2]))
