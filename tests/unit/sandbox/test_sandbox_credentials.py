"""Ids as the kernel changes them: credentials(7), setuid(2), setresuid(2), execve(2)."""

import pytest

from aerogel.sandbox.credentials import KEEP, Credentials
from aerogel.sandbox.record import ROOT, Record, parse, parse_special


def ids(who):
    return (who.ruid, who.euid, who.suid, who.fsuid, who.permitted)


def test_root_that_becomes_a_user_cannot_come_back():
    who = Credentials()
    who.set_group(5)
    who.set_user(1000)
    assert ids(who) == (1000, 1000, 1000, 1000, False)
    with pytest.raises(PermissionError):
        who.set_user(0)
    with pytest.raises(PermissionError):
        who.set_group(0)
    with pytest.raises(PermissionError):
        who.set_users(KEEP, 0, KEEP)


def test_a_root_that_saves_itself_comes_back():
    who = Credentials()
    who.set_users(KEEP, 33, KEEP)
    assert ids(who) == (0, 33, 0, 33, True)
    assert not who.effective
    who.set_user(0)
    assert ids(who) == (0, 0, 0, 0, True)
    assert who.effective


def test_capabilities_that_are_kept():
    who = Credentials(keep=True)
    who.set_user(1000)
    assert who.effective
    who.set_groups(7, 7, 7)
    assert (who.rgid, who.egid, who.sgid, who.fsgid) == (7, 7, 7, 7)
    who.executed(0o755, 0, 0)
    assert not who.effective


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o755, (1000, 1000, 1000, False)), (0o4755, (1000, 0, 0, True)), (0o2755, (1000, 1000, 1000, False))],
)
def test_set_id_programs(mode, expected):
    who = Credentials()
    who.set_group(50)
    who.set_user(1000)
    who.executed(mode, 0, 8)
    assert (who.ruid, who.euid, who.suid, who.permitted) == expected
    assert who.egid == (8 if mode & 0o2000 else 50)


def test_setreuid_saves_as_the_kernel_does():
    who = Credentials()
    who.set_reusers(1, 2)
    assert ids(who)[:3] == (1, 2, 2)
    who = Credentials()
    who.set_reusers(KEEP, 0)
    assert ids(who)[:3] == (0, 0, 0)
    who = Credentials()
    who.set_regroups(3, KEEP)
    assert (who.rgid, who.egid, who.sgid) == (3, 0, 0)


@pytest.mark.parametrize(
    ("mode", "owner", "group", "wanted", "granted"),
    [
        (0o644, 1000, 0, 2, True),
        (0o644, 0, 0, 2, False),
        (0o664, 0, 8, 2, True),
        (0o664, 0, 9, 2, False),
        (0o077, 1000, 8, 2, False),
        (0o777, 0, 0, 3, True),
    ],
)
def test_what_a_user_may(mode, owner, group, wanted, granted):
    who = Credentials(ruid=1000, euid=1000, suid=1000, fsuid=1000, fsgid=50, groups=(8,), permitted=False)
    assert who.may(wanted, mode, owner, group) is granted
    assert Credentials().may(wanted, mode, owner, group)


def test_records():
    assert parse(b"5 6") == Record(5, 6)
    assert parse(b"0 6 b 8 1") == Record(0, 6, 0o060000, (8, 1))
    for foreign in (b"", b"x y", b"1 2 q 3 4", b"1 2 3", b"\xff 1"):
        assert parse(foreign) is None
    assert parse_special(b"\0\0\0\2" + b"\5\0\0\0" + b"\6\0\0\0" + bytes(8)) == Record(5, 6)
    assert parse_special(b"\0\0\0\3" + bytes(16)) is None
    assert parse_special(bytes(24)) is None
    assert Record() == ROOT
