"""Real clients against our server, with passwords, plain and with TLS; our client against docker-registry with certificates and tokens.

Debian packages: skopeo, podman, buildah, docker.io, umoci, docker-registry, openssl.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from own_docker import own_docker
from process import Aerogel
from real_registry import start
from served import Client, Registry, sha
from token_server import TokenServer

pytestmark = pytest.mark.host("skopeo", "podman", "buildah", "docker", "dockerd", "umoci", "docker-registry", "openssl")

CREDENTIALS = "amy:open-sesame"
AUTH = {"auth": base64.b64encode(CREDENTIALS.encode()).decode()}


class Served(NamedTuple):
    host: str
    certificates: str
    """Folder of its authority; empty without TLS."""
    image: str
    digest: str


class Tunnel(socketserver.StreamRequestHandler):
    """A proxy for CONNECT with a password; every name is this machine."""

    seen: list[tuple[str, str]]

    def handle(self) -> None:
        target = self.rfile.readline().split()[1].decode()
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        self.seen.append((target, headers.get("proxy-authorization", "")))
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as there:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {self.connection: there, there: self.connection}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    ends[one].sendall(data)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loop-back that is its own authority, and its key."""
    key, made = folder / "key.pem", folder / "ca.crt"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += [
        "-addext",
        "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(made),
    ]
    subprocess.run(words, check=True, capture_output=True)
    return made, key


def run(*words: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=["plain", "tls"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With an image."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "users").write_text(f"{CREDENTIALS}\n")
    (folder / "users").chmod(0o600)
    words, trusted = ["--users", str(folder / "users")], ""
    if request.param == "tls":
        (folder / "trusted").mkdir()
        made, key = certificate(folder)
        shutil.copy(made, folder / "trusted/ca.crt")
        trusted = str(folder / "trusted")
        words += ["--tls-cert", str(made), "--tls-key", str(key)]
    aerogel = Aerogel(folder / "state")
    server = Registry(Aerogel(folder / "served"), "--writable", *words)
    aerogel.env |= {"DOCKER_CONFIG": str(folder), **({"SSL_CERT_FILE": f"{trusted}/ca.crt"} if trusted else {})}
    (folder / "config.json").write_text(json.dumps({"auths": {server.host: AUTH}}))
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /d\nLABEL a=b\nCMD ["/d"]\n')
    name = f"{server.host}/team/app:1"
    digest = aerogel.json("build", "--push", "-t", name, str(folder))["descriptor"]["digest"]
    yield Served(server.host, trusted, name, digest)
    assert server.stop() == 0


def comes_back(served: Served, name: str, folder: Path) -> dict[str, str]:
    """The labels of an image that another client pushed, pulled by us."""
    aerogel = Aerogel(folder / "back")
    aerogel.env["DOCKER_CONFIG"] = str(folder)
    if served.certificates:
        aerogel.env["SSL_CERT_FILE"] = f"{served.certificates}/ca.crt"
    (folder / "config.json").write_text(json.dumps({"auths": {served.host: AUTH}}))
    aerogel("pull", name)
    found: dict[str, str] = json.loads(aerogel("inspect", name).stdout)[0]["Config"]["Labels"]
    return found


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_podman_and_buildah(served: Served, tmp_path: Path, program: str) -> None:
    trust = f"--cert-dir={served.certificates}" if served.certificates else "--tls-verify=false"
    state = Path(tempfile.mkdtemp(prefix="ag-"))  # podman takes no longer names for its state
    common = [program, "--root", state / "p", "--runroot", state / "r", "--storage-driver=vfs"]
    target = f"{served.host}/by/{program}:1"
    try:
        refused = subprocess.run(
            [*map(str, common), "pull", trust, "--creds=amy:guess", served.image], capture_output=True, text=True
        )
        assert refused.returncode != 0
        assert "unauthorized" in refused.stderr.lower() or "password" in refused.stderr.lower()
        run(*common, "pull", trust, f"--creds={CREDENTIALS}", served.image)
        run(*common, "push", trust, f"--creds={CREDENTIALS}", served.image, f"docker://{target}")
    finally:
        shutil.rmtree(state)
    assert comes_back(served, target, tmp_path)["a"] == "b"


def test_skopeo_and_umoci(served: Served, tmp_path: Path) -> None:
    def trust(side: str) -> str:
        return f"--{side}-cert-dir={served.certificates}" if served.certificates else f"--{side}-tls-verify=false"

    layout = tmp_path / "layout"
    run("skopeo", "copy", trust("src"), f"--src-creds={CREDENTIALS}", f"docker://{served.image}", f"oci:{layout}:it")
    assert json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"] == served.digest
    run("umoci", "unpack", "--image", f"{layout}:it", tmp_path / "bundle")
    (tmp_path / "bundle/rootfs/more").write_text("more")
    run("umoci", "repack", "--image", f"{layout}:new", tmp_path / "bundle")
    run("umoci", "config", "--image", f"{layout}:new", "--config.label=c=d")
    target = f"{served.host}/by/umoci:1"
    run("skopeo", "copy", trust("dest"), f"--dest-creds={CREDENTIALS}", f"oci:{layout}:new", f"docker://{target}")
    assert comes_back(served, target, tmp_path) == {"a": "b", "c": "d"}


def test_docker(served: Served, tmp_path: Path) -> None:
    """Docker trusts loop-back with any certificate."""
    with own_docker(tmp_path) as env:
        env |= {"DOCKER_CONFIG": str(tmp_path)}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {served.host: AUTH}}))
        target = f"{served.host}/by/docker:1"
        run("docker", "pull", served.image, env=env)
        found = json.loads(run("docker", "image", "inspect", served.image, env=env))[0]
        assert found["RepoDigests"] == [f"{served.host}/team/app@{served.digest}"]
        run("docker", "tag", served.image, target, env=env)
        run("docker", "push", target, env=env)
        assert comes_back(served, target, tmp_path)["a"] == "b"


