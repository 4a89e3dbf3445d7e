"""Base images composed from the packages of the host's mirror: what they hold, how big they are, that they run.

The checks are those of GoogleContainerTools/distroless (see the notes' section on its structure tests).
"""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aerogel.debian.archive import Archive
from aerogel.debian.mirror import discover
from aerogel.distroless.base import ComposedBase, compose_base, select
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.made import FOLDER as MADE
from aerogel.distroless.unpacked import FOLDER
from aerogel.events import NullSink
from aerogel.files.codec import LayerWriter
from aerogel.files.index import build_index
from aerogel.net.http import Http
from aerogel.oci.platform import Platform
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Mount, Rootfs, Sandbox

pytestmark = pytest.mark.network

AMD64 = Platform.parse("linux/amd64")
DRIVER = Path(__file__).parent / "buildroot_driver.py"


class Image:
    """A composed image with its layer in memory."""

    def __init__(self, composed: ComposedBase, data: bytes) -> None:
        self.composed = composed
        self.data = data
        self.tar = tarfile.TarFile(fileobj=io.BytesIO(data))
        self.members = {member.name: member for member in self.tar.getmembers()}

    def text(self, path: str) -> str:
        member = self.members[path.lstrip("/")]
        while member.issym():
            target = os.path.join(os.path.dirname(member.name), member.linkname)
            member = self.members[os.path.normpath(target).lstrip("/")]
        file = self.tar.extractfile(member)
        assert file is not None
        return file.read().decode()

    @property
    def content_size(self) -> int:
        return sum(member.size for member in self.members.values() if member.isfile())


