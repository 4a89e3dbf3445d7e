"""Bases with a runtime in them: that real programs run on them, what they hold, how large they are.

The programs are in tests/programs. What builds them is a base as well, or a compiler of the host.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from memory import watched
from process import ROOT, Aerogel

pytestmark = [pytest.mark.host, pytest.mark.network]

PROGRAMS = ROOT / "tests/programs"
SIZES_MB = {
    "dotnet-deps": 18.0,
    "dotnet-deps-icu": 56.0,
    "java-base": 17.0,
    "java21": 96.0,
    "nodejs24": 127.0,
    "python3": 55.0,
    "python3.14": 55.0,
}
"""The table of the issue, regular files in 10^6 bytes."""
MEMORY_MB = 250


@pytest.fixture(scope="module")
def aerogel(aerogel: Aerogel) -> Aerogel:
    """Whose memory is looked at."""
    return aerogel.alone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with the programs, and with a key and a certificate for `localhost`."""
    folder = tmp_path_factory.mktemp("programs")
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True)
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem")
    subprocess.run(["openssl", *words.split(), *names], cwd=folder, check=True, capture_output=True)
    words = "pkcs12 -export -inkey key.pem -in cert.pem -out own.p12 -passout pass:secret"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def run(aerogel: Aerogel, folder: Path) -> Callable[..., str]:
    """Builds a Dockerfile in the folder and gives what the image prints."""

    def build_and_run(text: str, *words: str) -> str:
        (folder / "Dockerfile").write_text(text)
        aerogel("build", "-q", "-t", "runtime", str(folder))
        return aerogel("run", "--rm", "runtime", *words).stdout

    return build_and_run


def files_of(aerogel: Aerogel, folder: Path, name: str) -> dict[str, int]:
    """Paths of the regular files of a base, with their sizes."""
    (folder / "Dockerfile").write_text(f"FROM aerogel/{name}\n")
    aerogel("build", "-q", "-t", "runtime", str(folder))
    aerogel("save", "runtime", "-o", str(folder / "image.tar"))
    found: dict[str, int] = {}
    with tarfile.open(folder / "image.tar") as archive:
        for member in archive.getmembers():
            if member.isfile() and (file := archive.extractfile(member)) is not None and member.size > 100_000:
                with tarfile.open(fileobj=file) as layer:
                    found |= {one.name: one.size for one in layer.getmembers() if one.isfile()}
    (folder / "image.tar").unlink()
    return found


@pytest.mark.parametrize("name", SIZES_MB)
def test_size(aerogel: Aerogel, folder: Path, name: str) -> None:
    with watched() as memory:
        found = files_of(aerogel, folder, name)
    assert 0 < memory.largest < MEMORY_MB * 1e6  # of each process, jlink and npm among them
    assert sum(found.values()) <= SIZES_MB[name] * 1e6
    assert not any(path.endswith(("/sh", "/bash")) for path in found)


JAVA = ("java17-debian12:nonroot", "java21-debian13:nonroot", "java25-debian13:nonroot", "java21-debian13:parity")


@pytest.mark.parametrize("base", JAVA)
def test_java(run: Callable[..., str], base: str) -> None:
    """The `debug` image has a compiler; its other half is a whole Java, in small, with an archive of classes.

    `parity` is Debian's own Java, as its packages have it.
    """
    text = f"""
FROM aerogel/java21:debug AS build
COPY Hello.java /src/
RUN ["/usr/bin/java", "-version"]
SHELL ["/busybox/sh", "-c"]
RUN /usr/lib/jvm/java-21-openjdk-*/bin/javac --release 17 -d /out /src/Hello.java
FROM gcr.io/distroless/{base}
COPY --from=build /out /app
COPY own.p12 /app/
ENTRYPOINT ["/usr/bin/java", "-Xshare:{"auto" if "17" in base else "on"}", "-cp", "/app", "Hello", "/app/own.p12"]
"""
    assert run(text).splitlines() == [
        "charset UTF-8 UTF-8",
        "de-DE 1.234,50 €, 2. Januar 2026",
        "fr-FR 1 234,50 €, 2 janvier 2026",
        "ja-JP ￥1,234, 2026年1月2日",
        "letters true",
        "trusted true",
        "tls TLSv1.3 x",
    ]


