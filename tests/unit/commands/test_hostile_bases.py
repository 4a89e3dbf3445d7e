"""Declarations, locks and packages that a stranger wrote: each is refused in words, and nothing outside is touched."""

from __future__ import annotations

import hashlib
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from debian_repo import Signer, deb, special
from own_bases import AMD64, DECLARATION, Archive, Base

NONE = "0" * 64


def url(words: str, address: str = "http://127.0.0.1:1/a.tgz") -> str:
    return DECLARATION.replace("[tool]", f'[{{url: "{address}", {words}}}]')


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('paths: [{file: /x, source: "a\\0b"}]', "error: `U+0000` stands in no text of a declaration"),
        ('paths: [{link: /x, to: "a\\0b"}]', "--> base.yaml:6:24"),
        ('paths: [{file: /x, text: "\\ud800"}]', "error: `U+D800` stands in no text of a declaration"),
        ('image: {env: {"A\\udc00": b}}', "error: `U+DC00` stands in no text of a declaration"),
        ('paths: [{dir: /x, owner: "²"}]', "error: `owner` of `/x` names the user `²`, whom nothing declares"),
        ('accounts: {run-as: "²"}', "error: `run-as` names the user `²`"),
        (
            'accounts: {users: [{name: "a\\n", uid: 5}]}',
            "error: `accounts.users[0].name`: expected `str` matching regex",
        ),
        ('accounts: {run-as: "5:x"}', "error: `run-as` names the user `5:x`"),
        ("accounts: {users: [{name: a, uid: 5, gid: -1}]}", "error: `accounts.users[0].gid`: expected `int` >= 0"),
        ("accounts: {users: [{name: a, uid: 5, home: /a/../x}]}", "the home `/a/../x` of the user `a` is no absolute"),
        ("accounts: {users: [{name: a, uid: 5, home: /a//x}]}", "the home `/a//x` of the user `a` is no absolute"),
        (
            'accounts: {groups: [{name: g, gid: 7, members: ["a\\nb:x:0:"]}]}',
            "is no member that the group `g` can have",
        ),
        ("layers: {strategy: origin, budget: 0}", "error: `layers.budget`: expected `int` >= 1"),
        ('image: {env: {"A=B": c}}', "error: `image.env` has the variable `A=B`"),
        ('image: {env: {"": c}}', "error: `image.env` has the variable ``"),
        ("image: {workdir: app}", "error: `image.workdir`: `app` is no absolute path"),
        ("image: {volumes: [/a/..]}", "error: `image.volumes`: `/a/..` is no absolute path"),
        ("image: {ports: [http]}", "error: `image.ports`: `http` is no port"),
        ("image: {ports: [70000/tcp]}", "error: `image.ports`: `70000/tcp` is no port"),
        ("image: {stop-signal: SIGTREM}", "hint: did you mean `SIGTERM`?"),
    ],
)
def test_words_of_a_declaration_that_fit_nowhere(base: Base, more: str, said: str):
    base.write("base.yaml", f"{DECLARATION}{more}\n")
    base("base", "build", *AMD64, "base.yaml", status=2)
    assert said in base.said
    assert "--> base.yaml:6:" in base.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DECLARATION.replace("[tool]", '[""]'), "error: an entry of `packages` is empty"),
        (DECLARATION.replace("extends: static", 'extends: "./a\\0.yaml"'), "`U+0000` stands in no text"),
        (url(f"to: /opt, sha256: {NONE}", "http://[::x/a"), "error: `http://[::x/a` is not an address that can be"),
        (url(f"to: /opt, sha256: {NONE}", "http://h:99999/a"), "error: `http://h:99999/a` is not an address that can"),
        (url('to: /opt, sha512: "sha512-é"'), "error: `url: a.tgz` has a sha512 that is none"),
        (url(f"to: /opt/../../etc, sha256: {NONE}"), "error: `to: /opt/../../etc` is no absolute path without"),
        (url(f"to: /opt, sha256: {NONE}, strip: -1"), "error: `packages[0].strip`: expected `int` >= 0"),
        (
            DECLARATION + "sources: {extra: [{id: corp, uri: 'http://[x', suites: [s], signed-by: base.yaml}]}\n",
            "`http://[x",
        ),
    ],
)
def test_entries_that_cannot_be_fetched(base: Base, text: str, said: str):
    base.write("base.yaml", text)
    base("base", "build", *AMD64, "base.yaml", status=4 if "extra" in text else 2)
    assert said in base.said


