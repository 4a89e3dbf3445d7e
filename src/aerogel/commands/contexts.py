"""The contexts of a build, wherever they are, as folders: what COPY and ADD read, and where the Dockerfile is.

A folder of the host, a tar (a file, standard input, behind a URL), a repository, an image. What is fetched or
unpacked lies in scratch space until `close`; owners in a tar do not count, as everything in a context is 0:0.
Ignore files hold for folders of the host only, as in BuildKit.

Spec: docker's documentation of build contexts; `--build-context` of `docker buildx build`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from aerogel.commands.build_model import Build
from aerogel.commands.source import default_dockerfile
from aerogel.commands.unpack import is_tar, unpack
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic, Source
from aerogel.events import Warned
from aerogel.files.hashing import DigestCache
from aerogel.files.host import HostTree
from aerogel.files.pattern import IgnoreMatcher
from aerogel.graph.ops import Git, Http
from aerogel.graph.remote import parse_git, parse_remote
from aerogel.oci.types import Descriptor
from aerogel.redact import redact
from aerogel.solve.remotes import Remotes

__all__ = ["MAIN", "Contexts"]

MAIN = "context"
"""The name of the main context."""

_IMAGE = "docker-image://"
_LAYOUT = "oci-layout://"


class _Place(NamedTuple):
    """A context that can be read. `time_s` is its own time, None for a folder of the host, whose times mean nothing.

    `dockerfile` is set for what is no folder at all but a Dockerfile.
    """

    path: Path
    is_host: bool
    time_s: int | None = None
    dockerfile: bytes | None = None


class Contexts:
    """All contexts of one build. Raises `build.no-context` for a context that is not there."""

    def __init__(self, options: Build, world: World, remotes: Remotes) -> None:
        self._options = options
        self._world = world
        self._remotes = remotes
        self._here = world.settings.directory
        self._wanted: dict[str, Path | Git | Http] = {}
        self._places: dict[str, _Place] = {}
        self._trees: dict[str, HostTree] = {}
        self._dockerfile: Path | None = None
        self.images: dict[str, str | Descriptor] = {}
        if options.context == "-" and options.file == "-":
            raise AerogelError(
                "standard input cannot be both the context and the Dockerfile",
                code="build.stdin-twice",
                exit_status=EXIT_USAGE,
                hints=["give a folder as the context: `aerogel build -f - .`"],
            )
        if options.context != "-":
            self._wanted[MAIN] = self._kind(options.context, f"build context `{options.context}`")
        for name, value in options.build_context.items():
            self._named(name.lower(), value)

    @property
    def names(self) -> frozenset[str]:
        """The named contexts."""
        return frozenset([*self._wanted, *self.images]) - {MAIN}

    @property
    def folders(self) -> frozenset[str]:
        """The named contexts that are files."""
        return frozenset(self._wanted) - {MAIN}

    @property
    def remote(self) -> Git | Http | None:
        """The main context, if it is not on this host."""
        wanted = self._wanted.get(MAIN)
        return None if wanted is None or isinstance(wanted, Path) else wanted

    def identity(self, name: str) -> tuple[str, ...]:
        """What makes a context the same as one of another build: where it is, and which files of it count."""
        wanted = self._wanted.get(name)
        if isinstance(wanted, Path):
            own = self._dockerfile if name == MAIN else None
            ignore = own.with_name(f"{own.name}.dockerignore") if own is not None else None
            return ("host", str(wanted.resolve()), str(ignore) if ignore is not None and ignore.is_file() else "")
        return ("remote", repr(wanted)) if wanted is not None else ("stdin", str(id(self)))

    def close(self) -> None:
        """Closes the folders and removes what was made for them."""
        for tree in self._trees.values():
            tree.close()
        for name, place in self._places.items():
            if not place.is_host and not isinstance(self._wanted.get(name), Git):
                self._world.store.scratch.discard(str(place.path))
        self._trees, self._places = {}, {}

    # What a context is.

    def _named(self, name: str, value: str) -> None:
        if value.startswith(_LAYOUT):
            self._world.witness.doubt(value)
        if value.startswith(_IMAGE):
            self.images[name] = value.removeprefix(_IMAGE)
        elif value.startswith(_LAYOUT):
            self.images[name] = self._layout(name, value.removeprefix(_LAYOUT))
        else:
            self._wanted[name] = self._kind(value, f"folder `{value}` of the context `{name}`")

    def _kind(self, text: str, what: str) -> Path | Git | Http:
        if text.startswith("github.com/") and not (self._here / text).exists():
            text = f"https://{text}"
            git = parse_git(text, known=True)
            if git is not None:
                return git
        found = parse_remote(text)
        if found is not None:
            return found
        path = (self._here / text).absolute()
        if path.is_dir() or path.is_file():
            return path
        raise AerogelError(
            f"the {what} " + ("is neither a folder nor a file" if path.exists() else "does not exist"),
            code="build.no-context",
            exit_status=EXIT_USAGE,
            hints=[
                "name the folder that COPY reads from, for example `aerogel build -t app .`"
                if what.startswith("build")
                else "give a folder, a tar, a URL, a git repository, `docker-image://NAME` or `oci-layout://FOLDER`"
            ],
        )

    def _layout(self, name: str, text: str) -> Descriptor:
        """The image of an OCI layout: by digest, by tag, or the only one."""
        from aerogel.commands.policy import enforce_elsewhere
        from aerogel.store.load import load_layout

        folder, at, digest = text.partition("@")
        tag = ""
        if not at and ":" in folder.rpartition("/")[2]:
            folder, _, tag = folder.rpartition(":")
        path = (self._here / folder).absolute()
        if not path.is_dir():
            raise AerogelError(
                f"the context `{name}` is not a folder: `{folder}`",
                code="build.no-context",
                exit_status=EXIT_USAGE,
                hints=["the form is `oci-layout://FOLDER`, with `:TAG` or `@sha256:...` to choose an image"],
            )
        enforce_elsewhere(self._world, "oci", folder, path)
        loaded = load_layout(str(path), self._world.store)
        tags = {
            each.label or (each.references[0].tag or "") if each.references else each.label: each for each in loaded
        }
        if digest:
            found = [each for each in loaded if each.descriptor.digest == digest]
        elif tag or len(loaded) > 1:
            found = [each for label, each in tags.items() if label == (tag or "latest")]
        else:
            found = loaded
        if not found:
            known = ", ".join(f"`{label}`" for label in tags if label)
            raise AerogelError(
                f"the OCI layout `{folder}` has no image `{digest or tag or 'latest'}`",
                code="build.no-context",
                exit_status=EXIT_USAGE,
                hints=[
                    f"tags there: {known}" if known else "name one by its digest: `oci-layout://FOLDER@sha256:...`",
                ],
            )
        return found[0].descriptor

    # Where it is.

    def place(self, name: str) -> _Place:
        """The context as a folder; fetched and unpacked when it must be."""
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> _Place:
        wanted = self._wanted.get(name)
        if isinstance(wanted, Path):
            self._world.witness.look(wanted)
        if not isinstance(wanted, Path) or not wanted.is_dir():
            self._world.witness.doubt(name)
        if wanted is None:
            with os.fdopen(os.dup(self._world.streams.stdin), "rb") as stream:
                spool = Path(self._world.store.scratch.name())
                with spool.open("w+b") as file:
                    while data := stream.read(1 << 18):
                        file.write(data)
            try:
                return self._from_file(spool, "standard input", name)
            finally:
                spool.unlink()
        if isinstance(wanted, Path):
            return (
                _Place(wanted, is_host=True)
                if wanted.is_dir()
                else self._from_file(wanted, f"`{_shown(wanted, self._here)}`", name)
            )
        if isinstance(wanted, Git):
            return _Place(self._remotes.tree(wanted).path, is_host=False, time_s=self._remotes.time_s(wanted))
        fetched = self._remotes.fetched(wanted)
        place = self._from_file(fetched.path, f"`{redact(wanted.url)}`", name, file_name=wanted.name)
        time_s = self._remotes.time_s(wanted)
        return place if time_s is None else place._replace(time_s=time_s)

    def _from_file(self, path: Path, title: str, name: str, *, file_name: str = "") -> _Place:
        """A tar as a folder. Anything else is a Dockerfile for the main context, a file in a folder for a named one."""
        folder = Path(self._world.store.scratch.directory())
        if is_tar(path):
            return _Place(folder, is_host=False, time_s=unpack(path, folder, title))
        if name == MAIN:
            if self._options.file:
                raise AerogelError(
                    f"the build context {title} is no tar, so there is no `{self._options.file}` in it",
                    code="build.not-a-tar",
                    exit_status=EXIT_USAGE,
                    hints=["give a tar, plain or compressed with gzip, bzip2, xz or zstd, or leave `-f` out"],
                )
            if isinstance(self._wanted.get(MAIN), Path):
                raise AerogelError(
                    f"the build context {title} is neither a folder nor a tar",
                    code="build.not-a-tar",
                    exit_status=EXIT_USAGE,
                    hints=["name the folder that COPY reads from; a Dockerfile is named with `-f FILE`"],
                )
            return _Place(folder, is_host=False, dockerfile=path.read_bytes())
        if not file_name:
            raise AerogelError(
                f"the context `{name}` is neither a folder nor a tar: {title}",
                code="build.not-a-tar",
                exit_status=EXIT_USAGE,
                hints=["give a folder, or a tar, plain or compressed with gzip, bzip2, xz or zstd"],
            )
        os.link(path, folder / file_name)
        return _Place(folder, is_host=False)

    # What is read of it.

    def time_s(self, name: str) -> int | None:
        """The context's own time: of the commit, of the URL's content, of the newest file in the tar."""
        return self.place(name).time_s if name in self._wanted or name == MAIN else None

    def commit_time_s(self) -> int | None:
        """When the newest commit of the main context's repository was made; None when it is in none.

        What keeps that from being known is a warning.
        """
        wanted = self._wanted.get(MAIN)
        if isinstance(wanted, Git):
            return self._remotes.time_s(wanted)
        if not isinstance(wanted, Path) or not wanted.is_dir():
            return None
        folder = wanted.resolve()
        for each in (folder, *folder.parents):
            place = each / ".git"
            self._world.witness.look(place)
            if os.path.lexists(place):
                break
        else:
            return None
        from aerogel.net.git import head_files, work_tree_time_s

        for path in head_files(place):
            self._world.witness.look(path)
        try:
            return work_tree_time_s(place, self._world.settings.environment)
        except AerogelError as error:
            # A program that is installed, or an object that is fetched, is no file that was looked at.
            self._world.witness.doubt(str(place))
            hint = "the image is dated 1980-01-01; give a date with `SOURCE_DATE_EPOCH`"
            self._world.sink.emit(Warned(Diagnostic(error.message, code=error.code, hints=[hint])))
            return None

    def newest_in(self, path: Path) -> int | None:
        """The time of the newest file in a tar, None when the file is none."""
        if not is_tar(path):
            return None
        folder = self._world.store.scratch.directory()
        try:
            return unpack(path, Path(folder), f"`{path.name}`")
        finally:
            self._world.store.scratch.discard(folder)

    def testify(self) -> None:
        """Tells the witness of the run which folders were listed, and what was in them."""
        for name, tree in self._trees.items():
            if self._places[name].is_host:
                self._world.witness.listed(*tree.listings())

    def tree(self, name: str) -> HostTree:
        """The files of a context, to copy from; it stays open until `close`."""
        if name not in self._trees:
            place = self.place(name)
            title = "build context" if name == MAIN else f"context `{name}`"
            known = self._world.settings.cache / "digests-v2"
            digests = DigestCache(known if place.is_host else Path(self._world.store.scratch.name()))
            self._trees[name] = HostTree(place.path, ignore=self.ignore(name), digests=digests, title=title)
        return self._trees[name]

    def ignore(self, name: str = MAIN) -> IgnoreMatcher | None:
        """The ignore file: the one named after the Dockerfile comes before the one of the context.

        Raises `pattern.bad`, `build.no-ignore-file`.
        """
        place = self.place(name)
        candidates = [place.path / ".dockerignore"] if place.is_host else []
        if name == MAIN and place.is_host and self._dockerfile is not None:
            candidates.insert(0, self._dockerfile.with_name(f"{self._dockerfile.name}.dockerignore"))
        for path in candidates:
            self._world.witness.look(path)
            if path.is_file():
                return IgnoreMatcher.parse(Source(_shown(path, self._here), self._read_ignore(path)))
        return None

    def _read_ignore(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise AerogelError(
                f"the ignore file `{_shown(path, self._here)}` cannot be read: "
                f"{(error.strerror or str(error)).lower()}",
                code="build.no-ignore-file",
                exit_status=EXIT_USAGE,
                hints=["make it readable: without it files would be copied that it keeps out"],
            ) from error

    def dockerfile(self) -> Source:
        """The Dockerfile. Raises `build.no-dockerfile`."""
        name = self._options.file
        if name == "-" or (name and parse_remote(name) is not None):
            self._world.witness.doubt(name)
        if name == "-":
            with os.fdopen(os.dup(self._world.streams.stdin), "rb") as stream:
                return Source("stdin", stream.read())
        remote = parse_remote(name) if name else None
        if isinstance(remote, Http):
            return Source(redact(remote.url), self._remotes.fetched(remote).path.read_bytes())
        place = self.place(MAIN)
        if place.dockerfile is not None:
            wanted = self._wanted.get(MAIN)
            return Source(redact(wanted.url) if isinstance(wanted, Http) else "stdin", place.dockerfile)
        if place.is_host:
            return self._from_host(place.path)
        return self._from_inside(place)

    def _from_host(self, context: Path) -> Source:
        name = self._options.file
        for each in () if name else ("Dockerfile", "dockerfile"):
            self._world.witness.look(context / each)
        path = self._here / name if name else context / default_dockerfile(context)
        self._world.witness.look(path)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_dockerfile(path, context, self._here) from error
        except OSError as error:
            raise AerogelError(
                f"the Dockerfile `{_shown(path, self._here)}` cannot be read: {(error.strerror or str(error)).lower()}",
                code="build.no-dockerfile",
                exit_status=EXIT_USAGE,
                hints=["name a readable file with `-f FILE`"],
            ) from error
        self._dockerfile = path
        return Source(_shown(path, self._here), data)

    def _from_inside(self, place: _Place) -> Source:
        """The Dockerfile in a context of others: links in it lead nowhere but into it."""
        tree = HostTree(place.path)
        try:
            name = self._options.file or default_dockerfile(place.path)
            path = tree.resolve(os.fsencode(name).strip(b"/"))
            if tree.lookup(path) is None:
                names = [os.fsdecode(each) for each in tree.children(b"")]
                near = [each for each in names if "dockerfile" in each.lower()]
                raise AerogelError(
                    f"the build context has no `{name}`",
                    code="build.no-dockerfile",
                    exit_status=EXIT_USAGE,
                    hints=[f"did you mean `-f {each}`?" for each in near[:3]]
                    or ["at its top are " + ", ".join(f"`{each}`" for each in names[:8]) if names else "it is empty"],
                )
            with os.fdopen(tree.open(path), "rb") as file:
                return Source(name, file.read())
        finally:
            tree.close()


def _no_dockerfile(path: Path, context: Path, here: Path) -> AerogelError:
    try:
        names = sorted(each.name for each in context.iterdir() if "dockerfile" in each.name.lower() and each.is_file())
    except OSError:
        names = []
    candidates = [name for name in names if not name.endswith(".dockerignore") and context / name != path]
    hints = [f"did you mean `-f {_shown(context / name, here)}`?" for name in candidates[:3]]
    return AerogelError(
        f"there is no Dockerfile at `{_shown(path, here)}`",
        code="build.no-dockerfile",
        exit_status=EXIT_USAGE,
        hints=hints or ["name the Dockerfile with `-f FILE`, or give the folder that holds it"],
    )


def _shown(path: Path, here: Path) -> str:
    """The path as the user sees it: relative to where the command was started, if it lies below."""
    try:
        return str(path.absolute().relative_to(here))
    except ValueError:
        return str(path)
