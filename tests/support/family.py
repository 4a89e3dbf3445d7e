"""Every image of `aerogel base list`: its tags, releases and platforms, and the structure tests that it has to pass.

`whole()` is all of it, `covering()` what a run of the tests has time for: every image on amd64 with every tag,
every release, every image on another architecture, every architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from process import ROOT

from aerogel.distroless.catalogue import Choice, built_in, declarations
from aerogel.distroless.recipe import DEBIAN_ARCHITECTURES, TRIPLETS

TESTS = ROOT / "tests/structure"
LOADERS = {
    "amd64": "/lib64/ld-linux-x86-64.so.2",
    "arm64": "/lib/ld-linux-aarch64.so.1",
    "armhf": "/lib/ld-linux-armhf.so.3",
    "i386": "/lib/ld-linux.so.2",
    "ppc64el": "/lib64/ld64.so.2",
    "riscv64": "/lib/ld-linux-riscv64-lp64d.so.1",
    "s390x": "/lib/ld64.so.1",
}
IN_STEP = ("linux/amd64", "linux/arm64")
"""Mirrors keep the other architectures' security archives out of step with their signatures: main suite only."""
NATIVE = ("python3-native",)
"""What an emulated machine cannot do (a child that fails to start)."""


class Group(NamedTuple):
    """The images of one base, release and platform: they differ in their tags."""

    name: str
    release: str
    platform: str

    def __str__(self) -> str:
        return f"{self.name}-{self.release}-{self.platform.removeprefix('linux/').replace('/', '')}"

    @property
    def arch(self) -> str:
        return DEBIAN_ARCHITECTURES[self.platform]

    @property
    def tags(self) -> tuple[str, ...]:
        base = built_in(self.name)
        chosen = (base.declaration.tags or {}).values()
        if chosen:
            return tuple(dict.fromkeys(one.variant for one in chosen if one.release == self.release))
        return base.variants

    @property
    def every_tag(self) -> tuple[str, ...]:
        """With that of whole packages, on one platform: it differs from `latest` in what the rules leave out."""
        has_rules = built_in(self.name).method == "files" and self.platform == "linux/amd64"
        return (*self.tags, "latest-parity") if has_rules else self.tags

    def image(self, tag: str, folder: Path) -> str:
        """What FROM says for it; `folder` gets a declaration if the archive's main suite is wanted alone."""
        if self.platform in IN_STEP:
            return Choice(built_in(self.name), self.release, tag).name
        path = folder / f"{self}.yaml"
        suites = [self.release]
        said = {"apiVersion": "aerogel/v1", "kind": "Base", "name": self.name, "extends": self.name}
        path.write_text(
            yaml.safe_dump({**said, "releases": {self.release: {}}, "sources": {"debian": {"suites": suites}}})
        )
        return f"{path}:{tag}"

    def tests(self, tag: str, folder: Path, *, every: bool = False) -> list[Path]:
        """The files of its tests, written into `folder` for the architecture: with `every`, all commands of each."""
        found = []
        for stem in wanted(self.name, self.release, tag):
            if self.arch == "amd64":
                found.append(TESTS / f"{stem}.yaml")
            elif stem not in NATIVE:
                found.append(folder / f"{stem}.yaml")
                text = (TESTS / f"{stem}.yaml").read_text()
                if (self.arch, self.release) == ("armhf", "bookworm") and stem in ("java", "java-build"):
                    text = without_folders(text)
                found[-1].write_text(adapted(text, self.arch, every=every))
        return found


def without_folders(text: str) -> str:
    """Tests of Java that read no folder. Debian 12's Java for 32-bit ARM cannot do that under qemu where the state lies on
    ext4, whose positions in folders have 64 bits (`Value too large for defined data type`; not on tmpfs, nor on a machine of
    its own): it has no ciphers then, and its settings of all kinds end with that. Those of one kind can be asked for. Maven
    looks for its own libraries in a folder."""
    found = text.replace("[-XshowSettings:all, -version]", "[-XshowSettings:properties, -version]")
    left_out = ("default locale", "name: Maven,")
    found = "".join(line for line in found.splitlines(True) if not any(each in line for each in left_out))
    assert found != text
    return found


def adapted(text: str, arch: str, *, every: bool = False) -> str:
    """Tests for amd64 as they are for another architecture: the first command of each file or all, all the rest."""
    for before, after in (
        (LOADERS["amd64"], LOADERS[arch]),
        (TRIPLETS["amd64"], TRIPLETS[arch]),
        ("-amd64/", f"-{arch}/"),
    ):
        text = text.replace(before, after)
    content: dict[str, Any] = yaml.safe_load(text)
    if content.get("commandTests") and not every:
        content["commandTests"] = content["commandTests"][:1]
    return yaml.safe_dump(content, allow_unicode=True)


