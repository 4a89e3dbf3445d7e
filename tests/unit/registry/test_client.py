from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import pytest
from loop_registry import LAYER, Answer, LoopRegistry, Request, serve_registry, sha

from aerogel.errors import EXIT_FAILED, EXIT_NETWORK, AerogelError, render
from aerogel.oci.digest import Digest
from aerogel.oci.image import MemoryBlobs, copy, load, walk
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from aerogel.registry.client import Registries, Repository

Client = Callable[..., Registries]

AMY = base64.b64encode(b"amy:open-sesame").decode()


def repository(server: LoopRegistry, client: Registries, name: str = "app") -> Repository:
    return client.repository(Reference.parse(f"{server.host}/{name}"))


def reference(server: LoopRegistry, text: str = "app:one") -> Reference:
    return Reference.parse(f"{server.host}/{text}")


def fails(code: str, run: Callable[[], object]) -> AerogelError:
    with pytest.raises(AerogelError) as caught:
        run()
    assert caught.value.code == code, render(caught.value)
    text = render(caught.value)
    assert "open-sesame" not in text
    assert AMY not in text
    assert "token-" not in text
    return caught.value


def test_a_document_by_tag_and_by_digest(server: LoopRegistry, client: Client, pushed: str) -> None:
    where = repository(server, client())
    found = where.document(reference(server))
    assert (found.descriptor.digest, found.descriptor.media_type) == (pushed, OCI_MANIFEST)
    by_digest = where.document(reference(server, f"app@{pushed}"))
    assert by_digest == found
    accept = server.seen[-1].headers["accept"]
    assert all(kind in accept for kind in (OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST, "manifest.list.v2"))


def test_oci_copy_moves_a_whole_image(server: LoopRegistry, client: Client, pushed: str) -> None:
    source = repository(server, client()).blobs()
    descriptor = source.resolve(reference(server))
    target = MemoryBlobs()
    assert copy(descriptor, source, target) == sum(part.size for part in walk(descriptor, source))
    assert all(target.has(part.digest) for part in walk(descriptor, target))
    assert copy(descriptor, source, target) == 0


def test_an_index_gives_the_image_of_a_platform(server: LoopRegistry, client: Client, pushed: str) -> None:
    kind, data = server.manifests["app"][pushed]
    entry = {"mediaType": kind, "digest": pushed, "size": len(data)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX}
    index["manifests"] = [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]
    server.add_manifest("app", json.dumps(index).encode(), OCI_INDEX, "many")
    source = repository(server, client()).blobs()
    descriptor = source.resolve(reference(server, "app:many"))
    assert load(descriptor, source, Platform.parse("linux/amd64")).digest == pushed
    error = fails("oci.platform-missing", lambda: load(descriptor, source, Platform.parse("linux/s390x")))
    assert error.hints == ("it has `linux/amd64`",)


def test_a_blob_comes_whole_though_the_connection_breaks(server: LoopRegistry, client: Client, pushed: str) -> None:
    digest = Digest(sha(LAYER))
    server.fail("GET", f"/blobs/{digest}", Answer(200, LAYER, cut_at=100_000))
    file, counted = io.BytesIO(), []
    repository(server, client()).fetch(digest, len(LAYER), file, on_bytes=counted.append)
    assert file.getvalue() == LAYER
    assert server.seen[-1].headers["range"] == "bytes=100000-"
    assert sum(counted) == len(LAYER)


def test_a_wrong_blob_is_fetched_once_more_and_then_refused(server: LoopRegistry, client: Client, pushed: str) -> None:
    digest = Digest(sha(LAYER))
    wrong = b"x" + LAYER[1:]
    server.fail("GET", f"/blobs/{digest}", Answer(200, wrong))
    file, counted = io.BytesIO(), []
    repository(server, client()).fetch(digest, len(LAYER), file, on_bytes=counted.append)
    assert file.getvalue() == LAYER
    assert sum(counted) == len(LAYER)
    server.fail("GET", f"/blobs/{digest}", Answer(200, wrong), times=2)
    where = repository(server, client())
    error = fails("registry.digest-mismatch", lambda: where.fetch(digest, len(LAYER), io.BytesIO()))
    assert error.detail == f"expected {digest}\nfound    {sha(wrong)}"


