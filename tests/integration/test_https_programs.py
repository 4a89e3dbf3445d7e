"""Programs of every language fetch a page by HTTPS from a server whose certificate only an added authority vouches for.

Each runs on its base with the authority added by `certificates.additional`, and fails on the same base without it.
"""

from __future__ import annotations

import http.server
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import ROOT, Aerogel

pytestmark = [pytest.mark.host("mcs", "npm", "openssl"), pytest.mark.network]

BASE = """\
apiVersion: aerogel/v1
kind: Base
name: trusting-{name}
extends: {name}
certificates: {{additional: [authority.pem]}}
"""
CLIENTS = {
    "dotnet": ("exec", "--runtimeconfig", "/app/fetch.json", "/app/fetch.exe"),
    "java17": ("-cp", "/app", "Fetch"),
    "java21": ("-cp", "/app", "Fetch"),
    "java25": ("-cp", "/app", "Fetch"),
    "nodejs22": ("/app/fetch.mjs",),
    "nodejs24": ("/app/fetch.mjs",),
    "nodejs26": ("/app/fetch.mjs",),
    "perl": ("/app/fetch.pl",),
    "php": ("/app/fetch.php",),
    "python3": ("/app/fetch.py",),
    "ruby": ("/app/fetch.rb",),
}
MORE = {"perl": "packages: [libio-socket-ssl-perl]\n"}
"""What a language has no TLS without."""


ONCE = ("dotnet", "java21", "nodejs24", "perl", "php", "python3", "ruby")
"""One base of each language is asked without the authority as well."""
JAVA = """\
FROM aerogel/java21:debug AS build
COPY Fetch.java /src/
SHELL ["/busybox/sh", "-c"]
RUN /usr/lib/jvm/java-21-openjdk-*/bin/javac --release 17 -d /out /src/Fetch.java
"""


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"served")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with the programs, the authority, and what it has signed for `localhost`."""
    folder = tmp_path_factory.mktemp("https")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    root = ("-subj", "/CN=An authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-x509", *key, *root, "-days", "30", "-keyout", "root.key", "-out", "authority.pem")
    openssl("req", *key, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "asked.pem")
    (folder / "more").write_text(
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    signed = ("-CA", "authority.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "30", "-extfile", "more")
    openssl("x509", "-req", "-in", "asked.pem", *signed, "-out", "cert.pem")
    for path in (ROOT / "tests/programs").glob("[fF]etch.*"):
        shutil.copy(path, folder)
    subprocess.run(["mcs", "-out:fetch.exe", "fetch.cs"], cwd=folder, check=True, capture_output=True)
    framework = {"name": "Microsoft.NETCore.App", "version": "3.1.0"}
    (folder / "fetch.json").write_text(json.dumps({"runtimeOptions": {"framework": framework}}))
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self) -> tuple[ssl.SSLSocket, object]:
            socket, peer = super().get_request()
            return context.wrap_socket(socket, server_side=True, do_handshake_on_connect=False), peer

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust it hangs up."""

    with Server(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_page_of_a_server_with_an_authority_of_its_own(
    aerogel: Aerogel, folder: Path, address: str, name: str
) -> None:
    (folder / "base.yaml").write_text(BASE.format(name=name) + MORE.get(name, ""))
    words = ("--entrypoint", "/usr/bin/java") if name.startswith("java") else ()

    def fetch(base: str) -> subprocess.CompletedProcess[str]:
        text = f"FROM {base}\nCOPY . /app/\n"
        if name.startswith("java"):
            text = f"{JAVA}FROM {base}\nCOPY --from=build /out /app\n"
        (folder / "Dockerfile").write_text(text)
        aerogel("build", "-q", "-t", "fetch", str(folder))
        return aerogel("run", "--rm", *words, "fetch", *CLIENTS[name], address, check=False)

    done = fetch("./base.yaml:nonroot")
    assert (done.stdout, done.stderr, done.returncode) == ("200 served\n", "", 0)
    if name not in ONCE:
        return
    done = fetch(f"aerogel/{name}+libio-socket-ssl-perl:nonroot" if name in MORE else f"aerogel/{name}:nonroot")
    assert done.returncode != 0
    assert "200" not in done.stdout
    assert "certif" in (done.stdout + done.stderr).lower()
