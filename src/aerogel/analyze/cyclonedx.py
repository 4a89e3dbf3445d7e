"""An SBOM as CycloneDX 1.6 JSON. Spec: ECMA-424, CycloneDX 1.6."""

from __future__ import annotations

import hashlib
import re

from aerogel.analyze.catalog import Catalog
from aerogel.analyze.documents import Subject, needs, unique_ids
from aerogel.analyze.license import expression
from aerogel.analyze.package import Package

__all__ = ["document"]


def document(catalog: Catalog, subject: Subject) -> dict[str, object]:
    """The whole document as JSON values."""
    refs = unique_ids(catalog.packages, _ref)
    root = f"image:{subject.digest}"
    components = [_component(one, refs[one]) for one in catalog.packages]
    distro = catalog.distro
    if distro.id:
        components.append({
            "type": "operating-system",
            "bom-ref": f"os:{distro.id}",
            "name": distro.id,
            **({"version": distro.version} if distro.version else {}),
            **({"description": distro.name} if distro.name else {}),
        })  # fmt: skip
    components += [
        {
            "type": "file",
            "bom-ref": f"file:{fact.path}",
            "name": fact.path,
            "hashes": [{"alg": "SHA-1", "content": fact.sha1}, {"alg": "SHA-256", "content": fact.sha256}],
            **(
                {"properties": [{"name": "aerogel:package", "value": refs[fact.owner]}]}
                if fact.owner is not None and fact.owner in refs
                else {}
            ),
        }
        for fact in catalog.files
    ]
    needed = needs(catalog.packages)
    dependencies = [{"ref": root, "dependsOn": [refs[one] for one in catalog.packages]}]
    dependencies += [
        {"ref": refs[one], **({"dependsOn": [refs[other] for other in needed[one]]} if one in needed else {})}
        for one in catalog.packages
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{subject.uuid('cyclonedx-1.6')}",
        "version": 1,
        "metadata": {
            "timestamp": subject.time,
            "tools": {"components": [{"type": "application", "name": "aerogel", "version": subject.tool_version}]},
            "component": {
                "type": "container",
                "bom-ref": root,
                "name": subject.name or "image",
                "version": subject.digest,
                "purl": subject.purl,
            },
        },
        "components": components,
        "dependencies": dependencies,
    }


def _component(package: Package, ref: str) -> dict[str, object]:
    found: dict[str, object] = {"type": "library", "bom-ref": ref}
    if package.kind in ("npm", "maven") and package.namespace:
        found["group"] = package.namespace
        found["name"] = package.name
    else:
        found["name"] = package.full_name
    if package.version:
        found["version"] = package.version
    if package.supplier and package.kind == "deb":
        found["publisher"] = package.supplier
    licenses = _licenses(package.licenses)
    if licenses:
        found["licenses"] = licenses
    found["purl"] = package.purl
    if re.fullmatch(r"https?://[^\s\"<>\\^`{|}]+", package.homepage):
        found["externalReferences"] = [{"type": "website", "url": package.homepage}]
    found["properties"] = [
        {"name": "aerogel:location", "value": package.location},
        *([{"name": "aerogel:layer", "value": package.layer}] if package.layer else []),
    ]
    return found


def _licenses(licenses: tuple[str, ...]) -> list[dict[str, object]]:
    known = [expression(word) for word in licenses]
    if len(licenses) == 1 and known[0] and " " in known[0]:
        return [{"expression": known[0]}]
    # The schema takes either one expression or a list of single licences.
    return [
        {"license": {"id": name} if name and " " not in name and not name.endswith("+") else {"name": name or word}}
        for name, word in zip(known, licenses, strict=True)
    ]


def _ref(package: Package) -> str:
    place = hashlib.sha256(package.location.encode()).hexdigest()[:12]
    return f"{package.purl}#{place}" if package.kind != "deb" else package.purl
