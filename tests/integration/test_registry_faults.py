"""Faults between us and a registry, each before Debian's docker-registry and before our own server, with passwords.

Every one recovers, or fails with words that name method, address, status and the registry's code. After a pull that
failed no image is in the store and every blob there is what its digest says; the password is in no line that was
printed. Debian packages: docker-registry.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fault_proxy import FaultProxy, Said, before
from images import serve_image
from loop_registry import Answer, Request, serve_registry
from process import Aerogel
from real_registry import start
from served import Registry

from aerogel.cli import main as entry
from aerogel.errors import EXIT_NETWORK
from aerogel.net.http import Http

pytestmark = pytest.mark.host("docker-registry")

HTPASSWD = "amy:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO\n"
PASSWORD = "open-sesame"
SIGNATURE = "hush-hush"
"""Of an address that works without a password."""
BASIC = base64.b64encode(f"amy:{PASSWORD}".encode()).decode()
PAGE = Said(200, b"<html>log in first</html>", {"Content-Type": "text/html"})
BUSY = Said(503, b'{"errors":[{"code":"UNAVAILABLE","message":"busy"}]}')
BROKEN = Said(500, b'{"errors":[{"code":"UNKNOWN","message":"disk"}]}')
LIMIT = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
LOCKED = Said(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}', {"WWW-Authenticate": 'Basic realm="x"'})
DENIED = Said(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}')


class Case(NamedTuple):
    """What happens, and what becomes of it: nothing for a recovery, else parts of the message and its status."""

    name: str
    act: Callable[[FaultProxy], object]
    told: tuple[str, ...] = ()
    status: int = EXIT_NETWORK

    def is_told(self, status: int, told: str, proxy: FaultProxy) -> None:
        """The words that are asked for, and in all cases method, address, and status if there was an answer."""
        assert status == self.status, told
        assert "Traceback" not in told
        for part in self.told:
            assert part in told
        requests = re.findall(rf"(?:GET|HEAD|POST|PUT|PATCH) http://{proxy.host}/v2/\S*: (\d\d\d)?", told)
        assert requests, told
        assert all(requests) is not self.name.endswith("silent"), told


@pytest.fixture(scope="module", params=["aerogel", "docker-registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. It wants a password for everything and holds the image `app:1`."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "aerogel":
        (folder / "users").write_text(f"amy:{PASSWORD}\n")
        (folder / "users").chmod(0o600)
        server = Registry(Aerogel(folder / "served"), "--writable", "--users", str(folder / "users"))
        host, stop = server.host, server.stop
    else:
        (folder / "passwords").write_text(HTPASSWD)
        auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "passwords")}}}
        debian, process = start(folder / "files", auth, {})
        host, stop = debian.host, lambda: (process.terminate(), process.wait())[1]
    (folder / "context").mkdir()
    (folder / "context/data").write_bytes(os.urandom(400_000))
    (folder / "context/Dockerfile").write_text("FROM scratch\nCOPY data /data\nCOPY Dockerfile /d\n")
    aerogel = Aerogel(folder / "state")
    aerogel.env["DOCKER_CONFIG"] = str(folder)
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": BASIC}}}))
    aerogel("build", "--push", "-t", f"{host}/app:1", str(folder / "context"))
    yield host
    stop()


@pytest.fixture
def proxy(registry: str) -> Iterator[FaultProxy]:
    with before(registry) as running:
        yield running


class Shell:
    """Command lines in this process, with a store of its own, whose waits take no time."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.waits: list[float] = []
        self.printed = ""
        self._capfd = capfd

    def __call__(self, *words: str) -> tuple[int, str]:
        """Status, and what was said."""
        status = entry.main([*words, "--progress", "plain"])
        out, err = self._capfd.readouterr()
        self.printed += out + err
        return status, err

    def blobs(self) -> list[Path]:
        return [path for path in self.folder.glob("root/data/blobs/*/*") if path.is_file()]

    def is_sound(self) -> None:
        """Every blob is right, and nothing half lies about."""
        for path in self.blobs():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        for secret in (PASSWORD, BASIC, "token-", SIGNATURE):
            assert secret not in self.printed


@pytest.fixture
def shell(
    tmp_path: Path,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Shell:
    """Only what is slow or silent on purpose is not waited for: the registry itself may take its time."""
    made = Shell(tmp_path, capfd)
    patience_s = 0.5 if "slow" in request.node.name or "silent" in request.node.name else 20.0
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    for name, value in (("sleep", made.waits.append), ("read_timeout_s", patience_s)):
        monkeypatch.setitem(Http.__init__.__kwdefaults__, name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {proxy.host: {"auth": BASIC}}}))
    return made