@pytest.mark.parametrize("version", [22, 24, 26])
def test_nodejs(run: Callable[..., str], version: int) -> None:
    text = f'FROM aerogel/nodejs{version}:nonroot\nCOPY hello.mjs key.pem cert.pem /app/\nCMD ["/app/hello.mjs"]\n'
    lines = run(text).splitlines()
    assert lines[0] in ("x64 1.234,5", "arm64 1.234,5")
    assert lines[1:] == ["trusted true", "threads 11 22 33", "tls TLSv1.3 true x"]


def test_dotnet(run: Callable[..., str], folder: Path) -> None:
    subprocess.run(["mcs", "-out:hello.exe", "hello.cs"], cwd=folder, check=True, capture_output=True)
    (folder / "hello.json").write_text(
        '{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"}}}'
    )
    text = """
FROM aerogel/dotnet:nonroot
COPY hello.exe hello.json own.p12 /app/
CMD ["exec", "--runtimeconfig", "/app/hello.json", "/app/hello.exe", "/app/own.p12"]
"""
    assert run(text).splitlines() == [
        "de-DE 1.234,50 €",
        "fr-FR 1 234,50 €",
        "ja-JP ￥1,234",
        "trusted True",
        "zone 01:00:00",
        "tls Tls13 x",
    ]


def test_cpp_is_built_on_a_base_and_runs_on_another(run: Callable[..., str]) -> None:
    text = """
FROM aerogel/cc-build AS build
COPY hello.cpp /src/
RUN g++ -O1 -fopenmp -o /hello /src/hello.cpp
FROM aerogel/cc:nonroot
COPY --from=build /hello /hello
CMD ["/hello"]
"""
    assert run(text).splitlines() == ["caught", "9 499500"]


USUAL = "ssl, sqlite3, asyncio, http.server, json, logging, email, urllib.request"


def test_python_compiles_nothing_when_it_starts(run: Callable[..., str]) -> None:
    """Every module of the library has a compiled file, of the kind that is not compared with the source."""
    program = (
        f"import sys\nimport {USUAL}\n"
        "found = [m.__spec__ for m in sys.modules.values() if getattr(m, '__spec__', None) and m.__spec__.has_location]\n"
        "found = [s for s in found if s.origin.endswith('.py')]\n"
        "import importlib.util, marshal, os\n"
        "heads = {open(s.cached, 'rb').read(8)[4:] for s in found}\n"
        "print(len(found) > 100, heads, [s.name for s in found if not os.path.exists(s.cached)])\n"
    )
    assert run("FROM aerogel/python3:nonroot\n", "-c", program).strip() == r"True {b'\x01\x00\x00\x00'} []"


WORK = {
    "perl": ['{"a":[1,"ä"]} 5 GRÖSSE', "9999 ca978112", "01:00 CET", "child", "letters nonroot"],
    "php": ['{"a":[1,"ä"]} 5', "9999 ca978112", "ec5e9fc4", "01:00 CET", "größe 2048", "1", "1nonroot"],
    "ruby": ["UTF-8", "GRÖSSE", '{"a":[1,"ä"]}', "9999", "ca978112", "ec5e9fc4", "01:00 CET", "30"],
}
"""What the programs print: text, JSON, compression, hashes, ciphers, keys, time zones, threads and processes."""


@pytest.mark.parametrize("release", [13, 12])
@pytest.mark.parametrize("name", WORK)
def test_other_languages(run: Callable[..., str], name: str, release: int) -> None:
    file = {"perl": "work.pl", "php": "work.php", "ruby": "work.rb"}[name]
    text = f"FROM aerogel/{name}-debian{release}:nonroot\nCOPY {file} /app/\n"
    assert run(text, f"/app/{file}").splitlines() == WORK[name]
