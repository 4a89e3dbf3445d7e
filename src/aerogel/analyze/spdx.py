"""An SBOM as SPDX 2.3 JSON. Spec: SPDX 2.3, clauses 6 to 11; https://spdx.github.io/spdx-spec/v2.3/."""

from __future__ import annotations

import hashlib
import re

from aerogel.analyze.catalog import Catalog, FileFact
from aerogel.analyze.documents import Subject, needs, unique_ids
from aerogel.analyze.license import expression
from aerogel.analyze.package import Package

__all__ = ["document"]

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_NO = "NOASSERTION"


def document(catalog: Catalog, subject: Subject) -> dict[str, object]:
    """The whole document as JSON values."""
    ids = unique_ids(catalog.packages, _id)
    extracted: dict[str, str] = {}
    owned: dict[Package | None, list[FileFact]] = {}
    for fact in catalog.files:
        owned.setdefault(fact.owner if fact.owner in ids else None, []).append(fact)
    packages = [_image(subject), *(_package(one, ids[one], extracted) for one in catalog.packages)]
    for each, owner in zip(packages, (None, *catalog.packages), strict=True):
        if owner in owned:
            each["filesAnalyzed"] = True
            each["packageVerificationCode"] = {"packageVerificationCodeValue": _verification(owned[owner])}
    files = [_file(one) for one in catalog.files]
    relations = [_relation(_DOCUMENT, "DESCRIBES", _IMAGE)]
    relations += [_relation(_IMAGE, "CONTAINS", ids[one]) for one in catalog.packages]
    for package, targets in needs(catalog.packages).items():
        relations += [_relation(ids[package], "DEPENDS_ON", ids[target]) for target in targets]
    for fact in catalog.files:
        holder = ids[fact.owner] if fact.owner is not None and fact.owner in ids else _IMAGE
        relations.append(_relation(holder, "CONTAINS", _file_id(fact)))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": subject.title,
        "documentNamespace": f"urn:uuid:{subject.uuid('spdx-2.3')}",
        "creationInfo": {"created": subject.time, "creators": [f"Tool: aerogel-{subject.tool_version}"]},
        "packages": packages,
        **({"files": files} if files else {}),
        **(
            {
                "hasExtractedLicensingInfos": [
                    {"licenseId": key, "name": text, "extractedText": text} for key, text in sorted(extracted.items())
                ]
            }
            if extracted
            else {}
        ),
        "relationships": relations,
    }


def _image(subject: Subject) -> dict[str, object]:
    return {
        "SPDXID": _IMAGE,
        "name": subject.name or "image",
        "versionInfo": subject.digest,
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": _NO,
        "filesAnalyzed": False,
        "checksums": [_checksum("SHA256", subject.digest.partition(":")[2])],
        "licenseConcluded": _NO,
        "licenseDeclared": _NO,
        "copyrightText": _NO,
        "externalRefs": [_purl(subject.purl)],
    }


def _package(package: Package, spdx_id: str, extracted: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = {"SPDXID": spdx_id, "name": package.full_name}
    if package.version:
        found["versionInfo"] = package.version
    if package.supplier and package.kind == "deb":
        name, _, mail = package.supplier.partition("<")
        words = name.strip().replace("(", " ").replace(")", " ")
        address = mail.rstrip("> ").strip()
        found["supplier"] = f"Organization: {words}" + (
            f" ({address})" if re.fullmatch(r"[^\s@]+@[^\s@]+", address) else ""
        )
    found |= {
        "downloadLocation": _NO,
        "filesAnalyzed": False,
        "sourceInfo": f"found by {package.location}" + (f" in layer {package.layer}" if package.layer else ""),
        "licenseConcluded": _NO,
        "licenseDeclared": _licenses(package.licenses, extracted),
        "copyrightText": _NO,
        "externalRefs": [_purl(package.purl)],
    }
    if re.fullmatch(r"https?://[^\s\"<>\\^`{|}]+", package.homepage):
        found["homepage"] = package.homepage
    return found


def _licenses(licenses: tuple[str, ...], extracted: dict[str, str]) -> str:
    """One expression of all; what is no SPDX licence gets a reference of its own."""
    parts = []
    for word in licenses:
        known = expression(word)
        if not known:
            known = _reference(word)
            extracted[known] = word
        elif " " in known and len(licenses) > 1:
            known = f"({known})"
        parts.append(known)
    return " AND ".join(parts) or _NO


def _reference(word: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-")
    if plain and plain.lower() == word.lower():
        return f"LicenseRef-{plain}"
    return f"LicenseRef-{plain[:60].strip('-') or 'words'}-{hashlib.sha256(word.encode()).hexdigest()[:8]}"


def _verification(files: list[FileFact]) -> str:
    """Clause 7.9: of the digests of all files of a package."""
    return hashlib.sha1("".join(sorted(one.sha1 for one in files)).encode(), usedforsecurity=False).hexdigest()


def _file(fact: FileFact) -> dict[str, object]:
    return {
        "SPDXID": _file_id(fact),
        "fileName": f".{fact.path}",
        "checksums": [_checksum("SHA1", fact.sha1), _checksum("SHA256", fact.sha256)],
        "licenseConcluded": _NO,
        "copyrightText": _NO,
    }


def _file_id(fact: FileFact) -> str:
    return f"SPDXRef-File-{hashlib.sha256(fact.path.encode()).hexdigest()[:32]}"


def _id(package: Package) -> str:
    words = "-".join(filter(None, (package.kind, package.namespace, package.name, package.version)))
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-")
    facts = f"{package.purl} {package.location}".encode()
    return f"SPDXRef-Package-{plain[:80].strip('-')}-{hashlib.sha256(facts).hexdigest()[:12]}"


def _checksum(algorithm: str, value: str) -> dict[str, str]:
    return {"algorithm": algorithm, "checksumValue": value}


def _purl(purl: str) -> dict[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
