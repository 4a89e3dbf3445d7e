"""Cases of `golden/errors`: a context with a mistake, the command line, and all that a user gets to see of it.

Each case is a folder that is copied and built: `command` has the words after `aerogel` (default `build .`),
`expected` the command, standard error and the exit status. The message must be in the house form and the store as
it was before.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from aerogel.store.store import Store

ERRORS = Path(__file__).resolve().parents[1] / "golden" / "errors"
STATUSES = {1, 2, 3, 4}
MAX_LINES = 60
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SECONDS = re.compile(r"\b\d+\.\d+s")
_KEY = re.compile(r"\bkey [0-9a-f]{40}\b")
_LOG = re.compile(r"`[^`]*/logs-v1/[^`]*`")
_RANGE = re.compile(r"--add-subuids \d+-\d+ --add-subgids \d+-\d+")
_PORT = re.compile(r"127\.0\.0\.1:\d+")
_PROGRESS = re.compile(r"(?m)^(#\d+ .*|FROM .* -> .*)\n")


def cases(prefix: str = "") -> list[str]:
    """The names of the cases; those that need more than files begin with `host-`, `setup-` or `network-`."""
    names = sorted(path.name for path in ERRORS.iterdir())
    if prefix:
        return [name for name in names if name.startswith(prefix)]
    return [name for name in names if not name.startswith(("host-", "setup-", "network-"))]


def copy_case(name: str, folder: Path) -> list[str]:
    """Copies the context of a case to `folder`, which it makes, and returns the words of its command line."""
    shutil.copytree(ERRORS / name, folder, symlinks=True)
    (folder / "expected").unlink(missing_ok=True)
    command = folder / "command"
    words = shlex.split(command.read_text()) if command.exists() else ["build", "."]
    command.unlink(missing_ok=True)
    return words


def normal(text: str, *folders: Path) -> str:
    """Without what differs between runs: progress, digests, times, ports, folders."""
    for folder in folders:
        text = text.replace(str(folder), "<tmp>")
    text = _LOG.sub("`<log>`", _PROGRESS.sub("", text))
    text = _RANGE.sub("--add-subuids <free> --add-subgids <free>", text)
    text = _KEY.sub("key <fingerprint>", _DIGEST.sub("sha256:<digest>", text))
    return _PORT.sub("127.0.0.1:<port>", _SECONDS.sub("<time>", text))


def transcript(words: list[str], stderr: str, status: int, *folders: Path) -> str:
    """What the golden file of a case holds."""
    return normal(f"$ aerogel {shlex.join(words)}\n{stderr}exit status {status}\n", *folders)


def check_form(text: str) -> None:
    """The house form: first what, at the end a hint, one screen, no traceback.

    The output of a step that failed says itself what to do.
    """
    lines = text.splitlines()
    assert lines[1].startswith(("error: ", "warning: ")), text
    assert "\nerror: " in text, text
    assert "Traceback" not in text
    assert "this is a bug" not in text
    assert any(line.startswith("hint: ") for line in lines) or "RUN failed: " in text, "no hint:\n" + text
    assert not lines[1].endswith("."), text
    assert int(lines[-1].split()[-1]) in STATUSES, text
    assert len(lines) <= MAX_LINES, text


def leftovers(state: Path, *, locks: bool = True) -> list[str]:
    """What an ended build must not leave in its store: scratch space, files of locks."""
    found = [*state.glob("*/scratch/*"), *(state.glob("*/locks/*") if locks else ())]
    return sorted(str(path.relative_to(state)) for path in found)


def images(state: Path) -> list[tuple[str, ...]]:
    """The images in a store: digest and names of each."""
    with Store.open(state / "data", state / "cache") as store:
        return [(str(one.descriptor.digest), *map(str, one.references)) for one in store.images.list()]
