"""Names of images: Docker's normalisation of what people type, and the short form back.

Not for where an image is fetched from (mirrors and the API host of Docker Hub belong to `registry`).
Spec: distribution/reference v0.6 (grammar in reference.go), OCI distribution-spec v1.1 "Pulling manifests".

Grammar::

    reference   := [domain "/"] path [":" tag] ["@" digest]
    domain      := host [":" port]          host is a DNS name, an IPv4 or a bracketed IPv6 address
    path        := component ("/" component)*
    component   := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
    tag         := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
"""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from aerogel.errors import AerogelError
from aerogel.oci import digest as digests
from aerogel.oci.digest import Digest

__all__ = [
    "DEFAULT_REGISTRY",
    "DEFAULT_TAG",
    "MAX_PATH",
    "MAX_TAG",
    "Reference",
    "is_own_name",
    "is_path_name",
    "is_tag",
]

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH = 255
"""Longest repository path in characters."""
MAX_TAG = 128

_LEGACY_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


def is_path_name(text: str) -> bool:
    """Whether a name in FROM is a path to a declaration: no reference begins like that."""
    return text.startswith(("./", "../", "/"))


def is_own_name(text: str) -> bool:
    """Whether it is no reference at all but a name of aerogel's: a path to a declaration, a base with packages added."""
    return is_path_name(text) or (text.startswith("aerogel/") and "+" in text)


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


class Reference(msgspec.Struct, frozen=True, order=True):
    """A normalised name: registry and repository always, tag or digest or both.

    `str()` gives the canonical form (`docker.io/library/alpine:3.20`), `familiar()` what people type.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str | None = DEFAULT_TAG) -> Reference:
        """Reads a name as Docker does: no registry means `docker.io`, there no namespace means `library/`.

        Without tag and digest the tag is `default_tag`. Raises `oci.reference` with what would be valid.
        """
        if not text:
            _refuse(text, "it is empty", "for example `alpine:3.20` or `ghcr.io/owner/app`")
        if "://" in text:
            rest = text.partition("://")[2]
            _refuse(text, "it has a URL scheme", f"leave the scheme out: `{rest}`" if rest else "leave the scheme out")
        if any(character.isspace() or not character.isprintable() for character in text):
            _refuse(text, "it has white space or control characters in it")
        if _IDENTIFIER.fullmatch(text):
            _refuse(
                text,
                "64 hex digits alone would look like an image id",
                f"to name an image by digest write `NAME@sha256:{text}`",
            )
        rest, at, digest_text = text.partition("@")
        digest = _parse_digest(text, digest_text) if at else None
        domain, name = _split_domain(rest)
        path, colon, tag = name.partition(":")
        cls._check_domain(text, domain)
        cls._check_path(text, path)
        if colon and not is_tag(tag):
            _refuse_tag(text, tag)
        if not colon and digest is None:
            return cls(domain, path, default_tag)
        return cls(domain, path, tag if colon else None, digest)

    @staticmethod
    def _check_domain(text: str, domain: str) -> None:
        if not _DOMAIN.fullmatch(domain):
            _refuse(
                text,
                f"`{domain}` is not a registry",
                "a registry is `host` or `host:port`; the host is a DNS name, an IPv4 or a bracketed IPv6 address",
            )

    @staticmethod
    def _check_path(text: str, path: str) -> None:
        if not path:
            _refuse(text, "the repository is missing", "a name is `[registry/]repository[:tag][@digest]`")
        if path.lower() != path:
            path = path if path in text else path.removeprefix(_OFFICIAL)
            head, _, tail = text.partition(path)
            if "." not in head and ":" not in head:  # a word before the `/` that only its capitals made a registry
                head = head.lower()
            fixed = head + path.lower() + tail
            hint = f"did you mean `{fixed}`?" if _is_name(fixed) else "a name is `[registry/]repository[:tag][@digest]`"
            _refuse(text, "a repository is lower case", hint)
        if not _PATH.fullmatch(path):
            part = next((part for part in path.split("/") if not _PATH.fullmatch(part)), path)
            _refuse(
                text,
                f"`{part}` cannot stand in a repository" if part else "the repository has an empty part",
                "each part between `/` is letters and digits `a-z0-9`, joined by `.`, `_`, `__` or `-`",
            )
        if len(path) > MAX_PATH:
            _refuse(text, f"the repository has {len(path)} characters, at most {MAX_PATH} are valid")

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return self._with_suffix(self.name)

    def familiar(self) -> str:
        """The shortest form that `parse` reads back as this one; tag and digest are always shown."""
        repository = self.repository
        if self.registry != DEFAULT_REGISTRY:
            return self._with_suffix(self.name)
        bare = repository.removeprefix(_OFFICIAL)
        if "/" not in bare:
            repository = bare
        first = repository.partition("/")[0]
        if "/" in repository and (first == "localhost" or "." in first):
            # A namespace that would be taken for a registry needs the full form.
            return self._with_suffix(self.name)
        if _IDENTIFIER.fullmatch(repository) and not self.tag and not self.digest:
            return self._with_suffix(self.name)
        return self._with_suffix(repository)

    def _with_suffix(self, name: str) -> str:
        if self.tag is not None:
            name = f"{name}:{self.tag}"
        return f"{name}@{self.digest}" if self.digest is not None else name

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag, without digest. Raises `oci.reference`."""
        if not is_tag(tag):
            _refuse_tag(f"{self.name}:{tag}", tag)
        return Reference(self.registry, self.repository, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository by digest alone."""
        return Reference(self.registry, self.repository, None, digest)


def _is_name(text: str) -> bool:
    try:
        Reference.parse(text)
    except AerogelError:
        return False
    return True


def _split_domain(text: str) -> tuple[str, str]:
    """The registry and the rest; what stands before the first `/` is a registry when it looks like a host."""
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, name = DEFAULT_REGISTRY, text
    else:
        domain, name = first, rest
    if domain == _LEGACY_REGISTRY:
        domain = DEFAULT_REGISTRY
    if domain == DEFAULT_REGISTRY and name.partition(":")[0] and "/" not in name:
        name = _OFFICIAL + name
    return domain, name


def _parse_digest(text: str, digest_text: str) -> Digest:
    try:
        return digests.parse(digest_text)
    except AerogelError as error:
        _refuse(text, error.message)


def _refuse_tag(text: str, tag: str) -> NoReturn:
    if len(tag) > MAX_TAG:
        _refuse(text, f"the tag has {len(tag)} characters, at most {MAX_TAG} are valid")
    _refuse(
        text,
        f"`{tag}` is not a tag" if tag else "the tag is empty",
        "a tag is letters, digits, `_`, `.` and `-`, and begins with a letter, a digit or `_`",
    )


def _refuse(text: str, why: str, *hints: str) -> NoReturn:
    shown = text if len(text) <= 160 else text[:157] + "..."
    raise AerogelError(f"`{shown}` is not an image name: {why}", code="oci.reference", hints=hints)
