"""The name that an image was signed under, compared with the one that it is asked for by.

cosign writes the repository, without a tag, into what it signs under a tag, and so do bundles of cosign 2 and of aerogel;
those of cosign 3 tell no name.
Spec: containers-policy.json(5), `signedIdentity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aerogel.errors import AerogelError
from aerogel.oci.reference import DEFAULT_REGISTRY, Reference
from aerogel.registry.hosts import HUB_HOST

__all__ = ["ANY", "BOTH", "KINDS", "TOLD", "Identity", "is_for", "plain"]

_HUB_NAMES = frozenset({"index.docker.io", HUB_HOST})
ANY, TOLD = "any", "told"
"""Of `[signatures]`: any name may have been signed; if a signature tells a repository, it must be the right one."""
_EXACT, BOTH = "matchExact", "matchRepoDigestOrExact"
_REMAP, _REFERENCE, _REPOSITORY = "remapIdentity", "exactReference", "exactRepository"
KINDS: dict[str, tuple[str, ...]] = {
    BOTH: (),
    _EXACT: (),
    "matchRepository": (),
    _REFERENCE: ("dockerReference",),
    _REPOSITORY: ("dockerRepository",),
    _REMAP: ("prefix", "signedPrefix"),
}
"""Of policy.json, each with its keys."""


class Identity(NamedTuple):
    """Which name a signature must be for: a kind, and what comes with it.

    `TOLD` has nothing, or as `remapIdentity` a prefix and the one in its place (an empty prefix: the registry).
    """

    kind: str = ANY
    words: tuple[str, ...] = ()


def is_for(told: Sequence[str], reference: Reference, identity: Identity) -> bool:
    """Whether a name that was signed is that of the image. Who signs without a name, as cosign 3 does in bundles, signs what
    has this digest whatever it is called: `[signatures]` takes that, policy.json never does.
    """
    if identity.kind == ANY or (identity.kind == TOLD and not told):
        return True
    return any(_fits(text, reference, identity) for text in told)


def plain(name: str) -> str:
    """A name or scope with its registry in the one form in which rules are compared: no other spelling goes past them."""
    host, sign, rest = name.partition("/")
    host = host.lower().removesuffix(":443")
    return f"{DEFAULT_REGISTRY if host in _HUB_NAMES else host}{sign}{rest}"


def _fits(told: str, reference: Reference, identity: Identity) -> bool:
    kind, words = identity
    try:
        signed = Reference.parse(told, default_tag=None)
        wanted = Reference.parse(words[0], default_tag=None) if kind in (_REFERENCE, _REPOSITORY) else reference
    except AerogelError:
        return False
    if plain(signed.name) != (_mapped(wanted, identity) if len(words) == 2 else plain(wanted.name)):
        return False
    if kind in (_EXACT, BOTH, _REMAP, _REFERENCE):
        is_digest = wanted.digest is not None and kind in (BOTH, _REMAP)
        return is_digest or (signed.tag is not None and signed.tag == wanted.tag and wanted.digest is None)
    return True


def _mapped(reference: Reference, identity: Identity) -> str:
    """The name with another prefix in the place of the rule's."""
    name, (prefix, other) = plain(reference.name), (plain(word) for word in identity.words)
    if not prefix:
        return f"{other}/{reference.repository}"
    if f"{name}/".startswith(f"{prefix}/"):
        return other + name[len(prefix) :]
    return other if identity.kind == TOLD else name  # the scope of `[signatures]` may be one tag
