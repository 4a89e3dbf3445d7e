"""Sources that are not in the build: which words of ADD, and which contexts, are URLs or git repositories.

Pure: it reads addresses and fetches nothing. An http(s) address is a repository when its path ends in `.git`;
everything else on http(s) is a file.

Spec: the Dockerfile reference, ADD (git repositories); docker's documentation of build contexts, "Git repositories",
URL fragments and URL queries; BuildKit's `dfgitutil`.
"""

from __future__ import annotations

import re

from aerogel.errors import AerogelError, Span, nearest
from aerogel.graph.ops import Git, Http

__all__ = ["is_remote", "parse_git", "parse_remote"]

_SCHEME = re.compile(r"([A-Za-z0-9]+)://")
_SCP = re.compile(
    r"(?P<remote>[A-Za-z0-9_-]+@[A-Za-z0-9.-]+:[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?", re.DOTALL
)
_FLAGS = ("fetch-by-commit", "keep-git-dir", "submodules")
_KEYS = ("branch", "checksum", "commit", *_FLAGS, "mtime", "ref", "subdir", "tag")
_TRUE = ("", "1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_HEX = re.compile(r"[0-9a-f]{1,64}")
_LEFT_OUT = re.compile(rf"[?&]keep-git-dir=(?:{'|'.join(_FALSE)})(?:&|\Z)")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_remote(text: str) -> bool:
    """Whether a word is the address of something to fetch, and not a path."""
    return _scheme(text) in ("http", "https", "git", "ssh") or _SCP.fullmatch(text) is not None


def parse_remote(
    text: str,
    span: Span | None = None,
    *,
    checksum: str = "",
    checksum_span: Span | None = None,
    keep_git_dir: bool | None = None,
    unpack: bool = False,
) -> Http | Git | None:
    """What ADD fetches for a word, None for a path. `keep_git_dir` is the flag; a file takes no notice of it.

    Raises `graph.bad-git-url`, `graph.bad-checksum`.
    """
    git = parse_git(text, span)
    if git is not None:
        return _with_flags(git, text, span, checksum, checksum_span or span, keep_git_dir)
    if _scheme(text) not in ("http", "https"):
        return None
    if checksum and re.fullmatch(r"sha256:[0-9a-f]{64}", checksum) is None:
        raise AerogelError(
            f"`{checksum}` is not the checksum of a file",
            code="graph.bad-checksum",
            span=checksum_span or span,
            hints=[
                "write `sha256:` and 64 hexadecimal digits, as `sha256sum FILE` prints them"
                + ("; the Dockerfile syntax knows no other algorithm" if checksum.startswith("sha") else "")
            ],
        )
    path = re.split(r"[?#]", text, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    name = _unquote(path).rstrip("/").rpartition("/")[2]
    return Http(
        url=text.partition("#")[0],
        name=name if name not in ("", ".", "..") and "\0" not in name else "__unnamed__",
        checksum=checksum,
        unpack=unpack,
    )


def parse_git(text: str, span: Span | None = None, *, known: bool = False) -> Git | None:
    """The repository that an address names, None when it names none. `known` lets any http(s) address be one.

    Raises `graph.bad-git-url`.
    """
    found = _SCP.fullmatch(text)
    scheme = _scheme(text)
    if scheme in ("http", "https", "git", "ssh"):
        rest, _, fragment = text.partition("#")
        remote, _, query = rest.partition("?")
        if scheme in ("http", "https") and not known and not remote.endswith(".git"):
            return None
    elif found is not None and not scheme:
        remote, query, fragment = found["remote"], found["query"] or "", found["fragment"] or ""
    else:
        return None
    options = _query(query, _fragment(_unquote(fragment)), text, span)
    if any(part == ".." for part in options.get("subdir", "").split("/")):
        raise _wrong(text, span, f"the folder `{options['subdir']}` leads out of the repository")
    if options.get("ref", "").startswith("-"):
        raise _wrong(text, span, f"`{options['ref']}` cannot be the name of a branch or tag")
    checksum = options.get("checksum", "")
    if checksum and _HEX.fullmatch(checksum) is None:
        raise _wrong(text, span, f"`{checksum}` is no commit: write its hexadecimal digits")
    by_commit = options.get("fetch-by-commit", "") == "true" and not _COMMIT.fullmatch(options.get("ref", ""))
    if by_commit and not _COMMIT.fullmatch(checksum):
        raise _wrong(text, span, "`fetch-by-commit` needs all digits of the commit in `checksum`")
    return Git(
        remote=remote,
        ref=options.get("ref", ""),
        subdir=options.get("subdir", "").strip("/"),
        keep_git_dir=options.get("keep-git-dir", "") == "true",
        submodules=options.get("submodules", "true") == "true",
        checksum=checksum,
        by_commit=by_commit,
    )


def _with_flags(
    git: Git, text: str, span: Span | None, checksum: str, checksum_span: Span | None, keep_git_dir: bool | None
) -> Git:
    """The flags of ADD beside those in the address; the two may not contradict each other."""
    if checksum:
        if _HEX.fullmatch(checksum) is None:
            raise AerogelError(
                f"`{checksum}` is not the checksum of a git commit",
                code="graph.bad-checksum",
                span=checksum_span,
                hints=["write the commit's hexadecimal digits, as `git rev-parse` prints them"],
            )
        if git.checksum and git.checksum != checksum:
            raise _wrong(text, span, f"the address says commit `{git.checksum}`, `--checksum` says `{checksum}`")
    if keep_git_dir and _LEFT_OUT.search(text.partition("#")[0]):
        raise _wrong(text, span, "the address says `keep-git-dir=false`, the flag says `--keep-git-dir=true`")
    if keep_git_dir is False and git.keep_git_dir:
        raise _wrong(text, span, "the address says `keep-git-dir=true`, the flag says `--keep-git-dir=false`")
    return Git(
        remote=git.remote,
        ref=git.ref,
        subdir=git.subdir,
        keep_git_dir=git.keep_git_dir or bool(keep_git_dir),
        submodules=git.submodules,
        checksum=checksum or git.checksum,
        by_commit=git.by_commit,
    )


def _fragment(fragment: str) -> dict[str, str]:
    """`ref:subdir`, both optional."""
    ref, _, subdir = fragment.partition(":")
    return {key: value for key, value in (("ref", ref), ("subdir", subdir)) if value}


def _query(query: str, options: dict[str, str], text: str, span: Span | None) -> dict[str, str]:
    found = dict(options)
    seen: set[str] = set()
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        key, value = _unquote(key), _unquote(value.replace("+", " "))
        if key not in _KEYS:
            guess = nearest(key, _KEYS)
            raise _wrong(text, span, f"did you mean `{guess}`?" if guess else f"known are {_listed(_KEYS)}", key)
        if key in seen:
            raise _wrong(text, span, f"`{key}` stands there twice")
        seen.add(key)
        if key in _FLAGS:
            if value not in _TRUE and value not in _FALSE:
                raise _wrong(text, span, f"`{key}` is `true` or `false`, not `{value}`")
            found[key] = "true" if value in _TRUE else "false"
            continue
        if not value:
            raise _wrong(text, span, f"`{key}` has no value")
        if key == "mtime":
            # Files get the time of the build, or of SOURCE_DATE_EPOCH, whatever their own was.
            if value not in ("checkout", "commit"):
                raise _wrong(text, span, f"`mtime` is `checkout` or `commit`, not `{value}`")
            continue
        key, value = _full(key, value)
        if found.get(key, value) != value:
            raise _wrong(text, span, f"it names both `{found[key]}` and `{value}`")
        found[key] = value
    return found


def _full(key: str, value: str) -> tuple[str, str]:
    """Tags and branches as what they are: a full reference."""
    prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}.get(key)
    if prefix is not None:
        return "ref", value if value.startswith(prefix) else prefix + value
    return ("checksum", value) if key == "commit" else (key, value)


def _scheme(text: str) -> str:
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def _unquote(text: str) -> str:
    """`%xx` as the bytes that they are; what is no escape stays."""
    if "%" not in text:
        return text
    data = text.encode("utf-8", "surrogateescape")
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), data)
    return data.decode("utf-8", "surrogateescape")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _wrong(text: str, span: Span | None, why: str, key: str = "") -> AerogelError:
    what = f"`{key}` is no option of a git address" if key else f"`{text}` does not name a git repository"
    return AerogelError(what, code="graph.bad-git-url", span=span, hints=[why])
