"""Coverage-guided fuzzing with atheris: `python tests/fuzz/fuzz.py TARGET [libFuzzer options] [CORPUS...]`.

A target is `dockerfile`, `word` or `ignore` (see `targets.py`). For ten minutes, stopping at a crash or at an input
that takes five seconds: `python tests/fuzz/fuzz.py word -max_total_time=600 -timeout=5 corpus`. Without a corpus it
begins with a few inputs of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "src")]

with atheris.instrument_imports(include=["aerogel.dockerfile", "aerogel.files.pattern", "aerogel.lint"]):
    from targets import TARGETS

from generate import documents  # noqa: E402 - the path comes first

SEEDS = {
    "dockerfile": [text.encode() for text in documents(7, 300)] + [b"FROM a\n" + t.encode() for t in documents(8, 300)],
    "word": [
        b"\0$a${b:-$c}",
        b"\1`$a\"'x'\"${a#*1}",
        b"\2${path//\\//${a}}",
        b"\4${long%%b?a*}${x:?no}",
        b'\x08"\\$a\\"${star/\\*/x}"',
        b"\x10$1$@${empty+set}",
    ],
    "ignore": [
        b"*.py\n!a.py\n\0a.py\0b/a.py",
        b"**/x\n!**/x/[a-c]?\n\0x/ab",
        b"# c\n/a/../b\\*\n!b\0b*",
        b"a**b\n**a\n[^x-z]/*\n\0axxb",
    ],
}


def main() -> None:
    """Hands the process to libFuzzer, which ends it."""
    name, *options = sys.argv[1:]
    corpora = [one for one in options if not one.startswith("-")]
    if not corpora:
        folder = tempfile.mkdtemp(prefix="aerogel-fuzz-")
        options.append(folder)
        corpora = [folder]
    first = Path(corpora[0])
    first.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (first / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
