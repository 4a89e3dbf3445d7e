"""Writes `requirements.lock` and `requirements-dev.lock`: names, versions and hashes, nothing about where from.

    python tools/lock.py            newest versions that pyproject.toml allows
    python tools/lock.py --check    fails when a lock file does not fit pyproject.toml

pip resolves (its own configuration decides from which index), then the index is asked for the hashes of every wheel
of the chosen versions, so that the files serve other Python versions and processors as well. No address is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by tools/lock.py from pyproject.toml. Install with `pip install --require-hashes --no-deps -r`.\n"
JSON_FORM = "application/vnd.pypi.simple.v1+json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; compare names with pyproject.toml")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    development = [*runtime, *project["dependency-groups"]["dev"]]
    wanted = {"requirements.lock": runtime, "requirements-dev.lock": development}
    if options.check:
        return _check(wanted)
    markers = {_name(one): one.partition(";")[2].strip() for one in development}
    pinned: dict[str, str] = {}
    lines: dict[str, str] = {}
    for name, requirements in wanted.items():
        versions = _resolve([*requirements, *(f"{one}=={version}" for one, version in pinned.items())])
        pinned |= versions
        entries = []
        for package, version in sorted(versions.items()):
            lines[package] = lines.get(package) or _entry(package, version, markers.get(package, ""))
            entries.append(lines[package])
        (ROOT / name).write_text(HEADER + "".join(entries))
        print(f"{name}: {len(entries)} packages")
    return 0


def _check(wanted: dict[str, list[str]]) -> int:
    status = 0
    for name, requirements in wanted.items():
        locked = set(re.findall(r"(?m)^([\w.-]+)==", (ROOT / name).read_text()))
        missing = {_name(one) for one in requirements} - locked
        if missing:
            print(f"{name} lacks {', '.join(sorted(missing))}: run `python tools/lock.py`")
            status = 1
    return status


def _name(requirement: str) -> str:
    return _normal(re.split(r"[<>=!~\[; ]", requirement)[0])


def _normal(name: str) -> str:
    """Specification: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _resolve(requirements: list[str]) -> dict[str, str]:
    """Name -> version of everything that the requirements need, by pip's own resolver."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*command, "--only-binary", ":all:", *requirements], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)["install"]
    return {_normal(one["metadata"]["name"]): one["metadata"]["version"] for one in found}


def _entry(package: str, version: str, marker: str) -> str:
    hashes = sorted({found for index in _indexes() for found in _wheel_hashes(index, package, version)})
    if not hashes:
        raise SystemExit(f"the index has no wheel of {package} {version} with a sha256")
    condition = f" ; {marker}" if marker else ""
    return f"{package}=={version}{condition} \\\n" + " \\\n".join(f"    --hash=sha256:{one}" for one in hashes) + "\n"


def _indexes() -> list[str]:
    """Addresses of the indexes that pip is configured with, the first that is not a file."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    configured = re.findall(r"(?m)^(?:global|install|:env:)\.index-url='(.*)'$", listed.stdout)
    if given := os.environ.get("PIP_INDEX_URL") or (configured[-1] if configured else ""):
        return [given]
    from pip._internal.models.index import PyPI

    return [PyPI.simple_url]


class _Links(HTMLParser):
    """File name -> sha256 of a simple index page in its older form. Specification: PEP 503."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address, _, fragment = (dict(attrs).get("href") or "").partition("#")
        if tag == "a" and fragment.startswith("sha256="):
            self.found[address.rsplit("/", 1)[-1]] = fragment.removeprefix("sha256=")


def _wheel_hashes(index: str, package: str, version: str) -> list[str]:
    request = urllib.request.Request(
        f"{index.rstrip('/')}/{package}/", headers={"Accept": f"{JSON_FORM}, text/html;q=0.1"}
    )
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        if "json" in answer.headers["Content-Type"]:
            files = {one["filename"]: one["hashes"].get("sha256", "") for one in json.loads(body)["files"]}
        else:
            links = _Links()
            links.feed(body.decode())
            files = links.found
    return [digest for name, digest in files.items() if digest and _is_wheel_of(name, version)]


def _is_wheel_of(name: str, version: str) -> bool:
    """Whether a wheel's file name is of that version and can be of use on Linux with a supported Python."""
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or parts[1] != version:
        return False
    python, abi, platform = parts[-3:]
    is_old = abi != "abi3" and re.search(r"(?:cp|pp)(?:2|3\d?$|310|39)", python) is not None and "py3" not in python
    return not is_old and (platform == "any" or "linux" in platform)


if __name__ == "__main__":
    sys.exit(main())
