from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.debian.apt_sources import read_apt_sources
from aerogel.debian.mirror import discover, is_security
from aerogel.errors import AerogelError

ONE_LINE = """\
# deb http://old.example.org/debian bookworm main
deb http://mirror.example.org/debian bookworm main contrib # trailing
deb-src http://mirror.example.org/debian bookworm main
deb [arch=amd64 signed-by=/etc/keys/a.gpg,/etc/keys/b.asc] https://mirror.example.org/debian/ bookworm-updates main

deb [ signed-by=/usr/share/keyrings/tool.gpg ] https://tool.example.org/linux/debian bookworm stable
deb http://security.example.org/debian-security bookworm-security main
deb http://flat.example.org/repo ./
deb cdrom:[Debian]/ bookworm main
nonsense
"""

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://one.example.org/debian http://two.example.org/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.example.org/debian
Suites: trixie
Components: main

Types: deb
URIs: http://inline.example.org/debian-security
Suites: trixie-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBGPL
 =abcd
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://source.example.org/debian
Suites: trixie
"""


def apt(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir(exist_ok=True)
    for name, text in files.items():
        folder, _, rest = name.rpartition("__")
        target = tmp_path / ("sources.list.d" if folder else "") / rest.replace("_", ".")
        target.write_text(text)
    return tmp_path


def test_one_line_sources(tmp_path: Path) -> None:
    found = read_apt_sources(apt(tmp_path, sources_list=ONE_LINE))
    assert [(entry.uris, entry.suites, entry.components, entry.keys) for entry in found.entries] == [
        (("http://mirror.example.org/debian",), ("bookworm",), ("main", "contrib"), ()),
        (
            ("https://mirror.example.org/debian",),
            ("bookworm-updates",),
            ("main",),
            ("/etc/keys/a.gpg", "/etc/keys/b.asc"),
        ),
        (("https://tool.example.org/linux/debian",), ("bookworm",), ("stable",), ("/usr/share/keyrings/tool.gpg",)),
        (("http://security.example.org/debian-security",), ("bookworm-security",), ("main",), ()),
        (("http://flat.example.org/repo",), ("./",), (), ()),
    ]
    assert [note.rpartition("/")[2] for note in found.skipped] == [
        "sources.list:9: `cdrom` is a transport that is not supported",
        "sources.list:10: not a source line",
    ]


def test_deb822_sources(tmp_path: Path) -> None:
    found = read_apt_sources(apt(tmp_path, d__debian_sources=DEB822, d__off_disabled="deb http://x.example.org y main"))
    assert [(entry.uris, entry.suites) for entry in found.entries] == [
        (("http://one.example.org/debian", "http://two.example.org/debian"), ("trixie", "trixie-updates")),
        (("http://inline.example.org/debian-security",), ("trixie-security",)),
    ]
    assert found.entries[0].keys == ("/usr/share/keyrings/debian-archive-keyring.gpg",)
    assert found.entries[1].keys == (
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBGPL\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n",
    )


def test_entries_without_keys_take_those_that_apt_trusts(tmp_path: Path) -> None:
    (tmp_path / "trusted.gpg.d").mkdir()
    (tmp_path / "trusted.gpg.d" / "corp.asc").write_text("")
    (tmp_path / "trusted.gpg.d" / "corp.txt").write_text("")
    lines = (
        "deb http://a.example.org/debian x main\ndeb [signed-by=0123456789ABCDEF] http://b.example.org/debian x main\n"
    )
    found = read_apt_sources(apt(tmp_path, sources_list=lines))
    assert [entry.keys for entry in found.entries] == [(str(tmp_path / "trusted.gpg.d/corp.asc"),)] * 2


def test_mirror_lists(tmp_path: Path) -> None:
    listed = tmp_path / "mirrors.txt"
    listed.write_text(
        "# mine\nhttp://second.example.org/debian\tpriority:2\nhttp://first.example.org/debian priority:1 arch:amd64\n"
        "http://sources.example.org/debian type:deb-src\nhttp://last.example.org/debian/\ngopher://x\n"
    )
    text = f"deb mirror+file:{listed} trixie main\ndeb mirror+file:/nonexistent trixie main\n"
    found = read_apt_sources(apt(tmp_path, sources_list=text))
    assert [entry.uris for entry in found.entries] == [
        ("http://first.example.org/debian", "http://second.example.org/debian", "http://last.example.org/debian")
    ]
    assert len(found.skipped) == 2


def test_broken_files_do_not_stop_the_others(tmp_path: Path) -> None:
    found = read_apt_sources(
        apt(tmp_path, d__a_sources="no paragraph\n", d__b_list="deb http://b.example.org/debian x main\n")
    )
    assert [entry.uris for entry in found.entries] == [("http://b.example.org/debian",)]
    assert "line 1 is no `Field: value`" in found.skipped[0]


def test_places_from_the_host(tmp_path: Path) -> None:
    sources = discover(apt=apt(tmp_path, sources_list=ONE_LINE))
    archive = [(place.uri, place.origin) for place in sources.places("trixie")]
    assert archive[:3] == [
        ("http://mirror.example.org/debian", "host"),
        ("https://mirror.example.org/debian", "host"),
        ("https://tool.example.org/linux/debian", "host"),
    ]
    assert archive[3][1] == "fallback"
    security = [(place.uri, place.origin) for place in sources.places("trixie-security")]
    assert security[:2] == [
        ("http://security.example.org/debian-security", "host"),
        ("http://mirror.example.org/debian-security", "sibling"),
    ]
    assert security[-1][1] == "fallback"
    assert sources.places("bookworm-updates")[0].uri == "https://mirror.example.org/debian"


def test_places_from_options(tmp_path: Path) -> None:
    host = apt(tmp_path, sources_list=ONE_LINE)
    sources = discover("corp.example.org/debian", apt=host)
    assert [place.uri for place in sources.archive] == ["http://corp.example.org/debian"]
    assert [place.uri for place in sources.security][:2] == [
        "http://corp.example.org/debian-security",
        "http://security.example.org/debian-security",
    ]
    sources = discover("file:/srv/debian", "https://corp.example.org/sec/", apt=host)
    assert [place.uri for place in sources.archive] == ["file:/srv/debian"]
    assert [place.uri for place in sources.security] == ["https://corp.example.org/sec"]
    for bad in ("ftp://corp.example.org/debian", "http://", "mirror+file:/nonexistent"):
        with pytest.raises(AerogelError) as caught:
            discover(bad, apt=host)
        assert caught.value.code == "debian.mirror"


def test_a_host_without_apt(tmp_path: Path) -> None:
    sources = discover(apt=tmp_path / "nowhere")
    assert [place.origin for place in (*sources.archive, *sources.security)] == ["fallback", "fallback"]


def test_security_suites() -> None:
    assert [is_security(suite) for suite in ("trixie", "trixie-updates", "trixie-security", "buster/updates")] == [
        False,
        False,
        True,
        True,
    ]


def test_logins_of_private_mirrors(tmp_path: Path) -> None:
    text = """\
deb https://corp.example.org/debian trixie main
deb http://corp.example.org/debian trixie main
deb http://plain.example.org:8080/repo/debian trixie main
deb https://corp.example.org/other trixie main
deb https://me@corp.example.org/debian trixie main
"""
    (tmp_path / "auth.conf").write_text("machine corp.example.org/debian # mine\n login joe@corp\n password a/b\n")
    (tmp_path / "auth.conf.d").mkdir()
    (tmp_path / "auth.conf.d/x.conf").write_text("machine http://plain.example.org:8080 login u password p\n")
    found = read_apt_sources(apt(tmp_path, sources_list=text))
    assert [entry.uris[0] for entry in found.entries] == [
        "https://joe%40corp:a%2Fb@corp.example.org/debian",
        "http://corp.example.org/debian",
        "http://u:p@plain.example.org:8080/repo/debian",
        "https://corp.example.org/other",
        "https://me@corp.example.org/debian",
    ]
