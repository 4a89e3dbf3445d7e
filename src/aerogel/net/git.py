"""Repositories of others, by the host's `git`: what a name stands for, one commit with its files, its time.

Each remote has a bare repository below the given folder, where commits are kept; two processes may share it under
`store.once`, which is the caller's. Git sees nothing of the user's: no configuration, no hooks, no credential
helpers, no prompts; only `PATH`, proxies, certificates and the ssh agent pass. Only the protocols git, http, https
and ssh are spoken, by submodules as well. Nothing else in aerogel starts git.

    <folder>/<sha256 of the remote>/    a bare repository; refs/aerogel/* keep what was fetched
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aerogel.errors import EXIT_HOST, EXIT_NETWORK, AerogelError, nearest
from aerogel.net.proxy import redact

__all__ = ["Commit", "GitClient", "head_files", "work_tree_time_s"]

_LOCAL_TIMEOUT_S = 10.0
"""The longest that reading one object of the host may take."""

_MAX_LINE = 4096
_MAX_NAMES = 5

TIMEOUT_S = 1800.0
"""The longest that one git command may take."""

_PASSED = ("PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CONFIG = {
    "advice.detachedHead": "false",
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "fetch.fsckObjects": "true",
    "gc.auto": "0",
    "init.defaultBranch": "main",
    "pack.threads": "1",
    "transfer.bundleURI": "false",
}


class Commit(NamedTuple):
    """A commit: its id, and the full name of the branch or tag that led to it, or an empty text.

    `tag` is the id of an annotated tag's own object, if there is one. With `is_pinned` the name is only what it is to
    be called, and the remote is asked for the commit itself.
    """

    id: str
    name: str
    tag: str = ""
    is_pinned: bool = False


class GitClient:
    """Git for one run. `environment` is the host's, of which little is passed on; `proxies` as for `net.http`.

    `secrets` are values by name, of which `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN` (with `.HOST[:PORT]` for one host)
    are sent to http(s) remotes; never on a command line, where others could read them.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        proxies: Mapping[str, str] | None = None,
        ca: str = "",
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._environment = _environment(environment, proxies or {}, ca)
        self._secrets = secrets or {}

    def repository(self, remote: str) -> Path:
        """Where the commits of a remote are kept; the folder need not be there."""
        return self._folder / hashlib.sha256(remote.encode("utf-8", "surrogateescape")).hexdigest()

    def resolve(self, remote: str, ref: str) -> Commit:
        """What a branch, tag, full reference or whole commit id stands for; an empty one is the remote's default.

        A branch comes before a tag of the same name. Raises `git.no-such-ref`, `git.unreachable`, `git.missing`.
        """
        if _COMMIT.fullmatch(ref):
            return Commit(ref, "")
        names = (
            ["HEAD"]
            if not ref
            else [f"refs/heads/{ref}", f"refs/tags/{ref}", ref if ref.startswith("refs/") else f"refs/{ref}"]
        )
        wanted = [*names, *(f"{name}^{{}}" for name in names)]
        found = self._list(remote, wanted)
        for name in names:
            if name in found:
                peeled = found.get(f"{name}^{{}}")
                return Commit(peeled or found[name], name, found[name] if peeled else "")
        raise self._no_such_ref(remote, ref)

    def fetch(self, remote: str, commit: Commit) -> Path:
        """The repository with the commit in it, and as little else as the remote allows.

        Raises `git.no-such-ref`, `git.unreachable`, `git.missing`.
        """
        repository = self.repository(remote)
        if not (repository / "HEAD").exists():
            repository.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", "--template=", str(repository))
        if self._has(repository, commit.id):
            return repository
        what = commit.id if commit.is_pinned or not commit.name else commit.name
        keep = f"+{what}:refs/aerogel/{commit.id}"
        everything = ["+refs/heads/*:refs/aerogel/heads/*", "+refs/tags/*:refs/aerogel/tags/*"]
        last = ""
        for arguments in (
            ["--depth=1", "--no-tags", remote, keep],
            ["--no-tags", remote, keep],
            ["--no-tags", remote, *everything],
        ):
            fetch = ("--git-dir", str(repository), "fetch", "--quiet", "--no-write-fetch-head", *arguments)
            done = self._try(*fetch, remote=remote)
            if self._has(repository, commit.id):
                return repository
            last = done.stderr or last
        if what != commit.id or not self._list(remote, []):
            raise _unreachable(remote, last)
        raise self._no_such_ref(remote, commit.id)

    def time_s(self, repository: Path, commit: str) -> int:
        """When the commit was made (the committer's time), in seconds since 1970."""
        return int(self._git("--git-dir", str(repository), "show", "-s", "--format=%ct", commit).strip())

    def check_out(
        self, remote: str, commit: Commit, target: Path, *, keep_git_dir: bool = False, submodules: bool = True
    ) -> None:
        """Writes the files of a fetched commit into an empty folder, files 644 or 755.

        With `keep_git_dir` the folder is a repository with this commit as its HEAD. Raises `git.*`.
        """
        repository = str(self.repository(remote))
        with_submodules = submodules and self._has_submodules(repository, commit.id)
        if not keep_git_dir and not with_submodules:
            index = str(target) + ".index"
            tree = ("--git-dir", repository, "--work-tree", str(target))
            try:
                self._git(*tree, "read-tree", commit.id, index=index)
                self._git(*tree, "checkout-index", "--all", "--force", index=index)
            finally:
                Path(index).unlink(missing_ok=True)
            return
        inside = ("-C", str(target))
        self._git("init", "--quiet", "--template=", str(target))
        # Always one commit deep, whatever the remote allowed: the result is the same everywhere.
        self._git(*inside, "-c", "fetch.fsckObjects=false", "fetch", "--quiet", "--depth=1", "--no-tags",
                  "--update-head-ok", "--no-write-fetch-head", f"file://{repository}",
                  f"{commit.id}:{self._local_name(commit)}", protocols="file")  # fmt: skip
        self._git(*inside, "remote", "add", "origin", remote)
        self._git(*inside, "checkout", "--quiet", "--force", *self._head(commit))
        if with_submodules:
            update = (*inside, "submodule", "--quiet", "update", "--init", "--recursive")
            done = self._try(*update, "--depth=1", remote=remote)
            if done.returncode:
                # A plain HTTP server has whole repositories only.
                self._try(*inside, "submodule", "--quiet", "deinit", "--all", "--force")
                shutil.rmtree(target / ".git" / "modules", ignore_errors=True)
                done = self._try(*update, remote=remote)
            if done.returncode:
                raise _unreachable(remote, done.stderr, what="a submodule of")
        self._tidy(target, keep_git_dir=keep_git_dir)

    def _tidy(self, target: Path, *, keep_git_dir: bool) -> None:
        """Takes out what tells of this machine and moment: logs, and the times of files in the index."""
        if keep_git_dir:
            git = target / ".git"
            for name in ("logs", "hooks", "branches", "description", "info", "FETCH_HEAD", "ORIG_HEAD"):
                path = git / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            (git / "index").unlink(missing_ok=True)
            self._git("-C", str(target), "read-tree", "HEAD")
            return
        for top, folders, files in os.walk(target):
            if ".git" in folders:
                shutil.rmtree(os.path.join(top, ".git"))
                folders.remove(".git")
            if ".git" in files:
                os.unlink(os.path.join(top, ".git"))

    @staticmethod
    def _local_name(commit: Commit) -> str:
        return commit.name if commit.name.startswith(("refs/heads/", "refs/tags/")) else "refs/heads/aerogel"

    def _head(self, commit: Commit) -> list[str]:
        """A branch is checked out as that branch, everything else as a detached commit."""
        if commit.name.startswith("refs/heads/"):
            return [commit.name.removeprefix("refs/heads/"), "--"]
        return ["--detach", commit.id]

    def _has(self, repository: Path, commit: str) -> bool:
        return self._try("--git-dir", str(repository), "cat-file", "-e", f"{commit}^{{tree}}").returncode == 0

    def _has_submodules(self, repository: str, commit: str) -> bool:
        return self._try("--git-dir", repository, "cat-file", "-e", f"{commit}:.gitmodules").returncode == 0

    def _list(self, remote: str, names: Sequence[str]) -> dict[str, str]:
        """Full names at the remote and what they are; all branches and tags when no names are given."""
        only = () if names else ("--heads", "--tags")
        done = self._try("ls-remote", "--quiet", *only, "--", remote, *names, remote=remote)
        if done.returncode:
            raise _unreachable(remote, done.stderr)
        rows = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
        return {name: commit for commit, name in rows}

    def _no_such_ref(self, remote: str, ref: str) -> AerogelError:
        known = [
            name.removeprefix("refs/heads/").removeprefix("refs/tags/")
            for name in self._list(remote, [])
            if not name.endswith("^{}")
        ]
        guess = nearest(ref, known)
        shown = ", ".join(f"`{name}`" for name in known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        hints = [f"did you mean `{guess}`?"] if guess else []
        hints.append(f"branches and tags there: {shown}" if known else "the repository is empty")
        if re.fullmatch(r"[0-9a-f]{4,39}", ref):
            hints.append("a commit is named by all 40 digits of its id")
        what = f"a branch, tag or commit `{ref}`" if ref else "a default branch"
        return AerogelError(
            f"the repository `{redact(remote)}` does not have {what}", code="git.no-such-ref", hints=hints
        )

    def _git(self, *arguments: str, index: str = "", protocols: str = "") -> str:
        done = self._try(*arguments, index=index, protocols=protocols)
        if done.returncode:
            raise AerogelError(f"git failed: {_last_line(done.stderr)}", code="git.failed", exit_status=EXIT_HOST)
        return done.stdout

    def _authorization(self, remote: str) -> str:
        """The `Authorization` header for a remote, empty for none. Spec: BuildKit, source/git."""
        parts = urlsplit(remote)
        if parts.scheme not in ("http", "https"):
            return ""
        for suffix in (f".{parts.netloc.rpartition('@')[2]}", ""):
            if header := self._secrets.get(f"GIT_AUTH_HEADER{suffix}"):
                return header
            if token := self._secrets.get(f"GIT_AUTH_TOKEN{suffix}"):
                pair = f"x-access-token:{token}".encode("utf-8", "surrogateescape")
                return f"basic {base64.b64encode(pair).decode()}"
        return ""

    def _try(
        self, *arguments: str, index: str = "", protocols: str = "", remote: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs git; with `remote`, the credentials for it are at hand."""
        environment = dict(self._environment)
        if authorization := self._authorization(remote):
            count = int(environment["GIT_CONFIG_COUNT"])
            environment[f"GIT_CONFIG_KEY_{count}"] = f"http.{_scope(remote)}.extraHeader"
            environment[f"GIT_CONFIG_VALUE_{count}"] = f"Authorization: {authorization}"
            environment["GIT_CONFIG_COUNT"] = str(count + 1)
        if index:
            environment["GIT_INDEX_FILE"] = index
        if protocols:
            environment["GIT_ALLOW_PROTOCOL"] = protocols
        try:
            return subprocess.run(
                ["git", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=TIMEOUT_S,
                check=False,
                umask=0o022,
            )
        except FileNotFoundError as error:
            raise AerogelError(
                "the program `git` is not installed, and a source of this build is a git repository",
                code="git.missing",
                exit_status=EXIT_HOST,
                hints=["install git"],
            ) from error
        except subprocess.TimeoutExpired as error:
            raise AerogelError(
                f"git did not end within {TIMEOUT_S:.0f} seconds", code="git.unreachable", exit_status=EXIT_NETWORK
            ) from error


def head_files(place: Path) -> list[Path]:
    """The files that decide what HEAD of a repository is; `place` is its `.git`, a folder or a file that names one."""
    found = [place]
    if place.is_file():
        place = place.parent / _first_line(place).removeprefix("gitdir:").strip()
    common = place
    if (place / "commondir").is_file():
        found.append(place / "commondir")
        common = place / _first_line(place / "commondir")
    tables = {each / "reftable/tables.list" for each in (place, common)}
    found += [place / "HEAD", common / "config", common / "packed-refs", *sorted(tables)]
    name = _first_line(place / "HEAD")
    # A name may stand for another one; more than a few only in a loop.
    for _ in range(_MAX_NAMES):
        if not name.startswith("ref:"):
            break
        paths = {each / name.removeprefix("ref:").strip() for each in (place, common)}
        found += sorted(paths)
        name = next((line for each in paths if (line := _first_line(each))), "")
    return found


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(_MAX_LINE).strip() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else ""
    except (OSError, ValueError):
        return ""


def work_tree_time_s(place: Path, environment: Mapping[str, str]) -> int | None:
    """When the newest commit of a work tree was made, in seconds since 1970; `place` is its `.git`.

    None for a repository without a commit. What the repository's own configuration
    says is never run: one object is read, with no index, no network, no hook and no filter. Raises `git.missing`,
    `git.unreadable`.
    """
    variables = _environment(environment, {}, "") | {
        # None of these is a protocol: what a partial clone left out is not fetched.
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    command = ["git", "--git-dir", str(place), "cat-file", "commit", "HEAD"]
    try:
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOCAL_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise AerogelError("the program `git` is not installed", code="git.missing", exit_status=EXIT_HOST) from error
    except subprocess.TimeoutExpired as error:
        message = f"git did not read `{place}` within {_LOCAL_TIMEOUT_S:.0f} seconds"
        raise AerogelError(message, code="git.unreadable", exit_status=EXIT_HOST) from error
    found = re.search(rb"(?m)^committer .*> ([0-9]{1,12}) [-+][0-9]{4}$", done.stdout.partition(b"\n\n")[0])
    if found is not None:
        return int(found[1])
    said = done.stderr.decode("utf-8", "backslashreplace")
    if "Not a valid object name HEAD" in said:
        return None
    message = f"git cannot read the newest commit of `{place.parent}`: {_last_line(said)}"
    raise AerogelError(message, code="git.unreadable", exit_status=EXIT_HOST)


def _environment(host: Mapping[str, str], proxies: Mapping[str, str], ca: str) -> dict[str, str]:
    found = {name: host[name] for name in _PASSED if name in host}
    found.setdefault("PATH", os.defpath)
    found |= {f"{kind}_proxy": value for kind, value in proxies.items() if value}
    certificates = ca if ca not in ("", "auto", "none") else host.get("SSL_CERT_FILE", "")
    if certificates:
        found["GIT_SSL_CAINFO"] = certificates
    found |= {
        "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": "/dev/null",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for number, (key, value) in enumerate(_CONFIG.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def _scope(remote: str) -> str:
    """The addresses that credentials are for: the remote's alone, but all of github.com, as in BuildKit."""
    for prefix in ("https://github.com/", "https://www.github.com/"):
        if remote.startswith(prefix):
            return prefix
    return remote


def _unreachable(remote: str, output: str, *, what: str = "") -> AerogelError:
    line = _last_line(output)
    hints = []
    if "could not read Username" in output or "Authentication failed" in output:
        hints = ["it wants credentials: lend them with `--secret id=GIT_AUTH_TOKEN,env=NAME`, or use ssh and an agent"]
    elif "Permission denied" in output or "Host key verification failed" in output:
        hints = ["check `ssh-add -l`, and that the host is in `~/.ssh/known_hosts`"]
    elif "not found" in output or "does not appear to be a git" in output:
        hints = ["check the address: there is no repository there, or it is private"]
    return AerogelError(
        f"git cannot read {what + ' ' if what else ''}`{redact(remote)}`: {line}",
        code="git.unreachable",
        exit_status=EXIT_NETWORK,
        hints=hints,
    )


def _last_line(output: str) -> str:
    """The line that says why: git's `fatal:` or `error:` line, else the last one, without credentials."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    text = telling[-1].partition(": ")[2] or telling[-1] if telling else "it says nothing"
    return re.sub(r"://[^/@\s']+@", "://***@", text).rstrip(".")