class Recorder(LayerWriter):
    """Keeps the plain tar beside hashing it."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.pieces: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))
        super().write(data)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def archive(cache: Path) -> Archive:
    return Archive(discover(), cache, Http())


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    with Helper.start(str(tmp_path_factory.mktemp("state"))) as helper:
        yield helper


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    return lambda: str(tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def image(archive: Archive, cache: Path, helper: Helper, scratch: Callable[[], str]) -> Callable[..., Image]:
    known: dict[tuple[str, str], Image] = {}

    def make(name: str, platform: Platform = AMD64) -> Image:
        key = (name, str(platform))
        if key not in known:
            with Recorder() as writer:
                composed = compose_base(
                    select(lookup(name), platform, archive),
                    archive,
                    writer,
                    cache=cache,
                    helper_factory=(lambda: helper) if "python3" in name else refuse,
                    scratch=scratch,
                    sink=NullSink(),
                )
            known[key] = Image(composed, b"".join(writer.pieces))
        return known[key]

    return make


def refuse() -> Any:
    raise AssertionError("a distroless image needs no sandbox")


PASSWD = (
    "root:x:0:0:root:/root:/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
    "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
)
GROUP = "root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n"
PATHS = [
    "tmp",
    "etc/passwd",
    "etc/group",
    "etc/os-release",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/share/doc/ca-certificates/copyright",
    "etc/services",
    "etc/mime.types",
    "etc/nsswitch.conf",
    "usr/share/doc/tzdata/copyright",
    "usr/share/zoneinfo/Europe/Berlin",
    "root",
    "home/nonroot",
    "var/lib/dpkg/status.d/base-files",
    "var/lib/dpkg/status.d/base-files.md5sums",
]
FAMILY = ("static", "base-nossl", "base", "cc", "python3")
LIMITS_MB = {"static": 1.4, "base-nossl": 6.5, "base": 15.0, "cc": 18.0, "python3": 55.0}


@pytest.mark.parametrize("release", ["12", "13"])
@pytest.mark.parametrize("name", FAMILY)
def test_contents(image: Callable[..., Image], name: str, release: str) -> None:
    found = image(f"gcr.io/distroless/{name}-debian{release}")
    assert [path for path in PATHS if path not in found.members] == []
    assert found.text("/etc/passwd") == PASSWD
    assert found.text("/etc/group") == GROUP
    suite = {"12": "bookworm", "13": "trixie"}[release]
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        text = found.text(path)
        assert 'PRETTY_NAME="Distroless"' in text
        assert f'VERSION="Debian GNU/Linux {release} ({suite})"' in text
    assert found.members["tmp"].mode == 0o1777
    home = found.members["home/nonroot"]
    assert (home.mode, home.uid, home.gid) == (0o700, 65532, 65532)
    assert found.members["lib"].linkname == "usr/lib"
    assert found.text("/etc/ssl/certs/ca-certificates.crt").count("BEGIN CERTIFICATE") > 100
    packages = [path for path in found.members if path.startswith("var/lib/dpkg/status.d/")]
    assert f"{len([p for p in packages if not p.endswith('.md5sums')])} packages" in found.composed.summary
    assert not any(path.endswith((".so.0", "/sh", "/bash")) and "busybox" in path for path in found.members)
    assert "usr/bin/sh" not in found.members
    assert found.content_size <= LIMITS_MB[name] * 1e6


@pytest.mark.parametrize("name", FAMILY)
def test_config(image: Callable[..., Image], name: str) -> None:
    composed = image(f"gcr.io/distroless/{name}").composed
    config = composed.config
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    env.append("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    assert list(config.config.env[:2]) == env
    assert config.rootfs.diff_ids == (composed.blob.diff_id,)
    assert (config.os, config.architecture) == ("linux", "amd64")
    if name == "python3":
        assert config.config.entrypoint == ("/usr/bin/python3.13",)
        assert config.config.env[2:] == ("LANG=C.UTF-8",)


def test_packages_that_are_left_out(image: Callable[..., Image]) -> None:
    members = image("gcr.io/distroless/python3").members
    for name in ("libnsl2", "libkrb5-3", "libtirpc3t64", "debconf", "openssl", "perl-base", "readline-common"):
        assert f"var/lib/dpkg/status.d/{name}" not in members


def test_partial_packages_say_so_and_their_sums_are_right(image: Callable[..., Image]) -> None:
    import hashlib

    found = image("gcr.io/distroless/cc-debian12")
    record = found.text("/var/lib/dpkg/status.d/libc6")
    assert record.startswith("Package: libc6\n")
    assert "\nX-Aerogel-Files: partial\nX-Aerogel-Rules: docs, gconv" in record
    lines = found.text("/var/lib/dpkg/status.d/libc6.md5sums").splitlines()
    assert len(lines) > 20
    for line in lines:
        digest, _, path = line.partition("  ")
        place = f"usr/{path}" if path.startswith("lib") else path
        file = found.tar.extractfile(found.members[place])
        assert file is not None
        assert hashlib.md5(file.read()).hexdigest() == digest


def test_the_index_describes_the_layer(image: Callable[..., Image]) -> None:
    found = image("gcr.io/distroless/cc")
    scanned = build_index(io.BytesIO(found.data))
    assert scanned.entries == found.composed.index.entries
    assert scanned.small == found.composed.index.small


COMPOSE = """
import os, sys, tempfile
os.umask(int(sys.argv[3], 8))
from pathlib import Path
from aerogel.debian.archive import Archive
from aerogel.debian.mirror import discover
from aerogel.distroless.base import compose_base, select
from aerogel.distroless.catalogue import lookup
from aerogel.events import NullSink
from aerogel.files.codec import LayerWriter
from aerogel.net.http import Http
from aerogel.oci.platform import Platform
from aerogel.sandbox.launch import Helper
cache = Path(sys.argv[1])
archive = Archive(discover(), cache, Http())
with Helper.start(sys.argv[4]) as helper, LayerWriter(None, None) as writer:
    made = compose_base(select(lookup(sys.argv[2]), Platform.parse("linux/amd64"), archive), archive, writer,
                        cache=cache, helper_factory=lambda: helper, scratch=lambda: tempfile.mkdtemp(dir=sys.argv[4]),
                        sink=NullSink())