# Our client.


@pytest.mark.parametrize("way", ["ours", "hosts.toml", "certs.d"])
def test_a_registry_that_wants_a_certificate(tmp_path: Path, way: str) -> None:
    authority, key = certificate(tmp_path)
    tls = {"certificate": str(authority), "key": str(key), "clientcas": [str(authority)]}
    server, process = start(tmp_path / "registry", {}, {"tls": tls})
    try:
        (tmp_path / "context").mkdir()
        (tmp_path / "context/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
        name = f"{server.host}/app:1"
        aerogel = Aerogel(tmp_path / "state")
        aerogel.env |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "DOCKER_CONFIG": str(tmp_path)}
        aerogel("build", "-t", name, str(tmp_path / "context"))
        refused = aerogel("push", name, check=False, env={"SSL_CERT_FILE": str(authority)})
        assert refused.returncode == 4
        assert "Traceback" not in refused.stderr
        if way == "ours":
            folder = tmp_path / "config/aerogel"
            text = '[registries."{}"]\nca = "../../{}"\nclient_cert = "../../{}"\nclient_key = "../../{}"\n'
            files = {"aerogel.toml": text.format(server.host, authority.name, authority.name, key.name)}
        elif way == "hosts.toml":
            folder = tmp_path / "config/containerd/certs.d" / server.host
            text = 'server = "https://{}"\nca = "{}"\nclient = [["{}", "{}"]]\n'
            files = {"hosts.toml": text.format(server.host, authority, authority, key)}
        else:
            folder = tmp_path / "config/containers/certs.d" / server.host
            files = {"ca.crt": authority.read_text(), "me.cert": authority.read_text(), "me.key": key.read_text()}
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_text(content)
        aerogel("push", name)
        aerogel("rmi", name)
        aerogel("pull", name)
    finally:
        process.terminate()
        process.wait()


def test_through_a_proxy(tmp_path: Path) -> None:
    """With TLS end to end; the name of the registry is known to the proxy only."""
    made, key = certificate(tmp_path)
    server, process = start(tmp_path / "registry", {}, {"tls": {"certificate": str(made), "key": str(key)}})
    kind = type("Seen", (Tunnel,), {"seen": []})
    proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
        host = f"registry.test:{server.host.partition(':')[2]}"
        aerogel = Aerogel(tmp_path / "state")
        address = f"http://me:hush-hush@127.0.0.1:{proxy.server_address[1]}"
        aerogel.env |= {"SSL_CERT_FILE": str(made), "HTTPS_PROXY": address, "DOCKER_CONFIG": str(tmp_path)}
        said = aerogel("build", "--push", "--progress=plain", "-t", f"{host}/app:1", str(tmp_path))
        aerogel("rmi", f"{host}/app:1")
        aerogel("pull", f"{host}/app:1")
        password = base64.b64encode(b"me:hush-hush").decode()
        assert set(kind.seen) == {(host, f"Basic {password}")}
        proxy.shutdown()
        proxy.server_close()
        refused = aerogel("pull", f"{host}/app:2", check=False)
        assert refused.returncode == 4
        assert "the proxy refuses" in refused.stderr or "cannot be reached" in refused.stderr
        assert "hush-hush" not in said.stderr + refused.stderr
    finally:
        process.terminate()
        process.wait()


def test_an_insecure_registry_only_when_it_is_said(tmp_path: Path) -> None:
    """Nobody vouches for its certificate."""
    made, key = certificate(tmp_path)
    server, process = start(tmp_path / "registry", {}, {"tls": {"certificate": str(made), "key": str(key)}})
    try:
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
        aerogel = Aerogel(tmp_path / "state")
        aerogel("build", "-t", f"{server.host}/app:1", str(tmp_path))
        refused = aerogel("push", f"{server.host}/app:1", check=False)
        assert (refused.returncode, "certificate" in refused.stderr) == (4, True)
        aerogel("push", "--insecure-registry", server.host, f"{server.host}/app:1")
    finally:
        process.terminate()
        process.wait()


