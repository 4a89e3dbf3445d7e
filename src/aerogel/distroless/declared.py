"""Declarations in files: `./base.yaml[:TAG]`, what they extend, and the files beside them that they name.

A name that begins with `./`, `../` or `/` can never be an image's, so it cannot clash with one. All names of files are
relative to the declaration that has them; in a build they stay inside the context.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from aerogel.distroless.catalogue import OWN, PARITY, PREFIX, Choice, declarations, find_declaration, names
from aerogel.distroless.declaration import Declaration, Part, ReleasePart
from aerogel.distroless.extend import Family, family
from aerogel.distroless.reading import Document, parse_declaration
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, RELEASES, Recipe, make_recipe
from aerogel.distroless.underlay import is_image
from aerogel.errors import EXIT_USAGE, AerogelError, Source, Span, nearest
from aerogel.oci.ends import parse_end
from aerogel.oci.platform import Platform
from aerogel.oci.reference import is_path_name

__all__ = ["Beside", "Declared", "load_declared", "split_path"]

_ENDINGS = (".yaml", ".yml")
_LIMIT = 64 << 20


def split_path(name: str) -> tuple[str, str]:
    """Path and tag of `./base.yaml[:TAG]`. Raises `base.no-file` for a name with another ending."""
    head, slash, last = name.rpartition("/")
    file, _, tag = last.partition(":")
    if not file.endswith(_ENDINGS):
        raise AerogelError(
            f"`{name}` is no declaration of a base: its name ends in neither `.yaml` nor `.yml`",
            code="base.no-file",
            hints=["write `FROM ./base.yaml`, with `:TAG` behind it for a variant"],
            exit_status=EXIT_USAGE,
        )
    return head + slash + file, tag


class Beside:
    """Reads files by names relative to a folder; `look` is told of every file before it is read.

    `is_closed` refuses what lies outside of the folder, through links too.
    """

    def __init__(self, root: Path, *, is_closed: bool = False, look: Callable[[Path], object] | None = None) -> None:
        self.root = root
        self._is_closed = is_closed
        self._look = look or (lambda _: None)
        self.seen: dict[str, str] = {}
        """The SHA-256 of what was read, by name."""

    def path(self, name: str) -> Path:
        """Where a file is. Raises `base.outside`."""
        path = self.root / name
        if self._is_closed:
            root = os.path.realpath(self.root)
            if os.path.commonpath([root, os.path.realpath(path)]) != root or name.startswith("/"):
                raise AerogelError(
                    f"`{name}` is outside of the build context",
                    code="base.outside",
                    hints=["put the file into the context, or build with a folder above as the context"],
                    exit_status=EXIT_USAGE,
                )
        return path

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `base.no-file`, `base.outside`."""
        path = self.path(name)
        self._look(path)
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except OSError as error:
            folder = path.parent
            near = nearest(path.name, os.listdir(folder)) if folder.is_dir() else None
            hints = [f"did you mean `{posixpath.join(posixpath.dirname(name), near)}`?"] if near else []
            raise AerogelError(
                f"`{name}` cannot be read: {(error.strerror or str(error)).lower()}",
                code="base.no-file",
                hints=hints,
                exit_status=EXIT_USAGE,
            ) from None
        if len(data) > _LIMIT:
            raise AerogelError(
                f"`{name}` is larger than {_LIMIT >> 20} MiB", code="base.no-file", exit_status=EXIT_USAGE
            )
        self.seen[name] = hashlib.sha256(data).hexdigest()
        return data

    def digest(self, name: str) -> str:
        """The SHA-256 of a file of any size. Raises `base.no-file`, `base.outside`."""
        path = self.path(name)
        self._look(path)
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            self.read(name)  # says what is wrong
            raise