def body(change: Callable[[bytes], bytes]) -> Callable[[Said], Said]:
    """The real answer with another body of its own length."""

    def changed(said: Said) -> Said:
        data = change(said.body)
        kept = {name: value for name, value in said.headers.items() if name.lower() != "content-length"}
        return Said(said.status, data, kept)

    return changed


def unnamed(said: Said) -> Said:
    """Without the header that says the digest."""
    kept = {name: value for name, value in said.headers.items() if name.lower() != "docker-content-digest"}
    return Said(said.status, said.body, kept)


def cut(at: int) -> Callable[[Said], Said]:
    return lambda said: Said(said.status, said.body, said.headers, cut_at=at)


def slowly(said: Said) -> Said:
    return Said(said.status, said.body, said.headers, every_s=0.05)


def replies(part: str, said: Said, times: int, method: str = "GET") -> Callable[[FaultProxy], object]:
    return lambda proxy: proxy.answer(method, part, said, times)


def changes(part: str, change: Callable[[Said], Said], times: int) -> Callable[[FaultProxy], object]:
    return lambda proxy: proxy.change("GET", part, change, times)


def tokens(uses: int) -> Callable[[FaultProxy], object]:
    def act(proxy: FaultProxy) -> None:
        proxy.uses, proxy.authorization = uses, f"Basic {BASIC}"

    return act


M, B = "/v2/app/manifests/", "/v2/app/blobs/sha256:"
FLIP = body(lambda data: bytes([data[0] ^ 1]) + data[1:])
SHORTER, LONGER, HALF = body(lambda data: data[:-1]), body(lambda data: data + b"x"), body(lambda data: data[:60])
SKEWED = {"Date": "Thu, 01 Jan 1998 10:00:00 GMT", "Retry-After": "Thu, 01 Jan 1998 10:00:07 GMT"}

PULLS = [
    Case("ping-500", replies("/v2/", BROKEN, 2)),
    Case("ping-500-always", replies("/v2/", BROKEN, 99), ("GET http://", "500 Internal Server Error, UNKNOWN (disk)")),
    Case("manifest-500", replies(M, BROKEN, 3)),
    Case("manifest-500-always", replies(M, BROKEN, 99), ("/v2/app/manifests/1: 500", "UNKNOWN (disk)")),
    Case("manifest-502", replies(M, Said(502), 2)),
    Case("manifest-503-always", replies(M, BUSY, 99), ("/v2/app/manifests/1: 503", "UNAVAILABLE (busy)")),
    Case("manifest-429", replies(M, Said(429, LIMIT, {"Retry-After": "9"}), 2)),
    Case("manifest-429-skewed", replies(M, Said(429, LIMIT, SKEWED), 1)),
    Case(
        "manifest-429-long",
        replies(M, Said(429, LIMIT, {"Retry-After": "7200"}), 99),
        ("the rate limit of the registry", "asks to wait 7200 seconds", ": 429", "TOOMANYREQUESTS (slow down)"),
    ),
    Case("manifest-401-loop", replies(M, LOCKED, 99), ("refuses the credentials of `amy`", ": 401", "UNAUTHORIZED")),
    Case("manifest-403", replies(M, DENIED, 99), ("denies", ": 403 Forbidden, DENIED (not yours)")),
    Case("manifest-cut", changes(M, cut(40), 2)),
    Case("manifest-cut-always", changes(M, cut(40), 99), ("/v2/app/manifests/1: 200, the connection was cut",)),
    Case("manifest-half", changes(M, HALF, 99), ("is not what its digest names",)),
    Case("manifest-half-unnamed", changes(M, lambda said: unnamed(HALF(said)), 99), ("which is no manifest",)),
    Case("manifest-flipped", changes(M, FLIP, 99), ("is not what its digest names", "expected sha256:")),
    Case("manifest-page", replies(M, PAGE, 99), ("answers with `text/html`", "which is no manifest")),
    Case("manifest-slow", changes(M, slowly, 99), ("/v2/app/manifests/1: 200, the server sends almost nothing",)),
    Case("manifest-silent", replies(M, Said(0, every_s=1, is_silent=True), 99), ("/v2/app/manifests/1: the ",)),
    Case("manifest-redirect-loop", replies(M, Said(307, b"", {"Location": M + "1"}), 99), ("more than 10 times",)),
    Case(
        "manifest-redirect-file",
        replies(M, Said(302, b"", {"Location": f"file:///etc/passwd?signature={SIGNATURE}"}), 9),
        ("redirects to",),
    ),
    Case("blob-500", replies(B, BROKEN, 3)),
    Case("blob-500-always", replies(B, BROKEN, 99), (f"{B}", ": 500 Internal Server Error, UNKNOWN (disk)")),
    Case("blob-429", replies(B, Said(429, LIMIT, {"Retry-After": "3"}), 2)),
    Case("blob-404", replies(B, Said(404), 99), ("is not in the registry", ": 404"), status=1),
    Case("blob-401-loop", replies(B, LOCKED, 99), ("refuses the credentials of `amy`", ": 401", "UNAUTHORIZED")),
    Case("blob-cut", changes(B, cut(100), 5)),
    Case("blob-cut-at-once", changes(B, cut(0), 99), (": 200, the connection was cut after 0 of ",)),
    Case("blob-flipped-once", changes(B, FLIP, 1)),
    Case("blob-flipped", changes(B, FLIP, 99), ("is not what its digest names", "expected sha256:")),
    Case("blob-shorter", changes(B, SHORTER, 99), ("bytes are served, expected",)),
    Case("blob-longer", changes(B, LONGER, 99), ("bytes are served, expected",)),
    Case("blob-slow", changes(B, slowly, 99), ("the server sends almost nothing",)),
    Case("tokens-that-end", tokens(1)),
    Case("tokens-that-end-later", tokens(3)),
]


