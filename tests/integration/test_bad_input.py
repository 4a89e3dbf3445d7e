"""Golden errors of bad input that only shows with a sandbox, a full disk, missing rights or a mirror.

The cases lie in `golden/errors` beside those of `golden/test_golden_errors.py`; the set-up that git cannot hold is
made here. Debian packages: busybox-static, util-linux (setpriv).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from bad_input import ERRORS, cases, check_form, copy_case, images, leftovers, transcript
from debian_repo import Repo, Signer
from fault_server import Fault, FaultServer, serve
from process import Aerogel

from aerogel.debian.mirror import discover
from aerogel.store.store import Store

pytestmark = pytest.mark.host

Golden = Callable[[Path, str], None]
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system, or takes rights from root")
BUSYBOX = shutil.which("busybox")


class Case:
    """One case: its context, its store, and what happened."""

    def __init__(self, name: str, folder: Path, golden: Golden, state: Path | None = None) -> None:
        self.name = name
        self.folder = folder
        self.golden = golden
        self.context = folder / "context"
        self.words = copy_case(name, self.context)
        self.aerogel = Aerogel(state or folder / "state")
        for variable in ("SOURCE_DATE_EPOCH", "NO_COLOR"):
            self.aerogel.env.pop(variable, None)
        self.aerogel.env |= {"AEROGEL_PROGRESS": "plain", "XDG_CONFIG_HOME": str(folder)}
        if "busybox" in (self.context / "Dockerfile").read_text():
            assert BUSYBOX is not None, "busybox-static is not installed"
            shutil.copy(BUSYBOX, self.context / "busybox")

    def fails(self, *prefix: str, stored: bool = True, change: Callable[[str], str] = str, **env: str) -> str:
        """Runs the command, compares what is seen, and checks that the store is as it was; standard error."""
        argv = [*prefix, *self.aerogel.argv(*self.words)]
        done = subprocess.run(
            argv,
            cwd=self.context,
            env={**self.aerogel.env, **env},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        text = change(transcript(self.words, done.stderr, done.returncode, self.context, self.folder))
        check_form(text)
        self.golden(ERRORS / self.name / "expected", text)
        assert done.stdout == ""
        if stored:
            assert images(self.aerogel.state) == []
            assert leftovers(self.aerogel.state) == []
        return done.stderr

    def works(self) -> None:
        """The next build with the same store succeeds and leaves nothing behind."""
        good = self.folder / "good"
        good.mkdir()
        (good / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        self.aerogel("build", str(good))
        assert len(images(self.aerogel.state)) == 1
        assert leftovers(self.aerogel.state) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the cases of RUN: it stays empty of images, and what was copied is not copied again."""
    return tmp_path_factory.mktemp("shared") / "state"


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, golden: Golden) -> Case:
    """The case that the test is about: its parameter, else the name of the test function."""
    name = getattr(request, "param", None) or request.node.name.removeprefix("test_").replace("_", "-")
    if name.startswith("host-"):
        return Case(name, tmp_path, golden, request.getfixturevalue("shared"))
    prefix = "network-" if request.node.get_closest_marker("network") else "setup-"
    return Case(prefix + name, tmp_path, golden)


@pytest.mark.parametrize("case", cases("host-"), indirect=True)
def test_run(case: Case) -> None:
    case.fails()


# The context.


@pytest.mark.parametrize("case", ["socket"], indirect=True)
def test_socket(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.context)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("agent.sock")
        case.fails()


def test_special_files_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with BuildKit: a pipe is copied as a pipe and never read, a socket is left out."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("srv")
    os.mkfifo("srv/pipe")
    Path("Dockerfile").write_text("FROM scratch\nCOPY srv /srv\n")
    aerogel = Aerogel(tmp_path / "state")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("srv/agent.sock")
        layers = aerogel.json("build", str(tmp_path))["layers"]
    with (
        Store.open(aerogel.state / "data", aerogel.state / "cache") as store,
        store.blobs.open(layers[0]["digest"]) as layer,
    ):
        with tarfile.open(fileobj=layer, mode="r:gz") as tar:
            names = {member.name: member.isfifo() for member in tar}
    assert names == {"srv": False, "srv/pipe": True}


def closed(path: Path, *, folder: bool = False) -> list[str]:
    """Makes a file or folder that aerogel may not read, and gives the prefix of a command without the right to."""
    if folder:
        path.mkdir(exist_ok=True)
    elif not path.exists():
        path.write_text("secret\n")
    path.chmod(0o500 if folder and path.name == "state" else 0)
    if os.getuid() != 0:
        return []
    os.chown(path, 1, 1)
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]


def test_unreadable_file(case: Case) -> None:
    case.fails(*closed(case.context / "secrets" / "closed"))


def test_unreadable_folder(case: Case) -> None:
    case.fails(*closed(case.context / "closed", folder=True))


def test_unreadable_dockerfile(case: Case) -> None:
    case.fails(*closed(case.context / "Dockerfile"))


def test_unreadable_ignore_file(case: Case) -> None:
    case.fails(*closed(case.context / ".dockerignore"))


def test_output_denied(case: Case) -> None:
    case.fails(*closed(case.context / "closed", folder=True))


# The state folder.


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@ROOT_ONLY
def test_state_read_only(case: Case) -> None:
    with tmpfs(case.aerogel.state, "ro,size=1m"):
        case.fails(stored=False)


def test_state_denied(case: Case) -> None:
    case.fails(*closed(case.aerogel.state, folder=True), stored=False)


def test_state_below_file(case: Case) -> None:
    case.aerogel.state.write_text("not a folder")
    case.fails(stored=False)


# A full disk.


