"""The contexts of the workloads, the same on every machine: made from a seed, without network (but for W5).

`scale` 1 is the size that is published; numbers of files and bytes shrink with it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BASE = "BASE"
"""Stands in Dockerfiles for the small base image."""
BIG_BASE = "BIG_BASE"
DEBIAN_BASE = "DEBIAN_BASE"

_POOL = 16 << 20
_WORDS = 700


class Workload(NamedTuple):
    """`runs` are the measured variants: `cold` (nothing kept, registry empty), `again` (nothing changed, not pushed), `touched`
    (one file changed), `steps` (base at hand, `--no-cache`). With `push` the image goes to a registry.
    """

    name: str
    title: str
    runs: tuple[str, ...]
    push: bool
    make: Callable[[Path, float], None]
    touch: str = ""
    jobs: int = 1


class Pool:
    """Text that compresses like code, bytes that compress like programs, and noise."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        letters = "etaoinsrhldcumfpgwybvkxjqz"
        names = ["".join(self.rng.choices(letters, k=self.rng.randint(2, 11))) for _ in range(_WORDS)]
        weights = [1 / (rank + 1) ** 1.25 for rank in range(_WORDS)]
        forms = (
            "  const {} = {}.{}({}, {});\n",
            "function {}({}, {}) {{\n  return {}.{};\n}}\n",
            "    if ({} !== {}.{}) throw new Error('{} {}');\n",
            "exports.{} = {}; // {} {} {}\n",
            '  "{}": "{}/{}-{}.{}",\n',
        )
        lines = []
        size = 0
        while size < 1 << 20:
            line = self.rng.choice(forms).format(*self.rng.choices(names, weights, k=5))
            lines.append(line)
            size += len(line)
        self.text = b""
        while len(self.text) < _POOL:
            self.rng.shuffle(lines)
            self.text += "".join(lines).encode()
        table = bytes(min(255, int(self.rng.expovariate(1 / 40))) for _ in range(256))
        noise = self.rng.randbytes(_POOL).translate(table)
        pieces = [noise[at : at + 40] for at in range(0, _POOL, _POOL // 600)]
        self.program = b"".join(
            noise[at : at + 24] + pieces[self.rng.randrange(len(pieces))] for at in range(0, _POOL - 64, 64)
        )

    def take(self, pool: bytes, size: int) -> bytes:
        at = self.rng.randrange(max(1, len(pool) - size))
        return pool[at : at + size] if size <= len(pool) else (pool * (size // len(pool) + 1))[:size]


def _write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def modules(folder: Path, files: int, size: int, seed: int = 3) -> None:
    """A tree like `node_modules`: packages of a dozen files in a few folders."""
    pool = Pool(seed)
    rng = pool.rng
    average = size / files
    number = package = 0
    while number < files:
        root = folder / "node_modules" / (f"@scope{package % 40}/" * (package % 7 == 0)) / f"package-{package}"
        package += 1
        names = ["package.json", "README.md", "LICENSE", "index.js"]
        names += [f"{rng.choice(('lib', 'dist', 'dist/esm', 'src'))}/{k}.{rng.choice(('js', 'js', 'map', 'ts'))}"
                  for k in range(rng.randint(2, 34))]  # fmt: skip
        for name in names[: files - number]:
            length = min(int(rng.lognormvariate(0, 1.5) * average / 3.1), 4 << 20)
            _write(root / name, f"// {package} {name}\n".encode() + pool.take(pool.text, length))
            number += 1


def w1(folder: Path, scale: float) -> None:
    """Three stages, 26 instructions, twelve of them RUN."""
    del scale
    for name in ("a", "b", "c"):
        _write(folder / name / "file", f"content of {name}\n" * 20)
    lines = []
    for stage in ("one", "two"):
        lines += [f"FROM {BASE} AS {stage}", "WORKDIR /work", "ENV KEY=value", "COPY a /work/a", "COPY b /work/b"]
        lines += [f"RUN echo {stage} {k} >> /work/out && cat /work/a/file > /work/{k}" for k in range(5)]
    lines += [f"FROM {BASE}", "COPY --from=one /work /one", "COPY --from=two /work /two", "COPY c /c"]
    lines += ["RUN cat /one/out > /sum", "RUN cat /two/out >> /sum"]
    _write(folder / "Dockerfile", "\n".join(lines) + "\n")


def w3(folder: Path, scale: float) -> None:
    """A tree of many small files."""
    modules(folder, int(40_800 * scale), int(402e6 * scale))
    _write(folder / "Dockerfile", "FROM scratch\nCOPY node_modules /app/node_modules\n")


def w4(folder: Path, scale: float) -> None:
    """One big file: a third text, a third programs, a quarter noise, some zeros."""
    pool = Pool(4)
    left = int(1049e6 * scale)
    folder.mkdir(parents=True)
    with (folder / "big").open("wb") as file:
        while left > 0:
            kind = pool.rng.random()
            length = min(left, pool.rng.randint(1 << 16, 1 << 21))
            if kind < 0.35:
                file.write(pool.take(pool.text, length))
            elif kind < 0.70:
                file.write(pool.take(pool.program, length))
            elif kind < 0.95:
                file.write(pool.rng.randbytes(length))
            else:
                file.write(bytes(length))
            left -= length
    _write(folder / "Dockerfile", "FROM scratch\nCOPY big /big\n")


def w5(folder: Path, scale: float) -> None:
    """The compiler of C installed with dpkg from packages that lie in the context; `prepare` puts them there."""
    del scale
    _write(folder / "Dockerfile", f"FROM {DEBIAN_BASE}\nCOPY debs /debs\nRUN dpkg -i /debs/*.deb >/dev/null\n")


def w6(folder: Path, scale: float) -> None:
    """Five stages that sleep."""
    lines = []
    for k in range(5):
        lines += [f"FROM {BASE} AS s{k}", f"RUN sleep {round(3 * scale, 2)} && echo {k} > /out{k}"]
    lines += [f"FROM {BASE}", *(f"COPY --from=s{k} /out{k} /" for k in range(5))]
    _write(folder / "Dockerfile", "\n".join(lines) + "\n")


def w7(folder: Path, scale: float) -> None:
    """A base of eight layers, pulled and unpacked for one RUN."""
    del scale
    _write(folder / "Dockerfile", f'FROM {BIG_BASE}\nRUN ["/bin/busybox", "true"]\n')


WORKLOADS = {
    one.name: one
    for one in (
        Workload("w1", "nothing to do: 3 stages, 26 instructions", ("again",), False, w1),
        Workload("w2", "12 RUN steps, base at hand", ("steps",), False, w1),
        Workload("w3", "COPY of 40,800 files, 402 MB, push", ("cold", "again", "touched"), True, w3,
                 touch="node_modules/package-1/index.js"),
        Workload("w4", "COPY of one file of 1 GB, push", ("cold", "again"), True, w4),
        Workload("w5", "dpkg -i of gcc, push", ("cold",), True, w5),
        Workload("w6", "five stages of `sleep 3`", ("steps",), False, w6, jobs=5),
        Workload("w7", "pull and unpack 8 layers, 527 MB, one RUN", ("cold",), False, w7),
    )
}  # fmt: skip


def base(folder: Path) -> None:
    """The small base image: busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("error: there is no `busybox`\nhint: on Debian: apt-get install busybox-static")
    (folder / "bin").mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    for name in ("sh", "cat", "echo", "sleep", "true", "ls", "mkdir", "rm", "cp"):
        (folder / "bin" / name).symlink_to("busybox")
    _write(folder / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    _write(folder / "Dockerfile", "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nENV PATH=/bin\n")


def big_base(folder: Path, scale: float) -> None:
    """The base of W7: busybox and eight layers of text and programs."""
    base(folder)
    pool = Pool(7)
    for layer in range(8):
        share = (0.35, 0.2, 0.15, 0.1, 0.08, 0.06, 0.04, 0.02)[layer]
        for k in range(int(21_000 * scale * share)):
            length = min(int(pool.rng.lognormvariate(0, 1.6) * 25_100 / 3.6), 16 << 20)
            source = pool.text if pool.rng.random() < 0.6 else pool.program
            _write(folder / f"l{layer}/usr/{k % 97}/{layer}-{k}", pool.take(source, length))
    lines = ["FROM scratch", "COPY bin /bin", *(f"COPY l{k} /" for k in range(8)), "ENV PATH=/bin"]
    _write(folder / "Dockerfile", "\n".join(lines) + "\n")


def debian_base(folder: Path) -> None:
    """The base of W5, from the Debian mirror: a build root, and in a stage of its own the packages of gcc."""
    fetch = "apt-get update && apt-get install -y --no-install-recommends --download-only gcc"
    lines = ["FROM debian:trixie AS base", "LABEL bench=1", "FROM base AS fetch", f"RUN {fetch}"]
    lines += ["FROM scratch AS debs", "COPY --from=fetch /var/cache/apt/archives/*.deb /"]
    _write(folder / "Dockerfile", "\n".join(lines) + "\n")
