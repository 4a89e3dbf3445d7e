"""Eight Dockerfiles, each built where the host looks different: one digest each.

The folder, the user (root, and another one with subordinate ids), umask, time zone, locale, hash seed, number of
jobs, clock and the order of names in folders differ; nothing is taken from the build before. Three of the eight
install with apt-get, pip and npm. Debian packages: busybox-static, uidmap.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from process import Aerogel

from aerogel.export.difference import first_difference
from aerogel.oci.image import images
from aerogel.oci.types import Descriptor
from aerogel.store.store import Store

BASE = 'FROM scratch AS base\nCOPY busybox /bin/\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
PIP = """\
FROM debian AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip
WORKDIR /src
COPY . .
RUN pip install --target /app idna==3.10 && pip install --target /app six==1.16.0
FROM gcr.io/distroless/python3
COPY --from=build /app /app
COPY --from=build /src/app.py /app/
ENV PYTHONPATH=/app
ENTRYPOINT ["/usr/bin/python3.13"]
"""
WITH_NPM = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm
"""
NPM = """\
FROM with-npm
WORKDIR /app
COPY . .
RUN npm pack --silent ./dep && npm install --silent --package-lock-only && npm ci && node -e 'require("dep")'
"""

LOCAL = {
    "run": BASE + "RUN mkdir -p /a/b && date > /a/gone && rm /a/gone && echo 1 > /a/b/c && ln /a/b/c /a/d\nRUN ls -lR /a > /list\n",
    "copy": BASE + "WORKDIR /app\nCOPY --chmod=640 src .\nCOPY --chown=5:6 src/sub /owned/\nCOPY src/sub/link /app/\n",
    "add": BASE + "ADD tree.tar /tree/\nADD --checksum= src /src\n".replace("--checksum= ", ""),
    "stages": BASE + "RUN seq 9 > /one\nFROM base AS two\nRUN seq 8 > /two && chmod 4711 /two\nFROM scratch\nCOPY --from=base / /\n"
    "COPY --from=two /two /\n",
    "mounts": BASE + "RUN --mount=type=cache,target=/c --mount=type=bind,source=src,target=/s --mount=type=tmpfs,target=/t "
    "cp -r /s /out && date > /c/seen && date > /t/x && find / -xdev | sort > /t/names && cp /t/names /names\nRUN tar cf /out.tar /out\n",
}  # fmt: skip
NETWORK = {
    "apt": "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends openssh-client dbus less\n"
    "RUN useradd -m app && ldconfig\n",
    "pip": PIP,
    "npm": NPM,
}


def make_context(folder: Path, dockerfile: str, *, backwards: bool) -> Path:
    """The same files; made in the other order, with other modes of folders and other times."""
    folder.mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None

    def write(name: str, text: str, mode: int = 0o644) -> Callable[[], None]:
        def make() -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)

        return make

    makers: list[Callable[[], None]] = [
        write("Dockerfile", dockerfile),
        lambda: Path(shutil.copy(busybox, folder / "busybox")).chmod(0o755),
        write("src/b", "b\n"),
        write("src/a", "a\n", 0o755),
        write("src/sub/file", "x\n"),
        write("src/sub/zfile", "z\n"),
        write("app.py", "import idna, six\nprint(idna.encode('x').decode(), six.PY3)\n"),
        write("package.json", json.dumps({"name": "app", "version": "1.0.0", "dependencies": {"dep": "file:dep-1.0.0.tgz"}})),
        write("dep/package.json", json.dumps({"name": "dep", "version": "1.0.0"})),
        write("dep/index.js", "module.exports = 1\n"),
    ]  # fmt: skip
    for make in makers[::-1] if backwards else makers:
        make()
    (folder / "src/sub/link").symlink_to("file")
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
        if not path.is_symlink():
            os.utime(path, (1_600_000_000 + backwards * 1000, 1_600_000_000 + backwards * 1000))
    with tarfile.open(folder / "tree.tar", "w") as tar:
        for name in ("src/a", "src/sub/file"):
            member = tarfile.TarInfo(name)
            member.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)
    folder.parent.chmod(0o755)
    return folder


