"""images, inspect, save, load, tag, rmi through the entry point, on a store that `load` filled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from aerogel.cli import main as entry


def docker_archive(path, names, content=b"hello\n"):
    """What `docker save` writes, made with the standard library; the image id."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo("greeting")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-01T10:00:00Z",
        "author": "someone",
        "config": {"Cmd": ["/hello"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
        "history": [{"created": "2024-05-01T10:00:00Z", "comment": "by hand"}],
    }
    data = json.dumps(config).encode()
    name = hashlib.sha256(data).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": names, "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        parts = {f"{name}.json": data, "layer.tar": layer.getvalue(), "manifest.json": json.dumps(manifest).encode()}
        for part, body in parts.items():
            member = tarfile.TarInfo(part)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return name


class Shell:
    """Runs command lines in this process, in a folder and a store of their own."""

    def __init__(self, capfd):
        self._capfd = capfd

    def __call__(self, line, status=0):
        assert entry.main(line.split(" ")) == status, self._capfd.readouterr().err
        self.err = ""
        out, self.err = self._capfd.readouterr()
        return out

    def fails(self, line, status=1):
        self(line, status)
        return self.err


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_ROOT", str(tmp_path / "root"))
    return Shell(capfd)


@pytest.fixture
def loaded(shell, tmp_path):
    """The shell, and the id of `app:1` and `app:2`."""
    shell.id = docker_archive(tmp_path / "app.tar", ["app:1", "app:2"])
    assert shell("load -i app.tar") == "Loaded image: app:1\nLoaded image: app:2\n"
    return shell


def test_empty_store(shell):
    assert shell("images") == "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n"
    assert shell("images -q") == ""
    assert json.loads(shell("images --json")) == {"images": []}


def test_images(loaded):
    header, first, second = loaded("images").splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert first.split()[:3] == ["app", "1", loaded.id[:12]]
    assert second.split()[:3] == ["app", "2", loaded.id[:12]]
    assert loaded("image ls -q") == loaded.id[:12] + "\n"
    assert loaded("images -q --no-trunc") == f"sha256:{loaded.id}\n"
    assert loaded("images app:2 --format {{.Repository}}={{.Tag}}") == "app=2\n"
    assert loaded("images nothing -q") == ""
    assert loaded("images --filter reference=*:1 --format {{.Tag}}") == "1\n"
    assert loaded("images --filter dangling=true -q") == ""
    line = json.loads(loaded("images --format json").splitlines()[0])
    assert (line["ID"], line["Tag"], line["CreatedAt"]) == (loaded.id[:12], "1", "2024-05-01T10:00:00Z")
    assert json.loads(loaded("images --json"))["images"][0]["created"] == "2024-05-01T10:00:00Z"
    assert "filter `before` is not known" in loaded.fails("images --filter before=x", 2)


@pytest.mark.parametrize("name", ["app:1", "docker.io/library/app:2"])
def test_inspect(name, loaded):
    (found,) = json.loads(loaded(f"inspect {name}"))
    assert found["Id"] == f"sha256:{loaded.id}"
    assert found["RepoTags"] == ["app:1", "app:2"]
    assert found["RepoDigests"] == ["app@" + found["Descriptor"]["digest"]]
    assert found["Config"] == {"Cmd": ["/hello"], "Env": ["A=1"]}
    assert (found["Os"], found["Architecture"], found["Author"], found["Comment"]) == (
        "linux",
        "amd64",
        "someone",
        "by hand",
    )
    assert found["RootFS"]["Type"] == "layers"
    assert found["UncompressedSize"] == 10240
    assert loaded(f"image inspect -f {{{{.Os}}}}/{{{{.Architecture}}}} {name} {name}") == "linux/amd64\n" * 2
    assert json.loads(loaded(f"inspect {loaded.id[:8]} --format json"))[0]["Id"] == found["Id"]


def test_names_that_are_not_there(loaded):
    assert loaded.fails("inspect ap:1") == (
        "error: there is no image `ap:1` in the local store\nhint: did you mean `app:1`?\n"
    )
    assert "hint: `aerogel images` lists" in loaded.fails("tag something new")
    assert "hint: `aerogel images` lists" in loaded.fails("rmi something")


def test_tag_and_rmi(loaded):
    loaded("tag app:1 registry.example/team/app:3")
    assert "registry.example/team/app" in loaded("images")
    assert loaded("rmi app:1") == "Untagged: app:1\n"
    error = loaded.fails(f"rmi {loaded.id[:12]}")
    assert "has 2 names: `app:2`, `registry.example/team/app:3`" in error
    assert loaded("rmi app:2") == "Untagged: app:2\n"
    assert loaded("rmi registry.example/team/app:3") == (
        f"Untagged: registry.example/team/app:3\nDeleted: sha256:{loaded.id}\n"
    )
    assert loaded("images -q") == ""


def test_rmi_goes_on_after_a_fault(loaded):
    assert "there is no image `x`" in loaded.fails("rmi x app:1")
    assert loaded("images --format {{.Tag}}") == "2\n"
    assert loaded(f"rmi -f {loaded.id}").count("Untagged") == 1


def test_save_and_load_again(loaded, tmp_path):
    for form in ("docker-archive", "oci-archive"):
        assert loaded(f"save --format {form} -o out.tar app:1 app:2") == ""
        with tarfile.open(tmp_path / "out.tar") as tar:
            names = tar.getnames()
        assert {"oci-layout", "index.json", f"blobs/sha256/{loaded.id}"} <= set(names)
        assert ("manifest.json" in names) is (form == "docker-archive")
        loaded(f"rmi -f {loaded.id}")
        assert sorted(loaded("load -i out.tar").splitlines()) == ["Loaded image: app:1", "Loaded image: app:2"]
        assert f"sha256:{loaded.id}" in loaded("images -q --no-trunc")
    assert [one for one in os.listdir(tmp_path) if one.startswith(".out")] == []


def test_tag_and_save_as_json(loaded, tmp_path):
    named = json.loads(loaded("tag app:1 app:3 --json"))
    assert (named["reference"], named["image_id"]) == ("docker.io/library/app:3", f"sha256:{loaded.id}")
    told = json.loads(loaded("save --format oci-archive -o out.tar app:3 --json"))
    assert (told["output"], told["size"]) == ("out.tar", os.stat(tmp_path / "out.tar").st_size)
    (image,) = told["images"]
    assert (image["digest"], image["referrers"]) == (named["digest"], 0)
    assert named["reference"] in image["references"]
    assert "cannot have both the archive and `--json`" in loaded.fails("save app:3 --json", 2)


def test_save_to_standard_output(loaded):
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run(
        [sys.executable, "-m", "aerogel", "save", "app:1"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert "manifest.json" in tar.getnames()


def test_save_where_nothing_can_be_written(loaded, tmp_path):
    assert loaded.fails("save -o missing/out.tar app:1", 3).startswith("error: ")
    assert sorted(os.listdir(tmp_path)) == ["app.tar", "root"]


def test_load_of_something_else(shell, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"not a tar" * 100)
    assert shell.fails("load -i x.tar").startswith("error: ")
    assert shell.fails("load -i missing.tar", 3).startswith("error: ")


def test_completion_scripts(shell):
    for name in ("bash", "zsh", "fish", "tcsh"):
        script = shell(f"completion {name}")
        assert "images" in script
        assert "no-cache" in script
    assert "`aerogel completion` needs SHELL" in shell.fails("completion", 2)
    assert "SHELL must be one of `bash`" in shell.fails("completion ksh", 2)


@pytest.mark.host
def test_doctor_tells_places(shell, tmp_path):
    findings = json.loads(shell("doctor --offline --json"))["findings"]
    by_name = {one["what"]: one for one in findings}
    assert by_name["data"]["found"].startswith(str(tmp_path / "root/data"))
    assert {"python", "kernel", "cache", "certificates", "mirror"} <= set(by_name)


def test_flags_of_docker_that_prune_and_build_do_not_have_say_what_to_use(shell):
    assert shell("prune -f") == shell("system prune --force")
    assert "`--older-than 24h`" in shell.fails("image prune --filter until=24h", 2)
    assert "MemorySwapMax=0" in shell.fails("build --memory-swap 2g .", 2)
    assert "there is no Dockerfile at" in shell.fails("build --rm --force-rm=false .", 2)
    assert "hint: for example `aerogel build -t app .`; `aerogel build --help`" in shell.fails("build", 2)
