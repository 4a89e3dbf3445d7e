"""`aerogel base`: declarations, locks and vendored packages against a small signed archive of this process."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_repo import Repo, Signer, deb, special
from fault_server import FaultServer, serve

from aerogel.cli import main as entry
from aerogel.debian.keyring import Keyring
from aerogel.net.http import Http

OS_RELEASE = b'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n'
DECLARATION = """\
apiVersion: aerogel/v1
kind: Base
name: mine
extends: static
packages: [tool]
"""


class Base:
    """Runs commands in this process; `said` is what the last one wrote to standard error."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.said = ""
        self._capfd = capfd
        self._monkeypatch = monkeypatch

    def __call__(self, *words: str, status: int = 0) -> str:
        found = entry.main([*words, "--progress", "plain"])
        out, self.said = self._capfd.readouterr()
        assert found == status, out + self.said
        return out.strip()

    def data(self, *words: str, status: int = 0):
        return json.loads(self(*words, "--json", status=status))

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def on_another_machine(self, name: str) -> None:
        self._monkeypatch.setenv("AEROGEL_ROOT", str(self.folder / name))

    @property
    def lock(self):
        return json.loads((self.folder / "base.lock.json").read_text())


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve() as running:
        yield running


class Archive:
    """Debian in small; `security` is the archive beside it."""

    def __init__(self, signer: Signer, server: FaultServer) -> None:
        self.server = server
        self.main, self.security = Repo(signer), Repo(signer, root="/debian-security")
        files = (("./usr/lib/os-release", OS_RELEASE), ("./etc/motd", b"welcome\n"))
        self.put("base-files", entries=files)
        for name in ("ca-certificates", "media-types", "netbase", "tzdata", "tzdata-legacy"):
            self.put(name, entries=((f"./usr/share/{name}", b"data\n"),))
        self.put("tool", Depends="libtool1 (>= 1)")
        self.put("libtool1", entries=(("./usr/lib/libtool.so.1", b"library\n"),))
        self.main.suites["trixie-updates"] = []
        self.security.suites["trixie-security"] = []
        self.publish()

    def put(self, name: str, version: str = "1.0", *, suite: str = "trixie", entries=None, **fields: str) -> None:
        repo = self.security if suite.endswith("security") else self.main
        given = {"Package": name, "Version": version, **fields}
        repo.put(suite, given, deb(given, entries or ((f"./usr/bin/{name}", f"{name} {version}\n".encode()),)))

    def publish(self) -> None:
        for suite in ("trixie", "trixie-updates"):
            self.server.files |= self.main.publish(suite)
        self.server.files |= self.security.publish("trixie-security")


@pytest.fixture
def archive(signer: Signer, server: FaultServer) -> Archive:
    return Archive(signer, server)


@pytest.fixture
def base(
    archive: Archive,
    signer: Signer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Base:
    monkeypatch.setattr(entry, "_catch_signals", lambda: None)
    monkeypatch.setattr(Keyring, "shipped", classmethod(lambda cls: cls(signer.public)))
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "attempts", 1)
    monkeypatch.chdir(tmp_path)
    for name in ("SOURCE_DATE_EPOCH", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "AEROGEL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AEROGEL_DEBIAN_MIRROR", f"{archive.server.url}/debian")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    made = Base(tmp_path, capfd, monkeypatch)
    made.write("base.yaml", DECLARATION)
    return made


AMD64 = ("--platform", "linux/amd64")


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


@pytest.fixture(autouse=True)
def busybox(archive: Archive) -> None:
    program = b"\x7fELF [\0[[\0cat\0sh\0U"
    archive.put("busybox-static", entries=(("./usr/bin/busybox", program),))
    archive.publish()


def layers(base: Base, reference: str) -> list[str]:
    return json.loads(base("inspect", reference))[0]["RootFS"]["Layers"]


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
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    base.on_another_machine("second")
    base("base", "build", *AMD64, "--locked")  # the mirror has it
    archive.server.files.clear()
    base.on_another_machine("third")
    base("base", "build", *AMD64, "--locked", status=4)
    assert "`tool 1.0 amd64`" in base.said


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
    images["latest"]["layers"] = ["sha256:" + "0" * 64]
    base.write("base.lock.json", json.dumps(lock))
    for _ in range(2):
        base("base", "build", *AMD64, "--locked", status=1)
        assert "error: `mine:latest` came out otherwise than the lock says" in base.said
        assert "expected sha256:0000" in base.said
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
