"""Which images of registries may be used: those that are signed by the right key, where a policy asks for it.

`[signatures]` of aerogel.toml maps a registry, or a prefix of names, to the public keys of which one must have signed, or
to who must have signed without a key (`identity` and `issuer` of the certificate);
`none` asks for nothing there, `reject` refuses all. The longest prefix decides, `*` is for all others. Where nothing of
the user's own file fits, containers' `policy.json` decides: `insecureAcceptAnything`, `reject` and `sigstoreSigned` with
keys. A project's file is asked beside these: it can ask for more, and never allows what they refuse.
Asked by all that comes from a registry: FROM, pull, run, copy. Spec: containers-policy.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aerogel.commands.signing import find_signatures
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.graph.ops import frame
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.keys import PublicKey
from aerogel.oci.reference import DEFAULT_REGISTRY, Reference
from aerogel.oci.signature import SIGNED as SIGNATURE
from aerogel.registry.client import Repository
from aerogel.registry.hosts import HUB_HOST
from aerogel.settings import Certified
from aerogel.store.disk import disk_errors

__all__ = ["enforce", "is_accepted", "scopes"]

_MOST = 1 << 20
_HUB_NAMES = frozenset({"index.docker.io", HUB_HOST})
ACCEPT, REJECT, SIGNED = "insecureAcceptAnything", "reject", "sigstoreSigned"


class _Rule(NamedTuple):
    """What one scope asks for. `identity` is the rule of policy.json for the name that a signature is for."""

    kind: str
    keys: tuple[tuple[str, bytes], ...] = ()
    certified: tuple[tuple[Certified, bytes], ...] = ()
    """Who may have signed without a key, and the trusted root; empty for Sigstore's."""
    identity: str = ""
    place: str = ""


def enforce(world: World, repository: Repository, reference: Reference, *digests: Digest) -> None:
    """Refuses an image without the signature that a policy asks for; one of the digests must have it: that of an index,
    then that of its image.

    Raises `policy.rejected`, `policy.unsigned`, `policy.malformed`, `policy.key`, `sign.key`, `registry.*`, `net.*`, `store.*`.
    """
    for rule in _rules(world, reference):
        signed = _check(world, rule, repository, reference, digests)
        # An image of a signed index is as good as signed; an index is not signed by what is said of one image.
        for digest in digests[digests.index(signed) :]:
            world.store.actions.put(_accepted(rule, reference, digest), {"policy": reference.name}, {})


def is_accepted(world: World, reference: Reference) -> bool:
    """Whether an image that is named by its digest may be taken from the local store, where it may have come by another
    name: no rule asks for anything, it has been asked under this name, or has it there. Raises `policy.*`.
    """
    rules, digest = _rules(world, reference), reference.digest
    if not rules or digest is None:
        return True
    world.witness.doubt(reference.familiar())
    known = world.store.actions
    if all(rule.kind == SIGNED and known.get(_accepted(rule, reference, digest)) is not None for rule in rules):
        return True
    named = (record for record in world.store.images.list() if record.descriptor.digest == digest)
    return any(each.name == reference.name for record in named for each in record.references)


def _rules(world: World, reference: Reference) -> list[_Rule]:
    """All that ask for something."""
    found = []
    is_decided = False
    for table in world.settings.signatures:
        rule = _own(table.rules, reference)
        is_decided = is_decided or (table.is_users and rule is not None)
        found.append(rule)
    if not is_decided:
        found.append(_containers(world, reference))
    return [rule for rule in found if rule is not None and rule.kind != ACCEPT]


def _accepted(rule: _Rule, reference: Reference, digest: Digest) -> Digest:
    """The name of the record that an image has been found signed as a rule asks."""
    keys = [pem for _, pem in rule.keys]
    for who, root in rule.certified:
        keys += [b"certified", who.identity.encode(), who.issuer.encode(), root]
    return digest_of(frame(b"policy-v1", reference.name.encode(), digest.encode(), rule.identity.encode(), *keys))


