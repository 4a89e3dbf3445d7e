"""Where a registry is asked: mirrors, other addresses, certificates, what is blocked; as values and how one is chosen.

The files that say so are read elsewhere (`registry.host_files`). A `Rule` is what one of them says about one registry or
one part of it; the first source that knows a registry decides, within a source the rule with the longest prefix.
Spec: containers-registries.conf(5); containerd docs/hosts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from aerogel.errors import EXIT_USAGE, AerogelError
from aerogel.net.peer import NOBODY, Peer
from aerogel.oci.reference import DEFAULT_REGISTRY, Reference

__all__ = ["BLOBS", "HUB_HOST", "PULL", "PUSH", "RESOLVE", "Hosts", "Mirror", "Place", "Route", "Rule", "Source"]

HUB_HOST = "registry-1.docker.io"
"""Where Docker Hub's API is."""
PULL, RESOLVE, BLOBS, PUSH = "pull", "resolve", "blobs", "push"
"""What a mirror may be used for: manifests by digest, by tag, blobs, uploads."""
_ALL = frozenset({PULL, RESOLVE, BLOBS})


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One address where a registry's API is."""

    registry: str
    """The name that credentials are kept under, `host[:port]`."""
    scheme: str = ""
    """`https`, `http`, or nothing: TLS, and without it where that is allowed."""
    path: str = "/v2"
    """Of the API."""
    is_insecure: bool = False
    """It may be spoken to without TLS, or with a certificate that nobody vouches for."""
    peer: Peer = NOBODY

    @property
    def host(self) -> str:
        return HUB_HOST if self.registry == DEFAULT_REGISTRY else self.registry


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """Another place for what a rule covers. `location` takes the place of the rule's prefix in names, if it has one."""

    place: Place
    location: str = ""
    can: frozenset[str] = _ALL
    tells_registry: bool = False
    """Whether it is told by `?ns=` which registry is meant."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about `prefix`: `host`, `host/namespace`, `host/name:tag`, or `*.domain`.

    `origin` is where the registry itself is asked, None for where its name says. `where` names the file, for messages.
    """

    prefix: str
    where: str
    mirrors: tuple[Mirror, ...] = ()
    origin: Mirror | None = None
    is_blocked: bool = False

    def covers(self, name: str) -> bool:
        """Whether `host/repository[:tag|@digest]` is meant."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].endswith(self.prefix[1:])
        rest = name[len(self.prefix) :]
        return name.startswith(self.prefix) and (not rest or rest[0] in "/:@") and not _cuts_port(self.prefix, rest)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at one place."""

    place: Place
    repository: str
    can: frozenset[str] = _ALL
    namespace: str = ""
    """Said to a mirror that serves several registries."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image is asked for: mirrors in their order, then the registry itself. Uploads go to `target`."""

    origin: Source
    mirrors: tuple[Source, ...] = ()

    @property
    def target(self) -> Source:
        return next((each for each in self.mirrors if PUSH in each.can), self.origin)


Lookup = Callable[[str], Sequence[Rule]]
"""The rules of one source that may concern a registry (`host[:port]`)."""


class Hosts:
    """All that the user's files say. `trust` is what is known of a host's TLS whatever the rules are."""

    def __init__(
        self,
        lookups: Sequence[Lookup] = (),
        *,
        insecure: frozenset[str] = frozenset(),
        trust: Callable[[str], Peer] = lambda _: NOBODY,
    ) -> None:
        self._lookups = lookups
        self._insecure = insecure
        self._trust = trust

    def place(self, registry: str) -> Place:
        """Where a registry itself is asked, for a login. Raises `registry.blocked`, `registry.config`."""
        return self.route(Reference(registry, "", None, None)).origin.place

    def route(self, reference: Reference) -> Route:
        """Raises `registry.blocked`, `registry.config`."""
        name = _name(reference)
        rule = self._rule(reference.registry, name)
        if rule is None:
            return Route(
                origin=Source(place=self._known(Place(registry=reference.registry)), repository=reference.repository)
            )
        if rule.is_blocked:
            raise AerogelError(
                f"`{name}` is blocked",
                code="registry.blocked",
                hints=[f"`{rule.where}` says so for `{rule.prefix}`"],
                exit_status=EXIT_USAGE,
            )
        origin = rule.origin or Mirror(place=Place(registry=reference.registry))
        return Route(
            origin=self._source(origin, rule, reference),
            mirrors=tuple(self._source(each, rule, reference) for each in rule.mirrors),
        )

    def _rule(self, registry: str, name: str) -> Rule | None:
        for lookup in self._lookups:
            found = [rule for rule in lookup(registry) if rule.covers(name)]
            if found:
                return max(found, key=lambda rule: (not rule.prefix.startswith("*."), len(rule.prefix)))
        return None

    def _source(self, mirror: Mirror, rule: Rule, reference: Reference) -> Source:
        place, repository = mirror.place, reference.repository
        if mirror.location:
            kept = "" if rule.prefix.startswith("*.") else rule.prefix
            rest = f"{reference.registry}/{reference.repository}"[len(kept) :] if kept else f"/{repository}"
            registry, _, repository = f"{mirror.location}{rest}".partition("/")
            place = msgspec.structs.replace(place, registry=_hub(registry))
            if place.registry == DEFAULT_REGISTRY and "/" not in repository:
                repository = f"library/{repository}"
        namespace = reference.registry if mirror.tells_registry else ""
        return Source(place=self._known(place), repository=repository, can=mirror.can, namespace=namespace)

    def _known(self, place: Place) -> Place:
        known, given = self._trust(place.registry), place.peer
        is_insecure = place.is_insecure or place.registry in self._insecure
        peer = msgspec.structs.replace(
            given,
            authorities=given.authorities + known.authorities,
            clients=given.clients or known.clients,
            is_verified=given.is_verified and not is_insecure,
            headers=given.headers or known.headers,
        )
        return msgspec.structs.replace(place, is_insecure=is_insecure, peer=peer)


def _name(reference: Reference) -> str:
    name = f"{reference.registry}/{reference.repository}" if reference.repository else reference.registry
    if reference.digest is not None:
        return f"{name}@{reference.digest}"
    return f"{name}:{reference.tag}" if reference.tag and reference.repository else name


def _hub(registry: str) -> str:
    return DEFAULT_REGISTRY if registry in ("index.docker.io", HUB_HOST) else registry


def _cuts_port(prefix: str, rest: str) -> bool:
    """`host` is no prefix of `host:5000/name`: that is another registry."""
    return "/" not in prefix and rest.startswith(":")
