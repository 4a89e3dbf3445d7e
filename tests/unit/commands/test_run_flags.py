"""Values of the flags of `aerogel run`: what is understood, and what is refused with a hint."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from aerogel.cli.parse import parse, specification
from aerogel.commands.run_flags import (
    ABSENT,
    check_hostname,
    check_name,
    parse_mount,
    parse_tmpfs,
    read_env_files,
    resolver_mount,
)
from aerogel.commands.table import find_command
from aerogel.errors import AerogelError
from aerogel.runtime.container import signal_number
from aerogel.settings import load_settings


def refused(code: str, call, *words) -> str:  # type: ignore[no-untyped-def] # any function
    with pytest.raises(AerogelError) as caught:
        call(*words)
    assert caught.value.code == code
    assert caught.value.hints
    return " | ".join([caught.value.message, *caught.value.hints])


def test_mounts(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bound = parse_mount("type=bind,source=in,destination=/x,ro=1", tmp_path)
    assert (bound.kind, bound.source, bound.target, bound.readonly) == ("bind", f"{tmp_path}/in", "/x", True)
    assert not parse_mount("type=bind,src=in,target=/x,readonly=false", tmp_path).readonly
    memory = parse_mount("type=tmpfs,dst=/x,tmpfs-size=1k,tmpfs-mode=0700", tmp_path)
    assert (memory.kind, memory.size_bytes, memory.mode, memory.noexec) == ("tmpfs", 1024, 0o700, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type=npipe,src=a,dst=/a", "there is no type `npipe` | types are `bind`, `volume` and `tmpfs`"),
        ("type=bind,src=in", "it names no `dst`"),
        ("type=bind,src=in,dst=x", "`x` is not an absolute path"),
        ("type=bind,src=gone,dst=/x", "gone` does not exist"),
        ("type=bind,dst=/x", "it names no `src`"),
        ("type=bind,src=in,dst=/x,tmpfs-size=1", "a mount of type `bind` has no `size`"),
        ("type=tmpfs,dst=/x,readonly", "a mount of type `tmpfs` has no `readonly`"),
        ("type=bind,src=in,dst=/x,readonyl", "it does not know `readonyl` | did you mean `readonly`?"),
        ("type=bind,src=in,dst=/x,readonly=maybe", "`readonly` is `true` or `false`, not `maybe`"),
        ("type=tmpfs,dst=/x,tmpfs-mode=rwx", "`rwx` is not a mode"),
    ],
)
def test_mounts_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert said in refused("run.mount", parse_mount, text, tmp_path)


def test_memory() -> None:
    found = parse_tmpfs("/x:rw,size=64m,mode=700,uid=3,gid=4,nosuid,exec")
    assert (found.target, found.size_bytes, found.mode, found.uid, found.gid) == ("/x", 64 << 20, 0o700, 3, 4)
    assert (found.readonly, found.noexec) == (False, False)
    assert parse_tmpfs("/x").noexec
    assert parse_tmpfs("/x:ro").readonly
    assert "did you mean `size`?" in refused("run.tmpfs", parse_tmpfs, "/x:sise=1")
    assert "`x` is not an absolute path" in refused("run.tmpfs", parse_tmpfs, "x")


def test_resolver() -> None:
    host = b"# by hand\nnameserver 192.0.2.1\ndomain old\noptions edns0\n"
    assert resolver_mount((), (), (), host) == ()
    (changed,) = resolver_mount(("192.0.2.2", "2001:db8::1"), (), (), host)
    assert changed.data == b"domain old\noptions edns0\nnameserver 192.0.2.2\nnameserver 2001:db8::1\n"
    (searching,) = resolver_mount((), ("a.example", "b.example"), ("ndots:3",), host)
    assert searching.data == b"nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:3\n"
    (none,) = resolver_mount((), (".",), (), host)
    assert none.data == b"nameserver 192.0.2.1\noptions edns0\n"
    assert "`--dns localhost` is not an address" in refused("run.dns", resolver_mount, ("localhost",), (), (), b"")


def test_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"\xef\xbb\xbf# c\r\n  A=1 \r\nB\n\nC=x=#y\n")
    assert read_env_files(["env"], tmp_path) == ["A=1 ", "B", "C=x=#y"]
    (tmp_path / "bad").write_text("A=1\nexport B=2\n")
    assert "`bad`, line 2: `export B`" in refused("run.env-file", read_env_files, ["bad"], tmp_path)


def test_signals() -> None:
    assert signal_number("SIGQUIT") == signal_number("quit") == signal_number("3") == signal.SIGQUIT
    assert signal_number("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert "did you mean `SIGTERM`?" in refused("run.stop-signal", signal_number, "SIGTEMR")
    assert "a name such as" in refused("run.stop-signal", signal_number, "99")


def test_flags_of_docker_that_are_not_there_say_what_to_use() -> None:
    found = find_command(["run"])
    assert found is not None
    spec = specification(found[0])
    settings = load_settings({"HOME": "/"}, "/")
    own = {name for option in spec.options for name in option.names()}
    for names, instead in ABSENT.items():
        assert not own & set(names), "a flag that is there"
        assert "\n" not in instead
        for name in names:
            for words in (
                [name, "value", "image"],
                [f"{name}=value" if name.startswith("--") else f"{name}x", "image"],
            ):
                said = refused("cli.unknown-flag", parse, spec, words, settings)
                assert said == f"`aerogel run` has no flag `{name}` | {instead}"


@pytest.mark.parametrize("name", ["web", "w2", "0a", "a.b-c_d"])
def test_names_of_containers(name: str) -> None:
    check_name(name)
    check_name("")


@pytest.mark.parametrize("name", ["w", "-web", "a b", "a/b", "été", "web\n"])
def test_names_that_docker_refuses(name: str) -> None:
    said = refused("run.name", check_name, name)
    assert said.startswith(f"`{name}` is not a name for a container | two or more letters")


@pytest.mark.parametrize("name", ["h", "db-1.example", "a_b", "x" * 64])
def test_names_of_hosts(name: str) -> None:
    check_hostname(name)


@pytest.mark.parametrize("name", ["bad host", "", "-x", "x-", "a..b", ".a", "a\n127.0.0.1 evil", "x" * 65, "ü"])
def test_names_that_are_none_of_hosts(name: str) -> None:
    said = refused("run.hostname", check_hostname, name)
    assert said.startswith(f"`--hostname {name}`: this is not a name for a host | at most 64 ")
