"""SBOM and provenance of a build: what `--sbom`, `--provenance` and `--attest` ask for, made and kept with the image.

They are artifacts that refer to the image (OCI referrers), not entries of an index: an image of one platform stays a
plain manifest, whatever is told of it.
Spec: docker's reference of `docker buildx build`; in-toto Attestation Framework v1.
"""

from __future__ import annotations

import csv
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aerogel import __version__
from aerogel.commands.build_model import Build
from aerogel.commands.world import World
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.graph.ops import Git, Http, Local, Run
from aerogel.oci.artifact import IN_TOTO, PREDICATE_TYPE, create_artifact
from aerogel.oci.digest import Digest, algorithm_of, hex_of
from aerogel.oci.image import Image
from aerogel.oci.platform import Platform
from aerogel.oci.reference import Reference, is_own_name
from aerogel.oci.types import Descriptor
from aerogel.redact import redact

if TYPE_CHECKING:
    from aerogel.commands.prepared import Prepared, Ready
    from aerogel.export.provenance import Material

__all__ = ["Attestations", "attach", "parse_attestations", "provenance_of"]

_FORMS = ("spdx-json", "cyclonedx-json")
_KEYS = {
    "sbom": ("format", "generator", "disabled"),
    "provenance": ("mode", "builder-id", "version", "disabled", "reproducible", "inline-only", "filename"),
}
_SWITCH = {"true": True, "1": True, "false": False, "0": False}


