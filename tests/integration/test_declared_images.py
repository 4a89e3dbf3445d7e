"""A base of one's own from the host's mirror, from declaration over lock to a program that runs in it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = [pytest.mark.network, pytest.mark.host]

SOURCE = Path(__file__).parents[2] / "src"

BASE = """\
apiVersion: aerogel/v1
kind: Base
name: mine
extends: python3
packages:
  - libpq5
  - {pypi: packaging, version: "24.2", to: /opt/packages, purl: "pkg:pypi/packaging@{version}"}
locales: [de_DE, sr_RS@latin]
timezone: Europe/Berlin
certificates: {additional: [corp.pem]}
accounts: {users: [{name: app, uid: 10001, home: /home/app}], run-as: app}
paths:
  - {dir: /data, owner: app, mode: "0750"}
  - {file: /usr/local/share/program.py, source: program.py}
image:
  env: {LANG: de_DE.UTF-8, PYTHONPATH: /opt/packages}
  cmd: [/usr/local/share/program.py]
"""

PROGRAM = """\
import ctypes, ctypes.util, grp, json, locale, os, pwd, ssl, time
from packaging.version import Version
locale.setlocale(locale.LC_ALL, "")
names = [dict(part[0] for part in one["subject"]).get("commonName") for one in
         ssl.create_default_context().get_ca_certs()]
print(json.dumps({
    "day": time.strftime("%A", time.gmtime(0)), "point": locale.localeconv()["decimal_point"],
    "zone": time.tzname, "user": pwd.getpwuid(os.getuid()).pw_name, "home": os.path.isdir("/home/app"),
    "data": [os.stat("/data").st_uid, oct(os.stat("/data").st_mode)], "corp": "Corp Root" in names, "many": len(names) > 100,
    "pq": ctypes.CDLL(ctypes.util.find_library("pq")).PQlibVersion() > 0, "version": str(Version("1.0")),
}))
"""


def certificate() -> bytes:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corp Root")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1)
    made = made.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_from_declaration_to_a_program_that_runs(tmp_path: Path) -> None:
    def aerogel(*words: str, root: str = "root", **more: str) -> str:
        env = {**os.environ, "AEROGEL_ROOT": str(tmp_path / root), "PYTHONPATH": str(SOURCE), **more}
        done = subprocess.run([sys.executable, "-m", "aerogel", *words], cwd=tmp_path, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    for name, content in (("base.yaml", BASE.encode()), ("program.py", PROGRAM.encode()), ("corp.pem", certificate())):
        (tmp_path / name).write_bytes(content)
    aerogel("base", "lock")
    lock = json.loads((tmp_path / "base.lock.json").read_text())
    (platform,) = lock["platforms"].values()
    assert [one["name"] for one in platform["archives"]] == ["pypi:packaging@24.2"]
    assert {host: {one["arch"] for one in tools["locales"]} for host, tools in lock["hosts"].items()} == {
        "linux/amd64": {"all", "amd64"},
        "linux/arm64": {"all", "arm64"},
    }
    aerogel("base", "build", "--locked", "-t", "mine")
    assert json.loads(aerogel("run", "--rm", "mine")) == {
        "day": "Donnerstag",
        "point": ",",
        "zone": ["CET", "CEST"],
        "user": "app",
        "home": True,
        "data": [10001, "0o40750"],
        "corp": True,
        "many": True,
        "pq": True,
        "version": "1.0",
    }
    # Everything that the lock names, tools included, beside it: another machine that reaches nobody gives the same.
    aerogel("base", "vendor")
    nobody = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    nobody |= {"AEROGEL_DEBIAN_MIRROR": "http://127.0.0.1:1/debian", "no_proxy": "", "NO_PROXY": ""}
    aerogel("base", "build", "--locked", "-t", "mine", root="second", **nobody)
    ids = [json.loads(aerogel("inspect", "mine", root=root))[0]["Id"] for root in ("root", "second")]
    assert ids[0] == ids[1]


STUB = "int PQlibVersion(void) { return 0; }\n"
CLIENT = """\
#include <stdio.h>
int PQlibVersion(void);
int main(void) { return printf("libpq %d\\n", PQlibVersion() / 10000) < 0; }
"""


@pytest.mark.host("gcc", "aarch64-linux-gnu-gcc")
def test_a_program_brings_its_libraries(tmp_path: Path) -> None:
    """`elf-closure: add` with real packages: a program that knows its libraries by name only runs on `static`."""
    (tmp_path / "stub.c").write_text(STUB)
    (tmp_path / "client.c").write_text(CLIENT)
    for arch, machine in (("amd64", ""), ("arm64", "aarch64-linux-gnu-")):
        stub = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libpq.so.5", "-o", f"libpq-{arch}.so", "stub.c"]
        for words in (stub, ["-o", f"client-{arch}", "client.c", f"libpq-{arch}.so"]):
            subprocess.run([f"{machine}gcc", *words], cwd=tmp_path, check=True)

    def aerogel(*words: str) -> str:
        env = {**os.environ, "AEROGEL_ROOT": f"{tmp_path}/root", "PYTHONPATH": str(SOURCE)}
        done = subprocess.run([sys.executable, "-m", "aerogel", *words], cwd=tmp_path, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    for arch in ("amd64", "arm64"):
        text = "apiVersion: aerogel/v1\nkind: Base\nname: client\nextends: static\nresolve: {elf-closure: add}\n"
        text += f"paths: [{{file: /usr/bin/client, source: client-{arch}, mode: '0755'}}]\n"
        (tmp_path / f"{arch}.yaml").write_text(text + "image: {entrypoint: [/usr/bin/client]}\n")
        shown = json.loads(
            aerogel("base", "show", "--packages", "--json", "--platform", f"linux/{arch}", f"{arch}.yaml")
        )
        why = {one["name"]: one["why"] for one in shown["packages"]}
        assert why["libpq5"] == ["/usr/bin/client", "libpq5"]
        assert why["libc6"][0] == "/usr/bin/client"
        assert why["libssl3t64"][:2] == ["/usr/bin/client", "libpq5"]
    (tmp_path / "Dockerfile").write_text("FROM ./amd64.yaml\n")
    aerogel("build", "-t", "client", ".")
    assert aerogel("run", "--rm", "client") == "libpq 17"


MANY = """\
apiVersion: aerogel/v1
kind: Base
name: mine
extends: java21
java: {modules: [java.base, jdk.localedata], languages: [de, sw]}
python: {bytecode: unchecked-hash, sourceless: true}
resolve: {skip: [libnsl2, libtirpc3t64]}
packages:
  - libpython3.13-stdlib
  - python3.13-minimal
