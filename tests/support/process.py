"""Runs aerogel as users do, as a process of its own: of each form of command the first from Python's first line on.

What comes after it in the same run of tests is born by a process that has imported everything, see `mother`.
"""

from __future__ import annotations

import copy
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import checked
import mother

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
GROUPS = ("base", "cache", "container", "key", "manifest", "registry", "volume")
"""Commands whose second word is the command."""
_forms: set[tuple[str, ...]] = set()
"""Of commands that have been run from Python's first line on."""


class Aerogel:
    """The command line with a store of its own: this environment's interpreter, or the launcher as another account.

    `checkout` is a copy of this repository that the account may read.
    """

    def __init__(self, state: Path, *, account: str = "", checkout: Path | None = None) -> None:
        self.state = state
        self.account = account
        self.checkout = checkout
        self.is_alone = False
        self.env = {**os.environ, "AEROGEL_ROOT": str(state), "COLUMNS": "120"}
        if account:
            self.env |= {"HOME": pwd.getpwnam(account).pw_dir, "PATH": SYSTEM_PATH}
            self.env.pop("PYTHONPATH", None)
        else:
            self.env["PYTHONPATH"] = str(ROOT / "src")

    def argv(self, *words: str) -> list[str]:
        checked.touch(self.state / "data")
        if not self.account:
            return [sys.executable, "-m", "aerogel", *words]
        entry = pwd.getpwnam(self.account)
        drop = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups"]
        return [*drop, f"{self.checkout}/aerogel", *words]

    def alone(self) -> Self:
        """The same, whose commands all begin with Python's first line: where memory, time or processes are looked at."""
        other = copy.copy(self)
        other.is_alone = True
        return other

    def __call__(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **options.pop("env", {})}
        folder = options.pop("cwd", self.checkout or ROOT)
        if self._can_be_born(words, env) and not options:
            checked.touch(self.state / "data")
            found = mother.run(words, folder, env)
            out, err = (_text(data) for data in (found.stdout, found.stderr))
            done = subprocess.CompletedProcess(words, found.returncode, out, err)
        else:
            done = subprocess.run(
                self.argv(*words),
                env=env,
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=1500,
                **options,
            )
        if check and done.returncode != 0:
            raise AssertionError(f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def _can_be_born(self, words: tuple[str, ...], env: dict[str, str]) -> bool:
        is_alone = self.is_alone or bool(os.environ.get("AEROGEL_TEST_ALONE"))
        if is_alone or self.account or type(self).argv is not Aerogel.argv or not mother.is_possible(env):
            return False
        words = tuple(map(str, words))
        form = (
            *words[: 2 if words[:1] and words[0] in GROUPS else 1],
            *sorted({word.partition("=")[0] for word in words if word.startswith("-")}),
        )
        is_known = form in _forms
        _forms.add(form)
        return is_known

    def json(self, *words: str) -> Any:
        """What `--json` prints."""
        return json.loads(self(*words, "--json", "--progress=plain").stdout)


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def files_of(folder: Path) -> list[Path]:
    """The files below a folder in which others make and remove some meanwhile: what goes is left out."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]