print(made.blob.diff_id)
"""


@pytest.mark.parametrize("name", ["static", "python3-debian12:debug"])
def test_determinism(image: Callable[..., Image], cache: Path, scratch: Callable[[], str], name: str) -> None:
    name = f"gcr.io/distroless/{name}"
    expected = image(name).composed.blob.diff_id
    for seed, zone, locale, umask in (("1", "Asia/Tokyo", "C", "077"), ("2", "UTC", "tr_TR.UTF-8", "000")):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PYTHONPATH": ":".join(sys.path)}
        argv = [sys.executable, "-c", COMPOSE, str(cache), name, umask, scratch()]
        shutil.rmtree(cache / MADE, ignore_errors=True)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, cwd="/")
        assert done.stdout.strip() == expected


ANYBODY = """
import os, sys
os.umask(int(sys.argv[3], 8))
from pathlib import Path
import aerogel.distroless.unpacked as unpacked
from aerogel.debian.archive import Archive
from aerogel.debian.mirror import discover
from aerogel.distroless.base import compose_base, select
from aerogel.distroless.catalogue import lookup
from aerogel.events import NullSink
from aerogel.files.codec import LayerWriter
from aerogel.net.http import Http
from aerogel.oci.platform import Platform
cache, jobs, user = Path(sys.argv[1]), int(sys.argv[5]), int(sys.argv[6])
unpacked._THREADS = jobs

def composed():
    archive = Archive(discover(), cache, Http(), jobs=jobs)
    with LayerWriter(None, None) as writer:
        made = compose_base(select(lookup(sys.argv[2]), Platform.parse(sys.argv[4]), archive), archive, writer,
                            cache=cache, helper_factory=None, scratch=None, sink=NullSink())
    return made.blob.diff_id

if user:
    composed()  # what is imported on the way may be root's alone
    for folder, _, files in os.walk(cache):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, user, user)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
