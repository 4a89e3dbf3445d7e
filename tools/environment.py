"""Makes a virtual environment from a lock file, once, whoever else is doing the same.

    python3 -I tools/environment.py ENVIRONMENT LOCKFILE [--keep-pip]

Called by `./aerogel` and `./check`. The environment is built under another name and renamed when it is whole, so an
interrupted start leaves nothing that looks finished; a lock file beside it (flock) lets only one process build::

    environments-v1/
      <sha256 of the lock file>/          bin/python, lib/..., complete, perhaps env-blocks-signals
      <sha256 of the lock file>.lock      held while building
      <sha256 of the lock file>.new       being built; removed by the next builder

Standard library only, and the syntax of old Pythons: it is what tells their users that they are too old.
"""

import os
import sys

EXIT_HOST = 3
EXIT_NETWORK = 4


def fail(message, hints=(), detail="", status=EXIT_HOST):
    """Prints an error in the house's form and exits."""
    lines = ["error: " + message]
    lines += ["  " + line for line in detail.rstrip().split("\n") if line]
    lines += ["hint: " + hint for hint in hints]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(status)


def main():
    """Makes the environment unless it is there."""
    was_blocked = take_interrupts()
    if sys.version_info < (3, 11):
        fail(
            "aerogel needs Python 3.11 or newer, and `%s` is %d.%d" % (sys.executable, *sys.version_info[:2]),
            ["name a newer one with AEROGEL_PYTHON"],
        )
    environment, lock_file = os.path.abspath(sys.argv[1]), sys.argv[2]
    try:
        import ensurepip  # noqa: F401 - Debian ships it apart
        import venv  # noqa: F401 - likewise
    except ImportError:
        fail(
            "this Python has no `venv` module, which the first start needs",
            ["on Debian: apt-get install python3-venv"],
        )
    try:
        build_once(environment, lock_file, "--keep-pip" in sys.argv, was_blocked)
    except OSError as error:
        fail(
            "cannot make the environment: %s: `%s`" % ((error.strerror or str(error)).lower(), error.filename or ""),
            ["choose another place with AEROGEL_ROOT"],
        )


def take_interrupts():
    """Lets SIGINT through; whether the launcher had it blocked, as it can on hosts with the `env` of GNU."""
    import signal

    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def build_once(environment, lock_file, keep_pip, was_blocked):
    """Builds under the lock; returns at once when another process has finished meanwhile."""
    import fcntl

    os.makedirs(os.path.dirname(environment), exist_ok=True)
    with open(environment + ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("aerogel: waiting for another first start\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_whole(environment):
            build(environment, lock_file, keep_pip, was_blocked)


def is_whole(environment):
    """Whether the environment was finished and its interpreter still exists."""
    return os.path.exists(environment + "/complete") and os.access(environment + "/bin/python", os.X_OK)


def build(environment, lock_file, keep_pip, was_blocked):
    """Makes the environment beside its place and moves it there."""
    import shutil
    import time
    import venv

    began = time.monotonic()
    new = environment + ".new"
    with open(lock_file) as lines:
        count = sum("==" in line for line in lines)
    progress = Progress("aerogel: first start, installing %d packages" % count)
    shutil.rmtree(new, ignore_errors=True)
    venv.create(new, symlinks=True, with_pip=True)
    python = os.path.realpath(sys._base_executable)  # `python3.11`, which never becomes another version
    os.unlink(new + "/bin/python")
    os.symlink(python, new + "/bin/python")
    install(new, lock_file, progress)
    if not keep_pip:
        remove_pip(new)
    if was_blocked:
        open(new + "/env-blocks-signals", "w").close()
    with open(new + "/complete", "w") as mark:
        mark.write("%s\n" % sys.version)
    shutil.rmtree(environment, ignore_errors=True)
    os.rename(new, environment)
    progress.end("aerogel: installed %d packages in %.0f s" % (count, time.monotonic() - began))


def install(new, lock_file, progress):
    """Runs pip and shows what it is at."""
    import re
    import subprocess

    words = [new + "/bin/python", "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    words += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "-r", lock_file]
    kept = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as pip:
        for line in pip.stdout:
            kept.append(line.rstrip())
            if line.startswith("Collecting "):
                progress.show(line.split()[1].split("==")[0])
            elif line.startswith("Installing collected"):
                progress.show("unpacking")
            elif "Retrying (" in line:
                progress.show("no answer from the package index, trying again")
    if pip.returncode:
        progress.end("")
        told = [line for line in kept if not line.lstrip().startswith("WARNING: ")]
        is_network = any("onnection" in line or "ould not find a version" in line for line in kept)
        reasons = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", "\n".join(kept))
        what = "pip cannot reach the package index: %s" % reasons[-1].lower() if reasons else ""
        fail(
            what or "pip could not install what aerogel needs",
            ["check the network and pip's configuration (`pip config list`)"],
            "\n".join(told[-8:]),
            EXIT_NETWORK if is_network else EXIT_HOST,
        )


def remove_pip(new):
    """Takes out pip and setuptools, 15 MB that nothing uses any more."""
    import shutil

    for folder in os.listdir(new + "/lib"):
        packages = new + "/lib/" + folder + "/site-packages"
        for name in os.listdir(packages) if os.path.isdir(packages) else ():
            if name.split("-")[0] in ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils"):
                path = packages + "/" + name
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


class Progress:
    """One line on standard error: redrawn on a terminal, written once elsewhere."""

    def __init__(self, title):
        self.title = title
        self.is_terminal = sys.stderr.isatty()
        sys.stderr.write(title + ("" if self.is_terminal else "\n"))
        sys.stderr.flush()

    def show(self, what):
        """Says what is being done now."""
        if self.is_terminal:
            sys.stderr.write("\r\033[K%s: %s" % (self.title, what))
            sys.stderr.flush()

    def end(self, text):
        """Replaces the line by a last one."""
        sys.stderr.write(("\r\033[K" if self.is_terminal else "") + (text + "\n" if text else ""))
        sys.stderr.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\ncanceled\n")
        sys.exit(130)