def _check(
    world: World, rule: _Rule, repository: Repository, reference: Reference, digests: Sequence[Digest]
) -> Digest:
    """The digest that is signed as the rule asks."""
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
                    return digest
    for who, _ in rule.certified:
        from aerogel.commands.keyless import find_certified

        for digest in dict.fromkeys(digests):
            asked = (who.identity, who.issuer, who.trusted_root)
            for judged in find_certified(repository, digest, SIGNATURE, *asked, world):
                found += 1
                if judged.statement is not None:
                    return digest
    keys = " or ".join(f"`{label}`" for label in (*dict(rule.keys), *(who.identity for who, _ in rule.certified)))
    others = "the signatures that it has are of others" if found else "it has none"
    raise AerogelError(
        f"`{name}` (`{digests[0]}`) has no signature by {keys}, which {rule.place} asks for: {others}",
        code="policy.unsigned",
        hints=["do not use what should be signed and is not; `aerogel verify --key FILE NAME` tells of one key"],
    )


def scopes(reference: Reference) -> Iterator[str]:
    """What rules may call an image, the most exact first: name with tag or digest, name, parents, registry, domains."""
    name = _plain(reference.name)
    if reference.digest is not None:
        yield f"{name}@{reference.digest}"
    if reference.tag is not None:
        yield f"{name}:{reference.tag}"
    host = name.partition("/")[0].partition(":")[0]
    while name:
        yield name
        name = name.rpartition("/")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def _plain(name: str) -> str:
    """A name or scope with its registry in the one form in which rules are compared: no other spelling goes past them."""
    host, sign, rest = name.partition("/")
    host = host.lower().removesuffix(":443")
    return f"{DEFAULT_REGISTRY if host in _HUB_NAMES else host}{sign}{rest}"


def _own(told: Mapping[str, tuple[str | Certified, ...]], reference: Reference) -> _Rule | None:
    rules = {_plain(scope): words for scope, words in told.items()}
    for scope in (*scopes(reference), "*"):
        if scope not in rules:
            continue
        place = f"`[signatures]` for `{scope}`"
        words = rules[scope]
        if words in (("none",), ("reject",)):
            return _Rule(ACCEPT if words == ("none",) else REJECT, place=place)
        return _Rule(
            SIGNED,
            tuple((word, _key(Path(word), place)) for word in words if isinstance(word, str)),
            tuple((word, _root(word, place)) for word in words if isinstance(word, Certified)),
            place=place,
        )
    return None


def _containers(world: World, reference: Reference) -> _Rule | None:
    for path in world.settings.policy_files:
        world.witness.look(path)
        if not path.is_file():
            continue
        try:
            policy = json.loads(_read(path))
            told = policy.get("transports", {}).get("docker", {})
            rules = {_plain(name): listed for name, listed in told.items()}
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
    keys = [(one, _key(Path(one), place)) for one in paths]
    try:
        keys += [(f"keyData of {path}", base64.b64decode(one, validate=True)) for one in data]
    except binascii.Error:
        raise ValueError("`keyData` is no Base64") from None
    if not keys:
        raise ValueError("`sigstoreSigned` has no key")
    return _Rule(SIGNED, tuple(keys), identity=identity, place=place)


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
        hints=["write the rule into `[signatures]` of your own aerogel.toml, which comes first"],
    )


def _root(who: Certified, place: str) -> bytes:
    return _key(Path(who.trusted_root), place) if who.trusted_root else b""


def _key(path: Path, place: str) -> bytes:
    try:
        return _read(path)
    except AerogelError as error:
        raise AerogelError(
            f"the key that {place} names is not there: {error.message}",
            code="policy.key",
            hints=["until it is, no image that it is asked for is used"],
        ) from None


def _read(path: Path) -> bytes:
    with disk_errors(str(path)), path.open("rb") as file:
        return file.read(_MOST)
