"""`aerogel base lock`, `update`, `diff` and `vendor`, against a small signed archive of this process."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile

import pytest
from debian_repo import Signer, special
from own_bases import AMD64, DECLARATION, Archive, Base, layers


def test_a_lock_has_everything_and_no_address(base: Base, archive: Archive, signer: Signer):
    assert base("base", "lock", *AMD64).startswith("base.lock.json: 9 packages for linux/amd64, tags latest, nonroot")
    lock = base.lock
    text = (base.folder / "base.lock.json").read_text()
    assert "127.0.0.1" not in text
    assert "http" not in text
    assert str(base.folder) not in text
    packages = {one["name"]: one for one in lock["platforms"]["linux/amd64"]["packages"]}
    assert packages["libtool1"]["why"] == ["tool", "libtool1"]
    assert packages["libtool1"]["path"] == "pool/main/libtool1_1.0_amd64.deb"
    assert set(lock["suites"]) == {"trixie"}
    assert len(lock["suites"]["trixie"]["signers"]) == 1
    assert set(lock["platforms"]["linux/amd64"]["images"]) == {"latest", "nonroot", "debug", "debug-nonroot"}
    assert "busybox-static" not in lock["platforms"]["linux/amd64"]["images"]["latest"]["packages"]


def test_an_image_is_as_old_as_its_newest_file(base: Base, archive: Archive):
    """What its history says, and a lock."""
    shell = ("./usr/bin/busybox", b"\x7fELF [\0[[\0cat\0sh\0U")
    for name, mtime, more in (("tool", 631152000, ()), ("busybox-static", 946684800, (shell,))):
        entry = special(f"./usr/share/{name}", tarfile.DIRTYPE)
        entry.mtime = mtime
        archive.put(name, "2.0", entries=(entry, *more))
    archive.publish()
    base("base", "lock", *AMD64)
    images = base.lock["platforms"]["linux/amd64"]["images"]
    for tag, time, date in (("latest", 631152000, "1990-01-01"), ("debug", 946684800, "2000-01-01")):
        assert images[tag]["created"] == time
        base("base", "build", *AMD64, "--locked", "-t", tag, f"base.yaml:{tag}")
        (own,) = (each for each in base.data("history", tag)["layers"] if "aerogel: mine" in json.dumps(each))
        assert f"{date}T00:00:00Z" in json.dumps(own)


def test_a_lock_replays_from_the_vendored_folder_without_network(base: Base, archive: Archive):
    base("base", "lock", *AMD64)
    base("base", "build", *AMD64, "--locked", "-t", "one")
    assert base("base", "vendor").startswith("vendor: 9 files")
    assert (base.folder / "vendor" / "base-files_1.0_amd64.deb").is_file()
    expected = layers(base, "one")
    archive.server.files.clear()
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", "-t", "two")
    assert layers(base, "two") == expected
    assert base.lock["platforms"]["linux/amd64"]["images"]["latest"]["layers"] == expected
    # Without the folder, and with nobody to ask, it says what is missing.
    shutil.rmtree(base.folder / "vendor")
    base.on_another_machine("third")
    base("base", "build", *AMD64, "--locked", status=4)
    assert "the mirror has no `" in base.said
    assert "`aerogel base vendor` keeps packages beside a lock" in base.said


def test_a_changed_package_in_the_folder_is_not_taken(base: Base, archive: Archive):
    base("base", "lock", *AMD64)
    base("base", "vendor")
    path = base.folder / "vendor" / "tool_1.0_amd64.deb"
    good = path.read_bytes()
    base.on_another_machine("second")
    for make in (
        lambda: path.write_bytes(good[:-1] + b"!"),
        lambda: path.write_bytes(good + b"!"),
        lambda: path.write_bytes(b""),
        lambda: (path.unlink(), path.mkdir()),
        lambda: (path.rmdir(), path.symlink_to("nowhere")),
    ):
        make()
        base("base", "build", *AMD64, "--locked", "-t", "x", status=1)  # and the mirror has it
        assert "error: `vendor/tool_1.0_amd64.deb` is not the file that was locked" in base.said
        assert "hint: `aerogel base vendor` puts the right one in its place" in base.said
        assert base("images", "-q") == ""
    path.unlink()
    base("base", "build", *AMD64, "--locked", "-t", "x")


def test_a_changed_file_in_the_folder_is_not_taken(base: Base, archive: Archive):
    archive.server.files["/tool.txt"] = b"right"
    base.write("base.yaml", DECLARATION.replace("[tool]", f"[{{url: '{archive.server.url}/tool.txt', to: /opt}}]"))
    base("base", "lock", *AMD64)
    base("base", "vendor")
    digest = hashlib.sha256(b"right").hexdigest()
    path = base.folder / "vendor" / digest
    path.write_bytes(b"wrong")
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", status=1)
    assert f"error: `vendor/{digest}` is not the file that was locked" in base.said
    assert "hint: `aerogel base vendor` puts the right one in its place" in base.said
    base("base", "vendor")
    assert path.read_bytes() == b"right"
    base.on_another_machine("third")
    del archive.server.files["/tool.txt"]
    base("base", "build", *AMD64, "--locked")


def test_vendor_mends_what_is_in_the_folder(base: Base, archive: Archive):
    base("base", "lock", *AMD64)
    path = base.write("vendor", "a file\n")
    base("base", "vendor", status=3)
    assert "vendor`" in base.said
    path.unlink()
    base("base", "vendor")
    good = (path / "tool_1.0_amd64.deb").read_bytes()
    (path / "tool_1.0_amd64.deb").write_bytes(good[:-1] + b"!")  # as long as before
    base.on_another_machine("second")  # whose cache has none
    base("base", "vendor")
    assert (path / "tool_1.0_amd64.deb").read_bytes() == good
    assert not [each for each in path.iterdir() if each.name.startswith(".")]


def test_a_wrong_package_is_told_before_a_place_that_is_down(base: Base, archive: Archive, monkeypatch):
    """With a lock any place may have a package; the last one is down, which is not what is wrong."""
    base("base", "lock", *AMD64)
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"{archive.server.url}/debian http://127.0.0.1:1/debian")
    name = next(name for name in archive.server.files if name.endswith("/tool_1.0_amd64.deb"))
    good = archive.server.files[name]
    base.on_another_machine("second")
    archive.server.files[name] = good[:-1] + b"!"
    base("base", "build", *AMD64, "--locked", status=4)
    assert "error: `tool_1.0_amd64.deb` is not the file that the signed index describes" in base.said
    assert "127.0.0.1:1/debian/pool/main/tool_1.0_amd64.deb: `127.0.0.1` cannot be reached" in base.said
    del archive.server.files[name]
    base("base", "build", *AMD64, "--locked", status=4)
    assert "error: the mirror has no `tool 1.0 amd64` any more" in base.said
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"http://127.0.0.1:1/debian {archive.server.url}/debian")
    archive.server.files[name] = good
    base("base", "build", *AMD64, "--locked")


def test_two_files_of_one_name_are_told_apart(base: Base, archive: Archive):
    """A lock knows files by name and version: one digest was taken for both."""
    archive.server.files |= {"/a/tool.txt": b"one", "/b/tool.txt": b"two"}
    entries = [f'{{url: "{archive.server.url}/{each}/tool.txt", to: /opt/{each}}}' for each in "ab"]
    base.write("base.yaml", DECLARATION.replace("[tool]", f"[{', '.join(entries)}]"))
    base("base", "lock", *AMD64, status=2)
    assert "error: two entries of `packages` are called `url:tool.txt`" in base.said
    entries = [each.replace("}", f", version: '{number}'}}") for number, each in enumerate(entries, 1)]
    base.write("base.yaml", DECLARATION.replace("[tool]", f"[{', '.join(entries)}]"))
    base("base", "lock", *AMD64)
    base("base", "build", *AMD64, "--locked", "-t", "x", "-o", "type=local,dest=out")
    assert [(base.folder / f"out/opt/{each}/tool.txt").read_bytes() for each in "ab"] == [b"one", b"two"]


def test_a_lock_holds_when_the_archive_moves_on(base: Base, archive: Archive):
    base("base", "lock", *AMD64)
    base("base", "build", *AMD64, "-t", "one")
    archive.put("tool", "2.0")
    archive.publish()
    base.on_another_machine("second")
    base("build", *AMD64, "-t", "two", "-f", str(base.write("Dockerfile", "FROM ./base.yaml:nonroot\n")), ".")
    assert layers(base, "two") == base.lock["platforms"]["linux/amd64"]["images"]["nonroot"]["layers"]
    before = base.lock
    assert base("base", "update", "--dry-run").splitlines()[2].split() == [
        "tool", "1.0", "2.0", "newer", "linux/amd64",
    ]  # fmt: skip
    assert base.lock == before
    shutil.copy(base.folder / "base.lock.json", base.folder / "old.lock.json")
    found = base.data("base", "update")["changes"]
    assert [(one["name"], one["kind"]) for one in found] == [("libtool1", "removed"), ("tool", "newer")]
    diff = base.data("base", "diff", "old.lock.json", "base.lock.json")
    assert diff["changes"] == found
    assert diff["layers"] is True
    assert base("base", "update") == "base.lock.json is up to date"
    assert base("base", "diff", "base.lock.json", "base.lock.json") == "nothing differs"


def test_security_only(base: Base, archive: Archive):
    base("base", "lock", *AMD64)
    archive.put("netbase", "2.0")
    archive.put("libtool1", "1.0+deb13u1", suite="trixie-security")
    archive.publish()
    found = base.data("base", "update", "--security-only")["changes"]
    assert [(one["name"], one["before"], one["after"]) for one in found] == [("libtool1", "1.0", "1.0+deb13u1")]
    packages = {one["name"]: one for one in base.lock["platforms"]["linux/amd64"]["packages"]}
    assert packages["netbase"]["version"] == "1.0"
    assert packages["libtool1"]["suite"] == "trixie-security"
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", "-t", "one")


def test_locked_means_every_bit(base: Base):
    base("base", "build", *AMD64, "--locked", status=2)
    assert "`base.lock.json` cannot be read" in base.said
    assert "hint: make it: `aerogel base lock base.yaml`" in base.said
    base("base", "lock", *AMD64)
    lock = base.lock
    base.write("base.yaml", DECLARATION.replace("[tool]", "[tool, netbase]\ntimezone: Etc/UTC"))
    base("base", "build", *AMD64, "--locked", status=1)
    assert "error: `base.yaml` has changed since `base.lock.json` was made" in base.said
    base.write("base.yaml", DECLARATION)
    images = lock["platforms"]["linux/amd64"]["images"]
    whole = dict(images["latest"])
    images["latest"]["layers"] = ["sha256:" + "0" * 64]
    base.write("base.lock.json", json.dumps(lock))
    for _ in range(2):
        base("base", "build", *AMD64, "--locked", status=1)
        assert "error: `mine:latest` came out otherwise than the lock says" in base.said
        assert "expected sha256:0000" in base.said
    images["latest"] |= {"layers": whole["layers"], "config": "sha256:" + "0" * 64}
    base.write("base.lock.json", json.dumps(lock))
    base("base", "build", *AMD64, "--locked", status=1)
    assert f"expected {whole['layers'][0]}, config sha256:0000" in base.said
    assert f"found    {whole['layers'][0]}, config {whole['config']}" in base.said
    del images["latest"]["config"]
    base.write("base.lock.json", json.dumps(lock))
    base("base", "build", *AMD64, "--locked")
    base("base", "build", "--platform", "linux/arm64", "--locked", status=1)
    assert "`base.lock.json` has nothing for `latest` on linux/arm64" in base.said
    base.write("base.lock.json", "{}")
    base("base", "build", *AMD64, status=2)
    assert "`base.lock.json` is no lock of a base" in base.said
    base.write("x.json", "apiVersion")
    base("base", "diff", "x.json", "base.lock.json", status=2)
    assert "`x.json` is no lock of a base: JSON is malformed" in base.said


def test_a_difference_is_that_of_locks(base: Base):
    base("base", "diff", "base.yaml", "b2.yaml", status=2)
    assert (
        "error: `base.yaml` is a declaration, not a lock\nhint: make its lock: `aerogel base lock base.yaml`"
        in base.said
    )
    base.write("base.lock.json", "{}")
    base("base", "diff", "base.yaml", "b2.yaml", status=2)
    assert "hint: its lock is `base.lock.json`" in base.said
    for name in ("cc", "gcr.io/distroless/cc-debian12"):
        base("base", "diff", name, "base.lock.json", status=2)
        assert f"error: `{name}` is a built-in base, not a lock" in base.said
        assert f"hint: make a lock of today's: `aerogel base lock -o FILE {name}`" in base.said


def test_a_stale_lock_is_told_and_not_used(base: Base):
    base("base", "lock", *AMD64)
    base.write("base.yaml", DECLARATION + "paths: [{dir: /data, owner: nonroot}]\n")
    base("base", "build", *AMD64, "-t", "one")
    assert base.said.count("`base.yaml` has changed since `base.lock.json` was made: the lock is not used") == 1
    assert base.said.count("hint: make the lock anew: `aerogel base lock base.yaml`") == 1


def test_a_stale_lock_is_told_with_the_file_that_changed(base: Base):
    base.write("parent.yaml", DECLARATION)
    own = "apiVersion: aerogel/v1\nkind: Base\nname: own\nextends: ../parent.yaml\n"
    base.write("sub/own.yaml", own)
    base("base", "lock", *AMD64, "sub/own.yaml")
    lock = json.loads((base.folder / "sub/own.lock.json").read_text())
    assert lock["files"] == {"../parent.yaml": hashlib.sha256(DECLARATION.encode()).hexdigest()}
    base("base", "build", *AMD64, "--locked", "sub/own.yaml")
    base.write("parent.yaml", DECLARATION.replace("[tool]", "[tool, libtool1]"))
    base("base", "build", *AMD64, "--locked", "sub/own.yaml", status=1)
    assert "error: `parent.yaml` has changed since `sub/own.lock.json` was made" in base.said
    base.write("parent.yaml", DECLARATION)
    base.write("sub/own.yaml", own + "packages: [libtool1]\n")
    base("base", "build", *AMD64, "--locked", "sub/own.yaml", status=1)
    assert "error: `sub/own.yaml` has changed since `sub/own.lock.json` was made" in base.said
    base.write("base.yaml", DECLARATION)
    base("base", "lock", *AMD64)
    assert "files" not in base.lock


def test_hints_name_the_declaration_and_the_flag(base: Base):
    base.write("sub/b2.yaml", DECLARATION)
    base("base", "lock", *AMD64, "sub/b2.yaml")
    base("base", "build", "--platform", "linux/arm64", "sub/b2.yaml", status=1)
    assert "hint: lock it: `aerogel base lock sub/b2.yaml`, with `--platform` for platforms" in base.said
    base.write("sub/Dockerfile", "FROM ./b2.yaml\n")
    base.write("sub/b2.lock.json", "{}")
    base("build", *AMD64, "sub", status=2)
    assert "hint: make it anew: `aerogel base lock sub/b2.yaml`" in base.said
    base("base", "lock", *AMD64, "sub/b2.yaml")
    base.write("sub/b2.yaml", DECLARATION.replace("[tool]", "[tool, libtool1]"))
    base("base", "lock", *AMD64, "sub/b2.yaml")
    assert "has changed" not in base.said
    base("base", "update", "--lock", "none.json", "sub/b2.yaml", status=2)
    assert "hint: make a lock: `aerogel base lock sub/b2.yaml`" in base.said
    base("base", "update", "-o", "x.json", status=2)
    assert "hint: `--lock FILE` is the lock to read and to write" in base.said
    base("base", "lock", "--lock", "x.json", status=2)
    assert "hint: `-o FILE` is the lock to write" in base.said


def test_layers_by_origin_are_locked_too(base: Base, archive: Archive):
    archive.put("libtool1", "1.1", entries=(("./usr/lib/libtool.so.1", bytes(range(256)) * 8000),))
    archive.publish()
    base("base", "build", *AMD64, "-t", "one", "-o", "type=tar,dest=one.tar", "base.yaml")
    base.write("base.yaml", DECLARATION + "layers: {strategy: origin, budget: 3}\n")
    base("base", "lock", *AMD64)
    base("base", "build", *AMD64, "--locked", "-t", "two", "-o", "type=tar,dest=two.tar", "base.yaml")
    assert len(layers(base, "one")) == 1
    assert len(layers(base, "two")) == 2
    assert base.lock["platforms"]["linux/amd64"]["images"]["latest"]["layers"] == layers(base, "two")
    assert (base.folder / "one.tar").read_bytes() == (base.folder / "two.tar").read_bytes()


def test_the_archive_of_another_day(base: Base, archive: Archive, monkeypatch: pytest.MonkeyPatch):
    """A server of Debian's past: signatures that have run out since count as of then, and the lock names no address."""
    moment = "20260301T120000Z"
    dates = {"Date": "Sun, 01 Mar 2026 08:00:00 UTC", "Valid_Until": "Sun, 08 Mar 2026 08:00:00 UTC"}
    for repo, name in ((archive.main, "debian"), (archive.security, "debian-security")):
        repo.root = f"/past/archive/{name}/{moment}"
        for suite in repo.suites:
            archive.server.files |= repo.publish(suite, **dates)
    archive.main.root, archive.security.root = "/debian", "/debian-security"
    archive.put("tool", "2.0")
    archive.publish()
    text = DECLARATION + f"sources: {{debian: {{snapshot: {moment}}}}}\n"
    base.write("base.yaml", text)
    base("base", "show", *AMD64, "--packages", "base.yaml", status=2)
    assert f"error: the archive of {moment} is asked for, and no server of Debian's past is known" in base.said
    assert "AEROGEL_DEBIAN_SNAPSHOT_MIRROR" in base.said
    monkeypatch.setenv("AEROGEL_DEBIAN_SNAPSHOT_MIRROR", f"{archive.server.url}/past/")
    base("base", "lock", *AMD64)
    lock = base.lock
    packages = {one["name"]: one["version"] for one in lock["platforms"]["linux/amd64"]["packages"]}
    assert packages["tool"] == "1.0"
    assert lock["suites"]["trixie"]["date"] == 1772352000
    assert "/past" not in (base.folder / "base.lock.json").read_text()
    base("base", "build", *AMD64, "--locked", "-t", "one")
    expected = layers(base, "one")
    # What is of today stays apart in the same cache, and is not put off by what is older.
    base.write("now.yaml", DECLARATION)
    now = base.data("base", "show", *AMD64, "--packages", "now.yaml")["packages"]
    assert {one["name"]: one["version"] for one in now}["tool"] == "2.0"
    # Another machine has the lock and not the server: what today's mirror still has comes from there.
    monkeypatch.delenv("AEROGEL_DEBIAN_SNAPSHOT_MIRROR")
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked", "-t", "two")
    assert layers(base, "two") == expected
    # A signature must have been good at the moment itself.
    monkeypatch.setenv("AEROGEL_DEBIAN_SNAPSHOT_MIRROR", f"{archive.server.url}/past")
    wrong = {
        "20260401T000000Z": "was valid until 2026-03-08 08:00 UTC, 23 days ago",
        "20260201T000000Z": "28 days in the future",
    }
    for late, what in wrong.items():
        for name in ("debian", "debian-security"):
            old, new = f"/past/archive/{name}/{moment}/", f"/past/archive/{name}/{late}/"
            served = {one.replace(old, new): data for one, data in archive.server.files.items() if old in one}
            archive.server.files |= served
        base.write("base.yaml", text.replace(moment, late))
        base("base", "show", *AMD64, "--packages", "base.yaml", status=4)
        assert what in base.said
        assert f"hint: seen from the snapshot {late}" in base.said
    base.write("base.yaml", text.replace(moment, "yesterday"))
    base("base", "show", "base.yaml", status=2)
    assert "`sources.debian.snapshot`" in base.said


