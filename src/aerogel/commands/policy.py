"""Which images of registries may be used: those that are signed by the right key, where a policy asks for it.

`[signatures]` of aerogel.toml maps a registry, or a prefix of names, to the public keys of which one must have signed;
`none` asks for nothing there, `reject` refuses all. The longest prefix decides, `*` is for all others. Where nothing of
it fits, containers' `policy.json` decides: `insecureAcceptAnything`, `reject` and `sigstoreSigned` with keys.
Asked by all that comes from a registry: FROM, pull, run, copy. Spec: containers-policy.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aerogel.commands.signing import find_signatures
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.oci.digest import Digest
from aerogel.oci.keys import PublicKey
from aerogel.oci.reference import Reference
from aerogel.registry.client import Repository
from aerogel.store.disk import disk_errors

__all__ = ["enforce", "scopes"]

_MOST = 1 << 20
ACCEPT, REJECT, SIGNED = "insecureAcceptAnything", "reject", "sigstoreSigned"


class _Rule(NamedTuple):
    """What one scope asks for. `identity` is the rule of policy.json for the name that a signature is for."""

    kind: str
    keys: tuple[tuple[str, bytes], ...] = ()
    identity: str = ""
    place: str = ""


def enforce(world: World, repository: Repository, reference: Reference, *digests: Digest) -> None:
    """Refuses an image without the signature that a policy asks for; one of the digests must have it.

    Raises `policy.rejected`, `policy.unsigned`, `policy.malformed`, `sign.key`, `registry.*`, `net.*`, `store.*`.
    """
    rule = _own(world, reference) or _containers(world, reference)
    if rule is None or rule.kind == ACCEPT:
        return
    name = reference.familiar()
    if rule.kind == REJECT:
        raise AerogelError(
            f"`{name}` may not be used: {rule.place} rejects it",
            code="policy.rejected",
            hints=["take another image, or change the policy"],
        )
    found = 0
    for label, pem in rule.keys:
        key = PublicKey(pem, label)
        for digest in dict.fromkeys(digests):
            for each in find_signatures(repository, digest, key):
                found += 1
                if each.is_right and (not rule.identity or _is_for(each.name, reference, rule.identity)):
                    return
    keys = " or ".join(f"`{label}`" for label, _ in rule.keys)
    others = "the signatures that it has are of others" if found else "it has none"
    raise AerogelError(
        f"`{name}` (`{digests[0]}`) has no signature by {keys}, which {rule.place} asks for: {others}",
        code="policy.unsigned",
        hints=["do not use what should be signed and is not; `aerogel verify --key FILE NAME` tells of one key"],
    )


def scopes(reference: Reference) -> Iterator[str]:
    """What rules may call an image, the most exact first: name with tag or digest, name, parents, registry, domains."""
    if reference.digest is not None:
        yield f"{reference.name}@{reference.digest}"
    if reference.tag is not None:
        yield f"{reference.name}:{reference.tag}"
    name = reference.name
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = reference.registry.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def _own(world: World, reference: Reference) -> _Rule | None:
    rules = world.settings.signatures
    if not rules:
        return None
    for scope in (*scopes(reference), "*"):
        if scope not in rules:
            continue
        place = f"`[signatures]` for `{scope}`"
        words = rules[scope]
        if words in (("none",), ("reject",)):
            return _Rule(ACCEPT if words == ("none",) else REJECT, place=place)
        return _Rule(SIGNED, tuple((word, _read(Path(word))) for word in words), place=place)
    return None


def _containers(world: World, reference: Reference) -> _Rule | None:
    for path in world.settings.policy_files:
        if not path.is_file():
            continue
        world.witness.look(path)
        try:
            policy = json.loads(_read(path))
            rules = policy.get("transports", {}).get("docker", {})
            scope = next((one for one in (*scopes(reference), "") if one in rules), None)
            listed = policy["default"] if scope is None else rules[scope]
            return _strictest([_rule(each, path, scope) for each in listed], path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AerogelError(
                f"`{path}` is no policy: {error}" if str(error) else f"`{path}` is no policy",
                code="policy.malformed",
                hints=["containers-policy.json(5) tells what it may say; without it all images are taken"],
            ) from None
    return None


def _strictest(rules: list[_Rule], path: Path) -> _Rule:
    """All rules of a scope must be met; more than one that asks for signatures is more than is checked here."""
    asking = [rule for rule in rules if rule.kind != ACCEPT]
    if not rules:
        raise ValueError("a scope has no requirement")
    if len(asking) > 1 and not any(rule.kind == REJECT for rule in asking):
        raise _unknown(path, "several requirements for one image")
    return next((rule for rule in asking if rule.kind == REJECT), asking[0] if asking else rules[0])


def _rule(said: Mapping[str, Any], path: Path, scope: str | None) -> _Rule:
    place = f"`{path}` for `{scope or '*'}`"
    kind = said["type"]
    if kind in (ACCEPT, REJECT):
        return _Rule(kind, place=place)
    known = {"type", "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity"}
    if kind != SIGNED or said.keys() - known:
        more = ", ".join(sorted(said.keys() - known)) if kind == SIGNED else kind
        raise _unknown(path, f"`{more}`")
    identity = said.get("signedIdentity", {"type": "matchRepoDigestOrExact"})["type"]
    if identity not in ("matchRepoDigestOrExact", "matchRepository", "matchExact"):
        raise _unknown(path, f"`{identity}`")
    paths = [*said.get("keyPaths", ()), *([said["keyPath"]] if "keyPath" in said else [])]
    data = [*said.get("keyDatas", ()), *([said["keyData"]] if "keyData" in said else [])]
    keys = [(one, _read(Path(one))) for one in paths]
    try:
        keys += [(f"keyData of {path}", base64.b64decode(one, validate=True)) for one in data]
    except binascii.Error:
        raise ValueError("`keyData` is no Base64") from None
    if not keys:
        raise ValueError("`sigstoreSigned` has no key")
    return _Rule(SIGNED, tuple(keys), identity, place)


def _is_for(told: str, reference: Reference, identity: str) -> bool:
    """Whether the name that was signed is that of the image; bundles tell none."""
    try:
        signed = Reference.parse(told)
    except AerogelError:
        return False
    if signed.name != reference.name:
        return False
    if identity == "matchRepository" or (identity == "matchRepoDigestOrExact" and reference.digest is not None):
        return True
    return told in (f"{reference.name}:{reference.tag}", reference.familiar())


def _unknown(path: Path, what: str) -> AerogelError:
    return AerogelError(
        f"`{path}` asks for {what}, which is not checked here, so the image is not used",
        code="policy.unknown",
        hints=["write the rule into `[signatures]` of aerogel.toml, which comes first"],
    )


def _read(path: Path) -> bytes:
    with disk_errors(str(path)), path.open("rb") as file:
        return file.read(_MOST)
