"""Runs every check: format, lint, types, spelling, generated files, then the tests. Called by `./check`.

    ./check                   everything (some 45 minutes on two processors)
    ./check --fast            what needs neither network nor namespaces (three minutes)
    ./check --fix             formats, and writes generated files, before checking
    ./check -- -k tar         words after `--` go to pytest

Makes its own environment from `requirements-dev.lock` in the cache folder; installs the Debian packages of
`tests/system-packages.txt` when it runs as root. Standard library only.
"""

import argparse
import hashlib
import importlib.util
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAST = ("tests/unit", "tests/golden", "tests/house")
BASES = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        "builders",
        "build_roots",
        "real_programs",
        "runtimes",
        "https_programs",
        "foreign_programs",
        "structure",
        "family",
    )
)
"""Tests of base images, which compose and link much: each one once, as they share a store."""
REGISTRIES = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        "attest",
        "copy_images",
        "distribution",
        "keyless",
        "lazy_bases",
        "manifest",
        "policies",
        "registry",
        "registry_clients",
        "registry_faults",
        "remote_cache",
        "s3_cache",
        "serve",
        "sign",
    )
)
REPEATED = ("tests/integration/test_reproducible.py", "tests/integration/test_platforms.py")
HOST = {
    "bases": BASES,
    "commands": ("tests/integration", *(f"--ignore={one}" for one in (*BASES, *REGISTRIES, *REPEATED))),
    "sandbox": ("tests/host", "--ignore=tests/host/solve", "tests/redteam", "tests/fuzz"),
    "platforms": REPEATED,
    "registries": REGISTRIES,
    "engine": ("tests/host/solve",),
    "differential": ("tests/differential",),
    "quick places": FAST,
}
"""The tests on the host in parts, the longest first: whichever lane has ended one begins the next.

What the quick tests have run is left out of the last one.
"""
LANES = 2
"""How many parts run side by side, each lane with its own account."""
SOURCES = ("src", "tests", "tools", "bench")
DISK_BYTES = 45 * 10**9
"""What a whole run writes, and some room."""
MOST_AGAIN = 5
"""More failures than this are no accident."""
SUMMARY = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|deselected)\b")