@pytest.mark.parametrize("case", PULLS, ids=lambda case: case.name)
def test_pull(shell: Shell, proxy: FaultProxy, case: Case) -> None:
    case.act(proxy)
    name = f"{proxy.host}/app:1"
    status, told = shell("pull", name)
    shell.is_sound()
    assert all(wait < 61 for wait in shell.waits)
    if "skewed" in case.name:
        assert shell.waits == [7.0]
    if not case.told:
        assert status == 0, told
        assert shell("save", "-o", str(shell.folder / "app.tar"), name)[0] == 0
        return
    case.is_told(status, told, proxy)
    assert shell("images", "-q") == (0, "")
    assert shell.printed.endswith(told), "no image is listed"
    # Later, without the fault, it comes.
    proxy.faults.clear()
    assert shell("pull", name)[0] == 0
    shell.is_sound()


U = "/v2/new/blobs/uploads/"
WRONG = Said(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}')

PUSHES = [
    Case("begin-500", replies(U, BROKEN, 2, "POST")),
    Case("begin-500-always", replies(U, BROKEN, 99, "POST"), ("POST http://", U, ": 500", "UNKNOWN (disk)")),
    Case("begin-429", replies(U, Said(429, LIMIT, {"Retry-After": "2"}), 2, "POST")),
    Case("begin-403", replies(U, DENIED, 99, "POST"), ("denies", ": 403 Forbidden, DENIED (not yours)")),
    Case("begin-without-location", replies(U, Said(202), 99, "POST"), ("does not say where to upload",)),
    Case("put-500", replies(U, BROKEN, 2, "PUT")),
    Case("put-500-always", replies(U, BROKEN, 99, "PUT"), ("PUT http://", ": 500", "UNKNOWN (disk)")),
    Case("put-too-large", replies(U, Said(413, reads=False), 2, "PUT")),
    Case("put-wrong-digest", replies(U, WRONG, 99, "PUT"), ("PUT http://", ": 400", "DIGEST_INVALID")),
    Case("patch-500", lambda proxy: (proxy.answer("PUT", U, Said(413), 2), proxy.answer("PATCH", U, BROKEN, 2))),
    Case("patch-416", lambda proxy: (proxy.answer("PUT", U, Said(413), 2), proxy.answer("PATCH", U, Said(416), 2))),
    Case("manifest-500", replies("/v2/new/manifests/", BROKEN, 2, "PUT")),
    Case("manifest-500-always", replies("/v2/new/manifests/", BROKEN, 99, "PUT"), ("PUT http://", ": 500", "(disk)")),
    Case("blob-head-500", replies("/v2/new/blobs/", BROKEN, 2, "HEAD")),
    Case("blob-head-401-loop", replies("/v2/new/blobs/", LOCKED, 99, "HEAD"), ("refuses the credentials of `amy`",)),
    Case("tokens-that-end", tokens(2)),
]


