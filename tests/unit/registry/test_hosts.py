"""Where registries are asked: registries.conf, hosts.toml, certs.d, our own tables; and mirrors that fail."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loop_registry import LAYER, Answer, LoopRegistry, Request, serve_registry, sha

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.net.http import Http
from aerogel.oci.digest import Digest
from aerogel.oci.reference import Reference
from aerogel.oci.types import OCI_MANIFEST, Descriptor
from aerogel.registry.client import Registries
from aerogel.registry.credentials import Credentials
from aerogel.registry.host_files import HostFiles, OwnHost
from aerogel.registry.hosts import BLOBS, PULL, RESOLVE, Hosts, Route
from aerogel.registry.push import Uploads
from aerogel.registry.referrers import list_referrers


def route(files: HostFiles, name: str) -> Route:
    return files.load().route(Reference.parse(name))


def asked(found: Route) -> list[str]:
    return [f"{each.place.registry}/{each.repository}" for each in (*found.mirrors, found.origin)]


def fails(code: str, act: Callable[[], object]) -> AerogelError:
    with pytest.raises(AerogelError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


def conf(folder: Path, text: str, **drop_ins: str) -> HostFiles:
    (folder / "registries.conf").write_text(text)
    (folder / "d").mkdir()
    for name, more in drop_ins.items():
        (folder / "d" / f"{name}.conf").write_text(more)
    return HostFiles(conf=folder / "registries.conf", drop_ins=(folder / "none", folder / "d"))


def host(folder: Path, registry: str, text: str) -> HostFiles:
    (folder / "certs.d" / registry).mkdir(parents=True)
    (folder / "certs.d" / registry / "hosts.toml").write_text(text)
    return HostFiles(hosts=(folder / "none", folder / "certs.d"))


# What the files say.

CONF = """
unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "docker.io/library/moved"
location = "new.example/apps/moved"
[[registry]]
prefix = "*.corp.example"
insecure = true
[[registry]]
location = "evil.example"
blocked = true
"""


def test_registries_conf(tmp_path: Path) -> None:
    files = conf(tmp_path, CONF)
    found = route(files, "alpine:3")
    assert asked(found) == [
        "mirror.example:5000/hub/library/alpine",
        "digests.example/library/alpine",
        "tags.example/library/alpine",
        "docker.io/library/alpine",
    ]
    assert [each.place.is_insecure for each in found.mirrors] == [True, False, False]
    assert [each.can for each in found.mirrors] == [
        {PULL, RESOLVE, BLOBS},
        {PULL, BLOBS},
        {RESOLVE, BLOBS},
    ]
    assert asked(route(files, "moved:1")) == ["new.example/apps/moved"]
    assert asked(route(files, "docker.io/library/moved2:1"))[-1] == "docker.io/library/moved2"
    assert route(files, "a.corp.example/app").origin.place.is_insecure
    assert not route(files, "corp.example/app").origin.place.is_insecure
    error = fails("registry.blocked", lambda: route(files, "evil.example/app:1"))
    assert error.message == "`evil.example/app:1` is blocked"
    assert error.hints == (f"`{tmp_path}/registries.conf` says so for `evil.example`",)
    assert error.exit_status == EXIT_USAGE


def test_a_host_with_another_port_is_another_registry(tmp_path: Path) -> None:
    files = conf(tmp_path, '[[registry]]\nlocation = "evil.example"\nblocked = true\n')
    assert asked(route(files, "evil.example:5000/app")) == ["evil.example:5000/app"]
    assert asked(route(files, "evil.example.org/app")) == ["evil.example.org/app"]


def test_folders_of_registries_conf(tmp_path: Path) -> None:
    blocked = '[[registry]]\nlocation = "a.example"\nblocked = true\n'
    moved = '[[registry]]\nprefix = "a.example"\nlocation = "b.example"\n'
    files = conf(tmp_path, blocked, **{"10": blocked, "20": moved})
    (tmp_path / "d" / "99.txt").write_text("no TOML [")
    assert asked(route(files, "a.example/app")) == ["b.example/app"]


def test_mirror_by_digest_only(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation = "a.example"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.example"\n'
    assert route(conf(tmp_path, text), "a.example/app").mirrors[0].can == {PULL, BLOBS}


HOSTS = """
server = "https://registry-1.docker.io"
[host."https://mirror.example:5000"]
  capabilities = ["pull", "resolve", "push"]
  ca = "ca.pem"
  client = [["client.pem", "client.key"]]
  [host."https://mirror.example:5000".header]
    x-team = ["blue", "green"]
