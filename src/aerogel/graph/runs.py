"""From the flags of a RUN to what its operation says: mounts with the nodes they read, network, security.

Pure. Spec: the Dockerfile reference, `RUN --mount`, `--network`, `--security`, `--device`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import NamedTuple, assert_never

from aerogel.dockerfile import ast, mounts
from aerogel.errors import AerogelError, Span
from aerogel.graph.ops import Local, Mount, Node
from aerogel.graph.request import Request

__all__ = ["Mounted", "mounts_of", "network_of", "security_of"]

_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"


class Mounted(NamedTuple):
    """The mounts of a RUN, the nodes that they read beside its root, and the place of each mount by `mount N`."""

    mounts: tuple[Mount, ...]
    inputs: tuple[Node, ...]
    words: dict[str, Span]


def mounts_of(
    it: ast.Run, request: Request, cwd: str, expand: Callable[[ast.Word], str], source: Callable[[ast.Word], Node]
) -> Mounted:
    """The mounts with absolute targets; `source` gives the node of a `from`.

    Raises `dockerfile.bad-mount` and what the callbacks raise.
    """
    found: list[Mount] = []
    inputs: list[Node] = []
    words: dict[str, Span] = {}
    namespace = request.build_args.get(_NAMESPACE, "")
    for number, written in enumerate(it.mounts):
        resolved = mounts.resolve(written, expand)
        reads = _reads(resolved, written, source, request.local("context"))
        at = -1
        if reads is not None:
            known = [node.digest for node in inputs]
            if reads.digest not in known:
                inputs.append(reads)
            at = [node.digest for node in inputs].index(reads.digest) + 1
        agents = sum(mount.type == "ssh" for mount in found)
        target = _target(resolved, agents, cwd, written.span)
        found.append(_mount(resolved, at, target, namespace))
        words[f"mount {number}"] = written.span
    return Mounted(tuple(found), tuple(inputs), words)


def network_of(it: ast.Run, request: Request) -> str:
    """`default`, `none`, `host` or `sandbox`. Raises `graph.not-allowed`."""
    if it.network == "host":
        _allowed(it, request, "network", "network.host")
    return it.network if it.network != "default" else request.network


def security_of(it: ast.Run, request: Request) -> str:
    """`sandbox` or `insecure`. Raises `graph.not-allowed`."""
    if it.security == "insecure":
        _allowed(it, request, "security", "security.insecure")
    return it.security


def _allowed(it: ast.Run, request: Request, flag: str, entitlement: str) -> None:
    if entitlement in request.allow:
        return
    raise AerogelError(
        f"this RUN asks for `{entitlement}`, which the build does not allow",
        code="graph.not-allowed",
        span=next((each.span for each in it.flags if each.name == flag), it.span),
        hints=[f"if you trust this Dockerfile, build with `--allow {entitlement}`"],
    )


def _reads(
    resolved: mounts.Mount, written: ast.RunMount, source: Callable[[ast.Word], Node], context: str
) -> Node | None:
    if not isinstance(resolved, mounts.BindMount | mounts.CacheMount):
        return None
    word = next((option.value for option in written.options if option.key == "from" and option.value), None)
    if word is not None and word.text:
        return source(word)
    if isinstance(resolved, mounts.BindMount) or resolved.source:
        return Node(Local(context))
    return None


def _mount(resolved: mounts.Mount, at: int, target: str, namespace: str) -> Mount:
    match resolved:
        case mounts.BindMount():
            return Mount("bind", target, input=at, source=resolved.source, readonly=resolved.readonly)
        case mounts.CacheMount():
            return Mount(
                "cache",
                target,
                input=at,
                source=resolved.source,
                readonly=resolved.readonly,
                id=f"{namespace}/{resolved.id}" if namespace else resolved.id,
                sharing=resolved.sharing,
                mode=resolved.mode,
                uid=resolved.uid or 0,
                gid=resolved.gid or 0,
            )
        case mounts.TmpfsMount():
            return Mount("tmpfs", target, readonly=False, size_bytes=resolved.size_bytes)
        case mounts.SecretMount():
            return Mount(
                "secret",
                target,
                id=resolved.id,
                required=resolved.required,
                env=resolved.env or "",
                mode=resolved.mode,
                uid=resolved.uid,
                gid=resolved.gid,
            )
        case mounts.SshMount():
            return Mount(
                "ssh",
                target,
                id=resolved.id,
                required=resolved.required,
                mode=resolved.mode,
                uid=resolved.uid,
                gid=resolved.gid,
            )
        case _:
            assert_never(resolved)


def _target(resolved: mounts.Mount, agents: int, cwd: str, span: Span) -> str:
    """The target as a clean absolute path, a relative one below the working directory; empty for no file."""
    path = resolved.target
    if path is None:
        if isinstance(resolved, mounts.SecretMount):
            return ""
        path = f"/run/buildkit/ssh_agent.{agents}"
    found = "/" + posixpath.normpath(posixpath.join("/", cwd, path)).lstrip("/")
    if found == "/":
        raise AerogelError(
            "a mount cannot cover the root directory",
            code="dockerfile.bad-mount",
            span=span,
            hints=[
                "give it a `target` below `/`"
                if path
                else "give it a `target`, or set a WORKDIR before: without either it would be `/`"
            ],
        )
    return found
