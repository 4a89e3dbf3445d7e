"""Runs aerogel as users do, as a process of its own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import checked

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class Aerogel:
    """The command line with a store of its own: this environment's interpreter, or the launcher as another account.

    `checkout` is a copy of this repository that the account may read.
    """

    def __init__(self, state: Path, *, account: str = "", checkout: Path | None = None) -> None:
        self.state = state
        self.account = account
        self.checkout = checkout
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

    def __call__(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **options.pop("env", {})}
        options.setdefault("cwd", self.checkout or ROOT)
        done = subprocess.run(
            self.argv(*words), env=env, capture_output=True, text=True, errors="replace", timeout=1500, **options
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *words: str) -> Any:
        """What `--json` prints."""
        return json.loads(self(*words, "--json", "--progress=plain").stdout)


def files_of(folder: Path) -> list[Path]:
    """The files below a folder in which others make and remove some meanwhile: what goes is left out."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]
