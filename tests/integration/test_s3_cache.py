"""`--cache-to` and `--cache-from` of type `s3` against moto's server, and layers that go out while a build runs.

Debian packages: busybox-static, docker-registry, openssl.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from process import Aerogel, files_of
from real_registry import Server, start
from tls_front import with_tls

pytestmark = pytest.mark.host("busybox", "openssl")

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-so-secret", "AWS_REGION": "eu-central-1"}
DOCKERFILE = """\
FROM scratch AS tools
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]

FROM tools AS unused
RUN head -c 16 /dev/urandom | md5sum > /unused

FROM tools
COPY --from=unused /unused /copied
RUN --mount=type=cache,target=/cache,id=e4 head -c 16 /dev/urandom | md5sum | tee /random > /cache/kept
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the bucket `builds`."""
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    words = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log, subprocess.Popen(words, stdout=log, stderr=log) as server:
        url = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-central-1"
        )
        for _ in range(600):
            with socket.socket() as probe:
                if server.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        client.create_bucket(Bucket="builds", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield url
        server.terminate()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    shutil.copy(str(shutil.which("busybox")), folder / "busybox")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[], Aerogel]:
    made: list[Aerogel] = []

    def make() -> Aerogel:
        made.append(Aerogel(tmp_path / f"machine-{len(made)}"))
        made[-1].env |= KEYS
        return made[-1]

    return make


def built(aerogel: Aerogel, context: Path, *words: str) -> tuple[str, dict[str, str]]:
    result = aerogel.json("build", *words, str(context))
    return result["image_id"], {f"{step['stage']} {step['name']}": step["status"] for step in result["steps"]}


def keys(url: str, prefix: str) -> set[str]:
    client = boto3.client("s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="x")
    return {each["Key"] for each in client.list_objects_v2(Bucket="builds", Prefix=prefix).get("Contents", ())}


def test_another_machine_runs_nothing(machine: Callable[[], Aerogel], s3: str, context: Path) -> None:
    place = f"type=s3,bucket=builds,prefix=one/,name=app,endpoint_url={s3},use_path_style=true"
    first, steps = built(machine(), context, "--cache-to", f"{place},cache-mounts=true")
    assert set(steps.values()) <= {"RAN", "SKIPPED"}
    found = keys(s3, "one/")
    assert "one/manifests/app" in found
    assert sum(key.startswith("one/blobs/sha256:") for key in found) >= 6
    other = machine()
    second, steps = built(other, context, "--cache-from", place)
    assert (first, set(steps.values())) == (second, {"CACHED", "SKIPPED"}), "all stages, the step with random bytes too"
    assert other.json("cache", "ls")["caches"] == []
    third = machine()
    built(third, context, "--cache-from", f"{place},cache-mounts=true")
    (kept,) = third.json("cache", "ls")["caches"]
    assert kept["id"] == "e4"
    # Written again, nothing moves but the list.
    built(other, context, "--cache-to", place)
    assert len(keys(s3, "one/") - found) <= 1, "the list of results"


def test_an_authority_of_ones_own(machine: Callable[[], Aerogel], s3: str, tmp_path: Path) -> None:
    """It is trusted when `--ca` or SSL_CERT_FILE names it, beside those of the system."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    with with_tls(int(s3.rpartition(":")[2]), tmp_path) as (url, certificate):
        place = f"type=s3,bucket=builds,prefix=tls/,endpoint_url={url},use_path_style=true"
        words = ("build", "--cache-to", place, str(tmp_path))
        refused = machine()(*words, check=False)
        assert (refused.returncode, "certificate verify failed" in refused.stderr) == (4, True), refused.stderr
        aerogel = machine()
        aerogel(*words, "--ca", str(certificate))
        assert "tls/manifests/aerogel" in keys(s3, "tls/")
        only = {"AWS_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": str(certificate)}
        aerogel(*words, env=only)


def test_what_a_failed_build_made_is_used(machine: Callable[[], Aerogel], s3: str, context: Path) -> None:
    place = f"type=s3,bucket=builds,prefix=failed/,name=app,endpoint_url={s3},use_path_style=true"
    (context / "Dockerfile").write_text(f"{DOCKERFILE}RUN [ -e /nowhere ]\n")
    failed = machine()("build", "--progress=plain", "--cache-to", place, str(context), check=False)
    assert (failed.returncode, "not written" in failed.stderr) == (1, False), failed.stderr
    (context / "Dockerfile").write_text(DOCKERFILE)
    _, steps = built(machine(), context, "--cache-from", place)
    assert set(steps.values()) <= {"CACHED", "SKIPPED"}, steps


