"""Platforms: what `linux/arm64/v8` means, and which image suits which machine.

Not for emulation (`sandbox.probe` knows whether binfmt can run a foreign one).
Spec: OCI image-spec v1.1 image-index.md (platform), normal forms of containerd/platforms.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from aerogel.errors import AerogelError, nearest

__all__ = ["ARCHITECTURES", "Platform"]

_ALIASES = {
    "aarch64": ("arm64", ""),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64el": ("mips64le", ""),
    "mipsel": ("mipsle", ""),
    "ppc64el": ("ppc64le", ""),
    "x86-64": ("amd64", ""),
    "x86_64": ("amd64", ""),
}

ARCHITECTURES = (
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mipsle",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390x",
    "wasm",
)
"""GOARCH values that images use; a name alone is only taken for an architecture when it stands here."""

_SYSTEMS = ("darwin", "freebsd", "linux", "wasi", "wasip1", "windows")

_RARE = frozenset(
    (
        *("aix", "android", "dragonfly", "hurd", "illumos", "ios", "js", "netbsd", "openbsd", "plan9", "solaris"),
        *("amd64p32", "arm64be", "armbe", "mips64p32", "mips64p32le", "ppc", "riscv", "s390", "sparc", "sparc64"),
    )
)
"""Other values of GOOS and GOARCH: what is near a known name but stands here is no typing error."""

_DEFAULT_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Operating system and CPU of an image.

    Values from `parse`, `of` and `host` are in normal form: Go's names, and no variant where it is the usual one
    (`linux/arm64` for `arm64/v8`, `linux/amd64` for `amd64/v1`), as BuildKit names them; `arm` always has one.
    Values decoded from an index are as written there: compare with `matches` or after `normal()`.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    unknown: str = msgspec.field(default="", name="(unknown)")
    """Keys that the spec does not know, as one JSON object (see `oci.types`)."""

    @classmethod
    def of(cls, os_name: str, architecture: str, variant: str = "") -> Platform:
        """A platform in normal form."""
        os_name = os_name.lower()
        architecture = architecture.lower()
        variant = variant.lower()
        if os_name == "macos":
            os_name = "darwin"
        if architecture in _ALIASES:
            architecture, implied = _ALIASES[architecture]
            variant = variant or implied
        if variant and variant[0].isdigit():
            variant = "v" + variant
        if architecture == "arm":
            variant = variant or "v7"
        elif variant == _DEFAULT_VARIANT.get(architecture):
            variant = ""
        return cls(os=os_name, architecture=architecture, variant=variant)

    @classmethod
    def parse(cls, text: str, *, default: Platform | None = None) -> Platform:
        """Reads `os/architecture[/variant]`, or one of the first two alone (the rest from `default`, else the host).

        Raises `oci.platform` with what is valid.
        """
        parts = text.strip().split("/")
        for part in parts:
            if not part or not part.replace("_", "").replace("-", "").replace(".", "").isalnum() or not part.isascii():
                raise AerogelError(
                    f"`{text}` is not a platform: write `os/architecture` or `os/architecture/variant`",
                    code="oci.platform",
                    hints=["for example `linux/amd64` or `linux/arm64`"],
                )
        if len(parts) > 3:
            raise AerogelError(
                f"`{text}` is not a platform: it has {len(parts)} parts, at most 3 are valid (`os/architecture/variant`)",
                code="oci.platform",
                hints=["for example `linux/amd64` or `linux/arm64`"],
            )
        if len(parts) > 1:
            found = cls.of(*parts)
            _check_typing(text, found.os, _SYSTEMS)
            _check_typing(text, found.architecture, ARCHITECTURES)
            return found
        return cls._from_word(parts[0].lower(), text, default)

    @classmethod
    def _from_word(cls, word: str, text: str, default: Platform | None) -> Platform:
        if word in _SYSTEMS or word == "macos":
            base = default or cls.host()
            return cls.of(word, base.architecture, base.variant)
        if word in ARCHITECTURES or word in _ALIASES:
            return cls.of(default.os if default else "linux", word)
        known = nearest(word, (*_SYSTEMS, *ARCHITECTURES, *_ALIASES))
        raise AerogelError(
            f"`{text}` is not a platform: neither an operating system nor an architecture has this name",
            code="oci.platform",
            hints=[f"did you mean `{known}`?"] if known else ["for example `linux/amd64` or `linux/arm64`"],
        )

    @classmethod
    def host(cls) -> Platform:
        """The platform of this machine's kernel."""
        system = os.uname()
        return cls.of(system.sysname, system.machine)

    def normal(self) -> Platform:
        """The same platform in normal form; keeps OS version and features."""
        plain = Platform.of(self.os, self.architecture, self.variant)
        return msgspec.structs.replace(
            plain, os_version=self.os_version, os_features=self.os_features, unknown=self.unknown
        )

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}"
        return f"{text}/{self.variant}" if self.variant else text

    def matches(self, image: Platform) -> bool:
        """Whether an image for `image` runs natively here: same system and CPU, variant not newer than ours."""
        return self._rank(image) is not None

    def _rank(self, image: Platform) -> int | None:
        """How far `image` is from ours, 0 for equal; None when it cannot run."""
        mine, other = self.normal(), image.normal()
        if mine.os != other.os or mine.architecture != other.architecture:
            return None
        if mine.os_version and other.os_version and mine.os_version != other.os_version:
            return None
        return _variant_distance(mine.architecture, mine.variant, other.variant)

    def choose(self, candidates: Sequence[Platform | None]) -> int | None:
        """Position of the candidate that suits best: equal, else the nearest older variant, else one that the CPU
        also runs (386 on amd64, arm on arm64), as containerd does; None when there is none. First wins on a tie.
        """
        for here in (self, *self._also_runs()):
            ranks = [
                (rank, number)
                for number, candidate in enumerate(candidates)
                if candidate is not None and (rank := here._rank(candidate)) is not None
            ]
            if ranks:
                return min(ranks)[1]
        return None

    def _also_runs(self) -> tuple[Platform, ...]:
        mine = self.normal()
        if mine.architecture == "amd64":
            return (Platform.of(mine.os, "386"),)
        if mine.architecture == "arm64":
            return (Platform.of(mine.os, "arm", "v8"),)
        return ()


def _check_typing(text: str, word: str, known: Sequence[str]) -> None:
    """An unknown name may be right (registries hold what nobody listed), one that nearly is a known one is not."""
    if word in known or word in _RARE:
        return
    near = nearest(word, known)
    if near:
        raise AerogelError(
            f"`{text}` is not a platform: `{word}` is not known",
            code="oci.platform",
            hints=[f"did you mean `{near}`?"],
        )


def _variant_distance(architecture: str, mine: str, other: str) -> int | None:
    default = _DEFAULT_VARIANT.get(architecture, "")
    mine, other = mine or default, other or default
    if mine == other:
        return 0
    if mine[:1] == other[:1] == "v" and mine[1:].isdigit() and other[1:].isdigit():
        distance = int(mine[1:]) - int(other[1:])
        return distance if distance > 0 else None
    # Variants outside the numbered scheme (`power9`, `rva20u64`): an image that asks for none runs everywhere.
    return 1 if not other else None
