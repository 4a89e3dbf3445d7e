"""A Java runtime linked from Debian's OpenJDK: only the modules that are asked for, with a class data archive.

`jlink` runs in the workshop, on the host's own architecture: it links the modules of any other as well, if both are
of one version. The archive of class data (CDS), which halves the time until `main`, is made by the linked runtime
itself: in an emulator for another architecture, with the same bytes. Images for amd64 and arm64 have it wherever they
are made, if such a machine or an emulator is there; those for others if `cds: true` asks for it. Without, Java starts
as well, but slower.

The packages of the JDK are recorded in the image as partial ones, since what runs is theirs.
Spec: JEP 282 (jlink), JEP 341 (default CDS archives).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from aerogel.distroless.keystore import PATH as KEYSTORE
from aerogel.distroless.layout import Item, Layout
from aerogel.distroless.made import packages_digest
from aerogel.distroless.rules import Rule
from aerogel.distroless.unpacked import Unpacked
from aerogel.errors import EXIT_USAGE, AerogelError, Diagnostic
from aerogel.files.entry import REG, directory

if TYPE_CHECKING:
    from aerogel.debian.package import Package
    from aerogel.debian.resolve import Packages
    from aerogel.distroless.declaration import Java
    from aerogel.distroless.recipe import Recipe
    from aerogel.distroless.room import Room
    from aerogel.distroless.work import Work

__all__ = [
    "LANGUAGES",
    "MODULES",
    "SKIP",
    "add_java",
    "check_version",
    "java_env",
    "java_tools",
    "link_rule",
    "settled",
    "wants_java",
]

MODULES = (
    "java.se",
    "jdk.charsets",
    "jdk.crypto.ec",
    "jdk.httpserver",
    "jdk.localedata",
    "jdk.management",
    "jdk.management.agent",
    "jdk.naming.dns",
    "jdk.net",
    "jdk.security.auth",
    "jdk.security.jgss",
    "jdk.unsupported",
    "jdk.xml.dom",
    "jdk.zipfs",
)
"""All of Java SE, and the modules that serve it without being named by it: ciphers, character sets, locales, zip
files as file systems, DNS, management and `sun.misc.Unsafe`, which frameworks take for granted."""

LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "zh")
"""Languages whose formats and names are kept, those of all countries that speak them."""

SKIP = (
    "ca-certificates-java",
    "java-common",
    "libasound2",
    "libasound2t64",
    "libcups2",
    "libcups2t64",
    "libnss3",
    "libpam0g",
    "libpcsclite1",
    "util-linux",
)
"""Needed by scripts, and by modules for printers, sound and smart cards, which find them missing at run time only."""

_OPTIONS = (
    "--strip-java-debug-attributes",
    "--no-header-files",
    "--no-man-pages",
)
_LEFT_OUT = (
    "**.debuginfo",
    "**.diz",
    "/java.base/lib/security/cacerts",
    # For a screen and for sound, whose libraries Debian's headless packages do not bring either.
    "/java.desktop/lib/libawt_xawt.so",
    "/java.desktop/lib/libjawt.so",
    "/java.desktop/lib/libjsound.so",
    "/java.desktop/lib/libsplashscreen.so",
)
_LEFT_OUT_OF_RUNTIME = (
    # For tools that look into another Java, and what the packages' own copyright files say as well.
    "/java.base/lib/jrt-fs.jar",
    "regex:/[^/]+/legal/.*",
)
_TRANSLATED = r"regex:/java\.[^/]+/.*_(de|es|fr|it|ja|ko|pt_BR|sv|zh|zh_CN|zh_HK|zh_TW)\.(class|properties)"
"""Messages of the library, as the rule `translations` leaves them out everywhere; formats are in `jdk.localedata`."""
_DUMP = ("-Xshare:dump", "-Xms128m", "-Xmx128m", "-XX:+UseG1GC", "-XX:ParallelGCThreads=1")
_ARCHIVED = ("amd64", "arm64")
"""Architectures whose images have the archive unless the declaration says no: those on which images are composed."""
_SAME_ARCHIVE = 21
"""The first version whose archive has the same bytes each time: that of 17 follows the addresses and threads of its run, also
with one processor, the interpreter alone and no random addresses."""
_BELOW = ("libatomic1", "libc6", "libgcc-s1", "libstdc++6", "zlib1g")
"""What the runtime is linked with. It makes its archive with nothing else in sight: with the image's other packages
there the archive was another one than with these tools alone."""
_NAMED_LEVELS = 21
_BYTE_ORDERS = {"s390x": "big"}
"""Of the machines whose own is not `little`."""
_HEAP_MB, _HEAP_ALL_LANGUAGES_MB, _HEAP_WHOLE_MB, _LARGE_HEAP_MB = 123, 160, 208, 512
"""What jlink is given: it holds all classes twice, compressed and not. The last is given when that was too small."""
_YOUNG_MB = 3
"""Of the heap: what is alive is old here, and needs nearly all of it."""
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""The compiler of the JVM takes megabytes for a moment: they are given back."""


