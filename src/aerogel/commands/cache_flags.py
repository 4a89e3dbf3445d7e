"""The values of `--cache-from` and `--cache-to`: `type=registry,ref=NAME` and its relatives, as buildx has them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aerogel.commands.cache_s3 import Bucket
from aerogel.errors import EXIT_USAGE, AerogelError, nearest
from aerogel.files.codec import Codec, select
from aerogel.oci.reference import Reference

__all__ = ["ELSEWHERE", "CacheSource", "CacheTarget", "parse_cache_from", "parse_cache_to"]

_TYPES = ("inline", "local", "registry", "s3")
ELSEWHERE = ("azblob", "gha")
"""Services of buildx that are not spoken to."""
_S3 = set(Bucket._fields)
_FROM = {
    "registry": {"ref", "cache-mounts"},
    "local": {"src", "tag", "digest", "cache-mounts"},
    "s3": {*_S3, "cache-mounts"},
}
_COMMON = {"mode", "ignore-error", "compression", "compression-level", "cache-mounts"}
_TO = {
    "registry": {"ref", *_COMMON},
    "local": {"dest", "tag", *_COMMON},
    "s3": {*_S3, *_COMMON},
    "inline": {"mode"},
}
_SAME_HERE = {"oci-mediatypes": "true", "image-manifest": "true", "force-compression": "false"}
"""Keys of buildx that may only say what is done anyway."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class CacheSource(NamedTuple):
    """Where to look for results: `reference` of a registry, a tag in a `folder`, or a name in a `bucket`."""

    kind: str
    reference: Reference | None = None
    folder: str = ""
    tag: str = "latest"
    digest: str = ""
    bucket: Bucket | None = None
    with_mounts: bool = False


class CacheTarget(NamedTuple):
    """Where to put results: those of `all` stages (`mode=max`), or only of those that the image is built from."""

    kind: str
    reference: Reference | None = None
    folder: str = ""
    tag: str = "latest"
    is_whole: bool = True
    may_fail: bool = False
    codec: Codec | None = None
    bucket: Bucket | None = None
    with_mounts: bool = False
    """The directories of cache mounts too."""


def parse_cache_from(text: str, environment: Mapping[str, str] = _NOTHING) -> CacheSource:
    """Reads `type=registry,ref=NAME`, `type=local,src=FOLDER`, `type=s3,bucket=NAME` or `NAME`. Raises `build.bad-cache`."""
    flag = "--cache-from"
    kind, fields = _fields(flag, text)
    if kind == "inline":
        raise _bad(f"`{flag}` has no type `inline`", "name the image: `--cache-from NAME`")
    _check(flag, kind, fields, _FROM[kind])
    found = CacheSource(kind, with_mounts=_switch(fields, "cache-mounts"))
    if kind == "local":
        folder = _needed(flag, kind, fields, "src")
        return found._replace(folder=folder, tag=fields.get("tag", "latest"), digest=fields.get("digest", ""))
    if kind == "s3":
        return found._replace(bucket=_bucket(flag, fields, environment))
    return found._replace(reference=_reference(_needed(flag, kind, fields, "ref")))


def parse_cache_to(text: str, environment: Mapping[str, str] = _NOTHING) -> CacheTarget:
    """Reads `type=registry,ref=NAME`, `type=local,dest=FOLDER`, `type=s3,bucket=NAME`, `type=inline` or `NAME`.

    Raises `build.bad-cache`.
    """
    flag = "--cache-to"
    kind, fields = _fields(flag, text)
    _check(flag, kind, fields, _TO[kind])
    mode = fields.get("mode", "min" if kind == "inline" else "max")
    if mode not in ("min", "max"):
        raise _bad(f"`{flag}` has no `mode={mode}`", "write `mode=max` (all stages) or `mode=min` (those of the image)")
    may_fail = _switch(fields, "ignore-error")
    if kind == "inline":
        return CacheTarget(kind, is_whole=mode == "max")
    made = CacheTarget(kind, is_whole=mode == "max", may_fail=may_fail, codec=_codec(fields))
    made = made._replace(with_mounts=_switch(fields, "cache-mounts"))
    if kind == "local":
        return made._replace(folder=_needed(flag, kind, fields, "dest"), tag=fields.get("tag", "latest"))
    if kind == "s3":
        return made._replace(bucket=_bucket(flag, fields, environment))
    reference = _reference(_needed(flag, kind, fields, "ref"))
    if reference.digest is not None:
        raise _bad(f"`{reference.familiar()}` has a digest; a cache gets a tag", "write `ref=HOST/NAME:TAG`")
    return made._replace(reference=reference)


