"""The remote sources of one build: each URL asked for once, each branch looked up once, files only when needed.

What identifies a source in keys is known first: of a URL the digest of its content, of a repository the commit.
A URL that was fetched before is asked for with its validators (ETag, Last-Modified) and not transferred again when
nothing changed; with a known checksum nothing is asked at all. Spec: RFC 9110, 13 (conditional requests).

    cache/http-v1/<sha256 of the URL>.json    what the server said last: digest, etag, last_modified
    cache/http-v1/content/<digest>            the bytes, shared by all URLs that gave them
    cache/git-v1/                             see `net.git`
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from aerogel.errors import AerogelError
from aerogel.events import Message, Sink
from aerogel.files.hashing import DigestCache
from aerogel.files.host import HostTree
from aerogel.graph.ops import Git, Http
from aerogel.redact import redact
from aerogel.store.disk import disk_errors, read_file
from aerogel.store.store import Store

if TYPE_CHECKING:
    from aerogel.net.git import Commit, GitClient
    from aerogel.net.http import Http as HttpClient

__all__ = ["Fetched", "Remotes"]

T = TypeVar("T")


class Fetched(NamedTuple):
    """The content of a URL: its SHA-256 as hex, the file with the bytes, `Last-Modified` as sent or empty."""

    digest: str
    path: Path
    last_modified: str


class Remotes:
    """Fetches for all threads of a build; `close` at the end. `http` and `git` make the clients on first use.

    `secrets` are values by name, of which `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>` are sent to that
    host. They are in no key: what a server gives is known by its content.
    """

    def __init__(
        self,
        store: Store,
        http: Callable[[], HttpClient],
        git: Callable[[], GitClient],
        sink: Sink,
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._secrets = secrets
        self._store = store
        self._make_http = http
        self._make_git = git
        self._sink = sink
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._done: dict[str, object] = {}
        self._trees: list[tuple[HostTree, Path]] = []
        self._digests = DigestCache(Path(store.cache) / "digests-v2")

    def close(self) -> None:
        """Closes the trees and removes what was unpacked for this build."""
        with self._lock:
            trees, self._trees = self._trees, []
        for tree, folder in trees:
            tree.close()
            self._store.scratch.discard(str(folder))
        self._digests.save()

    def prefetch(self, ops: Sequence[Http | Git]) -> None:
        """Asks for all of them at the same time; what fails is raised again when its source is used."""
        wanted = list(dict.fromkeys(ops))
        if len(wanted) < 2:
            return
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="fetch") as pool:
            for future in [pool.submit(self.identity, op) for op in wanted]:
                future.exception()

    def identity(self, op: Http | Git) -> str:
        """What the source is now, for keys. Raises `net.*`, `git.*`, `remote.checksum`."""
        if isinstance(op, Http):
            return f"http sha256:{self.fetched(op).digest}"
        return f"git {self.commit(op).id}"

    def tree(self, op: Http | Git) -> HostTree:
        """The source's files, to copy from; it stays open until `close`. Raises as `identity`, and `git.no-folder`."""
        return self._once(f"tree {op!r}", lambda: self._file_tree(op) if isinstance(op, Http) else self._git_tree(op))

    def time_s(self, op: Http | Git) -> int | None:
        """The source's own time in seconds since 1970: the commit's, or when the URL's content was last modified."""
        if isinstance(op, Git):
            commit = self.commit(op)
            return self._git().time_s(self._repository(op, commit), commit.id)
        from email.utils import parsedate_to_datetime

        text = self.fetched(op).last_modified
        try:
            return int(parsedate_to_datetime(text).timestamp()) if text else None
        except (ValueError, TypeError, OverflowError):
            return None

    # URLs.

    def fetched(self, op: Http) -> Fetched:
        """The content of the URL. Raises `net.*`, `remote.checksum`."""
        known = self._known_content(op)
        found = self._once(f"url {op.url}", lambda: self._fetch(op.url)) if known is None else known
        if op.checksum and op.checksum != f"sha256:{found.digest}":
            error = AerogelError(
                f"`{redact(op.url)}` is not what `--checksum` says: expected `{op.checksum}`, "
                f"found `sha256:{found.digest}`",
                code="remote.checksum",
                hints=["check where the file comes from; if it may be this one, write the checksum that was found"],
            )
            error.word = op.url
            raise error
        return found

    def _known_content(self, op: Http) -> Fetched | None:
        """Content that a checksum names is never asked for again."""
        if not op.checksum:
            return None
        path = self._content(op.checksum.removeprefix("sha256:"))
        if not self._is_intact(path):
            return None
        known = self._facts(self._facts_path(op.url))
        return Fetched(path.name, path, known.get("last_modified", "") if known.get("digest") == path.name else "")

    def _fetch(self, url: str) -> Fetched:
        facts_path = self._facts_path(url)
        with self._store.once(f"http-{facts_path.stem}"):
            known = self._facts(facts_path)
            path = self._content(known.get("digest", "-"))
            validators = {}
            if known and self._is_intact(path):
                validators = {"If-None-Match": known["etag"]} if known["etag"] else {}
                if known["last_modified"] and not validators:
                    validators = {"If-Modified-Since": known["last_modified"]}
            with _named(url):
                made = self._download(url, validators)
            if made is None:
                return Fetched(path.name, path, known["last_modified"])
            fetched, etag = made
            facts = {"digest": fetched.digest, "etag": etag, "last_modified": fetched.last_modified}
            self._store.scratch.write_file(str(facts_path), msgspec.json.encode(facts))
            return fetched

    def _authorization(self, url: str) -> dict[str, str]:
        """The header with the credentials for a host; the client forgets it when it is sent elsewhere."""
        host = urlsplit(url).hostname or ""
        header = self._secrets.get(f"HTTP_AUTH_HEADER_{host}")
        token = self._secrets.get(f"HTTP_AUTH_TOKEN_{host}")
        if token is not None:
            header = f"Bearer {token}"
        return {} if header is None else {"Authorization": header}

    def _download(self, url: str, validators: dict[str, str]) -> tuple[Fetched, str] | None:
        """The content and its ETag; None when the server says that what is known is still right."""
        from aerogel.net.http import HttpError

        fd, name = self._store.scratch.file()
        try:
            with open(fd, "w+b") as file:
                try:
                    answer = self._http().download(url, file, headers=validators | self._authorization(url))
                except HttpError as error:
                    if error.status == 304 and validators:
                        return None
                    raise
                file.flush()
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            path = self._content(digest)
            with disk_errors(self._store.cache):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._sink.emit(Message(f"GET {redact(url)} -> sha256:{digest}, {size} bytes"))
        return Fetched(digest, path, answer.headers.get("last-modified", "")), answer.headers.get("etag", "")

    def _facts_path(self, url: str) -> Path:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
        return Path(self._store.cache) / "http-v1" / f"{name}.json"

    def _content(self, digest: str) -> Path:
        return Path(self._store.cache) / "http-v1" / "content" / digest

    def _is_intact(self, path: Path) -> bool:
        """Whether content is there and has the digest of its name: a power cut may have lost some of it."""
        try:
            found = self._digests.digest(
                path.lstat(), lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.fsencode(path)
            )
        except FileNotFoundError:
            return False
        return found.hex() == path.name

    @staticmethod
    def _facts(path: Path) -> dict[str, str]:
        data = read_file(str(path))
        try:
            return msgspec.json.decode(data, type=dict[str, str]) if data else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    def _file_tree(self, op: Http) -> HostTree:
        """A folder with nothing but the file, under its name."""
        folder = Path(self._store.scratch.directory())
        content = self.fetched(op).path
        with disk_errors(self._store.cache):
            os.link(content, folder / op.name)
        return self._opened(folder, folder, f"URL `{redact(op.url)}`")

    # Repositories.

    def commit(self, op: Git) -> Commit:
        """The commit that the source stands for now. Raises `git.*`, `remote.checksum`."""
        commit = self._once(f"ref {op.remote} {op.ref} {op.by_commit and op.checksum}", lambda: self._resolve(op))
        if not commit.id.startswith(op.checksum) and not (commit.tag and commit.tag.startswith(op.checksum)):
            error = AerogelError(
                f"`{redact(op.remote)}` is not what the checksum says: expected commit `{op.checksum}`, "
                f"found `{commit.id}`" + (f" at `{op.ref}`" if op.ref else ""),
                code="remote.checksum",
                hints=["check what changed there; if it may be this one, write the commit that was found"],
            )
            error.word = op.remote
            raise error
        return commit

    def _resolve(self, op: Git) -> Commit:
        if op.by_commit:
            from aerogel.net.git import Commit

            name = op.ref if op.ref.startswith("refs/") or not op.ref else f"refs/heads/{op.ref}"
            return Commit(op.checksum, name, is_pinned=True)
        with _named(op.remote):
            return self._git().resolve(op.remote, op.ref)

    def _repository(self, op: Git, commit: Commit) -> Path:
        with self._store.once(f"git-{self._git().repository(op.remote).name}"), _named(op.remote):
            return self._git().fetch(op.remote, commit)

    def _git_tree(self, op: Git) -> HostTree:
        commit = self.commit(op)
        self._repository(op, commit)
        folder = Path(self._store.scratch.directory())
        with _named(op.remote):
            self._git().check_out(op.remote, commit, folder, keep_git_dir=op.keep_git_dir, submodules=op.submodules)
        self._sink.emit(Message(f"git {redact(op.remote)} -> {commit.id}"))
        inner = folder / op.subdir
        if not inner.resolve().is_relative_to(folder.resolve()) or not inner.is_dir():
            names = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name != ".git")
            error = AerogelError(
                f"the repository `{redact(op.remote)}` has no folder `{op.subdir}` in commit `{commit.id}`",
                code="git.no-folder",
                hints=[
                    "folders there: " + ", ".join(f"`{name}`" for name in names[:8]) if names else "it has no folder"
                ],
            )
            error.word = op.remote
            raise error
        return self._opened(inner, folder, f"repository `{redact(op.remote)}`")

    # For both.

    def _opened(self, path: Path, folder: Path, title: str) -> HostTree:
        # These files are new: their digests are worth nothing to a later build.
        tree = HostTree(path, digests=DigestCache(Path(self._store.scratch.name())), title=title)
        with self._lock:
            self._trees.append((tree, folder))
        return tree

    def _http(self) -> HttpClient:
        return self._once("http", self._make_http)

    def _git(self) -> GitClient:
        return self._once("git", self._make_git)

    def _once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives or raises, made by the first thread that asks."""
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            if key not in self._done:
                try:
                    self._done[key] = make()
                except AerogelError as error:
                    self._done[key] = error
            found = self._done[key]
        if isinstance(found, AerogelError):
            raise found
        return cast("T", found)  # a key is used for one kind of thing


@contextmanager
def _named(address: str) -> Iterator[None]:
    """Errors in the block are about this word of the instruction."""
    try:
        yield
    except AerogelError as error:
        error.word = address
        error.hints = error.hints or _hints(error, address)
        raise


def _hints(error: AerogelError, address: str) -> tuple[str, ...]:
    """What to do about the answers of servers."""
    status = getattr(error, "status", None)
    if status in (404, 410):
        return ("check the address: the server has nothing there",)
    if status in (401, 403):
        host = urlsplit(address).hostname or "HOST"
        lend = f"lend them with `--secret id=HTTP_AUTH_TOKEN_{host},env=NAME`"
        return (f"it wants credentials: {lend}, or the whole header with `HTTP_AUTH_HEADER_{host}`",)
    if status == 0:
        return ("check the address, the network, and the proxy in `http_proxy` and `https_proxy`",)
    if status is not None:
        return ("try again later: the fault is the server's",) if status >= 500 else ("check the address",)
    return ()
