"""`aerogel doctor` on hosts of each kind that refuses something: the rung, why no better one, and the line that mends it.

The hosts are simulated (`support/hosts.py`). Debian packages: uidmap, util-linux, passwd, proot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from process import Aerogel

pytestmark = [
    pytest.mark.host("setpriv", "unshare", "newuidmap", "proot"),
    pytest.mark.skipif(os.getuid() != 0, reason="hosts are simulated by root"),
]

UIDMAP = "as root: `apt-get install uidmap` (Debian, Ubuntu) or `dnf install shadow-utils` (Fedora)"
OUTER = (
    "start the outer container with `--security-opt seccomp=unconfined`; "
    "in a pod set `securityContext: {seccompProfile: {type: Unconfined}}`"
)
APPARMOR = "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
QUOTA = "as root: `sysctl -w user.max_user_namespaces=15000`"

PROOT = "as root: `apt-get install proot` (Debian, Ubuntu) or `dnf install proot` (Fedora), or put it in the image"

HOSTS = {
    "apparmor": ("proot", {"subid": ("AppArmor takes all rights", APPARMOR), "single": ("AppArmor takes", APPARMOR)}),
    "no-newuidmap": ("single", {"subid": ("`newuidmap` and `newgidmap` cannot be found", UIDMAP)}),
    "no-proot": ("", {"single": ("the kernel makes no user", OUTER), "proot": ("`proot` cannot be found", PROOT)}),
    "pod": (
        "proot",
        {"subid": ("the kernel makes no user namespace here", OUTER), "single": ("the kernel makes", OUTER)},
    ),
    "quota": (
        "proot",
        {"ident": ("the host allows no user namespaces", QUOTA), "single": ("the host allows no", QUOTA)},
    ),
}


@pytest.mark.parametrize("kind", HOSTS)
def test_doctor_tells_the_rung_and_the_fix(ordinary: Aerogel, tmp_path: Path, kind: str) -> None:
    program = Aerogel(tmp_path) if kind == "quota" else ordinary
    words = program.argv("doctor", "--offline", "--json")
    if kind != "quota":
        words = words[words.index("--init-groups") + 1 :]
    support = Path(__file__).parents[1] / "support"
    env = {**program.env, "PYTHONPATH": f"{support.parents[1] / 'src'}"}
    done = subprocess.run(
        [sys.executable, str(support / "hosts.py"), kind, ordinary.account, *words],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    rows = {row["what"]: row for row in json.loads(done.stdout)["findings"]}
    rung, refused = HOSTS[kind]
    assert done.returncode == (0 if rung else 3), done.stdout
    for name, (message, fix) in refused.items():
        row = rows[f"isolation {name}"]
        assert row["found"].startswith(message), row
        assert fix in row["fixes"], row
        assert row["state"] == ("unused" if rung else "problem")
    taken = [
        what.split()[1]
        for what, row in rows.items()
        if what.startswith("isolation") and row["state"] in ("ok", "warning")
    ]
    assert taken == ([rung] if rung else [])