def wants_java(recipe: Recipe) -> bool:
    """Whether the declaration has a Java."""
    return recipe.java is not None and recipe.java.version is not None


def check_version(recipe: Recipe, arch: str, indexes: Sequence[Packages], installed: Sequence[Package] = ()) -> None:
    """Raises `distroless.java-version` for a Java that neither the archive nor an image below has."""
    if recipe.java is None or recipe.java.version is None:
        return

    def is_there(version: int) -> bool:
        name = f"openjdk-{version}-jre-headless"
        return any(each.name == name for each in installed) or any(index.named(name) for index in indexes)

    if is_there(recipe.java.version):
        return
    known = [f"{version}" for version in range(8, 100) if is_there(version)]
    raise AerogelError(
        f"`java.version` is {recipe.java.version}, and {recipe.suite} has no such Java for {arch}",
        code="distroless.java-version",
        hints=[f"there {'are' if len(known) > 1 else 'is'} {' and '.join(known)}"] if known else [],
        exit_status=EXIT_USAGE,
    )


def settled(recipe: Recipe, arch: str, can_run: Callable[[], bool]) -> Recipe:
    """The recipe with `java.cds` said where it is known: `None` stays if the archive is to be tried."""
    if recipe.java is None or recipe.java.version is None or recipe.java.cds is not None:
        return recipe
    if recipe.rules == "micro" and recipe.java.version >= _SAME_ARCHIVE and arch in _ARCHIVED and can_run():
        return recipe
    return msgspec.structs.replace(recipe, java=msgspec.structs.replace(recipe.java, cds=False))


def java_tools(recipe: Recipe) -> tuple[str, ...]:
    """The packages that link; none when the packages stay whole."""
    return (_jdk(recipe),) if recipe.rules == "micro" else ()


def _jdk(recipe: Recipe) -> str:
    """Debian's package with the modules."""
    assert recipe.java is not None  # the maker is not wanted otherwise
    return f"openjdk-{recipe.java.version}-jdk-headless"


def link_rule(version: int) -> Rule:
    """Leaves the packages of the JDK out but for their copyright: what is linked from them takes their place."""
    return Rule(
        name="jlink",
        why="the runtime is linked from the modules of these packages, which are not needed as they are",
        packages=(f"openjdk-{version}-jdk-headless", f"openjdk-{version}-jre-headless"),
        drop=("/usr/lib", "/usr/bin", "/usr/share/binfmts", "/etc", "/usr/share/doc/*"),
        keep=("/usr/share/doc/*/copyright",),
    )


