"""What is claimed of vulnerabilities, and what is not."""

from __future__ import annotations

import json

import pytest

from aerogel.analyze.catalog import Catalog
from aerogel.analyze.documents import Subject
from aerogel.analyze.package import Distro, Package
from aerogel.analyze.vex import Vulnerability, document, judge, read_vulnerabilities
from aerogel.errors import AerogelError, Source
from aerogel.files.entry import REG, SYM, Entry
from aerogel.files.index import LayerIndex
from aerogel.files.tree import LayerTree
from aerogel.oci.digest import Digest


class Files:
    """As much of `Contents` as is asked."""

    def __init__(self, **modes: int) -> None:
        entries = [Entry(path.replace("_", "/").encode(), REG, mode, size=1) for path, mode in modes.items()]
        entries += [
            Entry(b"data/lib.so", SYM, 0o777, link=b"lib"),
            Entry(b"folder", SYM, 0o777, link=b"data"),
            Entry(b"loop", SYM, 0o777, link=b"loop"),
        ]
        self.tree = LayerTree([LayerIndex(entries, [0] * len(entries))])


def deb(name: str, **qualifiers: str) -> Package:
    return Package(kind="deb", name=name, version="1", namespace="debian", qualifiers=tuple(qualifiers.items()))


def claims(*lines: str) -> list[tuple[str, str]]:
    files = Files(data_a=0o644, data_tool=0o755, data_lib=0o644)
    kept = {"data": (b"data/a",), "code": (b"data/a", b"data/tool"), "other": (b"data/a",)}
    packages = (
        deb("data", upstream="source"),
        deb("code"),
        deb("unlisted"),
        Package(kind="npm", name="data", version="2"),
    )
    rows = read_vulnerabilities(Source("a", "\n".join(lines).encode()))
    found = judge(rows, Catalog(Distro(), packages), kept, files)  # type: ignore[arg-type]  # no more of it is asked
    return [(one.claim.status, one.claim.justification) for one in found]


def test_only_what_can_be_shown_is_claimed():
    unknown, absent, gone = (
        ("under_investigation", ""),
        ("not_affected", "component_not_present"),
        ("not_affected", "vulnerable_code_not_present"),
    )
    assert claims("CVE-1-1 code", "CVE-1-1 unlisted", "CVE-1-1 nowhere", "CVE-1-1 pkg:deb/debian/nowhere@1?arch=x") == [
        unknown, unknown, unknown, absent,
    ]  # fmt: skip
    # An npm package has the same name: nothing is known of its files. By its source name it is Debian's alone.
    assert claims("CVE-1-1 data", "CVE-1-1 source") == [unknown, gone]
    assert claims("CVE-1-1 code /data/tool", "CVE-1-1 code /data/gone", "CVE-1-1 code /data/gone /data/a") == [
        unknown, gone, unknown,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/data/lib.so", "/folder/lib", "/folder", "/data", "/data/", "//data/./tool", "/folder/../data/a", "/loop/x"],
)
def test_what_is_reached_by_a_link_or_is_a_folder_is_there(path: str):
    """Advisories name `libz.so.1`, which is a link: saying that the code is not there would be a lie."""
    assert claims(f"CVE-1-1 code {path}") == [("under_investigation", "")]


def test_reports_of_scanners():
    grype = {"matches": [
        {"vulnerability": {"id": "CVE-2024-1"}, "artifact": {"name": "libc6", "purl": "pkg:deb/debian/libc6@2.41?arch=amd64"}},
        {"vulnerability": {"id": "GHSA-aa-bb"}, "artifact": {"name": "x", "purl": "pkg:npm/x@1"}},
        {"vulnerability": {}, "artifact": {}}, None,
    ]}  # fmt: skip
    trivy = {"Results": [{"Vulnerabilities": [
        {"VulnerabilityID": "CVE-2024-1", "PkgName": "libc6", "PkgIdentifier": {"PURL": "pkg:deb/debian/libc6@2.41"}},
        {"VulnerabilityID": "GHSA-aa-bb", "PkgName": "x"}]}, {}]}  # fmt: skip
    rows = [Vulnerability("CVE-2024-1", "libc6", is_debian=True), Vulnerability("GHSA-aa-bb", "x")]
    for report in (grype, trivy):
        assert read_vulnerabilities(Source("a", json.dumps(report).encode())) == rows
    assert read_vulnerabilities(Source("a", b'{"matches": []}')) == []
    lines = b"# about\nCVE-2024-1 pkg:deb/debian/libc6@2.41 # twice\nCVE-2024-1 pkg:deb/debian/libc6\n\nGHSA-aa-bb x\n"
    assert read_vulnerabilities(Source("a", lines)) == rows


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("{", "the report is no JSON", 1),
        ("{}", "neither grype's nor trivy's", 0),
        ("CVE-1-1 a\nCVE-1-1\n", "does not name a vulnerability and a package", 2),
        ("CVE-1-1 a b", "does not name", 1),
        ("a b", "does not name", 1),
    ],
)
def test_faults(text: str, message: str, line: int):
    with pytest.raises(AerogelError) as caught:
        read_vulnerabilities(Source("a", text.encode()))
    assert message in caught.value.message
    assert (caught.value.span.line if caught.value.span else 0) == line


def test_the_document_is_the_same_again():
    files = Files(data_a=0o644)
    found = judge([Vulnerability("CVE-1-1", "data")], Catalog(Distro(), (deb("data"),)), {"data": (b"data/a",)}, files)  # type: ignore[arg-type]
    subject = Subject(
        name="example/app", tag="1", digest=Digest("sha256:" + "0" * 64), platform="linux/amd64",
        created="2024-01-02T03:04:05Z", tool_version="1",
    )  # fmt: skip
    made = document(found, subject)
    assert made == document(found, subject)
    assert made["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert made["timestamp"] == "2024-01-02T03:04:05Z"
    (statement,) = made["statements"]  # type: ignore[misc]  # a list
    assert statement["products"][0]["@id"].startswith("pkg:oci/app@sha256")
    assert statement["products"][0]["subcomponents"] == [{"@id": "pkg:deb/debian/data@1"}]
    assert statement["status"] == "not_affected"
    assert statement["impact_statement"] == "Of data, no program and no library is in the image, 1 files of data are."
