"""The fuzzer's targets on inputs from a seed, and the fuzzer itself for a moment.

`AEROGEL_FUZZ_COUNT` and `AEROGEL_FUZZ_SEED` as in `test_fuzz_dockerfile.py`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from generate import documents
from targets import TARGETS

COUNT = int(os.environ.get("AEROGEL_FUZZ_COUNT", "6000"))
SEED = int(os.environ.get("AEROGEL_FUZZ_SEED", "1"))
ALPHABETS = {
    "word": [
        "$",
        "{",
        "}",
        ":",
        "-",
        "+",
        "?",
        "#",
        "%",
        "/",
        "\\",
        "`",
        "'",
        '"',
        "*",
        " ",
        "a",
        "b",
        "long",
        "\ud800",
    ],
    "ignore": ["*", "**", "?", "[", "]", "^", "-", "!", "#", "/", "\\", "\n", "\0", ".", "..", " ", "a", "b", "c"],
}


@pytest.mark.parametrize("name", ["word", "ignore"])
def test_random_texts(name: str) -> None:
    rng = random.Random(SEED)
    for _ in range(COUNT):
        text = "".join(rng.choice(ALPHABETS[name]) for _ in range(rng.randrange(24)))
        data = bytes([rng.randrange(32)]) + text.encode("utf-8", "surrogateescape" if name == "ignore" else "replace")
        TARGETS[name](data)


def test_random_dockerfiles() -> None:
    for text in documents(SEED + 3, COUNT // 6):
        TARGETS["dockerfile"](b"FROM a\n" + text.encode())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_fuzzer_for_a_moment(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the fuzzer is not installed")
    words = [sys.executable, str(Path(__file__).with_name("fuzz.py")), name]
    options = ["-runs=2000", f"-seed={SEED}", "-timeout=20", f"-artifact_prefix={tmp_path}/", str(tmp_path / "corpus")]
    done = subprocess.run([*words, *options], capture_output=True, text=True, errors="replace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
