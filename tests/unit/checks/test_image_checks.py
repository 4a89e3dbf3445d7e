"""What the loader reads of real programs, and the rules on images whose files are told."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from aerogel.checks.dynamic import Dynamic, linked_go_functions, read_dynamic
from aerogel.checks.image import Found, Subject, check_image, is_candidate
from aerogel.checks.sonames import package_of
from aerogel.files.entry import DIR, REG, SYM, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree
from aerogel.lint.image import IMAGE_RULES
from aerogel.oci.types import ContainerConfig

LOADER = "/lib64/ld-linux-x86-64.so.2"


def reader(data: bytes):
    return lambda at, size: data[at : at + size]


@pytest.mark.parametrize(
    "path", ["/bin/ls", "/usr/bin/python3", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libz.so.1"]
)
def test_as_readelf_reads_it(path: str):
    if not Path(path).exists():
        pytest.skip(f"`{path}` is not on this host")
    found = read_dynamic(reader(Path(path).read_bytes()))
    assert found is not None
    shown = subprocess.run(["readelf", "-dlVW", path], capture_output=True, text=True, check=True).stdout
    needed = [line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line]
    assert list(found.needed) == needed
    if found.interpreter:
        assert f"interpreter: {found.interpreter}]" in shown
    for library, version in found.wants:
        assert library in needed
        assert f"Name: {version} " in shown
    wanted = shown.partition("Version needs section")[2].count("Name: ")
    assert len(found.wants) == wanted
    for version in found.gives:
        assert version in shown
    if path.endswith("libc.so.6"):
        assert found.soname == "libc.so.6"
        assert "GLIBC_2.2.5" in found.gives
    assert Dynamic.loads(found.dumps()) == found


def test_spoilt_files_are_no_fault():
    data = bytearray(Path("/bin/ls").read_bytes())
    for size in (0, 10, 63, 64, 100, 200, 5000):
        read_dynamic(reader(bytes(data[:size])))
    for at in range(0, 4096, 3):
        spoilt = bytearray(data)
        spoilt[at] ^= 0xFF
        spoilt[at + 1] = 0xFF
        read_dynamic(reader(bytes(spoilt)))
    assert read_dynamic(reader(b"#!/bin/sh\n" + bytes(100))) is None


def test_tables_that_lead_back_to_themselves_end():
    """Entries of the version table whose next entry is themselves, as many as the counts allow."""
    entry = struct.pack("<HHIII", 1, 0xFFFF, 0, 16, 16) + struct.pack("<IHHII", 0, 0, 0, 1, 0)
    table = entry * 100
    dynamic = b"".join(
        struct.pack("<QQ", *pair) for pair in ((5, 0), (10, 64), (0x6FFFFFFE, 512), (0x6FFFFFFF, 1 << 40), (0, 0))
    )
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    loads = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 1 << 20, 1 << 20, 4096)
    loads += struct.pack("<IIQQQQQQ", 2, 6, 256, 256, 256, len(dynamic), len(dynamic), 8)
    data = (head + loads).ljust(256, b"\0") + dynamic
    data = data.ljust(512, b"\0") + table
    found = read_dynamic(reader(data))
    assert found is not None
    assert len(found.wants) <= 4096


def test_go_functions():
    data = bytes(100) + b"\xff Go buildinf:" + bytes(1 << 20) + b"time.LoadLocation" + bytes(100)
    names = (b"time.LoadLocation", b"crypto/x509.loadSystemRoots")
    assert linked_go_functions(reader(data), len(data), names) == {b"time.LoadLocation"}
    assert linked_go_functions(reader(data[200:]), len(data) - 200, names) is None


def test_packages():
    assert package_of("libpq.so.5", "13") == "libpq5"
    assert package_of("libssl.so.3", "13") == "libssl3t64"
    assert package_of("libssl.so.3", "12") == "libssl3"
    assert package_of("libnowhere.so.1", "13") == ""
    # Of another architecture; riscv64 is not in Debian 12.
    assert package_of("ld-linux-aarch64.so.1", "13", "arm64") == "libc6"
    assert package_of("ld-linux-aarch64.so.1", "13") == ""
    assert package_of("ld64.so.1", "12", "s390x") == "libc6"
    assert package_of("ld-linux-riscv64-lp64d.so.1", "13", "riscv64") == "libc6"
    assert package_of("libquadmath.so.0", "13") == package_of("libquadmath.so.0", "13", "ppc64el") == "libquadmath0"
    assert package_of("libquadmath.so.0", "13", "arm64") == ""
    assert package_of("ld-linux.so.2", "13", "i386") == package_of("ld-linux.so.2", "12", "i386") == "libc6"
    assert package_of("ld-linux.so.2", "13") != "libc6"
    assert package_of("libatomic_queue.so.0", "13", "i386") == ""  # amd64 has it
    assert package_of("libatomic_queue.so.0", "13") != ""
    for arch in ("arm64", "armhf", "ppc64el", "riscv64", "s390x", "i386"):
        assert package_of("libstdc++.so.6", "13", arch) == "libstdc++6"


def file(path: str, kind: int = REG, mode: int = 0o755, link: str = "") -> Entry:
    return Entry(path.encode(), kind, mode, 0, 0, 1000, 0, link.encode(), (0, 0), ())


BASE = (
    file("lib64", SYM, link="usr/lib64"),
    file("usr/lib64", DIR),
    file("usr/lib64/ld-linux-x86-64.so.2"),
    file("usr/lib/x86_64-linux-gnu", DIR),
    file("usr/lib/x86_64-linux-gnu/libc.so.6"),
    file("usr/lib/x86_64-linux-gnu/libssl.so.3"),
    file("etc/ssl/certs/ca-certificates.crt", mode=0o644),
)
LIBC = Dynamic(62, wide=True, soname="libc.so.6", gives=("GLIBC_2.2.5", "GLIBC_2.36", "GLIBC_PRIVATE"))


def program(*needed: str, machine: int = 62, loader: str = LOADER, **more) -> Dynamic:
    return Dynamic(machine, wide=True, interpreter=loader, needed=needed, **more)


def found(
    added: dict[str, Dynamic | None],
    base: tuple[Entry, ...] = BASE,
    linked: frozenset[bytes] | None = None,
    extra: tuple[Entry, ...] = (),
    **more,
) -> list[Found]:
    above = sorted([*(file(path) for path in added), *extra], key=lambda entry: entry.path.split(b"/"))
    tree = LayerTree([LayerIndex(list(base), [0] * len(base)), LayerIndex(above, [0] * len(above))])
    dynamic = {path.encode(): one for path, one in added.items() if one is not None}

    known = more.pop("given", {})

    def given(path: bytes) -> Dynamic | None:
        if path in known:
            return known[path]
        return LIBC if path.endswith(b"libc.so.6") else dynamic.get(path)

    config = ContainerConfig(env=more.pop("env", ()))
    return check_image(
        Subject(tree, config, "amd64", 1, dynamic, given, lambda _path, _names: linked, **more)
    )  # fmt: skip


def test_a_good_image_has_nothing():
    added = {
        "app/run": program(
            "libc.so.6", "libown.so.1", wants=(("libc.so.6", "GLIBC_2.36"), ("libc.so.6", "GLIBC_PRIVATE"))
        ),
        "app/lib/libown.so.1": Dynamic(62, wide=True, soname="libown.so.1", needed=("libc.so.6",)),
        "app/plugins/unused.so": Dynamic(62, wide=True, soname="unused.so", needed=("libX11.so.6",)),
        "app/static": Dynamic(62, wide=True),
        "app/old": program(machine=3, loader="/lib64/ld-linux-x86-64.so.2"),
        "firmware/blob": Dynamic(183, wide=True),
    }
    assert found(added) == []


def test_a_library_of_a_library_that_was_added():
    added = {
        "app/run": program("libown.so.1"),
        "app/libown.so.1": Dynamic(62, wide=True, soname="libown.so.1", needed=("libpq.so.5", "libstrange.so.7")),
    }
    (one,) = found(added, base_name="gcr.io/distroless/cc-debian13:nonroot")
    assert one.message == (
        "`/app/libown.so.1` needs the libraries `libpq.so.5` and `libstrange.so.7`, which are not in the image"
    )
    assert one.hints[0] == "Debian has them in `libpq5`: `FROM aerogel/cc-debian13+libpq5:nonroot` is this base with it"
    (one,) = found({"a": program("libpq.so.5"), "b": program("libpq.so.5")}, base_name="debian:13")
    assert one.message.startswith("`/a` and 1 more need the library")
    assert one.hints == ("Debian has it in `libpq5`: `apt-get install libpq5`", "or link the program statically")


def test_modules_of_python_are_judged():
    added = {"app/_x.cpython-313-x86_64-linux-gnu.so": Dynamic(62, wide=True, needed=("libpq.so.5",)),
             "app/_y.abi3.so": Dynamic(183, wide=True)}  # fmt: skip
    judged = found(added, base_name="aerogel/python3")
    assert [(one.rule, one.path) for one in judged] == [
        ("WrongArchitecture", b"app/_y.abi3.so"),
        ("MissingLibrary", b"app/_x.cpython-313-x86_64-linux-gnu.so"),
    ]
    assert judged[1].hints == (  # nobody links a module statically
        "Debian has it in `libpq5`: `FROM aerogel/python3+libpq5` is this base with it",
    )


def test_versions():
    wants = (("libc.so.6", "GLIBC_2.38"), ("libc.so.6", "GLIBC_2.4"), ("libc.so.6", "GLIBC_2.2.5"))
    (one,) = found({"app": program("libc.so.6", wants=wants)}, release="12")
    assert one.message == "`/app` needs `GLIBC_2.38`, and `libc.so.6` of the image has `GLIBC_2.36` at most"
    assert one.hints[0].startswith("it was built on Debian 13")
    (one,) = found({"app": program("libc.so.6", wants=(("libc.so.6", "GLIBC_2.99"),))})
    assert one.hints[0] == "it was built on a system newer than Debian 13: build it in a stage from `debian`"


def test_versions_of_a_library_of_another_machine_do_not_count():
    """An image may have libraries of two machines; the loader takes its own."""
    other = Dynamic(183, wide=True, soname="libc.so.6", gives=("GLIBC_2.38",))
    added = {
        "app": program("libc.so.6", wants=(("libc.so.6", "GLIBC_2.38"),)),
        "usr/lib/aarch64-linux-gnu/libc.so.6": other,
    }
    (one,) = found(added, given={b"usr/lib/aarch64-linux-gnu/libc.so.6": other}, release="12")
    assert one.message == "`/app` needs `GLIBC_2.38`, and `libc.so.6` of the image has `GLIBC_2.36` at most"


def test_no_loader_and_the_program_that_is_started():
    assert [one.rule for one in found({"app": program("libc.so.6")}, base=())] == ["MissingLoader"]
    assert found({"app": program("libc.so.6")}, base=(), started=frozenset((b"app",))) == []
    (one,) = found({"app": program(loader="/lib/ld-musl-x86_64.so.1")})
    assert "build it in a stage from `debian`" in one.hints[1]


PYTHON = (*BASE, file("usr/bin/python3", SYM, link="python3.13"), file("usr/bin/python3.13"))


@pytest.mark.parametrize(
    ("path", "base", "rules"),
    [
        ("app/lib/python3.13/site-packages/a.py", PYTHON, []),
        ("app/lib/python3.11/site-packages/a.py", PYTHON, ["PythonVersionMismatch"]),
        ("app/a.cpython-312-x86_64-linux-gnu.so", PYTHON, ["PythonVersionMismatch"]),
        ("app/lib/python3.11/site-packages/a.py", BASE, []),
        ("app/python3.11/a.py", PYTHON, []),
    ],
)
def test_versions_of_python(path: str, base: tuple[Entry, ...], rules: list[str]):
    assert [one.rule for one in found({path: None}, base=base)] == rules


def test_certificates():
    bare = BASE[:-1]
    tls = {"app": program("libc.so.6", "libssl.so.3")}
    assert [one.rule for one in found(tls, base=bare)] == ["MissingCertificates"]
    assert found(tls) == []
    assert found(tls, base=bare, env=("SSL_CERT_FILE=/x",)) == []
    assert found(tls, base=bare, extra=(file("app/certifi/cacert.pem"),)) == []
    go = frozenset((b"crypto/x509.loadSystemRoots",))
    assert [one.rule for one in found({"app": Dynamic(62, wide=True)}, base=(), linked=go)] == ["MissingCertificates"]
    assert found({"app": Dynamic(62, wide=True)}, base=(), linked=frozenset()) == []


def test_time_zones():
    app: dict[str, Dynamic | None] = {"app": None}
    assert [one.message for one in found(app, env=("TZ=Europe/Berlin",))] == [
        "`TZ=Europe/Berlin` names a time zone that is not in the image, so times are UTC"
    ]
    assert found(app, env=("TZ=Europe/Berlin",), extra=(file("usr/share/zoneinfo/Europe/Berlin"),)) == []
    for zone in ("UTC", "Etc/UTC", "CET-1CEST", ""):
        assert found(app, env=(f"TZ={zone}",)) == []
    go = {"app": Dynamic(62, wide=True)}
    assert [one.rule for one in found(go, linked=frozenset((b"time.LoadLocation",)))] == ["MissingTimeZones"]
    assert found(go, linked=frozenset((b"time.LoadLocation", b"time/tzdata."))) == []


def test_candidates():
    assert is_candidate(file("a"))
    assert is_candidate(file("liba.so.1", mode=0o644))
    assert not is_candidate(file("a.py", mode=0o644))
    assert not is_candidate(file("a", DIR))
    assert not is_candidate(file("a")._replace(size=10))


def test_rules_are_sorted():
    names = [rule.name for rule in IMAGE_RULES]
    assert names == sorted(names)