print(composed(), os.getuid())
"""


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
@pytest.mark.parametrize("name", ["static", "cc-debian12:debug"])
def test_any_user_any_platform(image: Callable[..., Image], cache: Path, name: str, platform: str) -> None:
    """Other hash seed, time zone, locale, umask, user, folder and number of jobs: the same bytes."""
    name = f"gcr.io/distroless/{name}"
    expected = image(name, Platform.parse(platform)).composed.blob.diff_id
    others = (("1", "Asia/Tokyo", "C", "077", "1"), ("2", "UTC", "tr_TR.UTF-8", "000", "7"))
    for number, (seed, zone, locale, umask, jobs) in enumerate(others):
        # As somebody else with a cache of their own, when that can be.
        user = 65534 if number and os.getuid() == 0 else 0
        own = Path(tempfile.mkdtemp(prefix="aerogel-test-", dir="/var/tmp")) if user else cache
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PYTHONPATH": ":".join(sys.path)}
        argv = [sys.executable, "-c", ANYBODY, str(own), name, umask, platform, jobs, str(user)]
        try:
            if own != cache:
                subprocess.run(["cp", "-r", f"{cache}/.", str(own)], check=True)
            done = subprocess.run(argv, env=env, capture_output=True, text=True, cwd="/")
        finally:
            if own != cache:
                shutil.rmtree(own)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [expected, str(user or os.getuid())]


UPSTREAM_PYTHON = """
base-files netbase tzdata tzdata-legacy media-types ca-certificates libc6 libssl3t64 libzstd1 zlib1g libgomp1 libstdc++6
libgcc-s1 gcc-14-base libbz2-1.0 libdb5.3t64 libexpat1 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6
libcom-err2 libcrypt1 libc-bin libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libnsl2
libreadline8t64 libtirpc3t64 libffi8 libpython3.13-minimal libpython3.13-stdlib python3.13-minimal python3.13-venv
"""


UPSTREAM_JAVA_BASE = (
    "base-files ca-certificates fontconfig-config fonts-dejavu-core gcc-14-base libbrotli1 libbz2-1.0 libc-bin libc6 "
    "libcrypt1 libexpat1 libfontconfig1 libfreetype6 libgcc-s1 libjpeg62-turbo liblcms2-2 libpng16-16t64 libstdc++6 "
    "libuuid1 media-types netbase tzdata tzdata-legacy zlib1g"
)


@pytest.mark.parametrize(("name", "expected"), [("python3", UPSTREAM_PYTHON), ("java-base", UPSTREAM_JAVA_BASE)])
def test_parity_is_upstreams_list(archive: Archive, name: str, expected: str) -> None:
    """GoogleContainerTools/distroless at cd080764: on Debian 13, with what it is based on."""
    recipe = lookup(f"aerogel/{name}:parity")
    chosen = select(recipe, AMD64, archive)
    assert {package.name for package in chosen.packages} == set(expected.split())
    assert recipe.slices == {}


def test_a_damaged_cache_is_made_anew(image: Callable[..., Image], archive: Archive, cache: Path) -> None:
    name = "gcr.io/distroless/base-nossl"
    expected = image(name).composed.blob.diff_id
    files = sorted((cache / FOLDER).iterdir())
    for number, path in enumerate(files):
        if path.suffix == ".data" and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data if number % 3 else data[:-1])
        elif number % 5 == 0:
            path.write_bytes(b"nonsense")
    with LayerWriter(None, None) as writer:
        made = compose_base(
            select(lookup(name), AMD64, archive),
            archive,
            writer,
            cache=cache,
            helper_factory=refuse,
            scratch=refuse,
            sink=NullSink(),
        )
    assert made.blob.diff_id == expected


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/riscv64", "linux/s390x"])
def test_other_architectures(
    archive: Archive, cache: Path, helper: Helper, scratch: Callable[[], str], platform: str
) -> None:
    """The loader's cache names the libraries of that architecture in its byte order.

    Of most ports the mirrors' updates are out of step with their signatures for days, so the release alone is used.
    """
    recipe = lookup("gcr.io/distroless/python3")
    chosen = select(recipe, Platform.parse(platform), archive, using=["trixie"])
    with Recorder() as writer:
        composed = compose_base(
            chosen, archive, writer, cache=cache, helper_factory=lambda: helper, scratch=scratch, sink=NullSink()
        )
    found = Image(composed, b"".join(writer.pieces))
    file = found.tar.extractfile("etc/ld.so.cache")
    assert file is not None
    data = file.read()
    assert data[28] == (3 if platform == "linux/s390x" else 2)
    assert int.from_bytes(data[20:24], "big" if platform == "linux/s390x" else "little") > 30
    assert b"linux-gnu" in data
    assert found.content_size <= 65e6


PYTHON_PROGRAM = """
import bz2, ctypes, ctypes.util, curses, dbm.ndbm, locale, lzma, os, pwd, readline, sqlite3, ssl, uuid, zoneinfo
print(len(ssl.create_default_context().get_ca_certs()))
del os.environ["SSL_CERT_FILE"]
print(len(ssl.create_default_context().get_ca_certs()))
print(sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0], zoneinfo.ZoneInfo("Europe/Berlin"))
print(ctypes.util.find_library("ssl"), ctypes.CDLL("libstdc++.so.6") is not None, pwd.getpwuid(os.getuid()).pw_name)
print(locale.setlocale(locale.LC_ALL, ""), "\\u20ac".encode("cp1252"))
try:
    import subprocess
    subprocess.run("true", shell=True)
except FileNotFoundError as error:
    print("no shell")
