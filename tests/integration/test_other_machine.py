"""A machine with another kind of processor makes the same bits of a lock; emulated, see `other_machine`.

What makers make is compared by `bench/arm64_compose.py`: an emulated Python takes minutes for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import other_machine
import pytest
from process import Aerogel

ALONE = "apiVersion: aerogel/v1\nkind: Base\nvariants: {nonroot: null, debug: null, debug-nonroot: null}\n"
BASES = {
    ("static", "linux/arm64"): "name: one\nextends: static\n",
    ("base", "linux/amd64"): "name: two\nextends: base\ntimezone: Europe/Berlin\n"
    "accounts: {users: [{name: app, uid: 10001, home: /home/app}], run-as: app}\n"
    'paths: [{dir: /data, owner: app, mode: "0750"}, {file: /etc/app.conf, source: base.yaml}]\n',
}
PROGRAM = """\
import json, os, sys, time
from aerogel.cli.main import main
print(os.uname().machine, os.getuid(), time.tzname[0], flush=True)
work = os.getcwd()
for name, platform in json.loads(sys.argv[1]):
    os.chdir(f"{work}/{name}")
    status = main(["base", "build", "--locked", "--platform", platform, "base.yaml", "--progress", "plain"])
    if status:
        sys.exit(status)
"""


@pytest.mark.network
@pytest.mark.host("qemu-aarch64-static")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="on an amd64 machine alone another one is emulated")
def test_an_arm64_machine_makes_the_same_bits(tmp_path: Path, aerogel: Aerogel) -> None:
    """Another user, Python, hash seed, zone, locale, number of jobs, too; no network there: packages lie beside the locks."""
    if os.getuid() != 0:
        pytest.skip("only root can make another machine's tree its root")
    work = tmp_path / "work"
    for (name, platform), text in BASES.items():
        (work / name).mkdir(parents=True)
        (work / name / "base.yaml").write_text(ALONE + text)
        aerogel("base", "lock", "--platform", platform, cwd=work / name)
        aerogel("base", "vendor", cwd=work / name)
    work.chmod(0o755)
    words = ["-B", "-c", PROGRAM, json.dumps(list(BASES))]
    env = {**aerogel.env, "TZ": "UTC"}
    here = subprocess.run([sys.executable, *words], cwd=work, env=env, capture_output=True, text=True)
    assert here.returncode == 0, here.stderr
    tree = other_machine.make(tmp_path, aerogel, other_machine.NEEDED)
    argv = other_machine.command(tree, work, [other_machine.PYTHON, *words], user=4321)
    there = subprocess.run(argv, capture_output=True, text=True)
    assert there.returncode == 0, there.stderr
    ours, *digests = here.stdout.splitlines()
    assert ours == "x86_64 0 UTC"
    assert len(set(digests)) == len(BASES)
    assert there.stdout.splitlines() == ["aarch64 4321 JST", *digests]
    shutil.rmtree(tree)
