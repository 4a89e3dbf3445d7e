"""Which images may be used: those that are signed by the right key, where a policy asks for it.

`[signatures]` of aerogel.toml maps a registry, or a prefix of names, to the public keys of which one must have signed, or
to who must have signed without a key (`identity` and `issuer` of the certificate);
`none` asks for nothing there, `reject` refuses all. The longest prefix decides, `*` is for all others. Where nothing of
the user's own file fits, containers' `policy.json` decides: `insecureAcceptAnything`, `reject` and `sigstoreSigned` with
keys. A project's file is asked beside these: it can ask for more, and never allows what they refuse.

`enforce` is asked by all that comes from a registry: FROM, pull, run, copy. `may_use` is asked before an image of the store
is run or built upon by its name. A name that somebody here gave an image (a build, `tag`, `copy`) is not asked about, as it
did not come from anywhere; one that came along (`pull`, `load`) is. Spec: containers-policy.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aerogel.commands.signed_names import ANY, BOTH, KINDS, TOLD, Identity, is_for, plain
from aerogel.commands.world import World
from aerogel.errors import AerogelError
from aerogel.graph.ops import frame
from aerogel.oci.digest import Digest, digest_of
from aerogel.oci.reference import Reference
from aerogel.settings import Signer
from aerogel.store.disk import disk_errors

if TYPE_CHECKING:
    from aerogel.commands.signing import Attested, Found
    from aerogel.oci.keys import PublicKey
    from aerogel.registry.client import Repository

__all__ = ["enforce", "enforce_elsewhere", "may_use", "refuse", "scopes"]

_MOST = 1 << 20
_DOCKER = "docker"
"""The transport of registries."""
ACCEPT, REJECT, SIGNED = "insecureAcceptAnything", "reject", "sigstoreSigned"


class _Rule(NamedTuple):
    """What one scope asks for."""

    kind: str
    keys: tuple[tuple[str, bytes], ...] = ()
    certified: tuple[tuple[Signer, bytes], ...] = ()
    """Who may have signed without a key, and the trusted root; empty for Sigstore's."""
    identity: Identity = Identity()
    place: str = ""


class _Signatures(NamedTuple):
    """Where the signatures of a manifest are looked for: those of a key, those with certificates."""

    by_key: Callable[[Digest, PublicKey], list[Found]]
    certified: Callable[[Digest, Signer], list[Attested]]


def enforce(world: World, repository: Repository, reference: Reference, *digests: Digest) -> None:
    """Refuses an image without the signature that a policy asks for; one of the digests must have it: that of an index,
    then that of its image.

    Raises `policy.rejected`, `policy.unsigned`, `policy.malformed`, `policy.key`, `sign.key`, `registry.*`, `net.*`, `store.*`.
    """
    rules = _rules(world, reference)
    if not rules:
        return
    from aerogel.commands.signing import bundles_of, find_signatures

    place = _Signatures(
        lambda digest, key: find_signatures(repository, digest, key),
        lambda digest, who: _certified(world, bundles_of(repository, digest), digest, who),
    )
    for rule in rules:
        signed = _check(rule, place, reference, digests)
        # An image of a signed index is as good as signed; an index is not signed by what is said of one image.
        for digest in digests[digests.index(signed) :]:
            _accept(world, rule, reference, digest)


def enforce_elsewhere(world: World, transport: str, name: str, path: Path | None = None) -> None:
    """Refuses what comes from no registry where policy.json says so of its transport (`oci`, `docker-archive`, `docker-daemon`,
    ...), as podman does. `path` is that of a file or folder; signatures cannot be asked for.

    Raises `policy.rejected`, `policy.unknown`, `policy.malformed`, `policy.key`.
    """
    whole = path.resolve() if path is not None else None
    rule = _containers(world, transport, [str(one) for one in (whole, *whole.parents)] if whole is not None else [])
    if rule is not None and rule.kind == REJECT:
        raise _rejected(rule, f"{transport}:{name}")
    if rule is not None and rule.kind == SIGNED:
        raise AerogelError(
            f"`{transport}:{name}` may not be used: {rule.place} asks for a signature, which it cannot have",
            code="policy.rejected",
            hints=[f"allow it under `{transport}` in `transports` of that file"],
        )