def test_media_types_that_nobody_knows(tmp_path: Path) -> None:
    """An artifact of unknown kinds goes from one registry to another and through a store without a changed byte."""
    debian, process = start(tmp_path / "registry", {}, {})
    ours = Registry(Aerogel(tmp_path / "served"), "--writable")
    try:
        source, target = Client(debian.host), ours
        config = {**source.blob("odd", b"{}"), "mediaType": "application/vnd.example.config"}
        layer = {**source.blob("odd", os.urandom(5000)), "mediaType": "application/vnd.example.model", "data": "AA=="}
        kind = "application/vnd.oci.image.manifest.v1+json"
        data = json.dumps(
            {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer], "x-odd": [1, 2.5]}, indent=3
        ).encode()
        assert source.ask("PUT", "/v2/odd/manifests/1", data, Content_Type=kind).status == 201
        aerogel = Aerogel(tmp_path / "state")
        aerogel("copy", f"docker://{debian.host}/odd:1", f"docker://{target.host}/odd:1")
        assert target.ask("GET", "/v2/odd/manifests/1").body == data
        aerogel("copy", f"docker://{debian.host}/odd:1", f"oci:{tmp_path}/layout:1")
        assert (tmp_path / "layout/blobs" / sha(data).replace(":", "/")).read_bytes() == data
        # Docker's kinds, with a layer that lies elsewhere.
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        config["mediaType"] = "application/vnd.docker.container.image.v1+json"
        away = {"mediaType": foreign, "digest": sha(b"away"), "size": 4, "urls": ["https://elsewhere.example/blob"]}
        layers = [away, {**layer, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}]
        data = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode()
        assert target.ask("PUT", "/v2/odd/manifests/3", data, Content_Type=kind).status == 201
        aerogel("copy", f"docker://{target.host}/odd:3", f"docker://{target.host}/even:3")
        got = target.ask("GET", "/v2/even/manifests/3")
        assert (got.body, got.headers["content-type"]) == (data, kind)
    finally:
        assert ours.stop() == 0
        process.terminate()
        process.wait()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    running = TokenServer(*certificate(tmp_path), CREDENTIALS)
    yield running
    running.close()


def test_tokens_that_docker_registry_checks(tmp_path: Path, tokens: TokenServer) -> None:
    """Its own `auth.token`: signature, issuer, audience, times and rights are looked at by it; skopeo does the same."""
    server, process = start(tmp_path / "registry", tokens.auth, {})
    try:
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
        amy, nobody = Aerogel(tmp_path / "amy"), Aerogel(tmp_path / "nobody")
        amy.env["DOCKER_CONFIG"] = str(tmp_path)
        nobody.env["DOCKER_CONFIG"] = str(tmp_path / "none")
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: AUTH}}))
        mine, open_ = f"{server.host}/team/app:1", f"{server.host}/public/app:1"
        digest = amy.json("build", "--push", "-t", mine, str(tmp_path))["descriptor"]["digest"]
        assert {user for user, _ in tokens.asked} == {"amy"}
        assert ("amy", ["repository:team/app:pull,push"]) in tokens.asked
        # Mounted from the one into the other: the token is for both.
        tokens.asked.clear()
        assert amy.json("copy", f"docker://{mine}", f"docker://{open_}")["transferred"] == 0
        both = {"repository:public/app:pull,push", "repository:team/app:pull"}
        assert any(set(scopes) == both for _, scopes in tokens.asked)
        # Who has no password may have what is for all, and nothing more.
        assert nobody.json("pull", open_)["digest"] == digest
        nobody("tag", open_, f"{server.host}/public/app:2")
        for words in (("pull", mine), ("push", f"{server.host}/public/app:2")):
            refused = nobody(*words, check=False)
            assert refused.returncode == 4
            assert "anonymous users" in refused.stderr
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{open_}", f"oci:{tmp_path}/layout:1")
        # A token that has ended before it came: another one is asked for.
        tokens.expired = 1
        amy("pull", mine)
        assert tokens.expired == 0
    finally:
        process.terminate()
        process.wait()


def test_tokens_that_docker_registry_does_not_trust(tmp_path: Path, tokens: TokenServer) -> None:
    """Signed by somebody else, or always too old: told after a few tries."""
    server, process = start(tmp_path / "registry", tokens.auth, {})
    try:
        aerogel = Aerogel(tmp_path / "state")
        aerogel.env["DOCKER_CONFIG"] = str(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: AUTH}}))
        tokens.expired = 99
        (tmp_path / "other").mkdir()
        for number in (1, 2):
            tokens.asked.clear()
            refused = aerogel("pull", f"{server.host}/app:1", check=False)
            assert refused.returncode == 4
            assert "refuses the credentials of `amy`" in refused.stderr
            assert "open-sesame" not in refused.stderr
            assert len(tokens.asked) <= 3, number
            tokens.expired = 0
            tokens.certificate, tokens.key = certificate(tmp_path / "other")
    finally:
        process.terminate()
        process.wait()