def test_a_blob_of_another_size_is_refused(server: LoopRegistry, client: Client, pushed: str) -> None:
    where = repository(server, client())
    fails("net.size-mismatch", lambda: where.fetch(Digest(sha(LAYER)), len(LAYER) - 1, io.BytesIO()))


@pytest.mark.parametrize("header", [True, False])
def test_a_manifest_that_is_not_its_digest_is_refused(
    server: LoopRegistry, client: Client, pushed: str, header: bool
) -> None:
    kind, data = server.manifests["app"][pushed]
    changed = data.replace(b'"schemaVersion": 2', b'"schemaVersion":  2')
    extra = {"Docker-Content-Digest": pushed} if header else {}
    server.fail("GET", "/manifests/", Answer(200, changed, {"Content-Type": kind, **extra}))
    name = "app:one" if header else f"app@{pushed}"
    error = fails("registry.digest-mismatch", lambda: repository(server, client()).document(reference(server, name)))
    assert error.detail == f"expected {pushed}\nfound    {sha(changed)}"


def test_a_truncated_manifest_is_fetched_again(server: LoopRegistry, client: Client, pushed: str) -> None:
    kind, data = server.manifests["app"][pushed]
    server.fail("GET", "/manifests/", Answer(200, data, {"Content-Type": kind}, cut_at=50))
    assert repository(server, client()).document(reference(server)).data == data


def test_half_a_manifest_that_claims_to_be_whole(server: LoopRegistry, client: Client, pushed: str) -> None:
    kind, data = server.manifests["app"][pushed]
    server.fail("GET", "/manifests/", Answer(200, data[:50], {"Content-Type": kind}))
    fails("registry.no-manifest", lambda: repository(server, client()).document(reference(server)))


def test_a_page_with_status_200_is_no_manifest(server: LoopRegistry, client: Client) -> None:
    server.fail("GET", "/manifests/", Answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"}))
    error = fails("registry.no-manifest", lambda: repository(server, client()).document(reference(server)))
    assert "`text/html`" in error.message


def test_a_huge_manifest_is_not_taken(server: LoopRegistry, client: Client) -> None:
    server.fail("GET", "/manifests/", Answer(200, bytes(5 << 20)))
    fails("net.too-large", lambda: repository(server, client()).document(reference(server)))


def test_a_missing_tag_names_the_nearest(server: LoopRegistry, client: Client, pushed: str) -> None:
    error = fails("registry.not-found", lambda: repository(server, client()).document(reference(server, "app:onee")))
    assert error.exit_status == EXIT_FAILED
    assert error.hints == (f"did you mean `{server.host}/app:one`?",)
    url = f"GET http://{server.host}/v2/app/manifests/onee: 404 Not Found, MANIFEST_UNKNOWN (manifest unknown)"
    assert error.message == f"image `{server.host}/app:onee` is not in the registry `{server.host}`: {url}"
    error = fails("registry.not-found", lambda: repository(server, client()).document(reference(server, "app:zzzz")))
    assert error.hints == ("tags there: `one`",)


def test_a_server_error_is_tried_again_and_then_told(
    server: LoopRegistry, client: Client, pushed: str, waits: list[float]
) -> None:
    server.fail("GET", "/manifests/", Answer(500), times=2)
    assert repository(server, client()).document(reference(server)).descriptor.digest == pushed
    assert len(waits) == 2
    server.fail("GET", "/manifests/", Answer(500, b'{"errors":[{"code":"UNKNOWN","message":"disk"}]}'), times=9)
    error = fails("registry.status", lambda: repository(server, client()).document(reference(server)))
    assert "500 Internal Server Error, UNKNOWN (disk)" in error.message
    assert error.exit_status == EXIT_NETWORK


def test_the_rate_limit_is_waited_for_or_told(
    server: LoopRegistry, client: Client, pushed: str, waits: list[float]
) -> None:
    server.fail("GET", "/manifests/", Answer(429, b"", {"Retry-After": "5"}))
    repository(server, client()).document(reference(server))
    assert waits == [5.0]
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}'
    server.fail("GET", "/manifests/", Answer(429, body, {"Retry-After": "7200"}))
    error = fails("registry.rate-limit", lambda: repository(server, client()).document(reference(server)))
    assert "it asks to wait 7200 seconds" in error.message
    assert "TOOMANYREQUESTS" in error.message
    assert error.hints[0] == f"log in with `aerogel login {server.host}`: users have higher limits"


