"""Archives that other tools take, and theirs that we take: skopeo, umoci, podman, docker.

Debian packages: skopeo, umoci, podman, openssl, docker.io (dockerd is started on a socket of its own and on loop-back with
TLS, without network).
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from authority import Authority
from debian_repo import Signer
from fault_server import serve
from own_bases import AMD64, DECLARATION, Archive, Base, open_base
from own_docker import own_docker
from process import Aerogel

from aerogel.oci.image import Image, create_index, load
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference
from aerogel.oci.types import Descriptor
from aerogel.oci.validate import validate
from aerogel.store.layout import Root, write_docker_archive, write_oci_archive, write_oci_layout
from aerogel.store.load import load_archive, load_layout
from aerogel.store.store import Store

pytestmark = pytest.mark.host

make_image: Callable[..., Image] = runpy.run_path(
    str(Path(__file__).parents[1] / "unit" / "store" / "store_images.py")
)["make_image"]

NAME = Reference.parse("example.com/owner/app:one")
COMPRESSIONS = ("gzip", "zstd", "uncompressed")


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, words)), env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Written(NamedTuple):
    """One image in the store and as files."""

    image: Image
    oci: Path
    docker: Path
    layout: Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data2", tmp_path / "cache2") as opened:
        yield opened


@pytest.fixture(params=COMPRESSIONS)
def written(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Written:
    image = make_image(store, request.param, copies=2)
    roots = [Root(image.descriptor, (NAME,))]
    paths = Written(image, tmp_path / "oci.tar", tmp_path / "docker.tar", tmp_path / "layout")
    with paths.oci.open("wb") as file:
        write_oci_archive(file.write, roots, store.blobs)
    with paths.docker.open("wb") as file:
        write_docker_archive(file.write, roots, store.blobs)
    write_oci_layout(str(paths.layout), roots, store.blobs)
    return paths


def check(store: Store, found: Descriptor, image: Image) -> None:
    """The same image came back: valid, with the same layers and the same config as far as the tool keeps it."""
    loaded = load(found, store.blobs)
    assert validate(loaded) == []
    assert loaded.config.rootfs.diff_ids == image.config.rootfs.diff_ids
    assert loaded.config.config.env == image.config.config.env
    assert loaded.config.config.labels == image.config.config.labels
    assert loaded.config.config.cmd == image.config.config.cmd


def test_skopeo_reads_them(written: Written, tmp_path: Path) -> None:
    need("skopeo")
    told = json.loads(run("skopeo", "inspect", f"oci-archive:{written.oci}"))
    assert told["Digest"] == written.image.digest
    assert told["Layers"] == [layer.digest for layer in written.image.manifest.layers]
    assert json.loads(run("skopeo", "inspect", f"oci-archive:{written.oci}:one"))["Digest"] == written.image.digest
    assert json.loads(run("skopeo", "inspect", f"oci:{written.layout}:one"))["Digest"] == written.image.digest
    told = json.loads(run("skopeo", "inspect", f"docker-archive:{written.docker}"))
    assert told["Env"] == list(written.image.config.config.env)
    for number, source in enumerate((f"oci-archive:{written.oci}", f"docker-archive:{written.docker}")):
        run("skopeo", "--insecure-policy", "copy", source, f"oci:{tmp_path / str(number)}:x")


def test_skopeo_writes_what_we_read(written: Written, other: Store, tmp_path: Path) -> None:
    need("skopeo")
    source = f"oci-archive:{written.oci}"
    run("skopeo", "--insecure-policy", "copy", source, f"oci-archive:{tmp_path}/a.tar:example.com/owner/app:one")
    run("skopeo", "--insecure-policy", "copy", source, f"oci:{tmp_path}/b:tag")
    # containers/image has no zstd in Docker's archive; ours has the layers plain there.
    source = f"docker-archive:{written.docker}"
    run("skopeo", "--insecure-policy", "copy", source, f"docker-archive:{tmp_path}/c.tar:example.com/owner/app:one")
    with (tmp_path / "a.tar").open("rb") as file:
        [found] = load_archive(file, other)
    assert found.references == (NAME,)
    check(other, found.descriptor, written.image)
    [found] = load_layout(str(tmp_path / "b"), other)
    assert (found.references, found.label) == ((), "tag")
    check(other, found.descriptor, written.image)
    with (tmp_path / "c.tar").open("rb") as file:
        [found] = load_archive(file, other)
    assert found.references == (NAME,)
    check(other, found.descriptor, written.image)


@pytest.mark.parametrize("written", ["gzip", "uncompressed"], indirect=True)  # umoci 0.4 does not know zstd
def test_umoci_unpacks(written: Written, other: Store, tmp_path: Path) -> None:
    need("umoci")
    (tmp_path / "layout2").mkdir()
    run("tar", "-xf", written.oci, "-C", tmp_path / "layout2")
    for layout in (written.layout, tmp_path / "layout2"):
        bundle = tmp_path / f"bundle-{layout.name}"
        run("umoci", "unpack", "--rootless", "--image", f"{layout}:one", bundle)
        assert (bundle / "rootfs/etc/name").read_bytes() == b"second text"
        assert (bundle / "rootfs/bin/link").readlink() == Path("../etc/name")
    run("umoci", "config", "--image", f"{written.layout}:one", "--tag", "two", "--config.label", "b=c")
    found = {each.label: each for each in load_layout(str(written.layout), other)}
    assert found["one"].descriptor.digest == written.image.digest
    assert load(found["two"].descriptor, other.blobs).config.config.labels == {"a": "ü", "b": "c"}
    assert validate(load(found["two"].descriptor, other.blobs)) == []


def test_podman_loads_and_saves(written: Written, other: Store, tmp_path: Path) -> None:
    need("podman")
    # Podman refuses a runroot of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="p") as state:
        podman = ("podman", "--root", f"{state}/a", "--runroot", f"{state}/b", "--storage-driver", "vfs")
        podman_round_trip(podman, written, other, tmp_path)


def podman_round_trip(podman: tuple[str, ...], written: Written, other: Store, tmp_path: Path) -> None:
    for path in (written.oci, written.docker):
        assert str(NAME) in run(*podman, "load", "-i", path)
        told = json.loads(run(*podman, "image", "inspect", str(NAME)))[0]
        assert told["Id"] == written.image.id[7:]
        assert told["RootFS"]["Layers"] == list(written.image.config.rootfs.diff_ids)
        run(*podman, "rmi", "--force", str(NAME))
    # From the Docker archive, since containers/image cannot write one of zstd layers.
    run(*podman, "load", "-i", written.docker)
    for number, kind in enumerate(("docker-archive", "oci-archive")):
        saved = tmp_path / f"saved{number}.tar"
        run(*podman, "save", "--format", kind, "-o", saved, str(NAME))
        with saved.open("rb") as file:
            [found] = load_archive(file, other)
        assert found.references == (NAME,)
        check(other, found.descriptor, written.image)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    need("openssl")
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.certify("server", is_server=True)
    made.certify("client", is_server=False)
    return made


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, authority: Authority, port: int) -> Iterator[dict[str, str]]:
    """The environment of a docker client that speaks to a daemon of this test alone."""
    need("dockerd")
    need("docker")
    more = ["-H", f"tcp://127.0.0.1:{port}", "--tlsverify", f"--tlscacert={authority.folder}/ca.pem"]
    more += [f"--tlscert={authority.folder}/server.pem", f"--tlskey={authority.folder}/server-key.pem"]
    with own_docker(tmp_path_factory.mktemp("dockerd"), more) as env:
        yield env


def test_docker_loads_and_saves(written: Written, other: Store, tmp_path: Path, docker: dict[str, str]) -> None:
    assert str(NAME) in run("docker", "load", "-i", written.docker, env=docker)
    told = json.loads(run("docker", "image", "inspect", str(NAME), env=docker))[0]
    assert told["Id"] == written.image.id
    assert told["RootFS"]["Layers"] == list(written.image.config.rootfs.diff_ids)
    assert told["Config"]["Env"] == list(written.image.config.config.env)
    saved = tmp_path / "saved.tar"
    run("docker", "save", "-o", saved, str(NAME), env=docker)
    run("docker", "rmi", str(NAME), env=docker)
    with saved.open("rb") as file:
        [found] = load_archive(file, other)
    assert found.references == (NAME,)
    check(other, found.descriptor, written.image)
    assert load(found.descriptor, other.blobs).id == written.image.id


@pytest.mark.parametrize("keys", ["", ",oci-mediatypes=false", ",compression=zstd", ",compression=uncompressed"])
def test_docker_loads_what_a_build_writes(aerogel: Aerogel, tmp_path: Path, docker: dict[str, str], keys: str) -> None:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /a/b\nLABEL k=v\nCMD ["/a/b"]\n')
    name, archive = "loaded/app:1", tmp_path / "a.tar"
    built = aerogel.json("build", "-t", name, "-o", f"type=docker,dest={archive}{keys}", str(tmp_path))
    assert name in run("docker", "load", "-i", archive, env=docker)
    told = json.loads(run("docker", "image", "inspect", name, env=docker))[0]
    assert told["Id"] == built["image_id"]
    assert (told["Config"]["Labels"], told["Config"]["Cmd"]) == ({"k": "v"}, ["/a/b"])
    back, files = tmp_path / "back.tar", tmp_path / "files"
    container = run("docker", "create", name, env=docker).strip()
    run("docker", "export", "-o", back, container, env=docker)
    files.mkdir()
    run("tar", "-xf", back, "-C", files, "a")
    assert (files / "a/b").read_text() == (tmp_path / "Dockerfile").read_text()
    run("docker", "rm", container, env=docker)
    run("docker", "rmi", name, env=docker)


def test_an_index_is_read_by_skopeo(store: Store, tmp_path: Path) -> None:
    need("skopeo")
    platforms = [Platform.parse(name) for name in ("linux/amd64", "linux/arm64", "linux/arm/v7")]
    made = [make_image(store, platform=platform, text=str(platform).encode()) for platform in platforms]
    index = create_index([image.descriptor for image in made], store.blobs)
    path = tmp_path / "multi.tar"
    with path.open("wb") as file:
        write_oci_archive(file.write, [Root(index, (NAME,))], store.blobs)
    for platform, image in zip(platforms, made, strict=True):
        words = ["skopeo", "--override-os", platform.os, "--override-arch", platform.architecture]
        words += ["--override-variant", platform.variant] if platform.variant else []
        told = json.loads(run(*words, "inspect", "--config", f"oci-archive:{path}"))
        assert told["architecture"] == image.config.architecture
    run("skopeo", "--insecure-policy", "copy", "--all", f"oci-archive:{path}", f"oci:{tmp_path}/all:x")


def test_copy_and_build_speak_to_docker(docker: dict[str, str], tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    aerogel.env |= docker
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\nENV A=b\n")
    built = aerogel.json("build", "-t", "e4/app:1", "-o", "type=docker-daemon", str(tmp_path))
    told = json.loads(run("docker", "image", "inspect", "e4/app:1", env=docker))[0]
    assert told["Id"] == built["image_id"]
    moved = aerogel.json("copy", "e4/app:1", "docker-daemon:e4/copied:2")
    assert moved["transferred"] > 1000
    assert json.loads(run("docker", "image", "inspect", "e4/copied:2", env=docker))[0]["Id"] == built["image_id"]
    run("docker", "rmi", "e4/app:1", env=docker)
    other = Aerogel(tmp_path / "other")
    other.env |= docker
    other("copy", "docker-daemon:e4/copied:2", "here:1")
    assert other.json("images")["images"][0]["id"] == built["image_id"]
    other("copy", "docker-daemon:e4/copied:2", f"oci:{tmp_path}/layout:one")
    absent = other("copy", "docker-daemon:e4/absent:2", "here:2", check=False)
    assert (absent.returncode, "the docker daemon has no image `e4/absent:2`" in absent.stderr) == (1, True)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Base]:
    """Commands of bases in this process, with a small signed archive of it."""
    signer = Signer()
    with serve() as server:
        yield open_base(Archive(signer, server), signer, tmp_path, monkeypatch, capfd)


def base_on(base: Base, kind: str) -> None:
    """A declaration on an image that another program has is locked and built where nothing is known of the image."""
    base.write("below/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\nENV A=b\n")
    base("build", *AMD64, "-t", "localhost/e4/below:1", "-o", f"type={kind}", "below")
    base.write("base.yaml", DECLARATION.replace("static", f"{kind}:localhost/e4/below:1"))
    base.on_another_machine("second")
    base("base", "lock", *AMD64)
    base.on_another_machine("third")
    base("base", "build", *AMD64, "--locked", "-t", "one", "-o", "type=local,dest=out")
    assert (base.folder / "out/d").read_text().startswith("FROM scratch")
    assert (base.folder / "out/usr/bin/tool").read_text() == "tool 1.0\n"
    assert "A=b" in json.loads(base("inspect", "one"))[0]["Config"]["Env"]
    base.write("below/Dockerfile", "FROM scratch\nCOPY Dockerfile /other\n")
    base("build", *AMD64, "-t", "localhost/e4/below:1", "-o", f"type={kind}", "below")
    base.on_another_machine("fourth")
    base("base", "build", *AMD64, "--locked", status=1)
    assert f"error: `{kind}:localhost/e4/below:1` is not the image that was locked" in base.said
    assert "--> base.yaml:4:" in base.said


def test_a_base_on_an_image_of_docker(docker: dict[str, str], base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker["DOCKER_HOST"])
    base_on(base, "docker-daemon")


def test_a_daemon_over_tls(docker: dict[str, str], authority: Authority, port: int, tmp_path: Path) -> None:
    """With a client's certificate, as docker wants it (`DOCKER_CERT_PATH`); nobody else is spoken to, nor speaks to it."""
    folders = {name: tmp_path / name for name in ("right", "other", "alone", "half")}
    other = Authority(tmp_path / "authority")
    other.certify("client", is_server=False)
    for name, folder in folders.items():
        folder.mkdir()
        found = other.folder if name == "other" else authority.folder
        shutil.copy(found / "ca.pem", folder / "ca.pem")
        if name in ("right", "other"):
            shutil.copy(found / "client-key.pem", folder / "key.pem")
        if name != "alone":
            shutil.copy(found / "client.pem", folder / "cert.pem")
    aerogel = Aerogel(tmp_path / "state")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    built = aerogel.json("build", "-t", "app:1", str(tmp_path))
    tls = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1"}
    aerogel("copy", "app:1", "docker-daemon:tls/app:1", env={**tls, "DOCKER_CERT_PATH": str(folders["right"])})
    told = json.loads(run("docker", "image", "inspect", "tls/app:1", env=docker))[0]
    assert told["Id"] == built["image_id"]
    aerogel("copy", "docker-daemon:tls/app:1", "back:1", env={**tls, "DOCKER_CERT_PATH": str(folders["right"])})
    assert {image["id"] for image in aerogel.json("images")["images"]} == {built["image_id"]}
    # Of an authority that did not sign the daemon's certificate, without a certificate, with half of one, without TLS.
    for name, words in (
        ("other", "certificate verify failed"),
        ("alone", "alert"),  # older ones call it a bad certificate
        ("half", "`key.pem`"),
        ("nowhere", "no such file"),
    ):
        for ends in (("app:1", "docker-daemon:tls/no:1"), ("docker-daemon:tls/app:1", "no:1")):
            refused = aerogel("copy", *ends, check=False, env={**tls, "DOCKER_CERT_PATH": str(tmp_path / name)})
            assert (refused.returncode != 0, words in refused.stderr.lower()) == (True, True), refused.stderr
            assert "`ca.pem`" in refused.stderr, "the hint tells which files are read"
            assert "Traceback" not in refused.stderr
    plain = aerogel("copy", "docker-daemon:tls/app:1", "no:1", check=False, env={"DOCKER_HOST": tls["DOCKER_HOST"]})
    assert "`DOCKER_TLS_VERIFY=1`" in plain.stderr
    assert "tls/no" not in run("docker", "images", env=docker)


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV A=b\n")
    aerogel("build", "-q", "-t", "app", str(tmp_path))
    for host, told in (
        (f"unix://{tmp_path}/none.sock", "cannot be spoken to: no such file or directory"),
        ("tcp://127.0.0.1:1", "cannot be spoken to: connection refused"),
        ("ssh://somewhere", "is no address that is spoken to here"),
    ):
        for words in (("app", "docker-daemon:app:1"), ("docker-daemon:app:1", "app:2")):
            done = aerogel("copy", *words, check=False, env={"DOCKER_HOST": host})
            assert told in done.stderr
            assert "Traceback" not in done.stderr
    lonely = aerogel("copy", "app", "containers-storage:app:1", check=False, env={"PATH": "/nowhere"})
    assert "`podman` cannot be started" in lonely.stderr
    assert "names no image" in aerogel("copy", "docker-daemon:", "x", check=False).stderr