VERSIONS = {"trixie": "13", "bookworm": "12", "bullseye": "11", "forky": "forky"}
RUNTIMES = {
    "python3": ("cc", "ssl", "python3"),
    "python3.14": ("cc", "ssl", "python3", "python3.14"),
    "java-base": ("java-base", "java-none"),
    "dotnet": ("cc", "dotnet"),
    "dotnet-deps": ("cc", "ssl", "dotnet-deps"),
    "dotnet-deps-icu": ("cc", "ssl", "dotnet-deps"),
    "cc": ("cc", "ssl"),
    "base": ("ssl",),
    **{f"java{number}": ("java-base", "java", f"java{number}") for number in (17, 21, 25)},
    **{f"nodejs{number}": ("cc", "ssl", "nodejs", f"nodejs{number}") for number in (22, 24, 26)},
    **{name: ("ssl", name) for name in ("nginx", "perl", "php", "ruby")},
}
BY_RELEASE = ("dotnet-deps-icu", "python3")
"""Images with tests of their own for a release."""
STARTS = {
    "python3": "python3-debian{}",
    "php": "php-debian{}",
    "ruby": "ruby-debian{}",
    **{name: name for name in ("dotnet", "nginx", "perl", "python3.14")},
    **{f"nodejs{number}": "nodejs" for number in (22, 24, 26)},
}
"""What starts, unless it is the shell of `debug`."""


def wanted(name: str, release: str, tag: str) -> Iterator[str]:
    """The names of the files with tests that an image has to pass."""
    version = VERSIONS[release]
    if built_in(name).method == "dpkg":
        yield from ("debian", f"debian-{release}", *((name,) if name != "debian" else ()))
        yield from (f"{name}-{release}",) if name == "java-build" else ()
        return
    yield from ("static", f"debian{version}", "nonroot" if "nonroot" in tag else "root")
    yield from () if name == "nginx" else ("group",)
    yield from () if name == "static" else ("base",)
    yield from RUNTIMES.get(name, ())
    yield from (f"{name}-debian{version}",) if name in BY_RELEASE else ()
    yield from ("python3-native",) if name.startswith("python3") else ()
    if "debug" in tag:
        yield "debug"
        yield from (f"debug{version}",) if version in ("12", "13") else ()
        yield from (f"{name}-debug",) if name in ("java17", "java21", "java25") else ()
    else:
        yield "release"
        if name.startswith("java") and name != "java-base":
            yield "java-release"
        else:
            yield "starts-" + STARTS[name].format(version) if name in STARTS else "entrypoint"


def whole() -> list[Group]:
    """All: about 250 groups of four images."""
    return [
        Group(name, release, platform)
        for name in declarations()
        for release in built_in(name).releases
        for platform in built_in(name).platforms_of(release)
    ]


BUILDERS = tuple(f"{name}-build" for name in ("go", "java", "nodejs22", "nodejs24", "nodejs26", "python3"))
"""Composed, used and tested where the tests of builders are: each takes a minute."""
LINKED = ("java17", "java25", "nodejs22", "nodejs26")
"""On another architecture their sisters stand for them: linking and stripping takes longer than all the rest."""
OTHERS = ("linux/arm/v7", "linux/s390x", "linux/ppc64le", "linux/riscv64")


def covering() -> list[tuple[Group, tuple[str, ...]]]:
    """The groups that CI has time for, each with the tags to test."""
    found = []
    for group in whole():
        if group.platform == "linux/amd64" and group.name not in BUILDERS:
            usual = group.release == built_in(group.name).releases[0]
            if usual or group.name != "cc-build":
                all_tags = group.every_tag if group.name == "cc" else group.tags
                found.append((group, all_tags if usual else group.tags[1:3]))
    distroless = [name for name in declarations() if built_in(name).method == "files" and name not in LINKED]
    for number, name in enumerate(distroless):
        base = built_in(name)
        if "linux/arm64" in base.platforms:
            group = Group(name, base.releases[0], "linux/arm64")
            found.append((group, (group.tags[number % 4],)))
        platform = OTHERS[number % 4]
        if platform in base.platforms and not name.startswith("java2"):
            release = next(one for one in reversed(base.releases) if platform in base.platforms_of(one))
            group = Group(name, release, platform)
            found.append((group, (group.tags[(number // 4) % 4],)))
    return found


def by_the_other(group: Group, tag: str) -> bool:
    """Whether the other runner sees it too: each amd64 image of the usual release, of the others the two kinds that differ
    in more than their user."""
    usual = group.platform == "linux/amd64" and group.release == built_in(group.name).releases[0]
    return usual or tag in ("latest", "debug")
