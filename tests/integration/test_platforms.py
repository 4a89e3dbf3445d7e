"""Images for several platforms: one index, shared steps once, commands of other machines through qemu.

Debian packages: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, busybox-static, qemu-user-static, skopeo.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from foreign import greeter
from loop_registry import serve_registry
from process import Aerogel

from aerogel.oci.image import images, walk
from aerogel.oci.validate import validate
from aerogel.store.store import Store

pytestmark = pytest.mark.host

HELLO = '#include <stdio.h>\nint main(void) { puts("hello from " ARCH); return 0; }\n'


def step_names(built: dict[str, Any]) -> list[str]:
    return [step["name"] for step in built["steps"]]


def statuses(built: dict[str, Any]) -> set[str]:
    return {step["status"] for step in built["steps"]}


def opened(aerogel: Aerogel) -> Store:
    return Store.open(aerogel.state / "data", aerogel.state / "cache")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A compiler for each platform is made outside, as programs that a build stage has."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "main.c").write_text(HELLO)
    shutil.copy("/bin/busybox", folder / "busybox")
    for arch, compiler in {"amd64": "gcc", "arm64": "aarch64-linux-gnu-gcc"}.items():
        out = folder / f"hello-{arch}"
        command = [compiler, "-static", "-s", f'-DARCH="{arch}"', "-o", str(out), str(folder / "main.c")]
        subprocess.run(command, check=True)
    return folder


@pytest.mark.network
def test_one_index_with_shared_steps_once(project: Path, tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")  # of its own: everything in it is removed at the end
    (project / "Dockerfile").write_text(
        "FROM --platform=$BUILDPLATFORM scratch AS tools\n"
        "COPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        "COPY hello-* /made/\n"
        "RUN echo only once > /log\n"
        "FROM tools AS build\n"
        "ARG TARGETARCH\n"
        "RUN cp /made/hello-$TARGETARCH /hello\n"
        "FROM gcr.io/distroless/static\n"
        "ARG TARGETPLATFORM\n"
        "COPY --from=build /hello /hello\n"
        "COPY --from=tools /log /log\n"
        "COPY main.c /source.c\n"
        "ENV PLATFORM=$TARGETPLATFORM\n"
        'ENTRYPOINT ["/hello"]\n'
    )
    words = ["build", str(project), "--platform", "linux/amd64,linux/arm64", "-t", "two:1"]
    built = aerogel.json(*words, "-o", f"type=oci,dest={tmp_path}/two.tar")
    names = step_names(built)
    # What both platforms need is there once and has no name of one; the rest is told by platform.
    assert names.count("RUN echo only once > /log") == 1
    assert [name for name in names if "hello-$TARGETARCH" in name] == [
        "[linux/amd64] RUN cp /made/hello-$TARGETARCH /hello",
        "[linux/arm64] RUN cp /made/hello-$TARGETARCH /hello",
    ]
    # Files that are the same for both are written once, and found for the other.
    assert statuses(built) == {"RAN", "REUSED"}
    assert built["platform"] == "linux/amd64,linux/arm64"
    assert statuses(aerogel.json(*words)) <= {"CACHED", "SKIPPED"}
    with opened(aerogel) as store:
        record = store.images.find("two:1")
        assert record is not None
        found = images(record.descriptor, store.blobs)
        assert all(validate(image) == [] for image in found)
        index = json.loads(store.blobs.read(record.descriptor.digest))
        assert {key: index[key] for key in ("schemaVersion", "mediaType")} == {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
        }
        # As BuildKit's: in the order asked for, each with its platform and nothing else.
        assert [(each["platform"], sorted(each)) for each in index["manifests"]] == [
            ({"architecture": "amd64", "os": "linux"}, ["digest", "mediaType", "platform", "size"]),
            ({"architecture": "arm64", "os": "linux"}, ["digest", "mediaType", "platform", "size"]),
        ]
        assert [image.config.architecture for image in found] == ["amd64", "arm64"]
        assert ["PLATFORM=linux/arm64" in image.config.config.env for image in found] == [False, True]
        shared = set(found[0].config.rootfs.diff_ids) & set(found[1].config.rootfs.diff_ids)
        assert len(shared) == 2  # COPY of the log and of the source
        needed = {part.digest for part in walk(record.descriptor, store.blobs)}
    assert aerogel("run", "two:1").stdout == "hello from amd64\n"
    assert aerogel("run", "--platform", "linux/arm64", "two:1").stdout == "hello from arm64\n"
    listed = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/two.tar"], capture_output=True, check=True, text=True
    )
    assert [each["platform"]["architecture"] for each in json.loads(listed.stdout)["manifests"]] == ["amd64", "arm64"]
    _names_keep_all_children(aerogel, needed, tmp_path)


def _names_keep_all_children(aerogel: Aerogel, needed: set[str], tmp_path: Path) -> None:
    """Another name, removal of the first, and a prune leave every platform; the last name takes all away."""
    aerogel("tag", "two:1", "three:1")
    aerogel("rmi", "two:1")
    aerogel("prune", "--all")
    with opened(aerogel) as store:
        assert all(store.blobs.has(digest) for digest in needed)
    aerogel("save", "-o", str(tmp_path / "saved.tar"), "--format", "oci-archive", "three:1")
    with tarfile.open(tmp_path / "saved.tar") as tar:
        assert {f"sha256:{name.rsplit('/', 1)[1]}" for name in tar.getnames() if name.count("/") == 2} >= needed
    assert aerogel("run", "--platform", "linux/arm64", "three:1").stdout == "hello from arm64\n"
    aerogel("rmi", "three:1")
    aerogel("prune", "--all")
    with opened(aerogel) as store:
        assert not any(store.blobs.has(digest) for digest in needed)


def test_a_command_of_another_platform_runs_under_qemu(aerogel: Aerogel, tmp_path: Path) -> None:
    """Also as root in the image: owners as anywhere, and nothing of qemu in the layer."""
    (tmp_path / "greet").write_bytes(greeter(code=0))
    (tmp_path / "greet").chmod(0o755)
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY greet /greet\nRUN ["/greet"]\nWORKDIR /w\n')
    built = aerogel.json("build", str(tmp_path), "--platform", "linux/arm64", "-t", "greet")
    assert built["platform"] == "linux/arm64"
    done = aerogel("run", "--platform", "linux/arm64", "greet", "/greet")
    assert done.stdout == "hello from arm64\n"
    with opened(aerogel) as store:
        [image] = images(store.images.find("greet").descriptor, store.blobs)
        assert validate(image) == []
        # RUN changed nothing: two layers, COPY and WORKDIR.
        assert len(image.manifest.layers) == 2


def test_an_ordinary_user_runs_it_too(ordinary: Aerogel, aerogel: Aerogel) -> None:
    """On the rung `subid` a command of another platform runs as on `root`, and the image is the same."""
    folder = Path(ordinary.env["HOME"]) / "foreign"
    folder.mkdir()
    (folder / "greet").write_bytes(greeter(code=0))
    (folder / "greet").chmod(0o755)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY --chown=1234:5678 greet /greet\nUSER 7\nRUN ["/greet"]\n')
    subprocess.run(["chown", "-R", f"{ordinary.account}:", str(folder)], check=True)
    words = ("build", "--platform", "linux/arm64", "-t", "foreign", str(folder))
    built = ordinary.json(*words)
    assert [step["status"] for step in built["steps"]] == ["RAN"] * len(built["steps"])
    assert ordinary("run", "--platform", "linux/arm64", "foreign", "/greet").stdout == "hello from arm64\n"
    assert aerogel.json(*words)["image_id"] == built["image_id"]


def test_stages_keep_the_platform_of_what_they_start_from(aerogel: Aerogel, tmp_path: Path) -> None:
    """A stage from one with --platform runs on that platform: no emulation, whatever is built for."""
    shutil.copy("/bin/busybox", tmp_path / "sh")
    (tmp_path / "Dockerfile").write_text(
        "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY sh /bin/sh\n"
        'FROM tools AS build\nRUN ["/bin/sh", "-c", "echo native > /made"]\n'
        "FROM scratch\nCOPY --from=build /made /made\n"
    )
    # No qemu runs programs for ppc64 here, and none is needed.
    built = aerogel.json("build", str(tmp_path), "--platform", "linux/ppc64,linux/s390x")
    assert step_names(built) == [
        "COPY sh /bin/sh",
        'RUN ["/bin/sh", "-c", "echo native > /made"]',
        "COPY --from=build /made /made",
    ]


def test_pushed_as_an_index(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n")
    with serve_registry() as registry:
        name = f"{registry.host}/team/app:1"
        words = ["--platform", "linux/amd64,linux/arm/v7,linux/s390x", "--push", "--insecure-registry", registry.host]
        built = aerogel.json("build", str(tmp_path), "-t", name, *words)
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
        seen = subprocess.run(command, capture_output=True, check=True)
    index = json.loads(seen.stdout)
    assert [each["platform"] for each in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
        {"architecture": "s390x", "os": "linux"},
    ]
    assert built["descriptor"]["mediaType"] == index["mediaType"]


@pytest.mark.network
def test_debian_of_another_platform_is_set_up_and_used(aerogel: Aerogel, tmp_path: Path) -> None:
    """Its packages are configured by its own programs, under qemu; users and setuid programs work in it."""
    (tmp_path / "Dockerfile").write_text(
        "FROM debian\n"
        "RUN uname -m > /said && dpkg --print-architecture >> /said && useradd --uid 4321 amy && su amy -c 'id -u' >> /said\n"
    )
    aerogel("build", str(tmp_path), "--platform", "linux/arm64", "-t", "debian-arm64")
    said = aerogel("run", "--platform", "linux/arm64", "debian-arm64", "cat", "/said").stdout
    assert said == "aarch64\narm64\n4321\n"


def test_an_index_is_a_base_for_each_of_its_platforms(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nENV BASE=$TARGETARCH\nCOPY Dockerfile /\n")
    aerogel("build", str(tmp_path), "--platform", "linux/amd64,linux/s390x", "-t", "index/base")
    (tmp_path / "Dockerfile").write_text("FROM index/base\nCOPY Dockerfile /more\n")
    words = ["build", str(tmp_path), "-t", "index/app", "--platform"]
    aerogel(*words, "linux/s390x,linux/amd64")
    with opened(aerogel) as store:
        found = images(store.images.find("index/app").descriptor, store.blobs)
        assert [image.config.config.env[-1] for image in found] == ["BASE=s390x", "BASE=amd64"]
    failed = aerogel(*words, "linux/arm64", check=False)
    assert failed.returncode == 1
    assert "has no image for `linux/arm64`" in failed.stderr
    assert "hint: it has `linux/amd64`, `linux/s390x`" in failed.stderr
    assert "Dockerfile:1:6" in failed.stderr