class Declared(msgspec.Struct, frozen=True):
    """A declaration in a file with all that it extends. `path` is relative to the folder of `beside`."""

    path: str
    family: Family
    document: Document
    beside: Beside

    @property
    def tags(self) -> list[str]:
        variants = self.family.variants or ("latest",)
        return [*variants, PARITY, *(f"{one}-{PARITY}" for one in variants)]

    def choose(self, tag: str) -> Choice:
        """Release, profile and variant of a tag. Raises `base.tag`."""
        releases = self.family.releases
        if not releases:
            raise AerogelError(
                f"`{self.path}` names no release of Debian",
                code="base.release",
                hints=["write `releases: {trixie: {}}`, or `extends: static`"],
                exit_status=EXIT_USAGE,
            )
        known = (*self.family.variants, "latest")
        if tag in known or not tag:
            return Choice(self.family, releases[0], tag or "latest")
        variant = "latest" if tag == PARITY else tag.removesuffix(f"-{PARITY}")
        if variant in known and variant != tag:
            return Choice(self.family, releases[0], variant, PARITY)
        near = nearest(tag, self.tags)
        raise AerogelError(
            f"`{self.path}` has no variant `{tag}`",
            code="base.tag",
            hints=[f"did you mean `{near}`?"] if near else [f"there are {', '.join(self.family.variants)}"],
            exit_status=EXIT_USAGE,
        )

    def recipe(self, tag: str = "") -> Recipe:
        """The recipe of a tag. Raises `base.*` with the place in the declaration where that can be told."""
        choice = self.choose(tag)
        with self.placed():
            return make_recipe(
                self.family,
                name=choice.local_name,
                release=choice.release,
                profile=choice.profile,
                variant=choice.variant,
                read=self.beside.read,
            )

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Gives errors that come out of the block their place in the declaration."""
        try:
            yield
        except AerogelError as error:
            if error.span is None:
                error.span = self._place(error)
            raise

    def _place(self, error: AerogelError) -> Span | None:
        if error.code == "base.slice":
            end = ("slices", "packages", error.message.split("`")[3])
            return next((span for path, span in self.document.keys.items() if path[-3:] == end), None)
        text = f"{error.message}\n{error.detail or ''}"
        best: tuple[int, Span] | None = None
        for path, span in self.document.spans.items():
            value = self._value(path)
            if isinstance(value, str) and len(value) > 1 and (f"`{value}`" in text or f"{value} needs " in text):
                best = max(best, (len(value), span), key=lambda pair: pair[0]) if best else (len(value), span)
        if best is not None:
            return best[1]
        field = {
            "base.account": "accounts",
            "base.circle": "variants",
            "base.image": "image",
            "base.package": "packages",
            "base.path": "paths",
            "base.variant": "variants",
            "distroless.java-version": "java",
        }
        name = error.message.split("`")[1] if error.code == "base.method" else field.get(error.code, "")
        return self.document.keys.get((name,))

    def _value(self, path: tuple[str | int, ...]) -> Any:
        value = self.document.data
        for step in path:
            value = value[step]
        return value


def load_declared(path: str, beside: Beside) -> Declared:
    """Reads a declaration and what it extends. Raises `base.*`."""
    homes: dict[int, str] = {}
    documents: dict[str, Document] = {}

    def read(name: str) -> Declaration:
        found, documents[name] = parse_declaration(Source(name, beside.read(name)))
        _check_own(found, documents[name])
        _check_platforms(found, documents[name])
        made = _located(found, posixpath.dirname(name))
        homes[id(made)] = name
        return made

    images: list[str] = []

    def base(wanted: str, one: Declaration) -> Declaration:
        home = homes.get(id(one))
        if home is not None and is_image(wanted) and not _is_built_in(wanted):
            images.append(_located_image(wanted, posixpath.dirname(home)))
            return kept(_ground())
        if home is not None and (is_path_name(wanted) or wanted.endswith(_ENDINGS)):
            return kept(read(posixpath.normpath(posixpath.join(posixpath.dirname(home), wanted))))
        name = wanted.removeprefix(OWN).removeprefix(PREFIX) if home is not None else wanted
        return find_declaration(name)

    alive: list[Declaration] = []

    def kept(one: Declaration) -> Declaration:
        alive.append(one)  # the ids in `homes` are good as long as it lives
        return one

    name = posixpath.normpath(path)
    first = kept(read(name))
    document = documents[name]
    try:
        whole = family(first, base)
    except AerogelError as error:
        error.span = error.span or document.spans.get(("extends",))
        raise
    whole.image = images[0] if images else ""
    made = Declared(name, whole, document, beside)
    with made.placed():
        whole.check_circles()
    return made


def _is_built_in(name: str) -> bool:
    """Whether an image's name without its tag is one of a built-in base; those are extended by their short names."""
    repository = name.partition("@")[0].partition(":")[0]
    return repository in declarations() or repository in names()