def stable(text: str) -> str:
    """How much is free differs by a block or two."""
    return "\n".join(
        line.rpartition(": ")[0] + ": <size> free" if line.endswith(" free") else line for line in text.split("\n")
    )


@ROOT_ONLY
@pytest.mark.parametrize("case", ["disk-full-run", "disk-full-run-layer", "disk-full-copy"], indirect=True)
def test_disk_full(case: Case) -> None:
    if case.name.endswith("copy"):
        (case.context / "big").write_bytes(os.urandom(24 << 20))
    with tmpfs(case.aerogel.state, "size=16m"):
        case.fails(change=stable)
        case.works()


@ROOT_ONLY
def test_disk_full_output(case: Case) -> None:
    (case.context / "big").write_bytes(os.urandom(4 << 20))
    with tmpfs(case.context / "full", "size=1m"):
        case.fails(stored=False, change=stable)
        assert os.listdir(case.context / "full") == []
    assert leftovers(case.aerogel.state) == []


@ROOT_ONLY
@pytest.mark.network
def test_disk_full_compose(case: Case) -> None:
    with tmpfs(case.aerogel.state, "size=24m"):
        case.fails(change=stable)
        case.works()


# Rights.


@ROOT_ONLY
def test_no_namespaces(case: Case) -> None:
    hidden = 'mount --bind /dev/null /usr/bin/proot 2>/dev/null; exec "$@"'
    drop = ("setpriv", "--bounding-set", "-sys_admin,-setuid,-setgid,-setfcap")
    case.fails("unshare", "--mount", "sh", "-c", hidden, "sh", *drop)
    case.works()


@ROOT_ONLY
def test_no_newuidmap(case: Case) -> None:
    (case.folder / "ranges").write_text("root:100000:65536\n")
    hide = 'for each in /etc/subuid /etc/subgid; do mount --bind "$1" $each; done; shift; '
    hide += 'for each in newuidmap newgidmap; do mount --bind /dev/null /usr/bin/$each; done; exec "$@"'
    case.fails("unshare", "--mount", "sh", "-ec", hide, "sh", str(case.folder / "ranges"))
    case.works()


@ROOT_ONLY
@pytest.mark.host("slirp4netns")
@pytest.mark.skipif(not os.path.isdir("/dev/net"), reason="this host has no /dev/net to hide")
def test_no_tun(case: Case) -> None:
    case.fails("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs /dev/net; exec "$@"', "sh")
    case.works()


@ROOT_ONLY
@pytest.mark.parametrize("words", [["build", "."], ["run", "debian", "true"]])
def test_a_host_without_isolation_says_so_before_anything_is_fetched(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM gcr.io/distroless/cc AS base\nFROM debian\nRUN true\n")
    aerogel = Aerogel(tmp_path / "state")
    env = {**aerogel.env, **mirror("http://127.0.0.1:9"), "AEROGEL_ISOLATION": "root"}
    drop = ["setpriv", "--bounding-set", "-sys_admin"]
    done = subprocess.run([*drop, *aerogel.argv(*words)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "error: isolation `root` does not work here\n" in done.stderr
    assert "InRelease" not in done.stderr


# The mirror.


def mirror(url: str) -> dict[str, str]:
    return {"AEROGEL_DEBIAN_MIRROR": f"{url}/debian", "AEROGEL_DEBIAN_SECURITY_MIRROR": f"{url}/debian-security"}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve() as made:
        yield made


def test_mirror_down(case: Case) -> None:
    case.fails(**mirror("http://127.0.0.1:9"))
    case.works()


def test_mirror_unknown_host(case: Case) -> None:
    case.fails(**mirror("http://mirror.invalid"))


def test_mirror_empty(case: Case, server: FaultServer) -> None:
    case.fails(**mirror(server.url))


def test_mirror_broken(case: Case, server: FaultServer) -> None:
    server.fail("/debian/dists/trixie/InRelease", Fault(status=503), times=50)
    case.fails(**mirror(server.url))


def archive() -> Repo:
    repo = Repo(Signer())
    repo.fields = {"Suite": "stable", "Codename": "trixie"}
    repo.put("trixie", {"Package": "base-files", "Version": "13.8"})
    return repo


def test_mirror_unsigned(case: Case, server: FaultServer) -> None:
    repo = archive()
    server.files.update(repo.publish("trixie"))
    server.files["/debian/dists/trixie/InRelease"] = repo.release("trixie")[0]
    case.fails(**mirror(server.url))


def test_mirror_other_key(case: Case, server: FaultServer) -> None:
    server.files.update(archive().publish("trixie"))
    case.fails(**mirror(server.url))


class Lying(dict[str, bytes]):
    """The host's mirror, except that every package has one bit that is another."""

    def __init__(self) -> None:
        super().__init__()
        self.sources = discover()

    def get(self, path: str, default: Any = None) -> Any:
        _, root, rest = path.split("/", 2)
        place = (self.sources.security if root.endswith("security") else self.sources.archive)[0]
        try:
            with urlopen(f"{place.uri}/{rest}", timeout=60) as answer:
                data = answer.read()
        except HTTPError:
            return default
        return data[:-1] + bytes([data[-1] ^ 1]) if path.endswith(".deb") else data


@pytest.mark.network
def test_mirror_lies(case: Case, server: FaultServer) -> None:
    server.files = Lying()
    case.fails(change=first_package, **mirror(server.url))


def first_package(text: str) -> str:
    """Which package is fetched first, and what is wrong in it, is another one every month."""
    text = re.sub(r"`[^`]+\.deb`", "`<package>`", re.sub(r"/pool/\S+", "/pool/<package>", text))
    return re.sub(r"\b[0-9]+ bytes", "<size> bytes", text)
