"""`aerogel registry serve`: what the distribution specification expects, and real clients.

The tests of the four workflows follow the official conformance suite (OCI distribution-spec v1.1). Debian packages:
skopeo, podman, openssl.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import Aerogel
from served import EMPTY, INDEX, MANIFEST, Registry, sha

pytestmark = pytest.mark.host("skopeo", "podman", "openssl")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    server = Registry(Aerogel(tmp_path_factory.mktemp("registry")), "--writable")
    yield server
    assert server.stop() == 0


# Pull.


def test_blobs_are_read_whole_and_in_parts(registry: Registry) -> None:
    data = bytes(range(256)) * 40
    digest = registry.blob("pull/blobs", data)["digest"]
    path = f"/v2/pull/blobs/blobs/{digest}"
    whole = registry.ask("GET", path)
    assert (whole.status, whole.body, whole.headers["docker-content-digest"]) == (200, data, digest)
    head = registry.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
    part = registry.ask("GET", path, Range="bytes=100-199")
    assert (part.status, part.body) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    assert registry.ask("GET", path, Range="bytes=10200-").body == data[10200:]
    assert registry.ask("GET", path, Range="bytes=-7").body == data[-7:]
    assert registry.ask("GET", path, Range="bytes=0-99999999").body == data
    assert registry.ask("GET", path, Range=f"bytes={len(data)}-").status == 416
    assert registry.ask("GET", path, Range="bytes=500-0").status == 416
    missing = registry.ask("GET", f"/v2/pull/blobs/blobs/{sha(b'nobody')}")
    assert (missing.status, missing.code()) == (404, "BLOB_UNKNOWN")
    assert registry.ask("GET", "/v2/pull/blobs/blobs/sha256:short").status == 400
    other = registry.ask("GET", f"/v2/other/repository/blobs/{digest}")
    assert other.status == 404, "blobs of another repository are not shown"


def test_manifests_by_tag_and_digest(registry: Registry) -> None:
    digest, data = registry.manifest("pull/manifests", "one")
    for reference in ("one", digest):
        for method, body in (("GET", data), ("HEAD", b"")):
            got = registry.ask(method, f"/v2/pull/manifests/manifests/{reference}", Accept=MANIFEST)
            assert (got.status, got.body, got.headers["docker-content-digest"]) == (200, body, digest)
            assert got.headers["content-type"] == MANIFEST
            assert got.headers["content-length"] == str(len(data))
    for reference in ("none", sha(b"none")):
        missing = registry.ask("GET", f"/v2/pull/manifests/manifests/{reference}")
        assert (missing.status, missing.code()) == (404, "MANIFEST_UNKNOWN")


# Push.


def test_uploads_in_one_piece(registry: Registry) -> None:
    data = os.urandom(70_000)
    single = registry.ask("POST", f"/v2/push/one/blobs/uploads/?digest={sha(data)}", data)
    assert single.status == 201
    assert registry.ask("GET", single.headers["location"]).body == data
    begun = registry.ask("POST", "/v2/push/one/blobs/uploads/")
    assert (begun.status, "location" in begun.headers) == (202, True)
    wrong = registry.ask("PUT", f"{begun.headers['location']}?digest={sha(b'else')}", data)
    assert (wrong.status, wrong.code()) == (400, "DIGEST_INVALID")
    assert registry.ask("HEAD", f"/v2/push/one/blobs/{sha(b'else')}").status == 404
    long = sha(data, "sha512")
    begun = registry.ask("POST", "/v2/push/one/blobs/uploads/")
    made = registry.ask("PUT", f"{begun.headers['location']}?digest={long}", data)
    assert (made.status, made.headers["docker-content-digest"]) == (201, long)
    assert registry.ask("GET", f"/v2/push/one/blobs/{long}").body == data


def test_uploads_in_chunks(registry: Registry) -> None:
    data = os.urandom(30_000)
    location = registry.ask("POST", "/v2/push/chunks/blobs/uploads/").headers["location"]
    first = registry.ask("PATCH", location, data[:10_000], Content_Range="0-9999")
    assert (first.status, first.headers["range"]) == (202, "0-9999")
    again = registry.ask("PATCH", first.headers["location"], data[:10_000], Content_Range="0-9999")
    assert (again.status, again.headers["range"]) == (416, "0-9999")
    ahead = registry.ask("PATCH", location, data[20_000:], Content_Range="20000-29999")
    assert ahead.status == 416
    asked = registry.ask("GET", location)
    assert (asked.status, asked.headers["range"]) == (204, "0-9999")
    assert (
        registry.ask("PATCH", asked.headers["location"], data[10_000:20_000], Content_Range="10000-19999").status == 202
    )
    last = registry.ask("PUT", f"{location}?digest={sha(data)}", data[20_000:], Content_Range="20000-29999")
    assert last.status == 201
    assert registry.ask("GET", f"/v2/push/chunks/blobs/{sha(data)}").body == data
    gone = registry.ask("GET", location)
    assert (gone.status, gone.code()) == (404, "BLOB_UPLOAD_UNKNOWN")
    location = registry.ask("POST", "/v2/push/chunks/blobs/uploads/").headers["location"]
    assert registry.ask("DELETE", location).status == 204
    assert registry.ask("DELETE", location).status == 404


def test_a_chunked_body_and_one_that_is_cut(registry: Registry) -> None:
    location = registry.ask("POST", "/v2/push/stream/blobs/uploads/").headers["location"]
    connection = http.client.HTTPConnection(registry.host, timeout=60)
    connection.request("PATCH", location, body=iter([b"abc", b"def" * 1000]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.headers["range"]) == (202, "0-3002")
    connection.close()
    connection = http.client.HTTPConnection(registry.host, timeout=60)
    connection.putrequest("PUT", f"{location}?digest={sha(b'abc' + b'def' * 1000)}")
    connection.putheader("Content-Length", "5000")
    connection.endheaders(b"cut")
    assert connection.sock is not None
    connection.sock.shutdown(1)
    assert connection.getresponse().status == 400
    connection.close()
    assert registry.ask("HEAD", f"/v2/push/stream/blobs/{sha(b'abc' + b'def' * 1000)}").status == 404


def test_mounts(registry: Registry) -> None:
    digest = registry.blob("mount/source", b"to be mounted")["digest"]
    made = registry.ask("POST", f"/v2/mount/target/blobs/uploads/?mount={digest}&from=mount/source")
    assert (made.status, made.headers["location"]) == (201, f"/v2/mount/target/blobs/{digest}")
    assert registry.ask("GET", made.headers["location"]).body == b"to be mounted"
    assert registry.ask("POST", f"/v2/mount/third/blobs/uploads/?mount={digest}").status == 201
    absent = registry.ask("POST", f"/v2/mount/target/blobs/uploads/?mount={sha(b'?')}&from=mount/source")
    assert (absent.status, "location" in absent.headers) == (202, True)


def test_manifests_that_cannot_be(registry: Registry) -> None:
    path = "/v2/push/bad/manifests/"
    for data, status, code in (
        (b"no json", 400, "MANIFEST_INVALID"),
        (b"[]", 400, "MANIFEST_INVALID"),
        (json.dumps({"mediaType": INDEX}).encode(), 400, "MANIFEST_INVALID"),
        (b" " * (5 << 20), 413, "SIZE_INVALID"),
        (json.dumps({"config": {"digest": sha(b"not there"), "size": 9}}).encode(), 404, "MANIFEST_BLOB_UNKNOWN"),
    ):
        refused = registry.ask("PUT", path + "tag", data, Content_Type=MANIFEST)
        assert (refused.status, refused.code()) == (status, code)
    wrong = registry.ask("PUT", path + sha(b"else"), b"{}", Content_Type=MANIFEST)
    assert (wrong.status, wrong.code()) == (400, "DIGEST_INVALID")
    assert registry.ask("PUT", path + ".tag", b"{}", Content_Type=MANIFEST).status == 400
    for name in ("UPPER", "a//b", "-a", "a/..", "a" * 300):
        assert registry.ask("GET", f"/v2/{name}/manifests/x").status in (400, 404)
    assert registry.ask("GET", "/v1/").status == 404
    assert registry.ask("PATCH", "/v2/a/tags/list").status == 405


# Content discovery.


def test_tags_in_pages(registry: Registry) -> None:
    for tag in ("d", "b", "a", "c"):
        registry.manifest("tags/many", tag)
    assert json.loads(registry.ask("GET", "/v2/tags/many/tags/list").body)["tags"] == ["a", "b", "c", "d"]
    first = registry.ask("GET", "/v2/tags/many/tags/list?n=3")
    assert json.loads(first.body)["tags"] == ["a", "b", "c"]
    following = re.match(r'<([^>]+)>; rel="next"', first.headers["link"])
    assert following is not None
    second = registry.ask("GET", following[1])
    assert (json.loads(second.body)["tags"], "link" in second.headers) == (["d"], False)
    assert json.loads(registry.ask("GET", "/v2/tags/many/tags/list?n=0").body)["tags"] == []
    assert json.loads(registry.ask("GET", "/v2/tags/many/tags/list?last=b").body)["tags"] == ["c", "d"]
    missing = registry.ask("GET", "/v2/tags/none/tags/list")
    assert (missing.status, missing.code()) == (404, "NAME_UNKNOWN")
    assert "tags/many" in json.loads(registry.ask("GET", "/v2/_catalog").body)["repositories"]


def test_referrers(registry: Registry) -> None:
    digest, data = registry.manifest("refer/app", "one")
    subject = {"mediaType": MANIFEST, "digest": digest, "size": len(data)}
    first, _ = registry.manifest("refer/app", artifactType="test/one", subject=subject, annotations={"a": "b"})
    second, body = registry.manifest("refer/app", artifactType="test/two", subject=subject)
    again = registry.ask("PUT", f"/v2/refer/app/manifests/{second}", body, Content_Type=MANIFEST)
    assert again.headers["oci-subject"] == digest
    listed = registry.ask("GET", f"/v2/refer/app/referrers/{digest}")
    assert (listed.status, listed.headers["content-type"]) == (200, INDEX)
    found = {each["digest"]: each for each in json.loads(listed.body)["manifests"]}
    assert found.keys() == {first, second}
    assert found[first]["artifactType"] == "test/one"
    assert found[first]["annotations"] == {"a": "b"}
    some = registry.ask("GET", f"/v2/refer/app/referrers/{digest}?artifactType=test/two")
    assert some.headers["oci-filters-applied"] == "artifactType"
    assert [each["digest"] for each in json.loads(some.body)["manifests"]] == [second]
    nothing = registry.ask("GET", f"/v2/refer/app/referrers/{sha(b'nothing')}")
    assert (nothing.status, json.loads(nothing.body)["manifests"]) == (200, [])
    # The config's type stands for an absent artifact type; a subject may come later than what refers to it.
    early, _ = registry.manifest("refer/app", subject={**subject, "digest": sha(b"later")})
    listed = registry.ask("GET", f"/v2/refer/app/referrers/{sha(b'later')}")
    assert [each["artifactType"] for each in json.loads(listed.body)["manifests"]] == [EMPTY]
    assert registry.ask("DELETE", f"/v2/refer/app/manifests/{early}").status == 202
    assert json.loads(registry.ask("GET", f"/v2/refer/app/referrers/{sha(b'later')}").body)["manifests"] == []


# Content management.


def test_deletion(registry: Registry) -> None:
    digest, data = registry.manifest("delete/app", "one")
    registry.manifest("delete/app", "two")
    assert registry.ask("DELETE", "/v2/delete/app/manifests/one").status == 202
    assert registry.ask("GET", "/v2/delete/app/manifests/one").status == 404
    assert registry.ask("GET", "/v2/delete/app/manifests/two").body == data
    assert registry.ask("DELETE", f"/v2/delete/app/manifests/{digest}").status == 202
    assert registry.ask("GET", "/v2/delete/app/manifests/two").status == 404
    assert registry.ask("DELETE", f"/v2/delete/app/manifests/{digest}").status == 404
    blob = f"/v2/delete/app/blobs/{sha(b'x')}"
    assert registry.ask("DELETE", blob).status == 202
    assert registry.ask("HEAD", blob).status == 404
    assert registry.ask("DELETE", blob).status == 404


# Real clients.


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_clients_push_and_pull(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\nLABEL a=b\n")
    (tmp_path / "data").write_bytes(os.urandom(3_000_000))
    aerogel = Aerogel(tmp_path / "state")
    name = f"{registry.host}/team/app:1"
    words = ("--platform=linux/amd64,linux/arm64", "--sbom", "--push", "-t", name)
    digest = aerogel.json("build", *words, str(tmp_path))["descriptor"]["digest"]
    layout = tmp_path / "layout"
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:one")
    target = f"{registry.host}/by/skopeo:1"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:one", f"docker://{target}")
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{target}"))["Labels"] == {"a": "b"}
    assert json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry.host}/by/skopeo"))["Tags"] == ["1"]
    images = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))["manifests"]
    for image in images:
        listed = registry.ask("GET", f"/v2/team/app/referrers/{image['digest']}")
        assert len(json.loads(listed.body)["manifests"]) == 1, "the API is used, not the fall-back tag"
    # podman takes no longer names for its state.
    state = Path(tempfile.mkdtemp(prefix="ag-"))
    podman = ["podman", "--root", str(state / "p"), "--runroot", str(state / "r"), "--storage-driver=vfs"]
    for step in (["pull", "--tls-verify=false", target], ["push", "--tls-verify=false", target, f"{target}2"]):
        done = subprocess.run([*podman, *step], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(state)
    other = Aerogel(tmp_path / "other")
    assert other.json("copy", f"docker://{name}", "store:app")["digest"] == digest
    assert other.json("copy", "--dry-run", "app", f"docker://{registry.host}/new/app")["transferred"] > 3_000_000
    cached = ("--cache-to", f"{registry.host}/team/app:cache", str(tmp_path))
    other("build", *cached)
    steps = Aerogel(tmp_path / "third").json("build", "--cache-from", f"{registry.host}/team/app:cache", str(tmp_path))
    assert {each["status"] for each in steps["steps"]} <= {"CACHED", "SKIPPED"}


def test_what_the_store_has(tmp_path: Path) -> None:
    """Read only: the images of the store under their names, nothing else of it."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\nCOPY Dockerfile /e\n")
    aerogel = Aerogel(tmp_path / "state")
    made = aerogel.json("build", "--sbom", "-t", "app:1", "-t", "registry.example/team/app:2", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /private\n")
    private = aerogel.json("build", str(tmp_path))
    server = Registry(aerogel)
    try:
        for name in ("app:1", "library/app:1", "registry.example/team/app:2"):
            found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{server.host}/{name}"))
            assert found["Digest"] == made["descriptor"]["digest"]
        skopeo("copy", "--src-tls-verify=false", f"docker://{server.host}/app:1", f"oci:{tmp_path}/layout")
        referrers = server.ask("GET", f"/v2/app/referrers/{made['descriptor']['digest']}")
        assert len(json.loads(referrers.body)["manifests"]) == 1
        hidden = server.ask("GET", f"/v2/app/blobs/{private['layers'][0]['digest']}")
        assert hidden.status == 404
        refused = server.ask("POST", "/v2/app/blobs/uploads/")
        assert (refused.status, refused.code()) == (405, "UNSUPPORTED")
        assert server.ask("DELETE", "/v2/app/manifests/1").status == 405
    finally:
        assert server.stop() == 0
    assert any("200 GET /v2/app/manifests/1" in line for line in server.log)


def test_referrers_of_an_index(registry: Registry, tmp_path: Path) -> None:
    """They come with the image that is taken from it, are sent on with copies, and outlive pruning."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    name = f"{registry.host}/index/app:1"
    aerogel = Aerogel(tmp_path / "state")
    made = aerogel.json("build", "--platform=linux/amd64,linux/arm64", "--sbom", "--push", "-t", name, str(tmp_path))
    digest = made["descriptor"]["digest"]
    subject = {"mediaType": INDEX, "digest": digest, "size": made["descriptor"]["size"]}
    told, _ = registry.manifest("index/app", artifactType="test/of-the-index", subject=subject)
    other = Aerogel(tmp_path / "other")
    pulled = other.json("pull", "--referrers", "--platform=linux/amd64", name)
    assert pulled["digest"] == digest
    types = [each["artifact_type"] for each in pulled["referrers"]]
    assert sorted(types) == ["application/vnd.in-toto+json", "test/of-the-index"]
    other("prune", "--all", "--force", check=False)
    other("prune", check=False)
    folder = other.state / "data/images-v1/referrers" / digest.removeprefix("sha256:")
    assert [path.name for path in folder.iterdir()] == [f"{told.removeprefix('sha256:')}.json"]
    assert (other.state / "data/blobs" / told.replace(":", "/")).exists()
    other("rmi", name)
    other("prune", check=False)
    assert not (other.state / "data/blobs" / told.replace(":", "/")).exists()


def test_layers_that_stayed_in_another_registry(registry: Registry, tmp_path: Path) -> None:
    """They are fetched when they are asked for; when that cannot be, the answer says so."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    (tmp_path / "data").write_bytes(os.urandom(100_000))
    base = f"{registry.host}/lazy/base:1"
    layer = Aerogel(tmp_path / "maker").json("build", "--push", "-t", base, str(tmp_path))["layers"][0]
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY --link Dockerfile /d\n")
    lazy = Aerogel(tmp_path / "lazy")
    lazy("build", "--push", "-t", f"{registry.host}/lazy/child:1", str(tmp_path))
    blob = lazy.state / "data/blobs" / layer["digest"].replace(":", "/")
    assert not blob.exists()
    second = Registry(lazy)
    try:
        name, path = f"{registry.host}/lazy/child", f"/v2/{registry.host}/lazy/child/blobs/{layer['digest']}"
        head = second.ask("HEAD", path)
        assert (head.status, head.headers["content-length"]) == (200, str(layer["size"]))
        assert not blob.exists(), "its size is known without it"
        assert registry.ask("DELETE", f"/v2/lazy/base/blobs/{layer['digest']}").status == 202
        assert registry.ask("DELETE", f"/v2/lazy/child/blobs/{layer['digest']}").status == 202
        absent = second.ask("GET", path)
        assert (absent.status, absent.code()) == (502, "UNAVAILABLE")
        assert f"lies in {registry.host}/lazy/base and cannot be fetched" in absent.body.decode()
        assert registry.ask("DELETE", "/v2/lazy/base/manifests/1").status == 202
        Aerogel(tmp_path / "maker")("push", base)
        part = second.ask("GET", path, Range="bytes=10-19")
        assert part.status == 206
        whole = second.ask("GET", path)
        assert sha(whole.body) == layer["digest"]
        assert part.body == whole.body[10:20]
        assert name in json.loads(second.ask("GET", "/v2/_catalog").body)["repositories"]
    finally:
        assert second.stop() == 0


def test_users_and_tls(tmp_path: Path) -> None:
    key, certificate, users = tmp_path / "key.pem", tmp_path / "ca.pem", tmp_path / "users"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    users.write_text("# who may come\namy:open-sesame\n")
    aerogel = Aerogel(tmp_path / "state")
    aerogel.env |= {"DOCKER_CONFIG": str(tmp_path / "docker"), "SSL_CERT_FILE": str(certificate)}
    more = ("--writable", "--users", str(users), "--tls-cert", str(certificate), "--tls-key", str(key))
    users.chmod(0o644)
    told = aerogel("registry", "serve", *more, check=False)
    assert "chmod 600" in told.stderr
    users.chmod(0o600)
    server = Registry(aerogel, *more)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    name = f"{server.host}/app:1"
    try:
        aerogel("build", "-t", name, str(tmp_path))
        assert aerogel("push", name, check=False).returncode == 4
        wrong = aerogel("login", "-u", "amy", "--password-stdin", server.host, check=False, input="guess")
        assert "refuses the credentials of `amy`" in wrong.stderr
        aerogel("login", "-u", "amy", "--password-stdin", server.host, input="open-sesame\n")
        aerogel("push", name)
        aerogel("pull", name)
    finally:
        assert server.stop() == 0
    assert "open-sesame" not in "".join(server.log)


def test_what_was_pushed_outlives_pruning(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    server = Registry(aerogel, "--writable")
    digest, data = server.manifest("keep/this", "one")
    busy = aerogel("prune", "--all", check=False)
    assert "another aerogel process is using the store" in busy.stderr
    assert server.stop() == 0
    aerogel("prune", "--all")
    server = Registry(aerogel)
    assert server.ask("GET", "/v2/keep/this/manifests/one").body == data
    assert server.ask("GET", f"/v2/keep/this/blobs/{sha(b'x')}").body == b"x"
    assert server.ask("GET", f"/v2/keep/this/manifests/{digest}").status == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--listen", "0.0.0.0:0"), "nobody needs a password"),
        (("--listen", "5000"), "is no address with a port"),
        (("--tls-cert", "x"), "belong together"),
        (("--users", "none"), "none"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = Aerogel(tmp_path / "state")("registry", "serve", *words, check=False)
    assert told in done.stderr
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr


def test_the_address_as_json(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path)
    heeded = ("env", "--default-signal=INT")  # what a shell starts in the background ignores it
    words = (*heeded, *aerogel.argv("registry", "serve", "--listen=127.0.0.1:0", "--json", "--progress=quiet"))
    with subprocess.Popen(words, env=aerogel.env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{told['url']}/v2/") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.read()) == {"requests": 1}
    assert told == {
        "url": f"http://127.0.0.1:{told['port']}",
        "host": "127.0.0.1",
        "port": told["port"],
        "writable": False,
    }
