"""The graph language: a handful of operations, nodes that join them, and their definition digests.

Pure values. An operation says everything that decides a result and nothing else: names to show, spans and
limits stand beside the graph (`graph.steps.Step`), so they never change a digest. A node is an operation and
the nodes whose results it works on; input 0 of `Run`, `Copy` and `Mkdir` is the root file system they extend.

The definition digest of a node is the SHA-256 of the canonical JSON of its operation and its inputs' digests
(every part length-framed), so it covers the whole history. What the graph cannot know, the content of a local
context, of a URL or of a branch, is added by `solve.keys`.
"""

from __future__ import annotations

import hashlib

import msgspec

__all__ = [
    "KEY_VERSION",
    "STEP_HOSTNAME",
    "Base",
    "Copy",
    "CopySource",
    "Git",
    "Http",
    "InlineFile",
    "Local",
    "Mkdir",
    "Mount",
    "Node",
    "Op",
    "Run",
    "frame",
]

KEY_VERSION = b"aerogel-graph-v1"
"""Part of every digest: a change of what an operation means must change it (and the golden keys)."""


STEP_HOSTNAME = "buildkitsandbox"
"""What a step is told unless the build argument BUILDKIT_SANDBOX_HOSTNAME has another name."""


class Base(msgspec.Struct, frozen=True, tag="base"):
    """A root file system that exists already: the layers of an image, lowest first, by diff id."""

    diff_ids: tuple[str, ...]


class Local(msgspec.Struct, frozen=True, tag="local"):
    """A local build context, by name (`context` is the main one). A source only, never a root."""

    name: str


class Http(msgspec.Struct, frozen=True, tag="http"):
    """A file behind an http(s) URL, called `name`. A source only.

    `checksum` is `sha256:<hex>` or empty; `unpack` lets it be extracted when it is an archive.
    """

    url: str
    name: str
    checksum: str = ""
    unpack: bool = False


class Git(msgspec.Struct, frozen=True, tag="git"):
    """The files of a commit of a git repository, or of a folder in it. A source only.

    `ref` is a branch, tag, full reference or commit, empty for the default branch; `checksum` are the first digits
    that the commit must have. With `by_commit` the remote is not asked what `ref` is: it is taken to be `checksum`.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    checksum: str = ""
    by_commit: bool = False


class InlineFile(msgspec.Struct, frozen=True):
    """A file whose text stands in the Dockerfile (a heredoc). `mode` is octal permission bits."""

    name: str
    content: bytes
    mode: int = 0o644


class CopySource(msgspec.Struct, frozen=True):
    """What one source word of COPY or ADD names: a path in input `input`, or an inline file."""

    input: int
    path: str = ""
    inline: InlineFile | None = None


class Copy(msgspec.Struct, frozen=True, tag="copy"):
    """COPY and ADD. `dest` is absolute and keeps its trailing slash. `keep_owner` is set for `--from`.

    `unpack` lets sources that are archives be extracted. `chown` and `chmod` are as written, after expansion.
    """

    sources: tuple[CopySource, ...]
    dest: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_owner: bool = False
    unpack: bool = False


class Mkdir(msgspec.Struct, frozen=True, tag="mkdir"):
    """WORKDIR: makes `path` and its missing parents, mode 0755, owned by `user` (names looked up in the root)."""

    path: str
    user: str = ""


class Mount(msgspec.Struct, frozen=True):
    """One `RUN --mount`. `input` is the node input that a bind or seeded cache reads from, -1 for none."""

    type: str
    target: str
    input: int = -1
    source: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    env: str = ""
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0


class Run(msgspec.Struct, frozen=True, tag="run"):
    """RUN: one command in the root of input 0. `env` is in order, `hosts` are (name, address) pairs."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: str = ""
    network: str = "default"
    security: str = "sandbox"
    hostname: str = STEP_HOSTNAME
    hosts: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    inline: tuple[InlineFile, ...] = ()


Op = Base | Local | Copy | Mkdir | Run | Http | Git

_encode = msgspec.json.Encoder(order="sorted").encode


def frame(*parts: bytes) -> bytes:
    """The parts joined so that no two different lists give the same bytes: each behind its length."""
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)


class Node:
    """An operation and its inputs. Compared by identity; equal nodes have equal digests.

    `platform` is kept for `Run` alone: what files are and where they go is the same everywhere.
    """

    __slots__ = ("digest", "inputs", "op", "platform")

    def __init__(self, op: Op, inputs: tuple[Node, ...] = (), platform: str = "") -> None:
        self.op = op
        self.inputs = inputs
        self.platform = platform if isinstance(op, Run) else ""
        body = frame(KEY_VERSION, _encode(op), self.platform.encode(), *(node.digest.encode() for node in inputs))
        self.digest: str = "sha256:" + hashlib.sha256(body).hexdigest()

    def __repr__(self) -> str:
        return f"Node({type(self.op).__name__}, {self.digest[7:19]}, inputs={len(self.inputs)})"

    @property
    def root(self) -> Node | None:
        """The node whose root file system this one extends."""
        return self.inputs[0] if isinstance(self.op, (Run, Copy, Mkdir)) else None
