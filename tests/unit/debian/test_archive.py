from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from debian_repo import Repo, Signer, deb
from fault_server import Fault, FaultServer

from aerogel.debian.archive import Archive
from aerogel.debian.cache import Cache
from aerogel.debian.keyring import Keyring
from aerogel.debian.mirror import Place, Sources
from aerogel.errors import EXIT_HOST, EXIT_NETWORK, AerogelError, render
from aerogel.events import Event, Progress, Warned
from aerogel.net.http import Http

XZ = "/debian/dists/trixie/main/binary-amd64/Packages.xz"
GZ = "/debian/dists/trixie/main/binary-amd64/Packages.gz"
IN_RELEASE = "/debian/dists/trixie/InRelease"


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event, /) -> None:
        self.events.append(event)

    def warnings(self) -> list[str]:
        return [event.diagnostic.code for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def repo(signer: Signer, server: FaultServer) -> Repo:
    repo = Repo(signer)
    repo.put("trixie", {"Package": "hello", "Depends": "libc6", "Provides": "greeter (= 2), mail"})
    repo.put("trixie", {"Package": "libc6", "Version": "2.41-1", "Essential": "yes", "Priority": "required"})
    server.files |= repo.publish("trixie", Valid_Until=formatdate(time.time() + 3600, usegmt=True))
    return repo


@pytest.fixture
def archive(server: FaultServer, signer: Signer, tmp_path: Path, sink: Recorder, repo: Repo) -> Callable[..., Archive]:
    def make(*roots: str, **options: object) -> Archive:
        places = tuple(Place(server.url + root, "option") for root in roots or ("/debian",))
        given: dict[str, object] = {
            "keyring": Keyring(signer.public),
            "sink": sink,
            "sleep": lambda _: None,
            **options,
        }
        http = Http(sleep=lambda _: None, read_timeout_s=given.pop("read_timeout_s", 20.0))  # type: ignore[arg-type]  # as above
        return Archive(Sources(places, places), tmp_path / "cache", http, **given)  # type: ignore[arg-type]  # options by name

    return make


Make = Callable[..., Archive]


def refused(call: Callable[[], object], code: str) -> AerogelError:
    with pytest.raises(AerogelError) as caught:
        call()
    assert caught.value.code == code, render(caught.value)
    return caught.value


def stored(tmp_path: Path) -> list[str]:
    cache = tmp_path / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_the_straight_way(archive: Make, server: FaultServer, signer: Signer) -> None:
    opened = archive()
    release = opened.release("trixie")
    assert (release.suite, release.uri, release.by_hash) == ("trixie", server.url + "/debian", True)
    assert release.signers == (str(signer.secret.extract_certificate().fingerprint),)
    index = opened.index("trixie")
    (hello,) = index.named("hello")
    assert (hello.version, hello.suite, hello.depends, hello.essential) == ("1.0", "trixie", "libc6", False)
    assert index.named("greeter") == ()
    assert index.providers("greeter") == (hello,)
    assert [package.name for package in index.essential()] == ["libc6"]
    assert [package.name for package in index.with_priority("required")] == ["libc6"]
    assert list(index.names()) == ["hello", "libc6"]
    path = opened.fetch(hello)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hello.sha256
    assert all("/by-hash/" in path for path in server.paths() if "Packages" in path or "by-hash" in path)


def test_a_second_run_asks_for_nothing(archive: Make, server: FaultServer) -> None:
    first = archive()
    first.fetch_all(first.index("trixie").named("hello"))
    server.seen.clear()
    for options in ({}, {"offline": True}):
        again = archive(**options)
        again.fetch_all(again.index("trixie").named("hello"))
    assert server.seen == []
    archive(refresh=True).index("trixie")
    assert server.paths() == [IN_RELEASE]


def test_offline_without_a_cache(archive: Make, server: FaultServer) -> None:
    opened = archive(offline=True)
    refused(lambda: opened.release("trixie"), "debian.offline")
    archive().release("trixie")
    opened = archive(offline=True)
    refused(lambda: opened.index("trixie"), "debian.offline")
    (hello,) = archive().index("trixie").named("hello")
    error = refused(lambda: archive(offline=True).fetch(hello), "debian.offline")
    assert error.exit_status == EXIT_NETWORK


def test_tampered_in_release(archive: Make, server: FaultServer, tmp_path: Path) -> None:
    server.files[IN_RELEASE] = server.files[IN_RELEASE].replace(b"Components: main", b"Components: mail")
    error = refused(lambda: archive().release("trixie"), "debian.signature")
    assert f"`{server.url}{IN_RELEASE}` is not signed by a key that is trusted" in error.message
    assert stored(tmp_path) == []


@pytest.mark.parametrize("text", [b"", b"<html>captive portal</html>", b"Origin: Debian\nSuite: trixie\n"])
def test_unsigned_in_release(archive: Make, server: FaultServer, text: bytes) -> None:
    server.files[IN_RELEASE] = text
    refused(lambda: archive().release("trixie"), "debian.signature")


def test_wrong_key(archive: Make, server: FaultServer) -> None:
    error = refused(lambda: archive(keyring=Keyring(Signer().public)).release("trixie"), "debian.signature")
    assert "signed by key" in error.detail
    refused(lambda: archive(keyring=Keyring.shipped()).release("trixie"), "debian.signature")


def test_text_outside_the_signature_counts_for_nothing(archive: Make, server: FaultServer) -> None:
    server.files[IN_RELEASE] = b"Codename: evil\n" + server.files[IN_RELEASE] + b"\nSuite: evil\n"
    assert archive().release("trixie").suite == "trixie"


def test_keys_of_the_place(server: FaultServer, repo: Repo, signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / "host.asc"
    path.write_text(signer.armored)
    for keys in ((str(path),), (signer.armored,), ("/nonexistent.gpg", signer.armored + signer.armored)):
        place = Place(server.url + "/debian", "host", keys)
        found = Archive(Sources((place,), ()), tmp_path / "cache", Http()).release("trixie")
        assert found.origin == "Debian"
    path.write_text("no key")
    place = Place(server.url + "/debian", "host", (str(path),))
    opened = Archive(Sources((place,), ()), tmp_path / "other", Http())
    assert "not an OpenPGP keyring" in refused(lambda: opened.release("trixie"), "debian.signature").detail


def test_expired(archive: Make, server: FaultServer, repo: Repo) -> None:
    server.files |= repo.publish("trixie", Valid_Until=formatdate(time.time() - 3 * 86400, usegmt=True))
    error = refused(lambda: archive().release("trixie"), "debian.expired")
    assert "3 days ago" in error.message
    assert archive(allow_expired=True).release("trixie").suite == "trixie"


def test_a_cached_file_that_expires_is_fetched_again(archive: Make, server: FaultServer) -> None:
    archive().release("trixie")
    server.seen.clear()
    refused(lambda: archive(now=lambda: time.time() + 7200).release("trixie"), "debian.expired")
    assert server.paths() == [IN_RELEASE]
    assert archive(now=lambda: time.time() + 7200, offline=True).release("trixie").suite == "trixie"


def test_what_is_cached_counts_for_its_place_and_its_key_only(
    archive: Make, server: FaultServer, tmp_path: Path
) -> None:
    archive().release("trixie")
    other = Repo(Signer("Other <other@example.org>"), root="/other")
    other.put("trixie", {"Package": "elsewhere"})
    server.files |= other.publish("trixie")
    keys = Keyring(other.signer.public)
    assert archive("/other", keyring=keys).index("trixie").named("elsewhere")  # the cached one is of another key
    assert archive().index("trixie").named("hello")
    own = Repo(other.signer)
    own.put("trixie", {"Package": "mine"})
    server.files |= own.publish("trixie")
    assert archive(keyring=keys).index("trixie").named("mine")
    other.put("trixie", {"Package": "third"})
    server.files |= other.publish("trixie")
    assert archive("/other", keyring=keys).index("trixie").named("third")  # the same key, and another place


def test_from_the_future(archive: Make, server: FaultServer) -> None:
    refused(lambda: archive(now=lambda: time.time() - 3 * 86400).release("trixie"), "debian.future")


def test_another_suite_in_its_place(archive: Make, server: FaultServer, repo: Repo) -> None:
    server.files["/debian/dists/sid/InRelease"] = server.files[IN_RELEASE]
    error = refused(lambda: archive().release("sid"), "debian.wrong-suite")
    assert "expected `sid`, found suite `trixie`" in error.message
    server.files |= repo.publish("trixie", Suite="stable")
    assert archive(refresh=True).release("trixie").suite == "stable"


def test_an_older_file_than_before_is_not_taken(archive: Make, server: FaultServer, repo: Repo, sink: Recorder) -> None:
    before = archive().release("trixie")
    server.files |= repo.publish("trixie", Date=formatdate(time.time() - 86400, usegmt=True))
    assert archive(refresh=True).release("trixie").sha256 == before.sha256
    assert sink.warnings() == ["debian.older-release"]


@pytest.mark.parametrize("field", ["Date", "SHA256", "Valid-Until"])
def test_release_files_that_lack_or_botch_a_field(
    archive: Make, server: FaultServer, repo: Repo, signer: Signer, field: str
) -> None:
    text, _ = repo.release("trixie", Valid_Until="sometime")
    if field != "Valid-Until":
        text = text.replace(b"Valid-Until: sometime\n", b"").replace(f"{field}:".encode(), f"X-{field}:".encode())
    server.files[IN_RELEASE] = signer.clear_sign(text)
    assert "cannot be used" in refused(lambda: archive().release("trixie"), "debian.release").message


def test_suite_names(archive: Make) -> None:
    for bad in ("../trixie", "", "a b", "/x", "a/../b"):
        refused(lambda bad=bad: archive().release(bad), "debian.suite")  # type: ignore[misc]  # a default argument


def test_the_next_place_is_asked(archive: Make, server: FaultServer, repo: Repo, sink: Recorder) -> None:
    server.files["/broken/dists/trixie/InRelease"] = b"rubbish"
    assert archive("/missing", "/broken", "/debian").release("trixie").uri == server.url + "/debian"
    assert sink.warnings() == ["debian.signature"]


def test_places_of_the_host_must_serve_debian(server: FaultServer, repo: Repo, signer: Signer, tmp_path: Path) -> None:
    server.files |= repo.publish("trixie", Origin="Tool")
    place = Place(server.url + "/debian", "host")
    opened = Archive(Sources((place,), ()), tmp_path / "cache", Http(), keyring=Keyring(signer.public))
    error = refused(lambda: opened.release("trixie"), "debian.no-suite")
    assert "an archive of `Tool`, not of Debian" in error.detail
    assert error.exit_status == EXIT_NETWORK


def test_no_such_suite(archive: Make) -> None:
    error = refused(lambda: archive().release("tryxie"), "debian.no-suite")
    assert "404" in error.detail


def test_a_mirror_that_is_down(signer: Signer, tmp_path: Path) -> None:
    place = Place("http://mirror.invalid/debian", "option")
    opened = Archive(Sources((place,), ()), tmp_path / "cache", Http(sleep=lambda _: None))
    error = refused(lambda: opened.release("trixie"), "net.unreachable")
    assert error.exit_status == EXIT_NETWORK
    assert any("--mirror" in hint for hint in error.hints)
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "fault", [Fault(503), Fault(cut_at=100), Fault(stall_s=10.0), Fault(429, {"Retry-After": "1"})]
)
def test_faults_that_pass(archive: Make, server: FaultServer, fault: Fault) -> None:
    server.fail(IN_RELEASE, fault)
    assert archive(read_timeout_s=1.0 if fault.stall_s else 20.0).index("trixie").named("hello")


def test_a_server_that_stays_broken(archive: Make, server: FaultServer) -> None:
    server.fail(IN_RELEASE, Fault(503), times=10)
    assert "503" in refused(lambda: archive().release("trixie"), "net.status").message


def test_without_by_hash_the_plain_name_is_taken(archive: Make, server: FaultServer, repo: Repo) -> None:
    for path in [path for path in server.files if "/by-hash/" in path]:
        del server.files[path]
    assert archive().index("trixie").named("hello")
    assert server.paths()[-1] == XZ


def test_gz_when_there_is_no_xz(archive: Make, server: FaultServer, repo: Repo) -> None:
    repo.variants = ("gz",)
    repo.by_hash = False
    server.files.clear()
    server.files |= repo.publish("trixie")
    assert archive().index("trixie").named("hello")
    assert server.paths() == [IN_RELEASE, GZ]


def test_mirror_skew_is_refused_with_both_digests(
    archive: Make, server: FaultServer, repo: Repo, tmp_path: Path
) -> None:
    repo.by_hash = False
    server.files.clear()
    server.files |= repo.publish("trixie")
    good = hashlib.sha256(server.files[XZ]).hexdigest()
    server.files[XZ] += b"x"
    server.files[GZ] += b"x"
    error = refused(lambda: archive().index("trixie"), "debian.mirror-skew")
    assert "`main/binary-amd64/Packages.xz` of `trixie` does not match" in error.message
    assert f"expected sha256:{good} ({len(server.files[XZ]) - 1} bytes)" in error.detail
    assert f"found    sha256:{hashlib.sha256(server.files[XZ]).hexdigest()}" in error.detail
    assert server.paths().count(XZ) == 3
    assert [name for name in stored(tmp_path) if not name.startswith("releases-v1/")] == []


def test_skew_that_passes(archive: Make, server: FaultServer, repo: Repo) -> None:
    repo.by_hash = False
    server.files.clear()
    server.files |= repo.publish("trixie")
    server.fail(XZ, Fault(replace=b"old"))
    server.fail(GZ, Fault(replace=b"old"))
    assert archive().index("trixie").named("hello")


def test_an_index_that_moved_on_since_the_cached_release(archive: Make, server: FaultServer, repo: Repo) -> None:
    archive().release("trixie")
    repo.put("trixie", {"Package": "new"})
    server.files.clear()
    server.files |= repo.publish("trixie")
    assert archive().index("trixie").named("new")


def test_an_index_that_is_nowhere(archive: Make, server: FaultServer, repo: Repo) -> None:
    for path in [path for path in server.files if "binary-amd64" in path]:
        del server.files[path]
    refused(lambda: archive().index("trixie"), "debian.index-missing")


def test_an_endless_index(archive: Make, server: FaultServer, repo: Repo) -> None:
    repo.by_hash = False
    server.files.clear()
    server.files |= repo.publish("trixie")
    server.files[XZ] = server.files[GZ] = bytes(8 << 20)
    error = refused(lambda: archive().index("trixie"), "debian.mirror-skew")
    assert "found many more" in error.detail


def test_an_index_that_grows_while_it_is_unpacked(
    archive: Make, server: FaultServer, repo: Repo, signer: Signer
) -> None:
    """The plain text's size is signed too: a few bytes of xz may be gigabytes."""
    text, files = repo.release("trixie")
    plain = f"{len(repo.packages('trixie', 'amd64'))} main/binary-amd64/Packages\n".encode()
    assert plain in text
    text = text.replace(plain, b"10 main/binary-amd64/Packages\n")
    server.files |= {f"/debian/dists/trixie/{name}": data for name, data in files.items()}
    server.files[IN_RELEASE] = signer.clear_sign(text)
    assert "unpacks to more than 10 bytes" in refused(lambda: archive().index("trixie"), "debian.index").message


def test_a_paragraph_that_is_no_package(archive: Make, server: FaultServer, repo: Repo) -> None:
    del repo.suites["trixie"][0]["SHA256"]
    server.files |= repo.publish("trixie")
    refused(lambda: archive().index("trixie"), "debian.index")


def test_architectures(archive: Make, server: FaultServer, repo: Repo, sink: Recorder) -> None:
    repo.put("trixie", {"Package": "hello", "Architecture": "riscv64", "Version": "3"})
    repo.put("trixie-security", {"Package": "x"})
    server.files |= repo.publish("trixie", arches=("amd64", "riscv64"))
    server.files |= repo.publish("trixie-security", arches=("amd64",))
    opened = archive()
    assert opened.index("trixie", arch="riscv64").named("hello")[0].version == "3"
    error = refused(lambda: opened.index("trixie-security", arch="riscv64"), "debian.no-architecture")
    assert error.hints == ("it has: amd64",)
    found = opened.indexes(["trixie", "trixie-security"], arch="riscv64")
    assert [index.suite for index in found] == ["trixie"]
    assert sink.warnings() == ["debian.no-architecture"]
    assert [index.suite for index in opened.indexes(["trixie", "trixie-security"])] == ["trixie", "trixie-security"]
    assert "component `games`" in refused(lambda: opened.index("trixie", "games"), "debian.no-architecture").message


def test_wrong_deb_digest(archive: Make, server: FaultServer, repo: Repo, tmp_path: Path) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    url = f"/debian/{hello.filename}"
    server.files[url] = deb({"Package": "evil"})
    error = refused(lambda: opened.fetch(hello), "debian.deb-digest")
    assert f"expected sha256:{hello.sha256}" in error.detail
    assert f"found    sha256:{hashlib.sha256(server.files[url]).hexdigest()}" in error.detail
    assert not [name for name in stored(tmp_path) if name.startswith(("debs-v1/", "partial/"))]


def test_truncated_deb(archive: Make, server: FaultServer) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    server.files[f"/debian/{hello.filename}"] = server.files[f"/debian/{hello.filename}"][:-10]
    refused(lambda: opened.fetch(hello), "debian.deb-digest")


def test_a_cut_deb_is_continued_by_the_next_run(archive: Make, server: FaultServer, tmp_path: Path) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    url = f"/debian/{hello.filename}"
    partial = tmp_path / "cache/partial" / hello.sha256
    partial.write_bytes(server.files[url][:50])
    server.seen.clear()
    opened.fetch(hello)
    assert server.seen[0].headers["range"] == "bytes=50-"
    assert not partial.exists()


def test_a_wrong_first_part_is_thrown_away(archive: Make, server: FaultServer, tmp_path: Path) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    (tmp_path / "cache/partial" / hello.sha256).write_bytes(b"x" * 50)
    assert hashlib.sha256(opened.fetch(hello).read_bytes()).hexdigest() == hello.sha256


def test_one_at_a_time_writes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    with cache.partial("a" * 64) as path, path.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.write_bytes(b"part")
    assert path.read_bytes() == b"part"  # for the next one to go on with
    lock, waited = fcntl.flock, []

    def finished_by_another(fd: int, how: int) -> None:
        """While this one waited for the lock, the one before renamed the file."""
        if not waited:
            waited.append(os.rename(path, tmp_path / "whole"))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", finished_by_another)
    with cache.partial("a" * 64) as again:
        assert again.read_bytes() == b""
        assert (tmp_path / "whole").read_bytes() == b"part"
    assert not again.exists()


def test_a_damaged_deb_in_the_cache_is_fetched_again(archive: Make, server: FaultServer) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    path = opened.fetch(hello)
    path.write_bytes(b"x" * path.stat().st_size)
    assert hashlib.sha256(opened.fetch(hello).read_bytes()).hexdigest() == hello.sha256


def test_a_damaged_index_in_the_cache_is_made_again(archive: Make, tmp_path: Path) -> None:
    archive().index("trixie")
    (path,) = (tmp_path / "cache/indexes-v1").iterdir()
    for content in (b"", b"x" * 100, path.read_bytes()[:-5]):
        path.write_bytes(content)
        assert archive().index("trixie").named("hello")


def test_a_deb_that_the_mirror_dropped(archive: Make, server: FaultServer) -> None:
    opened = archive()
    (hello,) = opened.index("trixie").named("hello")
    del server.files[f"/debian/{hello.filename}"]
    error = refused(lambda: opened.fetch(hello), "debian.deb-missing")
    assert "404" in error.message


def test_fetch_all_keeps_the_order_and_tells_progress(
    archive: Make, repo: Repo, server: FaultServer, sink: Recorder
) -> None:
    for i in range(20):
        repo.put("trixie", {"Package": f"p{i}"}, deb({"Package": f"p{i}"}, [("./x", os.urandom(10_000))]))
    server.files |= repo.publish("trixie")
    opened = archive()
    wanted = [opened.index("trixie").named(f"p{i}")[0] for i in range(20)]
    paths = opened.fetch_all(wanted, step=7)
    assert [path.stem for path in paths] == [package.sha256 for package in wanted]
    last = [event for event in sink.events if isinstance(event, Progress) and event.step == 7][-1]
    assert last.done == last.total == sum(package.size for package in wanted)
    del server.files[f"/debian/{wanted[3].filename}"]
    paths[3].unlink()
    refused(lambda: opened.fetch_all(wanted), "debian.deb-missing")


def test_a_folder_as_mirror(signer: Signer, repo: Repo, tmp_path: Path) -> None:
    for name, data in repo.publish("trixie").items():
        target = tmp_path / ("mirror" + name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    place = Place(f"file:{tmp_path}/mirror/debian", "option")
    opened = Archive(Sources((place,), ()), tmp_path / "cache", Http(), keyring=Keyring(signer.public))
    assert opened.fetch(opened.index("trixie").named("hello")[0]).exists()
    refused(lambda: opened.release("sid"), "debian.no-suite")


def test_the_shipped_keys_are_readable() -> None:
    keyring = Keyring.shipped()
    with pytest.raises(AerogelError):
        keyring.verify(b"", "x")
    assert len(keyring._trusted()) == 9


def test_passwords_are_neither_shown_nor_kept(
    server: FaultServer, repo: Repo, signer: Signer, tmp_path: Path, sink: Recorder
) -> None:
    url = server.url.replace("//", "//joe:hunter2@") + "/debian"
    sources = Sources((Place(url, "option"),), ())

    def make(*keys: bytes) -> Archive:
        return Archive(
            sources,
            tmp_path / "cache",
            Http(sleep=lambda _: None),
            keyring=Keyring(*keys),
            sink=sink,
            sleep=lambda _: None,
        )

    assert "hunter2" not in render(refused(lambda: make().release("trixie"), "debian.signature"))
    assert "hunter2" not in render(refused(lambda: make(signer.public).release("sid"), "debian.no-suite"))
    opened = make(signer.public)
    (hello,) = opened.index("trixie").named("hello")
    assert server.seen[-1].headers["authorization"].startswith("Basic ")
    server.files[f"/debian/{hello.filename}"] = b"x"
    assert "hunter2" not in render(refused(lambda: opened.fetch(hello), "debian.deb-digest"))
    for name in stored(tmp_path):
        assert b"hunter2" not in (tmp_path / "cache" / name).read_bytes()


def test_a_cache_that_cannot_be_written(server: FaultServer, repo: Repo, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sources = Sources((Place(server.url + "/debian", "option"),), ())
    opened = Archive(sources, tmp_path / "file/cache", Http(), keyring=Keyring(signer.public))
    error = refused(lambda: opened.index("trixie"), "debian.cache")
    assert error.exit_status == EXIT_HOST


def test_one_fault_stops_the_other_downloads(archive: Make, repo: Repo, server: FaultServer, tmp_path: Path) -> None:
    for i in range(30):
        repo.put("trixie", {"Package": f"p{i}"}, deb({"Package": f"p{i}"}, [("./x", os.urandom(1000))]))
    server.files |= repo.publish("trixie")
    opened = archive(jobs=2)
    wanted = [opened.index("trixie").named(f"p{i}")[0] for i in range(30)]
    server.files[f"/debian/{wanted[0].filename}"] = b"x"
    for package in wanted[2:]:
        server.fail(f"/debian/{package.filename}", Fault(stall_s=0.2))
    refused(lambda: opened.fetch_all(wanted), "debian.deb-digest")
    assert len(server.seen) < 20


@pytest.mark.parametrize(
    "date", ["Sat, 12 Sep 2026 07:55:41 +0200", "Sat, 12 Xxx 2026 07:55:41 UTC", "Sat, 32 Sep 2026 07:55:41 UTC", ""]
)
def test_dates_that_are_none(archive: Make, server: FaultServer, repo: Repo, date: str) -> None:
    server.files |= repo.publish("trixie", Date=date)
    refused(lambda: archive().release("trixie"), "debian.release")


def test_a_date_as_debian_writes_it(archive: Make, server: FaultServer, repo: Repo) -> None:
    server.files |= repo.publish("trixie", Date="Sat, 12 Sep 2026 07:55:41 UTC")
    assert archive(now=lambda: 1789199742.0).release("trixie").date == 1789199741