def test_a_word_of_a_megabyte_is_not_repeated(base: Base):
    base.write("base.yaml", DECLARATION.replace("[tool]", f"[{'x' * (1 << 20)}]"))
    base("base", "build", *AMD64, "base.yaml", status=1)
    assert "which no package of trixie" in base.said
    assert len(base.said) < 20_000


def elf(header: int, length: int) -> bytes:
    """A library whose program headers are said to have so many bytes each, cut off behind so many."""
    fields = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, header, 3, 0, 0, 0)
    return (b"\x7fELF\x02\x01\x01" + bytes(9) + fields + bytes(400))[:length]


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (b"", "its field `Package` is not there"),
        (b"Package: x\nArchitecture: amd64\n", "its field `Version` is not there"),
        (b"Package: ../x\nVersion: 1\nArchitecture: amd64\n", "its field `Package` is `../x`"),
        (b"Package: x\nVersion: 1 2\nArchitecture: amd64\n", "its field `Version` is `1 2`"),
        (b"Package: x\nVersion: 1\n", "its field `Architecture` is not there"),
        (b"hello\n", "line 1 is no `Field: value`: `hello`"),
    ],
)
def test_a_local_package_without_its_words(base: Base, control: bytes, said: str):
    base.write("x.deb", deb(control=[("./control", control)]))
    base.write("base.yaml", DECLARATION.replace("[tool]", "[{deb: x.deb}]"))
    base("base", "build", *AMD64, "base.yaml", status=2)
    assert f"error: `x.deb` is not a usable Debian package: {said}" in base.said
    assert "--> base.yaml:5:" in base.said


def test_a_local_package_of_another_machine(base: Base):
    base.write("x.deb", deb({"Package": "x", "Architecture": "arm64"}))
    base.write("base.yaml", DECLARATION.replace("[tool]", "[{deb: x.deb}]"))
    base("base", "build", *AMD64, "base.yaml", status=2)
    assert "error: `x.deb` is a package for arm64, not for amd64" in base.said
    assert "hint: say which architectures have it: `archs: [...]`, or write `{arch}` in its name" in base.said


def test_damaged_libraries_are_no_libraries(base: Base):
    files = (
        ("./usr/lib/liba.so.1", elf(0, 500)),
        ("./usr/lib/libb.so.1", elf(8, 500)),
        ("./usr/lib/libc.so.1", elf(56, 53)),
    )
    base.write("x.deb", deb({"Package": "x"}, files))
    base.write("base.yaml", DECLARATION.replace("[tool]", "[{deb: x.deb}]") + "library-cache: true\n")
    base("base", "build", *AMD64, "-t", "x", "-o", "type=local,dest=out", "base.yaml")
    assert (base.folder / "out/usr/lib/libb.so.1").read_bytes() == elf(8, 500)
    assert b"libb.so.1" not in (base.folder / "out/etc/ld.so.cache").read_bytes()


@pytest.mark.parametrize("home", ["/", "/usr/share/tool"])
def test_a_home_that_is_there_keeps_its_owner(base: Base, archive: Archive, home: str):
    archive.put("tool", "2.0", entries=(special("./usr/share/tool", tarfile.DIRTYPE), ("./usr/share/tool/x", b"x")))
    archive.publish()
    base.write("base.yaml", DECLARATION + f"accounts: {{users: [{{name: app, uid: 5, home: {home}}}]}}\n")
    base("base", "build", *AMD64, "-t", "x", "-o", "type=tar,dest=x.tar", "base.yaml")
    with tarfile.open(base.folder / "x.tar") as tar:
        assert all(each.uid != 5 and each.name.strip("/") for each in tar)


Change = Callable[[dict[str, Any]], None]


def package(field: str, value: object) -> Change:
    def change(platform: dict[str, Any]) -> None:
        next(each for each in platform["packages"] if each["name"] == "tool")[field] = value

    return change


def image(field: str, value: object) -> Change:
    return lambda platform: platform["images"]["latest"].update({field: value})


CHANGES: list[tuple[Change, str]] = [
    (package("sha256", "/{folder}/precious"), "expected `str` matching regex"),
    (package("sha256", "../../../../precious"), "expected `str` matching regex"),
    (package("sha256", NONE + "\n"), "expected `str` matching regex"),
    (package("sha256", None), "expected `str`, got `null`"),
    (package("name", "../../precious"), "expected `str` matching regex"),
    (package("size", -1), "expected `int` >= 0"),
    (package("size", "1"), "expected `int`, got `str`"),
    (package("path", "pool/.."), "expected `str` matching regex"),
    (package("path", "pool/"), "expected `str` matching regex"),
    (package("suite", "corp:s"), "a package of the lock is of the archive `corp`, which the declaration does not have"),
    (package("why", []), "expected `array` of length >= 1"),
    (package("url", "http://x"), "object contains unknown field `url`"),
    (image("layers", ["../../precious"]), "expected `str` matching regex"),
    (image("packages", ["nosuch"]), "the lock names the package `nosuch` and does not describe it"),
    (image("created", -1), "expected `int` >= 0"),
    (lambda platform: platform.pop("images"), "object missing required field `images`"),
    (lambda platform: platform.update(archives=[{"name": "url:a", "sha256": "../precious"}]), "matching regex"),
]