def changes_entry(source: str, version: str, *lines: str) -> str:
    body = "".join(f"  * {line}\n" for line in lines)
    return f"{source} ({version}) trixie-security; urgency=high\n\n{body}\n -- A B <a@b.example>  Sun, 01 Mar 2026 08:00:00 +0000\n\n"


TOOL_CHANGES = (
    changes_entry(
        "tool", "1.0+deb13u2", "Fix a heap overflow (CVE-2026-10001, CVE-2025-9002).", "and CVE-2025-9002 again"
    )
    + changes_entry("tool", "1.0+deb13u1", "CVE-2025-0815: refuse long names")
    + changes_entry("tool", "1.0", "New upstream release, fixes CVE-2024-1111")
)


def put_fixed_tool(archive: Archive) -> None:
    """As Debian does: one source, the changelog in one of its packages, an address of it in the other."""
    link = special("./usr/share/doc/tool", tarfile.SYMTYPE, "libtool1")
    binary = ("./usr/bin/tool", b"tool, mended\n")
    archive.put(
        "tool",
        "1.0+deb13u2",
        suite="trixie-security",
        entries=(binary, link),
        Depends="libtool1 (= 1.0+deb13u2)",
        Source="tool",
    )
    files = (
        ("./usr/lib/libtool.so.1", b"library, mended\n"),
        ("./usr/lib/libtool-new.so.1", b"more\n"),
        ("./usr/share/man/man1/tool.1", b"left out\n"),
        ("./usr/share/doc/libtool1/changelog.Debian.gz", gzip.compress(TOOL_CHANGES.encode())),
    )
    archive.put("libtool1", "1.0+deb13u2", suite="trixie-security", entries=files, Source="tool")
    archive.publish()


