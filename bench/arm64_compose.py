"""Composes bases as a machine with another kind of processor does, and compares every layer with this one's.

    python bench/arm64_compose.py [--tools] [--platform OS/ARCH]... [--keep FOLDER] [BASE...]

As root, on amd64. Each base is locked here, for the platforms given (linux/amd64 and linux/arm64), and its packages and the
tools of makers are put beside the lock. An aerogel for arm64, run by qemu without a network (`tests/support/other_machine.py`
says how, and what is not as on a real machine), replays the lock with a hash seed, time zone, locale and number of jobs of its
own: `--locked` fails if one bit differs. Makers' tools (a Python, jlink) are those of the lock for arm64, and run emulated too.

That takes minutes for Python, Java and Node.js. With `--tools` the tools alone are arm64's, run by qemu, and aerogel is this
machine's: what it does itself does not depend on the machine if the whole is right for other bases. `--keep` keeps what this
side needs (packages, bytecode, locks), so that another run begins with the other. Debian packages: qemu-user-static,
gcc-aarch64-linux-gnu, npm for Node.js.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/support")]

PLATFORMS = ("linux/amd64", "linux/arm64")
DECLARATION = """\
apiVersion: aerogel/v1
kind: Base
name: mine
extends: %s
variants: {nonroot: null, debug: null, debug-nonroot: null}
"""
ABOUT = "import os, platform as p, time; print(p.machine(), p.python_version(), time.tzname[0], os.environ['LC_ALL'])"
TOOLS = """\
import sys
from aerogel.cli.main import main
from aerogel.distroless import work
from aerogel.oci.platform import Platform
from aerogel.sandbox.emulator import Emulator

Platform.host = classmethod(lambda cls: cls.parse("linux/arm64"))
opened = work.opened_room

def emulated(stack, helper, scratch, packages, **_):
    machine = "arm64" if any(one.package.architecture == "arm64" for one in packages) else "amd64"
    print(f"programs of {machine}: {len(packages)} packages", flush=True)
    is_foreign = Emulator().prepare(lambda: helper, f"linux/{machine}")
    return opened(stack, helper, scratch, packages, emulated=is_foreign)

work.opened_room = emulated
sys.exit(main())
"""
"""This machine's aerogel, which takes itself for one of arm64."""
OTHERWISE = {"PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "AEROGEL_JOBS": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bases", nargs="*", metavar="BASE")
    parser.add_argument("--tools", action="store_true")
    parser.add_argument("--platform", action="append", choices=PLATFORMS)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="other-machine-")))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return compare(
            folder.resolve(), options.bases or ("static", "cc"), options.platform or PLATFORMS, options.tools
        )


def compare(folder: Path, bases: Sequence[str], platforms: Sequence[str], tools: bool) -> int:
    """Locks here, replays there; how many bases and platforms differ or failed."""
    from process import Aerogel

    aerogel = Aerogel(folder / "state").alone()
    replay = tools_alone(folder) if tools else machine(folder, aerogel)
    failed = 0
    for base in bases:
        work = folder / "bases" / base
        lock(aerogel, work, base, platforms)
        for platform in platforms:
            words = ["base", "build", "--locked", "--platform", platform, "base.yaml", "--progress", "plain"]
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            status = replay(work, words)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            said = "every bit the same" if status == 0 else f"FAILED, status {status}"
            print(f"{base} {platform}: {said}; {time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU", flush=True)
            failed += status != 0
    print(f"load {os.getloadavg()[0]:.1f}")
    return failed


def machine(folder: Path, aerogel: Callable[..., object]) -> Callable[[Path, Sequence[str]], int]:
    """What runs a command of aerogel on the other machine, in a folder of this one, from an empty cache."""
    import other_machine

    shutil.rmtree(folder / "machine", ignore_errors=True)
    (folder / "machine").mkdir()
    tree = other_machine.make(folder / "machine", aerogel, with_filters=True)
    subprocess.run(other_machine.command(tree, folder, [other_machine.PYTHON, "-c", ABOUT]), check=True)

    def run(work: Path, words: Sequence[str]) -> int:
        shutil.rmtree(tree / "tmp/root", ignore_errors=True)
        argv = [other_machine.PYTHON, "-B", "-m", "aerogel", *words]
        return subprocess.run(other_machine.command(tree, work, argv), check=False).returncode

    return run


def tools_alone(folder: Path) -> Callable[[Path, Sequence[str]], int]:
    """What runs a command here with the other machine's tools, without a network."""
    state = folder / "state-with-tools"
    env = {**os.environ, **OTHERWISE, "AEROGEL_ROOT": str(state), "PYTHONPATH": str(ROOT / "src")}

    def run(work: Path, words: Sequence[str]) -> int:
        argv = ["unshare", "-n", sys.executable, "-B", "-c", TOOLS, *words]
        return subprocess.run(argv, cwd=work, env=env, check=False).returncode

    shutil.rmtree(state, ignore_errors=True)
    return run


def lock(aerogel: Callable[..., object], work: Path, base: str, platforms: Sequence[str]) -> None:
    """A declaration, its lock and what that names, in a folder; what is there for these platforms is kept."""
    known = work / "base.lock.json"
    if (work / "vendor").is_dir() and set(platforms) <= json.loads(known.read_text())["platforms"].keys():
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "base.yaml").write_text(DECLARATION % base)
    aerogel("base", "lock", "--platform", ",".join(platforms), cwd=work)
    aerogel("base", "vendor", cwd=work)


if __name__ == "__main__":
    sys.exit(main())