def test_a_lock_names_nothing_outside(base: Base):
    """A digest is the name of a file in the cache: one that leads elsewhere had that file emptied and removed."""
    base("base", "lock", *AMD64)
    good = (base.folder / "base.lock.json").read_text()
    precious = [base.write(name, "precious\n") for name in ("precious", "precious.deb")]
    for change, said in CHANGES:
        lock = json.loads(good)
        change(lock["platforms"]["linux/amd64"])
        base.write("base.lock.json", json.dumps(lock).replace("/{folder}", str(base.folder)))
        for words in (("build", *AMD64), ("vendor",)):
            if words == ("vendor",) and "does not describe" in said:
                continue  # it copies packages, whatever images have them
            base("base", *words, status=2)
            assert said in base.said
            assert "`aerogel base lock base.yaml`" in base.said
        assert [each.read_text() for each in precious] == ["precious\n"] * 2


def renamed(field: str, value: str) -> Change:
    def change(platform: dict[str, Any]) -> None:
        package(field, value)(platform)
        if field == "name":
            packages = platform["images"]["latest"]["packages"]
            packages[packages.index("tool")] = value

    return change


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [("name", "zlib", "zlib 1.0 amd64"), ("version", "9:1.0", "tool 9:1.0 amd64"), ("arch", "all", "tool 1.0 all")],
)
def test_a_lock_does_not_rename_a_file(base: Base, field: str, value: str, taken: str):
    """The digests are those of an honest lock, whose image is in the store."""
    base("base", "lock", *AMD64)
    honest = base.lock
    base("base", "build", *AMD64, "--locked", "-t", "honest", "base.yaml")
    renamed(field, value)(lock := base.lock["platforms"]["linux/amd64"])
    base.write("base.lock.json", json.dumps(honest | {"platforms": {"linux/amd64": lock}}))
    base("base", "build", *AMD64, "--locked", "-t", "other", "base.yaml", status=1)
    assert f"error: `tool_1.0_amd64.deb` is the package `tool 1.0 amd64`, and was taken for `{taken}`" in base.said
    assert "make it anew with `aerogel base lock base.yaml`" in base.said
    assert "honest" in (listed := base("images"))
    assert "other" not in listed


def test_an_index_does_not_rename_a_file(base: Base, archive: Archive):
    fields = next(each for each in archive.main.suites["trixie"] if each["Package"] == "tool")
    fields["Version"] = "2.0"
    archive.publish()
    base("base", "build", *AMD64, "-t", "x", "base.yaml", status=1)
    assert "is the package `tool 1.0 amd64`, and was taken for `tool 2.0 amd64`" in base.said
    assert "hint: if the index of an archive does, the archive is wrong: use another mirror" in base.said
    assert base.data("images")["images"] == []


def test_a_package_of_two_names_is_none(base: Base, archive: Archive):
    control = b"Package: tool\nVersion: 1.0\nArchitecture: amd64\npackage: zlib\n"
    archive.main.put("trixie", {"Package": "tool"}, deb(control=[("./control", control)]))
    archive.main.suites["trixie"].reverse()
    archive.publish()
    base("base", "build", *AMD64, "-t", "x", "base.yaml", status=1)
    assert "is the package `tool/zlib 1.0 amd64`, and was taken for `tool 1.0 amd64`" in base.said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"a":',
        b"[" * 100_000,
        b'"' + b"x" * (1 << 20),
    ],
)
def test_what_is_no_lock(base: Base, data: bytes):
    base.write("base.lock.json", data)
    base("base", "build", *AMD64, "--locked", status=2)
    assert "error: `base.lock.json` is no lock of a base" in base.said
    assert "hint: make it anew: `aerogel base lock base.yaml`" in base.said
    assert len(base.said) < 10_000


