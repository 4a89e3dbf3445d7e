"""Rungs that this machine would not take by itself: forced, or made necessary by taking rights away.

Debian packages: util-linux (setpriv), proot.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.host("setpriv", "proot"),
    pytest.mark.skipif(os.getuid() != 0, reason="rights are taken away from root"),
]

HERE = Path(__file__).parent
SCRIPT = """
import sys
from aerogel.errors import AerogelError, render
from aerogel.sandbox.launch import Helper
try:
    with Helper.start(sys.argv[1], preload=()) as helper: print(helper.rung, [f.problem for f in helper.findings])
except AerogelError as error:
    print(render(error))
    sys.exit(error.exit_status)
"""


def without(capabilities, *arguments, **variables):
    drop = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in capabilities)] if capabilities else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [*drop, sys.executable, "-B", *arguments],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_everything_on_the_identity_map(tmp_path_factory):
    """The tests of runs, mounts and jobs, by a root that has no CAP_SYS_ADMIN, with folders of their own."""
    own = f"--basetemp={tmp_path_factory.mktemp('own')}"
    names = [str(HERE / name) for name in ("test_run.py", "test_mounts.py", "test_jobs.py", "test_container.py")]
    done = without(
        ["sys_admin"], "-m", "pytest", "-q", "-p", "no:cacheprovider", own, *names, AEROGEL_TEST_ISOLATION="ident"
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "skipped" not in done.stdout


def test_root_without_admin_takes_the_identity_map(tmp_path):
    done = without(["sys_admin"], "-c", SCRIPT, str(tmp_path))
    assert done.stdout == "Rung(name='ident', map_id='ident', overlay='user', copies=False) ['no-admin', '']\n", done


def test_root_without_anything(tmp_path):
    done = without(["sys_admin", "setuid", "setgid", "setfcap"], "-c", SCRIPT, str(tmp_path))
    problems = ["no-admin", "map-refused", "no-range", "confined", "no-setuid", ""]
    assert done.stdout == f"Rung(name='proot', map_id='p0-0.copied', overlay='user', copies=True) {problems}\n", done


def test_root_of_an_outer_user_namespace(tmp_path, layer):
    """As below `podman unshare`: root with all rights over a namespace of its own, here with one id only."""
    script = SCRIPT.replace("print(helper.rung", "print(run(helper), helper.rung").replace(
        "try:",
        "from aerogel.sandbox.spec import *\n"
        "def run(helper):\n"
        f"    root = Rootfs(lowers=({layer!r},))\n"
        "    command = ('sh', '-c', 'touch /x; rm -r /srv; mkdir /srv; ls /dev/pts >/dev/null; id -u')\n"
        "    return helper.run(Sandbox(argv=command, root=root), stdout=1, stderr=2).wait().code\n"
        "try:",
    )
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-B", "-c", script, str(tmp_path)],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n0 Rung(name='root', map_id='root.0-0-1', overlay='user', copies=False) ['']\n", done