def test_what_an_update_fixes(base: Base, archive: Archive):
    """The numbers come from the changelogs in the packages: between the two versions, from whichever package has it."""
    base("base", "lock", *AMD64)
    shutil.copy(base.folder / "base.lock.json", base.folder / "old.lock.json")
    put_fixed_tool(archive)
    assert base("base", "update").splitlines()[1:] == [
        "libtool1   1.0      1.0+deb13u2   newer    linux/amd64",
        "tool       1.0      1.0+deb13u2   newer    linux/amd64",
        "tool 1.0 -> 1.0+deb13u2 fixes CVE-2025-0815, CVE-2025-9002, CVE-2026-10001",
    ]
    numbers = ["CVE-2025-0815", "CVE-2025-9002", "CVE-2026-10001"]
    found = base.data("base", "diff", "--files", "old.lock.json", "base.lock.json")
    assert [one["fixes"] for one in found["changes"]] == [numbers, numbers]
    assert [(one["path"], one["before"], one["after"], one["kind"]) for one in found["files"]] == [
        ("/usr/bin/tool", 9, 13, "changed"),
        ("/usr/lib/libtool-new.so.1", -1, 5, "added"),
        ("/usr/lib/libtool.so.1", 8, 16, "changed"),
        ("/usr/share/doc/tool", -1, 0, "added"),  # the link to where the copyright is
    ]
    whole = base.data("base", "diff", "--files", "--profile", "parity", "old.lock.json", "base.lock.json")["files"]
    assert "/usr/share/man/man1/tool.1" in {one["path"] for one in whole}
    said = base("base", "diff", "--files", "base.lock.json", "old.lock.json")
    assert "tool 1.0+deb13u2 -> 1.0 brings back CVE-2025-0815, CVE-2025-9002, CVE-2026-10001" in said
    assert "/usr/lib/libtool-new.so.1   5        -       removed   linux/amd64" in said
    # Without the packages the versions are told all the same, and that the rest is not known.
    archive.server.files.clear()
    base.on_another_machine("second")
    said = base("base", "diff", "old.lock.json", "base.lock.json")
    assert "CVE" not in said
    assert len(said.splitlines()) == 3
    assert "`libtool1 1.0+deb13u2 amd64` cannot be looked into: " in base.said


