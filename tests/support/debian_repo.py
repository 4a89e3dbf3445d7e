"""Makes .deb files and a small signed Debian archive in memory, with keys made on the spot."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import time
from collections.abc import Iterable
from email.utils import formatdate

import pysequoia


def ar(members: Iterable[tuple[str, bytes]]) -> bytes:
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        out += b"\n" * (len(data) & 1)
    return out


def tar(entries: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as writer:
        for entry in entries:
            if isinstance(entry, tuple):
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                writer.addfile(info, io.BytesIO(entry[1]))
            else:
                writer.addfile(entry)
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def compress(data: bytes, codec: str) -> bytes:
    if codec == "zst":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return {"xz": lzma.compress, "gz": gzip.compress, "": bytes}[codec](data)


def deb(
    fields: dict[str, str] | None = None,
    entries: Iterable[tarfile.TarInfo | tuple[str, bytes]] = (("./usr/share/doc/hello/copyright", b"free\n"),),
    *,
    codec: str = "xz",
    control: Iterable[tarfile.TarInfo | tuple[str, bytes]] | None = None,
) -> bytes:
    fields = {"Package": "hello", "Version": "1.0", "Architecture": "amd64", **(fields or {})}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()
    end = f".{codec}" if codec else ""
    return ar(
        [
            ("debian-binary", b"2.0\n"),
            ("control.tar" + end, compress(tar([("./control", text)] if control is None else control), codec)),
            ("data.tar" + end, compress(tar(entries), codec)),
        ]
    )


class Signer:
    def __init__(self, name: str = "Test Archive <test@example.org>") -> None:
        self.secret = pysequoia.Tsk.generate(name)

    @property
    def armored(self) -> str:
        return str(self.secret.extract_certificate())

    @property
    def public(self) -> bytes:
        return bytes(self.secret.extract_certificate())

    def clear_sign(self, text: bytes) -> bytes:
        return bytes(pysequoia.sign(self.secret.signer(), text, mode=pysequoia.SignatureMode.CLEAR))


class Repo:
    """One archive root: `put` packages into suites, `publish` makes the files that a server serves."""

    def __init__(self, signer: Signer, *, root: str = "/debian") -> None:
        self.signer = signer
        self.root = root
        self.pool: dict[str, bytes] = {}
        self.suites: dict[str, list[dict[str, str]]] = {}
        self.fields: dict[str, str] = {}
        self.variants = ("xz", "gz")
        self.by_hash = True
        self.keep_plain = True

    def put(self, suite: str, package: dict[str, str], data: bytes | None = None) -> None:
        fields = {"Version": "1.0", "Architecture": "amd64", "Priority": "optional", **package}
        if data is None:
            data = deb(fields)
        name = f"pool/main/{fields['Package']}_{fields['Version'].replace(':', '%3a')}_{fields['Architecture']}.deb"
        self.pool[name] = data
        fields |= {"Filename": name, "Size": str(len(data)), "SHA256": hashlib.sha256(data).hexdigest()}
        self.suites.setdefault(suite, []).append(fields)

    def packages(self, suite: str, arch: str) -> bytes:
        wanted = [fields for fields in self.suites[suite] if fields["Architecture"] in ("all", arch)]
        return "\n".join("".join(f"{k}: {v}\n" for k, v in fields.items()) for fields in wanted).encode()

    def release(
        self, suite: str, *, arches: Iterable[str] = ("amd64",), **fields: str
    ) -> tuple[bytes, dict[str, bytes]]:
        files: dict[str, bytes] = {}
        lines = []
        for arch in arches:
            plain = self.packages(suite, arch)
            stem = f"main/binary-{arch}/Packages"
            lines.append((stem, plain))
            for codec in self.variants:
                data = compress(plain, codec)
                lines.append((f"{stem}.{codec}", data))
                if self.keep_plain:
                    files[f"{stem}.{codec}"] = data
                if self.by_hash:
                    files[f"main/binary-{arch}/by-hash/SHA256/{hashlib.sha256(data).hexdigest()}"] = data
        text = {
            "Origin": "Debian",
            "Suite": suite,
            "Codename": suite,
            "Date": formatdate(time.time() - 60, usegmt=True).replace("GMT", "UTC"),
            "Acquire-By-Hash": "yes" if self.by_hash else "no",
            "Architectures": " ".join(arches),
            "Components": "main",
            **self.fields,
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        head = "".join(f"{name}: {value}\n" for name, value in text.items())
        sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in lines)
        return (head + "SHA256:\n" + sums).encode(), files

    def publish(self, suite: str, *, arches: Iterable[str] = ("amd64",), **fields: str) -> dict[str, bytes]:
        text, files = self.release(suite, arches=arches, **fields)
        served = {f"{self.root}/dists/{suite}/{name}": data for name, data in files.items()}
        served[f"{self.root}/dists/{suite}/InRelease"] = self.signer.clear_sign(text)
        served |= {f"{self.root}/{name}": data for name, data in self.pool.items()}
        return served