[host."http://cache.example/hub/v2"]
  skip_verify = true
  capabilities = ["pull"]
[host."https://odd.example/api/images"]
  override_path = true
"""


def test_hosts_toml(tmp_path: Path) -> None:
    found = route(host(tmp_path, "docker.io", HOSTS), "alpine:3")
    first, second, third = found.mirrors
    folder = tmp_path / "certs.d" / "docker.io"
    assert first.place.host == "mirror.example:5000"
    assert (first.place.path, second.place.path, third.place.path) == ("/v2", "/hub/v2", "/api/images")
    assert [each.place.scheme for each in found.mirrors] == ["https", "http", "https"]
    assert first.place.peer.authorities == (f"{folder}/ca.pem",)
    assert first.place.peer.clients == ((f"{folder}/client.pem", f"{folder}/client.key"),)
    assert first.place.peer.headers == (("x-team", "blue, green"),)
    assert (second.place.peer.is_verified, second.can) == (False, {PULL, BLOBS})
    assert third.can == {PULL, RESOLVE, BLOBS}
    assert {each.namespace for each in found.mirrors} == {"docker.io"}
    assert (found.origin.place.registry, found.origin.place.host) == ("docker.io", "registry-1.docker.io")
    assert found.target is first, "it says that it takes uploads"


def test_hosts_toml_for_all_and_with_ports(tmp_path: Path) -> None:
    files = host(tmp_path, "_default", '[host."https://all.example"]\n')
    host(tmp_path, "a.example_5000_", 'server = "https://b.example"\n')
    assert asked(route(files, "x.example/app")) == ["all.example/app", "x.example/app"]
    assert asked(route(files, "a.example:5000/app")) == ["b.example/app"]


def test_our_own_comes_first(tmp_path: Path) -> None:
    files = HostFiles(
        own={
            "docker.io": OwnHost(mirrors=("m.example:5000", "http://n.example/hub/")),
            "m.example:5000": OwnHost(ca="/ca.pem", client_cert="/c.pem", client_key="/k.pem", headers=(("A", "b"),)),
            "n.example": OwnHost(insecure=True),
            "docker.io/evil": OwnHost(blocked=True, where="aerogel.toml"),
        },
        hosts=host(tmp_path, "docker.io", HOSTS).hosts,
    )
    found = route(files, "alpine")
    assert asked(found) == ["m.example:5000/library/alpine", "n.example/hub/library/alpine", "docker.io/library/alpine"]
    peer = found.mirrors[0].place.peer
    assert (peer.authorities, peer.clients, peer.headers) == (("/ca.pem",), (("/c.pem", "/k.pem"),), (("A", "b"),))
    assert found.mirrors[1].place.scheme == "http"
    assert not found.mirrors[1].place.peer.is_verified
    assert found.origin.place.peer.is_verified
    fails("registry.blocked", lambda: route(files, "evil/app"))


def test_folders_of_certificates(tmp_path: Path) -> None:
    folder = tmp_path / "a.example:5000"
    folder.mkdir()
    for name in ("ca.crt", "client.cert", "client.key", "notes"):
        (folder / name).write_text("x")
    files = HostFiles(certificates=(tmp_path,))
    peer = files.load().place("a.example:5000").peer
    assert peer.authorities == (str(folder / "ca.crt"),)
    assert peer.clients == ((str(folder / "client.cert"), str(folder / "client.key")),)
    assert files.load().place("b.example").peer.authorities == ()
    (folder / "client.key").unlink()
    error = fails("registry.config", lambda: files.load().place("a.example:5000"))
    assert error.message == f"`client.cert` without its key `client.key` in `{folder}`"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[registry]\n", "no TOML"),
        ("[[registry]]\nlocation = 5\n", "a value of the wrong type (Expected `str`, got `int` - at `$.registry[0]"),
        ("[[registry]]\ninsecure = true\n", "a `[[registry]]` without `prefix` and `location`"),
        ('[[registry]]\nlocation = "https://a.example"\n', "the location `https://a.example`, which has no scheme"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true\n', "a mirror of `a` without `location`"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation="b"\npull-from-mirror = "x"\n', "wrong type"),
    ],
)
def test_registries_conf_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    error = fails("registry.config", lambda: route(conf(tmp_path, text), "a/b"))
    assert told in error.message
    assert f"in `{tmp_path}/registries.conf`" in error.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[host."ftp://x"]\n', "the host `ftp://x`, which is no address"),
        ('[host."https://x"]\nclient = [["a", "b", "c"]]\n', "neither one file nor certificate and key"),
        ("server = 5\n", "wrong type"),
    ],
)
def test_hosts_toml_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    assert told in fails("registry.config", lambda: route(host(tmp_path, "a.example", text), "a.example/b")).message


# Mirrors at work.


@pytest.fixture
def mirror() -> Iterator[LoopRegistry]:
    with serve_registry() as running:
        yield running


class Told:
    """A client with files, and what it says."""

    def __init__(self, files: HostFiles, credentials: Path | None = None) -> None:
        self.waits: list[float] = []
        self.lines: list[str] = []
        http = Http(sleep=self.waits.append, read_timeout_s=20.0, connect_timeout_s=20.0)
        known = Credentials([] if credentials is None else [credentials], {})
        self.registries = Registries(http, known, hosts=files.load(), tell=self.lines.append)

    def pull(self, name: str) -> bytes:
        """Manifest and layer."""
        where = self.registries.repository(Reference.parse(name))
        where.document(Reference.parse(name))
        file = io.BytesIO()
        where.fetch(Digest(sha(LAYER)), len(LAYER), file)
        return file.getvalue()


def copy(source: LoopRegistry, target: LoopRegistry, name: str = "app") -> None:
    target.blobs[name] = dict(source.blobs["app"])
    target.manifests[name] = dict(source.manifests["app"])


def mirrors(server: LoopRegistry, *hosts: str) -> HostFiles:
    return HostFiles(own={server.host: OwnHost(mirrors=hosts)})


def test_a_mirror_is_asked_instead(server: LoopRegistry, mirror: LoopRegistry, pushed: str) -> None:
    copy(server, mirror, "hub/app")
    told = Told(mirrors(server, f"{mirror.host}/hub"))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert server.seen == []
    assert {each.query.get("ns") for each in mirror.seen if each.path != "/v2/"} == {server.host}
    assert told.lines == []


def test_what_the_mirror_lacks_comes_from_the_registry(server: LoopRegistry, mirror: LoopRegistry, pushed: str) -> None:
    copy(server, mirror)
    del mirror.blobs["app"][sha(LAYER)]
    told = Told(mirrors(server, mirror.host))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert [each.path for each in server.seen] == ["/v2/", f"/v2/app/blobs/{sha(LAYER)}"]
    assert told.lines == [], "that is no fault of the mirror"


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, b'{"errors":[{"code":"UNKNOWN","message":"disk"}]}'),
        Answer(503, b"", {"Retry-After": "3"}),
        Answer(429, b"", {"Retry-After": "3600"}),
        Answer(401, b"", {"WWW-Authenticate": 'Basic realm="mirror"'}),
        Answer(403),
        Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"}),
    ],
    ids=lambda fault: str(fault.status),
)
def test_a_mirror_that_fails_is_passed_over(
    server: LoopRegistry, mirror: LoopRegistry, pushed: str, fault: Answer
) -> None:
    copy(server, mirror)
    mirror.fail("GET", "/manifests/", fault, times=9)
    told = Told(mirrors(server, mirror.host))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert told.waits == [], "nobody waits for a mirror"
    assert mirror.host in told.lines[0]
    assert str(fault.status) in told.lines[0] or "no manifest" in told.lines[0]


def test_a_mirror_that_lies_is_found_out(server: LoopRegistry, mirror: LoopRegistry, pushed: str) -> None:
    copy(server, mirror)
    mirror.blobs["app"][sha(LAYER)] = b"x" + LAYER[1:]
    told = Told(mirrors(server, mirror.host))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert "is not what its digest names" in told.lines[0]


def test_a_blob_goes_on_at_the_registry_where_the_mirror_broke(
    server: LoopRegistry, mirror: LoopRegistry, pushed: str
) -> None:
    copy(server, mirror)
    mirror.fail("GET", "/blobs/", Answer(200, LAYER, cut_at=100_000))
    mirror.fail("GET", "/blobs/", Answer(500), times=9)
    told = Told(mirrors(server, mirror.host))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert server.seen[-1].headers["range"] == "bytes=100000-"


def test_a_mirror_that_is_down_is_asked_once(server: LoopRegistry, pushed: str) -> None:
    with serve_registry() as gone:
        pass
    told = Told(mirrors(server, gone.host))
    assert told.pull(f"{server.host}/app:one") == LAYER
    assert len(told.lines) == 1
    assert "cannot be reached" in told.lines[0]
    error = fails("registry.not-found", lambda: Told(mirrors(server, gone.host)).pull(f"{server.host}/app:two"))
    assert error.hints[0].startswith(f"the mirror `{gone.host}` was asked first: ")


def referring(server: LoopRegistry, subject: str, number: int = 1) -> list[str]:
    """Artifacts of an image."""
    base = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x"}
    base |= {"subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}}
    texts = [json.dumps({**base, "annotations": {"n": str(each)}}).encode() for each in range(number)]
    return [server.add_manifest("app", text, OCI_MANIFEST) for text in texts]


def test_mirrors_are_asked_what_refers_to_an_image(server: LoopRegistry, mirror: LoopRegistry, pushed: str) -> None:
    server.referrers = mirror.referrers = True
    copy(server, mirror)
    (artifact,) = referring(mirror, pushed)
    told = Told(mirrors(server, mirror.host))
    where = told.registries.repository(Reference.parse(f"{server.host}/app:one"))
    assert [each.digest for each in list_referrers(where, Digest(pushed))] == [artifact]
    assert where.tags() == ["one"]
    assert server.seen == []
    # What a mirror does not list the registry may.
    mirror.manifests["app"].pop(artifact)
    (artifact,) = referring(server, pushed)
    assert [each.digest for each in list_referrers(where, Digest(pushed))] == [artifact]
    assert told.lines == []


def test_what_refers_to_an_image_when_only_a_mirror_is_reached(
    server: LoopRegistry, mirror: LoopRegistry, pushed: str
) -> None:
    copy(server, mirror)
    with serve_registry() as gone:
        pass
    where = Told(mirrors(gone, mirror.host)).registries.repository(Reference.parse(f"{gone.host}/app:one"))
    assert list_referrers(where, Digest(pushed)) == ()
    # Where no mirror answers that is no answer.
    mirror.fail("GET", "/referrers/", Answer(500), times=9)
    assert "cannot be reached" in fails("net.unreachable", lambda: list_referrers(where, Digest(pushed))).message


def test_a_list_of_more_pages_than_are_read(server: LoopRegistry, pushed: str) -> None:
    """Not cut: the signature that is looked for may be on the last one."""
    server.referrers = True
    artifacts = referring(server, pushed, 64)
    where = Told(HostFiles()).registries.repository(Reference.parse(f"{server.host}/app:one"))
    assert sorted(each.digest for each in list_referrers(where, Digest(pushed))) == sorted(artifacts)
    referring(server, pushed, 65)
    error = fails("registry.too-large", lambda: list_referrers(where, Digest(pushed)))
    assert error.message == f"the list of what refers to `{pushed}` has more than 64 pages"


def test_a_registry_that_does_not_run_is_told_at_once() -> None:
    with serve_registry() as gone:
        pass
    told = Told(HostFiles())
    name = Reference.parse(f"{gone.host}/app:one")
    error = fails("net.unreachable", lambda: told.registries.repository(name).document(name))
    assert told.waits == []
    port = gone.host.partition(":")[2]
    assert error.hints == (
        f"nothing listens on port {port} of `127.0.0.1`: check name and port, and whether the server runs",
    )


def test_tags_of_mirrors_for_digests_only(server: LoopRegistry, mirror: LoopRegistry, tmp_path: Path) -> None:
    mirror.add_manifest("app", b'{"schemaVersion": 2, "old": true}', "x", "one")
    found = server.add_manifest("app", b'{"schemaVersion": 2}', "x", "one")
    text = f'[[registry]]\nlocation = "{server.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n'
    told = Told(conf(tmp_path, text + 'pull-from-mirror = "digest-only"\n'))
    name = Reference.parse(f"{server.host}/app:one")
    assert told.registries.repository(name).document(name).descriptor.digest == found
    assert mirror.seen == []


def test_uploads_go_to_a_mirror_only_if_it_takes_them(
    server: LoopRegistry, mirror: LoopRegistry, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    silent = host(tmp_path / "one", server.host, f'server = "http://{server.host}"\n[host."http://{mirror.host}"]\n')
    open_ = host(
        tmp_path / "two",
        server.host,
        f'server = "http://{server.host}"\n[host."http://{mirror.host}"]\ncapabilities = ["push"]\n',
    )
    blob = Descriptor(digest=Digest(sha(LAYER)), size=len(LAYER))
    for files, target in ((silent, server), (open_, mirror)):
        repository = Told(files).registries.repository(Reference.parse(f"{server.host}/app"))
        Uploads(repository).blob(blob, lambda: io.BytesIO(LAYER))
        assert target.blobs["app"][sha(LAYER)] == LAYER
    assert "app" not in {name for name in mirror.blobs if mirror.count("POST") != 1}


def test_credentials_and_headers_of_each_host_stay_with_it(
    server: LoopRegistry, mirror: LoopRegistry, pushed: str, tmp_path: Path
) -> None:
    """The registry's password does not go to the mirror, the mirror's header not to where it redirects to."""
    copy(server, mirror)
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: {"auth": "YW15Om9wZW4tc2VzYW1l"}}}))
    seen: list[Request] = []

    def content(request: Request) -> Answer:
        seen.append(request)
        return Answer(200, LAYER)

    with serve_registry(content) as store:
        mirror.redirect_blobs_to = f"http://{store.host}/bucket"
        files = HostFiles(
            own={
                server.host: OwnHost(mirrors=(mirror.host,)),
                mirror.host: OwnHost(headers=(("X-Key", "for-the-mirror"),)),
            }
        )
        assert Told(files, tmp_path / "auth.json").pull(f"{server.host}/app:one") == LAYER
    assert {each.headers.get("x-key") for each in mirror.seen} == {"for-the-mirror"}
    assert not any("authorization" in each.headers for each in (*mirror.seen, *seen))
    assert [each.headers.get("x-key") for each in seen] == [None]


def test_hosts_know_nothing_by_default() -> None:
    assert asked(Hosts().route(Reference.parse("alpine"))) == ["docker.io/library/alpine"]
