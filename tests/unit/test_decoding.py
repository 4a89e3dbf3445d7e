"""What others wrote is nested as deeply as they like, cut, or no text: a fault with words, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from aerogel.decoding import parse_json
from aerogel.distroless.lock import parse_lock
from aerogel.distroless.reading import parse_declaration
from aerogel.errors import AerogelError, Source
from aerogel.net.engine import _words
from aerogel.oci.types import ImageConfig, Index, Manifest, decode, encode
from aerogel.registry.credentials import _read as read_credentials
from aerogel.registry.host_files import HostFiles
from aerogel.runtime.containers import Containers
from aerogel.runtime.logs import read_log
from aerogel.runtime.volumes import Volumes
from aerogel.settings import _config_file
from aerogel.solve.remotes import Remotes

DEPTHS = (150, 190, 250, 480, 900, 2000, 100_000)


def test_json_of_few_levels() -> None:
    assert parse_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert parse_json("[" * 200 + "]" * 200) is not None
    assert parse_json("[" + "[]," * 5000 + "[]]") == [[]] * 5001  # wide is not deep
    assert parse_json(json.dumps("[" * 5000)) == "[" * 5000
    for depth in (202, 900, 100_000):
        for begin, end in (("[", "]"), ('{"a":', "}")):
            with pytest.raises(ValueError, match="it is nested too deeply"):
                parse_json(begin * depth + "1" + end * depth)
    for damaged in (b"", b"{", b"\xff", b"1" * 5000):
        with pytest.raises(ValueError, match=r"."):
            parse_json(damaged)


def containers(folder: Path, data: bytes) -> object:
    one = folder / "data" / "containers-v1" / ("ab" * 32)
    one.mkdir(parents=True)
    (one / "container.json").write_bytes(data)
    (one / "state.json").write_bytes(data)
    return Containers(str(folder / "data")).read(str(one))


def volumes(folder: Path, data: bytes) -> object:
    kept = Volumes(str(folder / "data"))
    one = Path(kept.root) / "mine"
    one.mkdir(parents=True)
    (one / "volume.json").write_bytes(data)
    return kept.read("mine")


def hosts_file(folder: Path, data: bytes) -> object:
    (folder / "r.example").mkdir()
    (folder / "r.example/hosts.toml").write_bytes(data)
    return HostFiles(hosts=(folder,)).load()._rule("r.example", "r.example/x")


def registries_conf(folder: Path, data: bytes) -> object:
    (folder / "registries.conf").write_bytes(b"[[registry]]\n" + data)
    return HostFiles(conf=folder / "registries.conf").load()._rule("r.example", "r.example/x")


def remote_facts(folder: Path, data: bytes) -> object:
    (folder / "facts").write_bytes(data)
    return Remotes._facts(folder / "facts")


def credentials(folder: Path, data: bytes) -> object:
    (folder / "config.json").write_bytes(data)
    return read_credentials(folder / "config.json")


def log(folder: Path, data: bytes) -> object:
    (folder / "log").write_bytes(data + b"\n")
    return list(read_log(str(folder / "log")))


JSON: dict[str, Callable[[Path, bytes], object]] = {
    "container": containers,
    "volume": volumes,
    "log": log,
    "facts": remote_facts,
    "credentials": credentials,
    "engine": lambda _, data: _words(data, "message"),
    "config": lambda _, data: encode(decode(data, ImageConfig)),
    "manifest": lambda _, data: encode(decode(data, Manifest)),
    "index": lambda _, data: encode(decode(data, Index)),
    "lock": lambda _, data: parse_lock(Source("base.lock.json", data)),
}
TOML: dict[str, Callable[[Path, bytes], object]] = {
    "settings": lambda _, data: _config_file("aerogel.toml", data, is_users=True),
    "hosts.toml": hosts_file,
    "registries.conf": registries_conf,
}
YAML: dict[str, Callable[[Path, bytes], object]] = {
    "declaration": lambda _, data: parse_declaration(Source("base.yaml", data)),
}


def hold(read: Callable[[Path, bytes], object], folder: Path, texts: list[bytes]) -> None:
    told: list[AerogelError] = []
    for number, data in enumerate(texts):
        (folder / str(number)).mkdir()
        try:
            read(folder / str(number), data)
        except AerogelError as error:
            told.append(error)
    assert all(each.message and each.code for each in told)


@pytest.mark.parametrize("name", JSON)
def test_json_from_outside(name: str, tmp_path: Path) -> None:
    texts = [b"", b"null", b"[]", b"{", b'"\xff"', b'{"\xff": 1}', b"\x00", b"1" * 5000]
    for depth in DEPTHS:
        texts += [b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth]
        for key in (b"config", b"labels", b"name", b"platforms", b"unknown", b"rootfs"):
            texts.append(b'{"schema": "1", "%s": %s1%s}' % (key, b"[" * depth, b"]" * depth))
    hold(JSON[name], tmp_path, texts)


@pytest.mark.parametrize("name", TOML)
def test_toml_from_outside(name: str, tmp_path: Path) -> None:
    texts = [b"\xff", b"a = ", b"a = 1\x00", b"host = 1", b'[host."http://[::1"]\n', b'server = "http://[x"\n']
    for depth in (150, 250, 480, 1000):
        texts += [b"a = " + b"[" * depth + b"]" * depth, b"a = " + b"{a=" * depth + b"1" + b"}" * depth]
        texts += [b"[" + b".".join([b"a"] * depth) + b"]\n", b"header = " + b"[" * depth + b"]" * depth]
    hold(TOML[name], tmp_path, texts)


@pytest.mark.parametrize("name", YAML)
def test_yaml_from_outside(name: str, tmp_path: Path) -> None:
    begin = b"apiVersion: aerogel/v1\nkind: Base\nname: n\n"
    texts = [b"\xff", b"- a", b"a: *b", b"a: &a [*a]"]
    for depth in (150, 480):
        texts += [b"[" * depth + b"]" * depth, b"{a: " * depth + b"}" * depth]
        texts += [begin + b"image: " + b"{a: " * depth + b"}" * depth, begin + b"x: " + b"[" * depth + b"]" * depth]
        texts += [begin + b"variants: {a: {image: " + b"{a: " * depth + b"null" + b"}" * depth + b"}}"]
    hold(YAML[name], tmp_path, texts)


def test_damaged_containers_and_volumes_are_told(tmp_path: Path) -> None:
    for what, read in (("container", containers), ("volume", volumes)):
        (tmp_path / what).mkdir()
        with pytest.raises(AerogelError) as caught:
            read(tmp_path / what, b"")
        assert caught.value.code == f"{what}.damaged"
        assert str(tmp_path / what) in caught.value.hints[0]


def test_a_line_of_a_log_that_was_cut_is_shown(tmp_path: Path) -> None:
    whole = b'{"log":"one\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}'
    (tmp_path / "log").write_bytes(whole + b"\n" + whole[:20] + b"\n" + whole + b"\n")
    assert [each.text for each in read_log(str(tmp_path / "log"))] == [b"one\n", whole[:20] + b"\n", b"one\n"]


def test_what_runs_in_a_container_is_looked_at() -> None:
    from aerogel.runtime.serving import Server

    holder = SimpleNamespace()
    for message in ({}, {"sandbox": 1}, {"sandbox": {"argv": 7}}):
        with pytest.raises(AerogelError) as caught:
            Server._exec(holder, None, message, [])  # type: ignore[arg-type]  # it gets no further
        assert caught.value.code == "container.request"