%s\
variants: {debug: {java: {jdk: null}, busybox: false, without: [busybox-static]}}   # as the others: locked once
"""
"""What every maker makes: a linked Java with its archive of classes, compiled modules, a stripped program from npm."""


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_lock_replays_bit_for_bit_without_a_network(tmp_path: Path, ordinary: Aerogel) -> None:
    """Two architectures; another user and Python, hash seed, zone, locale, umask and number of jobs; no route anywhere."""

    def aerogel(*words: str) -> None:
        env = {**os.environ, "AEROGEL_ROOT": f"{tmp_path}/first", "PYTHONPATH": str(SOURCE)}
        done = subprocess.run([sys.executable, "-m", "aerogel", *words], cwd=tmp_path, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()

    node = (SOURCE / "aerogel/distroless/data/bases/nodejs24.yaml").read_text()
    (tmp_path / "base.yaml").write_text(MANY % node[node.index("  - npm:") : node.index("image:")])
    platforms = ("linux/amd64", "linux/arm64")
    aerogel("base", "lock", "--platform", ",".join(platforms))
    aerogel("base", "vendor")
    lock = json.loads((tmp_path / "base.lock.json").read_text())
    ordinary("version")  # the launcher makes its environment while there is a network
    other = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "AEROGEL_JOBS": "1"}
    with tempfile.TemporaryDirectory(prefix="aerogel-test-", dir="/var/tmp") as folder:
        for path in (tmp_path / "base.yaml", tmp_path / "base.lock.json"):
            shutil.copy(path, folder)
        shutil.copytree(tmp_path / "vendor", f"{folder}/vendor")
        owner = pwd.getpwnam(ordinary.account)
        subprocess.run(["chown", "-R", f"{owner.pw_uid}:{owner.pw_gid}", folder], check=True)
        shutil.rmtree(ordinary.state / "cache/debian-v1/made-v1", ignore_errors=True)

        def alone(*words: str, error: bool = False) -> str:
            command = ["unshare", "-n", "sh", "-c", 'umask 077; exec "$@"', "sh", *ordinary.argv(*words)]
            done = subprocess.run(command, cwd=folder, env=ordinary.env | other, capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
            return (done.stderr if error else done.stdout).decode().strip()

        for platform in reversed(platforms):  # this machine's last: its image is run
            alone("base", "build", "--locked", "--platform", platform, "-t", "mine", "base.yaml:nonroot")
            image = lock["platforms"][platform]["images"]["nonroot"]
            assert image["classes"] is True
            assert json.loads(alone("inspect", "mine"))[0]["RootFS"]["Layers"] == image["layers"]
        run = ("run", "--rm", "--network", "none", "--entrypoint")
        java = ("/usr/bin/java", "mine", "-Xshare:on", "-Xlog:disable", "-XshowSettings:locale", "-version")
        found = alone(*run, *java, error=True)
        assert "sw_KE" in found
        assert "de_DE" in found
        text = "import json; print(json.__file__, json.loads('[1]'))"
        said = alone(*run, "/usr/bin/python3.13", "mine", "-c", text)
        assert said == "/usr/lib/python3.13/json/__init__.pyc [1]"
        assert alone(*run, "/nodejs/bin/node", "mine", "-p", "1 + 1") == "2"
