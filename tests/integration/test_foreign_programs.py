"""Programs on bases of machines that this one is not: C on all six, Python, Node.js and Java on arm64.

Debian's qemu-user-static runs them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from process import ROOT, Aerogel

pytestmark = [pytest.mark.host("qemu-aarch64-static", "qemu-s390x-static", "openssl", "npm"), pytest.mark.network]

MACHINES = {
    "linux/amd64": "x86_64",
    "linux/arm64": "aarch64",
    "linux/arm/v7": "armv7l",
    "linux/s390x": "s390x",
    "linux/ppc64le": "ppc64le",
    "linux/riscv64": "riscv64",
}
SIX = """\
apiVersion: aerogel/v1
kind: Base
name: six
extends: base-nossl
sources: {debian: {suites: [trixie]}}
packages: [hello]
"""
"""Of the main suite alone: mirrors have the others of some machines out of step with their signatures."""

PROGRAMS = """
FROM --platform=$BUILDPLATFORM aerogel/java21:debug AS build
COPY Hello.java /src/
SHELL ["/busybox/sh", "-c"]
RUN /usr/lib/jvm/java-21-openjdk-*/bin/javac -d /out /src/Hello.java
FROM gcr.io/distroless/python3:debug AS python
COPY every.py /app/
ENTRYPOINT ["/usr/bin/python3", "/app/every.py", "native"]
FROM aerogel/nodejs24:nonroot AS node
COPY hello.mjs key.pem cert.pem /app/
CMD ["/app/hello.mjs"]
FROM aerogel/java21:nonroot AS java
COPY --from=build /out /app
COPY own.p12 /app/
ENTRYPOINT ["/usr/bin/java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "/app", "Hello", "/app/own.p12"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with the programs, and with a key and a certificate for `localhost`."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("Hello.java", "every.py", "hello.mjs"):
        shutil.copy(ROOT / "tests/programs" / name, folder)
    certificate = "-x509 -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    for words in (
        f"req {certificate} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem",
        "pkcs12 -export -inkey key.pem -in cert.pem -out own.p12 -passout pass:secret",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def test_c_on_all_six(aerogel: Aerogel, tmp_path: Path) -> None:
    """A program that the loader links to the library of the base, and the static busybox of the tag `debug`."""
    (tmp_path / "base.yaml").write_text(SIX)
    (tmp_path / "Dockerfile").write_text("FROM ./base.yaml:debug\nENTRYPOINT []\n")
    aerogel("build", "-q", "--platform", ",".join(MACHINES), "-t", "six", str(tmp_path))
    for platform, machine in MACHINES.items():
        command = "/busybox/busybox uname -m && exec /usr/bin/hello"
        done = aerogel("run", "--rm", "--platform", platform, "six", "/busybox/sh", "-c", command)
        assert (platform, done.stdout) == (platform, f"{machine}\nHello, world!\n")


def test_a_locale_for_the_other_byte_order(aerogel: Aerogel, tmp_path: Path) -> None:
    """It is compiled here for there; without it the program refuses letters that are not ASCII."""
    image = "image: {env: {LANG: C.UTF-8}}\n"
    words = ("run", "--rm", "--platform", "linux/s390x", "big", "/usr/bin/hello", "-g", "Grüße")
    for more, code in (("", 1), ("locales: [C.UTF-8]\n", 0)):
        (tmp_path / "base.yaml").write_text(SIX + image + more)
        (tmp_path / "Dockerfile").write_text("FROM ./base.yaml\n")
        aerogel("build", "-q", "--platform", "linux/s390x", "-t", "big", str(tmp_path))
        done = aerogel(*words, check=False)
        assert (done.returncode, done.stdout) == (code, "" if code else "Grüße\n")


@pytest.mark.parametrize("target", ["python", "node", "java"])
def test_programs_on_arm64(aerogel: Aerogel, folder: Path, target: str) -> None:
    (folder / "Dockerfile").write_text(PROGRAMS)
    aerogel("build", "-q", "--platform", "linux/arm64", "--target", target, "-t", "foreign", str(folder))
    said = aerogel("run", "--rm", "--platform", "linux/arm64", "foreign").stdout
    if target == "python":
        found = json.loads(said)
        assert found["failed"] == []
        assert found["imported"] > 40
    elif target == "node":
        assert said == "arm64 1.234,5\ntrusted true\nthreads 11 22 33\ntls TLSv1.3 true x\n"
    else:
        assert said.splitlines() == [
            "charset UTF-8 UTF-8",
            "de-DE 1.234,50 €, 2. Januar 2026",
            "fr-FR 1 234,50 €, 2 janvier 2026",
            "ja-JP ￥1,234, 2026年1月2日",
            "letters true",
            "trusted true",
            "tls TLSv1.3 x",
        ]