def _switch(fields: Mapping[str, str], key: str) -> bool:
    found = _WORDS.get(fields.get(key, "false").lower())
    if found is None:
        raise _bad(f"`{key}={fields[key]}` is neither `true` nor `false`", f"write `{key}=true`")
    return found


def _bucket(flag: str, fields: Mapping[str, str], environment: Mapping[str, str]) -> Bucket:
    """As BuildKit: what the flag does not say is in `AWS_BUCKET` and `AWS_REGION`."""
    name = fields.get("bucket") or environment.get("AWS_BUCKET") or _needed(flag, "s3", fields, "bucket")
    return Bucket(
        bucket=name,
        name=fields.get("name", "aerogel"),
        region=fields.get("region", ""),
        prefix=fields.get("prefix", ""),
        endpoint_url=fields.get("endpoint_url", ""),
        use_path_style=_switch(fields, "use_path_style"),
        access_key_id=fields.get("access_key_id", ""),
        secret_access_key=fields.get("secret_access_key", ""),
        session_token=fields.get("session_token", ""),
    )


def _fields(flag: str, text: str) -> tuple[str, dict[str, str]]:
    parts = next(csv.reader([text]), [])
    if len(parts) == 1 and "=" not in parts[0]:
        return "registry", {"ref": parts[0]}
    fields: dict[str, str] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign:
            raise _bad(f"`{part}` in `{flag} {text}` has no value", "write `key=value,key=value`")
        fields[key.strip().lower()] = value
    kind = fields.pop("type", "")
    if kind in ELSEWHERE:
        raise _bad(
            f"`{flag}` cannot speak to `{kind}`",
            "keep the cache in a registry (`type=registry,ref=NAME`), or in a folder (`type=local`) that is kept there",
        )
    if kind not in _TYPES:
        guess = nearest(kind, _TYPES)
        what = f"`{flag}` has no type `{kind}`" if kind else f"`{flag} {text}` has no type"
        raise _bad(what, f"did you mean `{guess}`?" if guess else "write `type=registry,ref=NAME`")
    return kind, fields


def _check(flag: str, kind: str, fields: Mapping[str, str], known: set[str]) -> None:
    for key, value in fields.items():
        if key in _SAME_HERE:
            if value.lower() not in (_SAME_HERE[key], {"true": "1", "false": "0"}[_SAME_HERE[key]]):
                raise _bad(f"`{flag}` cannot have `{key}={value}`", f"leave it out: it is always `{_SAME_HERE[key]}`")
        elif key not in known:
            guess = nearest(key, known)
            listed = ", ".join(f"`{one}`" for one in ("type", *sorted(known)))
            raise _bad(
                f"`{flag}` of type `{kind}` has no key `{key}`",
                f"did you mean `{guess}`?" if guess else f"known keys are {listed}",
            )


def _needed(flag: str, kind: str, fields: Mapping[str, str], key: str) -> str:
    value = fields.get(key, "")
    if not value:
        raise _bad(f"`{flag}` of type `{kind}` needs `{key}`", f"write `type={kind},{key}=...`")
    return value


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


def _codec(fields: Mapping[str, str]) -> Codec | None:
    name, level = fields.get("compression", ""), fields.get("compression-level", "")
    if not name and not level:
        return None
    if level and not (level.isascii() and level.isdecimal()):
        raise _bad(f"`compression-level={level}` is not a number", "levels are 0 to 9 for gzip, 1 to 22 for zstd")
    try:
        return select(name or "gzip", int(level) if level else None)
    except AerogelError as error:
        error.exit_status = EXIT_USAGE
        raise


def _bad(message: str, hint: str) -> AerogelError:
    return AerogelError(message, code="build.bad-cache", exit_status=EXIT_USAGE, hints=[hint])