def test_a_lock_of_another_form(base: Base):
    base.write("base.lock.json", '{"schema": "aerogel/base-lock/v9", "more": 1}')
    base("base", "build", *AMD64, "--locked", status=2)
    assert "error: `base.lock.json` is a lock of the form `aerogel/base-lock/v9`, not `aerogel/base-lock/v" in base.said
    assert "hint: make it anew: `aerogel base lock base.yaml`" in base.said


def test_files_that_are_none(base: Base, tmp_path: Path):
    (tmp_path / "base.yaml").unlink()
    for make, said in ((lambda path: path.symlink_to("base.yaml"), "too many levels"), (Path.mkdir, "is a directory")):
        make(tmp_path / "base.yaml")
        base("base", "build", *AMD64, "base.yaml", status=2)
        assert f"error: `base.yaml` cannot be read: {said}" in base.said
        (tmp_path / "base.yaml").unlink() if (tmp_path / "base.yaml").is_symlink() else (tmp_path / "base.yaml").rmdir()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("SHA256", "/{folder}/precious", "is no SHA-256 digest"),
        ("SHA256", "../../../../precious", "is no SHA-256 digest"),
        ("Package", "../../precious", "has a paragraph that describes no package"),
        ("Filename", "/etc/passwd", "the index has no usable file name for `libtool1"),
        ("Filename", "pool/../../../x.deb", "the index has no usable file name for `libtool1"),
    ],
)
def test_a_signed_index_names_nothing_outside(base: Base, archive: Archive, field: str, value: str, said: str):
    precious = base.write("precious.deb", "precious\n")
    plain = base.write("precious", "precious\n")
    fields = next(each for each in archive.main.suites["trixie"] if each["Package"] == "libtool1")
    fields[field] = value.replace("/{folder}", str(base.folder))
    archive.publish()
    base("base", "build", *AMD64, "base.yaml", status=1)
    assert said in base.said
    assert precious.read_text() == plain.read_text() == "precious\n"


def test_sizes_that_are_no_numbers_decide_nothing(base: Base, archive: Archive):
    for fields in archive.main.suites["trixie"]:
        fields |= {"Size": "²", "Installed-Size": "many"}
    archive.publish()
    base("base", "build", *AMD64, "-t", "one", "base.yaml")


@pytest.mark.parametrize("text", [b"<html><body>Sign in</body></html>", b"", b"\0" * 1000])
def test_a_page_in_the_place_of_an_archive(base: Base, archive: Archive, text: bytes):
    for path in archive.server.files:
        archive.server.files[path] = text
    base("base", "build", *AMD64, "base.yaml", status=4)
    assert "is not signed by a key that is trusted" in base.said


def test_an_archive_without_a_package(base: Base, archive: Archive):
    archive.main.suites["trixie"] = []
    archive.publish()
    base("base", "build", *AMD64, "base.yaml", status=1)
    assert "which no package of trixie, trixie-updates, trixie-security (amd64) satisfies" in base.said


def test_a_package_that_stands_twice(base: Base, archive: Archive):
    """The first of two with one version is taken, whatever the order of the dictionary."""
    archive.put("tool", entries=(("./usr/bin/tool", b"second\n"),))
    first, second = (each for each in archive.main.suites["trixie"] if each["Package"] == "tool")
    second["Filename"] = "pool/main/other.deb"
    archive.main.pool["pool/main/other.deb"] = archive.main.pool[first["Filename"]]
    archive.main.pool[first["Filename"]] = deb({"Package": "tool"}, (("./usr/bin/tool", b"first\n"),))
    first["SHA256"] = hashlib.sha256(archive.main.pool[first["Filename"]]).hexdigest()
    first.pop("Depends", None)
    archive.publish()
    base("base", "build", *AMD64, "-t", "one", "-o", "type=local,dest=out", "base.yaml")
    assert (base.folder / "out/usr/bin/tool").read_text() == "first\n"


def test_passwords_in_addresses_are_shown_nowhere(base: Base, signer: Signer):
    address = "http://joe:hunter2@127.0.0.1:1"
    base.write("corp.asc", signer.armored)
    base.write(
        "base.yaml",
        url(f"to: /opt, sha256: {NONE}", f"{address}/a.tgz?sig=hunter2")
        + f'sources: {{extra: [{{id: corp, uri: "{address}/deb", suites: [stable], signed-by: corp.asc}}]}}\n',
    )
    for words in (("show",), ("show", "--json"), ("build", *AMD64), ("build", *AMD64, "-D"), ("lock", *AMD64)):
        shown = base("base", *words, "base.yaml", status=0 if words[0] == "show" else 4) + base.said
        assert "http://***@127.0.0.1:1/" in shown
        assert "hunter2" not in shown
    kept = [path for path in (base.folder / "root").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []
