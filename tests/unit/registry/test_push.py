from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import BinaryIO

import pytest
from loop_registry import LAYER, Answer, LoopRegistry, serve_registry, sha

from aerogel.errors import AerogelError, render
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference
from aerogel.oci.types import OCI_MANIFEST, Descriptor
from aerogel.registry import push
from aerogel.registry.client import Registries
from aerogel.registry.push import Uploads

Client = Callable[..., Registries]
BLOB = Descriptor(media_type="application/octet-stream", digest=Digest(sha(LAYER)), size=len(LAYER))
AMY = base64.b64encode(b"amy:open-sesame").decode()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 100_000)


def uploads(server: LoopRegistry, client: Registries) -> Uploads:
    return Uploads(client.repository(Reference.parse(f"{server.host}/app")))


def stream() -> BinaryIO:
    return io.BytesIO(LAYER)


def test_a_blob_goes_in_one_put(server: LoopRegistry, client: Client) -> None:
    counted: list[int] = []
    assert uploads(server, client()).blob(BLOB, stream, on_bytes=counted.append) == push.UPLOADED
    assert server.blobs["app"][BLOB.digest] == LAYER
    assert [seen.method for seen in server.seen] == ["GET", "HEAD", "POST", "PUT"]
    assert server.seen[-1].query == {"_state": "s0", "digest": BLOB.digest}
    assert sum(counted) == len(LAYER)


def test_what_is_there_is_not_sent(server: LoopRegistry, client: Client) -> None:
    server.add_blob("app", LAYER)
    counted: list[int] = []
    assert uploads(server, client()).blob(BLOB, stream, on_bytes=counted.append) == push.PRESENT
    assert server.count("POST") == 0
    assert counted == [len(LAYER)]


def test_a_blob_is_mounted(server: LoopRegistry, client: Client) -> None:
    server.add_blob("base/image", LAYER)
    found = uploads(server, client()).blob(BLOB, stream, mount_from=lambda _: "base/image")
    assert found == push.MOUNTED
    assert server.seen[-1].query == {"mount": BLOB.digest, "from": "base/image"}
    assert server.count("PUT") == 0


def test_a_mount_that_is_not_possible_becomes_an_upload(server: LoopRegistry, client: Client) -> None:
    server.mounts = False
    where = uploads(server, client())
    assert where.blob(BLOB, stream, mount_from=lambda _: "base/image") == push.UPLOADED
    assert server.count("POST") == 1
    server.blobs.clear()
    server.fail("POST", "/uploads/", Answer(403, b'{"errors":[{"code":"DENIED"}]}'))
    assert where.blob(BLOB, stream, mount_from=lambda _: "base/image") == push.UPLOADED


def test_a_registry_that_finds_the_blob_itself(server: LoopRegistry, client: Client) -> None:
    server.discovers = True
    server.add_blob("base/image", LAYER)
    assert uploads(server, client()).blob(BLOB, stream) == push.MOUNTED
    assert server.seen[-1].query == {"mount": BLOB.digest}
    assert server.count("PUT") == 0


def test_a_registry_that_does_not_know_the_question(server: LoopRegistry, client: Client) -> None:
    """It is asked once in a run; the upload is begun as before."""
    where = uploads(server, client())
    server.fail("POST", "/uploads/", Answer(400, b'{"errors":[{"code":"NAME_UNKNOWN"}]}'))
    assert where.blob(BLOB, stream) == push.UPLOADED
    assert [seen.query for seen in server.seen if seen.method == "POST"] == [{"mount": BLOB.digest}, {}]
    server.blobs.clear()
    assert where.blob(BLOB, stream) == push.UPLOADED
    assert server.count("POST") == 3
    assert server.seen[-2].query == {}


