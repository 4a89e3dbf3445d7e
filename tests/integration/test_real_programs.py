"""Real programs on the bases: C, Go with and without C, all of Python's library, wheels with machine code, a web server.

They are built by multi-stage Dockerfiles on the bases for building, or are fetched by a declaration. Sources are in
tests/programs; more of them are in test_runtimes.py (Java, Node.js, .NET, C++) and test_https_programs.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import ROOT, Aerogel

from aerogel.distroless.rules import MICRO

pytestmark = [pytest.mark.host, pytest.mark.network]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    shutil.copytree(ROOT / "tests/programs", folder, dirs_exist_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def run(aerogel: Aerogel, folder: Path) -> Callable[..., list[str]]:
    """Builds a stage of a Dockerfile in the folder and gives the lines that the image prints."""

    def build_and_run(text: str, target: str, *words: str) -> list[str]:
        (folder / "Dockerfile").write_text(text)
        aerogel("build", "-q", "--target", target, "-t", "real", str(folder))
        return aerogel("run", "--rm", "real", *words).stdout.splitlines()

    return build_and_run


C = """
FROM aerogel/cc-build AS build
COPY hello.c trust.c /src/
RUN cd /src && gcc -O1 -o /dynamic hello.c -lm && gcc -O1 -static -o /static hello.c -lm && gcc -O1 -o /trust trust.c -lssl -lcrypto
"""


def test_c(run: Callable[..., list[str]], folder: Path) -> None:
    """One static program and one dynamic one, each on every base it is for; OpenSSL where it is in the base."""
    (folder / "base.yaml").write_text(
        "apiVersion: aerogel/v1\nkind: Base\nname: c\nextends: base\nlocales: [C.UTF-8]\n"
    )
    bases = {
        ("static", ""): [f"gcr.io/distroless/static-debian{release}" for release in (12, 13)],
        ("dynamic", ""): [
            f"gcr.io/distroless/{name}-debian{release}" for name in ("base-nossl", "base", "cc") for release in (12, 13)
        ],
        ("dynamic", "with a locale"): ["./base.yaml"],
        ("trust", ""): [f"gcr.io/distroless/base-debian{release}" for release in (12, 13)],
    }
    text = C
    for (program, _), names in bases.items():
        for name in names:
            stage = f"{program}-{name.rpartition('/')[2]}"
            text += f'FROM {name}:nonroot AS {stage}\nCOPY --from=build /{program} /program\nCMD ["/program"]\n'
    for (program, more), names in bases.items():
        expected = [
            "user nonroot /home/nonroot",
            "zone 01:00 CET",
            f"locale {'yes' if more else 'no'}",
            f"encoded {0 if program == 'static' else 4}",  # the library loads most encodings while it runs
            "threads 14 root 1.414",
            "https 443",
        ]
        for name in names:
            found = run(text, f"{program}-{name.rpartition('/')[2]}")
            assert (name, found) == (name, expected if program != "trust" else ["3 trusted 1"])


GO = """
FROM aerogel/go-build AS build
WORKDIR /src
COPY pure.go withc.go ./
RUN CGO_ENABLED=0 go build -o /pure pure.go && CGO_ENABLED=1 go build -o /withc withc.go
FROM gcr.io/distroless/static:nonroot AS pure
COPY --from=build /pure /program
CMD ["/program"]
FROM gcr.io/distroless/base:nonroot AS withc
COPY --from=build /withc /program
CMD ["/program"]
"""


def test_go(run: Callable[..., list[str]]) -> None:
    assert run(GO, "pure") == ["trusted true", "zone 01:00 CET", "user nonroot /home/nonroot", "sum 14 linux"]
    assert run(GO, "withc") == ["root true calls 41 user nonroot", "glibc 2.41"]


NOT_IN_DEBIAN_S_LIBRARY = {
    "_gdbm": "package python3-gdbm, as upstream lacks",
    "dbm.gnu": "package python3-gdbm",
    "_tkinter": "package python3-tk, as upstream lacks: there is no display",
    "tkinter": "package python3-tk",
    "turtle": "package python3-tk",
    "turtledemo": "package idle, and tkinter",
    "idlelib": "package idle, and tkinter",
    "_distutils_system_mod": "Debian's own hook for setuptools, which is no part of the library",
}
NOT_FOR_LINUX = {
    *("_overlapped", "_scproxy", "_winapi", "msvcrt", "nt", "winreg", "winsound"),
    *("asyncio.windows_events", "asyncio.windows_utils", "encodings.mbcs", "encodings.oem"),
    "multiprocessing.popen_spawn_win32",
}
NOT_FOR_LINUX_SINCE = {
    "3.11": {"_msi", "msilib"},
    "3.13": {"_ios_support", "_pyrepl.windows_console", "_wmi"},
    "3.14": {"_ios_support", "_wmi"},
}
LEFT_OUT_BY_RULES = {"ensurepip": "python-extras", "pydoc_data": "python-extras", "nis": "python-nis"}
"""Upstream has these; a stated rule of the profile `micro` leaves them out, and `parity` has them."""


@pytest.mark.parametrize(
    ("base", "version"),
    [
        ("aerogel/python3", "3.13"),
        ("aerogel/python3:parity", "3.13"),
        ("gcr.io/distroless/python3-debian12", "3.11"),
        ("gcr.io/distroless/python3-debian12:parity", "3.11"),
        ("aerogel/python3.14", "3.14"),
    ],
)
def test_every_module_of_python(run: Callable[..., list[str]], base: str, version: str) -> None:
    """All but those that the lists above explain; one of them that can be imported does not belong there."""
    found = json.loads(run(f"FROM {base} AS all\nCOPY every.py /app/\n", "all", "/app/every.py")[0])
    missing = {*NOT_IN_DEBIAN_S_LIBRARY, *NOT_FOR_LINUX, *NOT_FOR_LINUX_SINCE[version]}
    if version == "3.11":
        missing.add("lib2to3")  # package python3-lib2to3, as upstream lacks
    if not base.endswith("parity"):
        missing |= {each for each in LEFT_OUT_BY_RULES if each != "nis" or version == "3.11"}
    if version == "3.14":
        missing |= {"_dbm", "_pydecimal", "dbm.ndbm"}  # left out by its declaration, which says why
    assert set(found["failed"]) == missing
    assert found["imported"] > 600
    assert set(LEFT_OUT_BY_RULES.values()) <= {rule.name for rule in MICRO}


@pytest.fixture
def database() -> Iterator[str]:
    """A PostgreSQL of Debian on loopback that wants a password; gives how it is reached."""
    program = max(Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent
    folder = Path(tempfile.mkdtemp(prefix="aerogel-postgres-"))
    drop: list[str] = []
    if os.getuid() == 0:  # which it refuses to run as
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        drop = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    (folder / "password").write_text("secret\n")
    (folder / "password").chmod(0o644)

    def postgres(name: str, *words: str) -> None:
        subprocess.run(
            [*drop, program / name, "-D", folder / "data", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )

    words = ("--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--pwfile={folder}/password")
    try:
        postgres("initdb", "--username=tester", *words)
        port = free_port()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        postgres("pg_ctl", "start", "--wait", f"--log={folder}/log", f"--options={options}")
        try:
            yield f"host=127.0.0.1 port={port} user=tester password=secret dbname=postgres"
        finally:
            postgres("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.host("pg_ctlcluster")
def test_wheels_with_machine_code(run: Callable[..., list[str]], folder: Path, database: str) -> None:
    """Fetched by the user's own pip, by digests that the declaration states."""
    shutil.copy(folder / "wheels.yaml", folder / "base.yaml")
    text = "FROM ./base.yaml:nonroot AS wheels\nCOPY wheels.py /app/\n"
    assert run(text, "wheels", "/app/wheels.py", database) == [
        "product True 8.0",
        "cipher text",
        "certificate CN=own 7",
        "database binary 4950 hällo 99 [1] 1",
    ]