@pytest.mark.parametrize("case", PUSHES, ids=lambda case: case.name)
def test_push(shell: Shell, proxy: FaultProxy, case: Case) -> None:
    (shell.folder / "context").mkdir()
    (shell.folder / "context/data").write_bytes(os.urandom(300_000))
    (shell.folder / "context/Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    name = f"{proxy.host}/new:{case.name}"
    assert shell("build", "-q", "-t", name, str(shell.folder / "context"))[0] == 0
    case.act(proxy)
    status, told = shell("push", name)
    shell.is_sound()
    if case.told:
        case.is_told(status, told, proxy)
        proxy.faults.clear()
        missing, words = shell("pull", name)
        assert (missing, "is not in the registry" in words) == (1, True), "the tag is not there"
        assert shell("push", name)[0] == 0
    else:
        assert status == 0, told
    proxy.faults.clear()
    assert shell("rmi", name)[0] == 0
    assert shell("pull", name)[0] == 0


SECRETS = {
    **{
        case.name: case.act
        for case in PULLS
        if case.name in ("manifest-401-loop", "blob-500-always", "manifest-silent")
    },
    "redirect": replies(M, Said(302, b"", {"Location": f"http://127.0.0.1:1/gone?signature={SIGNATURE}"}), 99),
    "tokens": lambda proxy: (tokens(9)(proxy), proxy.answer("GET", B, BROKEN, 99)),
    "mangled": lambda proxy: (tokens(9)(proxy), proxy.change("GET", B, FLIP, 99)),
}


@pytest.mark.parametrize("act", SECRETS.values(), ids=SECRETS)
def test_nothing_secret_is_shown_to_who_looks_for_faults(
    shell: Shell, proxy: FaultProxy, act: Callable[[FaultProxy], object]
) -> None:
    act(proxy)
    status, told = shell("pull", "--debug", f"{proxy.host}/app:1")
    assert status == EXIT_NETWORK
    assert "Traceback" in told
    assert any("authorization" in headers for _, _, headers in proxy.seen)
    shell.is_sound()


def test_a_redirect_to_another_host_gets_no_password(shell: Shell, proxy: FaultProxy, registry: str) -> None:
    """The other host, which wants one, gets none, and its challenge is not answered."""
    with before(registry) as other:
        elsewhere = Said(307, b"", {"Location": f"http://{other.host}/v2/app/manifests/1"})
        proxy.answer("GET", M, elsewhere, 99)
        status, told = shell("pull", f"{proxy.host}/app:1")
    assert status == EXIT_NETWORK
    assert ": 401" in told
    assert other.seen
    assert not any("authorization" in headers for _, _, headers in other.seen)
    shell.is_sound()


def test_referrers_without_the_api(shell: Shell, proxy: FaultProxy) -> None:
    """They go under the fall-back tag, and are found there."""
    proxy.answer("GET", "/referrers/", Said(404), 99)
    proxy.change("PUT", "/manifests/", _without_subject, 99)
    (shell.folder / "context").mkdir()
    (shell.folder / "context/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    name = f"{proxy.host}/told:1"
    assert shell("build", "-q", "--sbom", "--push", "-t", name, str(shell.folder / "context"))[0] == 0
    assert any(method == "PUT" and "/manifests/sha256-" in path for method, path, _ in proxy.seen)
    assert shell("rmi", name)[0] == 0
    status, told = shell("pull", "--referrers", name)
    assert (status, "1 artifact" in told) == (0, True), told
    shell.is_sound()


def _without_subject(said: Said) -> Said:
    kept = {name: value for name, value in said.headers.items() if name.lower() != "oci-subject"}
    return Said(said.status, said.body, kept)


def test_a_pull_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    """Its server kills it as it comes for the second half; the next process asks for that half only."""
    with serve_registry() as server:
        serve_image(server, "app", "one", files={"data": os.urandom(900_000)})
        digest, data = max(server.blobs["app"].items(), key=lambda each: len(each[1]))
        half = len(data) // 2
        server.fail("GET", digest, Answer(200, data, cut_at=half))
        aerogel, name = Aerogel(tmp_path / "state"), f"{server.host}/app:one"
        normal, started = server.answer, []

        def deadly(request: Request) -> Answer:
            if "range" in request.headers and started[0].poll() is None:
                started[0].kill()
                started[0].wait()
            return normal(request)

        server.answer = deadly  # type: ignore[method-assign]  # a server that ends its client
        with subprocess.Popen(aerogel.argv("pull", name), env=aerogel.env, stderr=subprocess.DEVNULL) as process:
            started.append(process)
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert aerogel("images", "-q").stdout == ""
        server.seen.clear()
        aerogel("pull", name)
        assert [each.headers.get("range") for each in server.seen if digest in each.path] == [f"bytes={half}-"]
        assert not list((tmp_path / "state/data/scratch").glob("p-*"))
        aerogel("inspect", name)