OTHER = (
    "from aerogel.sandbox.repeat import shuffle; shuffle(); from aerogel.cli.main import main; raise SystemExit(main())"
)
HOSTS = {
    "plain": {"PYTHONHASHSEED": "0", "TZ": "America/Los_Angeles", "LC_ALL": "C.UTF-8"},
    "other": {"PYTHONHASHSEED": "12345", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "HOME": "/nowhere"},
    "ordinary": {"TZ": "Pacific/Chatham", "LC_ALL": "C", "LANGUAGE": "de"},
}  # fmt: skip
"""`plain` and `other` are root, `ordinary` is a user with subordinate ids, whose umask and jobs are of the second kind."""


def build(runner: Aerogel, context: Path, host: str) -> dict[str, Any]:
    """One build in which no step is taken from before; all but the first host differ in all that no image may depend on."""
    env = {**runner.env, **HOSTS[host]}
    env.pop("SOURCE_DATE_EPOCH", None)
    words = ["build", str(context), "--no-cache", "--json", "--progress=plain", "-t", "made"]
    words += ["--jobs=4"] if host == "plain" else ["--jobs=1"]
    argv = [sys.executable, "-c", OTHER, *words] if host == "other" else runner.argv(*words)
    done = subprocess.run(
        argv,
        env=env,
        cwd=context if host == "plain" else "/",
        umask=0o002 if host == "plain" else 0o077,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.host("busybox", "newuidmap")
@pytest.mark.parametrize("name", sorted(LOCAL))
def test_one_digest(name: str, tmp_path: Path, ordinary: Aerogel) -> None:
    digests = {}
    for host in HOSTS:
        place = ordinary.state.parent / "contexts" if host == "ordinary" else tmp_path
        context = make_context(place / f"{name} for {host}", LOCAL[name], backwards=host != "plain")
        runner = ordinary if host == "ordinary" else Aerogel(tmp_path / host)
        digests[host] = build(runner, context, host)["descriptor"]["digest"]
    assert len(set(digests.values())) == 1, digests


def difference(runner: Aerogel, one: Descriptor, other: Descriptor) -> object:
    """The first file that differs, for the message of a failure."""
    with Store.open(runner.state / "data", runner.state / "cache") as store:
        blobs = store.blobs
        return first_difference(images(one, blobs), images(other, blobs), blobs)


def give_npm(aerogel: Aerogel, ordinary: Aerogel, folder: Path) -> None:
    """The base of the builds with npm, in both stores."""
    (folder / "Dockerfile").write_text(WITH_NPM)
    aerogel("build", "-q", "-t", "with-npm", "-f", str(folder / "Dockerfile"), str(folder))
    archive = ordinary.state.parent / "with-npm.tar"
    aerogel("save", "--format=oci-archive", "-o", str(archive), "with-npm")
    archive.chmod(0o644)
    ordinary("load", "-i", str(archive))
    archive.unlink()


@pytest.mark.host("newuidmap")
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORK))
def test_one_digest_of_what_is_installed(name: str, tmp_path: Path, aerogel: Aerogel, ordinary: Aerogel) -> None:
    """The builds of an account share a store for their base alone: every step runs.

    npm itself, which is 300 packages, is installed once: that their installation depends on nothing is what `apt` and
    `pip` show.
    """
    if name == "npm":
        give_npm(aerogel, ordinary, tmp_path)
    built = {}
    for host in HOSTS:
        place = ordinary.state.parent / "contexts" if host == "ordinary" else tmp_path
        context = make_context(place / f"{name} for {host}", NETWORK[name], backwards=host != "plain")
        made = build(ordinary if host == "ordinary" else aerogel, context, host)
        assert {step["status"] for step in made["steps"]} == {"RAN"}
        built[host] = msgspec.convert(made["descriptor"], Descriptor)
    assert built["plain"].digest == built["other"].digest, difference(aerogel, built["plain"], built["other"])
    assert built["plain"].digest == built["ordinary"].digest
    if name == "pip":
        # What was compiled in the first stage, copied to the second and dated is used as it is.
        done = aerogel("run", "-e", "PYTHONDONTWRITEBYTECODE=1", "made", "-v", "/app/app.py")
        assert done.stdout == "x True\n"
        for module in ("six.py", "idna/__init__.py", "idna/core.py"):
            assert f"matches /app/{module}\n" in done.stderr
        assert "bytecode is stale" not in done.stderr
