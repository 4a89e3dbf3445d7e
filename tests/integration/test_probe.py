"""The probe: the same on every machine that it is made for, made again from its source, and in images."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import ROOT, Aerogel

from aerogel.distroless.probe import ARCHITECTURES, program

FOLDER = ROOT / "src/aerogel/distroless/data/probe"
EMULATORS = {"arm64": "aarch64", "armhf": "arm", "ppc64el": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}

pytestmark = pytest.mark.host("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64-static")

Probe = Callable[..., tuple[int, str]]


@pytest.fixture(params=ARCHITECTURES)
def probe(request: pytest.FixtureRequest, tmp_path: Path) -> Probe:
    path = tmp_path / "probe"
    path.write_bytes(program(request.param))
    path.chmod(0o755)
    emulator = () if request.param == "amd64" else (f"qemu-{EMULATORS[request.param]}-static",)
    if request.param == "amd64" and os.uname().machine != "x86_64":
        emulator = ("qemu-x86_64-static",)

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([*emulator, path, *words], capture_output=True, text=True, timeout=60)
        assert done.stdout.count("\n") + done.stderr.count("\n") == 1
        return done.returncode, (done.stdout + done.stderr).rstrip("\n")

    return run


class Server:
    """Answers each connection on a loopback address with the same bytes, in two pieces."""

    def __init__(self, answer: bytes, family: int = socket.AF_INET) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._socket = socket.socket(family)
        self._socket.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self._socket.listen(8)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # of a probe that has seen enough
                received = b""
                while not received.endswith(b"\r\n\r\n") and (piece := connection.recv(4096)):
                    received += piece
                self.requests.append(received)
                while not self._answer and connection.recv(4096):
                    pass
                connection.sendall(self._answer[:7])
                time.sleep(0.05)
                connection.sendall(self._answer[7:])

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(answer: bytes, family: int = socket.AF_INET) -> Server:
        servers.append(Server(answer, family))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_http(probe: Probe, serve: Callable[..., Server]) -> None:
    good = serve(b"HTTP/1.1 204 No Content\r\n\r\n")
    bad = serve(b"HTTP/1.0 503 Service Unavailable\r\n\r\nbody")
    at = f"127.0.0.1:{good.port}"
    assert probe("http", f"{at}/health?a=b") == (0, "status 204")
    assert good.requests[-1] == (
        b"GET /health?a=b HTTP/1.1\r\nConnection: close\r\nUser-Agent: aerogel-probe\r\nHost: "
        + at.encode()
        + b"\r\n\r\n"
    )
    assert probe("http", f"http://localhost:{good.port}", "--header", "Host: a", "--header=X-Y: z")[0] == 0
    assert good.requests[-1].startswith(b"GET / HTTP/1.1\r\n")
    assert good.requests[-1].endswith(b"\r\nHost: a\r\nX-Y: z\r\n\r\n")
    assert probe("http", at, "--status", "200-203,205") == (1, f"status 204 of {at}")
    assert probe("--status=500-599", "http", f"127.0.0.1:{bad.port}/") == (0, "status 503")
    assert probe("http", f"127.0.0.1:{bad.port}/") == (1, f"status 503 of 127.0.0.1:{bad.port}/")


def test_what_is_no_http_server(probe: Probe, serve: Callable[..., Server]) -> None:
    other, slow = serve(b"SSH-2.0-OpenSSH_9.2p1\r\n"), serve(b"")
    code, said = probe("http", f"127.0.0.1:{other.port}/")
    assert (code, said) == (1, f"what answers at this address does not speak HTTP: 127.0.0.1:{other.port}/")
    assert probe("http", f"127.0.0.1:{slow.port}/", "--timeout", "1") == (
        1,
        f"no answer from 127.0.0.1:{slow.port}/: timed out",
    )


def test_tcp(probe: Probe, serve: Callable[..., Server]) -> None:
    four, six = serve(b"x"), serve(b"x", socket.AF_INET6)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert probe("tcp", f"127.0.0.1:{port}") == (1, f"no connection to 127.0.0.1:{port}: connection refused")
    assert probe("tcp", f"localhost:{four.port}") == (0, f"connected to localhost:{four.port}")
    for address in ("[::1]", "[0:0:0:0:0:0:0:1]", "[0::0.0.0.1]", "localhost"):
        assert probe("tcp", f"{address}:{six.port}")[0] == 0, address
    assert probe("tcp", f"[::ffff:127.0.0.1]:{four.port}")[0] == 0


def test_file(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert probe("file", str(path)) == (1, f"no file {path}: it is not there")
    path.touch()
    assert probe("file", str(path), "--max-age", "3000") == (0, f"{path} is there")
    now = time.time()
    os.utime(path, (now, now - 100))
    code, said = probe("file", str(path), "--max-age", "90")
    assert code == 1
    assert re.fullmatch(rf"{path} is (\d+) s old", said)
    assert probe("file", str(path)) == (0, f"{path} is there")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "what to check is missing"),
        (("ftp", "a"), "nothing to check is `ftp`"),
        (("http",), "an address is missing"),
        (("file",), "a path is missing"),
        (("http", "db:80/"), "names are not looked up: write an address or `localhost`, not `db:80/`"),
        (("tcp", "127.0.0.1"), "no port from 1 to 65535 is in `127.0.0.1`"),
        (("tcp", "127.0.0.1:65536"), "no port from 1 to 65535"),
        (("tcp", "127.0.0.256:1"), "names are not looked up"),
        (("tcp", "[::1::]:1"), "no address is `[::1::]:1`"),
        (("tcp", "[1:2:3:4:5:6:7]:1"), "no address is"),
        (("tcp", "127.0.0.1:1x"), "more than an address and a port is"),
        (("http", "127.0.0.1:1/a b"), "a blank or control character is in `/a b`"),
        (("http", "127.0.0.1:1/", "--header", "a\r\nb: c"), "no header is `a??b: c`"),
        (("http", "127.0.0.1:1/", "--status", "99"), "no statuses are `99`"),
        (("http", "127.0.0.1:1/", "--status", "300-200"), "no statuses are"),
        (("http", "127.0.0.1:1/", "--timeout", "0"), "no number of seconds is `0`"),
        (("http", "127.0.0.1:1/", "--timeout"), "a value is missing behind `--timeout`"),
        (("http", "127.0.0.1:1/" + "a" * 9000), "the request is too long"),
        (("tcp", "127.0.0.1:1", "--status", "200"), "`--status` and `--header` are for http"),
        (("tcp", "127.0.0.1:1", "x"), "one word too many is `x`"),
        (("tcp", "127.0.0.1:1", "--what=x"), "no option is `--what=x`"),
    ],
)
@pytest.mark.parametrize("probe", ["amd64", "s390x"], indirect=True)
def test_wrong_words(probe: Probe, words: tuple[str, ...], what: str) -> None:
    code, said = probe(*words)
    assert code == 2
    assert said.startswith(f"aerogel-probe: {what}")


@pytest.mark.parametrize("arch", COMPILERS)
def test_it_is_made_of_its_source(tmp_path: Path, arch: str) -> None:
    version = subprocess.run([COMPILERS[arch], "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    if version.strip() != "12.2.0":
        pytest.skip(f"{COMPILERS[arch]} is {version.strip()}, and the programs were made by 12.2.0 of Debian 12")
    for name in ("probe.c", "build.sh"):
        shutil.copy(FOLDER / name, tmp_path)
    subprocess.run(["sh", "build.sh", "out", arch], cwd=tmp_path, check=True)
    assert (tmp_path / f"out/aerogel-probe-{arch}").read_bytes() == program(arch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_is_small_and_needs_nothing(tmp_path: Path, arch: str) -> None:
    path = tmp_path / "probe"
    path.write_bytes(program(arch))
    assert path.stat().st_size < 10_000
    shown = subprocess.run(["readelf", "-lhW", path], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in shown
    assert "DYNAMIC" not in shown
    assert re.search(r"GNU_STACK.* RW +0x", shown)
    assert " RWE " not in shown


@pytest.mark.network
def test_in_images(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM gcr.io/distroless/python3\n"
        "COPY --from=aerogel/probe /aerogel-probe /\n"
        'HEALTHCHECK --interval=1s CMD ["/aerogel-probe", "http", "127.0.0.1:8089/", "--header", "Host: x"]\n'
        'CMD ["-m", "http.server", "8089", "--bind", "127.0.0.1"]\n'
    )
    said = aerogel("build", "--progress=plain", "-t", "probed", str(tmp_path)).stderr
    assert "warning" not in said
    aerogel("run", "-d", "--network", "none", "--name", "probed", "probed")
    try:
        until = time.monotonic() + 60
        while "(healthy)" not in (listed := aerogel("ps").stdout):
            assert time.monotonic() < until, listed
            time.sleep(0.2)
    finally:
        aerogel("rm", "-f", "probed")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY --from=aerogel/probe / /\n")
    for platform, arch in (("linux/s390x", "s390x"), ("linux/arm/v7", "armhf")):
        out = tmp_path / arch
        aerogel("build", "-q", "--platform", platform, "-o", str(out), str(tmp_path))
        assert (out / "aerogel-probe").read_bytes() == program(arch)
        assert (out / "aerogel-probe").stat().st_mode & 0o777 == 0o755
    failed = aerogel("build", "-q", "--platform", "linux/386", str(tmp_path), check=False)
    assert failed.returncode == 2
    assert "the probe is not made for `i386`" in failed.stderr
