"""Run as a process by test_compose: makes a build root, and installs a package in it as a RUN would.

Arguments: isolation, state folder, cache folder, FROM name, package to install or `-`. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from aerogel.debian.archive import Archive
from aerogel.debian.mirror import Sources, discover
from aerogel.distroless.apt import mirror_mounts
from aerogel.distroless.base import compose_base, select
from aerogel.distroless.catalogue import lookup
from aerogel.events import NullSink
from aerogel.files.codec import LayerWriter
from aerogel.net.http import Http
from aerogel.oci.platform import Platform
from aerogel.sandbox.launch import Helper
from aerogel.sandbox.spec import Rootfs, Sandbox


def install(helper: Helper, sources: Sources, suite: str, tar: str, folder: str, package: str) -> tuple[int, str]:
    lower, upper, work, output = (f"{folder}/{name}" for name in ("lower", "upper", "work", "output"))
    for path in (lower, upper, work):
        os.mkdir(path)
    script = f"apt-get update && apt-get install -y --no-install-recommends {package} && id _apt && dpkg --audit"
    with open(tar, "rb") as layer, open(output, "w+b") as out:
        helper.call("extract", {"path": lower, "overlay": helper.rung.overlay}, [layer.fileno()])
        sandbox = Sandbox(
            argv=("sh", "-c", script),
            root=Rootfs(lowers=(lower,), upper=upper, work=work),
            env=(("DEBIAN_FRONTEND", "noninteractive"),),
            mounts=mirror_mounts(sources, suite),
        )
        result = helper.run(sandbox, stdout=out.fileno(), stderr=out.fileno()).wait()
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    changed = sorted(
        os.path.relpath(f"{root}/{name}", upper) for root, _, names in os.walk(f"{upper}/etc/apt") for name in names
    )
    for path in (lower, upper, work):
        helper.call("remove", {"path": path})
    return result.code, text + "".join(f"CHANGED {name}\n" for name in changed)


def main(isolation: str, state: str, cache: str, name: str, package: str) -> None:
    sources = discover()
    archive = Archive(sources, Path(cache), Http())
    began = time.monotonic()
    selection = select(lookup(name), Platform.host(), archive)
    os.makedirs(state, exist_ok=True)
    report: dict[str, object] = {}
    with Helper.start(state, isolation=isolation) as helper, tempfile.TemporaryDirectory(dir=state) as folder:  # type: ignore[arg-type] # checked by Helper
        tar = f"{folder}/layer.tar"
        scratch = f"{folder}/scratch"
        os.mkdir(scratch)

        class Both(LayerWriter):
            """Hashes only; the plain tar goes beside."""

            def write(self, data: bytes | memoryview) -> None:
                out.write(data)
                super().write(data)

        with open(tar, "wb") as out, Both(None, None) as writer:
            made = compose_base(
                selection,
                archive,
                writer,
                cache=Path(cache),
                helper_factory=lambda: helper,
                scratch=lambda: scratch,
                sink=NullSink(),
            )
        report = {
            "rung": helper.rung.name,
            "diff_id": made.blob.diff_id,
            "size": made.blob.size_uncompressed,
            "summary": made.summary,
            "seconds": time.monotonic() - began,
            "paths": [os.fsdecode(entry.path) for entry in made.index.entries],
            "left": os.listdir(scratch),
        }
        if package != "-":
            report["code"], report["output"] = install(helper, sources, selection.recipe.suite, tar, folder, package)
    sys.stdout.write(json.dumps(report))


main(*sys.argv[1:])
