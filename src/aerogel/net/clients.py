"""Packages of PyPI and npm by way of the user's own clients: their configuration says where from, and who may.

Nothing here knows the address of an index. The clients get the environment of the run as it is; what they fetch is
checked by its digest elsewhere. No script of a package runs: pip takes wheels only, npm installs nothing.
Spec: pip download, npm cache, npm pack.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aerogel.errors import EXIT_HOST, EXIT_NETWORK, AerogelError

__all__ = ["npm_package", "wheel"]

_TIMEOUT_S = 1800.0
_GLIBC = range(41, 16, -1)
"""Minor versions of glibc 2 of which wheels are taken, newest first."""
_MACHINES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7l",
    "i386": "i686",
    "ppc64el": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def wheel(name: str, version: str, arch: str, python: str, folder: Path, environment: Mapping[str, str]) -> Path:
    """Fetches a wheel for Debian's `arch` and a Python such as `3.13` into an empty folder.

    Raises `net.client-missing`, `net.client` with what pip said.
    """
    machine = _MACHINES[arch]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}", "any"]
    digits = python.replace(".", "")
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    arguments += ["--implementation", "cp", "--python-version", python, "--abi", f"cp{digits}", "--abi", "abi3"]
    arguments += [
        "--abi",
        "none",
        "--dest",
        str(folder),
        *(part for each in platforms for part in ("--platform", each)),
    ]
    program = shutil.which("pip3", path=environment.get("PATH")) or shutil.which("pip", path=environment.get("PATH"))
    command = [program] if program else [sys.executable, "-m", "pip"]
    _run([*command, *arguments, f"{name}=={version}"], environment, "pip", f"{name} {version}")
    return _only(folder, ".whl", "pip", name)


def npm_package(name: str, version: str, folder: Path, environment: Mapping[str, str]) -> Path:
    """Fetches the tarball of a package into an empty folder. Raises `net.client-missing`, `net.client`.

    `npm cache add` into a cache of its own writes what comes to a file; `npm pack` holds all of it in memory, some times
    over. That is asked when there is no network (it looks into the user's own cache), or no such file in the cache.
    """
    program = shutil.which("npm", path=environment.get("PATH"))
    if program is None:
        raise _missing("npm", f"{name} {version}")
    cache = folder / "cache"
    pack = [program, "pack", f"{name}@{version}", "--pack-destination", str(folder), "--ignore-scripts", "--silent"]
    try:
        _run(
            [program, "cache", "add", f"{name}@{version}", "--cache", str(cache)],
            environment,
            "npm",
            f"{name} {version}",
        )
    except AerogelError as error:
        try:
            _run([*pack, "--offline"], environment, "npm", f"{name} {version}")
        except AerogelError:
            raise error from None
        return _only(folder, ".tgz", "npm", name)
    found = [path for path in (cache / "_cacache/content-v2").rglob("*") if path.is_file() and _is_gzip(path)]
    if len(found) == 1:
        return found[0]
    _run(pack, environment, "npm", f"{name} {version}")
    return _only(folder, ".tgz", "npm", name)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _run(command: Sequence[str], environment: Mapping[str, str], client: str, what: str) -> None:
    try:
        done = subprocess.run(
            command,
            env=dict(environment) | {"PATH": environment.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _missing(client, what) from None
    except subprocess.TimeoutExpired:
        raise AerogelError(
            f"{client} did not fetch `{what}` within {_TIMEOUT_S:.0f} seconds",
            code="net.client",
            exit_status=EXIT_NETWORK,
        ) from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        if any("No module named pip" in line for line in lines):
            raise _missing(client, what)
        raise AerogelError(
            f"{client} could not fetch `{what}`",
            code="net.client",
            detail="\n".join(lines[-10:]),
            hints=[f"see whether `{client}` itself can: its own configuration says where packages come from"],
            exit_status=EXIT_NETWORK,
        )


def _only(folder: Path, ending: str, client: str, name: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    if len(found) != 1:
        raise AerogelError(
            f"{client} fetched {len(found)} files for `{name}` in place of one",
            code="net.client",
            exit_status=EXIT_HOST,
        )
    return found[0]


def _missing(client: str, what: str) -> AerogelError:
    return AerogelError(
        f"`{client}` is not installed, and `{what}` is fetched with it",
        code="net.client-missing",
        hints=[f"install `{client}`, or vendor the package on a machine that has it: `aerogel base vendor`"],
        exit_status=EXIT_HOST,
    )
