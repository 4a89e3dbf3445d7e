"""ADD of URLs and repositories, and contexts of every kind, against a loop-back server, real repositories and tars.

Git is served over HTTP as plain files (`update-server-info`) and by `git daemon`; nothing leaves the machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bad_input import check_form, leftovers, normal
from fault_server import Fault, FaultServer, serve

from aerogel.cli import main

pytestmark = pytest.mark.host("git")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sources"
TIMES = {"GIT_COMMITTER_DATE": "2020-01-02T03:04:05Z", "GIT_AUTHOR_DATE": "2020-01-02T03:04:05Z"}
COMMIT_TIME = 1577934245


class Bench:
    """A folder, a store of its own, a server, and `aerogel` in this process."""

    def __init__(self, folder: Path, server: FaultServer, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.server = server
        self.capfd = capfd
        self.state = folder / "state"
        self.err = ""

    def run(self, *words: str, stdin: bytes = b"") -> int:
        """The exit status; what was said is in `err` and `out`. Standard input is a pipe."""
        spool = self.folder / "stdin"
        spool.write_bytes(stdin)
        saved = os.dup(0)
        fd = os.open(spool, os.O_RDONLY)
        os.dup2(fd, 0)
        try:
            status = main.main(list(words))
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            os.close(fd)
        seen = self.capfd.readouterr()
        self.out, self.err = seen.out, seen.err
        return status

    def build(self, *words: str, stdin: bytes = b"") -> dict[str, tarfile.TarInfo]:
        """Builds, and gives the entries of the image by path, upper layers over lower ones."""
        target = self.folder / "out.tar"
        assert self.run("build", *words, "-o", f"type=oci,dest={target}", stdin=stdin) == 0, self.err
        self.files: dict[str, bytes] = {}
        found: dict[str, tarfile.TarInfo] = {}
        with tarfile.open(target) as archive:
            import json

            def blob(digest: str) -> bytes:
                member = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
                assert member is not None
                return member.read()

            index = archive.extractfile("index.json")
            assert index is not None
            manifest = json.loads(blob(json.loads(index.read())["manifests"][0]["digest"]))
            self.config = json.loads(blob(manifest["config"]["digest"]))
            for layer in manifest["layers"]:
                with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as tar:
                    for entry in tar:
                        found[entry.name] = entry
                        if entry.isreg():
                            content = tar.extractfile(entry)
                            assert content is not None
                            self.files[entry.name] = content.read()
        return found

    def dockerfile(self, text: str, name: str = "Dockerfile") -> str:
        folder = self.folder / "context"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return str(folder)

    def statuses(self) -> list[str]:
        return [line.split()[1] for line in self.err.splitlines() if line.startswith("#") and len(line.split()) < 4]


def git(*words: str, cwd: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", **TIMES}
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *identity, *words], cwd=cwd, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository: `main` with `x` (executable) and `sub/f`, tag `v1` of it, branch `dev` with `new` on top."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    git("init", "-q", "-b", "main", ".", cwd=work)
    (work / "x").write_text("#!/bin/sh\n")
    (work / "x").chmod(0o755)
    (work / "sub" / "f").write_text("old\n")
    (work / "sub" / "f").chmod(0o600)
    (work / "sub" / "Dockerfile").write_text("FROM scratch\nCOPY f /from-git\n")
    git("add", ".", cwd=work)
    git("commit", "-qm", "one", cwd=work)
    git("tag", "-a", "v1", "-m", "v1", cwd=work)
    git("checkout", "-qb", "dev", cwd=work)
    (work / "new").write_text("new\n")
    git("add", ".", cwd=work)
    git("commit", "-qm", "two", cwd=work)
    bare = tmp_path / "served" / "repo.git"
    git("clone", "-q", "--bare", "--no-local", ".", str(bare), cwd=work)
    git("update-server-info", cwd=bare)
    return bare


def publish(server: FaultServer, bare: Path, name: str = "/repo.git") -> str:
    """Serves the files of a bare repository; returns its address."""
    for path in bare.rglob("*"):
        if path.is_file():
            server.files[f"{name}/{path.relative_to(bare)}"] = path.read_bytes()
    return server.url + name


def tar(files: dict[str, bytes], mode: str = "w", mtime: int = 1_600_000_000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as made:  # type: ignore[call-overload]  # a mode from the test's table
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.mode = len(data), mtime, 4321, 0o640
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    monkeypatch.setattr(main, "_catch_signals", lambda: None)
    for name in ("SOURCE_DATE_EPOCH", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AEROGEL_PROGRESS", "plain")
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with serve() as server:
        bench = Bench(tmp_path, server, capfd)
        yield bench
    assert leftovers(bench.state) == []


# ADD of URLs.


def test_add_url(bench: Bench) -> None:
    bench.server.files["/dir/a%20b.txt"] = b"hello\n"
    bench.server.files["/q"] = b"query\n"
    url = bench.server.url
    context = bench.dockerfile(
        f'FROM scratch\nADD ["{url}/dir/a%20b.txt", "/opt/"]\nADD {url}/dir/a%20b.txt /renamed\n'
        f"ADD --chmod=755 --chown=7:8 {url}/q?x=1 /q/\nADD {url}/q Dockerfile /both/\n"
    )
    found = bench.build(context)
    assert bench.files == {
        "opt/a b.txt": b"hello\n",
        "renamed": b"hello\n",
        "q/q": b"query\n",
        "both/q": b"query\n",
        "both/Dockerfile": (Path(context) / "Dockerfile").read_bytes(),
    }
    assert (found["opt/a b.txt"].mode, found["opt/a b.txt"].uid, found["opt/a b.txt"].mtime) == (0o600, 0, 315532800)
    assert (found["q/q"].mode, found["q/q"].uid, found["q/q"].gid) == (0o755, 7, 8)


def test_url_is_asked_again_and_transferred_only_when_changed(bench: Bench) -> None:
    bench.server.files["/f"] = b"one"
    context = bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n")
    bench.build(context)
    assert bench.statuses() == ["DONE"]
    bench.build(context)
    assert bench.statuses() == ["CACHED"]
    assert "GET " not in bench.err
    assert [seen.headers.get("if-none-match") is not None for seen in bench.server.seen] == [False, True]
    bench.server.files["/f"] = b"two"
    bench.build(context)
    assert bench.files == {"f": b"two"}
    assert bench.statuses() == ["DONE"]


def test_url_without_validators_is_keyed_by_content(bench: Bench) -> None:
    bench.server.etags = False
    bench.server.files["/f"] = b"one"
    context = bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n")
    bench.build(context)
    bench.build(context)
    assert bench.statuses() == ["CACHED"]


def test_known_checksum_needs_no_server(bench: Bench) -> None:
    bench.server.files["/f"] = b"one"
    digest = hashlib.sha256(b"one").hexdigest()
    context = bench.dockerfile(f"FROM scratch\nARG D={digest}\nADD --checksum=sha256:$D {bench.server.url}/f /f\n")
    bench.build(context)
    asked = len(bench.server.seen)
    del bench.server.files["/f"]
    bench.build(context, "--no-cache")
    assert bench.files == {"f": b"one"}
    assert len(bench.server.seen) == asked


def test_damaged_content_is_fetched_again(bench: Bench) -> None:
    bench.server.files["/f"] = b"one"
    digest = hashlib.sha256(b"one").hexdigest()
    context = bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n")
    pinned = bench.dockerfile(f"FROM scratch\nADD --checksum=sha256:{digest} {bench.server.url}/f /f\n", "pinned")
    for words in ([context], ["-f", f"{pinned}/pinned", context]):
        bench.build(*words)
        [content] = bench.state.glob("**/http-v1/content/*")
        content.write_bytes(b"cut")
        bench.build(*words, "--no-cache")
        assert bench.files == {"f": b"one"}


def test_unpack_is_asked_for_with_urls(bench: Bench) -> None:
    data = tar({"in/side": b"x"}, "w:gz")
    bench.server.files["/a.tgz"] = data
    url = f"{bench.server.url}/a.tgz"
    context = bench.dockerfile(f"FROM scratch\nADD {url} /as-is/\nADD --unpack {url} /out/\n")
    bench.build(context)
    assert bench.files == {"as-is/a.tgz": data, "out/in/side": b"x"}


def test_password_is_not_in_the_image(bench: Bench) -> None:
    bench.server.files["/f"] = b"one"
    address = bench.server.url.replace("://", "://user:hunter22@")
    bench.build(bench.dockerfile(f"FROM scratch\nADD {address}/f /f\n"))
    assert bench.server.seen[0].headers["authorization"].startswith("Basic ")
    assert "hunter22" not in str(bench.config)
    assert "hunter22" not in bench.err


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        (["HTTP_AUTH_TOKEN_127.0.0.1"], "Bearer tok3n-value"),
        (["HTTP_AUTH_HEADER_127.0.0.1"], "tok3n-value"),
        (["HTTP_AUTH_HEADER_127.0.0.1", "HTTP_AUTH_TOKEN_127.0.0.1"], "Bearer tok3n-value"),
        (["HTTP_AUTH_TOKEN_example.com", "GIT_AUTH_TOKEN"], None),
    ],
)
def test_credentials_of_a_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], sent: str | None
) -> None:
    monkeypatch.setenv("TOKEN", "tok3n-value\n")
    bench.server.files["/f"] = b"one"
    context = bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n")
    bench.build(context, *(word for name in names for word in ("--secret", f"id={name},env=TOKEN")))
    assert bench.server.seen[0].headers.get("authorization") == sent
    assert "tok3n" not in str(bench.config) + bench.err
    bench.build(context)
    assert bench.statuses() == ["CACHED"]


def test_credentials_are_not_sent_to_where_a_server_points(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "tok3n-value")
    with serve() as other:
        other.files["/f"] = b"one"
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        bench.server.fail("/f", Fault(302, {"Location": f"{elsewhere}/f"}))
        context = bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n")
        bench.build(context, "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN")
        assert bench.server.seen[0].headers["authorization"] == "Bearer tok3n-value"
        assert "authorization" not in other.seen[0].headers


def test_keep_git_dir_does_not_make_a_file_a_repository(bench: Bench) -> None:
    """As in BuildKit, which looks at the address alone."""
    bench.server.files["/f"] = b"one"
    bench.build(bench.dockerfile(f"FROM scratch\nADD --keep-git-dir=true {bench.server.url}/f Dockerfile /in/\n"))
    assert set(bench.files) == {"in/f", "in/Dockerfile"}


# ADD of repositories.


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        (["GIT_AUTH_TOKEN"], "basic eC1hY2Nlc3MtdG9rZW46dG9rM24tdmFsdWU="),
        (["GIT_AUTH_HEADER"], "tok3n-value"),
        (["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"], "tok3n-value"),
        (["GIT_AUTH_TOKEN.HOST", "GIT_AUTH_HEADER"], "basic eC1hY2Nlc3MtdG9rZW46dG9rM24tdmFsdWU="),
        (["GIT_AUTH_TOKEN.example.com"], None),
    ],
)
def test_credentials_of_a_repository(
    bench: Bench, repository: Path, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], sent: str | None
) -> None:
    monkeypatch.setenv("TOKEN", "tok3n-value")
    url = publish(bench.server, repository)
    host = bench.server.url.partition("://")[2]
    secrets = [word for name in names for word in ("--secret", f"id={name.replace('HOST', host)},env=TOKEN")]
    bench.build(bench.dockerfile(f"FROM scratch\nADD {url} /r\n"), *secrets)
    assert {seen.headers.get("authorization") for seen in bench.server.seen} == {sent}
    assert "r/x" in bench.files


def test_queries_of_a_repository(bench: Bench, repository: Path) -> None:
    url = publish(bench.server, repository)
    main_, dev = (git("rev-parse", name, cwd=repository) for name in ("main", "dev"))
    bench.build(
        bench.dockerfile(
            f"FROM scratch\nADD {url}?ref=main&subdir=sub&checksum={main_[:7]} /a\nADD {url}?tag=v1&mtime=commit /b\n"
            f"ADD {url}?branch=dev&commit={dev}&keep-git-dir&submodules=0 /c\nADD {url}?checksum={dev[:1]} /d\n"
        )
    )
    assert bench.files["a/f"] == b"old\n"
    assert bench.files["c/.git/HEAD"] == b"ref: refs/heads/dev\n"
    assert {"b/x", "d/new"} < set(bench.files)
    # The commit is trusted: that the branch has moved is not seen.
    asked = len(bench.server.seen)
    pinned = f"?branch=dev&checksum={main_}&fetch-by-commit=true"
    bench.build(bench.dockerfile(f"FROM scratch\nADD {url}{pinned} /r\nADD --keep-git-dir {url}{pinned} /k\n"))
    assert len(bench.server.seen) == asked
    assert "r/new" not in bench.files
    assert bench.files["k/.git/HEAD"] == b"ref: refs/heads/dev\n"
    assert bench.run("build", bench.dockerfile(f"FROM scratch\nADD {url}?checksum={main_} /r\n")) == 1
    assert f"expected commit `{main_}`, found `{dev}`" in bench.err


def test_add_git(bench: Bench, repository: Path) -> None:
    url = publish(bench.server, repository)
    context = bench.dockerfile(
        f"FROM scratch\nADD {url} /head\nADD {url}#v1 /tag\nADD {url}#dev:sub /sub/\n"
        f"ADD {url}?branch=dev&subdir=sub /query\nADD {url}?tag=v1#:sub /both\n"
    )
    found = bench.build(context)
    tree = {"x", "sub/f", "sub/Dockerfile"}
    files = {name for name, entry in found.items() if entry.isreg()}
    assert files == {
        *(f"head/{name}" for name in (*tree, "new")),
        *(f"tag/{name}" for name in tree),
        *(f"{top}/{name}" for top in ("sub", "query", "both") for name in ("f", "Dockerfile")),
    }
    assert {found["tag/x"].mode, found["tag/sub"].mode} == {0o755}
    assert found["tag/sub/f"].mode == 0o644
    bench.build(context)
    assert set(bench.statuses()) == {"CACHED", "SKIPPED"}


def test_git_dir_is_the_same_on_every_host(bench: Bench, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = publish(bench.server, repository)
    context = bench.dockerfile(f"FROM scratch\nADD --keep-git-dir {url}#v1 /r\n")
    bench.build(context)
    first = dict(bench.files)
    assert "r/.git/HEAD" in first
    monkeypatch.setenv("AEROGEL_ROOT", str(bench.folder / "other"))
    time.sleep(1.1)
    bench.build(context)
    assert bench.files == first
    out = bench.folder / "unpacked"
    for name, data in first.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    for name in ("objects", "refs"):
        (out / "r" / ".git" / name).mkdir(exist_ok=True)
    assert git("rev-parse", "HEAD", cwd=out / "r") == git("rev-parse", "v1^{commit}", cwd=repository)
    assert git("remote", "get-url", "origin", cwd=out / "r") == url


def test_submodules(bench: Bench, repository: Path, tmp_path: Path) -> None:
    url = publish(bench.server, repository)
    outer = tmp_path / "outer"
    outer.mkdir()
    git("init", "-q", "-b", "main", ".", cwd=outer)
    git("submodule", "--quiet", "add", str(repository), "inner", cwd=outer)
    git("config", "-f", ".gitmodules", "submodule.inner.url", "../repo.git", cwd=outer)
    git("add", ".", cwd=outer)
    git("commit", "-qm", "outer", cwd=outer)
    bare = tmp_path / "outer.git"
    git("clone", "-q", "--bare", "--no-local", ".", str(bare), cwd=outer)
    git("update-server-info", cwd=bare)
    publish(bench.server, bare, "/outer.git")
    outer_url = url.replace("repo.git", "outer.git")
    bench.build(bench.dockerfile(f"FROM scratch\nADD {outer_url} /with\nADD {outer_url}?submodules=false /without\n"))
    assert set(bench.files) == {
        "with/.gitmodules",
        "with/inner/new",
        "with/inner/x",
        "with/inner/sub/f",
        "with/inner/sub/Dockerfile",
        "without/.gitmodules",
    }


def test_git_protocol_and_moving_branch(bench: Bench, repository: Path) -> None:
    (repository / "git-daemon-export-ok").touch()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", f"--base-path={repository.parent}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        context = bench.dockerfile(f"FROM scratch\nADD git://127.0.0.1:{port}/repo.git#dev /r\n")
        bench.build(context)
        assert bench.files["r/new"] == b"new\n"
        git("update-ref", "refs/heads/dev", "refs/heads/main", cwd=repository)
        bench.build(context)
        assert "r/new" not in bench.files
        commit = git("rev-parse", "main", cwd=repository)
        context = bench.dockerfile(f"FROM scratch\nADD --checksum={commit[:9]} git://127.0.0.1:{port}/repo.git /r\n")
        bench.run("build", context)
        assert "is not what the checksum says" not in bench.err
        pinned = bench.dockerfile(f"FROM scratch\nADD git://127.0.0.1:{port}/repo.git#{commit} /r\n")
        bench.build(pinned)
        daemon.terminate()
        daemon.wait()
        bench.build(pinned, "--no-cache")
        assert "r/x" in bench.files
    finally:
        daemon.kill()
        daemon.wait()


# Contexts.

PLAIN = {"Dockerfile": b"FROM scratch\nCOPY . /all/\n", "f": b"data\n", ".dockerignore": b"f\n"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zstd"])
def test_tar_on_standard_input(bench: Bench, mode: str) -> None:
    data = tar(PLAIN, "w" if mode == "zstd" else mode)
    if mode == "zstd":
        import zstandard

        data = zstandard.ZstdCompressor().compress(data)
    found = bench.build("-", stdin=data)
    assert bench.files["all/f"] == b"data\n"
    assert (found["all/f"].uid, found["all/f"].mode) == (0, 0o640)


def test_tar_file_and_url(bench: Bench) -> None:
    data = tar({**PLAIN, "docker/other": b"FROM scratch\nCOPY f /g\n"}, "w:gz")
    (bench.folder / "c.tar").write_bytes(data)
    bench.server.files["/c.tar.gz"] = data
    bench.build("c.tar")
    assert bench.files["all/f"] == b"data\n"
    bench.build("-f", "docker/other", f"{bench.server.url}/c.tar.gz")
    assert bench.files == {"g": b"data\n"}


def test_dockerfile_from_elsewhere(bench: Bench) -> None:
    text = b"FROM scratch\nCOPY <<a /\nhi\na\n"
    bench.server.files["/Dockerfile"] = text
    for words, stdin in ((["-"], text), ([f"{bench.server.url}/Dockerfile"], b"")):
        bench.build(*words, stdin=stdin)
        assert bench.files == {"a": b"hi\n"}
    context = bench.dockerfile("FROM nowhere\n")
    bench.build("-f", "-", context, stdin=b"FROM scratch\nCOPY Dockerfile /d\n")
    assert bench.files == {"d": b"FROM nowhere\n"}
    bench.build("-f", f"{bench.server.url}/Dockerfile", context)
    assert bench.files == {"a": b"hi\n"}


def test_git_context(bench: Bench, repository: Path) -> None:
    url = publish(bench.server, repository)
    bench.build(f"{url}#main:sub", "--build-arg", "SOURCE_DATE_EPOCH=context")
    assert bench.files == {"from-git": b"old\n"}
    assert bench.config["created"] == "2020-01-02T03:04:05Z"


def test_ignore_files(bench: Bench) -> None:
    """The one named after the Dockerfile comes first; a named context has its own."""
    context = Path(bench.dockerfile("FROM scratch\nCOPY . /c/\nCOPY --from=lib . /l/\n"))
    for name in ("a", "b"):
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("a\n*ockerfile*\n")
    lib = bench.folder / "lib"
    lib.mkdir()
    (lib / "kept").write_text("k")
    (lib / "gone").write_text("g")
    (lib / ".dockerignore").write_text("gone\n.dockerignore\n")
    words = [str(context), "--build-context", f"lib={lib}"]
    bench.build(*words)
    assert set(bench.files) == {"c/b", "c/.dockerignore", "l/kept"}
    (context / "Dockerfile.dockerignore").write_text("b\n*ockerfile*\n.dockerignore\n")
    bench.build(*words)
    assert set(bench.files) == {"c/a", "l/kept"}


def test_named_contexts_of_every_kind(bench: Bench, repository: Path) -> None:
    url = publish(bench.server, repository)
    bench.server.files["/one.txt"] = b"one"
    bench.server.files["/c.tar"] = tar({"t": b"tar"})
    base = bench.dockerfile("FROM scratch\nCOPY <<x /base\nb\nx\nENV FROM_BASE=yes\n")
    assert bench.run("build", base, "-t", "base:1", "-o", f"type=oci,dest={bench.folder}/base.tar") == 0
    layout = bench.folder / "layout"
    with tarfile.open(bench.folder / "base.tar") as archive:
        archive.extractall(layout)
    context = bench.dockerfile(
        "FROM img AS a\nCOPY --from=git f /git\nCOPY --from=url . /url/\nCOPY --from=tar t /tar\n"
        "COPY --from=oci /base /oci\nFROM oci\nCOPY --from=a / /\n"
    )
    bench.build(
        context,
        *("--build-context", "img=docker-image://base:1"),
        *("--build-context", f"git={url}#main:sub"),
        *("--build-context", f"url={bench.server.url}/one.txt"),
        *("--build-context", f"tar={bench.server.url}/c.tar"),
        *("--build-context", f"oci=oci-layout://{layout}"),
    )
    assert bench.files == {
        "base": b"b\n", "git": b"old\n", "url/one.txt": b"one", "tar": b"tar", "oci": b"b\n"
    }  # fmt: skip
    assert "FROM_BASE=yes" in bench.config["config"]["Env"]


def test_stage_from_a_folder(bench: Bench, repository: Path) -> None:
    """A named context that is no image is a root file system, whatever it replaces."""
    url = publish(bench.server, repository)
    root = bench.folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "motd").write_text("hi\n")
    (root / "etc" / "motd").chmod(0o640)
    (root / "gone").write_text("x")
    (root / ".dockerignore").write_text("gone\n.dockerignore\n")
    context = bench.dockerfile(
        "FROM folder AS a\nENV A=b\nFROM never:heard AS build\nRUN not done\nFROM build\nCOPY --from=a /etc/motd /motd\n"
        "COPY --from=folder etc /more\n"
    )
    words = [context, "--build-context", f"folder={root}", "--build-context", f"build={url}#main:sub"]
    found = bench.build(*words)
    assert set(bench.files) == {"f", "Dockerfile", "motd", "more/motd"}
    assert (found["motd"].mode, found["motd"].uid) == (0o640, 0)
    assert bench.config["history"][0]["created_by"] == "[context build] load from client"
    assert bench.config["config"]["WorkingDir"] == "/"
    bench.build(*words)
    assert "DONE" not in bench.statuses()
    bench.build(*words, "--target=a")
    assert set(bench.files) == {"etc/motd"}
    assert "A=b" in bench.config["config"]["Env"]


def test_hostile_tar_stays_inside(bench: Bench) -> None:
    secret = bench.folder / "secret"
    secret.write_text("FROM scratch\nLABEL stolen=yes\n")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        link = tarfile.TarInfo("Dockerfile")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        made.addfile(link)
    assert bench.run("build", "-", stdin=out.getvalue()) == 2
    assert "stolen" not in bench.err


# SOURCE_DATE_EPOCH.


@pytest.mark.parametrize(
    ("text", "words", "created"),
    [
        ("FROM scratch\n", ["SOURCE_DATE_EPOCH=86400"], "1970-01-02T00:00:00Z"),
        ("ARG SOURCE_DATE_EPOCH=172800\nFROM scratch\n", [], "1970-01-03T00:00:00Z"),
        ("ARG SOURCE_DATE_EPOCH=172800\nFROM scratch\n", ["SOURCE_DATE_EPOCH=0"], "1970-01-01T00:00:00Z"),
        ("ARG SOURCE_DATE_EPOCH=context\nFROM scratch\n", [], "1980-01-01T00:00:00Z"),
        ("FROM scratch\n", ["SOURCE_DATE_EPOCH=git"], "2020-01-02T03:04:05Z"),
        ("FROM scratch\n", ["SOURCE_DATE_EPOCH=tar"], "2020-09-13T12:26:40Z"),
        ("FROM scratch AS src\nADD URL/repo.git#v1 /\nFROM scratch\n", ["SOURCE_DATE_EPOCH=src"], "2020-01-02T03:04:05Z"),
        ("FROM scratch AS src\nADD URL/f.tar /\nFROM scratch\n", ["SOURCE_DATE_EPOCH=SRC"], "1970-01-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_epoch(bench: Bench, repository: Path, text: str, words: Sequence[str], created: str) -> None:
    url = publish(bench.server, repository)
    bench.server.files["/f.tar"] = tar({"a": b""})
    (bench.folder / "c.tar").write_bytes(tar({"a": b""}))
    context = bench.dockerfile(text.replace("URL", bench.server.url))
    contexts = ["--build-context", f"git={url}", "--build-context", "tar=c.tar"]
    bench.build(context, *contexts, *(part for word in words for part in ("--build-arg", word)))
    assert bench.config["created"] == created


def test_epoch_of_an_archive_without_date(bench: Bench) -> None:
    bench.server.etags = False
    bench.server.files["/f.tar"] = tar({"a": b"", "b": b""}, "w:xz")
    text = f"FROM scratch AS src\nADD {bench.server.url}/f.tar /\nFROM scratch\n"
    bench.build(bench.dockerfile(text), "--build-arg", "SOURCE_DATE_EPOCH=src")
    assert bench.config["created"] == "2020-09-13T12:26:40Z"


# ONBUILD.


def test_triggers_of_an_image_read_stages_of_the_child(bench: Bench) -> None:
    first = bench.dockerfile("FROM scratch\nONBUILD COPY --from=build /out /got\nONBUILD LABEL fired=yes\n")
    assert bench.run("build", first, "-t", "trigger") == 0
    second = bench.dockerfile(
        "FROM scratch AS build\nCOPY Dockerfile /out\nFROM scratch AS unused\nCOPY nothing /\n"
        "FROM trigger AS mid\nFROM mid\n"
    )
    bench.build(second)
    assert set(bench.files) == {"got"}
    assert bench.config["config"]["Labels"] == {"fired": "yes"}
    assert "OnBuild" not in bench.config["config"]
    assert len([entry for entry in bench.config["history"] if "/got" in entry["created_by"]]) == 1


def test_graph_and_outline_know_stored_images(bench: Bench) -> None:
    first = bench.dockerfile(
        "FROM scratch\nENV OUT=/o\nONBUILD ARG LEVEL=1\nONBUILD RUN --mount=type=cache,id=$OUT,target=/c x\n"
        "ONBUILD COPY --from=build /out /got\n"
    )
    assert bench.run("build", first, "-t", "trigger") == 0
    text = "FROM scratch AS build\nCOPY Dockerfile /out\n\n# final is it\nFROM trigger \\\n  AS final\n"
    second = bench.dockerfile(text)
    assert bench.run("graph", second) == 0
    assert "COPY --from=build /out /got" in bench.out
    assert "COPY Dockerfile /out" in bench.out
    import base64
    import json

    assert bench.run("build", second, "--call=outline,format=json") == 0
    place = {"ranges": [{"start": {"line": 5}, "end": {"line": 6}}]}
    assert json.loads(bench.out) == {
        "name": "final",
        "description": "is it",
        "args": [{"name": "LEVEL", "value": "1", "location": place}],
        "cache": [{"ID": "/o", "location": place}],
        "sources": [base64.b64encode(text.encode()).decode()],
    }
    assert bench.run("build", second, "--call=targets,format=json") == 0
    assert json.loads(bench.out)["targets"] == [
        {"name": "build", "base": "scratch", "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}},
        {
            "name": "final",
            "default": True,
            "description": "is it",
            "base": "trigger",
            "location": place,
        },
    ]


# What is wrong.

WRONG: dict[str, tuple[str, Sequence[str], bytes]] = {
    "url-missing": ("FROM scratch\nADD URL/nope /\n", ["."], b""),
    "url-unreachable": ("FROM scratch\nADD http://127.0.0.1:9/f /\n", ["."], b""),
    "url-checksum": (f"FROM scratch\nADD --checksum=sha256:{'0' * 64} URL/f /\n", ["."], b""),
    "url-bad-checksum": ("FROM scratch\nADD --checksum=md5:123 URL/f /\n", ["."], b""),
    "checksum-local": (f"FROM scratch\nADD --checksum=sha256:{'0' * 64} Dockerfile /\n", ["."], b""),
    "checksum-two": (f"FROM scratch\nADD --checksum=sha256:{'0' * 64} URL/f URL/f /x/\n", ["."], b""),
    "several-urls": ("FROM scratch\nADD URL/one /\nADD URL/two nothing /\n", ["."], b""),
    "git-missing": ("FROM scratch\nADD URL/nope.git /\n", ["."], b""),
    "git-bad-ref": ("FROM scratch\nADD URL/repo.git#mian /\n", ["."], b""),
    "git-short-commit": ("FROM scratch\nADD URL/repo.git#0123abc /\n", ["."], b""),
    "git-bad-folder": ("FROM scratch\nADD URL/repo.git#main:sup /\n", ["."], b""),
    "git-outside": ("FROM scratch\nADD URL/repo.git#main:../etc /\n", ["."], b""),
    "git-bad-query": ("FROM scratch\nADD URL/repo.git?branhc=dev /\n", ["."], b""),
    "git-two-refs": ("FROM scratch\nADD URL/repo.git?branch=dev&tag=v1 /\n", ["."], b""),
    "git-checksum": ("FROM scratch\nADD --checksum=0123456789 URL/repo.git#v1 /\n", ["."], b""),
    "url-sha512": (f"FROM scratch\nADD --checksum=sha512:{'0' * 128} URL/f /\n", ["."], b""),
    "url-credentials": ("FROM scratch\nADD URL/secret /\n", ["."], b""),
    "git-credentials": ("FROM scratch\nADD URL/secret.git /\n", ["."], b""),
    "git-bad-mtime": ("FROM scratch\nADD URL/repo.git?mtime=now /\n", ["."], b""),
    "git-by-short-commit": ("FROM scratch\nADD URL/repo.git?fetch-by-commit=1&checksum=abc /\n", ["."], b""),
    "token-of-two-lines": ("FROM scratch\nCOPY a /\n", [".", "--secret", "id=GIT_AUTH_TOKEN,src=Dockerfile"], b""),
    "context-not-tar": ("", ["Dockerfile"], b""),
    "context-cut-tar": ("", ["-"], tar({"f": os.urandom(9000)}, "w:gz")[:2000]),
    "context-tar-without-dockerfile": ("", ["-"], tar({"dockerfile.prod": b"", "f": b""})),
    "context-empty-stdin": ("", ["-"], b""),
    "context-and-dockerfile-stdin": ("", ["-f", "-", "-"], b""),
    "context-url-missing": ("", ["URL/nope.tar"], b""),
    "context-git-bad-ref": ("", ["URL/repo.git#nope"], b""),
    "layout-missing": ("FROM scratch\n", [".", "--build-context", "a=oci-layout://nowhere"], b""),
    "layout-empty": ("FROM scratch\n", [".", "--build-context", "a=oci-layout://."], b""),
    "epoch-word": ("ARG SOURCE_DATE_EPOCH=contxt\nFROM scratch\n", ["."], b""),
    "epoch-stage": ("FROM scratch AS src\nADD URL/f /\nLABEL a=b\n", [".", "--build-arg", "SOURCE_DATE_EPOCH=src"], b""),
    "bad-call": ("FROM scratch\n", [".", "--call=outlines"], b""),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_golden_error(bench: Bench, repository: Path, case: str, golden: Callable[[Path, str], None]) -> None:
    publish(bench.server, repository)
    bench.server.files["/f"] = b"content"
    for path in ("/secret", "/secret.git/info/refs?service=git-upload-pack"):
        bench.server.fail(path, Fault(401, {"WWW-Authenticate": "Basic realm=x"}), times=9)
    text, words, stdin = WRONG[case]
    context = bench.dockerfile(text.replace("URL", bench.server.url))
    os.chdir(context)
    shown = [word.replace("URL", bench.server.url) for word in words]
    status = bench.run("build", *shown, stdin=stdin)
    told = re.sub(r"(?m)^(GET|git) .*\n", "", bench.err)
    said = normal(f"$ aerogel build {' '.join(shown)}\n{told}exit status {status}\n", bench.folder)
    golden(GOLDEN / f"{case}.txt", said)
    check_form(said)
    assert bench.out == ""


def test_broken_transfer_is_continued(bench: Bench) -> None:
    data = os.urandom(300_000)
    bench.server.files["/f"] = data
    bench.server.fail("/f", Fault(cut_at=100_000))
    bench.build(bench.dockerfile(f"FROM scratch\nADD {bench.server.url}/f /f\n"))
    assert bench.files == {"f": data}