def _located_image(text: str, folder: str) -> str:
    """The image with the name of its file seen from the root folder. Raises `copy.bad-name`, `oci.reference`."""
    end = parse_end(text)
    if end.path:
        return str(end._replace(path=posixpath.normpath(posixpath.join(folder, end.path))))
    end.reference()
    return text


def _ground() -> Declaration:
    """What a declaration on top of an image begins with: the releases that there are, and what is never added."""
    static = find_declaration("static")
    return Declaration(
        api_version="aerogel/v1",
        kind="Base",
        name="image",
        method="files",
        platforms=tuple(DEBIAN_ARCHITECTURES),
        releases={each.suite: ReleasePart() for each in RELEASES},
        resolve=static.resolve,
        slices=static.slices,
        certificates=static.certificates,
    )


def _check_own(one: Declaration, document: Document) -> None:
    """Only built-in declarations choose the names by which FROM knows them."""
    for field, value in (("names", one.names), ("tags", one.tags)):
        if value:
            raise AerogelError(
                f"`{field}` is for the built-in bases",
                code="base.field",
                span=document.keys.get((field,)),
                hints=["FROM knows this one by its path: `FROM ./base.yaml:TAG`"],
                exit_status=EXIT_USAGE,
            )


def _check_platforms(one: Declaration, document: Document) -> None:
    _check_platforms_at((), one.platforms, document)
    for release, part in (one.releases or {}).items():
        _check_platforms_at(("releases", release), part.platforms, document)


def _check_platforms_at(place: tuple[str, ...], platforms: Sequence[str] | None, document: Document) -> None:
    for number, text in enumerate(platforms or ()):
        try:
            name = str(Platform.parse(text).normal())
        except AerogelError:
            name = text
        if name not in DEBIAN_ARCHITECTURES:
            near = nearest(name, DEBIAN_ARCHITECTURES)
            field = ".".join((*place, f"platforms[{number}]"))
            raise AerogelError(
                f"`{field}`: Debian has nothing for `{text}`",
                code="base.field",
                span=document.span((*place, "platforms", number)),
                hints=[f"did you mean `{near}`?" if near else f"platforms are {', '.join(DEBIAN_ARCHITECTURES)}"],
                exit_status=EXIT_USAGE,
            )


def _located(one: Declaration, folder: str) -> Declaration:
    """The declaration with the names of files seen from the root folder in place of its own."""

    def moved(name: str) -> str:
        return posixpath.normpath(posixpath.join(folder, name))

    def part(value: Part) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if value.tests:
            changes["tests"] = tuple(moved(each) for each in value.tests)
        if value.certificates and value.certificates.additional:
            additional = tuple(moved(each) for each in value.certificates.additional)
            changes["certificates"] = msgspec.structs.replace(value.certificates, additional=additional)
        if value.sources and value.sources.extra:
            extra = tuple(
                msgspec.structs.replace(each, signed_by=moved(each.signed_by)) for each in value.sources.extra
            )
            changes["sources"] = msgspec.structs.replace(value.sources, extra=extra)
        changes["packages"] = tuple(
            msgspec.structs.replace(each, deb=moved(each.deb)) if not isinstance(each, str) and each.deb else each
            for each in value.packages
        )
        changes["paths"] = tuple(
            msgspec.structs.replace(each, source=moved(each.source)) if each.source else each for each in value.paths
        )
        return changes

    def group(parts: Any) -> Any:
        return {name: msgspec.structs.replace(each, **part(each)) for name, each in parts.items()} if parts else parts

    return msgspec.structs.replace(
        one,
        **part(one),
        releases=group(one.releases),
        profiles=group(one.profiles),
        variants=group(one.variants),
    )