def test_a_dead_registry(client: Client, waits: list[float]) -> None:
    with serve_registry() as gone:
        pass
    error = fails("net.unreachable", lambda: repository(gone, client()).document(reference(gone)))
    assert error.exit_status == EXIT_NETWORK


# Authentication


def test_basic(server: LoopRegistry, client: Client, pushed: str, secrets: list[str]) -> None:
    server.auth = "basic"
    login = {server.host: {"auth": AMY}}
    assert repository(server, client(login)).document(reference(server)).descriptor.digest == pushed
    assert [seen.headers.get("authorization") for seen in server.seen] == [None, f"Basic {AMY}"]
    assert "open-sesame" in secrets


def test_basic_is_sent_unasked_when_the_registry_asks_nothing(
    server: LoopRegistry, client: Client, pushed: str
) -> None:
    repository(server, client({server.host: {"auth": AMY}})).document(reference(server))
    assert server.seen[-1].headers["authorization"] == f"Basic {AMY}"


def test_refused_credentials_end_at_once(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth = "basic"
    wrong = {server.host: {"auth": base64.b64encode(b"amy:wrong-one").decode()}}
    error = fails("registry.unauthorized", lambda: repository(server, client(wrong)).document(reference(server)))
    assert "refuses the credentials of `amy`" in error.message
    assert server.count("GET", "/manifests/") == 1


def test_anonymous_users_are_told_to_log_in(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth = "basic"
    error = fails("registry.unauthorized", lambda: repository(server, client()).document(reference(server)))
    assert error.hints == (f"check the name, or log in with `aerogel login {server.host}`",)
    assert error.exit_status == EXIT_NETWORK


def test_anonymous_tokens_for_public_names(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth, server.public = "token", {"app"}
    source = repository(server, client()).blobs()
    target = MemoryBlobs()
    copy(source.resolve(reference(server)), source, target)
    assert server.count("GET", "/token") == 1
    assert server.seen[1].query == {"service": "loop", "scope": "repository:app:pull"}
    server.public = set()
    fails("registry.unauthorized", lambda: repository(server, client()).document(reference(server)))


def test_tokens_for_users(server: LoopRegistry, client: Client, pushed: str, secrets: list[str]) -> None:
    server.auth = "token"
    repository(server, client({server.host: {"auth": AMY}})).document(reference(server))
    asked = next(seen for seen in server.seen if seen.path == "/token")
    assert asked.headers["authorization"] == f"Basic {AMY}"
    assert server.seen[-1].headers["authorization"].startswith("Bearer ")
    assert any(secret.startswith("token-") for secret in secrets)


def test_an_identity_token_is_posted(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth = "token"
    login = {server.host: {"auth": base64.b64encode(b"amy:").decode(), "identitytoken": "identity-of-amy"}}
    repository(server, client(login)).document(reference(server))
    asked = next(seen for seen in server.seen if seen.path == "/token")
    assert asked.method == "POST"
    assert b"refresh_token=identity-of-amy" in asked.body
    assert "authorization" not in asked.headers


def test_an_ended_token_is_renewed(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth, server.public = "token", {"app"}
    where = repository(server, client())
    where.document(reference(server))
    server.tokens.clear()  # the server forgot it before its time
    where.document(reference(server))
    assert server.count("GET", "/token") == 2


def test_a_token_is_renewed_before_its_end(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth, server.public, server.expires_in = "token", {"app"}, 100
    now = [0.0]
    where = repository(server, client(clock=lambda: now[0]))
    where.document(reference(server))
    now[0] = 89.0
    where.document(reference(server))
    assert server.count("GET", "/token") == 1
    now[0] = 91.0
    where.document(reference(server))
    assert server.count("GET", "/token") == 2


def test_a_loop_of_401_ends(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth, server.public = "token", {"app"}
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="loop"'}
    server.fail("GET", "/manifests/", Answer(401, b"", challenge), times=50)
    fails("registry.unauthorized", lambda: repository(server, client()).document(reference(server)))
    assert server.count("GET", "/manifests/") == 3


def test_a_token_server_that_gives_none(server: LoopRegistry, client: Client) -> None:
    server.auth = "token"
    server.fail("GET", "/token", Answer(200, b'{"expires_in": 3}'))
    fails("registry.token", lambda: repository(server, client()).document(reference(server)))
    server.fail("GET", "/token", Answer(200, b'{"token": "a\\r\\nX-Evil: 1"}'))
    fails("registry.token", lambda: repository(server, client()).document(reference(server)))


def test_a_challenge_of_another_realm_does_not_move_credentials(
    server: LoopRegistry, client: Client, pushed: str
) -> None:
    server.auth = "token"
    with serve_registry() as thief:
        evil = {"WWW-Authenticate": f'Bearer realm="http://{thief.host}/token",service="x",scope="repository:app:push"'}
        server.fail("GET", "/manifests/", Answer(401, b"", evil))
        where = repository(server, client({server.host: {"auth": AMY}}))
        assert where.document(reference(server)).descriptor.digest == pushed
        assert thief.seen == []


def test_a_redirect_to_another_host_carries_no_credentials(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth = "token"

    def content(request: Request) -> Answer:
        seen.append(request)
        return Answer(200, LAYER)

    seen: list[Request] = []
    with serve_registry(content) as other:
        server.redirect_blobs_to = f"http://{other.host}/bucket"
        file = io.BytesIO()
        where = repository(server, client({server.host: {"auth": AMY}}))
        where.fetch(Digest(sha(LAYER)), len(LAYER), file)
    assert file.getvalue() == LAYER
    assert [request.headers.get("authorization") for request in seen] == [None]


def test_a_401_of_a_redirected_host_gets_nothing(server: LoopRegistry, client: Client, pushed: str) -> None:
    server.auth = "basic"

    def steal(request: Request) -> Answer:
        seen.append(request)
        return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="give me yours"'})

    seen: list[Request] = []
    with serve_registry(steal) as other:
        server.redirect_blobs_to = f"http://{other.host}/bucket"
        where = repository(server, client({server.host: {"auth": AMY}}))
        fails("registry.unauthorized", lambda: where.fetch(Digest(sha(LAYER)), len(LAYER), io.BytesIO()))
    assert all("authorization" not in request.headers for request in seen)


def test_insecure_is_said_by_the_user(server: LoopRegistry, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a registry that was named as insecure is spoken to without TLS."""
    monkeypatch.setattr("aerogel.registry.endpoint._is_loopback", lambda _: False)
    error = fails("net.tls", lambda: repository(server, client()).document(reference(server)))
    assert f"`--insecure-registry {server.host}`" in error.hints[-1]
    insecure = client(insecure={server.host})
    fails("registry.not-found", lambda: repository(server, insecure).document(reference(server)))


@pytest.mark.parametrize(
    "half", [LAYER[:100_000], b"wrong" + LAYER[5:100_000], LAYER, LAYER + b"more", b"x" * len(LAYER)]
)
def test_what_another_process_left_is_gone_on_with(
    server: LoopRegistry, client: Client, pushed: str, half: bytes
) -> None:
    digest = Digest(sha(LAYER))
    file, counted = io.BytesIO(half), []
    repository(server, client()).fetch(digest, len(LAYER), file, on_bytes=counted.append)
    assert file.getvalue() == LAYER
    assert sum(counted) == len(LAYER)
    asked = [seen.headers.get("range") for seen in server.seen if digest in seen.path]
    if half == LAYER[:100_000]:
        assert asked == ["bytes=100000-"]
    elif half == LAYER:
        assert asked == []
    else:
        assert asked[-1] is None, "what was wrong is fetched whole"
