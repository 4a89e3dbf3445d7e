"""What Go and Rust put into their programs: Go's build information, cargo-auditable's list of crates.

Spec: Go's debug/buildinfo and runtime/debug.BuildInfo; rust-secure-code's cargo-auditable, section `.dep-v0`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from aerogel.analyze.elf import Elf, read_elf
from aerogel.analyze.package import Package

__all__ = ["packages_of"]

_GO_MAGIC = b"\xff Go buildinf:"
_GO_SECTION = b".go.buildinfo"
_RUST_SECTION = b".dep-v0"
_MAX_INFO = 16 << 20
_WORD = re.compile(r"[^\s\x00-\x1f\x7f]{1,400}")


def packages_of(stream: BinaryIO, path: str, layer: str) -> list[Package]:
    """The Go modules or Rust crates that a program says it is made of; none for others."""
    elf = read_elf(stream)
    if elf is None:
        return []
    return [*_go(elf, path, layer), *_rust(elf, path, layer)]


def _go(elf: Elf, path: str, layer: str) -> Iterator[Package]:
    section = elf.section(_GO_SECTION)
    if section is None:
        return
    data = elf.read(section.offset, min(section.size, _MAX_INFO))
    if not data.startswith(_GO_MAGIC) or len(data) < 32:
        return
    version, modules = _inline(data) if data[15] & 2 else _pointed(elf, data)
    release = re.match(r"go(\d[\w.]*)", version)
    if release is not None:
        yield Package(
            kind="golang", name="stdlib", version=release[1], location=path, layer=layer, licenses=("BSD-3-Clause",)
        )
    yield from _modules(modules, path, layer)


def _inline(data: bytes) -> tuple[str, str]:
    """Go 1.18 and later: two strings behind their lengths."""
    version, at = _counted(data, 32)
    modules, _ = _counted(data, at)
    return version.decode("utf-8", "replace"), _unframed(modules)


def _counted(data: bytes, at: int) -> tuple[bytes, int]:
    length = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return data[at : at + length], at + length
        shift += 7
    return b"", at


def _pointed(elf: Elf, data: bytes) -> tuple[str, str]:
    """Before: addresses of two of Go's strings, each an address and a length."""
    word = data[14]
    if word not in (4, 8):
        return "", ""
    order = "big" if data[15] & 1 else "little"

    def number(raw: bytes) -> int:
        return int.from_bytes(raw, order)  # type: ignore[arg-type]  # one of the two words

    def text(address: int) -> bytes:
        head = elf.at_address(address, 2 * word)
        length = number(head[word:])
        return elf.at_address(number(head[:word]), length) if len(head) == 2 * word and length <= _MAX_INFO else b""

    version = text(number(data[16 : 16 + word]))
    modules = text(number(data[16 + word : 16 + 2 * word]))
    return version.decode("utf-8", "replace"), _unframed(modules)


def _unframed(modules: bytes) -> str:
    """The text between two marks of 16 bytes."""
    if len(modules) < 33 or modules[-17] != 0x0A:
        return ""
    return modules[16:-16].decode("utf-8", "replace")


def _modules(text: str, path: str, layer: str) -> Iterator[Package]:
    last: tuple[str, str] | None = None
    for line in text.splitlines():
        kind, _, rest = line.partition("\t")
        words = rest.split("\t")
        if kind == "=>" and last is not None and len(words) >= 2:
            # What stands in for the module is what was built.
            last = (words[0], words[1])
            continue
        if last is not None:
            yield from _module(last, path, layer)
            last = None
        if kind in ("mod", "dep") and len(words) >= 2:
            last = (words[0], words[1])
    if last is not None:
        yield from _module(last, path, layer)


def _module(module: tuple[str, str], path: str, layer: str) -> Iterator[Package]:
    name, version = module
    if not _WORD.fullmatch(name) or name.startswith((".", "/")):
        return
    namespace, _, short = name.rpartition("/")
    yield Package(
        kind="golang",
        namespace=namespace,
        name=short,
        # A program built in its own work tree has no version.
        version=version if _WORD.fullmatch(version) and version != "(devel)" else "",
        location=path,
        layer=layer,
    )


def _rust(elf: Elf, path: str, layer: str) -> Iterator[Package]:
    section = elf.section(_RUST_SECTION)
    if section is None or section.size > _MAX_INFO:
        return
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(elf.read(section.offset, section.size), _MAX_INFO)
        found = json.loads(data) if inflate.eof else None
    except (zlib.error, ValueError, RecursionError):
        return
    listed = found.get("packages") if isinstance(found, dict) else None
    crates: list[object] = listed if isinstance(listed, list) else []
    for crate in crates:
        if not isinstance(crate, dict) or crate.get("kind", "runtime") != "runtime":
            continue
        name, version = crate.get("name"), crate.get("version")
        if isinstance(name, str) and isinstance(version, str) and _WORD.fullmatch(name) and _WORD.fullmatch(version):
            yield Package(
                kind="cargo",
                name=name,
                version=version,
                location=path,
                depends=tuple(sorted(set(_needed(crate.get("dependencies"), crates)))),
                layer=layer,
            )


def _needed(numbers: object, crates: list[object]) -> Iterator[str]:
    for number in numbers if isinstance(numbers, list) else ():
        if isinstance(number, int) and 0 <= number < len(crates):
            crate = crates[number]
            if (
                isinstance(crate, dict)
                and crate.get("kind", "runtime") == "runtime"
                and isinstance(crate.get("name"), str)
            ):
                yield crate["name"]