def test_security_moves_what_must_move_together(base: Base, archive: Archive):
    """Between what stays and what moves all relations are looked at again."""
    for name, fields in (
        ("partner", {"Depends": "libtool1 (= 1.0)"}),
        ("other", {"Depends": "helper"}),
        ("helper", {"Depends": "deep"}),
        ("deep", {}),
    ):
        archive.put(name, **fields)
    archive.publish()
    base.write("base.yaml", DECLARATION.replace("[tool]", "[tool, partner, other]"))
    base("base", "lock", *AMD64)
    put_fixed_tool(archive)
    archive.put("libtool1", "1.0+deb13u3", suite="trixie-security", Source="tool", Depends="netbase (>= 2)")
    archive.put(
        "tool", "1.0+deb13u3", suite="trixie-security", Source="tool", Depends="libtool1", Breaks="helper (<< 2)"
    )
    archive.put("netbase", "2.0")
    archive.put("media-types", "2.0")
    archive.put("partner", "2.0", Depends="libtool1 (= 1.0+deb13u3), added")
    archive.put("added")
    archive.put("helper", "2.0")  # does without `deep`
    archive.put("other", "2.0", Depends="helper")
    archive.publish()
    found = base.data("base", "update", "--security-only")["changes"]
    assert {one["name"]: (one["before"], one["after"]) for one in found} == {
        "libtool1": ("1.0", "1.0+deb13u3"),
        "tool": ("1.0", "1.0+deb13u3"),
        "partner": ("1.0", "2.0"),
        "added": ("", "1.0"),
        "netbase": ("1.0", "2.0"),
        "helper": ("1.0", "2.0"),
        "deep": ("1.0", ""),
    }
    for text in (
        "`partner` moves too, from 1.0 to 2.0: `partner` 1.0 needs `libtool1 (= 1.0)`",
        "`netbase` moves too, from 1.0 to 2.0: `libtool1` 1.0+deb13u3 needs `netbase (>= 2)`",
        "`helper` moves too, from 1.0 to 2.0: `tool` 1.0+deb13u3 does not go with `helper (<< 2)`",
        "`added` 1.0 is added: `partner` 2.0 needs `added`",
    ):
        assert text in base.said
    base("base", "build", *AMD64, "--locked", "-t", "one")


def test_security_keeps_what_a_package_needs_that_stays(base: Base, archive: Archive):
    """Today's closure has lost a package that the kept version of another one still needs."""
    base("base", "lock", *AMD64)
    archive.put("tool", "2.0")
    archive.put("netbase", "1.0+deb13u1", suite="trixie-security")
    archive.publish()
    found = base.data("base", "update", "--security-only")["changes"]
    assert [one["name"] for one in found] == ["netbase"]
    assert "libtool1" in base.lock["platforms"]["linux/amd64"]["images"]["latest"]["packages"]
