"""What the official conformance suite of the OCI distribution-spec expects (v1.1 and the coming tag parameters).

One test for each expectation, in its four workflows: pull, push, content discovery, content management. Those with
`either` hold for Debian's docker-registry too; it knows no referrers, no deletion of tags, no order or pages of tags and no
other algorithm than sha256, accepts chunks out of order, and cuts the connection at a range that is none.
Debian packages: docker-registry.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from process import Aerogel
from real_registry import start
from served import EMPTY, INDEX, MANIFEST, Client, Registry, Reply, sha

pytestmark = pytest.mark.host("docker-registry")

OCTETS = "application/octet-stream"
CHUNK = 5000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    server = Registry(Aerogel(tmp_path_factory.mktemp("registry")), "--writable")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server, process = start(tmp_path_factory.mktemp("debian"), {}, {})
    yield Client(server.host)
    process.terminate()
    process.wait()


@pytest.fixture(params=["aerogel", "docker-registry"])
def either(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue("registry" if request.param == "aerogel" else "debian")
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository for each test."""
    return "conformance/" + request.node.name.split("[")[0].replace("_", "-")


def begin(where: Client, name: str) -> str:
    begun = where.ask("POST", f"/v2/{name}/blobs/uploads/")
    assert begun.status == 202, begun
    return begun.headers["location"]


def with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def put(where: Client, name: str, reference: str, value: dict[str, Any] | bytes, kind: str = MANIFEST) -> Reply:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return where.ask("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=kind)


def image(where: Client, name: str, **more: Any) -> dict[str, Any]:
    """A manifest whose blobs are there, of different content each time."""
    config = {**where.blob(name, b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')}
    layer = where.blob(name, os.urandom(100))
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], **more}


def stands(where: Client, name: str, data: bytes, kind: str, *references: str) -> None:
    """GET and HEAD give the manifest by each of its names, as it was sent."""
    for reference in (sha(data), *references):
        for method, body in (("GET", data), ("HEAD", b"")):
            got = where.ask(method, f"/v2/{name}/manifests/{reference}", Accept=kind)
            assert (got.status, got.body, got.headers["content-type"]) == (200, body, kind)
            assert got.headers["docker-content-digest"] == sha(data)
            assert got.headers["content-length"] == str(len(data))


def pushed(where: Client, name: str, value: dict[str, Any], kind: str = MANIFEST) -> dict[str, Any]:
    """Puts a manifest by its digest and by the tag `it`; its descriptor."""
    data = json.dumps(value).encode()
    for reference in (sha(data), "it"):
        made = put(where, name, reference, data, kind)
        assert made.status == 201, made
        assert made.headers["docker-content-digest"] == sha(data)
        assert where.ask("GET", path_of(made.headers["location"]), Accept=kind).body == data
    stands(where, name, data, kind, "it")
    return {"mediaType": kind, "digest": sha(data), "size": len(data)}


def path_of(location: str) -> str:
    """A location may be a path or a whole address."""
    return "/" + location.split("/", 3)[3] if "://" in location else location


def holds(where: Client, name: str, data: bytes, digest: str) -> None:
    head = where.ask("HEAD", f"/v2/{name}/blobs/{digest}")
    assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
    got = where.ask("GET", f"/v2/{name}/blobs/{digest}")
    assert (got.status, got.body, got.headers["docker-content-digest"]) == (200, data, digest)


# Determining support.


def test_ping(either: Client) -> None:
    assert either.ask("GET", "/v2/").status == 200


# Pull.


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)],
)
def test_ranges(either: Client, name: str, wanted: str, first: int, last: int) -> None:
    data = os.urandom(2048)
    digest = either.blob(name, data)["digest"]
    got = either.ask("GET", f"/v2/{name}/blobs/{digest}", Range=f"bytes={wanted}")
    assert (got.status, got.body) == (206, data[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/2048"
    assert got.headers["content-length"] == str(last + 1 - first)


def test_a_range_behind_the_end(registry: Registry, name: str) -> None:
    digest = registry.blob(name, os.urandom(2048))["digest"]
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}", Range="bytes=5000-10000").status == 416


def test_a_range_that_is_none(registry: Registry, name: str) -> None:
    digest = registry.blob(name, os.urandom(2048))["digest"]
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest}", Range="bytes=500-0").status == 416


