"""The rules of the micro profile, one case per sentence of the rule."""

from __future__ import annotations

import pytest

from aerogel.distroless.rules import MICRO, Filter, profile, unused_licences
from aerogel.errors import AerogelError

DROPPED = [
    ("libc6", "usr/share/doc/libc6/changelog.Debian.gz", "docs"),
    ("libc6", "usr/share/doc/libc6/NEWS.gz", "docs"),
    ("x", "usr/share/man/man1/getconf.1.gz", "manuals"),
    ("x", "usr/share/man", "manuals"),
    ("x", "usr/share/lintian/overrides/x", "manuals"),
    ("x", "usr/share/locale/de/LC_MESSAGES/x.mo", "translations"),
    ("tzdata-legacy", "usr/share/zoneinfo/right/Europe/Berlin", "zones"),
    ("tzdata", "usr/share/zoneinfo/posix", "zones"),
    ("libc6", "usr/lib/x86_64-linux-gnu/gconv/EUC-JP.so", "gconv"),
    ("libc6", "usr/lib/x86_64-linux-gnu/gconv/ISO8859-10.so", "gconv"),
    ("libssl3t64", "usr/lib/aarch64-linux-gnu/engines-3/afalg.so", "engines"),
    ("libc-bin", "usr/bin/ldd", "libc-tools"),
    ("base-files", "etc/skel", "host-setup"),
    ("base-files", "etc/issue.net", "host-setup"),
    ("base-files", "etc/issue", "host-setup"),
    ("base-files", "etc/profile.d/x.sh", "host-setup"),
    ("base-files", "etc/update-motd.d/10-uname", "host-setup"),
    ("base-files", "etc/dpkg/origins/debian", "host-setup"),
    ("x", "etc/init.d/x", "host-setup"),
    *(("x", f"usr/share/{name}/x", "manuals") for name in ("info", "bug", "doc-base", "menu", "applications")),
    *(("x", f"usr/share/{name}/x", "manuals") for name in ("bash-completion", "dict", "misc", "gdb", "gcc", "i18n")),
    *(
        ("libpython3.13-stdlib", f"usr/lib/python3.13/{name}/__init__.py", "python-extras")
        for name in ("idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data")
    ),
    ("x", "etc/cron.daily/x", "host-setup"),
    ("libpython3.13-stdlib", "usr/lib/python3.13/test/support/__init__.py", "python-extras"),
    ("libpython3.11-stdlib", "usr/lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile", "python-extras"),
    ("libpython3.11-stdlib", "usr/lib/python3.11/lib-dynload/nis.cpython-311-x86_64-linux-gnu.so", "python-nis"),
    ("ca-certificates", "usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt", "certificates"),
]
KEPT = [
    ("libc6", "usr/share/doc/libc6"),
    ("libc6", "usr/share/doc/libc6/copyright"),
    ("libstdc++6", "usr/share/doc/libstdc++6"),
    ("x", "usr/share/manx"),
    ("libc6", "usr/lib/x86_64-linux-gnu/gconv/gconv-modules"),
    ("libc6", "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so"),
    ("libc6", "usr/lib/x86_64-linux-gnu/gconv/ISO8859-1.so"),
    ("libc6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
    ("libc-bin", "usr/sbin/ldconfig"),
    ("libc-bin", "usr/lib/locale/C.utf8/LC_CTYPE"),
    ("libc-bin", "etc/ld.so.conf"),
    ("busybox-static", "usr/bin/busybox"),
    ("base-files", "etc/debian_version"),
    ("tzdata", "usr/share/zoneinfo/Europe/Berlin"),
    ("libpython3.13-stdlib", "usr/lib/python3.13/unittest/case.py"),
    ("other", "usr/lib/python3.13/test/x.py"),
]


@pytest.mark.parametrize(("package", "path", "rule"), DROPPED)
def test_dropped(package, path, rule):
    assert Filter(MICRO, package).dropped_by(path.encode()) == rule


@pytest.mark.parametrize(("package", "path"), KEPT)
def test_kept(package, path):
    assert Filter(MICRO, package).dropped_by(path.encode()) is None


def test_every_rule_says_why_and_is_tried_here():
    assert all(rule.why for rule in MICRO)
    assert {rule.name for rule in MICRO} == {rule for _, _, rule in DROPPED}


def test_parity_keeps_documentation():
    assert Filter(profile("parity"), "libc6").dropped_by(b"usr/share/doc/libc6/NEWS.gz") is None


def test_unknown_profile():
    with pytest.raises(AerogelError) as caught:
        profile("mirco")
    assert caught.value.code == "distroless.unknown-profile"
    assert caught.value.hints == ("did you mean `micro`?",)


def test_licences_that_are_named_stay_with_what_they_link_to():
    names = {"GPL": "GPL-3", "GPL-3": "", "GPL-2": "", "LGPL-2.1": "", "Apache-2.0": "", "BSD": ""}
    texts = [
        b"see /usr/share/common-licenses/GPL.\n",
        b"`/usr/share/common-licenses/LGPL-2.1'",
        b"/usr/share/common-licenses/Apache-2.0.",
    ]
    assert unused_licences(names, texts) == {"GPL-2", "BSD"}
    assert unused_licences(names, []) == set(names)