def may_use(world: World, reference: Reference, digest: Digest) -> bool:
    """Whether an image of the store may be run or built upon by a name: no rule asks for anything, somebody here gave it
    the name, it has been asked under the name, or a signature came along with it that is right. Raises `policy.*`, `sign.key`.
    """
    rules = _rules(world, reference)
    if not rules:
        return True
    is_own = world.store.images.is_own(reference, digest)
    if is_own and reference.digest is None:
        return True  # the file that says so is watched, as all that a name means
    world.witness.doubt(reference.familiar())
    if is_own:
        return True
    return all(_is_known(world, rule, reference, digest) for rule in rules)


def refuse(world: World, reference: Reference, digest: Digest) -> None:
    """Raises `policy.rejected` or `policy.unsigned` for what `may_use` refuses."""
    for rule in _rules(world, reference):
        if rule.kind == REJECT:
            raise _rejected(rule, reference.familiar())
        if not _is_known(world, rule, reference, digest):
            raise _unsigned(rule, reference, digest, "the local store knows none")


def _is_known(world: World, rule: _Rule, reference: Reference, digest: Digest) -> bool:
    if rule.kind == REJECT:
        return False
    if world.store.actions.get(_accepted(rule, reference, digest)) is not None:
        return True
    from aerogel.commands.signing import stored_bundles, stored_signatures

    place = _Signatures(
        lambda digest, key: stored_signatures(world.store, digest, key),
        lambda digest, who: _certified(world, stored_bundles(world.store, digest), digest, who),
    )
    try:
        _check(rule, place, reference, [digest])
    except AerogelError as error:
        if error.code != "policy.unsigned":
            raise
        return False
    _accept(world, rule, reference, digest)
    return True


def _certified(
    world: World, bundles: Iterator[tuple[Digest, str, bytes]], digest: Digest, who: Signer
) -> list[Attested]:
    from aerogel.commands.keyless import find_certified
    from aerogel.oci.signature import SIGNED as SIGNATURE

    return find_certified(bundles, digest, SIGNATURE, who.identity, who.issuer, who.trusted_root, world)


def _accept(world: World, rule: _Rule, reference: Reference, digest: Digest) -> None:
    world.store.actions.put(_accepted(rule, reference, digest), {"policy": reference.name}, {})


def _rules(world: World, reference: Reference) -> list[_Rule]:
    """All that ask for something."""
    found = []
    is_decided = False
    for table in world.settings.signatures:
        rule = _own(table.rules, reference)
        is_decided = is_decided or (table.is_users and rule is not None)
        found.append(rule)
    if not is_decided:
        found.append(_containers(world, _DOCKER, list(scopes(reference))))
    return [rule for rule in found if rule is not None and rule.kind != ACCEPT]


def _accepted(rule: _Rule, reference: Reference, digest: Digest) -> Digest:
    """The name of the record that an image has been found signed as a rule asks."""
    keys = [pem for _, pem in rule.keys]
    for who, root in rule.certified:
        keys += [b"certified", who.identity.encode(), who.issuer.encode(), root]
    words = (rule.identity.kind, *rule.identity.words)
    if rule.identity.kind not in (ANY, TOLD):
        words += (reference.tag or "",)
    named = frame(*(word.encode() for word in words))
    return digest_of(frame(b"policy-v2", reference.name.encode(), digest.encode(), named, *keys))


def _check(rule: _Rule, place: _Signatures, reference: Reference, digests: Sequence[Digest]) -> Digest:
    """The digest that is signed as the rule asks."""
    if rule.kind == REJECT:
        raise _rejected(rule, reference.familiar())
    from aerogel.oci.attestation import subject_names
    from aerogel.oci.keys import PublicKey

    found = 0
    other: tuple[str, ...] = ()
    for label, pem in rule.keys:
        key = PublicKey(pem, label)
        for digest in dict.fromkeys(digests):
            for each in place.by_key(digest, key):
                found += 1
                if each.is_right and is_for(each.names, reference, rule.identity):
                    return digest
                other += each.names
    for who, _ in rule.certified:
        for digest in dict.fromkeys(digests):
            for judged in place.certified(digest, who):
                found += 1
                names = subject_names(judged.statement, digest) if judged.statement is not None else ()
                if judged.statement is not None and is_for(names, reference, rule.identity):
                    return digest
                other += names
    told = "the signatures that it has are of others" if found else "it has none"
    if other:
        told = "it is signed as " + ", ".join(f"`{name}`" for name in dict.fromkeys(other))
    raise _unsigned(rule, reference, digests[0], told, is_moved=bool(other))


