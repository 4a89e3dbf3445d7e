"""The configuration of apt in build roots."""

from __future__ import annotations

from aerogel.debian.mirror import discover
from aerogel.distroless.apt import apt_files, mirror_list, mirror_mounts
from aerogel.distroless.rules import SLIM, Filter


def test_sources():
    files = apt_files("trixie", slim=False)
    text = files[b"etc/apt/sources.list.d/debian.sources"].decode()
    assert text.count("URIs: mirror+file:/etc/apt/mirrors/") == 2
    assert "Suites: trixie trixie-updates\n" in text
    assert "Suites: trixie-security\n" in text
    assert text.count("Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n") == 2


def test_the_image_names_only_the_fallback_mirrors():
    files = apt_files("bookworm", slim=False)
    assert files[b"etc/apt/mirrors/debian.list"] == b"http://mirrors.edge.kernel.org/debian/\tpriority:1\n"
    security = files[b"etc/apt/mirrors/debian-security.list"]
    assert security == b"http://mirrors.ocf.berkeley.edu/debian-security/\tpriority:1\n"
    assert b"etc/dpkg/dpkg.cfg.d/docker" not in files


def test_a_run_sees_the_mirrors_of_the_host(tmp_path):
    sources = discover("http://mirror.example.org/debian file:/srv/debian", apt=tmp_path)
    archive, security = mirror_mounts(sources, "trixie")
    assert (archive.kind, archive.target, archive.readonly) == ("file", "/etc/apt/mirrors/debian.list", True)
    assert archive.data == b"http://mirror.example.org/debian/\tpriority:1\n"
    assert security.target == "/etc/apt/mirrors/debian-security.list"
    assert security.data.startswith(b"http://mirror.example.org/debian-security/\tpriority:1\n")
    assert b"file:" not in archive.data + security.data
    assert mirror_mounts(discover("file:/srv/debian", "file:/srv/security", apt=tmp_path), "trixie") == ()


def test_priorities_keep_the_order():
    assert mirror_list(["http://a/d", "http://b/d"]) == b"http://a/d/\tpriority:1\nhttp://b/d/\tpriority:2\n"


def test_slim_is_the_same_now_and_for_later_installs():
    told = apt_files("trixie", slim=True)[b"etc/dpkg/dpkg.cfg.d/docker"].decode().splitlines()
    excluded = [line.split()[1].removesuffix("/*") for line in told if line.startswith("path-exclude")]
    dropped_by = Filter((SLIM,), "x").dropped_by
    for folder in excluded:
        assert dropped_by(f"{folder.lstrip('/')}/x/y".encode()) == "slim"
    for line in told:
        if line.startswith("path-include"):
            assert dropped_by(line.split()[1].lstrip("/").replace("*", "x").encode()) is None