def main() -> int:
    """Runs the parts in order, goes on after a failure, ends with one line that counts the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="only what needs neither network nor namespaces")
    parser.add_argument("--fix", action="store_true", help="format and regenerate before checking")
    parser.add_argument("--jobs", default="auto", metavar="N", help="pytest workers for the quick tests")
    parser.add_argument("pytest", nargs="*", help="words for pytest")
    options = parser.parse_args()
    os.chdir(ROOT)
    check = Check()
    if not options.fast:
        check.part("disk", warn_of_little_disk)
        check.part("system packages", system_packages)
    python = check.part("environment", environment)
    if python is None:
        return check.end()
    sources = [one for one in SOURCES if Path(one).is_dir()]
    if options.fix:
        check.command("fix", python, "-m", "ruff", "format", "--quiet", *sources)
        check.command("fix generated files", python, "tools/gen_reference.py", "--write")
    check.command("format", python, "-m", "ruff", "format", "--check", "--quiet", *sources)
    check.command("lint", python, "-m", "ruff", "check", "--quiet", *sources)
    check.command("types", python, "-m", "mypy", "--no-error-summary")
    check.command("spelling", python, "-m", "codespell_lib", *tracked_texts())
    check.command("generated files", python, "tools/gen_reference.py", "--check")
    check.command("lock files", python, "tools/lock.py", "--check")
    quick = [one for one in FAST if has_tests(one)]
    marks = ["-m", "not host and not network and not slow"] if options.fast else ["-m", "not host and not network"]
    check.tests("quick tests", python, "-n", options.jobs, *marks, *quick, *options.pytest)
    if not options.fast:
        check.on_host(python, *options.pytest)
    return check.end()


class Check:
    """What has run, how long it took, what failed, how many tests there were."""

    def __init__(self) -> None:
        self.timings: list[tuple[str, float]] = []
        self.failed: list[str] = []
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.environ = {**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": ""}

    def part(self, name, function):
        """Runs a function of this file; its result, or None when it raised `Missing`."""
        print(f"== {name}", flush=True)
        began = time.monotonic()
        try:
            return function()
        except Missing as error:
            print(error, flush=True)
            self.failed.append(name)
            return None
        finally:
            self.timings.append((name, time.monotonic() - began))

    def command(self, name, *words) -> int:
        """Runs a program that says by its status whether all is well."""
        print(f"== {name}", flush=True)
        began = time.monotonic()
        status = subprocess.run(words, env=self.environ, stdin=subprocess.DEVNULL).returncode
        self.timings.append((name, time.monotonic() - began))
        if status:
            self.failed.append(name)
        return status

    def tests(self, name, python, *words) -> None:
        """Runs pytest, passes its output on, and adds its counts."""
        run = Pytest(name, python, words)
        run.begin(self.environ)
        run.show()
        self._again(run)
        self._add(run)

    def on_host(self, python, *words) -> None:
        """Runs the tests on the host, part by part on as many lanes as there are; output comes in the order of `HOST`."""
        runs = []
        for name, part in HOST.items():
            folders = [one for one in part if one.startswith("--") or has_tests(one)]
            own = ("-o", f"cache_dir=.pytest_cache/{name}", "--durations=10")
            marks = ("-m", "host or network") if part == FAST else ()
            runs.append(Pytest(f"tests on the host: {name}", python, (*own, *marks, *folders, *words)))
        waiting = iter(runs)
        lock = threading.Lock()

        def lane(number: int) -> None:
            environ = {**self.environ, "AEROGEL_TEST_ACCOUNT": f"aerogel-tester{number}"}
            while True:
                with lock:
                    run = next(waiting, None)
                if run is None:
                    return
                run.run(environ)

        for number in range(LANES):
            threading.Thread(target=lane, args=(number,), daemon=True).start()
        for run in runs:
            run.show()
        for run in runs:
            self._again(run)
            self._add(run)

    def _again(self, run) -> None:
        """Tests that failed get one more try, alone: they share the host with others and watch signals and times.

        What fails twice has failed; what needed two tries is named. No command is born by another process then.
        """
        if run.status != 1 or not 0 < run.counts["failed"] <= MOST_AGAIN:
            return
        second = Pytest(f"{run.name}: those that failed", run.python, ("--last-failed", *run.words, "-n", "0"))
        second.begin({**run.environ, "AEROGEL_TEST_ALONE": "1"})
        second.show()
        print(f"{second.counts['passed']} passed at the second try, see the first one above", flush=True)
        self.timings.append((second.name, second.seconds))
        run.counts["passed"] += second.counts["passed"]
        run.counts["failed"] = second.counts["failed"]
        run.status = second.status

    def _add(self, run) -> None:
        self.timings.append((run.name, run.seconds))
        for what, number in run.counts.items():
            self.counts[what] += number
        if run.status not in (0, 5):  # 5: nothing was selected
            self.failed.append(run.name)

    def end(self) -> int:
        """Prints timings, what failed, and the closing line that runners read; the exit status."""
        print("== timings")
        for name, seconds in self.timings:
            print(f"{seconds:8.1f} s  {name}")
        if self.failed:
            print("failed: " + ", ".join(self.failed))
        print("{passed} passed, {failed} failed, {skipped} skipped".format(**self.counts), flush=True)
        return 1 if self.failed else 0


class Pytest:
    """One run of pytest; its output is kept until it is shown."""

    def __init__(self, name, python, words) -> None:
        self.name = name
        self.python = python
        self.words = words
        self.environ = {}
        self.seconds = 0.0
        self.status = 1
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self._command = [
            python,
            "-m",
            "pytest",
            "-q",
            "--timeout=1800",
            *words,
        ]
        self._lines = queue.SimpleQueue()

    def begin(self, environ) -> None:
        """Runs it in the background."""
        threading.Thread(target=self.run, args=(environ,), daemon=True).start()

    def run(self, environ) -> None:
        """Runs it to its end."""
        self.environ = environ
        began = time.monotonic()
        try:
            with subprocess.Popen(
                self._command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
            ) as process:
                for line in process.stdout:
                    self._lines.put(line)
            self.status = process.returncode
        finally:
            self.seconds = time.monotonic() - began
            self._lines.put(None)

    def show(self) -> None:
        """Prints what it says, until it has ended."""
        print(f"== {self.name}", flush=True)
        last = ""
        while (line := self._lines.get()) is not None:
            print(line, end="", flush=True)
            last = line if SUMMARY.search(line) and " in " in line else last
        for count, word in SUMMARY.findall(last):
            what = "failed" if word.startswith("error") else word
            if what in self.counts:
                self.counts[what] += int(count)


class Missing(Exception):
    """Something the machine lacks; the message tells what to do."""


def has_tests(place: str) -> bool:
    return Path(place).is_file() or any(Path(place).rglob("test_*.py"))


def tracked_texts() -> list[str]:
    """The files that git knows, without binary ones and golden output."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(one) for one in Path().rglob("*.py")]
    skipped = (".lock", ".asc", ".gpg", ".pgp", ".deb", ".tar", ".gz", ".xz", ".zst", ".json")
    return [
        one
        for one in names
        if one and not one.startswith("tests/golden/") and not one.endswith(skipped) and Path(one).is_file()
    ]