def _rejected(rule: _Rule, name: str) -> AerogelError:
    return AerogelError(
        f"`{name}` may not be used: {rule.place} rejects it",
        code="policy.rejected",
        hints=["take another image, or change the policy"],
    )


def _unsigned(rule: _Rule, reference: Reference, digest: Digest, told: str, *, is_moved: bool = False) -> AerogelError:
    keys = " or ".join(f"`{label}`" for label in (*dict(rule.keys), *(who.identity for who, _ in rule.certified)))
    hint = "do not use what should be signed and is not; `aerogel verify --key FILE NAME` tells of one key"
    if is_moved:
        hint = "where images are copied from elsewhere on purpose, `signed-for` in `[signatures]` says from where"
    return AerogelError(
        f"`{reference.familiar()}` (`{digest}`) has no signature by {keys}, which {rule.place} asks for: {told}",
        code="policy.unsigned",
        hints=[hint],
    )


def scopes(reference: Reference) -> Iterator[str]:
    """What rules may call an image, the most exact first: name with tag or digest, name, parents, registry, domains."""
    name = plain(reference.name)
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


def _own(told: Mapping[str, tuple[str | Signer, ...]], reference: Reference) -> _Rule | None:
    rules = {plain(scope): words for scope, words in told.items()}
    for scope in (*scopes(reference), "*"):
        if scope not in rules:
            continue
        place = f"`[signatures]` for `{scope}`"
        words = rules[scope]
        if words in (("none",), ("reject",)):
            return _Rule(ACCEPT if words == ("none",) else REJECT, place=place)
        who = (
            words[0] if isinstance(words[0], Signer) else Signer(key=[word for word in words if isinstance(word, str)])
        )
        return _Rule(
            SIGNED,
            tuple((key, _key(Path(key), place)) for key in who.keys),
            ((who, _root(who, place)),) if who.identity else (),
            _moved(scope, who.signed_for),
            place,
        )
    return None


def _moved(scope: str, signed_for: str) -> Identity:
    """The names that images of a scope of `[signatures]` were signed under."""
    if signed_for in ("", ANY):
        return Identity(signed_for or TOLD)
    return Identity(TOLD, ("" if "*" in scope else scope, plain(signed_for)))


def _containers(world: World, transport: str, names: Sequence[str]) -> _Rule | None:
    """The rule of the first name that policy.json has for a transport, else its default; None where there is no such file."""
    for path in world.settings.policy_files:
        world.witness.look(path)
        if not path.is_file():
            continue
        try:
            policy = json.loads(_read(path))
            told = policy.get("transports", {}).get(transport, {})
            rules = {plain(name) if transport == _DOCKER else name: listed for name, listed in told.items()}
            scope = next((one for one in (*names, "") if one in rules), None)
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
    place = f"`{path}`" + (f" for `{scope}`" if scope else "")
    kind = said["type"]
    if kind in (ACCEPT, REJECT):
        return _Rule(kind, place=place)
    known = {"type", "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity"}
    if kind != SIGNED or said.keys() - known:
        more = ", ".join(sorted(said.keys() - known)) if kind == SIGNED else kind
        raise _unknown(path, f"`{more}`")
    told = said.get("signedIdentity", {"type": BOTH})
    if told["type"] not in KINDS or told.keys() - {"type", *KINDS[told["type"]]}:
        raise _unknown(path, f"`{told['type']}`")
    identity = Identity(told["type"], tuple(told[key] for key in KINDS[told["type"]]))
    if not all(isinstance(word, str) and word for word in identity.words):
        raise TypeError(f"`{told['type']}` wants texts")
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


def _unknown(path: Path, what: str) -> AerogelError:
    return AerogelError(
        f"`{path}` asks for {what}, which is not checked here, so the image is not used",
        code="policy.unknown",
        hints=["write the rule into `[signatures]` of your own aerogel.toml, which comes first"],
    )


def _root(who: Signer, place: str) -> bytes:
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
