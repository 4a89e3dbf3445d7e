"""`aerogel base`: declarations and what is shown of them, against a small signed archive of this process."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from debian_repo import Repo, Signer, deb, special
from own_bases import AMD64, DECLARATION, Archive, Base


def test_accounts_and_paths_are_shown_as_in_yaml(base: Base):
    more = (
        "accounts: {users: [{name: app, uid: 10001}], run-as: app}\npaths: [{dir: /data, owner: app, mode: '0770'}]\n"
    )
    base.write("base.yaml", DECLARATION + more)
    lines = base("base", "show", "base.yaml").splitlines()
    at = lines.index("users:")
    assert lines[at + 1].startswith("  - name: app, uid: 10001, gid: 10001, ")
    assert lines[at + 2 : at + 4] == ["groups:", "  - name: app, gid: 10001"]
    assert lines[lines.index("paths:") + 1] == "  - dir: /data, owner: app, mode: 0770"


def test_why_show_list_and_init(base: Base):
    assert base("base", "why", *AMD64, "base.yaml", "libtool1") == "libtool1 1.0: tool needs libtool1"
    assert base("base", "why", *AMD64, "base.yaml", "libtool.so.1") == (
        "/usr/lib/libtool.so.1 is of libtool1 1.0: tool needs libtool1"
    )
    assert base("base", "why", *AMD64, "base.yaml", "tool") == "tool 1.0: asked for by the base"
    base("base", "why", *AMD64, "base.yaml", "libtool2", status=1)
    assert "did you mean `libtool1`?" in base.said
    shown = base.data("base", "show", "--packages", *AMD64, "base.yaml:nonroot")
    assert shown["recipe"]["user"] == "65532"
    assert [one["name"] for one in shown["packages"]].index("libtool1") < [
        one["name"] for one in shown["packages"]
    ].index("tool")
    rules = base.data("base", "show", "--rules", "cc")["rules"]
    assert all(one["why"] and one["drop"] for one in rules)
    assert {"docs", "gconv", "licences"} <= {one["name"] for one in rules}
    names = [one["name"] for one in base.data("base", "list")["bases"]]
    assert {"debian", "static", "python3"} <= set(names)
    assert [line.split()[0] for line in base("base", "list").splitlines()[1:]] == names
    for line in base("base", "list", "-q").splitlines():
        assert base("base", "show", line).startswith("name: ")
    base("base", "init", status=2)
    assert "`base.yaml` is there already" in base.said
    assert base("base", "init", "--extends", "cc", "--package", "libpq5", "sub.yaml") == "wrote sub.yaml"
    assert "libpq5" in base("base", "show", "sub.yaml")
    base("base", "init", "--extends", "ccc", "other.yaml", status=2)
    assert "did you mean `cc`?" in base.said


def test_local_packages_and_pins(base: Base):
    given = {"Package": "mytool", "Version": "3.0", "Depends": "libtool1"}
    base.write("local/mytool_amd64.deb", deb(given, (("./usr/bin/mytool", b"mine\n"),)))
    base.write(
        "base.yaml",
        DECLARATION.replace("[tool]", '[{deb: "local/mytool_{arch}.deb"}, {name: libtool1, pin: "1.*"}]'),
    )
    found = base.data("base", "show", "--packages", *AMD64, "base.yaml")["packages"]
    assert {one["name"]: one["suite"] for one in found}["mytool"] == "local"
    base("base", "lock", *AMD64)
    base("base", "build", *AMD64, "--locked", "-t", "one")
    base.write("local/mytool_amd64.deb", deb(given, (("./usr/bin/mytool", b"other\n"),)))
    base("base", "build", *AMD64, "--locked", status=1)
    assert "`local/mytool_amd64.deb` is not the file that was locked" in base.said
    base.write("base.yaml", DECLARATION.replace("[tool]", '[{name: libtool1, pin: "9.*"}]'))
    base("base", "build", *AMD64, status=1)
    assert "error: no version of `libtool1` fits the pin `9.*`" in base.said
    assert "--> base.yaml:5:" in base.said
    assert "hint: there is 1.0" in base.said


def test_another_archive_with_a_key_of_its_own(base: Base, archive: Archive):
    other = Signer("Corp <apt@corp.example>")
    repo = Repo(other, root="/corp")
    repo.fields = {"Origin": "Corp"}
    repo.put("stable", {"Package": "corptool", "Depends": "libtool1"})
    archive.server.files |= repo.publish("stable")
    base.write("keys/corp.asc", other.armored)
    text = DECLARATION.replace("[tool]", "[corptool]") + (
        f'sources: {{extra: [{{id: corp, uri: "{archive.server.url}/corp", suites: [stable], '
        "signed-by: keys/corp.asc}]}\n"
    )
    base.write("base.yaml", text)
    found = base.data("base", "show", "--packages", *AMD64, "base.yaml")["packages"]
    assert {one["name"]: one["suite"] for one in found}["corptool"] == "corp:stable"
    base("base", "lock", *AMD64)
    assert set(base.lock["suites"]) == {"corp:stable", "trixie"}
    assert archive.server.url not in (base.folder / "base.lock.json").read_text()
    base("base", "build", *AMD64, "--locked", "-t", "one")
    # Debian's own keys do not count there, nor the other way round.
    base.write("keys/corp.asc", archive.main.signer.armored)
    base.on_another_machine("second")
    base("base", "show", "--packages", *AMD64, "base.yaml", status=4)
    assert "is not signed by a key that is trusted" in base.said


def test_a_built_in_base_with_packages_added(base: Base, archive: Archive):
    base.write("Dockerfile", "FROM aerogel/static+tool:nonroot\nCOPY Dockerfile /\n")
    base("build", *AMD64, "-t", "one", "-o", "type=local,dest=out", ".")
    assert (base.folder / "out/usr/bin/tool").read_text() == "tool 1.0\n"
    assert (base.folder / "out/var/lib/dpkg/status.d/libtool1").is_file()
    base("build", *AMD64, "-t", "one", ".")
    assert "FROM aerogel/static+tool:nonroot -> composed from debian trixie, 8 packages" in base.said
    base.write("Dockerfile", "FROM aerogel/static+toool\n")
    base("build", *AMD64, ".", status=1)
    assert "did you mean `tool`?" in base.said


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (("../../etc/passwd", b"x"), "`..` component"),
        (special("./shadow", tarfile.LNKTYPE, "/etc/shadow"), "is a hard link to `etc/shadow`"),
        (special("./dev/sda", tarfile.BLKTYPE), "is a block device"),
    ],
)
def test_a_package_that_plays_tricks_leaves_nothing_behind(base: Base, archive: Archive, entry, what: str):
    """Signed, and refused all the same."""
    archive.put("tool", "9.0", entries=(entry,))
    archive.publish()
    base("base", "build", *AMD64, "-t", "one", "base.yaml", status=1)
    assert what in base.said
    assert "Traceback" not in base.said
    assert base("images", "-q") == ""
    base("base", "lock", *AMD64, status=1)
    assert not (base.folder / "base.lock.json").exists()
    cache = base.folder / "root/cache/debian-v1/data-v1"
    assert not [path for path in cache.iterdir() if path.name.startswith(".new-")]


def test_yaml_is_read_for_declarations_only(base: Base):
    """Built-in bases are found without it; a build with nothing to do starts nothing of all this."""
    program = (
        "import sys\n"
        "from aerogel.commands.recipes import find_recipe\n"
        "from aerogel.distroless.catalogue import names\n"
        "names()\n"
        "assert find_recipe('gcr.io/distroless/python3:nonroot', None) is not None\n"
        "heavy = {'yaml', 'urllib3', 'pysequoia', 'aerogel.debian.archive', 'aerogel.distroless.compose'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_platform_that_a_base_is_not_made_for(base: Base):
    base("base", "build", "--platform", "linux/386", "base.yaml", status=2)
    assert "error: `mine:latest` is not made for `linux/386`" in base.said
    assert "hint: platforms are linux/amd64, linux/arm64, linux/arm/v7, " in base.said
    base.write("base.yaml", DECLARATION + "platforms: [linux/amd64, amd65]\n")
    base("base", "show", "base.yaml", status=2)
    assert "`platforms[1]`" in base.said
    base.write("base.yaml", DECLARATION + "releases: {trixie: {platforms: [linux/s309x]}}\n")
    base("base", "show", "base.yaml", status=2)
    assert "`releases.trixie.platforms[0]`: Debian has nothing for `linux/s309x`" in base.said
    assert "hint: did you mean `linux/s390x`?" in base.said
    base.write("base.yaml", DECLARATION + "releases: {trixie: {platforms: [linux/arm64]}}\n")
    base("base", "build", "--platform", "linux/amd64", "base.yaml", status=2)
    assert "error: `mine:latest` is not made for `linux/amd64`" in base.said
    assert "hint: platforms are linux/arm64\n" in base.said


def needing(soname: str) -> bytes:
    """A small ELF program for amd64 that asks the loader for a library."""
    strings = b"\0" + soname.encode() + b"\0"
    at, dynamic_at = 64 + 2 * 56, 64 + 2 * 56 + 64
    dynamic = struct.pack("<8Q", 1, 1, 5, at + 0x1000, 10, len(strings), 0, 0)
    body = strings.ljust(64, b"\0") + dynamic
    end = at + len(body)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0x1000, end, end, 0x1000)
    return head + load + struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at + 0x1000, 0, 64, 64, 8) + body


def test_libraries_that_programs_lack_are_added(base: Base, archive: Archive):
    """`elf-closure: add`: the package of Debian that has the library is chosen, and locked, with what it needs in turn."""
    library = (("./usr/lib/x86_64-linux-gnu/libtinfo.so.6", needing("libzstd.so.1")),)
    archive.put("libtinfo6", entries=library, Depends="libtinfodata")
    archive.put("libtinfodata")
    archive.put("libzstd1", entries=(("./usr/lib/x86_64-linux-gnu/libzstd.so.1", needing("libnobody.so.7")),))
    archive.publish()
    data = needing("libtinfo.so.6")
    given = {"Package": "mytool", "Version": "3.0"}
    base.write("mytool.deb", deb(given, (("./usr/lib/mytool/plugin.so", data),)))
    lines = "resolve: {elf-closure: add}\n"
    text = DECLARATION.replace("[tool]", "[{deb: mytool.deb}]")
    base.write("base.yaml", text)
    base("base", "build", *AMD64)
    assert "`/usr/lib/mytool/plugin.so` of `mine:latest` needs the library `libtinfo.so.6`" in base.said
    assert "hint: `resolve: {elf-closure: add}` adds it by itself" in base.said
    base.write("base.yaml", text + lines)
    assert base("base", "why", *AMD64, "base.yaml", "libtinfodata") == (
        "libtinfodata 1.0: mytool needs libtinfo6 needs libtinfodata"
    )
    base("base", "lock", *AMD64)
    assert "needs the library `libnobody.so.7`, which is not in the base" in base.said  # nobody has it: a warning
    packages = {one["name"]: one["why"] for one in base.lock["platforms"]["linux/amd64"]["packages"]}
    assert packages["libzstd1"] == ["mytool", "libtinfo6", "libzstd1"]
    assert {"libzstd1", "libtinfo6", "libtinfodata"} <= set(
        base.lock["platforms"]["linux/amd64"]["images"]["nonroot"]["packages"]
    )
    base("base", "build", *AMD64, "--locked", "-t", "one", "-o", "type=local,dest=out")
    assert (base.folder / "out/usr/lib/x86_64-linux-gnu/libzstd.so.1").is_file()
    # What `skip` names is never added, what a wheel or an address brings is looked into as well.
    base.write("base.yaml", text + "resolve: {elf-closure: add, skip: [libtinfo6]}\n")
    base("base", "build", *AMD64)
    assert "hint: Debian has it in `libtinfo6`: add it to `packages`, or take it off `skip`" in base.said
    digest = hashlib.sha256(data).hexdigest()
    archive.server.files["/files/plain"] = data
    entry_text = f"{{url: {archive.server.url}/files/plain, to: /opt/bin, sha256: {digest}}}"
    base.write("base.yaml", DECLARATION.replace("[tool]", f"[{entry_text}]") + lines)
    found = base.data("base", "show", "--packages", *AMD64, "base.yaml")["packages"]
    assert {one["name"]: one["why"] for one in found}["libtinfo6"] == ["/opt/bin/plain", "libtinfo6"]
    # And what comes with the declaration itself, which is placed behind all that makers make.
    (base.folder / "own").write_bytes(data)
    text = DECLARATION + "paths: [{file: /opt/own, source: own, mode: '0755'}]\n"
    base.write("base.yaml", text + lines)
    found = base.data("base", "show", "--packages", *AMD64, "base.yaml")["packages"]
    assert {one["name"]: one["why"] for one in found}["libtinfo6"] == ["/opt/own", "libtinfo6"]


def test_an_image_with_very_many_files_is_not_checked_and_says_so(base: Base, archive: Archive, monkeypatch):
    base.write("Dockerfile", "FROM ./base.yaml\nCOPY Dockerfile /\n")
    told = "the image has too many files for the checks of its programs and libraries: they are left out"
    base("build", *AMD64, "-t", "one", ".")
    assert told not in base.said
    monkeypatch.setattr("aerogel.solve.peek._MOST", 100)
    base.write("Dockerfile", "FROM ./base.yaml\nCOPY Dockerfile /other\n")
    base("build", *AMD64, "-t", "two", ".")
    assert told in base.said


def test_a_declaration_in_another_folder(base: Base, monkeypatch: pytest.MonkeyPatch):
    """What it reads lies beside it, wherever the command is given."""
    base.write("kept/note", "note")
    path = base.write("kept/base.yaml", DECLARATION + "paths: [{file: /note, source: note}]\n")
    (base.folder / "elsewhere").mkdir()
    monkeypatch.chdir(base.folder / "elsewhere")
    by_path = base.data("base", "build", "--platform", "linux/amd64", f"{path}:nonroot")
    assert (
        base.data("base", "build", "--platform", "linux/amd64", "../kept/base.yaml:nonroot")["image_id"]
        == by_path["image_id"]
    )