"""


@pytest.mark.host
@pytest.mark.parametrize("name", ["python3", "python3-debian12"])
def test_python_runs(image: Callable[..., Image], tmp_path: Path, name: str) -> None:
    found = image(f"gcr.io/distroless/{name}:nonroot")
    config = found.composed.config.config
    lower = tmp_path / "lower"
    lower.mkdir()
    layer = tmp_path / "layer.tar"
    layer.write_bytes(found.data)
    tmp_path.chmod(0o755)
    with Helper.start(str(tmp_path / "state")) as helper:
        with layer.open("rb") as file, (tmp_path / "out").open("w+b") as out:
            helper.call("extract", {"path": str(lower), "overlay": helper.rung.overlay}, [file.fileno()])
            sandbox = Sandbox(
                argv=(*config.entrypoint, "/program.py"),
                root=Rootfs(lowers=(str(lower),)),
                env=tuple((name, value) for name, _, value in (each.partition("=") for each in config.env)),
                user=config.user,
                cwd=config.working_dir,
                mounts=(Mount(kind="file", target="/program.py", data=PYTHON_PROGRAM.encode()),),
                network="none",
            )
            result = helper.run(sandbox, stdout=out.fileno(), stderr=out.fileno()).wait()
            out.seek(0)
            lines = out.read().decode().splitlines()
        helper.call("remove", {"path": str(lower)})
    assert result.code == 0, lines
    assert int(lines[0]) > 100
    assert lines[1] == lines[0]
    assert lines[2:] == ["42 Europe/Berlin", "libssl.so.3 True nonroot", "C.UTF-8 b'\\x80'", "no shell"]


def build_root(cache: Path, state: Path, name: str, package: str = "-", account: str = "", **env: str) -> Any:
    """Runs the driver as root or as an account, which may not be able to use this interpreter."""
    python = sys.executable
    argv = [python, str(DRIVER), "subid" if account else "root", str(state), str(cache), name, package]
    if account:
        entry = pwd.getpwnam(account)
        prefix = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups"]
        # setpriv itself still has root's capabilities when it looks for the program: the shell between has not.
        tried = (python, f"/usr/bin/python3.{sys.version_info.minor}")
        works = (
            each
            for each in tried
            if subprocess.run([*prefix, "sh", "-c", f"exec {each} -c ''"], capture_output=True).returncode == 0
        )
        argv[0] = next(works, "")
        if not argv[0]:
            pytest.skip(f"the account `{account}` can run none of {', '.join(tried)}")
        argv = [*prefix, *argv]
    path = ":".join([str(Path(__file__).parents[2] / "src"), sysconfig.get_paths()["purelib"]])
    done = subprocess.run(
        argv,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def account() -> Iterator[str]:
    """An ordinary user with subordinate ids, of this process only: runs of the tests may go on side by side."""
    if os.getuid() != 0:
        pytest.skip("needs root, to try both kinds of isolation")
    name = f"aerogel-{os.getpid()}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize("name", ["debian", "debian:bookworm-slim"])
def test_build_root(tmp_path: Path, cache: Path, account: str, name: str) -> None:
    """Root and an ordinary user get the same bytes, and apt works for both with its own unprivileged user."""
    as_root = build_root(cache, tmp_path / "state", name, "hello", TZ="Asia/Tokyo", PYTHONHASHSEED="3", LC_ALL="C")
    folder = Path(pwd.getpwnam(account).pw_dir) / "build-root"
    folder.mkdir()
    subprocess.run(["cp", "-r", str(cache), str(folder / "cache")], check=True)
    subprocess.run(["chown", "-R", account, str(folder)], check=True)
    as_user = build_root(folder / "cache", folder / "state", name, "hello", account)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert (as_root["rung"], as_user["rung"]) == ("root", "subid")
    assert as_root["diff_id"] == as_user["diff_id"]
    for report in (as_root, as_user):
        assert report["code"] == 0, report["output"]
        assert "Setting up hello" in report["output"]
        assert "unsandboxed" not in report["output"]
        assert "CHANGED" not in report["output"]
        assert report["left"] == []
    paths = set(as_root["paths"])
    assert {"proc", "sys", "dev", "run", "tmp", "etc/shadow", "usr/bin/apt-get", "usr/sbin/useradd"} <= paths
    assert {"var/lib/dpkg/status", "etc/apt/sources.list.d/debian.sources", "etc/apt/mirrors/debian.list"} <= paths
    for path in ("etc/resolv.conf", "etc/hostname", "var/log/dpkg.log", "usr/sbin/policy-rc.d", "aerogel-packages"):
        assert path not in paths
    assert not any(path.endswith(("-old", "/aux-cache", ".deb")) for path in paths)
    assert any(path.startswith("usr/share/man/") for path in paths) == ("slim" not in name)