@pytest.fixture
def podman_env() -> Iterator[dict[str, str]]:
    """A storage of its own for podman, under a short path."""
    need("podman")
    with tempfile.TemporaryDirectory(prefix="pod", ignore_cleanup_errors=True) as state:
        Path(state, "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{state}/a"\nrunroot = "{state}/b"\n'
        )
        yield {"CONTAINERS_STORAGE_CONF": f"{state}/storage.conf"}


def test_copy_and_build_speak_to_podman(tmp_path: Path, podman_env: dict[str, str]) -> None:
    aerogel = Aerogel(tmp_path / "state")
    aerogel.env |= podman_env
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\nENV A=b\n")
    built = aerogel.json("build", "-t", "localhost/e4/app:1", "-o", "type=containers-storage", str(tmp_path))
    ids = run("podman", "images", "--no-trunc", "-q", "localhost/e4/app:1", env=podman_env)
    assert ids.strip() == built["image_id"]
    other = Aerogel(tmp_path / "other")
    other.env |= podman_env
    other("copy", "containers-storage:localhost/e4/app:1", "here:1")
    assert other.json("images")["images"][0]["id"] == built["image_id"]
    other("copy", "here:1", "containers-storage:localhost/e4/copied:2")
    ids = run("podman", "images", "--no-trunc", "-q", "localhost/e4/copied:2", env=podman_env)
    assert ids.strip() == built["image_id"]
    for name in ("--help", f"--output={tmp_path}/taken"):  # names are no options of podman
        assert "`podman save` fails" in other("copy", f"containers-storage:{name}", "here:2", check=False).stderr
    absent = other("copy", "containers-storage:localhost/e4/absent:2", "here:2", check=False)
    assert "`podman save` fails" in absent.stderr


def test_a_base_on_an_image_of_podman(podman_env: dict[str, str], base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", podman_env["CONTAINERS_STORAGE_CONF"])
    base_on(base, "containers-storage")