def test_credentials_in_the_flag_are_secret(machine: Callable[[], Aerogel], s3: str, context: Path) -> None:
    aerogel = machine()
    for name in KEYS:
        aerogel.env.pop(name)
    secret = "hush-hush-hush"
    place = f"type=s3,bucket=builds,region=eu-central-1,prefix=two/,endpoint_url={s3},access_key_id=AKIA,secret_access_key={secret}"
    done = aerogel("build", "--progress=plain", "--cache-to", place, str(context))
    assert "two/manifests/aerogel" in keys(s3, "two/")
    assert secret not in done.stderr + done.stdout
    for path in aerogel.state.rglob("*"):
        assert not path.is_file() or path.stat().st_size > 1 << 20 or secret.encode() not in path.read_bytes(), path


def test_what_is_wrong_is_told_before_the_first_step(
    machine: Callable[[], Aerogel], s3: str, context: Path, tmp_path: Path
) -> None:
    port = free_port()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for place, told in (
        (f"type=s3,bucket=nobodys,endpoint_url={s3},use_path_style=true", "NoSuchBucket"),
        (f"type=registry,ref=127.0.0.1:{port}/nobody:here", f"127.0.0.1:{port}"),
        (f"type=local,dest={tmp_path}/other", "is not empty and no OCI layout"),
    ):
        aerogel = machine()
        done = aerogel("build", "--progress=plain", "--cache-to", place, str(context), check=False)
        assert done.returncode != 0
        assert told in done.stderr, done.stderr
        assert "--install" not in done.stderr, "no step ran"
        assert "Traceback" not in done.stderr
        done = aerogel("build", "--progress=plain", "--cache-to", f"{place},ignore-error=true", str(context))
        assert "was not written" in done.stderr
    missing = machine()(
        "build", "--progress=plain", "--cache-from", f"type=s3,bucket=builds,name=none,endpoint_url={s3}", str(context)
    )
    assert "has no `manifests/none`" in missing.stderr
    for words, told in (
        ("type=s3", "needs `bucket`"),
        ("type=s3,bucket=x,use_path_style=maybe", "is neither `true` nor `false`"),
        ("type=s3,bucket=x,buket=y", "did you mean `bucket`?"),
    ):
        assert told in machine()("build", "--cache-to", words, str(context), check=False).stderr


def test_without_the_library(machine: Callable[[], Aerogel], context: Path, tmp_path: Path) -> None:
    """An interpreter that does not find boto3, as after `pip install aerogel`."""
    aerogel = machine()
    hidden = "import sys, importlib.util as u; f = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'boto3' else f(n, *a)\n"
    run = "from aerogel.cli.main import main; sys.exit(main())"
    words = ["build", "--cache-to", "type=s3,bucket=x", str(context)]
    done = subprocess.run([sys.executable, "-c", hidden + run, *words], env=aerogel.env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs boto3, which is not installed" in done.stderr
    assert "hint: install it with `pip install 'aerogel[s3]'`" in done.stderr


@pytest.mark.host("docker-registry")
def test_layers_go_out_while_the_build_runs(
    machine: Callable[[], Aerogel], context: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The last step waits for a file, which appears when the registry has what the steps before it made."""
    waiting = "RUN --mount=type=cache,target=/cache,id=e4 until [ -e /cache/go ]; do sleep 0.1; done\n"
    (context / "Dockerfile").write_text(DOCKERFILE + waiting)
    server, process = start(tmp_path_factory.mktemp("registry"), {}, {})
    try:
        aerogel = machine()
        words = ("build", "--progress=plain", "--cache-to", f"{server.host}/early:cache", str(context))
        with subprocess.Popen(aerogel.argv(*words), env=aerogel.env, stderr=subprocess.DEVNULL) as build:
            try:
                for _ in range(1200):
                    kept = [path for path in files_of(aerogel.state) if path.name == "kept"]
                    if (_uploads(server) >= 5 and kept) or build.poll() is not None:
                        break
                    time.sleep(0.1)
                assert _uploads(server) >= 5, "that of the check, and four layers or more"
                assert build.poll() is None, "it still waits for the file"
                (kept[0].parent / "go").write_text("")
                assert build.wait() == 0
            finally:
                build.kill()
        _, steps = built(machine(), context, "--cache-from", f"{server.host}/early:cache")
        assert set(steps.values()) <= {"CACHED", "SKIPPED"}
    finally:
        process.terminate()
        process.wait()


def _uploads(server: Server) -> int:
    return sum('"PUT /v2/early/blobs/uploads/' in line for line in server.log.splitlines())