def test_what_is_not_there(either: Client, name: str) -> None:
    pushed(either, name, image(either, name))
    blob = either.ask("GET", f"/v2/{name}/blobs/{sha(b'nothing')}")
    assert (blob.status, blob.code()) == (404, "BLOB_UNKNOWN")
    assert either.ask("HEAD", f"/v2/{name}/blobs/{sha(b'nothing')}").status == 404
    for reference in ("nothing", sha(b"nothing")):
        manifest = either.ask("GET", f"/v2/{name}/manifests/{reference}")
        assert (manifest.status, manifest.code()) == (404, "MANIFEST_UNKNOWN")
        assert either.ask("HEAD", f"/v2/{name}/manifests/{reference}").status == 404


# Push: blobs. Each way, right and with a wrong digest, with both algorithms where that is known.


def post_only(where: Client, name: str, data: bytes, digest: str) -> Reply:
    return where.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data, Content_Type=OCTETS)


def post_put(where: Client, name: str, data: bytes, digest: str) -> Reply:
    location = begin(where, name)
    return where.ask("PUT", with_digest(location, digest), data, Content_Type=OCTETS)


def chunks(where: Client, name: str, data: bytes, location: str) -> str:
    for at in range(0, len(data), CHUNK):
        part = data[at : at + CHUNK]
        span = f"{at}-{at + len(part) - 1}"
        done = where.ask("PATCH", location, part, Content_Type=OCTETS, Content_Range=span)
        assert (done.status, done.headers["range"]) == (202, f"0-{at + len(part) - 1}")
        location = done.headers["location"]
    return location


def chunked(where: Client, name: str, data: bytes, digest: str) -> Reply:
    location = chunks(where, name, data, begin(where, name))
    return where.ask("PUT", with_digest(location, digest), b"")


def chunked_with_the_last_in_put(where: Client, name: str, data: bytes, digest: str) -> Reply:
    location = chunks(where, name, data[: 2 * CHUNK], begin(where, name))
    headers = {"Content_Type": OCTETS, "Content_Range": f"{2 * CHUNK}-{len(data) - 1}"}
    return where.ask("PUT", with_digest(location, digest), data[2 * CHUNK :], **headers)