def add_java(work: Work) -> None:
    """Adds `/usr/bin/java` and, unless the packages stay whole, the linked runtime below /usr/lib/jvm.

    Raises `distroless.no-java` when `packages` does not bring the modules, `distroless.java-version` when they and
    `jlink` are not of one version, `distroless.tool` for an unknown module.
    """
    java = work.recipe.java
    assert java is not None  # as above
    home = f"usr/lib/jvm/java-{java.version}-openjdk-{work.arch}"
    if work.recipe.rules == "micro":
        _add_runtime(work, java, home)
    elif f"{home}/bin/java".encode() not in work.layout.items:
        raise _no_java(f"openjdk-{java.version}-jre-headless")
    work.layout.link(b"usr/bin/java", f"/{home}/bin/java".encode())
    # The names that upstream's images have for it, where its runtime is the one of Temurin.
    work.layout.link(f"usr/lib/jvm/temurin-{java.version}-jre-{work.arch}".encode(), f"/{home}".encode())
    if java.jdk:
        work.layout.link(f"usr/lib/jvm/temurin-{java.version}-jdk-{work.arch}".encode(), f"/{home}".encode())
    work.layout.link(b"etc/ssl/certs/adoptium/cacerts", b"/" + KEYSTORE)


def java_env(recipe: Recipe, packages: Sequence[Package]) -> tuple[str, ...]:
    """`JAVA_VERSION=21.0.13`: the version of Debian's package without its revision, unless the declaration says one."""
    if not wants_java(recipe) or any(each.startswith("JAVA_VERSION=") for each in recipe.env):
        return ()
    assert recipe.java is not None  # it is wanted
    name = f"openjdk-{recipe.java.version}-"
    version = next((each.version for each in packages if each.name.startswith(name)), str(recipe.java.version))
    return (f"JAVA_VERSION={re.split('[+~-]', version)[0]}",)


def _no_java(package: str) -> AerogelError:
    return AerogelError(
        f"`java` is asked for, but `packages` does not bring `{package}`",
        code="distroless.no-java",
        hints=[f"add `{package}` to `packages`, or leave `java` out"],
    )


def _add_runtime(work: Work, java: Java, home: str) -> None:
    tools = work.tools("java")
    name = _jdk(work.recipe)
    jdk = next((each for each in work.packages if each.package.name == name), None)
    if jdk is None:
        raise _no_java(name)
    jlink = next(each.package for each in tools if each.package.name == name)
    if jlink.version.partition("+b")[0] != jdk.package.version.partition("+b")[0]:
        raise AerogelError(
            f"Java for `{work.arch}` cannot be linked here: its modules are of {jdk.package.version}, "
            f"`jlink` is of {jlink.version}",
            code="distroless.java-version",
            hints=["the mirror is between two updates: try again later"],
        )
    native = jlink.architecture == work.arch
    command = _jlink(java, jlink.architecture, work.arch)
    key = (packages_digest(tools), jdk.package.digest.encode(), "\0".join(command).encode())

    def link(out: Layout) -> None:
        with work.room(tools) as room:
            if not native:
                room.layout.items.update(_modules(jdk))
            room.take(out, _run_jlink(room, command, _heaps(java)), home.encode())

    work.tell(f"linking Java {java.version}")
    work.layout.items |= work.made("java", key, link)
    if java.cds is not False:
        _add_classes(work, key, home, tools if native else (), must=bool(java.cds))
    work.layout.items.pop(f"{home}/lib/classlist".encode(), None)  # what the archive was made from
    work.layout.link(f"{home}/lib/security/cacerts".encode(), b"/" + KEYSTORE)


def _jlink(java: Java, host: str, target: str) -> list[str]:
    version = java.version or 0
    tool_home = f"/usr/lib/jvm/java-{version}-openjdk-{host}"
    modules = MODULES if java.modules in (None, "all") else java.modules
    languages = LANGUAGES if java.languages is None else java.languages
    return [
        f"{tool_home}/bin/jlink",
        "-J-XX:+UseSerialGC",
        "-J-XX:TieredStopAtLevel=1",
        "--module-path",
        f"{tool_home}/jmods" if host == target else "/modules",
        # Else it is that of the machine that links, in which another does not find a single class.
        "--endian",
        _BYTE_ORDERS.get(target, "little"),
        "--add-modules",
        "ALL-MODULE-PATH" if java.jdk else ",".join(sorted(modules)),
        # Since 21 the levels of zip have names; before there was one.
        f"--compress={'zip-9' if version >= _NAMED_LEVELS else '2'}",
        f"--exclude-files={','.join(_LEFT_OUT if java.jdk else (*_LEFT_OUT, *_LEFT_OUT_OF_RUNTIME))}",
        *(() if java.jdk else (f"--exclude-resources={_TRANSLATED}",)),
        *_OPTIONS,
        *((f"--include-locales={','.join(languages)}",) if languages != "all" and "jdk.localedata" in modules else ()),
    ]