@contextlib.contextmanager
def started(aerogel: Aerogel, *words: str) -> Iterator[str]:
    """A container in the background."""
    name = aerogel("run", "-d", *words).stdout.strip()
    try:
        yield name
    finally:
        aerogel("rm", "-f", name)


@pytest.mark.parametrize("base", ["nginx:nonroot", "nginx:latest", "nginx-debian12:nonroot"])
def test_nginx_serves_pages(aerogel: Aerogel, folder: Path, base: str) -> None:
    """A page and a folder of one's own, as an ordinary user and as root with workers of another; asked to end, it does."""
    (folder / "site.conf").write_text(
        "server { listen 8080; root /usr/share/nginx/html; gzip on; gzip_min_length 1;"
        " location /own { return 200 $http_x_word; } }\n"
    )
    (folder / "page.html").write_text("<p>served</p>\n")
    (folder / "Dockerfile").write_text(
        f"FROM aerogel/{base}\nCOPY page.html /usr/share/nginx/html/index.html\nCOPY site.conf /etc/nginx/conf.d/default.conf\n"
    )
    aerogel("build", "-q", "-t", "real-nginx", str(folder))
    port = free_port()
    with started(aerogel, "-p", f"127.0.0.1:{port}:8080", "real-nginx") as name:

        def get(path: str, **headers: str) -> tuple[int, bytes, str | None]:
            asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            with urllib.request.urlopen(asked, timeout=20) as page:
                return page.status, page.read(), page.headers["Content-Encoding"]

        _until_it_answers(lambda: get("/"))
        assert get("/") == (200, b"<p>served</p>\n", None)
        assert get("/", **{"Accept-Encoding": "gzip"})[2] == "gzip"
        assert get("/own", **{"X-Word": "asked"})[1] == b"asked"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/none")
        aerogel("stop", name)
        assert aerogel.json("inspect", name)["containers"][0]["State"]["ExitCode"] == 0
        said = aerogel("logs", name).stdout
        assert '"GET /own HTTP/1.1" 200 5' in said


def _until_it_answers(ask: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask()
            return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
