"""Accounts, id ranges, hosts files, capabilities, messages: what needs no kernel."""

import os
import pwd
import socket

import pytest

from aerogel.errors import AerogelError
from aerogel.sandbox import accounts, capabilities, ids, network, wire
from aerogel.sandbox.spec import DEFAULT_CAPABILITIES, Mount, Rootfs, Sandbox

PASSWD = b"root:x:0:0:root:/root:/bin/sh\n# remark\napp:x:1000:100::/home/app\nbroken:x:no:1\n7:x:8:9::/seven:\nshort:x:5\n\xff\xfe:x:11:12::/odd:/bin/sh\n"
GROUP = b"root:x:0:\nusers:x:100:\nvideo:x:44:app,root\nbad:x:zz:app\nhuge:x:99999999999:app\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", (0, 0, (44,), "/root")),
        ("app", (1000, 100, (44,), "/home/app")),
        ("app:0", (1000, 0, (), "/home/app")),
        ("app:", (1000, 100, (44,), "/home/app")),
        ("1000", (1000, 100, (44,), "/home/app")),
        ("7", (8, 9, (), "/seven")),  # a name that looks like a number comes first
        ("4294967294", (4294967294, 0, (), "/")),
        ("\udcff\udcfe", (11, 12, (), "/odd")),
    ],
)
def test_accounts(spec, expected):
    assert accounts.find_account(spec, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("nobody", "sandbox.no-user"),
        ("4294967295", "sandbox.no-user"),
        ("-1", "sandbox.no-user"),
        ("broken", "sandbox.no-user"),
        ("short", "sandbox.no-user"),
        ("app:wheel", "sandbox.no-group"),
        ("²", "sandbox.no-user"),
    ],
)
def test_accounts_that_are_not_there(spec, code):
    with pytest.raises(AerogelError) as caught:
        accounts.find_account(spec, PASSWD, GROUP)
    assert caught.value.code == code


def test_accounts_of_an_image_without_files():
    assert accounts.find_account("", b"", b"") == (0, 0, (), "/")
    with pytest.raises(AerogelError) as caught:
        accounts.find_account("app", b"", b"")
    assert caught.value.hints[0] == "its /etc/passwd names no users"


@pytest.fixture
def etc(tmp_path, monkeypatch):
    monkeypatch.setattr(ids.shutil, "which", lambda tool, **_: f"/usr/bin/{tool}")

    def write(subuid, subgid=None, answers=None):
        (tmp_path / "subuid").write_text(subuid)
        (tmp_path / "subgid").write_text(subuid if subgid is None else subgid)
        return ids.subordinate_ids(lambda argv: (answers or {}).get(len(argv), ""), str(tmp_path))

    return write


def test_ranges(etc):
    me, uid = pwd.getpwuid(os.getuid()).pw_name, os.getuid()
    found = etc(f"other:1:65536\n{me}:100000:65536\nnonsense\n{me}:x:y\n{uid}:300000:1000\n{me}:5:0\n")
    assert found["uids"] == found["gids"] == [[100000, 65536], [300000, 1000]]
    assert ids.map_id(found) == f"u{uid}.100000-65536.300000-1000"
    found = etc(f"{me}:100000:65536\n", f"{me}:200000:65536\n")
    assert ids.map_id(found) == f"u{uid}.100000-65536.g{os.getgid()}.200000-65536"


def test_ranges_that_do_not_do(etc):
    me = pwd.getpwuid(os.getuid()).pw_name
    assert etc("other:1:65536\n")["problem"] == "no-range"
    found = etc(f"{me}:100000:1000\n")
    assert (found["problem"], found["message"].split(" gives ")[1]) == (
        "small-range",
        f"user `{me}` 1000 ids, images need 65536",
    )


def test_the_range_that_is_advised_is_free(etc, tmp_path):
    me = pwd.getpwuid(os.getuid()).pw_name
    assert "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535" in etc("")["fixes"][0]
    found = etc("a:100000:65536\nb:165536:65536\n", "a:100000:65536\nb:231072:10\nbroken:x:y\nshort:5\n")
    assert found["fixes"] == [
        f"as root: `usermod --add-subuids 231082-296617 --add-subgids 231082-296617 {me}`, which no other user has"
    ]
    (tmp_path / "passwd").write_text("one:x:231090:1:::\nroot:x:0:0:::\n")
    assert "231091-296626" in etc("a:100000:131072\nc:600000:65536\n")["fixes"][0]
    assert ids.free_range(str(tmp_path / "nowhere")) == 100000


def test_a_user_id_without_an_account(etc, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    found = etc("4000000:100000:65536\n")
    assert found["problem"] == "no-account"
    assert found["fixes"][0] == "as root: `useradd --uid 4000000 NAME` makes an account with a range"


def test_ranges_of_a_directory_service(etc):
    answers = {2: "0: me 100000 65536\n", 3: "0: me 200000 65536\n"}
    found = etc("", "", answers)
    assert (found["uids"], found["gids"]) == ([[100000, 65536]], [[200000, 65536]])


def test_no_newuidmap(etc, monkeypatch):
    monkeypatch.setattr(ids.shutil, "which", lambda _tool, **_: None)
    found = etc("")
    assert found["problem"] == "no-newuidmap"
    assert found["message"] == "`newuidmap` and `newgidmap` cannot be found"


def test_hosts_of_the_host():
    host = b"127.0.0.1 localhost\n127.0.1.1 myhost\n::1 localhost\n192.0.2.9 mirror.lan mirror # ours\nff02::1 ip6-allnodes\nbroken\n"
    sandbox = Sandbox(argv=("true",), root=Rootfs(), hostname="box")
    assert network.hosts_file(sandbox, host) == (
        b"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.9\tmirror.lan mirror\n"
    )


def test_the_sandbox_own_files_win():
    own = Mount(kind="file", target="/etc/hosts", data=b"mine")
    sandbox = Sandbox(argv=("true",), root=Rootfs(), mounts=(own,))
    assert [mount.target for mount in network.network_mounts(sandbox)] == ["/etc/hostname", "/etc/resolv.conf"]
    assert network.resolver_file(b"") == b"nameserver 127.0.0.1\n"


def test_capability_names():
    assert capabilities.mask_of(DEFAULT_CAPABILITIES) == 0xA80425FB
    assert capabilities.mask_of(["cap_chown", "SYS_ADMIN"]) == 1 | 1 << 21
    assert capabilities.mask_of(["all"]) == (1 << 41) - 1
    with pytest.raises(AerogelError) as caught:
        capabilities.mask_of(["SYS_ADMINN"])
    assert caught.value.code == "sandbox.unknown-capability"


def test_messages():
    left, right = socket.socketpair()
    with left, right, open(os.devnull) as null:
        wire.send(left, {"odd": "\udcff", "n": 1}, [null.fileno(), null.fileno()])
        wire.send(left, {"next": []})
        message, fds = wire.receive(right)
        assert message == {"odd": "\udcff", "n": 1}
        assert len(fds) == 2
        assert not any(os.get_inheritable(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
        assert wire.receive(right) == ({"next": []}, [])
        left.close()
        assert wire.receive(right) is None
    error = AerogelError("m", code="a.b", hints=["h"], detail="d", exit_status=3, temporary=True)
    again = wire.error_from(wire.error_to(error))
    assert (again.message, again.code, again.hints, again.detail) == ("m", "a.b", ("h",), "d")
    assert (again.exit_status, again.temporary) == (3, True)