def warn_of_little_disk() -> None:
    """Says so before, since a full disk shows as failures of any kind. pytest keeps the folders of its last runs."""
    place = Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    if free < DISK_BYTES:
        needed = f"the tests write about {DISK_BYTES // 10**9} GB in `{place}`, where {free / 1e9:.1f} GB are free"
        print(f"warning: {needed}\nhint: remove `{place}/pytest-of-*` of earlier runs, or set TMPDIR", flush=True)


def system_packages() -> None:
    """Installs the Debian packages that are missing, when root."""
    missing = [package for package, needs in listed_packages() if not all(map(is_there, needs))]
    if not missing:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"error: tests need Debian packages\nhint: apt-get install {' '.join(missing)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
        command = ["apt-get", "-o", "Acquire::Retries=3", *words]
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Missing(f"{done.stdout[-2000:]}\nerror: `{' '.join(command)}` failed")
    print("installed " + " ".join(missing))


def listed_packages() -> list[tuple[str, list[str]]]:
    lines = (ROOT / "tests/system-packages.txt").read_text().splitlines()
    return [(words[0], words[1:]) for words in (line.split() for line in lines) if words and words[0] != "#"]


def is_there(need: str) -> bool:
    if need.startswith("import:"):
        return importlib.util.find_spec(need.removeprefix("import:")) is not None
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return os.path.exists(need) if need.startswith("/") else shutil.which(need, path=path) is not None


def environment() -> str:
    """The interpreter of the environment made from the development lock file."""
    lock = ROOT / "requirements-dev.lock"
    home = "/var/cache" if os.getuid() == 0 else os.path.expanduser("~/.cache")  # tests run as other users too
    cache = os.environ.get("AEROGEL_ROOT") or os.environ.get("XDG_CACHE_HOME") or home
    key = hashlib.sha256(lock.read_bytes()).hexdigest()
    place = Path(cache).absolute() / "aerogel-check" / "environments-v1" / key
    if not (place / "complete").exists() or not os.access(place / "bin/python", os.X_OK):
        words = [sys.executable, "-I", str(ROOT / "tools/environment.py"), str(place), str(lock), "--keep-pip"]
        if subprocess.run(words, stdin=subprocess.DEVNULL).returncode:
            raise Missing("error: the environment could not be made")
    return f"{place}/bin/python"


if __name__ == "__main__":
    sys.exit(main())
