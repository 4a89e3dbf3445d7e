"""How an image was made, as SLSA provenance v1, and the in-toto statements that tie such facts to an image.

The parameters are those of BuildKit's build type, so that what reads its provenance reads this. Without secrets: no
value of a secret, and values of build arguments only when asked for (`mode=max`). Without paths of the host. The same
build gives the same statement, unless it tells of times (`mode=max`).
Spec: slsa.dev/spec/v1.0/provenance; in-toto Attestation Framework v1; BuildKit docs/attestations/slsa-definitions.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from aerogel.oci.digest import Digest, algorithm_of, hex_of
from aerogel.oci.reference import Reference

__all__ = ["BUILD_TYPE", "PROVENANCE", "STATEMENT", "BuildFacts", "Material", "predicate", "purl_of", "statement"]

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"


class Material(msgspec.Struct, frozen=True, order=True):
    """Something from elsewhere that went into the image: its URI and its digests as algorithm and hex."""

    uri: str
    digest: tuple[tuple[str, str], ...]


class BuildFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one build of one platform."""

    builder_id: str
    builder_platform: str
    dockerfile: str
    """Its name, without folders of the host."""
    config_uri: str = ""
    config_digest: tuple[tuple[str, str], ...] = ()
    """Of the context that holds the Dockerfile, when it is a repository or behind a URL."""
    target: str = ""
    args: Mapping[str, str] = {}
    """Build arguments and labels as BuildKit calls them: `build-arg:NAME`, `label:NAME`."""
    contexts: Sequence[str] = ()
    """Names of the folders that were read."""
    secrets: Sequence[str] = ()
    ssh: Sequence[str] = ()
    materials: Sequence[Material] = ()
    vcs_source: str = ""
    vcs_revision: str = ""
    """Of the work tree that the context is."""
    steps: Sequence[str] = ()
    hermetic: bool = False
    """No step had a network."""
    started: str = ""
    finished: str = ""
    """RFC 3339."""
    invocation: str = ""


def predicate(facts: BuildFacts, mode: str) -> dict[str, object]:
    """The provenance. `mode` is `min` or `max`: with values of arguments, ids of secrets, steps and times."""
    whole = mode == "max"
    args = {"target": facts.target} if facts.target else {}
    request: dict[str, object] = {"frontend": "dockerfile.v0"}
    if whole:
        args |= facts.args
        request |= {"secrets": [{"id": one} for one in facts.secrets]} if facts.secrets else {}
        request |= {"ssh": [{"id": one} for one in facts.ssh]} if facts.ssh else {}
    request |= {"args": dict(sorted(args.items()))} if args else {}
    request |= {"locals": [{"name": one} for one in facts.contexts]} if facts.contexts else {}
    source: dict[str, object] = {"path": facts.dockerfile}
    if facts.config_uri:
        source |= {"uri": facts.config_uri, "digest": dict(facts.config_digest)}
    internal: dict[str, object] = {"builderPlatform": facts.builder_platform}
    metadata: dict[str, object] = {
        "buildkit_completeness": {"request": whole, "resolvedDependencies": facts.hermetic},
        "buildkit_hermetic": facts.hermetic,
    }
    if facts.vcs_revision:
        vcs = {"source": facts.vcs_source, "revision": facts.vcs_revision}
        metadata["buildkit_metadata"] = {"vcs": {key: value for key, value in vcs.items() if value}}
    if whole:
        internal["steps"] = list(facts.steps)
        times = {"invocationId": facts.invocation, "startedOn": facts.started, "finishedOn": facts.finished}
        metadata |= {key: value for key, value in times.items() if value}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": source, "request": request},
            "internalParameters": internal,
            "resolvedDependencies": [
                {"uri": one.uri, "digest": dict(one.digest)} for one in sorted(set(facts.materials))
            ],
        },
        "runDetails": {"builder": {"id": facts.builder_id}, "metadata": metadata},
    }


def statement(
    predicate_type: str, content: Mapping[str, object], digest: Digest, names: Sequence[Reference], platform: str
) -> bytes:
    """An in-toto statement about an image, as canonical JSON."""
    found = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {algorithm_of(digest): hex_of(digest)}} for name in _names(names, platform)
        ],
        "predicateType": predicate_type,
        "predicate": content,
    }
    return json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _names(names: Sequence[Reference], platform: str) -> list[str]:
    return sorted(purl_of(name, platform) for name in names) or ["_"]


def purl_of(name: Reference, platform: str) -> str:
    """An image of a registry as a package URL, as BuildKit writes it."""
    from packageurl import PackageURL

    namespace, _, short = name.familiar().partition("@")[0].rpartition("/")
    short = short.partition(":")[0]
    return PackageURL("docker", namespace or None, short, name.tag, {"platform": platform}).to_string()