@pytest.mark.usefixtures("small_chunks")
def test_a_registry_that_takes_no_large_put_gets_chunks(server: LoopRegistry, client: Client) -> None:
    server.monolithic = False
    counted: list[int] = []
    assert uploads(server, client()).blob(BLOB, stream, on_bytes=counted.append) == push.UPLOADED
    assert server.blobs["app"][BLOB.digest] == LAYER
    assert server.count("PATCH") == -(-len(LAYER) // 100_000)
    assert sum(counted) == len(LAYER)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_go_on_where_the_registry_has_got_to(server: LoopRegistry, client: Client) -> None:
    server.monolithic = False
    counted: list[int] = []
    server.fail("PATCH", "/uploads/", Answer(500))
    server.fail("PATCH", "/uploads/", Answer(416))
    assert uploads(server, client()).blob(BLOB, stream, on_bytes=counted.append) == push.UPLOADED
    assert server.count("GET", "/uploads/") == 2
    assert server.blobs["app"][BLOB.digest] == LAYER
    assert sum(counted) == len(LAYER)


@pytest.mark.usefixtures("small_chunks")
def test_the_registry_may_want_larger_chunks(server: LoopRegistry, client: Client) -> None:
    server.monolithic = False
    plain = server._upload

    def upload(request: object, name: str, key: str) -> Answer:
        answer = plain(request, name, key)  # type: ignore[arg-type]  # what it gets itself
        answer.headers["OCI-Chunk-Min-Length"] = "300000"
        return answer

    server._upload = upload  # type: ignore[method-assign]  # this server is odd
    assert uploads(server, client()).blob(BLOB, stream) == push.UPLOADED
    sizes = [len(seen.body) for seen in server.seen if seen.method == "PATCH"]
    assert sizes == [100_000, 300_000, len(LAYER) - 400_000]


def test_it_gives_up(server: LoopRegistry, client: Client) -> None:
    server.fail("PUT", "/uploads/", Answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}'), times=50)
    with pytest.raises(AerogelError) as caught:
        uploads(server, client()).blob(BLOB, stream)
    assert caught.value.code == "registry.status"
    assert "400 Bad Request, DIGEST_INVALID (no)" in caught.value.message
    assert "_state=***" in caught.value.message
    assert server.count("PUT") == 3


def test_pushing_needs_the_right(server: LoopRegistry, client: Client) -> None:
    server.auth, server.public = "token", {"app"}
    with pytest.raises(AerogelError) as caught:
        uploads(server, client()).blob(BLOB, stream)
    assert caught.value.code == "registry.unauthorized"
    assert "aerogel login" in render(caught.value)
    assert uploads(server, client({server.host: {"auth": AMY}})).blob(BLOB, stream) == push.UPLOADED
    scopes = [seen.query["scope"] for seen in server.seen if seen.path == "/token"]
    assert scopes[-1] == "repository:app:pull,push"


def test_the_scope_of_a_mount_names_both(server: LoopRegistry, client: Client) -> None:
    server.auth = "token"
    server.add_blob("base", LAYER)
    where = uploads(server, client({server.host: {"auth": AMY}}))
    assert where.blob(BLOB, stream, mount_from=lambda _: "base") == push.MOUNTED
    scopes = [seen.query["scope"] for seen in server.seen if seen.path == "/token"]
    assert scopes[-1] == "repository:app:pull,push repository:base:pull"


def test_an_upload_to_another_host_gets_no_credentials(server: LoopRegistry, client: Client) -> None:
    server.auth = "basic"
    seen = []
    with serve_registry(lambda request: (seen.append(request), Answer(201))[1]) as other:
        server.fail("POST", "/uploads/", Answer(202, b"", {"Location": f"http://{other.host}/bucket?signed=1"}))
        uploads(server, client({server.host: {"auth": AMY}})).blob(BLOB, stream)
    assert [(request.method, request.headers.get("authorization")) for request in seen] == [("PUT", None)]
    assert seen[0].body == LAYER


def test_a_manifest_and_its_tag(server: LoopRegistry, client: Client) -> None:
    config = {"mediaType": "x", "digest": server.add_blob("app", b"{}"), "size": 2}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}).encode()
    descriptor = Descriptor(media_type=OCI_MANIFEST, digest=Digest(sha(data)), size=len(data))
    where = uploads(server, client())
    assert not where.is_there("one", descriptor.digest)
    where.manifest(data, descriptor, "one")
    assert where.is_there("one", descriptor.digest)
    assert server.manifests["app"]["one"] == (OCI_MANIFEST, data)
    other = Answer(201, b"", {"Docker-Content-Digest": sha(b"other")})
    server.fail("PUT", "/manifests/", other)
    with pytest.raises(AerogelError) as caught:
        where.manifest(data, descriptor, "one")
    assert caught.value.code == "registry.digest-mismatch"


def test_the_rate_limit_is_waited_for(server: LoopRegistry, client: Client, waits: list[float]) -> None:
    server.fail("POST", "/uploads/", Answer(429, b"", {"Retry-After": "3"}))
    server.fail("PUT", "/uploads/", Answer(503, b"", {"Retry-After": "4"}))
    assert uploads(server, client()).blob(BLOB, stream) == push.UPLOADED
    assert waits == [3.0, 4.0]
