"""Runs every check: format, lint, types, spelling, generated files, then the tests. Called by `./check`.

    ./check                   everything (under 40 minutes)
    ./check --fast            what needs neither network nor namespaces (under a minute)
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
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAST = ("tests/unit", "tests/golden", "tests/house")
MOVED = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        "builders",
        "build_roots",
        "platforms",
        "reproducible",
        "real_programs",
        "runtimes",
        "https_programs",
        "foreign_programs",
        "structure",
    )
)
HOST = (
    ("tests/differential", *FAST, "tests/fuzz", "tests/host", "tests/redteam", *MOVED),
    ("tests/integration", *(f"--ignore={one}" for one in MOVED)),
)
"""The tests on the host: two halves that take about the same time, run side by side, each with its own account."""
SOURCES = ("src", "tests", "tools", "bench")
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
        rest = [one for half in HOST for one in half if one not in (*FAST, *MOVED) and has_tests(one)]
        check.tests("other tests", python, "-m", "not host and not network", *rest, *options.pytest)
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
        run = Pytest(name, python, words, self.environ)
        run.show()
        self._add(run)

    def on_host(self, python, *words) -> None:
        """Runs the tests on the host, one half beside the other; the output of the second one follows.

        Tests that failed get one more try, alone: they share the host with others and watch signals and times. What
        fails twice has failed; what needed two tries is named.
        """
        halves = []
        for number, half in enumerate(HOST):
            folders = [one for one in half if one.startswith("--") or has_tests(one)]
            cache = f"cache_dir=.pytest_cache/half-{number}"
            marks = ("-o", cache, "-m", "host or network", "--durations=10", *folders, *words)
            environ = {**self.environ, "AEROGEL_TEST_ACCOUNT": f"aerogel-tester{number}"}
            halves.append(Pytest(f"tests on the host, half {number + 1}", python, marks, environ))
        for run in halves:
            run.show()
        for run in halves:
            if run.status == 1 and 0 < run.counts["failed"] <= MOST_AGAIN:
                second = Pytest(f"{run.name}: those that failed", python, ("--last-failed", *run.words), run.environ)
                second.show()
                print(f"{second.counts['passed']} passed at the second try, see the first one above", flush=True)
                self.timings.append((second.name, second.seconds))
                run.counts["passed"] += second.counts["passed"]
                run.counts["failed"] = second.counts["failed"]
                run.status = second.status
            self._add(run)

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
    """One run of pytest, which begins at once; its output is kept until it is shown."""

    def __init__(self, name, python, words, environ) -> None:
        self.name = name
        self.words = words
        self.environ = environ
        self.seconds = 0.0
        self.status = 0
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self._lines = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [python, "-m", "pytest", "-q", "--timeout=1800", *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._began = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

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

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self.status = self._process.wait()
        self.seconds = time.monotonic() - self._began
        self._lines.put(None)


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
