"""What makers ask for and where they put what was made: Java and Python's bytecode.

Nothing is run here: what a room would make is in the cache, under the key that the maker looks for. That it is made, and
works, is tested in tests/integration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from aerogel.debian.memory import give_back, map_large_blocks
from aerogel.debian.package import Package
from aerogel.distroless import bytecode, java
from aerogel.distroless.catalogue import lookup
from aerogel.distroless.declaration import Java, Python
from aerogel.distroless.layout import Layout
from aerogel.distroless.made import contents_digest, packages_digest
from aerogel.distroless.recipe import Recipe
from aerogel.distroless.unpacked import Unpacked
from aerogel.distroless.work import Bench, Work
from aerogel.errors import AerogelError, Diagnostic
from aerogel.oci.platform import Platform


def package(name: str, version: str = "1", arch: str = "amd64") -> Unpacked:
    digest = f"{sum(map(ord, name + version + arch)):064x}"
    one = Package(name, version, arch, f"pool/{name}.deb", 1, digest, name, version)
    return Unpacked(one, {"control": b""}, [], -1)


def nobody() -> None:
    raise AssertionError("nothing is to be run")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Callable[..., Work]]:
    with ExitStack() as stack:

        def make(recipe: Recipe, maker: str, tools: list[Unpacked], packages: list[Unpacked] | None = None) -> Work:
            platform = Platform.parse("linux/amd64")
            warned: list[Diagnostic] = []
            bench = Bench(nobody, nobody, platform, {maker: tools}, stack, tmp_path, lambda _: None, warned.append)
            return Work(recipe, "amd64", packages or [], Layout(), bench, {})

        yield make


MODULES = {
    b"usr/lib/python3.13/os.py": b"import sys\n",
    b"usr/lib/python3.13/json/__init__.py": b"loads = eval\n",
    b"etc/python3.13/sitecustomize.py": b"pass\n",
}


def python_work(work: Callable[..., Work], python: Python) -> Work:
    recipe = msgspec.structs.replace(lookup("aerogel/python3"), python=python)
    made = work(recipe, "python", [package("python3.13-minimal")])
    for path, text in MODULES.items():
        made.layout.write(path, text)
    made.layout.link(b"usr/lib/python3.13/sitecustomize.py", b"/etc/python3.13/sitecustomize.py")
    made.layout.write(b"usr/lib/python3.13/README.txt", b"text\n")
    sources = bytecode._sources(made.layout)
    assert sorted(sources) == [
        b"usr/lib/python3.13/json/__init__.py",
        b"usr/lib/python3.13/os.py",
        b"usr/lib/python3.13/sitecustomize.py",
    ]

    def compiled(out: Layout) -> None:
        for path in sources:
            folder, _, name = path.rpartition(b"/")
            out.write(b"out/" + folder + b"/__pycache__/" + name[:-3] + b".cpython-313.pyc", b"code of " + path)

    made.made(
        "bytecode",
        (packages_digest(made.tools("python")), contents_digest(sources), bytecode._SCRIPT),
        compiled,
    )
    return made


def test_bytecode_lies_beside_the_source(work) -> None:
    made = python_work(work, Python(bytecode="unchecked-hash"))
    before = set(made.layout.items)
    bytecode.add_bytecode(made)
    assert {path for path in made.layout.items if path.endswith(b".pyc")} == {
        b"usr/lib/python3.13/__pycache__/os.cpython-313.pyc",
        b"usr/lib/python3.13/__pycache__/sitecustomize.cpython-313.pyc",
        b"usr/lib/python3.13/json/__pycache__/__init__.cpython-313.pyc",
    }
    assert before <= set(made.layout.items)


def test_bytecode_without_the_source(work) -> None:
    made = python_work(work, Python(bytecode="unchecked-hash", sourceless=True))
    bytecode.add_bytecode(made)
    assert sorted(path for path in made.layout.items if b"python3.13/" in path and path.startswith(b"usr")) == [
        b"usr/lib/python3.13/README.txt",
        b"usr/lib/python3.13/json/__init__.pyc",
        b"usr/lib/python3.13/os.pyc",
        b"usr/lib/python3.13/sitecustomize.pyc",
    ]
    assert made.layout.read(made.layout.items[b"usr/lib/python3.13/os.pyc"]) == b"code of usr/lib/python3.13/os.py"


def test_who_compiles() -> None:
    names = ["libpython3.13-stdlib", "python3.13-minimal", "python3-pip", "python3"]
    assert bytecode.compilers(names) == ("python3", "python3.13-minimal")
    with pytest.raises(AerogelError, match="names no Python"):
        bytecode.compilers(["libpython3.13-stdlib"])


@pytest.mark.parametrize(
    ("asked", "given", "lacking"),
    [
        (Java(version=21), {"--compress=zip-9", "--add-modules"}, {"--compress=2", "ALL-MODULE-PATH"}),
        (Java(version=17), {"--compress=2"}, {"--compress=zip-9"}),
        (Java(version=21, jdk=True), {"ALL-MODULE-PATH"}, set()),
        (Java(version=25, modules=("b.c", "a.b")), {"a.b,b.c"}, set()),
        (Java(version=25, languages=("sw",)), {"--include-locales=sw"}, set()),
        (Java(version=25, languages="all"), set(), {"--include-locales=all"}),
    ],
)
def test_what_jlink_is_told(asked: Java, given: set[str], lacking: set[str]) -> None:
    words = java._jlink(asked, "amd64", "amd64")
    assert words[0] == f"/usr/lib/jvm/java-{asked.version}-openjdk-amd64/bin/jlink"
    assert given <= set(words)
    assert not lacking & set(words)
    has_locales = any(word.startswith("--include-locales=") for word in words)
    assert has_locales == (asked.languages != "all" and "jdk.localedata" in (asked.modules or java.MODULES))
    foreign = java._jlink(asked, "amd64", "arm64")
    assert foreign[foreign.index("--module-path") + 1] == "/modules"


class FullRoom:
    """Runs nothing: jlink's heap of `needs_mb` does not fit into less."""

    def __init__(self, needs_mb: int, fault: str = "java.lang.OutOfMemoryError: Java heap space") -> None:
        self.needs_mb, self.fault = needs_mb, fault
        self.ran: list[list[str]] = []

    def run(self, argv: list[str], env: dict[str, str]) -> bytes:
        self.ran.append(argv)
        assert env == {"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
        (heap,) = (word for word in argv if word.startswith("-J-Xmx"))
        if int(heap.removeprefix("-J-Xmx").removesuffix("m")) < self.needs_mb:
            raise AerogelError("`jlink` failed", code="distroless.tool", detail=f"Error: no\n{self.fault}\n\tat x")
        return b""


def test_jlink_gets_little_memory_and_more_if_it_needs_more() -> None:
    command = java._jlink(Java(version=21), "amd64", "amd64")
    small = FullRoom(100)
    assert java._run_jlink(small, command, java._heaps(Java(version=21))) == b"runtime-0"
    assert {"-J-Xmx123m", "-J-Xmn3m", "/runtime-0"} <= set(small.ran[0])
    grown = FullRoom(200)
    assert java._run_jlink(grown, command, java._heaps(Java(version=21))) == b"runtime-1"
    assert [words[-1] for words in grown.ran] == ["/runtime-0", "/runtime-1"]
    for room in (FullRoom(200, "Error: Module x not found"), FullRoom(1000)):
        with pytest.raises(AerogelError, match="`jlink` failed"):
            java._run_jlink(room, command, java._heaps(Java(version=21)))
    for asked, heap in ((Java(version=21, jdk=True), 208), (Java(version=21, languages="all"), 160)):
        whole = FullRoom(heap)
        assert java._run_jlink(whole, command, java._heaps(asked)) == b"runtime-0"
        assert java._run_jlink(FullRoom(512), command, java._heaps(asked)) == b"runtime-1"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_given_back_before_a_program_runs() -> None:
    """Between what is kept, glibc keeps what was freed as well."""
    used = [b"x" * (100_000 + number % 2) for number in range(500)]
    kept = used[::50]
    used.clear()
    before = resident()
    give_back()
    assert resident() < before - 30_000_000
    assert len(kept) == 10


def test_decoders_leave_no_memory_with_their_thread() -> None:
    """glibc maps no block that is smaller than one it has unmapped, and keeps what a thread has freed."""
    map_large_blocks()

    def grown() -> int:
        before = resident()
        for size in (16 << 20, 8 << 20):
            block = bytearray(b"x") * size
            del block
        return resident() - before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(grown).result() < 4_000_000


@pytest.mark.parametrize("host", ["amd64", "arm64", "s390x"])
@pytest.mark.parametrize(
    ("target", "order"), [("amd64", "little"), ("armhf", "little"), ("ppc64el", "little"), ("s390x", "big")]
)
def test_java_gets_its_classes_in_the_byte_order_of_its_machine(host: str, target: str, order: str) -> None:
    """jlink's own is that of the machine that links; Java on another finds not even java.lang.Object."""
    words = java._jlink(Java(version=21), host, target)
    assert words[words.index("--endian") + 1] == order


def test_java_of_before_is_linked_anew() -> None:
    """What was linked for s390x by an aerogel that did not say the byte order is not taken for the new one."""
    ways = {name: lookup(f"aerogel/{name}").way for name in ("cc", "java-base", "java21", "debian")}
    assert ways == {
        "cc": b"aerogel-base-v1",
        "java-base": b"aerogel-base-v1",
        "java21": b"aerogel-base-v1 java-v3",
        "debian": b"aerogel-base-v1 root-v2",
    }


def test_java_of_another_version_or_none(work) -> None:
    recipe = lookup("aerogel/java21")
    jdk = package("openjdk-21-jdk-headless", "21.0.5+11-1")
    made = work(recipe, "java", [jdk], [package("openjdk-21-jdk-headless", "21.0.6+3-1", "arm64")])
    with pytest.raises(AerogelError, match=r"its modules are of 21\.0\.6\+3-1, `jlink` is of 21\.0\.5\+11-1"):
        java.add_java(made)
    made = work(recipe, "java", [jdk], [])
    with pytest.raises(AerogelError, match="`packages` does not bring `openjdk-21-jdk-headless`"):
        java.add_java(made)
    parity = lookup("aerogel/java21:parity")
    assert java.java_tools(parity) == ()
    made = work(parity, "java", [])
    with pytest.raises(AerogelError, match="`packages` does not bring `openjdk-21-jre-headless`"):
        java.add_java(made)
    made.layout.write(b"usr/lib/jvm/java-21-openjdk-amd64/bin/java", b"\x7fELF", mode=0o755)
    java.add_java(made)
    assert made.layout.items[b"usr/bin/java"].entry.link == b"/usr/lib/jvm/java-21-openjdk-amd64/bin/java"


def with_cds(name: str, cds: bool | None) -> Recipe:
    recipe = lookup(name)
    assert recipe.java is not None
    return msgspec.structs.replace(recipe, java=msgspec.structs.replace(recipe.java, cds=cds))


@pytest.mark.parametrize(
    ("name", "asked", "arch", "can_run", "expected"),
    [
        ("aerogel/java21", None, "arm64", True, None),
        ("aerogel/java21", None, "arm64", False, False),
        ("aerogel/java25", None, "amd64", True, None),
        ("gcr.io/distroless/java17-debian12", None, "amd64", True, False),
        ("gcr.io/distroless/java17-debian12", True, "amd64", True, True),
        ("aerogel/java21", None, "s390x", True, False),
        ("aerogel/java21", True, "s390x", False, True),
        ("aerogel/java21", False, "amd64", True, False),
        ("aerogel/java21:parity", None, "amd64", True, False),
    ],
)
def test_who_has_an_archive_of_classes(name, asked, arch, can_run, expected) -> None:
    found = java.settled(with_cds(name, asked), arch, lambda: can_run)
    assert found.java is not None
    assert found.java.cds is expected


def test_no_archive_of_classes_where_the_runtime_cannot_be_run(work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked for another architecture, and no emulator: told, unless a lock or the declaration wants it."""

    def refuse(*_: object) -> bool:
        raise AerogelError("this machine cannot run programs", code="sandbox.no-emulation", hints=["install qemu"])

    monkeypatch.setattr("aerogel.sandbox.emulator.Emulator.prepare", refuse)
    packages = [package("openjdk-21-jdk-headless"), package("libc6"), package("libc-bin")]
    for cds in (None, True):
        recipe = with_cds("aerogel/java21", cds)
        made = work(recipe, "java", [package("openjdk-21-jdk-headless", arch="arm64")], packages)
        assert recipe.java is not None
        command = java._jlink(recipe.java, "arm64", "amd64")
        key = (packages_digest(made.tools("java")), packages[0].package.digest.encode(), "\0".join(command).encode())
        made.made("java", key, lambda out: out.write(b"usr/lib/jvm/java-21-openjdk-amd64/lib/classlist", b""))
        if cds:
            with pytest.raises(AerogelError, match="cannot run programs"):
                java.add_java(made)
            continue
        java.add_java(made)
        (warning,) = made.bench.warn.__self__
        assert warning.message == (
            "Java for `amd64` gets no archive of its classes, and starts slower: this machine cannot run programs"
        )
        assert warning.hints == ("install qemu",)
        assert b"usr/lib/jvm/java-21-openjdk-amd64/lib/classlist" not in made.layout.items


def test_an_archive_of_classes_that_is_never_the_same_is_warned_of(work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java 17 writes other bytes each time: it has one only where the declaration wants it."""

    def dump(_work: Work, _libraries: object, home: str, out: Layout) -> None:
        out.write(f"{home}/lib/server/classes.jsa".encode(), b"")

    monkeypatch.setattr(java, "_dump", dump)
    recipe = with_cds("gcr.io/distroless/java17-debian12", True)
    made = work(
        recipe, "java", [package("openjdk-17-jdk-headless")], [package("openjdk-17-jdk-headless"), package("libc6")]
    )
    assert recipe.java is not None
    command = java._jlink(recipe.java, "amd64", "amd64")
    digest = made.packages[0].package.digest.encode()
    made.made(
        "java",
        (packages_digest(made.tools("java")), digest, "\0".join(command).encode()),
        lambda out: out.write(b"usr/lib/jvm/java-17-openjdk-amd64/lib/classlist", b""),
    )
    java.add_java(made)
    (warning,) = made.bench.warn.__self__
    assert (warning.code, warning.hints) == (
        "distroless.classes-differ",
        ("leave `java: {cds: true}` out, or take Java 21",),
    )
    assert (
        warning.message
        == "the archive of classes of Java 17 has other bytes each time it is made: no lock of it can hold"
    )
    assert b"usr/lib/jvm/java-17-openjdk-amd64/lib/server/classes.jsa" in made.layout.items


def test_packages_of_the_jdk_leave_their_copyright() -> None:
    from aerogel.distroless.rules import Filter

    dropped_by = Filter((java.link_rule(21),), "openjdk-21-jdk-headless").dropped_by
    assert dropped_by(b"usr/lib/jvm/java-21-openjdk-amd64/bin/javac") == "jlink"
    assert dropped_by(b"usr/share/doc/openjdk-21-jdk-headless/copyright") is None
    assert Filter((java.link_rule(21),), "libc6").dropped_by(b"usr/lib/x86_64-linux-gnu/libc.so.6") is None