class Attestations(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be told of the image. `sbom` are forms of the document; `mode` is `min`, `max` or empty for none."""

    sbom: tuple[str, ...] = ()
    mode: str = ""
    builder_id: str = ""

    def __bool__(self) -> bool:
        return bool(self.sbom or self.mode)


def parse_attestations(options: Build) -> Attestations:
    """Reads the three flags. Raises `build.bad-attestation`."""
    given = [dict(_fields(text, "--attest")) for text in options.attest]
    for kind, text in (("sbom", options.sbom), ("provenance", options.provenance)):
        if text:
            is_on = _SWITCH.get(text.lower())
            fields = {} if is_on else {"disabled": "true"} if is_on is not None else dict(_fields(text, f"--{kind}"))
            given.append({**fields, "type": kind})
    sbom: list[str] = []
    mode = builder_id = ""
    for fields in given:
        kind = fields.pop("type", "")
        if kind not in _KEYS:
            raise _bad(kind, "attestation type", tuple(_KEYS))
        for key in fields:
            if key not in _KEYS[kind]:
                raise _bad(key, f"key of `{kind}`", _KEYS[kind])
        if _SWITCH.get(fields.get("disabled", "false").lower(), False):
            sbom, mode = ([], mode) if kind == "sbom" else (sbom, "")
        elif kind == "sbom":
            form = fields.get("format", _FORMS[0])
            if form not in _FORMS:
                raise _bad(form, "format of an SBOM", _FORMS)
            sbom.append(form)
        else:
            mode, builder_id = fields.get("mode", "min"), fields.get("builder-id", "")
            if mode not in ("min", "max"):
                raise _bad(mode, "mode of provenance", ("min", "max"))
            if fields.get("version", "v1") != "v1":
                raise _bad(fields["version"], "version of provenance", ("v1",))
    return Attestations(sbom=tuple(dict.fromkeys(sbom)), mode=mode, builder_id=builder_id)


def _fields(text: str, flag: str) -> list[tuple[str, str]]:
    found = []
    for part in next(csv.reader([text]), []):
        key, sign, value = part.partition("=")
        if not sign:
            raise AerogelError(
                f"`{part}` in `{flag}={text}` has no value",
                code="build.bad-attestation",
                exit_status=EXIT_USAGE,
                hints=["write `--attest type=sbom` or `--provenance=mode=max`"],
            )
        found.append((key.strip(), value.strip()))
    return found


def _bad(word: str, what: str, known: Sequence[str]) -> AerogelError:
    guess = nearest(word, known)
    return AerogelError(
        f"`{word}` is no {what}",
        code="build.bad-attestation",
        exit_status=EXIT_USAGE,
        hints=[f"did you mean `{guess}`?" if guess else "known are " + ", ".join(f"`{one}`" for one in known)],
    )


def attach(
    image: Image, names: Sequence[Reference], wanted: Attestations, provenance: Mapping[str, object], world: World
) -> None:
    """Makes the artifacts of one image and keeps them with it; older ones of the same kind go.

    Raises `store.*`, `codec.*`, `tar.*`.
    """
    from aerogel.export.provenance import PROVENANCE

    platform = str(image.config.platform.normal())
    if wanted.sbom:
        from aerogel.analyze.sbom import PREDICATES, document
        from aerogel.commands.sbom import analyze, subject_of

        found = analyze(image, world.store)
        subject = subject_of(image, names[0] if names else None)
        for form in wanted.sbom:
            _keep(image, names, platform, PREDICATES[form], document(found, subject, form), world)
    if wanted.mode:
        _keep(image, names, platform, PROVENANCE, provenance, world)


def _keep(
    image: Image,
    names: Sequence[Reference],
    platform: str,
    predicate_type: str,
    content: Mapping[str, object],
    world: World,
) -> None:
    from aerogel.export.provenance import statement

    store = world.store
    data = statement(predicate_type, content, image.digest, names, platform)
    annotations = {PREDICATE_TYPE: predicate_type}
    layer = msgspec.structs.replace(store.blobs.put(data, IN_TOTO), annotations=annotations)
    made = create_artifact(IN_TOTO, [layer], image.descriptor, store.blobs, annotations)

    def replaces(old: Descriptor) -> bool:
        return old.annotations.get(PREDICATE_TYPE) == predicate_type

    store.referrers.add(image.digest, made, replaces)


def provenance_of(
    options: Build, wanted: Attestations, world: World, ready: Ready, prepared: Prepared, began_s: float
) -> dict[str, object]:
    """The SLSA predicate of one platform of a build, without secrets. Raises `net.*`, `git.*`."""
    from aerogel.export.provenance import BuildFacts, predicate
    from aerogel.oci.types import timestamp

    steps = prepared.steps()
    runs = [step.node.op for step in steps if isinstance(step.node.op, Run)]
    config_uri, config_digest = _main_source(ready)
    source, revision = _work_tree(options, world)
    facts = BuildFacts(
        builder_id=wanted.builder_id or f"pkg:pypi/aerogel@{__version__}",
        builder_platform=str(Platform.host()),
        dockerfile="-" if options.file == "-" else os.path.basename(options.file) or "Dockerfile",
        config_uri=config_uri,
        config_digest=config_digest,
        target=options.target,
        args={
            **{
                f"build-arg:{name}": value
                for name, value in ready.request.build_args.items()
                if name in options.build_arg
            },
            **{f"label:{name}": value for name, value in options.label.items()},
        },
        contexts=sorted({side.op.name for step in steps for side in step.node.inputs if isinstance(side.op, Local)}),
        secrets=_ids(options.secret),
        ssh=_ids(options.ssh),
        materials=_materials(ready, prepared),
        vcs_source=source,
        vcs_revision=revision,
        steps=[step.title for step in steps],
        hermetic=all(run.network == "none" for run in runs),
        started=timestamp(int(began_s)),
        finished=timestamp(int(world.clock())),
        invocation=str(uuid.uuid4()) if wanted.mode == "max" else "",
    )
    found: dict[str, object] = json.loads(world.redactor.text(json.dumps(predicate(facts, wanted.mode or "min"))))
    return found


def _ids(texts: Sequence[str]) -> list[str]:
    """The names of secrets and agents; where they come from stays here."""
    found = []
    for text in texts:
        fields = dict(part.partition("=")[::2] for part in next(csv.reader([text]), []))
        found.append(fields.get("id", "") or text.partition("=")[0])
    return found


def _base_purl(name: str, platform: str) -> str:
    """The package URL of a base; a declaration is no image of a registry."""
    from urllib.parse import quote

    from aerogel.export.provenance import purl_of

    if is_own_name(name):
        return f"pkg:generic/{quote(name, safe='')}?platform={quote(platform, safe='')}"
    return purl_of(Reference.parse(name), platform)


def _materials(ready: Ready, prepared: Prepared) -> list[Material]:
    """What came from elsewhere: base images, files behind URLs, repositories."""
    from aerogel.export.provenance import Material

    found = [
        Material(_base_purl(name, str(prepared.platform)), _digest_set(digest))
        for name, digest in ready.bases.digests.items()
    ]
    sides = (side.op for step in prepared.steps() for side in step.node.inputs)
    found += [Material(*_remote(ready, op)) for op in sides if isinstance(op, Http | Git)]
    uri, digest = _main_source(ready)
    return [*found, Material(uri, digest)] if uri else found


def _digest_set(digest: Digest) -> tuple[tuple[str, str], ...]:
    return ((algorithm_of(digest), hex_of(digest)),)


def _remote(ready: Ready, op: Http | Git) -> tuple[str, tuple[tuple[str, str], ...]]:
    kind, _, value = ready.remotes.identity(op).partition(" ")
    if isinstance(op, Http):
        return redact(op.url), _digest_set(Digest(value))
    remote = redact(op.remote)
    place = f"{op.ref}:{op.subdir}" if op.subdir else op.ref
    del kind
    return (f"{remote}#{place}" if place else remote), (("gitCommit", value),)


def _main_source(ready: Ready) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The main context, if it is not on this host."""
    op = ready.contexts.remote
    return _remote(ready, op) if op is not None else ("", ())


def _work_tree(options: Build, world: World) -> tuple[str, str]:
    """Address and commit of the repository whose work tree the context is in; nothing else of it is told."""
    folder = (world.settings.directory / options.context).resolve() if options.context != "-" else None
    if folder is None or not folder.is_dir():
        return "", ""
    for each in (folder, *folder.parents):
        place = each / ".git"
        if place.exists():
            return _repository(place)
    return "", ""


def _repository(place: Path) -> tuple[str, str]:
    """Read from git's files; a repository that is damaged tells nothing. Spec: gitrepository-layout(5)."""
    try:
        if place.is_file():
            place = (place.parent / place.read_text().partition("gitdir:")[2].strip()).resolve()
        common = place
        if (place / "commondir").is_file():
            common = (place / (place / "commondir").read_text().strip()).resolve()
        revision = _commit((place / "HEAD").read_text().strip(), place, common)
        config = (common / "config").read_text(errors="replace") if (common / "config").is_file() else ""
    except (OSError, ValueError):
        return "", ""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", revision):
        return "", ""
    section = re.search(r'(?ms)^\[remote "origin"\]$(.*?)(?=^\[|\Z)', config)
    url = re.search(r"(?m)^\s*url\s*=\s*(\S+)\s*$", section[1]) if section else None
    source = redact(url[1]) if url else ""
    # A path of this host says nothing to others.
    return (source if "://" in source or re.match(r"[\w.-]+@[\w.-]+:", source) else ""), revision


def _commit(head: str, place: Path, common: Path) -> str:
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ").strip()
    if ".." in name.split("/") or name.startswith("/"):
        return ""
    for folder in (place, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = common / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        found, _, ref = line.partition(" ")
        if ref == name:
            return found
    return ""