def _heaps(java: Java) -> tuple[int, ...]:
    first = _HEAP_WHOLE_MB if java.jdk else _HEAP_ALL_LANGUAGES_MB if java.languages == "all" else _HEAP_MB
    return first, _LARGE_HEAP_MB


def _run_jlink(room: Room, command: list[str], heaps_mb: tuple[int, ...]) -> bytes:
    """Where in the room the runtime is. Its own heap is a quarter of the machine's memory, of which it takes 700 MB."""
    for number, heap_mb in enumerate(heaps_mb):
        output = f"runtime-{number}"
        given = [f"-J-Xmx{heap_mb}m", f"-J-Xmn{_YOUNG_MB}m"]
        try:
            room.run([command[0], *given, *command[1:], "--output", f"/{output}"], env=_MALLOC)
        except AerogelError as error:
            if "OutOfMemoryError" in (error.detail or "") and heap_mb != heaps_mb[-1]:
                continue  # a newer JDK has more classes
            raise
        return output.encode()
    raise AssertionError("the last heap ends it")


def _add_classes(work: Work, runtime: tuple[bytes, ...], home: str, tools: Sequence[Unpacked], *, must: bool) -> None:
    """Adds the archive of classes; without `must` a warning takes its place where it cannot be made.

    `tools` are those that the image's architecture runs: an image below may have what the archive is made with.
    """
    named = {each.package.name: each for each in (*tools, *work.packages) if each.package.name in _BELOW}
    libraries = list(named.values())
    key = (*runtime, packages_digest(libraries), " ".join(_DUMP).encode())
    work.tell("archiving the classes of Java")
    version = work.recipe.java.version if work.recipe.java is not None else None
    if version is not None and version < _SAME_ARCHIVE:
        message = (
            f"the archive of classes of Java {version} has other bytes each time it is made: no lock of it can hold"
        )
        hints = ["leave `java: {cds: true}` out, or take Java 21"]
        work.bench.warn(Diagnostic(message, code="distroless.classes-differ", hints=hints))
    try:
        if "libc6" not in named:
            raise AerogelError("its C library is in the image below, which is not run", code="sandbox.no-emulation")
        work.layout.items |= work.made("java classes", key, lambda out: _dump(work, libraries, home, out))
    except AerogelError as error:
        if must or error.code != "sandbox.no-emulation":
            raise
        message = f"Java for `{work.arch}` gets no archive of its classes, and starts slower: {error.message}"
        work.bench.warn(Diagnostic(message, code="distroless.no-classes", hints=list(error.hints)))


def _dump(work: Work, libraries: Sequence[Unpacked], home: str, out: Layout) -> None:
    """The archive is tied to path, time and size of `lib/modules`, so the runtime lies where it will be."""
    prefix = home.encode() + b"/"
    with work.room(libraries, "image") as room:
        room.layout.epoch = work.layout.epoch
        room.layout.items |= {path: item for path, item in work.layout.items.items() if path.startswith(prefix)}
        room.layout.add_directory(directory(b"out"))
        room.run([f"/{home}/bin/java", *_DUMP, "-XX:SharedArchiveFile=/out/classes.jsa"])
        room.take(out, b"out", f"{home}/lib/server".encode())


def _modules(jdk: Unpacked) -> dict[bytes, Item]:
    """The .jmod files of a package of another architecture, where the job looks for them."""
    layout = Layout()
    layout.add_package(jdk, lambda path: None if path.endswith(b".jmod") else "other")
    found = {}
    for path, item in layout.items.items():
        if item.entry.kind == REG:
            target = b"modules/" + path.rpartition(b"/")[2]
            found[target] = Item(item.entry._replace(path=target), item.content)
    return found
