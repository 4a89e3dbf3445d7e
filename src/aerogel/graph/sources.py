"""What the words of COPY and ADD read from: the context or another root, a URL, a repository, a here-document.

Pure. Spec: the Dockerfile reference, COPY and ADD; ADD `--checksum`, `--keep-git-dir`, `--unpack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aerogel.dockerfile import ast
from aerogel.errors import AerogelError, Span
from aerogel.graph.ops import CopySource, Git, Http, InlineFile, Local, Node
from aerogel.graph.remote import is_remote, parse_remote

__all__ = ["Sources", "sources_of"]


class Sources(NamedTuple):
    """`words` are the sources of the operation, `nodes` its inputs after the root, `places` where each is written."""

    words: tuple[CopySource, ...]
    nodes: tuple[Node, ...]
    places: dict[str, Span]


def sources_of(
    it: ast.Copy | ast.Add,
    words: Sequence[tuple[ast.Word, str]],
    inline: Sequence[InlineFile],
    origin: Node | None,
    checksum: str,
    *,
    context: str = "context",
) -> Sources:
    """The sources in order. `words` go with their values, `origin` is the node of `--from`, `context` the main one.

    Raises `graph.copy-url`, `graph.bad-checksum`, `graph.bad-git-url`, `graph.not-remote`.
    """
    nodes: list[Node] = [] if origin is None else [origin]
    found: list[CopySource] = []
    places: dict[str, Span] = {}
    local = 1 if nodes else 0
    for word, path in words:
        places[path] = word.span
        op = _remote(it, word, path, checksum, alone=len(words) + len(inline) == 1)
        if op is None:
            if not local:
                nodes.append(Node(Local(context)))
                local = len(nodes)
            found.append(CopySource(input=local, path=path))
            continue
        places[op.url if isinstance(op, Http) else op.remote] = word.span
        nodes.append(Node(op))
        found.append(CopySource(input=len(nodes), path=_literal(op.name) if isinstance(op, Http) else "/"))
    if isinstance(it, ast.Add) and not any(isinstance(node.op, Http | Git) for node in nodes):
        _check_flags(it)
    found += [CopySource(input=-1, inline=each) for each in inline]
    return Sources(tuple(found), tuple(nodes), places)


def _remote(it: ast.Copy | ast.Add, word: ast.Word, path: str, checksum: str, *, alone: bool) -> Http | Git | None:
    if isinstance(it, ast.Copy):
        if is_remote(path):
            raise AerogelError(
                "COPY cannot read a URL", code="graph.copy-url", span=word.span, hints=["ADD can: write `ADD` instead"]
            )
        return None
    span = it.checksum.span if it.checksum is not None else None
    op = parse_remote(
        path,
        word.span,
        checksum=checksum,
        checksum_span=span,
        keep_git_dir=it.keep_git_dir,
        unpack=it.unpack is True,
    )
    if op is not None and checksum and not alone:
        raise AerogelError(
            "`--checksum` is for one source, and this ADD has several",
            code="graph.bad-checksum",
            span=span,
            hints=["write an ADD of its own for each source"],
        )
    return op


def _check_flags(it: ast.Add) -> None:
    """A checksum is for remote sources only; `--keep-git-dir` means nothing to others, and may stand there."""
    if it.checksum is not None:
        span = next((each.span for each in it.flags if each.span.text.startswith("--checksum")), it.span)
        raise AerogelError(
            "`--checksum` is for a URL or a git repository, and no source of this ADD is one",
            code="graph.not-remote",
            span=span,
            hints=["leave the flag out: files of the build context are checked by their content anyway"],
        )


def _literal(name: str) -> str:
    """The name as a pattern that matches nothing else."""
    return "".join("\\" + letter if letter in "*?[\\" else letter for letter in name)
