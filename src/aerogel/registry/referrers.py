"""What a registry knows to refer to an image: SBOM, provenance, signatures.

A registry without the referrers API has the list under the fall-back tag, if a client that pushed such an artifact
put it there. The list itself is checked by nothing; each artifact is, by its digest and by the subject in it.
Spec: OCI distribution-spec v1.1 "Listing Referrers" (end-12a), "Backwards Compatibility".
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from aerogel.errors import EXIT_NETWORK, AerogelError
from aerogel.net.proxy import redact
from aerogel.oci.artifact import fallback_tag
from aerogel.oci.digest import Digest
from aerogel.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, decode
from aerogel.registry.client import ACCEPT, Repository
from aerogel.registry.hosts import PULL

__all__ = ["list_referrers"]

_MAX_PAGES = 64
_MAX_LISTED = 4096
"""Each one is looked at: a list without end would keep its reader busy without end."""
_NEXT = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?')


def list_referrers(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    """The artifacts that refer to a manifest of the repository, as the registry lists them, each once.

    Mirrors are asked first; one that lists nothing says nothing for the registry, but its answer stands where the registry
    cannot be reached. Empty where there is no list. Raises `registry.*` (`registry.too-large`), `net.*`, `oci.malformed`.
    """
    has_answer = False

    def listing(place: Repository) -> list[Descriptor]:
        nonlocal has_answer
        listed = _of_api(place, subject)
        if listed is None:
            listed = _of_tag(place, subject)
        if not listed and place is not repository:
            has_answer = True
            raise AerogelError(f"it lists nothing for `{subject}`", code="registry.not-found")
        return listed

    try:
        listed = repository.ask(PULL, listing)
    except AerogelError as error:
        if not has_answer or not error.code.startswith(("net.", "registry.no-host")):
            raise
        listed = []
    found = {each.digest: each for each in listed if each.media_type in MANIFEST_TYPES}
    if len(found) > _MAX_LISTED:
        raise AerogelError(
            f"the registry lists {len(found)} artifacts for `{subject}`, at most {_MAX_LISTED} are looked at",
            code="registry.too-large",
            exit_status=EXIT_NETWORK,
        )
    return tuple(found.values())


def _of_api(repository: Repository, subject: Digest) -> list[Descriptor] | None:
    """None when the registry has no API for it, which a 404 says."""
    url = repository.url("referrers", subject)
    found: list[Descriptor] = []
    for _ in range(_MAX_PAGES):
        try:
            answer = repository.endpoint.request(
                repository.name,
                repository.scopes,
                "GET",
                url,
                what=f"referrers of `{subject}`",
                headers={"Accept": ACCEPT},
            )
        except AerogelError as error:
            if error.code == "registry.not-found":
                return None
            raise
        found += decode(answer.body, Index, what=f"`GET {redact(url)}` (the referrers of `{subject}`)").manifests
        following = _NEXT.search(answer.headers.get("link", ""))
        if following is None:
            return found
        after = urljoin(url, following[1])
        if urlsplit(after)[:2] != urlsplit(url)[:2]:
            return found  # another host has no say
        url = after
    raise AerogelError(
        f"the list of what refers to `{subject}` has more than {_MAX_PAGES} pages",
        code="registry.too-large",
        exit_status=EXIT_NETWORK,
        hints=["an image has a few signatures and documents: ask who runs the registry what the others are"],
    )


def _of_tag(repository: Repository, subject: Digest) -> list[Descriptor]:
    tag = fallback_tag(subject)
    url = repository.url("manifests", tag)
    try:
        answer = repository.endpoint.request(
            repository.name,
            repository.scopes,
            "GET",
            url,
            what=f"manifest `{tag}`",
            headers={"Accept": ACCEPT},
        )
    except AerogelError as error:
        if error.code == "registry.not-found":
            return []
        raise
    index = decode(answer.body, Index, what=f"`GET {redact(url)}` (the list of referrers)")
    # Some registries take the tag for the digest and give the subject itself.
    return list(index.manifests) if not index.media_type or index.media_type in INDEX_TYPES else []