def streamed(where: Client, name: str, data: bytes, digest: str) -> Reply:
    location = begin(where, name)
    connection = http.client.HTTPConnection(where.host, timeout=60)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": OCTETS}
    parts = iter([data[: len(data) // 2], data[len(data) // 2 :]])
    connection.request("PATCH", path_of(location), body=parts, encode_chunked=True, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 202
    return where.ask("PUT", with_digest(answer.headers["Location"], digest), b"")


WAYS = (post_put, chunked, chunked_with_the_last_in_put, streamed)


@pytest.mark.parametrize("way", WAYS)
def test_uploads(either: Client, name: str, way: Any) -> None:
    data = os.urandom(3 * CHUNK - 5)
    made = way(either, name, data, sha(data))
    assert made.status == 201, made
    assert either.ask("GET", path_of(made.headers["location"])).body == data
    holds(either, name, data, sha(data))


@pytest.mark.parametrize("way", [post_only, *WAYS])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_uploads_with_algorithms(registry: Registry, name: str, way: Any, algorithm: str) -> None:
    for data in (os.urandom(3 * CHUNK - 5), os.urandom(2 * CHUNK + 1)):
        made = way(registry, name, data, sha(data, algorithm))
        assert (made.status, made.headers["docker-content-digest"]) == (201, sha(data, algorithm))
        holds(registry, name, data, sha(data, algorithm))


@pytest.mark.parametrize("way", WAYS)
def test_uploads_that_are_not_their_digest(either: Client, name: str, way: Any) -> None:
    data = os.urandom(3 * CHUNK - 5)
    refused = way(either, name, data + b"oh no", sha(data))
    assert (refused.status, refused.code()) == (400, "DIGEST_INVALID")
    assert either.ask("HEAD", f"/v2/{name}/blobs/{sha(data)}").status == 404


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_blobs_that_everybody_knows(either: Client, name: str, data: bytes) -> None:
    assert post_put(either, name, data, sha(data)).status == 201
    holds(either, name, data, sha(data))


@pytest.mark.parametrize("way", ["patch", "put"])
def test_chunks_out_of_order(registry: Registry, name: str, way: str) -> None:
    data = os.urandom(3 * CHUNK - 5)
    location = begin(registry, name)
    late = registry.ask("PATCH", location, data[CHUNK : 2 * CHUNK], Content_Range=f"{CHUNK}-{2 * CHUNK - 1}")
    assert late.status == 416
    location = chunks(registry, name, data[: 2 * CHUNK], location)
    again = registry.ask("PATCH", location, data[:CHUNK], Content_Range=f"0-{CHUNK - 1}")
    assert (again.status, again.headers["range"]) == (416, f"0-{2 * CHUNK - 1}")
    asked = registry.ask("GET", location)
    assert (asked.status, asked.headers["range"]) == (204, f"0-{2 * CHUNK - 1}")
    rest, span = data[2 * CHUNK :], f"{2 * CHUNK}-{len(data) - 1}"
    if way == "patch":
        location = registry.ask("PATCH", asked.headers["location"], rest, Content_Range=span).headers["location"]
        done = registry.ask("PUT", with_digest(location, sha(data)), b"")
    else:
        done = registry.ask("PUT", with_digest(location, sha(data)), rest, Content_Range=span)
    assert done.status == 201
    holds(registry, name, data, sha(data))


def test_an_upload_that_is_given_up(either: Client, name: str) -> None:
    location = begin(either, name)
    asked = either.ask("GET", location)
    assert asked.status == 204
    assert either.ask("DELETE", path_of(asked.headers["location"])).status == 204
    gone = either.ask("GET", location)
    assert (gone.status, gone.code()) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_mounts_from_a_repository(either: Client, name: str) -> None:
    data = os.urandom(500)
    digest = either.blob(f"{name}/source", data)["digest"]
    made = either.ask("POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from={name}/source")
    assert made.status == 201
    assert either.ask("GET", path_of(made.headers["location"])).body == data
    holds(either, name, data, digest)
    absent = either.ask("POST", f"/v2/{name}/blobs/uploads/?mount={sha(b'absent')}&from={name}/source")
    assert (absent.status, "location" in absent.headers) == (202, True)


def test_mounts_from_anywhere(registry: Registry, name: str) -> None:
    data = os.urandom(500)
    digest = registry.blob(f"{name}/source", data)["digest"]
    assert registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={digest}").status == 201
    holds(registry, name, data, digest)


# Push: manifests.


def test_an_image(either: Client, name: str) -> None:
    pushed(either, name, image(either, name))


def test_unknown_fields_and_data_stay(either: Client, name: str) -> None:
    value = image(either, name, custom={"any": ["thing"]}, annotations={"a": "b"})
    value["layers"].append({**either.blob(name, b"data"), "data": "ZGF0YQ==", "custom": 1})
    pushed(either, name, value)


def test_no_layers(either: Client, name: str) -> None:
    pushed(either, name, {**image(either, name), "layers": []})


def test_layers_that_are_not_distributed(registry: Registry, name: str) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    value = image(registry, name)
    digest = sha(b"elsewhere")
    address = f"https://store.example.com/blobs/{digest}"
    value["layers"].insert(0, {"mediaType": kind, "digest": digest, "size": 12345, "urls": [address]})
    pushed(registry, name, value)


def test_a_large_manifest(registry: Registry, name: str) -> None:
    """Four mebibytes are taken, more are not."""
    value = image(registry, name, annotations={f"large-{number}": "A" * 10_000 for number in range(390)})
    pushed(registry, name, value)
    refused = put(registry, name, "large", {**value, "more": "A" * 400_000})
    assert (refused.status, refused.code()) == (413, "SIZE_INVALID")


def test_indexes(either: Client, name: str) -> None:
    """With images, with an index in it, and empty."""
    platforms = [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"}]
    images = [{**pushed(either, name, image(either, name)), "platform": each} for each in platforms]
    inner = pushed(either, name, {"schemaVersion": 2, "mediaType": INDEX, "manifests": images}, INDEX)
    pushed(either, name, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}, INDEX)
    pushed(either, name, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, INDEX)


def test_artifacts(either: Client, name: str) -> None:
    """With a type of its own, and without layers: the empty blob stands for them."""
    empty = {**either.blob(name, b"{}"), "mediaType": EMPTY}
    whole = image(either, name, artifactType="application/vnd.example.conf")
    pushed(either, name, {**whole, "config": empty})
    pushed(either, name, {**whole, "config": empty, "layers": [empty]})


def test_an_index_of_artifacts(registry: Registry, name: str) -> None:
    first = pushed(registry, name, image(registry, name, artifactType="application/vnd.example.conf"))
    value = {"schemaVersion": 2, "mediaType": INDEX, "artifactType": "application/vnd.example.set"}
    pushed(registry, name, {**value, "manifests": [first]}, INDEX)


def test_a_manifest_that_is_not_its_digest(either: Client, name: str) -> None:
    data = json.dumps(image(either, name)).encode()
    refused = put(either, name, sha(data), data + b"  ")
    assert (refused.status, refused.code()) == (400, "DIGEST_INVALID")
    assert either.ask("GET", f"/v2/{name}/manifests/{sha(data)}").status == 404


def test_a_manifest_by_sha512(registry: Registry, name: str) -> None:
    data = json.dumps(image(registry, name)).encode()
    digest = sha(data, "sha512")
    made = put(registry, name, digest, data)
    assert (made.status, made.headers["docker-content-digest"]) == (201, digest)
    got = registry.ask("GET", f"/v2/{name}/manifests/{digest}")
    assert (got.body, got.headers["docker-content-digest"]) == (data, digest)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_tags_that_come_with_a_digest(registry: Registry, name: str, algorithm: str) -> None:
    data = json.dumps(image(registry, name)).encode()
    digest = sha(data, algorithm)
    made = put(registry, name, f"{digest}?tag=one&tag=two", data)
    assert (made.status, made.headers["oci-tag"]) == (201, "one, two")
    for tag in ("one", "two"):
        assert registry.ask("HEAD", f"/v2/{name}/manifests/{tag}").headers["docker-content-digest"] == digest
    refused = put(registry, name, f"{digest}?tag=one&tag=.no", data)
    assert (refused.status, refused.code()) == (400, "MANIFEST_INVALID")


def test_a_manifest_whose_blobs_are_not_there(either: Client, name: str) -> None:
    value = image(either, name)
    value["layers"][0]["digest"] = sha(b"not there")
    refused = put(either, name, "it", value)
    assert refused.status in (400, 404)
    assert "BLOB_UNKNOWN" in refused.code()


# Content discovery.


def test_tags_in_pages(registry: Registry, name: str) -> None:
    data = json.dumps(image(registry, name)).encode()
    for tag in ("d", "B", "a", "c"):
        assert put(registry, name, tag, data).status == 201
    whole = json.loads(registry.ask("GET", f"/v2/{name}/tags/list").body)
    assert (whole["name"], sorted(whole["tags"])) == (name, ["B", "a", "c", "d"])
    seen: list[str] = []
    path = f"/v2/{name}/tags/list?n=3"
    while path:
        page = registry.ask("GET", path)
        seen += json.loads(page.body)["tags"]
        link = page.headers.get("link", "")
        path = path_of(link.partition(">")[0].removeprefix("<"))
    assert seen == whole["tags"]
    after = json.loads(registry.ask("GET", f"/v2/{name}/tags/list?n=1&last={whole['tags'][1]}").body)["tags"]
    assert after == whole["tags"][2:3]
    missing = registry.ask("GET", f"/v2/{name}/none/tags/list")
    assert (missing.status, missing.code()) == (404, "NAME_UNKNOWN")


def referrers(where: Client, name: str, subject: str, query: str = "") -> tuple[dict[str, Any], Reply]:
    listed = where.ask("GET", f"/v2/{name}/referrers/{subject}{query}")
    assert (listed.status, listed.headers["content-type"]) == (200, INDEX)
    value = json.loads(listed.body)
    assert (value["schemaVersion"], value["mediaType"]) == (2, INDEX)
    return {each["digest"]: each for each in value["manifests"]}, listed


@pytest.mark.parametrize("kind", [MANIFEST, INDEX])
@pytest.mark.parametrize("is_there", [True, False])
def test_what_refers_to_something(registry: Registry, name: str, kind: str, is_there: bool) -> None:
    """To an image or an index, that is there or comes later."""
    top = image(registry, name) if kind == MANIFEST else {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    top["annotations"] = {"case": os.urandom(4).hex()}
    data = json.dumps(top).encode()
    subject = {"mediaType": kind, "digest": sha(data), "size": len(data)}
    if is_there:
        assert put(registry, name, sha(data), data, kind).status == 201
    assert referrers(registry, name, sha(data))[0] == {}
    said = {"org.opencontainers.conformance": "hello"}
    values = [
        image(registry, name, subject=subject),
        image(registry, name, subject=subject, artifactType="example/one", annotations=said),
        image(registry, name, subject=subject, artifactType="example/two"),
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": "example/set",
            "subject": subject,
            "manifests": [],
        },
    ]
    expected = {}
    for value in values:
        body = json.dumps(value).encode()
        made = put(registry, name, sha(body), body, value["mediaType"])
        assert (made.status, made.headers["oci-subject"]) == (201, sha(data))
        entry = {"mediaType": value["mediaType"], "digest": sha(body), "size": len(body)}
        entry["artifactType"] = value.get("artifactType") or value["config"]["mediaType"]
        expected[sha(body)] = entry | ({"annotations": said} if "annotations" in value else {})
    assert referrers(registry, name, sha(data))[0] == expected
    some, listed = referrers(registry, name, sha(data), "?artifactType=example/one")
    assert listed.headers["oci-filters-applied"] == "artifactType"
    assert [each["annotations"] for each in some.values()] == [said]
    first = next(iter(expected))
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{first}").status == 202
    assert referrers(registry, name, sha(data))[0].keys() == expected.keys() - {first}


def test_what_refers_to_nothing(registry: Registry, name: str) -> None:
    assert referrers(registry, name, sha(b"nothing"))[0] == {}
    assert registry.ask("GET", f"/v2/{name}/referrers/nothing").status == 400


# Content management.


def test_deletion_of_a_manifest(either: Client, name: str) -> None:
    digest = pushed(either, name, image(either, name))["digest"]
    assert either.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    for reference in (digest, "it"):
        assert either.ask("GET", f"/v2/{name}/manifests/{reference}").status == 404
        assert either.ask("HEAD", f"/v2/{name}/manifests/{reference}").status == 404


def test_deletion_of_a_tag(registry: Registry, name: str) -> None:
    digest = pushed(registry, name, image(registry, name))["digest"]
    assert registry.ask("DELETE", f"/v2/{name}/manifests/it").status == 202
    assert registry.ask("HEAD", f"/v2/{name}/manifests/it").status == 404
    assert registry.ask("HEAD", f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.ask("DELETE", f"/v2/{name}/manifests/it").status == 404


def test_deletion_of_a_blob(either: Client, name: str) -> None:
    digest = either.blob(name, os.urandom(100))["digest"]
    assert either.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    assert either.ask("HEAD", f"/v2/{name}/blobs/{digest}").status == 404
